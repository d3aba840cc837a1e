"""A checked NumPy call handed to the compiled kernels, or declined: then the formulas compute it.

What is declined depends on the call alone, never on the other rows: formulas without a kernel, methods that kernels do
not have, tangents and targets of another dtype than the result. Nothing is computed here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from softplex.core.arrays import Terms
from softplex.core.call import Asked, Call
from softplex.core.formula import Formula
from softplex.native import cpu
from softplex.native.table import LOG_SOFTMAX, MAXOUT, SOFTMAX, Kernel, kernel_of

NDArray = np.ndarray[Any, Any]

TYPES = {np.float64: 0, np.float32: 1, np.float16: 2}
BFLOAT16 = 3
UNUSED = 1.5
"""What maps without an alpha are given."""

ENTRIES = {"value": 0, "vjp": 1, "jvp": 2, "residual": 4}
RESIDUAL_OF_INDEX, LOSS_OF_INDEX, LOSS, SUPPORT_SIZE, WINNER, SMOOTH_MAX = 3, 5, 6, 7, 8, 10
BACKWARD, OF_TEMPERATURE, OF_ALPHA, OF_SINK = 9, 11, 12, 13
OF_TEMPERATURE_FROM_GRADIENT, CONJUGATE_BY_ALPHA = 14, 15


def is_on() -> bool:
    """Whether this thread may use kernels, and there are any."""
    return cpu is not None and not cpu.formulas_only()


def short_cut(formula: Formula) -> Any:
    """What computes a map's commonest calls: cut(method, x, operand, axis, out, options), or None where it declines."""
    kernel = None if cpu is None else kernel_of(formula)
    return None if cpu is None or kernel is None else cpu.short_cut(*_known(formula, kernel))


def _known(formula: Formula, kernel: Kernel) -> tuple[int, bool, bool, Any]:
    """What short cuts know of a map: its kernel, whether it takes an alpha, and that of calls that give none."""
    free = {parameter.name: parameter.default for parameter in formula.parameters}
    return kernel.number, kernel.negated, "alpha" in free, {**free, **kernel.fixed}.get("alpha", UNUSED)


def know_tensors(kinds: tuple[type, ...], new_like: Any, large_like: Any, threads: Any) -> bool:
    """Whether kernels can look at tensors of these classes; told what makes others, and how many threads there are."""
    return cpu is not None and cpu.know_tensors(kinds, new_like, large_like, threads)


def tensor_cut(formula: Formula) -> tuple[Any, Any, bool] | None:
    """What computes commonest calls on tensors, what tells of parameters, whether weights suffice beside a sink."""
    kernel = None if cpu is None else kernel_of(formula)
    if cpu is None or kernel is None:
        return None
    known = _known(formula, kernel)
    return cpu.tensor_cut(*known), cpu.parameter_cut(*known), kernel.number in (SOFTMAX, LOG_SOFTMAX)


def loss_cut(formula: Formula) -> tuple[Any, Any] | None:
    """What computes commonest losses of tensors, and what their parameters get; None where there are none."""
    kernel = None if cpu is None else kernel_of(formula)
    if cpu is None or kernel is None or kernel.number in (MAXOUT, LOG_SOFTMAX):
        return None
    known = _known(formula, kernel)
    return cpu.loss_cut(*known), cpu.parameter_cut(*known)


def computed(call: Call, asked: Asked, operands: list[NDArray], out: NDArray | None) -> list[NDArray] | None:
    """The results of a call by its kernel, or None."""
    kernel = kernel_of(asked.formula) if is_on() else None
    if kernel is None or call.x.size == 0:
        return None
    if kernel.number == MAXOUT:
        return _maxout(call, kernel, asked.method, operands)
    if asked.method in ("loss", "cross_entropy"):
        return _losses(call, kernel, asked, operands)
    if asked.method == "gradient":
        return _gradient(call, kernel, asked, operands)
    if asked.method == "support_size":
        return [_numbers(call, kernel, SUPPORT_SIZE, np.int64)]
    if asked.method == "smooth_max":
        return [_narrowed(_numbers(call, kernel, SMOOTH_MAX, np.float64), call.dtype)]
    if asked.method == "vjp" and asked.names != ("x",):
        return _pulled_back(call, kernel, asked, operands[0])
    if asked.method not in ENTRIES:
        return None
    method, operand, index = ENTRIES[asked.method], None, None
    if asked.method == "residual" and asked.targets.is_index:
        method, index = RESIDUAL_OF_INDEX, operands[0]
    elif operands:
        operand = operands[0]
        if not _is_of(call, operand):
            return None
    return [_entries(call, kernel, method, operand, index, out)]


def knows_parameters(call: Call, formula: Any, names: tuple[str, ...]) -> bool:
    """Whether `from_weights` finds what these get."""
    kernel = kernel_of(formula) if is_on() else None
    return kernel is not None and _is_some(call) and _know(call, kernel, names)


def from_weights(call: Call, formula: Any, p: NDArray, g: NDArray, names: tuple[str, ...]) -> list[NDArray] | None:
    """What a vjp gives for scores and parameters, by kernels that are given the weights of the call; or None."""
    kernel = kernel_of(formula)
    if kernel is None or not knows_parameters(call, formula, names) or not _is_of(call, g):
        return None
    found = _of_parameters(call, kernel, p, g, names)
    if "x" in names:
        found["x"] = np.empty(call.x.shape, call.dtype)
        _run(call._replace(where=None), kernel, BACKWARD, p, g, None, found["x"])
    return [found[name] for name in names]


def knows_parameters_of_loss(call: Call, asked: Asked, names: tuple[str, ...]) -> bool:
    """Whether `of_loss` finds what these get: of losses against classes, for alpha of plain ones."""
    targets = asked.targets
    is_plain = targets.smoothing == 0.0 and targets.weight is None and asked.method == "loss"
    known = {"temperature", "alpha"} if is_plain else {"temperature"}
    is_known = is_on() and kernel_of(asked.formula) is not None and _is_some(call) and set(names) <= known
    return is_known and targets.is_index and call.sink is None and call.dtype.itemsize > 2


def of_loss(
    call: Call, asked: Asked, y: NDArray, scale: NDArray, gradient: NDArray, names: tuple[str, ...]
) -> dict[str, NDArray] | None:
    """What losses, each times its scale, say of the parameters, one number a row, from their gradient in the scores.

    None where that gradient is out of the dtype's range.
    """
    kernel, found = kernel_of(asked.formula), {}
    assert kernel is not None
    if "temperature" in names:
        moved, scores = call._replace(x=gradient, where=None), _as_scores(call)
        found["temperature"] = _numbers(moved, kernel, OF_TEMPERATURE_FROM_GRADIENT, np.float64, scores=scores)
        if not np.isfinite(found["temperature"]).all():
            return None
    if "alpha" in names:
        p = _entries(call, kernel, ENTRIES["value"], None, None, None)
        moving = _numbers(call._replace(x=p, where=None), kernel, CONJUGATE_BY_ALPHA, np.float64)
        factors = np.where(_is_counted(asked.targets.ignore_index, y), scale.astype(np.float64), 0.0)
        with np.errstate(invalid="ignore"):
            found["alpha"] = np.where(factors == 0.0, 0.0, moving * factors)
    return found


def _pulled_back(call: Call, kernel: Kernel, asked: Asked, g: NDArray) -> list[NDArray] | None:
    """The cotangents of the scores and of the parameters; of the scores alone where kernels do not know the others."""
    if not _is_of(call, g):
        return None
    x = [_entries(call, kernel, ENTRIES["vjp"], g, None, None)] if "x" in asked.names else None
    if not _know(call, kernel, asked.names):
        return x
    p = _entries(call, kernel, ENTRIES["value"], None, None, None)
    found = _of_parameters(call, kernel, p, g, asked.names) | ({} if x is None else {"x": x[0]})
    return [found[name] for name in asked.names]


def _is_some(call: Call) -> bool:
    """Whether there are entries."""
    return bool(math.prod(call.batch) * call.length > 0)


def _know(call: Call, kernel: Kernel, names: tuple[str, ...]) -> bool:
    """Whether kernels find the cotangents of these: of sparse maps not beside a sink, and of no sums of 16 bits."""
    is_exponential = kernel.number in (SOFTMAX, LOG_SOFTMAX)
    known = {"x", "temperature", "sink" if is_exponential else "alpha"}
    return set(names) <= known and (call.sink is None or is_exponential) and call.dtype.itemsize > 2


def _of_parameters(call: Call, kernel: Kernel, p: NDArray, g: NDArray, names: tuple[str, ...]) -> dict[str, NDArray]:
    """The cotangents of the parameters, one number a row."""
    weighed, scores, found = call._replace(x=p, where=None), _as_scores(call), {}
    if "temperature" in names:
        found["temperature"] = _numbers(weighed, kernel, OF_TEMPERATURE, np.float64, operand=g, scores=scores)
    if "sink" in names:
        found["sink"] = _numbers(weighed, kernel, OF_SINK, np.float64, operand=g, scores=scores)
    if "alpha" in names:
        found["alpha"] = _numbers(weighed, kernel, OF_ALPHA, np.float64, operand=g)
    return found


def _is_of(call: Call, operand: NDArray) -> bool:
    """Whether an operand has the dtype of the result, in any byte order."""
    dtype = operand.dtype
    return bool(dtype == call.dtype or dtype.newbyteorder("=") == call.dtype)


def _entries(
    call: Call, kernel: Kernel, method: int, operand: NDArray | None, index: NDArray | None, out: NDArray | None
) -> NDArray:
    """A result of the shape of x."""
    if out is not None and out.dtype != call.dtype:
        out[...] = _entries(call, kernel, method, operand, index, None)
        return out
    if out is None:
        result = np.empty(call.x.shape, call.dtype)
    else:
        result, call = out, _apart(call, out)
    keeps_x = (operand is not None and method == ENTRIES["residual"]) or index is not None
    scores = _as_scores(call, None if keeps_x else result)
    _run(call, kernel, method, scores, operand, index, result, is_made=out is None)
    return result


def _apart(call: Call, out: NDArray) -> Call:
    """The call with copies of what writing the result would change before it is read."""
    x, where = call.x, call.where
    if x.dtype == call.dtype and np.may_share_memory(x, out) and not _is_same(x, out):
        call = call._replace(x=x.copy())
    if where is not None and np.may_share_memory(where, out):
        call = call._replace(where=where.copy())
    return call


def _as_scores(call: Call, place: NDArray | None = None) -> NDArray:
    """The scores in the call's dtype: as they are, else cast, into the place of the result if it is given."""
    x: NDArray = call.x
    if x.dtype == call.dtype:
        return x
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
    scores: NDArray | None = None,
) -> NDArray:
    """A result of one number a row."""
    result = np.empty(call.batch, dtype)
    _run(call, kernel, method, _as_scores(call), operand, index, result, scores=scores)
    return result


def _narrowed(numbers: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """Rounded to the dtype, to 16 bits by way of float32, as frameworks do; uint16 holds the bits of bfloat16."""
    with np.errstate(all="ignore"):
        if dtype.type is not np.uint16:
            return numbers.astype(np.float32 if dtype.itemsize == 2 else dtype, copy=False).astype(dtype, copy=False)
        bits = numbers.astype(np.float32).view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        return np.where(np.isnan(numbers), 0x7FC0, rounded).astype(np.uint16)


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
    _run(call, kernel, ENTRIES[method], _as_scores(call), operand, None, result)
    return [result]


def _losses(call: Call, kernel: Kernel, asked: Asked, operands: list[NDArray]) -> list[NDArray] | None:
    """The loss of each row times its weight, and the weight: what core/targets.py makes of a formula."""
    targets = asked.targets
    is_crossed = asked.method == "cross_entropy"
    if is_crossed and kernel.number != LOG_SOFTMAX:
        return None
    if targets.smoothing != 0.0:
        found = _smoothed_losses(call, kernel, asked, operands)
        return _crossed_losses(call, kernel, asked, operands) if found is None and is_crossed else found
    if is_crossed and not targets.is_index:
        return _crossed_losses(call, kernel, asked, operands)
    if not targets.is_index and targets.weight is not None:
        return None
    if is_crossed:
        kernel = Kernel(SOFTMAX, kernel.negated, kernel.fixed)
    y = operands[0]
    if not targets.is_index:
        if not _is_of(call, y):
            return None
        losses = _numbers(call, kernel, LOSS, np.float64, operand=y)
        return [losses, np.ones_like(losses)]
    is_counted = None if targets.ignore_index is None else y != targets.ignore_index
    if is_counted is None or is_counted.all():
        is_counted, classes = None, y
    else:
        classes = np.where(is_counted, y, 0)
    classes = classes.astype(np.int64, copy=False)
    losses = _numbers(call, kernel, LOSS_OF_INDEX, np.float64, index=classes)
    if targets.weight is None:
        weights = np.ones(call.batch)
    else:
        weights = np.asarray(targets.weight.astype(np.float64)[classes])
    if is_counted is not None:
        weights[~is_counted] = losses[~is_counted] = 0.0
    elif targets.weight is None:
        return [losses, weights]
    with np.errstate(all="ignore"):
        return [np.asarray(_weighted(losses, weights)), weights]


def _weighted(losses: NDArray, weights: NDArray) -> NDArray:
    """As core/targets.py weighs them: of rows that weigh nothing infinite ones are 0, and NaN stays."""
    return np.where((weights == 0.0) & (losses == np.inf), 0.0, losses) * weights


def _crossed_losses(call: Call, kernel: Kernel, asked: Asked, operands: list[NDArray]) -> list[NDArray] | None:
    """Cross-entropies against distributions, or against indices that smoothing makes distributions of."""
    targets, y = asked.targets, _crossed_targets(call, asked, operands)
    if y is None:
        return None
    losses = _numbers(call, kernel, LOSS, np.float64, operand=y)
    weights = np.ones_like(losses)
    if not targets.is_index:
        return [losses, weights]
    is_counted = _is_counted(targets.ignore_index, operands[0])
    if targets.weight is not None:
        weights = targets.weight.astype(np.float64)[np.where(is_counted, operands[0], 0)]
    return [np.where(is_counted, losses, 0.0), np.where(is_counted, weights, 0.0)]


def _is_counted(ignored: int | None, y: NDArray) -> NDArray:
    """Which class indices are not to be ignored."""
    return np.ones(y.shape, bool) if ignored is None else np.asarray(y != ignored)


def _crossed_targets(call: Call, asked: Asked, operands: list[NDArray]) -> NDArray | None:
    """What the logarithms are weighed with: targets, smoothed, times the weights of classes; None for what is left."""
    targets, y = asked.targets, operands[0]
    is_bare = targets.smoothing == 0.0 and targets.weight is None
    if not targets.is_index and not _is_of(call, y):
        return None
    if is_bare:
        return y
    # Of 16 bits too few are left, and a class has one axis.
    if call.dtype.itemsize < 4 or len(call.axes) != 1:
        return None
    axis = call.axes[0]
    along = tuple(-1 if each == axis else 1 for each in range(call.x.ndim))
    if targets.is_index:
        y = np.arange(call.length).reshape(along) == np.expand_dims(y, axis)
    with np.errstate(all="ignore"):
        rows = y.astype(call.dtype)
        if targets.smoothing != 0.0:
            live = _as_scores(call) > -np.inf
            live = live if call.where is None else live & call.where
            share = targets.smoothing / np.maximum(np.count_nonzero(live, axis=axis, keepdims=True), 1)
            rows *= 1.0 - targets.smoothing
            np.add(rows, share.astype(call.dtype), out=rows, where=live)
        if targets.weight is not None:
            weight = targets.weight.astype(call.dtype).reshape(along)
            if not np.isfinite(weight).all():
                return None
            rows *= weight
    return rows


def _is_smoothed_evenly(call: Call, asked: Asked) -> bool:
    """Whether all entries of all rows take part in smoothing, and float64 sums keep the digits: dense float32 rows."""
    is_weighted = asked.method == "cross_entropy" and asked.targets.weight is not None
    is_plain = call.where is None and call.sink is None and call.axes == (call.x.ndim - 1,)
    numbers = (call.temperature, *call.hyper.values())
    return (
        asked.targets.is_index
        and not is_weighted
        and is_plain
        and all(isinstance(number, float) for number in numbers)
        and call.dtype == call.x.dtype == np.float32
        and call.x.flags.c_contiguous
        and bool(np.min(call.x) > -np.inf)
    )


def _smoothed_losses(call: Call, kernel: Kernel, asked: Asked, operands: list[NDArray]) -> list[NDArray] | None:
    """With y = (1 - eps) e + eps / n the loss is that of the class e, and eps (z_e - mean z) + Omega(y)."""
    if not _is_smoothed_evenly(call, asked):
        return None
    targets, eps, length = asked.targets, asked.targets.smoothing, call.length
    plain = replace(asked, targets=replace(targets, smoothing=0.0, weight=None))
    found = _losses(call, kernel, plain, operands)
    if found is None:
        return None
    losses, weights = found
    classes = np.where(weights == 0.0, 0, operands[0]).astype(np.int64, copy=False)
    own = np.take_along_axis(call.x, classes[..., None], -1)[..., 0].astype(np.float64)
    with np.errstate(all="ignore"):
        mean = np.add.reduce(call.x, axis=-1, dtype=np.float64) / length
        even = eps * (own - mean) * ((-1.0 if kernel.negated else 1.0) / call.temperature)
        even = even + _regularizer(asked, call, eps, length)
        if targets.weight is not None:
            weights = weights * np.asarray(targets.weight.astype(np.float64)[classes])
        return [np.asarray(_weighted(losses + even, weights)), weights]


def _regularizer(asked: Asked, call: Call, eps: float, length: int) -> float:
    """Omega of a smoothed class; cross-entropy has none."""
    if asked.method == "cross_entropy":
        return 0.0
    y = np.full((1, length), eps / length)
    y[0, 0] += 1.0 - eps
    return float(asked.formula.regularizer(call.backend.xp, Terms(y), call.hyper)[0, 0])


def _gradient(call: Call, kernel: Kernel, asked: Asked, operands: list[NDArray]) -> list[NDArray] | None:
    """The gradient of the rows' losses: core/derivatives.py's, by residuals."""
    targets, y, scale = asked.targets, operands[0], operands[-1]
    is_log = kernel.number == LOG_SOFTMAX
    sign = -1.0 if kernel.negated else 1.0
    with np.errstate(all="ignore"):
        scale = sign * scale.astype(np.float64) / _parameter(call, call.temperature)
    result = np.empty(call.x.shape, call.dtype)
    is_even = targets.smoothing == 0.0 or _is_smoothed_evenly(call, _as_loss(asked, is_log))
    if is_log and not (targets.is_index and is_even):
        crossed = _crossed_targets(call, asked, operands)
        if crossed is None:
            return None
        scale = np.where(_is_counted(targets.ignore_index, y), scale, 0.0) if targets.is_index else scale
        _run(call, kernel, ENTRIES["residual"], _as_scores(call), crossed, None, result, scale)
        return [result]
    if not is_even or (not targets.is_index and targets.weight is not None):
        return None
    if is_log:
        kernel = Kernel(SOFTMAX, kernel.negated, kernel.fixed)
    if not targets.is_index:
        if not _is_of(call, y):
            return None
        _run(call, kernel, ENTRIES["residual"], _as_scores(call), y, None, result, scale)
        return [result]
    is_counted = None if targets.ignore_index is None else y != targets.ignore_index
    classes = y if is_counted is None else np.where(is_counted, y, 0)
    if targets.weight is not None:
        with np.errstate(all="ignore"):
            scale = scale * targets.weight.astype(np.float64)[classes]
    if is_counted is not None:
        scale = np.where(is_counted, scale, 0.0)
    _run(call, kernel, RESIDUAL_OF_INDEX, _as_scores(call), None, classes, result, scale)
    if targets.smoothing != 0.0:
        _smooth(result, classes, np.broadcast_to(targets.smoothing * scale, call.batch)[..., None])
    return [result]


def _smooth(result: NDArray, classes: NDArray, moved: NDArray) -> None:
    """Bring gradients of classes to those of smoothed ones: `moved` of each row goes from its class to all."""
    with np.errstate(all="ignore"):
        at_class = np.take_along_axis(result, classes[..., None], -1) + moved
        np.put_along_axis(result, classes[..., None], at_class.astype(result.dtype), -1)
        result -= (moved / result.shape[-1]).astype(result.dtype)


def _as_loss(asked: Asked, is_log: bool) -> Asked:
    """The loss whose gradient is asked for."""
    return replace(asked, method="cross_entropy" if is_log else "loss")


def _run(
    call: Call,
    kernel: Kernel,
    method: int,
    x: NDArray,
    operand: NDArray | None,
    index: NDArray | None,
    result: NDArray,
    scale: float | NDArray = 1.0,
    is_made: bool = True,
    scores: NDArray | None = None,
) -> None:
    """Run the extension on arrays with the normalised axes last; `scale` (a number, or one a row) is for residuals.

    `is_made` says that the result was made for this call; `scores` are those that x, being weights, was computed from.
    """
    assert cpu is not None
    number = TYPES.get(call.dtype.type, BFLOAT16)
    if number == BFLOAT16 and call.dtype.type is not np.uint16:
        cpu.set_bfloat16(call.dtype)
    hyper = {**kernel.fixed, **call.hyper}
    cpu.run(
        kernel.number,
        method,
        number,
        kernel.negated,
        len(call.axes),
        call.backend.threads(),
        call.empty_value,
        _rows_last(call, x),
        None if operand is None else _rows_last(call, operand.astype(call.dtype, copy=False)),
        None if index is None else index.astype(np.int64, copy=False),
        None if call.where is None else _rows_last(call, broadcast(call.where, call.x.shape)),
        _rows_last(call, result),
        _parameter(call, call.temperature),
        None if call.sink is None else _parameter(call, call.sink),
        _parameter(call, hyper.get("alpha", UNUSED)),
        scale,
        is_made,
        None if scores is None else _rows_last(call, scores),
    )


def _rows_last(call: Call, array: NDArray) -> NDArray:
    """A view with the normalised axes last, in their order; an array of a number a row has none."""
    axes, count = call.axes, call.x.ndim
    return array if axes[0] == count - len(axes) or array.ndim < count else array.transpose(call.order)


def _parameter(call: Call, value: Any) -> Any:
    """A number, or an array of one a row."""
    return value if isinstance(value, float) else broadcast(value.squeeze(call.axes), call.batch)


def broadcast(array: NDArray, shape: tuple[int, ...]) -> NDArray:
    """The array in a shape that it broadcasts to."""
    return array if array.shape == shape else np.broadcast_to(array, shape)
