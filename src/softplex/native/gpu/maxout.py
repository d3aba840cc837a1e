"""maxout on the GPU: the first winner of each row, its value, and where a cotangent goes or a tangent comes from.

Rows of any length are walked in blocks of columns. NaN wins, infinities are numbers, and no number is changed, so that
float64 serves as any other type. The maps of maps.py have no part in this.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.rows import inside, starts, steps
from softplex.native.gpu.short import NUMBERS

VALUE: tl.constexpr = tl.constexpr(0)
WINNER: tl.constexpr = tl.constexpr(1)
VJP: tl.constexpr = tl.constexpr(2)
JVP: tl.constexpr = tl.constexpr(3)


@triton.jit(do_not_specialize=NUMBERS)
def winners(
    x,
    operand,
    result,
    figures,
    n,
    rows,
    sizes,
    x_strides,
    operand_strides,
    result_strides,
    METHOD: tl.constexpr,
    BATCH_DIMS: tl.constexpr,
    BATCH_IS_UNIT: tl.constexpr,
    ROW_DIMS: tl.constexpr,
    IS_UNIT: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """`figures` take a number a row; a vjp's `operand` holds one, a jvp's has the shape of x."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    is_row = row < rows
    start = starts(row, sizes, x_strides, BATCH_DIMS, BATCH_IS_UNIT, VECTOR)
    nobody: tl.constexpr = 2**62
    best = tl.full([ROWS], float("-inf"), x.dtype.element_ty)
    if x.dtype.element_ty == tl.bfloat16 or x.dtype.element_ty == tl.float16:
        best = best.to(tl.float32)
    winner = tl.full([ROWS], nobody, tl.int64)
    has_nan = tl.zeros([ROWS], tl.int1)
    begin = tl.zeros([], tl.int64)
    while begin < n:
        column = begin + tl.arange(0, WIDTH)
        is_inside = inside(row, column, rows, n, VECTOR)
        score = tl.load(x + (start + steps(column, sizes[2], x_strides, ROW_DIMS, IS_UNIT)), mask=is_inside, other=0.0)
        score = score.to(best.dtype)
        is_nan = (score != score) & is_inside
        # The first NaN, else the first of the largest.
        first_nan = tl.min(tl.where(is_nan, column[None, :], nobody), 1)
        numbers = tl.where(is_inside & (score == score), score, float("-inf"))
        top = tl.max(numbers, 1)
        is_top = is_inside & (numbers == top[:, None])
        first_top = tl.min(tl.where(is_top, column[None, :], nobody), 1)
        is_better = (top > best) | ((winner == nobody) & (first_top < nobody))
        winner = tl.where(has_nan | (is_better == 0), winner, first_top)
        winner = tl.where((has_nan == 0) & (first_nan < nobody), first_nan, winner)
        has_nan = has_nan | (first_nan < nobody)
        best = tl.where(top > best, top, best)
        begin += WIDTH
    if METHOD == WINNER:
        tl.store(figures + row, winner, mask=is_row)
    elif METHOD == VJP:
        g = tl.load(operand + row, mask=is_row, other=0.0)
        start = starts(row, sizes, result_strides, BATCH_DIMS, BATCH_IS_UNIT, VECTOR)
        begin = tl.zeros([], tl.int64)
        while begin < n:
            column = begin + tl.arange(0, WIDTH)
            is_inside = inside(row, column, rows, n, VECTOR)
            places = start + steps(column, sizes[2], result_strides, ROW_DIMS, IS_UNIT)
            sent = tl.where(column[None, :] == winner[:, None], g[:, None], tl.zeros_like(g)[:, None])
            tl.store(result + places, sent, mask=is_inside)
            begin += WIDTH
    else:
        # One entry a row, read where it stands.
        if METHOD == VALUE:
            places = places_of_winners(row, winner, sizes, x_strides, BATCH_DIMS, ROW_DIMS)
            tl.store(figures + row, tl.load(x + places, mask=is_row), mask=is_row)
        else:
            places = places_of_winners(row, winner, sizes, operand_strides, BATCH_DIMS, ROW_DIMS)
            tl.store(figures + row, tl.load(operand + places, mask=is_row), mask=is_row)


@triton.jit
def places_of_winners(row, winner, sizes, strides, BATCH_DIMS: tl.constexpr, ROW_DIMS: tl.constexpr):
    """The offset of one entry of each row."""
    if ROW_DIMS == 1:
        place = winner * strides[3]
    else:
        place = (winner // sizes[2]) * strides[3] + (winner % sizes[2]) * strides[4]
    return tl.reshape(starts(row, sizes, strides, BATCH_DIMS, False, 1), row.shape) + place
