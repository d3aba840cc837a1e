"""budget: the projection onto 0 <= p <= 1, sum p = k: sparsemax with more than one to give and a cap on each.

Named in Blondel, Martins & Niculae 2020 (arXiv:1901.02324); omega is sparsemax's, the link saturates at 1. An entry
takes weight if the entries above it, counted up to 1 each, leave something of k; the smallest such score anchors the
others.
"""

from __future__ import annotations

from softplex.core.arrays import Array, Namespace, Terms, each
from softplex.core.formula import Hyper, Parameter
from softplex.core.map import Map
from softplex.core.rows import Rows
from softplex.core.separable import Separable
from softplex.core.threshold import last_supported, newton, shortfall
from softplex.maps.sparsemax import omega as half_square


def omega(xp: Namespace, p: Array, budget: object) -> Array:
    """That of sparsemax."""
    return half_square(xp, p)


def moved(xp: Namespace, p: Array, d: Array, budget: object) -> Array:
    """p + d, kept between 0 and 1."""
    return xp.clip(p + d, 0.0, 1.0)


def slope(xp: Namespace, p: Array, budget: object) -> Array:
    """1 strictly between the bounds."""
    return xp.astype((p > 0.0) & (p < 1.0), xp.working)


def weights(rows: Rows, hyper: Hyper) -> Terms:
    """Newton's method on the smallest supported weight; the sum is concave in it, so the way up from 0 is monotone."""
    xp, budget = rows.xp, hyper["budget"]

    def weights_over(gaps: Terms, v: Array) -> Terms:
        return each(lambda gap: xp.where(gap >= 0.0, moved(xp, v, gap, budget), 0.0), gaps)

    def is_supported(score: Array) -> Array:
        return shortfall(xp, budget, weights_over(rows.gaps_from(score), xp.zeros_like(score))) > 0.0

    last = last_supported(xp, rows.scores, rows.top, xp.inf, is_supported)
    gaps = rows.gaps_from(last)

    def rates(v: Array, p: Terms) -> Terms:
        return each(lambda w, gap: xp.astype((gap >= 0.0) & (w < 1.0), xp.working), p, gaps)

    found = weights_over(gaps, newton(xp, budget, xp.zeros_like(last), lambda v: weights_over(gaps, v), rates))
    # A budget that cannot be met gives each entry exactly 1: next to 1 it would count as one that still moves.
    is_full = rows.live_count <= budget
    return each(lambda w, is_live: xp.where(is_full & is_live, 1.0, w), found, rows.is_live)


budget = Map(
    "budget",
    Separable(
        omega,
        moved,
        slope,
        weights=weights,
        parameters=(Parameter("budget", None, 0.0, None),),
        mass_parameter="budget",
    ),
    summary="Projection onto the weights between 0 and 1 that sum to a budget k.",
    equation="p_i = min(max(x_i - tau, 0), 1) with sum p = k;  Omega(p) = sum (p^2 - p) / 2",
    source="Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324",
    example="""
    >>> budget([0.1, 0.2, 0.9, 0.8], budget=2).round(4)
    array([0.1, 0.2, 0.9, 0.8])
    """,
)
