"""The contract of a backend, for PyTorch: what the arguments are, and the two roads of a checked call.

Plain tensors on the CPU go NumPy's road, kernels and all, and remember how to come back (eager.py). All others, and
whatever is traced, compiled, exported, batched or differentiated forward, take the formulas as differentiable
functions (solving.py, core/follow.py). No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softplex.backends.array_api import FLOATS, ArrayApiBackend, dtype_name
from softplex.backends.torch import eager
from softplex.backends.torch.functions import TorchFunctions
from softplex.backends.torch.modes import is_plain
from softplex.backends.torch.solving import is_exporting, namespace_for, working_of
from softplex.core.arrays import Number
from softplex.core.call import Asked, Call, Kind

SIXTEEN_BIT = (torch.float16, torch.bfloat16)
SYMBOLS = (torch.SymInt, torch.SymFloat)


@lru_cache
def backend_on(device: torch.device, is_export: bool) -> TorchBackend:
    """The backend of a device, for tensors that cannot be looked at."""
    return TorchBackend(device)


def backend_for(x: Tensor) -> TorchBackend:
    """The backend of a tensor."""
    if is_plain(x):
        return EAGER
    if x.is_cuda and (found := on_gpu(x)) is not None:
        return found
    return backend_on(x.device, is_exporting())


def on_gpu(x: Tensor) -> TorchBackend | None:
    """The backend of a plain tensor on a GPU, if there are kernels."""
    from softplex.backends.torch import gpu

    return gpu.backend_on_gpu(x.device) if gpu.is_taken(x) else None


def is_cast(device: torch.device) -> bool:
    """Whether autocast is on for a device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


class TorchBackend(ArrayApiBackend):
    """Tensors as differentiable arrays, on any device and under any transform."""

    def __init__(self, device: torch.device) -> None:
        self.functions = TorchFunctions(device)
        self.root = "torch"
        self.device = device
        self.can_look = False
        self.working = working_of(device)
        self.xp = namespace_for(device)

    def is_array(self, value: Any) -> bool:
        """Whether a value is a tensor."""
        return isinstance(value, Tensor)

    def _converted(self, value: Any, what: str) -> Tensor:
        """A dense tensor of floats, integers or booleans on the device of the scores."""
        if not isinstance(value, Tensor):
            made: Tensor = self._from_numpy(value, what)
            return made
        if value.layout is not torch.strided or value.is_nested:
            kind = "nested" if value.is_nested else str(value.layout)
            raise TypeError(
                f"{what} is a tensor of layout {kind}; give a dense one: x.to_dense(), or padded and masked"
            )
        checked: Tensor = super()._converted(value, what)
        checked = checked.resolve_neg() if checked.is_neg() else checked
        return checked if checked.device == self.device else self._moved(checked, what)

    def _moved(self, value: Tensor, what: str) -> Tensor:
        """A number from another device; arrays are the caller's to move."""
        if value.ndim == 0:
            return value.to(self.device)
        raise ValueError(f"{what} is on {value.device} and x on {self.device}; move one to the other's device")

    def result_dtype(self, x: Tensor, dtype: Any, name: str) -> torch.dtype:
        """The dtype asked for, else that of floating scores (where autocast is on: what softmax makes of it)."""
        if dtype is not None:
            if dtype_name(dtype) not in FLOATS or not isinstance(dtype, torch.dtype):
                raise TypeError(
                    f"{name}: dtype={dtype!r} is not taken; give one of {', '.join('torch.' + each for each in FLOATS)}"
                )
            return dtype
        if dtype_name(x.dtype) not in FLOATS:
            return torch.get_default_dtype()
        if x.dtype in SIXTEEN_BIT and is_cast(x.device):
            return torch.softmax(x.new_zeros((1,)), 0).dtype
        return x.dtype

    def as_parameter(self, value: Any, what: str) -> Number:
        """A Python float, or a tensor in the working precision; a number that a compiler leaves open is one."""
        if isinstance(value, SYMBOLS):
            return torch.scalar_tensor(torch.sym_float(value), dtype=self.working, device=self.device)
        return super().as_parameter(value, what)

    def visible(self, array: Any, given: Any) -> Any:
        """Numbers that came from elsewhere are NumPy's to look at."""
        return array if isinstance(given, SYMBOLS) else super().visible(array, given)

    def look(self, flags: Any) -> bool | None:
        """Known for numbers alone; what is said of a size that is left open becomes a condition on it."""
        return bool(flags) if isinstance(flags, torch.SymBool) else super().look(flags)

    def first_where(self, values: Any, flags: Any) -> Any:
        """The first flagged value."""
        return super().first_where(values.detach() if isinstance(values, Tensor) else values, flags)

    def as_mask(self, where: Any, name: str) -> Tensor:
        """A bool tensor."""
        if not isinstance(where, Tensor):
            where = self.functions.asarray(np.asarray(where))
        mask: Tensor = super().as_mask(where, name)
        return mask if mask.device == self.device else self._moved(mask, f"{name}: where")

    def reduced(
        self, values: Tensor, weights: Tensor | None, counted: Tensor | None, dtype: Any, reduction: str
    ) -> Tensor:
        """None, the sum or the mean of the rows' losses; at least float32 under autocast."""
        if dtype in SIXTEEN_BIT and is_cast(self.device):
            dtype = torch.float32
        return self._reduced(values, weights, counted, reduction).to(dtype)

    def _reduced(self, values: Tensor, weights: Tensor | None, counted: Tensor | None, reduction: str) -> Tensor:
        """In the working precision."""
        reduced: Tensor = super().reduced(values, weights, counted, self.working, reduction)
        return reduced

    def copied_into(self, out: Any, result: Any, name: str) -> Tensor:
        """Only NumPy's arrays are written to."""
        raise TypeError(f"{name}: out is for NumPy arrays; take the result instead")


class EagerBackend(TorchBackend):
    """Plain tensors on the CPU, outside of all transforms."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.can_look = True

    def look(self, flags: Any) -> bool | None:
        """Whether all flags are set; unknown where one of the arguments is no plain tensor."""
        if isinstance(flags, Tensor):
            return bool(flags.all()) if is_plain(flags) else None
        return super().look(flags)

    def _reduced(self, values: Tensor, weights: Tensor | None, counted: Tensor | None, reduction: str) -> Tensor:
        """As NumPy adds up, to the bit."""
        if reduction == "none":
            return values
        is_weighed = weights is not None and weights.requires_grad  # the divisor then has derivatives too
        if is_weighed or not all(is_plain(one) for one in (values, weights, counted) if one is not None):
            return super()._reduced(values, weights, counted, reduction)
        v, w, c = [None if one is None else one.detach().numpy() for one in (values, weights, counted)]
        assert v is not None
        total = eager.VIEWS.reduced(v, w, c, np.float64, reduction)
        if not (torch.is_grad_enabled() and values.requires_grad):
            return torch.from_numpy(total)
        counts = v.size > 0 if c is None else bool(c.any())
        divisor = 1.0 if reduction == "sum" or not counts else float(v.size if w is None else w.sum() or np.nan)
        found: Tensor = eager.Added.apply(values, total, divisor)
        return found

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[Tensor, ...]],
        operands: Sequence[tuple[Kind, Tensor]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[Tensor]:
        """Apply a function of rows by NumPy's road, if all that takes part is plain."""
        if out is not None:
            self.copied_into(out, None, call.name)
        work = eager.work_of(call, function, operands, results, asked)
        if not all(is_plain(tensor) for tensor in work.tensors):
            return super().run(call, function, operands, results, None, asked)
        return eager.answered(work)


EAGER = EagerBackend()
