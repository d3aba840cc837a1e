// Sixteen floats or eight doubles at once: with lanes.h, and narrow.h's conversions, all that knows an instruction set. No mathematics
// lives here.
//
// The number of lanes is the same everywhere, and every operation is rounded as IEEE 754 says, so that results do not
// depend on the width of the registers. Sets without fused multiply-add (x86-64-v2) round fma twice.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header leaves a register undefined on purpose and then warns of it (GCC PR105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "call.h"

#define INLINE inline __attribute__((always_inline))
// Long functions stay functions: inlined everywhere they would take minutes to compile.
#define APART __attribute__((noinline))
#define EACH_PART _Pragma("GCC unroll 4") for (int i = 0; i < PARTS; ++i)
#define EACH_OF(COUNT) _Pragma("GCC unroll 16") for (int i = 0; i < COUNT; ++i)

namespace softplex::SOFTPLEX_ISA {

#if defined(__AVX512F__)
constexpr int WIDTH = 64;
#elif defined(__AVX2__)
constexpr int WIDTH = 32;
#else
constexpr int WIDTH = 16;
#endif
constexpr int PARTS = 64 / WIDTH;

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool HAS_FMA = true;
#else
constexpr bool HAS_FMA = false;
#endif

typedef float NativeFloats __attribute__((vector_size(WIDTH)));
typedef double NativeDoubles __attribute__((vector_size(WIDTH)));
typedef std::int32_t NativeInts __attribute__((vector_size(WIDTH)));
typedef std::int64_t NativeLongs __attribute__((vector_size(WIDTH)));
typedef std::uint32_t NativeUnsignedInts __attribute__((vector_size(WIDTH)));
typedef std::uint64_t NativeUnsignedLongs __attribute__((vector_size(WIDTH)));

// One vector in PARTS registers, or several vectors that go through all operations side by side: their latencies overlap
// where a processor would not look far enough ahead by itself.
template <class N, int COUNT = PARTS>
struct Pack {
    N part[COUNT];
};
constexpr int SEVERAL = WIDTH == 64 ? 4 : 2;
using Floats = Pack<NativeFloats>;
using Doubles = Pack<NativeDoubles>;
using Ints = Pack<NativeInts>;
using Longs = Pack<NativeLongs>;

// -- what goes with each entry type ------------------------------------------------------------------------------------

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
    using Vector = Floats;
    using Integers = Ints;
    static constexpr int count = 16;
};
template <>
struct Lanes<double> {
    using Vector = Doubles;
    using Integers = Longs;
    static constexpr int count = 8;
};
template <class T>
using Vector = typename Lanes<T>::Vector;

// -- arithmetic --------------------------------------------------------------------------------------------------------

template <class N, int COUNT>
INLINE Pack<N, COUNT> operator+(const Pack<N, COUNT>& a, const Pack<N, COUNT>& b) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] + b.part[i];
    return r;
}
// Sums of lanes that may hold anything: what is too large wraps.
template <int COUNT>
INLINE Pack<NativeInts, COUNT> wrapping_sum(const Pack<NativeInts, COUNT>& a, const Pack<NativeInts, COUNT>& b) {
    Pack<NativeInts, COUNT> r;
    EACH_OF(COUNT) r.part[i] = (NativeInts)((NativeUnsignedInts)a.part[i] + (NativeUnsignedInts)b.part[i]);
    return r;
}
template <int COUNT>
INLINE Pack<NativeLongs, COUNT> wrapping_sum(const Pack<NativeLongs, COUNT>& a, const Pack<NativeLongs, COUNT>& b) {
    Pack<NativeLongs, COUNT> r;
    EACH_OF(COUNT) r.part[i] = (NativeLongs)((NativeUnsignedLongs)a.part[i] + (NativeUnsignedLongs)b.part[i]);
    return r;
}
template <class N, int COUNT>
INLINE Pack<N, COUNT> operator-(const Pack<N, COUNT>& a, const Pack<N, COUNT>& b) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] - b.part[i];
    return r;
}
template <class N, int COUNT>
INLINE Pack<N, COUNT> operator*(const Pack<N, COUNT>& a, const Pack<N, COUNT>& b) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] * b.part[i];
    return r;
}
template <class N, int COUNT>
INLINE Pack<N, COUNT> operator/(const Pack<N, COUNT>& a, const Pack<N, COUNT>& b) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] / b.part[i];
    return r;
}
template <class N, int COUNT>
INLINE Pack<N, COUNT> operator-(const Pack<N, COUNT>& a) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = -a.part[i];
    return r;
}
template <class N, int COUNT>
INLINE Pack<N, COUNT> operator|(const Pack<N, COUNT>& a, const Pack<N, COUNT>& b) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] | b.part[i];
    return r;
}
template <class N, int COUNT>
INLINE Pack<N, COUNT> operator&(const Pack<N, COUNT>& a, const Pack<N, COUNT>& b) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] & b.part[i];
    return r;
}
template <int BITS, class N, int COUNT>
INLINE Pack<N, COUNT> shifted_left(const Pack<N, COUNT>& a) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = a.part[i] << BITS;
    return r;
}

INLINE Floats all(float x) {
    Floats r;
    EACH_PART r.part[i] = x - NativeFloats{};
    return r;
}
INLINE Doubles all(double x) {
    Doubles r;
    EACH_PART r.part[i] = x - NativeDoubles{};
    return r;
}
INLINE Ints all(std::int32_t x) {
    Ints r;
    EACH_PART r.part[i] = x - NativeInts{};
    return r;
}
INLINE Longs all(std::int64_t x) {
    Longs r;
    EACH_PART r.part[i] = x - NativeLongs{};
    return r;
}

template <class To, class From>
INLINE To bits_of(const From& from) {
    To to;
    static_assert(sizeof(To) == sizeof(From), "bits are kept");
    std::memcpy(&to, &from, sizeof(to));
    return to;
}
template <class To, class N, int COUNT>
INLINE To bits_of(const Pack<N, COUNT>& from) {
    To to;
    static_assert(sizeof(To) == sizeof(from), "bits are kept");
    EACH_OF(COUNT) std::memcpy(&to.part[i], &from.part[i], WIDTH);
    return to;
}

// The same vector, or number, for each of several.
template <int COUNT, class N>
INLINE Pack<N, COUNT> spread(const Pack<N>& v) {
    Pack<N, COUNT> r;
    EACH_OF(COUNT) r.part[i] = v.part[i % PARTS];
    return r;
}
template <class N, int COUNT>
INLINE Pack<N> one_of(const Pack<N, COUNT>& several, int j) {
    Pack<N> r;
    EACH_PART r.part[i] = several.part[PARTS * j + i];
    return r;
}

template <class N, int COUNT>
INLINE void set_one_of(Pack<N, COUNT>& several, int j, const Pack<N>& one) {
    EACH_PART several.part[PARTS * j + i] = one.part[i];
}

// The sign changed where `sign` holds a sign bit alone.
template <int COUNT>
INLINE Pack<NativeFloats, COUNT> flipped(const Pack<NativeFloats, COUNT>& a, const Ints& sign) {
    Pack<NativeFloats, COUNT> r;
    EACH_OF(COUNT) r.part[i] = (NativeFloats)((NativeInts)a.part[i] ^ sign.part[i % PARTS]);
    return r;
}
template <int COUNT>
INLINE Pack<NativeDoubles, COUNT> flipped(const Pack<NativeDoubles, COUNT>& a, const Longs& sign) {
    Pack<NativeDoubles, COUNT> r;
    EACH_OF(COUNT) r.part[i] = (NativeDoubles)((NativeLongs)a.part[i] ^ sign.part[i % PARTS]);
    return r;
}

// a * b + c.
template <int COUNT>
INLINE Pack<NativeFloats, COUNT> fma(const Pack<NativeFloats, COUNT>& a, const Pack<NativeFloats, COUNT>& b,
                                     const Pack<NativeFloats, COUNT>& c) {
    Pack<NativeFloats, COUNT> r;
#if defined(__AVX512F__)
    EACH_OF(COUNT) r.part[i] = _mm512_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#elif defined(__FMA__)
    EACH_OF(COUNT) r.part[i] = _mm256_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#elif defined(__aarch64__)
    EACH_OF(COUNT)
    r.part[i] = (NativeFloats)vfmaq_f32((float32x4_t)c.part[i], (float32x4_t)a.part[i], (float32x4_t)b.part[i]);
#else
    EACH_OF(COUNT) r.part[i] = a.part[i] * b.part[i] + c.part[i];
#endif
    return r;
}
template <int COUNT>
INLINE Pack<NativeDoubles, COUNT> fma(const Pack<NativeDoubles, COUNT>& a, const Pack<NativeDoubles, COUNT>& b,
                                      const Pack<NativeDoubles, COUNT>& c) {
    Pack<NativeDoubles, COUNT> r;
#if defined(__AVX512F__)
    EACH_OF(COUNT) r.part[i] = _mm512_fmadd_pd(a.part[i], b.part[i], c.part[i]);
#elif defined(__FMA__)
    EACH_OF(COUNT) r.part[i] = _mm256_fmadd_pd(a.part[i], b.part[i], c.part[i]);
#elif defined(__aarch64__)
    EACH_OF(COUNT)
    r.part[i] = (NativeDoubles)vfmaq_f64((float64x2_t)c.part[i], (float64x2_t)a.part[i], (float64x2_t)b.part[i]);
#else
    EACH_OF(COUNT) r.part[i] = a.part[i] * b.part[i] + c.part[i];
#endif
    return r;
}

INLINE Doubles sqrt(const Doubles& a) {
    Doubles r;
#if defined(__AVX512F__)
    r.part[0] = _mm512_sqrt_pd(a.part[0]);
#elif defined(__AVX2__)
    EACH_PART r.part[i] = _mm256_sqrt_pd(a.part[i]);
#elif defined(__x86_64__)
    EACH_PART r.part[i] = _mm_sqrt_pd(a.part[i]);
#elif defined(__aarch64__)
    EACH_PART r.part[i] = (NativeDoubles)vsqrtq_f64((float64x2_t)a.part[i]);
#else
    EACH_PART {
        for (int j = 0; j < WIDTH / 8; ++j) r.part[i][j] = __builtin_sqrt(a.part[i][j]);
    }
#endif
    return r;
}

INLINE Floats sqrt(const Floats& a) {
    Floats r;
#if defined(__AVX512F__)
    r.part[0] = _mm512_sqrt_ps(a.part[0]);
#elif defined(__AVX2__)
    EACH_PART r.part[i] = _mm256_sqrt_ps(a.part[i]);
#elif defined(__x86_64__)
    EACH_PART r.part[i] = _mm_sqrt_ps(a.part[i]);
#elif defined(__aarch64__)
    EACH_PART r.part[i] = (NativeFloats)vsqrtq_f32((float32x4_t)a.part[i]);
#else
    EACH_PART {
        for (int j = 0; j < WIDTH / 4; ++j) r.part[i][j] = __builtin_sqrtf(a.part[i][j]);
    }
#endif
    return r;
}

// -- comparisons -------------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
struct FloatMask {
    __mmask16 bits;
};
struct DoubleMask {
    __mmask8 bits;
};
INLINE FloatMask operator<(const Floats& a, const Floats& b) {
    return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_LT_OQ)};
}
INLINE DoubleMask operator<(const Doubles& a, const Doubles& b) {
    return {_mm512_cmp_pd_mask(a.part[0], b.part[0], _CMP_LT_OQ)};
}
INLINE FloatMask operator<=(const Floats& a, const Floats& b) {
    return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_LE_OQ)};
}
INLINE DoubleMask operator<=(const Doubles& a, const Doubles& b) {
    return {_mm512_cmp_pd_mask(a.part[0], b.part[0], _CMP_LE_OQ)};
}
INLINE FloatMask operator==(const Floats& a, const Floats& b) {
    return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_EQ_OQ)};
}
INLINE DoubleMask operator==(const Doubles& a, const Doubles& b) {
    return {_mm512_cmp_pd_mask(a.part[0], b.part[0], _CMP_EQ_OQ)};
}
// Whether a or b is NaN.
INLINE FloatMask unordered(const Floats& a, const Floats& b) {
    return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_UNORD_Q)};
}
INLINE DoubleMask unordered(const Doubles& a, const Doubles& b) {
    return {_mm512_cmp_pd_mask(a.part[0], b.part[0], _CMP_UNORD_Q)};
}
INLINE FloatMask operator|(FloatMask a, FloatMask b) { return {static_cast<__mmask16>(a.bits | b.bits)}; }
INLINE DoubleMask operator|(DoubleMask a, DoubleMask b) { return {static_cast<__mmask8>(a.bits | b.bits)}; }
INLINE FloatMask operator&(FloatMask a, FloatMask b) { return {static_cast<__mmask16>(a.bits & b.bits)}; }
INLINE DoubleMask operator&(DoubleMask a, DoubleMask b) { return {static_cast<__mmask8>(a.bits & b.bits)}; }
INLINE Floats select(FloatMask m, const Floats& a, const Floats& b) {
    return {{_mm512_mask_blend_ps(m.bits, b.part[0], a.part[0])}};
}
INLINE Doubles select(DoubleMask m, const Doubles& a, const Doubles& b) {
    return {{_mm512_mask_blend_pd(m.bits, b.part[0], a.part[0])}};
}
// One bit a lane.
INLINE unsigned bits(FloatMask m) { return m.bits; }
INLINE unsigned bits(DoubleMask m) { return m.bits; }
#else
struct FloatMask {
    NativeInts part[PARTS];
};
struct DoubleMask {
    NativeLongs part[PARTS];
};
INLINE FloatMask operator<(const Floats& a, const Floats& b) {
    FloatMask r;
    EACH_PART r.part[i] = a.part[i] < b.part[i];
    return r;
}
INLINE DoubleMask operator<(const Doubles& a, const Doubles& b) {
    DoubleMask r;
    EACH_PART r.part[i] = a.part[i] < b.part[i];
    return r;
}
INLINE FloatMask operator<=(const Floats& a, const Floats& b) {
    FloatMask r;
    EACH_PART r.part[i] = a.part[i] <= b.part[i];
    return r;
}
INLINE DoubleMask operator<=(const Doubles& a, const Doubles& b) {
    DoubleMask r;
    EACH_PART r.part[i] = a.part[i] <= b.part[i];
    return r;
}
INLINE FloatMask operator==(const Floats& a, const Floats& b) {
    FloatMask r;
    EACH_PART r.part[i] = a.part[i] == b.part[i];
    return r;
}
INLINE DoubleMask operator==(const Doubles& a, const Doubles& b) {
    DoubleMask r;
    EACH_PART r.part[i] = a.part[i] == b.part[i];
    return r;
}
INLINE FloatMask unordered(const Floats& a, const Floats& b) {
    FloatMask r;
#if defined(__AVX2__)
    EACH_PART r.part[i] = (NativeInts)_mm256_cmp_ps(a.part[i], b.part[i], _CMP_UNORD_Q);
#elif defined(__x86_64__)
    EACH_PART r.part[i] = (NativeInts)_mm_cmpunord_ps(a.part[i], b.part[i]);
#else
    EACH_PART r.part[i] = (a.part[i] != a.part[i]) | (b.part[i] != b.part[i]);
#endif
    return r;
}
INLINE DoubleMask unordered(const Doubles& a, const Doubles& b) {
    DoubleMask r;
#if defined(__AVX2__)
    EACH_PART r.part[i] = (NativeLongs)_mm256_cmp_pd(a.part[i], b.part[i], _CMP_UNORD_Q);
#elif defined(__x86_64__)
    EACH_PART r.part[i] = (NativeLongs)_mm_cmpunord_pd(a.part[i], b.part[i]);
#else
    EACH_PART r.part[i] = (a.part[i] != a.part[i]) | (b.part[i] != b.part[i]);
#endif
    return r;
}
INLINE FloatMask operator|(const FloatMask& a, const FloatMask& b) {
    FloatMask r;
    EACH_PART r.part[i] = a.part[i] | b.part[i];
    return r;
}
INLINE DoubleMask operator|(const DoubleMask& a, const DoubleMask& b) {
    DoubleMask r;
    EACH_PART r.part[i] = a.part[i] | b.part[i];
    return r;
}
INLINE FloatMask operator&(const FloatMask& a, const FloatMask& b) {
    FloatMask r;
    EACH_PART r.part[i] = a.part[i] & b.part[i];
    return r;
}
INLINE DoubleMask operator&(const DoubleMask& a, const DoubleMask& b) {
    DoubleMask r;
    EACH_PART r.part[i] = a.part[i] & b.part[i];
    return r;
}
INLINE Floats select(const FloatMask& m, const Floats& a, const Floats& b) {
    Floats r;
    EACH_PART r.part[i] = m.part[i] ? a.part[i] : b.part[i];
    return r;
}
INLINE Doubles select(const DoubleMask& m, const Doubles& a, const Doubles& b) {
    Doubles r;
    EACH_PART r.part[i] = m.part[i] ? a.part[i] : b.part[i];
    return r;
}
INLINE unsigned bits(const FloatMask& m) {
    unsigned all_bits = 0;
    EACH_PART {
#if defined(__AVX2__)
        all_bits |= static_cast<unsigned>(_mm256_movemask_ps((__m256)m.part[i])) << (8 * i);
#elif defined(__x86_64__)
        all_bits |= static_cast<unsigned>(_mm_movemask_ps((__m128)m.part[i])) << (4 * i);
#else
        for (int j = 0; j < WIDTH / 4; ++j) all_bits |= (m.part[i][j] ? 1u : 0u) << (WIDTH / 4 * i + j);
#endif
    }
    return all_bits;
}
INLINE unsigned bits(const DoubleMask& m) {
    unsigned all_bits = 0;
    EACH_PART {
#if defined(__AVX2__)
        all_bits |= static_cast<unsigned>(_mm256_movemask_pd((__m256d)m.part[i])) << (4 * i);
#elif defined(__x86_64__)
        all_bits |= static_cast<unsigned>(_mm_movemask_pd((__m128d)m.part[i])) << (2 * i);
#else
        for (int j = 0; j < WIDTH / 8; ++j) all_bits |= (m.part[i][j] ? 1u : 0u) << (WIDTH / 8 * i + j);
#endif
    }
    return all_bits;
}
#endif

template <class V>
INLINE auto operator>(const V& a, const V& b) -> decltype(b < a) {
    return b < a;
}
template <class Mask>
INLINE bool any(const Mask& m) {
    return bits(m) != 0;
}

// The lanes whose byte is not 0.
template <class T>
INLINE auto marked(const char* bytes) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const __m128i all_bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
        return FloatMask{_mm_test_epi8_mask(all_bytes, all_bytes)};
    } else {
        const __m128i all_bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
        return DoubleMask{static_cast<__mmask8>(_mm_test_epi8_mask(all_bytes, all_bytes))};
    }
#else
    typename Lanes<T>::Integers wide{};
    for (int i = 0; i < PARTS; ++i)
        for (int j = 0; j < Lanes<T>::count / PARTS; ++j) wide.part[i][j] = bytes[i * (Lanes<T>::count / PARTS) + j];
    std::conditional_t<sizeof(T) == 4, FloatMask, DoubleMask> r;
    EACH_PART r.part[i] = wide.part[i] != 0;
    return r;
#endif
}

// The same of the first lanes; no byte beyond them is read.
template <class T>
INLINE auto marked(const char* bytes, int count) {
    char some[Lanes<T>::count] = {};
    if (count == Lanes<T>::count) return marked<T>(bytes);
    std::memcpy(some, bytes, static_cast<std::size_t>(count));
    return marked<T>(some);
}

// a > b ? a : b, so b where one of them is NaN.
template <int COUNT>
INLINE Pack<NativeFloats, COUNT> larger(const Pack<NativeFloats, COUNT>& a, const Pack<NativeFloats, COUNT>& b) {
    Pack<NativeFloats, COUNT> r;
#if defined(__AVX512F__)
    EACH_OF(COUNT) r.part[i] = _mm512_max_ps(a.part[i], b.part[i]);
#elif defined(__AVX2__)
    EACH_OF(COUNT) r.part[i] = _mm256_max_ps(a.part[i], b.part[i]);
#elif defined(__x86_64__)
    EACH_OF(COUNT) r.part[i] = _mm_max_ps(a.part[i], b.part[i]);
#else
    EACH_OF(COUNT) r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
#endif
    return r;
}
template <int COUNT>
INLINE Pack<NativeDoubles, COUNT> larger(const Pack<NativeDoubles, COUNT>& a, const Pack<NativeDoubles, COUNT>& b) {
    Pack<NativeDoubles, COUNT> r;
#if defined(__AVX512F__)
    EACH_OF(COUNT) r.part[i] = _mm512_max_pd(a.part[i], b.part[i]);
#elif defined(__AVX2__)
    EACH_OF(COUNT) r.part[i] = _mm256_max_pd(a.part[i], b.part[i]);
#elif defined(__x86_64__)
    EACH_OF(COUNT) r.part[i] = _mm_max_pd(a.part[i], b.part[i]);
#else
    EACH_OF(COUNT) r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
#endif
    return r;
}

INLINE Doubles magnitude(const Doubles& a) { return larger(a, -a); }
INLINE Floats magnitude(const Floats& a) { return larger(a, -a); }
INLINE Ints larger(const Ints& a, const Ints& b) {
    Ints r;
    EACH_PART r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return r;
}

// a where low < x, elsewhere 0.
template <int COUNT>
INLINE Pack<NativeFloats, COUNT> where_above(const Pack<NativeFloats, COUNT>& low, const Pack<NativeFloats, COUNT>& x,
                                             const Pack<NativeFloats, COUNT>& a) {
    Pack<NativeFloats, COUNT> r;
#if defined(__AVX512F__)
    EACH_OF(COUNT) r.part[i] = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(low.part[i], x.part[i], _CMP_LT_OQ), a.part[i]);
#else
    EACH_OF(COUNT) r.part[i] = (NativeFloats)((NativeInts)a.part[i] & (low.part[i] < x.part[i]));
#endif
    return r;
}
template <int COUNT>
INLINE Pack<NativeDoubles, COUNT> where_above(const Pack<NativeDoubles, COUNT>& low, const Pack<NativeDoubles, COUNT>& x,
                                              const Pack<NativeDoubles, COUNT>& a) {
    Pack<NativeDoubles, COUNT> r;
#if defined(__AVX512F__)
    EACH_OF(COUNT) r.part[i] = _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(low.part[i], x.part[i], _CMP_LT_OQ), a.part[i]);
#else
    EACH_OF(COUNT) r.part[i] = (NativeDoubles)((NativeLongs)a.part[i] & (low.part[i] < x.part[i]));
#endif
    return r;
}

// The bits of a plus b where low < x, 0 elsewhere.
template <int COUNT>
INLINE Pack<NativeFloats, COUNT> sum_where_above(const Pack<NativeFloats, COUNT>& low, const Pack<NativeFloats, COUNT>& x,
                                                 const Pack<NativeInts, COUNT>& a, const Pack<NativeInts, COUNT>& b) {
#if defined(__AVX512F__)
    Pack<NativeFloats, COUNT> r;
    EACH_OF(COUNT) {
        const __mmask16 is_above = _mm512_cmp_ps_mask(low.part[i], x.part[i], _CMP_LT_OQ);
        r.part[i] = (NativeFloats)_mm512_maskz_add_epi32(is_above, (__m512i)a.part[i], (__m512i)b.part[i]);
    }
    return r;
#else
    return where_above(low, x, bits_of<Pack<NativeFloats, COUNT>>(wrapping_sum(a, b)));
#endif
}

}  // namespace softplex::SOFTPLEX_ISA
