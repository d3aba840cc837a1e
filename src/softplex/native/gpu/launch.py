"""A checked call on tensors handed to the Triton kernels, or declined: then the formulas compute it.

What is declined depends on the call alone: formulas without a kernel, float64, an alpha that is an array or above 2,
soft and smoothed targets. Nothing waits for the device, and all memory is torch's. No formula lives here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from softplex.core.call import Asked, Call
from softplex.native.gpu import long, maps, maxout, short, widths
from softplex.native.gpu.compiled import AT_ONCE, BY_STRIDES, ONE_BY_ONE, PLAIN, SCATTERED, SIDE_BY_SIDE, Lay, Task
from softplex.native.gpu.places import Places, merged, places_of
from softplex.native.gpu.widths import Block, block_for
from softplex.native.table import LOG_SOFTMAX, MAXOUT, SOFTMAX, kernel_of

SIXTEEN_BIT = (torch.float16, torch.bfloat16)
TYPES = (torch.float32, *SIXTEEN_BIT)
VALUE, VJP, JVP, RESIDUAL, LOSS, LOSS_AND_RESIDUAL, SUPPORT_SIZE = range(7)
"""The methods of short.py."""

WINNERS = {"value": 0, "winner": 1, "vjp": 2, "jvp": 3}
"""What maxout.py is asked for."""

METHODS = {"value": VALUE, "vjp": VJP, "jvp": JVP, "residual": RESIDUAL, "support_size": SUPPORT_SIZE}
METHODS |= {"loss": LOSS, "cross_entropy": LOSS, "gradient": RESIDUAL}
MILD = 2.0**60
"""Temperatures up to it, and down to its inverse, leave a float32 what it is."""

NO_CLASS = -(2**63)
"""No index is this one."""


class Solver(NamedTuple):
    """A kernel of maps.py, and alpha - 1 for those that have one."""

    number: int
    is_negated: bool
    a: float = 1.0


def solver_of(formula: Any, call: Call) -> Solver | None:
    """What solves a map, whose alpha may say that it is another one; None where that is beyond the kernels."""
    kernel = kernel_of(formula)
    if kernel is None or kernel.number == MAXOUT:
        return None
    if kernel.number != maps.ENTMAX.value:
        return Solver(kernel.number, kernel.negated, 0.5 if kernel.number == maps.ENTMAX15.value else 1.0)
    alpha = {**kernel.fixed, **call.hyper}.get("alpha")
    if not isinstance(alpha, float) or not 1.0 <= alpha <= 2.0:
        return None
    known = {1.0: SOFTMAX, 1.5: maps.ENTMAX15.value, 2.0: maps.SPARSEMAX.value}
    return Solver(known.get(alpha, maps.ENTMAX.value), kernel.negated, alpha - 1.0)


def computed(call: Call, asked: Asked, operands: Sequence[Tensor]) -> list[Tensor] | None:
    """The results of a call by its kernel, or None."""
    kernel = kernel_of(asked.formula)
    if kernel is not None and kernel.number == MAXOUT:
        return won(call, asked.method, operands)
    method, solver = METHODS.get(asked.method), solver_of(asked.formula, call)
    if solver is None or method is None or call.dtype not in TYPES or call.x.numel() == 0:
        return None
    targets = asked.targets
    if targets is not None and (not targets.is_index or targets.smoothing != 0.0):
        return None
    if method in (RESIDUAL, LOSS, LOSS_AND_RESIDUAL) and solver.number == LOG_SOFTMAX:
        solver = solver._replace(number=SOFTMAX)
    return launched(Work.of(call, solver, method, operands, targets))


def losses_and_gradient(call: Call, asked: Asked, operands: Sequence[Tensor], scale: Tensor) -> list[Tensor] | None:
    """The gradient of the rows' losses times `scale`, the losses and their weights, the scores being read once."""
    solver, targets = solver_of(asked.formula, call), asked.targets
    if solver is None or call.dtype not in TYPES or call.x.numel() == 0:
        return None
    if not targets.is_index or targets.smoothing != 0.0:
        return None
    if solver.number == LOG_SOFTMAX:
        solver = solver._replace(number=SOFTMAX)
    work = Work.of(call, solver, LOSS, operands, targets)
    return launched(work._replace(method=LOSS_AND_RESIDUAL, scale=scale))


def multiply(x: Tensor, factor: Tensor) -> None:
    """A dense tensor of this library's own times a number on its device, in place; nothing moves where that is 1."""
    size = x.numel()
    vector = 16 // x.element_size()
    options = {"VECTOR": vector if size % vector == 0 else 1, "WIDTH": widths.PART}
    with on_device(x):
        short.multiply[(-(-size // widths.PART),)](
            x, factor.to(torch.float32).resolve_neg(), size, **options, num_warps=8, enable_fp_fusion=False
        )


class Work(NamedTuple):
    """What a kernel is asked to do."""

    call: Call
    solver: Solver
    method: int
    operand: Tensor | None = None
    classes: Tensor | None = None
    class_weights: Tensor | None = None
    scale: Tensor | None = None
    ignored: int = NO_CLASS

    @classmethod
    def of(cls, call: Call, solver: Solver, method: int, operands: Sequence[Tensor], targets: Any) -> Work:
        """The operands by their names."""
        if targets is None:
            return cls(call, solver, method, operands[0] if operands else None)
        has_scale = method == RESIDUAL and len(operands) > (1 if targets.weight is None else 2)
        return cls(
            call,
            solver,
            method,
            classes=operands[0].reshape(-1).contiguous(),
            class_weights=None if targets.weight is None or len(operands) < 2 else dense(operands[1]),
            scale=operands[-1] if has_scale else None,
            ignored=NO_CLASS if targets.ignore_index is None else targets.ignore_index,
        )

    def task(self, temperature: int, is_lenient: bool = False) -> Task:
        """What kernels are compiled for."""
        call = self.call
        return Task(
            map=self.solver.number,
            method=self.method,
            is_negated=self.solver.is_negated,
            is_precise=call.dtype not in SIXTEEN_BIT,
            temperature=temperature,
            has_sink=call.sink is not None,
            has_where=call.where is not None and not is_lenient,
            has_weights=self.class_weights is not None,
            has_scale=self.scale is not None,
            empty_is_nan=math.isnan(call.empty_value),
            is_lenient=is_lenient,
        )


def launched(work: Work) -> list[Tensor] | None:
    """Allocate the results and launch."""
    call = work.call
    x = (call.x if call.x.dtype == call.dtype else call.x.to(call.dtype)).detach()
    where = None if call.where is None else call.where.expand(x.shape).view(torch.uint8)
    if call.length > widths.LONGEST and work.method == SUPPORT_SIZE:
        return None
    entries = None if work.method in (LOSS, SUPPORT_SIZE) else room_like(x)
    figures: list[Tensor] = []
    if work.method in (LOSS, LOSS_AND_RESIDUAL):
        figures = [room(call.batch, torch.float64, x) for _ in range(2)]
    elif work.method == SUPPORT_SIZE:
        figures = [room(call.batch, torch.int64, x)]
    found = launch(work, x, where, entries, figures)
    return figures if found is None else [found, *figures]


def backward(call: Call, formula: Any, p: Tensor, g: Tensor) -> Tensor | None:
    """The cotangent of the scores from the weights; None where they do not tell enough."""
    solver = solver_of(formula, call)
    if solver is None or p.dtype not in TYPES:
        return None
    if call.sink is not None and solver.number not in (SOFTMAX, LOG_SOFTMAX):
        return None
    lying = Lying.of(call, {"x": p, "operand": g.detach().reshape(p.shape), "result": room_like(p)})
    heat = temperature_of(call, lying.places)
    high, low = parts(solver.a)
    arguments = {
        "temperature": heat.numbers,
        "n": lying.places.n,
        "rows": lying.places.rows,
        "sizes": lying.places.sizes,
        "x_strides": lying.strides("x"),
        "operand_strides": lying.strides("operand"),
        "result_strides": lying.strides("result"),
        "coolness": heat.coolness,
        "a_high": high,
        "a_low": low,
        "TASK": Task(solver.number, VJP, solver.is_negated, p.dtype is torch.float32, heat.kind),
    }
    tensors = [lying.tensors[name] for name in ("x", "operand", "result")]
    with on_device(p):
        if call.length <= widths.LONGEST:
            short.backward_rows[lying.grid](*tensors, **arguments, **lying.options())
        else:
            long.backward_long_rows[(lying.places.rows * lying.programs,)](
                *tensors, **lying.meeting(2, 1), **arguments, **lying.part_options(is_light=True)
            )
    return lying.tensors["result"]


def won(call: Call, method: str, operands: Sequence[Tensor]) -> list[Tensor] | None:
    """What maxout is asked for."""
    number = WINNERS.get(method)
    if number is None or call.x.numel() == 0 or any(operand.dtype != call.dtype for operand in operands):
        return None
    x = (call.x if call.x.dtype == call.dtype else call.x.to(call.dtype)).detach()
    tangent = operands[0].detach() if method == "jvp" else None
    lying = Lying.of(call, {"x": x, "operand": tangent, "result": room_like(x) if method == "vjp" else None})
    figures = room(call.batch, torch.int64 if method == "winner" else call.dtype, x)
    cotangent = dense(operands[0].detach().expand(call.batch)) if method == "vjp" else None
    with on_device(x):
        maxout.winners[lying.grid](
            lying.tensors["x"],
            lying.tensors.get("operand", cotangent),
            lying.tensors.get("result"),
            figures,
            lying.places.n,
            lying.places.rows,
            lying.places.sizes,
            lying.strides("x"),
            lying.strides("operand"),
            lying.strides("result"),
            METHOD=number,
            **lying.options(),
        )
    return [lying.tensors["result"] if method == "vjp" else figures]


def solved(call: Call, formula: Any) -> tuple[Tensor, Tensor | None] | None:
    """The weights of the entries and of the sinks, for somebody else to settle; None where the kernels decline."""
    solver = solver_of(formula, call)
    if solver is None or call.length > widths.LONGEST or call.x.dtype not in (torch.float64, *TYPES):
        return None
    entries = room(call.x.shape, call.x.dtype, call.x)
    sinks = None if call.sink is None else room(call.batch, torch.float64, call.x)
    work = Work(call, solver, VALUE)
    found = launch(work, call.x.detach(), None, entries, [] if sinks is None else [sinks], is_lenient=True)
    return None if found is None else (found, sinks)


def room_like(x: Tensor) -> Tensor:
    """A result of the shape of x, not set."""
    return torch.empty_like(x)


def room(shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """Another result or a kernel's scratch, not set, on the device of a tensor."""
    return like.new_empty(shape, dtype=dtype)


class Lying(NamedTuple):
    """The tensors of the shape of x, how they lie, and what follows from it for a launch."""

    tensors: dict[str, Tensor]
    places: Places
    lie: int
    """Of the scores, as they were given."""

    @classmethod
    def of(cls, call: Call, given: dict[str, Tensor | None]) -> Lying:
        """What is there of the tensors, copied if memory lacks their signs."""
        tensors = {name: tensor.resolve_neg() for name, tensor in given.items() if tensor is not None}
        return cls(tensors, places_of(list(tensors.values()), call.axes), lie_of(tensors["x"], call.axes))

    def strides(self, name: str) -> tuple[int, ...]:
        """Those of one tensor; of one that is not there any."""
        names = list(self.tensors)
        return self.places.strides[names.index(name if name in names else "x")]

    def access(self, name: str, vector: int) -> int:
        """How the entries of a tensor are reached: all at once where every row begins at a whole vector."""
        if name not in self.tensors or self.lie != PLAIN or len(self.places.row) > 1:
            return BY_STRIDES
        step, *starts = self.strides(name)[::-1]
        if self.places.n > 1 and step != 1:
            return BY_STRIDES
        tensor = self.tensors[name]
        is_aligned = tensor.data_ptr() % (vector * tensor.element_size()) == 0
        return AT_ONCE if vector > 1 and is_aligned and all(start % vector == 0 for start in starts) else ONE_BY_ONE

    @property
    def grid(self) -> tuple[int]:
        """How many programs."""
        return (-(-self.places.rows // block_for(self.places.n, self.lie).rows),)

    @property
    def parts(self) -> int:
        """Into how many a long row is cut."""
        return -(-self.places.n // widths.PART)

    @property
    def programs(self) -> int:
        """How many share a long row: so few that all of them are there at once, with as many parts each."""
        return -(-self.parts // -(-self.parts // multiprocessors(self.tensors["x"].device)))

    def meeting(self, numbers: int, turns: int) -> dict[str, Any]:
        """Where the programs of a long row leave their numbers and meet, so often."""
        x, rows = self.tensors["x"], self.places.rows
        return {
            "partial": room((numbers * rows * self.parts,), torch.float64, x),
            "arrivals": room((turns * rows,), torch.int32, x).zero_(),
            "parts": self.parts,
            "programs": self.programs,
            "patience": widths.PATIENCE + widths.PATIENCE_A_PART * self.parts,
            "IS_HELD": self.programs == self.parts,
        }

    def options(self) -> dict[str, Any]:
        """What a kernel of whole rows is compiled for."""
        return self.options_of(block_for(self.places.n, self.lie))

    def part_options(self, is_light: bool) -> dict[str, Any]:
        """What a kernel of parts is compiled for: two of its programs share a multiprocessor if they need not much."""
        options = self.options_of(Block(1, widths.PART, block_for(widths.PART).warps))
        is_wide = all(getattr(options["LAY"], name) == AT_ONCE for name in self.tensors)
        # Where entries are reached one by one, their places take registers, too.
        if is_light and is_wide and "where" not in self.tensors and torch.version.hip is None:
            options["maxnreg"] = widths.REGISTERS
        return options

    def options_of(self, block: Block) -> dict[str, Any]:
        """What a kernel is compiled for."""
        vector = vector_of(self.tensors["x"], self.places.n, self.lie)
        lay = Lay(
            batch_dims=len(self.places.batch),
            row_dims=len(self.places.row),
            lie=self.lie,
            vector=vector,
            rows=block.rows,
            width=block.width,
            x=self.access("x", vector),
            operand=self.access("operand", vector),
            where=self.access("where", vector),
            result=self.access("result", vector),
        )
        return {"LAY": lay, "num_warps": block.warps, "enable_fp_fusion": False}


@cache
def multiprocessors(device: torch.device) -> int:
    """How many programs a device runs at once at least."""
    if device.type != "cuda":
        return widths.MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def lie_of(x: Tensor, axes: tuple[int, ...]) -> int:
    """How the scores of a row lie: nothing of the batch or of other tensors, for a row has its bits alone."""
    row = merged(x.shape, [x.stride()], list(axes))
    size, (step,) = row[-1]
    if len(row) == 1 and (size == 1 or step == 1):
        return PLAIN
    return SIDE_BY_SIDE if abs(step) >= widths.APART else SCATTERED


def vector_of(x: Tensor, n: int, lie: int) -> int:
    """How many neighbours make 16 bytes, where rows are plain and so long."""
    vector = 16 // x.element_size()
    return vector if lie == PLAIN and n % vector == 0 else 1


def launch(
    work: Work,
    x: Tensor,
    where: Tensor | None,
    entries: Tensor | None,
    figures: list[Tensor],
    is_lenient: bool = False,
) -> Tensor | None:
    """Run the kernel of rows that one program holds, or that of longer ones; the entries' results."""
    call, solver = work.call, work.solver
    operand = None if work.operand is None else work.operand.detach()
    lying = Lying.of(call, {"x": x, "operand": operand, "where": where, "result": entries})
    heat = temperature_of(call, lying.places)
    high, low = parts(solver.a)
    arguments = {
        **{name: lying.tensors.get(name) for name in ("x", "operand", "where", "result")},
        "figures": figures[0] if figures else None,
        "more_figures": figures[1] if len(figures) > 1 else None,
        "temperature": heat.numbers,
        "sink": None if call.sink is None else row_numbers(call, call.sink, torch.float64),
        "classes": work.classes,
        "class_weights": work.class_weights,
        "scale": None if work.scale is None else row_numbers(call, work.scale, torch.float64),
        "n": lying.places.n,
        "rows": lying.places.rows,
        "sizes": lying.places.sizes,
        **{f"{name}_strides": lying.strides(name) for name in ("x", "operand", "where", "result")},
        "coolness": heat.coolness,
        "a_high": high,
        "a_low": low,
        "ignored": work.ignored,
        "TASK": work.task(heat.kind, is_lenient),
    }
    with on_device(x):
        if call.length <= widths.LONGEST:
            short.short_rows[lying.grid](**arguments, **lying.options())
        else:
            is_dense = solver.number in (SOFTMAX, LOG_SOFTMAX)
            turns = 1 if is_dense else 1 + long.OTHER_TURNS
            numbers = long.SURVEYED.value + 2 * (turns - 1)
            grid = (lying.places.rows * lying.programs,)
            is_light = is_dense and work.method == VALUE and call.sink is None and heat.kind < 2
            options = lying.part_options(is_light)
            long.long_rows[grid](**arguments, **lying.meeting(numbers, turns), **options)
    return lying.tensors.get("result")


class Heat(NamedTuple):
    """The temperature as kernels take it."""

    kind: int
    coolness: float = 1.0
    numbers: Tensor | None = None


def temperature_of(call: Call, places: Places) -> Heat:
    """A number that is mild is a float of 16-bit rows; all else, and what is not allowed, is one float64 a row."""
    number = call.temperature
    if isinstance(number, float) and call.invalid is None:
        if number == 1.0:
            return Heat(0)
        if call.dtype in SIXTEEN_BIT and 1.0 / MILD <= number <= MILD:
            return Heat(1, 1.0 / number)
        return Heat(2, 1.0, torch.full((places.rows,), number, dtype=torch.float64, device=call.x.device))
    if isinstance(number, float):
        number = torch.full((), number, dtype=torch.float64, device=call.x.device)
    if call.invalid is not None:
        number = torch.where(call.invalid, math.nan, number)
    return Heat(2, 1.0, row_numbers(call, number, torch.float64))


def row_numbers(call: Call, value: Any, dtype: torch.dtype) -> Tensor:
    """A parameter as one number a row."""
    rows = math.prod(call.batch)
    if isinstance(value, float):
        return torch.full((rows,), value, dtype=dtype, device=call.x.device)
    value = value.detach()
    if value.ndim == call.x.ndim:
        value = value.squeeze(call.axes)
    return dense(value.to(dtype).expand(call.batch)).reshape(-1)


def dense(x: Tensor) -> Tensor:
    """The numbers of a tensor as they lie for who reads its memory: without gaps, and without a sign kept aside."""
    return x.resolve_neg().contiguous()


def parts(number: float) -> tuple[float, float]:
    """A float64 as two float32."""
    high = float(np.float32(number))
    return high, float(np.float32(number - high))


def on_device(x: Tensor) -> Any:
    """The device of a tensor made the current one; nothing for the interpreter, which takes any memory."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
