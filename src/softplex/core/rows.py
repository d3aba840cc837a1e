"""Rows of scores as a map sees them: masked, shifted by their maximum, divided by the temperature, sink beside them.

Here the mask, the sink, NaN rows and empty rows are dealt with once, so that no map knows of them. What a map makes
of the rows, and how arrays get here from a user's call, lives elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from softplex.core.arrays import Array, Namespace, Number, Terms, count, each, largest
from softplex.core.doubles import two_quotient, two_sum

LONG = (1 << 16) + 1
"""Rows of this length and more are searched for the entries that can weigh anything before a threshold is sought."""

HUGE_TEMPERATURE = 2.0**100
"""Above it the differences of finite scores could overflow although their quotients do not."""


def quarter_where_huge(xp: Namespace, temperature: Number) -> Number:
    """A power of two that keeps the differences of scores finite where only their quotients are small."""
    if isinstance(temperature, float):
        return 0.25 if temperature > HUGE_TEMPERATURE else 1.0
    return xp.where(temperature > HUGE_TEMPERATURE, 0.25, xp.ones_like(temperature))


@dataclass(frozen=True)
class Rows:
    """A block of rows, the normalised axis last; parameters are Python floats or have size 1 along that axis."""

    xp: Namespace
    x: Array
    mask: Array | None = None
    sink: Number | None = None
    temperature: Number = 1.0
    temperature_rest: Number = 0.0
    """What the temperature lacks where the working precision does not hold it."""
    sign: int = 1
    invalid: Array | None = None
    """Rows with a parameter that is not allowed and could not be looked at: they become NaN."""
    empty_value: float = 0.0
    """What an empty row weighs: 0 or NaN."""
    is_narrow: bool = False
    """The scores have fewer digits than the working precision, so that their differences need no correction."""
    dtype: Any = None
    """What results are rounded to at the end."""

    def negated(self) -> Rows:
        """The rows of -x."""
        return replace(self, sign=-self.sign)

    @cached_property
    def signed(self) -> Terms:
        """The signed scores with -inf where masked; NaN and +inf still in them."""
        entries = self.x if self.sign > 0 else -self.x
        if self.mask is not None:
            entries = self.xp.where(self.mask, entries, -self.xp.inf)
        if self.sink is None:
            return Terms(entries)
        column = self.xp.zero_column(entries) + self.sink
        return Terms(entries, column if self.sign > 0 else -column)

    @cached_property
    def _raw_top(self) -> Array:
        return largest(self.xp, self.signed)

    @cached_property
    def is_bad(self) -> Array:
        """Rows with NaN, +inf or an invalid parameter: every unmasked entry of their results is NaN."""
        bad = ~(self._raw_top < self.xp.inf)
        return bad if self.invalid is None else bad | self.invalid

    @cached_property
    def is_empty(self) -> Array:
        """Rows with nothing to weigh."""
        return self._raw_top == -self.xp.inf

    @cached_property
    def top(self) -> Array:
        """The largest score of each row; 0 where there is none."""
        return self.xp.patch(self.is_bad | self.is_empty, 0.0, self._raw_top)

    @cached_property
    def scores(self) -> Terms:
        """The scores before the temperature, -inf where dead; bad rows hold zeros."""
        return each(lambda x: self.xp.patch(self.is_bad, 0.0, x), self.signed)

    @cached_property
    def is_live(self) -> Terms:
        """Entries that take part: neither masked nor -inf."""
        return each(lambda x: x > -self.xp.inf, self.scores)

    @cached_property
    def has_dead(self) -> bool:
        """Whether an entry may be dead; True where this cannot be seen."""
        return self.xp.surely(self.is_live.entries) is not True

    @cached_property
    def live_count(self) -> Array:
        """How many competitors take part, sink included."""
        return count(self.xp, self.is_live)

    @cached_property
    def _gaps_and_errors(self) -> tuple[Terms, Terms | None]:
        xp, temperature, top = self.xp, self.temperature, self.top
        is_one = isinstance(temperature, float) and temperature == 1.0
        if self.is_narrow:
            gaps = each(lambda x: x - top, self.scores)
            return (gaps if is_one else each(lambda gap: gap / temperature, gaps)), None
        scale = quarter_where_huge(xp, temperature)
        temperature, rest, top = temperature * scale, self.temperature_rest * scale, top * scale
        is_exact = isinstance(rest, float) and rest == 0.0

        def corrected(x: Array) -> tuple[Array, Array]:
            is_dead = x == -xp.inf
            finite = xp.patch(is_dead, top, x * scale)
            gap, error = two_sum(finite, -top)
            if not is_one:
                gap, error = two_quotient(xp, gap, error, temperature)
                error = error if is_exact else error - gap * (rest / temperature)
            error = xp.patch(~xp.isfinite(error), 0.0, error)
            return xp.patch(is_dead, -xp.inf, gap), error

        entries, entry_errors = corrected(self.scores.entries)
        if self.scores.sink is None:
            return Terms(entries), Terms(entry_errors)
        sink, sink_error = corrected(self.scores.sink)
        return Terms(entries, sink), Terms(entry_errors, sink_error)

    @property
    def gaps(self) -> Terms:
        """(x - top) / temperature, at most 0, -inf where dead."""
        return self._gaps_and_errors[0]

    @property
    def finite_gaps(self) -> Terms:
        """The gaps with 0 where dead, to be multiplied with what is 0 there."""
        return each(lambda gap: self.xp.patch(gap == -self.xp.inf, 0.0, gap), self.gaps)

    @property
    def gap_errors(self) -> Terms | None:
        """What rounding took from the gaps; None where that does not matter."""
        return self._gaps_and_errors[1]

    def gaps_from(self, score: Array) -> Terms:
        """(x - score) / temperature for one score of each row: rounded once, so exact to a relative error."""
        xp = self.xp
        return each(lambda x: xp.where(x > -xp.inf, x - score, -xp.inf) / self.temperature, self.scores)

    def gaps_with_errors_from(self, score: Array) -> tuple[Terms, Terms]:
        """(x - score) / temperature, and what rounding took from it; 0 where dead."""
        xp = self.xp

        def gap_and_error(x: Array) -> tuple[Array, Array]:
            finite = xp.where(x > -xp.inf, x, score)
            return two_quotient(xp, *two_sum(finite, -score), self.temperature)

        entries, entry_errors = gap_and_error(self.scores.entries)
        if self.scores.sink is None:
            return Terms(entries), Terms(entry_errors)
        sink, sink_error = gap_and_error(self.scores.sink)
        return Terms(entries, sink), Terms(entry_errors, sink_error)

    def near_top(self, reach: Number) -> tuple[Rows, Array] | None:
        """A long row without the entries further than `reach` below its top, and where the kept ones are.

        None where it would not pay. That rests on the row alone, as its bits do: a long row has a block to itself.
        """
        if not self.xp.can_look or self.x.shape[-1] < LONG or math.prod(self.x.shape[:-1]) != 1:
            return None
        distance = reach if isinstance(reach, float) else float(self.xp.max(reach))
        kept = self.xp.reshape(self.gaps.entries >= -distance * (1.0 + 1e-9), (-1,))
        share = float(self.xp.sum(self.xp.astype(kept, self.xp.working))) / self.x.shape[-1]
        if not 0.0 < share < 0.5:
            return None
        mask = None if self.mask is None else self.mask[..., kept]
        return replace(self, x=self.x[..., kept], mask=mask), kept

    def filtered(self, entries: Array) -> Array:
        """A tangent or cotangent with zeros where no entry takes part: what stands there is not read."""
        if not self.has_dead:
            return entries
        return self.xp.where(self.is_live.entries, entries, 0.0)

    def settled(self, entries: Array, *, absent: float = 0.0) -> Array:
        """Results with masked entries `absent`, empty rows as the caller asked and bad rows NaN."""
        xp, nan = self.xp, self.xp.nan
        empty = absent if self.empty_value == 0.0 else nan
        entries = xp.patch(self.is_empty, empty, entries)
        if self.mask is None:
            return xp.patch(self.is_bad, nan, entries)
        return xp.patch(self.is_bad & self.mask, nan, xp.patch(self.is_bad & ~self.mask, absent, entries))

    def settled_rows(self, values: Array, *, empty: float) -> Array:
        """One number a row: NaN for bad rows, `empty` or NaN for empty ones."""
        xp = self.xp
        values = xp.patch(self.is_empty, empty if self.empty_value == 0.0 else xp.nan, values)
        return xp.patch(self.is_bad, xp.nan, values)
