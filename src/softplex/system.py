"""What the library runs on: versions, instruction set, threads, frameworks, kernels. Nothing is computed here."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from softplex.core.threads import get_num_threads
from softplex.native import chosen, cpu, reason

FRAMEWORKS = ("numpy", "torch", "jax", "keras", "tensorflow", "dask", "array-api-compat", "ml_dtypes")


def info() -> dict[str, Any]:
    """Version, instruction set in use, threads, and the frameworks that are installed.

    Returns:
        A dict with the keys "version", "python", "instruction set", "threads" and "frameworks", the last a dict
        from name to version of what is installed. No framework is imported for it.

    Example:
        >>> import softplex as sx
        >>> list(sx.info())
        ['version', 'python', 'instruction set', 'threads', 'frameworks']
    """
    import softplex

    return {
        "version": softplex.__version__,
        "python": platform.python_version(),
        "instruction set": f"none: {reason}" if cpu is None else cpu.instruction_set(),
        "threads": get_num_threads(),
        "frameworks": {name: version for name in FRAMEWORKS if (version := installed_version(name)) is not None},
    }


def installed_version(name: str) -> str | None:
    """The version of an installed package, None if it is absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    """Choose within a `with` block, for this thread, whether compiled kernels may be used.

    Arguments:
        mode: "auto" (kernels where there are any) or "none" (formulas only: the same results within the bounds of
            accuracy, slower).

    Raises:
        ValueError: for another mode.

    Example:
        >>> import softplex as sx
        >>> with sx.kernels("none"):
        ...     p = sx.sparsemax([1.0, 0.0])
    """
    if mode not in ("auto", "none"):
        raise ValueError(f"kernels: {mode!r} is not known; give 'auto' or 'none'")
    before, chosen.formulas_only = chosen.formulas_only, mode == "none"
    if cpu is not None:
        cpu.set_formulas_only(chosen.formulas_only)
    try:
        yield
    finally:
        chosen.formulas_only = before
        if cpu is not None:
            cpu.set_formulas_only(before)
