"""torch's functions under the names of the array API standard, as formulas ask for them. No formula lives here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Axis = int | tuple[int, ...] | None


class TorchFunctions:
    """A namespace for the tensors of one device."""

    float64, float32, float16, bfloat16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
    int64, bool = torch.int64, torch.bool
    inf, nan = math.inf, math.nan

    abs = staticmethod(torch.abs)
    exp = staticmethod(torch.exp)
    expm1 = staticmethod(torch.expm1)
    log = staticmethod(torch.log)
    log1p = staticmethod(torch.log1p)
    sqrt = staticmethod(torch.sqrt)
    isnan = staticmethod(torch.isnan)
    isfinite = staticmethod(torch.isfinite)
    where = staticmethod(torch.where)
    pow = staticmethod(torch.pow)
    reshape = staticmethod(torch.reshape)
    broadcast_to = staticmethod(torch.broadcast_to)
    permute_dims = staticmethod(torch.permute)
    moveaxis = staticmethod(torch.movedim)
    zeros_like = staticmethod(torch.zeros_like)
    ones_like = staticmethod(torch.ones_like)
    finfo = staticmethod(torch.finfo)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def asarray(self, value: Any) -> Tensor:
        """A tensor on the device; data are copied, for they may not be writable."""
        return torch.tensor(value, device=self.device)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros."""
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def full(self, shape: Sequence[int], value: float, dtype: torch.dtype) -> Tensor:
        """One number everywhere."""
        return torch.full(shape, value, dtype=dtype, device=self.device)

    def arange(self, stop: int) -> Tensor:
        """0, 1, ..., stop - 1."""
        return torch.arange(stop, device=self.device)

    @staticmethod
    def astype(x: Tensor, dtype: torch.dtype) -> Tensor:
        """The same numbers in another dtype."""
        return x.to(dtype)

    @staticmethod
    def detach(x: Tensor) -> Tensor:
        """The same numbers without their derivatives."""
        return x.detach()

    @staticmethod
    def expand_dims(x: Tensor, axis: int) -> Tensor:
        """One more axis."""
        return x.unsqueeze(axis)

    @staticmethod
    def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """The sum, over no axis if none is named in a tuple."""
        if axis is None:
            return torch.sum(x)
        return x if axis == () else torch.sum(x, dim=axis, keepdim=keepdims)

    @staticmethod
    def max(x: Tensor, axis: int, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """The maximum; NaN if there is one."""
        return torch.amax(x, dim=axis, keepdim=keepdims)

    @staticmethod
    def min(x: Tensor, axis: int, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """The minimum; NaN if there is one."""
        return torch.amin(x, dim=axis, keepdim=keepdims)

    @staticmethod
    def argmax(x: Tensor, axis: int, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """Where the first maximum stands."""
        return torch.argmax(x, dim=axis, keepdim=keepdims)

    @staticmethod
    def any(x: Tensor) -> Tensor:
        """Whether one is set."""
        return torch.any(x)

    @staticmethod
    def all(x: Tensor) -> Tensor:
        """Whether all are set."""
        return torch.all(x)

    @staticmethod
    def maximum(x: Any, y: Any) -> Tensor:
        """The larger of two, of which one may be a number."""
        if not isinstance(x, Tensor):
            x, y = y, x
        return torch.maximum(x, y) if isinstance(y, Tensor) else torch.clamp(x, min=y)

    @staticmethod
    def minimum(x: Any, y: Any) -> Tensor:
        """The smaller of two, of which one may be a number."""
        if not isinstance(x, Tensor):
            x, y = y, x
        return torch.minimum(x, y) if isinstance(y, Tensor) else torch.clamp(x, max=y)

    @staticmethod
    def clip(x: Tensor, low: Any, high: Any) -> Tensor:
        """The nearest number between two others."""
        return torch.clamp(x, min=low, max=high)


class PlainFunctions(TorchFunctions):
    """For graphs that other runtimes run: log1p and expm1 from exp and log, which keep their digits all the same.

    Nothing loops in them, so that rows are better sorted.
    """

    sorts = True

    @staticmethod
    def sorted_down(x: Tensor) -> Tensor:
        """The numbers of each row, the largest first."""
        return torch.sort(x, dim=-1, descending=True).values

    @staticmethod
    def cumulative_sum(x: Tensor) -> Tensor:
        """The sums of the first numbers of each row."""
        return torch.cumsum(x, dim=-1)

    @staticmethod
    def beside(x: Tensor, column: Tensor) -> Tensor:
        """Rows with one number more."""
        return torch.cat((x, column), dim=-1)

    @staticmethod
    def log1p(x: Tensor) -> Tensor:  # type: ignore[override]
        """x log(u) / (u - 1) with u = 1 + x: the errors of both cancel (Kahan; Goldberg 1991, theorem 4)."""
        u = 1.0 + x
        is_lost = u == 1.0
        return torch.where(is_lost, x, x * torch.log(u) / torch.where(is_lost, 1.0, u - 1.0))

    @staticmethod
    def expm1(x: Tensor) -> Tensor:  # type: ignore[override]
        """(u - 1) x / log(u) with u = exp(x), likewise."""
        u = torch.exp(x)
        is_lost, is_far = u == 1.0, (u < 0.25) | (u > 1e10)
        near = torch.where(is_lost | is_far, 2.0, u)
        found = (near - 1.0) * torch.where(is_far, 1.0, x) / torch.log(near)
        return torch.where(is_far, u - 1.0, torch.where(is_lost, x, found))
