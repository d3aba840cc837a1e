"""How the entries of a call lie in memory: axes merged into three of rows and two within. Nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

BATCH_AXES, ROW_AXES = 3, 2

Merged = tuple[int, tuple[int, ...]]
"""The size of an axis, and its stride in each tensor."""


class Places(NamedTuple):
    """The axes of some tensors of one shape, merged where all of them allow it."""

    batch: tuple[int, ...]
    row: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    """For each tensor three of the rows, the innermost last, and two within a row."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return math.prod(self.batch)

    @property
    def n(self) -> int:
        """How long they are."""
        return math.prod(self.row)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """What the number of a row and of a column are divided by; 0 where none is: Triton compiles for numbers."""
        outer, inner = {1: (0, 0), 2: (self.batch[-1], 0)}.get(len(self.batch), self.batch[-2:])
        return outer, inner, self.row[-1] if len(self.row) == ROW_AXES else 0


def places_of(tensors: Sequence[Tensor], axes: tuple[int, ...]) -> Places | None:
    """How tensors of one shape lie; None where that takes more axes than kernels know."""
    shape = tuple(tensors[0].shape)
    strides = [tensor.stride() for tensor in tensors]
    batch = merged(shape, strides, [axis for axis in range(len(shape)) if axis not in axes])
    row = merged(shape, strides, list(axes))
    if len(batch) > BATCH_AXES or len(row) > ROW_AXES:
        return None
    return Places(
        tuple(size for size, _ in batch),
        tuple(size for size, _ in row),
        tuple(strides_of(place, batch, row) for place in range(len(tensors))),
    )


def strides_of(place: int, batch: list[Merged], row: list[Merged]) -> tuple[int, ...]:
    """The strides of one tensor, those that are not there as 0: the innermost of the rows is always the third."""
    outer = [step[place] for _, step in batch[:-1]]
    inner = [step[place] for _, step in row]
    return (*outer, *[0] * (BATCH_AXES - 1 - len(outer)), batch[-1][1][place], *inner, *[0] * (ROW_AXES - len(inner)))


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
