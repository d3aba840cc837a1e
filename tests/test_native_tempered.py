"""Temperatures and sinks: rows that kernels take several at a time, or where they lie, have the bits of a row alone.

Accuracy over all arguments is held by test_native.py; here stand the lengths, layouts and numbers that matter.
"""

import itertools
import os

import numpy as np
import pytest

import softplex as sx
from frameworks import numpy_dtype, threads
from lawbook import same_bits
from softplex.native import cpu, reason
from tolerances import value_bound

pytestmark = pytest.mark.skipif(cpu is None, reason=reason)

IS_SANITIZED = "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ
THIN = 3 if IS_SANITIZED else 1
EXPONENTIAL = (sx.softmax, sx.softmin, sx.log_softmax, sx.log_softmin)
SPARSE = (sx.sparsemax, sx.entmax15)
LENGTHS = (1, 2, 3, 5, 15, 16, 17, 20, 31, 33, 64, 65, 100, 127, 128, 129, 200, 1000, 4099, 16_383, 16_384)[::THIN]
each_map = pytest.mark.parametrize("map_", [*EXPONENTIAL, *SPARSE], ids=lambda each: each.name)


def drawn(count, n, seed=0):
    """Rows: scattered, near each other, confident, tied, spread over +-80, faint in one entry; and cotangents."""
    rng = np.random.default_rng((count, n, seed))
    rows = rng.normal(size=(count, n)) * np.resize([2.0, 0.01, 1.0, 1.0], count)[:, None]
    rows[2::6, 0] += 45.0
    rows[3::6] = np.round(rows[3::6])
    rows[4::6] = rng.uniform(-80, 80, rows[4::6].shape)
    rows[5::6, n // 2] -= 95.0
    return rows.astype(np.float32), rng.normal(size=(count, n)).astype(np.float32)


def temperatures_of(count):
    """One for all; one for each row; and such that 1 and numbers out of the ordinary are among them."""
    yield 0.7
    yield np.linspace(0.3, 3.0, count, dtype=np.float32)
    odd = np.linspace(0.5, 2.0, count, dtype=np.float32)
    odd[count // 2 :: 5] = 1.0
    odd[-1] = 1e-25
    yield odd


def arguments_of(map_, count):
    """Temperatures, and sinks of softmax and its kin: below, among and above scores, no floats, absent."""
    for temperature in temperatures_of(count):
        yield {"temperature": temperature}
    if map_ in SPARSE:
        return
    many = np.linspace(-3.0, 3.0, count, dtype=np.float32)
    odd = many.copy()
    odd[::3] = -np.inf
    odd[1::4], odd[-1] = 40.0, 600.0
    yield from ({"sink": sink} for sink in (0.1, -40.0, 30.0, many, odd))
    yield {"sink": odd, "temperature": 0.7}
    yield {"sink": 0.1, "temperature": [*temperatures_of(count)][2]}


def methods_of(map_, n):
    """name -> (function of scores, cotangents, classes and the axis, whether it gives a number a row)."""
    yield "value", lambda x, g, y, axis, **given: map_(x, axis, **given), False
    yield "vjp", lambda x, g, y, axis, **given: map_.vjp(x, g, axis, **given), False
    yield "jvp", lambda x, g, y, axis, **given: map_.jvp(x, g, axis, **given), False
    if map_ in (sx.softmax, sx.softmin):
        yield "residual", lambda x, g, y, axis, **given: map_.residual(x, y, axis, **given), False
        yield "loss", lambda x, g, y, axis, **given: map_.loss(x, y, axis, reduction="none", **given), True
        yield "maximum", lambda x, g, y, axis, **given: map_.smooth_max(x, axis, **given), True


def shaped(numbers, axis):
    """Arguments, arrays with the axis of the rows."""
    return {name: one if np.ndim(one) == 0 else np.expand_dims(one, axis) for name, one in numbers.items()}


def rows_of(arrays, numbers):
    """Rows by themselves, each with its numbers, in arrays if they came in some: these flush no subnormals."""
    for r in range(len(arrays[0])):
        own = {name: one if np.ndim(one) == 0 else one[r : r + 1, None] for name, one in numbers.items()}
        yield [array[r : r + 1] for array in arrays], own


def assert_same(found, wanted, note):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape, note
    assert same_bits(found, wanted), (note, np.argwhere(found != wanted)[:5])


@each_map
@pytest.mark.parametrize("n", LENGTHS)
def test_rows_have_the_bits_of_a_row_alone(map_, n):
    count = 4 if n > 4000 else 37
    x, g = drawn(count, n)
    x[count - 2, 0] = np.nan
    x[1, n - 1] += 600.0
    y = np.arange(count) % n
    for (name, method, is_number), numbers in itertools.product(methods_of(map_, n), arguments_of(map_, count)):
        wanted = np.concatenate([method(*row, -1, **own) for row, own in rows_of((x, g, y), numbers)])
        given = shaped(numbers, 1)
        assert_same(method(x, g, y, -1, **given), wanted, (name, "together", numbers))
        with threads(1):
            assert_same(method(x, g, y, -1, **given), wanted, (name, "one thread", numbers))
        apart = np.repeat(x, 2, axis=1)[:, ::2]
        assert_same(method(apart, g, y, -1, **given), wanted, (name, "strided", numbers))
        across = method(np.asfortranarray(x).T, np.asfortranarray(g).T, y, 0, **shaped(numbers, 0))
        assert_same(across if is_number else np.ascontiguousarray(across.T), wanted, (name, "across", numbers))


@each_map
@pytest.mark.parametrize("count", [1, 4, 5, 8, 9, 15, 16, 17, 48, 255, 256, 257, 300])
def test_any_number_of_rows_side_by_side(map_, count):
    for n, numbers in itertools.product((3, 21, 130), arguments_of(map_, count)):
        x, g = drawn(count, n, seed=1)
        where = np.random.default_rng(count).random((count, n)) < 0.8
        for hidden in (None, where):
            given = {} if hidden is None else {"where": hidden}
            wanted = map_(x, **shaped(numbers, 1), **given)
            given = {} if hidden is None else {"where": hidden.T}
            found = map_(np.asfortranarray(x).T, 0, **shaped(numbers, 0), **given)
            assert_same(np.ascontiguousarray(found.T), wanted, (n, numbers, hidden is None))
        wanted = map_.vjp(x, g, **shaped(numbers, 1))
        found = map_.vjp(np.asfortranarray(x).T, np.asfortranarray(g).T, 0, **shaped(numbers, 0))
        assert_same(np.ascontiguousarray(found.T), wanted, (n, numbers, "vjp"))


@each_map
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_rows_have_the_bits_of_a_row_alone(map_, dtype):
    for n, numbers in itertools.product((2, 16, 21, 100, 128, 129, 500), arguments_of(map_, 37)):
        x = drawn(37, n, seed=2)[0].astype(numpy_dtype(dtype))
        wanted = np.concatenate([map_(row, **own) for (row,), own in rows_of((x,), numbers)])
        assert_same(map_(x, **shaped(numbers, 1)), wanted, (n, "together"))
        across = map_(np.asfortranarray(x).T, 0, **shaped(numbers, 0))
        assert_same(np.ascontiguousarray(across.T), wanted, (n, "across"))


@pytest.mark.parametrize("map_", EXPONENTIAL, ids=lambda each: each.name)
@pytest.mark.parametrize("n", [2, 3, 16, 21, 64, 127, 128, 129, 1000])
def test_the_values_are_those_of_wider_floats(map_, n):
    """numpy's long double by the definition; rows with a sure winner, faint weights and ties among them."""
    if np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is no wider than double here")
    sinks = (None, -30.0, 0.5, 60.0)
    for count, temperature, sink in itertools.product((6, 64), (0.05, 0.7, 1.0, 3.0, 1e4), sinks):
        x, given = drawn(count, n, seed=3)[0], {"temperature": temperature, "sink": sink}
        competing = x if sink is None else np.c_[x, np.full((count, 1), sink, x.dtype)]
        wide = competing.astype(np.longdouble) * (-1 if map_.name.endswith("min") else 1) / np.longdouble(temperature)
        gaps = wide - wide.max(axis=1, keepdims=True)
        # The sum of all terms but the first of the largest keeps its digits.
        terms = np.exp(gaps)
        terms[np.arange(count), gaps.argmax(axis=1)] = 0
        logarithms = gaps - np.log1p(terms.sum(axis=1, keepdims=True))
        exact = (logarithms if map_.name.startswith("log") else np.exp(logarithms))[:, :n]
        units = np.spacing(np.maximum(np.abs(exact), np.finfo(np.float32).tiny).astype(np.float32)).astype(
            np.longdouble
        )
        bound = value_bound(map_.name, "float32", temperature=True, formulas=False)
        for found in (map_(x, **given), map_(np.asfortranarray(x).T, 0, **given).T):
            errors = np.abs(found.astype(np.longdouble) - exact) / units
            assert errors.max() <= bound.ulps, (count, given, errors.max())


@pytest.mark.parametrize("map_", SPARSE, ids=lambda each: each.name)
@pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 21, 64, 129, 256, 257, 1000])
def test_sparse_rows_are_those_of_formulas(map_, n):
    """In wider floats; with few, many and tied entries in the support."""
    for count, temperature in itertools.product((6, 64), (*temperatures_of(64), 1e-3, 50.0, 1e6)):
        x = drawn(count, n, seed=4)[0]
        temperature = temperature if np.ndim(temperature) == 0 else temperature[:count, None]
        with sx.kernels("none"):
            exact = map_(x.astype(np.float64), temperature=temperature)
        bound = value_bound(map_.name, "float32", temperature=True, formulas=False).ulps
        unit = np.spacing(exact.max(axis=1, keepdims=True).astype(np.float32))
        for axis, found in ((1, map_(x, temperature=temperature)), (0, None)):
            if axis == 0:
                found = map_(np.asfortranarray(x).T, 0, temperature=np.transpose(temperature)).T
            assert np.all(np.abs(found - exact) <= bound * unit), (count, temperature, axis)
            assert np.array_equal(found > 0, exact > 0) or np.ndim(temperature) > 0 or temperature < 0.1, (
                count,
                temperature,
                axis,
            )


@pytest.mark.parametrize("map_", EXPONENTIAL, ids=lambda each: each.name)
@pytest.mark.parametrize("n", [1, 2, 16, 21, 64, 128, 129])
def test_other_methods_are_those_of_formulas(map_, n):
    """In wider floats: derivatives, losses, residuals and maxima beside temperatures and sinks."""
    x, g = drawn(37, n, seed=5)
    y = np.arange(37) % n
    for (name, method, _), numbers in itertools.product(methods_of(map_, n), arguments_of(map_, 37)):
        numbers = {key: np.maximum(one, 0.3) if key == "temperature" else one for key, one in numbers.items()}
        found = method(x, g, y, -1, **shaped(numbers, 1))
        with sx.kernels("none"):
            exact = method(x.astype(np.float64), g.astype(np.float64), y, -1, **shaped(numbers, 1))
        scores = np.abs(x).max(axis=1) + np.where(
            np.isfinite(numbers.get("sink", 0.0)), np.abs(numbers.get("sink", 0.0)), 0.0
        )
        largest = {"loss": 1.0 + scores, "maximum": 1.0 + scores}.get(name, 1.0 + np.abs(g).max(axis=1)[:, None])
        largest = np.maximum(largest, np.where(np.isfinite(exact), np.abs(exact), 0.0))
        close = 1e-6 * largest / np.min(numbers.get("temperature", 1.0))
        with np.errstate(invalid="ignore"):
            is_close = np.abs(found - exact) <= close
        assert np.all(is_close | (found == exact) | (np.isnan(found) & np.isnan(exact))), (name, numbers)
