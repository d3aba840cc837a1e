"""The kernels' short cuts for tensors of torch: held to the bits that arrays get, and to declining what is odd."""

from dataclasses import replace

import numpy as np
import pytest

import softplex as sx
from frameworks import numpy_dtype, threads
from lawbook import same_bits
from softplex.native import calls, cpu, reason

torch = pytest.importorskip("torch", reason="tensors need the extra torch: pip install 'softplex[torch]'")
from test_native_backward import computed, drawn  # noqa: E402

if cpu is None:
    pytest.skip(reason, allow_module_level=True)

LOG_SOFTMAX, MAXOUT = 1, 5
TYPES = ("float64", "float32", "float16", "bfloat16")
CUTS = [(0, False, False), (0, True, False), (1, False, False), (2, False, False), (3, False, False), (4, False, True)]


def introduced(*kinds, new_like=torch.empty_like, threads=torch.get_num_threads):
    """Whether tensors of these classes are known from now on; all of torch's by default, as it introduces itself."""
    from softplex.backends.torch import modes, quick

    return calls.know_tensors(kinds or tuple(modes.PLAIN), new_like, quick.room_like, threads)


@pytest.fixture(autouse=True)
def known():
    assert introduced()
    yield
    introduced()


def tensor_of(array):
    """A tensor over an array's memory; None stays None."""
    if array is None or array.dtype.name != "bfloat16":
        return None if array is None else torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def views(array):
    """The same entries in other places of memory."""
    yield array
    yield np.asfortranarray(array)
    yield np.repeat(array, 3, axis=-1)[..., ::3]
    yield np.concatenate([array.reshape(-1)[:1], array.reshape(-1)])[1:].reshape(array.shape)


def array_of(tensor):
    """What tensor_of made a tensor of."""
    if tensor is None or tensor.dtype is not torch.bfloat16:
        return None if tensor is None else tensor.numpy()
    return tensor.view(torch.int16).numpy().view(numpy_dtype("bfloat16"))


def cut_short(cut, method, x, operand=None, where=None, axis=-1, **options):
    """What a short cut makes of a call on arrays as tensors."""
    return array_of(cut(method, *map(tensor_of, (x, operand, where)), axis, options))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("numbers", CUTS, ids=str)
def test_tensors_get_the_bits_of_arrays(numbers, dtype):
    rng = np.random.default_rng(7)
    sx.softmax(np.zeros(2, dtype=numpy_dtype(dtype)))  # the first bfloat16 of a process tells the kernels of its dtype
    quick, cut = cpu.short_cut(*numbers, 1.3), cpu.tensor_cut(*numbers, 1.3)
    for shape, axis in [((5,), 0), ((40, 17), -1), ((33, 70), 0), ((3, 300, 4), 1), ((2, 3, 4, 600), -1)]:
        x, g = ((3 * rng.normal(size=shape)).astype(numpy_dtype(dtype)) for _ in range(2))
        mask = rng.random(shape) > 0.3
        options = {"temperature": 0.7, "empty": "nan", "dtype": None, **({"alpha": 1.7} if numbers[2] else {})}
        for method, operand in (("value", None), ("vjp", g), ("jvp", g)):
            for where, given in ((None, {}), (mask, {}), (mask, options), (None, {"sink": 0.5})):
                wanted = quick(method, x, operand, axis, None, {**given, "where": where})
                for placed, laid, number in zip(views(x), views(g), (1, 2, 3, 1), strict=True):
                    arrays = {"operand": None if operand is None else laid, "where": where}
                    with threads(number, torch):
                        result = cut_short(cut, method, placed, axis=axis, **arrays, **given)
                    assert same_bits(np.ascontiguousarray(result), wanted), (method, shape, given)


def test_tensors_may_be_broadcast_and_named_otherwise():
    x, mask = torch.randn(3, 5, dtype=torch.float64), torch.tensor([True, False, True, True, True])
    cut, shape = cpu.tensor_cut(0, False, False, 1.5), (4, 3, 5)
    result = cut("".join(("val", "ue")), x.expand(shape), None, mask.expand(shape), -1, {})
    assert same_bits(result[2].numpy(), sx.softmax(x.numpy(), where=mask.numpy()))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(
    "shape", [(), (5,), (1,), (3, 5), (3, 1), (1, 5), (4, 1, 1), (1, 3, 5), (4, 1, 5), (4, 3, 5)], ids=str
)
def test_masks_are_spread_over_the_scores(shape, axis):
    rng = np.random.default_rng(5)
    x, where = rng.normal(size=(4, 3, 5)), np.asarray(rng.random(shape) > 0.3)
    for placed in (where, np.flip(where) if where.ndim else where):
        wanted = sx.softmax(x, axis, where=np.broadcast_to(placed, x.shape))
        found = cut_short(cpu.tensor_cut(0, False, False, 1.5), "value", x, where=placed.copy(), axis=axis)
        assert same_bits(found, wanted)


def test_the_way_back_from_weights():
    given = drawn(0, "softmax", "float32", (33,), 9)
    options = {} if np.ndim(given.temperature) else {"temperature": given.temperature}
    wanted = computed(replace(given, temperature=options.get("temperature", 1.0)))
    arrays = {"operand": np.ascontiguousarray(given.g)}
    cut, p = cpu.tensor_cut(0, given.negated, False, 1.5), np.ascontiguousarray(given.p)
    assert same_bits(cut_short(cut, "backward", p, **arrays, **options), wanted)
    assert cut_short(cut, "backward", p, where=np.ones((9, 33), bool), **arrays) is None
    assert cut_short(cpu.tensor_cut(2, False, False, 1.5), "backward", p, **arrays, sink=0.0) is None


class OwnTensor(torch.Tensor):
    """A class of somebody's."""


ODD_TENSORS = {
    "a class of somebody's": torch.zeros(2, 3, dtype=torch.float64).as_subclass(OwnTensor),
    "none": None,
    "a number": 0,
    "an array": np.zeros((2, 3)),
    "another class": type("Tensor", (), {"__dlpack__": None})(),
    "another shape": torch.zeros(3, 2, dtype=torch.float64),
    "fewer axes": torch.zeros(6, dtype=torch.float64),
    "another dtype": torch.zeros(2, 3),
    "integers": torch.zeros(2, 3, dtype=torch.int64),
    "booleans": torch.zeros(2, 3, dtype=torch.bool),
    "complex": torch.zeros(2, 3, dtype=torch.complex128),
    "sparse": torch.zeros(2, 3, dtype=torch.float64).to_sparse(),
    "meta": torch.zeros(2, 3, dtype=torch.float64, device="meta"),
    "empty": torch.zeros(2, 0, dtype=torch.float64),
}


def test_odd_tensors_are_declined():
    x = torch.randn(2, 3, dtype=torch.float64)
    cut = cpu.tensor_cut(0, False, False, 1.5)
    names = ("method", "x", "operand", "where", "axis", "options")
    fitting = ("value", x, None, None, -1, {})

    def declines(**changed):
        return cut(*(changed.get(name, value) for name, value in zip(names, fitting, strict=True))) is None

    assert all(declines(method=method) for method in ("loss", "", None, 0, "vjp", "jvp"))
    assert all(declines(axis=axis) for axis in (2, -3, 1 << 80, None, 1.0, (1,)))
    assert all(declines(options=given) for given in (None, (), {"where": None}, {"alpha": 1.5}, {"unknown": 1}))
    assert all(declines(options={"temperature": each}) for each in (0.0, np.nan, np.inf, -1.0, "1", np.ones(2)))
    assert all(declines(options={"sink": each}) for each in ("0", np.zeros(2)))
    for name, odd in ODD_TENSORS.items():
        fits = name in ("another shape", "fewer axes", "another dtype")
        assert fits or declines(x=odd), name
        assert declines(method="vjp", operand=odd), name
        assert name in ("none", "booleans") or declines(where=odd), name
    masks = (torch.ones(3, 2), torch.ones(2), torch.ones(2, 2), torch.ones(1, 2, 3), torch.ones(2, 0), torch.ones(6))
    assert all(declines(where=mask.bool()) for mask in masks)
    assert declines(x=torch.zeros((1,) * 65))
    assert declines(x=torch.zeros(()))
    assert declines(operand=x), "values have none"
    with sx.kernels("none"):
        assert declines()
    assert all(cpu.tensor_cut(4, False, True, alpha)(*fitting) is None for alpha in (0.5, np.nan))
    assert same_bits(cut(*fitting).numpy(), sx.softmax(x.numpy()))
    for arguments in ((), fitting[:-1], (*fitting, None)):
        with pytest.raises(TypeError, match="takes"):
            cut(*arguments)
    for arguments in ((MAXOUT, False, False, 1.5), (-1, False, False, 1.5), (0, False)):
        with pytest.raises((TypeError, ValueError)):
            cpu.tensor_cut(*arguments)


class Pretender:
    __dlpack_c_exchange_api__ = 7


@pytest.mark.parametrize("odd", [1, object, np.ndarray, Pretender, torch.zeros(2)], ids=str)
def test_classes_that_cannot_be_looked_at_are_told(odd):
    """And those that were known still are."""
    assert introduced(odd) is False
    assert introduced(torch.Tensor, odd) is False
    assert cut_short(cpu.tensor_cut(0, False, False, 1.5), "value", np.zeros(2)).tolist() == [0.5, 0.5]


def test_without_memory_of_the_right_kind_calls_go_the_usual_way():
    cut, x, large = cpu.tensor_cut(0, False, False, 1.5), torch.randn(2, 3), torch.randn(300, 400)

    def fails():
        raise RuntimeError("no memory")

    odd = (torch.empty(3, 2), torch.empty(2, 3, dtype=torch.float64), torch.empty(2, 3, device="meta"), OwnTensor(2, 3))
    for make in (fails, *[lambda made=made: made for made in (None, *odd)]):
        assert introduced(new_like=lambda _, make=make: make())
        assert cut("value", x, None, None, -1, {}) is None
        assert same_bits(sx.softmax(x).numpy(), sx.softmax(x.numpy()))
        followed = x.clone().requires_grad_()
        sx.sparsemax(followed).square().sum().backward()
        assert same_bits(followed.grad.numpy(), sx.sparsemax.vjp(x.numpy(), 2 * sx.sparsemax(x.numpy())))
        sx.cross_entropy(followed, torch.tensor([0, 1])).backward()
    assert introduced(new_like=lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cut("value", x, None, None, -1, {})
    for wrong, error in ((None, TypeError), (1 << 80, OverflowError)):
        assert introduced(threads=lambda wrong=wrong: wrong)
        assert same_bits(cut("value", x, None, None, -1, {}).numpy(), sx.softmax(x.numpy()))  # too small to ask
        with pytest.raises(error):
            cut("value", large, None, None, -1, {})
    assert introduced(threads=lambda: -1)
    assert same_bits(cut("value", large, None, None, -1, {}).numpy(), sx.softmax(large.numpy()))


def test_modes_of_functions_see_the_result():
    class Wrapping(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            return found.as_subclass(OwnTensor) if type(found) is torch.Tensor else found

    x = torch.randn(2, 3)
    with Wrapping():
        found = sx.softmax(x)
    assert same_bits(found.as_subclass(torch.Tensor).numpy(), sx.softmax(x.numpy()))


def test_tensors_without_data_are_declined():
    zeros, x = torch._efficientzerotensor((2, 3)), torch.randn(2, 3)
    cut = cpu.tensor_cut(0, False, False, 1.5)
    assert cut("value", zeros, None, None, -1, {}) is None
    assert cut("vjp", x, zeros, None, -1, {}) is None
    emptied = torch.ones(2, 3, dtype=torch.bool)
    emptied.untyped_storage().resize_(0)
    assert cut("value", x, None, emptied, -1, {}) is None


@pytest.mark.parametrize("dtype", TYPES)
def test_large_results_may_be_changed_in_place(dtype):
    x = torch.randn(1 << 12, 1 << 13).to(getattr(torch, dtype)).T.requires_grad_()
    p = sx.softmax(x)
    assert p.stride() == torch.empty_like(x).stride() and not p._is_view()
    first = float(p[0, 0].detach())
    p.mul_(2.0)
    assert float(p[0, 0].detach()) == 2.0 * first


def test_large_results_lie_in_other_memory():
    from softplex.backends.torch import modes

    asked = []
    made = {name: lambda x, name=name: asked.append(name) or torch.empty_like(x) for name in ("new", "large")}
    assert calls.know_tensors(tuple(modes.PLAIN), made["new"], made["large"], torch.get_num_threads)
    for entries in ((1 << 23) - 1, 1 << 23):
        assert float(sx.softmax(torch.zeros(entries)).sum(dtype=torch.float64)) == pytest.approx(1.0)
    assert asked == ["new", "large"]


def test_without_the_interface_calls_go_the_usual_way(monkeypatch):
    from softplex.backends.torch import quick, quick_losses

    for place in (quick, quick_losses):
        monkeypatch.setattr(place, "CAN_LOOK", False)
    map_, x, y = sx.entmax.bind(alpha=1.3), torch.randn(4, 9), torch.arange(4)
    assert quick.value(map_, x, (), {}) is None
    assert quick_losses.loss("loss", type(map_).loss, map_, x, (y,), {}) is None
    assert same_bits(map_(x).numpy(), map_(x.numpy()))
    assert same_bits(map_.loss(x, y).numpy(), np.asarray(map_.loss(x.numpy(), y.numpy())))


# -- losses -----------------------------------------------------------------------------------------------------------


def lost(cut, x, y, where=None, axis=-1, ignored=None, scale=None, solved=None, **options):
    """What the short cut of losses says of arrays as tensors."""
    scale, solved = [one if isinstance(one, float | bool) else tensor_of(one) for one in (scale, solved)]
    return cut(tensor_of(x), tensor_of(y), tensor_of(where), axis, options, ignored, scale, solved)


SPARSE = (sx.sparsemax, sx.entmax15)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("map_", [sx.softmax, sx.softmin, *SPARSE], ids=lambda each: each.name)
def test_losses_of_tensors_get_the_bits_of_arrays(map_, dtype):
    rng = np.random.default_rng(11)
    sx.softmax(np.zeros(2, dtype=numpy_dtype(dtype)))
    cut, _ = calls.loss_cut(map_.formula)
    for shape, axis in [((5,), 0), ((40, 17), -1), ((33, 70), 0), ((3, 300, 4), 1)]:
        x, mask = (3 * rng.normal(size=shape)).astype(numpy_dtype(dtype)), rng.random(shape) > 0.2
        y = np.asarray(rng.integers(0, shape[axis], size=np.delete(shape, axis)))
        scale, ignored = np.asarray(rng.normal(size=(*y.shape, 2)))[..., 0], int(y.reshape(-1)[-1])
        sign = -1.0 if map_ is sx.softmin else 1.0
        for given, skipped in (({}, None), ({"where": mask, "temperature": 0.7, "sink": 0.5}, ignored)):
            wanted = map_.loss(x, y, axis, reduction="none", ignore_index=skipped, **given)
            residual = map_.residual(x, y, axis, **given).astype("f8")
            counts = np.ones(y.shape, bool) if skipped is None else y != skipped
            told = {key: value for key, value in given.items() if key != "where"}
            for placed in views(x):
                how = {"axis": axis, "where": given.get("where"), "ignored": skipped}
                losses, counted, solved = lost(cut, placed, y, solved=True, **how, **told)
                assert (solved is not None) == (map_ in SPARSE and shape[axis] >= 256)
                assert lost(cut, placed, y, **how, **told)[2] is None
                assert counted == counts.sum() and losses.dtype == np.float64
                assert same_bits(losses.astype(x.dtype), np.asarray(wanted).reshape(-1)), (shape, given)
                for times in (2.0, scale):
                    result = array_of(lost(cut, placed, y, **how, scale=times, **told))
                    factor = np.where(counts, times, 0.0) * sign / given.get("temperature", 1.0)
                    right = residual * np.expand_dims(factor, axis)
                    off = np.abs(result.astype("f8") - right)
                    assert (off <= 2e-7 + 2 * float(eps_of(x.dtype)) * np.abs(right)).all(), (shape, given)
                    again = lost(cut, placed, y, **how, scale=times, solved=solved, **told)
                    assert same_bits(array_of(again), result), (shape, given)


def eps_of(dtype):
    """The distance from 1 to the next number, of NumPy's own dtypes and of bfloat16."""
    return 2.0**-7 if dtype.name == "bfloat16" else np.finfo(dtype).eps


def test_odd_losses_are_declined():
    x, y = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 2])
    cut, _ = calls.loss_cut(sx.sparsemax.formula)
    names = ("x", "y", "where", "axis", "options", "ignored", "scale", "solved")
    fitting = (x, y, None, -1, {}, None, 1.0, None)

    def declines(**changed):
        return cut(*(changed.get(name, value) for name, value in zip(names, fitting, strict=True))) is None

    assert all(declines(axis=axis) for axis in (2, -3, None, 1.0))
    assert all(declines(options=given) for given in (None, {"alpha": 1.5}, {"unknown": 1}, {"temperature": 0.0}))
    for name, odd in ODD_TENSORS.items():
        assert name == "another dtype" or declines(x=odd), name
        assert name in ("none", "booleans") or declines(where=odd), name
        assert declines(y=odd), name
        assert name == "none" or declines(scale=odd), name
        assert name == "none" or declines(solved=odd), name
    assert all(declines(y=torch.tensor(wrong)) for wrong in ([0, 3], [-1, 0], [2**62, 0], [[0, 1]], [0, 1, 2], 0))
    assert declines(y=y.to(torch.int32))
    assert all(declines(ignored=ignored) for ignored in (1.0, True, "0", 1 << 80))
    assert all(declines(scale=scale) for scale in ("1", 1 << 80, torch.ones(2), torch.ones(3, dtype=torch.float64)))
    assert all(declines(solved=solved) for solved in (True, x, torch.zeros(3, 6, dtype=torch.float64)))
    with sx.kernels("none"):
        assert declines()
    assert calls.loss_cut(sx.log_softmax.formula) is None
    assert cpu.loss_cut(LOG_SOFTMAX, False, False, 1.5)(*fitting) is None
    assert same_bits(cut(*fitting).numpy(), sx.sparsemax.residual(x.numpy(), y.numpy()))
    for arguments in ((), fitting[:-1], (*fitting, None)):
        with pytest.raises(TypeError, match="lose takes"):
            cut(*arguments)
