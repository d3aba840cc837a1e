"""What must be so before any test: the order in which two packages are loaded, and how often Python looks for cycles.

Triton and TensorFlow each bring an LLVM of their own, whose options are registered twice: the process ends where Triton
comes second, and torch loads it for its forward mode and its compiler.
"""

import contextlib
import gc
import importlib
import warnings

with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    importlib.import_module("triton")

# Each look goes over all that four frameworks hold: a twentieth of the time of the tests.
gc.set_threshold(10_000, 20, 20)
