"""The kernels of GPUs compiled for chips that need not be there, each kind of call once; test_gpu_kernels.py runs it.

Machine code tells what the interpreter does not: that everything compiles, how wide the loads are, and that the rows
stay in registers.
"""

from __future__ import annotations

import warnings

import pytest
import torch

import softplex as sx
from gpu_compiler import compiling, why_not
from softplex.backends.torch import backend, gpu, quick, solving
from softplex.backends.torch.modes import PLAIN, is_transformed
from softplex.native.gpu import widths

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

    on_gpu, usual = gpu.GpuBackend(torch.device("cpu")), backend.backend_for
    monkeypatch.setattr(backend, "backend_for", lambda x: on_gpu if is_taken(x) else usual(x))
    monkeypatch.setattr(quick, "value", lambda *_: None)
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


def assert_sound(found):
    assert found
    for kernel in found:
        assert kernel.stack <= SPILLS, f"{kernel.name} for sm_{kernel.capability} spills {kernel.stack} bytes"


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


@pytest.mark.parametrize("map_", **EACH_MAP)
def test_ampere_and_narrow_types(map_):
    dtype = torch.float16 if map_ is sx.sparsemax else torch.bfloat16
    with compiling((80,)) as found:
        forward_and_back(map_, 1000, dtype)
    assert_sound(found)


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
    readers = [kernel for kernel in found if kernel.name != "merge"]
    assert readers
    assert all(kernel.wide_loads() > 0 for kernel in readers), found


def test_neither_widths_nor_batches_are_compiled_for():
    """Of one block's width and one alignment; a single row has no stride."""
    with compiling((90,)) as found:
        for n in (520, 600, 712, 1000):
            for batch in (2, 16, 17):
                sx.softmax(torch.zeros(batch, n))
    assert len(found) == 1


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
