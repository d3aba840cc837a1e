"""The maps on the GPU, a few lines each: what solves a row, and what its entries weigh then.

A row is known by its gaps (score - top) / temperature, in two float32, and by one number v: softmax's sum of
exponentials, for sparsemax the weight of the top, for entmax15 that weight's root, for entmax the weight. `a` is
alpha - 1. How rows get here and where results go stands in rows.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.arithmetic import (
    LOWERED,
    divided,
    exponential,
    halves,
    log1p,
    log1p_of_rows,
    logarithm,
    raised,
    total,
)

SOFTMAX: tl.constexpr = tl.constexpr(0)
LOG_SOFTMAX: tl.constexpr = tl.constexpr(1)
SPARSEMAX: tl.constexpr = tl.constexpr(2)
ENTMAX15: tl.constexpr = tl.constexpr(3)
ENTMAX: tl.constexpr = tl.constexpr(4)

ROUNDS: tl.constexpr = tl.constexpr(64)
NEAR: tl.constexpr = tl.constexpr(2.0**-20)
"""A Newton step, relative to the number that it moves, after which float32 has no more to say."""
NEARER: tl.constexpr = tl.constexpr(2.0**-32)


# -- what entries weigh -----------------------------------------------------------------------------------------------


@triton.jit
def weighed(high, low, v, a, TASK: tl.constexpr):
    """The weights, and the slopes 1 / omega'' up to `factor`; v has size 1 along the row."""
    if TASK.map == SOFTMAX or TASK.map == LOG_SOFTMAX:
        power = exponential(high, low, TASK.is_precise)
        scale, rest = halves(1.0 / v)
        p = tl.fma(power, scale, power * rest)
        slope = p
    elif TASK.map == SPARSEMAX:
        whole, rest = halves(v)
        p = (high + whole) + (low + rest)
        p = tl.where(p > 0.0, p, 0.0)
        slope = (p > 0.0).to(tl.float32)
    elif TASK.map == ENTMAX15:
        whole, rest = halves(v)
        half = 0.5 * high
        root = half + whole
        # And what rounding took from the sum: of the two, v is the larger wherever something is weighed.
        root = root + (((whole - root) + half) + (0.5 * low + rest))
        slope = tl.where(root > 0.0, root, 0.0)
        p = slope * slope
    else:
        p, slope = deformed(high, low, v, a)
    return p, slope


@triton.jit
def deformed_precisely(gap, v, a):
    """entmax of one more competitor a row, in float64."""
    w = gap * (a * tl.exp(-a * tl.log(v)))
    is_inside = w > -1.0
    w = tl.where(is_inside, w, 0.0)
    q = tl.where(is_inside, tl.exp(log1p_of_rows(w) / a), 0.0)
    return v * q, q / (1.0 + w)


@triton.jit
def deformed(high, low, v, a):
    """entmax: v q, q = (1 + w)^(1 / a) with w = a gap / v^a, by log1p for the sake of small a; slope q / (1 + w).

    The exponent is large where most weight lies far below the top: w and its logarithm are two float32 each.
    """
    share, share_rest = halves(a / tl.exp(a * tl.log(v)))
    w = high * share
    lost = tl.fma(high, share, -w) + tl.fma(high, share_rest, low * share)
    is_inside = w > -1.0
    w, lost = tl.where(is_inside, w, 0.0), tl.where(is_inside, lost, 0.0)
    logs, rest = log1p(w, lost)
    inverse, inverse_rest = halves(1.0 / a)
    exponent = logs * inverse
    q = exponential(exponent, tl.fma(logs, inverse, -exponent) + tl.fma(logs, inverse_rest, rest * inverse), True)
    q = tl.where(is_inside, q, 0.0)
    whole, rest = halves(v)
    return tl.fma(q, whole, q * rest), divided(q, 1.0 + w)


@triton.jit
def slopes_of(p, a, TASK: tl.constexpr):
    """1 / omega'' of weights, or of their logarithms, that are known; 0 where nothing is weighed."""
    if TASK.map == SOFTMAX:
        slope = p
    elif TASK.map == LOG_SOFTMAX:
        slope = exponential(p, 0.0 * p, True)
    elif TASK.map == SPARSEMAX:
        slope = (p > 0.0).to(tl.float32)
    elif TASK.map == ENTMAX15:
        slope = tl.sqrt_rn(tl.where(p > 0.0, p, 0.0))
    else:
        logs = logarithm(tl.where(p > 0.0, p, 1.0), 0.0)
        slope = tl.where(p > 0.0, exponential(logs * (1.0 - a).to(tl.float32), 0.0 * p, True), 0.0)
    return slope


@triton.jit
def factor(v, a, TASK: tl.constexpr):
    """What the slopes of `weighed` are to be multiplied with."""
    if TASK.map == ENTMAX:
        found = tl.exp((1.0 - a) * tl.log(v))
    else:
        found = tl.full(v.shape, 1.0, tl.float64)
    return found


@triton.jit
def weighed_alone(gap, v, a, TASK: tl.constexpr):
    """The weight and the slope of one more competitor a row, in float64."""
    if TASK.map == SOFTMAX or TASK.map == LOG_SOFTMAX:
        p = tl.exp(gap) / v
        slope = p
    elif TASK.map == ENTMAX:
        p, slope = deformed_precisely(gap, v, a)
    else:
        p, rate = terms(gap, v, a, TASK)
        slope = rate if TASK.map == SPARSEMAX else 0.5 * rate
    return p, slope


# -- what solves a row ------------------------------------------------------------------------------------------------


@triton.jit
def solved(high, low, sink_gap, is_void, a, TASK: tl.constexpr):
    """The number v of each row."""
    if TASK.map == SOFTMAX:
        v = total(exponential(high, low, TASK.is_precise), TASK.is_precise)
        if TASK.has_sink:
            v += tl.exp(sink_gap)
        v = tl.where(v > 0.0, v, 1.0)
    elif TASK.map == LOG_SOFTMAX:
        v = 1.0 + tail(high, low, sink_gap, TASK)
    else:
        v = roughly(high, sink_gap, is_void, a, TASK.has_sink, TASK).to(tl.float64)
        if TASK.is_precise:
            v = polished(high, low, sink_gap, is_void, v, a, TASK)
    return v


@triton.jit
def tail(high, low, sink_gap, TASK: tl.constexpr):
    """softmax's sum less one of the leading 1s."""
    is_top = high == 0.0
    ties = tl.sum(is_top.to(tl.int32), 1).to(tl.float64)
    rest = total(tl.where(is_top, 0.0, raised(high, low, TASK.is_precise)), TASK.is_precise) * LOWERED
    if TASK.has_sink:
        is_sink = sink_gap == 0.0
        ties += is_sink.to(tl.float64)
        rest += tl.where(is_sink, 0.0, tl.exp(sink_gap))
    return tl.where(ties > 1.0, ties - 1.0, 0.0) + rest


@triton.jit
def terms(gap, v, a, TASK: tl.constexpr):
    """Weights and their rates in v."""
    if TASK.map == SPARSEMAX:
        p = gap + v
        p, rate = tl.where(p > 0.0, p, 0.0), (p > 0.0).to(p.dtype)
    elif TASK.map == ENTMAX15:
        root = gap + 2.0 * v
        root = 0.5 * tl.where(root > 0.0, root, 0.0)
        p, rate = root * root, 2.0 * root
    else:
        gap = gap.to(tl.float32)
        p, rate = deformed(gap, tl.zeros(gap.shape, tl.float32), v.to(tl.float64), a)
    return p, rate


@triton.jit
def precise_terms(high, low, v, a, TASK: tl.constexpr):
    """The same of gaps in two float32, as float64 where that is no dearer than what it takes to be as precise."""
    if TASK.map == ENTMAX:
        p, rate = deformed(high, low, v, a)
    else:
        p, rate = terms(high.to(tl.float64) + low.to(tl.float64), v, a, TASK)
    return p, rate


@triton.jit
def precise_sink_terms(gap, v, a, TASK: tl.constexpr):
    """The same of the sink, in float64."""
    if TASK.map == ENTMAX:
        p, rate = deformed_precisely(gap, v, a)
    else:
        p, rate = terms(gap, v, a, TASK)
    return p, rate


@triton.jit
def roughly(high, sink_gap, is_void, a, HAS_SINK: tl.constexpr, TASK: tl.constexpr):
    """v by Newton's method in float32: the sum is convex in v, and too large at v = 1, where the top alone weighs 1."""
    v = tl.full(is_void.shape, 1.0, tl.float32)
    is_done = is_void
    rounds = 0
    while (tl.max((is_done == 0).to(tl.int32), 0) > 0) & (rounds < ROUNDS):
        p, rate = terms(high, v[:, None], a, TASK)
        mass, slope = tl.sum(p, 1), tl.sum(rate, 1)
        if HAS_SINK:
            p, rate = terms(sink_gap.to(tl.float32), v, a, TASK)
            mass, slope = mass + p.to(tl.float32), slope + rate.to(tl.float32)
        step = (mass - 1.0) / tl.where(slope > 0.0, slope, 1.0)
        # A row that is done does not move: its bits are not to depend on its neighbours.
        v = tl.where(is_done, v, v - step)
        is_done = is_done | (step <= NEAR * v)
        rounds += 1
    return v


@triton.jit
def polished(high, low, sink_gap, is_void, v, a, TASK: tl.constexpr):
    """v by Newton's method with float64 sums, from a good start."""
    is_done = is_void
    rounds = 0
    # entmax's first v is as near as its terms in float32 let it be: two rounds reach what float64 can tell.
    most: tl.constexpr = 2 if TASK.map == ENTMAX else ROUNDS
    while (tl.max((is_done == 0).to(tl.int32), 0) > 0) & (rounds < most):
        # 0, but only when v is known: the compiler is not to keep all gaps in float64 throughout the loop.
        nothing = (0.0 * v.to(tl.float32))[:, None]
        p, rate = precise_terms(high + nothing, low + nothing, v[:, None], a, TASK)
        mass, slope = total(p, True), total(rate, True)
        if TASK.has_sink:
            p, rate = precise_sink_terms(sink_gap, v, a, TASK)
            mass, slope = mass + p, slope + rate
        step = (mass - 1.0) / tl.where(slope > 0.0, slope, 1.0)
        v = tl.where(is_done, v, v - step)
        is_done = is_done | (tl.abs(step) <= NEARER * v)
        rounds += 1
    return v


@triton.jit
def others(high, low, p, is_hit, v, TASK: tl.constexpr):
    """The sum of a row's weights but one's."""
    if TASK.map == SOFTMAX:
        found = total(tl.where(is_hit, 0.0, raised(high, low, TASK.is_precise)), TASK.is_precise) * LOWERED / v
    else:
        found = total(tl.where(is_hit, 0.0, p), TASK.is_precise)
    return found


# -- losses -----------------------------------------------------------------------------------------------------------


@triton.jit
def conjugate(high, low, p, sink_gap, sink_p, v, a, TASK: tl.constexpr):
    """Omega* of the gaps: log1p of the tail, or what omega makes of them."""
    if TASK.map == SOFTMAX:
        found = log1p_of_rows(tail(high, low, sink_gap, TASK))
    else:
        found = convex_conjugate(high, p, sink_gap, sink_p, v, a, TASK)
    return found


@triton.jit
def convex_conjugate(high, p, sink_gap, sink_p, v, a, TASK: tl.constexpr):
    """The sum of `own_conjugate` over all competitors."""
    found = total(own_conjugate(high, p, v, a, TASK), TASK.is_precise)
    if TASK.has_sink:
        found += sink_conjugate(sink_gap, sink_p, v, a, TASK)
    return found / (a + 1.0)


@triton.jit
def own_conjugate(high, p, v, a, TASK: tl.constexpr):
    """(a + 1) times an entry's part in Omega*: p (a gap - k)."""
    k, steepness = omega_constant(v, a, TASK)
    gap = steepness.to(tl.float32)[:, None] * tl.where(p > 0.0, high, 0.0)
    return tl.where(p > 0.0, p * (gap - k.to(tl.float32)[:, None]), 0.0)


@triton.jit
def sink_conjugate(gap, p, v, a, TASK: tl.constexpr):
    """The same of the sink, in float64."""
    k, steepness = omega_constant(v, a, TASK)
    return tl.where(p > 0.0, p * (steepness * tl.where(p > 0.0, gap, 0.0) - k), 0.0)


@triton.jit
def omega_constant(v, a, TASK: tl.constexpr):
    """k = (w^a - 1) / a of the top's weight w, with which omega(p) = p (k + gap) / (a + 1); and a for each row."""
    if TASK.map == ENTMAX15:
        k = 2.0 * (v - 1.0)
    elif TASK.map == SPARSEMAX:
        k = v - 1.0
    else:
        y = a * tl.log(v)
        series = y * (1.0 + 0.5 * y * (1.0 + y / 3.0 * (1.0 + 0.25 * y)))
        k = tl.where(y > -1e-3, series, tl.exp(y) - 1.0) / a
    return k, tl.full(v.shape, 1.0, tl.float64) * a
