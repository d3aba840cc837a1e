"""Peers on JAX's arrays: softplex within compiled functions, as JAX's users call it, JAX itself, and optax.

An operation is a function's name after "array" (its value) or "gradient" (of its product with a cotangent).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import softplex as sx
from softplex.bench.inputs import Inputs
from softplex.bench.ways import Prepare, Way

Function = Callable[..., Any]

ALPHA = 1.3


def value(function: Function, inputs: Inputs) -> list[Way]:
    """A compiled call, waited for."""
    jax = importlib.import_module("jax")
    compiled = jax.jit(partial(function, axis=inputs.axis))
    x = jax.device_put(inputs.x)
    return [Way("jit", False, lambda: compiled(x).block_until_ready())]


def gradient(function: Function, inputs: Inputs) -> list[Way]:
    """Forward and backward from a cotangent, compiled together."""
    jax = importlib.import_module("jax")

    def pulled(x: Any, g: Any) -> Any:
        p, back = jax.vjp(partial(function, axis=inputs.axis), x)
        return p, back(g)[0]

    compiled = jax.jit(pulled)
    x, g = jax.device_put(inputs.x), jax.device_put(inputs.cotangent)
    return [Way("jit", False, lambda: jax.block_until_ready(compiled(x, g)))]


def functions_of(named: Mapping[str, Function]) -> dict[str, Prepare]:
    """What is done with functions of scores."""
    ways: dict[str, Prepare] = {}
    for name, function in named.items():
        ways[f"array {name}"] = partial(value, function)
        ways[f"gradient {name}"] = partial(gradient, function)
    return ways


def own_functions() -> dict[str, Prepare]:
    """softplex on JAX's arrays."""
    names = ("softmax", "log_softmax", "softmin", "sparsemax", "entmax15")
    return functions_of({**{name: getattr(sx, name) for name in names}, "entmax(1.3)": sx.entmax.bind(alpha=ALPHA)})


def jax_functions() -> dict[str, Prepare]:
    """JAX's own."""
    nn = importlib.import_module("jax").nn

    def softmin(x: Any, axis: int) -> Any:
        return nn.softmax(-x, axis=axis)

    return functions_of({"softmax": nn.softmax, "log_softmax": nn.log_softmax, "softmin": softmin})


def measure_functions() -> dict[str, Prepare]:
    """JAX's softmax, whatever is asked for: a measure for what JAX lacks."""
    softmax = importlib.import_module("jax").nn.softmax
    return functions_of(dict.fromkeys(("sparsemax", "entmax15", "entmax(1.3)"), softmax))


def optax_functions() -> dict[str, Prepare]:
    """The projection onto the simplex, row by row."""
    jax, projections = importlib.import_module("jax"), importlib.import_module("optax.projections")

    def sparsemax(x: Any, axis: int) -> Any:
        return jax.vmap(projections.projection_simplex, in_axes=1 + axis, out_axes=1 + axis)(x)

    return functions_of({"sparsemax": sparsemax})
