"""Kernels for GPUs, in Triton. What they compute stands in maps.py; without Triton the formulas compute it.

Nothing here is imported before a tensor on a GPU is met.
"""

from __future__ import annotations

from importlib.util import find_spec


def is_there() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None
