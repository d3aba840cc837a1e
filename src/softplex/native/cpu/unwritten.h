// Rows whose weights or logarithms are known but for their writing. Where results go far they are written a few vectors at a
// time while the next rows are walked: computing does not wait for the memory then, nor the memory for computing.
// The operations are those of Softmax.
#pragma once

#include "faint.h"
#include "row.h"

namespace softplex::SOFTPLEX_ISA {

template <class T>
struct Unwritten {
    using V = Vector<T>;
    static constexpr int LANES = Lanes<T>::count, MOST = 8;

    const bool are_logarithms;

    // Rows of `common`'s length, sign and seam; terms of some are kept in either half of `memory` in turn, if any are.
    INLINE Unwritten(const Row<T>& the_common, bool they_are_logarithms, T* memory, Index half)
        : are_logarithms(they_are_logarithms), common(the_common), room{memory, memory + half} {}

    // Where the terms of rows go that are walked now: not where those are that wait.
    INLINE T* terms() const { return room[turn]; }

    // What waits is written, and others may be left.
    INLINE void take_turns() {
        finish();
        turn = 1 - turn;
    }
    // Each term is to be multiplied by hi + lo, but for the `leading`, which weigh `top`.
    INLINE void leave_weights(const T* from, T* result, const V& leading, const V& top, const V& hi, const V& lo) {
        rows[count++] = {from, result, leading, top, hi, lo, is_faint(from, hi, lo)};
    }
    // hi + lo is to be taken from the distance of each score from the top.
    INLINE void leave_logarithms(const T* x, T* result, const V& top, const V& hi, const V& lo) {
        rows[count++] = {x, result, top, top, hi, all(T(0)) - lo, false};
    }

    // Begins with the next row, if there is one: what comes before the first cache line that is its own.
    INLINE void start() {
        while (end == 0 && at < count && rows[at].is_faint) write_faint_row();
        if (end != 0 || at == count) return;
        end = common.n;
        T* const result = rows[at].result;
        const int misplaced = static_cast<int>(reinterpret_cast<std::uintptr_t>(result) % 64 / sizeof(T));
        if (misplaced == 0 || !common.streams) return;
        next = LANES - misplaced < end ? LANES - misplaced : end;
        put_part<T>(common, result, misplaced, any_value(0, static_cast<int>(next)), static_cast<int>(next));
    }
    // So many vectors of it, if there are as many.
    template <bool ARE_LOGARITHMS, int VECTORS>
    INLINE void go_on() {
        if (next + VECTORS * LANES > end) return;
        T* const to = rows[at].result + next;
        ask_ahead_to_write(common, to, VECTORS);
        for (int v = 0; v < VECTORS; ++v) {
            const V whole = value<ARE_LOGARITHMS>(next + v * LANES, LANES);
            if (common.streams)
                stream<T>(to + v * LANES, whole);
            else
                store(to + v * LANES, whole);
        }
        next += VECTORS * LANES;
    }
    // What is left of the row that is being written, or all of the next, if there is one.
    APART void write_row() {
        start();
        if (are_logarithms)
            while (next + LANES <= end) go_on<true, 1>();
        else
            while (next + LANES <= end) go_on<false, 1>();
        const int rest = static_cast<int>(end - next);
        if (rest > 0 && common.streams) put_part<T>(common, rows[at].result + next, 0, any_value(next, rest), rest);
        if (rest > 0 && !common.streams) store_some<T>(rows[at].result + next, any_value(next, rest), rest);
        at += end != 0;
        next = end = 0;
    }
    // All that waits.
    INLINE void finish() {
        while (at < count) write_row();
        at = count = 0;
    }

  private:
    struct One {
        const T* from;
        T* result;
        V leading, top, hi, lo;
        // Such rows are written by themselves.
        bool is_faint;
    };
    const Row<T> common;
    T* const room[2];
    One rows[MOST];
    int turn = 0, count = 0, at = 0;
    // Of the row that is being written; 0 if none is.
    Index next = 0, end = 0;

    template <bool IS_LOGARITHM>
    INLINE V value(Index i, int some) const {
        const One& one = rows[at];
        const V v = take<T>(one.from + i, some, T(0));
        if constexpr (IS_LOGARITHM) return ((flipped(v, common.sign()) - one.top) - one.hi) + one.lo;
        return select(v == one.leading, one.top, weight_of(v, one.hi, one.lo));
    }
    INLINE bool is_faint([[maybe_unused]] const T* from, [[maybe_unused]] const V& hi, [[maybe_unused]] const V& lo) const {
        if constexpr (sizeof(T) == 8) return false;
        if constexpr (sizeof(T) == 4) return Faint(hi, lo).is_met(0, common.n, [&](Index i, int) BODY { return load(from + i); });
    }
    APART void write_faint_row() {
        if constexpr (sizeof(T) == 4) {
            const One& one = rows[at];
            const Faint faint(one.hi, one.lo);
            Row<T> row = common;
            row.result = one.result;
            softplex::SOFTPLEX_ISA::write<T>(row, 0, row.n, [&, own = faint, from = one.from](Index i, int some) BODY {
                const V e = take<T>(from + i, some, T(0));
                return select(e == one.leading, one.top, own.weight(e));
            });
        }
        ++at;
    }
    INLINE V any_value(Index i, int some) const { return are_logarithms ? value<true>(i, some) : value<false>(i, some); }
};

}  // namespace softplex::SOFTPLEX_ISA
