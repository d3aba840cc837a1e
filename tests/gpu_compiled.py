"""The kernels of GPUs compiled for chips that need not be there, each kind of call once; test_gpu_kernels.py runs it.

Machine code tells what the interpreter does not: that everything compiles, how wide the loads are, and that the rows
stay in registers.
"""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.profiler import profile
from triton.runtime.jit import JITFunction

import softplex as sx
from gpu_compiler import compiling, laid, why_not
from softplex.backends.torch import backend, gpu, quick, quick_losses, solving
from softplex.backends.torch.modes import PLAIN, is_transformed
from softplex.native.gpu import launch, widths

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

MAPS = [sx.softmax, sx.log_softmin, sx.sparsemax, sx.entmax.bind(alpha=1.3)]
EACH_MAP = {"argvalues": MAPS, "ids": lambda each: each.name}
SPILLS = 128
"""Bytes a thread may keep in memory: little beside the entries that it holds."""


@pytest.fixture(autouse=True)
def taken_for_a_gpu(monkeypatch):
    """Tensors of the CPU take the road of a GPU's; their results mean nothing."""

    def is_taken(x):
        return type(x) in PLAIN and x.layout is torch.strided and not is_transformed()

    on_gpu, otherwise = gpu.GpuBackend(torch.device("cpu")), backend.TorchBackend(torch.device("cpu"))
    monkeypatch.setattr(backend, "backend_for", lambda x: on_gpu if is_taken(x) else otherwise)
    monkeypatch.setattr(quick, "value", lambda *_: None)
    monkeypatch.setattr(quick_losses, "loss", lambda *_: None)
    monkeypatch.setattr(gpu, "is_taken", is_taken)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def rows(n, dtype=torch.float32):
    return torch.zeros(3, n, dtype=dtype)


def forward_and_back(map_, n, dtype):
    x = rows(n, dtype).requires_grad_()
    map_(x).backward(rows(n, dtype))


def everything_given(map_, n, dtype):
    """Mask, sink and temperature."""
    x, where = rows(n, dtype), torch.ones(3, n, dtype=torch.bool)
    map_(x, where=where, sink=0.5, temperature=torch.ones(3, 1), empty="nan")


def both_derivatives(map_, n, dtype):
    for method in (map_.vjp, map_.jvp):
        method(rows(n, dtype), rows(n, dtype))


def loss_and_back(map_, n, dtype):
    loss = map_.loss if map_.formula.kind == "simplex" else sx.cross_entropy
    loss(rows(n, dtype).requires_grad_(), torch.tensor([0, 1, 2]), ignore_index=1).backward()


CALLS = [forward_and_back, everything_given, both_derivatives, loss_and_back]


def assert_sound(found, most=SPILLS):
    assert found
    for kernel in found:
        assert kernel.stack <= most, f"{kernel.name} for sm_{kernel.capability} spills {kernel.stack} bytes"


@pytest.mark.parametrize("call", CALLS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("map_", **EACH_MAP)
def test_hopper(map_, call):
    """float32, in which most is computed."""
    with compiling((90,)) as found:
        call(map_, 1000, torch.float32)
    assert_sound(found)


@pytest.mark.parametrize("call", CALLS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("map_", MAPS[:3], ids=lambda each: each.name)
def test_hopper_in_parts(map_, call):
    with compiling((90,)) as found:
        call(map_, 40_000, torch.float32)
    assert_sound(found)


OTHERWISE = {
    "odd": lambda dtype: forward_and_back(sx.softmax, 40_961, dtype),
    "across": lambda dtype: sx.softmax(torch.zeros(40_000, 64, dtype=dtype), axis=0),
    "masked": lambda dtype: sx.softmax(rows(40_000, dtype), where=mask(3, 40_000)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", OTHERWISE)
def test_parts_that_are_not_loaded_in_vectors(case, dtype):
    with compiling((90,)) as found:
        OTHERWISE[case](dtype)
    assert_sound(found)


@pytest.mark.parametrize("map_", [sx.softmax, sx.sparsemax], ids=str)
def test_numbers_are_told_before_programs_arrive_and_read_afterwards(map_):
    """All threads stand still between what they store and the counter, and between that and what they load."""
    with compiling((90,)) as found:
        forward_and_back(map_, 40_000, torch.float32)
    for kernel in found:
        steps = re.findall(r"bar\.sync|atom\.global\S*|st\.global\S*|ld\.global\S*", kernel.assembly)
        arrivals = [place for place, step in enumerate(steps) if step.startswith("atom")]
        assert arrivals
        # A number that each thread loads for itself may part them.
        assert len(arrivals) % 2 == 0
        assert "volatile.global" not in kernel.assembly
        for place in arrivals:
            assert steps[place].startswith("atom.global.gpu.acq_rel.add"), steps[place]
            assert (steps[place - 1], steps[place + 1]) == ("bar.sync", "bar.sync")
        numbers = [place for place, step in enumerate(steps) if step.startswith("ld.global.cg")]
        assert numbers
        assert min(numbers) > min(arrivals)
        assert len(numbers) == kernel.accesses("ld").count((8, False)), "and never from a cache that others cannot see"


@pytest.mark.parametrize("map_", **EACH_MAP)
def test_ampere_and_narrow_types(map_):
    dtype = torch.float16 if map_ is sx.sparsemax else torch.bfloat16
    with compiling((80,)) as found:
        forward_and_back(map_, 1000, dtype)
    assert_sound(found, 1.25 * SPILLS)


@pytest.mark.parametrize("n", [17, 256, 4096, 16_384])
def test_every_width_holds_its_rows_in_registers(n):
    """And loads 16 bytes at once, where rows begin at such places."""
    for map_ in (sx.softmax, sx.sparsemax):
        for dtype in (torch.float32, torch.bfloat16):
            with compiling((90,)) as found:
                forward_and_back(map_, n, dtype)
            assert_sound(found)
            assert all((kernel.wide_loads() > 0) == (n % 16 == 0) for kernel in found), found


def test_the_widest_losses_spill_no_more_than_is_known():
    """They hold gaps, weights and what both sum to at once."""
    with compiling((90,)) as found:
        loss_and_back(sx.softmax, widths.LONGEST, torch.float32)
    assert found
    assert all(kernel.stack <= 3.5 * SPILLS for kernel in found), found


@pytest.mark.parametrize("n", [1000, 40_000])
def test_a_cotangent_that_is_one_number_leaves_the_loads_of_the_weights_wide(n):
    with compiling((90,)) as found:
        sx.softmax(rows(n, torch.bfloat16).requires_grad_()).sum().backward()
        sx.softmax.vjp(rows(n, torch.bfloat16), torch.ones(3, 1, dtype=torch.bfloat16).expand(3, n))
    assert_sound(found)
    assert all(kernel.wide_loads() > 0 for kernel in found), found


def mask(*shape):
    return torch.ones(shape, dtype=torch.bool)


def off(x):
    """The same a place further in memory."""
    return torch.cat([x.reshape(-1)[:1], x.reshape(-1)])[1:].view(x.shape)


OUTER = (50_001, 8000, 1000, 1)
"""Strides of which the outermost alone is no multiple of four."""

READINGS = 3
"""Where the code of a part reads it: first, with all others if they are late, and again then."""

ACCESSES = {
    "plain": (lambda x, n: sx.softmax(x), 8, 8),
    "scores off": (lambda x, n: sx.softmax(off(x)), 0, 8),
    "scores of padded rows": (lambda x, n: sx.softmax(torch.zeros(4, n + 1)[:, :n]), 0, 8),
    "scores in windows": (lambda x, n: sx.softmax(torch.zeros(4 * n).as_strided((4, n), (2, 1))), 0, 8),
    "mask": (lambda x, n: sx.softmax(x, where=mask(4, n)), 8, 8),
    "mask off": (lambda x, n: sx.softmax(x, where=off(mask(4, n))), 8, 8),
    "mask with gaps": (lambda x, n: sx.softmax(x, where=mask(4, 2 * n)[:, ::2]), 8, 8),
    "mask expanded": (lambda x, n: sx.softmax(x, where=mask(4, 1).expand(4, n)), 8, 8),
    "cotangent": (lambda x, n: sx.softmax.vjp(x, torch.zeros(4, n)), 16, 8),
    "cotangent off": (lambda x, n: sx.softmax.vjp(x, off(x)), 8, 8),
    "cotangent of padded rows": (lambda x, n: sx.softmax.vjp(x, torch.zeros(4, n + 1)[:, :n]), 8, 8),
    "cotangent with gaps": (lambda x, n: sx.softmax.vjp(x, torch.zeros(4, 2 * n)[:, ::2]), 8, 8),
    "cotangent expanded": (lambda x, n: sx.softmax.vjp(x, torch.zeros(1, 1).expand(4, n)), 8, 8),
    "scores off, cotangent not": (lambda x, n: sx.softmax.vjp(off(x), x), 8, 8),
    "way back": (lambda x, n: sx.softmax(x.requires_grad_()).backward(torch.zeros(4, n)), 16, 8),
    "way back, cotangent off": (lambda x, n: sx.softmax(x.requires_grad_()).backward(off(x.detach())), 8, 8),
    "way back, cotangent expanded": (lambda x, n: sx.softmax(x.requires_grad_()).sum().backward(), 8, 8),
}


IN_PARTS = ("plain", "scores off", "mask", "cotangent", "way back", "way back, cotangent off")


@pytest.mark.parametrize(("case", "n"), [(case, 1000) for case in ACCESSES] + [(case, 40_000) for case in IN_PARTS])
def test_no_more_is_taken_at_once_than_lies_together(case, n):
    """Neither of what begins elsewhere, nor of what has gaps; and the other tensors' accesses stay wide."""
    call, loads, stores = ACCESSES[case]
    with compiling((90,)) as found:
        call(torch.zeros(4, n), n)
    readings = READINGS if n > widths.LONGEST else 1
    assert_wide(found[-1], readings * loads, stores)
    if case.startswith("mask"):
        # Scores are loaded in vectors, so that four bytes alone are four entries of a mask.
        singles = found[0].accesses("ld").count((4, False))
        assert singles == (readings * 8 if case == "mask" else 0), found[0].accesses("ld")


def assert_wide(kernel, loads, stores):
    assert (kernel.wide_loads(), kernel.wide_stores()) == (loads, stores), kernel.name


def test_every_stride_and_every_result_is_looked_at(monkeypatch):
    with compiling((90,)) as found:
        sx.softmax(torch.zeros(200_000).as_strided((2, 3, 4, 1000), OUTER))
    assert_wide(found[-1], 0, 8)
    monkeypatch.setattr(launch, "room_like", lambda x: off(torch.empty_like(x)))
    with compiling((90,)) as found:
        sx.softmax(torch.zeros(4, 1000))
        sx.maxout.vjp(torch.zeros(3, 7, 1000), torch.zeros(3, 7))
    assert_wide(found[0], 8, 0)
    assert all(size <= 4 or not is_vector for size, is_vector in found[1].accesses("st"))


def alike(dtype):
    """Tensors and their axes, in each group of which the entries of a row lie alike."""
    wide, padded = torch.zeros(41, 105, dtype=dtype), torch.zeros(41, 107, dtype=dtype)[:, 2:106]
    deep, middle = torch.zeros(104, 64, dtype=dtype), torch.zeros(7, 104, 6, dtype=dtype)
    yield [(wide, 1), (wide[1:], 1), (wide[3], 0), (wide[::2], 1), (wide[:1], 1)]
    yield [(padded, 1), (padded[4], 0), (padded[5], 0), (padded.contiguous(), 1), (padded.contiguous()[2], 0)]
    yield [(deep, 0), (deep[:, 3], 0), (deep[:, ::2], 0), (deep[:, :33], 0), (deep.view(104, 2, 32), 0)]
    yield [(middle, 1), (middle[0], 0), (middle[0, :, 0], 0), (middle[::2, :, 1:3], 1)]
    many = torch.zeros(3, 3, 3, 3, 104, 64, dtype=dtype)[:2, :2, :2, :2]  # that no stride joins
    yield [(many, -2), (many[0, 0, 0], -2), (many[0, 0, 0, 0, :, :1], 0)]
    windows, blocks = torch.zeros(1000, dtype=dtype).as_strided((6, 4, 26), (10, 26, 1)), torch.zeros(5, 4, 26)
    yield [(windows, (1, 2)), (windows[0], (0, 1)), (blocks.to(dtype), (1, 2)), (windows[3:4], (1, 2))]


def asked(map_, x, axis):
    """Calls on the rows of a tensor; weights lie as new memory does, so that only plain rows go back alike."""
    one, zero = mask(*[1] * x.ndim), torch.zeros([1] * x.ndim, dtype=x.dtype)
    masks = [None, one.expand(x.shape).clone(), mask(*x.shape[:-2], *[1] * min(x.ndim, 2))]
    yield [lambda where=where: map_(x, axis, where=where) for where in masks]
    cotangents = torch.zeros(x.shape, dtype=x.dtype), zero.expand(x.shape)
    yield [lambda g=g: map_.vjp(x, g, axis) for g in cotangents]
    if isinstance(axis, int) and x.stride(axis) == 1:
        yield [lambda g=g: map_(x.clone().requires_grad_(), axis).backward(g) for g in cotangents]


@pytest.mark.parametrize(("map_", "dtype"), [(sx.softmax, torch.float32), (sx.sparsemax, torch.bfloat16)])
def test_sums_are_taken_in_an_order_that_is_the_row_s(map_, dtype):
    """Whatever the batch is, and wherever in memory it begins; masks and cotangents do not change it."""
    for group in alike(dtype):
        orders = {}
        for place, (x, axis) in enumerate(group):
            for kind, calls in enumerate(asked(map_, x, axis)):
                for call in calls if place == 0 else calls[:1]:
                    with compiling((90,), laid) as found:
                        call()
                    assert found[-1].sums()
                    orders.setdefault(kind, set()).add(tuple(found[-1].sums()))
        assert all(len(each) == 1 for each in orders.values()), [(x.shape, x.stride()) for x, _ in group]


def test_what_goes_back_is_loaded_sixteen_bytes_at_once():
    """Weights and cotangents, gradients and what they are multiplied with."""
    for dtype, n in ((torch.float32, 1000), (torch.bfloat16, 1000), (torch.float32, 40_000)):
        with compiling((90,)) as found:
            sx.softmax(rows(n, dtype).requires_grad_()).backward(rows(n, dtype))
            loss_and_back(sx.softmax, n, dtype)
        for kernel in found:
            entries = 16 // dtype.itemsize
            if kernel.name.startswith("backward") or kernel.name == "multiply":
                held = widths.PART if n > widths.LONGEST or kernel.name == "multiply" else 1024
                streams = 1 if kernel.name == "multiply" else 2
                threads = 32 * (8 if held == widths.PART else 1)
                readings = READINGS if "long" in kernel.name else 1
                assert kernel.wide_loads() == readings * streams * held // (threads * entries), kernel.name


def test_neither_widths_nor_batches_are_compiled_for():
    """Of one block's width and one alignment; a single row has no stride."""
    with compiling((90,)) as found:
        for n in (520, 600, 712, 1000):
            for batch in (2, 16, 17):
                sx.softmax(torch.zeros(batch, n))
    assert len(found) == 1


WAITS = ("item", "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique", "lift_fresh")
"""Operators that bring numbers from the device to the host, and that which brings the host's to a device."""


def waits(call):
    """Which of those a call runs; no kernel does anything."""
    with profile() as seen:
        call()
    return {event.name for event in seen.function_events} & {f"aten::{name}" for name in WAITS}


def test_waiting_is_seen():
    x = torch.ones(3)
    for call in (lambda: float(x[0]), lambda: x[x > 0], lambda: bool(x.all()), lambda: torch.tensor(1.0) + x):
        assert waits(call)


def twice(map_, n, dtype):
    x, g = (rows(n, dtype).requires_grad_() for _ in range(2))
    (once,) = torch.autograd.grad(map_(x), x, g, create_graph=True)
    (once * once).sum().backward()


def test_who_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert solving.is_captured(SimpleNamespace(is_cuda=True)) and not solving.is_captured(
        SimpleNamespace(is_cuda=False)
    )
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert not solving.is_captured(SimpleNamespace(is_cuda=True))


def forward_mode(map_, n, dtype):
    torch.func.jvp(map_, (rows(n, dtype),), (rows(n, dtype),))


CLASSES = torch.tensor([0, 1, 2])


def every_loss(map_, n, dtype):
    loss = map_.loss if map_.formula.kind == "simplex" else sx.cross_entropy
    for reduction in ("mean", "sum", "none"):
        given = {"weight": torch.ones(n, dtype=dtype), "ignore_index": 1, "temperature": 0.5}
        loss(rows(n, dtype).requires_grad_(), CLASSES, reduction=reduction, **given).sum().backward()
        loss(rows(n, dtype).requires_grad_(), CLASSES, reduction=reduction, label_smoothing=0.1).sum().backward()


def maxima(map_, n, dtype):
    sx.maxout(rows(n, dtype).requires_grad_()).sum().backward()
    sx.maxout.winner(rows(n, dtype)), sx.entmax15.support_size(rows(n, dtype))


@pytest.mark.parametrize("call", [*CALLS[:3], every_loss, twice, forward_mode, maxima], ids=lambda each: each.__name__)
@pytest.mark.parametrize("map_", **EACH_MAP)
def test_nothing_waits_for_the_device(map_, call, monkeypatch):
    """As graphs of CUDA demand it: not forward, not back, in no method and no loss; in parts, too, which are small."""
    monkeypatch.setattr(JITFunction, "run", lambda *_, **__: None)
    monkeypatch.setattr(widths, "LONGEST", 64)
    monkeypatch.setattr(widths, "PART", 64)
    for name in ("is_on_gpu", "is_captured"):
        monkeypatch.setattr(solving, name, lambda _: True)
    for n, dtype in ((17, torch.float32), (300, torch.float16)):
        assert not waits(lambda n=n, dtype=dtype: call(map_, n, dtype))


def test_strided_rows_and_other_axes():
    with compiling((90,)) as found:
        sx.sparsemax(torch.zeros(200, 64), dim=0)
        sx.sparsemax(torch.zeros(3, 50, 64)[:, ::2], dim=1)
        sx.sparsemax(torch.zeros(5, 4, 6, 7), dim=(0, 2))
        sx.sparsemax(torch.zeros(40_000, 2), dim=0)
    assert_sound(found)


def test_maxout_and_the_operator_of_graphs(monkeypatch):
    with compiling((80, 90)) as found:
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            x = rows(12, dtype)
            sx.maxout(x, pieces=4), sx.maxout.winner(x)
            sx.maxout.vjp(x, torch.zeros(3, dtype=dtype)), sx.maxout.jvp(x, x)
        monkeypatch.setattr(solving, "is_on_gpu", lambda _: True)
        x, sink = rows(12, torch.float64), torch.zeros(3, 1, dtype=torch.float64)
        for map_ in (sx.softmax, sx.log_softmax, sx.sparsemax):
            solving.solved_here(solving.key_of(map_.formula), True, x, sink, None, 1.0, [], [])
    assert {kernel.name for kernel in found} == {"winners", "short_rows"}
    assert_sound(found)
