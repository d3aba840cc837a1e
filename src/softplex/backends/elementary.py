"""exp, log and their kin in float64 from operations that IEEE 754 rounds exactly: the same bits everywhere.

NumPy's own differ in the last bit from one instruction set to the next, and its power from one stride to the next.
Range reduction and polynomials are those of fdlibm (Sun Microsystems 1993; exp: within 1 ULP, log: within 1 ULP); the
power keeps the logarithm to seven bits more than a double holds. Special values beyond what weights need (powers of
negative numbers) are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

NDArray = np.ndarray[Any, Any]

LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700
ROOT_HALF = 7.07106781186547524401e-01
SPLITTER = 134217729.0

EXP_TERMS = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
LOG_TERMS = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)

CHUNK = 1 << 14
"""Entries that go through all steps together, so that these find each other's results in cache."""


def in_chunks(function: Callable[[NDArray], NDArray]) -> Callable[[Any], NDArray]:
    """The function applied to consecutive parts of an array."""

    def chunked(x: Any) -> NDArray:
        flat = np.ascontiguousarray(x, np.float64).reshape(-1)
        result = np.empty_like(flat)
        for start in range(0, flat.size, CHUNK):
            result[start : start + CHUNK] = function(flat[start : start + CHUNK])
        return result.reshape(np.shape(x))

    chunked.__doc__ = function.__doc__
    chunked.__name__ = function.__name__
    return chunked


def polynomial(z: NDArray, terms: tuple[float, ...]) -> NDArray:
    """Horner's rule."""
    value = z * terms[-1]
    for term in terms[-2:0:-1]:
        value += term
        value *= z
    value += terms[0]
    return value


def reduced(x: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """k, high and low with x = k ln 2 + high - low and |high - low| at most half ln 2."""
    k = np.rint(x * INVERSE_LN2)
    return k, x - k * LN2_HIGH, k * LN2_LOW


def reduced_expm1(high: NDArray, low: NDArray) -> NDArray:
    """exp(high - low) - 1 for small arguments."""
    r = high - low
    z = r * r
    c = r - z * polynomial(z, EXP_TERMS)
    quotient = r * c
    quotient /= 2.0 - c
    quotient -= low
    quotient += high
    result: NDArray = quotient
    return result


def scaled(value: NDArray, k: NDArray) -> NDArray:
    """value * 2^k."""
    result: NDArray = np.ldexp(value, k.astype(np.int32))
    return result


def exp_of(x: NDArray, x_low: NDArray | float = 0.0) -> NDArray:
    """exp(x + x_low) for an x_low far below x."""
    k, high, low = reduced(np.minimum(np.maximum(x, -746.0), 710.0))
    return scaled(1.0 + reduced_expm1(high, low - x_low), k)


@in_chunks
def exp(x: NDArray) -> NDArray:
    """The exponential."""
    return exp_of(x)


@in_chunks
def expm1(x: NDArray) -> NDArray:
    """exp(x) - 1."""
    k, high, low = reduced(np.minimum(np.maximum(x, -60.0), 710.0))
    part = scaled(reduced_expm1(high, low), k)
    return part + (scaled(np.ones_like(x), k) - 1.0)


def mantissas(x: NDArray) -> tuple[NDArray, NDArray]:
    """k and m with x = m 2^k and m between the root of a half and that of two."""
    m, k = np.frexp(x)
    is_low = m < ROOT_HALF
    return (k - is_low).astype(np.float64), m * (1.0 + is_low)


def log_of(f: NDArray, k: NDArray, low: NDArray | float) -> NDArray:
    """log(1 + f) + k ln 2 + low."""
    s = f / (2.0 + f)
    z = s * s
    half = 0.5 * f * f
    series = z * polynomial(z, LOG_TERMS)
    return k * LN2_HIGH - ((half - (s * (half + series) + (k * LN2_LOW + low))) - f)


def log_ends(x: NDArray, result: NDArray) -> NDArray:
    """The logarithms of 0 and infinity put in; those of negative numbers are NaN."""
    if not np.all((x > 0.0) & (x < np.inf)):
        result = np.where(x == 0.0, -np.inf, np.where(x == np.inf, np.inf, np.where(x < 0.0, np.nan, result)))
    return result


@in_chunks
def log(x: NDArray) -> NDArray:
    """The natural logarithm."""
    k, m = mantissas(x)
    return log_ends(x, log_of(m - 1.0, k, 0.0))


@in_chunks
def log1p(x: NDArray) -> NDArray:
    """log(1 + x)."""
    u = 1.0 + x
    k, m = mantissas(u)
    is_near = k == 0.0
    lost = np.where(x > 1.0, 1.0 - (u - x), x - (u - 1.0)) / np.where(u == 0.0, 1.0, u)
    f = np.where(is_near, x, m - 1.0)
    return log_ends(u, log_of(f, k, np.where(is_near, 0.0, lost)))


def product_error(a: NDArray, b: Any, product: NDArray) -> NDArray:
    """a * b - product, exactly (Dekker)."""
    a_scaled, b_scaled = a * SPLITTER, b * SPLITTER
    a_high, b_high = a_scaled - (a_scaled - a), b_scaled - (b_scaled - b)
    a_low, b_low = a - a_high, b - b_high
    error: NDArray = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return error


def double_log(x: NDArray) -> tuple[NDArray, NDArray]:
    """log(x) as a sum of two floats, good to some 60 bits."""
    k, m = mantissas(x)
    f = m - 1.0
    divisor = 2.0 + f
    s = f / divisor
    # What rounding took from 2 + f counts as well: with m down to 0.7, f has bits below those of the sum.
    s_error = ((f - s * divisor) - product_error(s, divisor, s * divisor) - s * (f - (divisor - 2.0))) / divisor
    z = s * s
    tail = s * z * polynomial(z, LOG_TERMS) + 2.0 * s_error
    lead = 2.0 * s
    high = k * LN2_HIGH + lead
    high_error = lead - (high - k * LN2_HIGH)
    low = high_error + (k * LN2_LOW + tail)
    total = high + low
    return total, low - (total - high)


def pow_of(x: NDArray, y: Any) -> NDArray:
    """x ** y by way of the logarithm, which keeps more bits than a double."""
    if np.any(x < 0.0):
        signs = np.where(np.abs(np.mod(y, 2.0)) == 1.0, -1.0, np.where(np.mod(y, 1.0) == 0.0, 1.0, np.nan))
        return np.where(x < 0.0, signs, 1.0) * pow_of(np.abs(x), y)
    inside = (x > 0.0) & (x < np.inf)
    log_high, log_low = double_log(np.where(inside, x, 1.0))
    product = y * log_high
    is_far = np.abs(product) > 800.0
    error = product_error(log_high, y, product) + y * log_low
    error = np.where(is_far | ~np.isfinite(error), 0.0, error)
    return np.where(
        inside, exp_of(product, error), np.where(x == 0.0, ends(y), np.where(x == np.inf, 1.0 / ends(y), np.nan))
    )


def ends(y: Any) -> NDArray:
    """0 ** y."""
    return np.where(y > 0.0, 0.0, np.where(y == 0.0, 1.0, np.inf))


def power(x: Any, y: Any) -> NDArray:
    """x ** y."""
    if np.ndim(y) == 0:
        number = float(y)
        return x if number == 1.0 else in_chunks(lambda part: pow_of(part, number))(x)
    x, y = np.broadcast_arrays(x, y)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    result = np.empty(flat_x.shape)
    for start in range(0, flat_x.size, CHUNK):
        part = slice(start, start + CHUNK)
        result[part] = np.where(flat_y[part] == 1.0, flat_x[part], pow_of(flat_x[part], flat_y[part]))
    return result.reshape(x.shape)


class ReproducibleNumpy:
    """NumPy's namespace with these functions in the place of its own."""

    exp = staticmethod(exp)
    expm1 = staticmethod(expm1)
    log = staticmethod(log)
    log1p = staticmethod(log1p)
    pow = staticmethod(power)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
