"""The commonest losses of plain tensors: class indices against scores, by the kernel, with a way back for autograd.

The way back leads to a temperature, too, that is a tensor. As in quick.py, whatever this does not know for certain it
declines, and the call goes on as any other: then it is checked, and refused in words. No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, is_grad_enabled

from softplex.backends.torch.modes import PLAIN, is_batched, is_transformed
from softplex.backends.torch.quick import CAN_LOOK
from softplex.backends.torch.quick_learned import WIDE, as_number
from softplex.backends.torch.unseen import unseen
from softplex.core.formula import Formula
from softplex.core.targets import REDUCTIONS
from softplex.maps.softmax import softmax
from softplex.native.calls import loss_cut

Method = Callable[..., Any]

IGNORED = {"loss": None, "cross_entropy": -100}
"""What the methods ignore unless they are told otherwise."""

NARROW = (torch.float16, torch.bfloat16)


Numbers = Sequence[Tensor]
"""Parameters of the map that are tensors."""


class Known(NamedTuple):
    """A call but for its tensors: what the kernel is told, and who is asked where it declines."""

    cut: Any
    tell: Any
    """What the gradient in the scores says of the temperature."""
    axis: Any
    options: dict[str, Any]
    names: tuple[str, ...]
    """Of the parameters that are tensors."""
    ignored: int | None
    reduction: str
    plainly: tuple[Method, tuple[Any, ...], dict[str, Any]]
    """The method, and all arguments but the tensors."""

    def named(self, numbers: Numbers) -> dict[str, Tensor]:
        """The parameters that are tensors."""
        return dict(zip(self.names, numbers, strict=True))


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
    lose, tell = cut
    options = dict(given)
    axis = args[1] if len(args) == 2 else options.pop("dim" if "dim" in options else "axis", -1)
    where, reduction = options.pop("where", None), options.pop("reduction", "mean")
    ignored, weight = options.pop("ignore_index", IGNORED[name]), options.pop("weight", None)
    smoothing = options.pop("label_smoothing", 0.0)
    if weight is not None or type(smoothing) is not float or smoothing != 0.0 or reduction not in REDUCTIONS:
        return None

    # Tensors of the call are torch's to keep: what else remembered them would outlive checkpoints.
    numbers = {key: options.pop(key) for key, option in given.items() if type(option) in PLAIN and key in options}
    rest = {key: option for key, option in given.items() if key != "where" and key not in numbers}
    plainly = partial(method, owner), args[1:], rest
    known = Known(lose, tell, axis, options, tuple(numbers), ignored, reduction, plainly)
    if any(number.is_neg() for number in numbers.values()):
        return None
    if (x.requires_grad or numbers) and is_grad_enabled():
        if numbers and not are_told(x, options, numbers):
            return None
        followed: Tensor | None = follow(x, y, where, known, *numbers.values())
        return followed
    found = told(known, x, y, where, tuple(numbers.values()))
    return None if found is None else reduced(known, x, y, *found[:2])


def are_told(x: Tensor, options: dict[str, Any], numbers: dict[str, Tensor]) -> bool:
    """Whether kernels tell from the gradient in the scores what the parameters get: a temperature without a sink."""
    is_alone = "sink" not in numbers and options.get("sink") is None
    asking = [name for name, number in numbers.items() if number.requires_grad]
    return x.dtype in WIDE and (not asking or (asking == ["temperature"] and is_alone))


def told(
    known: Known,
    x: Tensor,
    y: Tensor,
    where: Any,
    numbers: Numbers,
    scale: float | Tensor | None = None,
    solved: Tensor | bool | None = None,
) -> Any:
    """What the kernel says: the rows' losses, how many count, and what was solved; or the gradient at a scale."""
    options = known.options | known.named(numbers) if numbers else known.options
    return known.cut(x, y, where, known.axis, options, known.ignored, scale, solved)


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
    def forward(ctx: Any, x: Tensor, y: Tensor, where: Any, known: Known, *numbers: Tensor) -> Tensor | None:
        """By the kernel."""
        found = told(known, x, y, where, numbers, solved=True)
        if found is None:
            return None
        losses, ctx.counted, solved = found
        ctx.save_for_backward(x, y, where, None if solved is None else torch.from_numpy(solved), *numbers)
        ctx.known = known
        return reduced(known, x, y, losses, ctx.counted)

    @staticmethod
    @unseen
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """By the kernel, or as any other loss goes back where that is to be differentiated."""
        x, y, where, solved, *numbers = ctx.saved_tensors
        known, wanted, found = ctx.known, (ctx.needs_input_grad[0], *ctx.needs_input_grad[4:]), None
        if not (is_grad_enabled() or is_transformed() or is_batched(g) or g.is_neg()):
            moved = told(known, x, y, where, numbers, scale_of(known, ctx.counted, g), solved)
            found = None if moved is None else to_all(known, wanted, x, moved, numbers)
        if found is None:
            found = by_usual_road(known, wanted, x, y, where, numbers, g)
        return found[0], None, None, None, *found[1:]


# What Function.apply does before this is for transforms, of which none is active here.
follow = super(torch.autograd.Function, Loss).apply


def scale_of(known: Known, counted: int, g: Tensor) -> float | Tensor:
    """What each row's gradient is multiplied with."""
    if known.reduction == "none":
        return g.to(torch.float64)
    return float(g) / (counted if known.reduction == "mean" and counted else 1)


def to_all(
    known: Known, wanted: tuple[bool, ...], x: Tensor, moved: Tensor, numbers: Numbers
) -> list[Tensor | None] | None:
    """The gradient in the scores, and what it says of a temperature; None where it is out of the dtype's range."""
    found: list[Tensor | None] = [moved if wanted[0] else None]
    for name, number, is_wanted in zip(known.names, numbers, wanted[1:], strict=True):
        rows = None
        if is_wanted:
            rows = known.tell(name, moved, None, x, known.axis, known.options | known.named(numbers))
            if rows is None or not np.isfinite(rows).all():
                return None
        found.append(None if rows is None else as_number(rows, number))
    return found


def by_usual_road(
    known: Known,
    wanted: tuple[bool, ...],
    x: Tensor,
    y: Tensor,
    where: Tensor | None,
    numbers: Numbers,
    g: Tensor,
) -> list[Tensor | None]:
    """The gradients in operations that can be differentiated."""
    is_followed = is_grad_enabled()
    tensors: Numbers = (x, *numbers)
    with torch.enable_grad():
        if not is_followed:
            tensors = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
        method, args, options = known.plainly
        options = options | known.named(tensors[1:]) | ({} if where is None else {"where": where})
        value = method(tensors[0], y, *args, **options)
        inputs = [tensor for tensor, is_wanted in zip(tensors, wanted, strict=True) if is_wanted]
        found = iter(torch.autograd.grad(value, inputs, g, create_graph=is_followed))
    return [next(found) if is_wanted else None for is_wanted in wanted]
