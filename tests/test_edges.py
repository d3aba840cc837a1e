"""Calls that once went wrong, or that sit just where a rule changes."""

import array_api_strict
import numpy as np
import pytest

import laws
import softplex as sx
from softplex.backends import array_api
from softplex.core.map import Map
from softplex.core.separable import Separable


@pytest.mark.parametrize("alpha", [50.0, 200.0, 1e6, 1e300, 1.79e308, np.inf])
@pytest.mark.parametrize("ties", [2, 3, 1000])
def test_ties_share_evenly_however_large_alpha(alpha, ties):
    x = np.concatenate([[0.0], np.ones(ties), [-3.0]])
    found = sx.entmax(x, alpha=alpha)
    np.testing.assert_allclose(found[1:-1], 1 / ties, rtol=1e-15)
    assert found[0] == found[-1] == 0


def test_a_bound_budget_is_checked_with_the_length_of_the_row():
    for call in (sx.budget.bind(budget=5), sx.blend({sx.budget.bind(budget=5): 1.0})):
        with pytest.raises(ValueError, match=r"budget is 5\.0.*row's length 3"):
            call([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(sx.budget.bind(budget=3)([1.0, 2.0, 3.0]), [1, 1, 1])
    np.testing.assert_allclose(sx.budget.bind(budget=4)([1.0, 2.0, 3.0], sink=0.0), [1, 1, 1])
    with pytest.raises(ValueError, match="inf"):
        sx.budget.bind(budget=np.inf)


def test_a_tiny_temperature_leaves_the_loss_exact():
    assert sx.sparsemax.loss([1e10, 0.0], [1.0, 0.0], temperature=1e-300) == 0
    assert sx.sparsemax.loss([1e10, 0.0], [0.5, 0.5], temperature=1e-300) > 1e300


def test_the_jacobian_of_a_nan_row_is_zero_at_masked_entries():
    mask = np.array([True, True, False])
    found = sx.softmax.jacobian([1.0, np.nan, 3.0], where=mask)
    assert np.all(found[2] == 0) and np.all(found[:, 2] == 0)
    assert np.all(np.isnan(found[:2, :2]))
    assert np.all(np.isnan(sx.softmax.jacobian([1.0, 2.0], where=[False, False], empty="nan")))


def test_maxout_of_a_number():
    assert sx.maxout(3.0, pieces=1).shape == ()
    assert sx.maxout.vjp(3.0, 2.0, pieces=1) == 2
    assert sx.maxout.jvp(3.0, 2.0, pieces=1) == 2


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: sx.softmax([1.0], name="a"), TypeError, "unexpected keyword argument 'name'"),
        (lambda: sx.softmax([1.0], empty=np.zeros(2)), ValueError, "empty"),
        (lambda: sx.softmax.vjp([1.0], [1.0], wrt=None), TypeError, "wrt=None.*temperature"),
        (lambda: sx.sparsemax.regularizer([0.5, 0.5], temperature=2.0), TypeError, "temperature"),
        (lambda: sx.cross_entropy([[1.0, 2]], [0], label_smoothing="a"), TypeError, "label_smoothing"),
        (lambda: sx.cross_entropy([[1.0, 2]], [[0.1, 0.9]], ignore_index=1), ValueError, "ignore_index"),
        (lambda: sx.cross_entropy([[1.0, 2]], [1234567]), IndexError, "1234567"),
        (lambda: sx.budget([1.0, 2.0]), TypeError, "budget="),
    ],
)
def test_errors_say_what_was_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_binding_nothing_is_the_map_itself_and_names_lose_no_digit():
    assert sx.entmax.bind() is sx.entmax
    assert sx.entmax.bind(alpha=1.30000001).name == "entmax(alpha=1.30000001)"


@pytest.fixture
def blind(monkeypatch):
    """array-api-strict as if its numbers could not be looked at: every round and every side is computed."""
    backend = array_api.ArrayApiBackend(array_api_strict, "array_api_strict", can_look=False)
    monkeypatch.setattr(array_api, "backend_for", lambda functions, root: backend)
    return array_api_strict.asarray


@pytest.mark.parametrize("map_", sx.MAPS, ids=lambda each: each.name)
def test_formulas_that_cannot_look_agree(map_, blind):
    rng = np.random.default_rng(5)
    x, g = rng.normal(size=(4, 6)) * 2, rng.normal(size=(4, 6))
    x[1, 2], x[3, 1] = -np.inf, np.nan
    x = -x if map_.name.endswith("softmin") else x
    where, temperature = rng.random((4, 6)) > 0.2, np.array([[0.5], [1.0], [2.0], [3.0]])
    values = {"entmax": [1.0, 2.0, np.inf, 5.0], "normmax": [1.3, 2.0, 3.0, 5.0], "budget": [0.0, 1.3, 3.0, 2.0]}
    hyper = {name: np.array(values[laws.name_of(map_)])[:, None] for name in map_.parameters}
    given = {"where": where, "temperature": temperature, "sink": 0.3}
    seen = {key: blind(value) for key, value in {"where": where, "temperature": temperature, **hyper}.items()}
    found = np.from_dlpack(map_(blind(x), sink=0.3, **seen))
    np.testing.assert_allclose(found, map_(x, **given, **hyper), rtol=1e-13, atol=0)
    found = np.from_dlpack(map_.vjp(blind(x), blind(g), sink=0.3, **seen))
    wanted = map_.vjp(x, g, **given, **hyper)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-13 * np.nanmax(np.abs(wanted)))


def test_what_cannot_be_looked_at_makes_its_row_nan(blind):
    x = np.random.default_rng(6).normal(size=(3, 4))
    bad = blind(np.array([[1.5], [0.5], [2.0]]))
    found = np.from_dlpack(sx.entmax(blind(x), alpha=bad))
    assert np.all(np.isnan(found[1])) and np.all(np.isfinite(found[[0, 2]]))
    found = np.from_dlpack(sx.softmax.loss(blind(x), blind(np.array([0, 9, 1])), reduction="none"))
    assert np.isnan(found[1]) and np.all(np.isfinite(found[[0, 2]]))


class Subclass(np.ndarray):
    pass


def test_a_subclass_of_ndarray_is_taken_as_numpy():
    x = np.random.default_rng(7).normal(size=(3, 4))
    out = np.empty((3, 4))
    found = sx.entmax(x.view(Subclass), alpha=1.3, out=out)
    assert found is out
    np.testing.assert_array_equal(out, sx.entmax(x, alpha=1.3))
    assert type(sx.softmax(x.view(Subclass))) is np.ndarray


def test_dask_looks_at_what_numpy_gave_and_at_nothing_else():
    dask = pytest.importorskip("dask.array")
    x = dask.ones((2, 3), chunks=(1, 2))
    with pytest.raises(ValueError, match=r"temperature is an array with 0\.0"):
        sx.softmax(x, temperature=np.array([[1.0], [0.0]]))
    with pytest.raises(IndexError, match="9"):
        sx.cross_entropy(x, np.array([0, 9]))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        sx.softmax(x[x[:, 0] > 0])
    unseen = dask.from_array(np.array([[1.0], [0.0]]), chunks=1)
    found = sx.softmax(x, temperature=unseen).compute()
    assert np.all(np.isnan(found[1])) and np.all(found[0] == found[0, 0])


def test_dtypes_of_other_libraries_go_by_their_names():
    x = array_api_strict.asarray([1.0, 2.0])
    for dtype in ("float32", np.float32, np.dtype("float32"), array_api_strict.float32):
        assert sx.softmax(x, dtype=dtype).dtype == array_api_strict.float32
    with pytest.raises(TypeError, match="float16.*float64, float32"):
        sx.softmax(x, dtype="float16")


def test_regularizers_follow_their_formula_outside_the_simplex():
    assert sx.entmax.regularizer([-1.0, 2.0], alpha=2.0) == sx.sparsemax.regularizer([-1.0, 2.0]) == 2
    np.testing.assert_allclose(sx.entmax.regularizer([-2.0, 3.0], alpha=3.0), (-8 + 27 - 1) / 6, rtol=1e-14)


def pieces_alone(steepness):
    """entmax at alpha = 1 + steepness from its three pieces alone, without what entmax knows of its own anchor."""
    return Map(
        "pieces",
        Separable(
            lambda xp, p: p * (p**steepness - 1.0) / (steepness * (steepness + 1.0)),
            lambda xp, p, d: xp.pow(xp.maximum(xp.pow(p, steepness) + steepness * d, 0.0), 1.0 / steepness),
            lambda xp, p: xp.where(p > 0.0, xp.pow(xp.where(p > 0.0, p, 1.0), 1.0 - steepness), 0.0),
        ),
    )


@pytest.mark.parametrize(("steepness", "digits"), [(0.2, 14), (1.0, 14), (2.0, 12), (3.0, 8)])
def test_the_solver_takes_links_of_every_shape(steepness, digits):
    """Concave links too, for which Newton's method from the top is not monotone; steep ones cost digits."""
    x = np.random.default_rng(8).normal(size=(300, 12)) * np.geomspace(0.01, 3, 300)[:, None]
    found = pieces_alone(steepness)(x)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=10.0**-digits)
    wanted = sx.entmax(x, alpha=1 + steepness)
    assert np.max(np.abs(found - wanted)) < 2 * 10.0**-digits * wanted.max()


def test_a_smoothed_loss_does_not_depend_on_the_offset_of_the_scores():
    for map_ in (sx.softmax, sx.sparsemax, sx.entmax15):
        near, far = np.array([0.0, 0.5, 0.25]), np.array([0.0, 0.5, 0.25]) + 2.0**45
        wanted = map_.loss(near, 1, label_smoothing=0.1)
        np.testing.assert_allclose(map_.loss(far, 1, label_smoothing=0.1), wanted, rtol=1e-15)
        y = np.array([0.25, 0.5, 0.25])
        np.testing.assert_allclose(
            map_.loss(far, y, label_smoothing=0.1), map_.loss(near, y, label_smoothing=0.1), rtol=1e-15
        )
    y = np.array([0.25, 0.5, 0.5])  # taken as it is: the offset counts for what it has too much
    np.testing.assert_allclose(sx.softmax.loss(near + 8, y), sx.softmax.loss(near, y) - 0.25 * 8, rtol=1e-14)


def test_a_padded_distribution_may_hold_nan_under_the_mask():
    x, where = [1.0, 2.0, 3.0], [True, True, False]
    for loss in (sx.softmax.loss, sx.cross_entropy):
        assert loss(x, [0.5, 0.5, np.nan], where=where) == loss(x, [0.5, 0.5, 0.0], where=where) > 0
    assert np.isnan(sx.softmax.loss(x, [0.5, 0.5, np.nan]))


def test_star_import_brings_the_public_names_alone():
    names = {}
    exec("from softplex import *", names)
    del names["__builtins__"]
    assert {"sparsemax", "maxout", "cross_entropy", "MAPS"} < set(names)
    assert not {"annotations", "core", "maps", "system"} & set(names)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint64"])
def test_narrow_class_indices(dtype):
    x = np.random.default_rng(9).normal(size=(3, 300))
    y = np.array([1, 2, 100])
    wanted = sx.cross_entropy(x, y)
    assert sx.cross_entropy(x, y.astype(dtype)) == wanted
    found = sx.cross_entropy(array_api_strict.asarray(x), array_api_strict.asarray(y.astype(dtype)))
    np.testing.assert_allclose(float(found), float(wanted), rtol=1e-15)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_budgets_that_move_no_weight_have_no_derivative(framework):
    """Rows with fewer entries than the budget, and whole budgets that are met: weights of 0 and 1 alone."""
    library = pytest.importorskip(framework, reason=f"{framework} is not installed")
    cases = [
        ([1.0, 3.0, 2.0, 0.0], [True, False, False, False], 1.5),
        ([1.0, 3.0, 2.0], [True, True, False], 2.5),
        ([10.0, 0.0, 0.0], [True] * 3, 1.0),
        ([5.0, 4.0, 0.0], [True] * 3, 2.0),
    ]
    for x, where, k in cases:
        weights = sx.budget(np.array(x), budget=k, where=where)
        assert set(weights) <= {0.0, 1.0}
        assert sx.budget.vjp(np.array(x), np.ones(len(x)), budget=k, where=where, wrt="budget") == 0
        if framework == "torch":
            scores, mask = library.tensor(x), library.tensor(where)
            number = library.tensor(k, requires_grad=True)
            found = [
                library.autograd.grad(value.sum(), number)[0]
                for value in (
                    sx.budget(scores, budget=number, where=mask),
                    sx.budget.smooth_max(scores, budget=number, where=mask),
                )
            ]
        else:
            scores, mask = library.numpy.asarray(x), library.numpy.asarray(where)
            found = [
                library.grad(lambda b, method=method, x=scores, where=mask: method(x, budget=b, where=where).sum())(k)
                for method in (sx.budget, sx.budget.smooth_max)
            ]
        assert [float(one) for one in found] == [0.0, 0.0], (x, k)
