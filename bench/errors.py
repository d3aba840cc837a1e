"""The largest errors that a search over hard inputs finds, softplex beside its peers on the same inputs.

    python bench/errors.py --seconds 10                    all cases; writes bench/results/errors-<date>.json
    python bench/errors.py --only softmax --dtype float32  one of them, printed only
    python bench/errors.py --quick                         a glance, printed only

A case is a function and a dtype. Its search alternates between fresh rows of every kind (scores over +-80, near-ties,
confident rows ...) and offspring of the worst rows found so far, of whatever library they were the worst for; every
library sees every row. It is guided by wide floats (64 bits or more; what is then looked at is right to some 2^-60 of
a result) and ends with mpmath: the error that is reported is that of the worst row against tests/reference.py, which
computes from the definitions. Rows of 10^7 entries rest on the wide floats alone. Nothing here is timed.

The units are those of section 4 of the contract, and so are the results that count: normal numbers of the dtype
(float16: its subnormals too). The bounds are those of the kernels. With the same seed, the same --rounds gives the
same rows (--seconds stops where the clock does).
"""

import argparse
import itertools
import json
import platform
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
for folder in ("src", "tests", "bench"):
    if str(ROOT / folder) not in sys.path:
        sys.path.append(str(ROOT / folder))

import reference  # noqa: E402
import tolerances  # noqa: E402
from frameworks import FLOATS, numpy_dtype  # noqa: E402
from tolerances import ITSELF, MAX, ONE, PRECISION, SMALLEST_EXPONENT  # noqa: E402

SEED = 20240607
LENGTHS = (2, 3, 17, 64, 1000)
LONG = 10**7
SHOWN = 64  # rows up to this length are kept in the file, number by number
TERM = "largest term"
WIDE = np.longdouble
WIDE_ENOUGH = np.finfo(WIDE).nmant >= 63


# ---- exact results in wide floats, all rows of a batch at once


@dataclass
class Exact:
    """Results, what their errors are counted in ULPs of, and how far each score lies from the threshold."""

    values: Any
    scale: Any
    distances: Any = None


def wide(numbers: Any) -> Any:
    return np.asarray(numbers, np.float64).astype(WIDE)


def gaps(x: Any) -> tuple[Any, Any]:
    """x - max x, and what rounding took from it (Knuth's two-sum)."""
    top = x.max(axis=1, keepdims=True)
    gap = x - top
    back = gap - x
    return gap, (x - (gap - back)) - (top + back)


def raised(x: Any) -> tuple[Any, Any, Any, Any]:
    """The gaps, their errors, exp of both, and the sum of the exponentials but for one leading 1."""
    gap, lost = gaps(x)
    powers = np.exp(gap)
    powers += powers * lost
    lead = gap.argmax(axis=1)[:, None]
    np.put_along_axis(powers, lead, 0, axis=1)
    rest = powers.sum(axis=1, keepdims=True)
    np.put_along_axis(powers, lead, 1, axis=1)
    return gap, lost, powers, rest


def softmax(x: Any, extra: Any, alpha: Any) -> Exact:
    _, _, powers, rest = raised(x)
    values = powers / (1 + rest)
    return Exact(values, values)


def log_softmax(x: Any, extra: Any, alpha: Any) -> Exact:
    gap, lost, _, rest = raised(x)
    values = gap + (lost - np.log1p(rest))
    return Exact(values, values)


def softmin(x: Any, extra: Any, alpha: Any) -> Exact:
    return softmax(-x, extra, alpha)


def log_softmin(x: Any, extra: Any, alpha: Any) -> Exact:
    return log_softmax(-x, extra, alpha)


def softmax_vjp(x: Any, g: Any, alpha: Any) -> Exact:
    _, _, powers, rest = raised(x)
    p, g = powers / (1 + rest), wide(g)
    terms = np.abs(p * g)
    largest = np.maximum(
        terms.max(axis=1, keepdims=True), p.max(axis=1, keepdims=True) * terms.sum(axis=1, keepdims=True)
    )
    return Exact(p * (g - (p * g).sum(axis=1, keepdims=True)), largest)


def cross_entropy(x: Any, y: Any, alpha: Any) -> Exact:
    values = -np.take_along_axis(log_softmax(x, None, None).values, y[:, None], axis=1)
    return Exact(values, values)


def residual(x: Any, y: Any, alpha: Any) -> Exact:
    """p, and at the target the sum of all the others, negated."""
    _, _, powers, rest = raised(x)
    others = powers.copy()
    np.put_along_axis(others, y[:, None], 0, axis=1)
    np.put_along_axis(powers, y[:, None], -others.sum(axis=1, keepdims=True), axis=1)
    values = powers / (1 + rest)
    return Exact(values, values)


def root_of_convex(start: Any, least: float, excess: Callable[[Any], tuple[Any, Any]]) -> Any:
    """Newton's method from the right on convex increasing functions, one a row; `excess` gives value and slope.

    Steps go left until they are noise; of a root below `least` only the absolute error matters.
    """
    place, tolerance = start, 4 * np.finfo(WIDE).eps
    for _ in range(200):
        value, slope = excess(place)
        step = value / slope
        place = place - step
        if np.all(step <= tolerance * np.maximum(place, least)):
            break
    return place


def from_top(gap: Any, a: Any) -> tuple[Any, Any]:
    """Weights w (1 + a gap / w^a)_+^(1/a) over the largest one, w, for a <= 1; and the distances from tau."""

    def weights(w: Any) -> Any:
        if a == 1:
            return np.maximum(w + gap, 0)
        if a == 0.5:
            return np.maximum(np.sqrt(w) + gap / 2, 0) ** 2
        return w * np.exp(np.log1p(np.maximum(a * gap * np.exp(-a * np.log(w)), -1)) / a)

    def excess(w: Any) -> tuple[Any, Any]:
        p = weights(w)
        slopes = (p > 0) if a == 1 else np.sqrt(p / w) if a == 0.5 else np.exp((1 - a) * np.log(p / w))
        return p.sum(axis=1, keepdims=True) - 1, slopes.sum(axis=1, keepdims=True)

    w = root_of_convex(np.ones((len(gap), 1), WIDE), 1 / gap.shape[1], excess)
    return weights(w), gap + w**a / a


def from_last(gap: Any, a: Any) -> tuple[Any, Any]:
    """Weights (v^a + a (gap - last))^(1/a) over the smallest one, v, for a > 1; and the distances from tau."""
    ranked = -np.sort(-gap, axis=1)

    def over(last: Any, v: Any) -> Any:
        base = np.where(gap >= last, v**a + a * (gap - last), 0)
        return np.exp(np.log(base) / a)

    low, high = np.ones((len(gap), 1), np.int64), np.full((len(gap), 1), gap.shape[1])
    while np.any(low < high):  # the largest count whose smallest score can still be supported
        middle = (low + high + 1) // 2
        inside = over(np.take_along_axis(ranked, middle - 1, axis=1), WIDE(0)).sum(axis=1, keepdims=True) < 1
        low, high = np.where(inside, middle, low), np.where(inside, high, middle - 1)
    last = np.take_along_axis(ranked, low - 1, axis=1)

    def excess(v: Any) -> tuple[Any, Any]:
        p = over(last, v)
        slopes = np.where(p > 0, (v / np.where(p > 0, p, 1)) ** (a - 1), 0)
        return p.sum(axis=1, keepdims=True) - 1, slopes.sum(axis=1, keepdims=True)

    # The noise is that of a sum of 1, and where it matters (float64) these weights are measured by 1.
    v = root_of_convex(WIDE(1) / np.sum(gap >= last, axis=1, keepdims=True), 4.0, excess)
    return over(last, v), gap - last + v**a / a


def entmax(x: Any, extra: Any, alpha: Any) -> Exact:
    gap, a = gaps(x)[0], WIDE(alpha) - 1
    near = gap[0] > -1 / a if len(gap) == 1 else slice(None)  # of a long row only what can have weight is solved for
    p, distances = (from_top if a <= 1 else from_last)(gap[:, near], a)
    values, apart = np.zeros_like(gap), np.full_like(gap, -np.inf)
    values[:, near], apart[:, near] = p, distances
    return Exact(values, values.max(axis=1, keepdims=True), apart)


# ---- functions


@dataclass(frozen=True)
class Function:
    """A function under search: its name in the libraries and in the reference, and how its errors are counted."""

    name: str
    exact: Callable[[Any, Any, Any], Exact]
    row: str  # the map in tests/reference.py
    unit: str = ITSELF
    alpha: float | None = None
    extra: str = ""  # what comes with the scores: "", "cotangent" or "index"
    elements: int = 50_000  # scores in a batch: fewer where they cost more
    lengths: tuple[int, ...] = LENGTHS
    is_long: bool = False  # whether it is tried on rows of 10^7 too
    method: str = "values"

    @property
    def label(self) -> str:
        return self.name if self.alpha is None else f"{self.name}, alpha = {shown_alpha(self.alpha)}"

    def unit_in(self, dtype: str) -> str:
        if self.name == "entmax":
            return tolerances.value_bound("entmax", dtype, alpha=self.alpha).of
        return self.unit

    def bound(self, dtype: str) -> float:
        if self.method == "vjp":
            return tolerances.linear_bound(dtype, formulas=False)
        if self.method == "cross_entropy":
            return tolerances.cross_entropy_bound(dtype, formulas=False)
        if self.method == "residual":
            return tolerances.residual_bound(dtype, formulas=False)
        return tolerances.value_bound(self.row, dtype, alpha=self.alpha, formulas=False).ulps


def shown_alpha(alpha: float) -> str:
    near = round(alpha)
    return f"{alpha:g}" if abs(alpha - near) > 1e-3 or alpha == near else f"{near} {'+' if alpha > near else '-'} 1e-6"


ALPHAS = (1 + 1e-6, 1.3, 2 - 1e-6, 2.0, 2 + 1e-6, 2.5, 50.0)
FUNCTIONS = (
    Function("softmax", softmax, "softmax", is_long=True),
    Function("log_softmax", log_softmax, "log_softmax", is_long=True),
    Function("softmin", softmin, "softmin"),
    Function("log_softmin", log_softmin, "log_softmin"),
    Function("sparsemax", lambda x, extra, alpha: entmax(x, extra, 2.0), "sparsemax", MAX, is_long=True),
    Function("entmax15", lambda x, extra, alpha: entmax(x, extra, 1.5), "entmax15", MAX, is_long=True),
    *(
        Function(
            "entmax",
            entmax,
            "entmax",
            MAX,
            alpha,
            elements=10_000,
            # The reference counts the support one by one, each count with a sum of powers.
            lengths=LENGTHS if alpha <= 2 else LENGTHS[:-1],
        )
        for alpha in ALPHAS
    ),
    Function("softmax vjp", softmax_vjp, "softmax", TERM, extra="cotangent", is_long=True, method="vjp"),
    Function("cross-entropy", cross_entropy, "softmax", extra="index", is_long=True, method="cross_entropy"),
    Function("residual", residual, "softmax", extra="index", is_long=True, method="residual"),
)


# ---- libraries: functions (x, extra, alpha) by name, from NumPy arrays of a dtype to numbers


@dataclass
class Library:
    """What a library offers of the functions above."""

    name: str
    package: str
    functions: dict[str, Callable[[Any, Any, Any], Any]] = field(default_factory=dict)


def softplex_library() -> Library:
    import softplex as sx

    return Library(
        "softplex",
        "softplex",
        {name: plain(getattr(sx, name)) for name in (*tolerances.SOFTMAX_FAMILY, *tolerances.CLOSED)}
        | {
            "entmax": lambda x, extra, alpha: sx.entmax(x, alpha=alpha),
            "softmax vjp": lambda x, g, alpha: sx.softmax.vjp(x, g),
            "cross-entropy": lambda x, y, alpha: sx.softmax.loss(x, y, reduction="none"),
            "residual": lambda x, y, alpha: sx.softmax.residual(x, y),
        },
    )


def plain(function: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    return lambda x, extra, alpha: function(x)


def tensor(array: Any) -> Any:
    """An array of any of the dtypes as a tensor of the same."""
    import torch

    return torch.from_numpy(np.array(array, np.float64)).to(getattr(torch, str(array.dtype)))


def torch_library() -> Library:
    import torch
    from torch.nn import functional

    def on_tensors(function: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
        return lambda x, extra, alpha: function(tensor(x), dim=-1).double().numpy()

    def vjp(x: Any, g: Any, alpha: Any) -> Any:
        scores = tensor(x).requires_grad_()
        torch.softmax(scores, dim=-1).backward(tensor(g))
        return scores.grad.double().numpy()

    def loss(x: Any, y: Any, alpha: Any) -> Any:
        return functional.cross_entropy(tensor(x), torch.from_numpy(y), reduction="none").double().numpy()

    def gradient(x: Any, y: Any, alpha: Any) -> Any:
        scores = tensor(x).requires_grad_()
        functional.cross_entropy(scores, torch.from_numpy(y), reduction="none").sum().backward()
        return scores.grad.double().numpy()

    return Library(
        "PyTorch",
        "torch",
        {
            "softmax": on_tensors(torch.softmax),
            "log_softmax": on_tensors(torch.log_softmax),
            "softmin": on_tensors(functional.softmin),
            "softmax vjp": vjp,
            "cross-entropy": loss,
            "residual": gradient,
        },
    )


def scipy_library() -> Library:
    from scipy import special

    return Library(
        "SciPy",
        "scipy",
        {
            "softmax": plain(lambda x: special.softmax(x, axis=-1)),
            "log_softmax": plain(lambda x: special.log_softmax(x, axis=-1)),
        },
    )


def jax_library() -> Library:
    import jax

    jax.config.update("jax_enable_x64", True)

    def losses(x: Any, y: Any) -> Any:
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1)

    return Library(
        "JAX",
        "jax",
        {
            "softmax": plain(jax.nn.softmax),
            "log_softmax": plain(jax.nn.log_softmax),
            "softmax vjp": lambda x, g, alpha: jax.vjp(jax.nn.softmax, x)[1](g)[0],
            "cross-entropy": lambda x, y, alpha: losses(x, y),
            "residual": lambda x, y, alpha: jax.grad(lambda scores: losses(scores, y).sum())(x),
        },
    )


def entmax_library() -> Library:
    import entmax as package

    def on_tensors(function: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
        return lambda x, extra, alpha: function(tensor(x), dim=-1).double().numpy()

    return Library(
        "entmax",
        "entmax",
        {
            "sparsemax": on_tensors(package.sparsemax),
            "entmax15": on_tensors(package.entmax15),
            "entmax": lambda x, extra, alpha: package.entmax_bisect(tensor(x), alpha=alpha, dim=-1).double().numpy(),
        },
    )


LIBRARIES = (softplex_library, torch_library, scipy_library, jax_library, entmax_library)


def installed_libraries() -> list[Library]:
    found = []
    for make in LIBRARIES:
        try:
            found.append(make())
        except ImportError as error:
            print(f"left out: {make.__name__.removesuffix('_library')} ({error})")
    return found


# ---- kinds of inputs: (random generator, rows, length, dtype) to scores, still in float64


def over_80(rng: Any, rows: int, n: int, dtype: str) -> Any:
    return rng.uniform(-80, 80, (rows, n))


def over_5000(rng: Any, rows: int, n: int, dtype: str) -> Any:
    return rng.uniform(-5000, 5000, (rows, n))


def far_from_zero(rng: Any, rows: int, n: int, dtype: str) -> Any:
    return rng.normal(size=(rows, n)) + rng.choice([-1, 1], (rows, 1)) * 10 ** rng.uniform(1, 4, (rows, 1))


def near_ties(rng: Any, rows: int, n: int, dtype: str) -> Any:
    center = rng.normal(size=(rows, 1)) * 10 ** rng.uniform(-1, 1.5, (rows, 1))
    return center + spacing(dtype, center) * rng.integers(-4, 5, (rows, n))


def flat(rng: Any, rows: int, n: int, dtype: str) -> Any:
    return np.broadcast_to(rng.normal(size=(rows, 1)), (rows, n))


def confident(rng: Any, rows: int, n: int, dtype: str) -> Any:
    """One score far above the rest, as far as the rest's weights stay normal numbers."""
    x = rng.normal(size=(rows, n))
    x[np.arange(rows), rng.integers(n, size=rows)] += rng.uniform(1, -SMALLEST_EXPONENT[dtype] * 0.68, rows)
    return x


def leaders(rng: Any, rows: int, n: int, dtype: str) -> Any:
    x = rng.uniform(-40, -2, (rows, n))
    count = min(n, 3)
    x[:, :count] = rng.uniform(-1, 0, (rows, count)) * rng.random((rows, 1)) * rng.integers(0, 2, (rows, count))
    return rng.permuted(x, axis=1)


def normal(rng: Any, rows: int, n: int, dtype: str) -> Any:
    return rng.normal(size=(rows, n))


def of_any_scale(rng: Any, rows: int, n: int, dtype: str) -> Any:
    return rng.normal(size=(rows, n)) * 10 ** rng.uniform(-3, 2, (rows, 1))


def within_reach(rng: Any, rows: int, n: int, dtype: str) -> Any:
    """Scores near enough to the maximum for sparse weights of every support."""
    return -rng.uniform(0, 2, (rows, 1)) * rng.random((rows, n)) ** rng.choice([0.2, 1, 3], (rows, 1))


def one_above_many(rng: Any, rows: int, n: int, dtype: str) -> Any:
    """Equal scores below one: what the weight of one of them lacks, all of them lack."""
    x = np.repeat(-np.log(n) * rng.uniform(0, 1.3, (rows, 1)), n, axis=1)
    x[:, 0] = 0
    return x + rng.normal(size=(rows, 1)) * 10 ** rng.uniform(-1, 1, (rows, 1))


KINDS: dict[str, Callable[[Any, int, int, str], Any]] = {
    "over ±80": over_80,
    "over ±5000": over_5000,
    "far from 0": far_from_zero,
    "near-ties": near_ties,
    "flat": flat,
    "confident": confident,
    "leaders": leaders,
    "normal": normal,
    "of any scale": of_any_scale,
    "within reach": within_reach,
    "one above many": one_above_many,
}
LONG_KINDS: dict[str, Callable[[Any, int, int, str], Any]] = {
    "{size} entries, uniform": lambda rng, rows, n, dtype: rng.uniform(-1, 1, (rows, n)),
    "{size} entries, N(0, 2)": lambda rng, rows, n, dtype: rng.normal(size=(rows, n)) * 2,
}


@dataclass
class Batch:
    """Rows of one length, each of a kind, with a cotangent or an index each where the function takes one."""

    x: Any
    kinds: Any
    extra: Any = None


def rounded(dtype: str, numbers: Any) -> Any:
    """Numbers as they are once they have the dtype, in float64."""
    return np.asarray(numbers, np.float64).astype(numpy_dtype(dtype)).astype(np.float64)


def extra_for(function: Function, rng: Any, x: Any, dtype: str) -> Any:
    rows, n = x.shape
    if function.extra == "index":
        return np.where(rng.random(rows) < 0.5, x.argmax(axis=1), rng.integers(n, size=rows))
    if function.extra == "cotangent":
        g = rng.normal(size=x.shape)
        nearly_even = rng.random((rows, 1)) < 0.3
        return rounded(dtype, np.where(nearly_even, 1 + g * 10 ** rng.uniform(-4, 0, (rows, 1)), g))
    return None


def fresh(function: Function, rng: Any, n: int, dtype: str) -> Batch:
    """The same number of rows of every kind."""
    each = max(2, function.elements // n // len(KINDS))
    x = rounded(dtype, np.concatenate([make(rng, each, n, dtype) for make in KINDS.values()]))
    return Batch(x, np.repeat(list(KINDS), each), extra_for(function, rng, x, dtype))


# ---- offspring


def spacing(dtype: str, values: Any) -> Any:
    """One ULP of the dtype at each of the values."""
    values = np.abs(values)
    exponent = np.where(values == 0, SMALLEST_EXPONENT[dtype], np.frexp(values)[1] - 1)
    one = np.ones((), values.dtype)
    return np.ldexp(one, np.maximum(exponent, SMALLEST_EXPONENT[dtype]) - PRECISION[dtype] + 1)


def nudged(rng: Any, x: Any, dtype: str) -> Any:
    moves = rng.integers(-4, 5, x.shape) * (rng.random(x.shape) < rng.random((len(x), 1)))
    return x + moves * spacing(dtype, x)


def shifted(rng: Any, x: Any, dtype: str) -> Any:
    return x + rng.normal(size=(len(x), 1)) * 10 ** rng.uniform(-3, 2, (len(x), 1))


def scaled(rng: Any, x: Any, dtype: str) -> Any:
    return x * np.exp2(rng.normal(size=(len(x), 1)) * rng.choice([1e-3, 0.3], (len(x), 1)))


def tied(rng: Any, x: Any, dtype: str) -> Any:
    one, other = rng.integers(x.shape[1], size=(2, len(x), 1))
    x = x.copy()
    np.put_along_axis(x, one, np.take_along_axis(x, other, axis=1), axis=1)
    return x


def redrawn(rng: Any, x: Any, dtype: str) -> Any:
    x = x.copy()
    x[np.arange(len(x)), rng.integers(x.shape[1], size=len(x))] += rng.normal(size=len(x)) * 10 ** rng.uniform(
        -4, 1, len(x)
    )
    return x


def reordered(rng: Any, x: Any, dtype: str) -> Any:
    return rng.permuted(x, axis=1)


CHANGES = (nudged, nudged, shifted, scaled, tied, redrawn, redrawn, reordered)


def changed(rng: Any, x: Any, dtype: str) -> Any:
    """Every row changed in one of the ways."""
    way, made = rng.integers(len(CHANGES), size=len(x)), x.copy()
    for place, change in enumerate(CHANGES):
        made[way == place] = change(rng, x[way == place], dtype)
    return np.clip(made, -2e4, 2e4)


@dataclass
class Champion:
    """A row that was the worst of its kind for a library."""

    error: float
    kind: str
    x: Any
    extra: Any
    found: Any
    entry: int


def resized(rng: Any, parent: Champion, n: int) -> tuple[Any, Any]:
    """A row of another length: entries left out, or repeated."""
    places = np.sort(rng.choice(len(parent.x), n, replace=n > len(parent.x)))
    if parent.extra is None or np.ndim(parent.extra):
        return parent.x[places], None if parent.extra is None else parent.extra[places]
    kept = np.flatnonzero(places == parent.extra)
    return parent.x[places], kept[0] if kept.size else rng.integers(n)


def bred(function: Function, rng: Any, n: int, dtype: str, champions: dict[Any, Champion]) -> Batch:
    """Offspring of the champions of this length, and of some of the others brought to it."""
    parents = [(each.kind, each.x, each.extra) for (*_, size), each in champions.items() if size == n]
    others = [each for (*_, size), each in champions.items() if size != n]
    guests = [others[place] for place in rng.choice(len(others), min(len(others), 8), replace=False)]
    parents += [(each.kind, *resized(rng, each, n)) for each in guests]
    rows = max(10, function.elements // n)
    order = rng.permutation(len(parents))[np.arange(rows) % len(parents)]
    x = changed(rng, np.stack([x for _, x, _ in parents])[order], dtype)
    again = rng.random(rows) < 0.5
    x[again] = changed(rng, x[again], dtype)
    x = rounded(dtype, x)
    kinds = np.array([f"from {kind.removeprefix('from ')}" for kind, *_ in parents])
    return Batch(x, kinds[order], inherited(function, rng, x, dtype, [extra for *_, extra in parents], order))


def inherited(function: Function, rng: Any, x: Any, dtype: str, extras: list[Any], order: Any) -> Any:
    """The parents' cotangents or indices, some of them drawn again."""
    renewed = extra_for(function, rng, x, dtype)
    if renewed is None:
        return None
    again = (rng.random(len(x)) < 0.2).reshape(-1, *[1] * (renewed.ndim - 1))
    return np.where(again, renewed, np.stack(extras)[order])


# ---- the search


@dataclass
class Tally:
    """What a library did over all the rows of a case."""

    not_numbers: int = 0
    example: Any = None  # the first row that gave NaN or an infinity
    wrong_support: int = 0
    raised: str = ""


def answer(call: Callable[..., Any], function: Function, dtype: str, batch: Batch) -> Any:
    x, extra = batch.x.astype(numpy_dtype(dtype)), batch.extra
    if function.extra == "cotangent":
        extra = extra.astype(numpy_dtype(dtype))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = np.asarray(call(x, extra, function.alpha)).astype(np.float64)
    return found.reshape(len(x), -1)


def counted(exact: Exact, unit: str, dtype: str) -> tuple[Any, Any]:
    """The ULP of each result, and which results count."""
    scale = np.ones((1, 1), WIDE) if unit == ONE else exact.scale
    counts = np.abs(scale) >= tolerances.smallest_promised(dtype)
    return spacing(dtype, scale), counts & (np.abs(exact.values) <= tolerances.largest(dtype))


def wrong_supports(found: Any, exact: Exact, dtype: str) -> int:
    """Zeros inside of the support and weights outside of it, but for entries within 4 ULP of 1 of the threshold."""
    if exact.distances is None:
        return 0
    clear = (np.abs(exact.distances) > tolerances.boundary(dtype)) & np.isfinite(found)
    missed = (exact.values >= tolerances.smallest_normal(dtype)) & (found == 0)
    return int(np.sum(clear & (missed | ((exact.distances < 0) & (found != 0)))))


class Search:
    """One case: the worst rows of every kind and length for every library."""

    def __init__(self, function: Function, dtype: str, libraries: list[Library]) -> None:
        self.function, self.dtype = function, dtype
        self.unit = function.unit_in(dtype)
        self.calls = {each.name: each.functions[function.name] for each in libraries if function.name in each.functions}
        self.tallies = {name: Tally() for name in self.calls}
        self.champions: dict[tuple[str, str, int], Champion] = {}
        self.rounds, self.rows = 0, 0

    def run(self, *, seconds: float, rounds: int | None, seed: int, size: int) -> None:
        """Rounds until the time is over or their number is reached, then the long rows."""
        start, lengths = time.monotonic(), self.function.lengths
        for number in itertools.count():
            # A clock that stops the first turn through the lengths would leave some untried.
            late = number >= 2 * len(lengths) and time.monotonic() - start > seconds
            if late if rounds is None else number >= rounds:
                break
            rng = self.generator(seed, number)
            n = lengths[number // 2 % len(lengths)]
            self.judge(self.fresh_or_bred(rng, n, number))
            self.rounds += 1
        for number, (name, make) in enumerate(LONG_KINDS.items() if self.function.is_long and size else ()):
            rng = self.generator(seed, -1 - number)
            x = rounded(self.dtype, make(rng, 1, size, self.dtype))
            extra = extra_for(self.function, rng, x, self.dtype)
            self.judge(Batch(x, np.array([name.format(size=shown_size(size))]), extra))

    def generator(self, seed: int, number: int) -> Any:
        case = zlib.crc32(f"{self.function.label} {self.dtype}".encode())
        return np.random.default_rng([seed, case, number % 2**32])

    def fresh_or_bred(self, rng: Any, n: int, number: int) -> Batch:
        if number % 2 == 0 or not self.champions:
            return fresh(self.function, rng, n, self.dtype)
        return bred(self.function, rng, n, self.dtype, self.champions)

    def judge(self, batch: Batch) -> None:
        """Every library on the same rows."""
        with np.errstate(all="ignore"):
            exact = self.function.exact(wide(batch.x), batch.extra, self.function.alpha)
        ulps, counts = counted(exact, self.unit, self.dtype)
        self.rows += len(batch.x)
        for name, call in self.calls.items():
            tally = self.tallies[name]
            if tally.raised:
                continue
            try:
                found = answer(call, self.function, self.dtype, batch)
            except Exception as failure:  # noqa: BLE001 - what a library raises is the finding
                tally.raised = type(failure).__name__
                continue
            errors = np.where(counts, np.abs(wide(found) - exact.values) / ulps, 0).astype(np.float64)
            lost = counts & ~np.isfinite(found)
            self.note(name, tally, batch, found, lost, exact)
            errors[lost] = 0.0
            self.keep(name, batch, found, errors)

    def note(self, name: str, tally: Tally, batch: Batch, found: Any, lost: Any, exact: Exact) -> None:
        rows = np.flatnonzero(lost.any(axis=1))
        tally.not_numbers += len(rows)
        if rows.size and tally.example is None:
            tally.example = batch.x[rows[0]]
        tally.wrong_support += wrong_supports(found, exact, self.dtype)

    def keep(self, name: str, batch: Batch, found: Any, errors: Any) -> None:
        worst = errors.max(axis=1)
        for kind in np.unique(batch.kinds):
            rows = np.flatnonzero(batch.kinds == kind)
            row = rows[worst[rows].argmax()]
            key = (name, str(kind), batch.x.shape[1])
            if key not in self.champions or worst[row] > self.champions[key].error:
                extra = None if batch.extra is None else batch.extra[row].copy()
                self.champions[key] = Champion(
                    float(worst[row]), key[1], batch.x[row].copy(), extra, found[row].copy(), int(errors[row].argmax())
                )

    # -- what is reported

    def worst(self, name: str) -> list[Champion]:
        mine = [each for (owner, *_), each in self.champions.items() if owner == name]
        return sorted(mine, key=lambda each: -each.error)

    def confirmed(self, name: str) -> dict[str, Any]:
        """The worst row by mpmath: the next ones too, should the wide floats have been wrong about the first."""
        best: dict[str, Any] = {}
        for champion in self.worst(name)[:5]:
            if best and champion.error <= best["error"] * 1.01 + 0.01:
                break
            is_long = len(champion.x) > max(LENGTHS)
            error, entry, exact = (
                (champion.error, champion.entry, None)
                if is_long
                else exact_error(self.function, self.dtype, champion, self.unit)
            )
            if not best or error > best["error"]:
                best = {"error": error, "by": "wide floats" if is_long else "mpmath"}
                best |= described(champion, self.dtype, entry, exact)
        return best

    def result(self, name: str) -> dict[str, Any]:
        tally = self.tallies[name]
        if tally.raised:
            return {"raises": tally.raised}
        by_kind: dict[str, float] = {}
        for champion in self.worst(name):
            by_kind.setdefault(champion.kind, float(f"{champion.error:.4g}"))
        found = self.confirmed(name) | {"by kind": by_kind}
        if tally.not_numbers:
            found |= {"rows with NaN or infinities": tally.not_numbers, "first of them": shown_row(tally.example)}
        if tally.wrong_support:
            found["entries on the wrong side of the threshold"] = tally.wrong_support
        return found

    def report(self) -> dict[str, Any]:
        return {
            "function": self.function.label,
            "dtype": self.dtype,
            "unit": f"ULP of {'the ' if self.unit == TERM else ''}{self.unit}",
            "bound": self.function.bound(self.dtype),
            "rounds": self.rounds,
            "rows": self.rows,
            "results": {name: self.result(name) for name in self.calls},
        }


def exact_error(function: Function, dtype: str, champion: Champion, unit: str) -> tuple[float, int, Any]:
    """The largest error of a row's results against mpmath, in which entry, and the exact result there."""
    hyper = {} if function.alpha is None else {"alpha": function.alpha}
    row = reference.Row(function.row, champion.x, **hyper)
    values, scale = exact_row(function, row, champion.extra, unit)
    errors = []
    for found, value in zip(champion.found.tolist(), values, strict=True):
        at = abs(value) if scale is None else scale
        counts = tolerances.smallest_promised(dtype) <= at and abs(value) <= tolerances.largest(dtype)
        is_number = np.isfinite(found)
        errors.append(float(abs(reference.mpf(found) - value) / tolerances.ulp(dtype, at)) if counts & is_number else 0)
    entry = int(np.argmax(errors))
    return float(errors[entry]), entry, values[entry]


def exact_row(function: Function, row: Any, extra: Any, unit: str) -> tuple[list[Any], Any]:
    """The exact results of a row, and what their errors are counted in: None where each is its own measure."""
    if function.method == "vjp":
        return row.vjp(extra), row.linear_scale(extra)
    if function.method == "cross_entropy":
        return [row.cross_entropy(int(extra))], None
    if function.method == "residual":
        return row.residual(int(extra)), None
    return row.values, {ITSELF: None, MAX: max(row.solved.weights), ONE: reference.ONE}[unit]


def described(champion: Champion, dtype: str, entry: int, exact: Any) -> dict[str, Any]:
    """A row for the file, with what was given and found, so that anyone can check it."""
    found: dict[str, Any] = {"kind": champion.kind, "length": len(champion.x), "entry": entry}
    found["found"] = repr(float(champion.found[entry]))
    if exact is not None:
        found["exact"] = reference.exact.nstr(exact, 25)
    if len(champion.x) <= SHOWN:
        found["x"] = shown_row(champion.x)
        if champion.extra is not None:
            found["index" if np.ndim(champion.extra) == 0 else "cotangent"] = (
                int(champion.extra) if np.ndim(champion.extra) == 0 else shown_row(champion.extra)
            )
    return found


def shown_row(row: Any) -> str:
    return " ".join(repr(float(value)) for value in row[:SHOWN])


def shown_size(size: int) -> str:
    power = round(np.log10(size))
    return f"10^{power}" if size == 10**power else str(size)


# ---- all cases, the file and the table


def cases(only: str | None, dtype: str | None) -> Iterator[tuple[Function, str]]:
    for function in FUNCTIONS:
        for each in FLOATS:
            if only in (None, function.name, function.label) and dtype in (None, each):
                yield function, each


def measure(chosen: list[tuple[Function, str]], *, seconds: float, rounds: int | None, seed: int, size: int) -> Any:
    import compare

    libraries = installed_libraries()
    found = []
    for function, dtype in chosen:
        search = Search(function, dtype, libraries)
        search.run(seconds=seconds, rounds=rounds, seed=seed, size=size)
        found.append(search.report())
        print(case_line(found[-1]), flush=True)
    import softplex as sx

    info = sx.info()
    return {
        "date": compare.today(),
        "machine": {"cpu": compare.cpu_model(), "system": platform.system(), "architecture": platform.machine()},
        "versions": {each.name: compare.version_of(each) for each in libraries}
        | {"NumPy": np.__version__, "Python": platform.python_version(), "mpmath": compare.mpmath.__version__},
        "instruction set": info["instruction set"],
        "settings": {
            "seed": seed,
            "seconds a case": seconds,
            "rounds a case": rounds,
            "long rows": size,
            "bits of the wide floats": int(np.finfo(WIDE).nmant) + 1,
        },
        "cases": found,
    }


def case_line(case: dict[str, Any]) -> str:
    figures = "; ".join(f"{name} {cell(result)} ({result.get('kind')})" for name, result in case["results"].items())
    return (
        f"{case['function']}, {case['dtype']}, {case['unit']}, bound {case['bound']}: {figures} [{case['rows']} rows]"
    )


def cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "–"
    if "raises" in result:
        return f"raises {result['raises']}"
    number = shown_number(result["error"])
    wrong = "†" if "entries on the wrong side of the threshold" in result else ""
    return f"{number}{wrong}{', NaN' if 'rows with NaN or infinities' in result else ''}"


def shown_number(value: float) -> str:
    if value >= 1e4:
        digits, _, exponent = f"{value:.0e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"


def table(found: dict[str, Any], source: str, dtypes: tuple[str, ...] = FLOATS) -> str:
    """The errors as Markdown, a library a column; `dtypes` leaves some rows out."""
    names = [name for name in found["versions"] if name not in ("NumPy", "Python", "mpmath")]
    lines = [f"| | unit | bound | {' | '.join(names)} | hardest for {names[0]} |", "|---" * (len(names) + 4) + "|"]
    for case in found["cases"]:
        if case["dtype"] in dtypes:
            cells = [cell(case["results"].get(name)) for name in names]
            hardest = case["results"].get(names[0], {}).get("kind", "–")
            head = f"{case['function']}, {case['dtype']} | {case['unit'].removeprefix('ULP of ')} | {case['bound']:g}"
            lines.append(f"| {head} | {' | '.join(cells)} | {hardest} |")
    return "\n".join([*lines, "", *remarks(found, source, "\n".join(lines))])


def remarks(found: dict[str, Any], source: str, lines: str) -> list[str]:
    """How the table was made, and what its marks mean."""
    settings, versions = found["settings"], ", ".join(f"{name} {each}" for name, each in found["versions"].items())
    rows, rounds, size = sum(case["rows"] for case in found["cases"]), settings["rounds a case"], settings["long rows"]
    effort = f"{settings['seconds a case']:g} seconds" if rounds is None else f"{rounds} rounds"
    wide_floats = (
        f" (rows of {shown_size(size)}: with {settings['bits of the wide floats']}-bit floats)" if size else ""
    )
    marks = " From: bred from rows of that kind." if "| from " in lines else ""
    marks += " †: and entries on the wrong side of the threshold." if "†" in lines else ""
    marks += " NaN: and rows that are NaN or infinite." if "NaN" in lines else ""
    return [
        f"The largest error in ULP of what stands under unit, among {shown_number(float(rows))} hard rows, the same "
        f"for every library: a search of {effort} a line, confirmed with mpmath{wide_floats}. The bounds are those of "
        f"the kernels.{marks}",
        f"Taken on {found['date']} on {found['machine']['cpu']} (instruction set: {found['instruction set']}) with "
        f"{versions}.{f' Kept in `{source}`.' if source else ''}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for every case, long rows apart (10)")
    parser.add_argument("--rounds", type=int, help="batches for every case, in place of a time")
    parser.add_argument("--only", choices=sorted({each for f in FUNCTIONS for each in (f.name, f.label)}))
    parser.add_argument("--dtype", choices=FLOATS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--size", type=int, default=LONG, help="entries of the long rows (10^7), 0 for none")
    parser.add_argument("--quick", action="store_true", help="one turn through the lengths, long rows of 10^5")
    parser.add_argument("--out", type=Path, help="write the file here (without it, only a run of all cases is kept)")
    given = parser.parse_args()
    if not WIDE_ENOUGH:
        raise SystemExit("errors.py: NumPy's longdouble has no more digits than float64 here; run it on x86-64 Linux")
    if given.quick:
        given.seconds, given.size = 0.0, min(given.size, 10**5)
    chosen = list(cases(given.only, given.dtype))
    found = measure(chosen, seconds=given.seconds, rounds=given.rounds, seed=given.seed, size=given.size)
    is_whole = not (given.only or given.dtype or given.quick)
    source = ""
    if given.out or is_whole:
        import compare

        path = given.out or compare.RESULTS / f"errors-{found['date']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        source = path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name
    print(f"\n{table(found, source)}")


if __name__ == "__main__":
    main()
