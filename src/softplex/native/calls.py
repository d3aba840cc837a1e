"""A checked NumPy call handed to the compiled kernels, or declined: then the formulas compute it.

What is declined depends on the call alone, never on the other rows: formulas without a kernel, methods that kernels do
not have, tangents and targets of another dtype than the result. Nothing is computed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softplex.core.call import Asked, Call
from softplex.core.threads import get_num_threads
from softplex.native import cpu
from softplex.native.table import LOG_SOFTMAX, MAXOUT, SOFTMAX, Kernel, kernel_of

NDArray = np.ndarray[Any, Any]

TYPES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
ENTRIES = {"value": 0, "vjp": 1, "jvp": 2, "residual": 4}
RESIDUAL_OF_INDEX, LOSS_OF_INDEX, LOSS, SUPPORT_SIZE, WINNER = 3, 5, 6, 7, 8


def is_on() -> bool:
    """Whether this thread may use kernels, and there are any."""
    return cpu is not None and not cpu.formulas_only()


def quick_call(formula: Any) -> Any:
    """What computes the value of a map with all defaults: quick(x, axis, out), or None where it declines."""
    kernel = None if cpu is None else kernel_of(formula)
    if cpu is None or kernel is None or kernel.fixed:
        return None
    quick, number, negated = cpu.quick, kernel.number, kernel.negated
    return lambda x, axis, out: quick(number, negated, x, axis, out)


def computed(call: Call, asked: Asked, operands: list[NDArray], out: NDArray | None) -> list[NDArray] | None:
    """The results of a call by its kernel, or None."""
    kernel = kernel_of(asked.formula) if is_on() else None
    if kernel is None or call.x.size == 0:
        return None
    if kernel.number == MAXOUT:
        return _maxout(call, kernel, asked.method, operands)
    if asked.method in ("loss", "cross_entropy"):
        return _losses(call, kernel, asked, operands)
    if asked.method == "support_size":
        return [_numbers(call, kernel, SUPPORT_SIZE, np.int64)]
    if asked.method not in ENTRIES:
        return None
    method, operand, index = ENTRIES[asked.method], None, None
    if asked.method == "residual" and asked.targets.is_index:
        method, index = RESIDUAL_OF_INDEX, operands[0]
    elif operands:
        operand = operands[0]
        if operand.dtype.newbyteorder("=") != call.dtype:
            return None
    return [_entries(call, kernel, method, operand, index, out)]


def _entries(
    call: Call, kernel: Kernel, method: int, operand: NDArray | None, index: NDArray | None, out: NDArray | None
) -> NDArray:
    """A result of the shape of x."""
    is_foreign = out is not None and out.dtype != call.dtype
    result = np.empty(call.x.shape, call.dtype) if out is None or is_foreign else out
    keeps_x = operand is not None and method == ENTRIES["residual"] or index is not None
    _run(call, kernel, method, _as_scores(call, None if keeps_x else result, result), operand, index, result)
    if is_foreign:
        assert out is not None
        out[...] = result
        return out
    return result


def _as_scores(call: Call, place: NDArray | None, result: NDArray) -> NDArray:
    """The scores in the call's dtype: as they are, else cast into the place of the result, which may overlap them."""
    x = call.x
    if x.dtype == call.dtype:
        overlaps = np.may_share_memory(x, result) and not _is_same(x, result)
        return x.copy() if overlaps else x
    with np.errstate(all="ignore"):
        if place is None:
            return x.astype(call.dtype)
        np.copyto(place, x, casting="unsafe")
    return place


def _is_same(x: NDArray, y: NDArray) -> bool:
    """Whether each entry lies just where the other's does."""
    return x.ctypes.data == y.ctypes.data and x.strides == y.strides and x.shape == y.shape


def _numbers(
    call: Call,
    kernel: Kernel,
    method: int,
    dtype: Any,
    operand: NDArray | None = None,
    index: NDArray | None = None,
) -> NDArray:
    """A result of one number a row."""
    result = np.empty(call.batch, dtype)
    _run(call, kernel, method, _cast(call), operand, index, result)
    return result


def _cast(call: Call) -> NDArray:
    """The scores in the call's dtype."""
    with np.errstate(all="ignore"):
        return call.x.astype(call.dtype, copy=False)


def _maxout(call: Call, kernel: Kernel, method: str, operands: list[NDArray]) -> list[NDArray] | None:
    """What maxout is asked for: a number a row, or where each row's cotangent goes."""
    operand = operands[0] if operands else None
    if operand is not None and operand.dtype != call.dtype:
        return None
    if method == "winner":
        return [_numbers(call, kernel, WINNER, np.int64)]
    if method != "vjp":
        return [_numbers(call, kernel, ENTRIES[method], call.dtype, operand)]
    # The kernel writes to the winners alone.
    result = np.zeros(call.x.shape, call.dtype)
    _run(call, kernel, ENTRIES[method], _cast(call), operand, None, result)
    return [result]


def _losses(call: Call, kernel: Kernel, asked: Asked, operands: list[NDArray]) -> list[NDArray] | None:
    """The loss of each row times its weight, and the weight: what core/targets.py makes of a formula."""
    targets = asked.targets
    if targets.smoothing != 0.0 or (not targets.is_index and targets.weight is not None):
        return None
    if asked.method == "cross_entropy":
        if kernel.number != LOG_SOFTMAX or not targets.is_index:
            return None
        kernel = Kernel(SOFTMAX, kernel.negated, kernel.fixed)
    y = operands[0]
    if not targets.is_index:
        if y.dtype.newbyteorder("=") != call.dtype:
            return None
        losses = _numbers(call, kernel, LOSS, np.float64, operand=y)
        return [losses, np.ones_like(losses)]
    ignored = np.zeros(call.batch, bool) if targets.ignore_index is None else y == targets.ignore_index
    classes = np.where(ignored, 0, y).astype(np.int64)
    losses = _numbers(call, kernel, LOSS_OF_INDEX, np.float64, index=classes)
    weights = np.ones(call.batch) if targets.weight is None else targets.weight.astype(np.float64)[classes]
    weights = np.where(ignored, 0.0, weights)
    with np.errstate(all="ignore"):
        return [np.where(weights == 0.0, 0.0, losses) * weights, weights]


def _run(
    call: Call,
    kernel: Kernel,
    method: int,
    x: NDArray,
    operand: NDArray | None,
    index: NDArray | None,
    result: NDArray,
) -> None:
    """Run the extension on arrays with the normalised axes last."""
    assert cpu is not None
    if call.dtype.name == "bfloat16":
        cpu.set_bfloat16(call.dtype)
    mask = None if call.where is None else _rows_last(call, np.broadcast_to(call.where, call.x.shape))
    hyper = {**kernel.fixed, **call.hyper}
    entries = result.ndim == x.ndim and method in (*ENTRIES.values(), RESIDUAL_OF_INDEX)
    cpu.run(
        kernel.number,
        method,
        TYPES[call.dtype.name],
        kernel.negated,
        len(call.axes),
        get_num_threads(),
        call.empty_value,
        _rows_last(call, x),
        None if operand is None else _rows_last(call, operand.astype(call.dtype, copy=False)),
        None if index is None else index.astype(np.int64, copy=False),
        mask,
        _rows_last(call, result) if entries else result,
        _parameter(call, call.temperature),
        None if call.sink is None else _parameter(call, call.sink),
        _parameter(call, hyper.get("alpha", 1.5)),
    )


def _rows_last(call: Call, array: NDArray) -> NDArray:
    """A view with the normalised axes last, in their order."""
    first = array.ndim - len(call.axes)
    if call.axes == tuple(range(first, array.ndim)):
        return array
    return np.moveaxis(array, call.axes, range(first, array.ndim))


def _parameter(call: Call, value: Any) -> Any:
    """A number, or an array of one a row."""
    if isinstance(value, float):
        return value
    return np.broadcast_to(np.squeeze(value, axis=call.axes), call.batch)
