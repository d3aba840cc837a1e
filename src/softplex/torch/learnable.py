"""Hyper-parameters that are trained, as torch's parameters. How a free number is folded stands in core/folding.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from softplex.backends.torch.functions import TorchFunctions
from softplex.core import folding, formula


def free_number(rule: formula.Parameter, start: Any, where: str, *, device: Any, dtype: Any) -> Parameter:
    """The free number, or tensor of them, that stands for `start`."""
    folding.refuse_unless_foldable(rule, where)
    if not isinstance(start, Tensor):
        start = torch.as_tensor(start, dtype=dtype or torch.get_default_dtype(), device="cpu")
    start = start.detach().to(dtype=dtype, copy=True)
    if not start.is_floating_point():
        raise TypeError(f"{where}: {rule.name} has the dtype {start.dtype}; learnable numbers are floating")
    free = torch.as_tensor(folding.unfolded(rule, start.double().cpu().numpy(), where))
    return Parameter(free.to(device=device or torch.get_default_device(), dtype=start.dtype))


def in_range(rule: formula.Parameter, raw: Tensor) -> Tensor:
    """The hyper-parameter for which a free number stands; differentiable."""
    limits = torch.finfo(raw.dtype)
    found: Tensor = folding.folded(TorchFunctions(raw.device), rule, raw, eps=limits.eps, largest=limits.max)
    return found
