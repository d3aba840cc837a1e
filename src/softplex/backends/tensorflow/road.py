"""How TensorFlow's tensors and variables enter a map: outside of what AutoGraph rewrites. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from softplex.core.roads import ROADS, Road


@tf.autograph.experimental.do_not_convert
def tensor_road(
    name: str, method: Callable[..., Any], owner: Any, x: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """For all of them."""
    return method(owner, x, *args, **options)


def road_for(kind: type) -> Road | None:
    """The road of a type, entered in the list."""
    road: Road = tensor_road
    ROADS[kind] = road
    return road
