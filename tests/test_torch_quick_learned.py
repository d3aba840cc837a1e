"""The short way of tensors whose parameters are tensors: values and cotangents of the usual road, and its refusals."""

import itertools

import numpy as np
import pytest

import softplex as sx
from frameworks import threads

torch = pytest.importorskip("torch", reason="torch is not installed")
from softplex.backends.torch import quick, quick_learned, quick_losses  # noqa: E402
from softplex.native import cpu  # noqa: E402

pytestmark = pytest.mark.skipif(cpu is None, reason="there are no kernels")

EXPONENTIAL = (sx.softmax, sx.log_softmax, sx.softmin, sx.log_softmin)
SPARSE = (sx.sparsemax, sx.entmax15, sx.entmax)
LOSSES = {"cross_entropy": sx.cross_entropy, **{map_.name: map_.loss for map_ in (sx.softmin, *SPARSE)}}


@pytest.fixture
def taken(monkeypatch):
    """Whether each call went the short way, and each way back."""
    noted = []

    def noting(module, name):
        known = getattr(module, name)

        def note(*args):
            found = known(*args)
            noted.append((name, found is not None))
            return found

        monkeypatch.setattr(module, name, note)

    noting(quick_learned, "value")
    noting(quick_learned, "by_kernel")
    noting(quick_losses, "to_all")
    return noted


@pytest.fixture
def usual(monkeypatch):
    """Runs a function with the short ways closed."""

    def run(function):
        with monkeypatch.context() as closed:
            closed.setattr(quick, "value", lambda *_: None)
            closed.setattr(quick_losses, "loss", lambda *_: None)
            return function()

    return run


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(
        one.nan_to_num(7.0, 8.0, 9.0), other.nan_to_num(7.0, 8.0, 9.0)
    )  # fmt: skip


def assert_near(one, other):
    """Sums in double precision of what may be rounded in another order, or weights taken from other places."""
    digits = 1e-11 if one.dtype is torch.float64 else 2e-5
    torch.testing.assert_close(one, other, rtol=digits, atol=digits, equal_nan=True)


def drawn(seed, dtype, names):
    """Scores of any layout, an axis, a mask or none, and tensors of any shape, layout and width for parameters."""
    random = np.random.default_rng(seed)
    shape = [(), (1,), (7,), (3, 2), (2, 3, 2)][seed % 5]
    axis, length = int(random.integers(0, len(shape) + 1)), int(random.choice([1, 2, 5, 17, 130, 1000]))
    whole = (*shape[:axis], length, *shape[axis:])
    step = seed // 5 % 3 + 1
    x = torch.tensor(random.normal(size=[step * size for size in whole]) * 3).to(dtype)
    x = x[tuple([slice(None, None, step)] * len(whole))]
    options = {"where": torch.tensor(random.random(whole) < 0.7)} if seed % 4 == 1 else {}
    for name in names:
        low, high = {"temperature": (0.3, 3.0), "sink": (-1.0, 2.0), "alpha": (1.0, 3.0)}[name]
        sizes = [1 if place == axis or random.random() < 0.4 else size for place, size in enumerate(whole)]
        sizes = sizes[int(random.integers(0, len(sizes) + 1)) :] if seed % 2 else sizes
        number = torch.tensor(random.uniform(low, high, size=[2 * size for size in sizes]))
        number = number[tuple([slice(None, None, 2)] * len(sizes))]
        options[name] = number if random.random() < 0.5 else number.float()
    return x, axis, options


def followed(options):
    """The same options, those that are floats asking for their cotangents."""
    asks = [name for name, one in options.items() if isinstance(one, torch.Tensor) and one.is_floating_point()]
    fresh = {name: options[name].detach().clone().requires_grad_() for name in asks}
    return options | fresh, tuple(fresh.values())


def gone_back(map_, x, axis, options, scores_ask=True):
    """The weights, and the cotangents of the scores and of all parameters."""
    options, parameters = followed(options)
    x = x.detach().requires_grad_(scores_ask)
    p = map_(x, axis, **options)
    g = torch.linspace(-1.0, 2.0, p.numel()).view(p.shape).to(p.dtype)
    # The logarithm of what is masked is -inf, whose cotangent says nothing.
    g = torch.where(p.detach() > -torch.inf, g, 0.0)
    return p.detach(), *torch.autograd.grad(p, ((x,) if scores_ask else ()) + parameters, g)


CASES = [(map_, names) for map_ in EXPONENTIAL for names in (("temperature",), ("sink",), ("temperature", "sink"))]
CASES += [(map_, ("temperature",)) for map_ in SPARSE]
CASES += [(sx.entmax, ("alpha",)), (sx.entmax, ("temperature", "alpha"))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("map_", "names"), CASES, ids=[f"{map_.name}-{'-'.join(names)}" for map_, names in CASES])
def test_values_and_cotangents_are_those_of_the_usual_road(map_, names, dtype, taken, usual):
    for seed in range(40):
        x, axis, options = drawn(seed, dtype, names)
        found = gone_back(map_, x, axis, options, seed % 3 > 0)
        assert taken == [("value", True), ("by_kernel", True)], (seed, options)
        wanted = usual(lambda: gone_back(map_, x, axis, options, seed % 3 > 0))  # noqa: B023
        assert same(found[0], wanted[0]), (seed, x.shape, x.stride(), options)
        for one, right in zip(found[1:], wanted[1:], strict=True):
            assert one.dtype == right.dtype and one.shape == right.shape
            assert_near(one, right)
        by_numpy = {name: option.numpy() for name, option in options.items()}
        assert np.array_equal(found[0].numpy(), map_(x.numpy(), axis, **by_numpy)), (seed, options)
        taken.clear()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("map_", "names"), CASES, ids=[f"{map_.name}-{'-'.join(names)}" for map_, names in CASES])
def test_narrow_values_are_short_and_their_ways_back_usual(map_, names, dtype, taken, usual):
    for seed in range(10):
        x, axis, options = drawn(seed, dtype, names)
        assert same(map_(x, axis, **options), usual(lambda: map_(x, axis, **options)))  # noqa: B023
        assert taken == [("value", True)]
        gone_back(map_, x, axis, options)
        assert taken[1:] == [("value", False)]
        taken.clear()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_losses_lead_to_their_temperature(name, reduction, taken, usual):
    loss = LOSSES[name]
    for seed, dtype in itertools.product(range(20), (torch.float64, torch.float32)):
        x, axis, options = drawn(seed, dtype, ("temperature",))
        batch = x.movedim(axis, -1).shape[:-1]
        y = torch.tensor(np.random.default_rng(seed).integers(0, x.shape[axis], size=batch))
        options |= {"ignore_index": int(y.reshape(-1)[0])} if seed % 3 == 0 else {}

        def back():
            named, parameters = followed(options)  # noqa: B023
            scores = x.detach().requires_grad_(seed % 2 == 0)  # noqa: B023
            value = loss(scores, y, axis, reduction=reduction, **named)  # noqa: B023
            g = torch.linspace(-1.0, 2.0, max(value.numel(), 1)).view(value.shape).to(value.dtype)
            asking = parameters + ((scores,) if scores.requires_grad else ())
            return value.detach(), *torch.autograd.grad(value, asking, g)

        found, wanted = back(), usual(back)
        assert taken == [("to_all", True)] or torch.isinf(found[0]).any()
        assert same(found[0], wanted[0]), (seed, options)
        for one, right in zip(found[1:], wanted[1:], strict=True):
            assert_near(one, right)
        taken.clear()


def test_rows_that_tell_nothing(usual):
    """-inf and NaN, masked NaN, empty rows: of every map, with one number for all and with one for each."""
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([[0.0, -inf, 1.0], [nan, 0.0, 1.0], [-inf, -inf, -inf], [inf, 0.0, 0.0], [9.0, 0.0, -80.0]])
    where = torch.tensor([[True, True, True], [False, True, True]] + [[True] * 3] * 3)
    for (map_, names), shape, mask in itertools.product(CASES, ((), (5, 1)), ({}, {"where": where})):
        options = {name: torch.full(shape, 1.7) for name in names} | mask
        found = gone_back(map_, x, 1, options)
        wanted = usual(lambda: gone_back(map_, x, 1, options))  # noqa: B023
        assert same(found[0], wanted[0]), (map_, options)
        for one, right in zip(found[1:], wanted[1:], strict=True):
            assert_near(one, right)


@pytest.mark.parametrize(("map_", "names"), CASES, ids=[f"{map_.name}-{'-'.join(names)}" for map_, names in CASES])
def test_the_way_back_can_be_differentiated(map_, names, usual):
    random = np.random.default_rng(0)
    x, where = torch.tensor(random.normal(size=(4, 6))), torch.tensor(random.random((4, 6)) < 0.8)
    options = {name: torch.tensor(random.uniform(1.2, 1.8, size=(4, 1))) for name in names}

    def twice():
        named, parameters = followed(options)
        inputs = (x.clone().requires_grad_(), *parameters)
        p = map_(inputs[0], 1, where=where, **named)
        p = torch.where(where, p, 0.0)
        g = torch.ones_like(p).cumsum(1).requires_grad_()
        once = torch.autograd.grad(p, inputs, g, create_graph=True)
        again = torch.autograd.grad(sum((one * one).sum() for one in once), (*inputs, g))
        return [each.detach() for each in (*once, *again)]

    for one, right in zip(twice(), usual(twice), strict=True):
        torch.testing.assert_close(one, right, rtol=1e-9, atol=1e-9)


def test_a_loss_s_way_back_can_be_differentiated(usual):
    x, y = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 5, 1])

    def twice():
        inputs = x.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        once = torch.autograd.grad(sx.cross_entropy(inputs[0], y, temperature=inputs[1]), inputs, create_graph=True)
        return [*once, *torch.autograd.grad(sum((one * one).sum() for one in once), inputs)]

    for one, right in zip(twice(), usual(twice), strict=True):
        torch.testing.assert_close(one, right, rtol=1e-10, atol=1e-10)


def test_cotangents_come_in_batches(usual):
    x, t = torch.randn(4, 6, requires_grad=True), torch.tensor(0.7, requires_grad=True)

    def jacobians():
        p = sx.softmax(x, temperature=t)
        value = sx.cross_entropy(x, torch.tensor([0, 3, 5, 1]), temperature=t, reduction="none")
        every = torch.eye(24).view(24, 4, 6)
        return [
            *torch.autograd.grad(p, (x, t), every, is_grads_batched=True),
            *torch.autograd.grad(value, (x, t), torch.eye(4), is_grads_batched=True),
        ]

    for one, right in zip(jacobians(), usual(jacobians), strict=True):
        torch.testing.assert_close(one, right)


def test_what_it_does_not_know_goes_the_usual_way(taken):
    """Each beside a call that is known, from which it differs in one thing."""
    x, t = torch.randn(3, 5, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    sx.softmax(x, temperature=t), sx.softmax(x, temperature=torch.ones(3, 1)), sx.softmax(x.detach(), temperature=t)
    sx.entmax(x, alpha=1.0 + t, temperature=torch.tensor(1.0)), sx.sparsemax(x.detach(), sink=t.detach())
    assert taken == [("value", True)] * 5
    taken.clear()
    others = [
        lambda: sx.softmax(x, temperature=torch.tensor(1)),
        lambda: sx.softmax(x, temperature=t.half()),
        lambda: sx.softmax(x.half(), temperature=t),
        lambda: sx.sparsemax(x, sink=t),
        lambda: sx.entmax(x, alpha=1.0 + t, sink=0.5),
        lambda: sx.softmax(x, temperature=t, dtype=torch.float64),
        lambda: sx.softmax(x, (0, 1), temperature=t),
        lambda: sx.softmax(x[:0], temperature=t),
        lambda: torch.func.grad(lambda x: sx.softmax(x, temperature=t)[0, 0])(x.detach()),
    ]
    for place, other in enumerate(others):
        assert other().isfinite().all(), place
    assert ("value", True) not in taken and ("by_kernel", True) not in taken
    taken.clear()
    with sx.kernels("none"):
        sx.softmax(x, temperature=t)
    sx.normmax(x, temperature=t)
    assert ("value", True) not in taken


def test_signs_that_are_kept_aside_count():
    x, y, sink = torch.randn(2, 5), torch.tensor([0, 1]), torch._neg_view(torch.tensor([[-0.5], [0.25]]))
    for scores in (x, x.clone().requires_grad_()):
        assert same(sx.softmax(scores, sink=sink).detach(), sx.softmax(x, sink=torch.tensor([[0.5], [-0.25]])))
        found = sx.softmax.loss(scores, y, sink=sink[0])
        assert same(found.detach(), sx.softmax.loss(x, y, sink=0.5))


def test_losses_beside_a_sink_lead_to_their_temperature(usual):
    x, y, t = torch.randn(4, 6).double(), torch.tensor([0, 3, 5, 1]), torch.tensor(0.7, requires_grad=True).double()

    def back(sink):
        return torch.autograd.grad(sx.softmax.loss(x, y, temperature=t, sink=sink), t, retain_graph=True)[0]

    for sink in (0.5, torch.tensor(0.5)):
        assert_near(back(sink), usual(lambda: back(sink)))  # noqa: B023


def test_a_gradient_out_of_range_leads_to_its_temperature():
    """The scores' share of it is infinite in float32, that of the temperature is not."""
    t = torch.tensor(1e-39, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.0, 1e-39]], requires_grad=True)
    loss = sx.softmax.loss(x, torch.tensor([0]), temperature=t)
    of_scores, found = torch.autograd.grad(loss, (x, t))
    share = torch.sigmoid(x[0, 1].double() / t)
    assert of_scores.isinf().all()
    torch.testing.assert_close(found, -share * x[0, 1].double() / t.square(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x, y, t: sx.softmax(x, temperature=0 * t), ValueError, "temperature"),
        (lambda x, y, t: sx.softmax(x, temperature=t * torch.inf), ValueError, "temperature"),
        (lambda x, y, t: sx.softmax(x, temperature=torch.tensor([[1.0], [-1.0], [2.0]])), ValueError, "temperature"),
        (lambda x, y, t: sx.softmax(x, temperature=torch.ones(3, 5)), ValueError, "temperature"),
        (lambda x, y, t: sx.softmax(x, temperature=torch.ones(2, 1)), ValueError, "temperature"),
        (lambda x, y, t: sx.softmax(x, temperature=torch.ones(1, 3, 1)), ValueError, "temperature"),
        (lambda x, y, t: sx.entmax(x, alpha=0.5 * t), ValueError, "alpha"),
        (lambda x, y, t: sx.entmax(x, alpha=torch.tensor([[1.0], [0.9], [2.0]])), ValueError, "alpha"),
        (lambda x, y, t: sx.sparsemax(x, alpha=t), TypeError, "alpha"),
        (lambda x, y, t: sx.softmax(x, temperatur=t), TypeError, "temperatur"),
        (lambda x, y, t: sx.softmax(x, empty=t), ValueError, "empty"),
        (lambda x, y, t: sx.cross_entropy(x, y, temperature=0 * t), ValueError, "temperature"),
        (lambda x, y, t: sx.cross_entropy(x, y, temperature=torch.ones(3, 5)), ValueError, "temperature"),
        (lambda x, y, t: sx.cross_entropy(x, y + 3, temperature=t), IndexError, "index"),
    ],
)
def test_what_is_wrong_is_refused_in_words(call, kind, words):
    x, y, t = torch.randn(3, 5), torch.tensor([0, 1, 4]), torch.tensor(1.0, requires_grad=True)
    for scores in (x, x.clone().requires_grad_()):
        for number in (t, t.detach()):
            with pytest.raises(kind, match=words):
                call(scores, y, number)


def test_autograd_keeps_the_tensors_and_nothing_else():
    """Hooks see them, a change in place is refused, and a second way back is the same."""
    x, y = torch.randn(3, 5, requires_grad=True), torch.tensor([0, 1, 4])
    calls = [
        (lambda t: sx.softmax(x, temperature=t).square().sum(), 4),
        (lambda t: sx.cross_entropy(x, y, temperature=t), 3),
    ]
    for call, count in calls:
        kept, t = [], torch.tensor(0.7, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.data_ptr()) or one, lambda one: one):  # noqa: B023
            value = call(t)
        assert {x.data_ptr(), t.data_ptr()} <= set(kept) and len(kept) == count
        first = torch.autograd.grad(value, (x, t), retain_graph=True)
        second = torch.autograd.grad(value, (x, t), retain_graph=True)
        assert all(same(one, other) for one, other in zip(first, second, strict=True))
        value = call(t)
        with torch.no_grad():
            t += 1.0
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(value, (x, t))


def test_large_arrays_and_any_number_of_threads():
    x = torch.randn(3000, 4096)
    assert x.nbytes >= 1 << 25
    options = {"temperature": torch.rand(3000, 1) + 0.5}
    found = gone_back(sx.softmax, x, 1, options)
    with threads(1, torch):
        alone = gone_back(sx.softmax, x, 1, options)
    assert all(same(one, other) for one, other in zip(found, alone, strict=True))
