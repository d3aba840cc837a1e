"""What the primitive is asked to do: one method of one map, all that is no array in one hashable value.

Here a checked call becomes a `Work` and its arrays, and these become a call again, for formulas and kernels to answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from softplex.backends.array_api import ArrayApiBackend
from softplex.backends.jax.functions import JaxFunctions, PlainNamespace
from softplex.core.arrays import Array, Namespace
from softplex.core.call import Asked, Call, Kind
from softplex.core.formula import Hyper
from softplex.core.rows import Rows

Results = tuple[tuple[Kind, Any], ...]
NOT_HYPER = ("x", "where", "sink", "temperature", "invalid")
BITS = " in bits"
"""Of the name of an array that holds a number's bits, beside the array of its value: for the kernels."""

REST = " rest"
"""Of the name of an array that holds what the value lacks in the working precision: for the formulas."""

FREE = ("temperature", "sink")
"""What may differ from call to call of one program."""


@dataclass(frozen=True)
class Work:
    """A method of a formula on rows, known by what is asked; `function` computes it and follows from that."""

    asked: Asked
    axes: tuple[int, ...]
    depth: int
    """How many axes the scores have."""
    dtype: Any
    """Of the scores, and of a result that is like them."""
    results: Results
    function: Callable[..., tuple[Array, ...]] = field(compare=False, repr=False)
    arrays: tuple[str, ...] = ("x",)
    """What of the call is an array: the scores first."""
    fixed: tuple[tuple[str, float], ...] = ()
    """What of it is a number."""
    operands: tuple[Kind, ...] = ()
    working: Any = None
    is_empty_nan: bool = False
    is_narrow: bool = False
    """The working precision holds the differences of scores that come in fewer digits."""
    uses_kernels: bool = True
    name: str = field(default="softplex", compare=False)

    def batched(self) -> Work:
        """This with one more axis before the others."""
        return replace(self, axes=tuple([axis + 1 for axis in self.axes]), depth=self.depth + 1)

    def call_of(self, arrays: Sequence[Array], following: Namespace | None = None) -> tuple[Call, list[Array]]:
        """The call again, and the operands."""
        known, operands = self.known(arrays)
        call = Call(
            self.name,
            inside(self.working, following),
            known["x"],
            False,
            self.axes,
            self.dtype,
            temperature=known.get("temperature", 1.0),
            where=known.get("where"),
            sink=known.get("sink"),
            empty_value=math.nan if self.is_empty_nan else 0.0,
            hyper={name: value for name, value in known.items() if name not in NOT_HYPER and not is_beside(name)},
            invalid=known.get("invalid"),
        )
        return call, operands

    def known(self, arrays: Sequence[Array]) -> tuple[dict[str, Any], list[Array]]:
        """What is known of the call by name, numbers and arrays, and the operands."""
        count = len(self.arrays)
        return {**dict(self.fixed), **dict(zip(self.arrays, arrays[:count], strict=True))}, list(arrays[count:])

    def exactly(self, call: Call, arrays: Sequence[Array]) -> Call:
        """The call with numbers as their bits where these are there."""
        known, _ = self.known(arrays)
        return call._replace(**{name: known[name + BITS] for name in FREE if name + BITS in known})

    def with_free_numbers(self, arrays: Sequence[Array]) -> tuple[Work, list[Array]]:
        """This for any such numbers, and its arrays with these, which stand between the call's and the operands."""
        cold = ("temperature", 1.0)
        free = {
            name: value for name, value in self.fixed if name in FREE and is_ordinary(value) and (name, value) != cold
        }
        if not free:
            return self, list(arrays)
        added: dict[str, NDArray[Any]] = {}
        for name, value in free.items():
            added[name] = np.full((1,) * self.depth, value, self.working)
            added[name + BITS] = np.array([value], np.float64).view(np.int32)
        if "temperature" in free and self.working == np.float32:
            rest = rest_of(free["temperature"], self.working)
            added["temperature" + REST] = np.full((1,) * self.depth, rest, self.working)
        fixed = tuple([pair for pair in self.fixed if pair[0] not in free])
        place = len(self.arrays)
        given = [*arrays[:place], *added.values(), *arrays[place:]]
        return replace(self, arrays=(*self.arrays, *added), fixed=fixed), given

    def by_formulas(self, *arrays: Array, following: Namespace | None = None) -> list[Array]:
        """The results by the formulas, of which a namespace may make differentiable functions."""
        call, operands = self.call_of(arrays, following)
        call = call._replace(
            temperature=held(self.working, call.temperature),
            sink=held(self.working, call.sink),
            hyper={name: held(self.working, value) for name, value in call.hyper.items()},
        )
        pairs = list(zip(self.operands, operands, strict=True))
        rest = self.temperature_rest(arrays)

        def function(rows: Rows, hyper: Hyper, *operands: Array) -> tuple[Array, ...]:
            return self.function(replace(rows, temperature_rest=rest), hyper, *operands)

        with jax.numpy_rank_promotion("allow"):  # a caller may forbid it to find mistakes; classes meet rows on purpose
            return call.backend.run(call, function, pairs, self.results)

    def temperature_rest(self, arrays: Sequence[Array]) -> Any:
        """What the temperature lacks in the working precision."""
        known, _ = self.known(arrays)
        if "temperature" + REST in known:
            return jnp.reshape(known["temperature" + REST], ())
        return rest_of(known.get("temperature", 1.0), self.working)


def held(working: Any, number: Any) -> Any:
    """A finite number as near as a normal one of the working precision comes to it; anything else as it is."""
    if not isinstance(number, float) or number == 0.0 or not math.isfinite(number):
        return number
    limits = np.finfo(working)
    return math.copysign(min(max(abs(number), float(limits.smallest_normal)), float(limits.max)), number)


def is_beside(name: str) -> bool:
    """Whether an array says of a number what its value does not."""
    return name.endswith((BITS, REST))


def rest_of(number: Any, working: Any) -> float:
    """What a number lacks once it is rounded to the working precision; nothing for arrays."""
    if not isinstance(number, float) or not is_ordinary(number):
        return 0.0
    return number - float(np.dtype(working).type(number))


def is_ordinary(number: float) -> bool:
    """Whether a number is far from what no float32 holds."""
    return number == 0.0 or 2.0**-60 < abs(number) < 2.0**60


class Inside(ArrayApiBackend):
    """The formulas' side of the primitive: arrays that are checked."""

    def __init__(self, working: Any, following: Namespace | None) -> None:
        self.functions = functions_for(working)
        self.root = "jax"
        self.can_look = False
        self.working = working
        self.xp = following or plain_namespace(working)


@lru_cache
def inside(working: Any, following: Namespace | None) -> Inside:
    """The formulas' side in a working precision."""
    return Inside(working, following)


@lru_cache
def functions_for(working: Any) -> JaxFunctions:
    """The functions of a working precision."""
    return JaxFunctions(has_64=working == np.float64)


@lru_cache
def plain_namespace(working: Any) -> PlainNamespace:
    """The functions, not differentiated."""
    return PlainNamespace(functions_for(working), can_look=False, working=working)


def work_of(
    call: Call,
    function: Callable[..., tuple[Array, ...]],
    operands: Sequence[tuple[Kind, Array]],
    results: Sequence[tuple[Kind, Any]],
    asked: Asked,
    *,
    uses_kernels: bool,
) -> tuple[Work, list[Array]]:
    """What a call asks for, and its arrays."""
    if asked.targets is not None:
        asked = replace(asked, targets=asked.targets.without_arrays())
    depth = call.x.ndim
    given = {
        "where": call.where,
        "sink": call.sink,
        "temperature": call.temperature,
        "invalid": call.invalid,
        **call.hyper,
    }
    arrays = {"x": call.x}
    fixed = []
    for name, value in given.items():
        if isinstance(value, float):
            fixed.append((name, math.nan if math.isnan(value) else value))
        elif value is not None:
            arrays[name] = jnp.reshape(value, (1,) * (depth - value.ndim) + tuple(value.shape))
    dtype = np.dtype(call.dtype)
    work = Work(
        asked,
        call.axes,
        depth,
        dtype,
        tuple([(kind, np.dtype(result)) for kind, result in results]),
        function,
        arrays=tuple(arrays),
        fixed=tuple(fixed),
        operands=tuple([kind for kind, _ in operands]),
        working=np.dtype(call.backend.working),
        is_empty_nan=math.isnan(call.empty_value),
        is_narrow=dtype.itemsize < np.dtype(call.backend.working).itemsize,
        uses_kernels=uses_kernels,
        name=call.name,
    )
    return work, [*arrays.values(), *(array for _, array in operands)]
