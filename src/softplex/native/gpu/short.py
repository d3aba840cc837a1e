"""Rows that fit on the chip: one kernel loads them, solves them and stores what was asked for, all in registers."""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.arithmetic import halves, joined, log1p_of_rows, total, two_sum
from softplex.native.gpu.maps import (
    LOG_SOFTMAX,
    conjugate,
    factor,
    others,
    slopes_of,
    solved,
    tail,
    weighed,
    weighed_alone,
)
from softplex.native.gpu.rows import (
    block_of_rows,
    cooled,
    gaps,
    multiplied,
    offsets,
    operand_offsets,
    put,
    scores,
    settled,
    settled_losses,
    settled_residuals,
    sink_gaps,
    sink_of,
    targets,
    tops,
    warmth_of,
)

VALUE: tl.constexpr = tl.constexpr(0)
VJP: tl.constexpr = tl.constexpr(1)
JVP: tl.constexpr = tl.constexpr(2)
RESIDUAL: tl.constexpr = tl.constexpr(3)
LOSS: tl.constexpr = tl.constexpr(4)
LOSS_AND_RESIDUAL: tl.constexpr = tl.constexpr(5)
SUPPORT_SIZE: tl.constexpr = tl.constexpr(6)

# What tuples hold Triton specialises all the same, on 1 and on multiples of 16: up to three variants of a stride.
NUMBERS = ("n", "rows", "sizes", "x_strides", "operand_strides", "where_strides", "result_strides", "ignored")


@triton.jit(do_not_specialize=NUMBERS)
def short_rows(
    x,
    operand,
    where,
    result,
    figures,
    more_figures,
    temperature,
    sink,
    classes,
    class_weights,
    scale,
    n,
    rows,
    sizes,
    x_strides,
    operand_strides,
    where_strides,
    result_strides,
    coolness,
    a_high,
    a_low,
    ignored,
    MAP: tl.constexpr,
    METHOD: tl.constexpr,
    IS_NEGATED: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    HAS_SINK: tl.constexpr,
    HAS_WHERE: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    EMPTY_IS_NAN: tl.constexpr,
    IS_LENIENT: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    BATCH_IS_UNIT: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Everything that is asked of a block of rows. `figures` take one number a row, `scale` multiplies residuals."""
    row, column, is_inside = block_of_rows(rows, n, VECTOR, ROWS, WIDTH)
    is_row = row < rows
    z, is_open = scores(
        x, where, row, column, is_inside, sizes, x_strides, where_strides, IS_NEGATED, HAS_WHERE, BATCH_DIMS,
        BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR,
    )  # fmt: skip
    warmth = warmth_of(temperature, row, is_row, coolness, TEMPERATURE)
    s = sink_of(sink, row, is_row, IS_NEGATED, HAS_SINK)
    top, is_bad, is_empty = tops(tl.max(z, 1), s, warmth, HAS_SINK, TEMPERATURE)
    is_void = is_bad | is_empty
    if IS_LENIENT:
        # As the formulas do: somebody else settles bad rows, of which all scores are taken as 0.
        z = tl.where(is_bad[:, None] & is_inside, 0.0, z)
        s = tl.where(is_bad, 0.0, s)
        is_void = is_empty
    is_live = z > float("-inf")
    high, low = gaps(z, top, warmth, coolness, HAS_SINK, TEMPERATURE, IS_PRECISE)
    gap = sink_gaps(s, top, warmth, coolness, TEMPERATURE)
    a = joined(a_high, a_low)
    v = solved(high, low, gap, is_void, a, MAP, HAS_SINK, IS_PRECISE)
    p, slope = weighed(high, low, v[:, None], a, MAP, IS_PRECISE)
    sink_p, sink_slope = weighed_alone(gap, v, a, MAP)
    places = offsets(row, column, sizes, result_strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, VECTOR)
    sign: tl.constexpr = -1.0 if IS_NEGATED else 1.0

    if METHOD == VALUE:
        absent: tl.constexpr = float("-inf") if MAP == LOG_SOFTMAX else 0.0
        if MAP == LOG_SOFTMAX:
            depth = log1p_of_rows(tail(high, low, gap, HAS_SINK, IS_PRECISE))
            p = less(high, low, depth)
            sink_p = gap - depth
        if IS_LENIENT:
            is_bad = tl.zeros([ROWS], tl.int1)
            if HAS_SINK:
                tl.store(figures + row, sink_p, mask=is_row)
        p = settled(p, is_live, is_open, is_bad, is_empty, absent, EMPTY_IS_NAN)
        put(result, places, p, is_inside)
    elif METHOD == VJP or METHOD == JVP:
        from_places = operand_offsets(
            row, column, sizes, operand_strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, VECTOR
        )  # fmt: skip
        g = tl.load(operand + from_places, mask=is_live & is_inside, other=0.0).to(tl.float32)
        outer = cooled(tl.full([ROWS], sign, tl.float64), warmth, coolness, TEMPERATURE) * factor(v, a, MAP)
        moved = product(p, slope, sink_slope, g, outer, MAP, METHOD, HAS_SINK, TEMPERATURE, IS_PRECISE)
        moved = settled(moved, is_live, is_open, is_bad, is_empty, 0.0, EMPTY_IS_NAN)
        put(result, places, moved, is_inside)
    elif METHOD == SUPPORT_SIZE:
        p = settled(p, is_live, is_open, is_bad, is_empty, 0.0, EMPTY_IS_NAN).to(x.dtype.element_ty)
        count = tl.sum(((p != 0.0) & is_inside).to(tl.int64), 1)
        tl.store(figures + row, count, mask=is_row)
    else:
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, HAS_WEIGHTS)
        is_hit = column[None, :] == y[:, None]
        if METHOD == LOSS or METHOD == LOSS_AND_RESIDUAL:
            own = tl.sum(tl.where(is_hit & is_live, high, 0.0), 1).to(tl.float64)
            own += tl.sum(tl.where(is_hit & is_live, low, 0.0), 1).to(tl.float64)
            own = tl.where(tl.max((is_hit & is_live).to(tl.int32), 1) > 0, own, float("-inf"))
            loss = conjugate(high, low, p, gap, sink_p, v, a, MAP, HAS_SINK, IS_PRECISE) - own
            loss = settled_losses(loss, share, is_class, is_ignored, is_bad, is_empty, EMPTY_IS_NAN)
            tl.store(figures + row, loss, mask=is_row)
            tl.store(more_figures + row, share, mask=is_row)
        if METHOD == RESIDUAL or METHOD == LOSS_AND_RESIDUAL:
            rest = others(high, low, p, is_hit, v, MAP, IS_PRECISE)
            if HAS_SINK:
                rest += sink_p
            residual = settled_residuals(
                tl.where(is_hit, -rest.to(tl.float32)[:, None], p), scale, share, row, is_row, is_class, is_ignored,
                is_live, is_open, is_bad, is_empty, warmth, coolness, sign, HAS_SCALE, TEMPERATURE, EMPTY_IS_NAN,
            )  # fmt: skip
            put(result, places, residual, is_inside)


@triton.jit(do_not_specialize=NUMBERS)
def backward_rows(
    weights,
    operand,
    result,
    temperature,
    n,
    rows,
    sizes,
    x_strides,
    operand_strides,
    result_strides,
    coolness,
    a_high,
    a_low,
    MAP: tl.constexpr,
    IS_NEGATED: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    BATCH_IS_UNIT: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The cotangents of the scores from the weights, which tell all: bad rows are NaN, what is dead is absent."""
    row, column, is_inside = block_of_rows(rows, n, VECTOR, ROWS, WIDTH)
    absent: tl.constexpr = float("-inf") if MAP == LOG_SOFTMAX else 0.0
    places = offsets(row, column, sizes, x_strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, VECTOR)
    p = tl.load(weights + places, mask=is_inside, other=absent).to(tl.float32)
    is_live = p != absent
    places = operand_offsets(
        row, column, sizes, operand_strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, VECTOR
    )  # fmt: skip
    g = tl.load(operand + places, mask=is_live & is_inside, other=0.0).to(tl.float32)
    warmth = warmth_of(temperature, row, row < rows, coolness, TEMPERATURE)
    sign: tl.constexpr = -1.0 if IS_NEGATED else 1.0
    outer = cooled(tl.full([ROWS], sign, tl.float64), warmth, coolness, TEMPERATURE)
    slope = slopes_of(p, joined(a_high, a_low), MAP)
    moved = product(slope, slope, outer, g, outer, MAP, VJP, False, TEMPERATURE, IS_PRECISE)
    moved = tl.where(p == p, tl.where(is_live, moved, 0.0), float("nan"))
    places = offsets(row, column, sizes, result_strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, VECTOR)
    put(result, places, moved, is_inside)


@triton.jit(do_not_specialize=("size",))
def multiply(x, factor, size, WIDTH: tl.constexpr):
    """A tensor's memory times a number, which is 1 more often than not."""
    times = tl.load(factor)
    if times != 1.0:
        place = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
        values = tl.load(x + place, mask=place < size).to(tl.float32)
        tl.store(x + place, (values * times).to(x.dtype.element_ty), mask=place < size)


@triton.jit
def less(high, low, depth):
    """gap - depth, both of one sign, to an ULP of itself."""
    whole, rest = halves(depth[:, None])
    logs, lost = two_sum(high, -whole)
    return tl.where(tl.abs(lost) < 1e30, logs + (lost + (low - rest)), logs)


@triton.jit
def product(
    p,
    slope,
    sink_slope,
    g,
    outer,
    MAP: tl.constexpr,
    METHOD: tl.constexpr,
    HAS_SINK: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    IS_PRECISE: tl.constexpr,
):
    """s (g - <s, g> / sum s) times `outer`; for logarithms g - p sum g, or t - <p, t>."""
    if MAP == LOG_SOFTMAX and METHOD == VJP:
        mean = total(g, IS_PRECISE)
    else:
        mean = total(slope * g, IS_PRECISE)
    if MAP > LOG_SOFTMAX:
        mass = total(slope, IS_PRECISE)
        if HAS_SINK:
            mass += sink_slope
        mean = mean / tl.where(mass > 0.0, mass, 1.0)
    return multiplied(centred(p, slope, g, mean, MAP, METHOD), outer, TEMPERATURE)


@triton.jit
def centred(p, slope, g, mean, MAP: tl.constexpr, METHOD: tl.constexpr):
    """s (g - mean), for logarithms g - mean, or g - p mean where the mean is a sum."""
    whole, rest = halves(mean[:, None])
    if MAP == LOG_SOFTMAX and METHOD == VJP:
        moved = (g - p * whole) - p * rest
    else:
        moved = (g - whole) - rest
        if MAP != LOG_SOFTMAX:
            moved = slope * moved
    return moved
