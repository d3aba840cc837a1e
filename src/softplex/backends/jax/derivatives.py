"""How the primitive is differentiated: its tangents, and the transposes of those that are linear.

A tangent follows from the weights, which are the primitive's own result and so have derivatives in turn: exact to every
order, in both directions. The rule itself stands in core/; no map is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad

from softplex.backends.jax.functions import Loops
from softplex.backends.jax.primitive import PROGRAMS, bind, softplex_p
from softplex.backends.jax.work import Results, Work, functions_for, plain_namespace
from softplex.core.arrays import Array, Terms, each
from softplex.core.call import Asked, Kind
from softplex.core.derivatives import gradient_function
from softplex.core.follow import FollowedRows, Following
from softplex.core.formula import Formula, Hyper, Solution
from softplex.core.rows import Rows

__all__ = ["bind"]  # with its derivatives

Moving = dict[int, Array]
"""The tangents that are not 0, by place."""

LOSSES = ("loss", "cross_entropy")
LINEAR = {
    "push": "pull",
    "pull": "push",
    "loss_push": "gradient",
    "gradient": "loss_push",
    "take": "send",
    "send": "take",
}
"""What is linear in its last operand, and the method that is its transpose."""


class FollowingNamespace(Loops, Following):
    """For what JAX differentiates: weights come from the primitive, which knows their derivatives."""

    uses_kernels = True

    def followed(self, formula: Formula, rows: FollowedRows, hyper: Hyper) -> Solution:
        """The weights of the rows with derivatives."""
        work, arrays = weights_of(formula, rows, hyper)
        work = replace(work, uses_kernels=self.uses_kernels)
        found = bind(work, *arrays)
        return formula.recalled(rows, hyper, terms_of(found))


@lru_cache
def following(working: Any, uses_kernels: bool) -> FollowingNamespace:
    """The namespace of a working precision."""
    namespace = FollowingNamespace(functions_for(working), working=working)
    namespace.plain = plain_namespace(working)
    namespace.uses_kernels = uses_kernels
    return namespace


def terms_of(found: Sequence[Array]) -> Terms:
    """The weights of the entries, and of the sink if there is one."""
    return Terms(found[0], found[1][..., None] if len(found) > 1 else None)


def weights_of(formula: Formula, rows: Rows, hyper: Hyper) -> tuple[Work, list[Array]]:
    """The weights of rows as a work on their signed scores, masked ones being -inf."""
    raw, working = rows.signed, rows.xp.working
    arrays = {"x": raw.entries}
    fixed = []
    for name, value in {"sink": raw.sink, "temperature": rows.temperature, **hyper}.items():
        if isinstance(value, float):
            fixed.append((name, value))
        elif value is not None:
            arrays[name] = jnp.reshape(value, (1,) * (raw.entries.ndim - value.ndim) + tuple(value.shape))
    kinds: list[tuple[Kind, Any]] = [("entries", working)]
    if raw.sink is not None:
        kinds.append(("row", working))
    is_narrow = rows.is_narrow

    def function(rows: Rows, hyper: Hyper) -> tuple[Array, ...]:
        weights = formula.solution(replace(rows, is_narrow=is_narrow), hyper).weights
        return (weights.entries,) if weights.sink is None else (weights.entries, weights.sink)

    work = Work(
        Asked("weights", formula),
        (raw.entries.ndim - 1,),
        raw.entries.ndim,
        working,
        tuple(kinds),
        function,
        arrays=tuple(arrays),
        fixed=tuple(fixed),
        working=working,
        is_narrow=is_narrow,
    )
    return work, list(arrays.values())


def tangents_of_weights(work: Work, arrays: Sequence[Array], found: Sequence[Array], moving: Moving) -> list[Array]:
    """The one rule: J dz, and what the hyper-parameters add."""
    xp = following(work.working, work.uses_kernels)
    names = work.arrays
    formula = work.asked.formula

    def rows_of(arrays: Sequence[Array]) -> FollowedRows:
        known, _ = work.known(arrays)
        rows = Rows(
            xp,
            known["x"],
            sink=known.get("sink"),
            temperature=known["temperature"],
            is_narrow=work.is_narrow,
        )
        still = replace(
            rows, xp=xp.plain, x=xp.detach(rows.x), sink=xp.still(rows.sink), temperature=xp.still(rows.temperature)
        )
        return FollowedRows.of(rows, still)

    full = [moving.get(place, jnp.zeros_like(array)) for place, array in enumerate(arrays)]
    seen = [place for place, name in enumerate(names) if name in ("x", "sink", "temperature")]

    def moves(*some: Array) -> Terms:
        return rows_of([dict(zip(seen, some, strict=True)).get(place, a) for place, a in enumerate(arrays)]).moves

    known, _ = work.known(arrays)
    hyper = {parameter.name: known[parameter.name] for parameter in formula.parameters}
    solution = formula.recalled(rows_of(arrays), hyper, terms_of(found))
    tangent = None
    if any(place in moving for place in seen):
        _, moved = jax.jvp(moves, tuple(arrays[p] for p in seen), tuple(full[p] for p in seen))
        tangent = solution.tangent(moved)
    for place, name in enumerate(names):
        if name in hyper and place in moving:
            step = xp.where(xp.isfinite(arrays[place]), full[place], 0.0)
            rate = each(lambda rate, step=step: rate * step, solution.parameter_tangent(name))
            tangent = rate if tangent is None else each(lambda a, b: a + b, tangent, rate)
    assert tangent is not None
    return [tangent.entries] if tangent.sink is None else [tangent.entries, tangent.sink[..., 0]]


def tangents_by_formulas(work: Work, arrays: Sequence[Array], found: Sequence[Array], moving: Moving) -> list[Array]:
    """Those of the formulas, whose weights have tangents of their own."""
    places = tuple(moving)

    def followed(*some: Array) -> list[Array]:
        moved = dict(zip(places, some, strict=True))
        merged = [moved.get(place, array) for place, array in enumerate(arrays)]
        return work.by_formulas(*merged, following=following(work.working, work.uses_kernels))

    _, tangents = jax.jvp(followed, tuple(arrays[p] for p in places), tuple(moving[p] for p in places))
    return list(tangents)


@lru_cache(maxsize=PROGRAMS)
def program(work: Work, places: tuple[int, ...]) -> Callable[..., list[Array]]:
    """Tangents by the formulas, compiled also where the caller compiles nothing."""
    rule = tangents_of_weights if work.asked.method == "weights" else tangents_by_formulas

    def tangents(arrays: Sequence[Array], found: Sequence[Array], moved: Sequence[Array]) -> list[Array]:
        return rule(work, arrays, found, dict(zip(places, moved, strict=True)))

    return jax.jit(tangents)


def tangents_by_program(work: Work, arrays: Sequence[Array], found: Sequence[Array], moving: Moving) -> list[Array]:
    """Those of a program for any numbers, whose places are between the call's arrays and the operands."""
    free, given = work.with_free_numbers(arrays)
    more = len(given) - len(arrays)
    places = tuple([at if at < len(work.arrays) else at + more for at in moving])
    return program(free, places)(given, found, tuple(moving.values()))


def linear_tangents(work: Work, arrays: Sequence[Array], found: Sequence[Array], moving: Moving) -> list[Any] | None:
    """Those that one linear method gives: of what is linear, of weights and losses where only the scores move."""
    asked, places, last = work.asked, tuple(moving), len(arrays) - 1
    if asked.method in LINEAR and places == (last,):
        return bind(work, *arrays[:-1], moving[last])
    if not isinstance(asked.formula, Formula):
        return selected_tangents(work, arrays, moving)
    if places != (0,):
        return None
    if asked.method in LOSSES:
        pushed = bind(loss_push(work), *arrays, moving[0])
        return [pushed[0], None]
    has_sink = "sink" in work.arrays or "sink" in dict(work.fixed)
    if asked.method != "value" or asked.formula.kind == "mixture" or has_sink:
        return None
    kept = [array for name, array in zip(work.arrays, arrays, strict=True) if is_rate(name)]
    return bind(push(work), known_weights(work, arrays, found[0]), *kept, moving[0])


def known_weights(work: Work, arrays: Sequence[Array], p: Array) -> Array:
    """The weights as the way back reads them: a logarithm that overflowed is not one of an entry that takes no part."""
    is_warm = "temperature" in work.arrays or dict(work.fixed).get("temperature", 1.0) != 1.0
    if work.asked.formula.kind != "logarithm" or not (is_warm or work.dtype == np.float16):
        return p
    takes_part = jnp.isfinite(arrays[0])
    if "where" in work.arrays:
        takes_part = takes_part & arrays[work.arrays.index("where")]
    return jnp.where(jnp.isneginf(p) & takes_part, jnp.finfo(work.dtype).min, p)


def is_rate(name: str) -> bool:
    """Whether the derivatives at known weights depend on an argument."""
    return name not in ("x", "where", "sink", "invalid")


def push(work: Work) -> Work:
    """J t from the weights that a value gave."""
    return replace(
        work,
        asked=Asked("push", work.asked.formula),
        arrays=("x", *[name for name in work.arrays if is_rate(name)]),
        operands=("entries",),
        function=from_weights(work.asked.formula, "push"),
    )


def from_weights(formula: Formula, method: str) -> Callable[..., tuple[Array, ...]]:
    """J t or g^T J where the scores that come are the weights: what weighs nothing neither moves nor is read."""
    absent = -np.inf if formula.kind == "logarithm" else 0.0

    def function(rows: Rows, hyper: Hyper, t: Array) -> tuple[Array]:
        xp, p = rows.xp, rows.x
        scores = xp.where(xp.isnan(p), xp.nan, xp.zeros_like(p))
        solution = formula.recalled(replace(rows, x=scores, mask=p != absent), hyper, Terms(p))
        t = xp.astype(t, xp.working)
        return (solution.jvp(t) if method == "push" else solution.vjp(t, ("x",))["x"],)

    return function


def loss_push(work: Work) -> Work:
    """The rows' tangents of a loss whose scores move."""
    gradient = gradient_function(work.asked)

    def function(rows: Rows, hyper: Hyper, y: Array, *rest: Array) -> tuple[Array]:
        xp = rows.xp
        *weight, t = rest
        found = gradient(rows, hyper, y, *weight, xp.zero_column(rows.x) + 1.0)[0]
        products = xp.where(found == 0.0, 0.0, found * xp.astype(t, xp.working))
        return (xp.sum(products, axis=-1, keepdims=True),)

    return replace(
        work,
        asked=replace(work.asked, method="loss_push"),
        operands=(*work.operands, "entries"),
        results=work.results[:1],
        function=function,
    )


def selected_tangents(work: Work, arrays: Sequence[Array], moving: Moving) -> list[Any]:
    """Those of a selection, which is linear in what is selected and does not change with the scores."""
    if work.asked.method in LINEAR:
        last = len(arrays) - 1
        return bind(work, *arrays[:-1], moving[last]) if last in moving else [None]
    if work.asked.method != "value":
        return [None]
    return bind(selection(work, "take"), arrays[0], moving[0])


def selection(work: Work, method: str) -> Work:
    """The values that winners have, or what goes to them."""
    takes = method == "take"
    ways: tuple[Kind, Kind] = ("entries", "row") if takes else ("row", "entries")
    return replace(
        work,
        asked=Asked(method, work.asked.formula),
        operands=ways[:1],
        results=((ways[1], work.dtype),),
        function=work.asked.formula.take if takes else work.asked.formula.send,
    )


def transpose_of(work: Work) -> Work:
    """The work that is the transpose of another in its last operand."""
    formula, method = work.asked.formula, LINEAR[work.asked.method]
    if method in ("push", "pull"):
        return replace(work, asked=Asked(method, formula), function=from_weights(formula, method))
    if method in ("take", "send"):
        return selection(work, method)
    if method == "gradient":
        return replace(
            work,
            asked=replace(work.asked, method="gradient"),
            operands=(*work.operands[:-1], "row"),
            results=(("entries", work.dtype),),
            function=gradient_function(work.asked),
        )
    method = "loss" if formula.kind == "simplex" else "cross_entropy"
    row: Results = (("row", work.working),)
    return loss_push(replace(work, asked=replace(work.asked, method=method), operands=work.operands[:-1], results=row))


def _tangents(arrays: Sequence[Array], tangents: Sequence[Any], *, work: Work) -> tuple[list[Array], list[Any]]:
    """The results and their tangents."""
    found = bind(work, *arrays)
    moving = {place: t for place, t in enumerate(tangents) if not isinstance(t, ad.Zero)}
    nothing: list[Any] = [ad.Zero(jax.typeof(one).to_tangent_aval()) for one in found]
    if not jnp.issubdtype(found[0].dtype, jnp.inexact):
        return found, nothing
    moved: list[Any] | None = linear_tangents(work, arrays, found, moving)
    if moved is None:
        moved = tangents_by_program(work, arrays, found, moving)
    return found, [none if one is None else one for one, none in zip(moved, nothing, strict=True)]


ad.primitive_jvps[softplex_p] = _tangents


def _transposed(cotangents: Sequence[Any], *arrays: Any, work: Work) -> list[Any]:
    """The cotangent of what a work is linear in."""
    nothing = [None] * (len(arrays) - 1)
    if work.asked.method not in LINEAR:
        raise NotImplementedError(
            f"{work.name}: jax.linear_transpose of {work.asked.method} is not there; take jax.vjp, or the map's own vjp"
        )
    if isinstance(cotangents[0], ad.Zero):
        return [*nothing, ad.Zero(arrays[-1].aval)]
    return [*nothing, bind(transpose_of(work), *arrays[:-1], cotangents[0])[0]]


ad.primitive_transposes[softplex_p] = _transposed
