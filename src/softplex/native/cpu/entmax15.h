// entmax at alpha = 1.5 (Peters, Niculae & Martins 2019): p = (r + gap / 2)_+^2 with r the root of the top's weight;
// Omega(p) = sum (p^1.5 - p) / 0.75. Newton's method on the root of the sum takes one step where all scores are equal.
#pragma once

#include "sparse.h"

namespace softplex::SOFTPLEX_ISA {

struct Entmax15 {
    static constexpr bool has_own_solver = false;
    static constexpr bool is_dear = false;
    static constexpr bool keeps_pairs = true;
    static constexpr bool is_of_powers = false;
    static constexpr bool are_sketched = true;
    static constexpr bool is_linear = false;
    double root = 1.0, root_low = 0.0;

    explicit INLINE Entmax15(double) {}
    static INLINE double reach() { return 2.0; }
    INLINE double least() const { return -2.0 * root; }

    static INLINE Doubles weight(const Doubles& root, const Doubles& gap) {
        const Doubles u = positive(fma(gap, all(0.5), root));
        return u * u;
    }
    INLINE Doubles weight(const Doubles& gap) const { return weight(all(root), gap); }
    INLINE Pair<Doubles> weight(const Pair<Doubles>& gap) const {
        const Pair<Doubles> u = positive(Pair<Doubles>{all(root), all(root_low)} + halved(gap));
        return u * u;
    }
    static INLINE Doubles rate(const Doubles& root, const Doubles& gap, const Doubles&) { return positive(fma(gap, all(0.5), root)); }
    INLINE Doubles rate(const Doubles& gap, const Doubles& p) const { return rate(all(root), gap, p); }
    // From the sum to its root in one quotient, the second step of Newton's own method for roots from (sum + 1) / 2 on: closer
    // than what it is for, never below, and a processor divides sooner than it takes roots. Large sums have theirs taken.
    template <bool IS_ROUGH, class N>
    static INLINE N next(const N& root, const N& sum, const N& rates) {
        const N one = number<N>(1.0), up = fma(fma(fma(number<N>(7.0), sum, number<N>(35.0)), sum, number<N>(21.0)), sum, one);
        const N down = (sum + one) * fma(sum + number<N>(6.0), sum, one);
        const N step = quotient<IS_ROUGH>((one - sum) * up, down * (number<N>(8.0) * rates));
        return root + where_large(sum, step, [&] {
                   const N norm = sqrt(sum);
                   return quotient<IS_ROUGH>((one - norm) * norm, rates);
               });
    }
    // What a step leaves is the square of what it found; for double rows correct() is one more.
    template <class T, class N>
    static INLINE auto is_last(const N& sum, const N&, const N&) {
        return sum <= number<N>(1.0 + (sizeof(T) == 4 ? 0x1p-16 : 0x1p-28));
    }
    template <class T, bool IS_ROUGH>
    INLINE bool step(double sum, double rates) {
        root = next<IS_ROUGH>(root, sum, rates);
        return is_last<T>(sum, rates, rates);
    }
    template <class V>
    static INLINE V sketched_weight(const V& u) {
        return u * u;
    }
    template <class V>
    static INLINE V sketched_rate(const V& u) {
        return u;
    }
    static INLINE double rise(double sum, double rates, double temperature) {
        const double norm = sqrt(sum);
        return (norm - 2.0 * temperature) * norm / rates;
    }
    INLINE void set_least(double gap) { root = -0.5 * gap; }
    static INLINE void settle() {}
    INLINE void correct(double missing, double rates) { root_low = missing / (2.0 * rates); }

    template <class T>
    static INLINE Doubles slope(const Doubles& p) {
        return sqrt(p);
    }
    static INLINE Doubles omega(const Doubles& p) { return p * (sqrt(p) - all(1.0)) * all(1.0 / 0.75); }

  private:
    static constexpr double LARGE = 16.0;

    template <class Step>
    static INLINE double where_large(double sum, double otherwise, const Step& step) {
        return LARGE < sum ? step() : otherwise;
    }
    template <class Step>
    static INLINE Doubles where_large(const Doubles& sum, const Doubles& otherwise, const Step& step) {
        const DoubleMask is_large = all(LARGE) < sum;
        return any(is_large) ? select(is_large, step(), otherwise) : otherwise;
    }
};

}  // namespace softplex::SOFTPLEX_ISA
