"""Random calls of every map with a kernel: any arguments, lengths and layouts, and how near a result must come.

A sample's result is held to the formulas' in float64, on a copy of the rows that lies plainly, within the sum of both
bounds of section 4. All is judged row by row on arrays (rows, n), so that thousands of calls take seconds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import softplex as sx
import tolerances
from frameworks import FLOATS, numpy_dtype
from tolerances import ITSELF, ONE

MAPS = (sx.softmax, sx.log_softmax, sx.softmin, sx.log_softmin, sx.sparsemax, sx.entmax15, sx.entmax)
ALPHA_OF = {sx.sparsemax: 2.0, sx.entmax15: 1.5, sx.entmax: 1.5}  # 1: the others
ALPHAS = (1.0, 1 + 1e-9, 1.3, 1.5, 1.999999, 2.0, 3.0, 50.0, np.inf)
SHORT = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100)
LONG = (1000, 16383, 16384, 16385, 40_000)
HUGE = 1 << 18  # rows that threads share
TEMPERATURES = (0.3, 7.0, 1e-3, 1e3, 1e-30, 1e30)
LAYOUTS = ("plain", "Fortran", "transposed", "strided", "negative", "unaligned", "shifted", "read-only", "foreign")
BASIC = ("value", "vjp", "jvp")
METHODS = (*BASIC, "residual", "residual of index", "loss", "loss of index", "support_size")


def is_log(map_):
    return map_ in (sx.log_softmax, sx.log_softmin)


def sign_of(map_):
    return -1.0 if map_ in (sx.softmin, sx.log_softmin) else 1.0


def methods_of(map_):
    return (*BASIC, *(["cross_entropy"] if map_ is sx.softmax else [])) if is_log(map_) else METHODS


@dataclass(frozen=True)
class Sample:
    """A call: `operand` is the cotangent, the tangent or the targets; of `out` only the kind is given."""

    map: Any
    method: str
    dtype: str
    x: np.ndarray
    axis: Any = -1
    operand: np.ndarray | None = None
    arguments: dict = field(default_factory=dict)
    alpha: Any = None  # that of a bound map
    out: str = "none"
    note: str = ""

    def __repr__(self):
        given = {key: np.shape(value) or value for key, value in self.arguments.items()}
        return f"{self.name} {self.method} {self.dtype} {self.x.shape} axis={self.axis} {given} {self.out} {self.note}"

    @property
    def name(self):
        return self.map.__name__

    @property
    def axes(self):
        every = tuple(range(self.x.ndim))
        given = every if self.axis is None else self.axis if isinstance(self.axis, tuple) else (self.axis,)
        return tuple(sorted(axis % self.x.ndim for axis in given))

    @property
    def called(self):
        return self.map if self.alpha is None else self.map.bind(alpha=self.alpha)

    def result(self, **more):
        """What the library makes of it."""
        given = {"axis": self.axis, **self.arguments, **more}
        if self.method == "value":
            return self.called(self.x, **given, **self.place())
        if self.method == "cross_entropy":
            return sx.cross_entropy(self.x, self.operand, **given)
        method = self.method.partition(" ")[0]
        operands = () if self.operand is None else (self.operand,)
        return getattr(self.called, method)(self.x, *operands, **given)

    def place(self):
        """The `out` of a call."""
        if self.out == "none":
            return {}
        if self.out == "itself":
            return {"out": self.x}
        dtype = numpy_dtype(self.dtype)
        if self.out == "overlapping":
            return {"out": overlapping(self.x)}
        return {"out": laid(np.ones(self.x.shape, dtype), self.out)}

    # -- rows --------------------------------------------------------------------------------------------------------

    def rows(self, array):
        """An array of x's shape as (rows, n)."""
        first = self.x.ndim - len(self.axes)
        moved = np.moveaxis(np.broadcast_to(array, self.x.shape), self.axes, range(first, self.x.ndim))
        return moved.reshape(-1, self.length)

    def column(self, value):
        """A parameter as (rows, 1)."""
        shape = tuple(1 if axis in self.axes else size for axis, size in enumerate(self.x.shape))
        return np.broadcast_to(np.asarray(value, np.float64), shape).reshape(-1, 1)

    @property
    def length(self):
        return int(np.prod([self.x.shape[axis] for axis in self.axes]))

    @property
    def narrow(self):
        return self.dtype in tolerances.NARROW

    @functools.cached_property
    def scores(self):
        with np.errstate(all="ignore"):
            return self.rows(self.x).astype(numpy_dtype(self.dtype)).astype(np.float64)

    @functools.cached_property
    def mask(self):
        return self.rows(self.arguments.get("where", True))

    @functools.cached_property
    def temperature(self):
        return self.column(self.arguments.get("temperature", 1.0))

    @functools.cached_property
    def alphas(self):
        if self.map not in ALPHA_OF:
            return self.column(1.0)
        if self.alpha is not None:
            return self.column(self.alpha)
        return self.column(self.arguments.get("alpha", ALPHA_OF[self.map]))

    def plain(self):
        """The same call in float64 on rows that lie plainly."""
        rest = {key: value for key, value in self.arguments.items() if key in ("empty", "ignore_index", "weight")}
        if self.method in ("loss", "loss of index", "cross_entropy"):
            rest["reduction"] = "none"
        columns = {key: self.column(self.arguments[key]) for key in ("sink",) if key in self.arguments}
        if self.map is sx.entmax and self.alpha is None:
            columns["alpha"] = self.alphas
        operand = self.operand
        if operand is not None:
            with np.errstate(all="ignore"):
                kept = operand.astype(numpy_dtype(self.dtype)) if operand.dtype.kind not in "iu" else operand
            operand = kept.reshape(-1) if kept.dtype.kind in "iu" else self.rows(kept).astype(np.float64)
        given = {"where": self.mask, "temperature": self.temperature, **columns, **rest}
        return Sample(self.map, self.method, "float64", self.scores, -1, operand, given, self.alpha)

    # -- what bounds need -------------------------------------------------------------------------------------------

    @functools.cached_property
    def weights(self):
        """Of the entries and, last, the sink, in float64; not a number in bad rows."""
        lost = -sign_of(self.map) * np.inf
        sink = self.column(self.arguments.get("sink", lost))
        known = {"alpha": self.alphas} if self.map is sx.entmax else {}
        simplex = {sx.log_softmax: sx.softmax, sx.log_softmin: sx.softmin}.get(self.map, self.map)
        with sx.kernels("none"):
            return simplex(
                np.concatenate([self.scores, sink], axis=1),
                where=np.concatenate([self.mask, np.ones_like(sink, bool)], axis=1),
                temperature=self.temperature,
                **known,
            )

    @functools.cached_property
    def top(self):
        return self.weights.max(axis=1, keepdims=True)

    @functools.cached_property
    def gaps(self):
        """(score - top) / temperature, the sink last; -inf for what takes no part."""
        lost = -sign_of(self.map) * np.inf
        sink = self.column(self.arguments.get("sink", lost))
        z = sign_of(self.map) * np.concatenate([np.where(self.mask, self.scores, lost), sink], axis=1)
        top = z.max(axis=1, keepdims=True)
        return np.where(z == top, 0.0, (z - top) / self.temperature)

    @functools.cached_property
    def distances(self):
        """Of every entry and the sink from the threshold."""
        a = self.alphas - 1.0
        has_threshold = (a > 0) & np.isfinite(a)
        reach = self.top ** np.where(has_threshold, a, 1.0) / np.where(has_threshold, a, 1.0)
        return np.where(has_threshold, self.gaps + reach, np.inf)

    @functools.cached_property
    def is_clear(self):
        """Whether no entry lies at a threshold, by rows."""
        return np.min(np.abs(self.distances), axis=1) > 2 * tolerances.boundary(self.dtype)

    @functools.cached_property
    def slopes(self):
        p, alpha = self.weights, self.alphas
        inside = np.where(p > 0, p, 1.0)
        return np.where((p > 0) & np.isfinite(alpha), inside ** np.where(np.isfinite(alpha), 2.0 - alpha, 1.0), 0.0)

    def bound_on_values(self, dtype, *, formulas):
        """By rows, in ULPs, and of what; for entmax by each row's alpha."""
        is_tempered = "temperature" in self.arguments
        bounds = [
            tolerances.value_bound(
                getattr(self.map, "__name__", ""), dtype, alpha=alpha, temperature=is_tempered, formulas=formulas
            )
            for alpha in self.alphas[:, 0].tolist()
        ]
        return np.array([bound.ulps for bound in bounds])[:, None], [bound.of for bound in bounds]


def ulps(dtype, values):
    """The distance between neighbours of a dtype at each of many float64 numbers."""
    exponent = np.frexp(np.where(np.isfinite(values), values, 1.0))[1] - 1
    least = tolerances.SMALLEST_EXPONENT[dtype]
    exponent = np.maximum(np.where(values == 0, least, exponent), least)
    return np.ldexp(1.0, exponent - tolerances.PRECISION[dtype] + 1)


# -- how near a result must come --------------------------------------------------------------------------------------


def both(sample, bound, sizes):
    """The kernel's bound and that of the formulas, which were asked in float64, around numbers of some size."""
    is_tempered = "temperature" in sample.arguments
    kernel = bound(sample.dtype, temperature=is_tempered, formulas=False) * ulps(sample.dtype, sizes)
    return kernel + bound("float64", temperature=is_tempered, formulas=True) * ulps("float64", sizes)


def reach_of_values(sample, wanted):
    """How far a value, or a residual, may lie from what the formulas gave."""
    total = 0.0
    for dtype, formulas in ((sample.dtype, False), ("float64", True)):
        bound, of = sample.bound_on_values(dtype, formulas=formulas)
        sizes = {ITSELF: wanted, ONE: np.ones_like(wanted)}
        unit = np.stack([ulps(dtype, sizes.get(o, np.broadcast_to(sample.top, wanted.shape))[i]) for i, o in enumerate(of)])
        total = total + bound * unit
    if of[0] == ITSELF:
        small = np.abs(wanted) < tolerances.smallest_promised(sample.dtype)
        total = np.where(small, 4 * tolerances.smallest_normal(sample.dtype), total)
    return total


def reach_of_products(sample, operand):
    """How far an entry of a VJP or JVP may lie: from the largest term, and from what moves the weights."""
    p, s = sample.weights[:, :-1], sample.slopes[:, :-1]
    g = np.where(np.isfinite(sample.gaps[:, :-1]), np.abs(operand), 0.0)
    if is_log(sample.map):
        largest = np.maximum(g.max(axis=1), sample.top[:, 0] * g.sum(axis=1) if sample.method == "vjp" else (p * g).sum(axis=1))
    else:
        terms, total = s * g, sample.slopes.sum(axis=1)
        mean = terms.sum(axis=1) / np.where(total > 0, total, 1.0)
        largest = np.maximum(terms.max(axis=1), sample.slopes.max(axis=1) * mean)
    largest = (largest / sample.temperature[:, 0])[:, None]
    reach = both(sample, tolerances.linear_bound, largest) + moved_slopes(sample, g)
    return np.where(sample.is_clear[:, None], reach, np.inf) + 4 * ulps(sample.dtype, np.zeros(1))


def moved_slopes(sample, g):
    """For alpha > 1.5: what a VJP gains when the weights move within their bound."""
    alpha, p, s = sample.alphas, sample.weights, sample.slopes
    steep = (alpha > 1.5) & (alpha != 2.0) & np.isfinite(alpha) & (sample.map not in (sx.sparsemax, sx.entmax15))
    bound, of = sample.bound_on_values(sample.dtype, formulas=False)
    unit = np.where(np.array([o == ONE for o in of])[:, None], 1.0, sample.top)
    reach = 5 * bound * ulps(sample.dtype, unit)
    inside = np.where(p > 0, p, 1.0)
    low, high = (np.abs((inside + side * reach) / inside) ** np.where(steep, 2.0 - alpha, 1.0) for side in (-1, 1))
    moved = s * np.maximum(np.abs(low - 1), np.abs(high - 1))
    wide = 2 * g.max(axis=1, keepdims=True)
    found = 2 * wide * (moved.max(axis=1, keepdims=True) + s.max(axis=1, keepdims=True) * moved.sum(axis=1, keepdims=True) / np.maximum(s.sum(axis=1, keepdims=True), 5e-324))
    found = np.where(np.any((p > 0) & (p <= reach), axis=1, keepdims=True), np.inf, found / sample.temperature)
    return np.where(steep, found, 0.0)


def reach_of_residuals(sample, wanted, operand, *, is_index):
    y = np.zeros_like(wanted) if is_index else np.abs(np.nan_to_num(operand))
    if is_index:
        y[np.arange(len(y)), sample.operand.reshape(-1)] = 1.0
    if sample.map in ALPHA_OF:
        sizes = np.maximum(np.maximum(np.abs(wanted), y), sample.top)
        if sample.dtype == "float64":
            sizes = np.where((sample.alphas > 2) & (sample.map is sx.entmax), np.maximum(sizes, 1.0), sizes)
    else:
        sizes = np.abs(wanted) if is_index else np.maximum(np.maximum(np.abs(wanted), y), y + wanted)
    reach = both(sample, tolerances.residual_bound, sizes)
    small = sizes < tolerances.smallest_promised(sample.dtype)
    return np.where(small, 4 * tolerances.smallest_normal(sample.dtype), reach)


def reach_of_losses(sample, operand, *, is_index):
    used = sample.weights[:, :-1] > 0
    if is_index:
        used[np.arange(len(used)), operand] = True
    else:
        used |= np.nan_to_num(operand) != 0
    gaps = np.where(used & np.isfinite(sample.gaps[:, :-1]), np.abs(sample.gaps[:, :-1]), 0.0)
    return both(sample, tolerances.linear_bound, np.maximum(1.0, gaps.max(axis=1)))


def assert_near(sample, got):
    """The kernel's result is within both bounds of the formulas', of the right shape and dtype."""
    plain = sample.plain()
    with sx.kernels("none"):
        wanted = np.asarray(plain.result())
    batch = tuple(size for axis, size in enumerate(sample.x.shape) if axis not in sample.axes)
    by_rows = sample.method in ("support_size", "loss", "loss of index", "cross_entropy")
    shape = batch if by_rows else sample.x.shape
    if by_rows and sample.method != "support_size" and sample.arguments.get("reduction", "mean") != "none":
        shape = ()
    assert got.shape == shape, sample
    assert got.dtype.newbyteorder("=") == (np.int64 if sample.method == "support_size" else numpy_dtype(sample.dtype)), sample
    with np.errstate(all="ignore"):
        if sample.method == "support_size":
            assert_support_size(sample, got.reshape(-1), wanted)
        elif by_rows:
            assert_losses(sample, plain, np.asarray(got, np.float64), wanted)
        else:
            assert_entries(sample, plain, sample.rows(got).astype(np.float64), wanted)


def assert_entries(sample, plain, got, wanted):
    if sample.method == "value":
        reach = reach_of_values(sample, wanted)
    elif sample.method in ("vjp", "jvp"):
        reach = reach_of_products(sample, plain.operand)
    else:
        reach = reach_of_residuals(sample, wanted, plain.operand, is_index=sample.method != "residual")
    compare(sample, got, wanted, reach)
    if sample.method == "value" and not is_log(sample.map):
        far = np.abs(sample.distances[:, :-1]) > 2 * tolerances.boundary(sample.dtype)
        normal = wanted >= tolerances.smallest_normal(sample.dtype)
        wrong = far & (((wanted == 0) & (got != 0)) | (normal & (got == 0)))
        assert not np.any(wrong & np.isfinite(wanted)), f"{sample}: support, rows {np.unique(np.nonzero(wrong)[0])[:5]}"


def compare(sample, got, wanted, reach):
    """NaN and infinities where they should be, numbers within reach; what no number of the dtype can show is left out."""
    large = np.abs(wanted) > tolerances.largest(sample.dtype) / 2
    finite = np.isfinite(wanted) & ~large
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    infinite = np.isinf(wanted) & (np.abs(got) > tolerances.largest(sample.dtype) / 2) & (np.sign(got) == np.sign(wanted))
    near = np.abs(got - wanted) <= reach
    bad = ~(same | np.where(finite, near, infinite | large))
    if np.any(bad):
        at = tuple(index[0] for index in np.nonzero(bad))
        error = np.abs(got - wanted)[at] / np.broadcast_to(reach, got.shape)[at]
        raise AssertionError(f"{sample}: at {at} {got[at]!r}, not {wanted[at]!r}, {error:.3g} times the bound, {np.sum(bad)} such")


def assert_support_size(sample, got, wanted):
    p = sample.weights[:, :-1]
    unclear = ~sample.is_clear | np.any((p > 0) & (p < tolerances.smallest_normal(sample.dtype)), axis=1)
    if sample.map not in ALPHA_OF or sample.narrow:
        unclear |= np.any((p > 0) & (p < 4 * tolerances.smallest_normal(sample.dtype)), axis=1)
    wrong = (got != wanted) & ~unclear
    assert not np.any(wrong), f"{sample}: sizes {got[wrong][:5]}, not {wanted[wrong][:5]}"


def assert_losses(sample, plain, got, wanted):
    is_index = plain.operand.ndim == 1
    ignore = sample.arguments.get("ignore_index", -100 if sample.method == "cross_entropy" else None)
    targets = plain.operand
    counted = np.ones(len(wanted), bool)
    if is_index and ignore is not None:
        counted = targets != ignore
        targets = np.where(counted, targets, 0)
    weight = sample.arguments.get("weight")
    share = counted * (1.0 if weight is None else np.asarray(weight, np.float64)[targets])
    if sample.method == "cross_entropy":
        reach = both(sample, tolerances.cross_entropy_bound, np.abs(wanted))
    else:
        reach = reach_of_losses(sample, targets, is_index=is_index) * np.abs(share)
    reach = reach + ulps(sample.dtype, wanted) * (weight is not None)
    reduction = sample.arguments.get("reduction", "mean")
    if reduction != "none":
        divisor = 1.0
        if reduction == "mean":
            divisor = share.sum() if is_index and np.any(counted) else max(1, len(wanted)) if not is_index else 1.0
        noise = len(wanted) * 2.0**-52 * np.sum(np.abs(wanted)) / divisor
        wanted = np.sum(wanted) / divisor
        reach = np.sum(reach) / divisor + ulps(sample.dtype, wanted) + noise
    compare(sample, got.reshape(np.shape(wanted) or (1,)), np.atleast_1d(wanted), np.atleast_1d(reach))


# -- layouts ----------------------------------------------------------------------------------------------------------


def laid(array, layout, rng=None):
    """The same numbers, lying differently in memory."""
    if layout == "Fortran":
        return np.asfortranarray(array)
    if layout == "transposed":
        order = np.roll(np.arange(array.ndim), 1)
        return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if layout == "strided":
        wide = np.zeros(tuple(size * 2 for size in array.shape), array.dtype)[(slice(None, None, 2),) * array.ndim]
        wide[...] = array
        return wide
    if layout == "negative":
        back = (slice(None, None, -1),) * array.ndim
        return array[back].copy()[back]
    if layout in ("unaligned", "shifted"):
        room = np.zeros(array.nbytes + array.itemsize, np.uint8)
        off = 1 if layout == "unaligned" else array.itemsize
        lying = room[off : off + array.nbytes].view(array.dtype).reshape(array.shape)
        lying[...] = array
        return lying
    if layout == "foreign":
        return array.astype(array.dtype.newbyteorder()) if array.dtype.kind in "fiu" else array.copy()
    array = np.array(array, order="C")
    if layout == "read-only":
        array.flags.writeable = False
    return array


def overlapping(x):
    """An array of the same shape that begins one row later in the same memory, where there is room for it."""
    return x.base[1:] if x.base is not None and x.base.shape[0] == x.shape[0] + 1 else x[::-1]


# -- drawing ----------------------------------------------------------------------------------------------------------


def drawn_rows(rng, rows, n, dtype, sign):
    """Rows of all kinds: spread, tied, flat, peaked, with infinities and NaN; (rows, n)."""
    x = np.empty((rows, n))
    for row in x:
        kind = rng.choice(14)
        row[:] = rng.normal(size=n) * rng.choice([0.01, 0.3, 1.0, 4.0])
        if kind == 1:
            row[:] = rng.uniform(-80, 80, n)
        elif kind == 2:
            row[:] = 0.3
        elif kind == 3:
            row[:] = np.round(row * 2) / 2
        elif kind == 4:
            row += 1000.0
        elif kind == 5:
            row[rng.integers(n)] = sign * 30.0
        elif kind == 6:
            row[rng.random(n) < 0.4] = -np.inf * sign
        elif kind == 7:
            row[rng.integers(n)] = rng.choice([np.nan, np.inf * sign])
        elif kind == 8:
            row[:] = -np.inf * sign
        elif kind == 9:
            row *= tolerances.smallest_normal(dtype)
        elif kind == 10:
            row *= 2.0 ** (-tolerances.SMALLEST_EXPONENT[dtype] - 3)
        elif kind == 11:
            row[:] = 1.0 + rng.integers(0, 4, n) * 2.0 ** (1 - tolerances.PRECISION[dtype])
    return x


def drawn_shape(rng, n, rows):
    """A shape and axes whose rows have n entries."""
    kind = rng.choice(["last", "last", "first", "middle", "tuple", "none", "one"])
    if kind == "one":
        return (n,), 0
    if kind == "none":
        return ((n,), None) if n % 2 else ((2, n // 2), None)
    if kind == "tuple" and n % 2 == 0:
        return (2, rows, n // 2), (2, 0) if rng.random() < 0.5 else (0, -1)
    if kind == "first":
        return (n, rows), 0
    if kind == "middle":
        return (max(1, rows // 2), n, 2), 1
    return ((rows, n), -1) if rows % 2 else ((2, rows // 2, n), 2)


def drawn(seed, *, lengths=None, dtype=None, map_=None, method=None, layout=None):
    """The sample of a seed."""
    rng = np.random.default_rng(seed)
    map_ = MAPS[rng.choice(len(MAPS), p=(0.12, 0.12, 0.08, 0.08, 0.15, 0.15, 0.3))] if map_ is None else map_
    dtype = dtype or str(rng.choice(FLOATS, p=(0.3, 0.4, 0.15, 0.15)))
    method = method or str(rng.choice(methods_of(map_)))
    n = int(rng.choice(lengths if lengths is not None else LONG if rng.random() < 0.03 else SHORT))
    rows = int(rng.choice([1, 2, 3, 5, 20])) if n <= 100 else 1 + (n < 20_000)
    shape, axis = drawn_shape(rng, n, rows)
    sign, kept = sign_of(map_), numpy_dtype(dtype)
    probe = Sample(map_, method, dtype, np.empty(shape), axis)

    def entries(rows_of):
        """Rows put along the axes."""
        array = np.empty(shape)
        first = len(shape) - len(probe.axes)
        view = np.moveaxis(array, probe.axes, range(first, len(shape)))
        view[...] = rows_of.reshape(view.shape)
        return array

    count = int(np.prod(shape)) // n
    values = drawn_rows(rng, count, n, dtype, sign)
    arguments, alpha, notes = drawn_arguments(rng, probe, sign)
    layout = layout or str(rng.choice(LAYOUTS))
    with np.errstate(all="ignore"):
        x = entries(values).astype(kept)
        if rng.random() < 0.1 and "where" in arguments:
            x = np.where(np.broadcast_to(arguments["where"], shape), x, np.asarray(np.nan, kept))
        operand = drawn_operand(rng, probe, arguments, entries, count, n)
        given_dtype = rng.random() < 0.1
        if given_dtype and layout != "foreign":
            kind = rng.choice(["wider", "integers"])
            x = x.astype(np.float64) if kind == "wider" else rng.integers(-9, 9, shape).astype(rng.choice(["i1", "i8"]))
            arguments["dtype"] = kept
    x = laid(x, layout)
    if shape[0] > 1 and rng.random() < 0.05 and layout == "plain":
        x = np.broadcast_to(x[:1], shape)
    out = "none"
    if method == "value" and rng.random() < 0.4:
        out = str(rng.choice(["plain", "Fortran", "strided", "negative", "unaligned", "foreign", "itself", "overlapping"]))
        if out in ("itself", "overlapping") and (not x.flags.writeable or x.dtype != kept):
            out = "plain"
        if out == "overlapping":
            room = np.zeros((shape[0] + 1, *shape[1:]), kept)
            room[:-1] = x
            x = room[:-1]
        if out == "foreign" and dtype == "bfloat16":
            out = "plain"
    return Sample(map_, method, dtype, x, axis, operand, arguments, alpha, out, f"{layout} seed {seed}")


def drawn_arguments(rng, probe, sign):
    """Temperature, sink, mask, alpha: each absent, a number, or an array."""
    shape = tuple(1 if axis in probe.axes else size for axis, size in enumerate(probe.x.shape))

    def one_or_many(options):
        form = rng.choice(3)
        if form == 0:
            return float(rng.choice(options))
        some = tuple(size if form == 1 or rng.random() < 0.5 else 1 for size in shape)
        return rng.choice(options, some).astype(np.float64)

    arguments, alpha = {}, None
    if rng.random() < 0.4:
        arguments["temperature"] = one_or_many(TEMPERATURES)
    if rng.random() < 0.4:
        arguments["sink"] = one_or_many([0.0, 0.1, 2.0, 40.0, -sign * np.inf] + [np.nan] * (rng.random() < 0.05))
    if rng.random() < 0.4:
        where = rng.random(probe.x.shape) < rng.choice([0.0, 0.3, 0.9], p=(0.1, 0.4, 0.5))
        form = rng.choice(3)
        where = where[:1] if form == 0 else laid(where, str(rng.choice(LAYOUTS[:5]))) if form == 1 else where
        arguments["where"] = where[0] if form == 0 and where.ndim > 1 else where
    if rng.random() < 0.3:
        arguments["empty"] = "nan"
    if probe.map is sx.entmax:
        if rng.random() < 0.2:
            alpha = float(rng.choice(ALPHAS))
        elif rng.random() < 0.9:
            arguments["alpha"] = one_or_many(ALPHAS)
    return arguments, alpha, ""


def drawn_operand(rng, probe, arguments, entries, count, n):
    """A cotangent, a tangent, a distribution or class indices; a loss's own arguments."""
    method, kept = probe.method, numpy_dtype(probe.dtype)
    batch = tuple(size for axis, size in enumerate(probe.x.shape) if axis not in probe.axes)
    if method in ("value", "support_size"):
        return None
    if method in ("loss", "loss of index", "cross_entropy"):
        arguments["reduction"] = str(rng.choice(["none", "none", "none", "sum", "mean"]))
    if method in ("residual of index", "loss of index", "cross_entropy"):
        y = rng.integers(0, n, batch).astype(rng.choice(["i8", "i4", "u1" if n < 256 else "u2" if n < 65536 else "u4"]))
        if method != "residual of index" and rng.random() < 0.3:
            arguments["ignore_index"] = int(rng.integers(0, n))
        if method != "residual of index" and rng.random() < 0.3:
            arguments["weight"] = rng.random(n) + 0.25
        return y
    if method in ("vjp", "jvp"):
        g = entries(rng.normal(size=(count, n)))
    else:
        y = rng.random((count, n)) * (rng.random((count, n)) < 0.7)
        y[:, 0] += 0.1
        g = entries(y / y.sum(axis=1, keepdims=True))
    if "where" in arguments and rng.random() < 0.3:
        g = np.where(np.broadcast_to(arguments["where"], probe.x.shape), g, np.nan)
    return laid(g.astype(kept), str(rng.choice(LAYOUTS[:-1])))
