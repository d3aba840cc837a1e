"""How the entries of a call lie in memory: in as few axes, of rows and within them, as strides allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

Merged = tuple[int, tuple[int, ...]]
"""The size of an axis, and its stride in each tensor."""


class Places(NamedTuple):
    """The axes of some tensors of one shape, merged where all of them allow it."""

    batch: tuple[int, ...]
    row: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    """For each tensor those of the batch, the innermost first, and those within a row likewise."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return math.prod(self.batch)

    @property
    def n(self) -> int:
        """How long they are."""
        return math.prod(self.row)

    @property
    def sizes(self) -> tuple[int, ...]:
        """What the number of a row, and then of a column, are divided by on the way outwards; 0 where nothing is."""
        return (*self.batch[:0:-1], *self.row[:0:-1]) or (0,)


def places_of(tensors: Sequence[Tensor], axes: tuple[int, ...]) -> Places:
    """How tensors of one shape lie."""
    shape = tuple(tensors[0].shape)
    strides = [tensor.stride() for tensor in tensors]
    batch = merged(shape, strides, [axis for axis in range(len(shape)) if axis not in axes])
    row = merged(shape, strides, list(axes))
    return Places(
        tuple(size for size, _ in batch),
        tuple(size for size, _ in row),
        tuple(tuple(step[place] for _, step in (*batch[::-1], *row[::-1])) for place in range(len(tensors))),
    )


def merged(shape: Sequence[int], strides: Sequence[Sequence[int]], axes: Sequence[int]) -> list[Merged]:
    """Sizes, and strides in each tensor, of axes of which neighbours are one where they lie so in all tensors."""
    found: list[Merged] = []
    for axis in axes:
        size, step = shape[axis], tuple(each[axis] for each in strides)
        if size == 1:
            continue
        if found and all(outer == inner * size for outer, inner in zip(found[-1][1], step, strict=True)):
            found[-1] = (found[-1][0] * size, step)
        else:
            found.append((size, step))
    return found or [(1, (0,) * len(strides))]
