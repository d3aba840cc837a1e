// Weights so faint that a product on the way to them is subnormal: many a processor takes a hundred times as long for it.
// The same bits come of other steps here, for rows in which such weights are met. Which weights there are is not known here.
#pragma once

#include <type_traits>

#include "elementary.h"

namespace softplex::SOFTPLEX_ISA {

// e (hi + lo), as every term becomes a weight; rounded once, or nearly so.
template <class V>
INLINE V weight_of(const V& e, const V& hi, const V& lo) {
    if constexpr (!HAS_FMA && std::is_same_v<V, Floats>) {
        const Halves wide = widened(e), head = widened(hi), rest = widened(lo);
        return narrowed(wide.low * (head.low + rest.low), wide.high * (head.high + rest.high));
    }
    return fma(e, hi, e * lo);
}

// For floats hi + lo, of which |hi| < 2^37; it is negative where residuals are scaled.
class Faint {
  public:
    // Without a fused multiply-add there are other bits.
    static constexpr bool IS_KNOWN = HAS_FMA;
    // One vector of so many is looked at, for it costs nothing but time to miss some. Many do not lie in the nearest cache.
    static INLINE Index looked_at_every(Index count) { return count > 4096 ? 32 : 8; }

    INLINE Faint(const Floats& the_hi, const Floats& the_lo) : hi_(the_hi), lo_(the_lo) {
        const Ints sign = all(INT32_MIN);
        sign_ = bits_of<Ints>(hi_) & sign;
        part_sign_ = wrapping_sum(sign_, bits_of<Ints>(lo_) & sign);
        high_ = flipped(hi_, sign_) * all(0x1p90f);
        low_ = flipped(flipped(lo_, sign_), part_sign_) * all(0x1p90f);
        // Some 2^-90 / |hi|, for a weight of which e * lo is subnormal in hardly any row.
        least_ = bits_of<Floats>(all(164 << 23) - bits_of<Ints>(flipped(hi_, sign_)));
    }
    INLINE FloatMask are_faint(const Floats& e) const { return are_between_0(e, least_); }
    // Whether some of the terms from begin to end are met, where kept(i, lanes) gives them.
    template <class Kept>
    INLINE bool is_met(Index begin, Index end, const Kept& kept) const {
        return is_met_below(least_, begin, end, kept);
    }
    template <class Kept>
    static INLINE bool is_met_below(const Floats& least, Index begin, Index end, const Kept& kept) {
        constexpr int LANES = Lanes<float>::count;
        if (!IS_KNOWN || end - begin < LANES) return false;
        const Index step = looked_at_every(end - begin) * LANES;
        FloatMask met = are_between_0(kept(begin, LANES), least);
        for (Index i = begin + step; i + LANES <= end; i += step) met = met | are_between_0(kept(i, LANES), least);
        return any(met);
    }

    // weight_of(e, hi, lo).
    INLINE Floats weight(const Floats& e) const {
        const FloatMask is_faint = are_faint(e);
        const Floats zero = all(0.0f), term = select(is_faint, e, zero);
        // All is 2^90 times as large as the weight. A part below 2^-36 is rounded to a multiple of 2^-59, for which the least
        // subnormal stands.
        const Floats unit = all(0x1p-36f), exact = term * low_;
        const Floats part = flipped(select(exact < unit, (exact + unit) - unit, exact), part_sign_);
        const Ints normal = bits_of<Ints>(fma(term, high_, part)) - all(90 << 23);
        const Ints subnormal = bits_of<Ints>(fma(term, high_, part + unit)) - bits_of<Ints>(unit);
        // Of two that are right in their own range the larger is right: bits grow by one octave where numbers double, and no
        // faster than either beyond its own.
        const Floats weight = flipped(bits_of<Floats>(larger(normal, subnormal)), sign_);
        return select(is_faint, weight, weight_of(select(is_faint, zero, e), hi_, lo_));
    }

  private:
    static INLINE FloatMask are_between_0(const Floats& e, const Floats& least) { return (all(0.0f) < e) & (e < least); }

    Floats hi_, lo_, high_, low_, least_;
    Ints sign_, part_sign_;
};

}  // namespace softplex::SOFTPLEX_ISA
