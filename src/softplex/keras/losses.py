"""The Fenchel-Young loss of any map for Keras, as a class and as a function of (y_true, y_pred). No map is named here.

What a loss computes stands with the functions, which these call, a row at a time; Keras weighs and reduces.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import keras

from softplex.core.arguments import TEMPERATURE
from softplex.core.configs import config_of, map_of
from softplex.core.formula import Parameter
from softplex.core.map import Map, bound_number
from softplex.core.targets import read_ignored, read_smoothing
from softplex.keras.activations import (
    HOME,
    a_map,
    checked_axis,
    checked_hyper,
    class_name,
    keywords_of,
    made_from,
    refuse_unless_among,
    serializable,
    takes,
)


@serializable
class FenchelYoungLoss(keras.losses.Loss):
    """The Fenchel-Young loss of a map.

        loss = Omega*(z) + Omega(y) - <z, y>  with z = y_pred / temperature;  its gradient in z is map(z) - y

    Arguments:
        map: a map of weights, bound maps too. Log maps and blends have no loss.
        axis: the axis of the classes.
        temperature: a positive and finite number.
        label_smoothing: the part of each target that is spread evenly over the classes.
        ignore_class: a class index whose rows count for nothing, as in keras.losses.SparseCategoricalCrossentropy.
        reduction, name, dtype: as in keras.losses.Loss.
        options: the map's hyper-parameters, such as alpha.

    Returns:
        call(y_true, y_pred): the loss of each row. y_pred are scores, before any activation; y_true are class indices
        (shape of y_pred without the axis, or with size 1 there) or distributions (shape of y_pred).

    Raises:
        TypeError: for what is no map, one without a loss, a hyper-parameter that the map lacks, and what is no number,
            axis or class.
        ValueError: for a number out of its range; (in call) for shapes that do not fit.

    Example:
        >>> import keras, softplex as sx
        >>> from softplex.keras import FenchelYoungLoss
        >>> loss = FenchelYoungLoss(sx.sparsemax)(keras.ops.array([0, 0]), keras.ops.array([[0.0, 0.5], [3.0, 0.0]]))
        >>> print(float(loss))
        0.28125

    Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """

    def __init__(
        self,
        map: Map,
        axis: int = -1,
        *,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        where = type(self).__name__
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.map = a_map(map, where)
        if map.formula.kind != "simplex":
            raise TypeError(f"{where}: {map.name} has no loss; give a map of weights, such as softplex.softmax")
        known = [*(rule.name for rule in map.formula.parameters), *keywords_of(type(self))]
        refuse_unless_among(known, options, where)
        self.fixed = checked_hyper(map, options, False, where)
        self.axis = checked_axis(axis, where)
        self.temperature = bound_number(where, TEMPERATURE, temperature)
        self.label_smoothing = read_smoothing(label_smoothing, where)
        self.ignore_class = read_ignored(ignore_class, f"{where}: ignore_class")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each row of scores."""
        options = {"temperature": self.temperature, "label_smoothing": self.label_smoothing, **self.fixed}
        return rows_of(self.map, y_true, y_pred, self.axis, self.ignore_class, options)

    def hyper(self, rule: Parameter) -> float:
        """A hyper-parameter."""
        number: float = self.fixed[rule.name]
        return number

    def get_config(self) -> dict[str, Any]:
        """What the loss was made with."""
        known = {} if type(self) is not FenchelYoungLoss else {"map": config_of(self.map)}
        own = {
            "axis": self.axis,
            "temperature": self.temperature,
            "label_smoothing": self.label_smoothing,
            "ignore_class": self.ignore_class,
        }
        return {**super().get_config(), **known, **self.fixed, **own, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FenchelYoungLoss:
        """The loss that a config describes."""
        if cls is FenchelYoungLoss:
            config = {**config, "map": map_of(config["map"])}
        return cls(**config)


def rows_of(map: Map, y_true: Any, y_pred: Any, axis: int, ignored: int | None, options: dict[str, Any]) -> Any:
    """The loss of each row. Keras hands class indices over as floats: their shape tells them from distributions."""
    y_pred = keras.ops.convert_to_tensor(y_pred)
    y_true = keras.ops.convert_to_tensor(y_true)
    rank, axis_at = len(y_pred.shape), axis % max(len(y_pred.shape), 1)
    if len(y_true.shape) == rank and y_true.shape[axis_at] == 1 and y_pred.shape[axis_at] != 1:
        y_true = keras.ops.squeeze(y_true, axis_at)
    if len(y_true.shape) == rank:
        return map.loss(y_pred, keras.ops.cast(y_true, y_pred.dtype), axis, reduction="none", **options)
    y_true = as_classes(y_true)
    losses = map.loss(y_pred, y_true, axis, reduction="none", ignore_index=ignored, **options)
    if ignored is not None:
        with_mask(losses, keras.ops.not_equal(y_true, ignored))
    return losses


def as_classes(y_true: Any) -> Any:
    """Class indices from numbers: what is no integer, or no int32, is no class."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(y_true.dtype)):
        return keras.ops.cast(y_true, "int32")
    wide = keras.ops.cast(y_true, "float32") if keras.backend.standardize_dtype(y_true.dtype) != "float64" else y_true
    is_class = keras.ops.logical_and(keras.ops.round(wide) == wide, keras.ops.abs(wide) < 2.0**31)
    index = keras.ops.cast(keras.ops.where(is_class, wide, 0.0), "int32")
    return keras.ops.where(is_class, index, keras.ops.full_like(index, -(2**31)))


def with_mask(losses: Any, mask: Any) -> None:
    """What Keras' own losses do: the mean leaves out what the mask does. Not every tensor takes attributes."""
    masking = import_module("keras.src.backend.common.masking")
    masking.set_keras_mask(losses, mask)


def function_of(map: Map) -> Callable[..., Any]:
    """The loss of a map as Keras' losses are as functions."""

    def loss(y_true: Any, y_pred: Any, axis: int = -1, **options: Any) -> Any:
        ignored = options.pop("ignore_class", None)
        return rows_of(map, y_true, y_pred, axis, ignored, options)

    name = f"{map.name}_loss"
    loss.__name__ = loss.__qualname__ = name
    loss.__module__ = HOME
    loss.__doc__ = f"""Fenchel-Young loss of {map.name}, row by row.

    loss = Omega*(z) + Omega(y) - <z, y>  with z = y_pred / temperature;  for its map {map.equation}

Arguments:
    y_true, y_pred, axis: as in `FenchelYoungLoss`.
    options: temperature, label_smoothing, ignore_class and hyper-parameters.

Returns:
    A tensor of the shape of y_pred without the axis.

Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324; for the map {map.source}.
"""
    made: Callable[..., Any] = serializable(loss)
    return made


def words(map: Map) -> str:
    """The docstring of a map's loss."""
    name = class_name(map) + "Loss"
    given = ", ".join(f"{r.usual(1):g}" for r in map.formula.parameters if r.default is None)
    return f"""Fenchel-Young loss of {map.name}.

    loss = Omega*(z) + Omega(y) - <z, y>  with z = y_pred / temperature;  for its map {map.equation}

Arguments:
{takes(map, arrays=False)}    axis, temperature, label_smoothing, ignore_class, reduction, name, dtype: as in
        `FenchelYoungLoss`.

Returns:
    call(y_true, y_pred): as in `FenchelYoungLoss`.

Raises:
    TypeError, ValueError: as `FenchelYoungLoss`.

Example:
    >>> import keras
    >>> from softplex.keras import {name}
    >>> rows = {name}({given + ", " if given else ""}reduction=None)(keras.ops.eye(3)[:2], keras.ops.zeros((2, 3)))
    >>> keras.ops.shape(rows)
    (2,)

Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324; for the map {map.source}.
"""


def classes(maps: tuple[Map, ...]) -> dict[str, type[FenchelYoungLoss]]:
    """A loss for each map that has one, by its name."""
    have = [m for m in maps if m.formula.kind == "simplex"]
    return {class_name(m) + "Loss": made_from(FenchelYoungLoss, m, class_name(m) + "Loss", words(m)) for m in have}


def functions(maps: tuple[Map, ...]) -> dict[str, Callable[..., Any]]:
    """A function for each map that has a loss and needs no more than scores, by its name."""
    have = [m for m in maps if m.formula.kind == "simplex" and all(r.default is not None for r in m.formula.parameters)]
    return {f"{m.name}_loss": function_of(m) for m in have}
