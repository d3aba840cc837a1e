"""Properties over shapes, axes, masks, strides and extreme values that nobody thought of."""

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import softplex as sx

SETTINGS = settings(
    derandomize=True, deadline=None, max_examples=60, database=None, suppress_health_check=[HealthCheck.too_slow]
)
MAPS = pytest.mark.parametrize("map_", sx.MAPS, ids=lambda each: each.__name__)
EXTREME = st.sampled_from(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        5e-324,
        -5e-324,
        2.3e-308,
        1e308,
        -1e308,
        1.7e308,
        -1.7e308,
        np.inf,
        -np.inf,
        np.nan,
        88.0,
        -104.0,
    ]
)
NUMBERS = st.one_of(EXTREME, st.floats(-100, 100), st.floats(allow_nan=True, allow_infinity=True))
FLOATS = st.sampled_from(["float64", "float32", "float16"])


def hyper_of(map_, draw):
    name = map_.__name__
    if name == "entmax":
        return {"alpha": draw(st.sampled_from([1.0, 1 + 1e-9, 1.2, 1.5, 2.0, 2 + 1e-9, 3.0, 60.0, np.inf]))}
    if name == "normmax":
        return {"alpha": draw(st.sampled_from([1.01, 1.5, 2.0, 3.0, 30.0]))}
    return {"budget": draw(st.sampled_from([0.0, 0.25, 1.0]))} if name == "budget" else {}


@st.composite
def calls(draw, finite=False):
    """An array with at least one entry along every axis, an axis, a mask or none."""
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5))
    numbers = st.floats(-50, 50) if finite else NUMBERS
    x = draw(arrays.arrays(np.float64, shape, elements=numbers))
    with np.errstate(over="ignore"):
        x = x.astype(draw(FLOATS))
    step = draw(st.sampled_from([1, -1]))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    where = draw(st.one_of(st.none(), arrays.arrays(bool, shape)))
    return x[::step], axis, where


def rows_along(x, axis, where, sign):
    """What each row of a call is: bad (NaN or the winning infinity among what is unmasked), empty, or neither."""
    seen = np.ones(x.shape, bool) if where is None else where
    x = sign * x.astype(np.float64)
    bad = np.any(seen & ~(x < np.inf), axis=axis, keepdims=True)
    empty = ~np.any(seen & (x > -np.inf), axis=axis, keepdims=True) & ~bad
    return seen, bad, empty


@MAPS
@SETTINGS
@given(data=st.data())
def test_values_are_weights_whatever_the_scores(map_, data):
    """NaN exactly where a row is bad, nothing below 0, sums right, dead entries at exactly nothing."""
    x, axis, where = data.draw(calls())
    hyper = hyper_of(map_, data.draw)
    sign, is_log = (-1 if "softmin" in map_.__name__ else 1), map_.__name__.startswith("log")
    got = map_(x, axis, where=where, **hyper)
    assert got.shape == x.shape and got.dtype == x.dtype
    seen, bad, empty = rows_along(x, axis, where, sign)
    assert np.array_equal(np.isnan(got), bad & seen)
    weights = np.exp(got.astype(np.float64)) if is_log else got.astype(np.float64)
    absent = ~seen | (~bad & (sign * x == -np.inf)) | empty
    assert np.all(weights[absent] == 0)
    good = np.broadcast_to(~bad, x.shape)
    assert np.all((weights[good] >= 0) & (weights[good] <= 1))
    total = np.where(good, weights, 0).sum(axis=axis, keepdims=True)
    wanted = np.where(bad | empty, 0, hyper.get("budget", 1))
    assert np.all(np.abs(total - wanted) <= 32 * np.finfo(x.dtype).eps * wanted)


@MAPS
@SETTINGS
@given(data=st.data())
def test_order_is_kept(map_, data):
    """A larger score never weighs less, and equal scores weigh the same."""
    x, axis, _ = data.draw(calls(finite=True))
    sign = -1 if "softmin" in map_.__name__ else 1
    got = np.moveaxis(map_(x, axis, **hyper_of(map_, data.draw)), axis, -1).reshape(-1, x.shape[axis])
    for scores, weights in zip(np.moveaxis(sign * x, axis, -1).reshape(got.shape), got, strict=True):
        order = np.argsort(scores)
        steps = np.diff(weights[order].astype(np.float64))
        top = np.max(np.abs(weights.astype(np.float64)))
        assert np.all(steps >= -4 * np.finfo(x.dtype).eps * top)
        assert np.all(steps[np.diff(scores[order]) == 0] == 0)


@MAPS
@SETTINGS
@given(data=st.data())
def test_derivatives_are_finite_and_adjoint(map_, data):
    """Both products finite on every good row, and <g, J t> = <J^T g, t>."""
    x, axis, where = data.draw(calls())
    hyper = hyper_of(map_, data.draw)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    g, t = (rng.normal(size=x.shape) for _ in range(2))
    seen, bad, _ = rows_along(x, axis, where, -1 if "softmin" in map_.__name__ else 1)
    x = x.astype(np.float64)
    pulled, pushed = map_.vjp(x, g, axis, where=where, **hyper), map_.jvp(x, t, axis, where=where, **hyper)
    for product in (pulled, pushed):
        assert np.array_equal(np.isnan(product), bad & seen)
        assert np.all(product[~seen] == 0)
    good = np.broadcast_to(~bad, x.shape)
    one, other = np.where(good, pulled * t, 0), np.where(good, pushed * g, 0)
    scale = np.sum(np.abs(one)) + np.sum(np.abs(other)) + np.sum(np.abs(g * t))  # terms may cancel in a confident row
    assert abs(one.sum() - other.sum()) <= 1e-10 * scale


@MAPS
@SETTINGS
@given(data=st.data())
def test_rows_do_not_meet(map_, data):
    """Each row of a call has the bits that it has alone, whatever lies beside it."""
    x, axis, where = data.draw(calls())
    hyper = hyper_of(map_, data.draw)
    lines = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    masks = None if where is None else np.moveaxis(where, axis, -1).reshape(lines.shape)
    got = np.moveaxis(map_(x, axis, where=where, **hyper), axis, -1).reshape(lines.shape)
    for place, line in enumerate(lines):
        alone = map_(line, where=None if masks is None else masks[place], **hyper)
        assert np.array_equal(alone, got[place], equal_nan=True)


@MAPS
@SETTINGS
@given(data=st.data())
def test_temperature_and_sink_at_the_ends_of_the_range(map_, data):
    """Temperatures from subnormal to huge and any sink: weights, or NaN for a bad sink, and never a warning."""
    x, axis, where = data.draw(calls(finite=True))
    hyper = hyper_of(map_, data.draw)
    temperature = data.draw(st.sampled_from([5e-324, 1e-308, 1e-3, 1.0, 1e5, 1e308]))
    sink = data.draw(EXTREME)
    got = map_(x, axis, where=where, temperature=temperature, sink=sink, **hyper).astype(np.float64)
    seen = np.ones(x.shape, bool) if where is None else where
    sign = -1 if "softmin" in map_.__name__ else 1
    if np.isnan(sink) or sign * sink == np.inf:
        assert np.all(np.isnan(got[seen]))
        return
    weights = np.exp(got) if map_.__name__.startswith("log") else got
    assert np.all((weights >= 0) & (weights <= 1))
    assert np.all(weights.sum(axis=axis) <= hyper.get("budget", 1) * (1 + 32 * np.finfo(x.dtype).eps))


@pytest.mark.parametrize(
    "map_", [each for each in sx.MAPS if "log" not in each.__name__], ids=lambda each: each.__name__
)
@SETTINGS
@given(data=st.data())
def test_a_loss_is_never_negative_nor_nan(map_, data):
    x, axis, where = data.draw(calls())
    hyper = hyper_of(map_, data.draw)
    if "budget" in hyper:
        hyper = {"budget": 1.0}
    sign = -1 if map_.__name__ == "softmin" else 1
    _, bad, empty = rows_along(x, axis, where, sign)
    y = np.full(bad.squeeze(axis).shape, data.draw(st.integers(0, x.shape[axis] - 1)))
    got = map_.loss(x, y, axis, where=where, reduction="none", **hyper)
    bad, empty = bad.squeeze(axis), empty.squeeze(axis)
    assert np.array_equal(np.isnan(got), bad)
    assert np.all(got[~bad] >= 0)
    assert np.all(got[empty] == 0)
