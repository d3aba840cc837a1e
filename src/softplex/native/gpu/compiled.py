"""What a kernel is compiled for, as launches say it and kernels read it: the task, and how rows lie in memory.

Both are constants of Triton: each combination that is met becomes a kernel of its own. Nothing is computed here.
"""

from __future__ import annotations

from typing import NamedTuple

PLAIN, SIDE_BY_SIDE, SCATTERED = range(3)
"""Entries that are neighbours in memory; that stand wide apart, so that rows are taken together; neither."""

BY_STRIDES, ONE_BY_ONE, AT_ONCE = range(3)
"""How a tensor's entries are reached: anywhere, as neighbours, or as neighbours of which a whole vector is loaded."""


class Task(NamedTuple):
    """What is asked for."""

    map: int
    """A number of maps.py."""
    method: int
    """A number of short.py."""
    is_negated: bool
    is_precise: bool
    """Whether a float32's last digit counts."""
    temperature: int
    """A number of rows.py."""
    has_sink: bool = False
    has_where: bool = False
    has_weights: bool = False
    has_scale: bool = False
    empty_is_nan: bool = False
    is_lenient: bool = False
    """Whether somebody else settles bad rows."""


class Lay(NamedTuple):
    """How rows lie, and what a program takes of them."""

    batch_dims: int
    row_dims: int
    lie: int
    """Of the scores, as they were given."""
    vector: int
    """How many neighbours a thread holds: it follows from the lie, the dtype and the length of a row alone, since sums
    are taken in that order."""
    rows: int
    width: int
    x: int
    """How the scores are reached, and the other tensors of their shape."""
    operand: int
    where: int
    result: int
