"""Error-free transformations: what rounding took from a sum, a product or a quotient. Nothing else lives here.

Knuth's two-sum and Dekker's two-product (Dekker 1971, doi:10.1007/BF01397083) need nothing but rounded arithmetic, so
they work in every precision and in every array library.
"""

from __future__ import annotations

import math

from softplex.core.arrays import Array, Namespace, Number, known


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum of a and b, and what the rounding took from it."""
    rounded = a + b
    b_part = rounded - a
    return rounded, (a - (rounded - b_part)) + (b - b_part)


def split(a: Array, eps: float) -> tuple[Array, Array]:
    """Two halves of a whose products with such halves are exact (Veltkamp)."""
    digits = 1 - round(math.log2(eps))
    scaled = a * (2.0 ** ((digits + 1) // 2) + 1.0)
    high = scaled - (scaled - a)
    return high, a - high


def two_product(xp: Namespace, a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded product of a and b, and what the rounding took from it."""
    rounded = a * b
    a_high, a_low = split(a, xp.eps)
    b_high, b_low = split(b, xp.eps)
    return rounded, ((a_high * b_high - rounded) + a_high * b_low + a_low * b_high) + a_low * b_low


def two_quotient(xp: Namespace, a: Array, a_error: Array, b: Number) -> tuple[Array, Array]:
    """The rounded quotient (a + a_error) / b, and what the rounding took from it, to first order."""
    rounded = a / b
    product, product_error = two_product(xp, rounded, b)
    return rounded, (((a - product) - product_error) + a_error) / b


def shortfall_of(xp: Namespace, target: Number, a: Array) -> Array:
    """target - sum a over the last axis as in twice the precision: halves are added, the errors summed apart."""
    value = xp.zeros_like(a[..., :1]) + target
    errors = xp.zeros_like(value)
    a = -a
    while known(a.shape[-1]) > 0:
        half = a.shape[-1] // 2
        if a.shape[-1] % 2:
            value, error = two_sum(value, a[..., -1:])
            errors = errors + error
        a, error = two_sum(a[..., :half], a[..., half : 2 * half])
        errors = errors + xp.sum(error, axis=-1, keepdims=True)
    return value + errors
