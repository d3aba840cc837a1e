"""The arrays that are measured on: scores, a place for the result, a mask, a cotangent; seeded, made when asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from softplex.bench.cases import Shape

SEED = 20240229

# What the scores are: words, mean and standard deviation of normal ones.
SCORES = {
    "normal": ("N(0, 2): mean 0, standard deviation 2", 0.0, 2.0),
    "wide": ("N(0, 15): many weights are next to nothing", 0.0, 15.0),
    "equal": ("nearly equal: mean 1, standard deviation 0.001", 1.0, 1e-3),
    "peaked": ("very peaked: mean 0, standard deviation 50", 0.0, 50.0),
}
MASKED_SHARE = 0.25
"""The share of entries that a mask takes out, at random."""


@dataclass(frozen=True)
class Inputs:
    """The arrays of one measurement; every peer reads the same ones and writes its result to the same place."""

    shape: Shape
    dtype: str = "float32"
    scores: str = "normal"

    @property
    def axis(self) -> int:
        """The axis that is normalised."""
        return self.shape.axis

    @cached_property
    def x(self) -> Any:
        """The scores."""
        _, mean, deviation = SCORES[self.scores]
        x = np.random.default_rng(SEED).standard_normal(self.shape.sizes, dtype=np.float32)
        x *= np.float32(deviation)
        x += np.float32(mean)
        return x.astype(numpy_dtype(self.dtype), copy=False)

    @cached_property
    def out(self) -> Any:
        """A place for the result, touched, so that no page of it is new."""
        return np.ones_like(self.x)

    @cached_property
    def mask(self) -> Any:
        """True where an entry counts."""
        return np.random.default_rng(SEED + 1).random(self.shape.sizes, dtype=np.float32) >= MASKED_SHARE

    @cached_property
    def cotangent(self) -> Any:
        """A cotangent, N(0, 1)."""
        g = np.random.default_rng(SEED + 2).standard_normal(self.shape.sizes, dtype=np.float32)
        return g.astype(self.x.dtype, copy=False)

    @cached_property
    def classes(self) -> Any:
        """A class for each row along the last axis."""
        *batch, classes = self.shape.sizes
        return np.random.default_rng(SEED + 3).integers(0, classes, batch)


def numpy_dtype(name: str) -> Any:
    """The dtype of that name; bfloat16 takes the package ml_dtypes."""
    if name == "bfloat16":
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    return np.dtype(name)
