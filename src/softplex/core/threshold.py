"""Solvers for the one unknown of a row: the weight of its anchor, from which all other weights follow.

Two anchors are of use. From the largest score of a row Newton's method is monotone for every map whose link is
convex; from the smallest supported score the weights of links that are steep at 0 keep their digits.
No sort, a fixed bound on the rounds, and a row that is done does not change: its bits do not depend on the rows
beside it. Only where a graph has each round written out does a start from sorted scores stand in for most of them.
"""

from __future__ import annotations

from collections.abc import Callable

from softplex.core.arrays import Array, Namespace, Number, Terms, each, largest, smallest, total

NEWTON_ROUNDS = 64
POLISHING_ROUNDS = 3
"""From a start that is off by what rounding took: each squares that error, but one that may lead to the other side."""
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
) -> Array:
    """The anchor's weight, between 0 and 1, at which the weights of a row sum to the target.

    `weights(v)` are the weights when the anchor has weight v, `rates(v, p)` their derivatives in v. From a start above
    the solution of a convex sum, or below that of a concave one, every step is Newton's. A step that leaves the
    bracket, or that changes sides without halving it, as happens with links that are neither, becomes a bisection.
    """
    goal = xp.zeros_like(start) + target
    noise = 8.0 * xp.eps * xp.minimum(goal, 1.0)

    def step(v: Array, low: Array, high: Array, was_below: Array, done: Array) -> tuple[Array, ...]:
        p = weights(v)
        missing = shortfall(xp, goal, p)
        rate = total(xp, rates(v, p))
        is_below, is_near = missing > 0.0, xp.abs(missing) <= noise
        width = high - low
        low, high = xp.where(missing >= 0.0, v, low), xp.where(missing <= 0.0, v, high)
        moved = v + missing / xp.where(rate > 0.0, rate, 1.0)
        is_inside = (rate > 0.0) & (moved >= low) & (moved <= high)
        has_stalled = (is_below != was_below) & (high - low > 0.5 * width)
        moved = xp.where(is_inside & ~has_stalled | is_near, moved, 0.5 * (low + high))
        moved = xp.clip(moved, 0.0, 1.0)
        is_done = is_near | ~(xp.abs(moved - v) > 4.0 * xp.eps * v)
        return xp.where(done, v, moved), low, high, is_below, done | is_done

    starts_below = start <= 0.0
    state = (start, xp.zeros_like(start), xp.ones_like(start), starts_below, start != start)
    return xp.iterate(step, state, NEWTON_ROUNDS)[0]


def polished(
    xp: Namespace,
    target: Number,
    near: Array,
    weights: Callable[[Array], Terms],
    rates: Callable[[Array, Terms], Terms],
) -> Array:
    """The same from a number that is right but for what rounding took: no step needs a bracket."""

    def step(v: Array) -> tuple[Array]:
        p = weights(v)
        rate = total(xp, rates(v, p))
        moved = v + shortfall(xp, target, p) / xp.where(rate > 0.0, rate, 1.0)
        return (xp.clip(moved, 0.0, 1.0),)

    return xp.repeat(step, (near,), POLISHING_ROUNDS)[0]


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
