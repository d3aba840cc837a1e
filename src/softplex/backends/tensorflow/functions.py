"""TensorFlow's functions under the names of the array API standard, as formulas ask for them. No formula lives here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import tensorflow as tf

from softplex.core.arrays import Array, Namespace

Tensor = Any
Axis = int | tuple[int, ...] | None


class TensorFlowFunctions:
    """A namespace for tensors that may belong to a graph, in which sizes may be unknown."""

    float64, float32, float16, bfloat16 = tf.float64, tf.float32, tf.float16, tf.bfloat16
    int64, bool = tf.int64, tf.bool
    inf, nan = math.inf, math.nan

    abs = staticmethod(tf.abs)
    exp = staticmethod(tf.exp)
    expm1 = staticmethod(tf.math.expm1)
    log = staticmethod(tf.math.log)
    log1p = staticmethod(tf.math.log1p)
    sqrt = staticmethod(tf.sqrt)
    isnan = staticmethod(tf.math.is_nan)
    isfinite = staticmethod(tf.math.is_finite)
    zeros_like = staticmethod(tf.zeros_like)
    ones_like = staticmethod(tf.ones_like)
    permute_dims = staticmethod(tf.transpose)
    asarray = staticmethod(tf.convert_to_tensor)
    astype = staticmethod(tf.cast)
    detach = staticmethod(tf.stop_gradient)
    expand_dims = staticmethod(tf.expand_dims)
    any = staticmethod(tf.reduce_any)
    all = staticmethod(tf.reduce_all)

    @staticmethod
    def finfo(dtype: tf.DType) -> Any:
        """The limits of a dtype."""
        return ml_dtypes.finfo(dtype.as_numpy_dtype)  # type: ignore[no-untyped-call]

    @staticmethod
    def where(condition: Any, x: Any, y: Any) -> Tensor:
        """x or y, of which one may be a number: it takes the other's dtype."""
        dtype = x.dtype if tf.is_tensor(x) else y.dtype if tf.is_tensor(y) else tf.float64
        x, y = tf.convert_to_tensor(x, dtype), tf.convert_to_tensor(y, dtype)
        found = tf.where(condition, x, y)
        if found.shape.rank is None:  # what TensorFlow makes of three shapes with unknown sizes
            found.set_shape(joint_shape(tf.convert_to_tensor(condition).shape, x.shape, y.shape))
        return found

    @staticmethod
    def pow(x: Any, y: Any) -> Tensor:
        """x to the power of y, of which one may be a number."""
        dtype = x.dtype if tf.is_tensor(x) else y.dtype
        return tf.pow(tf.convert_to_tensor(x, dtype), tf.convert_to_tensor(y, dtype))

    @staticmethod
    def zeros(shape: Sequence[int | None], dtype: tf.DType) -> Tensor:
        """Zeros; what has no entries may have unknown sizes besides."""
        return tf.zeros([0 if size is None else size for size in shape], dtype)

    @staticmethod
    def full(shape: Sequence[int], value: float, dtype: tf.DType) -> Tensor:
        """One number everywhere."""
        return tf.cast(tf.fill(shape, value), dtype)

    @staticmethod
    def arange(stop: int) -> Tensor:
        """0, 1, ..., stop - 1."""
        return tf.range(stop, dtype=tf.int64)

    @staticmethod
    def reshape(x: Tensor, shape: Sequence[int | None]) -> Tensor:
        """The same numbers in another shape, in which None stands for a size that is unknown and stays."""
        wanted = tuple(shape)
        if wanted == tuple(x.shape):
            return x
        sizes: Any = [-1 if size is None else size for size in wanted]
        if sizes.count(-1) > 1:
            sizes = kept_sizes(x, wanted)
        found = tf.reshape(x, sizes)
        found.set_shape(wanted)
        return found

    @staticmethod
    def broadcast_to(x: Tensor, shape: Sequence[int | None]) -> Tensor:
        """The same numbers, repeated; an unknown size is that of x."""
        wanted = tuple(shape)
        if wanted == tuple(x.shape):
            return x
        lead = len(wanted) - len(x.shape)
        sizes = [tf.shape(x)[axis - lead] if size is None else size for axis, size in enumerate(wanted)]
        return tf.broadcast_to(x, sizes)

    @staticmethod
    def moveaxis(x: Tensor, source: int, destination: int) -> Tensor:
        """One axis elsewhere."""
        order = list(range(len(x.shape)))
        axis = order.pop(source)
        order.insert(destination % len(x.shape), axis)
        return tf.transpose(x, order)

    @staticmethod
    def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """The sum."""
        return tf.reduce_sum(x, axis=axis, keepdims=keepdims)

    @staticmethod
    def max(x: Tensor, axis: int, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """The maximum; NaN if there is one, which XLA's own passes over."""
        return with_nan(tf.reduce_max, x, axis, keepdims)

    @staticmethod
    def min(x: Tensor, axis: int, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """The minimum; NaN if there is one."""
        return with_nan(tf.reduce_min, x, axis, keepdims)

    @staticmethod
    def argmax(x: Tensor, axis: int, keepdims: bool = False) -> Tensor:  # type: ignore[valid-type]
        """Where the first maximum stands."""
        found = tf.argmax(x, axis=axis)
        return tf.expand_dims(found, axis) if keepdims else found

    @staticmethod
    def maximum(x: Any, y: Any) -> Tensor:
        """The larger of two, of which one may be a number."""
        return tf.maximum(x, y) if tf.is_tensor(x) else tf.maximum(y, x)

    @staticmethod
    def minimum(x: Any, y: Any) -> Tensor:
        """The smaller of two, of which one may be a number."""
        return tf.minimum(x, y) if tf.is_tensor(x) else tf.minimum(y, x)

    @classmethod
    def clip(cls, x: Tensor, low: Any, high: Any) -> Tensor:
        """The nearest number between two others."""
        return cls.minimum(cls.maximum(x, low), high)


class Rounds(Namespace):
    """TensorFlow's functions, with rounds that stop where all rows are done: a graph holds one of them, not all."""

    def iterate(
        self, step: Callable[..., tuple[Array, ...]], state: tuple[Array, ...], rounds: int
    ) -> tuple[Array, ...]:
        """Repeat a step by a loop of the graph."""

        def one_round(*now: Array) -> tuple[Array, ...]:
            after = step(*now)
            for one, before in zip(after, state, strict=True):
                one.set_shape(before.shape)
            return after

        # What the rows know of themselves they find out in the first round: no other graph could use what is found
        # within the loop.
        first = one_round(*state)
        is_open = lambda *now: tf.logical_not(tf.reduce_all(now[-1]))  # noqa: E731
        return tuple(tf.while_loop(is_open, one_round, first, maximum_iterations=rounds - 1))


def joint_shape(*shapes: Any) -> list[int | None]:
    """What shapes are broadcast to, as far as they are known; an unknown size may be 1."""
    depth = max(len(shape) for shape in shapes)
    padded = [[1] * (depth - len(shape)) + list(shape) for shape in shapes]

    def joint(sizes: tuple[int | None, ...]) -> int | None:
        large = [size for size in sizes if size not in (1, None)]
        return large[0] if large else None if None in sizes else 1

    return [joint(sizes) for sizes in zip(*padded, strict=True)]


def with_nan(reduce: Callable[..., Tensor], x: Tensor, axis: int, keepdims: bool) -> Tensor:
    """An extreme, or NaN where there is one."""
    found = reduce(x, axis=axis, keepdims=keepdims)
    if not x.dtype.is_floating:
        return found
    has_nan = tf.reduce_any(tf.math.is_nan(x), axis=axis, keepdims=keepdims)
    return tf.where(has_nan, tf.constant(math.nan, x.dtype), found)


def kept_sizes(x: Tensor, wanted: tuple[int | None, ...]) -> Tensor:
    """A shape with several unknown sizes, which are those of x counted from the front or from the back."""
    given, sizes = tuple(x.shape), tf.shape(x)
    front = 0
    while front < min(len(given), len(wanted)) and given[front] == wanted[front]:
        front += 1
    back = 0
    while back < min(len(given), len(wanted)) - front and given[-1 - back] == wanted[-1 - back]:
        back += 1
    middle = [-1 if size is None else size for size in wanted[front : len(wanted) - back]]
    if middle.count(-1) > 1:
        raise ValueError(f"a tensor of shape {given} cannot become {wanted} while so many sizes are unknown; set them")
    return tf.concat([sizes[:front], tf.constant(middle, tf.int32), sizes[len(given) - back :]], 0)
