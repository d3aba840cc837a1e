"""Map: the object a user calls. It checks the arguments and runs a formula through the array's backend.

How a map computes is its formula's business (maps/ and core/formula.py), how arrays are walked the backend's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from softplex.core import targets as losses
from softplex.core.arguments import DEFAULT_AXIS, Axis, read, read_hyper, read_like, read_wrt
from softplex.core.arrays import Array, Terms, known
from softplex.core.call import Asked, Call
from softplex.core.compose import Bound
from softplex.core.derivatives import pulled_back, pushed_forward
from softplex.core.describe import call_signature, docstring
from softplex.core.formula import Formula, Hyper, Parameter
from softplex.core.roads import AS_IT_STANDS, ROADS, entrance, handle_for, road_of
from softplex.core.rows import Rows

FOUND_AGAIN = ("_quick", "_cut", "_loss_cut", "handle")
"""What is kept beside a map for the sake of speed, and goes nowhere with it."""

SCORES = "x"
"""What a vjp is with respect to if nothing is said."""


@dataclass(frozen=True)
class Map:
    """A map from scores to weights; call it as a function. Its methods give the derivatives and the loss.

    Arrays are those of NumPy, JAX, PyTorch, TensorFlow, Keras or another array-API library; results are of x's library.
    """

    name: str
    formula: Formula
    summary: str = ""
    equation: str = ""
    source: str = ""
    example: str = ""

    autograph_info__ = AS_IT_STANDS

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "__doc__", docstring(self.formula, self.summary, self.equation, self.source, self.example)
        )
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "handle", handle_for(self))
        object.__setattr__(self, "__signature__", call_signature(self.formula.parameters))

    def __repr__(self) -> str:
        return f"<softplex map {self.name}>"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the hyper-parameters that a call may give."""
        return tuple(parameter.name for parameter in self.formula.parameters)

    def __call__(
        self,
        x: Any,
        axis: Axis = DEFAULT_AXIS,
        *,
        out: Any = None,
        **options: Any,
    ) -> Array:
        """The weights, shape of x."""
        if type(x) is ndarray:
            found = self._quick("value", x, None, axis, out, options)
            if found is not None:
                return found
        elif (road := ROADS.get(type(x)) or road_of(type(x))) is not None:
            given = () if axis is DEFAULT_AXIS else (axis,)
            return road("_call", Map._call, self, x, given, options if out is None else {"out": out, **options})
        return self._call(x, axis, out=out, **options)

    def _call(self, x: Any, axis: Axis = DEFAULT_AXIS, *, out: Any = None, **options: Any) -> Array:
        """A call of any kind."""
        call = self._read(x, axis, **options)
        asked = Asked("value", self.formula)
        return call.backend.run(call, self._value, [], [("entries", call.dtype)], out, asked)[0]

    @entrance
    def vjp(
        self, x: Any, g: Any, axis: Axis = DEFAULT_AXIS, *, wrt: str | tuple[str, ...] = SCORES, **options: Any
    ) -> Any:
        """The vector-Jacobian product of a cotangent.

            g^T J;  for separable maps s (g - <s, g> / sum s) with s = 1 / omega''(p)

        Arguments:
            x: scores, as in a call.
            g: the cotangent of the result, shape of x.
            wrt: "x", or the name of a parameter that the call has (temperature, sink, a hyper-parameter), or a tuple of
                names.
            options: axis, temperature, where, sink, empty, dtype, dim and hyper-parameters as in a call.

        Returns:
            For "x" an array of the shape and dtype of the result, for a parameter one of the parameter's shape; a tuple
            for a tuple.

        Raises:
            ValueError: where g has another shape, or a name is not known.

        Example:
            >>> import softplex as sx
            >>> sx.sparsemax.vjp([0.5, 0.25, -3.0], [1.0, 0.0, 5.0])
            array([ 0.5, -0.5,  0. ])

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        if wrt is SCORES and (quick := self._quick("vjp", x, g, axis, None, options)) is not None:
            return quick
        call = self._read(x, axis, **options)
        results = pulled_back(call, self.formula, read_like(call, g, "g"), read_wrt(call, wrt))
        return results[0] if isinstance(wrt, str) else results

    @entrance
    def jvp(self, x: Any, t: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
        """The Jacobian-vector product of a tangent.

            J t;  J is symmetric

        Arguments:
            x: scores, as in a call.
            t: the tangent of x, shape of x.
            options: as in `vjp`.

        Returns:
            An array of the shape and dtype of the result.

        Raises:
            ValueError: where t has another shape.

        Example:
            >>> import softplex as sx
            >>> sx.sparsemax.jvp([0.5, 0.25, -3.0], [1.0, 0.0, 5.0])
            array([ 0.5, -0.5,  0. ])

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        found = self._quick("jvp", x, t, axis, None, options)
        if found is not None:
            return found
        call = self._read(x, axis, **options)
        return pushed_forward(call, self.formula, read_like(call, t, "t"))

    @entrance
    def jacobian(self, x: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
        """The matrix of all derivatives.

            J[i, j] = dp_i / dx_j

        Arguments:
            x: scores, as in a call.
            options: as in `vjp`.

        Returns:
            An array of shape batch + (n, n): x's axes without the normalised ones, then these, in C order, twice.

        Raises:
            TypeError, ValueError: as in a call.

        Example:
            >>> import softplex as sx
            >>> sx.sparsemax.jacobian([0.5, 0.25])
            array([[ 0.5, -0.5],
                   [-0.5,  0.5]])

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        call = self._read(x, axis, **options)

        def function(rows: Rows, hyper: Hyper) -> tuple[Array]:
            xp, length = rows.xp, known(rows.x.shape[-1])
            unit = xp.arange(length)
            identity = xp.astype(unit[:, None] == unit[None, :], xp.working)
            directions = xp.reshape(identity, (length, *(1 for _ in rows.x.shape[:-1]), length))
            solution = self.formula.solve(rows, hyper)
            matrix = xp.moveaxis(solution.vjp(directions, ("x",))["x"], 0, -2)
            if rows.mask is None:
                return (matrix,)
            return (xp.where(rows.mask[..., None] | rows.is_empty[..., None], matrix, 0.0),)

        asked = Asked("jacobian", self.formula)
        return call.backend.run(call, function, [], [("matrix", call.dtype)], asked=asked)[0]

    @entrance
    def support_size(self, x: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
        """How many entries of each row weigh something.

            count_nonzero(m(x))

        Arguments:
            x: scores, as in a call.
            options: as in `vjp`.

        Returns:
            int64, shape of x without the axis.

        Raises:
            TypeError: for a log map.

        Example:
            >>> import softplex as sx
            >>> sx.sparsemax.support_size([[0.5, 0.25, -3.0], [0.1, 0.2, 0.3]])
            array([2, 3])

        Source: Martins & Astudillo 2016, arXiv:1602.02068.
        """
        self._refuse_logarithm("support_size")
        call = self._read(x, axis, **options)

        def function(rows: Rows, hyper: Hyper) -> tuple[Array]:
            xp = rows.xp
            p = xp.astype(self._value(rows, hyper)[0], rows.dtype)
            return (xp.sum(xp.astype(p != 0.0, xp.int64), axis=-1, keepdims=True),)

        asked = Asked("support_size", self.formula)
        return call.backend.run(call, function, [], [("row", call.backend.xp.int64)], asked=asked)[0]

    @entrance
    def regularizer(
        self,
        p: Any,
        axis: Axis = DEFAULT_AXIS,
        *,
        where: Any = None,
        dtype: Any = None,
        dim: Any = DEFAULT_AXIS,
        **hyper: Any,
    ) -> Array:
        """Omega(p) by its formula; p is not checked.

            Omega(p), 0 at a vertex

        Arguments:
            p: weights of any shape.
            axis, where, dtype, dim, hyper: as in a call.

        Returns:
            An array of the shape of p without the axis.

        Raises:
            TypeError: for a log map or a blend, and for keywords of a call that have no meaning here.

        Example:
            >>> import softplex as sx
            >>> print(sx.sparsemax.regularizer([0.5, 0.5]))
            -0.25

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        self._refuse_unless_simplex("regularizer")
        given = read_hyper(self.name, self.formula.parameters, hyper)
        call = self._read(p, axis, where=where, dtype=dtype, dim=dim, **given)

        def function(rows: Rows, hyper: Hyper) -> tuple[Array]:
            p = rows.x if rows.mask is None else rows.xp.where(rows.mask, rows.x, 0.0)
            return (self.formula.regularizer(rows.xp, Terms(p), hyper),)

        asked = Asked("regularizer", self.formula)
        return call.backend.run(call, function, [], [("row", call.dtype)], asked=asked)[0]

    @entrance
    def smooth_max(self, x: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
        """The value of the maximum that the weights attain: logsumexp for softmax.

            max over p of <x, p> - temperature Omega(p);  its gradient is m(x)

        Arguments:
            x: scores, as in a call.
            options: as in `vjp`.

        Returns:
            An array of the shape of x without the axis; -inf for an empty row, or NaN with empty="nan".

        Raises:
            TypeError: for a log map or a blend.

        Example:
            >>> import softplex as sx
            >>> print(sx.sparsemax.smooth_max([0.5, 0.5]))
            0.75

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        self._refuse_unless_simplex("smooth_max")
        call = self._read(x, axis, **options)

        def function(rows: Rows, hyper: Hyper) -> tuple[Array]:
            return (self.formula.solve(rows, hyper).smooth_max(),)

        asked = Asked("smooth_max", self.formula)
        return call.backend.run(call, function, [], [("row", call.dtype)], asked=asked)[0]

    @entrance
    def loss(
        self,
        x: Any,
        y: Any,
        axis: Axis = DEFAULT_AXIS,
        *,
        reduction: str = "mean",
        ignore_index: int | None = None,
        weight: Any = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> Array:
        """The Fenchel-Young loss against class indices or distributions.

            Omega*(z) + Omega(y) - <z, y>  with z = x / temperature;  at least 0, and 0 for y = m(x)

        Arguments:
            x: scores, as in a call.
            y: class indices (integers, shape of x without the axis; flat for several axes) or distributions (floating,
                shape of x, taken as they are).
            reduction: "mean" (over the weights of the rows' classes; over the rows for distributions), "sum" or "none".
            ignore_index: a class index whose rows count for nothing.
            weight: one number a class; a row weighs w[y], or sum w y.
            label_smoothing: the part of each target that is spread evenly over the entries that take part.
            options: as in `vjp`.

        Returns:
            A 0-d array, or with "none" the shape of x without the axis. If no row counts, the mean is 0.

        Raises:
            IndexError: for a class index out of range. TypeError: for a log map or a blend.

        Example:
            >>> import softplex as sx
            >>> print(sx.sparsemax.loss([[0.0, 0.5], [3.0, 0.0]], [0, 0]))
            0.28125

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        self._refuse_unless_simplex("loss")
        call = self._read(x, axis, **options)
        targets = losses.read_targets(
            call, y, ignore_index=ignore_index, weight=weight, label_smoothing=label_smoothing
        )
        call = self._one_to_give(call, targets)
        asked = Asked("loss", self.formula, targets)
        return losses.reduced_loss(call, asked, losses.loss_rows, reduction)

    @entrance
    def residual(self, x: Any, y: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
        """Weights less target: the gradient of each row's loss in the scores that the map sees.

            p - y;  p_y - 1 is taken as -(the sum of the others)

        Arguments:
            x: scores, as in a call.
            y: class indices or distributions, as in `loss`.
            options: as in `vjp`.

        Returns:
            An array of the shape and dtype of the result.

        Raises:
            IndexError: for a class index out of range. TypeError: for a log map or a blend.

        Example:
            >>> import softplex as sx
            >>> sx.sparsemax.residual([0.0, 0.5], 0)
            array([-0.75,  0.75])

        Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
        """
        self._refuse_unless_simplex("residual")
        call = self._read(x, axis, **options)
        targets = losses.read_targets(call, y)
        call, is_index = self._one_to_give(call, targets), targets.is_index

        def function(rows: Rows, hyper: Hyper, y: Array) -> tuple[Array]:
            xp, solution = rows.xp, self.formula.solve(rows, hyper)
            if not is_index:
                return (solution.residual(xp.astype(y, xp.working)),)
            length = rows.x.shape[-1]
            found = solution.residual_of_index(losses.index_hits(xp, y, length))
            return (xp.patch(~losses.is_class(y, length), xp.nan, found),)

        asked = Asked("residual", self.formula, targets)
        return call.backend.run(call, function, [targets.operand], [("entries", call.dtype)], asked=asked)[0]

    def bind(self, **hyper: Any) -> Map:
        """This map with hyper-parameters fixed: a map as any other, hashable, comparable and picklable.

            m.bind(alpha=a)(x) = m(x, alpha=a)

        Arguments:
            hyper: a number for each hyper-parameter to be fixed.

        Returns:
            A map with the remaining hyper-parameters; the map itself where none is given.

        Raises:
            TypeError: for a name that is not a free hyper-parameter of the map, or what is not a number.
            ValueError: for a number that is not allowed.

        Example:
            >>> import softplex as sx
            >>> sx.entmax.bind(alpha=2)([0.5, 0.25])
            array([0.625, 0.375])

        Source: functools.partial does the same for functions.
        """
        known = {parameter.name: parameter for parameter in self.formula.parameters}
        fixed = []
        if not hyper:
            return self
        for key, value in hyper.items():
            if key not in known:
                takes = ", ".join(known) if known else "none"
                raise TypeError(
                    f"{self.name}.bind: {key!r} is not a hyper-parameter of it that is free; these are: {takes}"
                )
            fixed.append((key, bound_number(f"{self.name}.bind", known[key], value)))
        shown = ", ".join(f"{key}={short(value)}" for key, value in sorted(fixed))
        return Map(
            f"{self.name}({shown})",
            Bound(self.formula, tuple(sorted(fixed))),
            self.summary,
            self.equation,
            self.source,
            self.example,
        )

    def _quick(self, method: str, x: Any, operand: Any, axis: Axis, out: Any, options: dict[str, Any]) -> Any:
        """The result of one of the commonest calls, or None: what this does not know for certain it declines.

        It is found at the first call: the instance's own attribute hides this method then.
        """
        from softplex.native.calls import short_cut

        quick = short_cut(self.formula) or declined
        object.__setattr__(self, "_quick", quick)
        return quick(method, x, operand, axis, out, options)

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value for key, value in self.__dict__.items() if key not in ("_quick", "_cut", "_loss_cut", "handle")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, handle=handle_for(self))

    def _value(self, rows: Rows, hyper: Hyper) -> tuple[Array]:
        return (self.formula.solve(rows, hyper).value(),)

    def _read(self, x: Any, axis: Axis, **options: Any) -> Call:
        return read(self.name, self.formula, x, axis, **options)

    def _one_to_give(self, call: Call, targets: losses.Targets) -> Call:
        """Class indices stand for all the weight on one entry, so the weights must sum to 1."""
        is_one = self.formula.mass(call.hyper) == 1.0
        if not targets.is_index or is_one is True:
            return call
        seen = call.backend.look(is_one)
        if seen is False:
            raise ValueError(
                f"{self.name}: y holds class indices, for which the weights must sum to 1; give distributions"
            )
        return call if seen else call.with_invalid(~is_one)

    def _refuse_logarithm(self, method: str) -> None:
        if self.formula.kind == "logarithm":
            raise TypeError(
                f"{self.name}.{method}: a log map has values and derivatives only; ask the map itself for the rest"
            )

    def _refuse_unless_simplex(self, method: str) -> None:
        self._refuse_logarithm(method)
        if self.formula.kind == "mixture":
            raise TypeError(
                f"{self.name}.{method}: a blend has values, derivatives and a support size only; ask its members"
            )


def declined(*call: Any) -> None:
    """No short cut."""


def bound_number(name: str, parameter: Parameter, value: Any) -> float:
    """A parameter to be fixed before any scores are known, as a Python float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{name}: {parameter.name}={value!r} is not a number; give one, {parameter.rule(None)}; arrays are given "
            "at a call of the map itself"
        )
    number = float(value)
    # A range that ends at the row's length is checked once more at the call.
    if not parameter.allowed(number, sys.maxsize):
        raise ValueError(f"{name}: {parameter.name} is {number!r}; it must be {parameter.rule(None)}")
    return number


def short(number: float) -> str:
    """A number as it is best read, no digit lost."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
