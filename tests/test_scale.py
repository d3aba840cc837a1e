"""Long rows, memory, threads and processes: what a call may cost and whom it may disturb."""

import multiprocessing
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import reference
import softplex as sx
import tolerances
from frameworks import HAS_KERNELS, threads
from softplex.backends.numpy import BLOCK_ENTRIES
from softplex.core.rows import LONG
from tolerances import ulp

COLUMNS = 1_000_000
MODES = ("auto", "none") if HAS_KERNELS else ("none",)
SETTINGS = [(each, {"budget": 3.5} if each.__name__ == "budget" else {}) for each in sx.MAPS]
SETTINGS += [(sx.entmax, {"alpha": alpha}) for alpha in (1.0, 1.3, 2.5, np.inf)]
NAMED = [pytest.param(*setting, id=f"{setting[0].__name__}{setting[1] or ''}") for setting in SETTINGS]


def long_row(dtype, kind):
    rng = np.random.default_rng(77)
    if kind == "peaked":
        return (rng.normal(size=COLUMNS) * 4).astype(dtype)
    return (rng.random(COLUMNS) * 1e-4).astype(dtype)


def assert_close(got, wanted, dtype, ulps, *, of_itself):
    """Every entry within ULPs of itself or of the largest."""
    unit = ulp(dtype, float(wanted.max()))
    if of_itself:
        exponent = np.frexp(wanted.astype(np.float64))[1]
        unit = np.ldexp(
            1.0, np.maximum(exponent, tolerances.SMALLEST_EXPONENT[dtype] + 1) - tolerances.PRECISION[dtype]
        )
    error = np.abs(got.astype(reference.WIDE) - wanted) / unit
    assert float(error.max()) <= ulps


@pytest.fixture(params=MODES)
def mode(request):
    """The kernels, and the formulas that other arrays get."""
    with sx.kernels(request.param):
        yield request.param


@pytest.mark.parametrize("kind", ["peaked", "flat"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_million_columns_are_accurate(dtype, kind, mode):
    if dtype == "float64" and reference.WIDE is np.float64:
        pytest.skip("no floats wider than float64 here to judge by")
    x = long_row(dtype, kind)
    softmax_ulps = tolerances.value_bound("softmax", dtype, formulas=mode == "none").ulps
    assert_close(sx.softmax(x), reference.long_softmax(x), dtype, softmax_ulps, of_itself=True)
    sparsemax_ulps = tolerances.value_bound("sparsemax", dtype, formulas=mode == "none").ulps
    assert_close(sx.sparsemax(x), reference.long_sparsemax(x), dtype, sparsemax_ulps, of_itself=False)


@pytest.mark.parametrize("alpha", [1 + 1e-6, 1.001, 1.05, 1.3, 1.7, 2 - 1e-6])
def test_many_equal_scores_far_below_the_top_are_accurate(alpha, mode):
    """Whatever the weight of one of them lacks, all of them lack, and the top has."""
    rng = np.random.default_rng(31)
    bound = 1.0  # what kernels keep, who have nothing but roundings of the weights themselves
    if mode == "none":
        bound = tolerances.value_bound("entmax", "float64", alpha=alpha).ulps
    for counts in ([1, 30], [2, 1000, 5], [1, 30_000], [1, 300, 100_000]) * (5 if mode == "auto" else 1):
        far = np.log(counts) + rng.normal(size=len(counts))
        far[0] = 0.0
        x = rng.normal() * 10.0 + np.expm1(-(alpha - 1) * far) / (alpha - 1)
        p = sx.entmax(np.repeat(x, counts), alpha=alpha)[np.cumsum(counts) - 1]
        wanted = reference.tied_weights([reference.number(score) for score in x], counts, reference.number(alpha))
        unit = ulp("float64", float(max(wanted)))
        assert max(abs(reference.number(got) - right) for got, right in zip(p, wanted, strict=True)) <= bound * unit, (
            counts,
            x,
        )


@pytest.mark.parametrize("n", [100, 5000, 300_000])
@pytest.mark.parametrize("alpha", [1 + 1e-6, 1.05, 1.3, 1.7])
def test_derivatives_and_losses_of_many_equal_scores_are_accurate(alpha, n, mode):
    """All weights are 1 / n, and all slopes a power of it."""
    bound = tolerances.linear_bound("float64", formulas=mode == "none")
    x, g, y = np.zeros(n), np.zeros(n), 7
    g[y] = 1.0
    n_, a = reference.number(n), reference.number(alpha) - 1
    slope, omega = n_ ** (a - 1), (n_**-a - 1) / (a * (a + 1))
    got = sx.entmax.vjp(x, g, alpha=alpha)
    unit = ulp("float64", float(slope))
    assert abs(reference.number(got[y]) - slope * (1 - 1 / n_)) <= bound * unit
    assert abs(reference.number(got[0]) + slope / n_) <= bound * unit
    loss = reference.number(sx.entmax.loss(x, y, alpha=alpha))
    assert abs(loss + omega) <= bound * ulp("float64", max(1.0, float(-omega)))


@pytest.mark.parametrize(("map_", "hyper"), NAMED)
def test_a_million_columns_give_a_distribution(map_, hyper, mode):
    for kind in ("peaked", "flat"):
        x = long_row("float32", kind)
        got = map_(x, **hyper).astype(np.float64)
        weights = np.exp(got) if "log" in map_.__name__ else got
        assert weights.sum() == pytest.approx(hyper.get("budget", 1), rel=1e-5)
        assert np.all(weights >= 0)


@pytest.mark.parametrize(("map_", "hyper"), NAMED)
def test_memory_is_a_few_copies(map_, hyper, mode):
    """The peak of what a call allocates, in float64 copies of the row."""
    x = long_row("float64", "peaked")
    map_(x[:64], **hyper)
    tracemalloc.start()
    try:
        map_(x, **hyper)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 16 * x.nbytes, f"{peak / x.nbytes:.1f} copies"


def peak_in_copies(map_, x, hyper, n):
    """The peak of what a call on n threads allocates, its result included, in copies of x."""
    with threads(n):
        tracemalloc.start()
        try:
            map_(x, **hyper)
            return tracemalloc.get_traced_memory()[1] / x.nbytes
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(("map_", "hyper"), NAMED)
def test_memory_of_many_rows_is_a_block(map_, hyper, mode):
    x = np.random.default_rng(3).normal(size=(40_000, 32))
    assert peak_in_copies(map_, x, hyper, 1) <= 3


@pytest.mark.parametrize("map_", [sx.softmax, sx.sparsemax], ids=lambda each: each.name)
def test_memory_on_two_threads_is_a_larger_block_each(map_, mode):
    x = np.random.default_rng(3).normal(size=(160_000, 32))
    assert peak_in_copies(map_, x, {}, 2) <= 3


@pytest.mark.parametrize(("map_", "hyper"), NAMED)
def test_a_long_row_has_its_bits_wherever_it_lies(map_, hyper, mode):
    """Long rows are searched for the entries that matter: by themselves, whatever lies beside them."""
    assert BLOCK_ENTRIES < LONG
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, LONG + 3)) * np.array([[3.0], [0.01], [3.0]])
    x[1, ::7], x[2, 5] = -np.inf, np.nan
    x = -x if map_.name.endswith("softmin") else x
    where = rng.random(x.shape) < 0.9
    for given in ({}, {"sink": 1.0, "temperature": 0.7, "where": where}):
        found = map_(x, **given, **hyper)
        spread = {name: np.full((3, 1), float(value)) for name, value in hyper.items()}
        for place in range(3):
            own = {**given, "where": where[place]} if "where" in given else given
            assert np.array_equal(found[place], map_(x[place], **own, **hyper), equal_nan=True)
        assert np.array_equal(found, map_(np.asfortranarray(x), **given, **{**hyper, **spread}), equal_nan=True)
        assert np.array_equal(
            found.T, map_(x.T, 0, **{k: np.transpose(v) for k, v in given.items()}, **hyper), equal_nan=True
        )
        assert np.count_nonzero(found[0]) > 0 and np.all(np.isnan(found[2]) | ~where[2])


@pytest.mark.parametrize(("map_", "hyper"), NAMED)
def test_a_long_row_agrees_with_a_padded_short_one(map_, hyper, mode):
    x = np.random.default_rng(6).normal(size=200)
    long = np.concatenate([x, np.full(LONG, np.inf if map_.name.endswith("softmin") else -np.inf)])
    wanted, found = map_(x, **hyper), map_(long, **hyper)
    np.testing.assert_allclose(found[:200], wanted, rtol=1e-13)
    np.testing.assert_allclose(
        map_.vjp(long, np.resize(x, long.size), **hyper)[:200], map_.vjp(x, x, **hyper), rtol=1e-9, atol=1e-15
    )


def work(place):
    rng = np.random.default_rng(place)
    x, g = rng.normal(size=(50, 40)), rng.normal(size=(50, 40))
    parts = []
    for map_, hyper in SETTINGS:
        parts += [map_(x, **hyper), map_.vjp(x, g, **hyper), map_.jvp(x, g, **hyper)]
    return b"".join(part.tobytes() for part in parts)


def test_threads_do_not_meet():
    """Many at once give the bits that each gives alone, and warn of nothing."""
    wanted = [work(place) for place in range(8)]
    found = {}

    def run(place):
        found[place] = work(place % 8)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert all(found[place] == wanted[place % 8] for place in found)


def test_threads_share_one_input():
    x = np.random.default_rng(1).normal(size=(64, 64))
    wanted, found = sx.entmax(x, alpha=1.3).tobytes(), []
    threads = [threading.Thread(target=lambda: found.append(sx.entmax(x, alpha=1.3).tobytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 8


FORKING = """
import multiprocessing, warnings
import numpy as np
import softplex as sx

warnings.filterwarnings("error")
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
x = np.random.default_rng(3).normal(size=(200, 200))
def work(scale):
    numbers = lambda map_: {"budget": 2.0} if map_ is sx.budget else {}
    return [map_(scale * x, **numbers(map_)).tobytes() for map_ in sx.MAPS]
wanted = work(3.0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(work, [3.0, 3.0, 3.0]) == [wanted] * 3)
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_child_works():
    """In a process of its own: JAX, once loaded, warns of every fork."""
    found = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=100, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "True\n", "")


def test_error_state_is_left_alone():
    """A caller who turned NumPy's warnings into errors sees none, and finds the setting as it was."""
    x = np.array([[np.inf, 1.0], [np.nan, 0.0], [-np.inf, -np.inf], [1e308, -1e308], [5e-324, 0.0]])
    with np.errstate(all="raise"):
        for map_, hyper in SETTINGS:
            hyper = {"budget": 1.5} if hyper.get("budget") else hyper
            map_(x, **hyper)
            map_.vjp(x, x, temperature=1e-300, **hyper)
            map_.jvp(x, x, sink=0.0, **hyper)
        assert np.geterr() == dict.fromkeys(("divide", "over", "under", "invalid"), "raise")
