"""A call of a map in a graph that torch.compile makes: one node, traced once more when its operations are wanted.

And calls that belong to no graph.
"""

from __future__ import annotations

from typing import Any

import torch

from softplex.core.roads import OWNERS


@torch.compiler.allow_in_graph
def in_graph(handle: str, method: str, x: Any, *args: Any, **options: Any) -> Any:
    """The method's result; a compiler sees the arguments, and nothing of what checks them."""
    owner = OWNERS[handle]
    function = getattr(type(owner), method)
    return getattr(function, "__wrapped__", function)(owner, x, *args, **options)


@torch.compiler.disable
def apart(function: Any, *args: Any) -> Any:
    """The function's result, of which a compiler sees nothing."""
    return function(*args)
