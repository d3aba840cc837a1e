"""The compiled extension (cpu/module.cpp): NumPy arrays in, checked only for what could crash the process.

Maps, methods and types are the numbers of the enums in cpu/call.h.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_ShortCut = Callable[[str, object, object, object, object, dict[str, object]], _Array | None]
_TensorCut = Callable[[str, object, object, object, object, dict[str, object]], Any]
_ParameterCut = Callable[[str, object, object, object, object, dict[str, object]], _Array | None]
_LossCut = Callable[..., Any]

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
    scores: _Array | None = None,
) -> None:
    """Compute a call into `result`; the last `row_axes` axes of entries are the normalised ones.

    Residuals are multiplied by `scale`; where it is 0 they are 0, whatever their row holds. A result that was made for
    this call may be memory that nobody has touched, which is written to in another way. Methods that are given weights
    for x may ask for the scores they came from.

    Arrays of bfloat16 may also be given as the uint16 of their bits.

    ValueError for arrays that do not fit, MemoryError for want of scratch memory, and what Ctrl-C raises.
    """

def short_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _ShortCut:
    """What computes the commonest calls of a map, `alpha` being taken where a call gives none (or may give none).

    Called with the method ("value", "vjp" or "jvp"), x, the operand, axis, out and a dict of the other keywords, it
    gives the result, or None for anything but plain arrays of one shape, one axis, and numbers that are allowed.
    """

def know_tensors(
    types: tuple[type, ...],
    new_like: Callable[[Any], object],
    large_like: Callable[[Any], object],
    threads: Callable[[], int],
) -> bool:
    """Whether tensors of just these classes can be looked at from now on: they have DLPack's exchange interface for C.

    What makes a tensor like another (from 32 MiB on: `large_like`) and tells how many threads may run is asked at each
    call.
    """

def tensor_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _TensorCut:
    """What computes the commonest calls of a map on tensors of the classes that are known.

    Called as cut(method, x, operand, where, axis, options), with a dict of the other keywords, tensors on the CPU, None
    where absent, the operand in the shape of x, and `where` in one that can be made so. Temperature, sink and alpha may
    be tensors of float32 or float64, of length 1 along the axis. The result is a new tensor. None for what short cuts
    do not know, for no entries, a wrong axis, and tensors that do not fit. Whether signs are kept aside from memory is
    not checked.
    """

def parameter_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _ParameterCut:
    """What computes what cotangents say of a map's parameters, of tensors of the classes that are known.

    Called as tell(parameter, p, g, scores, axis, options) with "temperature", "sink" or "alpha", the weights, their
    cotangent, the scores and the options of the call that gave the weights; or with "temperature", the gradient of a
    loss in the scores, None, the scores and the options of the loss. The result is a new array of one float64 a row, of
    length 1 along the axis; None as of `tensor_cut`, for parameters that the map lacks, and for 16 bits.
    """

def loss_cut(map: int, negated: bool, takes_alpha: bool, alpha: float) -> _LossCut:
    """What computes the commonest losses against class indices of int64, of tensors of the classes that are known.

    Called as lose(x, y, where, axis, options, ignored, scale, solved). Without a scale (None) it gives the losses of
    the rows, 0 where ignored, how many rows count, and what was solved of long rows of a sparse map where `solved` is
    True, else None. With a scale, a float or a tensor of one float64 a row, it gives the gradient of the rows' losses
    times it; a tensor of what was solved of the same rows spares solving them again. Parameters may be tensors as of
    `tensor_cut`. None for what it does not know and for a class out of range.
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
