"""The commonest calls whose temperature, sink or alpha is a tensor: the kernel looks at it, the way back leads to it.

As in quick.py, whatever this does not know for certain it declines, and the call goes on as any other. No formula lives
here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, is_grad_enabled

from softplex.backends.numpy import NDArray, added_up
from softplex.backends.torch.modes import is_batched, is_transformed
from softplex.backends.torch.unseen import unseen
from softplex.core.map import Map

if TYPE_CHECKING:
    from softplex.backends.torch.quick import Cut

WIDE = (torch.float32, torch.float64)
"""What the sums over rows that parameters get are taken of."""


class Known(NamedTuple):
    """A call but for its tensors."""

    owner: Any
    cut: Cut
    axis: Any
    options: dict[str, Any]
    names: tuple[str, ...]
    """Of the parameters that are tensors."""

    def told(self, numbers: tuple[Tensor, ...]) -> dict[str, Any]:
        """All options, the tensors among them."""
        return self.options | dict(zip(self.names, numbers, strict=True))


def value(
    owner: Any, cut: Cut, x: Tensor, where: Any, axis: Any, options: dict[str, Any], numbers: dict[str, Tensor]
) -> Tensor | None:
    """The weights by the kernel, or None; `numbers` are those of the options that are tensors."""
    if any(number.is_neg() for number in numbers.values()):
        return None
    if not (is_grad_enabled() and (x.requires_grad or any(number.requires_grad for number in numbers.values()))):
        found: Tensor | None = cut.run("value", x, None, where, axis, options)
        return found
    if not x.is_cpu or x.dtype not in WIDE or not (cut.keeps_sinks or options.get("sink") is None):
        return None
    rest = {name: option for name, option in options.items() if name not in numbers}
    known = Known(owner, cut, axis, rest, tuple(numbers))
    followed: Tensor | None = follow(x, where, known, *numbers.values())
    return followed


class Learned(torch.autograd.Function):
    """The weights, which with the scores are all that the way back to parameters needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Any, known: Known, *numbers: Tensor) -> Tensor | None:
        """By the kernel."""
        p: Tensor | None = known.cut.run("value", x, None, where, known.axis, known.told(numbers))
        if p is not None:
            ctx.save_for_backward(x, where, p, *numbers)
            ctx.known = known
        return p

    @staticmethod
    @unseen
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """By the kernel, or as any other call goes back where that is to be differentiated."""
        x, where, p, *numbers = ctx.saved_tensors
        known, wanted = ctx.known, (ctx.needs_input_grad[0], *ctx.needs_input_grad[3:])
        found = None
        if not (is_grad_enabled() or is_transformed() or is_batched(g) or g.is_neg()):
            found = by_kernel(known, wanted, x, p, tuple(numbers), g)
        if found is None:
            found = by_usual_road(known, wanted, x, where, tuple(numbers), g)
        return found[0], None, None, *found[1:]


# What Function.apply does before this is for transforms, of which none is active here.
follow = super(torch.autograd.Function, Learned).apply


def by_kernel(
    known: Known, wanted: tuple[bool, ...], x: Tensor, p: Tensor, numbers: tuple[Tensor, ...], g: Tensor
) -> list[Tensor | None] | None:
    """The cotangents of the scores and of each number, None where none is wanted; None where the kernel declines."""
    _, cut, axis, _, names = known
    options = known.told(numbers)
    found: list[Tensor | None] = [None]
    if wanted[0]:
        found = [cut.run("backward", p, g, None, axis, options)]
        if found[0] is None:
            return None
    for name, number, is_wanted in zip(names, numbers, wanted[1:], strict=True):
        rows = cut.tell(name, p, g, x, axis, options) if is_wanted else None
        if is_wanted and rows is None:
            return None
        found.append(None if rows is None else as_number(rows, number))
    return found


def as_number(rows: NDArray, like: Tensor) -> Tensor:
    """The sum over all rows that share a number, in its shape and dtype."""
    return torch.from_numpy(added_up(rows, tuple(like.shape))).to(like.dtype)


def by_usual_road(
    known: Known, wanted: tuple[bool, ...], x: Tensor, where: Tensor | None, numbers: tuple[Tensor, ...], g: Tensor
) -> list[Tensor | None]:
    """The same in operations that can be differentiated."""
    is_followed = is_grad_enabled()
    tensors = (x, *numbers)
    with torch.enable_grad():
        if not is_followed:
            tensors = tuple([t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)])
        p = Map._call(known.owner, tensors[0], known.axis, where=where, **known.told(tensors[1:]))
        inputs = [tensor for tensor, is_wanted in zip(tensors, wanted, strict=True) if is_wanted]
        found = iter(torch.autograd.grad(p, inputs, g, create_graph=is_followed, allow_unused=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]
