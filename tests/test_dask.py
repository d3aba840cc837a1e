"""Dask in full: every method gives the bits of NumPy's formulas when it is computed, and nothing is computed before."""

import numpy as np
import pytest

import softplex as sx

da = pytest.importorskip("dask.array")
callbacks = pytest.importorskip("dask.callbacks")

RNG = np.random.default_rng(0)
X, G = RNG.normal(size=(4, 6, 5)), RNG.normal(size=(4, 6, 5))
Y, W = RNG.integers(0, 5, size=(4, 6)), RNG.random(5)


class NothingIsComputed(callbacks.Callback):
    def _start(self, graph):
        raise AssertionError("a call computed something")


def lazy(array):
    return da.from_array(array, chunks=2)


def numpys(function, *arguments):
    """What a function makes of NumPy arrays by the formulas, which Dask uses."""
    with sx.kernels("none"):
        return function(*arguments)


def results(map_, array, axis):
    x, g = array(X), array(G)
    hyper = dict.fromkeys(map_.parameters, 2.0)
    found = [map_(x, axis, **hyper), map_.vjp(x, g, axis, **hyper), map_.jvp(x, g, axis, **hyper)]
    if axis is not None:
        found.append(map_.jacobian(x, axis, **hyper))
    if map_.formula.kind == "simplex":
        found += [map_.support_size(x, axis, **hyper), map_.smooth_max(x, axis, **hyper)]
        found.append(map_.regularizer(x * x, axis, **hyper))
    return found


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        computed = one.compute()
        assert computed.dtype == other.dtype
        np.testing.assert_array_equal(computed, other)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None])
@pytest.mark.parametrize("map_", sx.MAPS, ids=lambda each: each.name)
def test_every_method(map_, axis):
    with NothingIsComputed():
        found = results(map_, lazy, axis)
    assert_same(found, numpys(results, map_, np.asarray, axis))


@pytest.mark.parametrize("map_", [m for m in sx.MAPS if m.formula.kind == "simplex"], ids=lambda each: each.name)
def test_losses_and_parameters(map_):
    hyper = {name: 1.5 if name == "alpha" else 1.0 for name in map_.parameters}

    def all_of(array):
        temperature = array(np.full((4, 6, 1), 2.0))
        losses = [
            map_.loss(array(X), array(Y), weight=W, ignore_index=2, label_smoothing=0.1, reduction="none", **hyper),
            map_.residual(array(X), array(Y), **hyper),
        ]
        wrt = ("temperature", "x")
        return [*losses, *map_.vjp(array(X), array(G), wrt=wrt, temperature=temperature, sink=0.3, **hyper)]

    with NothingIsComputed():
        found = all_of(lazy)
    assert_same(found, numpys(all_of, np.asarray))
    means = [map_.loss(array(X), array(Y), weight=W, ignore_index=2, **hyper) for array in (lazy, np.asarray)]
    np.testing.assert_allclose(means[0].compute(), means[1], rtol=1e-14)


def test_maxout():
    def all_of(array):
        x = array(X)
        g, t = array(G[..., 0]), array(G)
        made = [sx.maxout(x, pieces=2, axis=1), sx.maxout(x, axis=0), sx.maxout.winner(x)]
        return [*made, sx.maxout.vjp(x, g), sx.maxout.jvp(x, t)]

    with NothingIsComputed():
        found = all_of(lazy)
    assert_same(found, numpys(all_of, np.asarray))
