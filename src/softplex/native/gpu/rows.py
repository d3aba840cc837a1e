"""The template of a row on the GPU: where its entries lie, its scores and gaps, and how results are settled and stored.

A program holds a block of rows and columns, (ROWS, WIDTH). Mask, sink, temperature, sign, NaN and empty rows are dealt
with here, so that no map knows of them. Offsets are 64 bits wide wherever they can grow.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.arithmetic import halves, two_sum

NO_TEMPERATURE: tl.constexpr = tl.constexpr(0)
NARROW_TEMPERATURE: tl.constexpr = tl.constexpr(1)
WIDE_TEMPERATURE: tl.constexpr = tl.constexpr(2)


# -- where entries lie ------------------------------------------------------------------------------------------------


@triton.jit
def starts(row, sizes, strides, DIMS: tl.constexpr, IS_UNIT: tl.constexpr, VECTOR: tl.constexpr):
    """The offset of each row, whose number falls into up to three batch axes; a multiple of VECTOR."""
    if IS_UNIT:
        # Rows of a block are neighbours on the innermost axis, which ends where a block does.
        first = tl.program_id(0).to(tl.int64) * row.shape[0]
        start = outer_start(first, sizes, strides, DIMS) + tl.arange(0, row.shape[0])
        if DIMS == 1:
            start += first
        else:
            start += first % sizes[DIMS - 2]
    else:
        start = outer_start(row, sizes, strides, DIMS)
        if DIMS == 1:
            start += row * strides[2]
        else:
            start += (row % sizes[DIMS - 2]) * strides[2]
    if VECTOR > 1:
        start = (start // VECTOR) * VECTOR
    return start[:, None]


@triton.jit
def outer_start(row, sizes, strides, DIMS: tl.constexpr):
    """The offset of a row but for the innermost axis."""
    if DIMS == 1:
        start = row * 0
    elif DIMS == 2:
        start = (row // sizes[0]) * strides[0]
    else:
        outer = row // sizes[1]
        start = (outer // sizes[0]) * strides[0] + (outer % sizes[0]) * strides[1]
    return start


@triton.jit
def steps(column, size, strides, DIMS: tl.constexpr, IS_UNIT: tl.constexpr):
    """The offset of each entry within its row, which has one axis or two."""
    if IS_UNIT:
        place = column
    elif DIMS == 1:
        place = column.to(tl.int64) * strides[3]
    else:
        wide = column.to(tl.int64)
        place = (wide // size) * strides[3] + (wide % size) * strides[4]
    return place[None, :]


@triton.jit
def offsets(
    row,
    column,
    sizes,
    strides,
    BATCH_DIMS: tl.constexpr,
    BATCH_IS_UNIT: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Where the entries of a block lie."""
    start = starts(row, sizes, strides, BATCH_DIMS, BATCH_IS_UNIT, VECTOR)
    return start + steps(column, sizes[2], strides, ROW_DIMS, IS_UNIT)


@triton.jit
def operand_offsets(
    row,
    column,
    sizes,
    strides,
    BATCH_DIMS: tl.constexpr,
    BATCH_IS_UNIT: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    OPERAND_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Where the operand's lie, which may be one number repeated."""
    if OPERAND_IS_UNIT:
        places = offsets(row, column, sizes, strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, VECTOR)
    else:
        places = offsets(row, column, sizes, strides, BATCH_DIMS, False, ROW_DIMS, False, 1)
    return places


@triton.jit
def inside(row, column, rows, n, VECTOR: tl.constexpr):
    """What of the block is there."""
    if VECTOR > 1:
        n = (n // VECTOR) * VECTOR
    return (row < rows)[:, None] & (column < n)[None, :]


@triton.jit
def block_of_rows(rows, n, VECTOR: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """A program's rows, its columns, and what of the block is there."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    return row, column, inside(row, column, rows, n, VECTOR)


@triton.jit
def part_of_row(rows, n, parts, VECTOR: tl.constexpr, WIDTH: tl.constexpr):
    """The same of one part of one row, and the part's number."""
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts + tl.arange(0, 1), program % parts
    column = part * WIDTH + tl.arange(0, WIDTH)
    return row, column, inside(row, column, rows, n, VECTOR), part


# -- scores -----------------------------------------------------------------------------------------------------------


@triton.jit
def scores(
    x,
    where,
    row,
    column,
    is_inside,
    sizes,
    x_strides,
    where_strides,
    IS_NEGATED: tl.constexpr,
    HAS_WHERE: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    BATCH_IS_UNIT: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    WHERE_IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The signed scores, -inf where masked and outside, +inf for NaN; and which entries are unmasked."""
    places = offsets(row, column, sizes, x_strides, BATCH_DIMS, BATCH_IS_UNIT, ROW_DIMS, IS_UNIT, VECTOR)
    z = tl.load(x + places, mask=is_inside, other=0.0).to(tl.float32)
    if IS_NEGATED:
        z = -z
    z = tl.where(z == z, z, float("inf"))
    is_open = is_inside
    if HAS_WHERE:
        places = offsets(row, column, sizes, where_strides, BATCH_DIMS, False, ROW_DIMS, WHERE_IS_UNIT, VECTOR)
        is_open = is_inside & (tl.load(where + places, mask=is_inside, other=0) != 0)
    return tl.where(is_open, z, float("-inf")), is_open


@triton.jit
def number_of(values, row, is_row, DEFAULT: tl.constexpr):
    """One float64 a row."""
    return tl.load(values + row, mask=is_row, other=DEFAULT)


@triton.jit
def warmth_of(temperature, row, is_row, coolness, TEMPERATURE: tl.constexpr):
    """The temperature of each row where it has one of its own."""
    if TEMPERATURE == WIDE_TEMPERATURE:
        warmth = number_of(temperature, row, is_row, 1.0)
    else:
        warmth = coolness
    return warmth


@triton.jit
def sink_of(sink, row, is_row, IS_NEGATED: tl.constexpr, HAS_SINK: tl.constexpr):
    """The signed score of the sink, +inf for NaN; 0 if there is none."""
    if HAS_SINK:
        s = number_of(sink, row, is_row, 0.0)
        if IS_NEGATED:
            s = -s
        s = tl.where(s == s, s, float("inf"))
    else:
        s = tl.zeros(row.shape, tl.float64)
    return s


@triton.jit
def tops(largest, sink, warmth, HAS_SINK: tl.constexpr, TEMPERATURE: tl.constexpr):
    """The top of each row in float64, 0 for those that are bad or empty, and which are."""
    top = largest.to(tl.float64)
    if HAS_SINK:
        top = tl.where(sink > top, sink, top)
    is_bad = top == float("inf")
    is_empty = top == float("-inf")
    if TEMPERATURE == WIDE_TEMPERATURE:
        is_bad = is_bad | ((warmth > 0.0) & (warmth < float("inf")) == 0)
        is_empty = is_empty & (is_bad == 0)
    return tl.where(is_bad | is_empty, 0.0, top), is_bad, is_empty


@triton.jit
def gaps(z, top, warmth, coolness, HAS_SINK: tl.constexpr, TEMPERATURE: tl.constexpr, IS_PRECISE: tl.constexpr):
    """(z - top) / temperature, and what float32 took from it; -inf and 0 where dead."""
    if TEMPERATURE == WIDE_TEMPERATURE:
        # Of a temperature so small that its inverse is infinite, 0 times that.
        gap = z.to(tl.float64) - top[:, None]
        gap = tl.where(gap == 0.0, 0.0, gap * (1.0 / warmth)[:, None])
        high, low = halves(gap)
    else:
        high_top, low_top = halves(top[:, None])
        high, low = two_sum(z, -high_top)
        if HAS_SINK:
            low = low - low_top
        if TEMPERATURE == NARROW_TEMPERATURE:
            high = high * coolness
    # The error of an infinite difference is no number, that of a large one does not matter, nor do those of 16 bits.
    low = tl.where(high > -1024.0, low, 0.0) if IS_PRECISE else tl.zeros(z.shape, tl.float32)
    return high, low


@triton.jit
def sink_gaps(sink, top, warmth, coolness, TEMPERATURE: tl.constexpr):
    """The sink's gap in float64."""
    gap = sink - top
    if TEMPERATURE == WIDE_TEMPERATURE:
        gap = tl.where(gap == 0.0, 0.0, gap / warmth)
    elif TEMPERATURE == NARROW_TEMPERATURE:
        gap = gap * coolness
    return gap


@triton.jit
def cooled(values, warmth, coolness, TEMPERATURE: tl.constexpr):
    """float64 numbers over the temperature; its inverse stays finite, so that 0 times the result is 0."""
    if TEMPERATURE == WIDE_TEMPERATURE:
        # Far beyond what brings the smallest float32 to infinity, whatever cotangents and weights it meets.
        values = values * tl.minimum(1.0 / warmth, 1e200)
    elif TEMPERATURE == NARROW_TEMPERATURE:
        values = values * coolness
    return values


# -- targets ----------------------------------------------------------------------------------------------------------


@triton.jit
def targets(classes, class_weights, row, is_row, n, ignored, HAS_WEIGHTS: tl.constexpr):
    """A row's class, or 0; its share in a mean, 0 where ignored; whether it is a class, and whether it is ignored."""
    y = tl.load(classes + row, mask=is_row, other=0)
    is_ignored = y == ignored
    is_class = (y >= 0) & (y < n)
    y = tl.where(is_class, y, 0)
    if HAS_WEIGHTS:
        share = tl.load(class_weights + y, mask=is_row & is_class, other=0.0).to(tl.float64)
    else:
        share = tl.full(row.shape, 1.0, tl.float64)
    return y, tl.where(is_ignored, 0.0, share), is_class, is_ignored


@triton.jit
def settled_losses(loss, share, is_class, is_ignored, is_bad, is_empty, EMPTY_IS_NAN: tl.constexpr):
    """The losses times their shares: at least 0, NaN where the class is none, and nothing of what does not count."""
    loss = settled_rows(tl.where(loss > 0.0, loss, 0.0), is_bad, is_empty, 0.0, EMPTY_IS_NAN)
    loss = tl.where(share == 0.0, 0.0, loss) * share
    return tl.where(is_class | is_ignored, loss, float("nan"))


@triton.jit
def settled_residuals(
    residual,
    scale,
    share,
    row,
    is_row,
    is_class,
    is_ignored,
    is_live,
    is_open,
    is_bad,
    is_empty,
    warmth,
    coolness,
    SIGN: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    EMPTY_IS_NAN: tl.constexpr,
):
    """p - y, or with a scale the gradient of the loss times that; 0 where it does not count, whatever the row holds."""
    if HAS_SCALE:
        times = number_of(scale, row, is_row, 0.0)
        is_silent = (times == 0.0) | is_ignored
        residual = multiplied(residual, cooled(times * share * SIGN, warmth, coolness, TEMPERATURE), TEMPERATURE)
    residual = settled(residual, is_live, is_open, is_bad, is_empty, 0.0, EMPTY_IS_NAN)
    residual = tl.where((is_class | is_ignored)[:, None], residual, float("nan"))
    if HAS_SCALE:
        residual = tl.where(is_silent[:, None], 0.0, residual)
    return residual


# -- results ----------------------------------------------------------------------------------------------------------


@triton.jit
def settled(values, is_live, is_open, is_bad, is_empty, ABSENT: tl.constexpr, EMPTY_IS_NAN: tl.constexpr):
    """What each entry gets: `ABSENT` where dead, NaN in bad rows but where masked, in empty rows what was asked for."""
    values = tl.where(is_live, values, ABSENT)
    if EMPTY_IS_NAN:
        values = tl.where(is_empty[:, None], float("nan"), values)
    return tl.where(is_bad[:, None] & is_open, float("nan"), values)


@triton.jit
def settled_rows(values, is_bad, is_empty, EMPTY: tl.constexpr, EMPTY_IS_NAN: tl.constexpr):
    """One number a row: NaN for bad rows, `EMPTY` or NaN for empty ones."""
    values = tl.where(is_empty, float("nan") if EMPTY_IS_NAN else EMPTY, values)
    return tl.where(is_bad, float("nan"), values)


@triton.jit
def multiplied(values, times, TEMPERATURE: tl.constexpr):
    """Entries times one float64 a row, which under any temperature may be beyond float32."""
    if TEMPERATURE == WIDE_TEMPERATURE:
        found = (values.to(tl.float64) * times[:, None]).to(tl.float32)
    else:
        found = values * times.to(tl.float32)[:, None]
    return found


@triton.jit
def put(result, places, values, mask):
    """Store in the result's dtype, rounded to nearest."""
    tl.store(result + places, values.to(result.dtype.element_ty), mask=mask)
