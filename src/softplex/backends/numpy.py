"""NumPy: arrays, lists and scalars, in blocks of rows that stay in cache.

A block is copied to C-ordered float64 before anything is computed, so that a row's bits do not depend on the layout
of the array, the axis or the rows beside it, and scratch memory stays small. No formula lives here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from softplex.backends.elementary import ReproducibleNumpy
from softplex.core.arrays import Namespace, Number
from softplex.core.call import Asked, Call, Kind
from softplex.core.rows import Rows
from softplex.core.threads import for_each, get_num_threads
from softplex.native.calls import computed

NDArray = np.ndarray[Any, Any]

BLOCK_ENTRIES = 1 << 16
"""A block with its intermediate results stays in cache."""

SHARED_ENTRIES = 1 << 18
"""Threads take larger blocks, so that they seldom wait for the interpreter's lock. Long rows are not shared: Ctrl-C can
stop the calling thread in the middle of one, but no other thread."""

SHARED_FROM = 4 * SHARED_ENTRIES
"""Smaller calls do not wake threads."""

FLOATS = ("float64", "float32", "float16", "bfloat16")
NUMPY_FLOATS = frozenset({np.float64, np.float32, np.float16})

LIBRARIES = ("jax", "jaxlib", "keras", "tensorflow", "torch")
"""Those whose arrays may stand for numbers that are not known yet."""


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one of the four that results may have."""
    kind = dtype.type
    return kind in NUMPY_FLOATS or (kind.__name__ == "bfloat16" and kind.__module__.startswith("ml_dtypes"))


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in the byte order of the machine."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def described(value: Any) -> str:
    """The type of a value as an error message names it."""
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def as_read(value: Any, what: str) -> NDArray:
    """A value as NumPy reads it. What is traced, or differentiated, by its own library cannot be read."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        library = type(value).__module__.partition(".")[0]
        if library in LIBRARIES:
            raise TypeError(
                f"{what} is {described(value)}, whose numbers cannot be read here (it is traced, differentiated or on "
                f"another device); x decides by what a call is computed: give x as an array of "
                f"{library.removesuffix('lib')} too"
            ) from None
        raise TypeError(f"{what} is {described(value)}, which is not an array of real numbers: {error}") from None


def real_array(value: Any, what: str) -> NDArray:
    """An array of floats, integers or booleans."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array; give its data, and its mask inverted as where=")
    array = as_read(value, what)
    if not (array.dtype.kind in "iub" or is_float(array.dtype)):
        raise TypeError(
            f"{what} is {described(array if array.dtype != object else value)} (dtype {array.dtype}); give "
            f"{', '.join(FLOATS)}, integers or booleans"
        )
    return array


class NumpyBackend:
    """The contract of a backend, for NumPy."""

    working = np.float64
    xp = Namespace(ReproducibleNumpy(), can_look=True, working=np.float64)

    def threads(self) -> int:
        """The library's own setting."""
        return get_num_threads()

    def as_array(self, x: Any, name: str) -> NDArray:
        """The scores as an array."""
        return real_array(x, f"{name}: x")

    def result_dtype(self, x: NDArray, dtype: Any, name: str) -> np.dtype[Any]:
        """The dtype asked for, else that of floating scores, else float64."""
        if dtype is None:
            return native(x.dtype) if is_float(x.dtype) else np.dtype(np.float64)
        try:
            wanted = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"{name}: dtype={dtype!r} is not a NumPy dtype; give one of {', '.join(FLOATS)}") from None
        if not is_float(wanted):
            raise TypeError(f"{name}: dtype={wanted.name} is not taken; give one of {', '.join(FLOATS)}")
        return native(wanted)

    def as_parameter(self, value: Any, what: str) -> Number:
        """A Python float, or a float64 array."""
        array = real_array(value, what)
        return float(array) if array.ndim == 0 else array.astype(np.float64)

    def as_mask(self, where: Any, name: str) -> NDArray:
        """A bool array."""
        mask = as_read(where, f"{name}: where")
        if mask.dtype != np.bool_:
            raise TypeError(f"{name}: where is {described(mask)}; give booleans, True where an entry takes part")
        return mask

    def as_operand(self, value: Any, what: str) -> NDArray:
        """A real array."""
        return real_array(value, what)

    def as_targets(self, y: Any, what: str) -> tuple[NDArray, bool]:
        """Class indices are integers, distributions floats."""
        array = real_array(y, what)
        if array.dtype == np.bool_:
            raise TypeError(f"{what} is an array of booleans; give class indices (integers) or distributions (floats)")
        return array, array.dtype.kind in "iu"

    def visible(self, array: Any, given: Any) -> Any:
        """The array itself."""
        return array

    def look(self, flags: Any) -> bool:
        """Whether all flags are set."""
        return bool(flags if isinstance(flags, bool) else flags.all())

    def first_where(self, values: NDArray, flags: NDArray) -> Any:
        """The first flagged value."""
        return values[flags][0].item()

    def sum_to(self, rows: NDArray, call: Call, given: Any) -> NDArray:
        """One number a row, summed to the shape of the parameter that was given."""
        given = np.asarray(given)
        dtype = native(given.dtype) if is_float(given.dtype) else np.dtype(np.float64)
        with np.errstate(all="ignore"):
            return added_up(np.expand_dims(rows, call.axes), given.shape).astype(dtype)

    def reduced_at_once(self, call: Call, asked: Asked, reduction: str) -> None:
        """There is no kernel for it."""

    def reduced(
        self, values: NDArray, weights: NDArray | None, counted: NDArray | None, dtype: Any, reduction: str
    ) -> NDArray:
        """None, the sum or the mean of the rows' losses."""
        with np.errstate(all="ignore"):
            if reduction == "none":
                return np.asarray(values).astype(dtype)
            result = values.sum()
            nothing_counts = values.size == 0 if counted is None else not counted.any()
            if reduction == "mean" and not nothing_counts:
                result = result / (values.size if weights is None else weights.sum() or np.nan)
            return np.asarray(result).astype(dtype)

    def copied_into(self, out: Any, result: NDArray, name: str) -> NDArray:
        """The result written to the caller's array."""
        checked_out(out, result.shape, result.dtype, name)[...] = result
        return np.asarray(out)

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[NDArray, ...]],
        operands: Sequence[tuple[Kind, NDArray]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[NDArray]:
        """Apply a function of rows to all rows: by a kernel if there is one, else a block at a time."""
        place = None
        if out is not None:
            shape = () if call.is_scalar else call.x.shape
            place = checked_out(out, shape, results[0][1], call.name).reshape(call.x.shape)
        fast = None if asked is None else computed(call, asked, [array for _, array in operands], place)
        if fast is not None and len(fast) == len(results):
            found = fast
        else:
            found = self._by_formula(call, function, operands, results, place)
            if fast is not None and asked is not None and asked.method == "vjp":
                found[asked.names.index("x")] = fast[0]
        shaped = [np.reshape(o, ()) if call.is_scalar and o.shape == (1,) else o for o in found]
        return shaped if out is None else [out, *shaped[1:]]

    def _by_formula(
        self,
        call: Call,
        function: Callable[..., tuple[NDArray, ...]],
        operands: Sequence[tuple[Kind, NDArray]],
        results: Sequence[tuple[Kind, Any]],
        place: NDArray | None,
    ) -> list[NDArray]:
        """Apply a function of rows, a block at a time."""
        outputs = [empty_result(call, kind, dtype) for kind, dtype in results]
        lines = self._inputs(call)
        if place is not None:
            outputs[0] = place
            target = Lines.of("entries", outputs[0], call)
            lines = {name: line.apart_from(target) for name, line in lines.items()}
        fixed = {name: value for name, value in parameters_of(call).items() if isinstance(value, float)}
        extra = [Lines.of(kind, array, call) for kind, array in operands]
        targets = [Lines.of(kind, array, call) for (kind, _), array in zip(results, outputs, strict=True)]
        count, length = math.prod(call.batch), max(1, call.length)
        size = length**2 if any(kind == "matrix" for kind, _ in results) else length
        is_shared = size <= BLOCK_ENTRIES and self.threads() > 1 and count * size >= SHARED_FROM
        step = max(1, (SHARED_ENTRIES if is_shared else BLOCK_ENTRIES) // size)

        def compute(start: int) -> None:
            stop = min(start + step, count)
            with np.errstate(all="ignore"):
                rows, hyper = self._rows(call, fixed, {name: line.take(start, stop) for name, line in lines.items()})
                found = function(rows, hyper, *(line.take(start, stop) for line in extra))
                for target, result in zip(targets, found, strict=True):
                    target.put(start, stop, result)

        for_each(compute, range(0, count, step), self.threads() if is_shared else 1)
        return outputs

    @staticmethod
    def _inputs(call: Call) -> dict[str, Lines]:
        """What a block of rows is made of, as lines."""
        lines = {"x": Lines.of("entries", call.x, call)}
        if call.where is not None:
            lines["mask"] = Lines.of("entries", np.broadcast_to(call.where, call.x.shape), call)
        for name, value in parameters_of(call).items():
            if isinstance(value, np.ndarray):
                lines[name] = Lines.of("row", np.broadcast_to(np.squeeze(value, axis=call.axes), call.batch), call)
        return lines

    def _rows(self, call: Call, fixed: dict[str, float], taken: dict[str, NDArray]) -> tuple[Rows, dict[str, Number]]:
        """A block of rows in the working precision, cast to the result's dtype first as the contract says."""
        x, mask = taken.pop("x"), taken.pop("mask", None)
        known: dict[str, Number] = {**fixed, **taken}
        if call.length == 0:
            x, mask = np.full((len(x), 1), -np.inf), None
        rows = Rows(
            self.xp,
            x.astype(call.dtype, copy=False).astype(np.float64, copy=False),
            mask=mask,
            temperature=known.pop("temperature"),
            sink=known.pop("sink", None),
            empty_value=call.empty_value,
            is_narrow=call.dtype.itemsize < np.dtype(np.float64).itemsize,
            dtype=call.dtype,
        )
        return rows, known


def added_up(rows: NDArray, shape: tuple[int, ...]) -> NDArray:
    """One number a row, of length 1 along the normalised axes, summed to a shape that these broadcast from."""
    whole = (1,) * (rows.ndim - len(shape)) + shape
    shared = tuple([axis for axis, size in enumerate(whole) if size == 1])
    with np.errstate(all="ignore"):
        return np.asarray(np.sum(rows, axis=shared, keepdims=True)).reshape(shape)


def parameters_of(call: Call) -> dict[str, Number]:
    """Temperature, sink and hyper-parameters by name."""
    sink = {} if call.sink is None else {"sink": call.sink}
    return {"temperature": call.temperature, **sink, **call.hyper}


def empty_result(call: Call, kind: Kind, dtype: Any) -> NDArray:
    """An uninitialised result."""
    shapes = {"entries": call.x.shape, "row": call.batch, "matrix": (*call.batch, call.length, call.length)}
    return np.empty(shapes[kind], dtype)


def checked_out(out: Any, shape: tuple[int, ...], dtype: Any, name: str) -> NDArray:
    """The caller's array for the result, refused if the result does not fit."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: out is {described(out)}; give a NumPy array of the result's shape and dtype")
    if out.shape != shape:
        raise ValueError(f"{name}: out has shape {out.shape}; it must have the result's shape {shape}")
    if native(out.dtype) != dtype:
        raise TypeError(f"{name}: out has dtype {out.dtype}; it must have the result's dtype {dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{name}: out is read-only; give an array that can be written to")
    return out


class Lines:
    """An array seen as rows: batch axes first, merged into one where that takes no copy; the normalised ones last."""

    def __init__(self, array: NDArray, batch: tuple[int, ...]) -> None:
        self.batch = batch
        self.tail = array.shape[len(batch) :]
        self.array = array
        self.is_merged = True
        try:
            self.array = np.reshape(array, (math.prod(batch), *self.tail), copy=False)
        except ValueError:
            self.is_merged = False

    @classmethod
    def of(cls, kind: Kind, array: NDArray, call: Call) -> Lines:
        """The lines of an array of x's shape, of one number a row, or of one matrix a row."""
        if kind == "entries":
            array = np.moveaxis(array, call.axes, range(-len(call.axes), 0))
        if kind == "classes":
            array = np.broadcast_to(array, (*call.batch, call.length))
        return cls(array, call.batch)

    def apart_from(self, target: Lines) -> Lines:
        """These lines, copied if writing the target block by block would change them before they are read."""
        if not np.may_share_memory(self.array, target.array) or self._is_at(target.array):
            return self
        return Lines(np.reshape(self.array.copy(), (*self.batch, *self.tail)), self.batch)

    def _is_at(self, other: NDArray) -> bool:
        """Whether each row lies just where the other's does, so that it is read before it is written."""
        mine, theirs = self.array.__array_interface__, other.__array_interface__
        same_place = mine["data"] == theirs["data"] and mine["typestr"] == theirs["typestr"]
        return same_place and self.array.shape == other.shape and self.array.strides == other.strides

    def _index(self, start: int, stop: int) -> Any:
        return slice(start, stop) if self.is_merged else np.unravel_index(np.arange(start, stop), self.batch)

    def take(self, start: int, stop: int) -> NDArray:
        """Some rows as a C-ordered copy of shape (rows, n), one number a row having n = 1."""
        rows = np.array(self.array[self._index(start, stop)], order="C", copy=True)
        length = math.prod(self.tail)
        return rows.reshape(stop - start, length) if length else np.zeros((stop - start, 1), rows.dtype)

    def put(self, start: int, stop: int, rows: NDArray) -> None:
        """Write rows back, rounding them to the array's dtype."""
        if math.prod(self.tail):
            self.array[self._index(start, stop)] = rows.reshape(stop - start, *self.tail)


NUMPY = NumpyBackend()
