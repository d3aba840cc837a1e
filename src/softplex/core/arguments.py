"""Arguments checked and normalised once, for every map, method and framework. Nothing is computed here.

What comes out is a `Call`: an array of a known backend, sorted non-negative axes, parameters that broadcast. What the
numbers of an array are like (a temperature of 0, say) is asked of the backend, which may not be able to tell.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softplex.backends import backend_of, bare
from softplex.core.arrays import Array, Number
from softplex.core.call import Backend, Call, length_of
from softplex.core.formula import Formula, Parameter

AxisError = np.exceptions.AxisError


class DefaultAxis(int):
    """The axis -1 that nobody asked for, so that `axis` and `dim` together can be told from `dim` alone."""


DEFAULT_AXIS = DefaultAxis(-1)
Axis = int | Sequence[int] | None


def read(
    name: str,
    formula: Formula,
    x: Any,
    axis: Axis = DEFAULT_AXIS,
    /,
    *,
    dim: Any = DEFAULT_AXIS,
    temperature: Any = 1.0,
    where: Any = None,
    sink: Any = None,
    empty: str = "zero",
    dtype: Any = None,
    **hyper: Any,
) -> Call:
    """Check the arguments of a map."""
    backend = backend_of(x, name)
    array = backend.as_array(x, name)
    result_dtype = backend.result_dtype(array, dtype, name)
    is_scalar = len(array.shape) == 0
    if is_scalar:
        array = backend.xp.reshape(array, (1,))
    axes = read_axes(axis, dim, len(array.shape), name)
    refuse_unless_known(empty, name)
    mask = None if where is None else read_mask(backend, bare(where), array.shape, name)
    parameters = formula.parameters
    given = read_hyper(name, parameters, hyper)
    given["temperature"] = temperature
    if sink is not None:
        given["sink"] = sink
    given = {key: value if type(value) is float else bare(value) for key, value in given.items()}
    values = {key: read_parameter(backend, name, key, value, array, axes) for key, value in given.items()}
    length = length_of(array, axes)
    length = None if length is None else length + int(sink is not None)
    numbers = [(rule, values[rule.name], given[rule.name]) for rule in (*parameters, TEMPERATURE)]
    numbers += [(rule, value, value) for rule, value in formula.bound]
    invalid = None
    for rule, value, as_given in numbers:
        unseen = check_range(backend, name, rule, value, as_given, length)
        if unseen is not None:
            invalid = unseen if invalid is None else invalid | unseen
    return Call(
        name,
        backend,
        array,
        is_scalar,
        axes,
        result_dtype,
        temperature=values["temperature"],
        where=mask,
        sink=values.get("sink"),
        empty_value=0.0 if empty == "zero" else math.nan,
        hyper={parameter.name: values[parameter.name] for parameter in parameters},
        given=given,
        invalid=invalid,
    )


TEMPERATURE = Parameter("temperature", 1.0, 0.0, float("inf"), includes_low=False, includes_high=False)


def read_axes(axis: Any, dim: Any, ndim: int, name: str) -> tuple[int, ...]:
    """The sorted, non-negative axes that are normalised together."""
    if dim is not DEFAULT_AXIS:
        if axis is not DEFAULT_AXIS:
            raise TypeError(f"{name}: axis={axis!r} and dim={dim!r} were both given; they mean the same, give one")
        axis = dim
    if axis is None:
        return tuple(range(ndim))
    try:
        wanted = [operator.index(a) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    except TypeError:
        raise TypeError(f"{name}: axis={axis!r} is not an axis; give an integer, a tuple of integers or None") from None
    if not wanted:
        raise ValueError(f"{name}: axis={axis!r} names no axis; give at least one, or None for all")
    for a in wanted:
        if not -ndim <= a < ndim:
            raise AxisError(f"{name}: axis {a} is out of bounds for an array with {ndim} dimension{'s' * (ndim != 1)}")
    axes = tuple(sorted({a % ndim for a in wanted}))
    if len(axes) < len(wanted):
        raise ValueError(f"{name}: axis={axis!r} names an axis twice; name each once")
    return axes


def refuse_unless_known(empty: Any, name: str) -> None:
    """What an empty row becomes is one of two things."""
    if not isinstance(empty, str) or empty not in ("zero", "nan"):
        raise ValueError(f"{name}: empty={empty!r} is not known; give 'zero' or 'nan'")


def read_mask(backend: Backend, where: Any, shape: tuple[int, ...], name: str) -> Array:
    """A bool array that broadcasts to the shape of x."""
    mask = backend.as_mask(where, name)
    if not broadcasts(mask.shape, shape):
        raise ValueError(f"{name}: where has shape {tuple(mask.shape)}, which does not broadcast to x's shape {shape}")
    return mask


def broadcasts(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether an array of one shape can be broadcast to the other."""
    if small == large:
        return True
    if len(small) > len(large):
        return False
    return all(s in (1, size) or is_open(s, size) for s, size in zip(reversed(small), reversed(large), strict=False))


def is_open(*sizes: Any) -> bool:
    """Whether a graph leaves one of the sizes open: there it is None."""
    return any(size is None for size in sizes)


def same_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes are the same, as far as they are known."""
    one, other = tuple(one), tuple(other)
    if one == other:
        return True
    return len(one) == len(other) and all(a == b or is_open(a, b) for a, b in zip(one, other, strict=True))


def read_hyper(name: str, parameters: tuple[Parameter, ...], hyper: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters with their defaults."""
    names = [parameter.name for parameter in parameters]
    for key in hyper:
        if key not in names:
            takes = f"its hyper-parameters are {', '.join(names)}" if names else "it takes no hyper-parameters"
            raise TypeError(f"{name} got an unexpected keyword argument {key!r}; {takes}")
    given = {}
    for parameter in parameters:
        value = hyper.get(parameter.name, parameter.default)
        if value is None:
            raise TypeError(f"{name} needs {parameter.name}=..., {parameter.rule(None)}")
        given[parameter.name] = value
    return given


def read_parameter(backend: Backend, name: str, key: str, value: Any, x: Array, axes: tuple[int, ...]) -> Number:
    """A Python float, or an array as deep as x with size 1 along the normalised axes."""
    parameter = value if type(value) is float else backend.as_parameter(value, f"{name}: {key}")
    if isinstance(parameter, float):
        return parameter
    shape = tuple(parameter.shape)
    allowed = tuple([1 if axis in axes else size for axis, size in enumerate(x.shape)])
    if not broadcasts(shape, allowed):
        raise ValueError(
            f"{name}: {key} has shape {shape}; it must be a scalar or broadcast to {allowed}, x's shape with size 1 "
            "along the normalised axis"
        )
    return backend.xp.reshape(parameter, (1,) * (len(allowed) - len(shape)) + shape)


def check_range(
    backend: Backend, name: str, parameter: Parameter, value: Number, given: Any, length: int | None
) -> Array | None:
    """Refuse a number that is not allowed; where it cannot be looked at, say where it is not."""
    visible = value if isinstance(value, float) else backend.visible(value, given)
    allowed = parameter.allowed(visible, length)
    seen = allowed if isinstance(allowed, bool) else backend.look(allowed)
    if seen is None:
        return ~allowed
    if seen:
        return None
    what = repr(visible)
    if not isinstance(visible, float):
        what = f"an array with {backend.first_where(visible, ~allowed)}"
    raise ValueError(f"{name}: {parameter.name} is {what}; it must be {parameter.rule(length)}")


def read_like(call: Call, value: Any, what: str) -> Array:
    """An array of x's shape: a tangent, a cotangent or a distribution."""
    array = call.backend.as_operand(bare(value), f"{call.name}: {what}")
    shape = () if call.is_scalar else tuple(call.x.shape)
    if not same_shape(array.shape, shape):
        raise ValueError(f"{call.name}: {what} has shape {tuple(array.shape)}; it must have x's shape {shape}")
    return call.backend.xp.reshape(array, call.x.shape) if call.is_scalar else array


def read_wrt(call: Call, wrt: str | tuple[str, ...]) -> tuple[str, ...]:
    """The names to differentiate with respect to."""
    known = ["x", *call.given]
    if not isinstance(wrt, (str, tuple, list)):
        raise TypeError(f"{call.name}: wrt={wrt!r} is not a name or a tuple of names; it may name {', '.join(known)}")
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in known:
            extra = " (no sink was given)" if name == "sink" else ""
            raise ValueError(f"{call.name}: wrt={name!r} is not known{extra}; it may name {', '.join(known)}")
    return names
