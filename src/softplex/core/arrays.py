"""Arrays as the formulas see them: a namespace with three additions, and the terms of a row.

No map and no framework lives here. A formula gets `xp`, the functions of the array API standard plus `choose`,
`patch` and `iterate`, which say where a decision may depend on values: a backend that can look at its numbers skips
what is not needed, one that cannot (lazy or traced arrays) computes both sides and a fixed number of rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any
Number = Any
"""A Python float, or an array that broadcasts against the rows with size 1 along the last axis."""


class Namespace:
    """The array namespace of the standard, with the decisions that depend on values."""

    def __init__(self, functions: Any, *, can_look: bool, working: Any) -> None:
        self._functions = functions
        self.can_look = can_look
        self.working = working
        self.eps = float(functions.finfo(working).eps)
        self.tiny = float(functions.finfo(working).smallest_normal)
        # Slopes above it belong to weights too close to tau for any derivative to be known; so they stay finite.
        self.steepest = min(1e100, 1e-8 * float(functions.finfo(working).max))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._functions, name)
        setattr(self, name, function)
        return function

    @property
    def sorts(self) -> bool:
        """Whether rows are sorted rather than searched, as where each round of a search is written out."""
        return bool(getattr(self._functions, "sorts", False))

    def zero_column(self, entries: Array) -> Array:
        """A zero for each row."""
        return self.zeros_like(entries[..., :1])

    def surely(self, condition: Any) -> bool | None:
        """True or False where the condition holds everywhere or nowhere and this can be seen, else None."""
        if isinstance(condition, bool):
            return condition
        if not self.can_look:
            return None
        if bool(self.all(condition)):
            return True
        return None if bool(self.any(condition)) else False

    def choose(self, condition: Any, yes: Callable[[], Array], no: Callable[[], Array]) -> Array:
        """where(condition, yes(), no()), without computing a side that no row needs."""
        known = self.surely(condition)
        if known is None:
            return self.where(condition, yes(), no())
        return yes() if known else no()

    def patch(self, condition: Array, value: Any, array: Array) -> Array:
        """where(condition, value, array), without a copy where the condition holds nowhere."""
        if self.can_look and not bool(self.any(condition)):
            return array
        return self.where(condition, value, array)

    def on_support(self, function: Callable[[Array], Array], p: Array) -> Array:
        """function(p) for one that is 0 at 0, where its derivative may be infinite."""
        return function(p)

    def following(self, value: Callable[[], Array], law: Callable[[], Array]) -> Array:
        """value(); its derivatives are those of law(), the same number by a longer way, if anyone takes them."""
        return value()

    def solved(self, formula: Any, rows: Any, hyper: Any) -> Any:
        """The solution of a formula; a namespace whose functions are differentiated comes by it in another way."""
        return formula.solution(rows, hyper)

    def repeat(self, step: Callable[..., tuple[Array, ...]], state: tuple[Array, ...], times: int) -> tuple[Array, ...]:
        """Apply `state = step(*state)` so many times; compilers that unroll it choke on what it makes."""
        for _ in range(times):
            state = step(*state)
        return state

    def iterate(
        self, step: Callable[..., tuple[Array, ...]], state: tuple[Array, ...], rounds: int
    ) -> tuple[Array, ...]:
        """Repeat `state = step(*state)`; the last item of the state says which rows are done and no longer change."""
        for _ in range(rounds):
            state = step(*state)
            if self.can_look and bool(self.all(state[-1])):
                break
        return state


def known(length: int | None) -> int:
    """The length of rows, where what is asked of them cannot do without it."""
    if length is None:
        raise ValueError(
            "the length of the normalised axis is left open in this graph; set it, as tf.ensure_shape does"
        )
    return length


class Terms(NamedTuple):
    """One number for each competitor of a row: its entries, and the sink if there is one."""

    entries: Array
    sink: Array | None = None


def each(function: Callable[..., Array], *terms: Terms) -> Terms:
    """Apply a function to every competitor."""
    entries = function(*(term.entries for term in terms))
    if terms[0].sink is None:
        return Terms(entries)
    return Terms(entries, function(*(term.sink for term in terms)))


def total(xp: Namespace, terms: Terms) -> Array:
    """The sum over a row, sink included, with size 1 along the last axis."""
    entries = xp.sum(terms.entries, axis=-1, keepdims=True)
    return entries if terms.sink is None else entries + terms.sink


def count(xp: Namespace, terms: Terms) -> Array:
    """How many competitors of a row are True, in the working precision."""
    return total(xp, each(lambda flag: xp.astype(flag, xp.working), terms))


def largest(xp: Namespace, terms: Terms) -> Array:
    """The maximum of a row, sink included; NaN if there is one."""
    entries = xp.max(terms.entries, axis=-1, keepdims=True)
    return entries if terms.sink is None else xp.maximum(entries, terms.sink)


def smallest(xp: Namespace, terms: Terms) -> Array:
    """The minimum of a row, sink included."""
    entries = xp.min(terms.entries, axis=-1, keepdims=True)
    return entries if terms.sink is None else xp.minimum(entries, terms.sink)


def choose_terms(xp: Namespace, condition: Any, yes: Callable[[], Terms], no: Callable[[], Terms]) -> Terms:
    """`choose` for the terms of a row."""
    known = xp.surely(condition)
    if known is None:
        return each(lambda a, b: xp.where(condition, a, b), yes(), no())
    return yes() if known else no()
