"""Where results go: a file beside OUTPUT that takes its place when all is written, and scratch files without a name.

What the bytes mean is the business of the formats.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from softplex.files.blocks import Array, bytes_of
from softplex.files.errors import FileError, UsageError, reason

CHUNK = 2**20


def check_output(source: Path, output: Path, force: bool) -> None:
    """Refuse to harm the input, to overwrite unasked, and to write where no file can be."""
    if output.exists() and os.path.samefile(source, output):
        raise UsageError(f"{output}: is INPUT itself; name another OUTPUT")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output}: is not a plain file; name another OUTPUT")
    if output.exists() and not force:
        raise UsageError(f"{output}: exists; add --force to overwrite it")
    if not output.resolve().parent.is_dir():
        raise UsageError(f"{output}: the folder {output.resolve().parent} does not exist; make it first")


@contextmanager
def replacing(output: Path) -> Iterator[BinaryIO]:
    """A file that becomes `output` when the block ends well, and vanishes when it ends in any other way."""
    target = output.resolve()
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, target.stat().st_mode & 0o7777)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{output}: cannot be written: {reason(error)}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Spool:
    """Numbers of which nobody knows yet how many will come, kept in a scratch file beside the output."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.count = 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the spool

    def append(self, values: Array) -> None:
        """Add the values at the end."""
        self._file.write(bytes_of(values.astype(self.dtype, copy=False)))
        self.count += values.size

    def chunks(self) -> Iterator[bytes]:
        """All bytes, from the first to the last."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
