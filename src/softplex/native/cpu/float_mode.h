// Rounding and the flushing of subnormals, which belong to a thread.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace softplex {

using FloatMode = std::uint64_t;

inline FloatMode float_mode() {
#if defined(__x86_64__) || defined(_M_X64)
    return _mm_getcsr();
#elif defined(__aarch64__)
    FloatMode mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

inline void set_float_mode([[maybe_unused]] FloatMode mode) {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_setcsr(static_cast<unsigned>(mode));
#elif defined(__aarch64__)
    __asm__ __volatile__("msr fpcr, %0" ::"r"(mode));
#endif
}

// To nearest, subnormals kept, no traps: what programs begin with.
#if defined(__x86_64__) || defined(_M_X64)
constexpr FloatMode USUAL_FLOAT_MODE = 0x1f80;
#else
constexpr FloatMode USUAL_FLOAT_MODE = 0;
#endif

}  // namespace softplex
