"""Dask arrays, lazily: each chunk of rows goes through the NumPy formulas when it is computed. No formula lives here.

The normalised axes become one chunk, so a row must fit into memory; the other axes keep theirs. Nothing is computed
by a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from softplex.backends.array_api import ArrayApiBackend
from softplex.backends.numpy import BLOCK_ENTRIES, NUMPY, NDArray
from softplex.core.arrays import Array
from softplex.core.call import Call, Kind
from softplex.core.rows import Rows

PARTS = ("x", "mask", "sink", "temperature", "invalid")


@lru_cache
def dask_backend() -> DaskBackend:
    """The backend; needs the namespace that array-api-compat puts over Dask."""
    try:
        import array_api_compat.dask.array as functions
    except ImportError:
        raise TypeError("Dask arrays need the package array-api-compat; install softplex[array-api]") from None
    return DaskBackend(functions, "dask", can_look=False)


class DaskBackend(ArrayApiBackend):
    """The contract of a backend, chunk by chunk."""

    def as_array(self, x: Any, name: str) -> Array:
        """The scores, whose shape must be known."""
        if any(size != size for size in x.shape):
            raise ValueError(f"{name}: x has chunks of unknown size; call x.compute_chunk_sizes() first")
        return super().as_array(x, name)

    @property
    def dask(self) -> Any:
        """The module, which has no types."""
        return import_module("dask.array")

    def _found(
        self,
        call: Call,
        function: Callable[..., tuple[Array, ...]],
        lined: list[Array],
        results: Sequence[tuple[Kind, Any]],
    ) -> Sequence[Array]:
        rows, hyper = self._rows(call)
        chunks = self.dask.rechunk(rows.x, {-1: -1}).chunks
        parts = {name: getattr(rows, name) for name in PARTS} | dict(hyper)
        parts |= {f"operand {index}": array for index, array in enumerate(lined)}
        arrays = {name: self._aligned(part, chunks) for name, part in parts.items() if hasattr(part, "chunks")}
        fixed = {name: part for name, part in parts.items() if name not in arrays}
        batch = tuple(range(len(chunks) - 1))
        pairs = [item for array in arrays.values() for item in (array, (*batch, len(batch)))]
        length = rows.x.shape[-1]
        found = []
        for index, (kind, dtype) in enumerate(results):
            tail = {"entries": (length,), "row": (1,), "matrix": (length, length)}[kind]
            labels = tuple(range(len(batch) + 1, len(batch) + 1 + len(tail)))
            found.append(
                self.dask.blockwise(
                    computed_chunk,
                    (*batch, *labels),
                    *pairs,
                    names=tuple(arrays),
                    fixed=fixed,
                    settings=(rows.sign, rows.empty_value, rows.is_narrow, rows.dtype),
                    hyper_names=tuple(hyper),
                    function=function,
                    index=index,
                    tail=tail,
                    new_axes=dict(zip(labels, tail, strict=True)),
                    concatenate=True,
                    dtype=dtype,
                    result_dtype=dtype,
                    meta=np.empty((0,) * (len(batch) + len(tail)), dtype),
                )
            )
        return found

    def _aligned(self, array: Array, chunks: tuple[tuple[int, ...], ...]) -> Array:
        """An array of lines in the chunks of the scores; a parameter is repeated over the rows."""
        shape = (*(sum(sizes) for sizes in chunks[:-1]), array.shape[-1])
        return self.dask.rechunk(self.dask.broadcast_to(array, shape), (*chunks[:-1], (array.shape[-1],)))


def computed_chunk(
    *blocks: NDArray,
    names: tuple[str, ...],
    fixed: dict[str, Any],
    settings: tuple[int, float, bool, Any],
    hyper_names: tuple[str, ...],
    function: Callable[..., tuple[Array, ...]],
    index: int,
    tail: tuple[int, ...],
    result_dtype: Any,
) -> NDArray:
    """One result for one chunk of rows, in blocks that stay in cache."""
    known = {**fixed, **dict(zip(names, blocks, strict=True))}
    batch = known["x"].shape[:-1]
    flat = {n: v.reshape(-1, v.shape[-1]) if isinstance(v, np.ndarray) else v for n, v in known.items()}
    operands = sorted(name for name in flat if name.startswith("operand "))
    result = np.empty((math.prod(batch), *tail), result_dtype)
    step = max(1, BLOCK_ENTRIES // math.prod(tail))
    for start in range(0, len(result), step):
        part = {n: v[start : start + step] if isinstance(v, np.ndarray) else v for n, v in flat.items()}
        sign, empty_value, is_narrow, dtype = settings
        rows = Rows(
            NUMPY.xp,
            **{name: part[name] for name in PARTS},
            sign=sign,
            empty_value=empty_value,
            is_narrow=is_narrow,
            dtype=dtype,
        )
        with np.errstate(all="ignore"):
            found = function(rows, {name: part[name] for name in hyper_names}, *(part[name] for name in operands))
            result[start : start + step] = found[index]
    return result.reshape(*batch, *tail)
