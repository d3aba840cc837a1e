"""Every map of the family as a module: one base, and a class made from each map. No map is named here.

What a map computes is the map's business; how a learnable number is kept in its range stands in learnable.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Module

from softplex.core.arguments import read_hyper
from softplex.core.describe import default_of
from softplex.core.formula import Parameter
from softplex.core.map import Map, short
from softplex.torch.learnable import free_number, in_range

HOME = "softplex.torch"
"""The module in which users find the classes."""


class Activation(Module):
    """A map as a module.

        forward(x) = map(x, dim, temperature=..., hyper-parameters)

    Arguments:
        map: any map of the library; bound maps and blends are taken too.
        dim: the dimension, or tuple of dimensions, along which the weights are made; None for all.
        temperature: a positive and finite number.
        empty: what a row with nothing to weigh becomes, "zero" or "nan".
        learnable: whether the map's hyper-parameters are trained. Each is then held by the parameter `raw_<name>`,
            which an optimiser may move anywhere: what it stands for stays in the range. It may start as a tensor that
            broadcasts against x with size 1 along `dim`, one number a head say.
        device, dtype: of the learnable parameters.
        hyper: the map's hyper-parameters, such as alpha.

    Returns:
        forward(x, where=None): weights of the shape and dtype of x. `where` holds booleans that broadcast to x; False
        entries weigh 0.

    Raises:
        TypeError: for what is no map, and for a hyper-parameter that the map does not have, or lacks.
        ValueError: for a hyper-parameter out of its range.

    Example:
        >>> import softplex as sx
        >>> from softplex.torch import Activation
        >>> Activation(sx.entmax.bind(alpha=1.3), dim=0)
        Activation(map=entmax(alpha=1.3), dim=0)

    Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """

    def __init__(
        self,
        map: Map,
        dim: int | tuple[int, ...] | None = -1,
        *,
        temperature: float = 1.0,
        empty: str = "zero",
        learnable: bool = False,
        device: Any = None,
        dtype: Any = None,
        **hyper: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.map = a_map(map, name)
        if isinstance(dim, bool):
            raise TypeError(f"{name}: dim={dim!r} is not a dimension; give an integer, and other arguments by name")
        self.dim = dim
        self.temperature = temperature
        self.empty = empty
        self.learnable = learnable
        rules = map.formula.parameters
        if not isinstance(learnable, bool):
            raise TypeError(f"{name}: learnable={learnable!r} is neither True nor False; give one of them")
        if learnable and not rules:
            raise TypeError(f"{name}: {map.name} has no hyper-parameter to be learned")
        self.fixed: dict[str, float] = {}
        given = read_hyper(name, rules, hyper)
        for rule in rules:
            start = given[rule.name]
            if learnable:
                raw = free_number(rule, start, name, device=device, dtype=dtype)
                self.register_parameter("raw_" + rule.name, raw)
            else:
                self.map.bind(**{rule.name: start})  # refuses what is not allowed
                self.fixed[rule.name] = float(start)

    def forward(self, x: Tensor, where: Tensor | None = None) -> Tensor:
        """The weights of x."""
        options = {rule.name: self.hyper(rule) for rule in self.map.formula.parameters}
        weights: Tensor = self.map(x, self.dim, temperature=self.temperature, where=where, empty=self.empty, **options)
        return weights

    def hyper(self, rule: Parameter) -> Any:
        """A hyper-parameter as it is now: a Python number, or a tensor where it is learnable."""
        if self.learnable:
            return in_range(rule, getattr(self, "raw_" + rule.name))
        return self.fixed[rule.name]

    def extra_repr(self) -> str:
        """What was given, hyper-parameters as they are now."""
        return ", ".join(self._shown())

    def _shown(self) -> Iterator[str]:
        if type(self) is Activation:
            yield f"map={self.map.name}"
        for rule in self.map.formula.parameters:
            value = self.hyper(rule)
            if isinstance(value, Tensor):
                yield (
                    f"{rule.name}={value.item():.6g}"
                    if value.dim() == 0 and not value.is_meta
                    else f"{rule.name}={tuple(value.shape)}"
                )
            else:
                yield f"{rule.name}={short(value)}"
        yield f"dim={self.dim}"
        if self.temperature != 1.0:
            yield f"temperature={self.temperature}"
        if self.empty != "zero":
            yield f"empty={self.empty!r}"
        if self.learnable:
            yield "learnable=True"


def a_map(map: object, where: str) -> Map:
    """The map, if it is one."""
    if not isinstance(map, Map):
        raise TypeError(f"{where}: {map!r} is not a map; give one such as softplex.sparsemax or entmax.bind(alpha=1.3)")
    return map


def class_name(map: Map) -> str:
    """The name of a map's class: log_softmax becomes LogSoftmax."""
    return "".join(part.capitalize() for part in map.name.split("_"))


def with_hyper_first(base: type[Any], map: Map) -> inspect.Signature:
    """The signature of a class whose first argument, the map, is known: its hyper-parameters stand in its place."""
    known = [p for p in inspect.signature(base).parameters.values() if p.kind is not p.VAR_KEYWORD][1:]
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
    """The class of a base whose first argument is this map."""
    signature = with_hyper_first(base, map)

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        try:
            given = signature.bind(*arguments, **options).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it takes {signature}") from None
        base.__init__(self, map, **given)

    members: dict[str, Any] = {
        "__init__": start,
        "__doc__": doc,
        "__module__": HOME,
        "__signature__": signature,
    }
    for rule in map.formula.parameters:
        members[rule.name] = hyper_property(rule)
    return type(name, (base,), members)


def hyper_property(rule: Parameter) -> property:
    """A hyper-parameter, as an attribute."""
    return property(lambda self: self.hyper(rule), doc=f"{rule.name} as it is now: {rule.rule(None)}.")


def takes(map: Map, *, tensors: bool) -> str:
    """The lines of a docstring that say what a map's hyper-parameters are."""
    what = "; a tensor too, if it is learnable" if tensors else ""
    return "".join(f"    {r.name}: {r.rule(None)}{default_of(r)}{what}.\n" for r in map.formula.parameters)


def usual(map: Map, length: int) -> str:
    """Arguments for an example: those hyper-parameters that must be given."""
    return ", ".join(f"{r.usual(length):g}" for r in map.formula.parameters if r.default is None)


def words(map: Map) -> str:
    """The docstring of a map's class."""
    name = class_name(map)
    return f"""{map.summary}

    {map.equation}

Arguments:
{takes(map, tensors=True)}    dim: the dimension, or tuple of dimensions, along which the weights are made; None for
    all. temperature, empty, and for learnable hyper-parameters learnable, device, dtype: as in `Activation`.

Returns:
    forward(x, where=None): a tensor of the shape and dtype of x.

Raises:
    TypeError, ValueError: as `Activation`.

Example:
    >>> import torch
    >>> from softplex.torch import {name}
    >>> {name}({usual(map, 3)})(torch.zeros(2, 3)).shape
    torch.Size([2, 3])

Source: {map.source}.
"""


def classes(maps: tuple[Map, ...]) -> dict[str, type[Activation]]:
    """A class for each map, by its name."""
    return {class_name(m): made_from(Activation, m, class_name(m), words(m)) for m in maps}
