"""How a law is written: a function of a case, and a case is a map under a framework and a dtype.

A law calls `case` and asserts; it knows no map by name, only the kind of map (has it a loss? has it alphas?).
`LAWS` fills as the modules that hold laws are imported (`laws.py` imports them all).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import frameworks
import hard_rows
import reference
import tolerances
from tolerances import ITSELF, ONE, ulp

ALPHAS = (1, 1 + 1e-6, 1.3, 1.5, 2 - 1e-6, 2, 2 + 1e-6, 2.5, 5, 50, np.inf)
GRID = {
    "entmax": [{"alpha": alpha} for alpha in ALPHAS],
    "normmax": [{"alpha": alpha} for alpha in (1.1, 1.5, 2.0, 4.0, 20.0)],
    "budget": [{"budget": budget} for budget in (0.5, 1, 2, 2.5, 7)],
}
FEW = {
    "entmax": [{}, {"alpha": 1}, {"alpha": 1.3}, {"alpha": 3}],
    "normmax": [{}, {"alpha": 3.5}],
    "budget": [{"budget": 1}, {"budget": 2.5}],
}


@dataclass(frozen=True)
class Law:
    check: Callable
    name: str
    frameworks: tuple[str, ...] | None
    dtypes: tuple[str, ...]
    maps: Callable[[str], bool]
    lazy: bool

    def covers(self, name, framework, dtype):
        named = self.frameworks is None or framework.name in self.frameworks
        fast_enough = self.lazy or not framework.lazy
        if self.frameworks is None and framework.laws is not None:
            named = self.name in framework.laws
        if name in framework.brief:
            named = named and self.name in frameworks.BRIEF_LAWS
        return named and fast_enough and dtype in self.dtypes and self.maps(name) and framework.runs(name)


LAWS: list[Law] = []


def law(*, only=None, dtypes=frameworks.FLOATS, maps=lambda name: True, lazy=False):
    """Enrol a function of a case as a law: on which frameworks (None: all), dtypes and maps it holds.

    Lazy frameworks take seconds for what others do at once: only laws marked `lazy` run on them.
    """

    def enrol(check):
        LAWS.append(Law(check, check.__name__, only, tuple(dtypes), maps, lazy))
        return check

    return enrol


WIDE = ("float64", "float32")


def is_simplex(name):
    """Not a log map: weights, with a loss, a residual, a regulariser, a smooth max and a support."""
    return not reference.FAMILY[name][2]


def has_hyper(name):
    return name in GRID


def has_support(name):
    """Maps that give exact zeros to scores far below the rest."""
    return name not in tolerances.SOFTMAX_FAMILY


def name_of(map_):
    """The public name of a map."""
    return map_.__name__


@dataclass(frozen=True)
class Case:
    """A map (perhaps a mutant of it) with the name its reference goes by, under a framework and a dtype."""

    map: Any
    name: str
    framework: frameworks.Framework
    dtype: str
    worst: dict = field(default_factory=dict, compare=False)

    # -- arrays -------------------------------------------------------------------------------------------------------

    @property
    def np_dtype(self):
        return frameworks.numpy_dtype(self.dtype)

    def array(self, values):
        """Numbers as the framework's array of this dtype."""
        return self.framework.asarray(np.asarray(values, np.float64).astype(self.np_dtype))

    def other(self, values):
        """An array of a dtype of its own: masks, indices, parameters."""
        return self.framework.asarray(np.asarray(values))

    def rounded(self, values):
        """Numbers as they are once they have this dtype, in float64."""
        return np.asarray(values, np.float64).astype(self.np_dtype).astype(np.float64)

    def raw(self, result):
        """A result, or a tuple of them, as NumPy arrays with the dtype they came in."""
        if isinstance(result, tuple):
            return tuple(self.raw(part) for part in result)
        return np.asarray(self.framework.to_numpy(result))

    def numbers(self, result):
        """A result, or a tuple of them, in float64."""
        if isinstance(result, tuple):
            return tuple(self.numbers(part) for part in result)
        return self.raw(result).astype(np.float64)

    # -- derivatives --------------------------------------------------------------------------------------------------

    @property
    def autograd(self):
        """How the framework differentiates."""
        return self.framework.ways()

    # -- calls --------------------------------------------------------------------------------------------------------

    def call(self, x, *more, method=None, **arguments):
        """Call the map, or one of its methods, on numbers; answer in float64."""
        function = self.map if method is None else getattr(self.map, method)
        return self.numbers(function(self.array(x), *(self.array(value) for value in more), **arguments))

    def support_size(self, x, **arguments):
        return self.raw(self.map.support_size(self.array(x), **arguments))

    # -- settings -----------------------------------------------------------------------------------------------------

    def fitting(self, table, size):
        return [hyper for hyper in table.get(self.name, [{}]) if hyper.get("budget", 0) <= size]

    def grid(self, size):
        """All hyper-parameters to try on rows of this size: on NumPy; other libraries run the same formulas."""
        return self.fitting(GRID if self.framework.bits else FEW, size)

    def few(self, size):
        """A few of them, for laws that are not about accuracy."""
        return self.fitting(FEW, size)

    @property
    def formulas(self):
        """Whether the wider bounds of formulas hold."""
        return self.name not in self.framework.kernels

    @property
    def is_log(self):
        return not is_simplex(self.name)

    @property
    def absent(self):
        """What a masked entry becomes."""
        return -np.inf if self.is_log else 0.0

    def batches(self):
        """Hard rows, (labels, batch) each; for the maps of -x they are negated, so that infinities weigh nothing."""
        sign = -1 if reference.FAMILY[self.name][1] else 1
        return [(labels, sign * x) for labels, x in hard_rows.batches(self.dtype)]

    def trials(self, table):
        """Hard rows and the hyper-parameters to try on them: (labels, batch, those that `table` has for its size)."""
        return [
            (labels, x, self.taking_turns(table(x.shape[1]), turn)) for turn, (labels, x) in enumerate(self.batches())
        ]

    def taking_turns(self, hypers, turn):
        """Every other one where a program is compiled for each: all of them in two turns, or in another dtype."""
        first = (turn + frameworks.FLOATS.index(self.dtype)) % 2
        return hypers[first::2] if self.framework.compiles and len(hypers) > 1 else hypers

    # -- references ---------------------------------------------------------------------------------------------------

    def rows(self, x, *, temperature=1.0, sink=None, where=None, **hyper):
        """The reference's rows of a 2-D batch; parameters may be scalars or columns."""
        x = self.rounded(x)

        def each(value):
            return [None] * len(x) if value is None else np.broadcast_to(value, (len(x), 1))[:, 0]

        masks = [None] * len(x) if where is None else np.broadcast_to(where, x.shape)
        columns = {key: each(value) for key, value in hyper.items()}
        return [
            reference.row(
                self.name,
                x[place],
                temperature=each(temperature)[place],
                sink=each(sink)[place],
                where=masks[place],
                **{key: column[place] for key, column in columns.items()},
            )
            for place in range(len(x))
        ]

    def value_bound(self, *, alpha=None, temperature=False):
        if alpha is None:
            alpha = reference.hyper_of(self.name, {}).get("alpha", 1.5)
        return tolerances.value_bound(
            self.name, self.dtype, alpha=alpha, temperature=temperature, formulas=self.formulas
        )

    # -- comparisons --------------------------------------------------------------------------------------------------

    def record(self, kind, error):
        """Keep the worst error of each kind, for the table that accuracy.py prints."""
        self.worst[kind] = max(self.worst.get(kind, 0.0), float(error))

    def assert_values(self, got, rows, *, temperature=False, slack=1, labels=None):
        """Values within section 4's bound, and the support exact."""
        assert got.shape == (len(rows), len(rows[0].raw)), f"shape {got.shape}"
        for place, row in enumerate(rows):
            note = f"row {place} ({labels[place] if labels else ''}) of {row}"
            bound = self.value_bound(alpha=row.hyper.get("alpha"), temperature=temperature)
            self.assert_row(got[place], row, bound, slack, note)

    def assert_row(self, got, row, bound, slack, note):
        top = max(row.solved.weights)  # the sink is one of p's entries
        for entry, (found, wanted) in enumerate(zip(got.tolist(), row.values, strict=True)):
            if abs(wanted) > tolerances.largest(self.dtype) and wanted != -reference.exact.inf:
                continue  # no number of this dtype
            if wanted == -reference.exact.inf or not np.isfinite(found):
                assert found == wanted, f"{note}: entry {entry} is {found}, not {wanted}"
                continue
            if bound.of == ITSELF and wanted and abs(wanted) < tolerances.smallest_promised(self.dtype):
                assert abs(found) <= 2 * tolerances.smallest_normal(self.dtype), f"{note}: entry {entry} is {found}"
                continue
            unit = ulp(self.dtype, {ITSELF: wanted, ONE: 1}.get(bound.of, top))
            error = float(abs(reference.mpf(found) - wanted) / unit)
            self.record(("values", bound.of), error)
            assert error <= bound.ulps * slack, (
                f"entry {entry} is {found!r}, off by {error:.3g} ULP of {bound.of}: {note}"
            )
            if abs(row.distances[entry]) > tolerances.boundary(self.dtype):
                self.assert_support(found, wanted, row, f"{note}: entry {entry}")

    def assert_support(self, found, wanted, row, note):
        if row.logarithmic:
            return
        if wanted == 0:
            assert found == 0, f"{note} is {found!r}, outside of the support"
        elif wanted >= tolerances.smallest_normal(self.dtype):
            assert found > 0, f"{note} is {found!r}, inside of the support with {float(wanted):.3g}"

    def assert_close(self, one, other, *, slack=2, temperature=False, alpha=None, note=""):
        """Two results that are both within the bound of one exact result differ by twice the bound at most."""
        bound = self.value_bound(alpha=alpha, temperature=temperature)
        assert one.shape == other.shape, f"{note}: shapes {one.shape} and {other.shape}"
        for left, right in zip(rows_of(one), rows_of(other), strict=True):
            finite = np.isfinite(right)
            assert np.array_equal(left[~finite], right[~finite], equal_nan=True), f"{note}: {left} and {right}"
            top = np.max(np.abs(right[finite]), initial=0.0)
            for a, b in zip(left[finite].tolist(), right[finite].tolist(), strict=True):
                unit = ulp(self.dtype, {ITSELF: b, ONE: 1.0}.get(bound.of, top))
                assert abs(a - b) <= slack * max(bound.ulps, 1) * unit, f"{note}: {a!r} and {b!r} in {left} and {right}"

    def assert_alike(self, one, other, note="", **how):
        """The same bits where the framework promises them, else within the bound."""
        if self.framework.bits:
            assert_same_bits(one, other, note)
        else:
            self.assert_close(one, other, note=note, **how)

    def assert_linear(self, got, wanted, row, direction, *, temperature=False, kind="vjp", slack=1, note=""):
        """A JVP or VJP of one row within ULPs of its largest term, and of what the weights' own error allows."""
        if row.nearest <= tolerances.boundary(self.dtype):
            return
        scale = row.linear_scale(direction)
        formulas = self.formulas or kind == "jacobian"  # which no kernel computes
        bound = tolerances.linear_bound(self.dtype, temperature=temperature, formulas=formulas)
        allowed = bound * slack * ulp(self.dtype, scale) + self.slope_error(row, direction, temperature)
        for entry, (found, expected) in enumerate(zip(got.tolist(), wanted, strict=True)):
            error = float(abs(reference.mpf(found) - expected))
            if scale:
                self.record((kind, "largest term"), min(error / ulp(self.dtype, scale), error / allowed * bound))
            assert error <= allowed, (
                f"{note} {kind} along {direction}: entry {entry} is {found!r}, not {float(expected)!r} in {row}"
            )

    def slope_error(self, row, direction, temperature):
        """For alpha > 1.5: how far a VJP moves when the weights move within their bound (slopes are p^(2 - alpha))."""
        alpha = row.hyper.get("alpha", 1)
        if alpha <= 1.5 or alpha == 2 or np.isinf(float(alpha)) or row.name in reference.FIXED:
            return 0.0
        bound = self.value_bound(alpha=float(alpha), temperature=temperature)
        reach = bound.ulps * ulp(self.dtype, 1 if bound.of == ONE else max(row.solved.weights))
        p = np.array([float(value) for value in row.solved.weights])
        s = np.array([float(value) for value in row.solved.slopes])
        g = np.array([float(value) for value in row.gather(direction)])
        if np.any((p > 0) & (p <= reach)):
            return np.inf
        inside = p > 0
        low, high = (np.where(inside, np.abs((p + side * reach) / np.where(inside, p, 1)), 1) for side in (-1, 1))
        power = 2 - float(alpha)
        moved = s * np.maximum(np.abs(low**power - 1), np.abs(high**power - 1))
        center = (s @ g) / s.sum()
        if row.base == "normmax":
            center = p @ g
        return float(
            2
            * (np.max(moved * np.abs(g - center)) + np.max(s) * (moved @ np.abs(g - center)) / s.sum())
            / float(row.temperature)
        )


def same_bits(one, other):
    """Equal dtype, shape and bits, NaN being equal to NaN."""
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind not in "fV":
        return bool(np.array_equal(one, other))
    both = np.isnan(one) & np.isnan(other)
    whole = f"u{one.dtype.itemsize}"
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return bool(np.all(both | (one.view(whole).reshape(one.shape) == other.view(whole).reshape(one.shape))))


def assert_same_bits(one, other, note=""):
    for left, right in zip(*((part if isinstance(part, tuple) else (part,)) for part in (one, other)), strict=True):
        assert same_bits(left, right), f"{note}: bits differ: {left!r} and {right!r}"


def rows_of(array):
    """A result as a batch of rows."""
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
