"""Numbers on the GPU: sums with their errors, exp and log1p to an ULP of float32. No row and no map lives here.

Products and sums are never fused but where `fma` says so, so that every version of the compiler rounds alike.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWERED: tl.constexpr = tl.constexpr(2.0**-64)
"""What takes the factor of `raised` away, in float64."""


@triton.jit
def two_sum(a, b):
    """The rounded sum, and what rounding took from it (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def halves(a):
    """A float64 as two float32; what float32 cannot hold has no second half."""
    high = a.to(tl.float32)
    low = (a - high.to(tl.float64)).to(tl.float32)
    return high, tl.where(tl.abs(high) < 3e38, low, 0.0)


@triton.jit
def joined(high, low):
    """A float64 given as two float32."""
    return tl.zeros([1], tl.float64) + high + low


@triton.jit
def divided(a, b):
    """a / b within half an ULP or so, where the GPU's own is off by two; `div_rn` takes registers that rows need."""
    inverse = 1.0 / b
    quotient = a * inverse
    return tl.fma(tl.fma(-quotient, b, a), inverse, quotient)


@triton.jit
def total(a, IS_PRECISE: tl.constexpr):
    """The sum over a row, in float64 where a float32's last digit counts."""
    if IS_PRECISE:
        found = tl.sum(a.to(tl.float64), 1)
    else:
        found = tl.sum(a, 1).to(tl.float64)
    return found


@triton.jit
def exponential(high, low, IS_PRECISE: tl.constexpr):
    """exp(high + low) of numbers at most 0; 0 where that is no normal number."""
    # 2^-126.5 = exp(-87.7): below it the power of two that follows is 0.
    near = tl.maximum(high, -87.9)
    if IS_PRECISE:
        power = precisely(near, low, 0)
    else:
        power = tl.where(high > -87.9, tl.exp2(near * 1.4426950408889634), 0.0)
    return power


@triton.jit
def raised(high, low, IS_PRECISE: tl.constexpr):
    """2^64 times the exponential: what is too small for a float32 still counts in a sum. Take it away by LOWERED."""
    near = tl.maximum(high, -132.3)
    if IS_PRECISE:
        power = precisely(near, low, 64)
    else:
        root = tl.exp2(near * 0.7213475204444817) * 4294967296.0
        power = tl.where(high > -132.3, root * root, 0.0)
    return power


@triton.jit
def precisely(near, low, RAISE: tl.constexpr):
    """2^RAISE times the exponential within 0.8 ULP, of -87.9 - RAISE ln 2 and more."""
    # Adding 1.5 * 2^23 leaves the nearest integer in the last bits.
    shifted = tl.fma(near, 1.4426950408889634, 12582912.0)
    k = shifted - 12582912.0
    # ln 2 in two parts, of which k times the first is exact.
    r = (near - k * 0.693359375) + (k * 0.00021219444170128554 + low)
    q = tl.fma(r, 0.0013926926767453551, 0.008363774046301842)
    q = tl.fma(r, q, 0.04166654869914055)
    q = tl.fma(r, q, 0.16666573286056519)
    q = tl.fma(r, q, 0.5)
    power = 1.0 + tl.fma(r * r, q, r)
    bits = (shifted.to(tl.int32, bitcast=True) << 23) + (0x3F800000 + (RAISE << 23))
    return power * bits.to(tl.float32, bitcast=True)


@triton.jit
def log1p(w, lost):
    """log(1 + w + lost) for -1 < w <= 0, in two float32."""
    u = 1.0 + w
    return logarithms(u, (w - (u - 1.0)) + lost)


@triton.jit
def logarithm(u, lost):
    """log(u + lost) of a positive u."""
    whole, rest = logarithms(u, lost)
    return whole + rest


@triton.jit
def logarithms(u, lost):
    """The same in two float32: 2 artanh(s) with s = f / (2 + f), u = 2^k (1 + f)."""
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    k = exponent.to(tl.float32)
    s = divided(f, 2.0 + f)
    z = s * s
    series = tl.fma(z, 0.23332762718200684, 0.28550735116004944)
    series = tl.fma(z, series, 0.4000012278556824)
    series = tl.fma(z, series, 0.6666666865348816)
    # 2 s = f - s f, in which f is exact, as is k times the first part of ln 2.
    tail = s * (f - z * series)
    whole, rest = two_sum(k * 0.693359375, f)
    return two_sum(whole, (rest - tail) + (lost / u - k * 0.00021219444170128554))


@triton.jit
def log1p_of_rows(w):
    """log(1 + w) of float64 numbers above -1 (Kahan; Goldberg 1991, theorem 4)."""
    u = 1.0 + w
    is_lost = u == 1.0
    return tl.where(is_lost, w, w * (tl.log(u) / tl.where(is_lost, 1.0, u - 1.0)))
