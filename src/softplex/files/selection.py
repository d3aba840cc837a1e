"""The k largest weights of each row. Rows run along the middle axis of a block."""

import numpy as np
from numpy.typing import NDArray

from softplex.files.blocks import Array


def keep_largest(weights: Array, k: int, renormalize: bool) -> Array:
    """The weights with all but the k largest of each row set to 0, of equal ones the first.

    Rows that hold NaN stay as they are.
    With `renormalize` what is left is scaled, so that each row sums to what it summed to before.
    """
    length = weights.shape[1]
    if k >= length:
        return weights
    kept = np.where(_largest(weights, k) | np.isnan(weights).any(axis=1, keepdims=True), weights, weights.dtype.type(0))
    return _rescaled(kept, weights) if renormalize else kept


def _largest(weights: Array, k: int) -> NDArray[np.bool_]:
    # Not every dtype can be sorted; the widening is exact.
    comparable = weights.astype(np.promote_types(weights.dtype, np.float32), copy=False)
    position = weights.shape[1] - k
    smallest_kept = np.partition(comparable, position, axis=1)[:, position : position + 1]
    above = comparable > smallest_kept
    tied = comparable == smallest_kept
    places = k - above.sum(axis=1, keepdims=True)
    kept: NDArray[np.bool_] = above | (tied & (tied.cumsum(axis=1) <= places))
    return kept


def _rescaled(kept: Array, weights: Array) -> Array:
    before = weights.sum(axis=1, keepdims=True, dtype=np.float64)
    after = kept.sum(axis=1, keepdims=True, dtype=np.float64)
    scale = np.divide(before, after, out=np.ones_like(after), where=after > 0)
    scaled: Array = (kept * scale).astype(weights.dtype)
    return scaled
