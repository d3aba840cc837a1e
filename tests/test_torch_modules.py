"""softplex.torch: the modules made from the maps, learnable hyper-parameters, maxout layers; how they are kept.

What the maps compute is tested in the laws; here is what modules add.
"""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

import softplex as sx

torch = pytest.importorskip("torch", reason="torch is not installed")
sxt = pytest.importorskip("softplex.torch")

SCORES = [[0.3, -1.0, 2.0, 0.5], [0.1, 0.2, 0.3, 0.2]]


def class_of(name):
    return getattr(sxt, "".join(part.capitalize() for part in name.split("_")))


def made(each, **options):
    """A module of the map, and the keywords with which the map is called likewise."""
    hyper = {p.name: p.usual(3) for p in each.formula.parameters}
    return class_of(each.name)(**hyper, **options), hyper


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "save": saved_and_loaded}


@pytest.mark.parametrize("each", sx.MAPS, ids=lambda m: m.name)
def test_a_module_calls_its_map(each):
    module, hyper = made(each, dim=0, temperature=0.5)
    x = torch.tensor(SCORES, dtype=torch.float64)
    where = torch.tensor([[True, False, True, True], [True, True, True, False]])
    expected = each(np.array(SCORES), 0, temperature=0.5, where=where.numpy(), **hyper)
    np.testing.assert_allclose(module(x, where).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(module(x).numpy(), each(np.array(SCORES), 0, temperature=0.5, **hyper), rtol=1e-12)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("each", sx.MAPS, ids=lambda m: m.name)
def test_a_module_survives(each, way):
    module, _ = made(each, dim=1, temperature=2.0, empty="nan")
    again = way(module)
    assert type(again) is type(module) and repr(again) == repr(module)
    x = torch.tensor(SCORES)
    assert torch.equal(again(x), module(x))


def test_every_map_has_a_module_and_every_map_of_weights_a_loss():
    for each in sx.MAPS:
        made_class = class_of(each.name)
        assert made_class.__name__ in sxt.__all__ and made_class.__module__ == "softplex.torch"
        assert each.summary.split(":")[0] in made_class.__doc__ and each.source in made_class.__doc__
        assert (made_class.__name__ + "Loss" in sxt.__all__) == (each.formula.kind == "simplex")
    for name in sxt.__all__:
        assert getattr(sxt, name).__doc__


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (sxt.Sparsemax, "Sparsemax(dim=-1)"),
        (lambda: sxt.Softmax(1, temperature=0.5, empty="nan"), "Softmax(dim=1, temperature=0.5, empty='nan')"),
        (lambda: sxt.Entmax(1.3, dim=0), "Entmax(alpha=1.3, dim=0)"),
        (lambda: sxt.Entmax(learnable=True), "Entmax(alpha=1.5, dim=-1, learnable=True)"),
        (lambda: sxt.Entmax(torch.ones(3, 1), learnable=True), "Entmax(alpha=(3, 1), dim=-1, learnable=True)"),
        (lambda: sxt.Budget(2), "Budget(budget=2, dim=-1)"),
        (lambda: sxt.Activation(sx.entmax.bind(alpha=1.3)), "Activation(map=entmax(alpha=1.3), dim=-1)"),
        (lambda: sxt.Maxout(2, dim=1), "Maxout(pieces=2, dim=1)"),
        (
            lambda: sxt.MaxoutLinear(3, 4, 2, bias=False),
            "MaxoutLinear(in_features=3, out_features=4, bias=False, pieces=2)",
        ),
        (
            lambda: sxt.MaxoutConv2d(3, 4, 5, 2, groups=1, padding=1),
            "MaxoutConv2d(3, 4, kernel_size=(5, 5), stride=(1, 1), padding=(1, 1), pieces=2)",
        ),
    ],
)
def test_a_module_shows_what_it_was_given(make, shown):
    assert repr(make()) == shown


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (sxt.Budget, TypeError, "missing a required argument: 'budget'.*it takes"),
        (lambda: sxt.Softmax(alpha=2.0), TypeError, "unexpected keyword argument 'alpha'"),
        (lambda: sxt.Softmax(learnable=True), TypeError, "learnable"),
        (lambda: sxt.Activation(sx.softmax, learnable=True), TypeError, "no hyper-parameter"),
        (lambda: sxt.Activation(torch.softmax), TypeError, "is not a map"),
        (lambda: sxt.Entmax(0.5), ValueError, "alpha is 0.5; it must be at least 1"),
        (lambda: sxt.Entmax(0.5, learnable=True), ValueError, "starts at 0.5.*at least 1"),
        (lambda: sxt.Entmax(float("inf"), learnable=True), ValueError, "at most 61"),
        (lambda: sxt.Entmax(float("nan"), learnable=True), ValueError, "at least 1"),
        (lambda: sxt.Entmax(1.5, True), TypeError, "dim=True is not a dimension"),
        (lambda: sxt.Normmax(1.0), ValueError, "more than 1"),
        (lambda: sxt.Budget(2.0, learnable=True), TypeError, "cannot be learnable"),
        (lambda: sxt.Entmax(torch.tensor([1, 2]), learnable=True), TypeError, "int64"),
        (lambda: sxt.Maxout(0), ValueError, "pieces=0"),
        (lambda: sxt.Maxout(1.5), TypeError, "not an integer"),
        (lambda: sxt.Maxout(3)(torch.zeros(4)), ValueError, "must divide"),
        (lambda: sxt.MaxoutLinear(2, 3, 0), ValueError, "pieces=0"),
        (lambda: sxt.MaxoutConv1d(2, 3, 1, pieces=2, groups=2), ValueError, "groups must divide out_channels"),
        (lambda: sxt.Nothing, AttributeError, "has no attribute 'Nothing'; there are"),
    ],
)
def test_what_is_wrong_is_said(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


# Learnable hyper-parameters.


@pytest.mark.parametrize("start", [1.0, 1.0 + 2**-23, 1.1, 1.5, 2.0, 3.7, 9.99, 10.0, 10.5, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_starts_where_it_was_asked_to(start, dtype):
    alpha = sxt.Entmax(start, learnable=True, dtype=dtype).alpha
    wanted = torch.tensor(start, dtype=dtype)
    assert alpha.dtype == dtype and alpha.shape == ()
    if start <= 10.0:
        assert torch.equal(alpha, wanted)
    assert abs(alpha.item() - wanted.item()) <= torch.finfo(dtype).eps * wanted.item()


@pytest.mark.parametrize("name", ["Entmax", "Normmax"])
def test_alpha_stays_in_its_range_and_keeps_a_gradient(name):
    module = getattr(sxt, name)(1.5, learnable=True)
    largest = torch.finfo(torch.float32).max
    for raw in [0.0, 1.0, -1.0, 1.0 - 1e-8, -1e6, 1e6, 1e15, -1e15, largest, -largest, float("inf"), -float("inf")]:
        with torch.no_grad():
            module.raw_alpha.fill_(raw)
        module.zero_grad()
        alpha = module.alpha
        assert torch.isfinite(alpha) and 1.0 <= alpha <= 100.0
        assert alpha > 1.0 or name == "Entmax"
        assert torch.isfinite(module(torch.tensor(SCORES))).all()
        alpha.backward()
        assert torch.isfinite(module.raw_alpha.grad)
        if abs(raw) < 1e30:
            # It does not vanish: it falls like 1 / |raw|, and it never exceeds 1.
            assert 0.5 / max(1.0, abs(raw)) <= abs(module.raw_alpha.grad) <= 1.0


def test_the_fold_is_smooth_where_it_starts_to_bend():
    from softplex.torch.learnable import in_range

    rule = sx.entmax.formula.parameters[0]
    for raw in [-20.0, -8.5, 0.3, 1.7, 9.5, 10.5, 40.0]:
        value = torch.tensor(raw, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda v: in_range(rule, v), value)
    around = torch.tensor([10.0 - 1e-9, 10.0 + 1e-9], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(in_range(rule, around).sum(), around)
    np.testing.assert_allclose(slopes.numpy(), [1.0, 1.0], rtol=1e-8)


@pytest.mark.parametrize("start", [1.0, 1.5, 2.0])
def test_the_gradient_of_alpha_is_that_of_the_map(start):
    module = sxt.Entmax(start, learnable=True, dtype=torch.float64)
    x = torch.tensor(SCORES, dtype=torch.float64)
    g = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.0, 1.0, 0.0, -2.0]], dtype=torch.float64)
    module(x).backward(g)
    expected = sx.entmax.vjp(x.numpy(), g.numpy(), wrt="alpha", alpha=np.float64(start))
    np.testing.assert_allclose(module.raw_alpha.grad.item(), expected, rtol=1e-9)


def test_alpha_is_learned_and_a_tensor_of_them():
    torch.manual_seed(0)
    x = torch.randn(64, 2, 8)
    wanted = torch.stack([sx.entmax(x[:, 0], alpha=1.2), sx.entmax(x[:, 1], alpha=1.9)], dim=1)
    module = sxt.Entmax(torch.full((2, 1), 1.5), learnable=True)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        (module(x) - wanted).square().sum().backward()
        optimiser.step()
    np.testing.assert_allclose(module.alpha.detach().numpy()[:, 0], [1.2, 1.9], rtol=0.02)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_learnable_alpha_survives(way):
    module = sxt.Entmax(1.5, learnable=True)
    with torch.no_grad():
        module.raw_alpha.fill_(-3.25)
    again = way(module)
    assert torch.equal(again.alpha, module.alpha) and again.raw_alpha is not module.raw_alpha
    other = sxt.Entmax(1.9, learnable=True)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.alpha, module.alpha)
    assert not sxt.Entmax(1.5).state_dict()


def test_a_fixed_alpha_is_a_number():
    assert sxt.Entmax(1.3).alpha == 1.3 and isinstance(sxt.Entmax(2).alpha, float)
    assert not list(sxt.Entmax(1.3).parameters())
    with pytest.raises(AttributeError):
        sxt.Entmax(1.3).alpha = 2.0


def test_a_module_in_a_sequence_follows_to():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), sxt.Entmax(1.5, learnable=True)).to(torch.float64)
    assert model[1].alpha.dtype == torch.float64
    assert model(torch.tensor(SCORES, dtype=torch.float64)).dtype == torch.float64


# Maxout.

CONVOLUTIONS = [(1, (7,)), (2, (7, 6)), (3, (4, 5, 3))]


def pieces_by_hand(y, pieces, dim):
    """Maxima over neighbours, in plain NumPy."""
    y = np.moveaxis(y, dim, -1)
    return np.moveaxis(y.reshape(*y.shape[:-1], -1, pieces).max(axis=-1), -1, dim)


def test_maxout_linear_is_torchs_layer_and_maxima():
    torch.manual_seed(3)
    layer = sxt.MaxoutLinear(3, 4, pieces=2, dtype=torch.float64)
    torch.manual_seed(3)
    plain = torch.nn.Linear(3, 8, dtype=torch.float64)
    assert torch.equal(layer.weight, plain.weight) and torch.equal(layer.bias, plain.bias)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = (x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()).reshape(5, 2, 4, 2).max(-1)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-13)
    assert layer(x[0, 0]).shape == (4,)
    assert (layer.in_features, layer.out_features, layer.pieces) == (3, 4, 2)
    assert sxt.MaxoutLinear(3, 4, 2, False).bias is None


@pytest.mark.parametrize(("rank", "sizes"), CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_maxout_convolution_is_torchs_layer_and_maxima(rank, sizes, groups):
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": groups, "padding_mode": "reflect"}
    torch.manual_seed(5)
    layer = getattr(sxt, f"MaxoutConv{rank}d")(4, 6, 3, pieces=3, dtype=torch.float64, **options)
    torch.manual_seed(5)
    plain = getattr(torch.nn, f"Conv{rank}d")(4, 18, 3, dtype=torch.float64, **options)
    assert torch.equal(layer.weight, plain.weight) and torch.equal(layer.bias, plain.bias)
    x = torch.randn(2, 4, *sizes, dtype=torch.float64)
    for given in (x, x[0]):  # with a batch and without
        expected = pieces_by_hand(plain(given).detach().numpy(), 3, given.dim() - rank - 1)
        np.testing.assert_array_equal(layer(given).detach().numpy(), expected)
    if groups == 2:  # a unit looks at the channels of its own group only
        moved = x.clone()
        moved[:, 2:] += 1.0
        assert torch.equal(layer(x)[:, :3], layer(moved)[:, :3]) and not torch.equal(
            layer(x)[:, 3:], layer(moved)[:, 3:]
        )


@pytest.mark.parametrize(
    "layer",
    [
        lambda: sxt.MaxoutLinear(4, 2, 3, dtype=torch.float64),
        lambda: sxt.MaxoutConv1d(1, 2, 3, 2, dtype=torch.float64),
        lambda: sxt.Maxout(2),
    ],
)
def test_maxout_layers_are_differentiable_and_survive(layer):
    torch.manual_seed(7)  # no two pieces so close that a small step changes the winner
    layer = layer()
    x = torch.randn(2, 1, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    for way in WAYS.values():
        again = way(layer)
        assert torch.equal(again(x), layer(x)) and repr(again) == repr(layer)
    other = copy.deepcopy(layer)
    other.load_state_dict(layer.state_dict())


# Around.


@pytest.mark.parametrize("name", ["Sparsemax", "Softmax", "Entmax15"])
def test_modules_compile(name):
    module = getattr(sxt, name)()
    x = torch.tensor(SCORES)
    found = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    np.testing.assert_allclose(found.numpy(), module(x).numpy(), rtol=1e-5)


def test_a_learnable_module_compiles():
    module = sxt.Entmax(1.5, learnable=True)
    x = torch.tensor(SCORES)
    torch.compile(module, fullgraph=True, backend="aot_eager")(x)[0, 0].backward()
    found = module.raw_alpha.grad.clone()
    module.zero_grad()
    module(x)[0, 0].backward()
    np.testing.assert_allclose(found.item(), module.raw_alpha.grad.item(), rtol=1e-4)


def test_softplex_alone_does_not_import_torch():
    command = (
        "import sys, softplex; assert 'torch' not in sys.modules; import softplex.torch; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", command], check=True, timeout=120)
