"""Hyper-parameters that an optimiser may move freely: how a free number is folded into a range. No framework, no map.

A range here starts at `low` and is open above, as alpha's of entmax, [1, inf). Up to LINEAR above low the free number
is the hyper-parameter itself, so it starts where it was asked to start and its gradient is passed on as it is. Below
low it is mirrored: the gradient changes its sign there and does not vanish, so that an optimiser comes back. Further
up it grows like the logarithm, with the gradient 1 / (1 + excess): the largest float32 stands for some 98 above low.
Sigmoids and exponentials, in contrast, let the gradient of a number that went too far vanish or grow exponentially.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from softplex.backends.numpy import real_array
from softplex.core.arrays import Array
from softplex.core.formula import Parameter

LINEAR = 9.0
"""How far above the range's low end a free number stands for itself."""

FARTHEST = 60.0
"""How far above it training may start."""


def refuse_unless_foldable(rule: Parameter, where: str) -> None:
    """A range that ends cannot be folded."""
    if rule.high is None or rule.high < math.inf:
        raise TypeError(f"{where}: {rule.name} cannot be learnable: its range ends at {rule.rule(None)}; give a number")


def unfolded(rule: Parameter, start: Any, where: str) -> Array:
    """The free number, or array of them, in float64, that stands for `start`."""
    wide = real_array(start, f"{where}: {rule.name}").astype(np.float64)
    is_right = rule.allowed(wide, 1) & (wide <= rule.low + FARTHEST)
    if not np.all(is_right):
        raise ValueError(
            f"{where}: {rule.name} starts at {wide.tolist()}; to be learnable it must be {rule.rule(None)}, and at "
            f"most {rule.low + FARTHEST:g}"
        )
    excess = wide - rule.low - LINEAR
    return np.where(excess > 0.0, rule.low + LINEAR + np.expm1(np.maximum(excess, 0.0)), wide)


def folded(xp: Any, rule: Parameter, raw: Array, *, eps: float, largest: float) -> Array:
    """The hyper-parameter for which a free number stands, differentiable if `xp` is; `eps`, `largest`: its dtype's."""
    signed = raw - rule.low
    distance = xp.abs(signed)
    excess = xp.clip(distance - LINEAR, 0.0, largest)
    bent = rule.low + xp.where(excess > 0.0, LINEAR + xp.log1p(excess), distance)
    found = xp.where((signed < 0.0) | (excess > 0.0), bent, raw)
    if rule.includes_low:
        return found
    return xp.where(found > rule.low, found, found + 4.0 * eps * max(rule.low, 1.0))
