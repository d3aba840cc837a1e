"""Layers, activations and losses over softplex's functions for Keras 3, on any of its backends. It imports keras.

    import softplex.keras
    softplex.keras.register()
    keras.layers.Dense(10, activation="entmax15")

Each map of `softplex.MAPS` has a layer (log_softmax: LogSoftmax) and an activation of its own name; each map of weights
a loss as a class (SparsemaxLoss) and as a function (sparsemax_loss). They can be given as they are; after `register()`
their names will do.
"""

from __future__ import annotations

from typing import Any

import softplex.backends.keras.road  # noqa: F401 - the nodes of saved models
from softplex.keras.activations import Activation as Activation
from softplex.keras.activations import Weights as Weights
from softplex.keras.activations import activations as _activations
from softplex.keras.activations import layers as _layers
from softplex.keras.losses import FenchelYoungLoss as FenchelYoungLoss
from softplex.keras.losses import classes as _classes
from softplex.keras.losses import functions as _functions
from softplex.keras.maxout import Maxout as Maxout
from softplex.keras.maxout import MaxoutConv1D as MaxoutConv1D
from softplex.keras.maxout import MaxoutConv2D as MaxoutConv2D
from softplex.keras.maxout import MaxoutDense as MaxoutDense
from softplex.keras.names import enter as _enter
from softplex.maps import MAPS

_LAYERS, _ACTIVATIONS = _layers(MAPS), _activations(MAPS)
_LOSSES = {**_functions(MAPS), **_classes(MAPS), "FenchelYoungLoss": FenchelYoungLoss}
_MADE = {**_LAYERS, **_ACTIVATIONS, **_LOSSES}
globals().update(_MADE)

__all__ = ["Activation", "Maxout", "MaxoutConv1D", "MaxoutConv2D", "MaxoutDense", "Weights", "register"]
__all__ += list(_MADE)


def register(*, replace: bool = True) -> None:
    """Make the family known to Keras by name: as activations of any layer, and as losses in `compile`.

        keras.layers.Dense(10, activation="entmax15");  model.compile("adam", loss="sparsemax_loss")

    Arguments:
        replace: whether "sparsemax" becomes softplex's; Keras computes it wrongly wherever more than one weight is not
            0. No other name that Keras has is touched: "softmax" and "log_softmax" stay its own.

    Returns:
        None. Calling it again changes nothing.

    Raises:
        RuntimeError: where Keras keeps its names in another place than it did; the callables work without them.

    Example:
        >>> import keras, softplex.keras
        >>> softplex.keras.register()
        >>> keras.activations.get("entmax15")
        <softplex.keras activation entmax15>

    Source: keras.activations.get.
    """
    _enter(_ACTIVATIONS, _LOSSES, replace=replace)


def __getattr__(name: str) -> Any:
    """Tell type checkers that there are more names than stand above, and readers which."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(sorted(__all__))}")
