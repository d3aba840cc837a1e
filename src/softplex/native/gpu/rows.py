"""The template of a row on the GPU: where its entries lie, its scores and gaps, how results are settled and stored.

A program holds a block of LAY.rows by LAY.width. Mask, sink, temperature, sign, NaN and empty rows are
dealt with here, so that no map knows of them. Offsets are 64 bits wide wherever they can grow.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu import compiled
from softplex.native.gpu.arithmetic import halves, two_sum

NO_TEMPERATURE: tl.constexpr = tl.constexpr(0)
NARROW_TEMPERATURE: tl.constexpr = tl.constexpr(1)
WIDE_TEMPERATURE: tl.constexpr = tl.constexpr(2)

SIDE_BY_SIDE: tl.constexpr = tl.constexpr(compiled.SIDE_BY_SIDE)
BY_STRIDES: tl.constexpr = tl.constexpr(compiled.BY_STRIDES)
AT_ONCE: tl.constexpr = tl.constexpr(compiled.AT_ONCE)


# -- where entries lie ------------------------------------------------------------------------------------------------


@triton.jit
def starts(row, sizes, strides, LAY: tl.constexpr):
    """The offset of each row, whose number falls into the axes of the batch."""
    start, rest = row * 0, row
    for axis in tl.static_range(LAY.batch_dims - 1):
        start += (rest % sizes[axis]) * strides[axis]
        rest = rest // sizes[axis]
    return start + rest * strides[LAY.batch_dims - 1]


@triton.jit
def steps(column, sizes, strides, ACCESS: tl.constexpr, LAY: tl.constexpr):
    """The offset of each entry within its row."""
    if ACCESS != BY_STRIDES:
        step = column
    else:
        rest = column.to(tl.int64)
        step = rest * 0
        for axis in tl.static_range(LAY.row_dims - 1):
            step += (rest % sizes[LAY.batch_dims - 1 + axis]) * strides[LAY.batch_dims + axis]
            rest = rest // sizes[LAY.batch_dims - 1 + axis]
        step += rest * strides[LAY.batch_dims + LAY.row_dims - 1]
    return step


@triton.jit
def pointers(x, row, column, sizes, strides, ACCESS: tl.constexpr, LAY: tl.constexpr):
    """Where the entries of a block lie, with what Triton is to choose the block's layout by.

    That is claimed, not true of all tensors: sums follow the layout, and are not to depend on how the batch lies. It is
    safe as long as Triton takes such hints for its own analysis, and loads no more at once than the mask says in one
    (seen in 3.6 and 3.9; the tests look at every access that comes out): `inside` says whole vectors for AT_ONCE alone.
    """
    places = starts(row, sizes, strides, LAY)[:, None] + steps(column, sizes, strides, ACCESS, LAY)[None, :]
    rows: tl.constexpr = LAY.rows if LAY.lie == SIDE_BY_SIDE else 1
    vector: tl.constexpr = LAY.vector
    size: tl.constexpr = vector * (x.dtype.element_ty.primitive_bitwidth // 8)
    return tl.multiple_of(tl.max_contiguous(x + places, (rows, vector)), (size, size))


@triton.jit
def inside(row, column, rows, n, ACCESS: tl.constexpr, LAY: tl.constexpr):
    """What of the block is there; said in whole vectors where they may be loaded at once."""
    if ACCESS == AT_ONCE:
        n = (n // LAY.vector) * LAY.vector
    return (row < rows)[:, None] & (column < n)[None, :]


@triton.jit
def entries(
    x, row, column, rows, n, sizes, strides, OTHER: tl.constexpr, ACCESS: tl.constexpr, LAY: tl.constexpr
):  # fmt: skip
    """The entries of a block, `OTHER` outside."""
    is_inside = inside(row, column, rows, n, ACCESS, LAY)
    return tl.load(pointers(x, row, column, sizes, strides, ACCESS, LAY), mask=is_inside, other=OTHER)


@triton.jit
def operands(operand, is_live, row, column, rows, n, sizes, strides, LAY: tl.constexpr):
    """The tangents or cotangents of a block, 0 where dead, whatever stands there."""
    g = entries(operand, row, column, rows, n, sizes, strides, 0.0, LAY.operand, LAY)
    return tl.where(is_live, g.to(tl.float32), 0.0)


@triton.jit
def put(result, row, column, rows, n, sizes, strides, values, LAY: tl.constexpr):
    """Store in the result's dtype, rounded to nearest."""
    places = pointers(result, row, column, sizes, strides, LAY.result, LAY)
    is_inside = inside(row, column, rows, n, LAY.result, LAY)
    tl.store(places, values.to(result.dtype.element_ty), mask=is_inside)


@triton.jit
def block_of_rows(LAY: tl.constexpr):
    """A program's rows and its columns."""
    row = tl.program_id(0).to(tl.int64) * LAY.rows + tl.arange(0, LAY.rows)
    return row, tl.arange(0, LAY.width)


# -- scores -----------------------------------------------------------------------------------------------------------


@triton.jit
def signed(z, TASK: tl.constexpr):
    """Scores with the map's sign, NaN as +inf."""
    if TASK.is_negated:
        z = -z
    return tl.where(z == z, z, float("inf"))


@triton.jit
def scores(
    x, where, row, column, rows, n, sizes, x_strides, where_strides, TASK: tl.constexpr, LAY: tl.constexpr
):  # fmt: skip
    """The signed scores, -inf where masked and outside, +inf for NaN; and which entries are unmasked."""
    z = signed(entries(x, row, column, rows, n, sizes, x_strides, 0.0, LAY.x, LAY).to(tl.float32), TASK)
    is_open = inside(row, column, rows, n, LAY.x, LAY)
    if TASK.has_where:
        is_open = is_open & (entries(where, row, column, rows, n, sizes, where_strides, 0, LAY.where, LAY) != 0)
    return tl.where(is_open, z, float("-inf")), is_open


@triton.jit
def number_of(values, row, is_row, DEFAULT: tl.constexpr):
    """One float64 a row."""
    return tl.load(values + row, mask=is_row, other=DEFAULT)


@triton.jit
def warmth_of(temperature, row, is_row, coolness, TASK: tl.constexpr):
    """The temperature of each row where it has one of its own."""
    if TASK.temperature == WIDE_TEMPERATURE:
        warmth = number_of(temperature, row, is_row, 1.0)
    else:
        warmth = coolness
    return warmth


@triton.jit
def sink_of(sink, row, is_row, TASK: tl.constexpr):
    """The signed score of the sink, +inf for NaN; 0 if there is none."""
    if TASK.has_sink:
        s = signed(number_of(sink, row, is_row, 0.0), TASK)
    else:
        s = tl.zeros(row.shape, tl.float64)
    return s


@triton.jit
def tops(largest, sink, warmth, HAS_SINK: tl.constexpr, TASK: tl.constexpr):
    """The top of each row in float64, 0 for those that are bad or empty, and which are."""
    top = largest.to(tl.float64)
    if HAS_SINK:
        top = tl.where(sink > top, sink, top)
    is_bad = top == float("inf")
    is_empty = top == float("-inf")
    if TASK.temperature == WIDE_TEMPERATURE:
        is_bad = is_bad | ((warmth > 0.0) & (warmth < float("inf")) == 0)
        is_empty = is_empty & (is_bad == 0)
    return tl.where(is_bad | is_empty, 0.0, top), is_bad, is_empty


@triton.jit
def gaps(z, top, warmth, coolness, HAS_SINK: tl.constexpr, TASK: tl.constexpr):
    """(z - top) / temperature, and what float32 took from it; -inf and 0 where dead."""
    if TASK.temperature == WIDE_TEMPERATURE:
        # Of a temperature so small that its inverse is infinite, 0 times that.
        gap = z.to(tl.float64) - top[:, None]
        gap = tl.where(gap == 0.0, 0.0, gap * (1.0 / warmth)[:, None])
        high, low = halves(gap)
    else:
        high_top, low_top = halves(top[:, None])
        high, low = two_sum(z, -high_top)
        if HAS_SINK:
            low = low - low_top
        if TASK.temperature == NARROW_TEMPERATURE:
            high = high * coolness
    # The error of an infinite difference is no number, that of a large one does not matter, nor do those of 16 bits.
    low = tl.where(high > -1024.0, low, 0.0) if TASK.is_precise else tl.zeros(z.shape, tl.float32)
    return high, low


@triton.jit
def sink_gaps(sink, top, warmth, coolness, TASK: tl.constexpr):
    """The sink's gap in float64."""
    gap = sink - top
    if TASK.temperature == WIDE_TEMPERATURE:
        gap = tl.where(gap == 0.0, 0.0, gap / warmth)
    elif TASK.temperature == NARROW_TEMPERATURE:
        gap = gap * coolness
    return gap


@triton.jit
def cooled(values, warmth, coolness, TASK: tl.constexpr):
    """float64 numbers over the temperature; its inverse stays finite, so that 0 times the result is 0."""
    if TASK.temperature == WIDE_TEMPERATURE:
        # Far beyond what brings the smallest float32 to infinity, whatever cotangents and weights it meets.
        values = values * tl.minimum(1.0 / warmth, 1e200)
    elif TASK.temperature == NARROW_TEMPERATURE:
        values = values * coolness
    return values


# -- targets ----------------------------------------------------------------------------------------------------------


@triton.jit
def targets(classes, class_weights, row, is_row, n, ignored, TASK: tl.constexpr):
    """A row's class, or 0; its share in a mean, 0 where ignored; whether it is a class, and whether it is ignored."""
    y = tl.load(classes + row, mask=is_row, other=0)
    is_ignored = y == ignored
    is_class = (y >= 0) & (y < n)
    y = tl.where(is_class, y, 0)
    if TASK.has_weights:
        share = tl.load(class_weights + y, mask=is_row & is_class, other=0.0).to(tl.float64)
    else:
        share = tl.full(row.shape, 1.0, tl.float64)
    return y, tl.where(is_ignored, 0.0, share), is_class, is_ignored


@triton.jit
def settled_losses(loss, share, is_class, is_ignored, is_bad, is_empty, TASK: tl.constexpr):
    """The losses times their shares: at least 0, NaN where the class is none, and nothing of what does not count."""
    loss = settled_rows(tl.where(loss > 0.0, loss, 0.0), is_bad, is_empty, 0.0, TASK)
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
    TASK: tl.constexpr,
):
    """p - y, or with a scale the gradient of the loss times that; 0 where it does not count, whatever the row holds."""
    if TASK.has_scale:
        times = number_of(scale, row, is_row, 0.0)
        is_silent = (times == 0.0) | is_ignored
        outer = cooled(times * share * signs(share, TASK), warmth, coolness, TASK)
        residual = multiplied(residual, outer, TASK)
    residual = settled(residual, is_live, is_open, is_bad, is_empty, 0.0, TASK)
    residual = tl.where((is_class | is_ignored)[:, None], residual, float("nan"))
    if TASK.has_scale:
        residual = tl.where(is_silent[:, None], 0.0, residual)
    return residual


# -- results ----------------------------------------------------------------------------------------------------------


@triton.jit
def signs(like, TASK: tl.constexpr):
    """What the derivative by the scores is that by the signed ones times, one float64 a row."""
    return tl.full(like.shape, -1.0 if TASK.is_negated else 1.0, tl.float64)


@triton.jit
def settled(values, is_live, is_open, is_bad, is_empty, ABSENT: tl.constexpr, TASK: tl.constexpr):
    """What each entry gets: `ABSENT` where dead, NaN in bad rows but where masked, in empty rows what was asked for."""
    values = tl.where(is_live, values, ABSENT)
    if TASK.empty_is_nan:
        values = tl.where(is_empty[:, None], float("nan"), values)
    return tl.where(is_bad[:, None] & is_open, float("nan"), values)


@triton.jit
def settled_rows(values, is_bad, is_empty, EMPTY: tl.constexpr, TASK: tl.constexpr):
    """One number a row: NaN for bad rows, `EMPTY` or NaN for empty ones."""
    values = tl.where(is_empty, float("nan") if TASK.empty_is_nan else EMPTY, values)
    return tl.where(is_bad, float("nan"), values)


@triton.jit
def multiplied(values, times, TASK: tl.constexpr):
    """Entries times one float64 a row, which under any temperature may be beyond float32."""
    if TASK.temperature == WIDE_TEMPERATURE:
        found = (values.to(tl.float64) * times[:, None]).to(tl.float32)
    else:
        found = values * times.to(tl.float32)[:, None]
    return found
