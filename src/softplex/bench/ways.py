"""What a peer offers is a list of ways to a result. The peers themselves are in `peers` and `tensor_peers`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softplex.bench.inputs import Inputs


class Way(NamedTuple):
    """One way to a result: a function without arguments, and whether it writes to a given place."""

    name: str
    is_preallocated: bool
    call: Callable[[], Any]


Prepare = Callable[[Inputs], list[Way]]


def tensor_of(array: Any) -> Any:
    """A tensor on the same memory."""
    torch = importlib.import_module("torch")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
