"""The formats that hold arrays: .npy, .npz and .safetensors, read and written as streams. Nothing is ever unpickled.

What is done to the arrays is no business of this module; it hands out `ArraySource`s and writes `Entry`s.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format

from softplex.files.blocks import ArraySource
from softplex.files.errors import FileError, needs_package, reason

Bytes = bytes | memoryview

SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
SAFETENSORS_NAMES = {
    **{np.dtype(code).name: name for name, code in SAFETENSORS_DTYPES.items() if name != "BF16"},
    "bfloat16": "BF16",
}
SAFETENSORS_LONGEST_HEADER = 100_000_000
EARLIEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """One array to be written: what its header says, and its bytes, made while they are asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    chunks: Callable[[], Iterable[Bytes]]


# ---- reading


def read_npy(path: Path) -> list[ArraySource]:
    """The one array of a .npy file."""
    with open_file(path) as stream:
        shape, fortran, dtype = _npy_header(stream, str(path))
        start = stream.tell()
    source = ArraySource(path, None, shape, dtype, fortran, lambda: _open_at(path, start))
    _check_length(source, path.stat().st_size - start)
    return [source]


def read_npz(path: Path) -> list[ArraySource]:
    """The arrays of a .npz file, stored or deflated."""
    with _zip_errors(str(path)), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(set(names)) < len(names):
            raise FileError(f"{path}: holds two arrays of the same name")
        return [_npz_member(path, archive, name) for name in names]


def read_safetensors(path: Path) -> list[ArraySource]:
    """The arrays of a .safetensors file."""
    header, start = _safetensors_header(path)
    end = path.stat().st_size - start
    return [_safetensors_tensor(path, name, header[name], start, end) for name in header if name != "__metadata__"]


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The texts that a .safetensors file keeps beside its arrays."""
    metadata = _safetensors_header(path)[0].get("__metadata__", {})
    return cast(dict[str, str], metadata)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading; that it cannot be is a FileError."""
    try:
        stream = open(path, "rb")  # noqa: SIM115 - what its user raises is not to be caught here
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {reason(error)}") from error
    with stream:
        yield stream


@contextmanager
def _open_at(path: Path, start: int) -> Iterator[BinaryIO]:
    with open_file(path) as stream:
        stream.seek(start)
        yield stream


def _npy_header(stream: BinaryIO, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError) as error:
        raise FileError(f"{label}: is not a readable .npy array: {_first_line(error)}") from error
    if any(length < 0 for length in shape):
        raise FileError(f"{label}: is not a readable .npy array: its shape {shape} has a negative length")
    return shape, fortran, dtype


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__


def _check_length(source: ArraySource, available: int) -> None:
    expected = source.size * source.dtype.itemsize
    if source.dtype.hasobject or available == expected:
        return
    kind = "is cut off" if available < expected else "goes on after its array"
    raise FileError(
        f"{source.label}: {kind}: {available:,} bytes of data where {source.shape} of {source.dtype} takes {expected:,}"
    )


@contextmanager
def _zip_errors(label: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FileError(f"{label}: is not a readable .npz archive: {_first_line(error)}") from error
    except OSError as error:
        raise FileError(f"{label}: cannot be read: {reason(error)}") from error


def _npz_member(path: Path, archive: zipfile.ZipFile, member: str) -> ArraySource:
    name = member.removesuffix(".npy")
    with archive.open(member) as stream:
        shape, fortran, dtype = _npy_header(cast(BinaryIO, stream), f"{path}: array {name!r}")
        header = stream.tell()
    source = ArraySource(path, name, shape, dtype, fortran, lambda: _open_member(path, member))
    _check_length(source, archive.getinfo(member).file_size - header)
    return source


@contextmanager
def _open_member(path: Path, member: str) -> Iterator[BinaryIO]:
    label = f"{path}: array {member.removesuffix('.npy')!r}"
    with _zip_errors(str(path)):
        archive = zipfile.ZipFile(path)
    with archive, _zip_errors(label), archive.open(member) as stream:
        _npy_header(cast(BinaryIO, stream), label)
        yield cast(BinaryIO, stream)
        # Only at its end does a member's checksum come to be compared.
        stream.read(1)


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a .safetensors file, and where the data begins: eight bytes of length, then JSON, then the data."""
    with open_file(path) as stream:
        length = int.from_bytes(stream.read(8), "little")
        available = path.stat().st_size - 8
        if available < 0 or not 2 <= length <= min(available, SAFETENSORS_LONGEST_HEADER):
            raise FileError(f"{path}: is not a .safetensors file, or cut off: its header should take {length:,} bytes")
        text = stream.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise FileError(f"{path}: is not a .safetensors file: its header is not JSON ({_first_line(error)})") from error
    if not isinstance(header, dict):
        raise FileError(f"{path}: is not a .safetensors file: its header is not a JSON object")
    return header, 8 + length


def _safetensors_tensor(path: Path, name: str, entry: Any, start: int, end: int) -> ArraySource:
    label = f"{path}: array {name!r}"
    try:
        code, shape = entry["dtype"], tuple(int(length) for length in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{label}: its header entry lacks a dtype, a shape or data_offsets that make sense") from error
    if code not in SAFETENSORS_DTYPES:
        raise FileError(f"{label}: holds {code}; allowed are {', '.join(SAFETENSORS_DTYPES)}")
    dtype = bfloat16(label) if code == "BF16" else np.dtype(SAFETENSORS_DTYPES[code])
    if not 0 <= first <= last <= end or any(length < 0 for length in shape):
        raise FileError(
            f"{label}: is cut off: its data should end at byte {start + last:,}, the file at {start + end:,}"
        )
    source = ArraySource(path, name, shape, dtype, False, lambda: _open_at(path, start + first))
    _check_length(source, last - first)
    return source


def bfloat16(label: object) -> np.dtype[Any]:
    """NumPy's bfloat16, which ml_dtypes brings."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise needs_package(label, "ml_dtypes", "bfloat16") from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


# ---- writing


def write_npy(file: BinaryIO, entries: Sequence[Entry], metadata: dict[str, str]) -> None:
    """Write the one entry as .npy, which has no room for metadata."""
    _write_npy_entry(file, entries[0])


def write_npz(file: BinaryIO, entries: Sequence[Entry], metadata: dict[str, str]) -> None:
    """Write the entries as .npz, uncompressed, which has no room for metadata."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            member = zipfile.ZipInfo(f"{entry.name}.npy", EARLIEST_ZIP_DATE)
            with archive.open(member, "w", force_zip64=True) as stream:
                _write_npy_entry(cast(BinaryIO, stream), entry)


def write_safetensors(file: BinaryIO, entries: Sequence[Entry], metadata: dict[str, str]) -> None:
    """Write the entries as .safetensors, widest dtype first, so that each array is aligned."""
    ordered = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for entry in ordered:
        end = offset + math.prod(entry.shape) * entry.dtype.itemsize
        name = SAFETENSORS_NAMES[entry.dtype.name]
        header[entry.name] = {"dtype": name, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for entry in ordered:
        _write_chunks(file, entry)


def _write_npy_entry(stream: BinaryIO, entry: Entry) -> None:
    descr = npy_format.dtype_to_descr(entry.dtype)
    header = {"descr": descr, "fortran_order": entry.fortran, "shape": entry.shape}
    npy_format.write_array_header_1_0(stream, header)
    _write_chunks(stream, entry)


def _write_chunks(stream: BinaryIO, entry: Entry) -> None:
    written = 0
    for chunk in entry.chunks():
        stream.write(chunk)
        written += len(chunk)
    expected = math.prod(entry.shape) * entry.dtype.itemsize
    if written != expected:
        raise FileError(
            f"array {entry.name!r}: {written:,} bytes came, not its header's {expected:,}; this is a fault in softplex"
        )
