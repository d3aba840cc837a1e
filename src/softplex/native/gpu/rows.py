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
def inside(row, column, rows, n, VECTOR: tl.constexpr):
    """What of the block is there."""
    if VECTOR > 1:
        n = (n // VECTOR) * VECTOR
    return (row < rows)[:, None] & (column < n)[None, :]


# -- scores -----------------------------------------------------------------------------------------------------------


@triton.jit
def scores(x, where, is_inside, x_places, where_places, IS_NEGATED: tl.constexpr, HAS_WHERE: tl.constexpr):
    """The signed scores, -inf where masked and outside, +inf for NaN; and which entries are unmasked."""
    z = tl.load(x + x_places, mask=is_inside, other=0.0).to(tl.float32)
    if IS_NEGATED:
        z = -z
    z = tl.where(z == z, z, float("inf"))
    is_open = is_inside
    if HAS_WHERE:
        is_open = is_inside & (tl.load(where + where_places, mask=is_inside, other=0) != 0)
    return tl.where(is_open, z, float("-inf")), is_open


@triton.jit
def number_of(values, row, is_row, DEFAULT: tl.constexpr):
    """One float64 a row."""
    return tl.load(values + row, mask=is_row, other=DEFAULT)


@triton.jit
def sink_of(sink, row, is_row, IS_NEGATED: tl.constexpr):
    """The signed score of the sink, +inf for NaN."""
    s = number_of(sink, row, is_row, 0.0)
    if IS_NEGATED:
        s = -s
    return tl.where(s == s, s, float("inf"))


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
    """float64 numbers over the temperature."""
    if TEMPERATURE == WIDE_TEMPERATURE:
        values = values / warmth
    elif TEMPERATURE == NARROW_TEMPERATURE:
        values = values * coolness
    return values


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
def put(result, places, values, mask):
    """Store in the result's dtype, rounded to nearest."""
    tl.store(result + places, values.to(result.dtype.element_ty), mask=mask)
