"""Solutions that can be differentiated to third order by any framework, however they were found.

Weights are solved for on detached numbers, by whatever means. What is added to them is 0 in value and has their
derivatives: with dz the scores less their own detached values, the rule p' = J(p) dz is integrated from 0 to dz by
three stages of Kutta's method (Kutta 1901), which is exact to third order. So the one rule in formula.py and
separable.py gives all derivatives, and no framework looks into a solver. No map and no framework is named here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from softplex.core.arrays import Array, Namespace, Number, Terms, each
from softplex.core.formula import Formula, Hyper, Solution
from softplex.core.rows import Rows


class Following(Namespace):
    """The namespace of a framework that differentiates what is computed in it; its functions have `detach`."""

    def __init__(self, functions: Any, *, working: Any) -> None:
        super().__init__(functions, can_look=False, working=working)
        self.plain = Namespace(functions, can_look=False, working=working)

    def still(self, value: Any) -> Any:
        """A number without its derivatives."""
        return value if value is None or isinstance(value, float) else self.detach(value)

    def on_support(self, function: Callable[[Array], Array], p: Array) -> Array:
        """function(p), and derivatives of 0 where p is 0."""
        is_zero = p == 0.0
        return self.where(is_zero, 0.0, function(self.where(is_zero, 1.0, p)))

    def following(self, value: Callable[[], Array], law: Callable[[], Array]) -> Array:
        """value() with the derivatives of law()."""
        ruled = law()
        return self.where(self.isfinite(ruled), self.detach(value()) + (ruled - self.detach(ruled)), ruled)

    def weights_of(self, formula: Formula, rows: Rows, hyper: Hyper) -> Terms:
        """The weights of detached rows."""
        return formula.solution(rows, hyper).weights

    def solved(self, formula: Formula, rows: Rows, hyper: Hyper) -> Solution:
        """The weights of the rows, followed by their derivatives."""
        still = replace(
            rows,
            xp=self.plain,
            x=self.detach(rows.x),
            sink=self.still(rows.sink),
            temperature=self.still(rows.temperature),
        )
        return self.followed(formula, FollowedRows.of(rows, still), hyper)

    def followed(self, formula: Formula, rows: FollowedRows, hyper: Hyper) -> Solution:
        """The weights of the rows with derivatives."""
        still = {name: self.still(value) for name, value in hyper.items()}
        return followed(formula, rows, hyper, self.weights_of(formula, rows.still, still))


@dataclass(frozen=True)
class FollowedRows(Rows):
    """Rows whose gaps have derivatives; all that decides where entries belong comes from detached rows."""

    detached: Rows | None = None

    @classmethod
    def of(cls, rows: Rows, still: Rows) -> FollowedRows:
        """Differentiable rows over detached ones."""
        fields = {name: getattr(rows, name) for name in Rows.__dataclass_fields__}
        return cls(**fields, detached=still)

    @property
    def still(self) -> Rows:
        """The detached rows."""
        assert self.detached is not None
        return self.detached

    @property
    def is_bad(self) -> Array:
        """As in the detached rows."""
        return self.still.is_bad

    @property
    def is_empty(self) -> Array:
        """As in the detached rows."""
        return self.still.is_empty

    @property
    def top(self) -> Array:
        """As in the detached rows: no result depends on the number that scores are counted from."""
        return self.still.top

    @property
    def scores(self) -> Terms:
        """As in the detached rows."""
        return self.still.scores

    @property
    def is_live(self) -> Terms:
        """As in the detached rows."""
        return self.still.is_live

    @property
    def live_count(self) -> Array:
        """As in the detached rows."""
        return self.still.live_count

    @cached_property
    def gaps(self) -> Terms:
        """(x - top) / temperature."""
        return each(lambda gap, move: gap + move, self.still.gaps, self.moves)

    @cached_property
    def _takes_part(self) -> Terms:
        """Entries with derivatives: live ones, unmasked ones of bad rows, all of empty rows that are to be NaN."""
        xp, still = self.xp, self.still
        finite = each(xp.isfinite, still.signed)
        if self.empty_value != 0.0:
            finite = each(lambda flag: flag | still.is_empty, finite)
        if self.mask is None:
            return each(lambda flag: flag | still.is_bad, finite)
        entries = finite.entries | (still.is_bad & self.mask)
        return Terms(entries, None if finite.sink is None else finite.sink | still.is_bad)

    @cached_property
    def moves(self) -> Terms:
        """The scores that the map sees less their own values: 0, with derivatives; NaN in bad rows."""
        xp, temperature = self.xp, self.temperature
        is_spoiled = self.is_bad if self.empty_value == 0.0 else self.is_bad | self.is_empty
        poison = xp.where(is_spoiled, xp.nan, xp.ones_like(self.top))
        is_fixed = isinstance(temperature, float)
        cooling = 0.0 if is_fixed else xp.detach(temperature) / temperature - 1.0

        def move(x: Array, gap: Array, takes_part: Array) -> Array:
            x = xp.where(takes_part, x, 0.0)
            moved = (x - xp.detach(x)) / temperature
            if not is_fixed:
                moved = moved + xp.where(xp.isfinite(gap), gap, 0.0) * cooling
            return xp.where(takes_part, moved * poison, 0.0)

        gaps = self.still.gaps
        entries = move(self.sign * self.x, gaps.entries, self._takes_part.entries)
        if self.sink is None:
            return Terms(entries)
        column = xp.zeros_like(self.top) + self.sign * self.sink
        return Terms(entries, move(column, gaps.sink, self._takes_part.sink))

    def settled(self, entries: Array, *, absent: float = 0.0) -> Array:
        """Settled as ever; what is asked of entries that take no part, NaN perhaps, stays there."""
        entries = self.xp.where(self._takes_part.entries, entries, self.xp.detach(entries))
        return super().settled(entries, absent=absent)


def followed(formula: Formula, rows: FollowedRows, hyper: Hyper, start: Terms) -> Solution:
    """The solution with the weights `start`, made to follow the scores and the hyper-parameters."""
    xp = rows.xp
    steps = {name: step_of(xp, value) for name, value in hyper.items() if not isinstance(value, float)}

    def at(part: float) -> Hyper:
        return {name: xp.detach(v) + part * steps[name] if name in steps else v for name, v in hyper.items()}

    def rate(weights: Terms, part: float) -> Terms:
        solution = formula.recalled(rows, at(part), weights)
        moved = solution.tangent(rows.moves)
        for name, step in steps.items():
            moved = each(lambda m, r, step=step: m + r * step, moved, solution.parameter_tangent(name))
        return moved

    first = rate(start, 0.0)
    second = rate(each(lambda w, k: w + 0.5 * k, start, first), 0.5)
    third = rate(each(lambda w, k, m: w - k + 2.0 * m, start, first, second), 1.0)
    weights = each(lambda w, a, b, c: w + (a + 4.0 * b + c) / 6.0, start, first, second, third)
    return formula.recalled(rows, hyper, weights)


def step_of(xp: Namespace, value: Number) -> Array:
    """A parameter less its own value: 0, with derivatives."""
    return xp.where(xp.isfinite(value), value - xp.detach(value), 0.0)
