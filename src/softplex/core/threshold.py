"""Solvers for the one unknown of a row: the weight of its anchor, from which all other weights follow.

Two anchors are of use. From the largest score of a row Newton's method is monotone for every map whose link is
convex; from the smallest supported score the weights of links that are not (entmax with alpha > 2) keep their digits.
No sort, a fixed bound on the rounds, and a row that is done does not change: its bits do not depend on the rows
beside it.
"""

from __future__ import annotations

from collections.abc import Callable

from softplex.core.arrays import Array, Namespace, Number, Terms, each, largest, smallest, total

NEWTON_ROUNDS = 64
SEARCH_ROUNDS = 80


def shortfall(xp: Namespace, target: Number, p: Terms) -> Array:
    """target - sum p; whole weights are counted apart, so that many of them do not swamp the others."""
    whole = total(xp, each(lambda w: xp.astype(w == 1.0, xp.working), p))
    return (target - whole) - total(xp, each(lambda w: xp.where(w == 1.0, 0.0, w), p))


def newton(
    xp: Namespace,
    target: Number,
    start: Array,
    weights: Callable[[Array], Terms],
    rates: Callable[[Array, Terms], Terms],
    *,
    upwards: bool = False,
) -> Array:
    """The anchor's weight at which the weights of a row sum to the target.

    `weights(v)` are the weights when the anchor has weight v, `rates(v, p)` their derivatives in v. The start lies
    on the side from which Newton's method is monotone: above the solution where the sum is convex in v, below it
    (`upwards`) where it is concave. A step the other way is rounding: the row is done.
    """
    goal = xp.zeros_like(start) + target

    def step(v: Array, done: Array) -> tuple[Array, Array]:
        p = weights(v)
        rate = total(xp, rates(v, p))
        moved = v + shortfall(xp, goal, p) / xp.where(rate > 0.0, rate, xp.inf)
        moved = xp.clip(moved, 0.0, 1.0)
        updated = xp.where(done, v, moved)
        advance = moved - v if upwards else v - moved
        return updated, done | ~(advance > 8.0 * xp.eps * v)

    state = (start, start != start)
    return xp.iterate(step, state, NEWTON_ROUNDS)[0]


def middle(xp: Namespace, low: Array, high: Array) -> Array:
    """A point between two numbers that halves their distance, or that of their exponents where these differ."""
    small = xp.maximum(xp.minimum(xp.abs(low), xp.abs(high)), xp.tiny)
    large = xp.maximum(xp.maximum(xp.abs(low), xp.abs(high)), xp.tiny)
    geometric = xp.sqrt(small) * xp.sqrt(large)
    geometric = xp.where(high <= 0.0, -geometric, geometric)
    arithmetic = 0.5 * low + 0.5 * high
    point = xp.where(large > 4.0 * small, geometric, arithmetic)
    point = xp.where((low < 0.0) & (high > 0.0), 0.0, point)
    return xp.clip(point, low, high)


def last_supported(
    xp: Namespace, scores: Terms, top: Array, reach: Number, is_supported: Callable[[Array], Array]
) -> Array:
    """The smallest score of each row that takes weight, found by bisection over the scores themselves.

    `is_supported(score)` is true down to that score and false below it; nothing further than `reach` below
    the top takes weight.
    """

    def step(inside: Array, outside: Array, done: Array) -> tuple[Array, Array, Array]:
        between = each(lambda x: (x > outside) & (x < inside), scores)
        low = smallest(xp, each(lambda x, b: xp.where(b, x, xp.inf), scores, between))
        high = largest(xp, each(lambda x, b: xp.where(b, x, -xp.inf), scores, between))
        found = low <= high
        pivot = middle(xp, xp.where(found, low, 0.0), xp.where(found, high, 0.0))
        snapped = smallest(xp, each(lambda x, b: xp.where(b & (x >= pivot), x, xp.inf), scores, between))
        snapped = xp.where(found, snapped, inside)
        supported = is_supported(snapped)
        inside = xp.where(found & supported, snapped, inside)
        outside = xp.where(found & ~supported, snapped, outside)
        return inside, outside, ~found

    floor = xp.where(top - reach < top, top - reach, -xp.inf)
    state = (top, floor, top != top)
    return xp.iterate(step, state, SEARCH_ROUNDS)[0]
