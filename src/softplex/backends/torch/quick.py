"""The commonest calls on plain tensors: the kernel looks at them itself, autograd gets a node that keeps the weights.

Whatever this does not know for certain it declines, and the call goes on as any other. No formula lives here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, empty_like, get_num_threads, is_grad_enabled

from softplex.backends.torch import quick_learned
from softplex.backends.torch.modes import PLAIN, is_batched, is_transformed
from softplex.backends.torch.unseen import unseen
from softplex.core.arrays import Terms, each
from softplex.core.rows import Rows
from softplex.native.calls import know_tensors, tensor_cut


def room_like(x: Tensor) -> Tensor:
    """What empty_like gives, in NumPy's memory, which asks the system for huge pages: no fault every 4 KiB."""
    room = torch.from_numpy(np.empty(x.nbytes, np.uint8)).untyped_storage()
    # No view of another tensor, for one that autograd follows may not be changed in place.
    made = torch.empty(0, dtype=x.dtype, device="cpu")
    return made.set_(room, 0, x.shape, empty_like(x, device="meta").stride())


CAN_LOOK = know_tensors(tuple(PLAIN), empty_like, room_like, get_num_threads)
"""Else nothing is computed here."""


@dataclass(frozen=True)
class Cut:
    """A map's kernel for tensors."""

    run: Any
    tell: Any
    """What cotangents say of the parameters."""
    keeps_sinks: bool
    """Whether the weights say all that the way back needs, a sink among the competitors."""
    formula: Any


Known = tuple[Cut, int, dict[str, Any]]
"""A map's kernel, the axis and the other options."""


def cut_of(owner: Any) -> Cut | None:
    """The kernel of a map, found once and kept beside the map."""
    formula = getattr(owner, "formula", None)
    found = None if formula is None or not CAN_LOOK else tensor_cut(formula)
    cut = None if found is None else Cut(*found, formula)
    object.__setattr__(owner, "_cut", cut)
    return cut


def value(owner: Any, x: Tensor, args: tuple[Any, ...], given: dict[str, Any]) -> Tensor | None:
    """The weights by the kernel, or None. Spelled out, for it is what a small call's time goes into."""
    if is_transformed() or x.is_neg():
        return None
    try:
        cut = owner._cut
    except AttributeError:
        cut = cut_of(owner)
    if cut is None or len(args) > 1:
        return None
    axis, where, options = args[0] if args else -1, None, given
    if given:
        options = dict(given)
        if "dim" in options:
            if args:
                return None
            axis = options.pop("dim")
        if options:
            where = options.pop("where", None)
            numbers = {name: number for name, number in options.items() if type(number) in PLAIN}
            if numbers:
                return quick_learned.value(owner, cut, x, where, axis, options, numbers)
    if x.requires_grad and is_grad_enabled():
        if not x.is_cpu or (options.get("sink") is not None and not cut.keeps_sinks):
            return None
        followed: Tensor | None = follow(x, where, (cut, axis, options))
        return followed
    found: Tensor | None = cut.run("value", x, None, where, axis, options)
    return found


class Weights(torch.autograd.Function):
    """The weights, which are all that the way back needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Any, known: Known) -> Tensor | None:
        """By the kernel."""
        cut, axis, options = known
        p: Tensor | None = cut.run("value", x, None, where, axis, options)
        if p is not None:
            ctx.save_for_backward(p)
            ctx.known = known
        return p

    @staticmethod
    @unseen
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None]:
        """By the kernel, or by the formula where the way back is to be differentiated."""
        (p,) = ctx.saved_tensors
        cut, axis, options = ctx.known
        found = None
        if not (is_grad_enabled() or is_transformed() or is_batched(g) or g.is_neg()):
            found = cut.run("backward", p, g, None, axis, options)
        return (by_formula(ctx.known, p, g) if found is None else found), None, None


# What Function.apply does before this is for transforms, of which none is active here.
follow = super(torch.autograd.Function, Weights).apply


def by_formula(known: Known, p: Tensor, g: Tensor) -> Tensor:
    """g^T J from the weights, in operations that can be differentiated."""
    from softplex.backends.torch.backend import backend_on

    cut, axis, options = known
    backend = backend_on(p.device, False)
    xp, names = backend.xp, [parameter.name for parameter in cut.formula.parameters]
    hyper = {parameter.name: parameter.default for parameter in cut.formula.parameters}
    hyper |= {name: float(options[name]) for name in names if name in options}
    weights, g = [xp.astype(xp.moveaxis(one, axis, -1), xp.working) for one in (p, g)]
    rows = Rows(xp, weights, temperature=float(options.get("temperature", 1.0)))
    solution = cut.formula.recalled(rows, hyper, Terms(weights))
    is_live = weights != solution.absent
    terms = Terms(xp.where(is_live, g, 0.0))
    if options.get("sink") is not None:
        rest = xp.clip(1.0 - xp.sum(weights, axis=-1, keepdims=True), 0.0, 1.0)
        solution = cut.formula.recalled(rows, hyper, Terms(weights, rest))
        terms = Terms(terms.entries, xp.zeros_like(rest))
    moved = each(lambda c: c * (solution.rows.sign / rows.temperature), solution.cotangent(terms)).entries
    moved = xp.where(xp.isnan(weights), xp.nan, xp.where(is_live, moved, 0.0))
    result: Tensor = xp.moveaxis(xp.astype(moved, p.dtype), -1, axis)
    return result
