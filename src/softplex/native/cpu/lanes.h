// Vectors and memory, floats and doubles, one lane and another: what moves numbers between places, in whatever instructions there are.
// What is computed with them stands in vector.h.
#pragma once

#include "vector.h"

namespace softplex::SOFTPLEX_ISA {

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
