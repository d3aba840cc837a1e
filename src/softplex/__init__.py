"""softplex: the softmax family for arrays: scores in, weights out, with every derivative and the losses.

The names below are the public ones; what they promise is said in their docstrings. Array means an array of NumPy or
JAX, a tensor of PyTorch, TensorFlow or Keras, or an array of another array-API library; what comes out is of the
library that x is of. These frameworks follow the calls: results can be differentiated. `softplex.torch` has modules,
losses and attention, `softplex.keras` layers, activations and losses; they are imported on their own, for importing
softplex imports NumPy alone.
"""

from __future__ import annotations

from softplex.core.map import Map as Map
from softplex.core.threads import get_num_threads as get_num_threads
from softplex.core.threads import set_num_threads as set_num_threads
from softplex.losses import cross_entropy as cross_entropy
from softplex.losses import entmax15_loss as entmax15_loss
from softplex.losses import entmax_loss as entmax_loss
from softplex.losses import sparsemax_loss as sparsemax_loss
from softplex.maps import *  # noqa: F403 - the names of the maps stand in maps/__init__.py alone
from softplex.maps import MAPS as MAPS
from softplex.maps.blend import blend as blend
from softplex.maps.maxout import maxout as maxout
from softplex.system import info as info
from softplex.system import kernels as kernels

__version__ = "0.1.0"

__all__ = [
    "MAPS",
    "Map",
    "blend",
    "cross_entropy",
    "entmax15_loss",
    "entmax_loss",
    "get_num_threads",
    "info",
    "kernels",
    "maxout",
    "set_num_threads",
    "sparsemax_loss",
]
__all__ += [each.name for each in MAPS]
