"""The commonest losses of plain tensors: class indices against scores, by the kernel, with a way back for autograd.

As in quick.py, whatever this does not know for certain it declines, and the call goes on as any other: then it is
checked, and refused in words. No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, is_grad_enabled

from softplex.backends.torch.modes import is_batched, is_transformed
from softplex.backends.torch.quick import CAN_LOOK
from softplex.backends.torch.unseen import unseen
from softplex.core.formula import Formula
from softplex.core.targets import REDUCTIONS
from softplex.maps.softmax import softmax
from softplex.native.calls import loss_cut

Method = Callable[..., Any]

IGNORED = {"loss": None, "cross_entropy": -100}
"""What the methods ignore unless they are told otherwise."""

NARROW = (torch.float16, torch.bfloat16)


class Known(NamedTuple):
    """A call but for its tensors: what the kernel is told, and who is asked where it declines."""

    cut: Any
    axis: Any
    options: dict[str, Any]
    ignored: int | None
    reduction: str
    plainly: tuple[Method, tuple[Any, ...], dict[str, Any]]
    """The method, and all arguments but the tensors."""


def cut_of(owner: Any, formula: Formula) -> Any:
    """The kernel of a loss, found once and kept beside its owner."""
    found = loss_cut(formula) if CAN_LOOK else None
    object.__setattr__(owner, "_loss_cut", found)
    return found


def loss(
    name: str, method: Method, owner: Any, x: Tensor, args: tuple[Any, ...], given: dict[str, Any]
) -> Tensor | None:
    """The loss by the kernel, or None. Spelled out, for it is what a small call's time goes into."""
    if not x.is_cpu or is_transformed() or x.is_neg():
        return None
    if not args or len(args) > 2 or (x.dtype in NARROW and torch.is_autocast_enabled("cpu")):
        return None
    y = args[0]
    if not isinstance(y, Tensor) or y.is_neg():
        return None
    try:
        cut = owner._loss_cut
    except AttributeError:
        cut = cut_of(owner, softmax.formula if name == "cross_entropy" else owner.formula)
    if cut is None:
        return None
    options = dict(given)
    axis = args[1] if len(args) == 2 else options.pop("dim" if "dim" in options else "axis", -1)
    where, reduction = options.pop("where", None), options.pop("reduction", "mean")
    ignored, weight = options.pop("ignore_index", IGNORED[name]), options.pop("weight", None)
    smoothing = options.pop("label_smoothing", 0.0)
    if weight is not None or type(smoothing) is not float or smoothing != 0.0 or reduction not in REDUCTIONS:
        return None

    # Tensors of the call are torch's to keep: what else remembered them would outlive checkpoints.
    plainly = partial(method, owner), args[1:], {key: value for key, value in given.items() if key != "where"}
    known = Known(cut, axis, options, ignored, reduction, plainly)
    if x.requires_grad and is_grad_enabled():
        followed: Tensor | None = follow(x, y, where, known)
        return followed
    found = told(known, x, y, where)
    return None if found is None else reduced(known, x, y, *found[:2])


def told(
    known: Known,
    x: Tensor,
    y: Tensor,
    where: Any,
    scale: float | Tensor | None = None,
    solved: Tensor | bool | None = None,
) -> Any:
    """What the kernel says: the rows' losses, how many count, and what was solved; or the gradient at a scale."""
    cut, axis, options, ignored = known[:4]
    return cut(x, y, where, axis, options, ignored, scale, solved)


def reduced(known: Known, x: Tensor, y: Tensor, losses: Any, counted: int) -> Tensor:
    """None, the sum or the mean, as NumPy adds up, to the bit."""
    if known.reduction == "none":
        return torch.from_numpy(losses).view(y.shape).to(x.dtype)
    with np.errstate(over="ignore") if x.dtype is torch.float64 else nullcontext():
        total = float(losses.sum())
    if known.reduction == "mean" and counted:
        total /= counted
    return torch.scalar_tensor(total, dtype=x.dtype, device=x.device)


class Loss(torch.autograd.Function):
    """A loss whose gradient is the kernel's, the scores being looked at once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, where: Any, known: Known) -> Tensor | None:
        """By the kernel."""
        found = told(known, x, y, where, solved=True)
        if found is None:
            return None
        losses, ctx.counted, solved = found
        ctx.save_for_backward(x, y, where, None if solved is None else torch.from_numpy(solved))
        ctx.known = known
        return reduced(known, x, y, losses, ctx.counted)

    @staticmethod
    @unseen
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None, None]:
        """By the kernel, or as any other loss goes back where that is to be differentiated."""
        x, y, where, solved = ctx.saved_tensors
        found = None
        if not (is_grad_enabled() or is_transformed() or is_batched(g) or g.is_neg()):
            found = gradient(ctx.known, ctx.counted, x, y, where, solved, g)
        return (by_usual_road(ctx.known, x, y, where, g) if found is None else found), None, None, None


# What Function.apply does before this is for transforms, of which none is active here.
follow = super(torch.autograd.Function, Loss).apply


def gradient(
    known: Known, counted: int, x: Tensor, y: Tensor, where: Tensor | None, solved: Tensor | None, g: Tensor
) -> Tensor | None:
    """The gradient of the loss times its cotangent, or None where the kernel declines."""
    scale: float | Tensor
    if known.reduction == "none":
        scale = g.to(torch.float64)
    else:
        scale = float(g) / (counted if known.reduction == "mean" and counted else 1)
    found: Tensor | None = told(known, x, y, where, scale, solved)
    return found


def by_usual_road(known: Known, x: Tensor, y: Tensor, where: Tensor | None, g: Tensor) -> Tensor:
    """The gradient in operations that can be differentiated."""
    is_followed = is_grad_enabled()
    with torch.enable_grad():
        given = x if is_followed else x.detach().requires_grad_()
        method, args, options = known.plainly
        value = method(given, y, *args, **options, **({} if where is None else {"where": where}))
        (found,) = torch.autograd.grad(value, given, g, create_graph=is_followed)
    return found
