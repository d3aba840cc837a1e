"""A checked call of JAX's arrays handed to the compiled kernels from within a program for the CPU, or declined.

What native/calls.py is for NumPy. The kernels take the arrays as they lie: no axis is moved, and masks and parameters
are not broadcast. How a call is differentiated, mapped over or cut into shards stands elsewhere.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from softplex.core.call import Asked, Call
from softplex.native import cpu
from softplex.native.calls import (
    ENTRIES,
    LOSS,
    LOSS_OF_INDEX,
    RESIDUAL_OF_INDEX,
    SMOOTH_MAX,
    SUPPORT_SIZE,
    WINNER,
    is_on,
)
from softplex.native.table import LOG_SOFTMAX, MAXOUT, SOFTMAX, Kernel, kernel_of

if TYPE_CHECKING:
    import jax

TARGET = "softplex"
"""The name under which XLA knows the kernels."""

BACKWARD = 9
"""The method that goes back from weights: the Jacobian is symmetric, but for logarithms."""

SAME = {"take": "jvp", "send": "vjp", "weights": "value"}
"""What the primitive's own methods are to a kernel."""

TYPES = frozenset({"float64", "float32", "float16", "bfloat16"})
NUMBERS = frozenset({"float64", "float32", "int32"})
"""What parameters come in: the last is the bits of one number."""

MOST_AXES = 64
OPERANDS = ("operand", "index", "mask", "temperature", "sink", "alpha", "scale", "invalid")
"""What may follow x, in the order of the handler's bits."""


@cache
def is_available() -> bool:
    """Whether XLA knows the kernels; asked for the first time, it is told of them."""
    if cpu is None:
        return False
    import jax

    try:
        # Where there is no CPU yet, XLA would refuse the whole of it if it does not speak the kernels' version.
        jax.devices("cpu")
        jax.ffi.register_ffi_target(TARGET, cpu.xla_handler(), platform="cpu")
    except RuntimeError:  # no CPU among the platforms that were chosen, or another version of the interface
        return False
    return True


def computed(call: Call, asked: Asked, operands: list[jax.Array]) -> list[jax.Array] | None:
    """The results of a call by its kernel, or None. Of a vjp it is that in x alone, whatever else is asked for."""
    kernel = kernel_of(asked.formula) if is_on() else None
    if kernel is None or not _is_known(call) or not is_available():
        return None
    method = SAME.get(asked.method, asked.method)
    if kernel.number == MAXOUT:
        return _maxout(call, kernel, method, operands)
    if method == "pull" or (method == "push" and kernel.number != LOG_SOFTMAX):
        return [_entries(call, kernel, BACKWARD, operand=operands[0])]
    if asked.method == "weights" and call.sink is not None:
        return None
    if asked.method in ("loss", "cross_entropy"):
        return _losses(call, kernel, asked, operands)
    if asked.method == "gradient":
        return _gradient(call, kernel, asked, operands)
    if asked.method == "support_size":
        return [_numbers(call, kernel, SUPPORT_SIZE, np.int64)]
    if asked.method == "smooth_max":
        # XLA would flush what a rounding of its own makes subnormal.
        rounded = np.float64 if np.dtype(call.dtype) == np.float64 else np.float32
        return [_numbers(call, kernel, SMOOTH_MAX, rounded).astype(call.dtype)]
    if method not in ENTRIES or (method == "vjp" and "x" not in asked.names):
        return None
    if method == "residual" and asked.targets.is_index:
        return [_entries(call, kernel, RESIDUAL_OF_INDEX, index=_as_index(operands[0]))]
    operand = operands[0] if operands else None
    if operand is not None and operand.dtype != call.dtype:
        return None
    return [_entries(call, kernel, ENTRIES[method], operand=operand)]


def _is_known(call: Call) -> bool:
    """Whether the call has entries, of a type that kernels know, and a shape that is known while a program is made."""
    shape = call.x.shape
    is_whole = len(shape) <= MOST_AXES and all(isinstance(size, int) and size > 0 for size in shape)
    return is_whole and np.dtype(call.dtype).name in TYPES


def _maxout(call: Call, kernel: Kernel, method: str, operands: list[jax.Array]) -> list[jax.Array] | None:
    """What maxout is asked for: a number a row, or where each row's cotangent goes."""
    operand = operands[0] if operands else None
    if operand is not None and operand.dtype != call.dtype:
        return None
    if method == "winner":
        return [_numbers(call, kernel, WINNER, np.int64)]
    if method == "vjp":
        return [_entries(call, kernel, ENTRIES[method], operand=operand)]
    return [_numbers(call, kernel, ENTRIES[method], call.dtype, operand=operand)]


def _losses(call: Call, kernel: Kernel, asked: Asked, operands: list[jax.Array]) -> list[jax.Array] | None:
    """The loss of each row times its weight, and the weight: what core/targets.py makes of a formula."""
    import jax.numpy as jnp

    targets, y = asked.targets, operands[0]
    is_crossed = asked.method == "cross_entropy"
    if targets.smoothing != 0.0 or (is_crossed and kernel.number != LOG_SOFTMAX):
        return None
    working = _wide(call.backend.working)
    if not targets.is_index:
        if len(operands) > 1 or y.dtype != call.dtype:
            return None
        losses = _numbers(call, kernel, LOSS, working, operand=y)
        return [losses, jnp.ones_like(losses)]
    if is_crossed:
        kernel = Kernel(SOFTMAX, kernel.negated, kernel.fixed)
    index, is_ignored = _classes(asked, y)
    losses = _numbers(call, kernel, LOSS_OF_INDEX, working, index=index)
    weights = jnp.ones_like(losses)
    if len(operands) > 1:
        weights = _weights(operands[1].astype(working), index, outside=0.0)
        weighted = jnp.where((weights == 0.0) & (losses == jnp.inf), 0.0, losses) * weights
        losses = jnp.where(_is_class(index, call.length), weighted, losses)
    if is_ignored is None:
        return [losses, weights]
    return [jnp.where(is_ignored, 0.0, losses), jnp.where(is_ignored, 0.0, weights)]


def _gradient(call: Call, kernel: Kernel, asked: Asked, operands: list[jax.Array]) -> list[jax.Array] | None:
    """The gradient of the rows' losses: core/derivatives.py's, by residuals."""
    import jax.numpy as jnp

    targets, y, given = asked.targets, operands[0], operands[-1]
    is_log = kernel.number == LOG_SOFTMAX
    if targets.smoothing != 0.0:
        return None
    if not targets.is_index and (len(operands) > 2 or y.dtype != call.dtype):
        return None
    if is_log and targets.is_index:
        kernel = Kernel(SOFTMAX, kernel.negated, kernel.fixed)
    working = _wide(call.backend.working)
    scale = jnp.expand_dims(given.astype(working), call.axes)
    if not targets.is_index:
        return [_entries(call, kernel, ENTRIES["residual"], operand=y, scale=scale, is_gradient=True)]
    index, is_ignored = _classes(asked, y)
    if len(operands) > 2:
        weights = _weights(operands[1].astype(working), index, outside=np.nan)
        scale = scale * jnp.expand_dims(weights, call.axes)
    if is_ignored is not None:
        scale = jnp.where(jnp.expand_dims(is_ignored, call.axes), 0.0, scale)
    return [_entries(call, kernel, RESIDUAL_OF_INDEX, index=index, scale=scale, is_gradient=True)]


def _wide(dtype: Any) -> np.dtype[Any]:
    """The dtype that JAX has in place of one of 64 bits, if it has none now."""
    import jax

    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def _as_index(y: jax.Array) -> jax.Array:
    """Class indices as the kernels take them; what does not fit becomes negative and so no class."""
    return y.astype(np.int64 if y.dtype.itemsize == 8 else np.int32)


def _classes(asked: Asked, y: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Class indices, 0 where a row is ignored, and where that is."""
    import jax.numpy as jnp

    ignore, index = asked.targets.ignore_index, _as_index(y)
    least, most = np.iinfo(index.dtype).min, np.iinfo(index.dtype).max
    if ignore is None or not (0 if y.dtype.kind == "u" else least) <= ignore <= most:
        return index, None
    is_ignored = index == ignore
    return jnp.where(is_ignored, 0, index), is_ignored


def _is_class(index: jax.Array, count: int) -> jax.Array:
    """Whether an index names a class."""
    return (index >= 0) & (index < count)


def _weights(weight: jax.Array, index: jax.Array, outside: float) -> jax.Array:
    """The weights of classes, `outside` for what is none."""
    import jax.numpy as jnp

    return jnp.where(_is_class(index, weight.shape[0]), weight.at[index].get(mode="clip"), outside)


def _entries(call: Call, kernel: Kernel, method: int, *, is_gradient: bool = False, **operands: Any) -> jax.Array:
    """A result of the shape of x; of a residual, if wanted, the gradient in x."""
    extra = {"gradient": 1} if is_gradient else {}
    return _run(call, kernel, {"method": method, **extra}, operands, call.x.shape, call.dtype)


def _numbers(call: Call, kernel: Kernel, method: int, dtype: Any, **operands: Any) -> jax.Array:
    """A result of one number a row."""
    return _run(call, kernel, {"method": method}, operands, call.batch, _wide(dtype))


def _run(
    call: Call, kernel: Kernel, attributes: dict[str, int], operands: dict[str, Any], shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    """A call of the kernels in the program."""
    import jax

    given = {"mask": call.where, "invalid": call.invalid, **operands}
    attributes = {"map": kernel.number, "negated": int(kernel.negated), "empty": _bits(call.empty_value), **attributes}
    for name, value in _parameters(call, kernel).items():
        if isinstance(value, float):
            attributes[name] = _bits(value)
        else:
            given[name] = value if value.dtype.name in NUMBERS else value.astype(_wide(np.float64))
    names = [name for name in OPERANDS if given.get(name) is not None]
    attributes["axes"] = _as_signed(sum(1 << axis for axis in call.axes))
    attributes["given"] = sum(1 << OPERANDS.index(name) for name in names)
    x = call.x if call.x.dtype == call.dtype else call.x.astype(call.dtype)
    in_program = jax.ffi.ffi_call(TARGET, jax.core.ShapedArray(shape, dtype))
    integers = {name: np.int64(value) for name, value in attributes.items()}
    found: jax.Array = in_program(x, *[given[name] for name in names], **integers)
    return found


def _parameters(call: Call, kernel: Kernel) -> dict[str, Any]:
    """The numbers and arrays of numbers that a map takes."""
    if kernel.number == MAXOUT:
        return {}
    sink = {} if call.sink is None else {"sink": call.sink}
    return {"temperature": call.temperature, **sink, **kernel.fixed, **call.hyper}


def _bits(value: float) -> int:
    """The bits of a number: no text between here and the kernel rounds it, and a NaN equals itself."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _as_signed(bits: int) -> int:
    """64 bits as a signed number."""
    return bits - (1 << 64) if bits >> 63 else bits
