"""Plain tensors on a GPU: whole methods by the Triton kernels, with a way back for autograd.

Backward is the kernels' vjp or gradient; where the backward pass is itself to be differentiated, and for what kernels
decline, the formulas are differentiated. No formula and no kernel lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from softplex.backends.array_api import divisor_of
from softplex.backends.torch import eager, quick
from softplex.backends.torch.backend import TorchBackend
from softplex.backends.torch.eager import Work
from softplex.backends.torch.modes import PLAIN, is_batched, is_transformed
from softplex.backends.torch.unseen import unseen
from softplex.core.call import Asked, Call, Kind
from softplex.core.formula import Formula, Hyper
from softplex.core.rows import Rows
from softplex.core.targets import Targets, cross_entropy_rows, is_class, loss_rows
from softplex.maps import log_softmax, softmax
from softplex.native import formulas_only, gpu


def is_taken(x: Tensor) -> bool:
    """Whether kernels may read the numbers of a tensor where they lie."""
    return type(x) in PLAIN and x.is_cuda and x.layout is torch.strided and not is_transformed()


@lru_cache
def backend_on_gpu(device: torch.device) -> GpuBackend | None:
    """The backend of a GPU; None where there is no Triton."""
    return GpuBackend(device) if gpu.is_there() else None


class GpuBackend(TorchBackend):
    """Plain tensors on a GPU, outside of all transforms. Numbers are not looked at, which would wait for the device."""

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[Tensor, ...]],
        operands: Sequence[tuple[Kind, Tensor]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[Tensor]:
        """By a kernel if there is one, else as differentiable functions."""
        if out is None and asked is not None and not formulas_only():
            work = eager.work_of(call, function, operands, results, asked)
            found = answered(work) if all(self.may_read(tensor) for tensor in work.tensors) else None
            if found is not None:
                return found
        return super().run(call, function, operands, results, out, asked)

    def reduced_at_once(self, call: Call, asked: Asked, reduction: str) -> Tensor | None:
        """The sum or mean of the losses, its gradient found with it, where the scores alone are followed."""
        targets = asked.targets
        numbers = (call.temperature, call.sink, *call.hyper.values(), targets.weight)
        is_followed = torch.is_grad_enabled() and call.x.requires_grad and call.x.dtype == call.dtype
        if reduction == "none" or not is_followed or formulas_only() or not targets.is_index:
            return None
        others = [targets.y, *[number for number in numbers if isinstance(number, Tensor)]]
        if any(number.requires_grad for number in others) or not all(map(self.may_read, (call.x, *others))):
            return None
        with torch.no_grad():
            scale, rest = stored_and_kept(call, targets, scale_of(call, targets, reduction))
            found = losses_and_gradient(call, asked, scale)
            if found is None:
                return None
            gradient, losses, weights = found
            counted, shares = counted_of(targets, weights)
            value = self.reduced(losses, shares, counted, call.dtype, reduction)
        hollow = call._replace(x=eager.NOTHING)

        def again(x: Tensor) -> Tensor:
            rows = losses_of(hollow._replace(x=x), asked)
            return self.reduced(rows[0], shares, counted, call.dtype, reduction)

        loss: Tensor = Whole.apply(call.x, value, gradient, rest, again)
        return loss

    def may_read(self, x: Tensor) -> bool:
        """Whether a tensor of the call is plain, too."""
        return is_taken(x)


def answered(work: Work) -> list[Tensor] | None:
    """The results, with a way back where one may be asked for; None where the kernels decline."""
    found = computed(work)
    if found is None:
        return None
    is_followed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in work.tensors)
    if is_followed and not any(dtype is torch.int64 for _, dtype in work.results):
        found = list(Answer.apply(work, found, *work.tensors))
    return found


def computed(work: Work) -> list[Tensor] | None:
    """The results by the kernels, in the shapes that were asked for."""
    from softplex.native.gpu import launch

    assert work.asked is not None
    call, operands = work.call, [tensor for _, tensor in work.operands]
    with torch.no_grad():
        found = launch.computed(call, work.asked, operands)
    if found is None:
        return None
    shaped = zip(found, work.results, strict=True)
    return [one.reshape(()) if call.is_scalar and kind == "entries" else one.to(dtype) for one, (kind, dtype) in shaped]


class Answer(torch.autograd.Function):
    """Any method that kernels have, and its derivatives."""

    @staticmethod
    def forward(ctx: Any, work: Work, found: list[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        """What is known already."""
        ctx.work = work.hollow()
        ctx.keeps_weights = tells_enough(work, ctx.needs_input_grad[2:])
        if ctx.keeps_weights:
            ctx.save_for_backward(found[0])
        else:
            ctx.save_for_backward(*tensors, work.call.where)
        is_loss = work.asked is not None and work.asked.method in ("loss", "cross_entropy")
        if is_loss and not any(ctx.needs_input_grad[2 + len(work.names) :]):
            ctx.mark_non_differentiable(found[1])  # the weights of the rows are the targets' alone
        return tuple(found)

    @staticmethod
    @unseen
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """By the kernels where nobody follows, else by differentiating the formulas."""
        wanted = ctx.needs_input_grad[2:]
        is_free = not torch.is_grad_enabled() and not formulas_only() and not any(map(is_batched, cotangents))
        if ctx.keeps_weights:
            (p,) = ctx.saved_tensors
            return (None, None, back_from_weights(ctx.work, p, cotangents[0], is_free), *[None for _ in wanted[1:]])
        *tensors, where = ctx.saved_tensors
        work = ctx.work.with_tensors(tuple(tensors))
        work = work._replace(call=work.call._replace(where=where))
        found = taken_back(work, cotangents, wanted) if is_free else None
        return (None, None, *(eager.differentiated(work, cotangents, wanted) if found is None else found))


def tells_enough(work: Work, wanted: Sequence[bool]) -> bool:
    """Whether the way back needs the weights alone, so that the scores need not be kept."""
    call, asked = work.call, work.asked
    return (
        asked is not None
        and isinstance(asked.formula, Formula)
        and asked.method == "value"
        and wanted[0]
        and not any(wanted[1:])
        and call.invalid is None
        and call.x.dtype == call.dtype
        and len(call.axes) == 1
        and len(work.names) == 1
        and (call.sink is None or asked.formula in (softmax.formula, log_softmax.formula))
    )


def back_from_weights(work: Work, p: Tensor, g: Tensor, is_free: bool) -> Tensor:
    """The vjp from the weights, by the kernel or in operations that can be differentiated."""
    from softplex.native.gpu import launch

    assert work.asked is not None
    call, formula = work.call, work.asked.formula
    if call.is_scalar:  # the scores are a row of length 1
        p, g = p.reshape(1), g.reshape(1)
    if is_free:
        found = launch.backward(call._replace(x=p), formula, p, g)
        if found is not None:
            return found
    options = {**call.hyper, "temperature": call.temperature, "sink": call.sink}
    cut = quick.Cut(None, None, True, formula)
    return quick.by_formula((cut, call.axes[0], options), p, g)


def taken_back(work: Work, cotangents: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> list[Tensor | None] | None:
    """The cotangent of the scores, where it alone is asked for and kernels have it."""
    from softplex.native.gpu import launch

    if not wanted[0] or any(wanted[1:]) or work.asked is None:
        return None
    asked, operands = work.asked, [tensor for _, tensor in work.operands]
    g = cotangents[0]
    if asked.method == "value":
        word, operands = Asked("vjp", asked.formula), [g.reshape(eager.as_lying(work))]
    elif asked.method in ("loss", "cross_entropy"):
        weight = operands[1] if len(operands) > 1 else None
        targets = replace(asked.targets, y=operands[0], weight=weight)
        word, operands = Asked("gradient", asked.formula, targets), [*operands, g]
    else:
        return None
    found = launch.computed(work.call, word, operands)
    return None if found is None else [found[0].to(work.call.x.dtype), *[None for _ in wanted[1:]]]


def losses_and_gradient(call: Call, asked: Asked, scale: Tensor) -> list[Tensor] | None:
    """The gradient of the sum of the losses times a scale, the losses of the rows and their weights."""
    from softplex.native.gpu import launch

    return launch.losses_and_gradient(call, asked, [one for _, one in asked.targets.operands], scale)


def scale_of(call: Call, targets: Targets, reduction: str) -> Tensor:
    """What a reduction multiplies the losses with; a row whose class is none counts, as its loss, NaN, does."""
    y = targets.y
    one = torch.ones((), dtype=torch.float64, device=y.device)
    if reduction == "sum":
        return one
    shares, weight = one.expand(y.shape), targets.weight
    if weight is not None:
        is_named = is_class(y, call.length)
        shares = torch.where(is_named, weight.to(torch.float64)[torch.where(is_named, y, 0)], 0.0)
    xp = call.backend.xp
    if targets.ignore_index is None:
        total: Tensor = one * y.numel() if weight is None else divisor_of(xp, shares.sum())
        return 1.0 / total
    is_counted = y != targets.ignore_index
    total = divisor_of(xp, torch.where(is_counted, shares, 0.0).sum())
    return 1.0 / torch.where(is_counted.any(), total, 1.0)


def stored_and_kept(call: Call, targets: Targets, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """The scale of the gradient that is stored, and what is left of it for the way back.

    In float16 that is a power of two: the residual over many rows or a high temperature would be too small for it, and
    a cotangent that scales the loss up, as is usual there, would come too late.
    """
    if call.dtype is not torch.float16:
        return scale, None
    warmth = call.temperature if is_mild(call.temperature) else 1.0
    largest = scale / warmth
    if targets.weight is not None:
        largest = largest * targets.weight.to(torch.float64).abs().amax()
    power = largest / (2.0 * torch.frexp(largest).mantissa)
    kept = torch.where(power > 0.0, power, 1.0)
    return scale / kept, kept


def is_mild(temperature: Any) -> bool:
    """Whether it is one number, with which a scale stays what it is."""
    from softplex.native.gpu import launch

    return isinstance(temperature, float) and 1.0 / launch.MILD <= temperature <= launch.MILD


def counted_of(targets: Targets, weights: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Which rows count, and what they weigh, as core/targets.py says it."""
    if targets.ignore_index is not None:
        return targets.y != targets.ignore_index, weights
    return None, None if targets.weight is None else weights


def losses_of(call: Call, asked: Asked) -> list[Tensor]:
    """The losses of the rows and their weights, followed in the usual way."""
    rows_of = cross_entropy_rows if asked.method == "cross_entropy" else loss_rows
    said, solve = asked.targets.without_arrays(), asked.formula.solve

    def function(rows: Rows, hyper: Hyper, y: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return rows_of(said, solve, rows, hyper, y, None if weight is None else weight.to(rows.xp.working))

    backend = call.backend
    kinds: list[tuple[Kind, Any]] = [("row", backend.working), ("row", backend.working)]
    return backend.run(call, function, asked.targets.operands, kinds, asked=asked)


class Whole(torch.autograd.Function):
    """A reduced loss whose gradient is known: it is handed out once, and found again for whoever asks again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Tensor, gradient: Tensor, rest: Tensor | None, again: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The value; the gradient lacks the factor `rest`."""
        ctx.save_for_backward(x, gradient, rest)
        ctx.again, ctx.is_spent = again, False
        return value

    @staticmethod
    @unseen
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient times the cotangent, which is mostly 1, and what it lacks."""
        from softplex.native.gpu import launch

        x, gradient, rest = ctx.saved_tensors
        if ctx.is_spent or torch.is_grad_enabled() or is_batched(g):
            is_followed = torch.is_grad_enabled()
            with torch.enable_grad():
                given = x if is_followed else x.detach().requires_grad_()
                (found,) = torch.autograd.grad(ctx.again(given), given, g, create_graph=is_followed)
            return found, None, None, None, None
        ctx.is_spent = True
        launch.multiply(gradient, g if rest is None else g * rest)
        return gradient, None, None, None, None
