"""Which formula has a kernel. The one place that knows kernels by their maps; no map knows of its kernel.

A formula is found as itself: one that was changed in any part has no kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

from softplex.core.compose import Bound, Negated
from softplex.core.formula import Formula

MAXOUT = 5
"""maxout is no simplex map and has no formula: it is found as itself."""


@dataclass(frozen=True)
class Kernel:
    """A map as the extension knows it."""

    number: int
    negated: bool = False
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Hyper-parameters that were bound."""


@cache
def _numbers() -> dict[Any, int]:
    """The maps of cpu/call.h."""
    from softplex import maps
    from softplex.maps.maxout import maxout

    known = (maps.softmax, maps.log_softmax, maps.sparsemax, maps.entmax15, maps.entmax)
    return {**{map_.formula: number for number, map_ in enumerate(known)}, maxout: MAXOUT}


@lru_cache(maxsize=256)
def kernel_of(formula: Formula) -> Kernel | None:
    """The kernel of a formula, if there is one."""
    if isinstance(formula, Negated):
        within = kernel_of(formula.formula)
        return within and replace(within, negated=not within.negated)
    if isinstance(formula, Bound):
        within = kernel_of(formula.formula)
        return within and replace(within, fixed={**dict(formula.fixed), **within.fixed})
    number = _numbers().get(formula)
    return None if number is None else Kernel(number)


SOFTMAX, LOG_SOFTMAX = 0, 1
