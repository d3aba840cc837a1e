"""What must be so before any test: nothing but the order in which two packages are loaded.

Triton and TensorFlow each bring an LLVM of their own, whose options are registered twice: the process ends where Triton
comes second, and torch loads it for its forward mode and its compiler.
"""

import contextlib
import importlib
import warnings

with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    importlib.import_module("triton")
