"""maxout: a plain maximum with two groupings, whose gradients go to the first winner."""

from contextlib import nullcontext

import numpy as np
import pytest

import frameworks
import softplex as sx
from frameworks import FRAMEWORKS, NUMPY

EACH = [
    pytest.param(framework, dtype, id=f"{framework.name}-{dtype}")
    for framework in FRAMEWORKS
    if framework.laws is None  # JAX's integers have 32 bits where its floats have
    for dtype in framework.dtypes
]
EAGER = [framework for framework in FRAMEWORKS if not framework.lazy]


@pytest.fixture(autouse=True)
def setting(request):
    """Each test runs as its framework is to be run."""
    framework = getattr(request.node, "callspec", None) and request.node.callspec.params.get("framework")
    if framework and framework.missing:
        pytest.skip(framework.missing)
    with framework.setting() if framework else nullcontext():
        yield


def array(framework, dtype, values):
    return framework.asarray(np.asarray(values, np.float64).astype(frameworks.numpy_dtype(dtype)))


def expected(x, pieces, layout):
    """The last axis as units and pieces."""
    units = x.shape[-1] // pieces
    if layout == "contiguous":
        return x.reshape(*x.shape[:-1], units, pieces)
    return np.moveaxis(x.reshape(*x.shape[:-1], pieces, units), -2, -1)


@pytest.mark.parametrize(("framework", "dtype"), EACH)
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_groups(framework, dtype, layout, axis):
    x = np.random.default_rng(3).normal(size=(6, 6, 6)).astype(frameworks.numpy_dtype(dtype)).astype(np.float64)
    grouped = expected(np.moveaxis(x, axis, -1), 3, layout)
    got = framework.to_numpy(sx.maxout(array(framework, dtype, x), pieces=3, axis=axis, layout=layout))
    assert got.dtype == frameworks.numpy_dtype(dtype)
    assert np.array_equal(got.astype(float), np.moveaxis(grouped.max(axis=-1), -1, axis))
    winner = framework.to_numpy(sx.maxout.winner(array(framework, dtype, x), pieces=3, axis=axis, layout=layout))
    assert winner.dtype == np.int64
    assert np.array_equal(winner, np.moveaxis(grouped.argmax(axis=-1), -1, axis))


@pytest.mark.parametrize(("framework", "dtype"), EACH)
def test_simple_form_takes_the_axis_away(framework, dtype):
    x = np.arange(24.0).reshape(2, 3, 4)
    given = array(framework, dtype, x)
    assert np.array_equal(framework.to_numpy(sx.maxout(given)).astype(float), x.max(axis=-1))
    assert np.array_equal(framework.to_numpy(sx.maxout(given, axis=1)).astype(float), x.max(axis=1))
    assert np.array_equal(framework.to_numpy(sx.maxout(given, axis=(0, 2))).astype(float), x.max(axis=(0, 2)))
    assert framework.to_numpy(sx.maxout(given, axis=None)) == 23


@pytest.mark.parametrize(("framework", "dtype"), EACH)
@pytest.mark.parametrize(("layout", "places"), [("contiguous", [0, 2, 4]), ("strided", [0, 1, 2])])
def test_derivatives_follow_the_first_winner(framework, dtype, layout, places):
    """Every unit ties: the first piece wins, and no gradient is split or sent twice."""
    x = np.full((1, 6), 2.0)
    g, t = np.array([[5.0, 7.0, 11.0]]), np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    given = array(framework, dtype, x)
    pulled = framework.to_numpy(sx.maxout.vjp(given, array(framework, dtype, g), pieces=2, layout=layout)).astype(float)
    wanted = np.zeros((1, 6))
    wanted[0, places] = g[0]
    assert np.array_equal(pulled, wanted)
    pushed = framework.to_numpy(sx.maxout.jvp(given, array(framework, dtype, t), pieces=2, layout=layout)).astype(float)
    assert np.array_equal(pushed, t[:, places])


@pytest.mark.parametrize(("framework", "dtype"), EACH)
def test_derivatives_are_adjoint_along_any_axis(framework, dtype):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 6, 2))
    t, g = np.round(rng.normal(size=x.shape) * 4), np.round(rng.normal(size=(4, 3, 2)) * 4)
    arguments = {"pieces": 2, "axis": 1, "layout": "strided"}
    pushed = framework.to_numpy(sx.maxout.jvp(array(framework, dtype, x), array(framework, dtype, t), **arguments))
    pulled = framework.to_numpy(sx.maxout.vjp(array(framework, dtype, x), array(framework, dtype, g), **arguments))
    assert pushed.shape == (4, 3, 2) and pulled.shape == x.shape
    assert np.sum(pushed.astype(float) * g) == np.sum(pulled.astype(float) * t) != 0


@pytest.mark.parametrize(("framework", "dtype"), EACH)
def test_nan_wins_and_infinities_are_numbers(framework, dtype):
    x = [[1, np.nan, np.inf], [np.inf, -np.inf, 0], [-np.inf, -np.inf, -np.inf], [np.nan, 0, np.nan]]
    given = array(framework, dtype, x)
    got = framework.to_numpy(sx.maxout(given)).astype(float)
    assert np.array_equal(got, [np.nan, np.inf, -np.inf, np.nan], equal_nan=True)
    assert framework.to_numpy(sx.maxout.winner(given)).tolist() == [1, 0, 0, 0]
    pulled = framework.to_numpy(sx.maxout.vjp(given, array(framework, dtype, [1, 2, 3, 4]))).astype(float)
    assert np.array_equal(pulled, [[0, 1, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]])


def test_out_integers_and_scalars():
    x = np.arange(12).reshape(2, 6)
    out = np.empty((2, 3))
    assert sx.maxout(x, pieces=2, out=out) is out
    assert out.tolist() == [[1, 3, 5], [7, 9, 11]]
    assert sx.maxout(x).dtype == np.float64
    assert sx.maxout(3.5) == 3.5
    assert sx.maxout(np.zeros((0, 4)), pieces=2).shape == (0, 2)
    assert sx.maxout(np.float32([1, 2]), dtype=np.float16).dtype == np.float16
    before = x.copy()
    sx.maxout.vjp(x, np.ones(2))
    assert np.array_equal(before, x)


@pytest.mark.parametrize("framework", EAGER, ids=lambda each: each.name)
def test_wrong_calls(framework):
    x = framework.asarray(np.zeros((2, 6)))
    for pieces in (4, 5, 7, 0, -2):
        with pytest.raises(ValueError, match=str(pieces)):
            sx.maxout(x, pieces=pieces)
    with pytest.raises(TypeError, match=r"2\.0"):
        sx.maxout(x, pieces=2.0)
    with pytest.raises(ValueError, match="rows"):
        sx.maxout(x, pieces=2, layout="rows")
    with pytest.raises(ValueError, match="piece|empty"):
        sx.maxout(framework.asarray(np.zeros((2, 0))))
    with pytest.raises(np.exceptions.AxisError, match="3"):
        sx.maxout(x, axis=3)
    with pytest.raises((TypeError, ValueError), match="axis"):
        sx.maxout(x, pieces=2, axis=(0, 1))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        sx.maxout.vjp(x, framework.asarray(np.zeros((2, 2))), pieces=2)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        sx.maxout.jvp(x, framework.asarray(np.zeros((2, 2))), pieces=2)
    if framework is NUMPY:
        with pytest.raises(TypeError, match="complex"):
            sx.maxout(np.zeros(4, complex))
