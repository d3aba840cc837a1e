// Float rows of some hundred entries, plain but for a mask or that they come in sixteen bits, a few at a time: while the sums
// of one row are waited for the next is walked, and what is one number a row is computed for all at once. The operations are
// those of Softmax, in the same order.
#pragma once

#include "plain_rows.h"
#include "short_rows.h"

namespace softplex::SOFTPLEX_ISA {

struct MiddleRows {
    using S = Softmax<float>;
    using Asked = ShortRows::Asked;
    static constexpr int FEW = ShortRows::FEW, LANES = ShortRows::LANES;
    static constexpr Index LONGEST = 4096;
    static_assert(FEW <= Unwritten<float>::MOST, "all of them are left to be written");

    const ShortRows& rows;
    // What they have in common.
    Row<float> row;
    // Where their exponentials are kept, `pitch` apart; none: where the results then are.
    float* terms;
    Index pitch;
    // Of rows that are not plain.
    const char* masks[FEW] = {};
    const std::uint16_t* narrow_x[FEW] = {};
    std::uint16_t* narrow_results[FEW] = {};

    // As many as stay in the nearest cache, with a result and perhaps an operand each; more where that waits for the memory.
    static INLINE Index at_once(Index n, bool has_operand, bool lags) {
        const Index fit = lags ? 4 * LONGEST / n : n > 2048 ? 1 : (has_operand ? 4096 : 8192) / n;
        return fit > FEW ? FEW : fit;
    }

    // False, and nothing done that matters, if one of the rows needs more care.
    template <Asked ASKED, Source FROM = Source::plain>
    APART bool compute() const {
        static_assert(FROM == Source::plain || ASKED == Asked::weights, "others look at the scores again");
        constexpr bool KEEPS = ASKED != Asked::logarithms;
        using Terms = S::TermsFrom<FROM>;
        using Products = std::conditional_t<ASKED == Asked::log_derivatives, S::Cotangents, S::FloatProducts>;
        using Walk = std::conditional_t<ShortRows::has_operand(ASKED), Products, Terms>;
        alignas(64) float magic[2 * FEW] = {}, floor[2 * FEW] = {};
        Floats tops[FEW];
        Doubles sums[FEW], products[FEW];
        for (int r = 0; r < FEW; ++r) tops[r] = r < rows.count ? scores_from<FROM>(own(r), row.sign(), 0, LANES) : all(0.0f);
        const Floats guess = largest_of(tops);
        if ((bits(guess < all(512.0f)) & 0xffu) != 0xffu) return false;
        PlainRows guessed(widened(select(all(-512.0f) < guess, guess, all(0.0f))).low);
        guessed.put_powers(magic, floor);
        auto bad = unordered(all(0.0f), all(0.0f));
        const auto note = [&](int r, const auto& found) BODY {
            sums[r] = found.sum.lanes();
            products[r] = found.walk.lanes();
            tops[r] = found.top;
            bad = bad | found.bad;
        };
        const auto walk = [&](int r) BODY {
            Row<float> one = own(r);
            if (!KEEPS) one.terms = nullptr;
            const Powers powers(magic[r], floor[r]);
            if constexpr (ASKED == Asked::weights || ASKED == Asked::logarithms) {
                if (row.unwritten != nullptr) {
                    row.unwritten->start();
                    note(r, S::walk_over<S::TermsWhileWriting<FROM, !KEEPS>>(one, powers, 0, rows.n));
                    row.unwritten->write_row();  // one for each that is walked
                    return;
                }
            }
            note(r, S::walk_over<Walk>(one, powers, 0, rows.n));
        };
        for (int r = 0; r < rows.count; ++r) {
            if (KEEPS && own(r).terms == own(r).x) return false;
            walk(r);
        }
        for (int r = rows.count; r < FEW; ++r) {
            sums[r] = all(4.0 / UNBIASED<float>);
            products[r] = all(0.0);
            tops[r] = all(0.0f);
        }
        const Floats found = largest_of(tops) + all(0.0f);
        if (any(bad) || (bits(larger(found, -found) < all(512.0f)) & 0xffu) != 0xffu) return false;
        const PlainRows plain(widened(found).low);
        const unsigned reached = bits(plain.reached_from(guessed.origins, rows.n));
        if (reached != PlainRows::ALL) {
            guessed.take_others(plain, reached);
            guessed.put_powers(magic, floor);
            for (int r = 0; r < rows.count; ++r)
                if ((reached >> r & 1u) == 0) walk(r);
        }
        if constexpr (ASKED == Asked::derivatives) return put_derivatives(sums_of(sums), sums_of(products));
        if constexpr (ASKED == Asked::log_derivatives) put_log_derivatives(sums_of(sums), sums_of(products));
        if constexpr (ShortRows::has_operand(ASKED)) return true;
        const Doubles factors = plain.factors(guessed.origins), totals = sums_of(sums) * factors;
        plain.put_powers(magic, floor);
        const Floats leading = Powers(load(magic), load(floor))(found);
        if constexpr (ASKED == Asked::logarithms)
            put_logarithms(plain, totals, found, leading);
        else
            put_weights(plain, totals, factors, leading);
        return true;
    }

  private:
    INLINE Row<float> own(int r) const {
        Row<float> one = row;
        one.x = rows.x[r];
        one.mask = masks[r];
        one.narrow_x = narrow_x[r];
        one.narrow_result = narrow_results[r];
        one.operand = row.operand != nullptr ? rows.operand[r] : nullptr;
        one.result = rows.result[r];
        one.terms = terms != nullptr ? terms + r * pitch : one.result;
        return one;
    }

    INLINE void put_weights(const PlainRows& plain, const Doubles& totals, const Doubles& factors, const Floats& leading) const {
        const unsigned crowded = PlainRows::crowded(totals);
        const Doubles led = widened(leading).low;
        float hi[FEW], lo[FEW], top[FEW], kept[FEW];
        double ties[FEW] = {};
        store_eight(kept, led / factors);
        for (int r = 0; r < rows.count; ++r)
            if ((crowded >> r & 1u) == 0) ties[r] = count_of(all(kept[r]), own(r).terms);
        plain.put_scales({totals, all(0.0)}, led, load(ties), factors, hi, lo, top);
        if (row.unwritten != nullptr) {
            row.unwritten->take_turns();
            for (int r = 0; r < rows.count; ++r) {
                const Floats own_kept = all((crowded >> r & 1u) != 0 ? __builtin_nanf("") : kept[r]);
                row.unwritten->leave_weights(own(r).terms, rows.result[r], own_kept, all(top[r]), all(hi[r]), all(lo[r]));
            }
            return;
        }
        for (int r = 0; r < rows.count; ++r) {
            const Row<float> one = own(r);
            const S::Scale scale(all(hi[r]), all(lo[r]));
            const auto kept_terms = [from = one.terms](Index i, int count) BODY { return take<float>(from + i, count, 0.0f); };
            if ((crowded >> r & 1u) != 0) {
                S::write_scaled(one, 0, rows.n, scale, kept_terms, [](const Floats&, const Floats& weight) BODY { return weight; });
                continue;
            }
            const Floats own_kept = all(kept[r]), own_top = all(top[r]);
            S::write_scaled(one, 0, rows.n, scale, kept_terms, [&](const Floats& e, const Floats& weight) BODY {
                return select(e == own_kept, own_top, weight);
            });
        }
    }
    // As Softmax::differentiated.
    INLINE bool put_derivatives(const Doubles& sums, const Doubles& products) const {
        if (!S::are_moderate(products / sums)) return false;
        float hi[FEW], lo[FEW], means[FEW];
        const Pair<Doubles> scales = S::Scale::quotients(all(S::LIFT), {sums, all(0.0)});
        store_eight(hi, scales.hi);
        store_eight(lo, scales.lo);
        store_eight(means, products / sums);
        for (int r = 0; r < rows.count; ++r) {
            const Row<float> one = own(r);
            const Floats high = all(hi[r]), low = all(lo[r]), mean = all(means[r]), outer = all(static_cast<float>(rows.outer[r] / S::LIFT));
            write<float>(one, 0, rows.n, [&](Index i, int count) BODY {
                const Floats e = take<float>(one.terms + i, count, 0.0f), g = take<float>(one.operand + i, count, 0.0f);
                return select(all(0.0f) < e, (weight_of(e, high, low) * (g - mean)) * outer, all(0.0f));
            });
        }
        return true;
    }
    // As Softmax::log_differentiated.
    INLINE void put_log_derivatives(const Doubles& sums, const Doubles& cotangents) const {
        float hi[FEW], lo[FEW], totals[FEW];
        const Pair<Doubles> scales = S::Scale::quotients(all(1.0), {sums, all(0.0)});
        store_eight(hi, scales.hi);
        store_eight(lo, scales.lo);
        store_eight(totals, cotangents);
        for (int r = 0; r < rows.count; ++r) {
            const Row<float> one = own(r);
            const auto sign = one.sign();
            const Floats high = all(hi[r]), low = all(lo[r]), total = all(totals[r]), outer = all(static_cast<float>(rows.outer[r]));
            write<float>(one, 0, rows.n, [&](Index i, int count) BODY {
                const Floats e = take<float>(one.terms + i, count, 0.0f), g = take<float>(one.operand + i, count, 0.0f);
                const Floats moved = fma(-weight_of(e, high, low), total, g) * outer;
                return select(all(-INFINITE<float>) < scores(one, sign, i, count), moved, all(0.0f));
            });
        }
    }

    INLINE double count_of(const Floats& wanted, const float* from) const {
        Floats found[SEVERAL];
        for (Floats& each : found) each = all(0.0f);
        Index i = 0;
        for (; i + SEVERAL * LANES <= rows.n; i += SEVERAL * LANES)
            for (int j = 0; j < SEVERAL; ++j) found[j] = found[j] + ones_where(load(from + i + j * LANES) == wanted);
        each_vector_once<float>(i, rows.n, [&](Index at, int count) BODY {
            found[0] = found[0] + ones_where(take<float>(from + at, count, 0.0f) == wanted);
        });
        Halves whole = widened(found[0]);
        for (int j = 1; j < SEVERAL; ++j) {
            const Halves halves = widened(found[j]);
            whole = {whole.low + halves.low, whole.high + halves.high};
        }
        return sum_of(whole.low + whole.high);
    }
    static INLINE Floats ones_where(const FloatMask& mask) { return select(mask, all(1.0f), all(0.0f)); }

    INLINE void put_logarithms(const PlainRows& plain, const Doubles& totals, const Floats& tops, const Floats& leading) const {
        float hi[FEW], lo[FEW];
        alignas(64) float top[2 * FEW];
        store(top, tops);
        const Doubles others = plain.others({totals, all(0.0)}, widened(leading).low);
        PlainRows::put_shifts(PlainRows::clear(others) == PlainRows::ALL ? others : with_tails(others, top), hi, lo);
        if (row.unwritten != nullptr) {
            row.unwritten->take_turns();
            for (int r = 0; r < rows.count; ++r)
                row.unwritten->leave_logarithms(rows.x[r], rows.result[r], all(top[r]), all(hi[r]), all(lo[r]));
            return;
        }
        for (int r = 0; r < rows.count; ++r) {
            const Row<float> one = own(r);
            const auto sign = one.sign();
            const Floats own_top = all(top[r]), high = all(hi[r]), low = all(0.0f) - all(lo[r]);
            write<float>(one, 0, rows.n, [&](Index i, int count) BODY {
                return ((scores(one, sign, i, count) - own_top) - high) + low;
            });
        }
    }
    APART Doubles with_tails(const Doubles& others, const float* tops) const {
        double found[FEW];
        store(found, others);
        Team alone;
        for (int r = 0; r < rows.count; ++r) {
            if (found[r] >= S::CLEAR) continue;
            Row<float> one = own(r);
            one.top = static_cast<double>(tops[r]);
            found[r] = S::confident_tail(one, alone, Powers::at_top(one.top));
        }
        return load(found);
    }
};

}  // namespace softplex::SOFTPLEX_ISA
