"""Which backend an array belongs to. One file beside this one for each kind of array; core/call.py says what they owe.

No framework is imported here unless the caller has imported it: the choice looks at the name of the array's module.
"""

from __future__ import annotations

from typing import Any

from softplex.core.call import Backend

UNSUPPORTED = ("torch", "tensorflow", "keras")


def backend_of(x: Any, name: str) -> Backend:
    """The backend for an array, by the module of its type."""
    root = type(x).__module__.partition(".")[0]
    if root in UNSUPPORTED:
        raise TypeError(
            f"{name}: {type(x).__module__}.{type(x).__qualname__} is not supported; convert it to NumPy first"
        )
    if root == "dask":
        from softplex.backends.dask import dask_backend

        return dask_backend()
    if root in ("numpy", "ml_dtypes") or not hasattr(x, "__array_namespace__"):
        from softplex.backends.numpy import NUMPY

        return NUMPY
    from softplex.backends import array_api

    return array_api.backend_for(x.__array_namespace__(), root)
