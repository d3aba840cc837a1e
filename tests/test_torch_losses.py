"""softplex.torch: the losses as modules, and linear_loss, which never holds the matrix of scores.

What a loss is worth is tested in the laws of the losses; here is what the modules and the chunks add.
"""

import copy
import io
import itertools
import pickle
import sys

import numpy as np
import pytest

import softplex as sx

torch = pytest.importorskip("torch", reason="torch is not installed")
sxt = pytest.importorskip("softplex.torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

LOSSES = [
    sx.softmax,
    sx.softmin,
    sx.sparsemax,
    sx.entmax15,
    sx.entmax.bind(alpha=1.3),
    sx.normmax.bind(alpha=1.5),
    sx.budget.bind(budget=1),
]
REDUCTIONS = ("mean", "sum", "none")


def random(*shape, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def labels(*shape, classes, seed=1):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


# The modules.


@pytest.mark.parametrize("each", LOSSES, ids=lambda m: m.name)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_module_is_the_maps_loss(each, reduction):
    x, y, weight = random(3, 5, 4), labels(3, 4, classes=5), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    y[0, 1] = 7
    options = {"reduction": reduction, "label_smoothing": 0.1, "temperature": 0.5}
    loss = sxt.FenchelYoungLoss(each, dim=1, ignore_index=7, weight=weight, **options)
    where = torch.ones(3, 5, 4, dtype=torch.bool)
    expected = each.loss(x.numpy(), y.numpy(), 1, ignore_index=7, weight=weight.numpy(), **options)
    np.testing.assert_allclose(loss(x, y).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(loss(x, y, where).numpy(), expected, rtol=1e-10)
    soft = torch.softmax(random(3, 5, 4, seed=4), dim=1)
    loss = sxt.FenchelYoungLoss(each, dim=1, weight=weight, **options)
    expected = each.loss(x.numpy(), soft.numpy(), 1, weight=weight.numpy(), **options)
    np.testing.assert_allclose(loss(x, soft).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("each", [m for m in sx.MAPS if m.formula.kind == "simplex"], ids=lambda m: m.name)
def test_every_map_of_weights_has_its_loss(each):
    hyper = {p.name: 1.0 if p.name == "budget" else p.default for p in each.formula.parameters}
    name = "".join(part.capitalize() for part in each.name.split("_")) + "Loss"
    x, y = random(4, 3), labels(4, classes=3)
    found = getattr(sxt, name)(**hyper)(x, y)
    np.testing.assert_allclose(found.numpy(), each.loss(x.numpy(), y.numpy(), **hyper), rtol=1e-12)


def test_the_gradient_is_weights_less_target():
    x = random(6, 5).requires_grad_()
    y = labels(6, classes=5)
    sxt.SparsemaxLoss(reduction="sum")(x, y).backward()
    expected = sx.sparsemax(x.detach().numpy()) - np.eye(5)[y.numpy()]
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=0, rtol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_parameters_and_scores_get_what_formulas_give(reduction, weighted, smoothing):
    """Against indices and distributions; by the short ways, by kernels and where the way back can be differentiated."""
    x, w = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0.5, 10.0, 1.0, 3.0], dtype=torch.float64)
    index = torch.tensor([1, 0, 2, 1, 3])
    more = {"reduction": reduction, "label_smoothing": smoothing, "weight": w if weighted else None}
    numbers = [torch.tensor(one, dtype=torch.float64) for one in (1.6, 0.7)]
    for y in (index, torch.nn.functional.one_hot(index, 4).double()):

        def back(asking, create_graph, y=y):
            inputs = [
                one.clone().requires_grad_(is_asking) for one, is_asking in zip((x, *numbers), asking, strict=True)
            ]
            loss = sx.entmax.loss(inputs[0], y, alpha=inputs[1], temperature=inputs[2], **more)
            wanted = [one for one in inputs if one.requires_grad]
            return torch.autograd.grad(loss, wanted, torch.ones_like(loss).cumsum(0), create_graph=create_graph)

        for asking in ((True, False, False), (False, True, False), (False, False, True), (True, True, True)):
            for one, right in zip(back(asking, False), back(asking, True), strict=True):
                torch.testing.assert_close(one, right, rtol=1e-9, atol=1e-9)


def test_a_row_weighs_the_same_as_an_index_and_as_its_distribution():
    x, w = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0.5, 10.0, 1.0, 3.0], dtype=torch.float64)
    index = torch.tensor([1, 0, 2, 1, 3])
    for map_ in (sx.softmax, sx.sparsemax, sx.normmax):
        for smoothing in (0.0, 0.3):
            found = []
            for y in (index, torch.nn.functional.one_hot(index, 4).double()):
                scores = x.clone().requires_grad_()
                loss = map_.loss(scores, y, weight=w, label_smoothing=smoothing, reduction="none")
                found.append((loss, *torch.autograd.grad(loss.sum(), scores)))
            for one, right in zip(*found, strict=True):
                torch.testing.assert_close(one, right)


def test_masked_targets_get_no_gradient():
    x, where = torch.randn(2, 3), torch.tensor([True, False, True])
    y = torch.tensor([[0.4, 0.0, 0.6], [0.5, torch.nan, 0.5]], requires_grad=True)
    for loss in (sx.softmax.loss, sx.sparsemax.loss, sx.normmax.loss, sx.cross_entropy):
        (g,) = torch.autograd.grad(loss(x, y, where=where, reduction="sum"), y)
        assert g[:, 1].eq(0).all() and g[:, 2].ne(0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(reduction, smoothing, weighted):
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64) if weighted else None
    x, y = random(5, 3, scale=3.0).requires_grad_(), labels(5, classes=3)
    y[2] = -100
    options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    for target in (y, torch.softmax(random(5, 3, seed=9), dim=-1)):
        found, expected = sxt.CrossEntropyLoss(**options)(x, target), torch.nn.CrossEntropyLoss(**options)(x, target)
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
        gradients = [torch.autograd.grad(loss.sum(), x)[0].numpy() for loss in (found, expected)]
        np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-15)


def test_the_weights_move_with_the_module_and_are_kept():
    loss = sxt.Entmax15Loss(weight=torch.tensor([1.0, 2.0]), ignore_index=0, label_smoothing=0.1).to(torch.float64)
    assert loss.weight.dtype == torch.float64 and list(loss.state_dict()) == ["weight"]
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.load(file, weights_only=False)):
        assert torch.equal(again.weight, loss.weight) and repr(again) == repr(loss)
        assert torch.equal(again(torch.eye(2), torch.tensor([0, 1])), loss(torch.eye(2), torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (sxt.SparsemaxLoss, "SparsemaxLoss(dim=-1, reduction='mean')"),
        (lambda: sxt.EntmaxLoss(1.3, dim=1), "EntmaxLoss(alpha=1.3, dim=1, reduction='mean')"),
        (lambda: sxt.FenchelYoungLoss(sx.softmax), "FenchelYoungLoss(map=softmax, dim=-1, reduction='mean')"),
        (sxt.CrossEntropyLoss, "CrossEntropyLoss(dim=-1, reduction='mean', ignore_index=-100)"),
    ],
)
def test_a_loss_shows_what_it_was_given(make, shown):
    assert repr(make()) == shown


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: sxt.FenchelYoungLoss(sx.log_softmax), TypeError, "log_softmax has no loss"),
        (lambda: sxt.FenchelYoungLoss(sx.blend({sx.softmax: 1.0})), TypeError, "has no loss"),
        (lambda: sxt.FenchelYoungLoss("softmax"), TypeError, "is not a map"),
        (lambda: sxt.EntmaxLoss(0.5), ValueError, "at least 1"),
        (lambda: sxt.EntmaxLoss(1.5, learnable=True), TypeError, "learnable"),
        (lambda: sxt.SparsemaxLoss()(torch.eye(2), torch.tensor([0, 2])), IndexError, "the index 2"),
        (lambda: sxt.SparsemaxLoss(reduction="all")(torch.eye(2), torch.tensor([0, 1])), ValueError, "reduction='all'"),
    ],
)
def test_what_is_wrong_is_said(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


# linear_loss.

N, D, V = 7, 3, 5


def linear_case(dtype=torch.float64, soft=False, ignored=True):
    hidden = random(N, D, seed=1, dtype=dtype).requires_grad_()
    weight = random(V, D, seed=2, dtype=dtype, scale=2.0).requires_grad_()
    bias = random(V, seed=3, dtype=dtype).requires_grad_()
    if soft:
        return hidden, weight, bias, torch.softmax(random(N, V, seed=4), dim=-1).to(dtype)
    y = labels(N, classes=V)
    if ignored:
        y[3] = -100
    return hidden, weight, bias, y


def gradients_of(loss, tensors, seed=5):
    g = random(*loss.shape, seed=seed, dtype=loss.dtype)
    return [each.numpy() for each in torch.autograd.grad(loss, tensors, g)]


@pytest.mark.parametrize("each", LOSSES, ids=lambda m: m.name)
@pytest.mark.parametrize(("reduction", "soft"), list(itertools.product(REDUCTIONS, [False, True])))
def test_linear_loss_is_the_loss_of_the_scores(each, reduction, soft):
    hidden, weight, bias, y = linear_case(soft=soft)
    class_weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    options = {
        "reduction": reduction,
        "label_smoothing": 0.1,
        "temperature": 0.7,
        "ignore_index": None if soft else -100,
    }
    expected = each.loss(hidden @ weight.T + bias, y, weight=class_weight, **options)
    wanted = gradients_of(expected, (hidden, weight, bias))
    for chunk in (1, 3, N, 100, None):
        found = sxt.linear_loss(hidden, weight, y, each, bias=bias, class_weight=class_weight, chunk=chunk, **options)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
        for one, other in zip(gradients_of(found, (hidden, weight, bias)), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_loss_against_torchs_cross_entropy(reduction):
    hidden, weight, bias, y = linear_case()
    scores = torch.nn.functional.linear(hidden, weight, bias)
    expected = torch.nn.functional.cross_entropy(scores, y, reduction=reduction)
    found = sxt.linear_loss(hidden, weight, y, bias=bias, ignore_index=-100, reduction=reduction, chunk=2)
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    pairs = zip(*(gradients_of(loss, (hidden, weight, bias)) for loss in (found, expected)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_loss_gradcheck(reduction):
    hidden, weight, bias, y = linear_case()

    def function(hidden, weight, bias):
        return sxt.linear_loss(
            hidden, weight, y, sx.entmax15, bias=bias, ignore_index=-100, reduction=reduction, chunk=2
        )

    assert torch.autograd.gradcheck(function, (hidden, weight, bias))


def test_linear_loss_takes_any_leading_dimensions():
    hidden, weight, y = random(2, 3, D), random(V, D), labels(2, 3, classes=V)
    rows = sxt.linear_loss(hidden, weight, y, sx.sparsemax, reduction="none", chunk=4)
    np.testing.assert_allclose(
        rows.numpy(), sx.sparsemax.loss(hidden @ weight.T, y, reduction="none").numpy(), rtol=1e-12
    )
    one = sxt.linear_loss(hidden[0, 0], weight, y[0, 0], sx.sparsemax)
    np.testing.assert_allclose(one.item(), rows[0, 0].item(), rtol=1e-12)
    assert sxt.linear_loss(hidden[:0], weight, y[:0], sx.sparsemax).item() == 0.0
    assert sxt.linear_loss(hidden[:0], weight, y[:0], sx.sparsemax, reduction="none").shape == (0, 3)
    strided = random(D, 6).T  # rows that do not lie in order
    found = sxt.linear_loss(strided, weight, y.reshape(-1), chunk=2)
    np.testing.assert_allclose(found.item(), sx.softmax.loss(strided @ weight.T, y.reshape(-1)).item(), rtol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_rows_ignored_is_zero(reduction):
    hidden, weight, bias, y = linear_case()
    loss = sxt.linear_loss(hidden, weight, torch.full_like(y, -100), bias=bias, ignore_index=-100, reduction=reduction)
    assert not loss.any()
    for gradient in gradients_of(loss, (hidden, weight, bias)):
        assert not gradient.any()


@pytest.mark.parametrize("asked", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_loss_gives_the_gradients_that_are_asked_for(asked, reduction):
    *tensors, y = linear_case()
    full = gradients_of(
        sxt.linear_loss(tensors[0], tensors[1], y, bias=tensors[2], ignore_index=-100, reduction=reduction), tensors
    )
    given = [each.detach().requires_grad_(wanted) for each, wanted in zip(tensors, asked, strict=True)]
    loss = sxt.linear_loss(given[0], given[1], y, bias=given[2], ignore_index=-100, reduction=reduction)
    assert loss.requires_grad == any(asked)
    some = [each for each in given if each.requires_grad]
    expected = [each for each, wanted in zip(full, asked, strict=True) if wanted]
    for one, other in zip(gradients_of(loss, some) if some else [], expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_is_written_to_and_backward_runs_twice(reduction):
    hidden, weight, bias, y = linear_case()
    before = [each.detach().clone() for each in (hidden, weight, bias, y)]
    loss = sxt.linear_loss(hidden, weight, y, bias=bias, ignore_index=-100, reduction=reduction, chunk=2).sum()
    first = torch.autograd.grad(loss, (hidden, weight, bias), retain_graph=True)
    kept = [each.clone() for each in first]
    for each in first:
        each.zero_()
    second = torch.autograd.grad(loss, (hidden, weight, bias))
    for one, other in zip(kept, second, strict=True):
        assert torch.equal(one, other) and one.any()
    for one, other in zip(before, (hidden, weight, bias, y), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("which", [0, 1])
def test_there_is_no_second_derivative_and_it_says_so(reduction, which):
    *tensors, y = linear_case()
    loss = sxt.linear_loss(tensors[0], tensors[1], y, ignore_index=-100, reduction=reduction).sum()
    (gradient,) = torch.autograd.grad(loss, tensors[which], create_graph=True)
    with pytest.raises(RuntimeError, match="linear_loss has no second derivative.*take the loss of the scores"):
        torch.autograd.grad(gradient.square().sum(), tensors[which])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_loss_in_bfloat16(reduction):
    hidden, weight, bias, y = linear_case(torch.bfloat16)
    loss = sxt.linear_loss(hidden, weight, y, bias=bias, ignore_index=-100, reduction=reduction, chunk=2)
    assert loss.dtype == torch.bfloat16
    wide = [each.detach().double().requires_grad_() for each in (hidden, weight, bias)]
    expected = sxt.linear_loss(wide[0], wide[1], y, bias=wide[2], ignore_index=-100, reduction=reduction)
    np.testing.assert_allclose(loss.detach().double().numpy(), expected.detach().numpy(), rtol=0.02)
    found = torch.autograd.grad(loss.sum(), (hidden, weight, bias))
    for one, other in zip(found, torch.autograd.grad(expected.sum(), wide), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.double() - other).norm() <= 0.02 * other.norm()


def test_gradients_of_the_weight_are_summed_in_float32():
    # 256 rows that each add 2^-9 of the first row's share: summed in bfloat16, they would add nothing.
    rows = 257
    hidden = torch.full((rows, 1), 2.0**-9, dtype=torch.bfloat16)
    hidden[0] = 1.0
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    y = torch.zeros(rows, dtype=torch.long)
    sxt.linear_loss(hidden, weight, y, reduction="sum", chunk=1).backward()
    np.testing.assert_allclose(weight.grad.float().numpy(), [[-0.75], [0.75]], rtol=2**-8)


def test_linear_loss_under_autocast():
    hidden, weight, bias, y = linear_case(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for reduction in REDUCTIONS:
            loss = sxt.linear_loss(hidden, weight, y, bias=bias, ignore_index=-100, reduction=reduction)
            scores = torch.nn.functional.linear(hidden, weight, bias)
            expected = torch.nn.functional.cross_entropy(scores, y, reduction=reduction)
            assert scores.dtype == torch.bfloat16 and loss.dtype == expected.dtype == torch.float32
            exact = torch.nn.functional.cross_entropy(scores.detach().double(), y, reduction=reduction)
            np.testing.assert_allclose(loss.detach().numpy(), exact.numpy(), rtol=1e-5)
            found = torch.autograd.grad(loss.sum(), (hidden, weight, bias))
            wanted = torch.autograd.grad(expected.sum(), (hidden, weight, bias))
            for one, other in zip(found, wanted, strict=True):
                assert one.dtype == torch.float32
                assert (one - other).norm() <= 0.02 * other.norm()


class Largest(TorchDispatchMode):
    """Notes how many entries the largest tensor has that any operation makes."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self.entries = max(self.entries, each.numel())
        return result


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("each", [sx.softmax, sx.sparsemax, sx.entmax.bind(alpha=1.3)], ids=lambda m: m.name)
def test_the_matrix_of_scores_is_never_held(each, reduction):
    rows, classes, width, chunk = 64, 300, 4, 16
    hidden, weight = random(rows, width).requires_grad_(), random(classes, width).requires_grad_()
    y = labels(rows, classes=classes)
    saved = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t),
    ):
        sxt.linear_loss(hidden, weight, y, each, reduction=reduction, chunk=chunk).sum().backward()
    assert largest.entries <= chunk * classes
    assert max(saved) <= chunk * classes
    with Largest() as largest:
        each.loss(hidden @ weight.T, y, reduction=reduction)
    assert largest.entries >= rows * classes  # the measure sees what it is to see


def test_a_chunk_has_64_mebibytes_of_scores(monkeypatch):
    module = sys.modules["softplex.torch.linear_loss"]
    assert module.CHUNK_BYTES == 64 * 2**20
    monkeypatch.setattr(module, "CHUNK_BYTES", 4096)
    for dtype, rows in [(torch.float64, 5), (torch.float32, 10), (torch.bfloat16, 10)]:
        hidden, weight = torch.zeros(64, 1, dtype=dtype), torch.zeros(100, 1, dtype=dtype)
        with torch.no_grad(), Largest() as largest:
            sxt.linear_loss(hidden, weight, torch.zeros(64, dtype=torch.long))
        assert largest.entries == 100 * rows


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"map": sx.log_softmax}, TypeError, "has no loss"),
        ({"map": torch.softmax}, TypeError, "is not a map"),
        ({"y": torch.tensor([0, 1, V])}, IndexError, f"the index {V}"),
        ({"y": torch.tensor([0, 1, -100])}, IndexError, "the index -100"),
        ({"y": torch.tensor([0, 1])}, ValueError, "class indices.*shape"),
        ({"y": torch.ones(3, 2)}, ValueError, "distributions.*shape"),
        ({"weight": torch.zeros(V, D + 1)}, ValueError, "must be"),
        ({"bias": torch.zeros(D)}, ValueError, "bias has shape"),
        ({"reduction": "all"}, ValueError, "reduction='all'"),
        ({"chunk": 0}, ValueError, "chunk=0"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"label_smoothing": 2.0}, ValueError, "label_smoothing"),
    ],
)
def test_linear_loss_says_what_is_wrong(change, kind, words):
    given = {"hidden": torch.zeros(3, D), "weight": torch.zeros(V, D), "y": torch.tensor([0, 1, 2])} | change
    with pytest.raises(kind, match=words):
        sxt.linear_loss(**given)


def test_linear_loss_checkpoints():
    hidden, weight, bias, y = linear_case(torch.float32)
    expected = sxt.linear_loss(hidden, weight, y, sx.sparsemax, bias=bias, ignore_index=-100)
    wanted = torch.autograd.grad(expected, (hidden, weight, bias))

    def loss(hidden, weight, bias):
        return sxt.linear_loss(hidden, weight, y, sx.sparsemax, bias=bias, ignore_index=-100)

    found = torch.utils.checkpoint.checkpoint(loss, hidden, weight, bias, use_reentrant=False)
    for one, other in zip(torch.autograd.grad(found, (hidden, weight, bias)), wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # the compiler's own doing
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_loss_compiles(reduction):
    hidden, weight, bias, y = linear_case(torch.float32)

    def loss(hidden, weight, bias):
        return sxt.linear_loss(
            hidden, weight, y, sx.sparsemax, bias=bias, ignore_index=-100, reduction=reduction, chunk=4
        )

    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(hidden, weight, bias)
    expected = loss(hidden, weight, bias)
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-5)
    pairs = zip(*(gradients_of(each, (hidden, weight, bias)) for each in (found, expected)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
