// Sixteen-bit numbers: rounded and widened, one by one, in runs and in vectors. Where they lie is memory.h's business.
#pragma once

#include "lanes.h"

namespace softplex::SOFTPLEX_ISA {

INLINE float from_bfloat16(std::uint16_t half) {
    const std::uint32_t whole = static_cast<std::uint32_t>(half) << 16;
    return bits_of<float>(whole);
}
// To nearest, ties to even; NaN stays NaN.
INLINE std::uint16_t to_bfloat16(float x) {
    const std::uint32_t whole = bits_of<std::uint32_t>(x);
    const std::uint32_t rounded_up = (whole + 0x7fffu + ((whole >> 16) & 1u)) >> 16;
    const bool is_nan = (whole & 0x7fffffffu) > 0x7f800000u;
    return static_cast<std::uint16_t>(is_nan ? ((whole >> 16) | 0x40u) : rounded_up);
}
INLINE float from_float16(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16, rest = half & 0x7fffu;
    if (rest >= 0x7c00u) return bits_of<float>(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
    // Not by way of a subnormal float: they may be flushed.
    const float magnitude = rest < 0x400u ? static_cast<float>(rest) * 0x1p-24f : bits_of<float>((rest << 13) + (112u << 23));
    return bits_of<float>(bits_of<std::uint32_t>(magnitude) | sign);
}
INLINE std::uint16_t to_float16(float x) {
    const std::uint32_t whole = bits_of<std::uint32_t>(x), sign = (whole >> 16) & 0x8000u, rest = whole & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (rest < 0x38800000u) {
        // Adding 0.5 leaves the digits that a subnormal has, rounded.
        const float shifted = bits_of<float>(rest) + 0.5f;
        return static_cast<std::uint16_t>(sign | (bits_of<std::uint32_t>(shifted) - 0x3f000000u));
    }
    const std::uint32_t rounded_up = rest + 0xfffu + ((rest >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded_up - 0x38000000u) >> 13));
}

INLINE void floats_from_float16(const std::uint16_t* from, float* to, Index n) {
    Index i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
    for (; i < n; ++i) to[i] = from_float16(from[i]);
}
INLINE void float16_from_floats(const float* from, std::uint16_t* to, Index n) {
    Index i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), 0));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
    for (; i < n; ++i) to[i] = to_float16(from[i]);
}

INLINE void floats_from_bfloat16(const std::uint16_t* from, float* to, Index n) {
    for (Index i = 0; i < n; ++i) to[i] = from_bfloat16(from[i]);
}
INLINE void bfloat16_from_floats(const float* from, std::uint16_t* to, Index n) {
    Index i = 0;
#if defined(__AVX512F__)
    const __m512i half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1), quiet = _mm512_set1_epi32(0x400000);
    for (; i + 16 <= n; i += 16) {
        const __m512 x = _mm512_loadu_ps(from + i);
        const __m512i whole = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(whole, 16), one);
        const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(whole, half), odd);
        const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i bits = _mm512_mask_or_epi32(rounded, is_nan, whole, quiet);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    }
#endif
    for (; i < n; ++i) to[i] = to_bfloat16(from[i]);
}

// Sixteen numbers, or some.
template <Type TYPE>
INLINE Floats load_narrow(const std::uint16_t* from) {
#if defined(__AVX512F__)
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    if constexpr (TYPE == Type::float16) return {{_mm512_cvtph_ps(halves)}};
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))}};
#else
    float wide[Lanes<float>::count];
    if constexpr (TYPE == Type::float16)
        floats_from_float16(from, wide, Lanes<float>::count);
    else
        floats_from_bfloat16(from, wide, Lanes<float>::count);
    return load(wide);
#endif
}
template <Type TYPE>
INLINE Floats load_narrow(const std::uint16_t* from, int count, float fill) {
    if (count == Lanes<float>::count) return load_narrow<TYPE>(from);
    float wide[Lanes<float>::count];
    for (float& each : wide) each = fill;
    if constexpr (TYPE == Type::float16)
        floats_from_float16(from, wide, count);
    else
        floats_from_bfloat16(from, wide, count);
    return load(wide);
}
template <Type TYPE>
INLINE void store_narrow(std::uint16_t* to, const Floats& v, int count) {
    float wide[Lanes<float>::count];
    store(wide, v);
    if constexpr (TYPE == Type::float16)
        float16_from_floats(wide, to, count);
    else
        bfloat16_from_floats(wide, to, count);
}

}  // namespace softplex::SOFTPLEX_ISA
