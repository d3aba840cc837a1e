"""Maps made of maps: the map of the negated scores, the logarithm of a map, a convex mixture. No map is named here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

from softplex.core.arrays import Array, Namespace, Number, Terms, each, total
from softplex.core.formula import Formula, Hyper, Kind, Parameter, Solution
from softplex.core.rows import Rows


@dataclass(frozen=True)
class Wrapped(Formula):
    """A formula around another, which is that other one in all that a subclass does not change."""

    formula: Formula

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """Those of the formula within."""
        return self.formula.parameters

    @property
    def bound(self) -> tuple[tuple[Parameter, float], ...]:  # type: ignore[override]
        """Those of the formula within."""
        return self.formula.bound

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """That of the formula within."""
        return self.formula.kind

    def solve(self, rows: Rows, hyper: Hyper) -> Solution:
        """The weights of the formula within."""
        return self.formula.solve(rows, self._within(hyper))

    def recalled(self, rows: Rows, hyper: Hyper, weights: Terms) -> Solution:
        """That of the formula within."""
        return self.formula.recalled(rows, self._within(hyper), weights)

    def regularizer(self, xp: Namespace, p: Terms, hyper: Hyper) -> Array:
        """That of the formula within."""
        return self.formula.regularizer(xp, p, self._within(hyper))

    def mass(self, hyper: Hyper) -> Number:
        """That of the formula within."""
        return self.formula.mass(self._within(hyper))

    def _within(self, hyper: Hyper) -> Hyper:
        """The hyper-parameters that the formula within gets."""
        return hyper


@dataclass(frozen=True)
class Negated(Wrapped):
    """p(-x); the rows remember the sign for the derivatives."""

    def solve(self, rows: Rows, hyper: Hyper) -> Solution:
        """The weights of the negated scores."""
        return self.formula.solve(rows.negated(), hyper)

    def recalled(self, rows: Rows, hyper: Hyper, weights: Terms) -> Solution:
        """The solution whose weights are known."""
        return self.formula.recalled(rows.negated(), hyper, weights)


@dataclass(frozen=True)
class Bound(Wrapped):
    """A formula with some hyper-parameters fixed."""

    fixed: tuple[tuple[str, float], ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """Those that are still free."""
        names = dict(self.fixed)
        return tuple(parameter for parameter in self.formula.parameters if parameter.name not in names)

    @property
    def bound(self) -> tuple[tuple[Parameter, float], ...]:  # type: ignore[override]
        """The fixed ones, beside those fixed within."""
        known = {parameter.name: parameter for parameter in self.formula.parameters}
        return (*self.formula.bound, *((known[name], value) for name, value in self.fixed))

    def _within(self, hyper: Hyper) -> Hyper:
        return {**dict(self.fixed), **hyper}


@dataclass(frozen=True)
class MixtureSolution(Solution):
    """Weighted sums of the members' results, each settled on its own."""

    members: tuple[tuple[Solution, float], ...]

    def value(self) -> Array:
        """The mixture of the values."""
        return self._sum([weight * member.value() for member, weight in self.members])

    def jvp(self, t: Array) -> Array:
        """The mixture of the tangents."""
        return self._sum([weight * member.jvp(t) for member, weight in self.members])

    def vjp(self, g: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
        """The mixture of the cotangents."""
        parts = [(member.vjp(g, wrt), weight) for member, weight in self.members]
        return {name: self._sum([weight * part[name] for part, weight in parts]) for name in wrt}

    @staticmethod
    def _sum(arrays: list[Array]) -> Array:
        return reduce(add, arrays)


@dataclass(frozen=True)
class Mixture(Formula):
    """sum_m w_m p_m(x) of maps without free hyper-parameters."""

    members: tuple[tuple[Formula, float], ...]

    kind = "mixture"

    @property
    def bound(self) -> tuple[tuple[Parameter, float], ...]:  # type: ignore[override]
        """Those of all members."""
        return tuple(pair for formula, _ in self.members for pair in formula.bound)

    def solve(self, rows: Rows, hyper: Hyper) -> MixtureSolution:
        """The solution of every member on the same rows."""
        solved = tuple((formula.solve(rows, {}), weight) for formula, weight in self.members)
        return MixtureSolution(self, rows, hyper, Terms(rows.x), solved)


@dataclass(frozen=True)
class LogarithmSolution(Solution):
    """log p of a map whose slope is p: d log p = t - <p, t>."""

    p: Terms

    absent = float("-inf")

    @property
    def shares(self) -> Terms:
        """The weights, not their logarithms."""
        return self.p

    def residual(self, y: Array) -> Array:
        """p sum y - y, the gradient of -<y, log p>."""
        mass = self.rows.xp.sum(y, axis=-1, keepdims=True)
        return self._derivative(self.p.entries * mass - y)

    def tangent(self, t: Terms) -> Terms:
        """t - <p, t>."""
        mean = total(self.rows.xp, each(lambda p, t: p * t, self.p, t))
        return each(lambda t: t - mean, t)

    def cotangent(self, g: Terms) -> Terms:
        """g - p sum g."""
        mass = total(self.rows.xp, g)
        return each(lambda p, g: g - p * mass, self.p, g)
