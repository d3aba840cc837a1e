"""Rows too long for one program: cut into parts by their width alone, so that a row's bits depend on nothing else.

Three kernels. `survey` looks at every part and leaves a few numbers of it; `merge`, one program a row, makes the row's
top and number v of them (for sparse maps it reads again the few parts that can hold weight) and all other sums; `write`
reads the scores once more and stores. Between them stand only a few float64 a part: no atomics, no waiting.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.arithmetic import exponential, log1p_of_rows, total
from softplex.native.gpu.maps import (
    ENTMAX,
    ENTMAX15,
    LOG_SOFTMAX,
    NEARER,
    ROUNDS,
    SOFTMAX,
    SPARSEMAX,
    factor,
    omega_constant,
    own_conjugate,
    precise_terms,
    roughly,
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
    number_of,
    put,
    scores,
    settled,
    settled_rows,
    sink_gaps,
    sink_of,
    starts,
    steps,
    tops,
)
from softplex.native.gpu.short import JVP, LOSS, NUMBERS, RESIDUAL, VALUE, VJP, centred, less, multiplied

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
def places_in(
    row,
    column,
    sizes,
    strides,
    BATCH_DIMS: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The offsets of a part."""
    return starts(row, sizes, strides, BATCH_DIMS, False, VECTOR) + steps(column, sizes[2], strides, ROW_DIMS, IS_UNIT)


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
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """What a part tells about itself, all relative to its own top."""
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts + tl.arange(0, 1), program % parts
    column = part * WIDTH + tl.arange(0, WIDTH)
    is_row = row < rows
    is_inside = inside(row, column, rows, n, VECTOR)
    x_places = places_in(row, column, sizes, x_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
    where_places = x_places
    if HAS_WHERE:
        where_places = places_in(row, column, sizes, where_strides, BATCH_DIMS, ROW_DIMS, WHERE_IS_UNIT, VECTOR)
    z, _ = scores(x, where, is_inside, x_places, where_places, IS_NEGATED, HAS_WHERE)
    warmth = coolness
    if TEMPERATURE == WIDE_TEMPERATURE:
        warmth = number_of(temperature, row, is_row, 1.0)
    largest = tl.max(z, 1)
    tl.store(partial + place(TOP, row, part, rows, parts), largest.to(tl.float64))
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TEMPERATURE)
    high, low = gaps(z, top, warmth, coolness, False, TEMPERATURE, IS_PRECISE)
    a = tl.zeros([1], tl.float64) + a_high + a_low
    if MAP <= LOG_SOFTMAX:
        power = exponential(high, low, IS_PRECISE)
        is_top = high == 0.0
        ties = tl.sum(is_top.to(tl.int32), 1).to(tl.float64)
        tl.store(partial + place(FIRST, row, part, rows, parts), ties)
        tl.store(partial + place(SECOND, row, part, rows, parts), total(tl.where(is_top, 0.0, power), IS_PRECISE))
        if METHOD == VJP or METHOD == JVP:
            places = places_in(row, column, sizes, operand_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
            g = tl.load(operand + places, mask=is_inside & (z > float("-inf")), other=0.0).to(tl.float32)
            if MAP != LOG_SOFTMAX or METHOD == JVP:
                g = power * g
            tl.store(partial + place(THIRD, row, part, rows, parts), total(g, IS_PRECISE))
        elif METHOD == RESIDUAL:
            y = tl.load(classes + row)
            power = tl.where(column[None, :] == y[:, None], 0.0, power)
            tl.store(partial + place(THIRD, row, part, rows, parts), total(power, IS_PRECISE))
    else:
        v = roughly(high, top, is_bad | is_empty, a, MAP, False)
        tl.store(partial + place(FIRST, row, part, rows, parts), v.to(tl.float64))


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
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Two sums over the entries of a row that weigh something: only parts whose top does are read."""
    first = tl.zeros([1], tl.float64)
    second = tl.zeros([1], tl.float64)
    # What meets a vector of parts is a number, not a row of one: rows are held by all threads, and so would it be.
    floor, peak, warm, this = -only(reach(v, a, MAP)), only(top), coolness, only(row)
    if TEMPERATURE == WIDE_TEMPERATURE:
        warm = only(warmth)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        tall = tl.load(partial + place(TOP, this, many, rows, parts), mask=many < parts, other=float("-inf"))
        is_near = (sink_gaps(tall, peak, warm, coolness, TEMPERATURE) >= floor) & (tall > float("-inf"))
        part = tl.min(tl.where(is_near, many, parts), 0)
        while part < parts:
            column = part * WIDTH + tl.arange(0, WIDTH)
            is_inside = inside(row, column, rows, n, VECTOR)
            places = places_in(row, column, sizes, x_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
            where_places = places
            if HAS_WHERE:
                where_places = places_in(row, column, sizes, where_strides, BATCH_DIMS, ROW_DIMS, WHERE_IS_UNIT, VECTOR)
            z, _ = scores(x, where, is_inside, places, where_places, IS_NEGATED, HAS_WHERE)
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
                    places = places_in(row, column, sizes, operand_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
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
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The numbers of a row: its top, v, one sum more, and the sum of the slopes; or its loss."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    is_row = row < rows
    warmth = coolness
    if TEMPERATURE == WIDE_TEMPERATURE:
        warmth = number_of(temperature, row, is_row, 1.0)
    s = tl.zeros([1], tl.float64)
    if HAS_SINK:
        s = sink_of(sink, row, is_row, IS_NEGATED)
    largest = tl.full([1], float("-inf"), tl.float64)
    deepest = tl.full([1], float("inf"), tl.float64)
    a = tl.zeros([1], tl.float64) + a_high + a_low
    this = only(row)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        tall = tl.load(partial + place(TOP, this, many, rows, parts), mask=many < parts, other=float("-inf"))
        largest = tl.maximum(largest, tl.max(tall, 0))
        start += BLOCK
    top, is_bad, is_empty = tops(largest, s, warmth, HAS_SINK, TEMPERATURE)
    gap = sink_gaps(s, top, warmth, coolness, TEMPERATURE)

    v = tl.full([1], 1.0, tl.float64)
    more = tl.zeros([1], tl.float64)
    mass = tl.zeros([1], tl.float64)
    depth = tl.zeros([1], tl.float64)
    ties = tl.zeros([1], tl.float64)
    y = tl.zeros([1], tl.int64)
    if METHOD == RESIDUAL or METHOD == LOSS:
        y = tl.load(classes + row)
    peak, warm, steepness = only(top), coolness, only(a)
    if TEMPERATURE == WIDE_TEMPERATURE:
        warm = only(warmth)
    start = this * 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        is_part = many < parts
        tall = tl.load(partial + place(TOP, this, many, rows, parts), mask=is_part, other=float("-inf"))
        is_live = (tall > float("-inf")) & (tall < float("inf"))
        below = sink_gaps(tl.where(is_live, tall, peak), peak, warm, coolness, TEMPERATURE)
        first = tl.load(partial + place(FIRST, this, many, rows, parts), mask=is_part, other=0.0)
        if MAP <= LOG_SOFTMAX:
            rest = tl.load(partial + place(SECOND, this, many, rows, parts), mask=is_part, other=0.0)
            is_top = is_live & (below == 0.0)
            scale = tl.where(is_live, tl.exp(below), 0.0)
            ties += tl.sum(tl.where(is_top, first, 0.0), 0)
            depth += tl.sum(tl.where(is_live, tl.where(is_top, rest, (first + rest) * scale), 0.0), 0)
            if METHOD == VJP or METHOD == JVP or METHOD == RESIDUAL:
                third = tl.load(partial + place(THIRD, this, many, rows, parts), mask=is_part, other=0.0)
                if MAP == LOG_SOFTMAX and METHOD == VJP:
                    more += tl.sum(third, 0)
                else:
                    more += tl.sum(tl.where(is_live, third * scale, 0.0), 0)
        else:
            # No entry weighs anything in the row that weighs nothing in its part.
            distance = tl.where(is_live, reach(first, steepness, MAP) - below, float("inf"))
            deepest = tl.minimum(deepest, tl.min(distance, 0))
        start += BLOCK

    if MAP <= LOG_SOFTMAX:
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
        v = tl.where(is_done, 1.0, from_reach(deepest, a, MAP))
        rounds = 0
        while (tl.max((is_done == 0).to(tl.int32), 0) > 0) & (rounds < ROUNDS):
            found, rate = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, 0, MAP, IS_NEGATED, IS_PRECISE, TEMPERATURE, HAS_SINK, HAS_WHERE,
                BATCH_DIMS, ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR, WIDTH,
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
        if METHOD == VJP or METHOD == JVP:
            more, mass = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, 1, MAP, IS_NEGATED, IS_PRECISE, TEMPERATURE, HAS_SINK, HAS_WHERE,
                BATCH_DIMS, ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR, WIDTH,
            )  # fmt: skip
            if HAS_SINK:
                mass += sink_slope
            more = more / tl.where(mass > 0.0, mass, 1.0)
        elif METHOD == RESIDUAL or METHOD == LOSS:
            sums: tl.constexpr = 3 if METHOD == RESIDUAL else 2
            more, mass = near_sums(
                x, operand, where, partial, row, top, v, y, warmth, coolness, a, n, rows, parts, sizes, x_strides,
                operand_strides, where_strides, sums, MAP, IS_NEGATED, IS_PRECISE, TEMPERATURE, HAS_SINK, HAS_WHERE,
                BATCH_DIMS, ROW_DIMS, IS_UNIT, WHERE_IS_UNIT, VECTOR, WIDTH,
            )  # fmt: skip
            if HAS_SINK:
                own = sink_p
                if METHOD == LOSS:
                    k, slant = omega_constant(v, a, MAP)
                    own = tl.where(sink_p > 0.0, sink_p * (slant * tl.where(sink_p > 0.0, gap, 0.0) - k), 0.0)
                more += own

    tl.store(state + row, largest if not HAS_SINK else tl.where(s > largest, s, largest))
    tl.store(state + rows + row, v)
    tl.store(state + 2 * rows + row, more)
    if METHOD == LOSS:
        if MAP == SOFTMAX:
            loss = log1p_of_rows(depth)
        else:
            loss = more / (tl.zeros([1], tl.float64) + a + 1.0)
        is_ignored = y == ignored
        is_class = (y >= 0) & (y < n)
        y = tl.where(is_class, y, 0)
        share = tl.full([1], 1.0, tl.float64)
        if HAS_WEIGHTS:
            share = tl.load(class_weights + y, mask=is_class, other=0.0).to(tl.float64)
        share = tl.where(is_ignored, 0.0, share)
        # The target's own score, a row of one entry.
        places = starts(row, sizes, x_strides, BATCH_DIMS, False, 1)
        where_places = places
        if HAS_WHERE:
            where_places = starts(row, sizes, where_strides, BATCH_DIMS, False, 1)
            where_places += tl.trans(steps(y, sizes[2], where_strides, ROW_DIMS, WHERE_IS_UNIT))
        places += tl.trans(steps(y, sizes[2], x_strides, ROW_DIMS, IS_UNIT))
        z, _ = scores(x, where, is_class[:, None], places, where_places, IS_NEGATED, HAS_WHERE)
        z = tl.max(z, 1).to(tl.float64)
        own = tl.where(
            z > float("-inf"), sink_gaps(tl.where(z > float("-inf"), z, top), top, warmth, coolness, TEMPERATURE), z
        )
        loss = loss - own
        loss = settled_rows(tl.where(loss > 0.0, loss, 0.0), is_bad, is_empty, 0.0, EMPTY_IS_NAN)
        loss = tl.where(share == 0.0, 0.0, loss) * share
        tl.store(figures + row, tl.where(is_class | is_ignored, loss, float("nan")))
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
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The results of a part, its row being solved."""
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts + tl.arange(0, 1), program % parts
    column = part * WIDTH + tl.arange(0, WIDTH)
    is_row = row < rows
    is_inside = inside(row, column, rows, n, VECTOR)
    places = places_in(row, column, sizes, x_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
    where_places = places
    if HAS_WHERE:
        where_places = places_in(row, column, sizes, where_strides, BATCH_DIMS, ROW_DIMS, WHERE_IS_UNIT, VECTOR)
    z, is_open = scores(x, where, is_inside, places, where_places, IS_NEGATED, HAS_WHERE)
    is_live = z > float("-inf")
    warmth = coolness
    if TEMPERATURE == WIDE_TEMPERATURE:
        warmth = number_of(temperature, row, is_row, 1.0)
    largest, v, more = tl.load(state + row), tl.load(state + rows + row), tl.load(state + 2 * rows + row)
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TEMPERATURE)
    high, low = gaps(z, top, warmth, coolness, HAS_SINK, TEMPERATURE, IS_PRECISE)
    a = tl.zeros([1], tl.float64) + a_high + a_low
    p, slope = weighed(high, low, v[:, None], a, MAP, IS_PRECISE)
    sign: tl.constexpr = -1.0 if IS_NEGATED else 1.0
    if METHOD == VALUE:
        absent: tl.constexpr = float("-inf") if MAP == LOG_SOFTMAX else 0.0
        if MAP == LOG_SOFTMAX:
            p = less(high, low, log1p_of_rows(more))
        found = settled(p, is_live, is_open, is_bad, is_empty, absent, EMPTY_IS_NAN)
    elif METHOD == RESIDUAL:
        y = tl.load(classes + row)
        is_ignored = y == ignored
        is_class = (y >= 0) & (y < n)
        found = tl.where(column[None, :] == y[:, None], -more.to(tl.float32)[:, None], p)
        if HAS_SCALE:
            share = tl.full([1], 1.0, tl.float64)
            if HAS_WEIGHTS:
                share = tl.load(class_weights + y, mask=is_class, other=0.0).to(tl.float64)
            times = number_of(scale, row, is_row, 0.0)
            is_silent = (times == 0.0) | is_ignored
            found = multiplied(found, cooled(times * share * sign, warmth, coolness, TEMPERATURE), TEMPERATURE)
        found = settled(found, is_live, is_open, is_bad, is_empty, 0.0, EMPTY_IS_NAN)
        found = tl.where(is_class[:, None] | is_ignored[:, None], found, float("nan"))
        if HAS_SCALE:
            found = tl.where(is_silent[:, None], 0.0, found)
    else:
        places = places_in(row, column, sizes, operand_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
        g = tl.load(operand + places, mask=is_live & is_inside, other=0.0).to(tl.float32)
        outer = cooled(tl.full([1], sign, tl.float64), warmth, coolness, TEMPERATURE) * factor(v, a, MAP)
        found = multiplied(centred(p, slope, g, more, MAP, METHOD), outer, TEMPERATURE)
        found = settled(found, is_live, is_open, is_bad, is_empty, 0.0, EMPTY_IS_NAN)
    places = places_in(row, column, sizes, result_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
    put(result, places, found, is_inside)


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
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The way back from the weights: first the sums of a part, and last, from those of all parts, its cotangents."""
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts + tl.arange(0, 1), program % parts
    column = part * WIDTH + tl.arange(0, WIDTH)
    is_inside = inside(row, column, rows, n, VECTOR)
    absent: tl.constexpr = float("-inf") if MAP == LOG_SOFTMAX else 0.0
    places = places_in(row, column, sizes, x_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
    p = tl.load(weights + places, mask=is_inside, other=absent).to(tl.float32)
    is_live = p != absent
    places = places_in(row, column, sizes, operand_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
    g = tl.load(operand + places, mask=is_live & is_inside, other=0.0).to(tl.float32)
    a = tl.zeros([1], tl.float64) + a_high + a_low
    slope = slopes_of(p, a, MAP)
    if IS_LAST:
        more = tl.zeros([1], tl.float64)
        mass = tl.zeros([1], tl.float64)
        this = program // parts
        start = this * 0
        while start < parts:
            many = start + tl.arange(0, BLOCK)
            more += tl.sum(tl.load(partial + place(0, this, many, rows, parts), mask=many < parts, other=0.0), 0)
            if MAP > LOG_SOFTMAX:
                mass += tl.sum(tl.load(partial + place(1, this, many, rows, parts), mask=many < parts, other=0.0), 0)
            start += BLOCK
        if MAP > LOG_SOFTMAX:
            more = more / tl.where(mass > 0.0, mass, 1.0)
        warmth = coolness
        if TEMPERATURE == WIDE_TEMPERATURE:
            warmth = number_of(temperature, row, row < rows, 1.0)
        sign: tl.constexpr = -1.0 if IS_NEGATED else 1.0
        outer = cooled(tl.full([1], sign, tl.float64), warmth, coolness, TEMPERATURE)
        moved = multiplied(centred(slope, slope, g, more, MAP, VJP), outer, TEMPERATURE)
        moved = tl.where(p == p, tl.where(is_live, moved, 0.0), float("nan"))
        places = places_in(row, column, sizes, result_strides, BATCH_DIMS, ROW_DIMS, IS_UNIT, VECTOR)
        put(result, places, moved, is_inside)
    else:
        own = g
        if MAP != LOG_SOFTMAX:
            own = slope * g
        tl.store(partial + place(0, row, part, rows, parts), total(own, IS_PRECISE))
        if MAP > LOG_SOFTMAX:
            tl.store(partial + place(1, row, part, rows, parts), total(slope, IS_PRECISE))
