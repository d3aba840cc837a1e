"""Which backend an array belongs to. One file beside this one for each kind of array; core/call.py says what they owe.

No framework is imported here unless the caller has imported it: the choice looks at the name of the array's module.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softplex.backends.numpy import NUMPY
from softplex.core.call import Backend


def backend_of(x: Any, name: str) -> Backend:
    """The backend for an array, by the module of its type."""
    if type(x) is np.ndarray:
        return NUMPY
    root = type(x).__module__.partition(".")[0]
    if isinstance(x, (np.ndarray, np.generic)):
        return NUMPY
    if root == "torch" or (root not in ("numpy", "builtins") and is_tensor(x)):
        from softplex.backends.torch.backend import backend_for

        return backend_for(x)
    if root == "tensorflow":
        from softplex.backends.tensorflow import backend as tensorflow_backend

        return tensorflow_backend.backend_for(x)
    if root in ("jax", "jaxlib"):
        from softplex.backends.jax import backend as jax_backend

        return jax_backend.backend_for(x)
    if root == "dask":
        from softplex.backends.dask import dask_backend

        return dask_backend()
    if not hasattr(x, "__array_namespace__"):
        return NUMPY
    from softplex.backends import array_api

    return array_api.backend_for(x.__array_namespace__(), root)


def is_tensor(x: Any) -> bool:
    """Whether an array of another library's class is one of torch's tensors underneath."""
    return any(each.__module__ == "torch" and each.__name__ == "Tensor" for each in type(x).__mro__)


def bare(value: Any) -> Any:
    """The array that a variable of Keras holds; anything else as it is."""
    if not type(value).__module__.startswith("keras."):
        return value
    return getattr(value, "value", value)
