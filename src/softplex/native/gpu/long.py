"""Rows too long for one program: cut into parts by their width alone, so that a row's bits depend on nothing else.

Three kernels. `survey` looks at every part and leaves a few numbers of it; `merge`, one program a row, makes the row's
top and number v of them (for sparse maps it reads again the few parts that can hold weight) and all other sums; `write`
reads the scores once more and stores. Between them stand only a few float64 a part: no atomics, no waiting.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.arithmetic import LOWERED, exponential, joined, log1p_of_rows, raised, total
from softplex.native.gpu.maps import (
    ENTMAX,
    ENTMAX15,
    LOG_SOFTMAX,
    NEARER,
    ROUNDS,
    SOFTMAX,
    SPARSEMAX,
    factor,
    own_conjugate,
    precise_sink_terms,
    precise_terms,
    roughly,
    sink_conjugate,
    slopes_of,
    terms,
    weighed,
    weighed_alone,
)
from softplex.native.gpu.rows import (
    BY_STRIDES,
    WIDE_TEMPERATURE,
    cooled,
    entries,
    gaps,
    multiplied,
    operands,
    part_of_row,
    put,
    scores,
    settled,
    settled_losses,
    settled_residuals,
    signed,
    signs,
    sink_gaps,
    sink_of,
    starts,
    steps,
    targets,
    tops,
    warmth_of,
)
from softplex.native.gpu.short import (
    JVP,
    LOSS,
    LOSS_AND_RESIDUAL,
    NUMBERS,
    RESIDUAL,
    VALUE,
    VJP,
    centred,
    less,
)

TOP: tl.constexpr = tl.constexpr(0)
FIRST: tl.constexpr = tl.constexpr(1)
SECOND: tl.constexpr = tl.constexpr(2)
THIRD: tl.constexpr = tl.constexpr(3)
"""What is left of a part: its top; then for softmax ties, rest and one sum more, for sparse maps its own v."""

MASS: tl.constexpr = tl.constexpr(0)
PRODUCTS: tl.constexpr = tl.constexpr(1)
CONJUGATE: tl.constexpr = tl.constexpr(2)
OTHERS: tl.constexpr = tl.constexpr(3)
"""Which sums are taken over the parts that can hold weight."""

BLOCK: tl.constexpr = tl.constexpr(1024)
"""Parts that `merge` looks at together."""


@triton.jit
def place(kind, row, part, rows, parts):
    """Where a number of a part stands in the scratch."""
    return (kind * rows + row) * parts + part


@triton.jit
def only(value):
    """The number of a single row."""
    return tl.max(value, 0)


@triton.jit
def alone(warmth, coolness, TASK: tl.constexpr):
    """A single row's temperature as a number."""
    if TASK.temperature == WIDE_TEMPERATURE:
        warm = only(warmth)
    else:
        warm = coolness
    return warm


@triton.jit
def number_of_parts(partial, kind, this, many, rows, parts):
    """A number that parts left; 0 beyond the last part."""
    return tl.load(partial + place(kind, this, many, rows, parts), mask=many < parts, other=0.0)


@triton.jit
def tops_of_parts(partial, this, many, rows, parts):
    """The tops of parts, -inf beyond the last."""
    return tl.load(partial + place(TOP, this, many, rows, parts), mask=many < parts, other=float("-inf"))


@triton.jit
def gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TASK: tl.constexpr):
    """How far the tops of parts lie below the row's, and which parts have one."""
    tall = tops_of_parts(partial, this, many, rows, parts)
    is_live = (tall > float("-inf")) & (tall < float("inf"))
    return sink_gaps(tl.where(is_live, tall, peak), peak, warm, coolness, TASK), is_live


@triton.jit
def reach(v, a, TASK: tl.constexpr):
    """How far below the top an entry weighs something, and a little more."""
    if TASK.map == SPARSEMAX:
        distance = v
    elif TASK.map == ENTMAX15:
        distance = 2.0 * v
    else:
        distance = tl.exp(a * tl.log(v)) / a
    return distance * 1.001


@triton.jit
def from_reach(distance, a, TASK: tl.constexpr):
    """The number v of a row whose weights end so far below the top."""
    if TASK.map == SPARSEMAX:
        v = distance
    elif TASK.map == ENTMAX15:
        v = 0.5 * distance
    else:
        v = tl.exp(tl.log(a * distance) / a)
    return tl.where(v < 1.0, v, 1.0)


@triton.jit(do_not_specialize=(*NUMBERS, "parts"))
def survey(
    x,
    operand,
    where,
    partial,
    temperature,
    classes,
    n,
    rows,
    parts,
    sizes,
    x_strides,
    operand_strides,
    where_strides,
    coolness,
    a_high,
    a_low,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """What a part tells about itself, all relative to its own top."""
    row, column, part = part_of_row(parts, LAY)
    z, _ = scores(x, where, row, column, rows, n, sizes, x_strides, where_strides, TASK, LAY)
    warmth = warmth_of(temperature, row, row < rows, coolness, TASK)
    largest = tl.max(z, 1)
    tl.store(partial + place(TOP, row, part, rows, parts), largest.to(tl.float64))
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TASK)
    high, low = gaps(z, top, warmth, coolness, False, TASK)
    if TASK.map <= LOG_SOFTMAX:
        power = raised(high, low, TASK.is_precise)
        is_top = high == 0.0
        ties = tl.sum(is_top.to(tl.int32), 1).to(tl.float64)
        tl.store(partial + place(FIRST, row, part, rows, parts), ties)
        rest = total(tl.where(is_top, 0.0, power), TASK.is_precise) * LOWERED
        tl.store(partial + place(SECOND, row, part, rows, parts), rest)
        if TASK.method == VJP or TASK.method == JVP:
            g = operands(operand, z > float("-inf"), row, column, rows, n, sizes, operand_strides, LAY)
            if TASK.map != LOG_SOFTMAX or TASK.method == JVP:
                g = exponential(high, low, TASK.is_precise) * g
            tl.store(partial + place(THIRD, row, part, rows, parts), total(g, TASK.is_precise))
        elif TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL:
            y = tl.load(classes + row)
            power = tl.where(column[None, :] == y[:, None], 0.0, power)
            tl.store(partial + place(THIRD, row, part, rows, parts), total(power, TASK.is_precise) * LOWERED)
    else:
        v = roughly(high, top, is_bad | is_empty, joined(a_high, a_low), False, TASK)
        tl.store(partial + place(FIRST, row, part, rows, parts), v.to(tl.float64))


@triton.jit
def tallest(partial, this, rows, parts):
    """The largest score of a row."""
    largest = tl.full([1], float("-inf"), tl.float64)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.max(tops_of_parts(partial, this, many, rows, parts), 0))
        start += BLOCK
    return largest


@triton.jit
def exponentials_of_parts(
    partial,
    this,
    peak,
    warm,
    coolness,
    rows,
    parts,
    TASK: tl.constexpr,
):
    """softmax's sums: how many tops, what all others sum to, and what a derivative or a residual sums."""
    ties = tl.zeros([1], tl.float64)
    depth = tl.zeros([1], tl.float64)
    more = tl.zeros([1], tl.float64)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TASK)
        first = number_of_parts(partial, FIRST, this, many, rows, parts)
        rest = number_of_parts(partial, SECOND, this, many, rows, parts)
        is_top = is_live & (below == 0.0)
        scale = tl.where(is_live, tl.exp(below), 0.0)
        ties += tl.sum(tl.where(is_top, first, 0.0), 0)
        depth += tl.sum(tl.where(is_live, tl.where(is_top, rest, (first + rest) * scale), 0.0), 0)
        if TASK.method != VALUE and TASK.method != LOSS:
            third = number_of_parts(partial, THIRD, this, many, rows, parts)
            if TASK.map == LOG_SOFTMAX and TASK.method == VJP:
                more += tl.sum(third, 0)
            else:
                more += tl.sum(tl.where(is_live, third * scale, 0.0), 0)
        start += BLOCK
    return ties, depth, more


@triton.jit
def reach_of_parts(partial, this, peak, warm, coolness, steepness, rows, parts, TASK: tl.constexpr):
    """How far below the top weights end at most: what weighs nothing in its part weighs nothing in the row."""
    least = tl.full([1], float("inf"), tl.float64)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TASK)
        first = number_of_parts(partial, FIRST, this, many, rows, parts)
        distance = tl.where(is_live, reach(first, steepness, TASK) - below, float("inf"))
        least = tl.minimum(least, tl.min(distance, 0))
        start += BLOCK
    return least


@triton.jit
def near_sums(
    x,
    operand,
    where,
    partial,
    row,
    top,
    v,
    y,
    warmth,
    coolness,
    a,
    n,
    rows,
    parts,
    sizes,
    x_strides,
    operand_strides,
    where_strides,
    SUMS: tl.constexpr,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """Two sums over the entries of a row that weigh something: only parts whose top does are read."""
    first = tl.zeros([1], tl.float64)
    second = tl.zeros([1], tl.float64)
    # What meets a vector of parts is a number, not a row of one: rows are held by all threads, and so would it be.
    floor, peak, this = -only(reach(v, a, TASK)), only(top), only(row)
    warm = alone(warmth, coolness, TASK)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TASK)
        is_near = is_live & (below >= floor)
        part = tl.min(tl.where(is_near, many, parts), 0)
        while part < parts:
            column = part * LAY.width + tl.arange(0, LAY.width)
            z, _ = scores(x, where, row, column, rows, n, sizes, x_strides, where_strides, TASK, LAY)
            high, low = gaps(z, top, warmth, coolness, TASK.has_sink, TASK)
            if SUMS == MASS:
                if TASK.is_precise:
                    one, other = precise_terms(high, low, v[:, None], a, TASK)
                else:
                    one, other = terms(high, v.to(tl.float32)[:, None], a, TASK)
                first += total(one, TASK.is_precise)
                second += total(other, TASK.is_precise)
            else:
                p, slope = weighed(high, low, v[:, None], a, TASK)
                if SUMS == PRODUCTS:
                    g = operands(operand, z > float("-inf"), row, column, rows, n, sizes, operand_strides, LAY)
                    first += total(slope * g, TASK.is_precise)
                    second += total(slope, TASK.is_precise)
                elif SUMS == CONJUGATE:
                    first += total(own_conjugate(high, p, v, a, TASK), TASK.is_precise)
                else:
                    first += total(tl.where(column[None, :] == y[:, None], 0.0, p), TASK.is_precise)
            part = tl.min(tl.where(is_near & (many > part), many, parts), 0)
        start += BLOCK
    return first, second


@triton.jit
def own_gap(
    x,
    where,
    row,
    y,
    is_class,
    top,
    warmth,
    coolness,
    sizes,
    x_strides,
    where_strides,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """The gap of the target, one entry of a row; -inf where it is masked or none."""
    at = starts(row, sizes, x_strides, LAY) + steps(y, sizes, x_strides, BY_STRIDES, LAY)
    z = signed(tl.load(x + at, mask=is_class, other=0.0).to(tl.float64), TASK)
    is_there = is_class & (z > float("-inf"))
    if TASK.has_where:
        at = starts(row, sizes, where_strides, LAY) + steps(y, sizes, where_strides, BY_STRIDES, LAY)
        is_there = is_there & (tl.load(where + at, mask=is_class, other=0) != 0)
    gap = sink_gaps(tl.where(is_there, z, top), top, warmth, coolness, TASK)
    return tl.where(is_there, gap, float("-inf"))


@triton.jit(do_not_specialize=(*NUMBERS, "parts"))
def merge(
    x,
    operand,
    where,
    partial,
    state,
    figures,
    more_figures,
    temperature,
    sink,
    classes,
    class_weights,
    n,
    rows,
    parts,
    sizes,
    x_strides,
    operand_strides,
    where_strides,
    coolness,
    a_high,
    a_low,
    ignored,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """The numbers of a row: its top, v and one sum more; or its loss."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    this, is_row = only(row), row < rows
    warmth = warmth_of(temperature, row, is_row, coolness, TASK)
    s = sink_of(sink, row, is_row, TASK)
    largest = tallest(partial, this, rows, parts)
    top, is_bad, is_empty = tops(largest, s, warmth, TASK.has_sink, TASK)
    gap = sink_gaps(s, top, warmth, coolness, TASK)
    a = joined(a_high, a_low)
    peak, warm = only(top), alone(warmth, coolness, TASK)
    y = tl.zeros([1], tl.int64)
    has_residual: tl.constexpr = TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL
    has_loss: tl.constexpr = TASK.method == LOSS or TASK.method == LOSS_AND_RESIDUAL
    conjugate = tl.zeros([1], tl.float64)
    if has_residual or has_loss:
        y = tl.load(classes + row)

    if TASK.map <= LOG_SOFTMAX:
        ties, depth, more = exponentials_of_parts(partial, this, peak, warm, coolness, rows, parts, TASK)
        sink_p = tl.zeros([1], tl.float64)
        if TASK.has_sink:
            is_sink = gap == 0.0
            ties += is_sink.to(tl.float64)
            sink_p = tl.exp(gap)
            depth += tl.where(is_sink, 0.0, sink_p)
        depth = tl.where(ties > 1.0, ties - 1.0, 0.0) + depth
        v = 1.0 + depth
        if TASK.has_sink and has_residual:
            more += sink_p
        if TASK.map == SOFTMAX or TASK.method == JVP:
            more = more / v
        if TASK.method == VALUE:
            more = depth
    else:
        is_done = is_bad | is_empty
        # Above the solution, or at it but for rounding: Newton's steps are from above.
        most = reach_of_parts(partial, this, peak, warm, coolness, only(a), rows, parts, TASK)
        v = tl.where(is_done, 1.0, from_reach(most, a, TASK))
        rounds = 0
        while (tl.max((is_done == 0).to(tl.int32), 0) > 0) & (rounds < ROUNDS):
            found, rate = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, MASS, TASK, LAY,
            )  # fmt: skip
            if TASK.has_sink:
                p, slope = precise_sink_terms(gap, v, a, TASK)
                found, rate = found + p, rate + slope
            step = (found - 1.0) / tl.where(rate > 0.0, rate, 1.0)
            v = tl.where(is_done, v, v - step)
            near: tl.constexpr = NEARER if TASK.is_precise and TASK.map != ENTMAX else 2.0**-22
            is_done = is_done | (tl.abs(step) <= near * v)
            rounds += 1
        sink_p, sink_slope = weighed_alone(gap, v, a, TASK)
        more = tl.zeros([1], tl.float64)
        if TASK.method != VALUE and TASK.method != LOSS:
            sums: tl.constexpr = OTHERS if has_residual else PRODUCTS
            more, mass = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, sums, TASK, LAY,
            )  # fmt: skip
            if has_residual:
                more += sink_p if TASK.has_sink else 0.0
            else:
                mass += sink_slope if TASK.has_sink else 0.0
                more = more / tl.where(mass > 0.0, mass, 1.0)
        if has_loss:
            conjugate, mass = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, CONJUGATE, TASK, LAY,
            )  # fmt: skip
            if TASK.has_sink:
                conjugate += sink_conjugate(gap, sink_p, v, a, TASK)

    tl.store(state + row, largest if not TASK.has_sink else tl.where(s > largest, s, largest))
    tl.store(state + rows + row, v)
    tl.store(state + 2 * rows + row, more)
    if has_loss:
        loss = log1p_of_rows(depth) if TASK.map == SOFTMAX else conjugate / (a + 1.0)
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, TASK)
        loss -= own_gap(x, where, row, y, is_class, top, warmth, coolness, sizes, x_strides, where_strides, TASK, LAY)
        tl.store(figures + row, settled_losses(loss, share, is_class, is_ignored, is_bad, is_empty, TASK))
        tl.store(more_figures + row, share)


@triton.jit(do_not_specialize=(*NUMBERS, "parts"))
def write(
    x,
    operand,
    where,
    result,
    state,
    temperature,
    classes,
    class_weights,
    scale,
    n,
    rows,
    parts,
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
    """The results of a part, its row being solved."""
    row, column, _ = part_of_row(parts, LAY)
    is_row = row < rows
    z, is_open = scores(x, where, row, column, rows, n, sizes, x_strides, where_strides, TASK, LAY)
    is_live = z > float("-inf")
    warmth = warmth_of(temperature, row, is_row, coolness, TASK)
    largest, v, more = tl.load(state + row), tl.load(state + rows + row), tl.load(state + 2 * rows + row)
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TASK)
    high, low = gaps(z, top, warmth, coolness, TASK.has_sink, TASK)
    a = joined(a_high, a_low)
    p, slope = weighed(high, low, v[:, None], a, TASK)
    if TASK.method == VALUE:
        absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
        if TASK.map == LOG_SOFTMAX:
            p = less(high, low, log1p_of_rows(more))
        found = settled(p, is_live, is_open, is_bad, is_empty, absent, TASK)
    elif TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL:
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, TASK)
        found = settled_residuals(
            tl.where(column[None, :] == y[:, None], -more.to(tl.float32)[:, None], p), scale, share, row, is_row,
            is_class, is_ignored, is_live, is_open, is_bad, is_empty, warmth, coolness, TASK,
        )  # fmt: skip
    else:
        g = operands(operand, is_live, row, column, rows, n, sizes, operand_strides, LAY)
        outer = cooled(signs(v, TASK), warmth, coolness, TASK) * factor(v, a, TASK)
        found = multiplied(centred(p, slope, g, more, TASK.method, TASK), outer, TASK)
        found = settled(found, is_live, is_open, is_bad, is_empty, 0.0, TASK)
    put(result, row, column, rows, n, sizes, result_strides, found, LAY)


@triton.jit
def sum_of_parts(partial, kind, this, rows, parts):
    """One number of all parts."""
    found = tl.zeros([1], tl.float64)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        found += tl.sum(number_of_parts(partial, kind, this, many, rows, parts), 0)
        start += BLOCK
    return found


@triton.jit(do_not_specialize=(*NUMBERS, "parts"))
def backward_parts(
    weights,
    operand,
    result,
    partial,
    temperature,
    n,
    rows,
    parts,
    sizes,
    x_strides,
    operand_strides,
    result_strides,
    coolness,
    a_high,
    a_low,
    IS_LAST: tl.constexpr,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """The way back from the weights: first the sums of a part, and last, from those of all parts, its cotangents."""
    row, column, part = part_of_row(parts, LAY)
    absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
    p = entries(weights, row, column, rows, n, sizes, x_strides, absent, LAY.x, LAY).to(tl.float32)
    is_live = p != absent
    g = operands(operand, is_live, row, column, rows, n, sizes, operand_strides, LAY)
    slope = slopes_of(p, joined(a_high, a_low), TASK)
    if IS_LAST:
        this = only(row)
        more = sum_of_parts(partial, TOP, this, rows, parts)
        if TASK.map > LOG_SOFTMAX:
            mass = sum_of_parts(partial, FIRST, this, rows, parts)
            more = more / tl.where(mass > 0.0, mass, 1.0)
        warmth = warmth_of(temperature, row, row < rows, coolness, TASK)
        outer = cooled(signs(more, TASK), warmth, coolness, TASK)
        moved = multiplied(centred(slope, slope, g, more, VJP, TASK), outer, TASK)
        moved = tl.where(p == p, tl.where(is_live, moved, 0.0), float("nan"))
        put(result, row, column, rows, n, sizes, result_strides, moved, LAY)
    else:
        own = g
        if TASK.map != LOG_SOFTMAX:
            own = slope * g
        tl.store(partial + place(TOP, row, part, rows, parts), total(own, TASK.is_precise))
        if TASK.map > LOG_SOFTMAX:
            tl.store(partial + place(FIRST, row, part, rows, parts), total(slope, TASK.is_precise))
