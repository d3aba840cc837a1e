// entmax of any alpha above 1 (Peters, Niculae & Martins 2019). Up to 2 it is stated from the weight v of the top, which
// keeps the digits that the threshold loses near alpha = 1: with a = alpha - 1 and b = v^a, p = v (1 + a gap / b)_+^(1 / a).
// Omega(p) = sum (p^alpha - p) / (alpha a). Newton's method runs on sum^a as a function of b.
#pragma once

#include "sparse.h"

namespace softplex::SOFTPLEX_ISA {

// log of 1e100.
constexpr double STEEPEST = 230.25850929940458;

struct Entmax {
    static constexpr bool has_own_solver = false;
    static constexpr bool is_dear = true;
    static constexpr bool keeps_pairs = true;
    static constexpr bool is_of_powers = true;
    static constexpr bool are_sketched = false;
    static constexpr bool is_linear = false;
    double a, v = 1.0, b = 1.0;
    // a / b and 1 / a, and what these and v lack in double rows once they are settled.
    double slant, inverse, v_low = 0.0, slant_low = 0.0, inverse_low = 0.0;

    explicit INLINE Entmax(double alpha) : a(alpha - 1.0), slant(a), inverse(1.0 / a) {}
    INLINE double reach() const { return 1.0 / a; }
    INLINE double least() const { return -b / a; }

    INLINE Doubles base(const Doubles& gap) const { return all(1.0) + gap * all(slant); }
    APART Doubles weight(const Doubles& gap) const {
        return weight_by(gap, [](const Doubles& q) { return brief_log1p(q); }, [](const Doubles& x) { return brief_exp(x); });
    }
    // The same for double rows while they are being solved.
    APART Doubles early_weight(const Doubles& gap) const {
        return weight_by(gap, [](const Doubles& q) { return log1p(q); }, [](const Doubles& x) { return exp(x); });
    }
    // Whatever the exponent loses in its last digits, all entries lose that share a score, and the top gains.
    APART Pair<Doubles> weight(const Pair<Doubles>& gap) const {
        const Doubles one = all(1.0), zero = all(0.0);
        const Pair<Doubles> q = gap * Pair<Doubles>{all(slant), all(slant_low)}, w = two_sum(one, q.hi);
        const Pair<Doubles> base = fast_two_sum(w.hi, w.lo + q.lo);
        const DoubleMask is_inside = zero < base.hi;
        const Pair<Doubles> logarithm = log(Pair<Doubles>{select(is_inside, base.hi, one), select(is_inside, base.lo, zero)});
        const Pair<Doubles> power = exp(logarithm * Pair<Doubles>{all(inverse), all(inverse_low)});
        const Pair<Doubles> p = power * Pair<Doubles>{all(v), all(v_low)};
        return {select(is_inside, p.hi, zero), select(is_inside, p.lo, zero)};
    }
    // dp / db, times a.
    INLINE Doubles rate(const Doubles& gap, const Doubles& p) const {
        const Doubles inside = base(gap);
        return select((all(0.0) < p) & (all(0.0) < inside), rough_quotient(p, inside * all(b)), all(0.0));
    }
    // What a step leaves is the square of what it found, unless weights end almost like lines, where a support can change.
    template <class T>
    APART bool step(double sum, double rates) {
        const double smooth = sizeof(T) == 4 ? 0x1p-16 : 0x1p-30, close = a <= 0.5 ? smooth : sizeof(T) == 4 ? 0x1p-36 : 0x1p-50;
        const double before = v, logarithm = log_of(sum), power = expm1_of(a * logarithm);
        // In float rows nobody sees what is lost where one function of several says enough.
        const double slope = sizeof(T) == 4 ? (1.0 + power) / sum : exp_of((a - 1.0) * logarithm);
        const double moved = -power / (b * slope * rates);
        v += v * expm1_of(log1p_of(moved) / a);
        b = sizeof(T) == 4 ? b + b * moved : exp_of(a * log_of(v));
        slant = a / b;
        return v == before || sum <= 1.0 + close;
    }
    APART void settle() {
        const Pair<Doubles> exponent{all(a), all(0.0)}, one{all(1.0), all(0.0)}, top{all(v), all(0.0)};
        const Pair<Doubles> power = exp(log(top) * exponent), steepness = exponent / power, root = one / exponent;
        b = first_of(power.hi);
        slant = first_of(steepness.hi), slant_low = first_of(steepness.lo);
        inverse = first_of(root.hi), inverse_low = first_of(root.lo);
    }
    INLINE void correct(double missing, double rates) {
        const double moved = missing / (b * rates);
        v_low = v * moved;
        slant_low -= slant * (a * moved);
        b += b * (a * moved);
    }

    template <class T>
    APART Doubles slope(const Doubles& p) const {
        const DoubleMask is_inside = all(0.0) < p;
        const Doubles x = select(is_inside, larger(p, all(0x1p-1022)), all(1.0)), steepest = all(-STEEPEST), zero = all(0.0);
        // No steeper than the formulas let it be.
        if constexpr (sizeof(T) == 4) {
            return select(is_inside, brief_exp(-larger(brief_log(x) * all(a - 1.0), steepest)), zero);
        } else {
            const Pair<Doubles> power = log(Pair<Doubles>{x, zero}) * Pair<Doubles>{all(1.0 - a), zero};
            const Doubles top = -larger(-power.hi, steepest);
            return select(is_inside, rounded(exp(Pair<Doubles>{top, select(top == power.hi, power.lo, zero)})), zero);
        }
    }
    APART Doubles omega(const Doubles& p) const {
        const DoubleMask is_inside = all(0.0) < p;
        const Doubles logarithm = log(select(is_inside, larger(p, all(0x1p-1022)), all(1.0)));
        return select(is_inside, p * expm1(logarithm * all(a)), all(0.0)) * all(1.0 / ((1.0 + a) * a));
    }
    APART Pair<Doubles> omega(const Pair<Doubles>& p) const {
        const Doubles zero = all(0.0), one = all(1.0);
        const DoubleMask is_inside = zero < p.hi;
        const Pair<Doubles> x{select(is_inside, larger(p.hi, all(0x1p-1022)), one), select(is_inside, p.lo, zero)};
        const Pair<Doubles> exponent{all(a), zero}, scale = Pair<Doubles>{one, zero} / (exponent + exponent * exponent);
        const Pair<Doubles> found = x * expm1(log(x) * exponent) * scale;
        return {select(is_inside, found.hi, zero), select(is_inside, found.lo, zero)};
    }

  private:
    template <class Log1p, class Exp>
    INLINE Doubles weight_by(const Doubles& gap, Log1p log1p, Exp exp) const {
        const Doubles q = gap * all(slant);
        const DoubleMask is_inside = all(-1.0) < q;
        return select(is_inside, all(v) * exp(log1p(select(is_inside, q, all(0.0))) * all(inverse)), all(0.0));
    }
};

// alpha above 2, where the smallest weight decides: p = (v^a + a (gap - last))^(1 / a) with `last` the smallest gap that
// weighs something and v its weight. The threshold itself has too few digits for these.
struct SteepEntmax {
    static constexpr bool has_own_solver = true;
    static constexpr bool is_dear = true;
    static constexpr bool keeps_pairs = false;
    static constexpr bool is_of_powers = false;
    static constexpr bool are_sketched = false;
    static constexpr bool is_linear = false;
    static constexpr int ROUNDS = 128;
    double a, v = 0.0, power = 0.0, last = 0.0, last_low = 0.0;

    explicit INLINE SteepEntmax(double alpha) : a(alpha - 1.0) {}
    INLINE double reach() const { return 1.0 / a; }
    INLINE double least() const { return last - 1e-9 / a; }

    INLINE Doubles weight(const Doubles& gap) const { return weight_over(gap - all(last)); }
    // The differences count that gaps lose in their last digits.
    INLINE Doubles weight(const Pair<Doubles>& gap) const {
        return weight_over((gap.hi - all(last)) + (gap.lo - all(last_low)));
    }
    template <class T>
    INLINE Doubles slope(const Doubles& p) const {
        return inner().template slope<T>(p);
    }
    INLINE Doubles omega(const Doubles& p) const { return inner().omega(p); }

    template <class Candidates>
    INLINE void solve(Candidates& candidates) {
        find_last(candidates);
        find_weight(candidates);
    }

  private:
    INLINE Entmax inner() const { return Entmax(a + 1.0); }

    APART Doubles weight_over(const Doubles& d) const {
        const DoubleMask above = all(0.0) < d;
        const Doubles base = select(above, all(power) + d * all(a), all(1.0));
        const Doubles p = exp(log(larger(base, all(0x1p-1022))) * all(1.0 / a));
        // The anchor's ties weigh v itself, for v^a may underflow.
        return select(above, p, select(d == all(0.0), all(v), all(0.0)));
    }

    template <class Candidates>
    APART double sum_of(Candidates& candidates) const {
        return candidates
            .over_candidates([&](const auto& gap, auto& sum) BODY { sum.first.add(weight(gap)); })
            .first.value();
    }

    // The lowest of the candidates that share a gap but for its last digits.
    template <class Candidates>
    INLINE void set_last(Candidates& candidates, double gap_of_last) {
        last = gap_of_last;
        last_low = -candidates.largest_candidate([&](const auto& gap) BODY {
            return select(plain(gap) == all(gap_of_last), -rest_of(gap), all(-__builtin_inf()));
        });
        if (last_low == __builtin_inf()) last_low = 0.0;
    }
    static INLINE Doubles rest_of(const Doubles&) { return all(0.0); }
    static INLINE Doubles rest_of(const Pair<Doubles>& gap) { return gap.lo; }

    // Bisection over the candidates: those weigh something from which all above them leave something over.
    template <class Candidates>
    APART void find_last(Candidates& candidates) {
        double inside = 0.0, outside = -reach();
        for (int round = 0; round < ROUNDS; ++round) {
            const double middle = 0.5 * (inside + outside);
            const Doubles low = all(outside), high = all(inside), infinite = all(-__builtin_inf());
            // The highest candidate up to the middle, else the lowest above it.
            double next = candidates.largest_candidate([&](const auto& gap) BODY {
                const Doubles d = plain(gap);
                return select((low < d) & (d <= all(middle)), d, infinite);
            });
            if (next == -__builtin_inf())
                next = -candidates.largest_candidate([&](const auto& gap) BODY {
                    const Doubles d = plain(gap);
                    return select((all(middle) < d) & (d < high), -d, infinite);
                });
            if (next == __builtin_inf()) break;
            set_last(candidates, next);
            v = power = 0.0;
            (sum_of(candidates) < 1.0 ? inside : outside) = next;
        }
        if (!find_last_among(candidates, outside)) set_last(candidates, inside);
    }

    // The same among candidates that share a gap but for its last digits, where the lowest of them weighs nothing.
    template <class Candidates>
    INLINE bool find_last_among(Candidates& candidates, double shared) {
        double low = __builtin_inf();
        for (int round = 0; round < ROUNDS; ++round) {
            last = shared;
            v = power = 0.0;
            last_low = candidates.largest_candidate([&](const auto& gap) BODY {
                const Doubles rest = rest_of(gap);
                return select((plain(gap) == all(shared)) & (rest < all(low)), rest, all(-__builtin_inf()));
            });
            if (last_low == -__builtin_inf() || !(sum_of(candidates) < 1.0)) break;
            low = last_low;
        }
        last_low = low;
        return low < __builtin_inf();
    }

    // Newton's method on v, held between bounds; the sum is neither convex nor concave in it.
    template <class Candidates>
    APART void find_weight(Candidates& candidates) {
        v = power = 0.0;
        double low = 0.0, high = 1.0, start = 1.0 - sum_of(candidates);
        v = start > 0.0 ? start : 0.0;
        bool was_below = !(v > 0.0);
        for (int round = 0; round < ROUNDS; ++round) {
            power = v > 0.0 ? exp_of(a * log_of(v)) : 0.0;
            const Totals sums = candidates.over_candidates([&](const auto& gap, auto& sum) BODY {
                const Doubles p = weight(gap);
                const DoubleMask is_supported = all(0.0) < p;
                const Doubles ratio = all(v > 0.0 ? v : 0x1p-1022) / select(is_supported, p, all(1.0));
                sum.first.add(p);
                sum.second.add(select(is_supported, exp(log(larger(ratio, all(0x1p-1022))) * all(a - 1.0)), all(0.0)));
            });
            const double missing = 1.0 - sums.first.value(), rate = sums.second.value(), width = high - low;
            const bool is_below = missing > 0.0, is_near = __builtin_fabs(missing) <= 8.0 * 0x1p-52;
            (is_below ? low : high) = v;
            double moved = v + missing / (rate > 0.0 ? rate : 1.0);
            const bool is_inside = rate > 0.0 && moved >= low && moved <= high;
            const bool has_stalled = is_below != was_below && high - low > 0.5 * width;
            if ((!is_inside || has_stalled) && !is_near) moved = 0.5 * (low + high);
            moved = moved < 0.0 ? 0.0 : moved > 1.0 ? 1.0 : moved;
            was_below = is_below;
            const bool is_done = is_near || !(__builtin_fabs(moved - v) > 4.0 * 0x1p-52 * v);
            v = moved;
            if (is_done) break;
        }
        power = v > 0.0 ? exp_of(a * log_of(v)) : 0.0;
    }
};

// alpha = inf: the same weight for every maximum, and no derivatives.
struct Maxima {
    static constexpr bool has_own_solver = false;
    static constexpr bool is_dear = true;
    static constexpr bool keeps_pairs = false;
    static constexpr bool is_of_powers = false;
    static constexpr bool are_sketched = false;
    static constexpr bool is_linear = false;
    double v = 1.0;

    explicit INLINE Maxima(double) {}
    static INLINE double reach() { return 0x1p-1000; }
    static INLINE double least() { return -0x1p-1000; }

    INLINE Doubles weight(const Doubles& gap) const { return select(gap == all(0.0), all(v), all(0.0)); }
    INLINE Doubles weight(const Pair<Doubles>& gap) const { return weight(gap.hi); }
    INLINE Doubles rate(const Doubles& gap, const Doubles&) const { return select(gap == all(0.0), all(1.0), all(0.0)); }
    template <class T>
    INLINE bool step(double, double rates) {
        v = 1.0 / rates;
        return true;
    }
    template <class T>
    static INLINE Doubles slope(const Doubles&) {
        return all(0.0);
    }
    static INLINE Doubles omega(const Doubles&) { return all(0.0); }
};

}  // namespace softplex::SOFTPLEX_ISA
