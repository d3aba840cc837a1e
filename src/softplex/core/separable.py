"""Separable simplex maps: from a few short functions of one weight to values and all derivatives.

A map whose regulariser is a sum, Omega(p) = sum omega(p_i), has p_i = link(x_i - tau) with link the inverse of
omega'. It is stated here without tau: `moved(p, d)` = link(omega'(p) + d) is the weight of an entry whose score is d
higher than one of weight p. The weights of a row then follow from that of one anchor, which keeps the digits that tau
loses (for entmax tau grows like 1 / (alpha - 1); for large alpha its rounding alone moves the weights). No map is
named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from softplex.core.arrays import Array, Namespace, Number, Terms, each, total
from softplex.core.formula import Formula, Hyper, Parameter, Solution, ratio
from softplex.core.rows import Rows
from softplex.core.threshold import newton, polished

Piece = Callable[..., Array]


@dataclass(frozen=True)
class Separable(Formula):
    """The pieces of a separable map; each takes the namespace, its arrays and the hyper-parameters by name."""

    omega: Piece
    """omega(xp, p): the regulariser per entry, 0 at 0 and at 1."""
    moved: Piece
    """moved(xp, p, d) = link(omega'(p) + d), 0 below the link's range. If steep at 0, give weights too."""
    slope: Piece
    """slope(xp, p) = 1 / omega''(p), 0 where p is."""
    partials: Callable[..., dict[str, Array]] | None = None
    """partials(xp, p): d link / d hyper-parameter at a fixed argument, up to a multiple of the slope."""
    weights: Callable[[Rows, Hyper], Terms] | None = None
    """A solution that stands in for the solver where it is faster or keeps more digits."""
    ranked: Callable[..., Array | None] | None = None
    """ranked(xp, gaps, counts): about the weight of the largest score, from the sorted gaps; or None. Needs `reach`."""
    conjugate: Callable[[Rows, Hyper], Array] | None = None
    """Omega* of the gaps in closed form, where that does not cancel."""
    parameters: tuple[Parameter, ...] = ()
    mass_parameter: str | None = None
    """The hyper-parameter that the weights sum to; 1 if there is none."""
    reach: Callable[[Hyper], Number] | None = None
    """How far below the top of a row an entry can lie and weigh something; None: any distance."""

    def solution(self, rows: Rows, hyper: Hyper) -> SeparableSolution:
        """The weights of the rows."""
        own = self.weights
        reach = math.inf if self.reach is None else self.reach(hyper)

        def solved(rows: Rows) -> Terms:
            return weights_from_top(self, rows, hyper) if own is None else own(rows, hyper)

        return self.recalled(rows, hyper, solved_near_top(rows, reach, solved))

    def recalled(self, rows: Rows, hyper: Hyper, weights: Terms) -> SeparableSolution:
        """The solution whose weights are known."""
        return SeparableSolution(self, rows, hyper, weights)

    def regularizer(self, xp: Namespace, p: Terms, hyper: Hyper) -> Array:
        """The sum of omega(p_i)."""
        return total(xp, each(lambda w: xp.on_support(lambda w: self.omega(xp, w, **hyper), w), p))

    def mass(self, hyper: Hyper) -> Number:
        """The parameter that says so, or 1."""
        return 1.0 if self.mass_parameter is None else hyper[self.mass_parameter]


def solved_near_top(rows: Rows, reach: Number, solved: Callable[[Rows], Terms]) -> Terms:
    """The weights of rows, of a long one by way of the entries that can weigh something."""
    near = rows.near_top(reach)
    if near is None:
        return solved(rows)
    part, kept = near
    found = solved(part)
    entries = rows.xp.zeros_like(rows.x)
    entries[..., kept] = found.entries
    return Terms(entries, found.sink)


def weights_from_top(pieces: Separable, rows: Rows, hyper: Hyper) -> Terms:
    """The weights of rows whose link is convex, by Newton's method on the weight of the largest score."""
    xp = rows.xp

    def weights(v: Array) -> Terms:
        return each(lambda gap: pieces.moved(xp, v, gap, **hyper), rows.gaps)

    def rates(v: Array, p: Terms) -> Terms:
        own = pieces.slope(xp, v, **hyper)
        return each(lambda w: pieces.slope(xp, w, **hyper) / own, p)

    near = start_by_sorting(pieces, rows, hyper) if xp.sorts and pieces.ranked is not None else None
    if near is not None:
        return weights(polished(xp, 1.0, near, weights, rates))
    return weights(newton(xp, 1.0, xp.ones_like(rows.top), weights, rates))


def start_by_sorting(pieces: Separable, rows: Rows, hyper: Hyper) -> Array | None:
    """About the weight of the largest score; None where the sorted scores do not tell it."""
    assert pieces.ranked is not None and pieces.reach is not None
    xp, gaps = rows.xp, rows.gaps
    competitors = gaps.entries if gaps.sink is None else xp.beside(gaps.entries, gaps.sink)
    ranked = xp.sorted_down(xp.maximum(competitors, -pieces.reach(hyper)))
    return pieces.ranked(xp, ranked, xp.cumulative_sum(xp.ones_like(ranked)), **hyper)


@dataclass(frozen=True)
class SeparableSolution(Solution):
    """The one rule: r = s t + sum partials theta', p' = r - s (sum r - k') / sum s, and its transpose."""

    formula: Separable

    def moving_mass(self) -> Array:
        """The mass; where no weight lies strictly between its bounds, more of it moves none."""
        if self.formula.mass_parameter is None:
            return self.mass()
        xp = self.rows.xp
        return xp.following(self.mass, lambda: xp.where(total(xp, self.slopes) == 0.0, 0.0, self.mass()))

    @property
    def slopes(self) -> Terms:
        """s = 1 / omega''(p)."""
        xp = self.rows.xp
        return each(lambda p: xp.on_support(lambda p: self.formula.slope(xp, p, **self.hyper), p), self.weights)

    def _partial(self, name: str) -> Terms:
        """d link / d parameter at a fixed argument, up to a multiple of the slopes."""
        assert self.formula.partials is not None
        xp, partials = self.rows.xp, self.formula.partials
        return each(lambda p: xp.on_support(lambda p: partials(xp, p, **self.hyper)[name], p), self.weights)

    def _centred(self, slopes: Terms, g: Terms) -> Terms:
        """g - <s, g> / sum s."""
        xp = self.rows.xp
        mean = ratio(xp, total(xp, each(lambda s, g: s * g, slopes, g)), total(xp, slopes))
        return each(lambda g: g - mean, g)

    def tangent(self, t: Terms) -> Terms:
        """J t; J is symmetric."""
        return self.cotangent(t)

    def cotangent(self, g: Terms) -> Terms:
        """s (g - <s, g> / sum s)."""
        slopes = self.slopes
        return each(lambda s, centred: s * centred, slopes, self._centred(slopes, g))

    def parameter_cotangent(self, name: str, g: Terms) -> Array:
        """<partial, g - <s, g> / sum s>; for the mass <s, g> / sum s."""
        xp, slopes = self.rows.xp, self.slopes
        slope_sum = total(xp, slopes)
        if name == self.formula.mass_parameter:
            return ratio(xp, total(xp, each(lambda s, g: s * g, slopes, g)), slope_sum)
        partial = self._partial(name)
        centred = self._centred(slopes, g)
        value = total(xp, each(lambda r, c: xp.where(r == 0.0, 0.0, r * c), partial, centred))
        return xp.where(slope_sum == 0.0, 0.0, value)

    def parameter_tangent(self, name: str) -> Terms:
        """partial - s sum partial / sum s; for the mass s / sum s."""
        xp, slopes = self.rows.xp, self.slopes
        slope_sum = total(xp, slopes)
        if name == self.formula.mass_parameter:
            return each(lambda s: ratio(xp, s, slope_sum), slopes)
        partial = self._partial(name)
        drift = ratio(xp, total(xp, partial), slope_sum)
        return each(lambda r, s: xp.where(slope_sum == 0.0, 0.0, r - s * drift), partial, slopes)

    def conjugate(self) -> Array:
        """The closed form if there is one."""
        closed = self.formula.conjugate
        if closed is None:
            return super().conjugate()
        return self.rows.xp.following(lambda: closed(self.rows, self.hyper), super().conjugate)


def powers_of(xp: Namespace, p: Array, exponent: Number) -> Array:
    """p ** exponent where p > 0, else 0, also for exponents of 0 and below."""
    positive = p > 0.0
    return xp.where(positive, xp.pow(xp.where(positive, p, 1.0), exponent), 0.0)
