"""Rows of scores that break things, as exact values of a dtype, gathered into batches of equal length."""

from __future__ import annotations

import functools

import numpy as np

from frameworks import numpy_dtype
from tolerances import PRECISION, SMALLEST_EXPONENT

SIZE = 16


def spread_rows(rng):
    yield "spread over 80", rng.uniform(-80, 80, SIZE)
    yield "spread over 10", rng.uniform(-10, 10, SIZE)
    yield "normal", rng.normal(size=SIZE)
    yield "normal", rng.normal(size=SIZE)
    yield "half a unit", rng.uniform(0, 0.5, SIZE)
    yield "far from 0", 1000 + rng.normal(size=SIZE)
    yield "long", rng.normal(size=48)
    yield "long and wide", rng.normal(size=48) * 5


def near_tie_rows(rng, dtype):
    step = 2.0 ** (1 - PRECISION[dtype])
    yield "near ties", 1 + step * rng.integers(0, 4, SIZE)
    yield "near ties, far from 0", 8 * (1 + step * rng.integers(0, 4, SIZE))
    yield "two, one step apart", [1, 1 - step / 2]
    yield "flat", np.full(SIZE, 0.3)
    yield "nearly flat", 0.3 + step * rng.normal(size=SIZE)
    yield "ties", [1, 1, 0.5, 0.5, 0.5, -1, 1, -1]
    yield "on the threshold", [1, 0, -1]
    yield "on the threshold of 1.5", [2, 0]


def confident_rows():
    yield "confident", [0, -40]
    yield "more confident", [0, -90, -87.5]
    yield "confident among many", [30, *np.linspace(0, 2, SIZE - 1)]
    yield "two confident", [20, 20, *np.linspace(-5, 2, SIZE - 2)]
    yield "peaked", [6, 5.9, 5.8, 0, 0, 0, 0, 0]
    yield "from the literature", [5, 7, 10]


def support_rows(size=8):
    """A support of every size for maps with a support: that many scores close together, the rest far below."""
    for support in range(1, size + 1):
        close = -0.4 * np.arange(support) / support**2
        yield f"support of {support}", [*close, *np.linspace(-150, -100, size - support)]


def extreme_rows(dtype):
    top, low = 2.0 ** (SMALLEST_EXPONENT[dtype] * -1), 2.0 ** SMALLEST_EXPONENT[dtype]
    yield "huge", [top, -top]
    yield "huge and tied", [top, top, -top]
    yield "subnormal", [low / 4, 0, -low / 2]
    yield "holes", [1, -np.inf, 0, -np.inf, 2, 1.5, -np.inf, -3]
    yield "one left", [-np.inf, -np.inf, 3]
    yield "alone", [2.5]


@functools.cache
def batches(dtype, seed=20240607):
    """Pairs (labels, array of shape (rows, length)), every array in that dtype."""
    rng = np.random.default_rng(seed)
    rows = [
        *spread_rows(rng),
        *near_tie_rows(rng, dtype),
        *confident_rows(),
        *support_rows(),
        *extreme_rows(dtype),
    ]
    lengths = {}
    for label, row in rows:
        array = np.asarray(row, np.float64).astype(numpy_dtype(dtype))
        lengths.setdefault(array.size, []).append((label, array))
    return [([label for label, _ in group], np.stack([array for _, array in group])) for group in lengths.values()]


def plain(dtype, shape=(5, 7), seed=3, scale=1.5):
    """Ordinary scores: no ties, nothing special."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(numpy_dtype(dtype))
