"""The build backend: scikit-build-core with two habits of its own. What is built stands in pyproject.toml.

Where there is no CMake the result is pure Python. scikit-build-core itself falls back after a compiler's failure, but
asks the installer for CMake and Ninja, which brings none in an offline install or one without build isolation.

An editable install is a path to the sources, and the extension lies beside them, so that PYTHONPATH has the last word
as with any package. scikit-build-core would put a finder of its own before all others, or build amid the sources.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from scikit_build_core import build
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)
from scikit_build_core.errors import NotFoundError

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

Settings = dict[str, Any] | None

PURE_PYTHON = {"wheel.cmake": "false", "wheel.py-api": "py3"}
REQUIRED = "softplex: the kernels could not be built, see above; SOFTPLEX_REQUIRE_NATIVE allows no install without them"


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """A wheel, without the extension if CMake or Ninja is missing and nobody insists."""
    try:
        return build.build_wheel(wheel_directory, config_settings, metadata_directory)
    except NotFoundError as error:
        if is_native_required():
            raise SystemExit(f"{error}\n{REQUIRED}") from None
        print(f"softplex is built without its compiled kernels: {error}")
        return build.build_wheel(wheel_directory, {**(config_settings or {}), **PURE_PYTHON}, metadata_directory)
    except SystemExit:
        if is_native_required():
            print(REQUIRED, file=sys.stderr)
        raise


def is_native_required() -> bool:
    """Whether SOFTPLEX_REQUIRE_NATIVE is set, as scikit-build-core reads it."""
    return os.environ.get("SOFTPLEX_REQUIRE_NATIVE", "").lower() not in {"", "0", "n", "no", "off", "false", "f"}


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """A wheel that names the directory of the sources."""
    with tempfile.TemporaryDirectory() as directory:
        extract_extension(Path(directory, build_wheel(directory, config_settings)))
        pure = build.build_wheel(directory, {**(config_settings or {}), **PURE_PYTHON}, metadata_directory)
        write_reference(Path(directory, pure), Path(wheel_directory, pure))
    return pure


def extract_extension(wheel: Path) -> None:
    """Put a wheel's extension, or its absence, beside the sources; as a new file: a process may use the old one."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        for name in names or [f"softplex/native/_cpu{suffix}" for suffix in EXTENSION_SUFFIXES]:
            Path("src", name).unlink(missing_ok=True)
        for name in names:
            archive.extract(name, "src")


def write_reference(wheel: Path, to: Path) -> None:
    """The wheel again, with a path to the sources in place of their copies."""
    with zipfile.ZipFile(wheel) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    record = next(name for name in kept if name.endswith("/RECORD"))
    kept["softplex.pth"] = f"{Path('src').resolve()}\n".encode()
    kept[record] = "".join(
        f"{name},,\n" if name == record else f"{name},sha256={digest(data)},{len(data)}\n"
        for name, data in kept.items()
    ).encode()
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def digest(data: bytes) -> str:
    """SHA-256 as a wheel records it."""
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
