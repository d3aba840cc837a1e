"""Weights of detached rows on tensors: the one operator of compiled graphs, and what stands in exported ones.

`softplex::weights` has no derivatives: what follows the scores is added to its result by core/follow.py. On the CPU it
runs NumPy's road, kernels and all, on a GPU the kernels where they serve, elsewhere the formulas. None lives here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from softplex.backends.numpy import NUMPY, NDArray
from softplex.backends.torch.functions import PlainFunctions, TorchFunctions
from softplex.backends.torch.modes import tracing_state
from softplex.core.arrays import Namespace, Terms
from softplex.core.call import Asked, Call
from softplex.core.follow import Following
from softplex.core.formula import Formula, Hyper
from softplex.core.rows import Rows
from softplex.native import formulas_only, gpu

FORMULAS: dict[str, Formula] = {}
"""What the operator's first argument names."""

KEYS: dict[Formula, str] = {}


def key_of(formula: Formula) -> str:
    """The name of a formula in graphs: that of its map, so that it means the same in another process."""
    if not KEYS:
        from softplex.maps import MAPS

        for each in MAPS:
            FORMULAS.setdefault(each.name, each.formula)
            KEYS.setdefault(each.formula, each.name)
    if formula not in KEYS:
        key = f"formula {len(KEYS)} of this process"
        FORMULAS[key], KEYS[formula] = formula, key
    return KEYS[formula]


class TorchNamespace(Following):
    """torch's functions, differentiated."""

    def weights_of(self, formula: Formula, rows: Rows, hyper: Hyper) -> Terms:
        """By the operator; written out where the graph is to run without this library."""
        if is_exporting():
            return formula.solution(rows, hyper).weights
        names = [parameter.name for parameter in formula.parameters]
        numbers = [hyper[name] for name in names]
        temperature, raw = rows.temperature, rows.signed
        entries, sink = torch.ops.softplex.weights(
            key_of(formula),
            rows.is_narrow,
            raw.entries,
            raw.sink,
            as_column(temperature, raw.entries),
            fixed(temperature),
            [as_column(number, raw.entries) for number in numbers],
            [fixed(number) for number in numbers],
        )
        return Terms(entries, None if raw.sink is None else sink)


def is_exporting() -> bool:
    """Whether the graph that is being made is to leave this process."""
    return bool(torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or tracing_state() is not None)


def fixed(number: Any) -> float:
    """A number, or what stands for it beside a tensor."""
    return number if isinstance(number, float) else 0.0


def as_column(number: Any, entries: Tensor) -> Tensor | None:
    """A tensor as deep as the rows; None for a number."""
    if isinstance(number, float):
        return None
    column: Tensor = number.reshape((1,) * (entries.ndim - number.ndim) + tuple(number.shape))
    return column


def namespace_for(device: torch.device) -> TorchNamespace:
    """The namespace of a device."""
    functions = PlainFunctions(device) if is_exporting() else TorchFunctions(device)
    return TorchNamespace(functions, working=working_of(device))


def working_of(device: torch.device) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


LIBRARY = torch.library.Library("softplex", "DEF")
LIBRARY.define(
    "weights(str formula, bool is_narrow, Tensor x, Tensor? sink, Tensor? temperature, float fixed_temperature, "
    "Tensor?[] hyper, float[] fixed_hyper) -> (Tensor, Tensor)"
)

Solved = tuple[Tensor, Tensor]


def column_like(x: Tensor) -> Tensor:
    """One number a row, not set."""
    return x.new_empty((*x.shape[:-1], 1))


def solved_here(
    formula: str,
    is_narrow: bool,
    x: Tensor,
    sink: Tensor | None,
    temperature: Tensor | None,
    fixed_temperature: float,
    hyper: list[Tensor | None],
    fixed_hyper: list[float],
) -> Solved:
    """The weights of the rows and of their sink."""
    known = FORMULAS[formula] if formula in FORMULAS else unknown(formula)
    numbers = [f if h is None else h for h, f in zip(hyper, fixed_hyper, strict=True)]
    named = dict(zip([parameter.name for parameter in known.parameters], numbers, strict=True))
    warmth = fixed_temperature if temperature is None else temperature
    if x.shape[-1] == 0 or x.numel() == 0:
        return torch.zeros_like(x), column_like(x)
    if is_on_gpu(x):
        found = solved_on_gpu(known, is_narrow, x, sink, warmth, named)
        if found is not None:
            return found
    elif x.is_cpu:
        return solved_by_numpy(known, is_narrow, x, sink, warmth, named)
    xp = Namespace(TorchFunctions(x.device), can_look=not is_captured(x), working=x.dtype)
    rows = Rows(xp, x, sink=sink, temperature=warmth, is_narrow=is_narrow)
    weights = known.solution(rows, named).weights
    return weights.entries, column_like(x) if weights.sink is None else weights.sink


def is_on_gpu(x: Tensor) -> bool:
    """Whether there may be a kernel for what a tensor holds."""
    return x.is_cuda and gpu.is_there()


def is_captured(x: Tensor) -> bool:
    """Whether a graph of CUDA is being recorded, which nothing may wait for: not even to see that a search is over."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def solved_on_gpu(
    formula: Formula, is_narrow: bool, x: Tensor, sink: Tensor | None, temperature: Any, hyper: dict[str, Any]
) -> Solved | None:
    """The weights by a kernel, where scores of float32 or less stand in float64; None where it declines."""
    if not is_narrow or formulas_only():
        return None
    from softplex.native.gpu import launch

    axes = (x.ndim - 1,)
    call = Call("softplex::weights", NUMPY, x, False, axes, x.dtype, temperature=temperature, sink=sink, hyper=hyper)
    found = launch.solved(call, formula)
    if found is None:
        return None
    entries, sinks = found
    return entries, column_like(x) if sinks is None else sinks.unsqueeze(-1)


def unknown(formula: str) -> Formula:
    """The formula of a map of the library that this process has not yet asked for."""
    from softplex.maps import MAPS

    for each in MAPS:
        key_of(each.formula)
    if formula not in FORMULAS:
        raise RuntimeError(f"softplex::weights: {formula!r} is not known in this process; define its map first")
    return FORMULAS[formula]


def solved_by_numpy(
    formula: Formula, is_narrow: bool, x: Tensor, sink: Tensor | None, temperature: Any, hyper: dict[str, Any]
) -> Solved:
    """The weights by NumPy's road."""

    def viewed(value: Any) -> Any:
        return value.numpy() if isinstance(value, Tensor) else value

    call = Call(
        "softplex::weights",
        NUMPY,
        x.numpy(),
        False,
        (x.ndim - 1,),
        np.dtype(np.float64),
        temperature=viewed(temperature),
        sink=viewed(sink),
        hyper={name: viewed(value) for name, value in hyper.items()},
    )

    def function(rows: Rows, hyper: Hyper) -> tuple[NDArray, ...]:
        weights = formula.solution(rows, hyper).weights
        return weights.entries, rows.top if weights.sink is None else weights.sink

    if sink is None:
        asked = Asked("value", formula)
        found = NUMPY.run(
            call, lambda rows, hyper: function(rows, hyper)[:1], [], [("entries", call.dtype)], None, asked
        )
        return torch.from_numpy(found[0]), column_like(x)
    entries, sinks = NUMPY.run(call, function, [], [("entries", call.dtype), ("row", call.dtype)])
    return torch.from_numpy(entries), torch.from_numpy(sinks).unsqueeze(-1)


LIBRARY.impl("weights", solved_here, "CompositeExplicitAutograd")


@torch.library.register_fake("softplex::weights", lib=LIBRARY)
def described(formula: str, is_narrow: bool, x: Tensor, *parameters: Any) -> Solved:
    """The shapes of the results."""
    return torch.empty_like(x, memory_format=torch.contiguous_format), column_like(x)


def solved_in_batches(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Solved, tuple[int, int]]:
    """Rows are apart from one another anyhow: the new axis goes to the front."""

    def front(value: Any, dim: Any) -> Any:
        if isinstance(value, (list, tuple)):
            dims = dim if isinstance(dim, (list, tuple)) else [dim] * len(value)
            return [front(v, d) for v, d in zip(value, dims, strict=True)]
        if not isinstance(value, Tensor):
            return value
        return value.unsqueeze(0) if dim is None else value.movedim(dim, 0)

    moved = [front(value, dim) for value, dim in zip(arguments, in_dims, strict=True)]
    if moved[2].shape[0] != info.batch_size:
        moved[2] = moved[2].expand(info.batch_size, *moved[2].shape[1:])
    return torch.ops.softplex.weights(*moved), (0, 0)


torch.library.register_vmap("softplex::weights", solved_in_batches, lib=LIBRARY)
