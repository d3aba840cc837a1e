"""sparsemax: the Euclidean projection of the scores onto the simplex (Martins & Astudillo 2016, arXiv:1602.02068).

omega(p) = (p^2 - p) / 2, so link(u) = max(u + 1/2, 0): p_i = max(x_i - tau, 0).
"""

from __future__ import annotations

from softplex.core.arrays import Array, Namespace, Number
from softplex.core.formula import Hyper
from softplex.core.map import Map
from softplex.core.separable import Separable


def omega(xp: Namespace, p: Array) -> Array:
    """Half the squared norm, shifted to 0 at a vertex."""
    return 0.5 * p * (p - 1.0)


def moved(xp: Namespace, p: Array, d: Array) -> Array:
    """max(p + d, 0)."""
    return xp.maximum(p + d, 0.0)


def slope(xp: Namespace, p: Array) -> Array:
    """1 on the support."""
    return xp.astype(p > 0.0, xp.working)


def ranked(xp: Namespace, gaps: Array, counts: Array) -> Array:
    """The k largest weigh 1 together if each has (1 - the sum of their gaps) / k above its gap: the least is right."""
    return xp.min((1.0 - xp.cumulative_sum(gaps)) / counts, axis=-1, keepdims=True)


def reach(hyper: Hyper) -> Number:
    """p + d is 0 there even for p = 1."""
    return 1.0


sparsemax = Map(
    "sparsemax",
    Separable(omega, moved, slope, ranked=ranked, reach=reach),
    summary="Euclidean projection onto the simplex: weights are exactly 0 below a threshold.",
    equation="p_i = max(x_i - tau, 0) with sum p = 1;  Omega(p) = sum (p^2 - p) / 2",
    source="Martins & Astudillo 2016, From Softmax to Sparsemax, arXiv:1602.02068",
    example="""
    >>> sparsemax([0.1, 0.2, 0.3, 0.2]).round(4)
    array([0.15, 0.25, 0.35, 0.25])
    """,
)
