"""softplex.torch.Router: which experts tokens go to, and the statistics, against plain NumPy."""

import copy
import pickle

import numpy as np
import pytest

import softplex as sx

torch = pytest.importorskip("torch", reason="torch is not installed")
sxt = pytest.importorskip("softplex.torch")

MAPS = [sx.softmax, sx.sparsemax, sx.entmax.bind(alpha=1.3), sx.blend({sx.softmax: 0.5, sx.sparsemax: 0.5})]
EXPERTS = 5


def router(*arguments, scale=3.0, **options):
    torch.manual_seed(0)
    made = sxt.Router(4, EXPERTS, *arguments, **options)
    with torch.no_grad():
        made.linear.weight.mul_(scale)
    return made


def tokens(*shape, dtype=torch.float32, seed=1):
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


def scores_by_hand(made, x):
    return x.double().numpy() @ made.linear.weight.detach().double().numpy().T


def chosen_by_hand(values, k):
    """The k largest of each row, of equals the first."""
    return np.argsort(-values, axis=-1, kind="stable")[..., :k]


@pytest.mark.parametrize("each", MAPS, ids=lambda m: m.name)
def test_without_k_the_map_chooses(each):
    made, x = router(map=each), tokens(3, 7)
    routing = made(x)
    expected = each(scores_by_hand(made, x))
    np.testing.assert_allclose(routing.weights.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(routing.weights.detach().sum(-1).numpy(), 1.0, rtol=1e-6)
    assert routing.indices is None and routing.values is None
    used = (expected != 0).mean(axis=(0, 1))
    np.testing.assert_allclose(routing.fraction.numpy(), used, rtol=1e-6)
    np.testing.assert_allclose(routing.experts_per_token.item(), (expected != 0).sum(-1).mean(), rtol=1e-6)
    assert (each is sx.sparsemax) == bool(routing.experts_per_token < EXPERTS) or each.name.startswith("entmax")


@pytest.mark.parametrize("each", MAPS, ids=lambda m: m.name)
@pytest.mark.parametrize("k", [1, 2, EXPERTS])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("renormalise", [True, False])
def test_with_k(each, k, before, renormalise):
    made, x = router(k, each, before=before, renormalise=renormalise, temperature=0.8), tokens(9)
    routing = made(x)
    scores = scores_by_hand(made, x)
    weights = each(scores, temperature=0.8)
    kept = np.zeros_like(scores, dtype=bool)
    np.put_along_axis(kept, chosen_by_hand(scores if before else weights, k), True, axis=-1)
    weights = each(scores, where=kept, temperature=0.8) if before else np.where(kept, weights, 0.0)
    if renormalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(routing.weights.detach().numpy(), weights, rtol=1e-5, atol=1e-6)
    assert routing.indices.shape == routing.values.shape == (9, k) and routing.indices.dtype == torch.int64
    assert torch.equal(routing.weights.gather(-1, routing.indices), routing.values)
    assert (routing.values.diff(dim=-1) <= 0).all()
    assert ((routing.weights != 0).sum(-1) <= k).all()


@pytest.mark.parametrize("before", [True, False])
def test_of_equals_the_first_is_chosen(before):
    made = router(2, sx.softmax, before=before, scale=0.0)
    assert made(tokens(6)).indices.tolist() == [[0, 1]] * 6


def test_the_balance_loss_is_the_switch_transformers():
    made, x = router(1, sx.softmax, before=False), tokens(50)
    routing = made(x)
    p = sx.softmax(scores_by_hand(made, x))
    f = np.bincount(p.argmax(axis=-1), minlength=EXPERTS) / 50
    np.testing.assert_allclose(routing.fraction.numpy(), f, rtol=1e-6)
    np.testing.assert_allclose(routing.mean_weight.detach().numpy(), p.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(routing.balance_loss.item(), EXPERTS * (f * p.mean(axis=0)).sum(), rtol=1e-5)
    z = np.log(np.exp(scores_by_hand(made, x)).sum(axis=-1)) ** 2
    np.testing.assert_allclose(routing.z_loss.item(), z.mean(), rtol=1e-5)


@pytest.mark.parametrize("k", [None, 1, 3])
def test_even_routing_has_balance_one(k):
    # Each token is one expert's own, so that all experts get the same.
    made = sxt.Router(EXPERTS, EXPERTS, k, sx.softmax)
    with torch.no_grad():
        made.linear.weight.copy_(torch.eye(EXPERTS))
    routing = made(torch.stack([torch.eye(EXPERTS).roll(shift, 0)[0] * 2 for shift in range(EXPERTS)]))
    np.testing.assert_allclose(routing.mean_weight.detach().numpy(), 1 / EXPERTS, rtol=1e-6)
    np.testing.assert_allclose(routing.balance_loss.item(), 1.0, rtol=1e-6)


@pytest.mark.parametrize(("k", "each"), [(None, sx.sparsemax), (1, sx.softmax), (2, sx.softmax)])
def test_the_balance_loss_can_be_learned_from(k, each):
    made = router(k, each, bias=True)
    with torch.no_grad():
        made.linear.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0]))
    x = tokens(200)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    before = made(x).balance_loss.item()
    for _ in range(50):
        optimiser.zero_grad()
        made(x).balance_loss.backward()
        optimiser.step()
    assert made(x).balance_loss.item() < 0.7 * before


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("before", [True, False])
def test_tokens_left_out_weigh_nothing_and_are_not_counted(k, before):
    made, x = router(k, before=before), tokens(2, 6)
    where = torch.arange(6).expand(2, 6) < torch.tensor([[4], [2]])
    padded = torch.where(where[..., None], x, float("nan")).requires_grad_()
    routing, few = made(padded, where), made(x[where])
    assert not routing.weights[~where].any()
    np.testing.assert_allclose(routing.weights[where].detach().numpy(), few.weights.detach().numpy(), rtol=1e-6)
    for name in ("fraction", "mean_weight", "experts_per_token", "balance_loss", "z_loss"):
        found, expected = getattr(routing, name).detach().numpy(), getattr(few, name).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    (routing.weights.square().sum() + routing.balance_loss + routing.z_loss).backward()
    assert torch.isfinite(made.linear.weight.grad).all() and made.linear.weight.grad.any()
    assert torch.isfinite(padded.grad).all() and not padded.grad[~where].any()
    nobody = made(padded, torch.zeros_like(where))
    assert not nobody.weights.any() and nobody.balance_loss.item() == nobody.experts_per_token.item() == 0.0


@pytest.mark.parametrize("options", [{}, {"k": 2}, {"k": 2, "before": False, "renormalise": True}])
def test_router_gradcheck(options):
    made = router(map=sx.softmax, **options).double()
    x = tokens(4, dtype=torch.float64).requires_grad_()
    weight = made.linear.weight.detach().clone().requires_grad_()

    def function(x, weight):
        routing = torch.func.functional_call(made, {"linear.weight": weight}, (x,))
        return routing.weights, routing.mean_weight, routing.balance_loss, routing.z_loss

    assert torch.autograd.gradcheck(function, (x, weight))


def test_float32_inside():
    made, x = router(2), tokens(64)
    expected = made(x)
    for given in (x, x.bfloat16().float()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            routing = made(given)
        assert routing.scores.dtype == routing.balance_loss.dtype == torch.float32
        assert torch.equal(routing.scores, made(given).scores)
    small = made(x.bfloat16())
    assert small.weights.dtype == small.values.dtype == torch.bfloat16 and small.scores.dtype == torch.float32
    assert torch.equal(small.scores, made(x.bfloat16().float()).scores)
    assert expected.weights.dtype == torch.float32
    half = copy.deepcopy(made).bfloat16()(x.bfloat16())
    assert half.scores.dtype == torch.float32
    assert made.double()(x.double()).balance_loss.dtype == torch.float64


def test_a_router_survives_and_shows_what_it_was_given():
    made = router(2, sx.entmax15, before=False)
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(again) == repr(made)
        assert torch.equal(again(tokens(3)).weights, made(tokens(3)).weights)
    assert "map=entmax15, k=2, before=False, renormalise=False, temperature=1.0" in repr(made)
    assert sorted(made.state_dict()) == ["linear.weight"]


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: sxt.Router(4, 3, k=4), ValueError, "k=4 with 3 experts"),
        (lambda: sxt.Router(4, 3, k=0), ValueError, "between 1 and 3"),
        (lambda: sxt.Router(4, 3, map=sx.log_softmax), TypeError, "gives logarithms"),
        (lambda: sxt.Router(4, 3, map=torch.softmax), TypeError, "is not a map"),
        (lambda: sxt.Router(4, 3)(torch.zeros(2, 4), torch.ones(2)), ValueError, "booleans of the tokens' shape"),
    ],
)
def test_what_is_wrong_is_said(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(("k", "backend"), [(None, "aot_eager"), (2, "aot_eager"), (2, "inductor")])
def test_a_router_compiles(k, backend):
    """The numbers of all it gives: inductor has read the choice of experts before it was made."""
    made, x = router(k), tokens(6)
    compiled = torch.compile(made, fullgraph=True, backend=backend)
    found, expected = compiled(x), made(x)
    for name, one, right in zip(expected._fields, found, expected, strict=True):
        assert (one is None) == (right is None)
        if right is not None:
            torch.testing.assert_close(one, right, rtol=1e-5, atol=1e-7, msg=name)
    found.balance_loss.backward()
    assert made.linear.weight.grad.any()
