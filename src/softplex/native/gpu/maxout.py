"""maxout on the GPU: the first winner of each row, its value, and where a cotangent goes or a tangent comes from.

Rows of any length are walked in blocks of columns. NaN wins, infinities are numbers, and no number is changed, so that
float64 serves as any other type. The maps of maps.py have no part in this.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softplex.native.gpu.rows import BY_STRIDES, block_of_rows, entries, put, starts, steps
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
    LAY: tl.constexpr,
):
    """`figures` take a number a row; a vjp's `operand` holds one, a jvp's has the shape of x."""
    row, first = block_of_rows(LAY)
    is_row = row < rows
    nobody: tl.constexpr = 2**62
    best = tl.full(row.shape, float("-inf"), tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32)
    winner = tl.full(row.shape, nobody, tl.int64)
    has_nan = tl.zeros(row.shape, tl.int1)
    begin = tl.zeros([], tl.int64)
    while begin < n:
        column = begin + first
        is_inside = is_row[:, None] & (column < n)[None, :]
        score = entries(x, row, column, rows, n, sizes, x_strides, 0.0, LAY.x, LAY).to(best.dtype)
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
        begin += LAY.width
    if METHOD == WINNER:
        tl.store(figures + row, winner, mask=is_row)
    elif METHOD == VJP:
        g = tl.load(operand + row, mask=is_row, other=0.0)
        begin = tl.zeros([], tl.int64)
        while begin < n:
            column = begin + first
            sent = tl.where(column[None, :] == winner[:, None], g[:, None], tl.zeros_like(g)[:, None])
            put(result, row, column, rows, n, sizes, result_strides, sent, LAY)
            begin += LAY.width
    else:
        # One entry a row, read where it stands.
        if METHOD == VALUE:
            places = places_of_winners(row, winner, sizes, x_strides, LAY)
            tl.store(figures + row, tl.load(x + places, mask=is_row), mask=is_row)
        else:
            places = places_of_winners(row, winner, sizes, operand_strides, LAY)
            tl.store(figures + row, tl.load(operand + places, mask=is_row), mask=is_row)


@triton.jit
def places_of_winners(row, winner, sizes, strides, LAY: tl.constexpr):
    """The offset of one entry of each row."""
    return starts(row, sizes, strides, LAY) + steps(winner, sizes, strides, BY_STRIDES, LAY)
