"""Section 4 of the contract as data, and the measures it is stated in. Every bound is in ULPs or relative."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reference import exact

PRECISION = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
SMALLEST_EXPONENT = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}
WORKING = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}
NARROW = ("float16", "bfloat16")

ITSELF, MAX, ONE = "itself", "max(p)", "1"


def ulp(dtype, value):
    """The distance between neighbours of that dtype at a value (of any sign; floats or mpmath numbers)."""
    if not value:
        return 2.0 ** (SMALLEST_EXPONENT[dtype] - PRECISION[dtype] + 1)
    exponent = int(exact.frexp(abs(value))[1]) - 1 if isinstance(value, exact.mpf) else math.frexp(value)[1] - 1
    return math.ldexp(1.0, max(exponent, SMALLEST_EXPONENT[dtype]) - PRECISION[dtype] + 1)


def smallest_normal(dtype):
    return 2.0 ** SMALLEST_EXPONENT[dtype]


def largest(dtype):
    return (2.0 - 2.0 ** (1 - PRECISION[dtype])) * 2.0 ** (1 - SMALLEST_EXPONENT[dtype])


def smallest_promised(dtype):
    """Below it a result is not held to its own ULP: normal numbers, for float16 subnormal ones too."""
    return ulp(dtype, 0) if dtype == "float16" else smallest_normal(dtype)


@dataclass(frozen=True)
class Bound:
    ulps: float
    of: str


SOFTMAX_FAMILY = ("softmax", "softmin", "log_softmax", "log_softmin")
CLOSED = ("sparsemax", "entmax15")


def factor(dtype, *, temperature=False, formulas=True):
    """How much wider the table gets; 16-bit results are rounded once from float32, which swallows the difference."""
    if dtype in NARROW:
        return 1
    return (2 if temperature else 1) * (4 if formulas else 1)


def value_bound(name, dtype, *, alpha=None, temperature=False, formulas=True):
    """The bound on a map's values."""
    times = factor(dtype, temperature=temperature, formulas=formulas)
    if name in SOFTMAX_FAMILY:
        return Bound({"float64": 3, "float32": 2}.get(dtype, 0.51) * times, ITSELF)
    if dtype == "float64" and name == "entmax" and alpha > 2:
        return Bound(4 * times, ONE)
    if name in CLOSED:
        return Bound({"float64": 2, "float32": 2}.get(dtype, 0.51) * times, MAX)
    return Bound({"float64": 4, "float32": 4}.get(dtype, 0.51) * times, MAX)


def linear_bound(dtype, *, temperature=False, formulas=True):
    """VJP, JVP and losses: ULPs of the row's largest term."""
    return (1 if dtype in NARROW else 4) * factor(dtype, temperature=temperature, formulas=formulas)


def cross_entropy_bound(dtype, *, temperature=False, formulas=True):
    """Cross-entropy against a class index: ULPs of itself."""
    return {"float64": 3, "float32": 2}.get(dtype, 1) * factor(dtype, temperature=temperature, formulas=formulas)


def residual_bound(dtype, *, temperature=False, formulas=True):
    return 4 * factor(dtype, temperature=temperature, formulas=formulas)


def parameter_bound(dtype, *, formulas=True):
    """Derivatives with respect to parameters: relative to their largest term."""
    return {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype] * (4 if formulas else 1)


def boundary(dtype):
    """Scores this near to a threshold may fall on either side of it."""
    return 4 * ulp(WORKING[dtype], 1)
