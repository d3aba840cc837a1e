"""How many rows and columns a program takes, and how many warps: a table by width; nothing is tuned at run time.

Widths are rounded up to powers of two. A row's bits depend on the width of its block, which is the row's alone.
"""

from __future__ import annotations

from typing import NamedTuple

from softplex.native.gpu.compiled import PLAIN, SCATTERED, SIDE_BY_SIDE

LONGEST = 16_384
"""The longest row that one program holds."""

PART = 8192
"""How a longer row is cut."""

MULTIPROCESSORS = 128
"""Those of a device that does not tell."""

PATIENCE = 1000
"""How often a program looks for the others of its row, a microsecond or so each time, before it does without them."""

PATIENCE_A_PART = 2
"""And how often more for each part of the row: so long it would take alone."""

REGISTERS = 128
"""Those of a thread, where two programs of 256 threads are to share a multiprocessor: one loads while one waits."""

TILE = 1024
"""Entries that one warp holds; rows shorter than that share it."""

NARROW = 128
"""Rows so short that four warps take some each, and half as many entries: the numbers of their rows take room, too."""

APART = 16
"""Entries of a row that stand so far from each other share no memory transaction; those of neighbouring rows may."""


class Block(NamedTuple):
    """What one program takes."""

    rows: int
    width: int
    warps: int


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def block_for(n: int, lie: int = PLAIN) -> Block:
    """The block for rows of n entries."""
    width = min(power_of_two(n), LONGEST)
    if lie == SIDE_BY_SIDE:
        rows = max(1, min(32, LONGEST // width))
    elif width <= NARROW:
        return Block(8 if lie == SCATTERED else min(32, 2 * TILE // width), width, 4)
    else:
        rows = max(1, TILE // width)
    return Block(rows, width, min(16, max(1, rows * width // TILE)))
