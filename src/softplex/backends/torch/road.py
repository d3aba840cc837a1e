"""How tensors enter a map: into the graph that is being compiled, by a short cut, or as everything else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from softplex.backends.torch import quick, quick_losses
from softplex.backends.torch.modes import PLAIN
from softplex.core.map import Map
from softplex.core.roads import ROADS, Road

Method = Callable[..., Any]
CALL = Map._call


def plain_road(name: str, method: Method, owner: Any, x: Tensor, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """For torch's own tensors."""
    if is_dynamo_compiling():
        from softplex.backends.torch.graph import in_graph

        return in_graph(owner.handle, name, x, *args, **options)
    if method is CALL:
        found = quick.value(owner, x, args, options)
        if found is not None:
            return found
    elif name in quick_losses.IGNORED:
        found = quick_losses.loss(name, method, owner, x, args, options)
        if found is not None:
            return found
    return method(owner, x, *args, **options)


def subclass_road(name: str, method: Method, owner: Any, x: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """For tensors of other classes, which compute in their own way."""
    if is_dynamo_compiling():
        from softplex.backends.torch.graph import in_graph

        return in_graph(owner.handle, name, x, *args, **options)
    return method(owner, x, *args, **options)


def road_for(kind: type) -> Road | None:
    """The road of a type, entered in the list; not while a compiler looks on, which must see no list change."""
    road = plain_road if kind in PLAIN else subclass_road if issubclass(kind, Tensor) else None
    if not is_dynamo_compiling():
        ROADS[kind] = road
    return road
