"""The short way of losses of tensors: the bits of NumPy's losses, the gradients of the usual road, and its refusals."""

import pickle

import numpy as np
import pytest

import softplex as sx
from frameworks import threads

torch = pytest.importorskip("torch", reason="torch is not installed")
from softplex.backends.torch import quick_losses  # noqa: E402
from softplex.core.targets import REDUCTIONS  # noqa: E402
from softplex.native import cpu  # noqa: E402

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MAPS = (sx.softmax, sx.softmin, sx.sparsemax, sx.entmax15, sx.entmax)
MAPS += tuple([sx.entmax.bind(alpha=alpha) for alpha in (1.3, 2.7)])
LOSSES = [sx.cross_entropy, *[map_.loss for map_ in MAPS]]
EACH = {"argvalues": LOSSES, "ids": ["cross_entropy", *[map_.name for map_ in MAPS]]}

pytestmark = pytest.mark.skipif(cpu is None, reason="there are no kernels")


@pytest.fixture
def taken(monkeypatch):
    """What the kernel was asked for."""
    calls, told = [], quick_losses.told

    def noted(known, x, y, where, numbers, scale=None, solved=None):
        found = told(known, x, y, where, numbers, scale, solved)
        calls.append("declined" if found is None else "losses" if scale is None else "gradient")
        return found

    monkeypatch.setattr(quick_losses, "told", noted)
    return calls


@pytest.fixture
def usual(monkeypatch):
    """Runs a function with the short way closed."""

    def run(function):
        with monkeypatch.context() as closed:
            closed.setattr(quick_losses, "loss", lambda *_: None)
            return function()

    return run


def drawn(seed, dtype):
    """Scores and classes of any layout, and options."""
    random = np.random.default_rng(seed)
    shape = [(), (1,), (7,), (3, 2), (2, 3, 2)][seed % 5]
    axis, length = int(random.integers(0, len(shape) + 1)), int(random.choice([1, 2, 5, 17, 130, 1000]))
    whole = (*shape[:axis], length, *shape[axis:])
    step = seed // 5 % 3 + 1
    x = torch.tensor(random.normal(size=[step * size for size in whole]) * 3).to(dtype)
    y = torch.tensor(random.integers(0, length, size=[step * size for size in shape]))
    x, y = x[tuple([slice(None, None, step)] * len(whole))], y[tuple([slice(None, None, step)] * len(shape))]
    options = {"reduction": REDUCTIONS[seed % 3]}
    if seed % 2:
        options["temperature"] = float(random.choice([0.3, 1, 7.0]))
    if seed % 3 == 0:
        options["ignore_index"] = int(y.reshape(-1)[0])
    if seed % 7 == 0:
        options["sink"] = 0.5
    if seed % 4 == 1:
        options["where"] = torch.tensor(random.random(whole) < 0.7)
    if seed % 11 == 0:
        options["empty"] = "nan"
    return x, y, axis, options


def gradient(loss, x, y, axis, options):
    """The value, and the gradient under cotangents that are not 1."""
    x = x.detach().requires_grad_()
    value = loss(x, y, axis, **options)
    g = torch.linspace(-1.0, 2.0, max(value.numel(), 1)).view(value.shape).to(value.dtype)
    return value.detach(), *torch.autograd.grad(value, x, g)


def same(one, other):
    return one.dtype == other.dtype and torch.equal(one.isnan(), other.isnan()) and torch.equal(
        one.nan_to_num(0.0), other.nan_to_num(0.0)
    )  # fmt: skip


def as_numpy(options):
    return {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in options.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loss", **EACH)
def test_bits_are_those_of_numpy_and_of_the_usual_road(loss, dtype, taken, usual):
    for seed in range(60):
        x, y, axis, options = drawn(seed, dtype)
        found = gradient(loss, x, y, axis, options)
        assert taken == ["losses", "gradient"], (seed, options)
        assert same(loss(x, y, axis, **options), found[0])
        wanted = usual(lambda: gradient(loss, x, y, axis, options))  # noqa: B023
        for one, right in zip(found, wanted, strict=True):
            assert same(one, right), (seed, x.shape, x.stride(), options)
        if dtype is not torch.bfloat16:
            by_numpy = loss(x.numpy(), y.numpy(), axis, **as_numpy(options))
            assert np.array_equal(np.asarray(found[0]), by_numpy, equal_nan=True), (seed, options)
        taken.clear()


def test_rows_that_tell_nothing(taken, usual):
    """-inf and NaN, masked NaN, empty rows, a class of weight 0, and batches in which nothing counts."""
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([[0.0, -inf, 1.0], [nan, 0.0, 1.0], [-inf, -inf, -inf], [inf, 0.0, 0.0], [9.0, 0.0, -80.0]])
    y, where = torch.tensor([1, 0, 2, 0, 2]), torch.tensor([[True, True, True], [False, True, True]] + [[True] * 3] * 3)
    for loss in (sx.cross_entropy, sx.sparsemax.loss):
        for reduction in REDUCTIONS:
            for mask in ({}, {"where": where}):
                for classes in (y, torch.tensor([1, 1, 1, 1, 1]), torch.full((5,), -100)):
                    options = {"reduction": reduction, "ignore_index": -100 if classes[0] < 0 else 1, **mask}
                    found = gradient(loss, x, classes, 1, options)
                    wanted = usual(lambda: gradient(loss, x, classes, 1, options))  # noqa: B023
                    assert all(same(one, right) for one, right in zip(found, wanted, strict=True)), options
    assert "declined" not in taken


SPARSE = (sx.sparsemax, sx.entmax15, *[sx.entmax.bind(alpha=alpha) for alpha in (1.0, 1.3, 1.5, 2.0, 3.0)])


def told_twice(map_, x, y, options, edited):
    """The gradient from what the way there has solved, edited in between, and the gradient from the scores alone."""
    known = quick_losses.Known(*quick_losses.cut_of(map_, map_.formula), -1, options, (), -100, "sum", ())
    _, _, solved = quick_losses.told(known, x, y, None, (), solved=True)
    kept = None if solved is None else edited(torch.from_numpy(solved))
    return kept, quick_losses.told(known, x, y, None, (), 0.5, kept), quick_losses.told(known, x, y, None, (), 0.5)


@pytest.mark.parametrize("map_", SPARSE, ids=str)
@pytest.mark.parametrize("columns", [255, 256, 5000, 300_000])
def test_rows_are_solved_once(map_, columns):
    rows = 3 if columns > 5000 else 40
    x, y = torch.randn(rows, columns) * 2, torch.randint(columns, (rows,))
    x[:, y[0]] = x[:, 7] = 5.0
    if rows > 3:
        x[1] = torch.nan
        x[2] = -torch.inf
        x[3, 5] = torch.inf
        x[4] = 0.0
        x[5, 1:] = -torch.inf
        y[6] = -100
    for dtype in DTYPES:
        for options in ({}, {"sink": 4.5, "temperature": 0.7}, {"empty": "nan"}):
            kept, found, alone = told_twice(map_, x.to(dtype), y, options, lambda kept: kept)
            assert (kept is None) == (columns < 256 or map_ == sx.entmax.bind(alpha=1.0))
            assert same(found, alone), (dtype, options)


def raised(kept):
    """What was solved of sparsemax with more weight for the tops."""
    return torch.where(torch.arange(kept.shape[1]) == 1, kept + 0.125, kept)


def test_what_was_solved_is_what_the_way_back_goes_by():
    """It is not solved again; and what is none of it is declined, or does no harm."""
    x, y = torch.randn(9, 700), torch.randint(700, (9,))

    def back(edited):
        return told_twice(sx.sparsemax, x, y, {}, edited)[1:]

    found, alone = back(raised)
    assert (found > alone).any()
    assert back(lambda kept: kept[:8])[0] is None
    assert back(lambda kept: kept[:, :5].contiguous())[0] is None
    assert back(lambda kept: kept.float())[0] is None
    assert back(lambda kept: kept.T.contiguous().T)[0] is None
    for noise in (torch.nan, torch.inf, -torch.inf, 1e300, -1.0):
        assert back(lambda kept: torch.full_like(kept, noise))[0] is not None  # noqa: B023


def test_hooks_of_saved_tensors_see_what_was_solved():
    """So that checkpoints leave nothing of it alive; and autograd's way back goes by it."""
    x, y = torch.randn(4, 500), torch.randint(500, (4,))

    def moved(kept):
        return raised(kept) if kept.dtype is torch.float64 else kept

    right = gradient(sx.sparsemax.loss, x, y, -1, {})
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, moved):
        found = gradient(sx.sparsemax.loss, x, y, -1, {})
    assert same(found[0], right[0]) and (found[1] > right[1]).any()


def test_a_default_device_is_not_that_of_the_losses():
    x, y = torch.randn(4, 6), torch.tensor([0, 3, 5, 1])
    for loss in LOSSES:
        with torch.device("meta"):
            found = loss(x, y)
        assert found.device.type == "cpu" and same(found, loss(x, y))


def test_large_gradients_and_many_threads(taken, usual):
    x, y = torch.randn(3000, 4096), torch.randint(4096, (3000,))
    assert x.nbytes >= 1 << 25
    found = gradient(sx.sparsemax.loss, x, y, 1, {})
    with threads(1, torch):
        alone = gradient(sx.sparsemax.loss, x, y, 1, {})
    wanted = usual(lambda: gradient(sx.sparsemax.loss, x, y, 1, {}))
    for one, right, one_thread in zip(found, wanted, alone, strict=True):
        assert same(one, right) and same(one, one_thread)
    assert "gradient" in taken


@pytest.mark.parametrize("loss", **EACH)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_way_back_can_be_differentiated(loss, reduction, usual):
    x = torch.randn(4, 6, dtype=torch.float64)
    y = torch.tensor([0, 3, 5, 1])

    def twice(x):
        x = x.clone().requires_grad_()
        value = loss(x, y, reduction=reduction, ignore_index=3, temperature=0.7)
        g = torch.ones_like(value).requires_grad_()
        (once,) = torch.autograd.grad(value, x, g, create_graph=True)
        again = torch.autograd.grad((once * once).sum(), (x, g))
        return [once.detach(), *again]

    for one, right in zip(twice(x), usual(lambda: twice(x)), strict=True):
        torch.testing.assert_close(one, right, rtol=1e-12, atol=1e-12)


def test_cotangents_come_in_batches(usual):
    x, y = torch.randn(4, 6, requires_grad=True), torch.tensor([0, 3, 5, 1])

    def jacobian():
        value = sx.cross_entropy(x, y, reduction="none")
        return torch.autograd.grad(value, x, torch.eye(4), is_grads_batched=True)[0]

    torch.testing.assert_close(jacobian(), usual(jacobian))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, in jvp
def test_what_it_does_not_know_goes_the_usual_way(taken):
    """Each beside a call that is known, from which it differs in one thing."""
    x, y = torch.randn(3, 5), torch.tensor([0, 1, 4])
    sx.cross_entropy(x, y), sx.cross_entropy(x, y, 1), sx.cross_entropy(x, y, dim=-1), sx.cross_entropy(x, y, axis=1)
    sx.cross_entropy(x, y, ignore_index=None), sx.cross_entropy(x, y, label_smoothing=0.0, weight=None)
    assert taken.count("losses") == 6 and len(taken) == 6
    others = [
        lambda: sx.cross_entropy(x, y.to(torch.int32)),
        lambda: sx.cross_entropy(x, y.numpy()),
        lambda: sx.cross_entropy(x, torch.softmax(x, 1)),
        lambda: sx.cross_entropy(x, y, weight=torch.ones(5)),
        lambda: sx.cross_entropy(x, y, label_smoothing=0.1),
        lambda: sx.cross_entropy(x, y, temperature=torch.tensor(0.5).half()),
        lambda: sx.cross_entropy(x, y, where=np.ones((3, 5), bool)),
        lambda: sx.cross_entropy(x, y, dtype=torch.float64),
        lambda: sx.cross_entropy(x.to(torch.int64), y),
        lambda: sx.cross_entropy(x[None, :], y, (0, 2)),
        lambda: sx.normmax.loss(x, y),
        lambda: sx.cross_entropy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)),
        lambda: torch.func.grad(lambda x: sx.cross_entropy(x, y))(x),
        lambda: torch.func.jvp(lambda x: sx.cross_entropy(x, y), (x,), (x,)),
    ]
    for place, other in enumerate(others):
        assert other().isfinite().all() if place < 13 else other(), place
    with sx.kernels("none"):
        sx.cross_entropy(x, y)
    assert taken.count("losses") == 6


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x, y: sx.cross_entropy(x, y + 1), IndexError, "index 5"),
        (lambda x, y: sx.cross_entropy(x, -y), IndexError, "index -"),
        (lambda x, y: sx.cross_entropy(x, y[:2]), ValueError, "shape"),
        (lambda x, y: sx.cross_entropy(x, y, 5), ValueError, "axis"),
        (lambda x, y: sx.cross_entropy(x, y, axis=1, dim=1), TypeError, "dim"),
        (lambda x, y: sx.cross_entropy(x, y, 1, dim=1), TypeError, "dim"),
        (lambda x, y: sx.cross_entropy(x, y, temperature=0.0), ValueError, "temperature"),
        (lambda x, y: sx.cross_entropy(x, y, reduction="max"), ValueError, "reduction"),
        (lambda x, y: sx.cross_entropy(x, y, ignore_index=1.5), TypeError, "ignore_index"),
        (lambda x, y: sx.cross_entropy(x, y, ignore_index=True), TypeError, "ignore_index"),
        (lambda x, y: sx.cross_entropy(x, y, weights=None), TypeError, "weights"),
        (lambda x, y: sx.cross_entropy(x, y, label_smoothing=2.0), ValueError, "label_smoothing"),
        (lambda x, y: sx.cross_entropy(x, y, label_smoothing=torch.zeros(2)), TypeError, "label_smoothing"),
        (lambda x, y: sx.cross_entropy(x, y, label_smoothing=False), TypeError, "label_smoothing"),
        (lambda x, y: sx.entmax.loss(x, y, alpha=0.5), ValueError, "alpha"),
        (sx.log_softmax.loss, TypeError, "log map"),
        (lambda x, y: sx.sparsemax.loss(x, y, where=torch.ones(7, dtype=torch.bool)), ValueError, "where"),
    ],
)
def test_what_is_wrong_is_refused_in_words(call, kind, words):
    x, y = torch.randn(3, 5), torch.tensor([0, 1, 4])
    for scores in (x, x.clone().requires_grad_()):
        with pytest.raises(kind, match=words):
            call(scores, y)


def test_autograd_keeps_the_tensors_and_nothing_else():
    """Hooks see them, a change in place is refused, and a second way back is the same."""
    x, y = torch.randn(3, 5, requires_grad=True), torch.tensor([0, 1, 4])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.data_ptr()) or each, lambda each: each):
        value = sx.cross_entropy(x, y)
    assert kept == [x.data_ptr(), y.data_ptr()]
    (first,) = torch.autograd.grad(value, x, retain_graph=True)
    (second,) = torch.autograd.grad(value, x, retain_graph=True)
    assert same(first, second)
    value = sx.cross_entropy(x, y)
    y[0] = 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(value, x)


def test_nothing_of_the_callers_is_written_to():
    x, y, where = torch.randn(3, 5), torch.tensor([0, 1, -100]), torch.rand(3, 5) < 0.8
    before = x.clone(), y.clone(), where.clone()
    gradient(sx.cross_entropy, x, y, 1, {"where": where})
    assert all(torch.equal(one, other) for one, other in zip((x, y, where), before, strict=True))


def test_a_map_is_kept_without_its_short_ways():
    map_ = sx.entmax.bind(alpha=1.2)
    map_.loss(torch.randn(3, 5), torch.tensor([0, 1, 4]))
    again = pickle.loads(pickle.dumps(map_))
    assert again == map_ and again.loss(torch.zeros(1, 2), torch.tensor([0])).isfinite()


def test_autocast_has_the_last_word():
    """What torch casts there is a float32."""
    x, y = torch.randn(3, 5).bfloat16(), torch.tensor([0, 1, 4])
    assert sx.cross_entropy(x, y).dtype is torch.bfloat16
    with torch.autocast("cpu"):
        assert sx.cross_entropy(x, y).dtype is torch.float32
