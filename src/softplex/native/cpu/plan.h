// How the rows of a call lie, how they are shared among threads, and what scratch memory a thread takes. No row is computed here.
#pragma once

#include <cstdlib>

#include "far_columns.h"
#include "maxout.h"
#include "middle_rows.h"
#include "short_rows.h"

namespace softplex::SOFTPLEX_ISA {

// A thread takes about so many entries at a time.
constexpr Index PIECE = 1 << 15;
constexpr Index SCRATCH = 1 << 20;
// Arrays beyond it do not stay in the cache of one processor, and have to be asked for in time.
constexpr Index AT_HAND = 1 << 20;

INLINE bool has_entries(Method method) {
    return method != Method::loss && method != Method::loss_of_index && method != Method::support_size &&
           method != Method::winner && method != Method::smooth_max && (method == Method::backward || !takes_results(method));
}
INLINE bool has_operand(Method method) {
    return method == Method::vjp || method == Method::jvp || method == Method::residual || method == Method::loss ||
           (takes_results(method) && method != Method::of_temperature_from_gradient && method != Method::conjugate_by_alpha);
}

template <class E>
INLINE bool is_packed_as(const Call& call, const Array& array) {
    const Index size = static_cast<Index>(sizeof(E));
    if (call.row_axes != 1) return false;
    if (array.strides[call.batch_axes] != size && call.shape[call.batch_axes] > 1) return false;
    Index misfits = static_cast<Index>(reinterpret_cast<std::uintptr_t>(array.data));
    for (int axis = 0; axis < call.batch_axes; ++axis) misfits |= array.strides[axis];
    return (misfits & (size - 1)) == 0;
}
template <class T>
INLINE bool is_packed(const Call& call, const Array& array) {
    return size_of(call.type) == static_cast<Index>(sizeof(T)) && is_packed_as<T>(call, array);
}

// How the rows of a call lie and what memory they take.
template <class T>
struct Plan {
    Index rows = 1, n = 1, pitch = 0;
    bool x_packed, operand_packed, scores_packed, result_packed, is_worth_streaming, streams, is_far, comes_from_afar, goes_afar, is_tiled = false;
    bool is_plain;  // neither temperature nor sink
    bool follows = false;  // short rows follow each other in scratch memory as they do in the arrays, and are brought in as one
    Source source = Source::plain;  // where scores are read by those who know how, before any row is brought into scratch memory
    Index columns = 0;  // rows that lie across which are taken side by side
    bool columns_stay = false;  // and which are not brought into scratch memory
    bool parts_stay = false;  // nor are those that are too few for a strip
    bool turns_operand = false;  // of these the operand alone does not lie across
    Index fewest = Strip::COUNT;  // how many rows are taken so: fewer than fill a strip are brought in
    bool leaves_rows = false;  // so long that those which need more care are left until all others are done, to be shared
    bool lags = false;  // weights, or their logarithms, are written while the next rows are walked
    bool widens;  // some rows may have to be computed in double
    bool is_huge;
    bool is_short;  // rows are taken several at a time, by ShortRows
    bool is_middle = false;  // or by MiddleRows
    bool is_solved;  // of a sparse map
    bool is_apart;  // weights are kept apart from the scores
    bool is_backward;  // x holds the weights, or their logarithms
    bool is_log;
    Index at_once = 1;  // rows that those two take
    Index group = 1;   // rows that are brought in together
    Index groups = 1;  // per piece
    Index pieces = 1;
    Index bytes = 0;  // of scratch a thread

    Plan(const Call& call, bool lists, bool is_widened, Index longest_short, Index longest_middle, bool takes_columns) {
        for (int axis = 0; axis < call.batch_axes; ++axis) rows *= call.shape[axis];
        for (int axis = 0; axis < call.row_axes; ++axis) n *= call.shape[call.batch_axes + axis];
        pitch = (n + 31) / 16 * 16;
        is_backward = takes_results(call.method);
        x_packed = is_packed<T>(call, call.x) && call.mask.data == nullptr;
        operand_packed = !has_operand(call.method) || is_packed<T>(call, call.operand);
        scores_packed = call.scores.data == nullptr || is_packed<T>(call, call.scores);
        result_packed = has_entries(call.method) && is_packed<T>(call, call.result);
        // Rows of one entry are best taken side by side, too.
        if (n == 1 && takes_columns && crosses(call, call.x)) {
            x_packed = result_packed = false;
            operand_packed = !has_operand(call.method);
        }
        const Index arrays = is_backward ? 3 : 2;
        const Index size = (arrays * static_cast<Index>(sizeof(T)) + (call.mask.data != nullptr ? 1 : 0)) * rows * n;
        // What was just read is at hand, and needs not come again to be written to.
        is_worth_streaming = is_beyond_cache(size, call) && !call.is_result_new && call.result.data != call.x.data;
        streams = result_packed && is_worth_streaming;
        is_far = size > AT_HAND;
        comes_from_afar = x_packed && is_far;
        goes_afar = result_packed && !streams && size > 16 * AT_HAND;
        const bool is_tempered = call.temperature.rows.data != nullptr || call.temperature.fixed != 1.0;
        is_log = call.map == Map::log_softmax;
        widens = is_widened && sizeof(T) == 4 && !is_backward && (is_tempered || call.has_sink);
        is_apart = call.method == Method::residual || call.method == Method::residual_of_index;
        is_huge = n >= HUGE_ROW && (rows < 4 * call.threads || n >= 4 * HUGE_ROW);
        is_plain = !is_tempered && !call.has_sink;
        is_solved = !is_backward && !is_log && call.map != Map::softmax;
        // A lone row of a sparse map has no others to do while it waits.
        const bool is_lone = is_solved && rows == 1;
        // Sinks are known beside short rows of softmax and its logarithm.
        const bool is_sunk = call.has_sink && (is_solved || n > Softmax<float>::SHORT);
        is_short = n <= longest_short && (is_backward || is_plain || !is_sunk) && !is_lone;
        if (is_short) group = at_once = ShortRows::at_once(n, is_backward, is_solved, is_tempered);
        // Rows of doubles behind the scratch memory of such rows would not be aligned.
        follows = is_short && n > 1 && !widens && needs_x() && follow_each_other(call);
        if (follows) pitch = n;
        choose_tiles(call);
        source = source_of(call);
        lags = can_lag(call);  // after the source, which is the same whether they do or not
        is_middle = !is_short && (is_solved || !is_tiled) && is_plain && n <= longest_middle && !is_lone;
        if (is_middle) at_once = MiddleRows::at_once(n, has_operand(call.method), lags);
        if (is_middle && !is_tiled) group = at_once;
        const bool is_known = is_backward || is_plain || (!is_sunk && (call.method == Method::value || n <= Softmax<float>::SHORT));
        if (takes_columns && crosses(call, call.x) && is_known) choose_columns(call);
        bytes = scratch_bytes(lists);
        const Index piece = lags ? large_piece(call.threads) : PIECE, least = columns > 1 ? columns : 1;
        const Index per_piece = n > 0 && piece / n > least ? piece / n : least;
        groups = per_piece / group > 1 ? per_piece / group : 1;
        pieces = (rows + groups * group - 1) / (groups * group);
    }

    // Rows that the scratch memory has room for.
    INLINE Index taken_together() const {
        Index in_columns = columns_stay ? 0 : columns;
        if (in_columns == 0 && fewest < Strip::COUNT && !parts_stay) in_columns = Strip::COUNT;
        // Strips of a sparse map that need more care are turned.
        if (is_solved && in_columns > 0) in_columns += Strip::COUNT;
        return group > in_columns ? group : in_columns;
    }
    INLINE bool needs_x() const { return !x_packed || !result_packed; }
    // Whether the exponentials of a row have a place of their own: that of the result is not to be read again, or holds x.
    INLINE bool keeps_terms() const {
        const Index row = pitch * static_cast<Index>(sizeof(T));
        // Exponentials cost less beside a walk that waits for memory.
        if (is_backward) return is_log && streams && row <= SCRATCH;
        if (lags) return !is_log;
        if (streams) return (needs_x() ? 2 : 1) * row <= SCRATCH;
        return !x_packed && !result_packed && row <= SCRATCH / 4;
    }
    // Rows whose terms are kept: of those that are walked, and of those that wait.
    INLINE Index kept_at_once() const { return (is_middle ? group : 1) * (lags ? 2 : 1); }

  private:
    // Whether rows, masks and results lie packed, one behind the other.
    bool follow_each_other(const Call& call) const {
        const Index size = size_of(call.type);
        const auto follow = [&](const Array& array, Index step) {
            return call.row_axes == 1 && call.batch_axes == 1 && array.strides[0] == n * step && (array.strides[1] == step || n == 1);
        };
        const bool is_whole = ((reinterpret_cast<std::uintptr_t>(call.x.data) | reinterpret_cast<std::uintptr_t>(call.result.data)) &
                               static_cast<std::uintptr_t>(size - 1)) == 0;
        return is_whole && follow(call.x, size) && (call.mask.data == nullptr || follow(call.mask, 1)) &&
               (result_packed || !has_entries(call.method) || follow(call.result, size));
    }
    Source source_of(const Call& call) const {
        const bool is_known = sizeof(T) == 4 && call.map == Map::softmax && call.method == Method::value && is_plain && !is_short;
        if (!is_known || call.row_axes != 1) return Source::plain;
        if (call.mask.data == nullptr) {
            const bool is_narrow = size_of(call.type) == 2 && is_packed_as<std::uint16_t>(call, call.x);
            if (!is_narrow || !is_packed_as<std::uint16_t>(call, call.result)) return Source::plain;
            return call.type == Type::float16 ? Source::float16 : Source::bfloat16;
        }
        const bool reads = result_packed && is_packed<T>(call, call.x) && call.mask.strides[call.batch_axes] == 1;
        return reads && (!streams || keeps_terms()) ? Source::masked : Source::plain;
    }
    // At the end of each piece some rows have no others to be written beside.
    Index large_piece(Index threads) const {
        const Index fair = rows * n / (threads * 16), most = 64 * PIECE;
        return fair < PIECE ? PIECE : fair < most ? fair : most;
    }
    // What is read and what is kept of two rows is to stay in the core's own cache. A masked row may have to be brought in, too.
    bool can_lag(const Call& call) const {
        const bool is_known = sizeof(T) == 4 && (call.map == Map::softmax || is_log) && call.method == Method::value && is_plain;
        const Index row = pitch * static_cast<Index>(sizeof(T)), held = (is_log ? 0 : 2) + (needs_x() ? 1 : 0);
        const bool is_fit = !is_short && !is_huge && 4 * row <= own_cache_size() && held * row < SCRATCH;
        return is_known && is_fit && (streams || goes_afar) && (x_packed || source == Source::masked);
    }
    // Whether the entries of a row lie further apart than those of neighbouring rows, which are neighbours in memory.
    bool crosses(const Call& call, const Array& array) const {
        if (call.row_axes != 1 || call.batch_axes == 0) return false;
        const Index size = size_of(call.type);
        return array.strides[call.batch_axes - 1] == size && (n == 1 || array.strides[call.batch_axes] != size);
    }
    void choose_tiles(const Call& call) {
        if (x_packed || n <= 1) return;
        const Index line = 64 / size_of(call.type), room = SCRATCH / (4 * pitch * static_cast<Index>(sizeof(T)));
        if (!crosses(call, call.x) || call.shape[call.batch_axes - 1] < 4 || room < 4) return;
        group = room < line ? room / 4 * 4 : line;
        is_tiled = true;
    }
    void choose_columns(const Call& call) {
        const bool is_known = crosses(call, call.result) && (is_tiled || n == 1) && n <= Lines::LONGEST;
        const bool is_operand_known = !has_operand(call.method) || crosses(call, call.operand);
        if (is_known && is_operand_known) fewest = fewest_of(call);
        if (!crosses(call, call.result)) return;
        if (can_stay(call)) return stay(call);
        if (call.shape[call.batch_axes - 1] < Strip::COUNT) return;
        if (is_backward && operand_packed && stays(call, call.x))
            turn_operand(call);
        else if (is_known && is_operand_known)
            columns = columns_that_fit(call);
    }
    // Fewer leave a strip all but empty, and what they are filled up with must not keep a sparse map busy.
    Index fewest_of(const Call& call) const {
        if (strips_in(SCRATCH, !has_operand(call.method)) == 0 || (is_solved && n > Strip::COUNT)) return Strip::COUNT;
        return n <= Softmax<float>::SHORT ? 5 : 8;
    }
    // Whether entries are read where they lie: of a way back, or of values of which no strip would fit. Also of fewer rows than
    // a strip has; those that are too few for that are then taken alone. One strip keeps but one thread busy: many share a row.
    bool can_stay(const Call& call) const {
        if (is_huge && call.threads > 3 * ((rows + Strip::COUNT - 1) / Strip::COUNT)) return false;
        if (is_backward) return stays(call, call.x) && stays(call, call.operand);
        const bool is_long = n > Lines::LONGEST || columns_that_fit(call) == 0;
        return is_plain && is_long && !is_solved && call.method == Method::value && n <= FarColumns::LONGEST && stays(call, call.x);
    }
    void stay(const Call& call) {
        columns_stay = true;
        columns = columns_that_stay(call);
        parts_stay = Lines::reads_parts(call.type, n);
        if (parts_stay) fewest = is_backward ? 5 : 9;  // fewer are not worth the lanes that they leave empty
        leaves_rows = n > Lines::LONGEST;
    }
    void turn_operand(const Call& call) {
        columns = columns_that_fit(call);
        if (columns == 0) return;
        operand_packed = false;
        turns_operand = true;
    }
    bool stays(const Call& call, const Array& array) const {
        const Index size = size_of(call.type);
        Index misfits = static_cast<Index>(reinterpret_cast<std::uintptr_t>(array.data));
        for (int axis = 0; axis <= call.batch_axes; ++axis) misfits |= array.strides[axis];
        return crosses(call, array) && size <= static_cast<Index>(sizeof(float)) && misfits % size == 0;
    }
    // As many as stay in the core's own cache from the first walk to the second, but some in any case; not so many that a thread
    // has nothing to do, or that nobody can interrupt them.
    Index columns_that_stay(const Call& call) const {
        const Index line = Strip::COUNT * static_cast<Index>(sizeof(float)), fit = own_cache_size() / 2 / (2 * n * line);
        const Index fair = (rows / call.threads + Strip::COUNT - 1) / Strip::COUNT;
        const Index some = n <= (Index(1) << 22) ? 4 : 1, least = fit < some ? some : fit, shared = least < fair ? least : fair;
        return (shared < Lines::STRIPS ? shared : Lines::STRIPS) * Strip::COUNT;
    }
    // As many as leave most of the core's own cache to what is read and written beside them, and room for a strip that needs
    // more care. Lines that are a multiple of 2 KiB apart share few places of that cache: of them wider parts are fetched at once.
    Index columns_that_fit(const Call& call) const {
        const bool is_alone = !has_operand(call.method);
        const bool is_crowded = is_alone && call.x.strides[call.batch_axes] % (32 * 64) == 0;
        const Index half = strips_in(own_cache_size() / 2, is_alone), quarter = strips_in(own_cache_size() / 4, is_alone);
        const Index least = half < 4 ? half : 4, strips = is_crowded ? half : quarter > least ? quarter : least;
        return strips > Lines::STRIPS ? Lines::MOST : strips > 0 ? strips * Strip::COUNT : 0;
    }
    Index strips_in(Index room, bool is_alone) const {
        const Index row = pitch * static_cast<Index>(sizeof(T)), strip = Strip::COUNT * row;
        // What rows that need more care have beside themselves: terms, and sparse ones a list.
        const Index beside = is_solved ? strip + list_room(n) * static_cast<Index>(sizeof(T)) : row;
        const Index most = SCRATCH - beside > 0 ? SCRATCH - beside : 0;
        return (room < most ? room : most) / (is_alone ? strip : 2 * strip) - (is_solved ? 1 : 0);
    }
    Index scratch_bytes(bool lists) const {
        const Index row = pitch * static_cast<Index>(sizeof(T));
        Index total = 64;
        if (needs_x()) total += taken_together() * row;
        if (!operand_packed) total += taken_together() * row;
        if (!scores_packed) total += row;
        if (keeps_terms()) total += kept_at_once() * row;
        if (is_apart) total += row;
        if (widens) total += 3 * pitch * 8;
        if (lists) total += list_room(n) * static_cast<Index>(sizeof(T));
        if (is_huge) total += (n / BLOCK + 1) * static_cast<Index>(sizeof(Totals));
        return (total + 63) / 64 * 64;
    }
};

// The scratch memory of a thread, cut as the plan says.
template <class T>
struct Scratch {
    T *x = nullptr, *operand = nullptr, *scores = nullptr, *terms = nullptr, *weights = nullptr;
    double *wide = nullptr, *wide_operand = nullptr, *wide_weights = nullptr;
    T* list = nullptr;
    Totals* found = nullptr;
    Seam<T>* seam = nullptr;
    Unwritten<T>* unwritten = nullptr;

    INLINE Scratch(const Plan<T>& plan, bool lists, char* memory) {
        if (plan.needs_x()) x = cut<T>(memory, plan.taken_together() * plan.pitch);
        if (!plan.operand_packed) operand = cut<T>(memory, plan.taken_together() * plan.pitch);
        if (!plan.scores_packed) scores = cut<T>(memory, plan.pitch);
        if (plan.keeps_terms()) terms = cut<T>(memory, plan.kept_at_once() * plan.pitch);
        if (plan.is_apart) weights = cut<T>(memory, plan.pitch);
        if (plan.widens) {
            wide_weights = cut<double>(memory, plan.pitch);
            wide = cut<double>(memory, plan.pitch);
            wide_operand = cut<double>(memory, plan.pitch);
        }
        if (lists) list = cut<T>(memory, list_room(plan.n));
        if (plan.is_huge) found = cut<Totals>(memory, plan.n / BLOCK + 1);
    }

  private:
    template <class E>
    static INLINE E* cut(char*& memory, Index count) {
        E* const start = reinterpret_cast<E*>(memory);
        memory += count * static_cast<Index>(sizeof(E));
        return start;
    }
};

}  // namespace softplex::SOFTPLEX_ISA
