// What a cotangent of the weights, or a loss, says of a row's temperature, alpha and sink: a number each, in double precision. The
// weights are given, or their logarithms: which entries count, and how, is asked of them, and no row is solved here.
//
// What weighs nothing counts for nothing, whatever its score and its cotangent are. A weight that is NaN makes the number NaN.
#pragma once

#include "backward.h"

namespace softplex::SOFTPLEX_ISA {

// exp(x) for x up to 350, of float rows within 2^-33 of itself.
template <class T>
INLINE Doubles exp_for(const Doubles& x) {
    if constexpr (sizeof(T) == 4) return brief_exp(x);
    return exp(x);
}

struct Three {
    Doubles first, second, third;
};

// Sums over the entries that weigh something, of what each says of itself.
template <class T>
struct Weighed {
    using V = Vector<T>;
    static constexpr int GROUPS = sizeof(T) == 4 ? 2 : 1;
    const Row<T>& row;
    Team& team;
    // What weighs nothing: 0, or its logarithm.
    const T absent;
    const typename Row<T>::Whole sign = row.sign();

    // The sums of what terms(p, g, x) gives, p being a weight or its logarithm, g its cotangent, x its score as the map sees it; 0
    // where there are none.
    template <class Terms>
    INLINE Totals sums(const Terms& terms) const {
        return team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> first, second, third;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                const V own = take<T>(row.x + i, count, absent);
                if (bits(own == all(absent)) == (1u << Lanes<T>::count) - 1u) return;
                Doubles p[GROUPS], g[GROUPS], x[GROUPS];
                split(own, p);
                split(row.operand == nullptr ? all(T(0)) : take<T>(row.operand + i, count, T(0)), g);
                split(row.scores == nullptr ? all(T(0)) : flipped(take<T>(row.scores + i, count, T(0)), sign), x);
                for (int j = 0; j < GROUPS; ++j) {
                    const Three found = terms(p[j], g[j], x[j]);
                    first.add(counted(p[j], found.first));
                    second.add(counted(p[j], found.second));
                    third.add(counted(p[j], found.third));
                }
            });
            return Totals{first.total(), second.total(), third.total()};
        });
    }
    // The largest score.
    INLINE double top() const {
        const Totals found = team.sum(row.n, [&](Index begin, Index end) APART {
            V top = all(-INFINITE<T>);
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                const V p = take<T>(row.x + i, count, absent), x = flipped(take<T>(row.scores + i, count, T(0)), sign);
                top = larger(select(p == all(absent), all(-INFINITE<T>), x), top);
            });
            return Totals{{}, {}, {}, static_cast<double>(largest_of(top))};
        });
        return found.top;
    }

  private:
    INLINE Doubles counted(const Doubles& p, const Doubles& found) const {
        return select(p == all(static_cast<double>(absent)), all(0.0), select(unordered(p, p), p, found));
    }
};

// Differences of scores over the temperature, taken so that none overflows that weighs something.
template <class T>
struct Distances {
    // A power of 2 that brings a large temperature near 1.
    const double unit;
    const Doubles scale, top, inverse;

    INLINE Distances(const Row<T>& row, double highest)
        : unit(row.temperature > 2.0 ? power_of_two(-exponent_of(row.temperature)) : 1.0),
          scale(all(unit)),
          top(all(highest * unit)),
          inverse(all(1.0 / (row.temperature * unit))) {}
    INLINE Doubles operator()(const Doubles& x) const { return (x * scale - top) * inverse; }

  private:
    static INLINE std::int64_t exponent_of(double x) {
        const std::int64_t exponent = (bits_of<std::int64_t>(x) >> 52) - 1023;
        return exponent < 1022 ? exponent : 1022;
    }
};

// What a softmax, or its logarithm, says of its temperature and of its sink. Weights come from the scores again, w = exp(gap), for
// in floats all that are equal are rounded alike, which is much in a sum of many.
template <class T, bool ARE_LOGARITHMS>
struct OfExponentials {
    const Row<T>& row;
    const Weighed<T> weighed;
    const double highest;
    const Distances<T> gaps;

    INLINE OfExponentials(const Row<T>& the_row, Team& team)
        : row(the_row),
          weighed{the_row, team, ARE_LOGARITHMS ? -INFINITE<T> : T(0)},
          highest(highest_of(weighed.top())),
          gaps(the_row, highest) {}

    // -<w u, g - mean> / (temperature sum w), u the gap less its mean; of the logarithm -<u, g> / temperature. A sink's cotangent is 0.
    INLINE double of_temperature() const {
        if (is_bad()) return __builtin_nan("");
        const Sums all_of = sums();
        if (all_of.whole == 0.0) return 0.0;
        const Doubles mean = all(all_of.mean), drift = all(all_of.drift), none = all(0.0), share = all(1.0 / all_of.whole);
        const Totals found = weighed.sums([&](const Doubles&, const Doubles& g, const Doubles& x) BODY {
            const Doubles gap = gaps(x), moved = gap - drift;
            if constexpr (ARE_LOGARITHMS) return Three{g * moved, none, none};
            return Three{exp_for<T>(gap) * share * (g - mean) * moved, none, none};
        });
        double own = found.first.value();
        if (!ARE_LOGARITHMS && all_of.sink > 0.0) own -= all_of.sink / all_of.whole * all_of.mean * (all_of.gap - all_of.drift);
        return -own / row.temperature;
    }
    // -p <q, g>, p being the sink's weight and q the weights, or 1 each.
    INLINE double of_sink() const {
        if (is_bad()) return __builtin_nan("");
        const Sums all_of = sums();
        return all_of.whole == 0.0 ? 0.0 : -(all_of.sink / all_of.whole) * all_of.mean * row.outer();
    }

  private:
    // Of the exponentials, the sink's among them: their sum, the mean cotangent (of the logarithm the sum), the mean gap; the sink's
    // term and gap.
    struct Sums {
        double whole, mean, drift, sink, gap;
    };
    INLINE Sums sums() const {
        const Totals found = weighed.sums([&](const Doubles&, const Doubles& g, const Doubles& x) BODY {
            const Doubles gap = gaps(x), w = exp_for<T>(gap);
            return Three{w, ARE_LOGARITHMS ? g : w * g, select(w == all(0.0), all(0.0), w * gap)};
        });
        const bool competes = row.has_sink && row.sink > -__builtin_inf();
        const double gap = competes ? first_of(gaps(all(row.sink))) : 0.0, sink = competes ? exp_of(gap) : 0.0;
        const double whole = found.first.value() + sink, mean = found.second.value();
        const double drift = found.third.value() + (sink > 0.0 ? sink * gap : 0.0);
        return {whole, ARE_LOGARITHMS ? mean : mean / whole, drift / whole, sink, gap};
    }
    INLINE bool is_bad() const { return row.has_sink && !(row.sink < __builtin_inf()); }
    INLINE double highest_of(double top) const { return row.has_sink && row.sink > top ? row.sink : top; }
};

// <s u, g - mean> with s the slopes, u = -gap / temperature how scores over a temperature move, and the mean that of s. Distances and
// cotangents are both taken from their means, for the sum may be far below its terms.
template <class T, class Slopes>
INLINE double of_temperature(const Row<T>& row, Team& team, const Slopes& slopes) {
    const Weighed<T> weighed{row, team, T(0)};
    const Distances<T> gaps(row, weighed.top());
    const Doubles none = all(0.0);
    const Totals means = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles& x) BODY {
        const Doubles s = slopes.of(p);
        return Three{s, s * g, s * gaps(x)};
    });
    const double whole = means.first.value();
    if (whole == 0.0) return 0.0;
    const Doubles mean = all(means.second.value() / whole), drift = all(means.third.value() / whole);
    const Totals found = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles& x) BODY {
        return Three{slopes.of(p) * (g - mean) * (gaps(x) - drift), none, none};
    });
    return -found.first.value() / row.temperature;
}

// What the gradient z of a loss in the scores says of the temperature: -<z, x> / temperature. But for rounding z sums to 0, so that any
// score may be taken from all.
template <class T>
INLINE double of_temperature_from_gradient(const Row<T>& row, Team& team) {
    const Weighed<T> weighed{row, team, T(0)};
    const Distances<T> gaps(row, weighed.top());
    const Doubles none = all(0.0);
    const Totals found = weighed.sums([&](const Doubles& z, const Doubles&, const Doubles& x) BODY { return Three{z * gaps(x), none, none}; });
    return row.is_negated ? found.first.value() : -found.first.value();
}

// <r, g - mean>, the mean being that of s = p^(2 - alpha): with a = alpha - 1 weights move by r = -s log^2 p growth(a log p), where
// growth(y) = (y e^y - e^y + 1) / y^2 (Correia, Niculae & Martins 2019).
template <class T>
struct AlphaOf {
    const double a;

    INLINE double cotangent(const Row<T>& row, Team& team) const {
        const Weighed<T> weighed{row, team, T(0)};
        const Doubles none = all(0.0);
        // The maxima share evenly, whatever is near infinity.
        if (a == __builtin_inf())
            return weighed.sums([&](const Doubles&, const Doubles&, const Doubles&) BODY { return Three{none, none, none}; }).first.value();
        const Totals means = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles&) BODY {
            const Doubles s = slope_at(logarithm_of(p));
            return Three{s, s * g, none};
        });
        const double whole = means.first.value();
        if (whole == 0.0) return 0.0;
        const Doubles mean = all(means.second.value() / whole);
        const Totals found = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles&) BODY {
            return Three{rate_at(logarithm_of(p)) * (g - mean), none, none};
        });
        return found.first.value();
    }
    // The derivative of Omega*, that is of -Omega at p: p log p (mean_power(a log p) / alpha - log p growth(a log p)) / alpha, where
    // mean_power(y) = (e^y - 1) / y.
    INLINE double of_conjugate(const Row<T>& row, Team& team) const {
        const Weighed<T> weighed{row, team, T(0)};
        const Doubles none = all(0.0), inverse = all(a == __builtin_inf() ? 0.0 : 1.0 / (a + 1.0));
        const Totals found = weighed.sums([&](const Doubles& p, const Doubles&, const Doubles&) BODY {
            const Doubles logarithm = logarithm_of(p), y = a == __builtin_inf() ? none : logarithm * all(a);
            return Three{p * logarithm * (mean_power(y) * inverse - logarithm * growth(y)) * inverse, none, none};
        });
        return found.first.value();
    }

  private:
    static INLINE Doubles logarithm_of(const Doubles& p) {
        const Doubles positive = larger(p, all(0x1p-1022));
        if constexpr (sizeof(T) == 4) return brief_log(positive);
        return log(positive);
    }
    // No steeper than the formulas let it be.
    INLINE Doubles slope_at(const Doubles& logarithm) const { return exp_for<T>(-larger(logarithm * all(a - 1.0), all(-STEEPEST))); }
    INLINE Doubles rate_at(const Doubles& logarithm) const {
        return -slope_at(logarithm) * (logarithm * logarithm) * growth(logarithm * all(a));
    }
    // For y <= 0; by its series sum_j y^j / (j! (j + 2)) where it cancels.
    static INLINE Doubles growth(const Doubles& y) {
        const Doubles far = -larger(-y, all(1.0)), power = exp_for<T>(far);
        const Doubles direct = ((far - all(1.0)) * power + all(1.0)) / (far * far);
        return select(all(-1.0) < y, polynomial(larger(y, all(-1.0)), SERIES.of_growth), direct);
    }
    // For y <= 0; by its series sum_j y^j / (j + 1)! where it cancels.
    static INLINE Doubles mean_power(const Doubles& y) {
        const Doubles far = -larger(-y, all(1.0)), direct = (exp_for<T>(far) - all(1.0)) / far;
        return select(all(-1.0) < y, polynomial(larger(y, all(-1.0)), SERIES.of_mean_power), direct);
    }
    struct Series {
        static constexpr int TERMS = sizeof(T) == 4 ? 12 : 18;
        double of_growth[TERMS], of_mean_power[TERMS];
        constexpr Series() : of_growth(), of_mean_power() {
            double factorial = 1.0;
            for (int j = 0; j < TERMS; ++j) {
                of_growth[j] = 1.0 / (factorial * (j + 2));
                of_mean_power[j] = 1.0 / (factorial * (j + 1));
                factorial *= j + 1;
            }
        }
    };
    static constexpr Series SERIES{};
};

}  // namespace softplex::SOFTPLEX_ISA
