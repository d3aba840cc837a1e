"""Targets of a loss: class indices or distributions, class weights, smoothing, reductions. It names no map."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softplex.backends import bare
from softplex.core.arguments import read_like, same_shape
from softplex.core.arrays import Array, Namespace, Number, known
from softplex.core.call import Asked, Call, Kind
from softplex.core.doubles import shortfall_of
from softplex.core.formula import Hyper, Solution
from softplex.core.rows import Rows

REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True)
class Targets:
    """The targets of a call, checked."""

    y: Array
    is_index: bool
    ignore_index: int | None
    weight: Array | None
    """One number a class, or None."""
    smoothing: float

    def without_arrays(self) -> Targets:
        """What is said of the targets; they themselves come as operands."""
        return replace(self, y=None, weight=None)

    @property
    def operand(self) -> tuple[Kind, Array]:
        """The targets and how they lie."""
        return ("row" if self.is_index else "entries", self.y)

    @property
    def operands(self) -> list[tuple[Kind, Array]]:
        """The targets, and the class weights if there are any."""
        return [self.operand] if self.weight is None else [self.operand, ("classes", self.weight)]


def read_targets(
    call: Call, y: Any, *, ignore_index: int | None = None, weight: Any = None, label_smoothing: float = 0.0
) -> Targets:
    """Check the targets of a loss."""
    backend, name = call.backend, call.name
    known(call.length)
    y, weight = bare(y), bare(weight)
    array, is_index = backend.as_targets(y, f"{name}: y")
    ignored = read_ignored(ignore_index, f"{name}: ignore_index")
    ignore_index = ignored if is_held(array, ignored) else None
    if not is_index:
        array = read_like(call, array, "y")
    elif not same_shape(array.shape, call.batch):
        raise ValueError(
            f"{name}: y holds class indices and has shape {tuple(array.shape)}; it must have x's shape without the "
            f"normalised axis, {call.batch} (or be floating, of x's shape: distributions)"
        )
    else:
        check_indices(call, backend.visible(array, y), ignore_index)
    if ignore_index is not None and ignore_index >= 0 and not is_index:
        raise ValueError(f"{name}: ignore_index={ignore_index} is for class indices; y holds distributions")
    smoothing = read_smoothing(label_smoothing, name)
    if weight is not None:
        weight = backend.as_operand(weight, f"{name}: weight")
        if tuple(weight.shape) != (call.length,):
            raise ValueError(
                f"{name}: weight has shape {tuple(weight.shape)}; it must hold a number a class, ({call.length},)"
            )
    return Targets(array, is_index, ignore_index, weight, smoothing)


def read_smoothing(given: Any, name: str) -> float:
    """The part of each target that is spread, as a Python float."""
    if isinstance(given, bool) or not isinstance(given, (int, float, np.number)):
        raise TypeError(f"{name}: label_smoothing={given!r} is not a number; give one between 0 and 1")
    if not 0.0 <= given <= 1.0:
        raise ValueError(f"{name}: label_smoothing is {given!r}; it must lie between 0 and 1")
    return float(given)


def read_ignored(given: Any, what: str) -> int | None:
    """The class index to be ignored, as a Python integer."""
    if given is None:
        return None
    try:
        if not isinstance(given, bool):
            return operator.index(given)
    except TypeError:
        pass  # also what a traced number raises
    raise TypeError(f"{what}={given!r} is not a class index; give an integer that can be seen, or None")


def is_held(array: Array, index: int | None) -> bool:
    """Whether an array of indices could hold one; what it cannot hold, it does not ignore."""
    kind = str(array.dtype).rpartition(".")[2]
    if index is None or not kind.startswith(("int", "uint")):
        return True
    limits = np.iinfo(kind)
    return bool(limits.min <= index <= limits.max)


def check_indices(call: Call, y: Array, ignore_index: int | None) -> None:
    """Refuse an index out of range, where it can be seen."""
    fits = is_class(y, call.length)
    seen = call.backend.look(fits)
    if seen is False and ignore_index is not None:
        fits = fits | (y == ignore_index)
        seen = call.backend.look(fits)
    if seen is False:
        ignored = "" if ignore_index is None else f", or {ignore_index} to be ignored"
        raise IndexError(
            f"{call.name}: y holds the index {call.backend.first_where(y, ~fits)}; of {call.length} classes it must "
            f"be at least 0 and below {call.length}{ignored}"
        )


def is_class(y: Array, length: int) -> Array:
    """Whether an index names a class."""
    return (y >= 0) & (y < length)


def index_hits(xp: Namespace, y: Array, length: int) -> Array:
    """True at each row's class."""
    return xp.arange(length) == y


def spared(targets: Targets, rows: Rows, y: Array) -> Rows:
    """The rows with zeros in ignored ones: what stands there, NaN perhaps, has no derivative either."""
    if not targets.is_index or targets.ignore_index is None:
        return rows
    return replace(rows, x=rows.xp.where(y == targets.ignore_index, 0.0, rows.x))


def smoothed(rows: Rows, y: Array, smoothing: float) -> Array:
    """(1 - eps) y + eps / (number of live entries) on these."""
    xp = rows.xp
    live = xp.astype(rows.is_live.entries, xp.working)
    share = xp.maximum(xp.sum(live, axis=-1, keepdims=True), 1.0)
    return (1.0 - smoothing) * y + smoothing * live / share


def spread_of(rows: Rows) -> Array:
    """What smoothing spreads of 1: nothing where no entry is live."""
    xp = rows.xp
    return xp.minimum(xp.sum(xp.astype(rows.is_live.entries, xp.working), axis=-1, keepdims=True), 1.0)


def read_under_mask(rows: Rows, y: Array) -> Array:
    """A distribution with 0 for NaN where a masked entry holds it, as padding may; masked ones get no derivative."""
    if rows.mask is None:
        return y
    return rows.xp.patch(~rows.mask & ((y == 0.0) | rows.xp.isnan(y)), 0.0, y)


def loss_rows(
    targets: Targets, solve: Callable[[Rows, Hyper], Solution], rows: Rows, hyper: Hyper, y: Array, weight: Array | None
) -> tuple[Array, Array]:
    """The Fenchel-Young loss of each row times its weight, and the weight."""
    xp, length = rows.xp, rows.x.shape[-1]
    solution = solve(spared(targets, rows, y), hyper)
    rows = solution.rows
    if not targets.is_index:
        y, eps, mass = read_under_mask(rows, xp.astype(y, xp.working)), targets.smoothing, solution.mass()
        missing = (1.0 - eps) * shortfall_of(xp, mass, y)
        missing = missing if eps == 0.0 else missing + eps * (mass - spread_of(rows))
        row_weight = xp.ones_like(rows.top) if weight is None else xp.sum(y * weight, axis=-1, keepdims=True)
        y = y if eps == 0.0 else smoothed(rows, y, eps)
        return weighted(xp, solution.loss(y, missing), row_weight), row_weight
    hit = index_hits(xp, y, length)
    if targets.smoothing == 0.0:
        loss = solution.loss_of_index(hit)
    else:
        whole = smoothed(rows, xp.astype(hit, xp.working), targets.smoothing)
        loss = solution.loss(whole, targets.smoothing * (1.0 - spread_of(rows)))
    return of_indices(targets, xp, y, length, loss, weight_of(xp, hit, weight, rows))


def cross_entropy_rows(
    targets: Targets, solve: Callable[[Rows, Hyper], Solution], rows: Rows, hyper: Hyper, y: Array, weight: Array | None
) -> tuple[Array, Array]:
    """-sum w y log p of each row, `solve` giving log p, and the weight of the row."""
    xp, length = rows.xp, rows.x.shape[-1]
    solution = solve(spared(targets, rows, y), hyper)
    rows, logs = solution.rows, solution.weights.entries
    hit = index_hits(xp, y, length) if targets.is_index else None
    y_rows = xp.astype(hit, xp.working) if hit is not None else read_under_mask(rows, xp.astype(y, xp.working))
    if targets.smoothing != 0.0:
        y_rows = smoothed(rows, y_rows, targets.smoothing)
    if weight is not None:
        y_rows = y_rows * weight
    used = y_rows != 0.0
    loss = -xp.sum(xp.where(used, y_rows * xp.where(used, logs, 0.0), 0.0), axis=-1, keepdims=True)
    loss = rows.settled_rows(loss, empty=0.0)
    if hit is None:
        return loss, xp.ones_like(loss)
    loss, row_weight = of_indices(targets, xp, y, length, loss, xp.ones_like(loss))
    return loss, row_weight * weight_of(xp, hit, weight, rows)


def weight_of(xp: Namespace, hit: Array, weight: Array | None, rows: Rows) -> Array:
    """w[y] of each row, 1 without class weights."""
    if weight is None:
        return xp.ones_like(rows.top)
    return xp.sum(xp.where(hit, weight, 0.0), axis=-1, keepdims=True)


def of_indices(
    targets: Targets, xp: Namespace, y: Array, length: int, loss: Array, row_weight: Array
) -> tuple[Array, Array]:
    """Ignored rows count for nothing; an index that is out of range and could not be looked at makes its row NaN."""
    ignored = y != y if targets.ignore_index is None else y == targets.ignore_index
    loss = weighted(xp, loss, row_weight)
    loss = xp.patch(~is_class(y, length) & ~ignored, xp.nan, loss)
    return xp.where(ignored, 0.0, loss), xp.where(ignored, 0.0, row_weight)


def weighted(xp: Namespace, loss: Array, row_weight: Number) -> Array:
    """loss * weight, 0 where the weight is 0 even if the loss is infinite, but not if it is NaN."""
    return xp.where((row_weight == 0.0) & (loss == xp.inf), 0.0, loss) * row_weight


def reduced_loss(call: Call, asked: Asked, rows_of: Callable[..., tuple[Array, Array]], reduction: str) -> Array:
    """Run a loss over all rows and reduce it with torch's divisors; a batch without a row that counts gives 0."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{call.name}: reduction={reduction!r} is not known; give one of {', '.join(REDUCTIONS)}")
    backend, targets = call.backend, asked.targets
    whole = backend.reduced_at_once(call, asked, reduction)
    if whole is not None:
        return whole
    working, said, solve = backend.working, targets.without_arrays(), asked.formula.solve
    kinds: list[tuple[Kind, Any]] = [("row", working), ("row", working)]

    def function(rows: Rows, hyper: Hyper, y: Array, weight: Array | None = None) -> tuple[Array, Array]:
        weight = None if weight is None else rows.xp.astype(weight, rows.xp.working)
        return rows_of(said, solve, rows, hyper, y, weight)

    losses, weights = backend.run(call, function, targets.operands, kinds, asked=asked)
    counted = None
    if targets.is_index and targets.ignore_index is not None:
        counted = targets.y != targets.ignore_index
    elif not targets.is_index or targets.weight is None:
        weights = None
    return backend.reduced(losses, weights, counted, call.dtype, reduction)
