"""softplex.torch.attention: against torch's own with softmax, against plain NumPy with any map; tiles and memory."""

import contextlib
import gc
import math
import sys

import numpy as np
import pytest

import softplex as sx

torch = pytest.importorskip("torch", reason="torch is not installed")
sxt = pytest.importorskip("softplex.torch")
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

tiles = sys.modules["softplex.torch.attention"]
MAPS = [sx.softmax, sx.softmin, sx.sparsemax, sx.entmax15, sx.entmax.bind(alpha=1.3), sx.budget.bind(budget=2)]
RTOL = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(batch=(2, 3), length=5, keys=7, width=4, out=6, dtype=torch.float64, kv_batch=None):
    kv_batch = batch if kv_batch is None else kv_batch
    return (
        random(*batch, length, width, seed=1, dtype=dtype),
        random(*kv_batch, keys, width, seed=2, dtype=dtype),
        random(*kv_batch, keys, out, seed=3, dtype=dtype),
    )


def masks(length=5, keys=7, dtype=torch.float64):
    """Every query sees something in each of them, for what torch does elsewhere has changed from release to release."""
    allowed = random(length, keys, seed=4) > 0.3
    allowed[:, 2] = True
    return {
        "none": None,
        "bool": allowed,
        "batch": (random(2, 1, length, keys, seed=5) > 0).index_fill(-1, torch.tensor([1]), True),
        "padding": (torch.arange(keys) < torch.tensor([[7], [4]]))[:, None, None, :],
        "added": random(3, length, keys, seed=6, dtype=dtype),
        "infinite": torch.zeros(length, keys, dtype=dtype).masked_fill(~allowed, -math.inf),
    }


@pytest.fixture(params=["whole", "tiles", "rows"])
def tile(request, monkeypatch):
    """The same computed at once, in tiles of several queries, and query by query."""
    monkeypatch.setattr(tiles, "TILE", {"whole": 2**24, "tiles": 15, "rows": 1}[request.param])
    return request.param


def by_hand(q, k, v, each, scale, where=True, added=0.0, sink=None):
    """Attention in NumPy, one row after the other."""
    scores = q @ np.swapaxes(k, -1, -2) * scale + added
    where = np.broadcast_to(where, scores.shape)
    options = {} if sink is None else {"sink": sink}
    weights = each(np.where(where, scores, 0.0), where=where, **options)
    return weights @ v


def close(found, expected, dtype):
    found, expected = (torch.as_tensor(each).detach().double().numpy() for each in (found, expected))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=RTOL[dtype], atol=RTOL[dtype] * np.abs(expected).max(initial=0.0))


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("scale", [None, 0.3])
def test_softmax_is_torchs(mask, dtype, scale, tile):
    q, k, v = (each.requires_grad_() for each in inputs(dtype=dtype))
    mask = masks(dtype=dtype)[mask]
    found = sxt.attention(q, k, v, mask=mask, scale=scale)
    wide = [each.detach().double().requires_grad_() for each in (q, k, v)]
    added = mask.double() if mask is not None and mask.dtype == dtype else mask
    expected = scaled_dot_product_attention(*wide, attn_mask=added, scale=scale)
    assert found.dtype == dtype
    close(found, expected, dtype)
    if dtype.itemsize == 2:  # computed in float32 and rounded once
        error = (found.detach().double() - expected.detach()).abs()
        assert (error <= 0.501 * torch.finfo(dtype).eps * expected.detach().abs() + 1e-6).all()
    g = random(*expected.shape, seed=8)
    gradients = torch.autograd.grad(found, (q, k, v), g.to(dtype))
    for one, other in zip(gradients, torch.autograd.grad(expected, wide, g.to(dtype).double()), strict=True):
        assert one.dtype == dtype
        close(one, other, dtype)


@pytest.mark.parametrize(("length", "keys"), [(5, 5), (5, 7), (7, 5), (1, 4), (4, 1)])
def test_causal_is_torchs(length, keys, tile):
    q, k, v = (each.requires_grad_() for each in inputs(length=length, keys=keys))
    found, expected = sxt.attention(q, k, v, causal=True), scaled_dot_product_attention(q, k, v, is_causal=True)
    close(found, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(each.square().sum(), (q, k, v)) for each in (found, expected)), strict=True)
    for one, other in pairs:
        close(one, other, torch.float64)


def test_a_mask_and_causal_hold_together(tile):
    q, k, v = inputs()
    mask = masks()["bool"].index_fill(-1, torch.tensor([0]), True)
    both = mask & torch.ones(5, 7, dtype=torch.bool).tril()
    close(sxt.attention(q, k, v, mask=mask, causal=True), sxt.attention(q, k, v, mask=both), torch.float64)
    added = torch.where(mask, random(3, 5, 7, seed=9), -math.inf)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=torch.where(both, added, -math.inf))
    close(sxt.attention(q, k, v, mask=added, causal=True), expected, torch.float64)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_grouped_queries_are_torchs(kv_heads, tile):
    q, k, v = (each.requires_grad_() for each in inputs(batch=(2, 6), kv_batch=(2, kv_heads)))
    found = sxt.attention(q, k, v, enable_gqa=True, mask=masks()["batch"])
    expected = scaled_dot_product_attention(q, k, v, enable_gqa=True, attn_mask=masks()["batch"])
    close(found, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(each.square().sum(), (q, k, v)) for each in (found, expected)), strict=True)
    for one, other in pairs:
        close(one, other, torch.float64)


@pytest.mark.parametrize("each", MAPS, ids=lambda m: m.name)
@pytest.mark.parametrize("sink", [None, 0.25, "heads"])
def test_any_map(each, sink, tile):
    q, k, v = inputs()
    given = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64) if sink == "heads" else sink
    plain = given.numpy()[:, None, None] if sink == "heads" else given
    where = masks()["batch"]
    expected = by_hand(q.numpy(), k.numpy(), v.numpy(), each, 0.5, where.numpy(), sink=plain)
    close(sxt.attention(q, k, v, map=each, mask=where, sink=given), torch.as_tensor(expected), torch.float64)
    blended = sx.blend({each: 0.5, sx.normmax.bind(alpha=3): 0.5})
    expected = by_hand(q.numpy(), k.numpy(), v.numpy(), blended, 0.5, sink=plain)
    close(sxt.attention(q, k, v, map=blended, sink=given), torch.as_tensor(expected), torch.float64)


@pytest.mark.parametrize(
    "each", [sx.softmax, sx.sparsemax, sx.entmax15, sx.entmax.bind(alpha=1.3)], ids=lambda m: m.name
)
def test_gradcheck(each, tile):
    q, k, v = (t.requires_grad_() for t in inputs(batch=(2,), length=3, keys=4, width=2, out=2))
    sink = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    added = random(2, 3, 4, seed=7).masked_fill(random(2, 3, 4, seed=8) > 1.0, -math.inf).requires_grad_()

    def function(q, k, v, sink, added):
        return sxt.attention(q, k, v, map=each, sink=sink[:, None, None], mask=added, causal=True)

    def finite(added):
        return torch.where(torch.isinf(added.detach()), added.detach(), added)

    checked = (q, k, v, sink)
    assert torch.autograd.gradcheck(lambda *given: function(*given, finite(added)), checked)
    if tile == "whole":
        assert torch.autograd.gradgradcheck(lambda *given: function(*given, finite(added)), checked)
    found = torch.autograd.grad(function(q, k, v, sink, added).square().sum(), added)[0]
    assert torch.isfinite(found).all() and not found[torch.isinf(added)].any() and found.any()


def test_a_second_derivative_through_tiles(monkeypatch):
    q, k, v = (t.requires_grad_() for t in inputs(batch=(2,), length=3, keys=4, width=2, out=2))

    def second():
        (first,) = torch.autograd.grad(sxt.attention(q, k, v).square().sum(), q, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (q, k, v))

    whole = second()
    monkeypatch.setattr(tiles, "TILE", 4)
    for one, other in zip(second(), whole, strict=True):
        close(one, other, torch.float64)


def test_a_query_that_sees_nothing_gives_zeros(tile):
    q, k, v = (each.requires_grad_() for each in inputs())
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False
    for given in (mask, torch.zeros(5, 7, dtype=torch.float64).masked_fill(~mask, -math.inf)):
        found = sxt.attention(q, k, v, mask=given, map=sx.sparsemax)
        assert not found[..., 2, :].any() and found[..., 3, :].any()
        for each in torch.autograd.grad(found.square().sum(), (q, k, v)):
            assert torch.isfinite(each).all() and each.any()
    assert not sxt.attention(q, k, v, mask=mask, sink=0.0)[..., 2, :].any()


@pytest.mark.parametrize("each", [sx.softmax, sx.sparsemax, sx.entmax.bind(alpha=1.3)], ids=lambda m: m.name)
@pytest.mark.parametrize("causal", [False, True])
def test_padding_may_hold_nan(each, causal, tile):
    q, k, v = inputs(batch=(2, 3), length=6, keys=6)
    is_word = torch.arange(6) < torch.tensor([[6], [4]])
    if causal:  # padding on the left, where the first queries see nothing but padding
        is_word = is_word.flip(-1)
    pad = is_word[:, None, :, None]
    mask = is_word[:, None, None, :]
    spoilt = [torch.where(pad, t, math.nan).requires_grad_() for t in (q, k, v)]
    clean = [torch.where(pad, t, 0.0).requires_grad_() for t in (q, k, v)]
    if not causal:
        mask = mask & is_word[:, None, :, None]
    found, expected = (sxt.attention(*t, map=each, mask=mask, causal=causal) for t in (spoilt, clean))
    rows = pad.expand(found.shape)
    close(torch.where(rows, found, 0.0), torch.where(rows, expected, 0.0), torch.float64)
    for one, other in zip(
        torch.autograd.grad(torch.where(rows, found, 0.0).square().sum(), spoilt),
        torch.autograd.grad(torch.where(rows, expected, 0.0).square().sum(), clean),
        strict=True,
    ):
        close(one, other, torch.float64)


@pytest.mark.parametrize(
    "shapes", [((5, 4), (7, 4), (7, 6)), ((2, 1, 5, 4), (3, 7, 4), (1, 1, 7, 6)), ((5, 4), (2, 7, 4), (3, 1, 7, 6))]
)
def test_leading_dimensions_broadcast(shapes, tile):
    q, k, v = (random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    expected = torch.softmax(q @ k.mT / 2, -1) @ v
    found = sxt.attention(q, k, v)
    close(found, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(each.square().sum(), (q, k, v)) for each in (found, expected)), strict=True)
    for one, other in pairs:
        close(one, other, torch.float64)


def test_nothing_to_do(tile):
    q, k, v = inputs()
    assert sxt.attention(q[..., :0, :], k, v).shape == (2, 3, 0, 6)
    assert torch.equal(sxt.attention(q, k[..., :0, :], v[..., :0, :]), torch.zeros(2, 3, 5, 6, dtype=torch.float64))
    assert sxt.attention(q[:0], k[:0], v[:0]).shape == (0, 3, 5, 6)
    assert not sxt.attention(q[..., :0], k[..., :0], v).isnan().any()


def test_autocast_is_torchs(tile):
    q, k, v = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = sxt.attention(q, k, v), scaled_dot_product_attention(q, k, v)
    assert found.dtype == expected.dtype == torch.bfloat16
    close(found, expected, torch.bfloat16)


def test_nothing_is_written_to(tile):
    given = [each.requires_grad_() for each in inputs()] + [masks()["infinite"]]
    before = [each.detach().clone() for each in given]
    sxt.attention(*given[:3], mask=given[3], map=sx.sparsemax, causal=True).sum().backward()
    for one, other in zip(given, before, strict=True):
        assert torch.equal(one, other)


# What torch.func and compile see; while the whole fits into one tile.


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, in jvp
def test_torch_func():
    q, k, v = inputs(batch=(), length=3, keys=4, width=2, out=2)

    mask = masks()["bool"][:3, :4]

    def function(q):
        return sxt.attention(q, k, v, map=sx.sparsemax, mask=mask)

    jacobian = torch.autograd.functional.jacobian(function, q)
    close(torch.func.jacrev(function)(q), jacobian, torch.float64)
    close(torch.func.jacfwd(function)(q), jacobian, torch.float64)
    t = random(3, 2, seed=4)
    close(torch.func.jvp(function, (q,), (t,))[1], torch.einsum("abcd,cd->ab", jacobian, t), torch.float64)
    batch = torch.stack([q, 2 * q])
    close(torch.func.vmap(function)(batch), torch.stack([function(each) for each in batch]), torch.float64)


@pytest.mark.parametrize("each", [sx.softmax, sx.sparsemax], ids=lambda m: m.name)
@pytest.mark.parametrize("whole", [True, False])
def test_compile(each, whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(tiles, "TILE", 60)
    q, k, v = (t.requires_grad_() for t in inputs(dtype=torch.float32))

    mask = masks()["padding"]

    def function(q, k, v):
        return sxt.attention(q, k, v, map=each, causal=True, mask=mask)

    found = torch.compile(function, fullgraph=True, backend="aot_eager")(q, k, v)
    close(found, function(q, k, v), torch.float32)
    gradients = (torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (found, function(q, k, v)))
    for one, other in zip(*gradients, strict=True):
        close(one, other, torch.float32)


# Memory.


class Largest(TorchDispatchMode):
    """Notes how many entries the largest tensor has that any operation makes."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self.entries = max(self.entries, each.untyped_storage().nbytes() // each.element_size())
        return result


@pytest.mark.parametrize("each", [sx.softmax, sx.sparsemax, sx.entmax.bind(alpha=1.3)], ids=lambda m: m.name)
@pytest.mark.parametrize("causal", [False, True])
def test_memory_does_not_grow_with_length_squared(each, causal, monkeypatch):
    length, width = 256, 8
    monkeypatch.setattr(tiles, "TILE", 32 * length)
    q, k, v = (t.requires_grad_() for t in inputs(batch=(2,), length=length, keys=length, width=width, out=width))
    saved = []
    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            result = sxt.attention(q, k, v, map=each, causal=causal)
        kept = sum(saved)
        result.sum().backward()
    assert largest.entries <= 32 * length
    assert kept <= 8 * 2 * length * width  # the inputs, tile by tile, no scores
    with Largest() as largest:
        torch.softmax(q @ k.mT, dim=-1)
    assert largest.entries == 2 * length**2  # the measure sees what it is to see


def alive():
    """The entries of all tensors that Python knows of."""
    gc.collect()
    sizes = {}
    for each in gc.get_objects():
        if type(each) in (torch.Tensor, torch.nn.Parameter):
            with contextlib.suppress(NotImplementedError, RuntimeError):  # what transforms left behind has no memory
                sizes[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes() // each.element_size()
    return sum(sizes.values())


@pytest.mark.parametrize("each", [sx.softmax, sx.entmax.bind(alpha=1.3)], ids=lambda m: m.name)
@pytest.mark.parametrize("options", [{}, {"causal": True, "sink": 0.5}], ids=str)
def test_no_weights_outlive_their_tile(each, options, monkeypatch):
    length, width = 128, 4
    monkeypatch.setattr(tiles, "TILE", 16 * length)
    q, k, v = (t.requires_grad_() for t in inputs(batch=(2,), length=length, keys=length, width=width, out=width))
    before = alive()
    result = sxt.attention(q, k, v, map=each, **options)
    assert alive() - before <= 4 * 2 * length * width
    result.sum().backward()
    assert q.grad.any()


def test_few_long_rows_and_many_short_ones_fit_into_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 64)
    seen = []
    plain = tiles.attend

    def noted(given, setting):
        seen.append(math.prod(given.q.shape[:-1]) * given.k.shape[-2])
        return plain(given, setting)

    monkeypatch.setattr(tiles, "attend", noted)
    for batch, length, keys in [((50, 2), 2, 3), ((2, 3), 9, 9), ((1, 1), 40, 8), ((2,), 3, 100)]:
        seen.clear()
        q, k, v = inputs(batch=batch, length=length, keys=keys)
        close(sxt.attention(q, k, v), scaled_dot_product_attention(q, k, v), torch.float64)
        scores = math.prod(batch) * length * keys
        assert max(seen) <= max(64, keys) and len(seen) <= 2 * scores / min(64, scores) + length * math.prod(batch) * (
            keys > 64
        )


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"map": sx.log_softmax}, TypeError, "gives logarithms"),
        ({"map": torch.softmax}, TypeError, "is not a map"),
        ({"map": sx.budget}, TypeError, "needs budget"),
        ({"q": torch.zeros(2, 3, 5, 3)}, ValueError, r"\(..., L, E\)"),
        ({"v": torch.zeros(2, 3, 6, 4)}, ValueError, r"\(..., S, F\)"),
        ({"q": torch.zeros(2, 6, 5, 4)}, ValueError, "enable_gqa=True"),
        ({"q": torch.zeros(2, 4, 5, 4), "enable_gqa": True}, ValueError, "multiple"),
        ({"q": torch.zeros(2, 3, 5, 4).double()}, TypeError, "one floating dtype"),
        ({"mask": torch.ones(5, 7, dtype=torch.int64)}, TypeError, "give booleans"),
        ({"mask": torch.ones(5, 6, dtype=torch.bool)}, ValueError, "broadcast to the scores"),
        ({"sink": torch.zeros(2)}, ValueError, "one number a head"),
        ({"sink": torch.zeros(3, 5)}, ValueError, "one number a head"),
    ],
)
def test_what_is_wrong_is_said(change, kind, words):
    given = {"q": torch.zeros(2, 3, 5, 4), "k": torch.zeros(2, 3, 7, 4), "v": torch.zeros(2, 3, 7, 6)} | change
    with pytest.raises(kind, match=words):
        sxt.attention(**given)
