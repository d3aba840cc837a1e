// sparsemax (Martins & Astudillo 2016): p = (v + gap)_+ with v the weight of the top; Omega(p) = sum (p^2 - p) / 2.
#pragma once

#include "sparse.h"

namespace softplex::SOFTPLEX_ISA {

struct Sparsemax {
    static constexpr bool has_own_solver = false;
    static constexpr bool is_dear = false;
    static constexpr bool keeps_pairs = true;
    static constexpr bool is_of_powers = false;
    static constexpr bool are_sketched = true;
    static constexpr bool is_linear = true;
    double v = 1.0, v_low = 0.0, supported = 0.0;

    explicit INLINE Sparsemax(double) {}
    static INLINE double reach() { return 1.0; }
    INLINE double least() const { return -v; }

    static INLINE Doubles weight(const Doubles& v, const Doubles& gap) { return positive(v + gap); }
    INLINE Doubles weight(const Doubles& gap) const { return weight(all(v), gap); }
    INLINE Pair<Doubles> weight(const Pair<Doubles>& gap) const {
        return positive(Pair<Doubles>{all(v), all(v_low)} + gap);
    }
    static INLINE Doubles rate(const Doubles&, const Doubles&, const Doubles& p) { return slope<double>(p); }
    INLINE Doubles rate(const Doubles&, const Doubles& p) const { return slope<double>(p); }
    template <bool IS_ROUGH, class N>
    static INLINE N next(const N& v, const N& sum, const N& rates) {
        return v + quotient<IS_ROUGH>(number<N>(1.0) - sum, rates);
    }
    // The sum is linear as long as the support is the same: then the step was the last.
    template <class T, class N>
    static INLINE auto is_last(const N&, const N& rates, const N& rates_before) {
        return rates == rates_before;
    }
    template <class T, bool IS_ROUGH>
    INLINE bool step(double sum, double rates) {
        const bool is_same = is_last<T>(sum, rates, supported);
        v = next<IS_ROUGH>(v, sum, rates);
        supported = rates;
        return is_same;
    }
    template <class V>
    static INLINE V sketched_weight(const V& u) {
        return u;
    }
    template <class V>
    static INLINE V sketched_rate(const V& u) {
        return where_above(every<V>(0), u, every<V>(1));
    }
    static INLINE double rise(double sum, double rates, double temperature) { return (sum - temperature) / rates; }
    INLINE void set_line(double gaps, double count) { v = (1.0 - gaps) / count; }
    INLINE void set_least(double gap) { v = -gap; }
    static INLINE void settle() {}
    INLINE void correct(double missing, double rates) { v_low = missing / rates; }

    template <class T>
    static INLINE Doubles slope(const Doubles& p) {
        return select(all(0.0) < p, all(1.0), all(0.0));
    }
    static INLINE Doubles omega(const Doubles& p) { return halved(p) * (p - all(1.0)); }
};

}  // namespace softplex::SOFTPLEX_ISA
