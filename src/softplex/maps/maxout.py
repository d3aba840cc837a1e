"""maxout: the maximum over groups of scores (Goodfellow et al. 2013, arXiv:1302.4389); no simplex map.

NaN wins, infinities are numbers, and the derivatives go to the first winner of each group.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from softplex.core.arguments import DEFAULT_AXIS, Axis, read, same_shape
from softplex.core.arrays import Array, Namespace, known
from softplex.core.call import Asked, Call, Kind
from softplex.core.formula import Formula
from softplex.core.roads import AS_IT_STANDS, entrance, handle_for
from softplex.core.rows import Rows

LAYOUTS = ("contiguous", "strided")


@dataclass(frozen=True)
class Groups:
    """How an axis falls into units of pieces."""

    call: Call
    axis: int
    """The grouped axis."""
    units: int
    pieces: int
    layout: str
    keeps_axis: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        if not self.keeps_axis or self.call.is_scalar:
            return self.call.batch
        return tuple(self.units if axis == self.axis else size for axis, size in enumerate(self.call.x.shape))


@dataclass(frozen=True)
class Maxout:
    """Maximum over the pieces of each unit.

        y_u = max_j x_(u, j)

    Arguments:
        x: scores of any shape, an array or tensor; float64, float32, float16 or bfloat16 (integers and booleans become
            the default float).
        pieces: how many entries make a unit: an axis of units * pieces shrinks to units. Without it the axis is the
            pieces and goes.
        axis: the axis that holds the pieces; without `pieces` also a tuple of axes or None for all.
        layout: "contiguous" (the pieces of a unit are neighbours) or "strided" (they lie `units` apart).
        dtype: the dtype that x is cast to first and that the result has.
        out: for NumPy's arrays only, one for the result.

    Returns:
        An array of the library of x, of its shape with the axis shrunk or gone. Methods: winner, vjp, jvp.

    Raises:
        TypeError: for a dtype or keyword that is not taken.
        ValueError: where the axis does not divide into pieces, or there are none.

    Example:
        >>> import softplex as sx
        >>> sx.maxout([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]])
        array([[ 3.,  6.],
               [ 9., 12.]])
        >>> sx.maxout([1, 5, 2, 3], pieces=2)
        array([5., 3.])

    Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
    """

    name: str = "maxout"

    autograph_info__ = AS_IT_STANDS

    def __post_init__(self) -> None:
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "handle", handle_for(self))

    def __repr__(self) -> str:
        return f"<softplex {self.name}>"

    def __reduce__(self) -> tuple[type[Maxout], tuple[str]]:
        return Maxout, (self.name,)

    @entrance
    def __call__(
        self,
        x: Any,
        pieces: int | None = None,
        axis: Axis = DEFAULT_AXIS,
        *,
        layout: str = "contiguous",
        dtype: Any = None,
        out: Any = None,
        dim: Any = DEFAULT_AXIS,
    ) -> Array:
        """The maximum of each unit."""
        groups = self._read(x, pieces, axis, layout, dtype, dim)
        return self._reduce(groups, largest, groups.call.dtype, "value", out)

    @entrance
    def winner(
        self,
        x: Any,
        pieces: int | None = None,
        axis: Axis = DEFAULT_AXIS,
        *,
        layout: str = "contiguous",
        dtype: Any = None,
        dim: Any = DEFAULT_AXIS,
    ) -> Array:
        """The index of the first winner within its unit.

            argmax_j x_(u, j)

        Arguments:
            x, pieces, axis, layout, dtype, dim: as in a call.

        Returns:
            int64, shape of the result.

        Raises:
            TypeError, ValueError: as in a call.

        Example:
            >>> import softplex as sx
            >>> sx.maxout.winner([1, 5, 3, 3], pieces=2)
            array([1, 0])

        Source: Goodfellow et al. 2013, arXiv:1302.4389.
        """
        groups = self._read(x, pieces, axis, layout, dtype, dim)
        return self._reduce(groups, first_winner, groups.call.backend.xp.int64, "winner")

    @entrance
    def vjp(
        self,
        x: Any,
        g: Any,
        pieces: int | None = None,
        axis: Axis = DEFAULT_AXIS,
        *,
        layout: str = "contiguous",
        dtype: Any = None,
        dim: Any = DEFAULT_AXIS,
    ) -> Array:
        """The cotangent of each unit, sent to its first winner.

            g_u where j is the first winner of u, else 0

        Arguments:
            x, pieces, axis, layout, dtype, dim: as in a call.
            g: the cotangent, shape of the result.

        Returns:
            An array of the shape of x.

        Raises:
            TypeError, ValueError: as in a call; where g has another shape.

        Example:
            >>> import softplex as sx
            >>> sx.maxout.vjp([1, 5, 3, 3], [1.0, 2.0], pieces=2)
            array([0., 1., 2., 0.])

        Source: Goodfellow et al. 2013, arXiv:1302.4389.
        """
        groups = self._read(x, pieces, axis, layout, dtype, dim)
        call = groups.call
        g = call.backend.as_operand(g, f"{self.name}: g")
        if not same_shape(g.shape, groups.shape):
            raise ValueError(
                f"{self.name}: g has shape {tuple(g.shape)}; it must have the result's shape {groups.shape}"
            )
        call = self._split_call(groups)
        found = self.pulled_back(call, call.backend.xp.reshape(g, call.batch))
        return call.backend.xp.reshape(found, () if call.is_scalar else tuple(groups.call.x.shape))

    def pulled_back(self, call: Call, g: Array) -> Array:
        """The cotangents, one a row of a call whose axes hold the pieces, sent to the winners."""
        kinds: list[tuple[Kind, Any]] = [("entries", call.dtype)]
        return call.backend.run(call, self.send, [("row", g)], kinds, asked=Asked("vjp", self))[0]

    @staticmethod
    def send(rows: Rows, hyper: object, g: Array) -> tuple[Array]:
        """A number a row, sent to the winner."""
        xp = rows.xp
        return (xp.where(has_won(xp, rows.x), xp.astype(g, xp.working), 0.0),)

    @staticmethod
    def take(rows: Rows, hyper: object, t: Array) -> tuple[Array]:
        """The winner's number of each row."""
        return (of_winner(rows.xp, rows.x, rows.xp.astype(t, rows.xp.working)),)

    @entrance
    def jvp(
        self,
        x: Any,
        t: Any,
        pieces: int | None = None,
        axis: Axis = DEFAULT_AXIS,
        *,
        layout: str = "contiguous",
        dtype: Any = None,
        dim: Any = DEFAULT_AXIS,
    ) -> Array:
        """The tangent of the first winner of each unit.

            t_(u, j) with j the first winner of u

        Arguments:
            x, pieces, axis, layout, dtype, dim: as in a call.
            t: the tangent, shape of x.

        Returns:
            An array of the shape of the result.

        Raises:
            TypeError, ValueError: as in a call; where t has another shape.

        Example:
            >>> import softplex as sx
            >>> sx.maxout.jvp([1, 5, 3, 3], [1.0, 2.0, 3.0, 4.0], pieces=2)
            array([2., 3.])

        Source: Goodfellow et al. 2013, arXiv:1302.4389.
        """
        groups = self._read(x, pieces, axis, layout, dtype, dim)
        call = groups.call
        t = call.backend.as_operand(t, f"{self.name}: t")
        given = () if call.is_scalar else tuple(call.x.shape)
        if not same_shape(t.shape, given):
            raise ValueError(f"{self.name}: t has shape {tuple(t.shape)}; it must have x's shape {given}")
        grouped = self._grouped(groups, call.backend.xp.reshape(t, call.x.shape))
        return self._run(groups, self.take, call.dtype, "jvp", [("entries", grouped)])

    def _read(
        self,
        x: Any,
        pieces: Any,
        axis: Axis,
        layout: str = "contiguous",
        dtype: Any = None,
        dim: Any = DEFAULT_AXIS,
    ) -> Groups:
        """Check the arguments."""
        call = read(self.name, Formula(), x, axis, dtype=dtype, dim=dim)
        known(call.length)
        if layout not in LAYOUTS:
            raise ValueError(f"{self.name}: layout={layout!r} is not known; give 'contiguous' or 'strided'")
        if pieces is None:
            if call.length == 0:
                raise ValueError(f"{self.name}: the axis of pieces has length 0; a maximum needs at least one")
            return Groups(call, call.axes[0], 1, call.length, layout, keeps_axis=False)
        try:
            pieces = operator.index(pieces)
        except TypeError:
            raise TypeError(
                f"{self.name}: pieces={pieces!r} is not an integer; give how many entries make a unit"
            ) from None
        if len(call.axes) > 1:
            raise ValueError(
                f"{self.name}: axis={call.axes} with pieces={pieces}; pieces are grouped along one axis, give one"
            )
        if pieces < 1 or call.length % pieces:
            raise ValueError(
                f"{self.name}: pieces={pieces} with an axis of length {call.length}; pieces must divide it"
            )
        return Groups(call, call.axes[0], call.length // pieces, pieces, layout, keeps_axis=True)

    def _grouped(self, groups: Groups, array: Array) -> Array:
        """The array with the grouped axis split, the pieces on an axis of their own, after or before the units."""
        if not groups.keeps_axis:
            return array
        split = (groups.units, groups.pieces) if groups.layout == "contiguous" else (groups.pieces, groups.units)
        shape = tuple(array.shape)
        return groups.call.backend.xp.reshape(array, (*shape[: groups.axis], *split, *shape[groups.axis + 1 :]))

    def _split_call(self, groups: Groups) -> Call:
        """The call on the grouped array, in which the axis of pieces is the one that goes."""
        if not groups.keeps_axis:
            return groups.call
        axis = groups.axis + (1 if groups.layout == "contiguous" else 0)
        return groups.call._replace(x=self._grouped(groups, groups.call.x), axes=(axis,))

    def _reduce(
        self, groups: Groups, reduce: Callable[[Namespace, Array], Array], dtype: Any, method: str, out: Any = None
    ) -> Array:
        def function(rows: Rows, hyper: object) -> tuple[Array]:
            return (reduce(rows.xp, rows.x),)

        return self._run(groups, function, dtype, method, [], out)

    def _run(self, groups: Groups, function: Any, dtype: Any, method: str, operands: Any, out: Any = None) -> Array:
        call = self._split_call(groups)
        result = call.backend.run(call, function, operands, [("row", dtype)], asked=Asked(method, self))[0]
        if call.is_scalar and groups.keeps_axis:
            result = call.backend.xp.reshape(result, ())
        return result if out is None else call.backend.copied_into(out, result, self.name)


def first_winner(xp: Namespace, rows: Array) -> Array:
    """The index of the first maximum; a NaN is larger than any number."""
    top = xp.max(rows, axis=-1, keepdims=True)
    is_winner = (rows == top) | xp.isnan(rows)
    return xp.argmax(xp.astype(is_winner, xp.int64), axis=-1, keepdims=True)


def has_won(xp: Namespace, rows: Array) -> Array:
    """Whether an entry is the first maximum of its row."""
    return xp.arange(rows.shape[-1]) == first_winner(xp, rows)


def of_winner(xp: Namespace, rows: Array, values: Array) -> Array:
    """The value that stands where the first maximum does; a maximum with -inf loses no bit of it, not even -0's."""
    return xp.max(xp.where(has_won(xp, rows), values, -xp.inf), axis=-1, keepdims=True)


def largest(xp: Namespace, rows: Array) -> Array:
    """The maximum; of -0 and 0, which are equal, the first."""
    top = xp.max(rows, axis=-1, keepdims=True)
    return xp.choose(top == 0.0, lambda: of_winner(xp, rows, rows), lambda: top)


maxout = Maxout()
