"""Sparse results: for each row the indices and weights of its support.

They are spooled because their number is known only at the end; how they are written is the business of the formats.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softplex.files.blocks import Array
from softplex.files.outputs import Spool


@dataclass(frozen=True)
class Support:
    """The entries of some rows that are not 0: how many a row has, where they are along the row, what they weigh."""

    counts: Array
    indices: Array
    weights: Array


def support_of(weights: Array, index_dtype: np.dtype[Any]) -> Support:
    """The support of a block (outer, length, inner); its rows in C order."""
    outer, length, inner = weights.shape
    rows = np.moveaxis(weights, 1, 2).reshape(outer * inner, length)
    row, index = np.nonzero(rows)
    return Support(np.bincount(row, minlength=len(rows)), index.astype(index_dtype), rows[row, index])


def index_dtype(length: int) -> np.dtype[Any]:
    """The integers that hold the positions within a row."""
    return np.dtype(np.int32 if length < 2**31 else np.int64)


class SparseSpools:
    """The three growing arrays of a compressed sparse array."""

    def __init__(self, folder: Path, indices: np.dtype[Any], weights: np.dtype[Any]) -> None:
        self.indptr = Spool(folder, np.dtype(np.int64))
        self.indices = Spool(folder, indices)
        self.weights = Spool(folder, weights)
        self.indptr.append(np.zeros(1, np.int64))

    def append(self, support: Support) -> None:
        """Add the rows of a block."""
        self.indptr.append(self.weights.count + np.cumsum(support.counts))
        self.indices.append(support.indices)
        self.weights.append(support.weights)

    def named(self) -> dict[str, Spool]:
        """The spools by the names that they have in a file."""
        return {"indptr": self.indptr, "indices": self.indices, "weights": self.weights}
