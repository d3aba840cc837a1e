"""Ways back that no compiler looks into. What they compute stands with their autograd functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.compiler import is_dynamo_compiling

Back = Callable[..., Any]


def unseen(backward: Back) -> Back:
    """A way back that runs as it is where a step is compiled that calls backward(), as Keras' is.

    The compiler meets it without what went forward, and would take NumPy's road for operations of its own.
    """

    @wraps(backward)
    def entered(ctx: Any, *cotangents: Any) -> Any:
        if is_dynamo_compiling():
            from softplex.backends.torch.graph import apart

            return apart(backward, ctx, *cotangents)
        return backward(ctx, *cotangents)

    return entered
