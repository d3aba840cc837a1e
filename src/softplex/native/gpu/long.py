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
    precise_terms,
    roughly,
    sink_conjugate,
    slopes_of,
    terms,
    weighed,
    weighed_alone,
)
from softplex.native.gpu.rows import (
    WIDE_TEMPERATURE,
    cooled,
    gaps,
    inside,
    multiplied,
    offsets,
    operand_offsets,
    part_of_row,
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
from softplex.native.gpu.short import JVP, LOSS, NUMBERS, RESIDUAL, VALUE, VJP, centred, less

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
def alone(warmth, coolness, TEMPERATURE: tl.constexpr):
    """A single row's temperature as a number."""
    if TEMPERATURE == WIDE_TEMPERATURE:
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
def gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TEMPERATURE: tl.constexpr):
    """How far the tops of parts lie below the row's, and which parts have one."""
    tall = tops_of_parts(partial, this, many, rows, parts)
    is_live = (tall > float("-inf")) & (tall < float("inf"))
    return sink_gaps(tl.where(is_live, tall, peak), peak, warm, coolness, TEMPERATURE), is_live


@triton.jit
def reach(v, a, MAP: tl.constexpr):
    """How far below the top an entry weighs something, and a little more."""
    if MAP == SPARSEMAX:
        distance = v
    elif MAP == ENTMAX15:
        distance = 2.0 * v
    else:
        distance = tl.exp(a * tl.log(v)) / a
    return distance * 1.001


@triton.jit
def from_reach(distance, a, MAP: tl.constexpr):
    """The number v of a row whose weights end so far below the top."""
    if MAP == SPARSEMAX:
        v = distance
    elif MAP == ENTMAX15:
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
    MAP: tl.constexpr,
    METHOD: tl.constexpr,
    IS_NEGATED: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    HAS_WHERE: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """What a part tells about itself, all relative to its own top."""
    row, column, is_inside, part = part_of_row(rows, n, parts, VECTOR, WIDTH)
    z, _ = scores(
        x, where, row, column, is_inside, sizes, x_strides, where_strides, IS_NEGATED, HAS_WHERE, BATCH_DIMS, False,
        ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR,
    )  # fmt: skip
    warmth = warmth_of(temperature, row, row < rows, coolness, TEMPERATURE)
    largest = tl.max(z, 1)
    tl.store(partial + place(TOP, row, part, rows, parts), largest.to(tl.float64))
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TEMPERATURE)
    high, low = gaps(z, top, warmth, coolness, False, TEMPERATURE, IS_PRECISE)
    if MAP <= LOG_SOFTMAX:
        power = raised(high, low, IS_PRECISE)
        is_top = high == 0.0
        ties = tl.sum(is_top.to(tl.int32), 1).to(tl.float64)
        tl.store(partial + place(FIRST, row, part, rows, parts), ties)
        rest = total(tl.where(is_top, 0.0, power), IS_PRECISE) * LOWERED
        tl.store(partial + place(SECOND, row, part, rows, parts), rest)
        if METHOD == VJP or METHOD == JVP:
            places = operand_offsets(
                row, column, sizes, operand_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, VECTOR
            )  # fmt: skip
            g = tl.load(operand + places, mask=is_inside & (z > float("-inf")), other=0.0).to(tl.float32)
            if MAP != LOG_SOFTMAX or METHOD == JVP:
                g = exponential(high, low, IS_PRECISE) * g
            tl.store(partial + place(THIRD, row, part, rows, parts), total(g, IS_PRECISE))
        elif METHOD == RESIDUAL:
            y = tl.load(classes + row)
            power = tl.where(column[None, :] == y[:, None], 0.0, power)
            tl.store(partial + place(THIRD, row, part, rows, parts), total(power, IS_PRECISE) * LOWERED)
    else:
        v = roughly(high, top, is_bad | is_empty, joined(a_high, a_low), MAP, False)
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
    MAP: tl.constexpr,
    METHOD: tl.constexpr,
    TEMPERATURE: tl.constexpr,
):
    """softmax's sums: how many tops, what all others sum to, and what a derivative or a residual sums."""
    ties = tl.zeros([1], tl.float64)
    depth = tl.zeros([1], tl.float64)
    more = tl.zeros([1], tl.float64)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TEMPERATURE)
        first = number_of_parts(partial, FIRST, this, many, rows, parts)
        rest = number_of_parts(partial, SECOND, this, many, rows, parts)
        is_top = is_live & (below == 0.0)
        scale = tl.where(is_live, tl.exp(below), 0.0)
        ties += tl.sum(tl.where(is_top, first, 0.0), 0)
        depth += tl.sum(tl.where(is_live, tl.where(is_top, rest, (first + rest) * scale), 0.0), 0)
        if METHOD == VJP or METHOD == JVP or METHOD == RESIDUAL:
            third = number_of_parts(partial, THIRD, this, many, rows, parts)
            if MAP == LOG_SOFTMAX and METHOD == VJP:
                more += tl.sum(third, 0)
            else:
                more += tl.sum(tl.where(is_live, third * scale, 0.0), 0)
        start += BLOCK
    return ties, depth, more


@triton.jit
def reach_of_parts(
    partial, this, peak, warm, coolness, steepness, rows, parts, MAP: tl.constexpr, TEMPERATURE: tl.constexpr
):
    """How far below the top weights end at most: what weighs nothing in its part weighs nothing in the row."""
    least = tl.full([1], float("inf"), tl.float64)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TEMPERATURE)
        first = number_of_parts(partial, FIRST, this, many, rows, parts)
        distance = tl.where(is_live, reach(first, steepness, MAP) - below, float("inf"))
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
    MAP: tl.constexpr,
    IS_NEGATED: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    HAS_SINK: tl.constexpr,
    HAS_WHERE: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Two sums over the entries of a row that weigh something: only parts whose top does are read."""
    first = tl.zeros([1], tl.float64)
    second = tl.zeros([1], tl.float64)
    # What meets a vector of parts is a number, not a row of one: rows are held by all threads, and so would it be.
    floor, peak, this = -only(reach(v, a, MAP)), only(top), only(row)
    warm = alone(warmth, coolness, TEMPERATURE)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(partial, this, many, rows, parts, peak, warm, coolness, TEMPERATURE)
        is_near = is_live & (below >= floor)
        part = tl.min(tl.where(is_near, many, parts), 0)
        while part < parts:
            column = part * WIDTH + tl.arange(0, WIDTH)
            is_inside = inside(row, column, rows, n, VECTOR)
            z, _ = scores(
                x, where, row, column, is_inside, sizes, x_strides, where_strides, IS_NEGATED, HAS_WHERE, BATCH_DIMS,
                False, ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR,
            )  # fmt: skip
            high, low = gaps(z, top, warmth, coolness, HAS_SINK, TEMPERATURE, IS_PRECISE)
            if SUMS == MASS:
                if IS_PRECISE:
                    one, other = precise_terms(high, low, v[:, None], a, MAP)
                else:
                    one, other = terms(high, v.to(tl.float32)[:, None], a, MAP)
                first += total(one, IS_PRECISE)
                second += total(other, IS_PRECISE)
            else:
                p, slope = weighed(high, low, v[:, None], a, MAP, IS_PRECISE)
                if SUMS == PRODUCTS:
                    places = operand_offsets(
                        row, column, sizes, operand_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT,
                        VECTOR,
                    )  # fmt: skip
                    g = tl.load(operand + places, mask=is_inside & (z > float("-inf")), other=0.0).to(tl.float32)
                    first += total(slope * g, IS_PRECISE)
                    second += total(slope, IS_PRECISE)
                elif SUMS == CONJUGATE:
                    first += total(own_conjugate(high, p, v, a, MAP), IS_PRECISE)
                else:
                    first += total(tl.where(column[None, :] == y[:, None], 0.0, p), IS_PRECISE)
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
    IS_NEGATED: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    HAS_WHERE: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
):
    """The gap of the target, read as a row of one entry; -inf where it is masked or none."""
    z, _ = scores(
        x, where, row, y, is_class[:, None], sizes, x_strides, where_strides, IS_NEGATED, HAS_WHERE, BATCH_DIMS, False,
        ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, 1,
    )  # fmt: skip
    z = tl.max(z, 1).to(tl.float64)
    is_there = z > float("-inf")
    return tl.where(is_there, sink_gaps(tl.where(is_there, z, top), top, warmth, coolness, TEMPERATURE), z)


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
    MAP: tl.constexpr,
    METHOD: tl.constexpr,
    IS_NEGATED: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    HAS_SINK: tl.constexpr,
    HAS_WHERE: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    EMPTY_IS_NAN: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The numbers of a row: its top, v and one sum more; or its loss."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    this, is_row = only(row), row < rows
    warmth = warmth_of(temperature, row, is_row, coolness, TEMPERATURE)
    s = sink_of(sink, row, is_row, IS_NEGATED, HAS_SINK)
    largest = tallest(partial, this, rows, parts)
    top, is_bad, is_empty = tops(largest, s, warmth, HAS_SINK, TEMPERATURE)
    gap = sink_gaps(s, top, warmth, coolness, TEMPERATURE)
    a = joined(a_high, a_low)
    peak, warm = only(top), alone(warmth, coolness, TEMPERATURE)
    y = tl.zeros([1], tl.int64)
    if METHOD == RESIDUAL or METHOD == LOSS:
        y = tl.load(classes + row)

    if MAP <= LOG_SOFTMAX:
        ties, depth, more = exponentials_of_parts(
            partial, this, peak, warm, coolness, rows, parts, MAP, METHOD, TEMPERATURE
        )
        sink_p = tl.zeros([1], tl.float64)
        if HAS_SINK:
            is_sink = gap == 0.0
            ties += is_sink.to(tl.float64)
            sink_p = tl.exp(gap)
            depth += tl.where(is_sink, 0.0, sink_p)
        depth = tl.where(ties > 1.0, ties - 1.0, 0.0) + depth
        v = 1.0 + depth
        if HAS_SINK and METHOD == RESIDUAL:
            more += sink_p
        if MAP == SOFTMAX or METHOD == JVP:
            more = more / v
        if METHOD == VALUE:
            more = depth
    else:
        is_done = is_bad | is_empty
        # Above the solution, or at it but for rounding: Newton's steps are from above.
        most = reach_of_parts(partial, this, peak, warm, coolness, only(a), rows, parts, MAP, TEMPERATURE)
        v = tl.where(is_done, 1.0, from_reach(most, a, MAP))
        rounds = 0
        while (tl.max((is_done == 0).to(tl.int32), 0) > 0) & (rounds < ROUNDS):
            found, rate = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, MASS, MAP, IS_NEGATED, IS_PRECISE, TEMPERATURE, HAS_SINK, HAS_WHERE,
                BATCH_DIMS, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, WHERE_IS_UNIT, VECTOR, WIDTH,
            )  # fmt: skip
            if HAS_SINK:
                p, slope = terms(gap, v, a, MAP)
                found, rate = found + p, rate + slope
            step = (found - 1.0) / tl.where(rate > 0.0, rate, 1.0)
            v = tl.where(is_done, v, v - step)
            near: tl.constexpr = NEARER if IS_PRECISE and MAP != ENTMAX else 2.0**-22
            is_done = is_done | (tl.abs(step) <= near * v)
            rounds += 1
        sink_p, sink_slope = weighed_alone(gap, v, a, MAP)
        more = tl.zeros([1], tl.float64)
        if METHOD != VALUE:
            is_product: tl.constexpr = METHOD == VJP or METHOD == JVP
            sums: tl.constexpr = PRODUCTS if is_product else OTHERS if METHOD == RESIDUAL else CONJUGATE
            more, mass = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, sums, MAP, IS_NEGATED, IS_PRECISE, TEMPERATURE, HAS_SINK, HAS_WHERE,
                BATCH_DIMS, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, WHERE_IS_UNIT, VECTOR, WIDTH,
            )  # fmt: skip
            if is_product:
                if HAS_SINK:
                    mass += sink_slope
                more = more / tl.where(mass > 0.0, mass, 1.0)
            elif HAS_SINK:
                more += sink_conjugate(gap, sink_p, v, a, MAP) if METHOD == LOSS else sink_p

    tl.store(state + row, largest if not HAS_SINK else tl.where(s > largest, s, largest))
    tl.store(state + rows + row, v)
    tl.store(state + 2 * rows + row, more)
    if METHOD == LOSS:
        loss = log1p_of_rows(depth) if MAP == SOFTMAX else more / (a + 1.0)
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, HAS_WEIGHTS)
        loss -= own_gap(
            x, where, row, y, is_class, top, warmth, coolness, sizes, x_strides, where_strides, IS_NEGATED,
            TEMPERATURE, HAS_WHERE, BATCH_DIMS, ROW_DIMS, IS_UNIT, WHERE_IS_UNIT,
        )  # fmt: skip
        tl.store(figures + row, settled_losses(loss, share, is_class, is_ignored, is_bad, is_empty, EMPTY_IS_NAN))
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
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The results of a part, its row being solved."""
    row, column, is_inside, _ = part_of_row(rows, n, parts, VECTOR, WIDTH)
    is_row = row < rows
    z, is_open = scores(
        x, where, row, column, is_inside, sizes, x_strides, where_strides, IS_NEGATED, HAS_WHERE, BATCH_DIMS, False,
        ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR,
    )  # fmt: skip
    is_live = z > float("-inf")
    warmth = warmth_of(temperature, row, is_row, coolness, TEMPERATURE)
    largest, v, more = tl.load(state + row), tl.load(state + rows + row), tl.load(state + 2 * rows + row)
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TEMPERATURE)
    high, low = gaps(z, top, warmth, coolness, HAS_SINK, TEMPERATURE, IS_PRECISE)
    a = joined(a_high, a_low)
    p, slope = weighed(high, low, v[:, None], a, MAP, IS_PRECISE)
    sign: tl.constexpr = -1.0 if IS_NEGATED else 1.0
    if METHOD == VALUE:
        absent: tl.constexpr = float("-inf") if MAP == LOG_SOFTMAX else 0.0
        if MAP == LOG_SOFTMAX:
            p = less(high, low, log1p_of_rows(more))
        found = settled(p, is_live, is_open, is_bad, is_empty, absent, EMPTY_IS_NAN)
    elif METHOD == RESIDUAL:
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, HAS_WEIGHTS)
        found = settled_residuals(
            tl.where(column[None, :] == y[:, None], -more.to(tl.float32)[:, None], p), scale, share, row, is_row,
            is_class, is_ignored, is_live, is_open, is_bad, is_empty, warmth, coolness, sign, HAS_SCALE, TEMPERATURE,
            EMPTY_IS_NAN,
        )  # fmt: skip
    else:
        places = operand_offsets(
            row, column, sizes, operand_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, VECTOR
        )  # fmt: skip
        g = tl.load(operand + places, mask=is_live & is_inside, other=0.0).to(tl.float32)
        outer = cooled(tl.full([1], sign, tl.float64), warmth, coolness, TEMPERATURE) * factor(v, a, MAP)
        found = multiplied(centred(p, slope, g, more, MAP, METHOD), outer, TEMPERATURE)
        found = settled(found, is_live, is_open, is_bad, is_empty, 0.0, EMPTY_IS_NAN)
    places = offsets(row, column, sizes, result_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, VECTOR)
    put(result, places, found, is_inside)


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
    MAP: tl.constexpr,
    IS_NEGATED: tl.constexpr,
    IS_PRECISE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The way back from the weights: first the sums of a part, and last, from those of all parts, its cotangents."""
    row, column, is_inside, part = part_of_row(rows, n, parts, VECTOR, WIDTH)
    absent: tl.constexpr = float("-inf") if MAP == LOG_SOFTMAX else 0.0
    places = offsets(row, column, sizes, x_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, VECTOR)
    p = tl.load(weights + places, mask=is_inside, other=absent).to(tl.float32)
    is_live = p != absent
    places = operand_offsets(
        row, column, sizes, operand_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, OPERAND_IS_UNIT, VECTOR
    )  # fmt: skip
    g = tl.load(operand + places, mask=is_live & is_inside, other=0.0).to(tl.float32)
    slope = slopes_of(p, joined(a_high, a_low), MAP)
    if IS_LAST:
        this = only(row)
        more = sum_of_parts(partial, TOP, this, rows, parts)
        if MAP > LOG_SOFTMAX:
            mass = sum_of_parts(partial, FIRST, this, rows, parts)
            more = more / tl.where(mass > 0.0, mass, 1.0)
        warmth = warmth_of(temperature, row, row < rows, coolness, TEMPERATURE)
        sign: tl.constexpr = -1.0 if IS_NEGATED else 1.0
        outer = cooled(tl.full([1], sign, tl.float64), warmth, coolness, TEMPERATURE)
        moved = multiplied(centred(slope, slope, g, more, MAP, VJP), outer, TEMPERATURE)
        moved = tl.where(p == p, tl.where(is_live, moved, 0.0), float("nan"))
        places = offsets(row, column, sizes, result_strides, BATCH_DIMS, False, ROW_DIMS, IS_UNIT, VECTOR)
        put(result, places, moved, is_inside)
    else:
        own = g
        if MAP != LOG_SOFTMAX:
            own = slope * g
        tl.store(partial + place(TOP, row, part, rows, parts), total(own, IS_PRECISE))
        if MAP > LOG_SOFTMAX:
            tl.store(partial + place(FIRST, row, part, rows, parts), total(slope, IS_PRECISE))
