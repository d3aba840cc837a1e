"""normmax: Omega is a norm less 1 (Blondel, Martins & Niculae 2020, arXiv:1901.02324). It is not separable.

p maximises <x, p> - ||p||_alpha. With gamma = 1 / (alpha - 1) and u_i = (x_i - tau)_+, the weights are proportional
to y_i = u_i^gamma where tau solves sum u^(gamma + 1) = 1, and ||p||_alpha = 1 / sum y. As for entmax the unknown is u
at the largest score up to alpha = 2, and at the smallest supported one above.
"""

from __future__ import annotations

from dataclasses import dataclass

from softplex.core.arrays import Array, Namespace, Number, Terms, choose_terms, each, largest, total
from softplex.core.doubles import shortfall_of, two_quotient, two_sum
from softplex.core.formula import Formula, Hyper, Parameter, Solution, ratio
from softplex.core.map import Map
from softplex.core.rows import Rows
from softplex.core.separable import powers_of, solved_near_top
from softplex.core.threshold import last_supported, newton, shortfall
from softplex.core.twofold import Twofold, add, exp, log, multiply

REFINEMENTS = 5


@dataclass(frozen=True)
class Normmax(Formula):
    """The formula of normmax."""

    parameters: tuple[Parameter, ...] = (Parameter("alpha", 2.0, 1.0, float("inf"), False, False),)

    def solution(self, rows: Rows, hyper: Hyper) -> NormmaxSolution:
        """The weights of the rows."""
        y = solved_near_top(rows, 1.0, lambda rows: powers(rows, hyper["alpha"]))
        norm = total(rows.xp, y)
        return self.recalled(rows, hyper, each(lambda w: ratio(rows.xp, w, norm), y))

    def recalled(self, rows: Rows, hyper: Hyper, weights: Terms) -> NormmaxSolution:
        """The solution whose weights are known."""
        return NormmaxSolution(self, rows, hyper, weights)

    def regularizer(self, xp: Namespace, p: Terms, hyper: Hyper) -> Array:
        """The norm less 1."""
        return norm_of(xp, p, hyper["alpha"]) - 1.0


def powers(rows: Rows, alpha: Number) -> Terms:
    """y up to a factor, from the top up to alpha = 2 and from the last supported score above."""
    xp = rows.xp
    if isinstance(alpha, float):
        low, high = min(alpha, 2.0), max(alpha, 2.0)
    else:
        low, high = xp.minimum(alpha, 2.0), xp.maximum(alpha, 2.0)
    return choose_terms(
        xp,
        alpha <= 2.0,
        lambda: powers_from_top(rows, 1.0 / (low - 1.0)),
        lambda: powers_from_last(rows, high),
    )


def powers_from_top(rows: Rows, gamma: Number) -> Terms:
    """y up to a factor, for gamma >= 1: (1 + gap / h)_+^gamma with sum (h + gap)_+^(gamma + 1) = 1."""
    xp, beta = rows.xp, gamma + 1.0

    def shares(height: Array, exponent: Number) -> Terms:
        return each(lambda gap: deformed(xp, gap / height, exponent), rows.gaps)

    # The unknown is q = h^beta, in which the sum is linear where all scores are alike.
    def raised(q: Array) -> Terms:
        return each(lambda share: q * share, shares(xp.pow(q, 1.0 / beta), beta))

    def rates(q: Array, p: Terms) -> Terms:
        return shares(xp.pow(q, 1.0 / beta), gamma)

    h = xp.pow(newton(xp, 1.0, xp.ones_like(rows.top), raised, rates), 1.0 / beta)
    return shares(h, gamma)


def deformed(xp: Namespace, gap: Array, exponent: Number) -> Array:
    """(1 + gap)_+^exponent, by log1p for the sake of large exponents."""
    inside = gap > -1.0
    return xp.where(inside, xp.exp(exponent * xp.log1p(xp.where(inside, gap, 0.0))), 0.0)


def powers_from_last(rows: Rows, alpha: Number) -> Terms:
    """y for alpha > 2: (t + gap)^gamma over the smallest supported score, sum (t + gap)^(gamma + 1) = 1."""
    xp, gamma = rows.xp, 1.0 / (alpha - 1.0)
    beta = gamma + 1.0

    def raised_over(gaps: Terms, t: Array, exponent: Number) -> Terms:
        return each(lambda gap: powers_of(xp, xp.where(gap >= 0.0, t + gap, 0.0), exponent), gaps)

    def is_supported(score: Array) -> Array:
        return total(xp, raised_over(rows.gaps_from(score), xp.zeros_like(score), beta)) < 1.0

    last = last_supported(xp, rows.scores, rows.top, rows.temperature, is_supported)
    gaps = rows.gaps_from(last)

    def rates(t: Array, p: Terms) -> Terms:
        return each(lambda share: beta * share, raised_over(gaps, t, gamma))

    left = xp.clip(shortfall(xp, 1.0, raised_over(gaps, xp.zeros_like(last), beta)), 0.0, 1.0)
    start = xp.pow(left, 1.0 / beta)
    t = newton(xp, 1.0, start, lambda t: raised_over(gaps, t, beta), rates)
    y = raised_over(gaps, t, gamma)
    # Rounding moves the sum by an ULP or two of 1, t by that over the sum's slope, y by its slope.
    is_steep = gamma * powers_of(xp, t, gamma - 1.0) > beta * total(xp, y) * largest(xp, y)
    return choose_terms(xp, is_steep, lambda: raised_over(gaps, refined(rows, last, alpha, t), gamma), lambda: y)


def refined(rows: Rows, last: Array, alpha: Number, t: Array) -> Array:
    """The root t of sum (t + gap)^beta = 1 to a few ULP of itself, from a sum in twice the precision."""
    xp, one, zero = rows.xp, rows.xp.ones_like(t), rows.xp.zeros_like(t)
    gamma = Twofold(*two_quotient(xp, one, zero, (alpha - 1.0) * one))
    beta = add(gamma, Twofold(one, zero))
    gaps, errors = rows.gaps_with_errors_from(last)

    def powers(t: Array, gap: Array, error: Array, live: Array) -> tuple[Array, Array, Array]:
        """(t + gap)^beta in two floats, and its derivative in t."""
        takes = live & (gap >= 0.0)
        base = add(Twofold(t, zero), Twofold(xp.where(takes, gap, 0.0), xp.where(takes, error, 0.0)))
        raised = exp(xp, multiply(xp, beta, log(xp, base)))
        rate = beta.high * powers_of(xp, base.high, gamma.high)
        return xp.where(takes, raised.high, 0.0), xp.where(takes, raised.low, 0.0), xp.where(takes, rate, 0.0)

    def step(t: Array, done: Array) -> tuple[Array, Array]:
        goal, left_over, rate = one, zero, zero
        if gaps.sink is not None:
            high, low, rate = powers(t, gaps.sink, errors.sink, rows.is_live.sink)
            goal, left_over = two_sum(one, -high)
            left_over = left_over - low
        highs, lows, rates = powers(t, gaps.entries, errors.entries, rows.is_live.entries)
        missing = shortfall_of(xp, goal, highs) + (left_over - xp.sum(lows, axis=-1, keepdims=True))
        change = missing / (rate + xp.sum(rates, axis=-1, keepdims=True))
        moved = xp.where(t + change > 0.0, t + change, 0.5 * t)
        return xp.where(done, t, moved), done | ~(xp.abs(change) > 2.0 * xp.eps * t)

    return xp.iterate(step, (t, t != t), REFINEMENTS)[0]


@dataclass(frozen=True)
class NormmaxSolution(Solution):
    """With c = y' / sum y (the derivative of y in its score), p' = c (t - <p, t>) - p <c, t - <p, t>>; symmetric."""

    def _norm(self) -> Array:
        """sum y, and 1 in empty rows."""
        norm = norm_of(self.rows.xp, self.weights, self.hyper["alpha"])
        return 1.0 / self.rows.xp.where(norm == 0.0, 1.0, norm)

    def _steepness(self) -> Terms:
        """c = y^(2 - alpha) / ((alpha - 1) sum y)."""
        xp, alpha, norm = self.rows.xp, self.hyper["alpha"], self._norm()

        def steepness(p: Array) -> Array:
            return xp.minimum(powers_of(xp, p * norm, 2.0 - alpha), xp.steepest) / ((alpha - 1.0) * norm)

        return each(steepness, self.weights)

    def tangent(self, t: Terms) -> Terms:
        """J t."""
        xp, p, c = self.rows.xp, self.weights, self._steepness()
        mean = total(xp, each(lambda p, t: p * t, p, t))
        moved = each(lambda c, t: c * (t - mean), c, t)
        mass = total(xp, moved)
        return each(lambda m, p: m - p * mass, moved, p)

    def cotangent(self, g: Terms) -> Terms:
        """g^T J; J is symmetric."""
        return self.tangent(g)

    def parameter_tangent(self, name: str) -> Terms:
        """d / d alpha: y' = (c sum y) h' - y log(y) / (alpha - 1), with h' from sum y^alpha = 1."""
        xp, p, c, alpha, norm = self.rows.xp, self.weights, self._steepness(), self.hyper["alpha"], self._norm()
        logs = each(lambda p: xp.log(xp.where(p > 0.0, p * norm, 1.0)), p)
        drift = total(xp, each(lambda p, log: powers_of(xp, p * norm, alpha) * log, p, logs))
        h_rate = drift / (alpha * norm)
        rates = each(lambda c, p, log: c * h_rate - p * log / (alpha - 1.0), c, p, logs)
        mass = total(xp, rates)
        return each(lambda r, p: r - p * mass, rates, p)


def norm_of(xp: Namespace, p: Terms, alpha: Number) -> Array:
    """||p||_alpha, by way of the largest entry."""
    top = xp.max(xp.abs(p.entries), axis=-1, keepdims=True)
    top = top if p.sink is None else xp.maximum(top, xp.abs(p.sink))
    # Of nothing but zeros it is 0, and no derivative of it is looked for.
    is_none = top == 0.0
    top = xp.where(is_none, 1.0, top)
    whole = xp.where(is_none, 1.0, total(xp, each(lambda w: powers_of(xp, xp.abs(w) / top, alpha), p)))
    return xp.where(is_none, 0.0, top * xp.pow(whole, 1.0 / alpha))


normmax = Map(
    "normmax",
    Normmax(),
    summary="Sparse weights from a norm: flatter than entmax on the scores that it keeps.",
    equation="p = argmax <x, p> - ||p||_alpha;  Omega(p) = ||p||_alpha - 1",
    source="Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324",
    example="""
    >>> normmax([0.0, 0.5, 1.0]).round(4)
    array([0.    , 0.311, 0.689])
    """,
)
