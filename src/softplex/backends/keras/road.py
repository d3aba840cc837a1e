"""How Keras' variables and symbolic tensors enter a map: by the tensor that one holds, as a node of the other's model.

A node is an operation of Keras: it infers its shape by running the map on the backend's own abstract tensors, and is
saved with the model. Nothing is computed here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import softplex
from softplex.backends import bare
from softplex.core.configs import config_of, map_of
from softplex.core.map import Map
from softplex.core.roads import FUNCTIONS, ROADS, Road, road_of

Method = Callable[..., Any]


def variable_road(name: str, method: Method, owner: Any, x: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The tensor that a variable holds takes its own road."""
    x, args = bare(x), tuple(bare(each) for each in args)
    options = {key: bare(value) for key, value in options.items()}
    road = road_of(type(x))
    if road is None:
        return method(owner, x, *args, **options)
    return road(name, method, owner, x, args, options)


def symbol_road(name: str, method: Method, owner: Any, x: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A node of the model."""
    name = "__call__" if name == "_call" else name
    given = named_arguments(owner, name, args, options)
    arrays = {key: value for key, value in given.items() if is_array(value)}
    plain = {key: value for key, value in given.items() if key not in arrays}
    if plain.get("dtype") is not None:
        plain["dtype"] = keras.backend.standardize_dtype(plain["dtype"])
    return Softplex(owner_config(owner, name), name, plain)(x, **arrays)


def is_array(value: Any) -> bool:
    """Whether an argument is to be an input of the node."""
    is_number = isinstance(value, (type, np.generic))  # a dtype's class has a shape, too
    return hasattr(value, "shape") and hasattr(value, "dtype") and not is_number


def named_arguments(owner: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Arguments by their names."""
    method = getattr(softplex, name) if owner is FUNCTIONS else getattr(owner, name)
    names = [key for key in inspect.signature(method).parameters if key != "x"]
    return {**dict(zip(names, args, strict=False)), **options}


def owner_config(owner: Any, name: str) -> Any:
    """Who has the method, as data."""
    if owner is FUNCTIONS:
        return {"function": name}
    return config_of(owner) if isinstance(owner, Map) else {"function": owner.name}


def method_of(config: Any, name: str) -> Method:
    """The method that data stand for."""
    if isinstance(config, dict) and "function" in config:
        owner = getattr(softplex, config["function"])
    else:
        owner = map_of(config)
    method: Method = owner if name in ("__call__", owner.__name__) else getattr(owner, name)
    return method


@keras.saving.register_keras_serializable("softplex")
class Softplex(keras.Operation):
    """A call of a map, or of one of its methods, in a model."""

    def __init__(self, owner: Any, method: str, options: dict[str, Any], name: str | None = None) -> None:
        super().__init__(name=name)
        self.owner, self.method, self.options = owner, method, options

    def call(self, x: Any, **arrays: Any) -> Any:
        """The result on tensors."""
        options = {**self.options, **arrays}
        dtype = options.pop("dtype", None)
        x = x if dtype is None else keras.ops.cast(x, dtype)
        return method_of(self.owner, self.method)(x, **options)

    def get_config(self) -> dict[str, Any]:
        """What the node was made with."""
        return {"owner": self.owner, "method": self.method, "options": self.options, "name": self.name}


def road_for(kind: type) -> Road | None:
    """The road of a type, entered in the list."""
    road: Road | None = None
    if issubclass(kind, keras.KerasTensor):
        road = symbol_road
    elif issubclass(kind, keras.Variable):
        road = variable_road
    ROADS[kind] = road
    return road
