"""Maps as plain data, for files that outlive a process, and back. No map is named here: the library's are asked."""

from __future__ import annotations

from typing import Any

from softplex.core.compose import Bound, Mixture
from softplex.core.formula import Formula
from softplex.core.map import Map


def config_of(map: Map) -> Any:
    """A map's name, or what it is made of: strings, numbers, lists and dicts."""
    return formula_config(map.formula, map.name)


def formula_config(formula: Formula, name: str) -> Any:
    """What a formula is made of."""
    from softplex.maps import MAPS

    for each in MAPS:
        if each.formula == formula:
            return each.name
    if isinstance(formula, Bound):
        return {"bound": formula_config(formula.formula, name), "hyper": dict(formula.fixed)}
    if isinstance(formula, Mixture):
        return {"blend": [[formula_config(member, name), weight] for member, weight in formula.members]}
    raise TypeError(f"{name} is a map of your own, which a file cannot hold; add it to the library's maps, or bind one")


def map_of(config: Any) -> Map:
    """The map that data stand for."""
    from softplex.maps import MAPS
    from softplex.maps.blend import blend

    if isinstance(config, str):
        for each in MAPS:
            if each.name == config:
                return each
        raise ValueError(f"{config!r} is no map of this version of softplex; it has {', '.join(m.name for m in MAPS)}")
    if "bound" in config:
        return map_of(config["bound"]).bind(**config["hyper"])
    return blend({map_of(member): weight for member, weight in config["blend"]})
