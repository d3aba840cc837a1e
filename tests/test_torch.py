"""What torch asks of its functions beyond the laws: bits, strides, compilers, exporters, modes, and errors."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import softplex as sx
from frameworks import load_torch, numpy_dtype
from softplex.core import roads

torch = pytest.importorskip("torch", reason="torch is not installed")
load_torch()

MAPS = [pytest.param(map_, {"budget": 2.0} if map_ is sx.budget else {}, id=map_.name) for map_ in sx.MAPS]
DTYPES = ("float64", "float32", "float16", "bfloat16")
KERNELS = not sx.info()["instruction set"].startswith("none")


def scores(*shape, dtype="float64", seed=0):
    return (torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2).to(
        getattr(torch, dtype)
    )


def as_numpy(tensor):
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().float().numpy().astype(numpy_dtype("bfloat16"))
    return tensor.detach().numpy()


def same_bits(tensor, array):
    mine = as_numpy(tensor)
    assert mine.dtype == array.dtype and mine.shape == array.shape
    return mine.tobytes() == np.ascontiguousarray(array).tobytes()


def layouts(x):
    """The same numbers, lying differently in memory."""
    yield x
    yield x.T.contiguous().T
    wide = x.new_zeros(x.shape[0], 2 * x.shape[1])
    wide[:, ::2] = x
    yield wide[:, ::2]
    yield x.unsqueeze(0).expand(1, *x.shape)[0]


# -- the same numbers as NumPy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_same_bits_as_numpy(map_, hyper, dtype):
    x, g = scores(7, 33, dtype=dtype), scores(7, 33, dtype=dtype, seed=1)
    where = torch.rand(7, 33, generator=torch.Generator().manual_seed(2)) < 0.7
    column = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)[:, None]
    for options in ({}, {"temperature": 0.7}, {"sink": 0.3}, {"where": where}, {"temperature": column, "where": where}):
        plain = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
        for each in layouts(x):
            assert same_bits(map_(each, **options, **hyper), map_(as_numpy(x), **plain, **hyper))
            assert same_bits(
                map_.vjp(each, g, **options, **hyper), map_.vjp(as_numpy(x), as_numpy(g), **plain, **hyper)
            )
            assert same_bits(
                map_.jvp(each, g, **options, **hyper), map_.jvp(as_numpy(x), as_numpy(g), **plain, **hyper)
            )
            asking = each.detach().requires_grad_()
            assert same_bits(map_(asking, **options, **hyper), map_(as_numpy(x), **plain, **hyper))
    assert same_bits(map_(x, where=where[:1], **hyper), map_(as_numpy(x), where=where[:1].numpy(), **hyper))
    assert same_bits(map_(x, where=where[0], **hyper), map_(as_numpy(x), where=where[0].numpy(), **hyper))
    assert same_bits(map_(x, dim=0, **hyper), map_(as_numpy(x), axis=0, **hyper))
    assert same_bits(map_(x, None, **hyper), map_(as_numpy(x), None, **hyper))
    assert same_bits(map_(x.reshape(7, 3, 11), (0, 2), **hyper), map_(as_numpy(x).reshape(7, 3, 11), (0, 2), **hyper))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("map_", [each for each in sx.MAPS if each.formula.kind == "simplex" and each is not sx.budget])
def test_losses_have_the_bits_of_numpy(map_, dtype):
    x = scores(6, 9, dtype=dtype)
    y, soft = torch.tensor([0, 3, 8, -100, 2, 2]), torch.softmax(scores(6, 9, seed=3), -1).to(x.dtype)
    for options in ({"reduction": "none"}, {"label_smoothing": 0.1}, {"weight": torch.linspace(0.5, 2, 9)}):
        plain = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
        wanted = map_.loss(as_numpy(x), y.numpy(), ignore_index=-100, **plain)
        for each in (x, x.detach().requires_grad_()):
            assert same_bits(map_.loss(each, y, ignore_index=-100, **options), wanted)
            assert same_bits(map_.loss(each, soft, **options), map_.loss(as_numpy(x), as_numpy(soft), **plain))
    assert same_bits(map_.residual(x, soft), map_.residual(as_numpy(x), as_numpy(soft)))
    assert same_bits(map_.smooth_max(x), map_.smooth_max(as_numpy(x)))
    assert map_.support_size(x).dtype is torch.int64
    assert np.array_equal(map_.support_size(x).numpy(), map_.support_size(as_numpy(x)))


def test_maxout_has_values_a_winner_and_derivatives():
    x = scores(4, 6).requires_grad_()
    assert same_bits(sx.maxout(x, pieces=3), sx.maxout(as_numpy(x), pieces=3))
    assert torch.autograd.gradcheck(lambda x: sx.maxout(x, pieces=3, layout="strided"), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: sx.maxout(x, pieces=2), (x,))
    assert np.array_equal(sx.maxout.winner(x, pieces=3).numpy(), sx.maxout.winner(as_numpy(x), pieces=3))


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_the_way_back_does_not_depend_on_layout_or_neighbours(map_, hyper):
    x, g = scores(5, 40, dtype="float32"), scores(5, 40, dtype="float32", seed=4)

    def gradient(x, g, axis=-1):
        x = x.detach().requires_grad_()
        map_(x, axis, **hyper).backward(g)
        return x.grad

    wanted = gradient(x, g)
    for each, other in zip(layouts(x), layouts(g), strict=True):
        assert torch.equal(gradient(each, other), wanted)
    assert torch.equal(gradient(x.T, g.T, 0), wanted.T)
    assert torch.equal(gradient(x[2], g[2]), wanted[2])


@pytest.fixture
def fresh_compiler():
    """No code compiled before counts against this test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# -- compilers and exporters -------------------------------------------------------------------------------------------


DIFFERENT = ("softmax", "log_softmax", "sparsemax", "entmax", "normmax")
"""One map of each kind of formula: each takes half a minute to compile."""


@pytest.mark.parametrize(("map_", "hyper"), [each for each in MAPS if each.id in DIFFERENT])
@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_whole_with_open_shapes_and_transforms_inside(map_, hyper):
    def weights(x):
        return map_(x, dim=-1, temperature=0.7, **hyper)

    def everything(x, t):
        pushed = torch.func.jvp(weights, (x,), (t,))[1]
        curved = torch.func.hessian(lambda row: (weights(row) * t[0]).sum())(x[0])
        each = torch.func.vmap(weights)(x)
        return weights(x), pushed, curved, each

    compiled = torch.compile(everything, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((3, 5), (4, 7)):
        x, t = 0.2 * scores(*shape), scores(*shape, seed=6)
        for one, other in zip(compiled(x, t), everything(x, t), strict=True):
            assert torch.allclose(one, other, rtol=1e-11, atol=1e-13)
        assert compiled(x, t)[1].abs().max() > 0
    ahead = torch.compile(weights, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((3, 5), (6, 4)):
        x, g = (0.2 * scores(*shape)).requires_grad_(), scores(*shape, seed=7)
        one, other = ahead(x), weights(x)
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)
        mine, wanted = torch.autograd.grad(one, x, g)[0], torch.autograd.grad(other, x, g)[0]
        assert torch.allclose(mine, wanted, rtol=1e-11, atol=1e-13) and wanted.abs().max() > 0


BACKWARD = {
    "weights": sx.sparsemax,
    "alpha": lambda x: sx.entmax(x, alpha=torch.tensor(1.5, requires_grad=True)),
    "loss": lambda x: sx.sparsemax.loss(x, torch.zeros(len(x), dtype=torch.int64)),
}


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("forward", BACKWARD.values(), ids=BACKWARD)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_step_goes_back_from_what_was_computed_before(forward):
    """As Keras' steps do, where torch has given up compiling a layer once more."""
    made = []

    def step(weight):
        (made[-1].square().sum() * weight).backward()

    compiled = torch.compile(step, backend="eager")
    for rows in (3, 4, 5):
        x = scores(rows, 5).requires_grad_()
        made.append(forward(x))
        (wanted,) = torch.autograd.grad(made[-1].square().sum(), x, retain_graph=True)
        compiled(torch.ones(()))
        assert torch.equal(x.grad, wanted)


@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.nn.Buffer, torch.Tensor])
def test_the_first_call_of_all_may_be_compiled(kind, monkeypatch):
    """On a class that nobody has met: what a Parameter inherits from, compilers do not see."""
    for met in (torch.nn.Parameter, torch.nn.Buffer, torch.Tensor):
        monkeypatch.delitem(roads.ROADS, met, raising=False)
    torch._dynamo.reset()
    x = torch.randn(5) if kind is torch.Tensor else kind(torch.randn(5))
    compiled = torch.compile(lambda: (sx.softmax(x), sx.sparsemax.smooth_max(x)), fullgraph=True, backend="aot_eager")
    for one, right in zip(compiled(), (sx.softmax(x), sx.sparsemax.smooth_max(x)), strict=True):
        torch.testing.assert_close(one, right)


EMPTY = torch.tensor([[True], [False], [True]])
"""Rows of which the middle one is empty."""


@pytest.mark.parametrize(("map_", "name"), [
    *[(map_, "temperature") for map_ in (sx.softmax, sx.log_softmax, sx.sparsemax, sx.entmax, sx.normmax, sx.budget)],
    (sx.entmax, "alpha"), (sx.normmax, "alpha"), (sx.budget, "budget"), (sx.softmax, "sink"), (sx.sparsemax, "sink"),
])  # fmt: skip
def test_an_empty_row_says_nothing_of_a_parameter_however_that_is_asked(map_, name):
    x = torch.tensor([[1.03, 0.84, 0.52], [0.0, 0.0, 0.0], [0.31, 0.02, 0.13]], dtype=torch.float64)
    fixed = {"budget": 1.3} if map_ is sx.budget and name != "budget" else {}
    for number in (1.23, 1.71, 1.96, 2.43):
        for scores, options in ((x, {"where": EMPTY, **fixed}), (x.masked_fill(~EMPTY, -torch.inf), fixed)):

            def function(parameter, scores=scores, options=options):
                p = map_(scores, **options, **{name: parameter})
                return p.masked_fill(~EMPTY, 0.0).square().sum()

            given = torch.tensor(number, dtype=torch.float64, requires_grad=True)
            right = (function(given.detach() + 1e-6) - function(given.detach() - 1e-6)) / 2e-6
            for found in (
                torch.autograd.grad(function(given), given)[0],
                torch.autograd.grad(function(given), given, create_graph=True)[0],
                torch.func.grad(function)(given.detach()),
                torch.func.jvp(function, (given.detach(),), (torch.ones_like(given),))[1],
            ):
                torch.testing.assert_close(found.detach(), right, rtol=1e-5, atol=1e-7)
            assert torch.func.grad(torch.func.grad(function))(given.detach()).isfinite()


def test_losses_and_derivatives_compile():
    def step(x, y, where, sink):
        p = sx.entmax15(x, dim=-1, where=where, sink=sink)
        return p, sx.cross_entropy(x, y) + sx.sparsemax_loss(x, y), sx.softmax.vjp(x, p), sx.maxout(x, pieces=2)

    x, y = scores(4, 6).requires_grad_(), torch.tensor([0, 3, 5, -100])
    y = y.clamp(min=0)
    arguments = (x, y, torch.ones(4, 6, dtype=torch.bool).tril(3), torch.tensor(0.2, dtype=torch.float64))
    for one, other in zip(
        torch.compile(step, fullgraph=True, backend="aot_eager")(*arguments), step(*arguments), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-11)


def test_a_compiled_index_out_of_range_makes_its_row_nan():
    loss = torch.compile(lambda x, y: sx.cross_entropy(x, y, reduction="none"), fullgraph=True, backend="aot_eager")
    found = loss(scores(3, 4), torch.tensor([0, 4, -100]))
    assert torch.isnan(found).tolist() == [False, True, False] and found[2] == 0


@pytest.mark.filterwarnings("ignore")
def test_inductor_gives_the_same_numbers():
    program = """
import torch, softplex as sx
f = torch.compile(lambda x: sx.sparsemax(x, dim=-1).square().sum(-1), fullgraph=True)
x = torch.randn(5, 9, requires_grad=True)
y = f(x)
y.sum().backward()
z = x.detach().requires_grad_()
w = sx.sparsemax(z, dim=-1).square().sum(-1)
w.sum().backward()
assert torch.allclose(y, w, rtol=1e-6) and torch.allclose(x.grad, z.grad, rtol=1e-5, atol=1e-7)
assert x.grad.abs().max() > 0
print("same")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert found.stdout.strip() == "same", found.stderr[-2000:]


class Module(torch.nn.Module):
    """A map as a module, for exporters."""

    def __init__(self, map_, **options):
        super().__init__()
        self.map, self.options = map_, options

    def forward(self, x):
        return self.map(x, dim=-1, **self.options)


EXPORTED = [
    (sx.softmax, {}),
    (sx.log_softmax, {}),
    (sx.sparsemax, {"temperature": 0.5}),
    (sx.entmax15, {"sink": 0.2}),
    (sx.entmax, {"alpha": 2.0}),
]
SORTED = [(sx.sparsemax, {}), (sx.entmax, {}), *EXPORTED[2:]]


def exported(map_, options, dtype):
    """The map as a program of torch's own operations alone, for rows of any length."""
    shapes = {"x": {0: torch.export.Dim("rows"), 1: torch.export.Dim("columns", min=2, max=10_000)}}
    program = torch.export.export(Module(map_, **options), (scores(5, 9, dtype=dtype),), dynamic_shapes=shapes)
    assert not [node for node in program.graph.nodes if "softplex" in str(node.target)]
    return program


@pytest.mark.parametrize(("map_", "options"), EXPORTED, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.filterwarnings("ignore")
def test_exports_to_operations_of_torch_alone(map_, options):
    program = exported(map_, options, "float32")
    assert len(program.graph.nodes) < 500
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    again = torch.export.load(stored).module()
    for shape in ((5, 9), (2, 30)):
        x = scores(*shape, dtype="float32", seed=8)
        assert torch.allclose(again(x), map_(x, **options), rtol=5e-7, atol=1e-9)


def rows_to_be_sorted(n):
    """Near and far, tied, at the edge of the support, with entries that weigh nothing, empty and bad."""
    place, far = torch.arange(n, dtype=torch.float64), torch.full((n,), -torch.inf, dtype=torch.float64)
    yield from (scores(n, seed=seed) * scale for seed, scale in enumerate((1e-9, 0.01, 0.3, 1.0, 100.0)))
    yield from (0.0 * place, -1e-3 * place, -(0.5**place), 0.5**place, torch.round(scores(n) * 4) / 8, 1e6 + scores(n))
    yield from (torch.where(place == 0, 0.0, edge) for edge in (-1.0, -1.0 + 1 / n, -2.0, -2.0 + 1 / n))
    yield from (torch.where(place % 3 == 0, far, scores(n)), far, torch.where(place == 1, torch.nan, 0.0))


@pytest.mark.parametrize(("map_", "options"), SORTED, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.filterwarnings("ignore")
def test_exported_sparse_maps_have_the_numbers_and_supports_of_others(map_, options, dtype):
    program = exported(map_, options, dtype).module()
    for n in (2, 3, 17, 1000):
        x = torch.stack(list(rows_to_be_sorted(n))).to(getattr(torch, dtype))
        found = program(x)
        with sx.kernels("none"):
            wanted = map_(x, **options)
        torch.testing.assert_close(
            found, wanted, rtol=1e-15 if dtype == "float64" else 1e-7, atol=1e-15, equal_nan=True
        )
        is_clear = (wanted == 0) | (wanted > 1e-14) | wanted.isnan()
        assert torch.equal((found > 0)[is_clear], (wanted > 0)[is_clear])


@pytest.mark.parametrize(("map_", "options"), EXPORTED, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same_numbers(map_, options):
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    import onnxruntime

    shapes = {"x": {0: torch.export.Dim("rows"), 1: torch.export.Dim("columns", min=2, max=10_000)}}
    module = Module(map_, **options).eval()
    program = torch.onnx.export(
        module, (scores(5, 9, dtype="float32"),), dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    stored = io.BytesIO()
    program.save(stored)
    session = onnxruntime.InferenceSession(stored.getvalue())
    for x in (scores(2, 30, dtype="float32", seed=9), torch.tensor([[0.0, -40.0, -41.0]])):
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, map_(x, **options).numpy(), rtol=5e-7, atol=1e-30)


def test_traces_for_the_old_exporter_hold_no_constants():
    with pytest.warns() as caught:
        traced = torch.jit.trace(lambda x: sx.softmax(x, dim=-1), scores(2, 3))
    assert caught
    x = scores(2, 3, seed=5)
    assert torch.allclose(traced(x), sx.softmax(x))


def test_a_single_row_has_a_weighted_loss():
    x, w = scores(7), torch.linspace(0.5, 2, 7, dtype=torch.float64)
    wanted = torch.nn.functional.cross_entropy(x, torch.tensor(3), weight=w)
    assert torch.allclose(sx.cross_entropy(x, torch.tensor(3), weight=w), wanted, rtol=1e-12)


@pytest.mark.parametrize("loss", [sx.cross_entropy, sx.sparsemax_loss, sx.entmax15_loss])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_smoothed_losses_agree_with_their_formulas(loss, dtype):
    x = scores(6, 11, dtype=dtype)
    y = torch.tensor([0, 3, 10, -100, 2, 2])
    for options in ({}, {"temperature": 0.7}, {"reduction": "none"}):
        found = []
        for mode in ("auto", "none"):
            z = x.detach().requires_grad_()
            with sx.kernels(mode):
                value = loss(z, y, ignore_index=-100, label_smoothing=0.1, **options)
                value.sum().backward()
            found.append((value.detach().double(), z.grad.double()))
        close = {"float64": 1e-13, "float32": 1e-6, "bfloat16": 1e-2}[dtype]
        assert torch.allclose(found[0][0], found[1][0], rtol=close)
        assert torch.allclose(found[0][1], found[1][1], rtol=close, atol=close)


def test_targets_may_go_once_they_are_saved():
    x, y = scores(30, 40).requires_grad_(), torch.softmax(scores(30, 40, seed=1), -1)
    known = weakref.ref(y)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
        loss = sx.cross_entropy(x, y)
    del y
    assert known() is None
    loss.backward()
    assert x.grad.abs().max() > 0


def test_the_way_back_of_smooth_maxima_and_of_negative_bits():
    x = scores(3, 4).requires_grad_()
    for map_ in (sx.softmax, sx.softmin, sx.sparsemax):
        assert torch.autograd.gradcheck(lambda x, map_=map_: map_.smooth_max(x, 0, temperature=0.7), (x,))
        assert torch.autograd.gradgradcheck(lambda x, map_=map_: map_.smooth_max(x, temperature=0.7), (x,))
    g = torch.complex(scores(3, 4), scores(3, 4, seed=1)).conj().imag
    (wanted,) = torch.autograd.grad(sx.normmax(x), x, g.clone())
    assert g.is_neg() and torch.equal(torch.autograd.grad(sx.normmax(x), x, g)[0], wanted)


# -- modes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_meta_and_fake_tensors_have_shapes_alone(map_, hyper):
    from torch._subclasses.fake_tensor import FakeTensorMode

    found = map_(torch.empty(2, 3, device="meta", dtype=torch.bfloat16), **hyper)
    assert (found.device.type, found.shape, found.dtype) == ("meta", (2, 3), torch.bfloat16)
    with FakeTensorMode():
        found = map_(torch.empty(2, 3), **hyper)
        assert type(found).__name__ == "FakeTensor" and found.shape == (2, 3)


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_inference_mode_and_no_grad(map_, hyper):
    x = scores(3, 4).requires_grad_()
    with torch.inference_mode():
        found = map_(x, **hyper)
        assert found.is_inference() and torch.equal(map_(found, **hyper), map_(found.clone(), **hyper))
    with torch.no_grad():
        assert not map_(x, **hyper).requires_grad
    assert map_(x, **hyper).requires_grad


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_checkpointing_changes_nothing(map_, hyper):
    from torch.utils.checkpoint import checkpoint

    x, g = scores(3, 4).requires_grad_(), scores(3, 4, seed=1)
    (wanted,) = torch.autograd.grad(map_(x, **hyper), x, g)
    (got,) = torch.autograd.grad(checkpoint(lambda x: map_(x, **hyper), x, use_reentrant=False), x, g)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_autocast_gives_the_dtypes_of_torch(dtype):
    x, y = scores(3, 4, dtype=dtype), torch.tensor([0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        assert sx.softmax(x).dtype is torch.softmax(x, -1).dtype
        assert sx.sparsemax(x).dtype is torch.softmax(x, -1).dtype
        wanted = torch.nn.functional.cross_entropy(x, y).dtype
        assert sx.cross_entropy(x, y).dtype is wanted
        assert sx.entmax15_loss(x, y).dtype is wanted


def test_only_the_weights_are_kept_for_the_way_back():
    kept = []
    x = scores(8, 16, dtype="float32").requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        p = sx.softmax(x)
    if KERNELS:
        assert len(kept) == 1 and kept[0].data_ptr() == p.data_ptr()


def test_nothing_of_the_callers_is_written():
    x, g = scores(3, 4), scores(3, 4, seed=1)
    before = x.clone(), g.clone()
    asking = x.requires_grad_()
    for map_ in (sx.softmax, sx.sparsemax, sx.log_softmax, sx.normmax):
        map_(asking).backward(g)
        sx.cross_entropy(asking, torch.tensor([0, 1, 3])).backward()
        assert torch.equal(x, before[0]) and torch.equal(g, before[1])
        assert x._version == 0


def test_weights_changed_in_place_are_noticed():
    x = scores(3, 4).requires_grad_()
    p = sx.softmax(x)
    p.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        p.sum().backward()


def test_lazily_negative_tensors_are_read_right():
    z = torch.complex(scores(3, 4), scores(3, 4, seed=1))
    x = z.conj().imag
    assert x.is_neg() and torch.equal(sx.softmax(x), sx.softmax(x.clone()))


def test_threads_may_call_at_once():
    x = scores(64, 500, dtype="float32").requires_grad_()
    wanted = torch.autograd.grad(sx.sparsemax(x).square().sum(), x)[0]
    found = []

    def work():
        found.extend([torch.autograd.grad(sx.sparsemax(x).square().sum(), x)[0] for _ in range(20)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 80 and all(torch.equal(each, wanted) for each in found)


def test_parameters_and_subclasses_are_tensors_too():
    class Mine(torch.Tensor):
        pass

    x = scores(2, 3)
    assert torch.equal(sx.softmax(torch.nn.Parameter(x)), sx.softmax(x))
    found = sx.sparsemax(x.as_subclass(Mine))
    assert type(found) is Mine and torch.allclose(found.as_subclass(torch.Tensor), sx.sparsemax(x))


def test_maps_copy_and_pickle_with_their_tensors_known():
    bound = sx.entmax.bind(alpha=1.3)
    sx.entmax.bind(alpha=1.3)(scores(3))
    for each in (copy.deepcopy(bound), pickle.loads(pickle.dumps(bound))):
        assert each == bound and torch.equal(each(scores(3)), bound(scores(3)))
        compiled = torch.compile(lambda x, each=each: each(x), fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(scores(3)), bound(scores(3)))


def test_empty_and_scalar_tensors():
    for shape in ((0, 3), (3, 0), (0,)):
        x = torch.empty(shape, requires_grad=True)
        assert sx.softmax(x).shape == shape
        sx.sparsemax(x).sum().backward()
        assert x.grad.shape == shape
    x = torch.tensor(3.0, requires_grad=True)
    p = sx.softmax(x)
    p.backward()
    assert (p.item(), x.grad.item(), p.shape) == (1.0, 0.0, ())
    assert sx.softmax(torch.tensor([1, 2])).dtype is torch.get_default_dtype()


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_say_what_to_do():
    x = scores(3, 4)
    with pytest.raises(IndexError, match="axis 2 is out of bounds"):
        sx.softmax(x, dim=2)
    with pytest.raises(TypeError, match="axis=0 and dim=1"):
        sx.softmax(x, 0, dim=1)
    with pytest.raises(TypeError, match="complex64"):
        sx.softmax(x.to(torch.complex64))
    with pytest.raises(TypeError, match="float8"):
        sx.softmax(x.to(torch.float8_e4m3fn))
    with pytest.raises(TypeError, match="sparse.*to_dense"):
        sx.softmax(x.to_sparse())
    with pytest.raises(TypeError, match="out is for NumPy"):
        sx.softmax(x, out=torch.empty_like(x))
    with pytest.raises(ValueError, match="temperature is .*must be more than 0"):
        sx.softmax(x, temperature=torch.tensor(0.0))
    with pytest.raises(ValueError, match="alpha is 0.5"):
        sx.entmax(x, alpha=0.5)
    with pytest.raises(ValueError, match="meta"):
        sx.softmax(x, where=torch.ones(3, 4, dtype=torch.bool, device="meta"))
    with pytest.raises(TypeError, match="where has dtype float32"):
        sx.softmax(x, where=torch.ones(3, 4))
    with pytest.raises(TypeError, match="dtype=.*torch.float64"):
        sx.softmax(x, dtype=torch.int32)
    with pytest.raises(IndexError, match="index 4"):
        sx.cross_entropy(x, torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match="g has shape"):
        sx.softmax.vjp(x, x[:2])
    with pytest.raises(TypeError, match="unexpected keyword argument 'tmperature'"):
        sx.softmax(x, tmperature=2)


def test_what_cannot_be_looked_at_makes_its_rows_nan():
    x = scores(3, 4)
    found = torch.func.vmap(lambda x, t: sx.sparsemax(x, temperature=t))(x, torch.tensor([1.0, -1.0, torch.nan]))
    assert torch.isnan(found).all(-1).tolist() == [False, True, True]
