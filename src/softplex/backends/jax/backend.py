"""The contract of a backend, for JAX: what the arguments are, and the primitive that every method becomes.

Numbers that are there are looked at; traced ones are not, and make rows NaN where they are not allowed. No formula
lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from softplex.backends.array_api import FLOATS, ArrayApiBackend, dtype_name
from softplex.backends.jax.derivatives import bind
from softplex.backends.jax.work import functions_for, plain_namespace, work_of
from softplex.core.arrays import Array
from softplex.core.call import Asked, Call, Kind
from softplex.native.calls import is_on


def backend_for(x: Any) -> JaxBackend:
    """The backend of an array: formulas compute in 64 bit where that was asked for."""
    return backend_in(np.dtype(jax.dtypes.canonicalize_dtype(np.float64)))


def dtype_of(dtype: Any) -> Any:
    """What is meant by a dtype; None if it is none."""
    try:
        return jnp.dtype(dtype)
    except TypeError:
        return None


@lru_cache
def backend_in(working: Any) -> JaxBackend:
    """The backend that computes in a precision."""
    return JaxBackend(working)


class JaxBackend(ArrayApiBackend):
    """JAX's arrays, concrete and traced."""

    def __init__(self, working: Any) -> None:
        self.functions = functions_for(working)
        self.root = "jax"
        self.can_look = False
        self.working = working
        self.xp = plain_namespace(working)

    def is_array(self, value: Any) -> bool:
        """Whether a value is an array of JAX."""
        return isinstance(value, jax.Array)

    def result_dtype(self, x: Array, dtype: Any, name: str) -> Any:
        """The dtype asked for, else that of floating scores, else the default float."""
        if dtype is None:
            wanted = x.dtype if dtype_name(x.dtype) in FLOATS else self.working
        else:
            wanted = dtype_of(dtype)
        if wanted is None or wanted.name not in FLOATS:
            raise TypeError(f"{name}: dtype={dtype!r} is not taken; give one of {', '.join(FLOATS)}")
        if wanted.itemsize > self.working.itemsize:
            raise TypeError(f"{name}: {wanted.name} needs JAX's 64-bit mode; turn on jax_enable_x64 or give float32")
        return wanted

    def as_targets(self, y: Any, what: str) -> tuple[Array, bool]:
        """Class indices are integers, distributions floats; what the integers here cannot hold is no class."""
        array = self._converted(y, what)
        most = jnp.iinfo(self.functions.int64).max
        if array.dtype.kind == "u" and jnp.iinfo(array.dtype).max > most:
            array = jnp.minimum(array, most)
        return super().as_targets(array, what)

    def visible(self, array: Any, given: Any) -> Any:
        """Concrete arrays as NumPy's: they can be looked at although a program is being traced."""
        if isinstance(array, float):
            return array
        if not self.is_array(given):
            return np.asarray(given)
        is_seen = not isinstance(given, Tracer) and given.is_fully_addressable
        return np.asarray(given) if is_seen else array

    def look(self, flags: Any) -> bool | None:
        """Whether all flags are set; None where they are traced, or spread over machines."""
        if isinstance(flags, jax.Array):
            return None
        return super().look(flags)

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[Array, ...]],
        operands: Sequence[tuple[Kind, Array]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[Array]:
        """Apply a function of rows by the primitive."""
        if out is not None:
            self.copied_into(out, None, call.name)
        if asked is None:
            raise ValueError(f"{call.name}: this method does not say what it asks of the map")
        call = call._replace(x=call.x.astype(call.dtype))
        work, arrays = work_of(call, function, operands, results, asked, uses_kernels=is_on())
        found = bind(work, *arrays)
        if not call.is_scalar:
            return found
        return [jnp.reshape(one, ()) if one.shape == (1,) else one for one in found]
