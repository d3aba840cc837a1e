"""Arguments checked and normalised once, for every map, method and framework. Nothing is computed here.

What comes out is a `Call`: an array of a known backend, sorted non-negative axes, parameters that broadcast. What the
numbers of an array are like (a temperature of 0, say) is asked of the backend, which may not be able to tell.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from softplex.backends import backend_of
from softplex.core.arrays import Array, Number
from softplex.core.call import Backend, Call
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
    if not isinstance(empty, str) or empty not in ("zero", "nan"):
        raise ValueError(f"{name}: empty={empty!r} is not known; give 'zero' or 'nan'")
    call = Call(
        name,
        backend,
        array,
        is_scalar,
        axes,
        result_dtype,
        where=None if where is None else read_mask(backend, where, array.shape, name),
        empty_value=0.0 if empty == "zero" else float("nan"),
    )
    length = call.length + (sink is not None)
    parameters = formula.parameters
    given = {**read_hyper(name, parameters, hyper), "temperature": temperature}
    rules = {parameter.name: parameter for parameter in parameters} | {"temperature": TEMPERATURE}
    values = {key: read_parameter(call, key, value) for key, value in given.items()}
    if sink is not None:
        given["sink"] = sink
        values["sink"] = read_parameter(call, "sink", sink)
    call = replace(
        call,
        temperature=values["temperature"],
        sink=values.get("sink"),
        hyper={parameter.name: values[parameter.name] for parameter in parameters},
        given=given,
    )
    numbers = [(rule, values[key], given[key]) for key, rule in rules.items()]
    numbers += [(rule, value, value) for rule, value in formula.bound]
    for rule, value, as_given in numbers:
        unseen = check_range(call, rule, value, as_given, length)
        call = call if unseen is None else call.with_invalid(unseen)
    return call


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
        wanted = [operator.index(axis)] if not isinstance(axis, (tuple, list)) else [operator.index(a) for a in axis]
    except TypeError:
        raise TypeError(f"{name}: axis={axis!r} is not an axis; give an integer, a tuple of integers or None") from None
    if not wanted:
        raise ValueError(f"{name}: axis={axis!r} names no axis; give at least one, or None for all")
    for a in wanted:
        if not -ndim <= a < ndim:
            raise AxisError(f"{name}: axis {a} is out of bounds for an array with {ndim} dimension{'s' * (ndim != 1)}")
    axes = sorted(a % ndim for a in wanted)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name}: axis={axis!r} names an axis twice; name each once")
    return tuple(axes)


def read_mask(backend: Backend, where: Any, shape: tuple[int, ...], name: str) -> Array:
    """A bool array that broadcasts to the shape of x."""
    mask = backend.as_mask(where, name)
    if not broadcasts(mask.shape, shape):
        raise ValueError(f"{name}: where has shape {tuple(mask.shape)}, which does not broadcast to x's shape {shape}")
    return mask


def broadcasts(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether an array of one shape can be broadcast to the other."""
    if len(small) > len(large):
        return False
    return all(s in (1, size) for s, size in zip(reversed(small), reversed(large), strict=False))


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


def read_parameter(call: Call, key: str, value: Any) -> Number:
    """A Python float, or an array as deep as x with size 1 along the normalised axes."""
    parameter = call.backend.as_parameter(value, f"{call.name}: {key}")
    if isinstance(parameter, float):
        return parameter
    shape, allowed = tuple(parameter.shape), list(call.x.shape)
    for axis in call.axes:
        allowed[axis] = 1
    if not broadcasts(shape, allowed):
        raise ValueError(
            f"{call.name}: {key} has shape {shape}; it must be a scalar or broadcast to {tuple(allowed)}, x's shape "
            "with size 1 along the normalised axis"
        )
    return call.backend.xp.reshape(parameter, (1,) * (len(allowed) - len(shape)) + shape)


def check_range(call: Call, parameter: Parameter, value: Number, given: Any, length: int) -> Array | None:
    """Refuse a number that is not allowed; where it cannot be looked at, say where it is not."""
    visible = call.backend.visible(value, given)
    allowed = parameter.allowed(visible, length)
    seen = call.backend.look(allowed)
    if seen is None:
        return ~allowed
    if seen:
        return None
    what = repr(visible)
    if not isinstance(visible, float):
        what = f"an array with {call.backend.first_where(visible, ~allowed)}"
    raise ValueError(f"{call.name}: {parameter.name} is {what}; it must be {parameter.rule(length)}")


def read_like(call: Call, value: Any, what: str) -> Array:
    """An array of x's shape: a tangent, a cotangent or a distribution."""
    array = call.backend.as_operand(value, f"{call.name}: {what}")
    shape = () if call.is_scalar else tuple(call.x.shape)
    if tuple(array.shape) != shape:
        raise ValueError(f"{call.name}: {what} has shape {tuple(array.shape)}; it must have x's shape {shape}")
    return call.backend.xp.reshape(array, call.x.shape)


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
