"""Maps made of maps: blends, and maps with their hyper-parameters bound."""

import copy
import pickle

import numpy as np
import pytest

import softplex as sx

X = np.array([[0.3, -1.0, 2.0, 0.5], [1.0, 1.0, -2.0, 0.0]])
G = np.array([[1.0, -2.0, 0.5, 3.0], [0.25, 1.0, -1.0, 2.0]])


def test_a_blend_is_the_mixture():
    mixed = sx.blend({sx.softmax: 0.25, sx.sparsemax: 0.75})
    np.testing.assert_allclose(mixed(X), 0.25 * sx.softmax(X) + 0.75 * sx.sparsemax(X), rtol=4e-16)
    for method in ("vjp", "jvp"):
        wanted = 0.25 * getattr(sx.softmax, method)(X, G) + 0.75 * getattr(sx.sparsemax, method)(X, G)
        np.testing.assert_allclose(getattr(mixed, method)(X, G), wanted, rtol=1e-14, atol=1e-15)
        assert np.any(wanted)
    np.testing.assert_allclose(
        mixed.jacobian(X), 0.25 * sx.softmax.jacobian(X) + 0.75 * sx.sparsemax.jacobian(X), atol=1e-16
    )
    arguments = {"axis": 0, "temperature": 0.5, "sink": 0.1, "where": X > -1.5}
    np.testing.assert_allclose(
        mixed(X, **arguments), 0.25 * sx.softmax(X, **arguments) + 0.75 * sx.sparsemax(X, **arguments), rtol=4e-16
    )
    assert mixed(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(mixed(X).sum(axis=-1), 1, rtol=4e-16)


def test_a_blend_differentiates_its_parameters():
    mixed = sx.blend({sx.softmax: 0.5, sx.sparsemax: 0.5})
    names = ("x", "temperature", "sink")
    arguments = {"wrt": names, "temperature": np.array([[0.5], [2.0]]), "sink": 0.3}
    one, other = sx.softmax.vjp(X, G, **arguments), sx.sparsemax.vjp(X, G, **arguments)
    for got, left, right in zip(mixed.vjp(X, G, **arguments), one, other, strict=True):
        assert got.shape == left.shape
        np.testing.assert_allclose(got, 0.5 * left + 0.5 * right, rtol=1e-12, atol=1e-15)


def test_blends_nest_and_know_their_support():
    inner = sx.blend({sx.sparsemax: 0.5, sx.entmax.bind(alpha=3): 0.5})
    outer = sx.blend({inner: 0.5, sx.entmax15: 0.5})
    with sx.kernels("none"):  # which blends do without
        wanted = 0.25 * sx.sparsemax(X) + 0.25 * sx.entmax(X, alpha=3) + 0.5 * sx.entmax15(X)
    np.testing.assert_allclose(outer(X), wanted, rtol=4e-16)
    sizes = inner.support_size(X)
    assert sizes.dtype == np.int64
    assert sizes.tolist() == np.count_nonzero(inner(X), axis=-1).tolist()


def test_the_blend_of_the_contract():
    w = 0.3
    mixed = sx.blend({sx.softmax: w, sx.softmin: 1 - w})
    with sx.kernels("none"):
        wanted = w * sx.softmax(X) + (1 - w) * sx.softmin(X)
    np.testing.assert_allclose(mixed(X), wanted, rtol=4e-16)
    assert np.array_equal(mixed([np.inf, 0.0]), [np.nan, np.nan], equal_nan=True)


def test_special_rows_of_a_blend():
    mixed = sx.blend({sx.softmax: 0.5, sx.sparsemax: 0.5})
    x = np.array([[np.nan, 0.0], [-np.inf, -np.inf], [-np.inf, 3.0]])
    got = mixed(x, where=np.array([[False, True], [True, True], [True, True]]))
    assert np.array_equal(got, [[0, 1], [0, 0], [0, 1]])
    assert np.isnan(mixed(x)[0]).all()
    assert np.isnan(mixed(x, empty="nan")[1]).all()


@pytest.mark.parametrize(
    ("members", "error", "says"),
    [
        ({sx.softmax: 0.5, sx.sparsemax: 0.6}, ValueError, "1.1"),
        ({sx.softmax: 1.5, sx.sparsemax: -0.5}, ValueError, "1.5|-0.5"),
        ({sx.softmax: np.nan, sx.sparsemax: 0.5}, ValueError, "nan"),
        ({}, (TypeError, ValueError), "blend"),
        ({np.exp: 1.0}, TypeError, "exp"),
        ({sx.log_softmax: 1.0}, TypeError, "log_softmax"),
        ({sx.budget: 1.0}, TypeError, "budget"),
        ({sx.softmax: "half", sx.sparsemax: 0.5}, TypeError, "half"),
        ([sx.softmax], TypeError, "softmax"),
    ],
)
def test_wrong_blends(members, error, says):
    with pytest.raises(error, match=says):
        sx.blend(members)


@pytest.mark.parametrize("method", ["loss", "residual", "regularizer", "smooth_max"])
def test_a_blend_has_no_loss(method):
    mixed = sx.blend({sx.softmax: 0.5, sx.sparsemax: 0.5})
    with pytest.raises(TypeError, match=f"{method}.*blend|blend.*{method}"):
        getattr(mixed, method)(X, *([X] if method in ("loss", "residual") else []))


BOUND = [
    (sx.entmax, {"alpha": 1.3}),
    (sx.entmax, {"alpha": 4}),
    (sx.normmax, {"alpha": 3.0}),
    (sx.budget, {"budget": 1.5}),
    (sx.budget, {"budget": 1}),
]


@pytest.mark.parametrize(("map_", "hyper"), BOUND)
def test_a_bound_map_has_every_method(map_, hyper):
    bound = map_.bind(**hyper)
    y = np.array([0, 2])
    assert np.array_equal(bound(X), map_(X, **hyper))
    assert np.array_equal(bound(X, 0, temperature=0.5, sink=1.0), map_(X, 0, temperature=0.5, sink=1.0, **hyper))
    for method, more in [
        ("vjp", (G,)),
        ("jvp", (G,)),
        ("jacobian", ()),
        ("support_size", ()),
        ("smooth_max", ()),
        ("regularizer", ()),
    ]:
        given = sx.softmax(X) if method == "regularizer" else X
        got, wanted = getattr(bound, method)(given, *more), getattr(map_, method)(given, *more, **hyper)
        assert np.array_equal(got, wanted)
        assert np.any(wanted)
    if hyper.get("budget", 1) == 1:
        assert bound.loss(X, y) == map_.loss(X, y, **hyper) > 0
        assert np.array_equal(bound.residual(X, y), map_.residual(X, y, **hyper))


@pytest.mark.parametrize(("map_", "hyper"), BOUND)
def test_a_bound_map_is_a_value(map_, hyper):
    bound, again = map_.bind(**hyper), map_.bind(**hyper)
    assert bound == again and hash(bound) == hash(again)
    assert bound != map_ and bound != map_.bind(**{key: value + 0.25 for key, value in hyper.items()})
    assert len({bound, again, map_}) == 2
    for twin in (pickle.loads(pickle.dumps(bound)), copy.copy(bound), copy.deepcopy(bound)):
        assert twin == bound and hash(twin) == hash(bound)
        assert np.array_equal(twin(X), bound(X))
    assert all(f"{value:g}" in repr(bound) for value in hyper.values())


@pytest.mark.parametrize("map_", [*sx.MAPS, sx.maxout], ids=lambda each: each.__name__)
def test_maps_survive_pickling_and_copying(map_):
    for twin in (pickle.loads(pickle.dumps(map_)), copy.copy(map_), copy.deepcopy(map_)):
        assert twin == map_ and hash(twin) == hash(map_)
    assert map_ in {map_: 1}


def test_all_maps_differ():
    assert len(set(sx.MAPS)) == len(sx.MAPS)


def test_blends_are_values():
    one, other = (sx.blend({sx.softmax: 0.5, sx.entmax.bind(alpha=1.3): 0.5}) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)


def test_wrong_binds():
    with pytest.raises(TypeError, match="gamma"):
        sx.entmax.bind(gamma=2)
    with pytest.raises(TypeError, match="alpha"):
        sx.softmax.bind(alpha=2)
    for alpha in (0.5, np.nan, -1):
        with pytest.raises(ValueError, match="alpha"):
            sx.entmax.bind(alpha=alpha)
    with pytest.raises(TypeError, match="alpha"):
        sx.entmax.bind(alpha="sharp")
    with pytest.raises(TypeError, match="alpha"):
        sx.entmax.bind(alpha=1.3)(X, alpha=2)
