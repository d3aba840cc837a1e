"""The way of a file: from INPUT through blocks of scores to OUTPUT, dense or sparse.

The formats are in `arrays` and `tables`; what turns scores into weights is a function that the caller passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from softplex.files import arrays, tables
from softplex.files.arrays import Entry
from softplex.files.blocks import Array, ArraySource, Block, Limits, bytes_of, check_slab, normalized_axis
from softplex.files.errors import FileError, UsageError
from softplex.files.outputs import Spool, check_output, replacing
from softplex.files.selection import keep_largest
from softplex.files.sparse import SparseSpools, Support, index_dtype, support_of
from softplex.files.tables import CsvSource, ParquetSource, Table

ARRAY_READERS = {".npy": arrays.read_npy, ".npz": arrays.read_npz, ".safetensors": arrays.read_safetensors}
ARRAY_WRITERS = {".npy": arrays.write_npy, ".npz": arrays.write_npz, ".safetensors": arrays.write_safetensors}
TABLE_WRITERS = {".csv": tables.write_csv, ".parquet": tables.write_parquet}
ARRAY_SUFFIXES = tuple(ARRAY_READERS)
TABLE_SUFFIXES = tuple(TABLE_WRITERS)
SUFFIXES = ARRAY_SUFFIXES + TABLE_SUFFIXES
KEEPS_FORTRAN_ORDER = (".npy", ".npz")
KEEPS_BFLOAT16 = (".safetensors",)
NAMELESS = "weights"

TableSource = CsvSource | ParquetSource


@dataclass(frozen=True)
class Request:
    """What is asked for.

    `weigh(scores, axis)` gives the weights of a block; the other fields are the options of `softplex apply`.
    """

    weigh: Callable[[Array, int], Array]
    source: Path
    output: Path
    axis: int = -1
    sparse: bool = False
    top_k: int | None = None
    renormalize: bool = False
    key: str | None = None
    header: bool | None = None
    force: bool = False
    limits: Limits = field(default_factory=Limits)
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass
class Summary:
    """What was done."""

    arrays: int = 0
    rows: int = 0
    entries: int = 0
    nan_rows: int = 0
    support: int = 0


def apply_file(request: Request) -> Summary:
    """Weigh the scores of a file and write the result; the output appears whole or not at all.

    Raises:
        UsageError: the request fits no file, or not this one.
        FileError: the input cannot be read, or the output cannot be written.
    """
    source_suffix, output_suffix = _suffix(request.source), _suffix(request.output)
    _check_request(request, output_suffix)
    if not request.source.is_file():
        problem = "is not a plain file" if request.source.exists() else "does not exist"
        raise FileError(f"{request.source}: {problem}")
    check_output(request.source, request.output, request.force)
    job = _ArrayJob if source_suffix in ARRAY_READERS else _TableJob
    return job(request, source_suffix, output_suffix).run()


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: {suffix or 'no suffix'} is no known format; known are {', '.join(SUFFIXES)}")
    return suffix


def _check_request(request: Request, output_suffix: str) -> None:
    if request.top_k is not None and request.top_k < 1:
        raise UsageError(f"--top-k is {request.top_k}; it must be 1 or more")
    if request.renormalize and request.top_k is None:
        raise UsageError("--renormalize goes with --top-k alone: without it nothing is left out")
    if request.sparse and output_suffix == ".npy":
        raise UsageError(
            f"{request.output}: .npy holds one array, a sparse output takes several; "
            "choose .npz, .safetensors, .parquet or .csv"
        )


class _Job:
    """What both kinds of input have in common: weighing blocks, counting, reporting."""

    def __init__(self, request: Request, source_suffix: str, output_suffix: str) -> None:
        self.request = request
        self.source_suffix = source_suffix
        self.output_suffix = output_suffix
        self.summary = Summary()
        self.done = 0
        self.total = 0

    def weighed(self, blocks: Iterator[Block], dtype: np.dtype[Any]) -> Iterator[tuple[Array, Any]]:
        """The weights of each block, of the dtype that the output holds, and what stands beside them."""
        self.request.progress(self.done, self.total)
        for block in blocks:
            yield self._weighed_block(block.values).astype(dtype, copy=False), block.record
            self.done += block.progress
            self.request.progress(self.done, self.total)

    def supports(self, blocks: Iterator[Block], dtype: np.dtype[Any], length: int) -> Iterator[Support]:
        """The support of each block's weights."""
        for weights, _ in self.weighed(blocks, dtype):
            support = support_of(weights, index_dtype(length))
            self.summary.support += support.weights.size
            yield support

    def result_dtype(self, length: int, dtype: np.dtype[Any], label: str) -> np.dtype[Any]:
        """The dtype of the weights in the output: the map's own, as far as the format can hold it."""
        _check_dtype(dtype, label)
        # No rows, but of the true length: it also shows whether the map takes its parameters, before anything is done.
        result = self.request.weigh(np.zeros((0, length), dtype), -1).dtype
        if result.name == "bfloat16" and self.output_suffix not in KEEPS_BFLOAT16:
            return np.dtype(np.float32)
        return result

    def _weighed_block(self, scores: Array) -> Array:
        outer, length, inner = scores.shape
        flat = scores.reshape(outer, length) if inner == 1 else scores
        weights = self.request.weigh(flat, 1).reshape(scores.shape)
        if self.request.top_k is not None and length:
            weights = keep_largest(weights, self.request.top_k, self.request.renormalize)
        self.summary.rows += outer * inner
        self.summary.entries += weights.size
        self.summary.nan_rows += int(np.isnan(weights).any(axis=1).sum())
        return weights


class _ArrayJob(_Job):
    """From .npy, .npz or .safetensors to anything."""

    def __init__(self, request: Request, source_suffix: str, output_suffix: str) -> None:
        super().__init__(request, source_suffix, output_suffix)
        self.sources = [self._in_c_order(source) for source in self._chosen()]
        self.axes = [normalized_axis(request.axis, len(source.shape), source.label) for source in self.sources]
        for source, axis in zip(self.sources, self.axes, strict=True):
            check_slab(source, axis, request.limits)
        self.dtypes = [
            self.result_dtype(source.layout(axis).length, source.dtype, source.label)
            for source, axis in zip(self.sources, self.axes, strict=True)
        ]
        self.total = sum(source.size for source in self.sources)
        self.summary.arrays = len(self.sources)

    def run(self) -> Summary:
        """Write the output."""
        if self.output_suffix in TABLE_WRITERS:
            self._check_table_shape()
        with replacing(self.request.output) as file:
            if self.output_suffix in TABLE_WRITERS:
                self._write_table(file)
            else:
                self._write_arrays(file)
        return self.summary

    def _chosen(self) -> list[ArraySource]:
        request = self.request
        if request.header is not None:
            raise UsageError(f"--header goes with .csv alone, not with {self.source_suffix}")
        if request.key is not None and self.source_suffix == ".npy":
            raise UsageError("--key goes with .npz and .safetensors alone, not with .npy")
        found = ARRAY_READERS[self.source_suffix](request.source)
        names = [source.name for source in found]
        if request.key is not None:
            if request.key not in names:
                raise UsageError(f"{request.source}: has no array {request.key!r}; it has {_listed(names)}")
            return [source for source in found if source.name == request.key]
        if not found:
            raise FileError(f"{request.source}: holds no array")
        if len(found) > 1 and (self.output_suffix == ".npy" or self.output_suffix in TABLE_WRITERS):
            raise UsageError(
                f"{request.source}: holds {_listed(names)}, and {self.output_suffix} has room for one; "
                "choose with --key"
            )
        return found

    def _in_c_order(self, source: ArraySource) -> ArraySource:
        """The source itself where its order can be kept, else a copy of it in memory."""
        if not source.fortran or len(source.shape) < 2:
            return source
        if not self.request.sparse and self.output_suffix in KEEPS_FORTRAN_ORDER:
            return source
        if source.size > self.request.limits.slab:
            raise UsageError(
                f"{source.label}: is in Fortran order and too large to be turned in memory; "
                "write a dense .npy or .npz, raise --memory, or save it in C order first"
            )
        _check_dtype(source.dtype, source.label)
        return _in_memory(source)

    def _check_table_shape(self) -> None:
        source = self.sources[0]
        if len(source.shape) > 2 and not self.request.sparse:
            raise UsageError(
                f"{source.label}: has shape {source.shape}, a table two axes; "
                "write .npy, .npz or .safetensors, or --output sparse"
            )

    # ---- tables

    def _write_table(self, file: BinaryIO) -> None:
        source, axis, dtype = self.sources[0], self.axes[0], self.dtypes[0]
        blocks = source.blocks(axis, self.request.limits)
        if self.request.sparse:
            length = source.layout(axis).length
            _write_sparse_table(
                file, self.output_suffix, dtype, length, _described(source, axis), self.supports(blocks, dtype, length)
            )
            return
        width = source.shape[-1] if source.shape else 1
        rows = ((weights.reshape(-1, width), None) for weights, _ in self.weighed(blocks, dtype) if width)
        TABLE_WRITERS[self.output_suffix](file, Table(width, dtype), rows)

    # ---- arrays

    def _write_arrays(self, file: BinaryIO) -> None:
        metadata = arrays.safetensors_metadata(self.request.source) if self.source_suffix == ".safetensors" else {}
        write = ARRAY_WRITERS[self.output_suffix]
        if not self.request.sparse:
            write(
                file,
                [self._dense_entry(*item) for item in zip(self.sources, self.axes, self.dtypes, strict=True)],
                metadata,
            )
            return
        with ExitStack() as spools:
            entries: list[Entry] = []
            for source, axis, dtype in zip(self.sources, self.axes, self.dtypes, strict=True):
                length = source.layout(axis).length
                prefix = f"{source.name}." if len(self.sources) > 1 else ""
                supports = self.supports(source.blocks(axis, self.request.limits), dtype, length)
                folder = self.request.output.resolve().parent
                entries += _sparse_entries(spools, folder, prefix, dtype, length, source.shape or (1,), axis, supports)
            write(file, entries, metadata)

    def _dense_entry(self, source: ArraySource, axis: int, dtype: np.dtype[Any]) -> Entry:
        def chunks() -> Iterator[memoryview]:
            for weights, _ in self.weighed(source.blocks(axis, self.request.limits), dtype):
                yield bytes_of(weights)

        return Entry(source.name or NAMELESS, source.shape, dtype, source.fortran, chunks)


class _TableJob(_Job):
    """From .csv or .parquet to anything."""

    def __init__(self, request: Request, source_suffix: str, output_suffix: str) -> None:
        super().__init__(request, source_suffix, output_suffix)
        _check_table_request(request, source_suffix)
        self.source: TableSource
        if source_suffix == ".csv":
            self.source = CsvSource(request.source, request.header, request.limits)
        else:
            self.source = ParquetSource(request.source, request.limits)
        self.dtype = self.result_dtype(self.source.width, self.source.dtype, self.source.label)
        self.total = self.source.total
        self.summary.arrays = 1

    def run(self) -> Summary:
        """Write the output."""
        with replacing(self.request.output) as file:
            if self.output_suffix in ARRAY_WRITERS:
                self._write_arrays(file)
            elif self.request.sparse:
                self._write_sparse_table(file)
            else:
                rows = ((weights[:, :, 0], record) for weights, record in self.weighed(self.blocks(), self.dtype))
                TABLE_WRITERS[self.output_suffix](file, self.source.table, rows)
        return self.summary

    def blocks(self) -> Iterator[Block]:
        """The table's scores."""
        return self.source.blocks(self.request.limits)

    def _write_sparse_table(self, file: BinaryIO) -> None:
        supports = self.supports(self.blocks(), self.dtype, self.source.width)
        _write_sparse_table(file, self.output_suffix, self.dtype, self.source.width, {}, supports)

    def _write_arrays(self, file: BinaryIO) -> None:
        folder, width = self.request.output.resolve().parent, self.source.width
        write = ARRAY_WRITERS[self.output_suffix]
        with ExitStack() as spools:
            if self.request.sparse:
                supports = self.supports(self.blocks(), self.dtype, width)
                write(file, _sparse_entries(spools, folder, "", self.dtype, width, (None, width), 1, supports), {})
                return
            spool = Spool(folder, self.dtype)
            spools.callback(spool.close)
            for weights, _ in self.weighed(self.blocks(), self.dtype):
                spool.append(weights)
            write(file, [Entry(NAMELESS, (spool.count // width, width), self.dtype, False, spool.chunks)], {})


def _check_table_request(request: Request, source_suffix: str) -> None:
    if request.key is not None:
        raise UsageError(f"--key goes with .npz and .safetensors alone, not with {source_suffix}")
    if request.header is not None and source_suffix != ".csv":
        raise UsageError(f"--header goes with .csv alone, not with {source_suffix}")
    if normalized_axis(request.axis, 2, str(request.source)) == 0:
        raise UsageError(
            f"{request.source}: axis {request.axis} runs across the blocks of rows in which {source_suffix} is read; "
            "the numeric columns of a row are the axis (--axis -1); for the other one turn the table or save it as .npy"
        )


def _check_dtype(dtype: np.dtype[Any], label: str) -> None:
    if dtype.hasobject:
        raise FileError(f"{label}: holds Python objects, which are never unpickled; save it as an array of numbers")
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8) or dtype.name == "bfloat16":
        return
    hint = " (if they are bfloat16, .safetensors keeps them as such)" if dtype.str[1:] == "V2" else ""
    raise FileError(
        f"{label}: holds {dtype.name}, which cannot be weighed; allowed are real numbers of 64 bits at most{hint}"
    )


def _in_memory(source: ArraySource) -> ArraySource:
    import io

    content = source.load()
    return ArraySource(
        source.path, source.name, source.shape, source.dtype, False, lambda: io.BytesIO(bytes_of(content))
    )


def _listed(names: Sequence[str | None]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 8 else shown or "none"


def _described(source: ArraySource, axis: int) -> dict[str, str]:
    return {"shape": ",".join(map(str, source.shape or (1,))), "axis": str(axis)}


def _write_sparse_table(
    file: BinaryIO,
    suffix: str,
    dtype: np.dtype[Any],
    length: int,
    metadata: dict[str, str],
    supports: Iterator[Support],
) -> None:
    if suffix == ".csv":
        tables.write_sparse_csv(file, supports)
    else:
        tables.write_sparse_parquet(file, index_dtype(length), dtype, metadata, supports)


def _sparse_entries(
    resources: ExitStack,
    folder: Path,
    prefix: str,
    dtype: np.dtype[Any],
    length: int,
    shape: tuple[int | None, ...],
    axis: int,
    supports: Iterator[Support],
) -> list[Entry]:
    spools = SparseSpools(folder, index_dtype(length), dtype)
    for spool in spools.named().values():
        resources.callback(spool.close)
    for support in supports:
        spools.append(support)
    known_shape = tuple(spools.indptr.count - 1 if part is None else part for part in shape)
    entries = [
        Entry(prefix + name, (spool.count,), spool.dtype, False, spool.chunks) for name, spool in spools.named().items()
    ]
    entries.append(_small_entry(prefix + "shape", np.array(known_shape, np.int64)))
    entries.append(_small_entry(prefix + "axis", np.array(axis, np.int64)))
    return entries


def _small_entry(name: str, values: Array) -> Entry:
    return Entry(name, values.shape, values.dtype, False, partial(_whole, values))


def _whole(values: Array) -> list[memoryview]:
    return [bytes_of(values)]
