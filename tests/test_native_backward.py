"""The derivative from the weights (the kernels' method `backward`): held to its rule, stated here in wider floats, and
to the bits of a row alone. It has no name in the library: what differentiates calls it.
"""

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest

import native_mutants
import softplex as sx
import tolerances
from frameworks import FLOATS, numpy_dtype
from lawbook import same_bits
from native_samples import LONG, SHORT, laid
from softplex.native import cpu, reason

pytestmark = pytest.mark.skipif(cpu is None, reason=reason)

NUMBERS = {"softmax": 0, "log_softmax": 1, "sparsemax": 2, "entmax15": 3, "entmax": 4}
TYPES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
BACKWARD = 9
ALPHAS = (1.0, 1.2, 1.5, 1.9, 2.0, 2.5, 4.0, np.inf)
LAYOUTS = ("plain", "Fortran", "transposed", "strided", "negative", "unaligned", "shifted", "read-only")
IS_SANITIZED = "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ
STEEPEST = 1e100
WIDE = np.longdouble
MANY = 60


@dataclass(frozen=True)
class Given:
    """Rows of weights and of their cotangents, the parameters a number or one a row."""

    map: str
    p: np.ndarray
    g: np.ndarray
    temperature: object = 1.0
    alpha: object = 1.5
    negated: bool = False

    def __repr__(self):
        given = [f"{np.shape(each) or each}" for each in (self.temperature, self.alpha)]
        return f"{self.map} {self.p.dtype} {self.p.shape} temperature {given[0]} alpha {given[1]} {self.negated}"

    @property
    def dtype(self):
        return self.p.dtype.name

    def row(self, place):
        def one(each):
            return float(each[place]) if np.ndim(each) else each

        rows = slice(place, place + 1)
        return replace(self, p=self.p[rows], g=self.g[rows], temperature=one(self.temperature), alpha=one(self.alpha))


def computed(given, layout="plain", threads=1, shape=None, run=None):
    """The kernel's, the rows lying as they are told to."""
    shape = given.p.shape if shape is None else shape
    p, g = (laid(each.reshape(shape), layout) for each in (given.p, given.g))
    result = laid(np.full(shape, 7, given.p.dtype), "plain" if layout == "read-only" else layout)
    if given.dtype == "bfloat16":
        cpu.set_bfloat16(given.p.dtype)
    parameters = [
        np.ascontiguousarray(each).reshape(shape[:-1]) if np.ndim(each) else float(each)
        for each in (given.temperature, given.alpha)
    ]
    (run or cpu.run)(
        *(NUMBERS[given.map], BACKWARD, TYPES[given.dtype], given.negated, 1, threads, 0.0),
        *(p, g, None, None, result, parameters[0], None, parameters[1], 1.0, False, None),
    )
    return np.ascontiguousarray(result).reshape(given.p.shape)


def column(value):
    return np.asarray(value, WIDE).reshape(-1, 1)


def slopes(given, p):
    alpha = column({"sparsemax": 2.0, "entmax15": 1.5}.get(given.map, given.alpha))
    if given.map in ("softmax", "log_softmax"):
        return p
    inside = np.where(p > 0, p, 1)
    s = np.exp(np.minimum(np.log(inside) * (2 - np.where(np.isinf(alpha), 2, alpha)), np.log(WIDE(STEEPEST))))
    return np.where((p > 0) & ~np.isinf(alpha), s, 0)


def stated(given):
    """The rule, and the size of each row's largest term."""
    is_log, is_softmax = given.map == "log_softmax", given.map in ("softmax", "log_softmax")
    p, g = given.p.astype(WIDE), given.g.astype(WIDE)
    with np.errstate(all="ignore"):
        absent = p == -np.inf if is_log else p == 0
        weights = np.exp(p) if is_log else p
        s, g = slopes(given, weights), np.where(absent, 0, g)
        alone = is_softmax | (column(given.alpha) == 1 if given.map == "entmax" else False)
        whole = np.where(alone, 1, s.sum(axis=1, keepdims=True))
        outer = (-1 if given.negated else 1) / column(given.temperature)
        if is_log:
            found = g - weights * g.sum(axis=1, keepdims=True)
            terms = np.maximum(np.abs(g), weights * np.abs(g).sum(axis=1, keepdims=True))
        else:
            divisor = np.where(whole == 0, 1, whole)
            found = s * (g - (s * g).sum(axis=1, keepdims=True) / divisor)
            terms = np.maximum(np.abs(s * g), s * np.abs(s * g).sum(axis=1, keepdims=True) / divisor)
        found = np.where(absent | (whole == 0), 0, found * outer)
        found[np.isnan(p).any(axis=1)] = np.where(absent, 0, np.nan)[np.isnan(p).any(axis=1)]
    return found, (terms * np.abs(outer)).max(axis=1, keepdims=True)


def ulps(dtype, sizes):
    return np.vectorize(lambda size: tolerances.ulp(dtype, float(size)), otypes=[float])(sizes)


def judged(given, got):
    wanted, term = stated(given)
    bound = tolerances.linear_bound(given.dtype, formulas=False) * (2 if np.any(column(given.temperature) != 1) else 1)
    if given.map == "entmax" and given.dtype == "float64":
        bound *= 1 + np.abs(np.log(STEEPEST))  # the exponent of a power loses digits
    reach = bound * ulps(given.dtype, term) + 4 * ulps(given.dtype, np.zeros((1, 1)))
    with np.errstate(all="ignore"):
        far = np.abs(got.astype(WIDE) - wanted) / reach
    huge = np.abs(wanted) > tolerances.largest(given.dtype) / 2
    bad = ~((far <= 1) | (np.isnan(got.astype(WIDE)) & np.isnan(wanted)) | huge)
    weighs_nothing = given.p.astype(float) == (-np.inf if given.map == "log_softmax" else 0)
    bad |= weighs_nothing & (got.astype(float) != 0)
    assert not bad.any(), f"{given}: {np.argwhere(bad)[0]} {got[bad][0]}, not {wanted[bad][0]}, {far[bad][0]} bounds"


def drawn(seed, name, dtype=None, lengths=None, rows=None):
    """Weights that the map gave, some masked, with cotangents that may be anything where nothing is weighed."""
    rng = np.random.default_rng((NUMBERS[name], seed))
    dtype = dtype or FLOATS[rng.integers(4)]
    n = int(rng.choice(lengths or (LONG if rng.random() < 0.1 else SHORT)))
    count = rows or int(rng.choice([1, 2, 7, 9, 12]))
    temperature, alpha = 1.0, 1.5
    if rng.random() < 0.4:
        temperature = float(rng.choice([0.3, 7.0, 1e-3, 1e30]))
    if rng.random() < 0.2:
        temperature = rng.uniform(0.1, 9.0, count)
    if name == "entmax":
        alpha = rng.choice(ALPHAS, count) if rng.random() < 0.5 else float(rng.choice(ALPHAS))
    scores = rng.normal(size=(count, n)) * rng.choice([0.1, 1.0, 5.0, 40.0])
    hyper = {"alpha": np.reshape(alpha, (-1, 1)) if np.ndim(alpha) else alpha} if name == "entmax" else {}
    where = rng.random((count, n)) > rng.choice([0.0, 0.3, 0.9])
    p = getattr(sx, name)(scores, where=where, **hyper).astype(numpy_dtype(dtype))
    g = (rng.normal(size=(count, n)) * rng.choice([1e-3, 1.0, 100.0])).astype(p.dtype)
    weighs_nothing = p == (-np.inf if name == "log_softmax" else 0)
    odd = rng.choice([np.nan, np.inf, 1.0, 1e4], (count, n)).astype(p.dtype)
    if rng.random() < 0.4:
        g = np.where(weighs_nothing, odd, g)
    if rng.random() < 0.2:
        p[-1] = np.where(weighs_nothing[-1], p[-1], np.asarray(np.nan, p.dtype))
    return Given(name, p, g, temperature, alpha, bool(rng.integers(2)))


def judge_many(name, run=None, many=MANY):
    for seed in range(many):
        given = drawn(seed, name)
        judged(given, computed(given, run=run))


@pytest.mark.parametrize("name", NUMBERS)
def test_it_follows_its_rule(name):
    judge_many(name)


@pytest.mark.parametrize("name", NUMBERS)
def test_it_follows_its_rule_without_fma(name):
    before = cpu.instruction_set()
    if not cpu.choose_instruction_set("x86-64-v2"):
        pytest.skip("this machine has no x86-64-v2")
    try:
        judge_many(name, many=MANY // 4)
    finally:
        cpu.choose_instruction_set(before)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_huge_row_follows_its_rule(name):
    given = drawn(0, name, "float32", ((1 << 18) + 7,), 1)
    judged(given, computed(given, threads=3))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_row_has_its_bits_wherever_it_lies(name):
    for seed in range(MANY):
        given = drawn(seed, name)
        together = computed(given)
        for layout in LAYOUTS:
            assert same_bits(computed(given, layout), together), f"{layout} {given}"
        count, n = given.p.shape
        if count % 3 == 0:
            assert same_bits(computed(given, "transposed", shape=(3, count // 3, n)), together), given
        for place in {0, count - 1}:
            assert same_bits(computed(given.row(place)), together[place : place + 1]), f"row {place} of {given}"


@pytest.mark.parametrize("name", NUMBERS)
def test_the_bits_are_those_of_any_number_of_threads(name):
    for lengths, rows in (((17, 64), 4000), ((16_385, 40_000), 3), (((1 << 18) + 7,), 1)):
        given = drawn(3, name, "float32", lengths, rows)
        found = [computed(given, threads=n) for n in (1, 2, 3)]
        assert same_bits(found[1], found[0]) and same_bits(found[2], found[0]), given


@pytest.mark.skipif(IS_SANITIZED, reason="much memory")
@pytest.mark.parametrize("n", [17, 1021, 17_001])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sparsemax"])
def test_results_beyond_a_cache_have_the_same_bits(name, n):
    """Of common size: where the cache is larger they are the same all the more."""
    few = drawn(1, name, "float32", (n,), 9)
    times = (1 << 26) // (4 * few.p.size) + 1
    many = replace(few, p=np.tile(few.p, (times, 1)), g=np.tile(few.g, (times, 1)))
    if np.ndim(few.temperature):
        many = replace(many, temperature=np.tile(few.temperature, times))
    found = computed(many, threads=2).reshape(times, *few.p.shape)
    assert np.array_equal(found.view(np.uint32), np.broadcast_to(computed(few).view(np.uint32), found.shape))


@pytest.mark.parametrize("name", NUMBERS)
def test_the_bits_are_those_of_both_instruction_sets_with_fma(name):
    before = cpu.instruction_set()
    if not all(cpu.choose_instruction_set(each) for each in ("x86-64-v3", "x86-64-v4")):
        cpu.choose_instruction_set(before)
        pytest.skip("this machine has no x86-64-v4")
    try:
        for seed in range(MANY):
            given, found = drawn(seed, name), []
            for each in ("x86-64-v3", "x86-64-v4"):
                cpu.choose_instruction_set(each)
                found.append(computed(given))
            assert same_bits(*found), given
    finally:
        cpu.choose_instruction_set(before)


@pytest.mark.parametrize("name", NUMBERS)
def test_it_is_the_derivative_of_the_map(name):
    """What the vjp computes from the scores, the weights here being rounded."""
    x, g = np.random.default_rng(5).normal(size=(2, 6, 40))
    map_ = getattr(sx, name)
    given = Given(name, map_(x, temperature=0.7), g, 0.7)
    np.testing.assert_allclose(computed(given), map_.vjp(x, g, temperature=0.7), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("n", [3, 40, 3000])
def test_cotangents_may_be_the_largest(name, n):
    rng = np.random.default_rng(n)
    p = getattr(sx, name)(rng.normal(size=(4, n)).astype(np.float32))
    g = (rng.choice([-1.0, 1.0], p.shape) * np.finfo(np.float32).max).astype(np.float32)
    given = Given(name, p, g, 8.0)
    judged(given, computed(given))


@pytest.mark.parametrize("changed", [{"mask": np.ones((2, 3), bool)}, {"map": 2, "sink": 0.0}, {"operand": None}])
def test_what_weights_do_not_tell_is_refused(changed):
    given = {"map": 0, "method": BACKWARD, "type": 0, "negated": False, "row_axes": 1, "threads": 1, "empty": 0.0}
    given |= {"x": np.full((2, 3), 1 / 3), "operand": np.ones((2, 3)), "index": None, "mask": None}
    given |= {"result": np.zeros((2, 3)), "temperature": 1.0, "sink": None, "alpha": 1.5}
    cpu.run(**{**given, "sink": 0.0})
    with pytest.raises(ValueError, match="method|operand"):
        cpu.run(**{**given, **changed})


@pytest.mark.parametrize("mutant", native_mutants.BACKWARD, ids=lambda each: each.name)
def test_the_comparison_sees_a_wrong_kernel(mutant):
    run = native_mutants.WrongKernel(cpu, mutant.run).run
    with pytest.raises(AssertionError):
        judge_many(mutant.map, run)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("n", [100, 513, 600, 1000, 17_001])
def test_cotangents_of_what_weighs_nothing_are_not_seen(name, n):
    """Wherever the result lies in its lines, and whether it is written past the caches."""
    rng = np.random.default_rng(n)
    p = getattr(sx, name)((3 * rng.normal(size=(24, n))).astype(np.float32))
    g = rng.normal(size=p.shape).astype(np.float32)
    g[(p == 0) & (rng.random(p.shape) < 0.02)] = np.nan

    def back(rows, result):
        given = {"map": NUMBERS[name], "method": BACKWARD, "type": 1, "negated": False, "row_axes": 1, "threads": 1}
        given |= {"empty": 0.0, "index": None, "mask": None, "temperature": 1.0, "sink": None, "alpha": 1.5}
        cpu.run(**given, x=p[rows], operand=g[rows], result=result)
        return result

    wanted = np.concatenate([back(slice(row, row + 1), np.empty((1, n), np.float32)) for row in range(len(p))])
    assert np.isfinite(wanted).all()
    room = np.empty(p.size + 16, np.float32)
    for first in (0, 1, 7, 12):
        for size in (0, 1):
            cpu.assume_cache(size)
            try:
                found = back(slice(None), room[first : first + p.size].reshape(p.shape))
            finally:
                cpu.assume_cache(0)
            assert same_bits(found, wanted), (first, size)
