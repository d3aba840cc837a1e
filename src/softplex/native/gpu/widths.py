"""How many rows and columns a program takes, and how many warps: a table by width; nothing is tuned at run time.

Widths are rounded up to powers of two. A row's bits depend on the width of its block, which is the row's alone.
"""

from __future__ import annotations

from typing import NamedTuple

LONGEST = 16_384
"""The longest row that one program holds."""

PART = 8192
"""How a longer row is cut."""

TILE = 1024
"""Entries that one warp holds; rows shorter than that share it."""


class Block(NamedTuple):
    """What one program takes."""

    rows: int
    width: int
    warps: int


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def block_for(n: int, is_strided: bool = False) -> Block:
    """The block for rows of n entries, neighbours of which lie side by side where the rows themselves are strided."""
    width = min(power_of_two(n), LONGEST)
    rows = max(1, TILE // width)
    if is_strided:
        rows = min(32, max(rows, LONGEST // width))
    warps = min(16, max(1, rows * width // TILE))
    return Block(rows, width, warps)
