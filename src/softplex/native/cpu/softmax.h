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

// Scores near 0, untempered: 2^bias exp(x) / 2^origin. The origin, an integer not far from the top's, cancels from the
// weights and changes no bit of them, so that it may be guessed before the top is known.
template <class T>
struct Powers {
    using C = ExpOf<T>;
    static constexpr bool FINDS_TOP = true;
    double origin, residue = 0.0;
    Vector<T> magic, floor, top;

    explicit INLINE Powers(double score) : origin(__builtin_rint(score * C::log2e)) {
        magic = all(static_cast<T>((C::magic + C::bias) - origin));
        floor = all(static_cast<T>(origin * C::ln2 + C::faint));
    }
    // Whether no term gets out of range.
    INLINE bool reaches(double score) const { return __builtin_fabs(score - origin * C::ln2) <= C::reach; }
    INLINE void set_top(double score) {
        top = all(static_cast<T>(score));
        residue = (score - origin * LN2_HEAD) - origin * LN2_REST;
    }
    template <class W>
    INLINE W operator()(const W& x) const {
        constexpr int COUNT = sizeof(W) / WIDTH;
        const W low = spread<COUNT>(floor), shift = spread<COUNT>(magic);
        const W near = larger(low, x);
        const W shifted = fma(near, every<W>(C::log2e), shift);
        const W k = shifted - shift;
        const W r = less_ln2_times(k, near);
        W reduced;
        if constexpr (sizeof(T) == 4) {
            reduced = reduced_expm1(fma(-k, every<W>(C::ln2_rest), r));
        } else {
            const W rest = -k * every<W>(C::ln2_rest), whole = r + rest;
            reduced = reduced_expm1(whole, (r - whole) + rest);
        }
        return times_power_of_two(every<W>(1) + reduced, shifted);
    }
    INLINE Pair<Vector<T>> gap(const Vector<T>& x) const { return {x - top, all(T(0))}; }
};

// Float scores whose top is far from 0: where exp does not vanish x - top is exact.
struct FarExponential {
    using C = ExpOf<float>;
    static constexpr bool FINDS_TOP = false;
    static constexpr double residue = 0.0;
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
    static constexpr bool FINDS_TOP = false;
    static constexpr double residue = 0.0;
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

INLINE bool is_near(double top) { return -512.0 < top && top < 512.0; }

template <class T>
INLINE Powers<T> powers_of(double top) {
    Powers<T> powers(top);
    powers.set_top(top);
    return powers;
}

// body(exponential) with one that keeps the gaps from the top.
template <class Body>
INLINE auto with_gaps(const Row<float>& row, Body body) {
    return is_near(row.top) ? body(powers_of<float>(row.top)) : body(FarExponential(row));
}
template <class Body>
INLINE auto with_gaps(const Row<double>& row, Body body) {
    // Below some tops there is no room for the floor.
    const bool is_simple = !row.is_tempered && row.top > -0x1p1000;
    return is_simple ? body(DoubleExponential<false>(row)) : body(DoubleExponential<true>(row));
}

// The same where weights alone are wanted.
template <class Body>
INLINE auto with_terms(const Row<float>& row, Body body) {
    return with_gaps(row, body);
}
template <class Body>
INLINE auto with_terms(const Row<double>& row, Body body) {
    const bool is_simple = !row.is_tempered && !row.has_sink && is_near(row.top);
    return is_simple ? body(powers_of<double>(row.top)) : with_gaps(row, body);
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

// The term of the sink among those of the entries.
template <class T, class Exponential>
INLINE double sink_term(const Row<T>& row, const Exponential& exponential) {
    if (!row.has_sink || row.sink == -__builtin_inf()) return 0.0;
    const Pair<Doubles> gap = gap_of(row, row.sink);
    const Doubles power = biased_exp(larger(all(ExpOf<double>::faint), gap.hi), gap.lo);
    // exp(residue): what the others are multiplied by.
    return first_of(power) * (0x1p-512 / UNBIASED<T>) * exp_of(exponential.residue);
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

    // The exponentials as a pass finds them: kept by the walk that sums them, or computed again.
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

    // What one walk finds: the sum of all terms, sink included, what `Walk` sums beside it, how many blocks have NaN, and
    // the top.
    template <class Exponential, class Walk>
    static INLINE Totals walked(const Row<T>& row, Team& team, const Exponential& exponential, Walk) {
        const Terms<Exponential> terms{row, exponential};
        Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            const Terms<Exponential> own{row, terms.exponential};
            T* const kept = row.terms;
            Walk walk(row);
            Sum<T> sum;
            SeveralOf<T> tops = spread<SEVERAL * PARTS>(all(-INFINITE<T>));
            auto bad = unordered(one_of(tops, 0), one_of(tops, 0));
            Index i = begin;
            for (; i + STEP <= end; i += STEP) {
                const SeveralOf<T> x = several_scores(row, own.sign, i);
                if constexpr (Exponential::FINDS_TOP) {
                    tops = larger(x, tops);
                    for (int j = 0; j < SEVERAL; j += 2) bad = bad | unordered(one_of(x, j), one_of(x, j + 1));
                }
                const SeveralOf<T> e = own.exponential(x);
                if (kept != nullptr) store(kept + i, e);
                for (int j = 0; j < SEVERAL; ++j) {
                    sum.add(one_of(e, j));
                    walk.add(one_of(e, j), i + j * Lanes<T>::count, Lanes<T>::count);
                }
            }
            V top = one_of(tops, 0);
            for (int j = 1; j < SEVERAL; ++j) top = larger(one_of(tops, j), top);
            each_vector_once<T>(i, end, [&](Index at, int count) BODY {
                const V x = scores(row, own.sign, at, count);
                top = larger(x, top);
                bad = bad | unordered(x, x);
                const V e = own.exponential(x);
                if (kept != nullptr) put<T>(kept + at, e, count);
                sum.add(e);
                walk.add(e, at, count);
            });
            const Total not_numbers{any(bad) ? 1.0 : 0.0, 0.0};
            return Totals{sum.total(), walk.total(), not_numbers, static_cast<double>(largest_of(top))};
        });
        sums.first.add(sink_term(row, exponential));
        return sums;
    }
    // Nothing but the terms is summed.
    struct TermsAlone {
        explicit INLINE TermsAlone(const Row<T>&) {}
        INLINE void add(const V&, Index, int) {}
        INLINE Total total() const { return {}; }
    };
    // The terms times the operand, too. Entries that weigh nothing are not read.
    struct Products {
        const T* const operand;
        Sum<T> sum;

        explicit INLINE Products(const Row<T>& row) : operand(row.operand) {}
        INLINE void add(const V& e, Index i, int count) {
            const V faint = all(static_cast<T>(FAINTEST));
            sum.add_product(e, select(faint < e, take<T>(operand + i, count, T(0)), all(T(0))));
        }
        INLINE Total total() const { return sum.total(); }
    };

    // walk(powers) and finish(powers, what it found) for a near row whose top is found on the way; false, and nothing
    // written that matters, if the row must be looked at first.
    template <class Walk, class Finish>
    static INLINE bool at_once(Row<T>& row, Walk walk, Finish finish) {
        const V first = scores(row, row.sign(), 0, static_cast<int>(row.n < Lanes<T>::count ? row.n : Lanes<T>::count));
        const double guess = static_cast<double>(largest_of(first));
        if (guess >= 512.0) return false;
        Powers<T> powers(is_near(guess) ? guess : 0.0);
        Totals sums = walk(powers);
        if (!is_near(sums.top) || sums.third.hi != 0.0) return false;
        row.top = sums.top + 0.0;
        if (!powers.reaches(row.top)) {
            powers = Powers<T>(row.top);
            sums = walk(powers);
        }
        powers.set_top(row.top);
        finish(powers, sums);
        return true;
    }

    // -- weights -----------------------------------------------------------------------------------------------------

    // Returns what the sink weighs.
    static INLINE double value(Row<T>& row, Team& team) {
        return with_terms(row, [&](const auto& exponential) BODY {
            return weighed(row, team, exponential, walked(row, team, exponential, TermsAlone(row)));
        });
    }
    static INLINE bool value_at_once(Row<T>& row, Team& team) {
        if (row.terms == row.x) return false;
        return at_once(
            row, [&](const Powers<T>& powers) APART { return walked(row, team, powers, TermsAlone(row)); },
            [&](const Powers<T>& powers, const Totals& sums) BODY { weighed(row, team, powers, sums); });
    }
    template <class Exponential>
    static INLINE double weighed(const Row<T>& row, Team& team, const Exponential& exponential, const Totals& sums) {
        const Scale scale(sums.first);
        const Terms<Exponential> terms{row, exponential};
        team.each_block(row.n, [&](Index begin, Index end) APART {
            write<T>(row, begin, end, [&](Index i, int count) BODY { return scale(terms.kept(i, count)); });
        });
        return sink_term(row, exponential) / sums.first.value();
    }

    // s (g - <s, g> / sum s) with s = p.
    static INLINE void vjp(Row<T>& row, Team& team) {
        with_terms(row, [&](const auto& exponential) BODY {
            differentiated(row, team, exponential, walked(row, team, exponential, Products(row)));
        });
    }
    static INLINE bool vjp_at_once(Row<T>& row, Team& team) {
        if (row.terms == row.x || row.terms == row.operand) return false;
        return at_once(
            row, [&](const Powers<T>& powers) APART { return walked(row, team, powers, Products(row)); },
            [&](const Powers<T>& powers, const Totals& sums) BODY { differentiated(row, team, powers, sums); });
    }
    template <class Exponential>
    static INLINE void differentiated(const Row<T>& row, Team& team, const Exponential& exponential, const Totals& sums) {
        const Terms<Exponential> terms{row, exponential};
        const V mean = all(static_cast<T>(sums.second.value() / sums.first.value()));
        const V faint = all(static_cast<T>(FAINTEST));
        const Scale scale(sums.first, row.outer());
        team.each_block(row.n, [&](Index begin, Index end) APART {
            write<T>(row, begin, end, [&](Index i, int count) BODY {
                const V e = terms.kept(i, count);
                const V g = take<T>(row.operand + i, count, T(0));
                return select(faint < e, scale(e) * (g - mean), all(T(0)));
            });
        });
    }

    // -- the logarithm -----------------------------------------------------------------------------------------------

    // Below it the sum less 1 has lost digits.
    static constexpr double CLEAR = sizeof(T) == 4 ? 0x1p-16 : 0x1p-40;

    // log sum exp(x - top), which is log1p of the sum over all but one of the leading entries. A leading term is taken from
    // the sum as it was rounded.
    template <class Exponential>
    static INLINE double log_sum(const Row<T>& row, Team& team, const Exponential& exponential, const Total& sum) {
        const bool sink_leads = row.has_sink && row.sink == row.top;
        const double leading = sink_leads ? sink_term(row, exponential) : first_of(exponential(all(static_cast<T>(row.top))));
        Total rest = sum;
        rest.add(-leading);
        const double clear = rest.value() * UNBIASED<T> / unit_of(exponential);
        return log1p_of(clear >= CLEAR ? clear : confident_tail(row, team, exponential));
    }

    // What the exact term of a score at the top would be, unbiased.
    template <class Exponential>
    static INLINE double unit_of(const Exponential& exponential) {
        if constexpr (Exponential::FINDS_TOP) return exp_of(exponential.residue);
        return 1.0;
    }

    // The sum of exp(x - top) less one, where all but the leading terms are next to nothing.
    template <class Exponential>
    static APART double confident_tail(const Row<T>& row, Team& team, const Exponential& exponential) {
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
        const double ties = sums.second.value(), unit = unit_of(exponential) / UNBIASED<T>;
        Total rest = sums.first;
        // The sink may be the one that leads.
        if (ties == 0.0) return rest.value() / unit;
        rest.add(sink_term(row, exponential));
        return (ties - 1.0) + rest.value() / unit;
    }

    static INLINE Row<T> without_terms(const Row<T>& row) {
        Row<T> unkept = row;
        unkept.terms = nullptr;
        return unkept;
    }
    static INLINE double conjugate(Row<T>& row, Team& team) {
        const Row<T> unkept = without_terms(row);
        return with_gaps(row, [&](const auto& exponential) BODY {
            return log_sum(row, team, exponential, walked(unkept, team, exponential, TermsAlone(row)).first);
        });
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
        const Row<T> unkept = without_terms(row);
        with_gaps(row, [&](const auto& exponential) BODY {
            shifted(row, team, exponential, walked(unkept, team, exponential, TermsAlone(row)).first);
        });
    }
    static INLINE bool log_value_at_once(Row<T>& row, Team& team) {
        if constexpr (sizeof(T) == 8) return false;  // the gaps of doubles need the top
        const Row<T> unkept = without_terms(row);
        return at_once(
            row, [&](const Powers<T>& powers) APART { return walked(unkept, team, powers, TermsAlone(row)); },
            [&](const Powers<T>& powers, const Totals& sums) BODY { shifted(row, team, powers, sums.first); });
    }
    template <class Exponential>
    static INLINE void shifted(const Row<T>& row, Team& team, const Exponential& exponential, const Total& sum) {
        const Shift shift(log_sum(row, team, exponential, sum));
        const auto sign = row.sign();
        team.each_block(row.n, [&](Index begin, Index end) APART {
            write<T>(row, begin, end, [&](Index i, int count) BODY {
                return shift(exponential.gap(scores(row, sign, i, count)));
            });
        });
    }

    // g - p sum g, or for a tangent t - <p, t>; 0 where no entry takes part.
    template <bool TANGENT>
    static INLINE void log_derivative(Row<T>& row, Team& team) {
        with_terms(row, [&](const auto& exponential) BODY {
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
            sums.first.add(sink_term(row, exponential));
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
        using W = SeveralOf<T, VECTORS>;
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
        Team team;
        const auto compute = [&](const auto& exponential) BODY {
            const W e = exponential(x);
            Sum<T> sum;
            for (int j = 0; j < VECTORS; ++j) sum.add(one_of(e, j));
            if constexpr (LOG) {
                const Shift shift(log_sum(topped, team, exponential, sum.total()));
                for (int j = 0; j < VECTORS; ++j)
                    put<T>(row.result + j * LANES, shift(exponential.gap(one_of(x, j))), count_of(j));
            } else {
                const Scale scale(sum.total());
                for (int j = 0; j < VECTORS; ++j) put<T>(row.result + j * LANES, scale(one_of(e, j)), count_of(j));
            }
        };
        if constexpr (LOG)
            with_gaps(topped, compute);
        else
            with_terms(topped, compute);
        return true;
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
