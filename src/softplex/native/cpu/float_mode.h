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

// To nearest, subnormals kept, no traps: what programs begin with. And the same, but that subnormals count as 0.
#if defined(__x86_64__) || defined(_M_X64)
constexpr FloatMode USUAL_FLOAT_MODE = 0x1f80, FLUSHING_FLOAT_MODE = 0x9fc0, FLAGS_OF_FLOAT_MODE = 0x3f;
#elif defined(__aarch64__)
constexpr FloatMode USUAL_FLOAT_MODE = 0, FLUSHING_FLOAT_MODE = 1 << 24, FLAGS_OF_FLOAT_MODE = 0;
#else
constexpr FloatMode USUAL_FLOAT_MODE = 0, FLUSHING_FLOAT_MODE = 0, FLAGS_OF_FLOAT_MODE = 0;
#endif

// A mode for a while, whatever was the caller's.
class WithFloatMode {
  public:
    explicit WithFloatMode(FloatMode mode) : before_(float_mode()) {
        if ((before_ & ~FLAGS_OF_FLOAT_MODE) != mode) set_float_mode(mode);
    }
    ~WithFloatMode() {
        if (((float_mode() ^ before_) & ~FLAGS_OF_FLOAT_MODE) != 0) set_float_mode(before_);
    }
    WithFloatMode(const WithFloatMode&) = delete;
    WithFloatMode& operator=(const WithFloatMode&) = delete;

  private:
    FloatMode before_;
};

}  // namespace softplex
