"""Modules, layers and losses over softplex's functions for PyTorch; importing it imports torch.

    from softplex.torch import Sparsemax, Entmax, SparsemaxLoss, attention

Each map of `softplex.MAPS` has a module, named as the map is (log_softmax: LogSoftmax), and, if it is a map of
weights, a loss (SparsemaxLoss). Dimensions are called `dim`, as in torch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor as _Tensor

from softplex.core.roads import road_of as _road_of
from softplex.maps import MAPS
from softplex.torch.activations import Activation as Activation
from softplex.torch.activations import classes as _activations
from softplex.torch.attention import attention as attention
from softplex.torch.linear_loss import linear_loss as linear_loss
from softplex.torch.losses import CrossEntropyLoss as CrossEntropyLoss
from softplex.torch.losses import FenchelYoungLoss as FenchelYoungLoss
from softplex.torch.losses import classes as _losses
from softplex.torch.maxout import Maxout as Maxout
from softplex.torch.maxout import MaxoutConv1d as MaxoutConv1d
from softplex.torch.maxout import MaxoutConv2d as MaxoutConv2d
from softplex.torch.maxout import MaxoutConv3d as MaxoutConv3d
from softplex.torch.maxout import MaxoutLinear as MaxoutLinear
from softplex.torch.router import Router as Router
from softplex.torch.router import Routing as Routing

_road_of(_Tensor)  # so that a graph that is being compiled does not meet tensors for the first time
_MADE = {**_activations(MAPS), **_losses(MAPS)}
globals().update(_MADE)

__all__ = [
    "Activation",
    "CrossEntropyLoss",
    "FenchelYoungLoss",
    "Maxout",
    "MaxoutConv1d",
    "MaxoutConv2d",
    "MaxoutConv3d",
    "MaxoutLinear",
    "Router",
    "Routing",
    "attention",
    "linear_loss",
]
__all__ += list(_MADE)


def __getattr__(name: str) -> Any:
    """Tell type checkers that there are more names than stand above, and readers which."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(sorted(__all__))}")
