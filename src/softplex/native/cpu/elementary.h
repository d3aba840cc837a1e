// exp, log and their kin on vectors, sums that keep their digits, and the pairs that these are made of.
//
// Range reduction in two steps and polynomials of least error (exp: off by 2^-28 and 2^-61 at most) or those
// of fdlibm (log, Sun Microsystems 1993). No map lives here.
#pragma once

#include "lanes.h"

namespace softplex::SOFTPLEX_ISA {

// -- exact operations --------------------------------------------------------------------------------------------------

template <class V>
struct Pair {
    V hi, lo;
};

// a + b as a rounded sum and what rounding took (Knuth).
template <class V>
INLINE Pair<V> two_sum(const V& a, const V& b) {
    const V sum = a + b;
    const V part = sum - a;
    return {sum, (a - (sum - part)) + (b - part)};
}
// The same for |a| >= |b|, or a = 0 (Dekker).
template <class V>
INLINE Pair<V> fast_two_sum(const V& a, const V& b) {
    const V sum = a + b;
    return {sum, b - (sum - a)};
}
// a b as a rounded product and what rounding took. Without fused multiply-add the factors are cut at a bit, for to multiply large
// ones would overflow; of the error the last bit may then be missing.
INLINE Doubles head_of(const Doubles& a) { return bits_of<Doubles>(bits_of<Longs>(a) & all(-(std::int64_t(1) << 27))); }
INLINE Pair<Doubles> two_product(const Doubles& a, const Doubles& b) {
    const Doubles product = a * b;
    if constexpr (HAS_FMA) return {product, fma(a, b, -product)};
    const Doubles a_high = head_of(a), b_high = head_of(b), a_low = a - a_high, b_low = b - b_high;
    return {product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
}

// The little arithmetic of pairs that links are written in.
INLINE Pair<Doubles> operator+(const Pair<Doubles>& a, const Pair<Doubles>& b) {
    const Pair<Doubles> s = two_sum(a.hi, b.hi);
    return fast_two_sum(s.hi, s.lo + (a.lo + b.lo));
}
INLINE Pair<Doubles> operator*(const Pair<Doubles>& a, const Pair<Doubles>& b) {
    const Pair<Doubles> p = two_product(a.hi, b.hi);
    return fast_two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}
// The same number in all lanes, or alone.
template <class N>
INLINE N number(double x) {
    if constexpr (std::is_same_v<N, double>)
        return x;
    else
        return all(x);
}
INLINE double sqrt(double a) { return __builtin_sqrt(a); }
INLINE double fma(double a, double b, double c) { return HAS_FMA ? __builtin_fma(a, b, c) : a * b + c; }
INLINE Doubles positive(const Doubles& a) { return larger(a, all(0.0)); }
INLINE Pair<Doubles> positive(const Pair<Doubles>& a) {
    const DoubleMask above = all(0.0) < a.hi;
    return {select(above, a.hi, all(0.0)), select(above, a.lo, all(0.0))};
}
INLINE Doubles halved(const Doubles& a) { return a * all(0.5); }
INLINE Pair<Doubles> halved(const Pair<Doubles>& a) { return {a.hi * all(0.5), a.lo * all(0.5)}; }
INLINE Pair<Doubles> operator/(const Pair<Doubles>& a, const Pair<Doubles>& b) {
    const Doubles whole = a.hi / b.hi;
    const Pair<Doubles> back = two_product(whole, b.hi);
    return fast_two_sum(whole, (((a.hi - back.hi) - back.lo) + (a.lo - whole * b.lo)) / b.hi);
}
INLINE Doubles rounded(const Doubles& a) { return a; }
INLINE Doubles rounded(const Pair<Doubles>& a) { return a.hi + a.lo; }

// ln 2 in two numbers, products of the first with small integers being exact.
constexpr double LN2_HEAD = 6.93147180369123816490e-01, LN2_REST = 1.90821492927058770002e-10;

// -- the exponential ---------------------------------------------------------------------------------------------------

template <class T>
struct ExpOf;
template <>
struct ExpOf<float> {
    static constexpr float log2e = 0x1.715476p+0f, magic = 12582912.0f;
    static constexpr float ln2 = 0x1.62e43p-1f, ln2_first = 0x1.62ep-1f, ln2_second = ln2 - ln2_first, ln2_rest = -0x1.05c61p-29f;
    static constexpr int mantissa_bits = 23;
    // Added to the exponents of a row so that no term that a weight may come from is subnormal. Gaps below `faint` vanish;
    // tops may be less by `reach` for that.
    static constexpr float bias = 50.0f;
    static constexpr float faint = -121.5f;
    static constexpr double reach = 17.0, octaves = 49.0;
    static constexpr float terms[5] = {0x1.fffffcp-2f, 0x1.55548ep-3f, 0x1.5558a6p-5f, 0x1.123bdep-7f, 0x1.6a592ap-10f};
};
template <>
struct ExpOf<double> {
    static constexpr double log2e = 0x1.71547652b82fep+0, magic = 6755399441055744.0;
    static constexpr double ln2 = 0x1.62e42fefa39efp-1, ln2_first = 0x1.62e42fep-1, ln2_second = ln2 - ln2_first,
                            ln2_rest = 0x1.abc9e3b39803fp-56;
    static constexpr int mantissa_bits = 52;
    static constexpr double bias = 512.0;
    static constexpr double faint = -1040.0;
    static constexpr double reach = 250.0;
    static constexpr double terms[11] = {0.5,
                                         0.1666666666666667,
                                         0.04166666666666667,
                                         0.008333333333326136,
                                         0.0013888888888883748,
                                         0.00019841269874820627,
                                         2.4801587325547743e-05,
                                         2.7557255400206422e-06,
                                         2.75572736431103e-07,
                                         2.5105217004720745e-08,
                                         2.0914686968086876e-09};
};

// The entry type and the vector of integers that go with one vector or several.
template <class V>
struct Kind;
template <int COUNT>
struct Kind<Pack<NativeFloats, COUNT>> {
    using Entry = float;
    using Integers = Pack<NativeInts, COUNT>;
    static INLINE Pack<NativeFloats, COUNT> all_of(float x) { return spread<COUNT>(all(x)); }
};
template <int COUNT>
struct Kind<Pack<NativeDoubles, COUNT>> {
    using Entry = double;
    using Integers = Pack<NativeLongs, COUNT>;
    static INLINE Pack<NativeDoubles, COUNT> all_of(double x) { return spread<COUNT>(all(x)); }
};
template <class V>
using ConstantsOf = ExpOf<typename Kind<V>::Entry>;
template <class V>
INLINE V every(typename Kind<V>::Entry x) {
    return Kind<V>::all_of(x);
}

template <class V, int COUNT>
INLINE V polynomial(const V& r, const typename Kind<V>::Entry (&terms)[COUNT]) {
    V value = every<V>(terms[COUNT - 1]);
#pragma GCC unroll 16
    for (int j = COUNT - 2; j >= 0; --j) value = fma(value, r, every<V>(terms[j]));
    return value;
}

// x - k ln 2 but for the last digits of ln 2; exact where it matters, for k an integer near x / ln 2.
template <class V>
INLINE V less_ln2_times(const V& k, const V& x) {
    using C = ConstantsOf<V>;
    if constexpr (HAS_FMA) return fma(-k, every<V>(C::ln2), x);
    return (x - k * every<V>(C::ln2_first)) - k * every<V>(C::ln2_second);
}

// exp(r) - 1 for |r| at most half ln 2, `tail` being what r lacks.
template <class V>
INLINE V reduced_expm1(const V& r, const V& tail) {
    return r + fma(r * r, polynomial(r, ConstantsOf<V>::terms), tail);
}
template <class V>
INLINE V reduced_expm1(const V& r) {
    return fma(r * r, polynomial(r, ConstantsOf<V>::terms), r);
}

// exp(r + k times the last digits of ln 2) for |r| at most half ln 2, within 0.9 ULP: the factor of r is rounded before the
// product, which it loses less by than the sum 1 + r did. Without fused multiply-add the product would be rounded, too.
template <class V>
INLINE V reduced_exp(const V& r, const V& k) {
    const V whole = fma(k, every<V>(-ConstantsOf<V>::ln2_rest), r);
    if constexpr (!HAS_FMA) return every<V>(1) + reduced_expm1(whole);
    return fma(fma(whole, polynomial(whole, ConstantsOf<V>::terms), every<V>(1)), whole, every<V>(1));
}

// value * 2^k with `shifted` = magic + k; no result is subnormal. Of lanes that are NaN or out of range nothing is said.
template <class V>
INLINE V times_power_of_two(const V& value, const V& shifted) {
    using Whole = typename Kind<V>::Integers;
    const Whole exponent = shifted_left<ConstantsOf<V>::mantissa_bits>(bits_of<Whole>(shifted));
    return bits_of<V>(wrapping_sum(bits_of<Whole>(value), exponent));
}

// The same where low < x, 0 elsewhere.
template <class V>
INLINE V times_power_of_two_above(const V& low, const V& x, const V& value, const V& shifted) {
    using Whole = typename Kind<V>::Integers;
    const Whole exponent = shifted_left<ConstantsOf<V>::mantissa_bits>(bits_of<Whole>(shifted));
    return sum_where_above(low, x, bits_of<Whole>(value), exponent);
}

// (exp(r) - 1 - r - r^2 / 2) / r^3.
INLINE Doubles tail_of_exp(const Doubles& r) {
    constexpr int COUNT = sizeof(ExpOf<double>::terms) / sizeof(double);
    Doubles value = all(ExpOf<double>::terms[COUNT - 1]);
#pragma GCC unroll 16
    for (int j = COUNT - 2; j >= 1; --j) value = fma(value, r, all(ExpOf<double>::terms[j]));
    return value;
}

// 2^bias exp(x + x_low) for faint <= x <= 0.
template <class V>
INLINE V biased_exp(const V& x, const V& x_low) {
    using C = ConstantsOf<V>;
    const V magic = every<V>(C::magic + C::bias);
    const V shifted = fma(x, every<V>(C::log2e), magic);
    const V k = shifted - magic;
    const V r = less_ln2_times(k, x);
    const V low = fma(-k, every<V>(C::ln2_rest), x_low);
    const V whole = r + low;
    const V tail = (r - whole) + low;
    return times_power_of_two(every<V>(1) + reduced_expm1(whole, tail), shifted);
}
// exp(x) for x up to 350; 0 far below 0.
APART inline Doubles exp(const Doubles& x) {
    static_assert(ExpOf<double>::bias == 512.0, "the bias is taken back");
    return biased_exp(larger(all(ExpOf<double>::faint), x), all(0.0)) * all(0x1p-512);
}
// exp(r) - 1 as a pair, off by some 2^-58, for |r| at most half ln 2: what r + r^2 / 2 loses is kept.
INLINE Pair<Doubles> reduced_expm1(const Pair<Doubles>& r) {
    const Pair<Doubles> half = two_product(halved(r.hi), r.hi), parabola = fast_two_sum(r.hi, half.hi);
    const Doubles rest = fma(half.hi * (r.hi + r.hi), tail_of_exp(r.hi), fma(r.lo, r.hi, r.lo) + half.lo);
    return fast_two_sum(parabola.hi, parabola.lo + rest);
}
// exp(x) as a pair, off by some 2^-57 of itself, for x up to 350; 0 far below 0.
APART inline Pair<Doubles> exp(const Pair<Doubles>& x) {
    using C = ExpOf<double>;
    const Doubles near = larger(all(C::faint), x.hi), magic = all(C::magic + C::bias);
    const Doubles shifted = fma(near, all(C::log2e), magic);
    const Doubles k = shifted - magic;
    const Pair<Doubles> moved = reduced_expm1(two_sum(less_ln2_times(k, near), fma(-k, all(C::ln2_rest), x.lo)));
    const Pair<Doubles> whole = fast_two_sum(all(1.0), moved.hi), found = fast_two_sum(whole.hi, whole.lo + moved.lo);
    const Doubles power = times_power_of_two(all(1.0), shifted);
    const DoubleMask is_near = all(C::faint) < x.hi;
    const Doubles zero = all(0.0), unbias = all(0x1p-512);
    return {select(is_near, found.hi * power, zero) * unbias, select(is_near, found.lo * power, zero) * unbias};
}
// exp(x) - 1 for x up to 350.
APART inline Doubles expm1(const Doubles& x) {
    const DoubleMask is_small = (all(-0.3466) < x) & (x < all(0.3466));
    return select(is_small, reduced_expm1(select(is_small, x, all(0.0))), exp(x) - all(1.0));
}
APART inline Pair<Doubles> expm1(const Pair<Doubles>& x) {
    const DoubleMask is_small = (all(-0.3466) < x.hi) & (x.hi < all(0.3466));
    const Pair<Doubles> near = reduced_expm1(Pair<Doubles>{select(is_small, x.hi, all(0.0)), select(is_small, x.lo, all(0.0))});
    const Pair<Doubles> far = exp(x), less = two_sum(far.hi, all(-1.0));
    return {select(is_small, near.hi, less.hi), select(is_small, near.lo, less.lo + far.lo)};
}

// -- the logarithm -----------------------------------------------------------------------------------------------------

constexpr double LOG_TERMS[7] = {6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                                 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                                 1.479819860511658591e-01};

INLINE Longs exponents_over(const Longs& whole) {
    Longs r;
    typedef std::uint64_t Unsigned __attribute__((vector_size(WIDTH)));
    EACH_PART r.part[i] = (NativeLongs)(((Unsigned)whole.part[i]) >> 52);
    return r;
}

// x = 2^k (1 + f), exactly, for a normal positive x, with 1 + f between the roots of 1/2 and 2.
struct Scaled {
    Doubles k, f;

    explicit INLINE Scaled(const Doubles& x) {
        const std::int64_t root_half = 0x3fe6a09e667f3bcdLL;
        const Longs over = exponents_over(wrapping_sum(bits_of<Longs>(x), all((std::int64_t(1023) << 52) - root_half)));
        k = bits_of<Doubles>(over | all(std::int64_t(0x4330000000000000LL))) - all(0x1p52 + 1023.0);
        f = bits_of<Doubles>(bits_of<Longs>(x) - shifted_left<52>(over - all(std::int64_t(1023)))) - all(1.0);
    }
};

// log(2^k (1 + f)) plus `low`, which is far below it.
INLINE Doubles log_of(const Scaled& one, const Doubles& low) {
    const Doubles s = one.f / (all(2.0) + one.f);
    const Doubles z = s * s;
    const Doubles half = halved(one.f) * one.f;
    const Doubles series = z * polynomial(z, LOG_TERMS);
    return one.k * all(LN2_HEAD) - ((half - fma(s, half + series, fma(one.k, all(LN2_REST), low))) - one.f);
}
// For a normal positive x.
APART inline Doubles log(const Doubles& x) { return log_of(Scaled(x), all(0.0)); }
// The same as a pair, off by some 2^-56 of itself.
APART inline Pair<Doubles> log(const Pair<Doubles>& x) {
    const Scaled one(x.hi);
    const Doubles s = one.f / (all(2.0) + one.f);
    const Doubles z = s * s;
    const Pair<Doubles> half = two_product(halved(one.f), one.f);
    const Doubles series = s * (half.hi + z * polynomial(z, LOG_TERMS));
    const Pair<Doubles> parabola = fast_two_sum(one.f, -half.hi), curve = fast_two_sum(parabola.hi, series);
    const Pair<Doubles> whole = fast_two_sum(one.k * all(LN2_HEAD), curve.hi);
    const Doubles rest = fma(one.k, all(LN2_REST), x.lo / x.hi) + ((parabola.lo - half.lo) + curve.lo);
    return fast_two_sum(whole.hi, whole.lo + rest);
}
// log(1 + q) for q > -1. What 1 + q lacks counts least where the quotient is rough.
APART inline Doubles log1p(const Doubles& q) {
    const Pair<Doubles> w = two_sum(all(1.0), q);
    return log_of(Scaled(w.hi), w.lo * rough_quotient(all(1.0), w.hi));
}
// log(1 + q) for q >= 2^-26, good enough for floats.
INLINE Doubles short_log1p(const Doubles& q) {
    const Pair<Doubles> w = two_sum(all(1.0), q);
    const Scaled one(w.hi);
    const Doubles s = one.f / (all(2.0) + one.f);
    const Doubles z = s * s;
    constexpr double terms[5] = {2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0};
    // 2 and more lose nothing that counts.
    const Doubles low = fma(one.k, all(LN2_REST), w.lo);
    return fma(one.k, all(LN2_HEAD), fma(s * z, polynomial(z, terms), s + s) + low);
}

// -- the same within 2^-33, for floats -----------------------------------------------------------------------------------

// exp(x) for x up to 350.
INLINE Doubles brief_exp(const Doubles& x) {
    using C = ExpOf<double>;
    constexpr double terms[6] = {0.5000000067682111,     0.16666665868936492,   0.04166629494719751,
                                 0.00833349707488081,    0.0013944659634710264, 0.00019790341424156082};
    const Doubles near = larger(all(C::faint), x);
    const Doubles shifted = fma(near, all(C::log2e), all(C::magic + C::bias));
    const Doubles k = shifted - all(C::magic + C::bias), r = less_ln2_times(k, near);
    return times_power_of_two(fma(r * r, polynomial(r, terms), r) + all(1.0), shifted) * all(0x1p-512);
}
// log(2^k (1 + f)) plus `low`, which is far below it.
INLINE Doubles brief_log_of(const Scaled& one, const Doubles& low) {
    constexpr double terms[4] = {0.6666666564503966, 0.40000335293819983, 0.2853730151252991, 0.23582293245751298};
    const Doubles down = all(2.0) + one.f, over = rough_quotient(all(1.0), down), rough = one.f * over;
    const Doubles s = fma(fma(-rough, down, one.f), over, rough);
    const Doubles z = s * s;
    return fma(one.k, all(LN2_HEAD), fma(s * z, polynomial(z, terms), s + s) + fma(one.k, all(LN2_REST), low));
}
// For a normal positive x.
INLINE Doubles brief_log(const Doubles& x) { return brief_log_of(Scaled(x), all(0.0)); }
// log(1 + q) for -1 < q <= 0.
INLINE Doubles brief_log1p(const Doubles& q) {
    const Pair<Doubles> w = fast_two_sum(all(1.0), q);
    return brief_log_of(Scaled(w.hi), w.lo);
}

// One number through a vector function, so that its bits are the same everywhere.
INLINE double log1p_of(double q) { return first_of(log1p(all(q))); }
INLINE double log_of(double x) { return first_of(log(all(x))); }
INLINE double exp_of(double x) { return first_of(exp(all(x))); }
INLINE double expm1_of(double x) { return first_of(expm1(all(x))); }

// 2^k for -1022 <= k <= 1023.
INLINE double power_of_two(std::int64_t k) { return bits_of<double>((k + 1023) << 52); }

// -- sums --------------------------------------------------------------------------------------------------------------

// A sum and what rounding took from it.
struct Total {
    double hi = 0.0, lo = 0.0;

    INLINE void add(double x) {
        const double sum = hi + x, part = sum - hi;
        lo += (hi - (sum - part)) + (x - part);
        hi = sum;
    }
    INLINE void add(const Total& other) {
        add(other.hi);
        lo += other.lo;
    }
    // By a power of 2.
    INLINE void multiply(double factor) {
        hi *= factor;
        lo *= factor;
    }
    INLINE double value() const { return hi + lo; }
};

template <class T>
class Sum;

// Floats are summed in doubles: sixteen sums, no drift that a float could show.
template <>
class Sum<float> {
    Doubles low = all(0.0), high = all(0.0);

  public:
    INLINE void add(const Floats& v) {
        add(widened(v));
    }
    INLINE void add(const Halves& halves) {
        low = low + halves.low;
        high = high + halves.high;
    }
    INLINE void add_product(const Floats& a, const Floats& b) {
        const Halves x = widened(a), y = widened(b);
        low = fma(x.low, y.low, low);
        high = fma(x.high, y.high, high);
    }
    INLINE void add(const Doubles& v) { low = low + v; }
    INLINE void add_product(const Doubles& a, const Doubles& b) { low = fma(a, b, low); }
    INLINE void absorb(const Sum& other) {
        low = low + other.low;
        high = high + other.high;
    }
    // What total adds up.
    INLINE Doubles lanes() const { return low + high; }
    INLINE Total total() const { return {sum_of(lanes()), 0.0}; }
};

// Doubles are summed with what rounding takes.
template <>
class Sum<double> {
    Doubles sum = all(0.0), rest = all(0.0);

  public:
    INLINE void add(const Doubles& v) {
        const Pair<Doubles> s = two_sum(sum, v);
        sum = s.hi;
        rest = rest + s.lo;
    }
    INLINE void add(const Pair<Doubles>& v) {
        add(v.hi);
        rest = rest + v.lo;
    }
    INLINE void add_product(const Doubles& a, const Doubles& b) { add(two_product(a, b)); }
    INLINE void absorb(const Sum& other) { add(Pair<Doubles>{other.sum, other.rest}); }
    INLINE Total total() const {
        double lanes[8];
        store(lanes, sum);
        Total t{lanes[0], sum_of(rest)};
        for (int j = 1; j < 8; ++j) t.add(lanes[j]);
        return t;
    }
};

}  // namespace softplex::SOFTPLEX_ISA
