"""Other libraries that follow the array API standard, such as array-api-strict and CuPy. No formula lives here.

All rows are computed at once, in float64 where the library has it. `can_look` says whether numbers may be looked at:
arrays that are lazy or traced must not be, and take the formulas' other way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from softplex.backends.numpy import as_read, real_array
from softplex.core.arrays import Array, Namespace, Number
from softplex.core.call import Asked, Call, Kind
from softplex.core.rows import Rows

FLOATS = ("float64", "float32", "float16", "bfloat16")


@lru_cache
def backend_for(functions: Any, root: str) -> ArrayApiBackend:
    """The backend of a library, one for each namespace."""
    return ArrayApiBackend(functions, root)


def dtype_name(dtype: Any) -> str:
    """The bare name of a dtype."""
    return str(getattr(dtype, "name", getattr(dtype, "__name__", dtype))).rpartition(".")[2]


def divisor_of(xp: Namespace, weight: Array) -> Array:
    """The weight of all rows, NaN for none: what smoothing leaves has no infinite mean then (as in torch)."""
    return xp.where(weight == 0.0, xp.nan, weight)


class ArrayApiBackend:
    """The contract of a backend, for the array API standard."""

    def __init__(self, functions: Any, root: str, *, can_look: bool = True) -> None:
        self.functions = functions
        self.root = root
        self.can_look = can_look
        self.working = getattr(functions, "float64", functions.float32)
        self.xp = Namespace(functions, can_look=can_look, working=self.working)

    def is_array(self, value: Any) -> bool:
        """Whether a value is an array of this library."""
        return type(value).__module__.partition(".")[0] == self.root and hasattr(value, "dtype")

    def _converted(self, value: Any, what: str) -> Array:
        """An array of this library, from one or from what NumPy understands."""
        array = value if self.is_array(value) else self._from_numpy(value, what)
        name = dtype_name(array.dtype)
        if name not in FLOATS and not name.startswith(("int", "uint", "bool")):
            raise TypeError(f"{what} has dtype {name}; give {', '.join(FLOATS)}, integers or booleans")
        return array

    def _from_numpy(self, value: Any, what: str) -> Array:
        return self.functions.asarray(real_array(value, what))

    def threads(self) -> int:
        """No kernel is called."""
        return 1

    def as_array(self, x: Any, name: str) -> Array:
        """The scores."""
        return self._converted(x, f"{name}: x")

    def result_dtype(self, x: Array, dtype: Any, name: str) -> Any:
        """The dtype asked for, else that of floating scores, else the library's default float."""
        if dtype is not None:
            wanted = getattr(self.functions, dtype_name(dtype), None)
            if dtype_name(dtype) not in FLOATS or wanted is None:
                taken = ", ".join(known for known in FLOATS if hasattr(self.functions, known))
                raise TypeError(f"{name}: dtype={dtype!r} is not taken; give one of {taken}")
            return wanted
        if dtype_name(x.dtype) in FLOATS:
            return x.dtype
        return self.functions.__array_namespace_info__().default_dtypes()["real floating"]

    def as_parameter(self, value: Any, what: str) -> Number:
        """A Python float, or an array in the working precision."""
        if not self.is_array(value):
            plain = real_array(value, what)
            if plain.ndim == 0:
                return float(plain)
        return self.xp.astype(self._converted(value, what), self.working)

    def as_mask(self, where: Any, name: str) -> Array:
        """A bool array."""
        mask = where if self.is_array(where) else self.functions.asarray(as_read(where, f"{name}: where"))
        if dtype_name(mask.dtype) != "bool":
            raise TypeError(
                f"{name}: where has dtype {dtype_name(mask.dtype)}; give booleans, True where an entry takes part"
            )
        return mask

    def as_operand(self, value: Any, what: str) -> Array:
        """A real array."""
        return self._converted(value, what)

    def as_targets(self, y: Any, what: str) -> tuple[Array, bool]:
        """Class indices are integers, distributions floats."""
        array = self._converted(y, what)
        name = dtype_name(array.dtype)
        if name == "bool":
            raise TypeError(f"{what} is an array of booleans; give class indices (integers) or distributions (floats)")
        # Narrow integers cannot be compared with numbers that they cannot hold, such as the usual ignore_index.
        return (array, False) if name in FLOATS else (self.xp.astype(array, self.functions.int64), True)

    def visible(self, array: Any, given: Any) -> Any:
        """Numbers that came from elsewhere are NumPy's to look at."""
        return array if self.is_array(given) or isinstance(array, float) else np.asarray(given)

    def look(self, flags: Any) -> bool | None:
        """Whether all flags are set, if that may be looked at."""
        if isinstance(flags, (bool, np.ndarray, np.generic)):
            return bool(np.all(flags))
        return bool(self.xp.all(flags)) if self.can_look else None

    def first_where(self, values: Array, flags: Array) -> Any:
        """The first flagged value."""
        if isinstance(values, np.ndarray):
            return values[flags][0].item()
        value = self.xp.reshape(values[flags], (-1,))[0]
        return float(value) if dtype_name(value.dtype) in FLOATS else int(value)

    def sum_to(self, rows: Array, call: Call, given: Any) -> Array:
        """One number a row, summed to the shape of the parameter that was given."""
        xp = self.xp
        if not self.is_array(given):
            given = np.asarray(given)
        for axis in call.axes:
            rows = xp.expand_dims(rows, axis=axis)
        shape = (1,) * (rows.ndim - given.ndim) + tuple(given.shape)
        summed = tuple(axis for axis, size in enumerate(shape) if size == 1)
        result = xp.reshape(xp.sum(rows, axis=summed, keepdims=True), tuple(given.shape))
        dtype = given.dtype if self.is_array(given) and dtype_name(given.dtype) in FLOATS else self.working
        return xp.astype(result, dtype)

    def reduced_at_once(self, call: Call, asked: Asked, reduction: str) -> Array | None:
        """There is no kernel for it."""
        return None

    def reduced(self, values: Array, weights: Array | None, counted: Array | None, dtype: Any, reduction: str) -> Array:
        """None, the sum or the mean of the rows' losses."""
        xp = self.xp
        if reduction == "none":
            return xp.astype(values, dtype)
        result = xp.sum(values)
        if reduction == "mean" and math.prod(values.shape):
            with np.errstate(all="ignore"):
                divisor = math.prod(values.shape) if weights is None else divisor_of(xp, xp.sum(weights))
                if counted is not None:
                    divisor = xp.where(xp.any(counted), divisor, 1.0)
                result = result / divisor
        return xp.astype(result, dtype)

    def copied_into(self, out: Any, result: Array, name: str) -> Array:
        """Only NumPy's arrays are written to."""
        raise TypeError(f"{name}: out is for NumPy arrays; take the result instead")

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[Array, ...]],
        operands: Sequence[tuple[Kind, Array]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[Array]:
        """Apply a function of rows to all rows at once."""
        if out is not None:
            self.copied_into(out, None, call.name)
        xp = self.xp
        lined = [self._lined(call, kind, array) for kind, array in operands]
        if call.length == 0:
            lined = [xp.zeros((*call.batch, 1), dtype=array.dtype) for array in lined]
        found = self._found(call, function, lined, results)
        return [self._restored(call, kind, result) for (kind, _), result in zip(results, found, strict=True)]

    def _found(
        self,
        call: Call,
        function: Callable[..., tuple[Array, ...]],
        lined: list[Array],
        results: Sequence[tuple[Kind, Any]],
    ) -> Sequence[Array]:
        """The results in their dtypes, rows still in lines."""
        with np.errstate(all="ignore"):
            rows, hyper = self._rows(call)
            found = function(rows, hyper, *lined)
            return [self.xp.astype(result, dtype) for (_, dtype), result in zip(results, found, strict=True)]

    def _rows(self, call: Call) -> tuple[Rows, dict[str, Number]]:
        xp = self.xp
        x = xp.astype(xp.astype(call.x, call.dtype), self.working)
        mask = None if call.where is None else self._spread(call.where, call.x)
        if call.length == 0:
            x, mask = xp.full((*call.batch, 1), -xp.inf, dtype=self.working), None
        else:
            x, mask = self._lines(call, x), None if mask is None else self._lines(call, mask)
        rows = Rows(
            xp,
            x,
            mask=mask,
            sink=self._column(call, call.sink),
            temperature=self._column(call, call.temperature),
            invalid=self._column(call, call.invalid),
            empty_value=call.empty_value,
            is_narrow=xp.finfo(call.dtype).eps > xp.finfo(self.working).eps,
            dtype=call.dtype,
        )
        return rows, {name: self._column(call, value) for name, value in call.hyper.items()}

    def _spread(self, mask: Array, x: Array) -> Array:
        """A mask in the shape of x."""
        return self.xp.broadcast_to(mask, x.shape)

    def _lined(self, call: Call, kind: Kind, array: Array) -> Array:
        """An operand as lines, with size 1 along the axes on which it does not depend."""
        if kind == "entries":
            return self._lines(call, array)
        if kind == "classes":
            return self.xp.reshape(array, (*(1 for _ in call.batch), call.length))
        return array[..., None]

    def _order(self, call: Call) -> tuple[int, ...]:
        """The axes with the normalised ones last."""
        return (*(axis for axis in range(call.x.ndim) if axis not in call.axes), *call.axes)

    def _lines(self, call: Call, array: Array) -> Array:
        """An array of x's shape as batch + (n,)."""
        shape = (*call.batch, call.length)
        if 0 in shape:
            return self.xp.zeros(shape, dtype=array.dtype)
        return self.xp.reshape(self.xp.permute_dims(array, self._order(call)), shape)

    def _column(self, call: Call, value: Any) -> Any:
        """A parameter, which has size 1 along the normalised axes, as batch + (1,)."""
        if value is None or isinstance(value, float):
            return value
        moved = self.xp.permute_dims(value, self._order(call))
        return self.xp.reshape(moved, (*moved.shape[: len(call.batch)], 1))

    def _restored(self, call: Call, kind: Kind, result: Array) -> Array:
        """A result in the order of x's axes."""
        xp = self.xp
        if kind == "row":
            return xp.broadcast_to(result, (*call.batch, 1))[..., 0]
        if kind == "matrix":
            return result if call.length else xp.zeros((*call.batch, 0, 0), dtype=result.dtype)
        if call.is_scalar:
            return xp.reshape(result, ())
        if 0 in call.x.shape:
            return xp.zeros(call.x.shape, dtype=result.dtype)
        order = self._order(call)
        inverse = tuple(order.index(axis) for axis in range(len(order)))
        return xp.permute_dims(self._unfolded(call, result), inverse)

    def _unfolded(self, call: Call, lines: Array) -> Array:
        """Lines with the normalised axes apart again."""
        tail = tuple(call.x.shape[axis] for axis in call.axes)
        return self.xp.reshape(lines, (*call.batch, *tail))
