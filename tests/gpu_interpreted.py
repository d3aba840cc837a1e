"""The kernels of GPUs in Triton's interpreter: held to the formulas, to their bits, and to being given anything.

test_gpu_kernels.py runs this file, in a process that has not yet imported Triton.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import gpu_interpreter
import softplex as sx
import tolerances
from gpu_interpreter import AtOnce, InAnyOrder, as_array, as_tensor, on_gpu, taken_for_a_gpu, tl
from gpu_mutants import MUTANTS, WrongKernel, WrongStep
from native_bounds import Judge
from native_samples import BY_ROW, CALLS, LOSSES, drawn, drawn_maxout
from softplex.backends.torch import solving
from softplex.native.gpu import launch, long, short, widths

MANY, SOME, FEW = 8, 3, 3
OF_PARTS = {"rows": 3, "lengths": (5, 16, 17, 33, 64, 100)}
DTYPES = ("float32", "float16", "bfloat16")
LENGTHS = (1, 2, 3, 5, 8, 17, 33, 64, 100, 300)
TASKS = ("value", "vjp", "jvp", "residual of index", "loss of index", "support_size", "cross_entropy")
KERNELS = [call for call in CALLS if call[1] in TASKS]
EACH = [pytest.param(*call, id=f"{call[0].name} {call[1]}") for call in KERNELS]
IN_PARTS = [each for each in EACH if each.values[1] != "support_size"]
MAPS = [sx.softmax, sx.log_softmax, sx.softmin, sx.log_softmin, sx.sparsemax, sx.entmax15, sx.entmax.bind(alpha=1.3)]
BY_NAME = {"argvalues": MAPS, "ids": lambda each: each.name}


@pytest.fixture(autouse=True)
def gpu():
    """Programs run one after the other, so that waiting is in vain."""
    with taken_for_a_gpu() as patch:
        patch.setattr(widths, "PATIENCE", 0)
        patch.setattr(widths, "PATIENCE_A_PART", 0)
        yield patch


@pytest.fixture
def small_parts(gpu):
    """Rows of more than four entries are long, and cut into parts of sixteen that are looked at by fours.

    Two programs at most share a row.
    """
    gpu.setattr(widths, "LONGEST", 4)
    gpu.setattr(widths, "PART", 16)
    gpu.setattr(launch, "multiprocessors", lambda device: 2)
    gpu.setattr(long, "BLOCK", tl.constexpr(4))


@pytest.fixture
def answers(gpu):
    """How many calls kernels took, and how many they declined."""
    counts, computed = Counter(), launch.computed

    def counted(*call):
        found = computed(*call)
        counts["declined" if found is None else "computed"] += 1
        return found

    gpu.setattr(launch, "computed", counted)
    return counts


class KernelJudge(Judge):
    """As for the kernels of the CPU, but that a weight below the normal numbers is 0, also to what it multiplies."""

    def reach_of_products(self):
        tiny = 4 * tolerances.smallest_normal("float32") / np.minimum(self.temperature, 1.0)
        return super().reach_of_products() + tiny

    def assert_counted(self, got):
        weights = gpu_interpreter.result(replace(self.sample, task="value"))
        assert np.array_equal(got, np.count_nonzero(weights, axis=self.sample.axes)), f"{self.sample}: {got}"


def samples(map_, task, count, **how):
    place = KERNELS.index((map_, task))
    for seed in range(count):
        given = {"lengths": LENGTHS, "dtype": DTYPES[seed % 3], "rows": (1, 3, 40, 2)[seed % 4], **how}
        sample = drawn((place, seed, 7), map_, task, **given)
        yield sample if map_ is not sx.entmax or seed % 2 else with_alpha(sample, (1.3, 1.7, 1.02)[seed // 2 % 3])


def with_alpha(sample, alpha):
    """With one number for all rows, which kernels take."""
    known = {key: value for key, value in sample.arguments.items() if key != "alpha"}
    return replace(sample, arguments=known, bound_alpha=alpha)


def judged(sample):
    """Hold what the kernels make of a sample to the formulas; what was given must stay as it was."""
    judge, call = KernelJudge(sample), on_gpu(sample)
    before = call.x.clone()
    judge.assert_near(as_array(call.result()))
    same = torch.isclose(call.x, before, rtol=0.0, atol=0.0, equal_nan=True)
    assert same.all(), f"{sample}: x was written to"


def all_judged(many):
    for sample in many:
        judged(sample)


# -- kernels and formulas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_kernels_agree_with_formulas(map_, task, answers):
    for sample in samples(map_, task, MANY):
        judged(sample)
    if map_ is not sx.entmax:
        assert not answers["declined"]
    assert answers["computed"]


@pytest.mark.parametrize(("map_", "task"), IN_PARTS)
def test_rows_in_parts_agree_with_formulas(map_, task, answers, small_parts):
    for sample in samples(map_, task, SOME, **OF_PARTS):
        judged(sample)
    if map_ is not sx.entmax:
        assert not answers["declined"]


@pytest.mark.parametrize("map_", **BY_NAME)
def test_wide_rows_agree_with_formulas(map_):
    """Of all kinds, in a block of their own and in parts."""
    for n in (1000, 4097, 20_000):
        kinds = [np.random.default_rng(n).normal(size=n) * 2, np.full(n, 0.3), np.linspace(-80, 80, n)]
        kinds += [np.round(kinds[0]), np.where(np.arange(n) == n // 2, 30.0, kinds[0]), kinds[0] * 1e-6 + 3.0]
        x = torch.tensor(np.stack(kinds), dtype=torch.float32)
        with sx.kernels("none"):
            wanted = map_(x.double()).numpy()
        largest = np.abs(wanted) if map_.formula.kind == "logarithm" else wanted.max(axis=1, keepdims=True)
        bound = 2 if map_ in MAPS[:6] else 4
        found = map_(x).double().numpy()
        off = np.abs(found - wanted) / np.spacing(largest.astype(np.float32))
        assert off.max() <= bound + 1e-3, (n, off.max(axis=1))
        assert not np.any((wanted > 1e-37) & (found == 0) | (wanted == 0) & (found > 0)), n


@pytest.mark.parametrize("longest", [widths.LONGEST, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_too_small_for_its_type_counts_in_sums(dtype, longest, small_parts, gpu):
    """A confident row's tail is a normal number where none of its terms is; in parts with a top of their own, too."""
    gpu.setattr(widths, "LONGEST", longest)
    many, two = torch.full((90,), -90.0), torch.full((90,), -200.0)
    many[0], two[0], two[40], two[70] = 0.0, 0.0, -77.0, -90.0
    x, y = torch.stack([many, two]).to(dtype), torch.tensor([0, 0])
    with sx.kernels("none"):
        wanted = -sx.log_softmax(x.double())[:, 0]
    given = x.clone().requires_grad_()
    loss = sx.cross_entropy(given, y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, given)
    found = [-sx.log_softmax(x)[:, 0], sx.cross_entropy(x, y, reduction="none"), -sx.softmax.residual(x, y)[:, 0]]
    for each in (*found, -gradient[:, 0]):
        assert ((each.double() - wanted).abs() <= 2 * torch.finfo(dtype).eps * wanted).all(), each


@pytest.mark.parametrize("map_", **BY_NAME)
def test_a_sink_finer_than_the_scores(map_):
    """A float64 that is the top: what float32 lacks of it is in every gap."""
    sign = -1.0 if map_ in (sx.softmin, sx.log_softmin) else 1.0
    x, sink = sign * torch.tensor([[1000.0, 999.5, 998.0]]), sign * (1000.25 + 3e-5)
    with sx.kernels("none"):
        wanted = map_(x.double(), sink=sink)
    torch.testing.assert_close(map_(x, sink=sink).double(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("longest", [widths.LONGEST, 4])
@pytest.mark.parametrize("alpha", [1.3, 1.02, 1.0001])
def test_entries_beside_a_sink_that_takes_nearly_all(alpha, longest, small_parts, gpu):
    """Whose exponents are large, so that their errors are, relative to the largest entry."""
    gpu.setattr(widths, "LONGEST", longest)
    generator = torch.Generator().manual_seed(5)
    x, map_ = torch.randn(6, 24, generator=generator) * 2, sx.entmax.bind(alpha=alpha)
    sinks = torch.tensor([[0.0], [2.0], [3.0], [6.0], [8.0], [12.0]])
    with sx.kernels("none"):
        wanted = map_(x.double(), sink=sinks.double()).numpy()
    largest = wanted.max(axis=1, keepdims=True)
    assert (largest > 0).sum() >= 3 and largest.min() < 1e-3
    off = np.abs(map_(x, sink=sinks).double().numpy() - wanted) / np.spacing(largest.astype(np.float32))
    assert off.max() <= 4, off.max(axis=1)


@pytest.mark.parametrize("longest", [widths.LONGEST, 4])
@pytest.mark.parametrize("alpha", [1.3, 1.05, 1.01, 1.0001])
def test_ties_that_weigh_most_far_below_the_top(alpha, longest, small_parts, gpu):
    """What is lost of their exponent is lost of all weights."""
    gpu.setattr(widths, "LONGEST", longest)
    gpu.setattr(widths, "PART", 1024)
    map_, gaps = sx.entmax.bind(alpha=alpha), (2.0, 4.0, 6.0, 8.0)
    x = torch.tensor(gaps)[:, None].neg().repeat(1, 3000) + 0.013
    x[:, 5] = 0.0
    with sx.kernels("none"):
        wanted = map_(x.double()).numpy()
    off = np.abs(map_(x).double().numpy() - wanted) / np.spacing(wanted.max(axis=1, keepdims=True).astype(np.float32))
    assert off.max() <= 2, off.max(axis=1)


def test_parts_that_hold_the_least_weight_are_read(small_parts):
    """A part whose top is barely within reach of the row's: 1 - 2^-11 below it, which the others leave to it."""
    x = torch.full((1, 64), -9.0)
    x[0, 0], x[0, 40] = 0.0, -1.0 + 2.0**-11
    with sx.kernels("none"):
        wanted = sx.sparsemax(x.double())
    assert (wanted > 0).sum() == 2
    torch.testing.assert_close(sx.sparsemax(x).double(), wanted, rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("map_", **BY_NAME)
def test_the_smallest_temperatures(map_):
    """Of which the inverse is infinite: what the formulas call 0 is 0."""
    x = torch.tensor([[-torch.inf, -torch.inf, -torch.inf, 5.0], [0.0] * 4])
    g = torch.tensor([[1.0, 0.0, -1.0, 2.0], [1.0, 2.0, 3.0, -4.0]])
    for temperature in (1e-310, 5e-324):

        def derivatives(x, g, temperature=temperature):
            given = x.clone().requires_grad_()
            (back,) = torch.autograd.grad(map_(given, temperature=temperature), given, g)
            return back, map_.vjp(x, g, temperature=temperature), map_.jvp(x, g, temperature=temperature)

        found = derivatives(x, g)
        with sx.kernels("none"):
            wanted = derivatives(x.double(), g.double())
        for one, right in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, right.float(), equal_nan=True)


def test_what_kernels_decline_the_formulas_compute(answers):
    x, y = torch.randn(3, 7), torch.softmax(torch.randn(3, 7), -1)
    calls = [
        lambda: sx.softmax(x.double()),
        lambda: sx.entmax(x, alpha=3.0),
        lambda: sx.entmax(x, alpha=torch.tensor(1.3)),
        lambda: sx.sparsemax.loss(x, y),
        lambda: sx.sparsemax.smooth_max(x),
        lambda: sx.cross_entropy(x, torch.tensor([0, 1, 2]), label_smoothing=0.1),
        lambda: sx.normmax(x),
    ]
    for call in calls:
        call()
    assert not answers["computed"]
    with sx.kernels("none"):
        sx.sparsemax(x)
    assert not answers["computed"]
    sx.sparsemax(x)
    assert answers["computed"] == 1


def test_nothing_is_asked_of_empty_inputs():
    for shape in ((0, 5), (5, 0), (0,)):
        assert sx.sparsemax(torch.zeros(shape)).shape == shape
    assert sx.softmax(torch.tensor(3.0)) == 1.0


# -- bits -------------------------------------------------------------------------------------------------------------


def bits_by_row(sample):
    got = gpu_interpreter.result(sample)
    return got.reshape(-1) if sample.task in BY_ROW else sample.rows(got)


def assert_rows_alone(map_, task, count, **how):
    """A row's bits are those of the row alone, and of a second run."""
    for sample in samples(map_, task, count, **how):
        if map_ is sx.entmax:  # an alpha of each row is the formulas'
            sample = with_alpha(sample, 1.3)
        rows = sample.as_rows()
        together = bits_by_row(rows)
        assert together.tobytes() == bits_by_row(rows).tobytes(), f"{sample}: another run"
        for place in {0, len(together) - 1}:
            alone = replace(rows.row(place), arguments=dict(rows.row(place).arguments))
            if task in LOSSES:
                alone = replace(alone, operand=np.asarray(alone.operand))
            got = np.asarray(gpu_interpreter.result(alone))
            assert got.tobytes() == np.ascontiguousarray(together[place]).tobytes(), f"row {place} of {sample}"


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_a_row_has_its_bits_in_any_batch(map_, task):
    assert_rows_alone(map_, task, FEW)


@pytest.mark.parametrize(("map_", "task"), [each for each in IN_PARTS if each.values[1] == "value"])
def test_a_row_in_parts_has_its_bits_in_any_batch(map_, task, small_parts):
    assert_rows_alone(map_, task, FEW, **OF_PARTS)


# -- programs that share a row ----------------------------------------------------------------------------------------


@pytest.fixture
def shared(small_parts, gpu):
    """Results and what programs tell each other are shared among processes, a row among three programs at most."""
    gpu.setattr(launch, "multiprocessors", lambda device: 3)
    for name in ("room", "room_like"):
        make = getattr(launch, name)
        gpu.setattr(launch, name, lambda *given, make=make: make(*given).share_memory_())


@pytest.fixture
def reads(gpu):
    """How often each process has read a part: the first number is the parent's."""
    counts, true = torch.zeros(2, dtype=torch.int64).share_memory_(), {}
    parent = os.getpid()

    def counted(name):
        def read(*given):
            counts[int(os.getpid() != parent)] += 1
            return true[name](*given)

        return read

    for name in ("part_of", "weights_of"):
        true[name] = getattr(long, name)
        gpu.setattr(long, name, counted(name))
    return counts


def shared_calls(map_, rows, n):
    """Everything that rows in parts are asked for, with and without a sink."""
    rng = torch.Generator().manual_seed(n)
    x, g = torch.randn(rows, n, generator=rng) * 2, torch.randn(rows, n, generator=rng)
    y, sink = torch.arange(rows) * 7, torch.zeros(rows, 1)
    yield lambda: map_(x)
    yield lambda: map_.jvp(x, g, sink=sink)
    yield lambda: way_back(map_, x.clone().requires_grad_(), g)
    if map_.formula.kind == "simplex":
        yield lambda: torch.cat([each.reshape(-1) for each in loss_and_gradient(map_, x, y)])
        yield lambda: map_.residual(x, y)


def way_back(map_, x, g):
    return torch.autograd.grad(map_(x), x, g)[0]


def loss_and_gradient(map_, x, y):
    x = x.clone().requires_grad_()
    loss = map_.loss(x, y, reduction="none")
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


def run_by(gpu, runner):
    """Both kernels of rows in parts run otherwise."""
    for name in ("long_rows", "backward_long_rows"):
        gpu.setattr(long, name, runner(getattr(long, name)))


def assert_bits_of(calls, wanted):
    for call, one in zip(calls, wanted, strict=True):
        assert call().numpy().tobytes() == one.numpy().tobytes()


@pytest.mark.parametrize("map_", [sx.softmax, sx.log_softmin, sx.sparsemax], ids=str)
def test_programs_at_once_read_a_row_once_and_have_the_bits_of_one_after_the_other(map_, shared, reads, gpu):
    """Of the latter only the last finds what it waits for: the others work it out."""
    calls = list(shared_calls(map_, 2, 40))
    wanted = [call() for call in calls]
    run_by(gpu, AtOnce)
    for call, one in zip(calls, wanted, strict=True):
        reads.zero_()
        assert_bits_of([call], [one])
        assert reads[0] == 0
        assert reads[1] % 6 == 0
        assert 0 < reads[1] <= 12, "two kernels of six programs at most: nobody reads another's part"


@pytest.mark.parametrize("n", [40, 90], ids=["a part each", "two parts each"])
@pytest.mark.parametrize("map_", [sx.softmax, sx.sparsemax], ids=str)
def test_some_late_and_others_not(map_, n, shared, gpu):
    calls = list(shared_calls(map_, 1, n))[::3]
    wanted = [call() for call in calls]
    run_by(gpu, lambda true: AtOnce(true, patience=(1 << 20, 0, 3)))
    assert_bits_of(calls, wanted)


@pytest.mark.parametrize("n", [40, 90], ids=["a part each", "two parts each"])
@pytest.mark.parametrize("map_", [sx.log_softmax, sx.sparsemax], ids=str)
def test_the_last_program_first(map_, n, small_parts, gpu):
    """What the first ones would tell is missed then."""
    calls = list(shared_calls(map_, 1, n))[::2]
    wanted = [call() for call in calls]
    run_by(gpu, InAnyOrder)
    assert_bits_of(calls, wanted)


@pytest.mark.parametrize("map_", [sx.log_softmax, sx.entmax15], ids=str)
def test_bits_do_not_follow_from_how_many_programs_share_a_row(map_, small_parts, gpu):
    found, shares, true = [], [], launch.Lying.meeting

    def noted(lying, *given):
        meeting = true(lying, *given)
        shares.append((meeting["programs"], meeting["IS_HELD"]))
        return meeting

    gpu.setattr(launch.Lying, "meeting", noted)
    for many in (100, 3, 1):
        gpu.setattr(launch, "multiprocessors", lambda device, many=many: many)
        shares.clear()
        found.append([call().numpy().tobytes() for call in shared_calls(map_, 1, 56)])
        assert set(shares) == {100: {(4, True)}, 3: {(2, False)}, 1: {(1, False)}}[many]
    assert all(each == found[0] for each in found)


def test_the_rounds_that_there_may_be_have_room(small_parts, gpu):
    """A map that never comes near enough takes all of them, and nothing behind their places is written to."""
    rooms, make = [], launch.room

    def wide(shape, dtype, like):
        room = make((int(np.prod(shape)) + 99,), dtype, like)
        rooms.append(room)
        return room[:-99].view(shape)

    taken, told = [], long.told
    gpu.setattr(launch, "room", wide)
    gpu.setattr(launch, "multiprocessors", lambda device: 1)
    gpu.setattr(long, "NEARER", tl.constexpr(-1e9))
    gpu.setattr(long, "told", lambda *given: taken.append(given[5]) or told(*given))
    x = torch.randn(1, 20, generator=torch.Generator().manual_seed(5))
    sx.sparsemax.vjp(x, x)
    assert len(taken) == 1 + long.OTHER_TURNS
    assert len(rooms) == 2
    assert all(
        torch.isnan(room[-99:]).all() if room.is_floating_point() else (room[-99:] == 77).all() for room in rooms
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1.0001, 1.01, 1.05, 1.5, 2.0])
def test_few_rounds_solve_a_row(alpha, dtype, small_parts, gpu):
    """Also of many ties, whose mass jumps where v moves by one rounding (64 rounds, were steps back taken)."""
    taken, told = [], long.told
    gpu.setattr(launch, "multiprocessors", lambda device: 1)
    gpu.setattr(widths, "PART", 8192)
    gpu.setattr(long, "told", lambda *given: taken.append(given[5]) or told(*given))
    ties = [torch.full((1, 20_000), 0.013 - gap) for gap in (4.0, 5.0)]
    for row in ties:
        row[0, 5] = 0.0
    for row in (*ties, torch.randn(1, 20_000, generator=torch.Generator().manual_seed(1)) * 2, ties[0] * 0.0):
        taken.clear()
        sx.entmax(row.to(dtype), alpha=alpha)
        assert len(taken) <= 8


# -- layouts ----------------------------------------------------------------------------------------------------------


def layouts(x):
    """The same numbers, lying differently: transposed, with gaps, and further in memory."""
    yield x.T.contiguous().T
    wide = torch.full((x.shape[0], 2 * x.shape[1] + 1), torch.nan)
    wide[:, 1::2] = x
    yield wide[:, 1::2]
    yield torch.cat([torch.zeros(3), x.reshape(-1)])[3:].view_as(x)


@pytest.mark.parametrize("map_", **BY_NAME)
def test_any_strides(map_):
    x, g = torch.randn(6, 40) * 2, torch.randn(6, 40)
    wanted, moved = map_(x), map_.vjp(x, g)
    for each in layouts(x):
        torch.testing.assert_close(map_(each), wanted, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(map_.vjp(each, g), moved, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(map_(each.T, dim=0), wanted.T, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def far_apart():
    """More than 2^31 numbers, of which the system gives memory to those that are touched."""
    return torch.empty((1 << 31) + (1 << 12), dtype=torch.float16)


@pytest.mark.parametrize("longest", [widths.LONGEST, 4])
@pytest.mark.parametrize("strides", [(1 << 30, 1), (16, 1 << 28)], ids=["rows", "entries"])
def test_offsets_beyond_31_bits(strides, longest, far_apart, small_parts, gpu):
    """Of scores, masks and cotangents that are read, and of results."""
    gpu.setattr(widths, "LONGEST", longest)
    rows, n = (3, 9) if strides[1] == 1 else (2, 9)
    places = [far_apart.as_strided((rows, n), strides, offset) for offset in (0, 1024, 2048)]
    x, g, result = places
    x.copy_(torch.randn(rows, n))
    g.copy_(torch.randn(rows, n))
    assert (rows - 1) * strides[0] + (n - 1) * strides[1] >= 1 << 31
    for map_ in (sx.softmax, sx.sparsemax):
        wanted, moved = map_(x.contiguous()), map_.vjp(x.contiguous(), g.contiguous())
        gpu.setattr(launch, "room_like", lambda _: result.fill_(torch.nan))
        torch.testing.assert_close(map_(x), wanted)
        torch.testing.assert_close(map_.vjp(x, g), moved)
        gpu.setattr(launch, "room_like", torch.empty_like)
    assert sx.maxout.winner(x).tolist() == x.argmax(1).tolist()


def negative(*shape, dtype=torch.float32):
    """Positive numbers with torch's negative bit, as `x.conj().imag` has it: their memory holds others."""
    found = torch._neg_view(-torch.rand(shape, dtype=dtype) - 0.5)
    assert found.is_neg() and (found > 0).all()
    return found


def test_signs_that_memory_does_not_hold():
    """Wherever a tensor enters, the result is that of a copy that holds them."""
    x, g, y = torch.randn(3, 5), negative(3, 5), torch.tensor([0, 1, 2])
    warmth, weight = negative(3, 1, dtype=torch.float64), negative(5)

    def back(function, g):
        given = x.clone().requires_grad_()
        return torch.autograd.grad(function(given), given, g)

    def same(function, given):
        torch.testing.assert_close(function(given), function(given.resolve_neg()))

    for map_ in (sx.softmax, sx.log_softmax, sx.sparsemax):
        for axes in (1, (0, 1)):
            same(lambda g, map_=map_, axes=axes: back(lambda x: map_(x, axes), g), g)
        same(lambda g, map_=map_: [map_(g), map_.vjp(g, x), map_.vjp(x, g), map_.jvp(x, g)], g)
        same(lambda warmth, map_=map_: map_(x, temperature=warmth), warmth)
    same(lambda g: [sx.maxout(g), sx.maxout.vjp(x, g[:, 0]), sx.maxout.jvp(x, g)], g)
    same(lambda g: back(sx.maxout, g), negative(3))
    same(lambda g: back(lambda x: sx.cross_entropy(x, y, reduction="none"), g), g[:, 0])
    same(lambda g: back(lambda x: sx.cross_entropy(x, y), g), g[0, 0])
    same(lambda weight: sx.cross_entropy(x, y, weight=weight), weight)


def test_axes_that_no_stride_joins(gpu):
    """Any number of them, without a copy: only results are made."""
    x = torch.randn(2, 3, 2, 3, 2, 3, 2)[:, ::2, :, ::2, :, ::2]
    for axes in ((6,), (1, 3, 5), (0, 2, 4, 6), None):
        with sx.kernels("none"):
            wanted, winner = sx.sparsemax(x, axes), sx.maxout.winner(x, axis=axes)
        read = []
        gpu.setattr(launch, "Lying", Noted(launch.Lying, read))
        torch.testing.assert_close(sx.sparsemax(x, axes), wanted, rtol=1e-6, atol=1e-7)
        assert torch.equal(sx.maxout.winner(x, axis=axes), winner)
        assert read == [x.data_ptr()] * 2
        gpu.setattr(launch, "Lying", launch.Lying.lying)


class Noted:
    """How tensors lie, the scores' addresses being noted."""

    def __init__(self, lying, read):
        self.lying, self.read = lying, read

    def of(self, call, given):
        found = self.lying.of(call, given)
        self.read.append(found.tensors["x"].data_ptr())
        return found


# -- ways back --------------------------------------------------------------------------------------------------------

OPTIONS = [{}, {"temperature": 0.7}, {"sink": 0.3}, {"where": True}, {"dim": 0}, {"temperature": "column"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("map_", **BY_NAME)
def test_autograd_agrees_with_formulas(map_, options):
    """Backward, and backward of that; in parts too."""
    generator = torch.Generator().manual_seed(1)
    x, g = (torch.randn(6, 20, generator=generator) * 2 for _ in range(2))
    given = dict(options)
    if "where" in given:
        given["where"] = torch.rand(6, 20, generator=generator) < 0.7
    if given.get("temperature") == "column":
        given["temperature"] = torch.linspace(0.5, 2.0, 6)[:, None]

    def derivatives(x, g):
        x, g = x.detach().requires_grad_(), g.detach().requires_grad_()
        p = map_(x, **given)
        (once,) = torch.autograd.grad(p, x, g, retain_graph=True)
        (again,) = torch.autograd.grad(p, x, g, create_graph=True)
        return once, again.detach(), *torch.autograd.grad((again * again).sum(), (x, g), allow_unused=True)

    with sx.kernels("none"):
        wanted = derivatives(x.double(), g.double())
    for found, right in zip(derivatives(x, g), wanted, strict=True):
        if right is None or found is None:
            assert found is None or not found.any()
            assert right is None or not right.any()
        else:
            torch.testing.assert_close(found, right.float(), rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("map_", **BY_NAME)
def test_the_way_back_in_parts(map_, small_parts):
    for dtype in (torch.float32, torch.bfloat16):
        x = (torch.randn(3, 50) * 2).to(dtype)
        x[1, 4], x[2, 7] = -torch.inf, torch.nan
        g = torch.randn(3, 50).to(dtype)
        x.requires_grad_()
        (found,) = torch.autograd.grad(map_(x, temperature=0.7), x, g)
        with sx.kernels("none"):
            wanted = map_.vjp(x.detach().double(), g.double(), temperature=0.7)
        tolerance = 2e-6 if dtype is torch.float32 else 2e-2
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("map_", **BY_NAME)
def test_a_number_goes_back(map_):
    for options in ({}, {"temperature": 0.5}):
        x = torch.tensor(0.3, requires_grad=True)
        (once,) = torch.autograd.grad(map_(x, **options), x)
        (again,) = torch.autograd.grad(map_(x, **options), x, create_graph=True)
        assert once.shape == again.shape == () and once == again == 0.0


@pytest.mark.parametrize(("axes", "longest"), [(1, 64), (0, 64), (1, 4)])
def test_cotangents_that_lie_otherwise(axes, longest, small_parts, gpu):
    """Expanded, transposed or with gaps, beside rows as they come, in parts, and columns."""
    gpu.setattr(widths, "LONGEST", longest)
    shape = (2, 20) if axes == 1 else (3, 32)
    x, g = torch.randn(shape), torch.randn(shape)
    cotangents = [g[:1, :1].expand(shape), g[:, :1].expand(shape), g[:1].expand(shape), torch.cat([g, g], 1)[:, ::2]]

    def back(map_, g):
        given = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(map_(given, axes), given, g)
        return found, map_.vjp(x, g, axes), map_.jvp(x, g, axes)

    for map_ in (sx.softmax, sx.sparsemax) if longest > 4 else (sx.softmax,):
        for each in cotangents:
            torch.testing.assert_close(back(map_, each), back(map_, each.contiguous()), rtol=1e-6, atol=1e-6)


def test_scores_need_not_be_kept():
    """What the way back keeps of softmax is the weights alone."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        p = sx.softmax(torch.randn(3, 5, requires_grad=True))
    assert [each.data_ptr() for each in kept] == [p.data_ptr()]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_go_back(reduction):
    x = torch.randn(5, 9)
    y = torch.tensor([0, 3, -100, 8, 2])
    weight = torch.rand(9) + 0.5
    losses = [sx.cross_entropy, sx.sparsemax.loss, sx.entmax15.loss]

    def gradient(loss, x):
        x = x.detach().requires_grad_()
        found = loss(x, y, ignore_index=-100, weight=weight.to(x.dtype), reduction=reduction, temperature=0.5)
        return found.detach(), *torch.autograd.grad(found.sum(), x)

    for loss in losses:
        with sx.kernels("none"):
            wanted = gradient(loss, x.double())
        for found, right in zip(gradient(loss, x), wanted, strict=True):
            torch.testing.assert_close(found, right.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("longest", [widths.LONGEST, 4])
@pytest.mark.parametrize("loss", [sx.cross_entropy, sx.sparsemax.loss, sx.entmax15.loss], ids=["softmax", "2", "1.5"])
def test_the_gradient_comes_with_the_loss(loss, longest, small_parts, gpu):
    """One look at the scores; whoever goes back twice, or follows the way back, gets the same."""
    gpu.setattr(widths, "LONGEST", longest)
    taken, found = Counter(), launch.losses_and_gradient
    gpu.setattr(launch, "losses_and_gradient", lambda *call: taken.update(["call"]) or found(*call))
    x = torch.randn(5, 9, requires_grad=True)
    y = torch.tensor([0, 3, -100, 8, 2])
    with sx.kernels("none"):
        z = x.detach().double().requires_grad_()
        (right,) = torch.autograd.grad(loss(z, y, ignore_index=-100) * 3, z, create_graph=True)
        (curved,) = torch.autograd.grad((right * right).sum(), z, allow_unused=True)
    value = loss(x, y, ignore_index=-100)
    for times in (3.0, 1.0, 3.0):
        (got,) = torch.autograd.grad(value, x, torch.tensor(times), retain_graph=True)
        torch.testing.assert_close(got, right.detach().float() * times / 3, rtol=1e-6, atol=1e-7)
    (got,) = torch.autograd.grad(value * 3, x, create_graph=True)
    (got,) = torch.autograd.grad((got * got).sum(), x)
    torch.testing.assert_close(got, curved.float(), rtol=1e-5, atol=1e-6)
    assert taken["call"] == 1
    empty = loss(x, torch.full((5,), -100), ignore_index=-100)
    assert empty == 0 and not torch.autograd.grad(empty, x)[0].any()
    wrong = loss(x, torch.tensor([0, 3, 9, 8, 2]), ignore_index=-100)
    assert (
        wrong.isnan()
        and torch.autograd.grad(wrong, x)[0].isnan().any(dim=1).tolist() == [False] * 2 + [True] + [False] * 2
    )


@pytest.mark.parametrize("longest", [widths.LONGEST, 4])
@pytest.mark.parametrize("ignored", [None, 1, -100])
@pytest.mark.parametrize("weight", [None, torch.linspace(0.5, 1.5, 5)])
def test_a_class_that_is_none_counts_alike_in_all_roads(weight, ignored, longest, small_parts, gpu):
    """Its row and the mean are NaN, and the other rows get the gradient that they get anyway."""
    gpu.setattr(widths, "LONGEST", longest)
    x, y = torch.randn(3, 5), torch.tensor([0, 7, 2])

    def gradient(x):
        x = x.requires_grad_()
        loss = sx.softmax.loss(x, y, ignore_index=ignored, weight=None if weight is None else weight.to(x.dtype))
        return torch.autograd.grad(loss, x)[0]

    with sx.kernels("none"):
        wanted = gradient(x.double())
    found = gradient(x.clone())
    torch.testing.assert_close(found[[0, 2]].double(), wanted[[0, 2]], rtol=1e-5, atol=1e-6)
    assert found[1].isnan().all()


def test_all_of_a_gradient_is_multiplied(gpu):
    """Whole pieces, and what is left of one."""
    gpu.setattr(widths, "PART", 16)
    for size in (7, 16, 40):
        x = torch.ones(size)
        launch.multiply(x, torch.tensor(3.0))
        assert x.tolist() == [3.0] * size


@pytest.mark.parametrize("weight", [None, 1e-5, 1e5])
@pytest.mark.parametrize("temperature", [1.0, 1e4])
def test_scaled_losses_in_float16_go_back(temperature, weight):
    """What a residual loses by a reduction or a temperature, no later scaling brings back."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(300, 40, generator=generator).half(), torch.randint(40, (300,), generator=generator)
    given = {"temperature": temperature, "ignore_index": 7}
    if weight is not None:
        given["weight"] = weight * (torch.rand(40, generator=generator) + 0.5)

    def gradient(x, scale):
        x = x.requires_grad_()
        (sx.cross_entropy(x, y, **given).double() * scale).backward()
        return x.grad.double()

    scale = 2.0**14
    with sx.kernels("none"):
        wanted = gradient(x.double(), scale)
    off = (gradient(x.clone(), scale) - wanted).abs().amax(1)
    assert (off <= 0.51 * 2.0**-10 * wanted.abs().amax(1)).all()
    assert not wanted[y == 7].any() and wanted[y != 7].all()


def test_transforms_take_the_formulas(answers):
    x, t = torch.randn(4, 6), torch.randn(4, 6)
    for map_ in MAPS:
        torch.func.vmap(map_)(x)
        torch.func.jvp(map_, (x,), (t,))
        torch.func.hessian(lambda x, map_=map_: map_(x)[0])(x[0])
    assert not answers


def test_maxout_goes_back():
    x = torch.tensor([[1.0, 5.0, 5.0], [2.0, 0.0, 1.0]], requires_grad=True)
    (found,) = torch.autograd.grad(sx.maxout(x), x, torch.tensor([3.0, 4.0]))
    assert found.tolist() == [[0.0, 3.0, 0.0], [4.0, 0.0, 0.0]]


# -- compiled graphs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_", **BY_NAME)
def test_the_operator_of_graphs_is_solved_by_kernels(map_, gpu):
    """Weights of entries and sinks, bad rows and empty ones as the formulas leave them."""
    gpu.setattr(solving, "is_on_gpu", lambda _: True)
    solved, taken = launch.solved, Counter()
    gpu.setattr(launch, "solved", lambda *call: taken.update(["call"]) or solved(*call))
    formula = getattr(map_.formula, "formula", map_.formula)
    names = [parameter.name for parameter in formula.parameters]
    x = torch.randn(5, 11, dtype=torch.float64).float().double()
    x[1, 3], x[2, 4], x[3] = torch.nan, -torch.inf, -torch.inf
    for sink in (None, torch.zeros(5, 1, dtype=torch.float64)):
        for warmth in (None, torch.full((5, 1), 0.7, dtype=torch.float64)):
            given = (solving.key_of(formula), True, x, sink, warmth, 1.0, [None for _ in names], [1.3 for _ in names])
            found = solving.solved_here(*given)
            with sx.kernels("none"):
                wanted = solving.solved_here(*given)
            torch.testing.assert_close(found[0], wanted[0], rtol=3e-7, atol=1e-7)
            assert found[0].stride() == wanted[0].stride()
            if sink is not None:
                torch.testing.assert_close(found[1], wanted[1], rtol=3e-7, atol=1e-7)
    assert taken["call"] == 4


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_graphs_that_are_compiled_take_the_kernels(gpu):
    """Forward and back, in one graph."""
    gpu.setattr(solving, "is_on_gpu", lambda _: True)
    solved, taken = launch.solved, Counter()
    gpu.setattr(launch, "solved", lambda *call: taken.update(["call"]) or solved(*call))
    x, g = torch.randn(5, 11), torch.randn(5, 11)
    for map_ in (sx.softmax, sx.sparsemax):
        given = x.clone().requires_grad_()
        found = torch.compile(lambda x, map_=map_: map_(x, temperature=0.7), fullgraph=True, backend="aot_eager")(given)
        with sx.kernels("none"):
            wanted, moved = map_(x.double(), temperature=0.7), map_.vjp(x.double(), g.double(), temperature=0.7)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(torch.autograd.grad(found, given, g)[0].double(), moved, rtol=1e-5, atol=1e-6)
    assert taken["call"] >= 1


# -- maxout -----------------------------------------------------------------------------------------------------------


def maxout_results(x, g, t, arguments):
    return (
        sx.maxout(x, **arguments),
        sx.maxout.winner(x, **arguments),
        sx.maxout.vjp(x, g, **arguments),
        sx.maxout.jvp(x, t, **arguments),
    )


@pytest.mark.parametrize("longest", [2, 16_384])
def test_maxout_of_nothing_but_minus_infinity(longest, gpu):
    """The first wins, as ever."""
    gpu.setattr(widths, "LONGEST", longest)
    x, g = torch.tensor([[-torch.inf] * 5, [-torch.inf, 1.0, 2.0, 2.0, -torch.inf]]), torch.tensor([3.0, 4.0])
    assert sx.maxout(x).tolist() == [-torch.inf, 2.0] and sx.maxout.winner(x).tolist() == [0, 2]
    assert sx.maxout.vjp(x, g).tolist() == [[3.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0, 0.0]]
    assert sx.maxout.jvp(x, torch.arange(10.0).view(2, 5)).tolist() == [0.0, 7.0]


@pytest.mark.parametrize(("longest", "count"), [(64, 4), (16_384, 15)])
def test_maxout_has_the_bits_of_the_formulas(longest, count, gpu, answers):
    gpu.setattr(widths, "LONGEST", longest)
    for seed in range(count):
        *arrays, arguments, note = drawn_maxout(seed)
        wanted = maxout_results(*arrays, arguments)
        for found, right in zip(maxout_results(*map(as_tensor, arrays), arguments), wanted, strict=True):
            assert found.shape == right.shape, note
            found, right = as_array(found).astype(np.float64), np.asarray(right).astype(np.float64)
            assert np.array_equal(found, right, equal_nan=True), note
            assert np.array_equal(np.signbit(found), np.signbit(right)), note
    assert not answers["declined"]


# -- wrong kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_the_comparison_sees_a_wrong_kernel(mutant, gpu, request):
    """The same calls pass with the true kernels above."""
    place = short if mutant.kernel == "short_rows" else long
    if place is long:
        request.getfixturevalue("small_parts")
    wrong = WrongKernel if mutant.kernel.endswith("_rows") else WrongStep
    gpu.setattr(place, mutant.kernel, wrong(getattr(place, mutant.kernel), mutant.run))
    how = OF_PARTS if place is long else {}
    with pytest.raises(AssertionError):
        all_judged(samples(mutant.map, mutant.task, 6 * MANY, **how))
