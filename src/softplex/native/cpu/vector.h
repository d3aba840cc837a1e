// Sixteen floats or eight doubles at once: with narrow.h's conversions all that knows an instruction set. No mathematics lives here.
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

// -- memory ------------------------------------------------------------------------------------------------------------

// Register by register: GCC copies a whole pack in pieces that a later load has to wait for.
template <class V, class T>
INLINE V load_as(const T* from) {
    V r;
    EACH_OF(static_cast<int>(sizeof(V) / WIDTH)) std::memcpy(&r.part[i], from + i * static_cast<int>(WIDTH / sizeof(T)), WIDTH);
    return r;
}
template <class T, class N, int COUNT>
INLINE void store(T* to, const Pack<N, COUNT>& v) {
    EACH_OF(COUNT) std::memcpy(to + i * static_cast<int>(WIDTH / sizeof(T)), &v.part[i], WIDTH);
}
INLINE Floats load(const float* from) { return load_as<Floats>(from); }
INLINE Doubles load(const double* from) { return load_as<Doubles>(from); }

#if defined(__AVX2__) && !defined(__AVX512F__)
// The lanes of a part of a vector that are below `count`, the part's first lane being 0.
INLINE __m256i lanes_below(int count, float) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE __m256i lanes_below(int count, double) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE __m256 load_lanes(const float* from, const __m256i& lanes, float fill) {
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(from, lanes), _mm256_castsi256_ps(lanes));
}
INLINE __m256d load_lanes(const double* from, const __m256i& lanes, double fill) {
    return _mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(from, lanes), _mm256_castsi256_pd(lanes));
}
INLINE void store_lanes(float* to, const __m256i& lanes, const __m256& v) { _mm256_maskstore_ps(to, lanes, v); }
INLINE void store_lanes(double* to, const __m256i& lanes, const __m256d& v) { _mm256_maskstore_pd(to, lanes, v); }
#endif

// The first `count` lanes from memory, `fill` in the others.
template <class T>
INLINE Vector<T> load_some(const T* from, int count, T fill) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return {{_mm512_mask_loadu_ps(_mm512_set1_ps(static_cast<float>(fill)), static_cast<__mmask16>((1u << count) - 1u), from)}};
    else
        return {{_mm512_mask_loadu_pd(_mm512_set1_pd(fill), static_cast<__mmask8>((1u << count) - 1u), from)}};
#elif defined(__AVX2__)
    constexpr int LANES = WIDTH / static_cast<int>(sizeof(T));
    Vector<T> r;
    EACH_PART r.part[i] = load_lanes(from + i * LANES, lanes_below(count - i * LANES, T(0)), fill);
    return r;
#else
    T lanes[Lanes<T>::count];
    for (int j = 0; j < Lanes<T>::count; ++j) lanes[j] = j < count ? from[j] : fill;
    return load(lanes);
#endif
}
template <class T>
INLINE void store_some(T* to, const Vector<T>& v, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), v.part[0]);
    else
        _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1u), v.part[0]);
#elif defined(__AVX2__)
    constexpr int LANES = WIDTH / static_cast<int>(sizeof(T));
    EACH_PART store_lanes(to + i * LANES, lanes_below(count - i * LANES, T(0)), v.part[i]);
#else
    T lanes[Lanes<T>::count];
    store(lanes, v);
    for (int j = 0; j < count; ++j) to[j] = lanes[j];
#endif
}

// Past the caches; `to` lies on a multiple of 64 bytes.
template <class T>
INLINE void stream(T* to, const Vector<T>& v) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v.part[0]);
#elif defined(__AVX2__)
    EACH_PART _mm256_stream_si256(reinterpret_cast<__m256i*>(to) + i, (__m256i)v.part[i]);
#elif defined(__x86_64__)
    EACH_PART _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, (__m128i)v.part[i]);
#else
    store(to, v);
#endif
}
// Makes streamed stores visible to other threads before what follows.
INLINE void finish_streaming() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each set of eight lanes their numbers in a row, a byte each.
struct Gathered {
    std::uint64_t lanes[256];

    constexpr Gathered() : lanes() {
        for (unsigned marked = 0; marked < 256; ++marked)
            for (unsigned lane = 8; lane-- > 0;)
                if ((marked >> lane & 1u) != 0) lanes[marked] = lanes[marked] << 8 | lane;
    }
};
constexpr Gathered GATHERED;
// The opposite: for each of eight lanes, a byte each, which of the marked it is; 0x80 for those that are not.
struct Placed {
    std::uint64_t lanes[256];

    constexpr Placed() : lanes() {
        for (unsigned marked = 0; marked < 256; ++marked) {
            std::uint64_t before = 0;
            for (unsigned lane = 0; lane < 8; ++lane)
                lanes[marked] |= ((marked >> lane & 1u) != 0 ? before++ : 0x80u) << (8 * lane);
        }
    }
};
constexpr Placed PLACED;
#endif

// Appends the marked lanes to a list that has room for a vector more; returns where it ends now.
INLINE float* append(float* end, const Floats& v, const FloatMask& m) {
    const unsigned marked = bits(m);
#if defined(__AVX512F__)
    _mm512_storeu_ps(end, _mm512_maskz_compress_ps(m.bits, v.part[0]));
    return end + __builtin_popcount(marked);
#elif defined(__AVX2__)
    if (marked == 0) return end;
    EACH_PART {
        const unsigned own = marked >> (8 * i) & 0xffu;
        const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(GATHERED.lanes[own])));
        _mm256_storeu_ps(end, _mm256_permutevar8x32_ps(v.part[i], lanes));
        end += __builtin_popcount(own);
    }
    return end;
#else
    if (marked == 0) return end;
    if (marked == 0xffff) {
        store(end, v);
        return end + 16;
    }
    float lanes[16];
    store(lanes, v);
    for (unsigned left = marked; left != 0; left &= left - 1) *end++ = lanes[__builtin_ctz(left)];
    return end;
#endif
}
INLINE double* append(double* end, const Doubles& v, const DoubleMask& m) {
    const unsigned marked = bits(m);
#if defined(__AVX512F__)
    _mm512_storeu_pd(end, _mm512_maskz_compress_pd(m.bits, v.part[0]));
    return end + __builtin_popcount(marked);
#else
    if (marked == 0xff) {
        store(end, v);
        return end + 8;
    }
    double lanes[8];
    store(lanes, v);
    for (unsigned left = marked; left != 0; left &= left - 1) *end++ = lanes[__builtin_ctz(left)];
    return end;
#endif
}

// The opposite of append: the marked lanes from a list that has a vector more, 0 in the others.
INLINE Floats placed(const float* from, unsigned marked) {
#if defined(__AVX512F__)
    return {{_mm512_maskz_expandloadu_ps(static_cast<__mmask16>(marked), from)}};
#elif defined(__AVX2__)
    Floats r;
    EACH_PART {
        const unsigned own = marked >> (8 * i) & 0xffu;
        const __m256i lanes = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(static_cast<long long>(PLACED.lanes[own])));
        const __m256 found = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), lanes);
        r.part[i] = _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_srai_epi32(lanes, 31)), found);
        from += __builtin_popcount(own);
    }
    return r;
#else
    float lanes[16] = {};
    for (unsigned left = marked; left != 0; left &= left - 1) lanes[__builtin_ctz(left)] = *from++;
    return load(lanes);
#endif
}

// -- between floats and doubles -----------------------------------------------------------------------------------------

INLINE NativeDoubles widened_low(const NativeFloats& a) {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm512_castps512_ps256(a));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm256_castps256_ps128(a));
#elif defined(__x86_64__)
    return _mm_cvtps_pd(a);
#else
    return NativeDoubles{a[0], a[1]};
#endif
}
INLINE NativeDoubles widened_high(const NativeFloats& a) {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
#elif defined(__x86_64__)
    return _mm_cvtps_pd(_mm_movehl_ps(a, a));
#else
    return NativeDoubles{a[2], a[3]};
#endif
}
INLINE NativeFloats narrowed(const NativeDoubles& low, const NativeDoubles& high) {
#if defined(__AVX512F__)
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
#elif defined(__AVX2__)
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high), 1);
#elif defined(__x86_64__)
    return _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
#else
    return NativeFloats{static_cast<float>(low[0]), static_cast<float>(low[1]), static_cast<float>(high[0]),
                        static_cast<float>(high[1])};
#endif
}

// The sixteen lanes of floats as twice eight doubles.
struct Halves {
    Doubles low, high;
};
INLINE Halves widened(const Floats& a) {
    NativeDoubles parts[2 * PARTS];
    EACH_PART {
        parts[2 * i] = widened_low(a.part[i]);
        parts[2 * i + 1] = widened_high(a.part[i]);
    }
    Halves r;
    EACH_PART {
        r.low.part[i] = parts[i];
        r.high.part[i] = parts[PARTS + i];
    }
    return r;
}
// The same of floats in memory, where they need not be taken apart.
INLINE Halves widened_at(const float* from) {
#if defined(__AVX512F__)
    return {{{_mm512_cvtps_pd(_mm256_loadu_ps(from))}}, {{_mm512_cvtps_pd(_mm256_loadu_ps(from + 8))}}};
#elif defined(__AVX2__)
    Halves r;
    EACH_PART {
        r.low.part[i] = _mm256_cvtps_pd(_mm_loadu_ps(from + 4 * i));
        r.high.part[i] = _mm256_cvtps_pd(_mm_loadu_ps(from + 8 + 4 * i));
    }
    return r;
#else
    return widened(load(from));
#endif
}
INLINE Floats narrowed(const Doubles& low, const Doubles& high) {
    NativeDoubles parts[2 * PARTS];
    EACH_PART {
        parts[i] = low.part[i];
        parts[PARTS + i] = high.part[i];
    }
    Floats r;
    EACH_PART r.part[i] = narrowed(parts[2 * i], parts[2 * i + 1]);
    return r;
}

// a / b of both rounded to floats, with an error of 3 parts in 2^24: a processor finds it in a third of the time.
INLINE Doubles rough_quotient(const Doubles& a, const Doubles& b) {
    Doubles r;
#if defined(__AVX512F__)
    r.part[0] = _mm512_cvtps_pd(_mm256_div_ps(_mm512_cvtpd_ps(a.part[0]), _mm512_cvtpd_ps(b.part[0])));
#elif defined(__AVX2__)
    EACH_PART r.part[i] = _mm256_cvtps_pd(_mm_div_ps(_mm256_cvtpd_ps(a.part[i]), _mm256_cvtpd_ps(b.part[i])));
#elif defined(__x86_64__)
    EACH_PART r.part[i] = _mm_cvtps_pd(_mm_div_ps(_mm_cvtpd_ps(a.part[i]), _mm_cvtpd_ps(b.part[i])));
#else
    EACH_PART {
        for (int j = 0; j < WIDTH / 8; ++j) r.part[i][j] = static_cast<float>(a.part[i][j]) / static_cast<float>(b.part[i][j]);
    }
#endif
    return r;
}
INLINE double rough_quotient(double a, double b) { return static_cast<double>(static_cast<float>(a) / static_cast<float>(b)); }

// Eight doubles rounded to floats.
INLINE void store_eight(float* to, const Doubles& v) {
#if defined(__AVX512F__)
    _mm256_storeu_ps(to, _mm512_cvtpd_ps(v.part[0]));
#elif defined(__AVX2__)
    EACH_PART _mm_storeu_ps(to + 4 * i, _mm256_cvtpd_ps(v.part[i]));
#else
    double lanes[8];
    store(lanes, v);
    for (int j = 0; j < 8; ++j) to[j] = static_cast<float>(lanes[j]);
#endif
}

// The lanes of a vector as doubles, and back.
INLINE void split(const Floats& v, Doubles (&parts)[2]) {
    const Halves halves = widened(v);
    parts[0] = halves.low;
    parts[1] = halves.high;
}
INLINE void split(const Doubles& v, Doubles (&parts)[1]) { parts[0] = v; }
INLINE Floats joined(const Doubles (&parts)[2]) { return narrowed(parts[0], parts[1]); }
INLINE Doubles joined(const Doubles (&parts)[1]) { return parts[0]; }

// -- across lanes --------------------------------------------------------------------------------------------------------

INLINE double sum_of(const Doubles& v) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256d four = v.part[0] + v.part[1];
    const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
    return two[0] + two[1];
#endif
    double a[8];
    store(a, v);
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
// The sums of eight vectors, each in the order of sum_of.
INLINE Doubles sums_of(const Doubles* rows) {
#if defined(__AVX512F__)
    NativeDoubles pairs[4];
    for (int j = 0; j < 4; ++j) {
        const NativeDoubles a = rows[2 * j].part[0], b = rows[2 * j + 1].part[0];
        pairs[j] = _mm512_shuffle_f64x2(a, b, 0x44) + _mm512_shuffle_f64x2(a, b, 0xee);
    }
    const NativeDoubles first = _mm512_shuffle_f64x2(pairs[0], pairs[1], 0x88) + _mm512_shuffle_f64x2(pairs[0], pairs[1], 0xdd);
    const NativeDoubles last = _mm512_shuffle_f64x2(pairs[2], pairs[3], 0x88) + _mm512_shuffle_f64x2(pairs[2], pairs[3], 0xdd);
    const NativeDoubles sums = _mm512_unpacklo_pd(first, last) + _mm512_unpackhi_pd(first, last);
    return {{_mm512_permutexvar_pd(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), sums)}};
#elif defined(__AVX2__)
    Doubles sums;
    EACH_PART {
        __m256d two[2];
        for (int j = 0; j < 2; ++j) {
            const Doubles &a = rows[4 * i + 2 * j], &b = rows[4 * i + 2 * j + 1];
            const __m256d four = a.part[0] + a.part[1], other = b.part[0] + b.part[1];
            two[j] = _mm256_permute2f128_pd(four, other, 0x20) + _mm256_permute2f128_pd(four, other, 0x31);
        }
        sums.part[i] = _mm256_permute4x64_pd(_mm256_unpacklo_pd(two[0], two[1]) + _mm256_unpackhi_pd(two[0], two[1]), 0xd8);
    }
    return sums;
#else
    double sums[8];
    for (int j = 0; j < 8; ++j) sums[j] = sum_of(rows[j]);
    return load(sums);
#endif
}
// The largest lane; no lane is NaN.
INLINE float largest_of(const Floats& v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(v.part[0]);
#elif defined(__AVX2__)
    const __m256 eight = _mm256_max_ps(v.part[0], v.part[1]);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
    float a[16];
    store(a, v);
    for (int step = 8; step > 0; step /= 2)
        for (int j = 0; j < step; ++j) a[j] = a[j] > a[j + step] ? a[j] : a[j + step];
    return a[0];
#endif
}
INLINE double largest_of(const Doubles& v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_pd(v.part[0]);
#else
    double a[8];
    store(a, v);
    for (int step = 4; step > 0; step /= 2)
        for (int j = 0; j < step; ++j) a[j] = a[j] > a[j + step] ? a[j] : a[j + step];
    return a[0];
#endif
}
// The largest lane of each of eight vectors, in the first eight lanes; what the others hold does not matter.
INLINE Floats largest_of(const Floats* rows) {
#if defined(__AVX512F__)
    NativeFloats pairs[4], fours[2];
    for (int j = 0; j < 4; ++j) {
        const NativeFloats a = rows[2 * j].part[0], b = rows[2 * j + 1].part[0];
        pairs[j] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    for (int j = 0; j < 2; ++j) {
        const NativeFloats a = pairs[2 * j], b = pairs[2 * j + 1];
        fours[j] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    const NativeFloats two = _mm512_max_ps(_mm512_unpacklo_ps(fours[0], fours[1]), _mm512_unpackhi_ps(fours[0], fours[1]));
    const NativeFloats one = _mm512_max_ps(two, _mm512_shuffle_ps(two, two, 0x4e));
    return {{_mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0), one)}};
#elif defined(__AVX2__)
    __m256 fours[4], twos[2];
    for (int j = 0; j < 4; ++j) {
        const __m256 a = _mm256_max_ps(rows[2 * j].part[0], rows[2 * j].part[1]);
        const __m256 b = _mm256_max_ps(rows[2 * j + 1].part[0], rows[2 * j + 1].part[1]);
        fours[j] = _mm256_max_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    for (int j = 0; j < 2; ++j) {
        const __m256 a = fours[2 * j], b = fours[2 * j + 1];
        twos[j] = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    }
    const __m256 a = _mm256_shuffle_ps(twos[0], twos[1], 0x44), b = _mm256_shuffle_ps(twos[0], twos[1], 0xee);
    const __m256 one = _mm256_permutevar8x32_ps(_mm256_max_ps(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return {{one, one}};
#else
    float tops[16] = {};
    for (int j = 0; j < 8; ++j) tops[j] = largest_of(rows[j]);
    return load(tops);
#endif
}

// Sixteen vectors as the rows of a matrix, turned: blocks of STEP lanes change places across its diagonal.
template <int STEP, std::size_t... LANE>
INLINE void exchange(NativeFloats& a, NativeFloats& b, std::index_sequence<LANE...>) {
    constexpr int COUNT = sizeof...(LANE);
    const NativeFloats first = __builtin_shufflevector(a, b, ((int(LANE) & STEP) == 0 ? int(LANE) : COUNT + int(LANE) - STEP)...);
    b = __builtin_shufflevector(a, b, ((int(LANE) & STEP) == 0 ? int(LANE) + STEP : COUNT + int(LANE))...);
    a = first;
}
template <int STEP>
INLINE void exchange_blocks(Floats (&rows)[16]) {
    constexpr int LANES = WIDTH / 4;
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
        if ((r & STEP) != 0) continue;
        Floats &a = rows[r], &b = rows[r + STEP];
        if constexpr (STEP < LANES) {
            EACH_PART exchange<STEP>(a.part[i], b.part[i], std::make_index_sequence<LANES>());
        } else {
            EACH_PART if ((i * LANES & STEP) == 0) std::swap(a.part[i + STEP / LANES], b.part[i]);
        }
    }
}
INLINE void turn(Floats (&rows)[16]) {
    exchange_blocks<8>(rows);
    exchange_blocks<4>(rows);
    exchange_blocks<2>(rows);
    exchange_blocks<1>(rows);
}

template <class V>
INLINE auto first_of(const V& v) {
    return v.part[0][0];
}

}  // namespace softplex::SOFTPLEX_ISA
