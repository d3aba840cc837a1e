"""What a formula owes the library, and what the library makes of any formula: one solution with all its derivatives.

A formula turns rows of scores into a `Solution`; temperature, sink, sign, NaN rows and empty rows are handled here,
so that a formula works with the scores that it sees and their maximum subtracted. Which formulas there are is said in
maps/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from softplex.core.arrays import Array, Namespace, Number, Terms, each, total
from softplex.core.rows import Rows

Hyper = Mapping[str, Number]
Kind = Literal["simplex", "logarithm", "mixture"]


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter of a map: its name, its default (None: it must be given) and the numbers it may take."""

    name: str
    default: float | None
    low: float
    high: float | None
    """None: the row's length."""
    includes_low: bool = True
    includes_high: bool = True

    def allowed(self, value: Array, length: int | None) -> Array:
        """Whether each value lies in the range, as far as the row's length is known; NaN does not."""
        high = self.high if self.high is not None else math.inf if length is None else length
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= high if self.includes_high else value < high
        if above is True:
            return below
        return above & below

    def usual(self, length: int) -> float:
        """The default, or a number that shows what the parameter does to rows of this length."""
        if self.default is not None:
            return self.default
        high = float(length) if self.high is None else self.high
        return min(self.low + 2.0, 0.5 * (self.low + high))

    def rule(self, length: int | None) -> str:
        """The range in words."""
        high = f"{self.high:g}" if self.high is not None else f"the row's length {length or ''}".strip()
        return (
            f"{'at least' if self.includes_low else 'more than'} {self.low:g} and "
            f"{'at most' if self.includes_high else 'less than'} {high}"
        )


class Formula:
    """A map from rows of scores to weights. Subclasses give `solution` and `recalled`, those made of others `solve`."""

    parameters: tuple[Parameter, ...] = ()
    bound: tuple[tuple[Parameter, float], ...] = ()
    """Hyper-parameters that were fixed before the length of the rows was known, to be checked with it."""
    kind: Kind = "simplex"
    """Logarithms have derivatives only; mixtures these and a support."""

    def solve(self, rows: Rows, hyper: Hyper) -> Solution:
        """The weights of the rows, ready to be differentiated."""
        solution: Solution = rows.xp.solved(self, rows, hyper)
        return solution

    def solution(self, rows: Rows, hyper: Hyper) -> Solution:
        """The weights of the rows, computed here."""
        raise NotImplementedError

    def recalled(self, rows: Rows, hyper: Hyper, weights: Terms) -> Solution:
        """The solution whose weights are known."""
        raise NotImplementedError

    def regularizer(self, xp: Namespace, p: Terms, hyper: Hyper) -> Array:
        """Omega(p), one number a row."""
        raise NotImplementedError

    def mass(self, hyper: Hyper) -> Number:
        """What the weights of a row sum to."""
        return 1.0


@dataclass(frozen=True)
class Solution:
    """The weights that a formula gives to rows, and the transposes of their derivatives.

    Subclasses give `tangent`, `cotangent` and `parameter_cotangent` in the scores that the map sees.
    """

    formula: Formula
    rows: Rows
    hyper: Hyper
    weights: Terms

    absent = 0.0

    @property
    def shares(self) -> Terms:
        """What targets are subtracted from."""
        return self.weights

    def tangent(self, t: Terms) -> Terms:
        """J t."""
        raise NotImplementedError

    def cotangent(self, g: Terms) -> Terms:
        """g^T J."""
        raise NotImplementedError

    def parameter_tangent(self, name: str) -> Terms:
        """dp / d parameter."""
        raise NotImplementedError

    def parameter_cotangent(self, name: str, g: Terms) -> Array:
        """<g, dp / d parameter>, one number a row."""
        return total(self.rows.xp, each(lambda g, rate: g * rate, g, self.parameter_tangent(name)))

    def value(self) -> Array:
        """The weights as the user gets them."""
        return self.rows.settled(self.weights.entries, absent=self.absent)

    def jvp(self, t: Array) -> Array:
        """J t in the user's scores."""
        rows = self.rows
        moved = self.tangent(self._with_silent_sink(t)).entries
        return self._derivative(rows.sign * moved / rows.temperature)

    def vjp(self, g: Array, wrt: tuple[str, ...]) -> dict[str, Array]:
        """g^T J in the user's scores and parameters: shape of x, or one number a row."""
        rows, xp = self.rows, self.rows.xp
        g_terms = self._with_silent_sink(g)
        results = {name: self.parameter_cotangent(name, g_terms) for name in wrt if name in self.hyper}
        if len(results) < len(wrt):
            scores = self.cotangent(g_terms)
            if "x" in wrt:
                results["x"] = self._derivative(rows.sign * scores.entries / rows.temperature)
            if "sink" in wrt:
                sink: Array = scores.sink
                results["sink"] = rows.sign * sink / rows.temperature
            if "temperature" in wrt:
                moved = each(lambda z, gap: z * gap, scores, rows.finite_gaps)
                results["temperature"] = -total(xp, moved) / rows.temperature
        return {name: r if name == "x" else rows.settled_rows(r, empty=0.0) for name, r in results.items()}

    def _with_silent_sink(self, entries: Array) -> Terms:
        """A tangent or cotangent of the entries, 0 for the sink, which is not part of the result."""
        entries = self.rows.filtered(entries)
        sink = self.rows.scores.sink
        return Terms(entries, None if sink is None else self.rows.xp.zeros_like(sink))

    def _derivative(self, entries: Array) -> Array:
        return self.rows.settled(self.rows.filtered(entries))

    def conjugate(self) -> Array:
        """Omega* of the gaps: <gap, p> - Omega(p) at the solution."""
        xp = self.rows.xp
        products = each(lambda p, gap: p * gap, self.weights, self.rows.finite_gaps)
        return total(xp, products) - self.formula.regularizer(xp, self.weights, self.hyper)

    def mass(self) -> Array:
        """What the weights sum to: what the formula asks for, or 1 each where a row has fewer entries."""
        return self.rows.xp.minimum(self.rows.live_count, self.formula.mass(self.hyper))

    def moving_mass(self) -> Array:
        """The mass with the derivatives that the weights have."""
        return self.mass()

    def smooth_max(self) -> Array:
        """max over p of <x, p> - temperature Omega(p)."""
        rows = self.rows
        value = rows.top * self.moving_mass() + rows.temperature * self.conjugate()
        return rows.settled_rows(value, empty=-math.inf)

    def residual(self, y: Array) -> Array:
        """p - y for a distribution y."""
        return self._derivative(self.shares.entries - y)

    def residual_of_index(self, hit: Array) -> Array:
        """p - y for a class index, `hit` being True there: p_y - 1 = -(the sum of the others) keeps its digits."""
        xp = self.rows.xp
        others = Terms(xp.where(hit, 0.0, self.shares.entries), self.shares.sink)
        return self._derivative(xp.where(hit, -total(xp, others), self.shares.entries))

    def loss_of_index(self, hit: Array) -> Array:
        """The Fenchel-Young loss against a class index: Omega* - gap_y, for Omega is 0 at a vertex."""
        xp = self.rows.xp
        gap = xp.sum(xp.where(hit, self.rows.gaps.entries, 0.0), axis=-1, keepdims=True)
        loss = self.conjugate() - gap
        return self.rows.settled_rows(xp.following(lambda: xp.maximum(loss, 0.0), lambda: loss), empty=0.0)

    def loss(self, y: Array, missing: Array) -> Array:
        """Omega*(z) + Omega(y) - <z, y> for a distribution y, with z the scores that the map sees.

        `missing` is what the sum of y falls short of that of the weights; the caller may know it to be 0.
        """
        rows, xp = self.rows, self.rows.xp
        if self.weights.sink is None:
            y_terms = Terms(y)
        else:
            y_terms = Terms(y, xp.zeros_like(self.weights.sink))
        gaps = rows.gaps.entries
        inner = xp.sum(xp.where(y != 0.0, y * xp.where(y != 0.0, gaps, 0.0), 0.0), axis=-1, keepdims=True)
        conjugate = self.conjugate()
        value = conjugate + self.formula.regularizer(xp, y_terms, self.hyper) - inner
        # The gaps stand for the scores only where p and y weigh the same in all; what is left multiplies the shift.
        value = value + rows.top * missing / rows.temperature
        noise = 64.0 * xp.eps * xp.maximum(xp.abs(conjugate) + xp.abs(inner), 1.0)
        is_noise = (value < 0.0) & (value > -noise)
        value = xp.following(lambda: xp.where(is_noise, 0.0, value), lambda: value)
        return rows.settled_rows(value, empty=0.0)


def ratio(xp: Namespace, numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, 0 where the denominator is 0."""
    is_zero = denominator == 0.0
    return xp.where(is_zero, 0.0, numerator / xp.where(is_zero, 1.0, denominator))
