"""softmax, its logarithm, and both of the negated scores (Bridle 1990).

p_i = exp(x_i) / sum_j exp(x_j), Omega(p) = sum p log p. The leading 1s of the sum are counted apart, so that the
logarithm of a confident prediction keeps its digits; the rounding error of x - max goes into the exponential to first
order.
"""

from __future__ import annotations

from dataclasses import dataclass

from softplex.core.arrays import Array, Namespace, Terms, each, total
from softplex.core.compose import LogarithmSolution, Negated
from softplex.core.formula import Formula, Hyper
from softplex.core.map import Map
from softplex.core.rows import Rows
from softplex.core.separable import Separable


def omega(xp: Namespace, p: Array) -> Array:
    """Entropy, negated: p log p."""
    return p * xp.log(xp.where(p == 0.0, 1.0, p))


def moved(xp: Namespace, p: Array, d: Array) -> Array:
    """Link (u -> exp(u - 1)) moved by d."""
    return p * xp.exp(d)


def slope(xp: Namespace, p: Array) -> Array:
    """1 / omega''."""
    return p


def exponentials(rows: Rows) -> Terms:
    """exp(gap), with what rounding took from the gap put back."""
    powers = each(rows.xp.exp, rows.gaps)
    if rows.gap_errors is None:
        return powers
    if rows.xp.eps > 1e-10:  # a product of float32 may be subnormal where weights count, and vanish
        return each(lambda power, error: power * (1.0 + error), powers, rows.gap_errors)
    return each(lambda power, error: power + power * error, powers, rows.gap_errors)


def tail(rows: Rows, powers: Terms) -> Array:
    """The sum of the exponentials less one of the leading 1s."""
    xp = rows.xp
    is_top = each(lambda gap: gap == 0.0, rows.gaps)
    ties = total(xp, each(lambda flag: xp.astype(flag, xp.working), is_top))
    rest = total(xp, each(lambda flag, power: xp.where(flag, 0.0, power), is_top, powers))
    return xp.maximum(ties - 1.0, 0.0) + rest


def weights(rows: Rows, hyper: Hyper) -> Terms:
    """exp(gap) / sum."""
    powers = exponentials(rows)
    norm = 1.0 + tail(rows, powers)
    return each(lambda power: power / norm, powers)


def conjugate(rows: Rows, hyper: Hyper) -> Array:
    """log sum exp of the gaps."""
    return rows.xp.log1p(tail(rows, exponentials(rows)))


@dataclass(frozen=True)
class LogSoftmax(Formula):
    """gap - log1p(tail): both terms have one sign, so nothing cancels."""

    kind = "logarithm"

    def solution(self, rows: Rows, hyper: Hyper) -> LogarithmSolution:
        """The logarithms of the weights, and the weights for the derivatives."""
        powers = exponentials(rows)
        rest = tail(rows, powers)
        logs = each(lambda gap: gap - rows.xp.log1p(rest), rows.gaps)
        return LogarithmSolution(self, rows, hyper, logs, each(lambda power: power / (1.0 + rest), powers))

    def recalled(self, rows: Rows, hyper: Hyper, weights: Terms) -> LogarithmSolution:
        """The solution whose logarithms are known."""
        return LogarithmSolution(self, rows, hyper, weights, each(rows.xp.exp, weights))


FORMULA = Separable(omega, moved, slope, weights=weights, conjugate=conjugate)

softmax = Map(
    "softmax",
    FORMULA,
    summary="Softmax: the exponentials of the scores, divided by their sum.",
    equation="p_i = exp(x_i) / sum_j exp(x_j);  Omega(p) = sum p log p",
    source="Bridle 1990, Probabilistic interpretation of feedforward classification network outputs",
    example="""
    >>> softmax([5, 7, 10]).round(4)
    array([0.0064, 0.0471, 0.9465])
    """,
)
log_softmax = Map(
    "log_softmax",
    LogSoftmax(),
    summary="Logarithm of softmax, to full relative accuracy also where a weight is close to 1.",
    equation="log p_i = x_i - log sum_j exp(x_j)",
    source="Bridle 1990; see softmax",
    example="""
    >>> print(log_softmax([0.0, -40.0])[0])
    -4.248354255291589e-18
    """,
)
softmin = Map(
    "softmin",
    Negated(FORMULA),
    summary="Softmax of the negated scores: the smallest score weighs most.",
    equation="p_i = exp(-x_i) / sum_j exp(-x_j)",
    source="Bridle 1990; see softmax",
    example="""
    >>> softmin([1, 2, 3, 4]).round(4)
    array([0.6439, 0.2369, 0.0871, 0.0321])
    """,
)
log_softmin = Map(
    "log_softmin",
    Negated(LogSoftmax()),
    summary="Logarithm of softmin, to full relative accuracy also where a weight is close to 1.",
    equation="log p_i = -x_i - log sum_j exp(-x_j)",
    source="Bridle 1990; see softmax",
    example="""
    >>> log_softmin([1, 2, 3, 4]).round(4)
    array([-0.4402, -1.4402, -2.4402, -3.4402])
    """,
)
