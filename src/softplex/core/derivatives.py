"""What a backward pass asks for: cotangents of scores and parameters, also under a loss. No map is named here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from softplex.core.arrays import Array
from softplex.core.call import Asked, Call, Kind
from softplex.core.formula import Formula, Hyper, Solution
from softplex.core.rows import Rows
from softplex.core.targets import Targets, index_hits, is_class, read_under_mask, smoothed, spared, weight_of


def pulled_back(call: Call, formula: Any, g: Array, names: Sequence[str]) -> tuple[Array, ...]:
    """g^T J for the scores ("x": shape of x) and for parameters (each of the shape that it was given in)."""
    if not isinstance(formula, Formula):
        return (formula.pulled_back(call, g),)

    def function(rows: Rows, hyper: Hyper, g: Array) -> tuple[Array, ...]:
        found = formula.solve(rows, hyper).vjp(rows.xp.astype(g, rows.xp.working), tuple(names))
        return tuple(found[name] for name in names)

    kinds: list[Any] = [("entries", call.dtype) if n == "x" else ("row", call.backend.working) for n in names]
    asked = Asked("vjp", formula, names=tuple(names))
    found = call.backend.run(call, function, [("entries", g)], kinds, asked=asked)
    return tuple(
        result if name == "x" else call.backend.sum_to(result, call, call.given[name])
        for name, result in zip(names, found, strict=True)
    )


def pushed_forward(call: Call, formula: Formula, t: Array) -> Array:
    """J t, shape of x."""

    def function(rows: Rows, hyper: Hyper, t: Array) -> tuple[Array]:
        return (formula.solve(rows, hyper).jvp(rows.xp.astype(t, rows.xp.working)),)

    kinds: list[tuple[Kind, Any]] = [("entries", call.dtype)]
    return call.backend.run(call, function, [("entries", t)], kinds, asked=Asked("jvp", formula))[0]


def gradient_of_maximum(call: Call, formula: Formula, g: Array) -> Array:
    """The weights times g, one number a row: they are the gradient of the smooth maximum of the scores."""

    def function(rows: Rows, hyper: Hyper, g: Array) -> tuple[Array]:
        solution = formula.solve(rows, hyper)
        return (solution.rows.sign * solution.value() * rows.xp.astype(g, rows.xp.working),)

    kinds: list[tuple[Kind, Any]] = [("entries", call.dtype)]
    return call.backend.run(call, function, [("row", g)], kinds)[0]


def gradient_of_loss(call: Call, asked: Asked, scale: Array) -> Array:
    """The gradient in the scores of sum_r scale_r loss_r, the rows' losses being those of core/targets.py."""
    targets = asked.targets
    kinds: list[tuple[Kind, Any]] = [("entries", call.dtype)]
    operands: list[tuple[Kind, Array]] = [*targets.operands, ("row", scale)]
    word = Asked("gradient", asked.formula, targets)
    return call.backend.run(call, gradient_function(asked), operands, kinds, asked=word)[0]


def gradient_function(asked: Asked) -> Callable[..., tuple[Array]]:
    """That gradient as a function of rows, of the targets' arrays and of the scales."""
    formula, said = asked.formula, asked.targets.without_arrays()
    is_crossed = formula.kind == "logarithm"

    def function(rows: Rows, hyper: Hyper, y: Array, *rest: Array) -> tuple[Array]:
        xp = rows.xp
        *weight, scale = [xp.astype(one, xp.working) for one in rest]
        solution = formula.solve(spared(said, rows, y), hyper)
        found = loss_gradient(solution, said, is_crossed, y, weight[0] if weight else None)
        sign = solution.rows.sign
        return (xp.where(scale == 0.0, 0.0, found * (sign * scale / rows.temperature)),)

    return function


def loss_gradient(solution: Solution, targets: Targets, is_crossed: bool, y: Array, weight: Array | None) -> Array:
    """The gradient of each row's loss, times its weight, in the scores that the map sees."""
    rows, xp = solution.rows, solution.rows.xp
    length = rows.x.shape[-1]
    hit = index_hits(xp, y, length) if targets.is_index else None
    if hit is None:
        y_rows = read_under_mask(rows, xp.astype(y, xp.working))
    elif targets.smoothing == 0.0:
        found = solution.residual_of_index(hit) * weight_of(xp, hit, weight, rows)
        return of_classes(targets, xp, y, length, found)
    else:
        y_rows = xp.astype(hit, xp.working)
    y_given = y_rows
    if targets.smoothing != 0.0:
        y_rows = smoothed(rows, y_rows, targets.smoothing)
    if is_crossed:
        found = solution.residual(y_rows if weight is None else y_rows * weight)
    elif hit is not None:
        found = solution.residual(y_rows) * weight_of(xp, hit, weight, rows)
    else:
        found = solution.residual(y_rows)
        return found if weight is None else found * xp.sum(y_given * weight, axis=-1, keepdims=True)
    return found if hit is None else of_classes(targets, xp, y, length, found)


def of_classes(targets: Targets, xp: Any, y: Array, length: int, found: Array) -> Array:
    """Ignored rows have no gradient; an index that is out of range and could not be looked at makes its row NaN."""
    ignored = y != y if targets.ignore_index is None else y == targets.ignore_index
    return xp.where(ignored, 0.0, xp.patch(~is_class(y, length) & ~ignored, xp.nan, found))
