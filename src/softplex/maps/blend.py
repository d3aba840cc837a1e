"""blend: a convex mixture of maps, itself a map."""

from __future__ import annotations

import math
from collections.abc import Mapping

from softplex.core.compose import Mixture
from softplex.core.map import Map


def blend(members: Mapping[Map, float]) -> Map:
    """The convex mixture sum_m w_m m(x) of maps, itself a map.

        p(x) = sum_m w_m p_m(x),  w_m >= 0,  sum_m w_m = 1

    Arguments:
        members: maps and their weights. A map with hyper-parameters is bound first: entmax.bind(alpha=1.3).

    Returns:
        A map: it can be called, differentiated and blended again, and has a support size; no regularizer, no loss.

    Raises:
        TypeError: for a member that is not a map of weights, or has free hyper-parameters without a default.
        ValueError: for weights that are not between 0 and 1 or do not sum to 1.

    Example:
        >>> import softplex as sx
        >>> sx.blend({sx.softmax: 0.5, sx.softmin: 0.5})([0.0, 0.0])
        array([0.5, 0.5])

    Source: a convex combination of points of the simplex lies in it.
    """
    if not isinstance(members, Mapping) or not members:
        raise TypeError(
            f"blend: {members!r} is not a mapping from maps to weights; give one, like {{softmax: 0.3, softmin: 0.7}}"
        )
    checked = [(check_member(member), check_weight(member, weight)) for member, weight in members.items()]
    mass = math.fsum(weight for _, weight in checked)
    if abs(mass - 1.0) > 1e-9:
        raise ValueError(f"blend: the weights sum to {mass!r}; they must sum to 1")
    shown = ", ".join(f"{member.name}: {weight:g}" for member, weight in checked)
    return Map(
        f"blend({shown})",
        Mixture(tuple((member.formula, weight) for member, weight in checked)),
        summary="A convex mixture of maps.",
        equation="p(x) = sum_m w_m p_m(x)",
        source="a convex combination of points of the simplex lies in it",
    )


def check_member(member: object) -> Map:
    """A map of weights whose hyper-parameters are all known."""
    if not isinstance(member, Map):
        raise TypeError(
            f"blend: {member!r} is not a map of this library; give maps such as softmax or entmax.bind(alpha=1.3)"
        )
    if member.formula.kind == "logarithm":
        raise TypeError(f"blend: {member.name} gives logarithms; blend the maps themselves")
    missing = [parameter.name for parameter in member.formula.parameters if parameter.default is None]
    if missing:
        raise TypeError(f"blend: {member.name} needs {missing[0]}; bind it first: {member.name}.bind({missing[0]}=...)")
    defaults = {parameter.name: parameter.default for parameter in member.formula.parameters}
    return member.bind(**defaults) if defaults else member


def check_weight(member: Map, weight: object) -> float:
    """A weight between 0 and 1."""
    if isinstance(weight, bool) or not hasattr(weight, "__float__"):
        raise TypeError(f"blend: the weight of {member.name} is {weight!r}; give a number between 0 and 1")
    number = float(weight)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"blend: the weight of {member.name} is {number!r}; it must lie between 0 and 1")
    return number
