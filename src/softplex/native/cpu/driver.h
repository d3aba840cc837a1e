// The row driver: from a call to rows, from rows to a map's kernel, and back. It serves every map alike; `Family` in
// kernels.cpp says which map runs which kernel.
//
// Rows that lie packed in the working type are computed where they are; weights of softmax from masked or 16-bit rows, too.
// Others are brought into scratch memory: one at a time, or where neighbours in memory belong to neighbouring rows a tile of
// them. Threads share the rows, or where a row is huge its blocks.
#pragma once

#include <optional>

#include "columns_backward.h"
#include "one_row.h"
#include "plan.h"

namespace softplex::SOFTPLEX_ISA {

constexpr double NOT_A_NUMBER = __builtin_nan("");

// -- the rows of a call ---------------------------------------------------------------------------------------------------

template <template <class> class Maps, class T>
struct Driver {
    const Call& call;
    const Plan<T>& plan;
    const bool lists;
    // A byte a row, not 0 where it is left; where the plan leaves none there is none.
    char* left;

    // All rows of a piece.
    void run_piece(Index piece, char* memory, Team& team) const {
        const Index rows_a_piece = plan.groups * plan.group, begin = piece * rows_a_piece;
        run_between(begin, begin + rows_a_piece < plan.rows ? begin + rows_a_piece : plan.rows, memory, team);
    }
    void run_between(Index begin, Index end, char* memory, Team& team) const {
        Seam<T> seam;
        std::optional<Unwritten<T>> unwritten;
        Scratch<T> scratch(plan, lists, memory);
        if (!team.shares) scratch.seam = &seam;
        team.found = scratch.found;
        if (plan.lags) {
            Row<T> common = common_of_rows(scratch);
            common.goes_afar = plan.goes_afar;
            const Index half = plan.keeps_terms() ? plan.kept_at_once() / 2 * plan.pitch : 0;
            scratch.unwritten = &unwritten.emplace(common, plan.is_log, scratch.terms, half);
        }
        for (Index row = begin; row < end && !team.is_stopped;) row += run_group(row, end, scratch, team);
        if (plan.lags) scratch.unwritten->finish();
        seam.flush();
        finish_streaming();
    }

  private:
    INLINE Row<T> common_of_rows(const Scratch<T>& scratch) const {
        Row<T> row;
        row.n = plan.n;
        row.is_negated = call.negated;
        row.streams = plan.streams;
        row.comes_from_afar = plan.comes_from_afar;
        row.goes_afar = plan.goes_afar && !plan.lags;  // else it is not this row that is written now
        row.seam = scratch.seam;
        row.unwritten = scratch.unwritten;
        return row;
    }
    // Rows from `first` on that are brought in together; returns how many.
    INLINE Index run_group(Index first, Index end, const Scratch<T>& scratch, Team& team) const {
        const Index columns = columns_from(first, end);
        if (columns == 0) return run_rows_or_leave(first, end, scratch, team);
        if (run_columns(first, columns, scratch, team)) return columns;
        // Strip by strip: those that need more care do not hold up the others.
        const Index stop = first + columns;
        for (Index begin = first; begin < stop; begin += Strip::COUNT) {
            const Index next = begin + Strip::COUNT < stop ? begin + Strip::COUNT : stop;
            if (columns > Strip::COUNT && run_columns(begin, next - begin, scratch, team)) continue;
            for (Index row = begin; row < next && !team.is_stopped;) row += run_rows_or_leave(row, next, scratch, team);
        }
        return columns;
    }
    INLINE Index run_rows_or_leave(Index first, Index end, const Scratch<T>& scratch, Team& team) const {
        if (left == nullptr || left[first] != 0) return run_rows_of_group(first, end, scratch, team);
        left[first] = 1;
        return 1;
    }
    INLINE Index run_rows_of_group(Index first, Index end, const Scratch<T>& scratch, Team& team) const {
        const Index count = group_size(first, end);
        if (!plan.x_packed && plan.source == Source::plain) read_scores(first, count, scratch, team);
        if (!plan.operand_packed) read_operands(first, count, scratch);
        const bool is_narrow = plan.source == Source::float16 || plan.source == Source::bfloat16;
        for (Index r = 0; r < count;) {
            const Index begin = r, next = r + (count - r < plan.at_once ? count - r : plan.at_once);
            r = next;
            if (plan.source != Source::plain && run_in_place(first, begin, next, scratch, team)) continue;
            for (Index i = begin; i < next && plan.source != Source::plain; ++i) read_x(first + i, scratch.x + i * plan.pitch, team);
            run_some(first, begin, next, scratch, team);
            for (Index i = begin; i < next && is_narrow; ++i) write_result(first + i, scratch.x + i * plan.pitch);
        }
        if (has_entries(call.method) && !plan.result_packed && !is_narrow) write_results(first, count, scratch);
        return count;
    }
    // Together if they can be, or each by itself.
    INLINE void run_some(Index first, Index begin, Index end, const Scratch<T>& scratch, Team& team) const {
        if (plan.is_short && run_short_rows(first, begin, end, scratch)) return;
        if (plan.is_middle && run_middle_rows(first, begin, end, scratch)) return;
        // One of them needs more care. Of a sparse map that is likely for all.
        for (Index r = begin; r < end; ++r)
            if (!plan.is_short || plan.is_solved || !run_short_rows(first, r, r + 1, scratch)) run_row(first + r, r, scratch, team);
    }

    // The neighbours of a tile do not go on past the end of their axis.
    INLINE Index group_size(Index first, Index end) const {
        Index count = plan.group < end - first ? plan.group : end - first;
        if (!plan.is_tiled) return count;
        // Whole cache lines, as soon as one begins.
        const auto address = reinterpret_cast<std::uintptr_t>(row_of(call, plan.result_packed ? call.x : call.result, first));
        const Index skipped = static_cast<Index>(address % 64) / size_of(call.type);
        if (plan.group * size_of(call.type) == 64 && count > plan.group - skipped) count = plan.group - skipped;
        const Index neighbours = call.shape[call.batch_axes - 1];
        return count > neighbours - first % neighbours ? neighbours - first % neighbours : count;
    }

    // How many rows from `first` on are taken side by side; what was left is not.
    INLINE Index columns_from(Index first, Index end) const {
        if ((plan.columns == 0 && plan.fewest == Strip::COUNT) || (left != nullptr && left[first] != 0)) return 0;
        const Index neighbours = call.shape[call.batch_axes - 1], there_are = neighbours - first % neighbours;
        const Index most = there_are < end - first ? there_are : end - first;
        const Index full = (most < plan.columns ? most : plan.columns) / Strip::COUNT * Strip::COUNT;
        return full == 0 && plan.fewest <= most && most < Strip::COUNT ? most : full;
    }
    // False, and nothing written, if one of the rows needs more care.
    APART bool run_columns(Index first, Index count, const Scratch<T>& scratch, Team& team) const {
        if constexpr (sizeof(T) == 8) return false;
        const Lines lines{call.type, plan.n, count};
        const TilePlace x = place_of(call.x, first), result = place_of(call.result, first);
        const TilePlace mask = call.mask.data != nullptr ? place_of(call.mask, first) : TilePlace{};
        float *const terms = reinterpret_cast<float*>(scratch.x), *const operands = reinterpret_cast<float*>(scratch.operand);
        alignas(64) double temperatures[Lines::MOST], numbers[Lines::MOST];
        if (!plan.is_backward && !plan.is_plain) set_temperatures(temperatures, first, count);
        if (call.has_sink) set_sinks(numbers, first, count);
        const double* const sinks = call.has_sink ? numbers : nullptr;
        if (call.method == Method::vjp || call.method == Method::jvp) {
            ColumnsDerivative derivative{lines, x, place_of(call.operand, first), result, mask, terms, operands,
                                         plan.is_plain ? nullptr : temperatures, sinks, {}, call.negated, plan.is_worth_streaming};
            set_outer(derivative.outer, first, count);
            return derivative.run();
        }
        if (!plan.is_backward && plan.columns_stay && (plan.parts_stay || lines.is_full()))
            return Maps<T>::far_columns(call.map, FarColumns{lines, x, result, mask, call.negated, plan.is_worth_streaming});
        if (!plan.is_backward && !plan.is_plain && !plan.is_solved)
            return Maps<T>::tempered_columns(call.map, TemperedColumns{lines, x, result, mask, terms, temperatures, sinks, call.negated, plan.is_worth_streaming});
        if (!plan.is_backward) {
            const double* const own = plan.is_plain ? nullptr : temperatures;
            const Columns columns{lines, x, result, mask, terms, own, call.negated, plan.is_worth_streaming};
            return Maps<T>::columns(call.map, columns, [&](int s, const Strip& strip) { run_strip(first, s, count, strip, scratch, team); });
        }
        ColumnsBackward back{lines, x, place_of(call.operand, first), result, terms, operands, plan.turns_operand, {}, plan.is_worth_streaming};
        set_outer(back.outer, first, count);
        return Maps<T>::columns_backward(call.map, back);
    }
    INLINE void set_outer(double* outer, Index first, Index count) const {
        const double sign = call.negated ? -1.0 : 1.0;
        if (call.temperature.rows.data == nullptr) {
            const Doubles common = all(sign / call.temperature.fixed);
            for (Index c = 0; c < count || c < Strip::COUNT; c += PlainRows::COUNT) store(outer + c, common);
            return;
        }
        for (Index c = count; c < Strip::COUNT; ++c) outer[c] = 1.0;
        for (Index c = 0; c < count; ++c) outer[c] = sign / number_of(call, call.temperature, first + c);
    }

    INLINE void set_temperatures(double* temperatures, Index first, Index count) const {
        const bool are_fixed = call.temperature.rows.data == nullptr;
        for (Index c = 0; c < count; ++c) temperatures[c] = are_fixed ? call.temperature.fixed : number_of(call, call.temperature, first + c);
        for (Index c = count; c % Strip::COUNT != 0; ++c) temperatures[c] = temperatures[0];
    }
    INLINE double sink_of(Index row) const { return (call.negated ? -1.0 : 1.0) * number_of(call, call.sink, row); }
    INLINE void set_sinks(double* sinks, Index first, Index count) const {
        for (Index c = 0; c < count; ++c) sinks[c] = sink_of(first + c);
        for (Index c = count; c % Strip::COUNT != 0; ++c) sinks[c] = -__builtin_inf();
    }

    // The rows of a strip, one at a time, in scratch memory behind the strips.
    APART void run_strip(Index first, int s, Index count, const Strip& strip, const Scratch<T>& scratch, Team& team) const {
        Scratch<T> apart = scratch;
        apart.x += (plan.columns > 0 ? plan.columns : Strip::COUNT) * plan.pitch;
        float* const rows = reinterpret_cast<float*>(apart.x);
        strip.to_rows(rows, plan.pitch);
        for (Index r = 0, row = s * Strip::COUNT; r < Strip::COUNT && row < count && !team.is_stopped; ++r, ++row) run_row(first + row, r, apart, team);
        strip.from_rows(rows, plan.pitch);
    }

    // A few rows of a group; false, and nothing done, if one of them needs more care.
    APART bool run_short_rows(Index first, Index begin, Index end, const Scratch<T>& scratch) const {
        if constexpr (sizeof(T) == 8) return false;
        ShortRows rows;
        set_rows(rows, first, begin, end, scratch);
        if (call.index.data != nullptr)
            for (int r = 0; r < rows.count; ++r) rows.labels[r] = label_of(first + begin + r);
        if (call.method == Method::residual_of_index)
            for (int r = 0; r < rows.count; ++r) rows.outer[r] = number_of(call, call.scale, first + begin + r);
        if (!has_entries(call.method)) return put_short_numbers(first + begin, rows);
        return plan.is_backward ? Maps<T>::short_backward(call.map, rows) : Maps<T>::short_rows(call.map, call.method, rows);
    }
    // The same of longer ones.
    APART bool run_middle_rows(Index first, Index begin, Index end, const Scratch<T>& scratch) const {
        if constexpr (sizeof(T) == 8) {
            return false;
        } else {
            ShortRows rows;
            set_rows(rows, first, begin, end, scratch);
            return Maps<T>::middle_rows(call.map, call.method, middle(rows, scratch));
        }
    }
    INLINE MiddleRows middle(const ShortRows& rows, const Scratch<float>& scratch) const {
        Row<float> row = common_of_rows(scratch);
        if (has_operand(call.method)) row.operand = rows.operand[0];
        return {rows, row, place_of_terms(scratch, nullptr), plan.pitch};
    }
    // Weights of rows whose scores are read where they are although they are not plain; false, and nothing done that matters,
    // if one of them needs more care.
    APART bool run_in_place(Index first, Index begin, Index end, const Scratch<T>& scratch, Team& team) const {
        if constexpr (sizeof(T) == 8) {
            return false;
        } else {
            if (plan.source == Source::masked) return run_from<Source::masked>(first, begin, end, scratch, team);
            if (plan.source == Source::float16) return run_from<Source::float16>(first, begin, end, scratch, team);
            return run_from<Source::bfloat16>(first, begin, end, scratch, team);
        }
    }
    template <Source FROM>
    INLINE bool run_from(Index first, Index begin, Index end, const Scratch<float>& scratch, Team& team) const {
        constexpr bool IS_NARROW = FROM != Source::masked;
        if (!plan.is_middle) {
            Row<float> row = row_at(first + begin, begin, scratch);
            if constexpr (IS_NARROW) row.terms = place_of_x(begin, scratch);
            row.comes_from_afar = plan.is_far && !IS_NARROW;
            point_at<FROM>(first + begin, row.x, row.mask, row.narrow_x, row.narrow_result);
            row.type = call.type;
            return Softmax<float>::template value_at_once<FROM>(row, team);
        }
        ShortRows rows;
        set_rows(rows, first, begin, end, scratch);
        MiddleRows those = middle(rows, scratch);
        those.row.type = call.type;
        those.row.comes_from_afar = plan.is_far && !IS_NARROW;
        for (int r = 0; r < rows.count; ++r)
            point_at<FROM>(first + begin + r, rows.x[r], those.masks[r], those.narrow_x[r], those.narrow_results[r]);
        if constexpr (IS_NARROW) {
            those.terms = place_of_x(begin, scratch);
            those.pitch = plan.pitch;
        }
        return those.compute<ShortRows::Asked::weights, FROM>();
    }
    template <Source FROM>
    INLINE void point_at(Index row, const float*& x, const char*& mask, const std::uint16_t*& narrow_x, std::uint16_t*& narrow_result) const {
        if constexpr (FROM == Source::masked) {
            x = reinterpret_cast<const float*>(row_of(call, call.x, row));
            mask = row_of(call, call.mask, row);
        } else {
            x = nullptr;
            narrow_x = reinterpret_cast<const std::uint16_t*>(row_of(call, call.x, row));
            narrow_result = reinterpret_cast<std::uint16_t*>(row_of(call, call.result, row));
        }
    }
    INLINE void set_rows(ShortRows& rows, Index first, Index begin, Index end, const Scratch<T>& scratch) const {
        rows.count = static_cast<int>(end - begin);
        rows.n = plan.n;
        rows.is_negated = call.negated;
        rows.streams = plan.streams;
        if (!plan.is_plain && !plan.is_backward) set_temperatures(rows, first + begin);
        rows.ahead = plan.x_packed ? rows.count * plan.n : 0;
        if constexpr (sizeof(T) == 4) rows.seam = scratch.seam;
        const T* const own = place_of_x(begin, scratch);
        place(rows.x, call.x, plan.x_packed, first + begin, own, rows.count);
        place(rows.result, call.result, plan.result_packed, first + begin, own, rows.count);
        if (!has_operand(call.method)) return;
        const T* const operands = scratch.operand + (plan.operand_packed ? 0 : begin * plan.pitch);
        place(rows.operand, call.operand, plan.operand_packed, first + begin, operands, rows.count);
        set_outer(rows, first + begin);
    }
    APART bool put_short_numbers(Index first, ShortRows& rows) const {
        double numbers[ShortRows::ROWS];
        rows.numbers = numbers;
        if (!Maps<T>::short_rows(call.map, call.method, rows)) return false;
        for (int r = 0; r < rows.count; ++r) put_number(call, first + r, numbers[r]);
        return true;
    }
    // It was in range when the call began; the array is the caller's.
    INLINE Index label_of(Index row) const {
        Index label;
        std::memcpy(&label, row_of(call, call.index, row), sizeof(label));
        return label < 0 || label >= plan.n ? 0 : label;
    }
    // Where neighbouring rows are: in an array, or from `own` on.
    template <class F>
    INLINE void place(F* (&rows)[ShortRows::ROWS], const Array& array, bool is_packed, Index first, const T* own, int count) const {
        const char* from = reinterpret_cast<const char*>(own);
        Index step = plan.pitch * static_cast<Index>(sizeof(T));
        if (is_packed) {
            from = row_of(call, array, first);
            step = array.strides[0];
        }
        if (is_packed && call.batch_axes != 1) {
            for (int r = 0; r < count; ++r) rows[r] = reinterpret_cast<F*>(row_of(call, array, first + r));
        } else {
            for (int r = 0; r < count; ++r) rows[r] = reinterpret_cast<F*>(const_cast<char*>(from + r * step));
        }
    }
    INLINE void set_outer(ShortRows& rows, Index first) const {
        const double sign = call.negated ? -1.0 : 1.0;
        if (call.temperature.rows.data == nullptr) return fill(rows, sign / call.temperature.fixed);
        fill(rows, 1.0);
        for (int r = 0; r < rows.count; ++r) rows.outer[r] = sign / number_of(call, call.temperature, first + r);
    }
    // A row whose temperature is 1 is as plain as those of a call without one.
    INLINE void set_temperatures(ShortRows& rows, Index first) const {
        for (int r = 0; r < rows.count; ++r) {
            rows.temperatures[r] = number_of(call, call.temperature, first + r);
            rows.is_tempered |= rows.temperatures[r] != 1.0;
        }
        for (int r = rows.count; r % ShortRows::LANES != 0; ++r) rows.temperatures[r] = 1.0;
        rows.has_sinks = call.has_sink;
        for (int r = 0; r < rows.count && rows.has_sinks; ++r) rows.sinks[r] = sink_of(first + r);
        for (int r = rows.count; r % ShortRows::LANES != 0 && rows.has_sinks; ++r) rows.sinks[r] = -__builtin_inf();
    }
    static INLINE void fill(ShortRows& rows, double outer) {
        for (int r = 0; r < rows.count; r += ShortRows::FEW) store(rows.outer + r, all(outer));
    }
    INLINE const T* operand_of(Index index, Index place, const Scratch<T>& scratch) const {
        return plan.operand_packed ? reinterpret_cast<const T*>(row_of(call, call.operand, index))
                                   : scratch.operand + place * plan.pitch;
    }
    INLINE const T* scores_of(Index index, const Scratch<T>& scratch) const {
        if (plan.scores_packed) return reinterpret_cast<const T*>(row_of(call, call.scores, index));
        read_row<T>(call, call.scores, call.type, index, scratch.scores);
        return scratch.scores;
    }
    INLINE T* place_of_terms(const Scratch<T>& scratch, T* otherwise) const {
        if (!plan.keeps_terms()) return otherwise;
        return plan.lags ? scratch.unwritten->terms() : scratch.terms;
    }
    INLINE T* place_of_x(Index place, const Scratch<T>& scratch) const {
        return scratch.x + (plan.needs_x() ? place * plan.pitch : 0);
    }

    INLINE void read_scores(Index first, Index count, const Scratch<T>& scratch, Team& team) const {
        if (plan.follows) {
            const char* const mask = call.mask.data != nullptr ? row_of(call, call.mask, first) : nullptr;
            return read_part(row_of(call, call.x, first), size_of(call.type), mask, 1, scratch.x, count * plan.n);
        }
        if (!plan.is_tiled) {
            for (Index r = 0; r < count; ++r) read_x(first + r, scratch.x + r * plan.pitch, team);
            return;
        }
        const TilePlace mask = call.mask.data != nullptr ? place_of(call.mask, first) : TilePlace{};
        read_tile<T>(call.type, place_of(call.x, first), mask, dead(), scratch.x, plan.pitch, count, plan.n);
    }
    INLINE bool lies_across(const Array& array) const {
        return plan.is_tiled && array.strides[call.batch_axes - 1] == size_of(call.type);
    }
    INLINE void write_results(Index first, Index count, const Scratch<T>& scratch) const {
        if (plan.follows) return write_run<T>(call.type, scratch.x, row_of(call, call.result, first), size_of(call.type), count * plan.n);
        if (lies_across(call.result))
            return write_tile<T>(call.type, scratch.x, plan.pitch, place_of(call.result, first), count, plan.n);
        for (Index r = 0; r < count; ++r) write_result(first + r, scratch.x + r * plan.pitch);
    }
    INLINE void read_operands(Index first, Index count, const Scratch<T>& scratch) const {
        if (lies_across(call.operand))
            return read_tile<T>(call.type, place_of(call.operand, first), {}, T(0), scratch.operand, plan.pitch, count, plan.n);
        for (Index r = 0; r < count; ++r)
            read_row<T>(call, call.operand, call.type, first + r, scratch.operand + r * plan.pitch);
    }

    INLINE void read_x(Index row, T* to, Team& team) const {
        if (call.row_axes == 1 && team.shares) {
            const char* const from = row_of(call, call.x, row);
            const char* const mask = call.mask.data != nullptr ? row_of(call, call.mask, row) : nullptr;
            const Index stride = run_stride(call, call.x), step = run_stride(call, call.mask);
            team.each_block(plan.n, [&](Index begin, Index end) {
                read_part(from + begin * stride, stride, mask != nullptr ? mask + begin * step : nullptr, step, to + begin, end - begin);
            });
            return;
        }
        if (call.row_axes == 1) {
            const char* const mask = call.mask.data != nullptr ? row_of(call, call.mask, row) : nullptr;
            return read_part(row_of(call, call.x, row), run_stride(call, call.x), mask, run_stride(call, call.mask), to, plan.n);
        }
        read_row<T>(call, call.x, call.type, row, to);
        if (call.mask.data != nullptr) mask_row<T>(call, row, dead(), to);
    }
    INLINE void read_part(const char* from, Index stride, const char* mask, Index step, T* to, Index n) const {
        if (mask == nullptr)
            read_run<T>(call.type, from, stride, to, n);
        else
            read_masked_run<T>(call.type, from, stride, mask, step, dead(), to, n);
    }
    INLINE void write_result(Index row, const T* from) const { write_row<T>(call, call.result, call.type, row, from); }
    // A score that weighs nothing.
    INLINE T dead() const { return call.negated ? INFINITE<T> : -INFINITE<T>; }
    INLINE TilePlace place_of(const Array& array, Index row) const {
        return {row_of(call, array, row), array.strides[call.batch_axes], array.strides[call.batch_axes - 1]};
    }

    INLINE Row<T> row_at(Index index, Index place, const Scratch<T>& scratch) const {
        Row<T> row = common_of_rows(scratch);
        T* const own = place_of_x(place, scratch);
        row.x = plan.x_packed ? reinterpret_cast<const T*>(row_of(call, call.x, index)) : own;
        row.result = plan.result_packed ? reinterpret_cast<T*>(row_of(call, call.result, index)) : own;
        if (has_operand(call.method)) row.operand = operand_of(index, place, scratch);
        row.terms = place_of_terms(scratch, plan.streams ? nullptr : row.result);
        row.list = scratch.list;
        set_parameters(row, index);
        return row;
    }
    INLINE void run_row(Index index, Index place, const Scratch<T>& scratch, Team& team) const {
        Row<T> row = row_at(index, place, scratch);
        if (call.scores.data != nullptr) row.scores = scores_of(index, scratch);
        if (plan.is_backward && !has_entries(call.method)) return put_number(call, index, Maps<T>::of_parameter(call.map, call.method, row, team));
        if (plan.is_backward) return Maps<T>::backward(call.map, row, team);
        if (row.scale == 0.0) return write_zeros(row, team);
        // Wherever the row lies it is computed in one way.
        if (call.method == Method::residual_of_index && (row.terms == nullptr || row.terms == row.x)) row.terms = scratch.weights;
        double number = 0.0;
        if (Maps<T>::at_once(call.map, call.method, row, team, number)) {
            if (!has_entries(call.method)) put_number(call, index, number);
            return;
        }
        if (plan.lags) scratch.unwritten->finish();
        row.unwritten = nullptr;
        if (settled(row, index, team)) return;
        if (plan.widens && Maps<T>::is_softmax(call.map, row) && needs_double(row))
            run_widened(row, index, scratch, team);
        else
            compute<Maps<T>>(call, index, row, team, scratch.weights);
        if (call.method == Method::support_size) count_support(row, index);
    }

    template <class E>
    INLINE void set_parameters(Row<E>& row, Index index) const {
        row.is_negated = call.negated;
        row.has_sink = call.has_sink;
        row.temperature = number_of(call, call.temperature, index);
        row.is_tempered = row.temperature != 1.0;
        row.alpha = number_of(call, call.alpha, index);
        row.scale = number_of(call, call.scale, index);
        if (call.has_sink) row.sink = sink_of(index);
        if (call.index.data != nullptr) row.label = label_of(index);
        if (call.solved == nullptr || Maps<E>::is_softmax(call.map, row)) return;
        if (call.method == Method::loss_of_index) row.left = call.solved + index;
        if (call.method == Method::residual_of_index) row.found = call.solved + index;
    }

    static INLINE double top_with_sink(const Row<T>& row, Team& team) {
        double top = top_of(row, team);
        if (row.has_sink && top == top && !(row.sink <= top)) top = row.sink;
        // -0 and 0 must not be told apart by the order of the entries.
        return top + 0.0;
    }
    // Bad rows and empty ones get what they get; others their top.
    INLINE bool settled(Row<T>& row, Index index, Team& team) const {
        const double top = row.found != nullptr ? row.found->top : top_with_sink(row, team);
        row.top = top;
        if (row.left != nullptr) row.left->top = top;
        if (top > -__builtin_inf() && top < __builtin_inf()) return false;
        const bool is_empty = top == -__builtin_inf();
        const double filling = is_empty ? (call.empty == 0.0 ? absent_of(call) : NOT_A_NUMBER) : NOT_A_NUMBER;
        if (call.method == Method::support_size) {
            // NaN counts as not zero, as it does for the weights themselves.
            fill(row.result, filling);
            if (!is_empty && call.mask.data != nullptr) mask_row<T>(call, index, T(0), row.result);
            count_support(row, index);
        } else if (!has_entries(call.method)) {
            put_number(call, index, filling);
        } else {
            fill(row.result, filling);
            if (!is_empty && call.mask.data != nullptr) mask_row<T>(call, index, static_cast<T>(absent_of(call)), row.result);
        }
        return true;
    }
    INLINE void fill(T* to, double value) const {
        for (Index i = 0; i < plan.n; ++i) to[i] = static_cast<T>(value);
    }

    INLINE void count_support(const Row<T>& row, Index index) const {
        Index count = 0;
        for (Index i = 0; i < plan.n; ++i) {
            const float p = static_cast<float>(row.result[i]);
            if (call.type == Type::float16)
                count += (to_float16(p) & 0x7fffu) != 0;
            else if (call.type == Type::bfloat16)
                count += (to_bfloat16(p) & 0x7fffu) != 0;
            else
                count += row.result[i] != T(0);
        }
        put_count(call, index, count);
    }

    // Temperatures and scores out of the ordinary; a sink that leads need not be a float.
    static INLINE bool needs_double(const Row<T>& row) {
        if constexpr (sizeof(T) == 4)
            if (row.is_tempered && !TemperedExponential::serves(row)) return true;
        return static_cast<double>(static_cast<T>(row.top)) != row.top;
    }

    // A float row in double precision.
    INLINE void run_widened(Row<T>& row, Index index, const Scratch<T>& scratch, Team& team) const {
        Row<double> wide;
        for (Index i = 0; i < plan.n; ++i) scratch.wide[i] = static_cast<double>(row.x[i]);
        if (row.operand != nullptr)
            for (Index i = 0; i < plan.n; ++i) scratch.wide_operand[i] = static_cast<double>(row.operand[i]);
        wide.n = plan.n;
        wide.x = scratch.wide;
        wide.result = scratch.wide;
        wide.terms = scratch.wide;
        wide.operand = row.operand != nullptr ? scratch.wide_operand : nullptr;
        wide.top = row.top;
        set_parameters(wide, index);
        compute<Maps<double>>(call, index, wide, team, scratch.wide_weights);
        if (!has_entries(call.method) && call.method != Method::support_size) return;
        for (Index i = 0; i < plan.n; ++i) row.result[i] = static_cast<T>(scratch.wide[i]);
    }
};

// -- the call ----------------------------------------------------------------------------------------------------------

// A row that was left by those who take several side by side.
template <template <class> class Maps, class T>
void run_left(const Driver<Maps, T>& driver, Index row, char* memory, Team& team) {
    if (driver.left[row] != 0) driver.run_between(row, row + 1, memory, team);
}

// Who runs the pieces of a call, and in which memory.
template <template <class> class Maps, class T>
struct Threads {
    const Driver<Maps, T> driver;
    char* memory;
    std::size_t bytes;
    int threads;
    Interrupt interrupt;

    void run_pieces() const {
        Team team;
        for (Index piece = 0; piece < driver.plan.pieces; ++piece) driver.run_piece(piece, memory, team);
    }
    // Each by all threads; false if interrupted.
    template <class Run>
    bool run_huge(Run run, Index count) const {
        Team team;
        team.threads = driver.call.threads;
        team.shares = true;
        std::int64_t asked = 0;
        team.interrupt = {interrupt.ask, interrupt.state, &asked};
        for (Index piece = 0; piece < count && !team.is_stopped; ++piece) run(driver, piece, memory, team);
        return !team.is_stopped;
    }
    // Each by one thread.
    template <bool ARE_LEFT>
    bool share_out(Index count, bool from_end) const {
        const Work work = [](void* state, Index piece, int slot) {
            const Threads& mine = *static_cast<const Threads*>(state);
            char* const own = mine.memory + mine.bytes * static_cast<std::size_t>(slot);
            Team team;
            if constexpr (ARE_LEFT)
                run_left(mine.driver, piece, own, team);
            else
                mine.driver.run_piece(piece, own, team);
        };
        return share(count, threads, from_end, work, const_cast<Threads*>(this), interrupt);
    }
};

template <template <class> class Maps, class T>
Outcome run_rows(const Call& call) {
    const bool lists = Maps<T>::lists(call.map) && !takes_results(call.method);
    const Plan<T> plan(call, lists, Maps<T>::widens(call.map), Maps<T>::longest_short_row(call.map, call.method),
                       Maps<T>::longest_middle_row(call.map, call.method),
                       sizeof(T) == 4 && Maps<T>::takes_columns(call.map, call.method));
    if (plan.rows == 0 || plan.n == 0) return Outcome::done;
    const bool is_worth_it = plan.rows * plan.n >= ALONE_BELOW;
    const Index wanted = is_worth_it && (!plan.is_huge || plan.leaves_rows) ? (call.threads < plan.pieces ? call.threads : plan.pieces) : 1;
    const int threads = static_cast<int>(wanted > 1 ? wanted : 1);
    alignas(64) char small[16384];
    char* memory = small;
    const std::size_t bytes = static_cast<std::size_t>(plan.bytes);
    const std::size_t needed = bytes * static_cast<std::size_t>(threads);
    void* allocated = nullptr;
    if (needed > sizeof(small)) {
        allocated = std::malloc(needed + 64);
        if (allocated == nullptr) return Outcome::out_of_memory;
        memory = static_cast<char*>(allocated) + (64 - reinterpret_cast<std::uintptr_t>(allocated) % 64);
    }
    char* const left = plan.leaves_rows ? static_cast<char*>(std::calloc(static_cast<std::size_t>(plan.rows), 1)) : nullptr;
    if (plan.leaves_rows && left == nullptr) {
        std::free(allocated);
        return Outcome::out_of_memory;
    }
    const Threads<Maps, T> work{{call, plan, lists, left}, memory, bytes, threads, {call.is_interrupted, call.interrupt_state, nullptr}};
    bool is_done = true;
    if (!is_worth_it)
        work.run_pieces();
    else if (plan.is_huge && !plan.leaves_rows)
        is_done = work.run_huge([](const auto& driver, Index piece, char* own, Team& team) { driver.run_piece(piece, own, team); }, plan.pieces);
    else
        // The way back mostly follows the way there.
        is_done = work.template share_out<false>(plan.pieces, plan.is_backward);
    if (is_done && plan.leaves_rows) is_done = plan.is_huge ? work.run_huge(run_left<Maps, T>, plan.rows) : work.template share_out<true>(plan.rows, false);
    std::free(left);
    std::free(allocated);
    return is_done ? Outcome::done : Outcome::interrupted;
}

}  // namespace softplex::SOFTPLEX_ISA
