"""Numbers held as unevaluated sums of two floats: sum, product, exp and log, where one float is not enough.

For rows whose threshold is the root of a sum that cancels (normmax with alpha > 2). Double-double arithmetic after
Dekker 1971; no range reduction by powers of two, which the array standard lacks: exp halves its argument and squares.
"""

from __future__ import annotations

from typing import NamedTuple

from softplex.core.arrays import Array, Namespace
from softplex.core.doubles import two_product, two_quotient, two_sum

HALVINGS = 14
TERMS = 13
LARGEST = 80.0
"""Arguments of exp are kept within this bound; what lies below adds nothing to a sum of order 1."""


class Twofold(NamedTuple):
    """high + low, the low part below the last digit of the high one."""

    high: Array
    low: Array


def normalised(high: Array, low: Array) -> Twofold:
    """The same sum with its parts apart."""
    total = high + low
    return Twofold(total, low - (total - high))


def add(a: Twofold, b: Twofold) -> Twofold:
    """a + b."""
    high, low = two_sum(a.high, b.high)
    return normalised(high, low + (a.low + b.low))


def multiply(xp: Namespace, a: Twofold, b: Twofold) -> Twofold:
    """a * b."""
    high, low = two_product(xp, a.high, b.high)
    return normalised(high, low + (a.high * b.low + a.low * b.high))


def exp(xp: Namespace, a: Twofold) -> Twofold:
    """The exponential, by its series at a / 2^14 and squarings of exp - 1: good to 2^-90 of 1 or of itself."""
    scale = 0.5**HALVINGS
    inside = xp.abs(a.high) < LARGEST
    r = Twofold(xp.clip(a.high, -LARGEST, LARGEST) * scale, xp.where(inside, a.low * scale, 0.0))
    zero = xp.zeros_like(r.high)
    one = Twofold(zero + 1.0, zero)

    def term(high: Array, low: Array, n: Array) -> tuple[Array, Array, Array]:
        """1 + (r / n) value: from the last term of the series to its second."""
        part = multiply(xp, r, Twofold(*two_quotient(xp, one.high, zero, n)))
        return *add(multiply(xp, Twofold(high, low), part), one), n - 1.0

    high, low, _ = xp.repeat(term, (*one, zero + float(TERMS)), TERMS - 1)
    value = multiply(xp, Twofold(high, low), r)

    def squared(high: Array, low: Array) -> Twofold:
        """e^2x - 1 = 2 (e^x - 1) + (e^x - 1)^2."""
        value = Twofold(high, low)
        return add(Twofold(2.0 * high, 2.0 * low), multiply(xp, value, value))

    value = Twofold(*xp.repeat(squared, value, HALVINGS))
    return add(value, one)


def log(xp: Namespace, a: Twofold) -> Twofold:
    """The logarithm of a positive number: the float's logarithm, corrected by one step of Newton's method."""
    first = xp.clip(xp.log(a.high), -LARGEST, LARGEST)
    zero = xp.zeros_like(first)
    excess = add(multiply(xp, a, exp(xp, Twofold(-first, zero))), Twofold(zero - 1.0, zero))
    return add(Twofold(first, zero), Twofold(excess.high, excess.low - 0.5 * excess.high * excess.high))
