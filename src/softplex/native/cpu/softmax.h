// Softmax and its logarithm (Bridle 1990): p_i = exp(x_i) / sum_j exp(x_j), Omega(p) = sum p log p.
//
// The rounding error of x - max never reaches the exponential: a float row is reduced by multiples of ln 2 before it is
// shifted (x = k ln 2 + r is exact, and so is the difference of two such r), a double row keeps the error beside the
// difference. The logarithm is (x - max) - log1p(sum over the others), both of one sign.
#pragma once

#include <type_traits>

#include "row.h"

namespace softplex::SOFTPLEX_ISA {

// -- 2^bias exp((x - top) / temperature) --------------------------------------------------------------------------------

// Float scores near 0: the multiples of ln 2 are taken from x and from the top, what is left is subtracted exactly.
struct NearExponential {
    using C = ExpOf<float>;
    Floats top, floor, top_multiple, top_rest;

    explicit INLINE NearExponential(const Row<float>& row) {
        top = all(static_cast<float>(row.top));
        floor = top + all(C::faint);
        const Floats magic = all(C::magic);
        top_multiple = fma(top, all(C::log2e), magic) - magic;
        top_rest = less_ln2_times(top_multiple, top);
    }
    template <int COUNT>
    INLINE Pack<NativeFloats, COUNT> operator()(const Pack<NativeFloats, COUNT>& x) const {
        using V = Pack<NativeFloats, COUNT>;
        const V magic = every<V>(C::magic + C::bias);
        const V near = larger(spread<COUNT>(floor), x);
        const V shifted = fma(near - spread<COUNT>(top), every<V>(C::log2e), magic);
        const V k = shifted - magic;
        const V r = less_ln2_times(k + spread<COUNT>(top_multiple), near) - spread<COUNT>(top_rest);
        const V reduced = fma(-k, every<V>(C::ln2_rest), r);
        return times_power_of_two(every<V>(1.0f) + reduced_expm1(reduced), shifted);
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - top, all(0.0f)}; }
};

// Float scores whose top is far from 0: where exp does not vanish x - top is exact.
struct FarExponential {
    using C = ExpOf<float>;
    Floats top;

    explicit INLINE FarExponential(const Row<float>& row) : top(all(static_cast<float>(row.top))) {}
    template <int COUNT>
    INLINE Pack<NativeFloats, COUNT> operator()(const Pack<NativeFloats, COUNT>& x) const {
        using V = Pack<NativeFloats, COUNT>;
        const V magic = every<V>(C::magic + C::bias);
        const V near = larger(every<V>(C::faint), x - spread<COUNT>(top));
        const V shifted = fma(near, every<V>(C::log2e), magic);
        const V k = shifted - magic;
        const V reduced = fma(-k, every<V>(C::ln2_rest), less_ln2_times(k, near));
        return times_power_of_two(every<V>(1.0f) + reduced_expm1(reduced), shifted);
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - top, all(0.0f)}; }
};

// Double scores: the difference and what rounding took from it, divided by the temperature if there is one.
template <bool TEMPERED>
struct DoubleExponential {
    using C = ExpOf<double>;
    Doubles top, floor, scale, temperature;

    explicit INLINE DoubleExponential(const Row<double>& row) {
        // Above 2^100 the differences of finite scores could overflow although their quotients do not.
        const double quarter = row.temperature > 0x1p100 ? 0.25 : 1.0;
        scale = all(quarter);
        top = all(row.top * quarter);
        // Far enough below the top to weigh nothing, and to differ from a top of any size.
        floor = all((row.top + C::faint) - __builtin_fabs(row.top) * 0x1p-50);
        temperature = all(row.temperature * quarter);
    }
    INLINE Pair<Doubles> gap(const Doubles& x) const {
        Pair<Doubles> d = two_sum(TEMPERED ? x * scale : x, -top);
        if constexpr (TEMPERED) {
            const Doubles quotient = d.hi / temperature;
            const Pair<Doubles> back = two_product(quotient, temperature);
            d = {quotient, (((d.hi - back.hi) - back.lo) + d.lo) / temperature};
        }
        // Far from the top and past the end there is no error worth keeping, and perhaps no number.
        return {d.hi, select(all(C::faint) < d.hi, d.lo, all(0.0))};
    }
    template <int COUNT>
    INLINE Pack<NativeDoubles, COUNT> operator()(const Pack<NativeDoubles, COUNT>& x) const {
        using V = Pack<NativeDoubles, COUNT>;
        if constexpr (!TEMPERED) {
            const Pair<V> d = two_sum(larger(spread<COUNT>(floor), x), spread<COUNT>(-top));
            return biased_exp(larger(every<V>(C::faint), d.hi), d.lo);
        }
        V e;
        for (int j = 0; j < COUNT / PARTS; ++j) {
            const Pair<Doubles> d = gap(one_of(x, j));
            const Doubles one = biased_exp(larger(all(C::faint), d.hi), d.lo);
            set_one_of(e, j, one);
        }
        return e;
    }
};

INLINE bool is_far(double top) { return top >= 512.0 || top <= -512.0; }

// body(exponential) with the one that fits the row.
template <class Body>
INLINE auto with_exponential(const Row<float>& row, Body body) {
    return is_far(row.top) ? body(FarExponential(row)) : body(NearExponential(row));
}
template <class Body>
INLINE auto with_exponential(const Row<double>& row, Body body) {
    // Below some tops there is no room for the floor.
    const bool is_simple = !row.is_tempered && row.top > -0x1p1000;
    return is_simple ? body(DoubleExponential<false>(row)) : body(DoubleExponential<true>(row));
}

// (score - top) / temperature of one score in double precision, with its error.
template <class T>
INLINE Pair<Doubles> gap_of(const Row<T>& row, double score) {
    Row<double> one;
    one.temperature = row.temperature;
    one.top = row.top;
    return row.is_tempered ? DoubleExponential<true>(one).gap(all(score)) : DoubleExponential<false>(one).gap(all(score));
}

template <class T>
constexpr double UNBIASED = sizeof(T) == 4 ? 0x1p-64 : 0x1p-512;

// exp of the sink's gap, with the row's bias.
template <class T>
INLINE double sink_term(const Row<T>& row) {
    if (!row.has_sink || row.sink == -__builtin_inf()) return 0.0;
    const Pair<Doubles> gap = gap_of(row, row.sink);
    const Doubles power = biased_exp(larger(all(ExpOf<double>::faint), gap.hi), gap.lo);
    return first_of(power) * (0x1p-512 / UNBIASED<T>);
}

// -- the map -------------------------------------------------------------------------------------------------------------

template <class T>
struct Softmax {
    using V = Vector<T>;
    static constexpr Index STEP = SEVERAL * Lanes<T>::count;

    // 1 / sum as two numbers of the type: the product with either is exact enough.
    struct Scale {
        V hi, lo;
        explicit INLINE Scale(const Total& sum, double factor = 1.0) {
            const double whole = factor / sum.value();
            const double head = static_cast<double>(static_cast<T>(whole));
            double rest = whole - head;
            if constexpr (sizeof(T) == 8) {
                // factor - whole * sum, exactly, over the sum.
                const Pair<Doubles> back = two_product(all(whole), all(sum.hi));
                rest = (((factor - first_of(back.hi)) - first_of(back.lo)) - whole * sum.lo) / sum.hi;
            }
            hi = all(static_cast<T>(head));
            lo = all(static_cast<T>(rest));
        }
        INLINE V operator()(const V& e) const { return fma(e, hi, e * lo); }
    };

    // The exponentials as a pass finds them: kept by `sums`, or computed again.
    template <class Exponential>
    struct Terms {
        const Row<T> row;
        const Exponential exponential;
        const typename Row<T>::Whole sign = row.sign();

        INLINE V computed(Index i, int count) const { return exponential(scores(row, sign, i, count)); }
        INLINE SeveralOf<T> several_computed(Index i) const { return exponential(several_scores(row, sign, i)); }
        INLINE V kept(Index i, int count) const {
            return row.terms != nullptr ? take<T>(row.terms + i, count, T(0)) : computed(i, count);
        }
    };

    // The sum of all terms, sink included.
    template <class Exponential>
    static INLINE Total sum_of_terms(Row<T>& row, Team& team, const Exponential& exponential) {
        const Terms<Exponential> terms{row, exponential};
        Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            const Terms<Exponential> own{row, terms.exponential};
            T* const kept = row.terms;
            Sum<T> sum;
            Index i = begin;
            for (; i + STEP <= end; i += STEP) {
                const SeveralOf<T> e = own.several_computed(i);
                if (kept != nullptr) store(kept + i, e);
                for (int j = 0; j < SEVERAL; ++j) sum.add(one_of(e, j));
            }
            each_vector_once<T>(i, end, [&](Index at, int count) BODY {
                const V e = own.computed(at, count);
                if (kept != nullptr) put<T>(kept + at, e, count);
                sum.add(e);
            });
            return Totals{sum.total(), {}, {}};
        });
        sums.first.add(sink_term(row));
        return sums.first;
    }

    // Returns what the sink weighs.
    static INLINE double value(Row<T>& row, Team& team) {
        return with_exponential(row, [&](const auto& exponential) BODY {
            const Total sum = sum_of_terms(row, team, exponential);
            const Scale scale(sum);
            const Terms<std::decay_t<decltype(exponential)>> terms{row, exponential};
            team.each_block(row.n, [&](Index begin, Index end) APART {
                write<T>(row, begin, end, [&](Index i, int count) BODY { return scale(terms.kept(i, count)); });
            });
            return sink_term(row) / sum.value();
        });
    }

    // s (g - <s, g> / sum s) with s = p. Entries that weigh nothing are not read.
    static INLINE void vjp(Row<T>& row, Team& team) {
        with_exponential(row, [&](const auto& exponential) BODY {
            const Terms<std::decay_t<decltype(exponential)>> terms{row, exponential};
            const V faint = all(static_cast<T>(FAINTEST));
            Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
                Sum<T> sum, products;
                const Terms<std::decay_t<decltype(exponential)>> own{row, terms.exponential};
                T* const kept = row.terms;
                const T* const operand = row.operand;
                const auto add = [&](const V& e, const V& given) BODY {
                    sum.add(e);
                    products.add_product(e, select(faint < e, given, all(T(0))));
                };
                Index i = begin;
                for (; i + STEP <= end; i += STEP) {
                    const SeveralOf<T> e = own.several_computed(i);
                    if (kept != nullptr) store(kept + i, e);
                    for (int j = 0; j < SEVERAL; ++j) add(one_of(e, j), load(operand + i + j * Lanes<T>::count));
                }
                each_vector_once<T>(i, end, [&](Index at, int count) BODY {
                    const V e = own.computed(at, count);
                    if (kept != nullptr) put<T>(kept + at, e, count);
                    add(e, take<T>(operand + at, count, T(0)));
                });
                return Totals{sum.total(), products.total(), {}};
            });
            sums.first.add(sink_term(row));
            const V mean = all(static_cast<T>(sums.second.value() / sums.first.value()));
            const Scale scale(sums.first, row.outer());
            team.each_block(row.n, [&](Index begin, Index end) APART {
                write<T>(row, begin, end, [&](Index i, int count) BODY {
                    const V e = terms.kept(i, count);
                    const V g = take<T>(row.operand + i, count, T(0));
                    return select(faint < e, scale(e) * (g - mean), all(T(0)));
                });
            });
        });
    }

    // -- the logarithm -----------------------------------------------------------------------------------------------

    // Below it the sum less 1 has lost digits.
    static constexpr double CLEAR = sizeof(T) == 4 ? 0x1p-16 : 0x1p-40;

    // The sum of the exponentials less one of the leading 1s, unbiased: these are exact, so that they can be taken away.
    template <class Exponential>
    static INLINE double tail(Row<T>& row, Team& team, const Exponential& exponential) {
        Row<T> unkept = row;
        unkept.terms = nullptr;
        const double clear = less_one(sum_of_terms(unkept, team, exponential));
        return clear >= CLEAR ? clear : confident_tail(row, team, exponential);
    }
    static INLINE double less_one(Total sum) {
        sum.add(-1.0 / UNBIASED<T>);
        return sum.value() * UNBIASED<T>;
    }

    // The same with the leading terms left out of the sum, where the others are next to nothing.
    template <class Exponential>
    static APART double confident_tail(Row<T>& row, Team& team, const Exponential& exponential) {
        const Terms<Exponential> terms{row, exponential};
        const V top = all(static_cast<T>(row.top));
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> sum;
            Index ties = 0;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                const V x = scores(row, terms.sign, i, count);
                const auto is_top = x == top;
                ties += __builtin_popcount(bits(is_top));
                sum.add(select(is_top, all(T(0)), exponential(x)));
            });
            return Totals{sum.total(), {static_cast<double>(ties), 0.0}, {}};
        });
        const double ties = sums.second.value();
        Total rest = sums.first;
        // The sink may be the one that leads.
        if (ties == 0.0) return rest.value() * UNBIASED<T>;
        rest.add(sink_term(row));
        return (ties - 1.0) + rest.value() * UNBIASED<T>;
    }

    static INLINE double conjugate(Row<T>& row, Team& team) {
        return with_exponential(row, [&](const auto& exponential) BODY { return log1p_of(tail(row, team, exponential)); });
    }

    // gap - shift, both in more digits than the type has.
    struct Shift {
        V hi, lo;
        explicit INLINE Shift(double shift) {
            const T head = static_cast<T>(shift);
            hi = all(head);
            lo = all(static_cast<T>(shift - static_cast<double>(head)));
        }
        INLINE V operator()(const Pair<V>& gap) const { return (gap.hi - hi) + (gap.lo - lo); }
    };

    static INLINE void log_value(Row<T>& row, Team& team) {
        with_exponential(row, [&](const auto& exponential) BODY {
            const Shift shift(log1p_of(tail(row, team, exponential)));
            const auto sign = row.sign();
            team.each_block(row.n, [&](Index begin, Index end) APART {
                write<T>(row, begin, end, [&](Index i, int count) BODY {
                    return shift(exponential.gap(scores(row, sign, i, count)));
                });
            });
        });
    }

    // g - p sum g, or for a tangent t - <p, t>; 0 where no entry takes part.
    template <bool TANGENT>
    static INLINE void log_derivative(Row<T>& row, Team& team) {
        with_exponential(row, [&](const auto& exponential) BODY {
            const Terms<std::decay_t<decltype(exponential)>> terms{row, exponential};
            const V dead = all(-INFINITE<T>), zero = all(T(0));
            const auto operand = [&](Index i, int count) BODY {
                const V x = scores(row, terms.sign, i, count);
                return select(dead < x, take<T>(row.operand + i, count, T(0)), zero);
            };
            Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
                Sum<T> sum, second;
                each_vector<T>(begin, end, [&](Index i, int count) BODY {
                    const V e = terms.computed(i, count), g = operand(i, count);
                    sum.add(e);
                    if constexpr (TANGENT)
                        second.add_product(e, g);
                    else
                        second.add(g);
                });
                return Totals{sum.total(), second.total(), {}};
            });
            sums.first.add(sink_term(row));
            const V outer = all(static_cast<T>(row.outer()));
            const double mean = sums.second.value() / sums.first.value();
            const Scale scale(sums.first, TANGENT ? 1.0 : sums.second.value());
            team.each_block(row.n, [&](Index begin, Index end) APART {
                write<T>(row, begin, end, [&](Index i, int count) BODY {
                    const V x = scores(row, terms.sign, i, count);
                    const V g = take<T>(row.operand + i, count, T(0));
                    V moved;
                    if constexpr (TANGENT)
                        moved = g - all(static_cast<T>(mean));
                    else
                        moved = g - scale(terms.computed(i, count));
                    return select(dead < x, moved * outer, zero);
                });
            });
        });
    }

    // -- short rows --------------------------------------------------------------------------------------------------

    // Rows that fit into a few vectors, untempered and without a sink, never leave the registers. The same operations in
    // the same order as above; false, and nothing done, for rows that need more care.
    static constexpr Index SHORT = 4 * Lanes<T>::count;

    template <bool LOG>
    static INLINE bool short_row(const Row<T>& row) {
        const Index vectors = (row.n + Lanes<T>::count - 1) / Lanes<T>::count;
        if (vectors == 1) return short_row<LOG, 1>(row);
        if (vectors == 2) return short_row<LOG, 2>(row);
        if (vectors == 3) return short_row<LOG, 3>(row);
        return short_row<LOG, 4>(row);
    }

    template <bool LOG, int VECTORS>
    static APART bool short_row(const Row<T>& row) {
        using W = std::conditional_t<sizeof(T) == 4, Pack<NativeFloats, VECTORS * PARTS>, Pack<NativeDoubles, VECTORS * PARTS>>;
        constexpr int LANES = Lanes<T>::count;
        const int left = static_cast<int>(row.n) - (VECTORS - 1) * LANES;
        const auto count_of = [&](int j) BODY { return j + 1 < VECTORS ? LANES : left; };
        const auto sign = row.sign();
        W x;
        V top = all(-INFINITE<T>);
        auto bad = unordered(top, top);
        for (int j = 0; j < VECTORS; ++j) {
            const V one = scores(row, sign, j * LANES, count_of(j));
            bad = bad | unordered(one, one);
            top = larger(one, top);
            set_one_of(x, j, one);
        }
        Row<T> topped = row;
        topped.top = static_cast<double>(largest_of(top)) + 0.0;
        const bool is_finite = topped.top > -__builtin_inf() && topped.top < __builtin_inf();
        if (any(bad) || !is_finite) return false;
        return with_exponential(topped, [&](const auto& exponential) BODY {
            const W e = exponential(x);
            Sum<T> sum;
            for (int j = 0; j < VECTORS; ++j) sum.add(one_of(e, j));
            if constexpr (!LOG) {
                const Scale scale(sum.total());
                for (int j = 0; j < VECTORS; ++j) put<T>(row.result + j * LANES, scale(one_of(e, j)), count_of(j));
                return true;
            }
            const double rest = less_one(sum.total());
            if (!(rest >= CLEAR)) return false;
            const Shift shift(log1p_of(rest));
            for (int j = 0; j < VECTORS; ++j)
                put<T>(row.result + j * LANES, shift(exponential.gap(one_of(x, j))), count_of(j));
            return true;
        });
    }

    static INLINE Doubles omega(const Doubles& p) {
        const Doubles floor = all(0x1p-1022);
        // Subnormal weights are brought into range; their logarithm is what it is times 2^54.
        const Doubles logarithm = select(floor <= p, log(larger(p, floor), all(0.0)),
                                         log(larger(p * all(0x1p54), floor), all(0.0)) - all(37.429947750237048));
        return select(all(0.0) < p, p * logarithm, all(0.0));
    }

  private:
    // A term at or below it belongs to an entry without weight.
    static constexpr double FAINTEST = sizeof(T) == 4 ? 0x1p-124 : 0x1p-987;
};

}  // namespace softplex::SOFTPLEX_ISA
