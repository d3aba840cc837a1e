"""Random calls of the maps with a kernel: any arguments, lengths and layouts. How near a result must come stands in
native_bounds.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import softplex as sx
import tolerances
from frameworks import FLOATS, numpy_dtype

SIMPLEX = (sx.softmax, sx.softmin, sx.sparsemax, sx.entmax15, sx.entmax)
LOGARITHMS = (sx.log_softmax, sx.log_softmin)
NEGATED = (sx.softmin, sx.log_softmin)
BASIC = ("value", "vjp", "jvp")
TASKS = (*BASIC, "residual", "residual of index", "loss", "loss of index", "support_size", "smooth_max")
CALLS = [(map_, task) for map_ in SIMPLEX for task in TASKS] + [(map_, task) for map_ in LOGARITHMS for task in BASIC]
CALLS += [(sx.log_softmax, "cross_entropy"), (sx.log_softmax, "cross_entropy of rows")]
LOSSES = ("loss", "loss of index", "cross_entropy", "cross_entropy of rows")
BY_ROW = ("support_size", "smooth_max", *LOSSES)  # a number a row

ALPHAS = (1.0, 1 + 1e-9, 1.3, 1.5, 1.999999, 2.0, 2.000001, 3.0, 50.0, np.inf)
TEMPERATURES = (0.3, 7.0, 1e-3, 1e3, 1e-30, 1e30)
PARAMETERS = ("temperature", "sink", "alpha")
SHORT = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100)
LONG = (1000, 16_383, 16_384, 16_385, 40_000)
LAYOUTS = ("plain", "Fortran", "transposed", "strided", "negative", "unaligned", "shifted", "read-only", "foreign")
PLACES = ("plain", "Fortran", "strided", "negative", "unaligned", "foreign", "itself", "overlapping")
KINDS = 13  # of rows


@dataclass(frozen=True)
class Sample:
    """A call; `operand` is the cotangent, the tangent or the targets."""

    map: Any
    task: str
    dtype: str
    x: np.ndarray
    axis: Any = -1
    operand: np.ndarray | None = None
    arguments: dict = field(default_factory=dict)
    bound_alpha: float | None = None
    out: str | None = None
    note: str = ""

    def __repr__(self):
        given = {key: np.shape(value) or value for key, value in self.arguments.items()}
        bound = "" if self.bound_alpha is None else f"({self.bound_alpha})"
        call = f"{self.name}{bound} {self.task} {self.dtype} {self.x.shape} axis={self.axis} {given}"
        return f"{call} out={self.out} {self.note}"

    @property
    def name(self):
        return self.map.__name__

    @property
    def is_log(self):
        return self.map in LOGARITHMS

    @property
    def sign(self):
        return -1.0 if self.map in NEGATED else 1.0

    @property
    def has_classes(self):
        return self.task in ("residual of index", "loss of index", "cross_entropy")

    # -- calling ------------------------------------------------------------------------------------------------------

    def result(self, **more):
        """What the library makes of it."""
        given = {"axis": self.axis, **self.arguments, **more}
        called = self.map if self.bound_alpha is None else self.map.bind(alpha=self.bound_alpha)
        if self.task == "value":
            return called(self.x, **given, **self.place())
        if self.task.startswith("cross_entropy"):
            return sx.cross_entropy(self.x, self.operand, **given)
        operands = () if self.operand is None else (self.operand,)
        return getattr(called, self.task.removesuffix(" of index"))(self.x, *operands, **given)

    def place(self):
        """Where the result is to go."""
        if self.out is None:
            return {}
        if self.out == "itself":
            return {"out": self.x}
        if self.out == "overlapping":
            return {"out": self.x.base[1:]}
        return {"out": laid(np.ones(self.x.shape, numpy_dtype(self.dtype)), self.out)}

    # -- rows ---------------------------------------------------------------------------------------------------------

    @property
    def axes(self):
        given = range(self.x.ndim) if self.axis is None else np.atleast_1d(self.axis)
        return tuple(sorted(int(axis) % self.x.ndim for axis in given))

    @property
    def length(self):
        return int(np.prod([self.x.shape[axis] for axis in self.axes]))

    @property
    def batch(self):
        return tuple(size for axis, size in enumerate(self.x.shape) if axis not in self.axes)

    def rows(self, array):
        """An array that broadcasts to x's shape as (rows, n)."""
        first = self.x.ndim - len(self.axes)
        moved = np.moveaxis(np.broadcast_to(array, self.x.shape), self.axes, range(first, self.x.ndim))
        return moved.reshape(-1, self.length)

    def column(self, value):
        """A parameter as (rows, 1)."""
        shape = tuple(1 if axis in self.axes else size for axis, size in enumerate(self.x.shape))
        return np.broadcast_to(np.asarray(value, np.float64), shape).reshape(-1, 1)

    def as_rows(self, dtype=None):
        """The same call in its dtype or a wider one, of rows that lie plainly one after the other."""
        kept, wider = numpy_dtype(self.dtype), numpy_dtype(dtype or self.dtype)
        given = {key: value for key, value in self.arguments.items() if key in ("empty", "ignore_index", "weight")}
        given |= {key: self.column(self.arguments[key]) for key in PARAMETERS if key in self.arguments}
        if "where" in self.arguments:
            given["where"] = self.rows(self.arguments["where"])
        if self.task in LOSSES:
            given["reduction"] = "none"
        operand = self.operand
        with np.errstate(all="ignore"):
            x = np.array(self.rows(self.x).astype(kept), wider)
            if self.has_classes:
                operand = operand.reshape(-1)
            elif operand is not None:
                operand = np.array(self.rows(operand).astype(kept), wider)
        return replace(self, dtype=dtype or self.dtype, x=x, axis=-1, operand=operand, arguments=given, out=None)

    def row(self, place):
        """One of these rows by itself."""
        given = {key: float(self.arguments[key][place, 0]) for key in PARAMETERS if key in self.arguments}
        given |= {"where": self.arguments["where"][place]} if "where" in self.arguments else {}
        operand = None if self.operand is None else self.operand[place]
        return replace(self, x=self.x[place], operand=operand, arguments={**self.arguments, **given})


# -- layouts ----------------------------------------------------------------------------------------------------------


def laid(array, layout):
    """The same numbers, lying differently in memory."""
    if array.ndim == 0:
        return array.copy()
    if layout == "Fortran":
        return np.asfortranarray(array)
    if layout == "transposed":
        order = np.roll(np.arange(array.ndim), 1)
        return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if layout == "strided":
        wide = np.zeros(tuple(2 * size for size in array.shape), array.dtype)
        wide[(slice(None, None, 2),) * array.ndim] = array
        return wide[(slice(None, None, 2),) * array.ndim]
    if layout == "negative":
        back = (slice(None, None, -1),) * array.ndim
        return array[back].copy()[back]
    if layout in ("unaligned", "shifted"):
        return moved_by(array, 1 if layout == "unaligned" else array.itemsize)
    if layout == "foreign":
        return array.astype(array.dtype.newbyteorder()) if array.dtype.kind in "fiu" else array.copy()
    array = np.array(array, order="C")
    array.flags.writeable = layout != "read-only"
    return array


def moved_by(array, offset):
    """The same numbers some bytes behind the start of their memory."""
    room = np.zeros(array.nbytes + offset, np.uint8)
    moved = room[offset:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


# -- drawing ----------------------------------------------------------------------------------------------------------


def drawn(seed, map_, task, *, dtype=None, lengths=None, rows=None):
    """The call that belongs to a seed."""
    rng = np.random.default_rng(seed)
    dtype = dtype or str(rng.choice(FLOATS, p=(0.3, 0.4, 0.15, 0.15)))
    n = int(rng.choice(lengths or (LONG if rng.random() < 0.02 else SHORT)))
    shape, axis = drawn_shape(rng, n, rows or number_of_rows(rng, n))
    sample = Sample(map_, task, dtype, np.empty(shape, bool), axis, note=f"seed {seed}")
    scores = drawn_scores(rng, sample)
    sample = drawn_arguments(rng, replace(sample, x=scores.astype(numpy_dtype(dtype))))
    sample = replace(sample, operand=drawn_operand(rng, sample))
    if "where" in sample.arguments and rng.random() < 0.3:
        sample = with_nan_under_the_mask(sample)
    return with_layout(rng, sample)


def number_of_rows(rng, n):
    if n > 100:
        return 1 + (n < 20_000)
    return int(rng.choice([1, 2, 3, 5, 20, 40_000 // n], p=(0.2, 0.2, 0.2, 0.2, 0.18, 0.02)))


def drawn_shape(rng, n, rows):
    """A shape and the axes that make rows of n entries of it."""
    half = max(1, rows // 2)
    kind = rng.choice(["last", "last", "first", "middle", "tuple", "all", "alone"])
    if kind == "alone":
        return (n,), int(rng.choice([0, -1]))
    if kind == "all":
        return ((n,) if n % 2 else (2, n // 2)), None
    if kind == "tuple" and n % 2 == 0:
        return (2, rows, n // 2), ((2, 0) if rng.random() < 0.5 else (0, -1))
    if kind == "first":
        return (n, rows), 0
    if kind == "middle":
        return (half, n, 2), 1
    return ((rows, n), -1) if rows % 2 else ((2, half, n), 2)


def spread(sample, rows):
    """Rows put along the axes of x."""
    array = np.empty(sample.x.shape, rows.dtype)
    first = array.ndim - len(sample.axes)
    view = np.moveaxis(array, sample.axes, range(first, array.ndim))
    view[...] = rows.reshape(view.shape)
    return array


def drawn_scores(rng, sample):
    count = sample.x.size // sample.length
    rows = np.stack([drawn_row(rng, sample, kind) for kind in rng.choice(KINDS, min(count, 40))])
    with np.errstate(all="ignore"):
        return spread(sample, np.resize(rows, (count, sample.length))).astype(numpy_dtype(sample.dtype))


def drawn_row(rng, sample, kind):
    """A row of one of many kinds: spread, tied, flat, peaked, with infinities and NaN, tiny, huge."""
    n, dtype, lost = sample.length, sample.dtype, -sample.sign * np.inf
    row = rng.normal(size=n) * rng.choice([0.01, 0.3, 1.0, 4.0])
    if kind == 1:
        row = rng.uniform(-80, 80, n)
    elif kind == 2:
        row = np.full(n, 0.3)
    elif kind == 3:
        row = np.round(row * 2) / 2
    elif kind == 4:
        row += 1000.0
    elif kind == 5:
        row[rng.integers(n)] = sample.sign * 30.0
    elif kind == 6:
        row[rng.random(n) < 0.4] = lost
    elif kind == 7:
        row[rng.integers(n)] = rng.choice([np.nan, -lost])
    elif kind == 8:
        row = np.full(n, lost)
    elif kind == 9:
        row *= tolerances.smallest_normal(dtype)
    elif kind == 10:
        row *= 2.0 ** (-tolerances.SMALLEST_EXPONENT[dtype] - 3)
    elif kind == 11:
        row = 1.0 + rng.integers(0, 4, n) * 2.0 ** (1 - tolerances.PRECISION[dtype])
    return row


def drawn_arguments(rng, sample):
    """Temperature, sink, mask and alpha: each absent, a number or an array; and what a loss takes."""
    given, bound = {}, None
    if rng.random() < 0.4:
        given["temperature"] = drawn_parameter(rng, sample, TEMPERATURES)
    if rng.random() < 0.4:
        bad = [np.nan] if rng.random() < 0.05 else []
        given["sink"] = drawn_parameter(rng, sample, [0.0, 0.1, 2.0, 40.0, -sample.sign * np.inf, *bad])
    if rng.random() < 0.4:
        given["where"] = drawn_mask(rng, sample)
    if rng.random() < 0.3:
        given["empty"] = "nan"
    if sample.map is sx.entmax:
        if rng.random() < 0.2:
            bound = float(rng.choice(ALPHAS))
        elif rng.random() < 0.9:
            given["alpha"] = drawn_parameter(rng, sample, ALPHAS)
    if sample.task in LOSSES:
        given["reduction"] = str(rng.choice(["none", "none", "none", "sum", "mean"]))
    if sample.task in ("loss of index", "cross_entropy"):
        if rng.random() < 0.3:
            given["ignore_index"] = int(rng.integers(0, sample.length))
        if rng.random() < 0.3:
            given["weight"] = rng.random(sample.length) + 0.25
    return replace(sample, arguments=given, bound_alpha=bound)


def drawn_parameter(rng, sample, options):
    form = rng.choice(["number", "each row", "some axes"])
    if form == "number":
        return float(rng.choice(options))
    shape = tuple(1 if axis in sample.axes else size for axis, size in enumerate(sample.x.shape))
    if form == "some axes":
        shape = tuple(size if rng.random() < 0.5 else 1 for size in shape)
    return rng.choice(options, shape).astype(np.float64)


def drawn_mask(rng, sample):
    where = rng.random(sample.x.shape) < rng.choice([0.0, 0.3, 0.9], p=(0.1, 0.4, 0.5))
    form = rng.choice(["whole", "laid", "broadcast"])
    if form == "broadcast":
        return where[0] if where.ndim > 1 else where[:1]
    return laid(where, str(rng.choice(LAYOUTS[:5]))) if form == "laid" else where


def drawn_operand(rng, sample):
    """A cotangent, a tangent, a distribution or classes."""
    shape = (sample.x.size // sample.length, sample.length)
    if sample.task in ("value", "support_size", "smooth_max"):
        return None
    if sample.has_classes:
        narrow = "u1" if shape[1] < 256 else "u2" if shape[1] < 65_536 else "u4"
        return np.asarray(rng.integers(0, shape[1], sample.batch)).astype(rng.choice(["i8", "i4", narrow]))
    if sample.task in ("vjp", "jvp"):
        rows = rng.normal(size=shape)
    else:
        rows = rng.random(shape) * (rng.random(shape) < 0.7)
        rows[:, 0] += 0.1
        rows /= rows.sum(axis=1, keepdims=True)
    return spread(sample, rows).astype(numpy_dtype(sample.dtype))


def with_nan_under_the_mask(sample):
    hidden = ~np.broadcast_to(sample.arguments["where"], sample.x.shape)
    x, operand = sample.x.copy(), sample.operand
    x[hidden] = np.nan
    if operand is not None and not sample.has_classes:
        operand = operand.copy()
        operand[hidden] = np.nan
    return replace(sample, x=x, operand=operand)


def with_layout(rng, sample):
    """The arrays laid somehow, x perhaps in another dtype, and a place for the result."""
    layout = str(rng.choice(LAYOUTS))
    x, operand, arguments, out = sample.x, sample.operand, sample.arguments, None
    if operand is not None:
        operand = laid(operand, str(rng.choice(LAYOUTS)))
    if rng.random() < 0.1:
        layout, arguments = "plain", {**arguments, "dtype": numpy_dtype(sample.dtype)}
        x = (
            x.astype(np.float64)
            if rng.random() < 0.5
            else rng.integers(-9, 9, x.shape).astype(rng.choice(["i1", "i8"]))
        )
    elif rng.random() < 0.05:
        layout, x = "broadcast", np.broadcast_to(x[:1], x.shape)
    if layout != "broadcast":
        x = laid(x, layout)
    if sample.task == "value" and rng.random() < 0.5:
        out = str(rng.choice(PLACES))
    if out in ("itself", "overlapping") and (x.dtype != numpy_dtype(sample.dtype) or layout == "broadcast"):
        out = "plain"
    if out == "foreign" and sample.dtype == "bfloat16":
        out = "plain"
    if out == "itself" and layout == "read-only":
        x = x.copy()
    if out == "overlapping":
        room = np.zeros((x.shape[0] + 1, *x.shape[1:]), x.dtype)
        room[:-1] = x
        x = room[:-1]
    note = f"{layout}, {sample.note}"
    return replace(sample, x=x, operand=operand, arguments=arguments, out=out, note=note)


# -- maxout -----------------------------------------------------------------------------------------------------------


def drawn_maxout(seed):
    """A call of maxout: its scores with many ties, a cotangent and a tangent, its arguments, and a note."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(FLOATS))
    pieces, units = int(rng.choice([1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 300])), int(rng.choice([1, 2, 3, 5, 16, 33, 70]))
    arguments, shape, kept = drawn_groups(rng, pieces, units)
    x = np.round(rng.normal(size=shape) * rng.choice([0.0, 1.0, 100.0])) * rng.choice([-1.0, 1.0], shape)
    holes = rng.random(shape) * (rng.random() < 0.3)
    x = np.select([holes > 0.98, holes > 0.96, holes > 0.9], [np.nan, np.inf, -np.inf], x)
    layouts = [str(layout) for layout in rng.choice(LAYOUTS, 3)]
    g, t = np.asarray(rng.normal(size=kept)), rng.normal(size=shape)
    arrays = (laid(array.astype(numpy_dtype(dtype)), layout) for array, layout in zip((x, g, t), layouts, strict=True))
    return *arrays, arguments, f"maxout {dtype} {shape} {arguments} {layouts} seed {seed}"


def drawn_groups(rng, pieces, units):
    """Arguments of maxout, a shape of x that they fit and the shape of the result."""
    rows = int(rng.choice([1, 2, 9]))
    if rng.random() < 0.5:
        axis = int(rng.integers(3))
        shape = [rows, 2, 3]
        shape[axis] = units * pieces
        kept = [*shape[:axis], units, *shape[axis + 1 :]]
        layout = str(rng.choice(["contiguous", "strided"]))
        return {"pieces": pieces, "axis": axis, "layout": layout}, tuple(shape), tuple(kept)
    axis = [0, 1, 2, -1, (0, 2), (2, 1), None][rng.integers(7)]
    shape = (rows, units, pieces) if rng.random() < 0.5 else (pieces, rows, units)
    gone = range(3) if axis is None else [each % 3 for each in np.atleast_1d(axis)]
    return {"axis": axis}, shape, tuple(size for place, size in enumerate(shape) if place not in gone)
