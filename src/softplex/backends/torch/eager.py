"""Plain CPU tensors by NumPy's road, on views of their memory, and the way back for autograd.

Forward is what NumPy does, kernels included, to the bit. Backward is NumPy's vjp, or the gradient of a loss; where
the backward pass is itself to be differentiated, and for all other methods, the formulas are differentiated. What the
commonest calls do instead stands in quick.py. No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from softplex.backends.numpy import NDArray, NumpyBackend
from softplex.backends.torch.modes import is_plain_cotangent
from softplex.backends.torch.unseen import unseen
from softplex.core.call import Asked, Call, Kind
from softplex.core.derivatives import gradient_of_loss, gradient_of_maximum, pulled_back
from softplex.native.calls import computed, from_weights, knows_parameters, knows_parameters_of_loss, of_loss

NUMPY_TYPES = {
    torch.float64: np.dtype(np.float64),
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.int64: np.dtype(np.int64),
}
RAW = np.dtype(np.uint16)
"""What stands for bfloat16, which NumPy lacks: kernels know it by its bits, formulas get float32."""


class Views(NumpyBackend):
    """NumPy's backend under torch's number of threads, with bfloat16 by its bits."""

    def threads(self) -> int:
        """torch's setting."""
        return torch.get_num_threads()

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[NDArray, ...]],
        operands: Sequence[tuple[Kind, NDArray]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[NDArray]:
        """As ever; what kernels decline in bfloat16, formulas compute from float32 for torch to round."""
        if call.dtype != RAW:
            return super().run(call, function, operands, results, out, asked)
        found = None if asked is None else computed(call, asked, [array for _, array in operands], None)
        if found is not None and len(found) == len(results):
            return [one.reshape(()) if call.is_scalar and one.shape == (1,) else one for one in found]
        wide = np.dtype(np.float32)
        kinds = [(kind, wide if dtype == RAW else dtype) for kind, dtype in results]
        pairs = [(kind, widened(array)) for kind, array in operands]
        return super().run(call._replace(x=widened(call.x), dtype=wide), function, pairs, kinds)


VIEWS = Views()


NOTHING = torch.empty(0)


class Work(NamedTuple):
    """What `run` was asked to do, and its tensors: those of the call by their names, then the operands."""

    call: Call
    function: Callable[..., tuple[Any, ...]]
    kinds: tuple[Kind, ...]
    """Of the operands."""
    results: tuple[tuple[Kind, Any], ...]
    asked: Asked | None
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    weights: Tensor | None = None
    """On the way back, what a value was, where parameters ask for their cotangents."""

    @property
    def operands(self) -> tuple[tuple[Kind, Tensor], ...]:
        """The operands and how they lie."""
        return tuple(zip(self.kinds, self.tensors[len(self.names) :], strict=True))

    def with_tensors(self, tensors: tuple[Tensor, ...]) -> Work:
        """The same work on other tensors."""
        named = dict(zip(self.names, tensors, strict=False))
        found = self._replace(call=on_other(self.call, named), tensors=tensors)
        asked = self.asked
        if asked is None or asked.targets is None:
            return found
        return found._replace(asked=replace(asked, targets=on_arrays(asked.targets, [o for _, o in found.operands])))

    def hollow(self) -> Work:
        """The same work without its large tensors: what is kept of it for later keeps no memory alive."""
        call = on_other(self.call, dict.fromkeys(self.names, NOTHING))._replace(where=None, given={})
        asked = self.asked
        if asked is not None and asked.targets is not None:
            asked = replace(asked, targets=asked.targets.without_arrays())
        return self._replace(call=call, asked=asked, tensors=())


def work_of(
    call: Call,
    function: Callable[..., tuple[Any, ...]],
    operands: Sequence[tuple[Kind, Tensor]],
    results: Sequence[tuple[Kind, Any]],
    asked: Asked | None,
) -> Work:
    """What `run` was asked to do."""
    numbers = {"temperature": call.temperature, "sink": call.sink, **call.hyper}
    named = {"x": call.x, **{name: number for name, number in numbers.items() if isinstance(number, Tensor)}}
    tensors = (*named.values(), *[array for _, array in operands])
    return Work(call, function, tuple([k for k, _ in operands]), tuple(results), asked, tuple(named), tensors)


def on_other(call: Call, named: dict[str, Any]) -> Call:
    """The call with other arrays under their names."""
    if len(named) == 1:
        return call._replace(x=named["x"])
    hyper = {name: named.get(name, number) for name, number in call.hyper.items()}
    fields = {name: value for name, value in named.items() if name in ("x", "temperature", "sink")}
    return call._replace(hyper=hyper, **fields)


def answered(work: Work) -> list[Tensor]:
    """The results, with a way back where one may be asked for."""
    is_followed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in work.tensors)
    if not is_followed or any(dtype is torch.int64 for _, dtype in work.results):
        return computed_by_numpy(work)
    return list(Answer.apply(work, *work.tensors))


class Answer(torch.autograd.Function):
    """Any method of any map, and its derivatives."""

    @staticmethod
    def forward(ctx: Any, work: Work, *tensors: Tensor) -> tuple[Tensor, ...]:
        """By NumPy's road."""
        # What is not saved by torch's own means would outlive checkpoints and hooks of saved tensors.
        ctx.work = work.hollow()
        results = tuple(computed_by_numpy(work))
        kept = results[0] if goes_back_from_weights(work, ctx.needs_input_grad[1:]) else None
        ctx.save_for_backward(*tensors, work.call.where, kept)
        is_loss = work.asked is not None and work.asked.method in ("loss", "cross_entropy")
        if is_loss and not any(ctx.needs_input_grad[1 + len(work.names) :]):
            ctx.mark_non_differentiable(results[1])  # the weights of the rows are the targets' alone
        return results

    @staticmethod
    @unseen
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """By NumPy's road where that goes back and nobody follows, else by differentiating the formulas."""
        wanted = ctx.needs_input_grad[1:]
        *tensors, where, weights = ctx.saved_tensors
        work = ctx.work.with_tensors(tuple(tensors))
        work = work._replace(call=work.call._replace(where=where), weights=weights)
        way = None if torch.is_grad_enabled() else way_back(work, wanted)
        found = None
        if way is not None and all(map(is_plain_cotangent, cotangents)):
            found = way(work, cotangents, wanted)
        return (None, *(differentiated(work, cotangents, wanted) if found is None else found))


class Added(torch.autograd.Function):
    """A sum or a mean of losses that NumPy has taken."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, total: NDArray, divisor: float) -> Tensor:
        """The number as it is known."""
        ctx.known = values.shape, divisor
        return torch.from_numpy(total)

    @staticmethod
    @unseen
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """Each loss's share."""
        shape, divisor = ctx.known
        return (g / divisor).expand(shape), None, None


Cotangents = tuple[Tensor, ...]
Way = Callable[[Work, Cotangents, tuple[bool, ...]], list[Tensor | None] | None]


def way_back(work: Work, wanted: tuple[bool, ...]) -> Way | None:
    """How to go back without the formulas' graph."""
    if work.asked is None or any(wanted[len(work.names) :]):
        return None
    if work.asked.method == "value":
        return back_from_value
    parameters = tuple([name for name in names_wanted(work, wanted) if name != "x"])
    if work.asked.method in ("loss", "cross_entropy") and parameters:
        return back_from_loss if knows_parameters_of_loss(work.call, work.asked, parameters) else None
    if not wanted[0] or parameters:
        return None
    return {"loss": back_from_loss, "cross_entropy": back_from_loss, "smooth_max": back_from_maximum}.get(
        work.asked.method
    )


def goes_back_from_weights(work: Work, wanted: tuple[bool, ...]) -> bool:
    """Whether parameters of a value ask for cotangents that kernels find from the weights."""
    names = names_wanted(work, wanted)
    if work.asked is None or work.asked.method != "value" or names in ((), ("x",)):
        return False
    return knows_parameters(work.call, work.asked.formula, names)


def names_wanted(work: Work, wanted: tuple[bool, ...]) -> tuple[str, ...]:
    """Of scores and parameters."""
    return tuple([name for name, is_wanted in zip(work.names, wanted, strict=False) if is_wanted])


def back_from_value(work: Work, cotangents: Cotangents, wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """The vjp in all that asks for it."""
    names = names_wanted(work, wanted)
    known = [] if work.weights is None else [work.weights.reshape(as_lying(work))]
    call, (g, *weights) = as_numpy(work.call, [cotangents[0].reshape(as_lying(work)), *known])
    assert work.asked is not None
    found = dict(zip(names, back_to_all(call, work.asked.formula, g, names, *weights), strict=True))
    return [
        as_tensor(found[name], like) if name in found else None
        for name, like in zip(work.names, work.tensors, strict=False)
    ]


def back_to_all(
    call: Call, formula: Any, g: NDArray, names: tuple[str, ...], weights: NDArray | None = None
) -> tuple[NDArray, ...]:
    """The vjp; where parameters ask for theirs from the weights, but from float32 scores if these came in 16 bits."""
    if names == ("x",):
        return pulled_back(call, formula, g, names)
    if call.dtype.itemsize == 2:
        wide = np.dtype(np.float32)
        wider = call._replace(x=widened(call.x).astype(wide, copy=False), dtype=wide)
        return pulled_back(wider, formula, widened(g).astype(wide, copy=False), names)
    found = None if weights is None else from_weights(call, formula, weights, g, names)
    if found is None:
        return pulled_back(call, formula, g, names)
    pairs = zip(names, found, strict=True)
    return tuple([one if name == "x" else VIEWS.sum_to(one, call, call.given[name]) for name, one in pairs])


def as_lying(work: Work) -> tuple[int, ...]:
    """The shape of a result within the call, in which a scalar is a row of length 1."""
    return tuple(work.call.x.shape) if work.results[0][0] == "entries" else work.call.batch


def back_from_loss(work: Work, cotangents: Cotangents, wanted: tuple[bool, ...]) -> list[Tensor | None] | None:
    """The gradient of the rows' losses, each times its cotangent, and what they say of the parameters."""
    assert work.asked is not None
    g, _ = cotangents
    call, arrays = as_numpy(work.call, [tensor for _, tensor in work.operands])
    asked = replace(work.asked, targets=numpy_targets(work.asked.targets, arrays))
    gradient = gradient_of_loss(call, asked, view(g))
    parameters = tuple([name for name in names_wanted(work, wanted) if name != "x"])
    numbers = of_loss(call, asked, arrays[0], view(g), gradient, parameters) if parameters else {}
    if numbers is None:
        return None
    found = {name: VIEWS.sum_to(one, call, call.given[name]) for name, one in numbers.items()}
    found |= {"x": gradient} if wanted[0] else {}
    pairs = zip(work.names, work.tensors, strict=False)
    gradients = [as_tensor(found[name], like) if name in found else None for name, like in pairs]
    return [*gradients, *[None for _ in work.operands]]


def back_from_maximum(work: Work, cotangents: Cotangents, wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """The weights times the cotangent."""
    call, (g,) = as_numpy(work.call, [cotangents[0]])
    assert work.asked is not None
    found = gradient_of_maximum(call, work.asked.formula, np.reshape(widened(g), call.batch))
    return [as_tensor(found, work.call.x), *[None for _ in work.tensors[1:]]]


def differentiated(work: Work, cotangents: Cotangents, wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """Cotangents of the tensors through the formulas; they can be differentiated again if the tensors are."""
    from softplex.backends.torch.backend import backend_on

    is_followed = torch.is_grad_enabled()
    with torch.enable_grad():
        tensors = work.tensors
        if not is_followed:
            tensors = tuple([t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)])
        again = work.with_tensors(tensors)
        backend = backend_on(work.call.x.device, False)
        found = backend.run(again.call, again.function, again.operands, again.results, None, again.asked)
        pairs = [(one, g) for one, g in zip(found, cotangents, strict=True) if one.requires_grad]
        inputs = [tensor for tensor, is_wanted in zip(tensors, wanted, strict=True) if is_wanted]
        gradients = torch.autograd.grad(
            [one for one, _ in pairs], inputs, [g for _, g in pairs], create_graph=is_followed, allow_unused=True
        )
    rest = iter(gradients)
    return [next(rest) if is_wanted else None for is_wanted in wanted]


def computed_by_numpy(work: Work) -> list[Tensor]:
    """The results as NumPy computes them."""
    call_dtype = work.call.dtype
    call, operands = as_numpy(work.call, [tensor for _, tensor in work.operands])
    pairs = [(kind, array) for (kind, _), array in zip(work.operands, operands, strict=True)]
    asked = work.asked
    if asked is not None and asked.targets is not None:
        asked = replace(asked, targets=numpy_targets(asked.targets, operands))
    kinds = [(kind, call.dtype if dtype is call_dtype else NUMPY_TYPES[dtype]) for kind, dtype in work.results]
    found = VIEWS.run(call, work.function, pairs, kinds, None, asked)
    return [result_tensor(array, dtype) for array, (_, dtype) in zip(found, work.results, strict=True)]


def as_numpy(call: Call, operands: list[Tensor]) -> tuple[Call, list[NDArray]]:
    """The call on views of its tensors."""
    names = {"x": call.x if call.x.dtype == call.dtype else call.x.to(call.dtype)}
    numbers = {"temperature": call.temperature, "sink": call.sink, **call.hyper}
    names |= {name: number for name, number in numbers.items() if isinstance(number, Tensor)}
    viewed = on_other(call, {name: view(tensor) for name, tensor in names.items()})
    where = None if call.where is None else view(call.where)
    dtype = RAW if call.dtype is torch.bfloat16 else NUMPY_TYPES[call.dtype]
    given = {"temperature": viewed.temperature, "sink": viewed.sink, **viewed.hyper}
    viewed = viewed._replace(backend=VIEWS, where=where, dtype=dtype, given=given)
    return viewed, [view(o) if dtype is RAW else widened(view(o)) for o in operands]


def view(tensor: Tensor) -> NDArray:
    """A tensor's memory as NumPy sees it."""
    tensor = tensor.detach().resolve_neg()
    array: NDArray = (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return array


def widened(array: NDArray) -> NDArray:
    """bfloat16 as float32."""
    if array.dtype != RAW:
        return array
    wide: NDArray = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def on_arrays(targets: Any, arrays: Sequence[Any]) -> Any:
    """The targets of a loss on other arrays: themselves, and the class weights if there are any."""
    return replace(targets, y=arrays[0], weight=arrays[1] if len(arrays) > 1 else None)


def numpy_targets(targets: Any, arrays: list[NDArray]) -> Any:
    """The targets of a loss on views of their tensors."""
    return on_arrays(targets, [arrays[0], *map(widened, arrays[1:])])


def result_tensor(array: NDArray, dtype: torch.dtype) -> Tensor:
    """The tensor over an array."""
    if dtype is torch.bfloat16 and array.dtype == RAW:
        return torch.from_numpy(array).view(torch.bfloat16)
    return torch.from_numpy(array).to(dtype)


def as_tensor(array: NDArray, like: Tensor) -> Tensor:
    """A cotangent in the dtype and the shape of what it belongs to."""
    return result_tensor(array, like.dtype).reshape(like.shape)
