"""The compiled extension (cpu/module.cpp): NumPy arrays in, checked only for what could crash the process.

Maps, methods and types are the numbers of the enums in cpu/call.h.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_ShortCut = Callable[[str, object, object, object, object, dict[str, object]], _Array | None]
_TensorCut = Callable[..., bool]
_LossCut = Callable[..., tuple[_Array, int] | bool | None]

def run(
    map: int,
    method: int,
    type: int,
    negated: bool,
    row_axes: int,
    threads: int,
    empty: float,
    x: _Array,
    operand: _Array | None,
    index: _Array | None,
    mask: _Array | None,
    result: _Array,
    temperature: float | _Array,
    sink: float | _Array | None,
    alpha: float | _Array,
    scale: float | _Array = 1.0,
    is_result_made: bool = False,
) -> None:
    """Compute a call into `result`; the last `row_axes` axes of entries are the normalised ones.

    Residuals are multiplied by `scale`; where it is 0 they are 0, whatever their row holds. A result that was made for
    this call may be memory that nobody has touched, which is written to in another way.

    Arrays of bfloat16 may also be given as the uint16 of their bits.

    ValueError for arrays that do not fit, MemoryError for want of scratch memory, and what Ctrl-C raises.
    """

def short_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _ShortCut:
    """What computes the commonest calls of a map, `alpha` being taken where a call gives none (or may give none).

    Called with the method ("value", "vjp" or "jvp"), x, the operand, axis, out and a dict of the other keywords, it
    gives the result, or None for anything but plain arrays of one shape, one axis, and numbers that are allowed.
    """

def know_tensors(type: object) -> bool:
    """Whether tensors of a class can be looked at from now on: it has DLPack's exchange interface for C, version 1."""

def tensor_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _TensorCut:
    """What computes the commonest calls of a map on tensors of the class that is known.

    Called as cut(method, axis, threads, options, x, operand, mask, result): at least one thread, a dict of the other
    keywords (`where` not among them), and tensors of one shape on the CPU, None where absent. True when the result was
    computed; False, and nothing done, for what short cuts do not know, for no entries, a wrong axis, and tensors that
    do not fit. The result is one that was made for this call; whether it overlaps what is read is not checked, nor
    whether signs are kept aside from memory.
    """

def loss_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _LossCut:
    """What computes the commonest losses against class indices of int64, of tensors of the class that is known.

    Called as lose(axis, threads, options, x, mask, y, ignored, result, scale, solved). Without a result (None) it gives
    the losses of the rows, 0 where ignored, how many rows count, and what was solved of long rows of a sparse map where
    `solved` is True, else None. With a result, the gradient of the rows' losses times `scale`, a float or a tensor of
    one float64 a row, is written to it: True. A tensor of what was solved of the same rows spares solving them again.
    None, and nothing done, for what it does not know and for a class out of range.
    """

def xla_handler() -> object:
    """What jax.ffi.register_ffi_target takes: the kernels as a function that programs of XLA for the CPU call.

    Its attributes and operands stand in cpu/xla.h. It uses the threads of `set_threads`, and does not ask for Ctrl-C.
    """

def streaming_copy(to: _Array, from_: _Array, threads: int) -> None:
    """Copy a dense float32 array past the caches: what the benchmark measures kernels by."""

def set_threads(n: int) -> None:
    """How many threads short cuts may use, for the whole process."""

def assume_cache(bytes: int) -> None:
    """What part of the last cache a call may count on, beyond which results are written past it; 0: as it is found."""

def formulas_only() -> bool:
    """Whether short cuts decline every call of this thread."""

def set_formulas_only(value: bool) -> None:
    """Let short cuts decline every call of this thread, or not."""

def instruction_set() -> str:
    """The one in use: "x86-64-v4", "x86-64-v3", "x86-64-v2", "neon" or "portable"."""

def choose_instruction_set(name: str) -> bool:
    """Use another one; False, and nothing changed, if this machine lacks it."""

def set_bfloat16(dtype: np.dtype[Any]) -> None:
    """Say which dtype is bfloat16 (that of ml_dtypes)."""
