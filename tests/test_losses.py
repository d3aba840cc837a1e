"""The losses by their usual names: cross_entropy as torch has it, and the Fenchel-Young losses of the family."""

import itertools

import numpy as np
import pytest

import reference
import softplex as sx
import tolerances
from frameworks import HAS_KERNELS
from softplex.backends.numpy import NumpyBackend
from softplex.native import cpu, reason
from tolerances import ulp

X = np.random.default_rng(1).normal(size=(6, 5)) * 2
Y = np.array([0, 4, -100, 2, 2, 1])
SOFT = np.random.default_rng(2).random((6, 5))
SOFT /= SOFT.sum(axis=-1, keepdims=True)
W = np.array([0.5, 2.0, 1.0, 0.25, 3.0])


def exact_cross_entropy(x, y, weight, smoothing, reduction):
    """The definition, row by row, with torch's divisors."""
    rows = [reference.row("softmax", line) for line in x]
    w = np.ones(x.shape[-1]) if weight is None else weight
    if y.ndim == 1:
        kept = y != -100
        share = np.where(kept, w[np.where(kept, y, 0)], 0)
        terms = []
        for row, target in zip(rows, y, strict=True):
            if target < 0:
                terms.append(0.0)
                continue
            spread = row.cross_entropy([1 / x.shape[-1]] * x.shape[-1], weight=w)
            hit = row.cross_entropy(int(target), weight=w)
            terms.append(float((1 - reference.number(smoothing)) * hit + reference.number(smoothing) * spread))
        divisor = share.sum()
    else:
        terms = [float(row.cross_entropy(target, smoothing, w)) for row, target in zip(rows, y, strict=True)]
        divisor = len(rows)
    total = sum(terms)
    return {"none": np.array(terms), "sum": total, "mean": total / divisor}[reduction]


CALLS = list(itertools.product((Y, SOFT), (None, W), (0.0, 0.2), ("none", "sum", "mean")))


@pytest.mark.parametrize(("y", "weight", "smoothing", "reduction"), CALLS)
def test_cross_entropy_is_its_definition(y, weight, smoothing, reduction):
    got = sx.cross_entropy(X, y, weight=weight, label_smoothing=smoothing, reduction=reduction)
    np.testing.assert_allclose(got, exact_cross_entropy(X, y, weight, smoothing, reduction), rtol=1e-14)


@pytest.mark.parametrize(("y", "weight", "smoothing", "reduction"), CALLS)
def test_cross_entropy_is_torchs(y, weight, smoothing, reduction):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    wanted = torch.nn.functional.cross_entropy(
        torch.tensor(X),
        torch.tensor(y),
        None if weight is None else torch.tensor(weight),
        label_smoothing=smoothing,
        reduction=reduction,
    )
    got = sx.cross_entropy(X, y, weight=weight, label_smoothing=smoothing, reduction=reduction)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_cross_entropy_of_confident_rows(dtype):
    """ULPs of itself: log1p of what is left, never log of nearly 1."""
    limit = tolerances.cross_entropy_bound(dtype, formulas=not HAS_KERNELS)
    x = np.array([[0, -40, -41], [30, 0, 1], [0, -700 if dtype == "float64" else -80, -900], [1, 1, 1]]).astype(dtype)
    got = sx.cross_entropy(x, np.zeros(4, int), reduction="none")
    assert got.dtype == dtype
    for value, line in zip(got.tolist(), x, strict=True):
        wanted = reference.row("softmax", line).cross_entropy(0)
        assert value > 0
        assert abs(reference.mpf(value) - wanted) <= limit * ulp(dtype, wanted)


def test_cross_entropy_equals_the_loss_of_softmax_for_indices():
    for reduction in ("none", "sum", "mean"):
        one = sx.cross_entropy(X, Y, reduction=reduction)
        np.testing.assert_allclose(one, sx.softmax.loss(X, Y, ignore_index=-100, reduction=reduction), rtol=1e-15)


def test_cross_entropy_is_the_loss_plus_the_entropy():
    entropy = -np.sum(SOFT * np.log(SOFT), axis=-1)
    got = sx.cross_entropy(X, SOFT, reduction="none")
    np.testing.assert_allclose(got, sx.softmax.loss(X, SOFT, reduction="none") + entropy, rtol=1e-13)


def test_cross_entropy_with_everything():
    """Mask, sink and temperature: the exact row has them too."""
    where = np.random.default_rng(4).random(X.shape) < 0.8
    where[:, 1] = True
    got = sx.cross_entropy(X, np.ones(6, int), where=where, sink=0.5, temperature=0.5, reduction="none")
    for value, line, mask in zip(got, X, where, strict=True):
        wanted = reference.row("softmax", line, where=mask, sink=0.5, temperature=0.5).cross_entropy(1)
        assert value == pytest.approx(float(wanted), rel=1e-14)
    along = sx.cross_entropy(X.T, Y, axis=0, reduction="none")
    assert np.array_equal(along, sx.cross_entropy(X, Y, reduction="none"))


@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_a_mean_over_no_weight_is_nan(smoothing, ignored):
    """As in torch: smoothing leaves a loss where the classes that are asked for weigh nothing."""
    y, weight = np.array([1, 1, 2]), np.array([0.5, 0.0, 0.0])
    given = {"weight": weight, "label_smoothing": smoothing, "ignore_index": ignored}
    assert np.isnan(sx.cross_entropy(X[:3, :3], y, **given))
    assert np.isfinite(sx.cross_entropy(X[:3, :3], y, **given, reduction="sum"))
    torch = pytest.importorskip("torch")
    x = torch.tensor(X[:3, :3], requires_grad=True)
    given["weight"] = torch.tensor(weight)
    for cross_entropy in (sx.cross_entropy, torch.nn.functional.cross_entropy):
        loss = cross_entropy(x, torch.tensor(y), **given)
        (gradient,) = torch.autograd.grad(loss, x)
        assert torch.isnan(loss) and torch.isnan(gradient[:2]).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_infinite_cotangents_of_losses_warn_of_nothing(smoothing):
    """As a scaler of gradients gives them, beside weights of 0."""
    torch = pytest.importorskip("torch")
    for loss in (sx.cross_entropy, sx.softmax.loss, sx.sparsemax.loss):
        x = torch.tensor(X[:3, :3], requires_grad=True)
        weight = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
        value = loss(x, torch.tensor([1, 0, 2]), weight=weight, label_smoothing=smoothing)
        (gradient,) = torch.autograd.grad(value, x, torch.tensor(np.inf, dtype=torch.float64))
        assert not torch.isfinite(gradient[1:]).all()


def test_cross_entropy_of_nothing():
    assert sx.cross_entropy(X, np.full(6, -100)) == 0
    assert sx.cross_entropy(X, np.full(6, -100), weight=W) == 0
    with pytest.raises(IndexError, match="-100"):
        sx.cross_entropy(X, Y, ignore_index=2)


def test_infinite_losses_are_never_nan():
    x = np.array([[0.0, -np.inf], [1.0, 2.0]])
    assert sx.cross_entropy(x, np.array([1, 0]), reduction="none")[0] == np.inf
    assert sx.cross_entropy(x, np.array([1, 0])) == np.inf
    assert sx.cross_entropy(x, np.array([[0.5, 0.5], [1.0, 0.0]]), reduction="none")[0] == np.inf
    got = sx.cross_entropy(x, np.array([[1.0, 0.0], [1.0, 0.0]]), reduction="none")
    assert got[0] == 0 and np.isfinite(got[1])
    masked = sx.cross_entropy(np.array([[0.0, 1.0]]), np.array([0]), where=[[False, True]], reduction="none")
    assert masked[0] == np.inf
    assert sx.cross_entropy(np.array([[np.nan, 1.0]]), np.array([-100])) == 0


@pytest.mark.parametrize(
    ("function", "map_", "hyper"),
    [
        (sx.sparsemax_loss, sx.sparsemax, {}),
        (sx.entmax15_loss, sx.entmax15, {}),
        (sx.entmax_loss, sx.entmax, {"alpha": 1.3}),
        (sx.entmax_loss, sx.entmax, {"alpha": 2.5}),
    ],
)
def test_named_losses_are_the_maps_losses(function, map_, hyper):
    for reduction in ("none", "sum", "mean"):
        for y, ignored in ((np.where(Y < 0, 0, Y), None), (Y, -100), (SOFT, None)):
            arguments = {"reduction": reduction, "ignore_index": ignored, "temperature": 0.7, **hyper}
            got, wanted = function(X, y, **arguments), map_.loss(X, y, **arguments)
            assert np.array_equal(got, wanted)
            assert np.all(np.isfinite(got)) and np.any(got)


def test_the_entmax_package_agrees_where_it_is_right():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    entmax = pytest.importorskip("entmax", reason="the entmax package is not installed")
    x = torch.tensor(X)
    np.testing.assert_allclose(sx.sparsemax(X), entmax.sparsemax(x, dim=-1).numpy(), atol=1e-15)
    np.testing.assert_allclose(sx.entmax15(X), entmax.entmax15(x, dim=-1).numpy(), atol=1e-14)
    for alpha in (1.3, 2.5):
        np.testing.assert_allclose(sx.entmax(X, alpha=alpha), entmax.entmax_bisect(x, alpha).numpy(), atol=1e-12)
    for alpha in (2.0, 3.0):
        np.testing.assert_allclose(sx.normmax(X, alpha=alpha), entmax.normmax_bisect(x, alpha).numpy(), atol=1e-12)
    for k in (2, 3):
        np.testing.assert_allclose(sx.budget(X, budget=k), entmax.budget_bisect(x, k).numpy(), atol=1e-12)
    y = np.where(Y < 0, 3, Y)
    np.testing.assert_allclose(
        sx.sparsemax_loss(X, y, reduction="none"), entmax.sparsemax_loss(x, torch.tensor(y)).numpy(), atol=1e-14
    )
    np.testing.assert_allclose(
        sx.entmax15_loss(X, y, reduction="none"), entmax.entmax15_loss(x, torch.tensor(y)).numpy(), atol=1e-13
    )


# -- cross-entropy against distributions, by the kernels ---------------------------------------------------------------


def crossed(rng, shape, axis, dtype):
    """Scores, distributions that need not sum to 1, classes, and weights of classes."""
    x = (3 * rng.normal(size=shape)).astype(dtype)
    y = (rng.random(shape) * (rng.random(shape) < 0.7)).astype(dtype)
    classes = np.asarray(rng.integers(0, shape[axis], np.delete(shape, axis)))
    return x, y, classes, rng.random(shape[axis]) + 0.25


def crossed_options(rng, shape, weight):
    """Each way of saying what a target is, under masks, sinks and temperatures."""
    for given in ({}, {"weight": weight}, {"label_smoothing": 0.2}, {"weight": weight, "label_smoothing": 0.1}):
        yield given
        yield {**given, "where": rng.random(shape) < 0.8, "sink": 0.5, "temperature": 0.7}


@pytest.mark.skipif(cpu is None, reason=reason)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((7, 40), 1), ((33, 6), 0), ((2, 300, 3), 1), ((3, 70_001), 1)])
def test_distributions_smoothing_and_weights_are_the_kernels(shape, axis, dtype, monkeypatch):
    """Within rounding of the formulas in float64, and never by them."""
    rng = np.random.default_rng(len(shape) + shape[0])
    x, y, classes, weight = crossed(rng, shape, axis, dtype)
    x.reshape(-1)[rng.integers(0, x.size, 3)] = -np.inf
    eps = float(np.finfo(dtype).eps)
    for target in (y, classes):
        skipped = {} if target is y else {"ignore_index": int(classes.reshape(-1)[0])}
        for given in crossed_options(rng, shape, weight):
            wide = target.astype("f8") if target is y else target
            with sx.kernels("none"):
                wanted = sx.cross_entropy(x.astype("f8"), wide, axis, reduction="none", **skipped, **given)
            with monkeypatch.context() as closed:
                closed.setattr(NumpyBackend, "_by_formula", by_nobody)
                found = sx.cross_entropy(x, target, axis, reduction="none", **skipped, **given)
                sx.cross_entropy(x, target, axis, **skipped, **given)
            assert found.dtype == x.dtype
            np.testing.assert_allclose(found, wanted, rtol=6 * eps, atol=np.finfo(dtype).tiny)


def by_nobody(*_):
    raise AssertionError("a formula was asked")


@pytest.mark.skipif(cpu is None, reason=reason)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((7, 40), 1), ((33, 6), 0), ((2, 300, 3), 1)])
def test_their_gradients_are_the_kernels_too(shape, axis, dtype, monkeypatch):
    torch = pytest.importorskip("torch", reason="gradients are a framework's: pip install 'softplex[torch]'")
    rng = np.random.default_rng(len(shape))
    x, y, classes, weight = crossed(rng, shape, axis, dtype)
    eps = float(np.finfo(dtype).eps)

    def gradient(x, target, given):
        x = torch.tensor(x, requires_grad=True)
        given = {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
        loss = sx.cross_entropy(x, torch.tensor(target), axis, reduction="sum", **given)
        return torch.autograd.grad(loss, x)[0].numpy()

    for target in (y, classes):
        skipped = {} if target is y else {"ignore_index": int(classes.reshape(-1)[0])}
        for given in crossed_options(rng, shape, weight):
            wide = target.astype("f8") if target is y else target
            with sx.kernels("none"):
                wanted = gradient(x.astype("f8"), wide, {**skipped, **given})
            with monkeypatch.context() as closed:
                closed.setattr(NumpyBackend, "_by_formula", by_nobody)
                found = gradient(x, target, {**skipped, **given})
            size = np.abs(wanted).max(axis=axis, keepdims=True) + 1.0
            assert np.all(np.abs(found - wanted) <= 6 * eps * size), given
            assert np.array_equal(found == 0.0, wanted == 0.0), given


@pytest.mark.parametrize("target", [np.array([0, 1, 2]), SOFT[:3, :4]], ids=["classes", "distributions"])
def test_a_weight_beyond_the_type_of_the_scores_spoils_no_other_row(target):
    """In float32 it is infinite, and so 0 times it NaN."""
    x, weight = X[:3, :4].astype("f4"), np.array([1.0, 1e300, 1.0, 1.0])
    target = target if target.ndim == 1 else (target * [1, 0, 1, 1]).astype("f4")
    found = sx.cross_entropy(x, target, weight=weight, label_smoothing=0.0, reduction="none")
    with sx.kernels("none"):
        wanted = sx.cross_entropy(x, target, weight=weight, reduction="none")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert not np.isnan(found).any()


@pytest.mark.parametrize("kernels", ["auto", "none"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_is_not_hidden_by_a_class_that_weighs_nothing(bad, kernels):
    """As in torch; infinite losses of good rows weigh nothing."""
    x, y, weight = np.array([[bad, 1.0], [1.0, 0.0]]), np.array([0, 1]), np.array([0.0, 1.0])
    with sx.kernels(kernels):
        for loss in (sx.cross_entropy, sx.softmax.loss, sx.sparsemax.loss):
            for smoothing in (0.0, 0.1):
                given = {"weight": weight, "label_smoothing": smoothing}
                found = loss(x, y, reduction="none", **given)
                assert np.isnan(found[0]) and found[1] > 0, (loss, smoothing)
                assert np.isnan(loss(x, y, **given))
            spared = loss(x, np.array([-7, 1]), reduction="none", ignore_index=-7, weight=weight)
            assert spared[0] == 0 and spared[1] > 0
        assert sx.cross_entropy(np.array([[-np.inf, 1.0]]), [0], weight=weight, reduction="none")[0] == 0


@pytest.mark.parametrize("y", [[0.0, 0.0], 0])
def test_smoothing_spreads_nothing_where_no_entry_is_live(y):
    """All weight is the sink's, and the loss its conjugate: 0.3 of a target that smoothing leaves empty."""
    given = {"sink": 0.3, "where": [[False, False]], "label_smoothing": 1.0 if y == 0 else 0.2}
    found = sx.sparsemax.loss(np.zeros((1, 2)), np.array([y]), reduction="none", **given)
    np.testing.assert_allclose(found, [0.3], rtol=1e-15)
