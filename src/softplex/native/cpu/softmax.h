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
        top_rest = less_ln2_times<float>(top_multiple, top);
    }
    INLINE Floats operator()(const Floats& x) const {
        const Floats magic = all(C::magic + C::bias);
        const Floats near = larger(floor, x);
        const Floats shifted = fma(near - top, all(C::log2e), magic);
        const Floats k = shifted - magic;
        const Floats r = less_ln2_times<float>(k + top_multiple, near) - top_rest;
        const Floats reduced = fma(-k, all(C::ln2_rest), r);
        return times_power_of_two<float>(all(1.0f) + reduced_expm1<float>(reduced), shifted);
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - top, all(0.0f)}; }
};

// Float scores whose top is far from 0: where exp does not vanish x - top is exact.
struct FarExponential {
    using C = ExpOf<float>;
    Floats top;

    explicit INLINE FarExponential(const Row<float>& row) : top(all(static_cast<float>(row.top))) {}
    INLINE Floats operator()(const Floats& x) const {
        const Floats magic = all(C::magic + C::bias);
        const Floats near = larger(all(C::faint), x - top);
        const Floats shifted = fma(near, all(C::log2e), magic);
        const Floats k = shifted - magic;
        const Floats reduced = fma(-k, all(C::ln2_rest), less_ln2_times<float>(k, near));
        return times_power_of_two<float>(all(1.0f) + reduced_expm1<float>(reduced), shifted);
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - top, all(0.0f)}; }
};

// Double scores: the difference and what rounding took from it, divided by the temperature if there is one.
template <bool TEMPERED>
struct DoubleExponential {
    using C = ExpOf<double>;
    Doubles top, scale, temperature;

    explicit INLINE DoubleExponential(const Row<double>& row) {
        // Above 2^100 the differences of finite scores could overflow although their quotients do not.
        const double quarter = row.temperature > 0x1p100 ? 0.25 : 1.0;
        scale = all(quarter);
        top = all(row.top * quarter);
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
    INLINE Doubles operator()(const Doubles& x) const {
        const Pair<Doubles> d = gap(x);
        return biased_exp<double>(larger(all(C::faint), d.hi), d.lo);
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
    return row.is_tempered ? body(DoubleExponential<true>(row)) : body(DoubleExponential<false>(row));
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
    const Doubles power = biased_exp<double>(larger(all(ExpOf<double>::faint), gap.hi), gap.lo);
    return first_of(power) * (0x1p-512 / UNBIASED<T>);
}

// -- the map -------------------------------------------------------------------------------------------------------------

template <class T>
struct Softmax {
    using V = Vector<T>;

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
            if (kept != nullptr)
                each_vector<T>(begin, end, [&](Index i, int count) BODY {
                    const V e = own.computed(i, count);
                    put<T>(kept + i, e, count);
                    sum.add(e);
                });
            else
                each_vector_once<T>(begin, end, [&](Index i, int count) BODY { sum.add(own.computed(i, count)); });
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
                each_vector<T>(begin, end, [&](Index i, int count) BODY {
                    const V e = terms.computed(i, count);
                    if (row.terms != nullptr) put<T>(row.terms + i, e, count);
                    const V g = select(faint < e, take<T>(row.operand + i, count, T(0)), all(T(0)));
                    sum.add(e);
                    products.add_product(e, g);
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

    // The sum of the exponentials less one of the leading 1s, unbiased.
    template <class Exponential>
    static INLINE double tail(Row<T>& row, Team& team, const Exponential& exponential) {
        const Terms<Exponential> terms{row, exponential};
        const V top = all(static_cast<T>(row.top));
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> sum;
            Index ties = 0;
            each_vector<T>(begin, end, [&](Index i, int count) BODY {
                const V x = scores(row, terms.sign, i, count);
                const auto is_top = x == top;
                ties += __builtin_popcount(bits(is_top));
                sum.add(select(is_top, all(T(0)), exponential(x)));
            });
            return Totals{sum.total(), {static_cast<double>(ties), 0.0}, {}};
        });
        const double ties = sums.second.value();
        Total rest = sums.first;
        if (!row.has_sink || row.sink == -__builtin_inf()) return (ties - 1.0) + rest.value() * UNBIASED<T>;
        // The sink may be the one that leads.
        if (ties == 0.0) return rest.value() * UNBIASED<T>;
        rest.add(sink_term(row));
        return (ties - 1.0) + rest.value() * UNBIASED<T>;
    }

    static INLINE double conjugate(Row<T>& row, Team& team) {
        return with_exponential(row, [&](const auto& exponential) BODY { return log1p_of(tail(row, team, exponential)); });
    }

    static INLINE void log_value(Row<T>& row, Team& team) {
        with_exponential(row, [&](const auto& exponential) BODY {
            const double shift = log1p_of(tail(row, team, exponential));
            const V hi = all(static_cast<T>(shift)), lo = all(static_cast<T>(shift - static_cast<double>(static_cast<T>(shift))));
            const auto sign = row.sign();
            team.each_block(row.n, [&](Index begin, Index end) APART {
                write<T>(row, begin, end, [&](Index i, int count) BODY {
                    const Pair<V> gap = exponential.gap(scores(row, sign, i, count));
                    return (gap.hi - hi) + (gap.lo - lo);
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
