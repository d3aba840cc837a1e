// One row as the maps' kernels see it, and how a row is walked: in vectors, in blocks, by a team of threads.
//
// A row is contiguous and of the working type here unless its Source says otherwise; layouts are the driver's business. Sums are
// taken block by block and added in the order of the blocks, whoever computes them, so that no bit depends on the team.
#pragma once

#include <limits>
#include <type_traits>

#include "call.h"
#include "elementary.h"
#include "narrow.h"
#include "threads.h"

// A function of a vector is inlined, one of a block is not: it is called from several places.
#define BODY __attribute__((always_inline))

namespace softplex::SOFTPLEX_ISA {

// Entries that one thread walks at a stretch; a multiple of all lanes.
constexpr Index BLOCK = 16384;
// The candidates of a sparse row that are kept in a list; a row with more is walked instead.
constexpr Index LIST = 16384;
constexpr Index LIST_ROOM = LIST + 32;
// Rows from here on are shared by the threads block by block. Of a sparse one each block has a list of its own, and the largest
// scores of each lane of two vectors in so many entries are its peaks, which stand for the row in a first look.
constexpr Index HUGE_ROW = 1 << 18;
constexpr Index SLOT = 1024, SLOT_ROOM = SLOT + 64;
constexpr Index PEAKED = 4096;
INLINE Index list_room(Index n) {
    if (n >= HUGE_ROW) return LIST_ROOM + (n + BLOCK - 1) / BLOCK * SLOT_ROOM;
    return n + 64 < LIST_ROOM ? n + 64 : LIST_ROOM;
}

template <class T>
struct Seam;
template <class T>
struct Unwritten;

template <class T>
struct Row {
    using Whole = typename Lanes<T>::Integers;

    const T* x = nullptr;
    const T* operand = nullptr;
    // What x was computed from.
    const T* scores = nullptr;
    // What some walks read in place of x alone, and where what they find goes in place of the result: see Source.
    const char* mask = nullptr;
    const std::uint16_t* narrow_x = nullptr;
    std::uint16_t* narrow_result = nullptr;
    Type type = Type::float32;
    T* result = nullptr;
    // Where the exponentials of a row are kept between two passes; none: they are computed twice.
    T* terms = nullptr;
    // The scores of a sparse row's candidates; of a huge one before that its peaks, and behind it the lists of its blocks.
    T* list = nullptr;
    Index n = 0;
    Index label = 0;
    bool is_negated = false;
    bool has_sink = false;
    bool is_tempered = false;
    // The result is larger than the caches and written past them.
    bool streams = false;
    // So is x.
    bool comes_from_afar = false;
    // The result is written through the caches, and does not stay in the nearest.
    bool goes_afar = false;
    Seam<T>* seam = nullptr;
    // Where weights or their logarithms are left, to be written while the next row is walked.
    Unwritten<T>* unwritten = nullptr;
    double temperature = 1.0;
    double sink = 0.0;
    double alpha = 1.5;
    // Of a residual.
    double scale = 1.0;
    // Of a sparse map: where a loss leaves what it has solved, and what a residual has not to solve again; may be absent.
    Solved* left = nullptr;
    const Solved* found = nullptr;
    // The largest score, the sink's among them.
    double top = 0.0;

    // A sign bit where the map is that of -x.
    INLINE Whole sign() const { return bits_of<Whole>(all(is_negated ? -T(0) : T(0))); }
    // What the derivatives in the user's scores are multiplied by.
    INLINE double outer() const { return (is_negated ? -1.0 : 1.0) / temperature; }
};

template <class T>
constexpr T INFINITE = static_cast<T>(__builtin_inf());
template <class T>
constexpr T LARGEST = std::numeric_limits<T>::max();

// -- vectors of a row ------------------------------------------------------------------------------------------------

// body(i, count) for consecutive vectors; all but the last are whole. For loops that must be fast: the body stands twice.
template <class T, class Body>
INLINE void each_vector(Index begin, Index end, const Body& body) {
    constexpr int LANES = Lanes<T>::count;
    Index i = begin;
    for (; i + LANES <= end; i += LANES) body(i, LANES);
    if (i < end) body(i, static_cast<int>(end - i));
}
// The same with the body standing once.
template <class T, class Body>
INLINE void each_vector_once(Index begin, Index end, const Body& body) {
    constexpr int LANES = Lanes<T>::count;
    for (Index i = begin; i < end; i += LANES) body(i, static_cast<int>(end - i < LANES ? end - i : LANES));
}
template <class T>
INLINE Vector<T> take(const T* from, int count, T fill) {
    return count == Lanes<T>::count ? load(from) : load_some<T>(from, count, fill);
}
template <class T>
INLINE void put(T* to, const Vector<T>& v, int count) {
    if (count == Lanes<T>::count)
        store(to, v);
    else
        store_some<T>(to, v, count);
}
// The scores that the map sees, but for the temperature; -inf past the end.
template <class T>
INLINE Vector<T> scores(const Row<T>& row, const typename Row<T>::Whole& sign, Index i, int count) {
    return flipped(take<T>(row.x + i, count, row.is_negated ? INFINITE<T> : -INFINITE<T>), sign);
}

template <class T, int COUNT = SEVERAL>
using SeveralOf = std::conditional_t<sizeof(T) == 4, Pack<NativeFloats, COUNT * PARTS>, Pack<NativeDoubles, COUNT * PARTS>>;
template <class T>
INLINE SeveralOf<T> several_scores(const Row<T>& row, const typename Row<T>::Whole& sign, Index i) {
    return flipped(load_as<SeveralOf<T>>(row.x + i), sign);
}

// A cache line of the result that two rows share, until both are there: half of it, stored, would have to wait for the
// other half to come from memory, and all streamed stores after it.
template <class T>
struct Seam {
    static constexpr int LANES = Lanes<T>::count;
    T line[LANES];
    T* place = nullptr;
    int filled = 0;

    // Some lanes for `to`, which lies `skipped` entries after the line's beginning.
    INLINE void put(T* to, int skipped, const Vector<T>& v, int count) {
        if (to - skipped != place || skipped != filled) {
            flush();
            if (skipped > 0) return store_some<T>(to, v, count);
            place = to;
        }
        store_some<T>(line + skipped, v, count);
        filled = skipped + count;
        if (filled < LANES) return;
        stream<T>(place, load(line));
        place = nullptr;
        filled = 0;
    }
    INLINE void flush() {
        if (place != nullptr) store_some<T>(place, load_some<T>(line, filled, T(0)), filled);
        place = nullptr;
        filled = 0;
    }
};
template <class T>
INLINE void put_part(const Row<T>& row, T* to, int skipped, const Vector<T>& v, int count) {
    if (row.seam != nullptr)
        row.seam->put(to, skipped, v, count);
    else
        store_some<T>(to, v, count);
}

// Writes body(i, count) to the result. What is streamed reaches other threads with finish_streaming, once a piece: each
// call waits until the memory has taken all.
template <class T, class Body>
INLINE void write(const Row<T>& row, Index begin, Index end, const Body& body) {
    constexpr int LANES = Lanes<T>::count;
    T* const result = row.result;
    if (!row.streams) {
        each_vector<T>(begin, end, [&](Index i, int count) BODY { put<T>(result + i, body(i, count), count); });
        return;
    }
    Index i = begin;
    const int misplaced = static_cast<int>(reinterpret_cast<std::uintptr_t>(result + i) % 64 / sizeof(T));
    if (misplaced != 0) {
        const int count = LANES - misplaced < end - i ? LANES - misplaced : static_cast<int>(end - i);
        put_part<T>(row, result + i, misplaced, body(i, count), count);
        i += count;
    }
    for (; i + LANES <= end; i += LANES) stream<T>(result + i, body(i, LANES));
    if (i < end) put_part<T>(row, result + i, 0, body(i, static_cast<int>(end - i)), static_cast<int>(end - i));
}

// What lies a little ahead is to come into the nearest cache, and what lies far ahead into the next: the nearest has places for
// a few lines on their way, too few for the time that the memory takes. There lines come in pairs, of which one is asked for.
template <class T>
INLINE void ask_for(const T* from, int vectors) {
    constexpr Index NEAR = 4096 / sizeof(T), FAR = 16384 / sizeof(T);
    for (int j = 0; j < vectors; ++j) __builtin_prefetch(from + NEAR + j * Lanes<T>::count);
    for (int j = 0; j < vectors; j += 2) __builtin_prefetch(from + FAR + j * Lanes<T>::count, 0, 2);
}
// Asks the memory for entries that a walk at i comes to later, in this row or the next.
template <class T>
INLINE void ask_ahead(const Row<T>& row, Index i, int vectors) {
    if (!row.comes_from_afar) return;
    ask_for(row.x + i, vectors);
    if (row.operand != nullptr) ask_for(row.operand + i, vectors);
}
// The same of places that are written to.
template <class T>
INLINE void ask_ahead_to_write(const Row<T>& row, const T* to, int vectors) {
    constexpr Index AHEAD = 4096 / sizeof(T);
    if (!row.goes_afar) return;
    for (int j = 0; j < vectors; ++j) __builtin_prefetch(to + AHEAD + j * Lanes<T>::count, 1);
}

// Where a walk finds the scores of a row: packed in the working type, beside a mask whose bytes are 0 where a score counts as
// -inf, or in sixteen bits.
enum class Source { plain, masked, float16, bfloat16 };
constexpr Type type_of(Source source) { return source == Source::float16 ? Type::float16 : Type::bfloat16; }

// Scores as `scores` and `several_scores` give them.
template <Source FROM, class T>
INLINE Vector<T> scores_from(const Row<T>& row, const typename Row<T>::Whole& sign, Index i, int count) {
    if constexpr (FROM == Source::plain) return scores(row, sign, i, count);
    if constexpr (FROM == Source::masked) return select(marked<T>(row.mask + i, count), scores(row, sign, i, count), all(-INFINITE<T>));
    if constexpr (FROM == Source::float16 || FROM == Source::bfloat16)
        return flipped(load_narrow<type_of(FROM)>(row.narrow_x + i, count, row.is_negated ? INFINITE<T> : -INFINITE<T>), sign);
}
template <Source FROM, class T>
INLINE SeveralOf<T> several_scores_from(const Row<T>& row, const typename Row<T>::Whole& sign, Index i) {
    constexpr int LANES = Lanes<T>::count;
    if constexpr (FROM == Source::plain) return several_scores(row, sign, i);
    if constexpr (FROM == Source::masked) {
        SeveralOf<T> x = several_scores(row, sign, i);
        if (row.comes_from_afar) __builtin_prefetch(row.mask + i + 4096);
        for (int j = 0; j < SEVERAL; ++j)
            set_one_of(x, j, select(marked<T>(row.mask + i + j * LANES), one_of(x, j), all(-INFINITE<T>)));
        return x;
    }
    if constexpr (FROM == Source::float16 || FROM == Source::bfloat16) {
        SeveralOf<T> x;
        for (int j = 0; j < SEVERAL; ++j) set_one_of(x, j, flipped(load_narrow<type_of(FROM)>(row.narrow_x + i + j * LANES), sign));
        return x;
    }
}
// `write` for weights, which may have to be rounded to sixteen bits.
template <class T, class Body>
INLINE void write_weights(const Row<T>& row, Index begin, Index end, const Body& body) {
    if constexpr (sizeof(T) == 4) {
        std::uint16_t* const to = row.narrow_result;
        if (to != nullptr && row.type == Type::float16)
            return each_vector<T>(begin, end, [&](Index i, int count) BODY { store_narrow<Type::float16>(to + i, body(i, count), count); });
        if (to != nullptr)
            return each_vector<T>(begin, end, [&](Index i, int count) BODY { store_narrow<Type::bfloat16>(to + i, body(i, count), count); });
    }
    write<T>(row, begin, end, body);
}

// Zeros stay zeros where the scale is too large for the type.
template <class T>
INLINE Vector<T> scaled(const Vector<T>& residual, const Vector<T>& scale) {
    return select(residual == all(T(0)), residual, residual * scale);
}

// -- teams -------------------------------------------------------------------------------------------------------------

// Sums of one walk over a row, and the largest score where it was looked for.
struct Totals {
    Total first, second, third;
    double top = -__builtin_inf();

    INLINE void add(const Totals& other) {
        first.add(other.first);
        second.add(other.second);
        third.add(other.third);
        top = other.top > top ? other.top : top;
    }
};

// The threads that share a row: one, unless the row is huge.
struct Team {
    int threads = 1;
    bool shares = false;
    bool is_stopped = false;
    Interrupt interrupt;
    // Room for one Totals a block, where the row is shared.
    Totals* found = nullptr;

    // body(begin, end) for all blocks.
    template <class Body>
    INLINE void each_block(Index n, Body body) {
        if (n <= BLOCK) {
            body(Index(0), n);
        } else if (!shares) {
            for (Index begin = 0; begin < n; begin += BLOCK) body(begin, begin + BLOCK < n ? begin + BLOCK : n);
        } else {
            share_blocks(n, body);
        }
    }

    // The sum of body(begin, end) over all blocks, in their order.
    template <class Body>
    INLINE Totals sum(Index n, Body body) {
        if (n <= BLOCK) return body(Index(0), n);
        Totals whole;
        if (!shares) {
            for (Index begin = 0; begin < n; begin += BLOCK) whole.add(body(begin, begin + BLOCK < n ? begin + BLOCK : n));
            return whole;
        }
        Totals* const room = found;
        share_blocks(n, [&, room](Index begin, Index end) { room[begin / BLOCK] = body(begin, end); });
        if (is_stopped) return whole;
        for (Index begin = 0; begin < n; begin += BLOCK) whole.add(room[begin / BLOCK]);
        return whole;
    }

  private:
    template <class Body>
    void share_blocks(Index n, Body body) {
        struct Job {
            Body& body;
            Index n;
        } job{body, n};
        if (is_stopped) return;
        const Work work = [](void* state, Index piece, int) {
            Job& mine = *static_cast<Job*>(state);
            const Index begin = piece * BLOCK;
            mine.body(begin, begin + BLOCK < mine.n ? begin + BLOCK : mine.n);
            finish_streaming();
        };
        is_stopped = !share((n + BLOCK - 1) / BLOCK, threads, false, work, &job, interrupt);
    }
};

template <class T>
INLINE void write_zeros(const Row<T>& row, Team& team) {
    team.each_block(row.n, [&](Index begin, Index end) APART {
        write<T>(row, begin, end, [&](Index, int) BODY { return all(T(0)); });
    });
}

// -- the top of a row --------------------------------------------------------------------------------------------------

// The peaks of a huge row, as many as its list has room for.
template <class T>
INLINE Index peaks_of(const Row<T>& row) {
    if (row.list == nullptr || row.n < HUGE_ROW) return 0;
    const Index peaks = (row.n + PEAKED - 1) / PEAKED * 2 * Lanes<T>::count;
    return peaks < LIST ? peaks : LIST;
}

// The largest score of a block and whether NaN is among them, as a pair of numbers.
template <class T>
APART inline Totals top_of_block(const Row<T>& row, Index begin, Index end) {
    constexpr int LANES = Lanes<T>::count;
    const auto sign = row.sign();
    const Index peaks = peaks_of(row), step = peaks > 0 ? PEAKED : BLOCK;
    Vector<T> top = all(-INFINITE<T>);
    auto bad = unordered(top, top);
    for (Index i = begin; i < end; i += step) {
        const Index stop = i + step < end ? i + step : end;
        Vector<T> first = all(-INFINITE<T>), second = first;
        Index j = i;
        for (; j + 2 * LANES <= stop; j += 2 * LANES) {
            ask_ahead(row, j, 2);
            const Vector<T> a = scores(row, sign, j, LANES), b = scores(row, sign, j + LANES, LANES);
            bad = bad | unordered(a, b);
            first = larger(a, first);
            second = larger(b, second);
        }
        each_vector<T>(j, stop, [&](Index k, int count) BODY {
            const Vector<T> a = scores(row, sign, k, count);
            bad = bad | unordered(a, a);
            first = larger(a, first);
        });
        if (const Index place = i / PEAKED * 2 * LANES; place < peaks) {
            store(row.list + place, first);
            store(row.list + place + LANES, second);
        }
        top = larger(top, larger(first, second));
    }
    Totals found;
    found.top = static_cast<double>(largest_of(top));
    found.second.hi = any(bad) ? 1.0 : 0.0;
    return found;
}

// The largest score of a row, NaN where NaN is among them.
template <class T>
INLINE double top_of(const Row<T>& row, Team& team) {
    if (row.n <= BLOCK) {
        const Totals found = top_of_block(row, 0, row.n);
        return found.second.hi != 0.0 ? __builtin_nan("") : found.top;
    }
    double top = -__builtin_inf();
    bool is_bad = false;
    const auto join = [&](const Totals& part) {
        top = part.top > top ? part.top : top;
        is_bad = is_bad || part.second.hi != 0.0;
    };
    if (!team.shares) {
        team.each_block(row.n, [&](Index begin, Index end) APART { join(top_of_block(row, begin, end)); });
    } else {
        team.each_block(row.n, [&](Index begin, Index end) APART { team.found[begin / BLOCK] = top_of_block(row, begin, end); });
        if (!team.is_stopped)
            for (Index begin = 0; begin < row.n; begin += BLOCK) join(team.found[begin / BLOCK]);
    }
    return is_bad ? __builtin_nan("") : top;
}

}  // namespace softplex::SOFTPLEX_ISA
