"""The loss of a linear layer's scores without the matrix of scores: in chunks of rows, gradients with them.

What the loss of a chunk and its gradient are, the map says; here is only what goes round them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from softplex.backends.torch.modes import transforms_are_active
from softplex.core.map import Map
from softplex.core.targets import REDUCTIONS
from softplex.maps import softmax
from softplex.torch.activations import a_map
from softplex.torch.precision import cast_dtype, uncast

CHUNK_BYTES = 64 * 2**20
"""What the scores of a chunk take at most."""

NO_SECOND = (
    "linear_loss has no second derivative: it forgets the scores. For one, take the loss of the scores themselves: "
    "map.loss(hidden @ weight.T, y)"
)


class Plan(NamedTuple):
    """What does not change from chunk to chunk."""

    map: Map
    options: dict[str, Any]
    """Keywords of the map's loss."""
    rows: int
    """In a chunk."""
    compute: torch.dtype
    """Of the product; autocast's if that is on."""
    result: torch.dtype
    """Of the rows' losses and of their sum."""
    needs_grad: bool


def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    y: Tensor,
    map: Map = softmax,
    *,
    bias: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """The Fenchel-Young loss of hidden @ weight.T + bias, which is never held as a whole.

        loss = map.loss(hidden @ weight.T + bias, y)

    The rows go through in chunks. With reduction "mean" or "sum" the gradients are made with the loss, chunk by
    chunk, and
    kept instead of scores: memory is a chunk and one gradient each of hidden, weight and bias. With "none" backward
    computes the scores of each chunk again.

    Arguments:
        hidden: (..., D), any floating dtype.
        weight: (V, D), a row a class, as in torch.nn.Linear.
        y: class indices (integers, (...)) or distributions (floating, (..., V)).
        map: any map with a loss, bound ones too; with softmax this is cross-entropy.
        bias: (V,).
        reduction: "mean" (over the weights of the rows' classes; over the rows for distributions), "sum" or "none".
        ignore_index: a class index whose rows count for nothing; torch's cross-entropy has -100.
        class_weight: one number a class, (V,).
        label_smoothing: the part of each target that is spread evenly over the classes.
        temperature: a positive and finite number.
        chunk: rows at a time; by default as many as have 64 MiB of scores.

    Returns:
        A 0-d tensor, or with "none" one of the shape (...), in the dtype of the product; float32 under autocast, as
        torch's cross-entropy. Differentiable once in hidden, weight and bias. The products of 16-bit tensors are
        taken as torch takes them; losses and gradients of weight and bias are summed in float32. If no row counts,
        the mean is 0.

    Raises:
        IndexError: for a class index out of range.
        ValueError: for shapes that do not fit, a reduction that is not known, a chunk below 1.
        TypeError: for a map without a loss.
        RuntimeError: for a second derivative.

    Example:
        >>> import torch, softplex as sx
        >>> from softplex.torch import linear_loss
        >>> hidden, weight = torch.eye(3), 2 * torch.eye(4, 3)
        >>> linear_loss(hidden, weight, torch.tensor([0, 1, 3]), sx.sparsemax)
        tensor(0.6667)

    Source: the loss from Blondel, Martins & Niculae 2020, arXiv:1901.02324; the chunks from Wijmans et al. 2024, Cut
    Your Losses in Large-Vocabulary Language Models, arXiv:2411.09009.
    """
    check(hidden, weight, bias, y, map, reduction, chunk)
    refuse_other_gradients({"y": y, "class_weight": class_weight, "temperature": temperature})
    device, classes = hidden.device.type, weight.shape[0]
    cast = cast_dtype(device)
    is_autocast = cast is not None
    compute = hidden.dtype if cast is None or hidden.dtype == torch.float64 else cast
    result = torch.promote_types(compute, torch.float32)
    rows = chunk or max(1, CHUNK_BYTES // (result.itemsize * max(1, classes)))
    options = {
        "ignore_index": ignore_index,
        "weight": class_weight,
        "label_smoothing": label_smoothing,
        "temperature": temperature,
        "dtype": result,
    }
    plan = Plan(map, options, rows, compute, result, torch.is_grad_enabled())
    flat = hidden.reshape(-1, hidden.shape[-1])
    y = y.reshape(-1, classes) if y.is_floating_point() else y.reshape(-1)
    losses: Tensor
    with uncast(device):
        share = share_of_row(y, ignore_index, class_weight, result) if reduction == "mean" else None
        # Compilers do not take a forward that differentiates; there all reductions go by way of the rows.
        if reduction == "none" or torch.compiler.is_compiling():
            losses = applied(RowLosses, flat, weight, bias, y, plan).reshape(hidden.shape[:-1])
            losses = losses if reduction == "none" else losses.sum()
            losses = losses if share is None else losses * share
        else:
            losses = applied(ReducedLoss, flat, weight, bias, y, plan, share)
    return losses if is_autocast else losses.to(compute)


def refuse_other_gradients(values: dict[str, Any]) -> None:
    """Gradients go to hidden, weight and bias alone; torch.func is not served."""
    if transforms_are_active():
        raise RuntimeError(
            "linear_loss: transforms of torch.func cannot follow it chunk by chunk; take "
            "map.loss(torch.nn.functional.linear(hidden, weight, bias), y) there"
        )
    for name, value in values.items():
        if torch.is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad:
            raise TypeError(
                f"linear_loss: {name} asks for a gradient, which only hidden, weight and bias get; detach it, or take "
                "map.loss(torch.nn.functional.linear(hidden, weight, bias), y)"
            )


def check(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, map: Map, reduction: str, chunk: int | None
) -> None:
    """Refuse what does not fit together; the map's loss checks the rest."""
    if a_map(map, "linear_loss").formula.kind != "simplex":
        raise TypeError(f"linear_loss: {map.name} has no loss; give a map of weights, such as softplex.softmax")
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear_loss: hidden has shape {tuple(hidden.shape)} and weight {tuple(weight.shape)}; they must be "
            "(..., D) and (V, D)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear_loss: bias has shape {tuple(bias.shape)}; it must be ({weight.shape[0]},)")
    wanted = (*hidden.shape[:-1], weight.shape[0]) if y.is_floating_point() else hidden.shape[:-1]
    if tuple(y.shape) != tuple(wanted):
        what = "distributions (floating)" if y.is_floating_point() else "class indices (integers)"
        raise ValueError(f"linear_loss: y holds {what} of shape {tuple(y.shape)}; it must be {tuple(wanted)}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"linear_loss: reduction={reduction!r} is not known; give one of {', '.join(REDUCTIONS)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"linear_loss: chunk={chunk}; give how many rows go at a time, at least 1")


def share_of_row(y: Tensor, ignore_index: int | None, class_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """1 / what a mean divides by, 0 where no row counts."""
    if y.is_floating_point():
        return torch.full((), 1.0 / max(1, y.shape[0]), dtype=dtype, device=y.device)
    counted = torch.ones_like(y, dtype=torch.bool) if ignore_index is None else y != ignore_index
    shares = counted.to(dtype)
    if class_weight is not None:
        # An index out of range is refused by the loss itself.
        known = torch.where(counted, y, 0).long().clamp(0, class_weight.shape[0] - 1)
        shares = torch.where(counted, class_weight.to(dtype)[known], 0.0)
    return torch.where(counted.any(), 1.0 / shares.sum(), 0.0)


class Chunk(NamedTuple):
    """Some rows."""

    at: slice
    hidden: Tensor
    losses: Tensor
    """Of the rows."""
    pull: Callable[[Tensor], Tensor] | None
    """From cotangents of the losses to the gradient of the scores."""


def chunks(plan: Plan, hidden: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> Iterator[Chunk]:
    """The rows, some at a time."""
    for start in range(0, hidden.shape[0], plan.rows):
        at = slice(start, start + plan.rows)
        part = hidden[at].to(plan.compute)
        losses, pull = losses_and_pull(plan, linear(part, weight, bias), y[at])
        yield Chunk(at, part, losses, pull)


def losses_and_pull(plan: Plan, scores: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """The losses of some rows, and how cotangents go from them to the scores."""

    def losses_of(scores: Tensor) -> Tensor:
        losses: Tensor = plan.map.loss(scores, y, -1, reduction="none", **plan.options)
        return losses

    if not plan.needs_grad:
        return losses_of(scores), None
    if torch.compiler.is_compiling():  # where torch.autograd.grad is not traced
        losses, pull, *_ = torch.func.vjp(losses_of, scores)
        return losses, lambda g: pull(g)[0]
    with torch.enable_grad():
        scores.requires_grad_()
        losses = losses_of(scores)
    return losses.detach(), lambda g: torch.autograd.grad(losses, scores, g)[0]


class Gradients:
    """The gradients of hidden, weight and bias, those that are asked for, gathered chunk by chunk."""

    def __init__(self, asked: Sequence[bool], hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.hidden = torch.empty_like(hidden) if asked[0] else None
        self.weight = torch.zeros_like(weight, dtype=wide) if asked[1] else None
        self.bias = torch.zeros_like(bias, dtype=wide) if bias is not None and asked[2] else None

    def add(self, chunk: Chunk, weight: Tensor, g: Tensor) -> None:
        """Take in a chunk whose losses have the cotangents g."""
        assert chunk.pull is not None
        moved = chunk.pull(g)
        if self.hidden is not None:
            self.hidden[chunk.at] = moved @ weight
        if self.weight is not None and self.weight.dtype == moved.dtype:
            self.weight.addmm_(moved.mT, chunk.hidden)
        elif self.weight is not None:
            self.weight += moved.mT @ chunk.hidden
        if self.bias is not None:
            self.bias += moved.sum(dim=0, dtype=self.bias.dtype)

    @property
    def all(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """In the order of the arguments."""
        return self.hidden, self.weight, self.bias


class ReducedLoss(torch.autograd.Function):
    """The sum of the rows' losses, times a share if there is one; the gradients are made along with it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, plan: Plan, share: Tensor | None
    ) -> Tensor:
        """Losses and gradients, chunk by chunk."""
        asked = ctx.needs_input_grad[:3]
        plan = plan._replace(needs_grad=plan.needs_grad and any(asked))
        gradients = Gradients(asked if plan.needs_grad else (False,) * 3, hidden, weight, bias)
        total = torch.zeros((), dtype=plan.result, device=hidden.device)
        used, shift = as_computed(plan, weight, bias)
        for chunk in chunks(plan, hidden, used, shift, y):
            if plan.needs_grad:
                gradients.add(chunk, used, torch.ones_like(chunk.losses))
            total += chunk.losses.sum()
        ctx.save_for_backward(hidden, weight, bias, share, *gradients.all)
        return total if share is None else total * share

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        """The gradients times g."""
        hidden, weight, bias, share, *gradients = ctx.saved_tensors
        scale = g if share is None else g * share

        def scaled() -> list[Tensor | None]:
            return [None if found is None else found * scale.to(found.dtype) for found in gradients]

        return *applied(Once, scaled, g, hidden, weight, bias), None, None, None


class RowLosses(torch.autograd.Function):
    """The loss of each row; backward computes the scores again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, plan: Plan) -> Tensor:
        """Losses, chunk by chunk."""
        ctx.plan = plan
        ctx.save_for_backward(hidden, weight, bias, y)
        plan = plan._replace(needs_grad=False)
        found = torch.empty(hidden.shape[:1], dtype=plan.result, device=hidden.device)
        for chunk in chunks(plan, hidden, *as_computed(plan, weight, bias), y):
            found[chunk.at] = chunk.losses
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        """The gradients, chunk by chunk."""
        hidden, weight, bias, y = ctx.saved_tensors
        asked = ctx.needs_input_grad[:3]

        def again() -> tuple[Tensor | None, ...]:
            gradients = Gradients(asked, hidden, weight, bias)
            used, shift = as_computed(ctx.plan, weight, bias)
            with uncast(hidden.device.type):
                for chunk in chunks(ctx.plan, hidden, used, shift, y):
                    gradients.add(chunk, used, g[chunk.at])
            return gradients.all

        return *applied(Once, again, g, hidden, weight, bias), None, None


class Once(torch.autograd.Function):
    """Gradients that must not be differentiated again.

    torch's once_differentiable says so only where a cotangent is differentiated, and else drops the second derivative
    without a word; this one knows all that the gradients depend on.
    """

    @staticmethod
    def forward(ctx: Any, make: Callable[[], Sequence[Tensor | None]], *depends_on: Tensor | None) -> tuple[Any, ...]:
        """The gradients."""
        return tuple(make())

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Any, ...]:
        """There is none."""
        raise RuntimeError(NO_SECOND)


def as_computed(plan: Plan, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in the dtype of the product."""
    return weight.detach().to(plan.compute), None if bias is None else bias.detach().to(plan.compute)


def applied(function: Any, *arguments: Any) -> Any:
    """The autograd function's result."""
    return function.apply(*arguments)
