"""Rows too long for one program: cut into parts by their width alone, so that a row's bits depend on nothing else.

One kernel. The programs of a row hold a part each and go through rounds: every part leaves a few float64 in memory and
arrives, and when all have, each program takes the same sums of what all left. The first round finds the top, and for
softmax its sums; Newton's steps of sparse maps are a round each, and derivatives and losses take one more. Then each
program stores its part: scores are read once. Where a row has more parts than the GPU has multiprocessors, programs
hold nothing and take several each: scores are read once a round, and once more to be stored.

No program depends on another's being there: who has waited long enough works out the missing numbers itself, from the
scores, and they are the same. Every round has a place of its own for them, so that nobody is overtaken.
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

SURVEY: tl.constexpr = tl.constexpr(0)
MASS: tl.constexpr = tl.constexpr(1)
LAST: tl.constexpr = tl.constexpr(2)
"""What a round is about."""

TOP: tl.constexpr = tl.constexpr(0)
FIRST: tl.constexpr = tl.constexpr(1)
SECOND: tl.constexpr = tl.constexpr(2)
THIRD: tl.constexpr = tl.constexpr(3)
SURVEYED: tl.constexpr = tl.constexpr(4)
"""What a survey leaves: the part's top; then for softmax ties, rest and one sum more, for sparse maps its own v."""

OTHER_TURNS = ROUNDS.value + 1
"""Rounds after the survey, which leave two numbers each."""

BLOCK: tl.constexpr = tl.constexpr(256)
"""Parts whose numbers are looked at together."""


# -- what programs tell each other ------------------------------------------------------------------------------------


@triton.jit
def place(kind, row, part, rows, parts):
    """Where a number of a part stands in the scratch."""
    return (kind * rows + row) * parts + part


@triton.jit
def only(value):
    """The number of a single row."""
    return tl.max(value, 0)


@triton.jit
def told_in(turn):
    """Where the two numbers of a round after the survey stand."""
    return SURVEYED + 2 * (turn - 1)


@triton.jit
def tell(telling, part, kind, value):
    """Leave a number of a part."""
    partial, row, rows, parts = telling
    tl.store(partial + place(kind, row, part, rows, parts), value)


@triton.jit
def arrived(arrivals, programs, patience):
    """Arrive where the row's programs meet, and wait until all have, or for so many looks; how many have."""
    # Only then has every thread left its numbers; the counter's order makes them seen by who counts on.
    tl.debug_barrier()
    seen = tl.atomic_add(arrivals, 1) + 1
    while (seen < programs) & (patience > 0):
        seen = tl.atomic_add(arrivals, 0)
        patience -= 1
    return seen


@triton.jit
def numbers_of_parts(telling, kind, many, OTHER: tl.constexpr):
    """A number that parts left, from the memory that all programs share; `OTHER` beyond the last part."""
    partial, row, rows, parts = telling
    places = partial + place(kind, only(row), many, rows, parts)
    return tl.load(places, mask=many < parts, other=OTHER, cache_modifier=".cg")


@triton.jit
def sum_of_parts(telling, kind):
    """One number summed over all parts."""
    _partial, _row, _rows, parts = telling
    found = tl.zeros([1], tl.float64)
    start = 0
    while start < parts:
        found += tl.sum(numbers_of_parts(telling, kind, start + tl.arange(0, BLOCK), 0.0), 0)
        start += BLOCK
    return found


@triton.jit
def columns(part, LAY: tl.constexpr):
    """Those of a part."""
    return part.to(tl.int64) * LAY.width + tl.arange(0, LAY.width)


# -- what a part tells ------------------------------------------------------------------------------------------------


@triton.jit
def part_of(reading, part, TASK: tl.constexpr, LAY: tl.constexpr):
    """Columns, signed scores, which are unmasked, and the tangents or cotangents if there are any."""
    x, operand, where, row, rows, n, sizes, x_strides, operand_strides, where_strides = reading
    column = columns(part, LAY)
    z, is_open = scores(x, where, row, column, rows, n, sizes, x_strides, where_strides, TASK, LAY)
    g = z
    if TASK.method == VJP or TASK.method == JVP:
        g = operands(operand, z > float("-inf"), row, column, rows, n, sizes, operand_strides, LAY)
    return column, z, is_open, g


@triton.jit
def survey(held, telling, part, y, warmth, coolness, a, TASK: tl.constexpr):
    """What a part tells about itself, all relative to its own top."""
    column, z, _is_open, g = held
    largest = tl.max(z, 1)
    tell(telling, part, TOP, largest.to(tl.float64))
    top, is_bad, is_empty = tops(largest, largest, warmth, False, TASK)
    high, low = gaps(z, top, warmth, coolness, False, TASK)
    if TASK.map <= LOG_SOFTMAX:
        power = raised(high, low, TASK.is_precise)
        is_top = high == 0.0
        tell(telling, part, FIRST, tl.sum(is_top.to(tl.int32), 1).to(tl.float64))
        tell(telling, part, SECOND, total(tl.where(is_top, 0.0, power), TASK.is_precise) * LOWERED)
        if TASK.method == VJP or TASK.method == JVP:
            if TASK.map != LOG_SOFTMAX or TASK.method == JVP:
                g = exponential(high, low, TASK.is_precise) * g
            tell(telling, part, THIRD, total(g, TASK.is_precise))
        elif TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL:
            power = tl.where(column[None, :] == y[:, None], 0.0, power)
            tell(telling, part, THIRD, total(power, TASK.is_precise) * LOWERED)
    else:
        v = roughly(high, top, is_bad | is_empty, a, False, TASK)
        tell(telling, part, FIRST, v.to(tl.float64))


@triton.jit
def near_sums(held, telling, part, kind, top, v, y, warmth, coolness, a, ABOUT: tl.constexpr, TASK: tl.constexpr):
    """Two sums over a part's entries, for a number v of their row."""
    column, z, _is_open, g = held
    high, low = gaps(z, top, warmth, coolness, TASK.has_sink, TASK)
    second = tl.zeros([1], tl.float64)
    if ABOUT == MASS:
        if TASK.is_precise:
            p, rate = precise_terms(high, low, v[:, None], a, TASK)
        else:
            p, rate = terms(high, v.to(tl.float32)[:, None], a, TASK)
        first, second = total(p, TASK.is_precise), total(rate, TASK.is_precise)
    else:
        p, slope = weighed(high, low, v[:, None], a, TASK)
        if TASK.method == VJP or TASK.method == JVP:
            first, second = total(slope * g, TASK.is_precise), total(slope, TASK.is_precise)
        else:
            first = total(tl.where(column[None, :] == y[:, None], 0.0, p), TASK.is_precise)
            if TASK.method != RESIDUAL:
                second = total(own_conjugate(high, p, v, a, TASK), TASK.is_precise)
    tell(telling, part, kind, first)
    tell(telling, part, kind + 1, second)


@triton.jit
def tell_all(held, telling, part, kind, known, ABOUT: tl.constexpr, TASK: tl.constexpr):
    """What a part has to tell in a round."""
    top, v, y, warmth, coolness, a = known
    if ABOUT == SURVEY:
        survey(held, telling, part, y, warmth, coolness, a, TASK)
    else:
        near_sums(held, telling, part, kind, top, v, y, warmth, coolness, a, ABOUT, TASK)


@triton.jit
def told(
    held,
    reading,
    telling,
    meeting,
    known,
    turn,
    ABOUT: tl.constexpr,
    IS_HELD: tl.constexpr,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """One round, after which the numbers of all parts are there; what is held still."""
    arrivals, mine, programs, patience = meeting
    _partial, row, rows, parts = telling
    kind = told_in(turn)
    if IS_HELD:
        tell_all(held, telling, mine, kind, known, ABOUT, TASK)
    else:
        part = mine
        while part < parts:
            tell_all(part_of(reading, part, TASK, LAY), telling, part, kind, known, ABOUT, TASK)
            part += programs
    if arrived(arrivals + turn * rows + only(row), programs, patience) < programs:
        part = mine * 0  # in its type
        while part < parts:
            tell_all(part_of(reading, part, TASK, LAY), telling, part, kind, known, ABOUT, TASK)
            part += 1
        tl.debug_barrier()
        # Read again: two parts at once would take more registers, which every program would have to have.
        if IS_HELD:
            held = part_of(reading, mine, TASK, LAY)
    return held


# -- what follows for a row -------------------------------------------------------------------------------------------


@triton.jit
def alone(warmth, coolness, TASK: tl.constexpr):
    """A single row's temperature as a number."""
    if TASK.temperature == WIDE_TEMPERATURE:
        warm = only(warmth)
    else:
        warm = coolness
    return warm


@triton.jit
def tallest(telling):
    """The largest score of a row."""
    _partial, _row, _rows, parts = telling
    largest = tl.full([1], float("-inf"), tl.float64)
    start = 0
    while start < parts:
        tall = numbers_of_parts(telling, TOP, start + tl.arange(0, BLOCK), float("-inf"))
        largest = tl.maximum(largest, tl.max(tall, 0))
        start += BLOCK
    return largest


@triton.jit
def gaps_of_parts(telling, many, peak, warm, coolness, TASK: tl.constexpr):
    """How far the tops of parts lie below the row's, and which parts have one."""
    tall = numbers_of_parts(telling, TOP, many, float("-inf"))
    is_live = (tall > float("-inf")) & (tall < float("inf"))
    return sink_gaps(tl.where(is_live, tall, peak), peak, warm, coolness, TASK), is_live


@triton.jit
def exponentials_of_parts(telling, peak, warm, coolness, TASK: tl.constexpr):
    """softmax's sums: how many tops, what all others sum to, and what a derivative or a residual sums."""
    _partial, _row, _rows, parts = telling
    ties = tl.zeros([1], tl.float64)
    depth = tl.zeros([1], tl.float64)
    more = tl.zeros([1], tl.float64)
    start = 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(telling, many, peak, warm, coolness, TASK)
        first = numbers_of_parts(telling, FIRST, many, 0.0)
        rest = numbers_of_parts(telling, SECOND, many, 0.0)
        is_top = is_live & (below == 0.0)
        scale = tl.where(is_live, tl.exp(below), 0.0)
        ties += tl.sum(tl.where(is_top, first, 0.0), 0)
        depth += tl.sum(tl.where(is_live, tl.where(is_top, rest, (first + rest) * scale), 0.0), 0)
        if TASK.method != VALUE and TASK.method != LOSS:
            third = numbers_of_parts(telling, THIRD, many, 0.0)
            if TASK.map == LOG_SOFTMAX and TASK.method == VJP:
                more += tl.sum(third, 0)
            else:
                more += tl.sum(tl.where(is_live, third * scale, 0.0), 0)
        start += BLOCK
    return ties, depth, more


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


@triton.jit
def reach_of_parts(telling, peak, warm, coolness, steepness, TASK: tl.constexpr):
    """How far below the top weights end at most: what weighs nothing in its part weighs nothing in the row."""
    _partial, _row, _rows, parts = telling
    least = tl.full([1], float("inf"), tl.float64)
    start = 0
    while start < parts:
        many = start + tl.arange(0, BLOCK)
        below, is_live = gaps_of_parts(telling, many, peak, warm, coolness, TASK)
        first = numbers_of_parts(telling, FIRST, many, 0.0)
        distance = tl.where(is_live, reach(first, steepness, TASK) - below, float("inf"))
        least = tl.minimum(least, tl.min(distance, 0))
        start += BLOCK
    return least


@triton.jit
def exponential_solution(telling, gap, top, warmth, coolness, TASK: tl.constexpr):
    """softmax's number v, how far it is above 1, and one sum more."""
    ties, depth, more = exponentials_of_parts(telling, only(top), alone(warmth, coolness, TASK), coolness, TASK)
    if TASK.has_sink:
        is_sink = gap == 0.0
        ties += is_sink.to(tl.float64)
        depth += tl.where(is_sink, 0.0, tl.exp(gap))
        if TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL:
            more += tl.exp(gap)
    depth = tl.where(ties > 1.0, ties - 1.0, 0.0) + depth
    v = 1.0 + depth
    if TASK.map == SOFTMAX or TASK.method == JVP:
        more = more / v
    return v, depth, more


@triton.jit
def newton_solution(
    held,
    reading,
    telling,
    meeting,
    known,
    gap,
    is_void,
    IS_HELD: tl.constexpr,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """What is held still, the turn that is next, and the number v of a sparse map, a round a step."""
    top, _v, y, warmth, coolness, a = known
    # Above the solution, or at it but for rounding: Newton's steps are from above.
    most = reach_of_parts(telling, only(top), alone(warmth, coolness, TASK), coolness, only(a), TASK)
    v = tl.where(is_void, 1.0, from_reach(most, a, TASK))
    is_done = is_void
    turn = 1
    while (tl.max((is_done == 0).to(tl.int32), 0) > 0) & (turn <= ROUNDS):
        known = (top, v, y, warmth, coolness, a)
        held = told(held, reading, telling, meeting, known, turn, MASS, IS_HELD, TASK, LAY)
        mass, rate = sum_of_parts(telling, told_in(turn)), sum_of_parts(telling, told_in(turn) + 1)
        if TASK.has_sink:
            p, slope = precise_sink_terms(gap, v, a, TASK)
            mass, rate = mass + p, rate + slope
        step = (mass - 1.0) / tl.where(rate > 0.0, rate, 1.0)
        v = tl.where(is_done, v, v - step)
        near: tl.constexpr = NEARER if TASK.is_precise and TASK.map != ENTMAX else 2.0**-22
        # From above: a step that is small, or up, is rounding's.
        is_done = is_done | (step <= near * v)
        turn += 1
    return held, turn, v


@triton.jit
def last_sums(telling, turn, gap, v, a, TASK: tl.constexpr):
    """What cotangents are centred by; or what all entries but the target's weigh, and Omega* of the row."""
    first, second = sum_of_parts(telling, told_in(turn)), sum_of_parts(telling, told_in(turn) + 1)
    p, slope = weighed_alone(gap, v, a, TASK)
    if TASK.method == VJP or TASK.method == JVP:
        mass = second + slope if TASK.has_sink else second
        first = first / tl.where(mass > 0.0, mass, 1.0)
    elif TASK.has_sink:
        first += p
        second += sink_conjugate(gap, p, v, a, TASK)
    return first, second / (a + 1.0)


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


@triton.jit
def put_losses(
    figures,
    more_figures,
    conjugate,
    is_first,
    x,
    where,
    row,
    n,
    classes,
    class_weights,
    ignored,
    top,
    is_bad,
    is_empty,
    warmth,
    coolness,
    sizes,
    x_strides,
    where_strides,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """A row's loss and its share, which the first of its programs stores."""
    if is_first:
        y, share, is_class, is_ignored = targets(classes, class_weights, row, row >= 0, n, ignored, TASK)
        own = own_gap(x, where, row, y, is_class, top, warmth, coolness, sizes, x_strides, where_strides, TASK, LAY)
        loss = settled_losses(conjugate - own, share, is_class, is_ignored, is_bad, is_empty, TASK)
        tl.store(figures + row, loss)
        tl.store(more_figures + row, share)


# -- kernels ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=(*NUMBERS, "parts", "programs", "patience"))
def long_rows(
    x,
    operand,
    where,
    result,
    partial,
    arrivals,
    figures,
    more_figures,
    temperature,
    sink,
    classes,
    class_weights,
    scale,
    n,
    rows,
    parts,
    programs,
    patience,
    sizes,
    x_strides,
    operand_strides,
    where_strides,
    result_strides,
    coolness,
    a_high,
    a_low,
    ignored,
    IS_HELD: tl.constexpr,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """Everything that is asked of long rows; a program's parts are held throughout where there is one for each."""
    program = tl.program_id(0).to(tl.int64)
    row, mine = program // programs + tl.arange(0, 1), program % programs
    is_row = row < rows
    has_residual: tl.constexpr = TASK.method == RESIDUAL or TASK.method == LOSS_AND_RESIDUAL
    has_loss: tl.constexpr = TASK.method == LOSS or TASK.method == LOSS_AND_RESIDUAL
    y = tl.zeros([1], tl.int64)
    if has_residual or has_loss:
        y = tl.load(classes + row)
    warmth = warmth_of(temperature, row, is_row, coolness, TASK)
    s = sink_of(sink, row, is_row, TASK)
    a = joined(a_high, a_low)
    nothing = tl.zeros([1], tl.float64)
    reading = (x, operand, where, row, rows, n, sizes, x_strides, operand_strides, where_strides)
    telling = (partial, row, rows, parts)
    meeting = (arrivals, mine, programs, patience)
    # Nothing is loaded where nothing is held.
    held = part_of(reading, mine, TASK, LAY)

    known = (nothing, nothing, y, warmth, coolness, a)
    held = told(held, reading, telling, meeting, known, 0, SURVEY, IS_HELD, TASK, LAY)
    largest = tallest(telling)
    top, is_bad, is_empty = tops(largest, s, warmth, TASK.has_sink, TASK)
    gap = sink_gaps(s, top, warmth, coolness, TASK)
    if TASK.map <= LOG_SOFTMAX:
        v, depth, more = exponential_solution(telling, gap, top, warmth, coolness, TASK)
        conjugate = log1p_of_rows(depth)
    else:
        is_void = is_bad | is_empty
        known = (top, nothing, y, warmth, coolness, a)
        held, turn, v = newton_solution(
            held, reading, telling, meeting, known, gap, is_void, IS_HELD, TASK, LAY
        )  # fmt: skip
        depth, more, conjugate = nothing, nothing, nothing
        if TASK.method != VALUE:
            known = (top, v, y, warmth, coolness, a)
            held = told(held, reading, telling, meeting, known, turn, LAST, IS_HELD, TASK, LAY)
            more, conjugate = last_sums(telling, turn, gap, v, a, TASK)

    if has_loss:
        put_losses(
            figures, more_figures, conjugate, mine == 0, x, where, row, n, classes, class_weights, ignored, top, is_bad,
            is_empty, warmth, coolness, sizes, x_strides, where_strides, TASK, LAY,
        )  # fmt: skip
    if TASK.method != LOSS:
        solution = (top, v, more, depth, is_bad, is_empty, warmth, coolness, a)
        writing = (result, row, rows, n, sizes, result_strides, classes, class_weights, scale, ignored)
        if IS_HELD:
            write(held, writing, solution, TASK, LAY)
        else:
            part = mine
            while part < parts:
                write(part_of(reading, part, TASK, LAY), writing, solution, TASK, LAY)
                part += programs


@triton.jit
def write(held, writing, solution, TASK: tl.constexpr, LAY: tl.constexpr):
    """The results of a part, its row being solved."""
    column, z, is_open, g = held
    result, row, rows, n, sizes, result_strides, classes, class_weights, scale, ignored = writing
    top, v, more, depth, is_bad, is_empty, warmth, coolness, a = solution
    is_live, is_row = z > float("-inf"), row < rows
    high, low = gaps(z, top, warmth, coolness, TASK.has_sink, TASK)
    p, slope = weighed(high, low, v[:, None], a, TASK)
    if TASK.method == VALUE:
        absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
        if TASK.map == LOG_SOFTMAX:
            p = less(high, low, log1p_of_rows(depth))
        found = settled(p, is_live, is_open, is_bad, is_empty, absent, TASK)
    elif TASK.method == VJP or TASK.method == JVP:
        outer = cooled(signs(v, TASK), warmth, coolness, TASK) * factor(v, a, TASK)
        found = multiplied(centred(p, slope, g, more, TASK.method, TASK), outer, TASK)
        found = settled(found, is_live, is_open, is_bad, is_empty, 0.0, TASK)
    else:
        y, share, is_class, is_ignored = targets(classes, class_weights, row, is_row, n, ignored, TASK)
        found = settled_residuals(
            tl.where(column[None, :] == y[:, None], -more.to(tl.float32)[:, None], p), scale, share, row, is_row,
            is_class, is_ignored, is_live, is_open, is_bad, is_empty, warmth, coolness, TASK,
        )  # fmt: skip
    put(result, row, column, rows, n, sizes, result_strides, found, LAY)


@triton.jit
def weights_of(reading, part, a, TASK: tl.constexpr, LAY: tl.constexpr):
    """Columns, weights, their slopes and cotangents of a part."""
    weights, operand, row, rows, n, sizes, x_strides, operand_strides = reading
    absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
    column = columns(part, LAY)
    p = entries(weights, row, column, rows, n, sizes, x_strides, absent, LAY.x, LAY).to(tl.float32)
    g = operands(operand, p != absent, row, column, rows, n, sizes, operand_strides, LAY)
    return column, p, slopes_of(p, a, TASK), g


@triton.jit
def tell_products(held, telling, part, TASK: tl.constexpr):
    """The sums of a part that cotangents are centred by."""
    _column, _p, slope, g = held
    if TASK.map == LOG_SOFTMAX:
        tell(telling, part, TOP, total(g, TASK.is_precise))
    else:
        tell(telling, part, TOP, total(slope * g, TASK.is_precise))
    if TASK.map > LOG_SOFTMAX:
        tell(telling, part, FIRST, total(slope, TASK.is_precise))


@triton.jit(do_not_specialize=(*NUMBERS, "parts", "programs", "patience"))
def backward_long_rows(
    weights,
    operand,
    result,
    partial,
    arrivals,
    temperature,
    n,
    rows,
    parts,
    programs,
    patience,
    sizes,
    x_strides,
    operand_strides,
    result_strides,
    coolness,
    a_high,
    a_low,
    IS_HELD: tl.constexpr,
    TASK: tl.constexpr,
    LAY: tl.constexpr,
):
    """The way back from the weights, in one round."""
    program = tl.program_id(0).to(tl.int64)
    row, mine = program // programs + tl.arange(0, 1), program % programs
    a = joined(a_high, a_low)
    reading = (weights, operand, row, rows, n, sizes, x_strides, operand_strides)
    telling = (partial, row, rows, parts)
    held = weights_of(reading, mine, a, TASK, LAY)
    if IS_HELD:
        tell_products(held, telling, mine, TASK)
    else:
        part = mine
        while part < parts:
            tell_products(weights_of(reading, part, a, TASK, LAY), telling, part, TASK)
            part += programs
    if arrived(arrivals + only(row), programs, patience) < programs:
        part = mine * 0  # in its type
        while part < parts:
            tell_products(weights_of(reading, part, a, TASK, LAY), telling, part, TASK)
            part += 1
        tl.debug_barrier()
        if IS_HELD:
            held = weights_of(reading, mine, a, TASK, LAY)

    more = sum_of_parts(telling, TOP)
    if TASK.map > LOG_SOFTMAX:
        mass = sum_of_parts(telling, FIRST)
        more = more / tl.where(mass > 0.0, mass, 1.0)
    warmth = warmth_of(temperature, row, row < rows, coolness, TASK)
    outer = cooled(signs(more, TASK), warmth, coolness, TASK)
    writing = (result, row, rows, n, sizes, result_strides)
    if IS_HELD:
        write_back(held, writing, more, outer, TASK, LAY)
    else:
        part = mine
        while part < parts:
            write_back(weights_of(reading, part, a, TASK, LAY), writing, more, outer, TASK, LAY)
            part += programs


@triton.jit
def write_back(held, writing, more, outer, TASK: tl.constexpr, LAY: tl.constexpr):
    """The cotangents of the scores of a part."""
    column, p, slope, g = held
    result, row, rows, n, sizes, result_strides = writing
    absent: tl.constexpr = float("-inf") if TASK.map == LOG_SOFTMAX else 0.0
    moved = multiplied(centred(slope, slope, g, more, VJP, TASK), outer, TASK)
    moved = tl.where(p == p, tl.where(p != absent, moved, 0.0), float("nan"))
    put(result, row, column, rows, n, sizes, result_strides, moved, LAY)
