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
    entries,
    gaps,
    multiplied,
    operands,
    put,
    scores,
    settled,
    settled_losses,
    settled_residuals,
    signs,
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
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """Everything that is asked of a block of rows. `figures` take one number a row, `scale` multiplies residuals."""
    row, column = block_of_rows(LAY)
    is_row = row < rows
    z, is_open = scores(x, where, row, column, rows, n, sizes, x_strides, where_strides, TASK, LAY)
    warmth = warmth_of(temperature, row, is_row, coolness, TASK)
    s = sink_of(sink, row, is_row, TASK)
    top, is_bad, is_empty = tops(tl.max(z, 1), s, warmth, TASK.has_sink, TASK)
    is_void = is_bad | is_empty
    if TASK.is_lenient:
        # As the formulas do: somebody else settles bad rows, of which all scores are taken as 0.
        z = tl.where(is_bad[:, None] & (column < n)[None, :], 0.0, z)
        s = tl.where(is_bad, 0.0, s)
        is_void = is_empty
    is_live = z > float("-inf")
    high, low = gaps(z, top, warmth, coolness, TASK.has_sink, TASK)
    gap = sink_gaps(s, top, warmth, coolness, TASK)
    a = joined(a_high, a_low)
    v = solved(high, low, gap, is_void, a, TASK)
    p, slope = weighed(high, low, v[:, None], a, TASK)
    sink_p, sink_slope = weighed_alone(gap, v, a, TASK)

    if TASK.method == VALUE:
        absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
        if TASK.map == LOG_SOFTMAX:
            depth = log1p_of_rows(tail(high, low, gap, TASK))
            p = less(high, low, depth)
            sink_p = gap - depth
        if TASK.is_lenient:
            is_bad = tl.zeros(row.shape, tl.int1)
            if TASK.has_sink:
                tl.store(figures + row, sink_p, mask=is_row)
        p = settled(p, is_live, is_open, is_bad, is_empty, absent, TASK)
        put(result, row, column, rows, n, sizes, result_strides, p, LAY)
    elif TASK.method == VJP or TASK.method == JVP:
        g = operands(operand, is_live, row, column, rows, n, sizes, operand_strides, LAY)
        outer = cooled(signs(v, TASK), warmth, coolness, TASK) * factor(v, a, TASK)
        moved = product(p, slope, sink_slope, g, outer, TASK.method, TASK.has_sink, TASK)
        moved = settled(moved, is_live, is_open, is_bad, is_empty, 0.0, TASK)
        put(result, row, column, rows, n, sizes, result_strides, moved, LAY)
    elif TASK.method == SUPPORT_SIZE:
        p = settled(p, is_live, is_open, is_bad, is_empty, 0.0, TASK).to(x.dtype.element_ty)
        count = tl.sum(((p != 0.0) & (column < n)[None, :]).to(tl.int64), 1)
        tl.store(figures + row, count, mask=is_row)
    else:
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, TASK)
        is_hit = column[None, :] == y[:, None]
        if TASK.method == LOSS or TASK.method == LOSS_AND_RESIDUAL:
            own = tl.sum(tl.where(is_hit & is_live, high, 0.0), 1).to(tl.float64)
            own += tl.sum(tl.where(is_hit & is_live, low, 0.0), 1).to(tl.float64)
            own = tl.where(tl.max((is_hit & is_live).to(tl.int32), 1) > 0, own, float("-inf"))
            loss = conjugate(high, low, p, gap, sink_p, v, a, TASK) - own
            loss = settled_losses(loss, share, is_class, is_ignored, is_bad, is_empty, TASK)
            tl.store(figures + row, loss, mask=is_row)
            tl.store(more_figures + row, share, mask=is_row)
        if TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL:
            rest = others(high, low, p, is_hit, v, TASK)
            if TASK.has_sink:
                rest += sink_p
            residual = settled_residuals(
                tl.where(is_hit, -rest.to(tl.float32)[:, None], p), scale, share, row, is_row, is_class, is_ignored,
                is_live, is_open, is_bad, is_empty, warmth, coolness, TASK,
            )  # fmt: skip
            put(result, row, column, rows, n, sizes, result_strides, residual, LAY)


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
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """The cotangents of the scores from the weights, which tell all: bad rows are NaN, what is dead is absent."""
    row, column = block_of_rows(LAY)
    absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
    p = entries(weights, row, column, rows, n, sizes, x_strides, absent, LAY.x, LAY).to(tl.float32)
    is_live = p != absent
    g = operands(operand, is_live, row, column, rows, n, sizes, operand_strides, LAY)
    warmth = warmth_of(temperature, row, row < rows, coolness, TASK)
    slope = slopes_of(p, joined(a_high, a_low), TASK)
    nothing = tl.zeros(row.shape, tl.float64)
    outer = cooled(signs(nothing, TASK), warmth, coolness, TASK)
    moved = product(slope, slope, nothing, g, outer, VJP, False, TASK)
    moved = tl.where(p == p, tl.where(is_live, moved, 0.0), float("nan"))
    put(result, row, column, rows, n, sizes, result_strides, moved, LAY)


@triton.jit(do_not_specialize=("size",))
def multiply(x, factor, size, VECTOR: tl.constexpr, WIDTH: tl.constexpr):
    """A tensor's memory times a number, which is 1 more often than not; its size is a multiple of VECTOR.

    It is of this library's own making, so that Triton sees by itself where it begins.
    """
    times = tl.load(factor)
    if times != 1.0:
        place = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
        is_inside = place < (size // VECTOR) * VECTOR
        values = tl.load(x + place, mask=is_inside).to(tl.float32)
        tl.store(x + place, (values * times).to(x.dtype.element_ty), mask=is_inside)


@triton.jit
def less(high, low, depth):
    """gap - depth, both of one sign, to an ULP of itself."""
    whole, rest = halves(depth[:, None])
    logs, lost = two_sum(high, -whole)
    return tl.where(tl.abs(lost) < 1e30, logs + (lost + (low - rest)), logs)


@triton.jit
def product(
    p, slope, sink_slope, g, outer, METHOD: tl.constexpr, HAS_SINK: tl.constexpr, TASK: tl.constexpr
):  # fmt: skip
    """s (g - <s, g> / sum s) times `outer`; for logarithms g - p sum g, or t - <p, t>."""
    if TASK.map == LOG_SOFTMAX and METHOD == VJP:
        mean = total(g, TASK.is_precise)
    else:
        mean = total(slope * g, TASK.is_precise)
    if TASK.map > LOG_SOFTMAX:
        mass = total(slope, TASK.is_precise)
        if HAS_SINK:
            mass += sink_slope
        mean = mean / tl.where(mass > 0.0, mass, 1.0)
    return multiplied(centred(p, slope, g, mean, METHOD, TASK), outer, TASK)


@triton.jit
def centred(p, slope, g, mean, METHOD: tl.constexpr, TASK: tl.constexpr):
    """s (g - mean), for logarithms g - mean, or g - p mean where the mean is a sum."""
    whole, rest = halves(mean[:, None])
    if TASK.map == LOG_SOFTMAX and METHOD == VJP:
        moved = (g - p * whole) - p * rest
    else:
        moved = (g - whole) - rest
        if TASK.map != LOG_SOFTMAX:
            moved = slope * moved
    return moved
