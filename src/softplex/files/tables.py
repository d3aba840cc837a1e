"""The formats that hold tables: .csv and .parquet, read by blocks of rows and written the same way.

A row's numeric columns are its scores. What is done to the scores is no business of this module.
"""

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from softplex.files.arrays import open_file
from softplex.files.blocks import Array, Block, Limits
from softplex.files.errors import FileError, UsageError, needs_package, reason
from softplex.files.sparse import Support


@dataclass(frozen=True)
class Table:
    """What a dense table is written with: number, dtype and names of its weights, and what Parquet has beside them."""

    width: int
    dtype: np.dtype[Any]
    columns: Sequence[str] | None = None
    schema: Any = None
    scores: tuple[int, ...] = ()


# ---- reading .csv


class CsvSource:
    """A .csv file: cells separated by commas, all of them numbers, but for the first row where that is a header."""

    def __init__(self, path: Path, header: bool | None, limits: Limits) -> None:
        self.path = path
        self.dtype = np.dtype(np.float64)
        self.total = path.stat().st_size
        first = self._first_row(limits)
        self.has_header = _is_header(path, first) if header is None else header
        self.columns = first if self.has_header else None
        self.width = len(first)
        if self.width > limits.slab:
            raise UsageError(
                f"{path}: a row has {self.width:,} cells, more than the {limits.slab:,} of --memory {limits.memory}"
            )

    @property
    def label(self) -> str:
        """What an error calls it."""
        return str(self.path)

    @property
    def table(self) -> Table:
        """What its weights are written with."""
        return Table(self.width, self.dtype, self.columns)

    def blocks(self, limits: Limits) -> Iterator[Block]:
        """The rows as blocks (rows, cells, 1)."""
        numbers = array("d")
        position = 0
        with _open_text(self.path) as text:
            for line, row in self._data_rows(text, limits):
                self._append(numbers, line, row)
                if len(numbers) + self.width > limits.block:
                    done = text.buffer.tell()
                    yield Block(self._values(numbers), done - position)
                    numbers, position = array("d"), done
        if numbers:
            yield Block(self._values(numbers), self.total - position)

    def _first_row(self, limits: Limits) -> list[str]:
        with _open_text(self.path) as text:
            for _, row in _rows(self.path, text, limits):
                return row
        raise FileError(f"{self.path}: is empty: no row has a cell")

    def _data_rows(self, text: TextIO, limits: Limits) -> Iterator[tuple[int, list[str]]]:
        rows = _rows(self.path, text, limits)
        if self.has_header:
            next(rows)
        return rows

    def _append(self, numbers: "array[float]", line: int, row: list[str]) -> None:
        if len(row) != self.width:
            raise FileError(f"{self.path}: row {line} has {len(row):,} cells, the first row {self.width:,}")
        if not all(map(_is_plain, row)):
            raise self._bad_cell(line, row)
        try:
            numbers.extend(map(float, row))
        except ValueError as error:
            raise self._bad_cell(line, row) from error

    def _bad_cell(self, line: int, row: list[str]) -> FileError:
        column = next(index for index, cell in enumerate(row) if not _is_number(cell))
        name = f" ({self.columns[column]})" if self.columns else ""
        return FileError(f"{self.path}: row {line}, column {column + 1}{name}: {_quoted(row[column])} is not a number")

    def _values(self, numbers: "array[float]") -> Array:
        return np.frombuffer(numbers, np.float64).reshape(-1, self.width, 1)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    with open_file(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        yield text


def _rows(path: Path, text: TextIO, limits: Limits) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its (last) line, as editors and spreadsheets count."""
    reader = csv.reader(_lines(path, text, limits), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise FileError(f"{path}: row {reader.line_num} is not readable as .csv: {error}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not text in UTF-8 (near row {reader.line_num + 1})") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {reason(error)}") from error


def _lines(path: Path, text: TextIO, limits: Limits) -> Iterator[str]:
    number = 0
    while line := text.readline(limits.line):
        number += 1
        if len(line) >= limits.line:
            raise UsageError(
                f"{path}: row {number} is longer than the {limits.line:,} characters of --memory {limits.memory}"
            )
        yield line


def _is_header(path: Path, first: Sequence[str]) -> bool:
    numeric = [_is_number(cell) for cell in first]
    if any(numeric) and not all(numeric):
        column = numeric.index(False)
        raise FileError(
            f"{path}: row 1, column {column + 1}: {_quoted(first[column])} is not a number "
            "(if row 1 is a header, say --header; if not, mend the cell)"
        )
    return not any(numeric)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return _is_plain(cell)


def _is_plain(cell: str) -> bool:
    """Whether a cell is free of spellings that only Python takes for numbers: 1_000, digits of other scripts."""
    return cell.isascii() and "_" not in cell


def _quoted(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")


# ---- reading .parquet


class ParquetSource:
    """A .parquet file: its numeric columns are the scores, the others (texts, dates, ...) stand beside them."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        with self._opened() as file:
            self.schema = file.schema_arrow
            self.total = file.metadata.num_rows
        self.scores = _score_columns(self.schema)
        if not self.scores:
            raise FileError(
                f"{path}: has no numeric column to weigh; its columns are {', '.join(self.schema.names) or 'none'}"
            )
        self.width = len(self.scores)
        if self.width > limits.slab:
            raise UsageError(
                f"{path}: a row has {self.width:,} scores, more than the {limits.slab:,} of --memory {limits.memory}"
            )

    @property
    def label(self) -> str:
        """What an error calls it."""
        return str(self.path)

    @property
    def table(self) -> Table:
        """What its weights are written with."""
        return Table(self.width, self.dtype, self.schema.names, self.schema, self.scores)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The scores' common floating dtype; float64 where they have none."""
        dtypes = {_float_dtype(self.schema.field(index).type) for index in self.scores}
        return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float64)

    def blocks(self, limits: Limits) -> Iterator[Block]:
        """The rows as blocks (rows, scores, 1), each with the record batch that it was read from."""
        count = max(1, limits.block // max(1, len(self.schema.names)))
        row = 0
        with self._opened() as file:
            for record in file.iter_batches(batch_size=count, use_threads=False):
                yield Block(self._values(record, row), record.num_rows, record)
                row += record.num_rows

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        arrow, parquet = _arrow(self.path)
        try:
            # A buffer size makes the reader go through a row group in pieces instead of loading whole columns of it.
            with (
                open_file(self.path) as stream,
                parquet.ParquetFile(stream, buffer_size=2**16, pre_buffer=False) as file,
            ):
                yield file
        except arrow.ArrowException as error:
            raise FileError(f"{self.path}: is not a readable .parquet file: {_first_line(error)}") from error
        except OSError as error:
            raise FileError(f"{self.path}: cannot be read: {_first_line(error)}") from error

    def _values(self, record: Any, row: int) -> Array:
        values = np.empty((record.num_rows, self.width, 1), self.dtype)
        for place, index in enumerate(self.scores):
            column = record.column(index)
            if column.null_count:
                missing = row + column.is_null().to_pylist().index(True) + 1
                raise FileError(
                    f"{self.path}: row {missing}, column {index + 1} ({self.schema.names[index]}): the cell is empty"
                )
            values[:, place, 0] = _numbers(column)
        return values


def _arrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise needs_package(path, "pyarrow", "cli") from error
    return pyarrow, pyarrow.parquet


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".: ") if str(error) else type(error).__name__


def _score_columns(schema: Any) -> tuple[int, ...]:
    from pyarrow import types

    index_names = {name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)}
    return tuple(
        index
        for index, field in enumerate(schema)
        if field.name not in index_names
        and (types.is_integer(field.type) or types.is_floating(field.type) or types.is_decimal(field.type))
    )


def _float_dtype(arrow_type: Any) -> np.dtype[Any]:
    from pyarrow import types

    return np.dtype(arrow_type.to_pandas_dtype()) if types.is_floating(arrow_type) else np.dtype(np.float64)


def _numbers(column: Any) -> Array:
    import pyarrow

    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    numbers: Array = column.to_numpy(zero_copy_only=False)
    return numbers


# ---- writing


Weighed = Iterable[tuple[Array, Any]]


def write_csv(file: BinaryIO, table: Table, blocks: Weighed) -> None:
    """Write rows of weights (and the columns beside them) as .csv, numbers in the fewest digits that give them back."""
    with _text_writer(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        if table.columns is not None:
            writer.writerow(table.columns)
        for weights, record in blocks:
            cells = _texts(weights)
            writer.writerows(cells if record is None else _beside(cells, record, table.scores))


def write_parquet(file: BinaryIO, table: Table, blocks: Weighed) -> None:
    """Write rows of weights (and the columns beside them) as .parquet."""
    arrow, parquet = _arrow(Path(".parquet"))
    dtype = arrow.from_numpy_dtype(table.dtype)
    if table.schema is None:
        names = map(str, range(table.width)) if table.columns is None else table.columns
        schema = arrow.schema([(name, dtype) for name in names])
        scores: Sequence[int] = range(len(schema))
    else:
        schema, scores = table.schema, table.scores
        for index in scores:
            schema = schema.set(index, arrow.field(schema.names[index], dtype))
    with parquet.ParquetWriter(file, schema) as writer:
        for weights, record in blocks:
            arrays = [None] * len(schema) if record is None else list(record.columns)
            for place, index in enumerate(scores):
                arrays[index] = arrow.array(np.ascontiguousarray(weights[:, place]))
            writer.write_batch(arrow.RecordBatch.from_arrays(arrays, schema=schema))


def write_sparse_csv(file: BinaryIO, supports: Iterable[Support]) -> None:
    """Write one line for each weight of the support: its row and its index (both from 0), and the weight."""
    with _text_writer(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("row", "index", "weight"))
        start = 0
        for support in supports:
            rows = start + np.repeat(np.arange(len(support.counts)), support.counts)
            weights = _texts(support.weights[:, None])
            writer.writerows(
                (row, index, text[0])
                for row, index, text in zip(rows.tolist(), support.indices.tolist(), weights, strict=True)
            )
            start += len(support.counts)


def write_sparse_parquet(
    file: BinaryIO,
    indices: np.dtype[Any],
    weights: np.dtype[Any],
    metadata: dict[str, str],
    supports: Iterable[Support],
) -> None:
    """Write for each row the list of its indices and the list of its weights."""
    arrow, parquet = _arrow(Path(".parquet"))
    lists = [arrow.large_list(arrow.from_numpy_dtype(dtype)) for dtype in (indices, weights)]
    schema = arrow.schema(list(zip(("indices", "weights"), lists, strict=True)), metadata=metadata)
    with parquet.ParquetWriter(file, schema) as writer:
        for support in supports:
            offsets = arrow.array(np.concatenate(([0], np.cumsum(support.counts))), arrow.int64())
            arrays = [
                arrow.LargeListArray.from_arrays(offsets, arrow.array(values))
                for values in (support.indices, support.weights.astype(weights, copy=False))
            ]
            writer.write_batch(arrow.RecordBatch.from_arrays(arrays, schema=schema))


@contextmanager
def _text_writer(file: BinaryIO) -> Iterator[TextIO]:
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=False)
    try:
        yield text
    finally:
        # Flushes, and leaves the file itself open for its owner.
        text.detach()


def _texts(weights: Array) -> list[list[str]]:
    if weights.dtype == np.float64:
        return [list(map(repr, row)) for row in weights.tolist()]
    texts: list[list[str]] = weights.astype(np.promote_types(weights.dtype, np.float16)).astype(np.str_).tolist()
    return texts


def _beside(cells: list[list[str]], record: Any, scores: Sequence[int]) -> Iterator[list[Any]]:
    places = {index: place for place, index in enumerate(scores)}
    others = {index: record.column(index).to_pylist() for index in range(record.num_columns) if index not in places}
    for number, row in enumerate(cells):
        yield [row[places[index]] if index in places else others[index][number] for index in range(record.num_columns)]
