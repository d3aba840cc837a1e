"""What the library runs on: versions, instruction set, threads, frameworks. Nothing is computed here."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

FRAMEWORKS = ("numpy", "torch", "jax", "keras", "tensorflow", "dask", "array-api-compat", "ml_dtypes")


def info() -> dict[str, Any]:
    """Version, instruction set in use, threads, and the frameworks that are installed.

    Returns:
        A dict with the keys "version", "python", "instruction set", "threads" and "frameworks", the last a dict
        from name to version of what is installed. No framework is imported for it.

    Example:
        >>> import softplex as sx
        >>> sx.info()["instruction set"]
        'none: formulas in NumPy'
    """
    import softplex

    return {
        "version": softplex.__version__,
        "python": platform.python_version(),
        "instruction set": "none: formulas in NumPy",
        "threads": 1,
        "frameworks": {name: version for name in FRAMEWORKS if (version := installed_version(name)) is not None},
    }


def installed_version(name: str) -> str | None:
    """The version of an installed package, None if it is absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
