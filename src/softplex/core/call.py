"""One checked call, and what it asks of the backend of its arrays. How a call is checked stands in arguments.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from softplex.core.arrays import Array, Number

Kind = Literal["entries", "row", "matrix", "classes"]
"""The shape of x; that without the normalised axes; batch + (n, n); (n,), the same for all rows."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Asked:
    """What is asked of a formula, for backends that have faster ways to answer than its functions."""

    method: str
    formula: Any
    targets: Any = None
    """Those of a loss or a residual."""
    names: tuple[str, ...] = ("x",)
    """What a vjp is asked for."""


class Backend(Protocol):
    """What the library asks of a kind of array."""

    working: Any
    """The dtype that formulas compute in."""
    xp: Any

    def threads(self) -> int:
        """How many threads a kernel may use."""

    def as_array(self, x: Any, name: str) -> Array:
        """The scores as an array of the backend; TypeError for a dtype that is not taken."""

    def result_dtype(self, x: Array, dtype: Any, name: str) -> Any:
        """The dtype of the result."""

    def as_parameter(self, value: Any, what: str) -> Number:
        """A Python float or an array of floats."""

    def as_mask(self, where: Any, name: str) -> Array:
        """A bool array."""

    def as_operand(self, value: Any, what: str) -> Array:
        """A tangent, cotangent or distribution as a real array."""

    def as_targets(self, y: Any, what: str) -> tuple[Array, bool]:
        """Targets, and whether they are class indices."""

    def visible(self, array: Any, given: Any) -> Any:
        """What the caller gave, if it may be looked at where the backend's array made of it may not."""

    def look(self, flags: Any) -> bool | None:
        """Whether all flags are set; None if that cannot be told now."""

    def first_where(self, values: Array, flags: Array) -> Any:
        """The first flagged value."""

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[Array, ...]],
        operands: Sequence[tuple[Kind, Array]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[Array]:
        """Apply `function(rows, hyper, *operands)` to all rows; `results`: kinds and dtypes of what it returns.

        `asked` says in a word what the function does, where that is a method of a formula.
        """

    def sum_to(self, rows: Array, call: Call, given: Any) -> Array:
        """One number a row, summed to the shape (and in the floating dtype) of the parameter that was given."""

    def reduced_at_once(self, call: Call, asked: Asked, reduction: str) -> Array | None:
        """The sum or mean of the losses by a kernel that finds its gradient on the way; None where there is none."""

    def reduced(self, values: Array, weights: Array | None, counted: Array | None, dtype: Any, reduction: str) -> Array:
        """The rows' losses, their sum or their mean: over the weights if given, 0 if none of the rows is counted."""

    def copied_into(self, out: Any, result: Array, name: str) -> Array:
        """The result written to the caller's array, if the backend has arrays that can be written to."""


class Call(NamedTuple):
    """One call of a map, checked. A tuple, which is made in a third of the time of a frozen dataclass."""

    name: str
    backend: Backend
    x: Array
    """At least one axis; a 0-d array has become a row of length 1."""
    is_scalar: bool
    axes: tuple[int, ...]
    dtype: Any
    """Of the result."""
    temperature: Number = 1.0
    where: Array | None = None
    sink: Number | None = None
    empty_value: float = 0.0
    hyper: Mapping[str, Number] = NOTHING
    given: Mapping[str, Any] = NOTHING
    """The parameters as the caller gave them, for the shape and dtype of their derivatives."""
    invalid: Array | None = None
    """Where a parameter that cannot be looked at is not allowed."""

    def with_invalid(self, flags: Array) -> Call:
        """This call with more rows to become NaN."""
        return self._replace(invalid=flags if self.invalid is None else self.invalid | flags)

    @property
    def order(self) -> tuple[int, ...]:
        """The axes, the normalised ones last."""
        return (*[axis for axis in range(len(self.x.shape)) if axis not in self.axes], *self.axes)

    @property
    def batch(self) -> tuple[int, ...]:
        """The shape of x without the normalised axes."""
        axes = self.axes
        return tuple([size for axis, size in enumerate(self.x.shape) if axis not in axes])

    @property
    def length(self) -> Any:
        """How many entries a row has; None where a graph leaves that open."""
        return length_of(self.x, self.axes)


def length_of(x: Array, axes: tuple[int, ...]) -> Any:
    """How many entries a row has that is normalised along these axes; None where a graph leaves that open."""
    sizes = [x.shape[axis] for axis in axes]
    return None if any(size is None for size in sizes) else math.prod(sizes)
