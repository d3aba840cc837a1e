"""Which pieces of an array go through memory together. Reading and writing the formats is done elsewhere.

An array in C order is (outer, length, inner) with the normalised axis in the middle. A block is some neighbours along
`outer`: it is contiguous in the file, and every row (the entries that are normalised together) lies within it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from softplex.files.errors import FileError, UsageError, reason

Array = NDArray[Any]

# What a map's formula takes for an entry, temporaries in float64 included.
BYTES_PER_ENTRY = 128
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """How many entries go through memory at once, and how many may at most when one row forces it."""

    block: int = 2**19
    slab: int = 2**22
    memory: int = 512

    @classmethod
    def of_memory(cls, mebibytes: int) -> "Limits":
        """The limits for a working memory of so many MiB."""
        slab = max(1, mebibytes * MEBIBYTE // BYTES_PER_ENTRY)
        return cls(min(cls.block, slab), slab, mebibytes)

    @property
    def line(self) -> int:
        """The longest line of text that is read: a short cell takes some 20 bytes of memory a character."""
        return self.slab * 4


@dataclass(frozen=True)
class Layout:
    """An array as (outer, length, inner), the normalised axis in the middle."""

    outer: int
    length: int
    inner: int

    @property
    def slab(self) -> int:
        """The number of entries that cannot be taken apart: those of one index along `outer`."""
        return self.length * self.inner

    @property
    def rows(self) -> int:
        """The number of rows: of groups of entries that are normalised together."""
        return self.outer * self.inner

    def per_block(self, limits: Limits) -> int:
        """How many indices along `outer` make a block."""
        return max(1, limits.block // max(1, self.slab))


@dataclass(frozen=True)
class Block:
    """Scores as (outer, length, inner), how far they bring the work, and, from a table, the columns beside them."""

    values: Array
    progress: int
    record: Any = None


@dataclass(frozen=True)
class ArraySource:
    """One array in a file: what its header says, and how to read its bytes from the first to the last."""

    path: Path
    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    open: Callable[[], AbstractContextManager[BinaryIO]]

    @property
    def label(self) -> str:
        """What an error calls it."""
        return str(self.path) if self.name is None else f"{self.path}: array {self.name!r}"

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    def layout(self, axis: int) -> Layout:
        """The array as (outer, length, inner) in the order of its bytes."""
        if not self.shape:
            return Layout(1, 1, 1)
        shape, position = (self.shape[::-1], len(self.shape) - 1 - axis) if self.fortran else (self.shape, axis)
        return Layout(math.prod(shape[:position]), shape[position], math.prod(shape[position + 1 :]))

    def blocks(self, axis: int, limits: Limits) -> Iterator[Block]:
        """The array's entries in the order of its bytes."""
        layout = self.layout(axis)
        step = layout.per_block(limits)
        with self.open() as stream:
            for start in range(0, layout.outer, step):
                values = np.empty((min(step, layout.outer - start), layout.length, layout.inner), self.dtype)
                fill(stream, values, self.label)
                yield Block(values, values.size)

    def load(self) -> Array:
        """The whole array, in C order."""
        values = np.empty(self.shape[::-1] if self.fortran else self.shape, self.dtype)
        with self.open() as stream:
            fill(stream, values, self.label)
        return np.ascontiguousarray(values.T) if self.fortran else values


def normalized_axis(axis: int, dimensions: int, label: str) -> int:
    """The axis counted from the front; an array without axes is a row of length 1."""
    dimensions = max(1, dimensions)
    if not -dimensions <= axis < dimensions:
        raise UsageError(f"{label}: axis {axis} is out of bounds: allowed are {-dimensions} to {dimensions - 1}")
    return axis % dimensions


def check_slab(source: ArraySource, axis: int, limits: Limits) -> None:
    """Refuse an array whose rows do not lie within a block that fits into memory."""
    layout = source.layout(axis)
    if layout.slab <= limits.slab:
        return
    room = f"the {limits.slab:,} that fit into --memory {limits.memory}"
    if layout.length > limits.slab:
        raise UsageError(
            f"{source.label}: a row along axis {axis} has {layout.length:,} entries, more than {room}; raise it"
        )
    order, nearer = ("Fortran", "an earlier") if source.fortran else ("C", "a later")
    raise UsageError(
        f"{source.label}: axis {axis} runs across the blocks in which the file is read ({order} order: a row spans "
        f"{layout.slab:,} entries, more than {room}); choose {nearer} axis, raise --memory or transpose the array"
    )


def bytes_of(values: Array) -> memoryview:
    """The entries' bytes in C order (the buffer protocol itself knows no bfloat16)."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def fill(stream: BinaryIO, values: Array, label: str) -> None:
    """Read exactly as many bytes as `values` holds."""
    rest = memoryview(values.reshape(-1).view(np.uint8).data)
    while rest:
        try:
            count = stream.readinto(rest)  # type: ignore[attr-defined]
        except OSError as error:
            raise FileError(f"{label}: cannot be read: {reason(error)}") from error
        if not count:
            raise FileError(f"{label}: ends early: {len(rest):,} bytes of this block are missing; is the file cut off?")
        rest = rest[count:]
