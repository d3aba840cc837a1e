// What a cotangent of the weights says of a row's temperature and of its alpha: a number each, computed in double precision. The
// weights are given, or their logarithms; no score is turned into a weight here.
//
// What weighs nothing counts for nothing, whatever its score and its cotangent are. A weight that is NaN makes the number NaN.
#pragma once

#include "backward.h"

namespace softplex::SOFTPLEX_ISA {

// Within what the type's numbers are known to, for x up to 350.
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
    INLINE double top() const { return largest(row.scores, sign); }
    // The largest weight, or its logarithm.
    INLINE double peak() const { return largest(row.x, bits_of<typename Row<T>::Whole>(all(T(0)))); }

  private:
    INLINE double largest(const T* from, const typename Row<T>::Whole& flip) const {
        const Totals found = team.sum(row.n, [&](Index begin, Index end) APART {
            V top = all(-INFINITE<T>);
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                const V p = take<T>(row.x + i, count, absent), v = flipped(take<T>(from + i, count, T(0)), flip);
                top = larger(select(p == all(absent), all(-INFINITE<T>), v), top);
            });
            return Totals{{}, {}, {}, static_cast<double>(largest_of(top))};
        });
        return found.top;
    }
    INLINE Doubles counted(const Doubles& p, const Doubles& found) const {
        return select(p == all(static_cast<double>(absent)), all(0.0), select(unordered(p, p), p, found));
    }
};

// What a sink weighs in a softmax of which the weights are known, `whole` being their sum and `peak` the largest: what is left of 1,
// or where that is no more than rounding left, what its distance from the top makes of the peak.
template <class T>
INLINE double sink_weight(const Row<T>& row, double whole, double peak, double top) {
    if (!row.has_sink || whole != whole) return 0.0;
    return whole < 0.5 ? 1.0 - whole : peak * exp_of((row.sink - top) / row.temperature);
}

// <s u, g - mean> with s the slopes, u = -x / temperature^2 how scores over a temperature move, and the mean that of s, a sink's
// cotangent being 0. Scores and cotangents are both taken from their means, for the sum may be far below its terms.
template <class T, class Slopes>
INLINE double of_temperature(const Row<T>& row, Team& team, const Slopes& slopes) {
    const Weighed<T> weighed{row, team, T(0)};
    const double highest = weighed.top();
    const Doubles top = all(highest), none = all(0.0);
    const Totals means = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles& x) BODY {
        const Doubles s = slopes.of(p);
        return Three{s, s * g, s * (x - top)};
    });
    if (means.first.value() == 0.0) return 0.0;
    const double sink = row.has_sink ? sink_weight(row, means.first.value(), weighed.peak(), highest) : 0.0;
    const double gap = sink > 0.0 ? row.sink - highest : 0.0, whole = means.first.value() + sink;
    const double middle = means.second.value() / whole, shift = (means.third.value() + sink * gap) / whole;
    const Doubles mean = all(middle), drift = all(shift);
    const Totals found = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles& x) BODY {
        return Three{slopes.of(p) * (g - mean) * ((x - top) - drift), none, none};
    });
    return -(found.first.value() - sink * middle * (gap - shift)) / row.temperature / row.temperature;
}

// The same from the logarithms l of the weights p: <u - <p, u>, g>.
template <class T>
INLINE double of_temperature_from_logarithms(const Row<T>& row, Team& team) {
    const Weighed<T> weighed{row, team, -INFINITE<T>};
    const double highest = weighed.top();
    const Doubles top = all(highest), none = all(0.0);
    const Totals means = weighed.sums([&](const Doubles& l, const Doubles&, const Doubles& x) BODY {
        const Doubles p = exp_for<T>(l);
        return Three{p, p * (x - top), none};
    });
    if (means.first.value() == 0.0 && !row.has_sink) return 0.0;
    const double sink = row.has_sink ? sink_weight(row, means.first.value(), exp_of(weighed.peak()), highest) : 0.0;
    const double gap = sink > 0.0 ? row.sink - highest : 0.0;
    const Doubles drift = all((means.second.value() + sink * gap) / (means.first.value() + sink));
    const Totals found = weighed.sums([&](const Doubles&, const Doubles& g, const Doubles& x) BODY {
        return Three{g * ((x - top) - drift), none, none};
    });
    return -found.first.value() / row.temperature / row.temperature;
}

// What a softmax, or its logarithm, says of its sink: -p <q, g>, p being the sink's weight and q the weights, or 1 each.
template <class T, bool ARE_LOGARITHMS>
INLINE double of_sink(const Row<T>& row, Team& team) {
    const Weighed<T> weighed{row, team, ARE_LOGARITHMS ? -INFINITE<T> : T(0)};
    const Totals found = weighed.sums([&](const Doubles& p, const Doubles& g, const Doubles&) BODY {
        if constexpr (ARE_LOGARITHMS) return Three{exp_for<T>(p), g, all(0.0)};
        return Three{p, p * g, all(0.0)};
    });
    const double peak = ARE_LOGARITHMS ? exp_of(weighed.peak()) : weighed.peak();
    return -sink_weight(row, found.first.value(), peak, weighed.top()) * found.second.value() * row.outer();
}

// What the gradient z of a loss in the scores says of the temperature: -<z, x> / temperature. It sums to 0, so that any score may be
// taken from all.
template <class T>
INLINE double of_temperature_from_gradient(const Row<T>& row, Team& team) {
    const Weighed<T> weighed{row, team, T(0)};
    const Doubles top = all(weighed.top()), none = all(0.0);
    const Totals found =
        weighed.sums([&](const Doubles& z, const Doubles&, const Doubles& x) BODY { return Three{z * (x - top), none, none}; });
    return -found.first.value() * row.outer();
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
