"""Every map of the family as a layer and as an activation: one base each, made from the maps. No map is named here.

What a map computes is the map's business; how a learnable number is kept in its range stands in core/folding.py.
"""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Iterable
from typing import Any

import keras
import ml_dtypes
import numpy as np

from softplex.backends.numpy import real_array
from softplex.core.arguments import DEFAULT_AXIS, TEMPERATURE, read_axes, read_hyper, refuse_unless_known
from softplex.core.configs import config_of, map_of
from softplex.core.describe import default_of
from softplex.core.folding import folded, refuse_unless_foldable, unfolded
from softplex.core.formula import Parameter
from softplex.core.map import Map, bound_number

HOME = "softplex.keras"
"""The module in which users find the classes, and (its first word) the package under which Keras saves them."""

serializable = keras.saving.register_keras_serializable("softplex")


@serializable
class Activation(keras.Layer):
    """A map as a layer.

        call(x) = map(x, axis, temperature=..., hyper-parameters)

    Arguments:
        map: any map of the library; bound maps and blends are taken too.
        axis: the axis, or list of axes, along which the weights are made; None for all.
        temperature: a positive and finite number.
        empty: what a row with nothing to weigh becomes, "zero" or "nan".
        learnable: whether the map's hyper-parameters are trained. Each is then held by the variable `raw_<name>`, which
            an optimiser may move anywhere: what it stands for stays in the range. It may start as an array that
            broadcasts against x with size 1 along `axis`, one number a head say.
        options: the map's hyper-parameters, such as alpha, and Keras' own arguments of a layer (name, dtype, ...).

    Returns:
        call(inputs, mask=None): weights of the shape of the inputs, in the layer's compute dtype. `mask` is as in
        keras.layers.Softmax, or a list: entries where it is False, or at most 0.5, weigh 0.

    Raises:
        TypeError: for what is no map, for a hyper-parameter that the map lacks, and for what is no number or no axis.
        ValueError: for a number out of its range, and for what `empty` cannot be.

    Example:
        >>> import keras, numpy as np, softplex as sx
        >>> from softplex.keras import Activation
        >>> layer = Activation(sx.sparsemax.bind(), temperature=0.5)
        >>> np.asarray(layer(keras.ops.array([[0.25, 0.25, -3.0]])))
        array([[0.5, 0.5, 0. ]], dtype=float32)

    Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """

    def __init__(
        self,
        map: Map,
        axis: int | list[int] | tuple[int, ...] | None = -1,
        *,
        temperature: float = 1.0,
        empty: str = "zero",
        learnable: bool = False,
        **options: Any,
    ) -> None:
        where = type(self).__name__
        self_map = a_map(map, where)
        rules = self_map.formula.parameters
        named = {rule.name: options.pop(rule.name) for rule in rules if rule.name in options}
        known = [*(rule.name for rule in rules), *keywords_of(type(self)), *OF_ANY_LAYER]
        refuse_unless_among(known, options, where)
        super().__init__(**options)
        if not isinstance(learnable, bool):
            raise TypeError(f"{where}: learnable={learnable!r} is neither True nor False; give one of them")
        if learnable and not rules:
            raise TypeError(f"{where}: {map.name} has no hyper-parameter to be learned")
        self.map = self_map
        self.axis = checked_axes(axis, where)
        self.temperature = bound_number(where, TEMPERATURE, temperature)
        refuse_unless_known(empty, where)
        self.empty = empty
        self.learnable = learnable
        self.supports_masking = True
        self.starts = checked_hyper(self_map, named, learnable, where)

    def build(self, input_shape: Any) -> None:
        """Make the variables of learnable hyper-parameters."""
        for rule in self.map.formula.parameters if self.learnable else ():
            free = unfolded(rule, self.starts[rule.name], type(self).__name__)
            made = self.add_weight(
                name="raw_" + rule.name,
                shape=free.shape,
                initializer=lambda shape, dtype=None, free=free: keras.ops.convert_to_tensor(free, dtype),
                autocast=False,
            )
            setattr(self, "raw_" + rule.name, made)
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """The weights of the inputs."""
        x = keras.ops.cast(inputs, self.compute_dtype)
        options = {rule.name: self.hyper(rule) for rule in self.map.formula.parameters}
        axis = tuple(self.axis) if isinstance(self.axis, list) else self.axis
        return self.map(x, axis, temperature=self.temperature, where=self.where(mask), empty=self.empty, **options)

    def where(self, mask: Any) -> Any:
        """A mask of Keras, or a list, as booleans."""
        if mask is None:
            return None
        if not hasattr(mask, "dtype"):
            mask = keras.ops.convert_to_tensor(real_array(mask, f"{type(self).__name__}: mask"))
        if keras.backend.standardize_dtype(mask.dtype) == "bool":
            return mask
        return keras.ops.greater(mask, keras.ops.cast(0.5, mask.dtype))

    def hyper(self, rule: Parameter) -> Any:
        """A hyper-parameter as it is now: a Python number, or a tensor where it is learnable and built."""
        if not self.learnable or not self.built:
            return self.starts[rule.name]
        raw = keras.ops.convert_to_tensor(getattr(self, "raw_" + rule.name))
        limits = ml_dtypes.finfo(keras.backend.standardize_dtype(raw.dtype))  # type: ignore[no-untyped-call]
        return folded(keras.ops, rule, raw, eps=float(limits.eps), largest=float(limits.max))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with; learnable hyper-parameters as they started."""
        known = {} if type(self) is not Activation else {"map": config_of(self.map)}
        own = {"axis": self.axis, "temperature": self.temperature, "empty": self.empty}
        if self.map.formula.parameters:
            own["learnable"] = self.learnable
        return {**super().get_config(), **known, **self.starts, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Activation:
        """The layer that a config describes."""
        if cls is Activation:
            config = {**config, "map": map_of(config["map"])}
        return cls(**config)


@serializable
class Weights:
    """A map as an activation, which Keras saves with the layers that use it.

        activation(x) = map(x, axis=-1)

    Arguments:
        map: any map of the library whose hyper-parameters have defaults; bound maps and blends are taken too.

    Returns:
        A callable, for `activation=` of any layer: weights along the last axis, or the axis that it is called with.

    Raises:
        TypeError: for what is no map.

    Example:
        >>> import keras, softplex as sx
        >>> from softplex.keras import Weights
        >>> keras.layers.Dense(3, activation=Weights(sx.entmax.bind(alpha=1.3))).activation
        <softplex.keras activation entmax(alpha=1.3)>

    Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """

    def __init__(self, map: Map) -> None:
        self.map = a_map(map, "Weights")
        self.__name__ = map.name
        self.__doc__ = f"{map.summary}\n\n    {map.equation}\n\nSource: {map.source}.\n"

    def __repr__(self) -> str:
        return f"<softplex.keras activation {self.map.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and other.map == self.map

    def __hash__(self) -> int:
        return hash(self.map)

    def __call__(self, x: Any, axis: Any = -1) -> Any:
        """The weights of x."""
        return self.map(x, axis)

    def get_config(self) -> dict[str, Any]:
        """The map."""
        return {"map": config_of(self.map)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Weights:
        """The activation that a config describes."""
        return cls(map_of(config["map"]))


def a_map(map: object, where: str) -> Map:
    """The map, if it is one."""
    if not isinstance(map, Map):
        raise TypeError(f"{where}: {map!r} is not a map; give one such as softplex.sparsemax or entmax.bind(alpha=1.3)")
    return map


def checked_hyper(map: Map, given: dict[str, Any], learnable: bool, where: str) -> dict[str, Any]:
    """The hyper-parameters as numbers, or nested lists of them where they are to be learned."""
    starts = read_hyper(where, map.formula.parameters, given)
    for rule in map.formula.parameters:
        if learnable:
            refuse_unless_foldable(rule, where)
            unfolded(rule, starts[rule.name], where)
            starts[rule.name] = np.asarray(starts[rule.name], np.float64).tolist()
        else:
            starts[rule.name] = bound_number(where, rule, starts[rule.name])
    return starts


def checked_axes(axis: Any, where: str) -> int | list[int] | None:
    """The axis or axes as plain integers; whether x has them is seen at the call."""
    if axis is None:
        return None
    if not isinstance(axis, (list, tuple)):
        return checked_axis(axis, where)
    read_axes(axis, DEFAULT_AXIS, sys.maxsize, where)  # refuses what names none, or one twice
    return [checked_axis(each, where) for each in axis]


def checked_axis(axis: Any, where: str) -> int:
    """One axis as a plain integer."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"{where}: axis={axis!r} is not an axis; give an integer, and other arguments by name")
    return operator.index(axis)


def keywords_of(base: type[Any]) -> list[str]:
    """The names of the arguments with which objects of a class are made."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = list(inspect.signature(base.__init__).parameters.values())[1:]
    return [each.name for each in known if each.kind not in variable]


OF_ANY_LAYER = (*keywords_of(keras.Layer), "input_shape", "input_dim")
"""What Keras' own layers take, the last two without naming them."""


def refuse_unless_among(known: Iterable[str], given: Iterable[str], where: str) -> None:
    """Keywords are those that are known."""
    known = tuple(dict.fromkeys(known))
    for key in given:
        if key not in known:
            raise TypeError(f"{where} got an unexpected keyword argument {key!r}; it takes {', '.join(known)}")


def class_name(map: Map) -> str:
    """The name of a map's class: log_softmax becomes LogSoftmax."""
    return "".join(part.capitalize() for part in map.name.split("_"))


def with_hyper_first(base: type[Any], map: Map) -> inspect.Signature:
    """The signature of a class whose first argument, the map, is known: its hyper-parameters stand in its place."""
    known = list(inspect.signature(base).parameters.values())[1:]
    named = [
        inspect.Parameter(
            rule.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if rule.default is None else rule.default,
        )
        for rule in map.formula.parameters
    ]
    if not named:
        known = [p for p in known if p.name != "learnable"]
    return inspect.Signature([*named, *known])


def made_from(base: type[Any], map: Map, name: str, doc: str) -> type[Any]:
    """The class of a base whose first argument is this map, known to Keras' files."""
    signature = with_hyper_first(base, map)

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        try:
            given = signature.bind(*arguments, **options).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it takes {signature}") from None
        rest = given.pop("options", {})
        base.__init__(self, map, **given, **rest)

    # Not as the class's own: instances, which are called, would inherit it, and tf.function asks them for theirs.
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    start.__signature__ = signature.replace(parameters=[itself, *signature.parameters.values()])  # type: ignore[attr-defined]
    members: dict[str, Any] = {"__init__": start, "__doc__": doc, "__module__": HOME}
    for rule in map.formula.parameters:
        members[rule.name] = hyper_property(rule)
    made: type[Any] = serializable(type(name, (base,), members))
    return made


def hyper_property(rule: Parameter) -> property:
    """A hyper-parameter, as an attribute."""
    return property(lambda self: self.hyper(rule), doc=f"{rule.name} as it is now: {rule.rule(None)}.")


def takes(map: Map, *, arrays: bool) -> str:
    """The lines of a docstring that say what a map's hyper-parameters are."""
    what = "; an array too, if it is learnable" if arrays else ""
    return "".join(f"    {r.name}: {r.rule(None)}{default_of(r)}{what}.\n" for r in map.formula.parameters)


def words(map: Map) -> str:
    """The docstring of a map's layer."""
    name = class_name(map)
    given = ", ".join(f"{r.usual(3):g}" for r in map.formula.parameters if r.default is None)
    return f"""{map.summary}

    {map.equation}

Arguments:
{takes(map, arrays=True)}    axis: the axis, or list of axes, along which the weights are made; None for all.
    temperature, empty, for hyper-parameters learnable, and Keras' own: as in `Activation`.

Returns:
    call(inputs, mask=None): as in `Activation`.

Raises:
    TypeError, ValueError: as `Activation`.

Example:
    >>> import keras
    >>> from softplex.keras import {name}
    >>> keras.ops.shape({name}({given})(keras.ops.zeros((2, 3))))
    (2, 3)

Source: {map.source}.
"""


def layers(maps: tuple[Map, ...]) -> dict[str, type[Activation]]:
    """A layer for each map, by its name."""
    return {class_name(m): made_from(Activation, m, class_name(m), words(m)) for m in maps}


def activations(maps: tuple[Map, ...]) -> dict[str, Weights]:
    """An activation for each map that needs no more than scores."""
    return {m.name: Weights(m) for m in maps if all(rule.default is not None for rule in m.formula.parameters)}
