"""Which backend an array belongs to, and what a backend owes. One file beside this one for each kind of array.

No framework is imported here unless the caller has imported it: the choice looks at the name of the array's module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from softplex.core.arrays import Array, Number

if TYPE_CHECKING:
    from softplex.core.arguments import Call

Kind = Literal["entries", "row", "matrix", "classes"]
"""The shape of x; that without the normalised axes; batch + (n, n); (n,), the same for all rows."""


class Backend(Protocol):
    """What the library asks of a kind of array."""

    working: Any
    """The dtype that formulas compute in."""
    xp: Any

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
    ) -> list[Array]:
        """Apply `function(rows, hyper, *operands)` to all rows; `results`: kinds and dtypes of what it returns."""

    def sum_to(self, rows: Array, call: Call, given: Any) -> Array:
        """One number a row, summed to the shape (and in the floating dtype) of the parameter that was given."""

    def reduced(self, values: Array, weights: Array | None, counted: Array | None, dtype: Any, reduction: str) -> Array:
        """The rows' losses, their sum or their mean: over the weights if given, 0 if none of the rows is counted."""

    def copied_into(self, out: Any, result: Array, name: str) -> Array:
        """The result written to the caller's array, if the backend has arrays that can be written to."""

    def rounded(self, values: Array, dtype: Any) -> Array:
        """Values in a result's dtype."""


UNSUPPORTED = ("torch", "tensorflow", "keras")


def backend_of(x: Any, name: str) -> Backend:
    """The backend for an array, by the module of its type."""
    root = type(x).__module__.partition(".")[0]
    if root in UNSUPPORTED:
        raise TypeError(
            f"{name}: {type(x).__module__}.{type(x).__qualname__} is not supported; convert it to NumPy first"
        )
    if root == "dask":
        from softplex.backends.dask import dask_backend

        return dask_backend()
    if root in ("numpy", "ml_dtypes") or not hasattr(x, "__array_namespace__"):
        from softplex.backends.numpy import NUMPY

        return NUMPY
    from softplex.backends import array_api

    return array_api.backend_for(x.__array_namespace__(), root)
