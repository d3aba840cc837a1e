"""Hyper-parameters that an optimiser may move freely: how a free number is folded into a range. No module, no map.

A range here starts at `low` and is open above, as alpha's of entmax, [1, inf). Up to LINEAR above low the free number
is the hyper-parameter itself, so it starts where it was asked to start and its gradient is passed on as it is. Below
low it is mirrored: the gradient changes its sign there and does not vanish, so that an optimiser comes back. Further
up it grows like the logarithm, with the gradient 1 / (1 + excess): the largest float32 stands for some 98 above low.
Sigmoids and exponentials, in contrast, let the gradient of a number that went too far vanish or grow exponentially.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from softplex.core import formula

LINEAR = 9.0
"""How far above the range's low end a free number stands for itself."""

FARTHEST = 60.0
"""How far above it training may start."""


def free_number(rule: formula.Parameter, start: Any, where: str, *, device: Any, dtype: Any) -> Parameter:
    """The free number, or tensor of them, that stands for `start`."""
    if rule.high is None or rule.high < math.inf:
        raise TypeError(f"{where}: {rule.name} cannot be learnable: its range ends at {rule.rule(None)}; give a number")
    if not isinstance(start, Tensor):
        start = torch.as_tensor(start, dtype=dtype or torch.get_default_dtype(), device="cpu")
    start = start.detach().to(dtype=dtype, copy=True)
    if not start.is_floating_point():
        raise TypeError(f"{where}: {rule.name} has the dtype {start.dtype}; learnable numbers are floating")
    wide = start.double()
    is_right = rule.allowed(wide, 1) & (wide <= rule.low + FARTHEST)
    if not bool(is_right.all()):
        raise ValueError(
            f"{where}: {rule.name} starts at {start.tolist()}; to be learnable it must be {rule.rule(None)}, and at "
            f"most {rule.low + FARTHEST:g}"
        )
    excess = wide - rule.low - LINEAR
    free = torch.where(excess > 0.0, rule.low + LINEAR + torch.expm1(excess), wide)
    return Parameter(free.to(device=device or torch.get_default_device(), dtype=start.dtype))


def in_range(rule: formula.Parameter, raw: Tensor) -> Tensor:
    """The hyper-parameter for which a free number stands; differentiable."""
    signed = raw - rule.low
    distance = signed.abs()
    excess = torch.clamp(distance - LINEAR, min=0.0, max=torch.finfo(raw.dtype).max)
    folded = rule.low + torch.where(excess > 0.0, LINEAR + torch.log1p(excess), distance)
    found = torch.where((signed < 0.0) | (excess > 0.0), folded, raw)
    if rule.includes_low:
        return found
    return torch.where(found > rule.low, found, found + 4.0 * torch.finfo(raw.dtype).eps * max(rule.low, 1.0))
