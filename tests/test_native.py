"""The kernels of the CPU: held to the formulas, to the bits of a row alone, and to being called wrongly.

Under the sanitizers of `make sanitize` fewer calls are drawn. What needs a process of its own is in
test_native_processes.py.
"""

import ctypes
import gc
import itertools
import math
import mmap
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import native_samples
import softplex as sx
from frameworks import numpy_dtype, threads
from lawbook import same_bits
from native_bounds import judged
from native_mutants import MUTANTS, WrongKernel
from native_samples import CALLS, LAYOUTS, PLACES, drawn, drawn_maxout
from softplex.backends.numpy import NumpyBackend
from softplex.native import calls, cpu, reason

pytestmark = pytest.mark.skipif(cpu is None, reason=reason)

IS_SANITIZED = "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ
MANY, SOME, FEW = (4, 2, 1) if IS_SANITIZED else (100, 30, 12)
THIN = 2 if IS_SANITIZED else 1
"""Of lists of lengths every second one."""
EACH = [pytest.param(*call, id=f"{call[0].__name__} {call[1]}") for call in CALLS]
MAXOUT_TASKS = ("value", "winner", "vjp", "jvp")
HUGE = (1 << 18, (1 << 18) + 1, 300_001)  # rows that threads share


def samples(map_, task, count, **how):
    place = CALLS.index((map_, task))
    return [drawn((place, seed), map_, task, **how) for seed in range(count)]


@contextmanager
def instructions(name):
    """Another instruction set, if this machine has it."""
    before = cpu.instruction_set()
    if not cpu.choose_instruction_set(name):
        pytest.skip(f"this machine has no {name}")
    try:
        yield
    finally:
        cpu.choose_instruction_set(before)


def assert_bits(got, wanted, note):
    """The same bits, or where they first differ."""
    if not same_bits(got, wanted):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), note
        one, other = (np.frombuffer(part.tobytes(), f"V{part.itemsize}") for part in (got, wanted))
        place = int(np.argmax(one != other))
        raise AssertionError(f"{note}: {got.flat[place]!r}, not {wanted.flat[place]!r} at {place} in C order")


# -- kernels and formulas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_kernels_agree_with_formulas(map_, task):
    for sample in samples(map_, task, MANY):
        judged(sample)


@pytest.mark.skipif(IS_SANITIZED, reason="half a minute without sanitizers")
@pytest.mark.parametrize(("map_", "task"), EACH)
def test_a_huge_row_agrees_with_formulas(map_, task):
    with threads(3):
        for sample in samples(map_, task, 1, lengths=HUGE, rows=1):
            judged(sample)


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_the_instruction_set_without_fma_agrees_with_formulas(map_, task):
    with instructions("x86-64-v2"):
        for sample in samples(map_, task, FEW):
            judged(sample)


def test_samples_are_of_every_kind():
    every = [sample for call in CALLS for sample in samples(*call, 60)]
    assert {sample.dtype for sample in every} == {"float64", "float32", "float16", "bfloat16"}
    assert {sample.out for sample in every} == {None, *PLACES}
    assert {sample.note.partition(",")[0] for sample in every} == {"broadcast", *LAYOUTS}
    assert {type(sample.axis) for sample in every} == {int, tuple, type(None)}
    lengths = {sample.length for sample in every}
    assert {*range(1, 6), 16, 17, 64, 65, 100, 1000, 16_383, 16_384, 16_385, 40_000} <= lengths
    assert {sample.bound_alpha for sample in every} >= {1.0, 1 + 1e-9, 1.3, 1.5, 2.0, 3.0, 50.0, np.inf}
    for name in native_samples.PARAMETERS:
        forms = {np.size(sample.arguments[name]) > 1 for sample in every if name in sample.arguments}
        assert forms == {False, True}, name


# -- bits -------------------------------------------------------------------------------------------------------------


def bits_by_row(sample):
    """A result in native byte order, row by row."""
    got = sample.result(**({"reduction": "none"} if sample.task in native_samples.LOSSES else {}))
    got = got.reshape(-1) if sample.task in native_samples.BY_ROW else sample.rows(got)
    return np.array(got, got.dtype.newbyteorder("="))


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_a_row_has_its_bits_wherever_it_lies(map_, task):
    """In any layout, along any axis, in any batch, alone."""
    for sample in samples(map_, task, SOME):
        rows = sample.as_rows()
        together = bits_by_row(rows)
        assert_bits(bits_by_row(sample), together, sample)
        for place in {0, len(together) // 2, len(together) - 1}:
            alone = np.asarray(rows.row(place).result())
            assert_bits(alone, together[place], f"row {place} alone of {sample}")


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_the_bits_are_those_of_any_number_of_threads(map_, task):
    large = [
        *samples(map_, task, 1, lengths=HUGE[1:], rows=1, dtype="float32"),
        *samples(map_, task, 2, lengths=(16_385, 40_000), rows=3),
        *samples(map_, task, 2, lengths=(17, 64), rows=3000),
    ]
    for sample in large[-1:] if IS_SANITIZED else large:
        rows, found = sample.as_rows(), []
        for n in (1, 2, 3):
            with threads(n):
                found.append(bits_by_row(rows))
        assert_bits(found[1], found[0], f"2 threads, {sample}")
        assert_bits(found[2], found[0], f"3 threads, {sample}")


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_the_bits_are_those_of_both_instruction_sets_with_fma(map_, task):
    for sample in samples(map_, task, SOME):
        rows = sample.as_rows()
        with instructions("x86-64-v4"):
            wanted = bits_by_row(rows)
        with instructions("x86-64-v3"):
            assert_bits(bits_by_row(rows), wanted, sample)


def size_of_the_cache():
    """As the kernels ask for it; 0 where that is not known."""
    command = shutil.which("getconf")
    asked = command and subprocess.run([command, "LEVEL3_CACHE_SIZE"], capture_output=True, text=True, check=False)
    return int(asked.stdout) if asked and asked.stdout.strip().isdecimal() else 0


@pytest.mark.skipif(IS_SANITIZED, reason="a gigabyte, and a process of its own")
@pytest.mark.parametrize("map_", [sx.softmax, sx.log_softmax, sx.sparsemax], ids=lambda each: each.name)
def test_results_beyond_the_cache_have_the_same_bits(map_):
    few = np.random.default_rng(1).normal(size=(50, 1021)).astype(np.float32) * 3
    cache = size_of_the_cache()
    if cache > 1 << 29:
        pytest.skip(f"a cache of {cache} bytes is too large to go beyond it")
    times = max(cache, 1 << 25) // (2 * few.nbytes) + 2
    found = map_(np.broadcast_to(few, (times, *few.shape)).reshape(-1, 1021)).reshape(times, *few.shape)
    assert np.all(found == map_(few))


# -- maxout -----------------------------------------------------------------------------------------------------------


def maxout_results(x, g, t, arguments):
    found = (sx.maxout(x, **arguments), sx.maxout.winner(x, **arguments))
    found += (sx.maxout.vjp(x, g, **arguments), sx.maxout.jvp(x, t, **arguments))
    return dict(zip(MAXOUT_TASKS, found, strict=True))


def assert_maxout_agrees(call):
    """Nothing is rounded: the kernels give the bits of the formulas."""
    *given, note = call
    with sx.kernels("none"):
        wanted = maxout_results(*given)
    for task, found in maxout_results(*given).items():
        assert_bits(found, wanted[task], f"{task} of {note}")


def test_maxout_agrees_with_formulas():
    for seed in range(5 * MANY):
        assert_maxout_agrees(drawn_maxout(seed))


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
def test_maxout_agrees_on_any_instruction_set(name):
    with instructions(name):
        for seed in range(MANY):
            assert_maxout_agrees(drawn_maxout(seed))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 70_000), (70_000, 3), (5, 300, 64)])
def test_large_maxout_agrees_on_any_number_of_threads(shape, dtype):
    rng = np.random.default_rng(4)
    for axis in range(len(shape)):
        x, t = (np.round(rng.normal(size=shape)).astype(numpy_dtype(dtype)) for _ in range(2))
        x[rng.random(shape) > 0.9999] = np.nan
        g = rng.normal(size=np.delete(shape, axis)).astype(x.dtype)
        for n in (1, 3):
            with threads(n):
                assert_maxout_agrees((x, g, t, {"axis": axis}, f"axis {axis}, {n} threads"))


@pytest.mark.parametrize("layout", PLACES[:5])
def test_maxout_takes_out(layout):
    x = np.random.default_rng(5).normal(size=(40, 3, 18))
    for arguments in ({}, {"axis": 1}, {"pieces": 6}, {"pieces": 5, "axis": 0, "layout": "strided"}):
        wanted = sx.maxout(x, **arguments)
        place = native_samples.laid(np.ones_like(wanted), layout)
        assert sx.maxout(x, out=place, **arguments) is place
        assert_bits(place, wanted, arguments)


# -- wrong kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(IS_SANITIZED, reason="says nothing of the true kernels")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_the_comparison_sees_a_wrong_kernel(mutant, monkeypatch):
    """The same calls pass with the true kernels above."""
    monkeypatch.setattr(calls, "cpu", WrongKernel(cpu, mutant.run))
    given = (mutant.map, mutant.task)
    compare = partial(test_kernels_agree_with_formulas, *given) if given in CALLS else test_maxout_agrees_with_formulas
    with pytest.raises(AssertionError):
        compare()


@pytest.fixture
def no_formulas(monkeypatch):
    """Calls that kernels decline fail: they would agree with the formulas all too well."""

    def refuse(*_):
        raise NotImplementedError("a formula where there is a kernel")

    monkeypatch.setattr(NumpyBackend, "_by_formula", refuse)


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_kernels_compute_every_sample(map_, task, no_formulas):
    for sample in samples(map_, task, SOME):
        sample.result()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_kernel_computes_maxout(dtype, no_formulas):
    x = np.ones((3, 4, 6), numpy_dtype(dtype))
    for arguments in (
        {},
        {"axis": None},
        {"axis": (0, 2)},
        {"pieces": 2},
        {"pieces": 2, "axis": 1, "layout": "strided"},
    ):
        maxout_results(x, np.ones_like(sx.maxout(x, **arguments)), x, arguments)


# -- threads of Python, memory ----------------------------------------------------------------------------------------


def large_results(seed):
    """Calls that give up the interpreter's lock and use threads, in few bytes."""
    rng = np.random.default_rng(seed)
    x, g = (rng.normal(size=(700, 120)).astype(np.float32) for _ in range(2))
    many, few = [sx.softmax(x), sx.sparsemax(x.T, 0), sx.entmax(x, alpha=1.3), sx.entmax15.vjp(x, g)], []
    few += [sx.softmax.loss(x, np.abs(g)), sx.maxout(x), sx.log_softmax(x.reshape(-1))]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in many + few)


def test_many_threads_of_python_call_at_once():
    """Each gets its own bits, also while the number of threads changes."""
    wanted, found = [large_results(seed) for seed in range(4)], {}

    def call(place):
        for turn in range(FEW):
            sx.set_num_threads(1 + (place + turn) % 3)
            found[place, turn] = large_results(place % 4) == wanted[place % 4]

    with threads(2):
        callers = [threading.Thread(target=call, args=(place,)) for place in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(found) == 8 * FEW and all(found.values())


def test_formulas_are_chosen_for_one_thread():
    seen = []
    with sx.kernels("none"):
        other = threading.Thread(target=lambda: seen.append(cpu.formulas_only()))
        other.start()
        other.join()
        assert cpu.formulas_only()
    assert seen == [False] and not cpu.formulas_only()


def test_no_reference_is_kept():
    x, out = np.ones((2, 500), np.float32), np.empty((2, 500), np.float32)
    bad, where, sink = np.empty((2, 499), np.float32), np.ones((2, 500), bool), np.zeros((2, 1))
    watched = (x, out, bad, where, sink, x.dtype, None)
    cut = cpu.short_cut(0, False, False, 1.5)

    def use():
        for _ in range(200):
            sx.softmax(x, out=out)
            sx.softmax(x[:1])
            sx.entmax(x, alpha=1.3, where=where, sink=sink, out=out)
            assert cut("value", x, None, -1, bad, {}) is None
            with pytest.raises(ValueError, match="result"):
                run(type=1, x=x, mask=where, result=bad)
        gc.collect()
        return [sys.getrefcount(each) for each in watched]

    use()
    before = use()
    after = use()
    assert [max(0, now - then) < 100 for now, then in zip(after, before, strict=True)] == [True] * len(watched)


# -- wrong calls of the extension -------------------------------------------------------------------------------------


def run(**changed):
    """cpu.run with arguments that fit, but for those that are given: the softmax of a (2, 3) array in float64."""
    given = {"map": 0, "method": 0, "type": 0, "negated": False, "row_axes": 1, "threads": 1, "empty": 0.0}
    given |= {"x": np.zeros((2, 3)), "operand": None, "index": None, "mask": None, "result": np.zeros((2, 3))}
    given |= {"temperature": 1.0, "sink": None, "alpha": 1.5}
    result = {**given, **changed}["result"]
    cpu.run(**{**given, **changed})
    return result


def read_only(array):
    array.flags.writeable = False
    return array


FOREIGN = np.zeros((2, 3), np.dtype(float).newbyteorder())
VJP, RESIDUAL_OF_INDEX, LOSS_OF_INDEX, LOSS, WINNER, MAXOUT, LOG_SOFTMAX = 1, 3, 5, 6, 8, 5, 1
WRONG = [
    *({"map": number} for number in (-1, 6, 99, 1 << 40, "softmax", None, 0.5)),
    *({"method": number} for number in (-1, 8, 9, 10, 1 << 40, None)),
    *({"type": number} for number in (-1, 1, 2, 3, 4, None)),
    *({"row_axes": number} for number in (-1, 0, 3, 1 << 40)),
    *(
        {"x": other}
        for other in (None, [[0.0] * 3] * 2, np.float64(1), np.zeros((2, 4)), np.zeros((2, 3), "f4"), FOREIGN)
    ),
    *({"x": np.zeros((2, 3), kind)} for kind in ("i8", "c16", "O", "S8", "M8[s]", "V8")),
    *({"result": other} for other in (None, np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3), int), FOREIGN)),
    {"result": read_only(np.zeros((2, 3)))},
    {"x": np.zeros(()), "result": np.zeros(())},
    {"operand": np.zeros((2, 3))},
    {"index": np.zeros(2, int)},
    *(
        {"method": VJP, "operand": other}
        for other in (None, np.zeros((2, 4)), np.zeros(3), np.zeros((2, 3), "f4"), 1.0)
    ),
    *(
        {"mask": other}
        for other in (np.ones((2, 3)), np.ones((2, 3), "u1"), np.ones((2, 4), bool), np.ones(3, bool), True)
    ),
    *(
        {"method": RESIDUAL_OF_INDEX, "index": np.array(index)}
        for index in ([0, 3], [-1, 0], [0, 1 << 62], [0], [[0], [1]])
    ),
    {"method": RESIDUAL_OF_INDEX, "index": np.zeros(2, "i4")},
    {"method": RESIDUAL_OF_INDEX, "index": np.zeros(2, "u8")},
    {"method": RESIDUAL_OF_INDEX, "index": np.zeros(2, "m8[s]")},
    {"method": RESIDUAL_OF_INDEX},
    {"method": LOSS_OF_INDEX, "index": np.zeros(2, int)},
    {"method": LOSS, "operand": np.zeros((2, 3)), "result": np.zeros(2, "f4")},
    {"map": LOG_SOFTMAX, "method": LOSS_OF_INDEX, "index": np.zeros(2, int), "result": np.zeros(2)},
    {"method": WINNER, "result": np.zeros(2, int)},
    {"map": MAXOUT},
    {"map": MAXOUT, "method": WINNER, "result": np.zeros(2)},
    {"map": MAXOUT, "method": LOSS, "operand": np.zeros((2, 3)), "result": np.zeros(2)},
    *({name: other} for name in ("temperature", "alpha") for other in (None, 1, "1", np.float32(1), np.ones(3))),
    *({name: np.ones(2, "f4")} for name in ("temperature", "sink", "alpha")),
    *({"sink": other} for other in (1, "0", np.zeros((2, 1)), np.zeros(2, int))),
    {"threads": 1 << 40},
    {"empty": "zero"},
    {"unknown": 1},
]


@pytest.mark.parametrize("changed", WRONG, ids=repr)
def test_wrong_arguments_are_refused(changed):
    with pytest.raises((TypeError, ValueError)):
        run(**changed)


def test_odd_arguments_that_fit():
    x = np.random.default_rng(3).normal(size=(2, 3))
    wanted = sx.softmax(x)
    for changed in ({"threads": -5}, {"threads": 2**31 - 1}, {"alpha": np.nan}, {"mask": np.ones((2, 3), bool)}):
        assert_bits(run(x=x, **changed), wanted, changed)
    for strided in (x.view(np.ndarray)[::-1, ::-1], np.broadcast_to(x[:1], (2, 3))):
        assert_bits(run(x=strided), sx.softmax(strided), "strides")
    deep = np.zeros((1,) * 63 + (3,))
    assert np.all(run(x=deep, result=np.empty_like(deep)) == 1 / 3)
    assert run(x=np.zeros((2, 0)), result=np.zeros((2, 0))).size == 0
    assert run(x=np.zeros((0, 3)), result=np.zeros((0, 3))).size == 0


def test_odd_arguments_of_the_short_cut_are_declined():
    """They are judged by what is not in such haste."""
    x = np.random.default_rng(3).normal(size=(2, 3))
    cut = cpu.short_cut(0, False, False, 1.5)

    def declines(method="value", given=x, operand=None, axis=-1, out=None, **options):
        return cut(method, given, operand, axis, out, options) is None

    assert_bits(cut("value", x, None, -1, None, {}), sx.softmax(x, sink=np.full((2, 1), -np.inf)), "taken")
    assert all(declines(method) for method in ("loss", "", None, 0))
    scores = (None, 1.0, [[1.0]], np.zeros((2, 0)), np.zeros(()), x.astype(int), FOREIGN, np.zeros(3, "O"))
    assert all(declines(given=given) for given in scores)
    assert all(declines(axis=axis) for axis in (2, -3, 1 << 80, None, 1.0, (1,), "0"))
    others = (1, FOREIGN, np.zeros((3, 2)), np.zeros((2, 3), "f4"), np.zeros(3), np.zeros((2, 3), "V8"))
    assert all(declines(out=out) for out in (*others, read_only(np.zeros((2, 3))), x[::-1], x[:, ::-1]))
    assert all(declines("vjp", operand=operand) for operand in (None, *others))
    assert declines(operand=x)
    assert all(declines(temperature=each) for each in (0, -1.0, np.inf, np.nan, "1", None, np.ones(2), 1 << 80))
    assert all(declines(where=where) for where in (True, x, np.ones(3, bool), np.ones((2, 4), bool)))
    assert all(declines(sink=sink) for sink in ("0", np.zeros(2), 1j))
    assert all(declines(empty=empty) for empty in (None, 0.0, "one"))
    assert all(declines(**{name: 1.5}) for name in ("alpha", "dtype", "unknown"))
    assert all(
        cpu.short_cut(4, False, True, 1.5)("value", x, None, -1, None, {"alpha": a}) is None for a in (0.5, np.nan)
    )


def test_wrong_arguments_of_the_short_cut_are_refused():
    cut = cpu.short_cut(0, False, False, 1.5)
    for arguments in ((), ("value", np.zeros(3), None, -1, None), ("value", np.zeros(3), None, -1, None, {}, 1)):
        with pytest.raises(TypeError, match="takes"):
            cut(*arguments)
    assert cut("value", np.zeros(3), None, -1, None, None) is None
    for arguments in ((MAXOUT, False, False, 1.5), (-1, False, False, 1.5), ("0", False, False, 1.5), (0, False)):
        with pytest.raises((TypeError, ValueError)):
            cpu.short_cut(*arguments)


def test_wrong_settings_of_the_extension():
    with pytest.raises(TypeError, match="dtype"):
        cpu.set_bfloat16("bfloat16")
    for dtype in ("int16", "float64", "V2"):
        with pytest.raises(ValueError, match="bfloat16"):
            cpu.set_bfloat16(np.dtype(dtype))
    before = cpu.instruction_set()
    assert not cpu.choose_instruction_set("x86-64-v9") and cpu.instruction_set() == before
    with pytest.raises(TypeError):
        cpu.set_threads("two")


def test_a_call_may_be_declined():
    """What has no kernel is computed by formulas, unasked."""
    x = np.random.default_rng(6).normal(size=(3, 4))
    sample = native_samples.Sample(sx.softmax, "loss", "float64", x, operand=np.full((3, 4), 0.25))
    for more in ({"label_smoothing": 0.1}, {"weight": np.arange(4.0) + 1}):
        judged(replace(sample, arguments={"reduction": "none", **more}))


# -- residuals times a number ------------------------------------------------------------------------------------------

TYPES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
RESIDUAL, SCALES = 4, (1.0, -1.0, 0.0, 0.37, 1e-9, 1e9, 2.0**-23, -3e-5)


def residuals(x, y, scale, **changed):
    """The kernel's, against indices or distributions."""
    method, target = (RESIDUAL_OF_INDEX, "index") if y.dtype.kind == "i" else (RESIDUAL, "operand")
    given = {"type": TYPES[x.dtype.name], "method": method, "x": x, target: y, "result": np.empty_like(x)}
    return run(**{**given, "scale": scale, **changed})


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("number", [0, 2, 3, 4])
@pytest.mark.parametrize("n", [5, 127, 129, 1000, 20_000])
def test_residuals_are_multiplied(n, number, dtype):
    rng = np.random.default_rng(n)
    x = (4 * rng.normal(size=(len(SCALES), n))).astype(dtype)
    index, scale = rng.integers(0, n, len(x)), np.array(SCALES)
    for y in (index, sx.softmax(x[::-1].copy())):
        plain = residuals(x, y, 1.0, map=number).astype(np.longdouble)
        wanted = plain * scale[:, None]
        got = residuals(x, y, scale, map=number)
        info = np.finfo(dtype)
        with np.errstate(all="ignore"):
            fits = np.abs(wanted) < info.max / 2
            # In 16 bits the plain residual was rounded, too.
            spaced = np.spacing(np.abs(plain).astype(dtype)).astype(np.longdouble) * np.abs(scale[:, None])
            reach = 4 * (np.spacing(np.abs(wanted).astype(dtype)) + info.smallest_subnormal) + spaced
        assert np.all(np.abs(got - wanted)[fits] <= reach[fits]), (number, dtype, n)
        for row, each in enumerate(SCALES):
            alone = residuals(x[row : row + 1], y[row : row + 1], each, map=number)
            assert_bits(alone, got[row : row + 1], (each, row))


def test_a_scale_of_zero_gives_zeros():
    x = np.random.default_rng(1).normal(size=(6, 700)).astype(np.float32)
    x[0, 3], x[1, 4], x[2], x[3, :5] = np.nan, np.inf, -np.inf, -np.inf
    for y in (np.arange(6), np.full_like(x, np.nan)):
        for number in (0, 2, 4):
            assert not residuals(x, y, np.zeros(6), map=number, empty=np.nan).any()
            assert not residuals(x[:1], y[:1], 0.0, map=number).any()
    halved = residuals(x, np.arange(6), np.array([0.0, 0.5] * 3), empty=np.nan)
    assert not halved[::2].any() and np.isnan(halved[1]).all()


def test_a_scale_is_for_residuals():
    for method in (0, VJP, LOSS_OF_INDEX, LOSS, 7):
        given = {"method": method, "operand": np.ones((2, 3)) / 3 if method in (VJP, LOSS) else None}
        given |= {"index": np.zeros(2, int)} if method == LOSS_OF_INDEX else {}
        given |= {} if method == VJP else {"result": np.zeros(2, "i8" if method == 7 else "f8")} if method else {}
        for scale in (0.5, np.ones(2)):
            with pytest.raises(ValueError, match="scale"):
                run(**given, scale=scale)
    for scale in (1, "1", None, np.ones(3), np.ones(2, "f4"), np.ones((2, 3))):
        with pytest.raises((TypeError, ValueError)):
            run(method=RESIDUAL_OF_INDEX, index=np.zeros(2, int), scale=scale)


@pytest.mark.parametrize("n", [2, 7, 16, 33, 128, 3000])
@pytest.mark.parametrize("lead", [0.0, 5.0, 9.0, 11.0, 12.0, 20.0, 60.0, -40.0, -100.0])
def test_residuals_of_sure_rows_keep_their_digits(lead, n):
    """What the label lacks of 1 is the sum of the others, also where it leads by far or lies far below."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no floats wider than float64 here to judge by")
    rng = np.random.default_rng(int(lead) + 200)
    x = rng.normal(size=(20, n)).astype(np.float32) + np.linspace(-300, 300, 20, dtype=np.float32)[:, None]
    y = rng.integers(0, n, 20)
    x[np.arange(20), y] = x.max(axis=1) + np.float32(lead)
    wanted = exact_residuals(x, y)
    is_normal = np.abs(wanted) > 2 * np.finfo(np.float32).tiny
    errors = np.abs(residuals(x, y, 1.0) - wanted)[is_normal] / np.spacing(np.abs(wanted).astype(np.float32))[is_normal]
    assert float(errors.max()) <= 4.0


@pytest.mark.skipif(IS_SANITIZED, reason="much memory")
@pytest.mark.parametrize("n", [1021, 17_001])
def test_residuals_and_losses_beyond_a_cache_have_the_same_bits(n):
    few = 3 * np.random.default_rng(n).normal(size=(7, n)).astype(np.float32)
    times = (1 << 26) // few.nbytes + 1
    y, many = np.arange(7), np.tile(few, (times, 1))
    found = residuals(many, np.tile(y, times), 0.3, threads=2).reshape(times, 7, n)
    assert np.array_equal(found, np.broadcast_to(residuals(few, y, 0.3), found.shape))
    given = {"method": LOSS_OF_INDEX, "type": 1, "threads": 2}
    losses = run(x=many, index=np.tile(y, times), result=np.empty(len(many)), **given).reshape(times, 7)
    assert np.array_equal(losses, np.broadcast_to(run(x=few, index=y, result=np.empty(7), **given), losses.shape))


@pytest.mark.skipif(IS_SANITIZED, reason="much memory")
@pytest.mark.parametrize("n", [65_600, 140_000, 270_000])
def test_residuals_of_long_rows_have_the_same_bits_wherever_they_lie(n):
    rng = np.random.default_rng(n)
    x, y = (3 * rng.normal(size=(3, n))).astype(np.float32), rng.integers(0, n, 3)
    where = rng.random(x.shape) < 0.9
    where[np.arange(3), y] = True
    for mask in (None, where):
        with a_cache_of(1 << 40):
            wanted = residuals(x, y, 0.3, mask=mask)
            alone = residuals(x[1:2], y[1:2], 0.3, mask=None if mask is None else mask[1:2])
        assert_bits(alone, wanted[1:2], "alone")
        with a_cache_of(1):
            assert_bits(residuals(x, y, 0.3, mask=mask), wanted, "past the caches")
    found = sx.softmax.residual(np.ascontiguousarray(x.T), y, axis=0)
    assert_bits(np.ascontiguousarray(found.T), sx.softmax.residual(x, y), "across")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 16, 17, 31, 32, 48, 63, 64, 100, 128, 129])
def test_short_rows_have_the_losses_and_residuals_of_each_alone(n, dtype):
    """Many are computed at once, unless one of them needs care: no other row is to see it."""
    rng = np.random.default_rng(n)
    x = (3 * rng.normal(size=(70, n))).astype(dtype)
    y, mask = rng.integers(0, n, len(x)), rng.random(x.shape) < 0.8
    x[3], x[9], x[20], x[33, 0], x[34, -1], x[45] = -np.inf, np.nan, np.inf, np.nan, -np.inf, 900.0
    x[50, y[50]], x[51, y[51]], x[60, y[60]] = -np.inf, 40.0, -30.0
    scale = rng.normal(size=len(x))
    scale[[9, 11, 30]] = 0.0
    for where, sign in ((None, False), (mask, False), (None, True), (np.asfortranarray(mask), True)):
        given = {"type": {"float32": 1, "float16": 2}[dtype], "mask": where, "negated": sign, "threads": 2}
        losses = run(method=LOSS_OF_INDEX, x=x, index=y, result=np.empty(len(x)), **given)
        found = residuals(x, y, scale, mask=where, negated=sign)
        with np.errstate(all="ignore"):
            signed = np.where(mask if where is not None else True, -x if sign else x, -np.inf).astype(np.longdouble)
            gaps = signed - signed.max(axis=1, keepdims=True)
            others = np.exp(gaps)
            others[np.arange(len(x)), signed.argmax(axis=1)] = 0.0
            wanted = np.log1p(others.sum(axis=1)) - gaps[np.arange(len(x)), y]
        is_common = np.isfinite(wanted)
        error = np.abs(losses[is_common] - wanted[is_common])
        assert np.all(error <= 3e-7 * np.abs(wanted[is_common]) + 1e-30), float(error.max())
        for row in range(len(x)):
            part = None if where is None else where[row : row + 1]
            one = {**given, "mask": part, "threads": 1}
            alone = run(method=LOSS_OF_INDEX, x=x[row : row + 1], index=y[row : row + 1], result=np.empty(1), **one)
            assert_bits(alone, losses[row : row + 1], ("loss", row))
            alone = residuals(x[row : row + 1], y[row : row + 1], scale[row], mask=part, negated=sign)
            assert_bits(alone, found[row : row + 1], ("residual", row))


def exact_residuals(x, y):
    z = x.astype(np.longdouble)
    e, places = np.exp(z - z.max(axis=1, keepdims=True)), (np.arange(len(x)), y)
    p = e / e.sum(axis=1, keepdims=True)
    e[places] = 0
    p[places] = -e.sum(axis=1) / (e.sum(axis=1) + np.exp(z[places] - z.max(axis=1)))
    return p


KINDS_OF_ROWS = ["normal", "wide", "faint", "ties", "flat", "far", "sure", "special", "rising", "inverted"]

INVERTED = np.float32(-0.031086175)
"""A score whose exponential, as it is computed, is less than that of the score below it."""


def columns_of(kind, n, count, rng):
    x = rng.normal(size=(n, count)).astype(np.float32)
    lead = rng.choice([10, 17, 25, 60], count).astype(np.float32)
    made = {"normal": x, "wide": 20 * x, "ties": np.round(x), "flat": 1e-4 * x, "sure": x.copy(), "special": x.copy()}
    made["faint"] = x - np.where(rng.random(x.shape) < 0.05, rng.uniform(60, 125, x.shape), 0).astype(np.float32)
    made["far"] = x + np.where(np.arange(count) % 7 == 0, 600, -300).astype(np.float32)
    made["sure"][rng.integers(0, n, count), np.arange(count)] += lead
    made["special"][rng.random(x.shape) < 0.1] = -np.inf
    made["rising"] = x + np.linspace(-40, 40, n, dtype=np.float32)[:, None]
    made["rising"][: n // 20] = -np.inf
    # So low that all together they weigh little more than those that lead.
    made["inverted"] = -(5 if n < 10_000 else 8) - 5 * rng.random(size=x.shape, dtype=np.float32)
    leads = np.array([INVERTED, np.nextafter(INVERTED, np.float32(-1)), INVERTED])
    made["inverted"][n // 2 : n // 2 + 3] = leads[: n - n // 2, None]
    made["special"][0, 3 % count], made["special"][-1, 7 % count], made["special"][:, 9 % count] = (
        np.nan,
        np.inf,
        -np.inf,
    )
    return made[kind]


def counts_across(n):
    """How many rows lie side by side: part of a strip, a strip, and both."""
    return (4, 5, 7, 12, 15, 16, 23, 33, 64, 130)[::THIN] if n < 10_000 else (5, 12, 17, 30)


@pytest.mark.parametrize("kind", KINDS_OF_ROWS)
def test_rows_that_lie_across_have_the_bits_of_others(kind):
    rng = np.random.default_rng(5)
    for n in (1, 2, 4, 5, 16, 17, 64, 127, 128, 129, 255, 1000, 4097, 16_384, 16_385, 33_000)[::THIN]:
        for count in counts_across(n):
            x = columns_of(kind, n, count, rng)
            where = rng.random(x.shape) < 0.8
            of_lines = np.broadcast_to(where[:, :1], x.shape)
            for name in ("float16", "bfloat16", "float32"):
                few = x[:, None].astype(numpy_dtype(name))
                masked = (sx.log_softmax, where[:, None]), (sx.softmin, of_lines[:, None])
                for map_, mask in ((sx.softmax, None), *masked):
                    turned = None if mask is None else np.ascontiguousarray(mask.T)
                    wanted = map_(np.ascontiguousarray(few.T), where=turned).T
                    assert_bits(map_(few, axis=0, where=mask), np.ascontiguousarray(wanted), (map_, n, count, name))
            for map_ in (sx.softmax, sx.log_softmax, sx.softmin):
                wanted = map_(np.ascontiguousarray(x.T)).T
                odd, same = np.empty((n, count + 3), np.float32)[:, 1 : count + 1], x.copy()
                for result in (map_(x, axis=0), map_(x, axis=0, out=odd), map_(same, axis=0, out=same)):
                    assert_bits(np.ascontiguousarray(result), np.ascontiguousarray(wanted), (map_, n, count))


def at_the_end_of_a_page(shape, dtype=np.float32):
    """An array behind which nothing may be read or written to."""
    libc, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
    size = math.prod(shape) * np.dtype(dtype).itemsize
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(start + pages * page), ctypes.c_size_t(page), 0) == 0
    return np.frombuffer(memory, dtype, math.prod(shape), pages * page - size).reshape(shape)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system to forbid a page")
@pytest.mark.parametrize(("n", "count"), [(20, 7), (129, 5), (129, 13), (16_385, 9), (16_385, 15), (16_385, 30)])
def test_nothing_is_read_beside_a_part_of_a_strip(n, count):
    rng = np.random.default_rng(1)
    x, g, where = (at_the_end_of_a_page((n, count), kind) for kind in (np.float32, np.float32, np.bool_))
    x[:], g[:], where[:] = rng.normal(size=x.shape), rng.normal(size=x.shape), rng.random(x.shape) < 0.8
    for map_, number in ((sx.softmax, 0), (sx.log_softmax, 1)):
        for mask in (None, where):
            result = at_the_end_of_a_page((n, count))
            map_(x, axis=0, where=mask, out=result)
            turned = None if mask is None else np.ascontiguousarray(mask.T)
            wanted = map_(np.ascontiguousarray(x.T), where=turned)
            assert_bits(np.ascontiguousarray(result.T), wanted, (map_, n, count))
        weights = at_the_end_of_a_page((n, count))
        map_(x, axis=0, out=weights)
        given = {"type": 1, "map": number, "method": BACKWARD}
        run(x=weights.T, operand=g.T, result=result.T, **given)
        rows = {"x": np.ascontiguousarray(weights.T), "operand": np.ascontiguousarray(g.T)}
        wanted = run(**rows, result=np.empty((count, n), np.float32), **given)
        assert_bits(np.ascontiguousarray(result.T), wanted, (map_, n, count, "back"))


def test_a_tail_halfway_between_two_floats():
    """The sum of a sure row's other entries, block by block: otherwise its logarithm would be rounded otherwise."""
    x = (np.random.default_rng(0).normal(size=(40_000, 1)) * 2 - 34).astype(np.float32)
    near_ties = ["-0x1.d5a4a4p+4", "-0x1.48f0dep+5", "-0x1.af9416p+5", "-0x1.4p+6"]
    x[:5, 0] = [0.0, *map(float.fromhex, near_ties)]
    across = np.repeat(x, 16, axis=1)
    assert_bits(sx.log_softmax(across, axis=0)[:, 8].copy(), sx.log_softmax(x[:, 0]), "across")


@pytest.mark.parametrize("map_", [sx.sparsemax, sx.entmax15], ids=str)
def test_sparse_rows_of_every_length_and_with_any_number_of_candidates(map_):
    """Nothing beside the candidates counts, wherever a row ends and however many of them its neighbours have."""
    rng = np.random.default_rng(8)
    for n in (*range(1, 70), 127, 129, 255, 256, 257, 300, 1000, 4099):
        for scale, shift in ((0.01, 0.0), (1.0, 0.0), (2.0, -3.0)):
            x = (rng.normal(size=(n, 49)) * scale + shift).astype(np.float32)
            rows = map_(np.ascontiguousarray(x.T))
            assert_bits(np.ascontiguousarray(map_(x, axis=0)), np.ascontiguousarray(rows.T), (n, scale))
            same = x.copy()
            assert_bits(np.ascontiguousarray(map_(same, axis=0, out=same)), np.ascontiguousarray(rows.T), (n, scale))
            with sx.kernels("none"):
                wanted = map_(x.T.astype(np.float64))
            assert np.allclose(rows, wanted, rtol=4 * 2**-23, atol=2**-40), (n, scale)


def exact_sparsemax(x):
    """By sorting, in long doubles: the threshold is the largest of (sum of the first k - 1) / k (Duchi et al. 2008)."""
    descending = -np.sort(-x.astype(np.longdouble), axis=-1)
    thresholds = (np.cumsum(descending, axis=-1) - 1) / np.arange(1, x.shape[-1] + 1)
    return np.maximum(x - thresholds.max(axis=-1, keepdims=True), 0)


def test_a_score_as_good_as_at_the_threshold_of_sparsemax():
    """Taken into the support although it lies below, it would have its weight from all the others."""
    rng = np.random.default_rng(29)
    for supported in (2, 5, 8, 16, 17, 40, 250):
        for spread in (0.01, 0.3 / supported):
            x = -spread * rng.random((600, supported + 1))
            x[:, 0] = 0
            threshold = (np.sum(x[:, :-1].astype(np.longdouble), axis=-1) - 1) / supported
            x[:, -1] = threshold - rng.choice([1e-16, 1e-15, 1e-14], 600) * rng.random(600)
            wanted = exact_sparsemax(x)
            unit = np.spacing(wanted.max(axis=-1, keepdims=True).astype(np.float64))
            for found in (sx.sparsemax(x), sx.sparsemax(np.asfortranarray(x), axis=-1)):
                assert np.max(np.abs(found - wanted) / unit) < 2, (supported, spread)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("map_", [sx.sparsemax, sx.entmax15], ids=str)
def test_more_equal_scores_than_a_float_can_count(map_, dtype):
    """So large that no sketch leads to them; with a sink out of reach, which no line solves."""
    n = 2**24 + 1
    for options in ({}, {"sink": -1e14}):
        p = map_(np.broadcast_to(np.asarray(1e13, dtype), (n,)), **options)
        assert p[0] == p[-1] == np.min(p) == np.max(p)
        assert abs(float(p[0]) * n - 1) < 1e-6, options


@pytest.mark.parametrize("kind", KINDS_OF_ROWS)
def test_derivatives_of_rows_that_lie_across_have_the_bits_of_others(kind):
    rng = np.random.default_rng(6)
    for n in (1, 2, 16, 31, 32, 64, 100, 128, 129, 191, 192, 1000, 4097, 16_384):
        for count in (15, 16, 23, 33, 300) if n < 4097 else (17,):
            x = columns_of(kind, n, count, rng)
            g = rng.normal(size=x.shape).astype(np.float32)
            g[:, 1], g[n // 2, 2] = 3e38, np.nan
            where = rng.random(x.shape) < 0.8
            for map_, mask in ((sx.softmax, None), (sx.softmin, None), (sx.softmax, where), (sx.log_softmax, None)):
                turned = None if mask is None else np.ascontiguousarray(mask.T)
                wanted = map_.vjp(np.ascontiguousarray(x.T), np.ascontiguousarray(g.T), where=turned).T
                mixed = np.ascontiguousarray(g.T).T
                for cotangent in (g, mixed):
                    found = map_.vjp(x, cotangent, axis=0, where=mask)
                    assert_bits(np.ascontiguousarray(found), np.ascontiguousarray(wanted), (map_, n, count))


def test_cotangents_may_overlap_themselves_and_rows_have_one_entry():
    rng = np.random.default_rng(11)
    x, few = np.asfortranarray(rng.normal(size=(64, 40)).astype(np.float32)), rng.normal(size=103).astype(np.float32)
    g = np.lib.stride_tricks.sliding_window_view(few, 40)
    assert_bits(sx.softmax.vjp(x, g, axis=1), sx.softmax.vjp(np.ascontiguousarray(x), g.copy(), axis=1), "windows")
    one, all_count = x[:1], np.ones((1, 40), bool)
    for where in (all_count, np.arange(40)[None] % 7 != 0):
        for dtype in ("float32", "float16", "float64"):
            assert not sx.softmax.vjp(one.astype(dtype), one.astype(dtype), axis=0, where=where).any()
            for map_ in (sx.softmax, sx.sparsemax, sx.entmax15):
                assert_bits(map_(one.astype(dtype), axis=0, where=where), where.astype(dtype), (map_, dtype))
    bad = np.where(np.arange(300) == 5, np.nan, rng.normal(size=(1, 300))).astype(np.float16)
    assert_bits(sx.sparsemax(bad, axis=0), np.where(np.isnan(bad), bad, np.float16(1)), "NaN")


@pytest.mark.parametrize("n", [150, 160, 175, 191, 192, 223, 4100, 4130])
def test_pairs_of_products_do_not_depend_on_the_instruction_set(n):
    rng = np.random.default_rng(n)
    x, g = np.zeros((40, n), np.float32), np.zeros((40, n), np.float32)
    g[:, n // 32 * 32 - 32 :] = rng.normal(size=g[:, n // 32 * 32 - 32 :].shape)
    found = {}
    for name in ("x86-64-v3", "x86-64-v4"):
        with instructions(name):
            found[name] = sx.softmax.vjp(x, g)
            across = sx.softmax.vjp(np.asfortranarray(x), np.asfortranarray(g))
            assert_bits(np.ascontiguousarray(across), found[name], (name, "across"))
    assert_bits(*found.values(), n)


def test_a_mean_beyond_the_digits_of_cotangents_is_seen_everywhere():
    """The first scores say nothing of the top, so that products stay in range although the mean is huge."""
    x, g = np.full((9, 1024), -34.6, np.float32), np.full((9, 1024), 1.5e38, np.float32)
    x[:, :16], x[:, 16], x[:, 17] = -np.inf, -16, -36
    g[:, 16], g[:, 17] = 0, np.finfo(np.float32).min
    x[5, 3] = np.nan
    alone = sx.softmax.vjp(x[:1], g[:1])
    assert np.all(np.isfinite(alone))
    together = sx.softmax.vjp(x, g)
    across = np.ascontiguousarray(sx.softmax.vjp(np.asfortranarray(np.tile(x[:1], (20, 1))), np.tile(g[:1], (20, 1))))
    for row in (0, 4, 8):
        assert_bits(together[row], alone[0], row)
        assert_bits(across[row], alone[0], ("across", row))


def test_zeros_of_the_way_back_have_no_sign_that_depends_on_neighbours():
    p = np.array([[1.4e-45, 0.5, 0.5]] * 17, np.float32)
    g = np.array([[-0.25, 0, 0]] * 17, np.float32)
    back = partial(run, type=1, method=BACKWARD)
    alone = back(x=p[:1], operand=g[:1], result=np.empty((1, 3), np.float32))
    scaled = back(x=p, operand=g, temperature=np.r_[np.ones(16), 2.0], result=np.empty_like(p))
    turned = np.asfortranarray(p)
    across = back(x=turned, operand=np.asfortranarray(g), result=np.empty_like(turned))
    assert_bits(scaled[:1], alone, "neighbours")
    assert_bits(np.ascontiguousarray(across[:1]), alone, "across")


@pytest.mark.parametrize("size", [1e-28, 1.0, 1e20, 3e38])
def test_cotangents_of_any_size_are_summed(size):
    """Products of floats may leave their range: such rows are computed in doubles, and no row beside them is."""
    rng = np.random.default_rng(8)
    for n in (20, 64, 300, 4000, 5000, 40_000):
        x, g = (2 * rng.normal(size=(9, n)) - 3).astype(np.float32), rng.normal(size=(9, n)).astype(np.float32)
        alone = sx.softmax.vjp(x[:4], g[:4])
        g[4:] = np.sign(g[4:]) * np.float32(size)
        p, wide = exact_weights(x), g.astype(np.longdouble)
        wanted = p * (wide - (p * wide).sum(axis=1, keepdims=True))
        terms = np.maximum(np.abs(p * wide), p * (p * np.abs(wide)).sum(axis=1, keepdims=True))
        largest = terms.max(axis=1, keepdims=True)
        found = sx.softmax.vjp(x, g)
        assert np.all(np.abs(found - wanted) <= 4 * np.maximum(np.spacing(largest.astype(np.float32)), 2.0**-149)), n
        assert_bits(found[:4], alone, n)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("map_", [sx.softmax, sx.softmin, sx.log_softmax], ids=lambda each: each.name)
def test_what_is_masked_counts_as_minus_infinity_to_the_bit(map_, dtype):
    rng = np.random.default_rng(10)
    for n in (10, 100, 129, 200, 1000, 4096, 5000, 20_000, 300_000):
        rows = 3 if n > 20_000 else 19
        x = (3 * rng.normal(size=(rows, n)) - 300 * (np.arange(rows) % 5 == 4)[:, None]).astype(dtype)
        where = rng.random(x.shape) < rng.choice([0.05, 0.5, 1], (rows, 1))
        where[:, 1], where[0], where[1, 7:] = True, False, False
        dead = np.inf if map_ is sx.softmin else -np.inf
        wanted = map_(np.where(where, x, np.asarray(dead, dtype)))
        hidden = np.where(where, x, np.asarray(np.nan, dtype))
        wide, out = np.zeros((rows, n + 5), bool), np.empty((rows, n + 3), dtype)[:, 2:-1]
        wide[:, 3:-2] = where
        for mask in (where, wide[:, 3:-2], np.asfortranarray(where)):
            assert_bits(map_(hidden, where=mask), wanted, n)
        assert_bits(np.ascontiguousarray(map_(hidden, where=where, out=out)), wanted, n)
        shared = map_(x, where=where[2])
        assert_bits(shared, map_(np.where(where[2], x, np.asarray(dead, dtype))), n)


@contextmanager
def a_cache_of(size):
    """Results beyond it go past the caches."""
    cpu.assume_cache(size)
    try:
        yield
    finally:
        cpu.assume_cache(0)


def rows_with_cares(rows, n, rng):
    """Scores of which some rows have to be looked at first: with NaN, infinities, far from 0, nothing, a late top."""
    x = (3 * rng.normal(size=(rows, n))).astype(np.float32)
    x[:, n // 2] += np.float32(30) * (np.arange(rows) % 7 == 3)
    x[rows // 3, n // 3], x[rows // 2, 1], x[rows // 2 + 3] = np.nan, np.inf, -np.inf
    x[-2] += np.float32(700)
    x[1, 1:], x[2] = -np.inf, x[2, 0]
    return x


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "map_", [sx.softmax, sx.softmin, sx.log_softmax, sx.log_softmin, sx.sparsemax], ids=lambda each: each.name
)
def test_results_that_go_past_the_caches_have_the_same_bits(map_, count):
    """Rows are written while the next are walked: each whole, none with another's numbers, nothing beside them."""
    rng = np.random.default_rng(21)
    for n in (61, 64, 130, 200, 512, 1000, 1024, 2500, 4096, 4097, 9000, 40_000, 200_000):
        rows = max(7, min(67, 600_000 // n))
        x = rows_with_cares(rows, n, rng)
        where = rng.random(x.shape) < rng.choice([0.3, 1], (rows, 1))
        with a_cache_of(1 << 40):
            wanted, masked = map_(x), map_(x, where=where)
        for skipped in (0, 1, 3):
            room = np.full(rows * n + 40, -7, np.float32)
            first = (-room.ctypes.data // 4) % 16 + skipped
            out = room[first : first + rows * n].reshape(rows, n)
            with a_cache_of(1), threads(count):
                assert_bits(map_(x, out=out), wanted, (n, skipped))
                assert_bits(map_(x, where=where, out=out), masked, (n, skipped, "masked"))
                out[...] = x
                assert_bits(map_(out, out=out), wanted, (n, skipped, "in place"))
                out[...] = x
                assert_bits(map_(out, where=where, out=out), masked, (n, skipped, "masked in place"))
            assert np.all(room[:first] == -7) and np.all(room[first + rows * n :] == -7)
        wide = np.full((rows, n + 5), -7, np.float32)
        for gapped in (wide[:, 2:-3], wide[::-1, 2:-3]):
            with a_cache_of(1), threads(count):
                assert_bits(np.ascontiguousarray(map_(x, out=gapped)), wanted, (n, "with gaps"))
            assert np.all(wide[:, :2] == -7) and np.all(wide[:, -3:] == -7)


@pytest.mark.parametrize("map_", [sx.softmax, sx.log_softmax, sx.entmax15], ids=lambda each: each.name)
def test_new_memory_used_memory_and_that_of_the_scores_get_the_same_bits(map_):
    """They are written to in different ways."""
    rng = np.random.default_rng(24)
    x = rows_with_cares(2**23 // 1024 + 1, 1024, rng)
    room = np.ones(x.size + 16, np.float32)
    # Of whole lines, so that it is streamed across.
    used = room[(-room.ctypes.data // 4) % 16 :][: x.size].reshape(x.shape)
    with a_cache_of(1 << 40):
        wanted, wanted_across = map_(x, out=used).copy(), map_(x, axis=0, out=used).copy()
    with a_cache_of(1):
        for axis, right in ((-1, wanted), (0, wanted_across)):
            assert_bits(map_(x, axis=axis), right, ("new", axis))
            assert_bits(map_(x, axis=axis, out=used), right, ("used", axis))
            scores = x.copy()
            assert_bits(map_(scores, axis=axis, out=scores), right, ("in place", axis))


@pytest.mark.parametrize("map_", [sx.softmax, sx.softmin, sx.log_softmax], ids=lambda each: each.name)
def test_many_rows_have_the_bits_of_a_few(map_):
    """Large results are written while the next rows are walked, through the caches."""
    rng = np.random.default_rng(22)
    for n in (131, 1000, 4096, 30_000):
        rows = 3_000_000 // n
        x = rows_with_cares(rows, n, rng)
        where = rng.random(x.shape) < rng.choice([0.3, 1], (rows, 1))
        few = 50_000 // n + 1
        parts = [slice(first, first + few) for first in range(0, rows, few)]
        for options in ({}, {"where": where}):
            some = [map_(x[part], **{name: mask[part] for name, mask in options.items()}) for part in parts]
            assert_bits(map_(x, **options), np.concatenate(some), n)
            out = x.copy()
            assert_bits(map_(out, **options, out=out), np.concatenate(some), (n, "in place"))


def exact_weights(x):
    z = x.astype(np.longdouble)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS_OF_ROWS)
@pytest.mark.parametrize("map_", [sx.softmax, sx.log_softmax, sx.softmin], ids=repr)
def test_rows_taken_together_have_the_bits_of_each_alone(map_, kind):
    """Several rows are walked before the first is finished: no row is to see its neighbours, nor what they lead by."""
    rng = np.random.default_rng(7)
    for n in (2, 16, 33, 64, 100, 128, 129, 160, 255, 1000, 1024, 1025, 2049, 4096, 4097):
        x, g = columns_of(kind, n, 21, rng).T.copy(), rng.normal(size=(21, n)).astype(np.float32)
        # What the first vector of a row tells of its top is wrong by more and more.
        x[10:16, min(n - 1, 20)] += np.float32([1, 3, 9, 16, 20, 40])
        g[x == -np.inf] = np.nan
        calls = [lambda x, g: map_(x), map_.vjp] + ([map_.jvp] if map_ is not sx.log_softmax else [])
        for call in calls:
            together = call(x, g)
            alone = np.concatenate([call(x[row : row + 1], g[row : row + 1]) for row in range(len(x))])
            assert_bits(together, alone, (call, n))
            odd = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
            odd[:] = x
            assert_bits(together, call(odd, g), (call, n, "unaligned"))
        itself = x.copy()
        assert_bits(map_(x), map_(itself, out=itself), (n, "itself"))


@pytest.mark.parametrize("n", [2, 33, 64, 128, 129, 1000, 4096, 4097])
def test_rows_taken_together_are_right(n):
    rng = np.random.default_rng(n)
    x, g = (3 * rng.normal(size=(19, n))).astype(np.float32), rng.normal(size=(19, n)).astype(np.float32)
    x[3, -1] += 30
    x[4, rng.random(n) < 0.5] = -np.inf
    x[4, 0] = 1
    p, wide = exact_weights(x), g.astype(np.longdouble)
    is_live = p > 0
    ulp = np.spacing(p.astype(np.float32)).astype(np.longdouble)
    assert np.all(np.abs(sx.softmax(x) - p) <= 2.25 * ulp)
    found, logs = sx.log_softmax(x), np.log(p[is_live])
    assert np.all(np.isneginf(found) == ~is_live)
    # The logarithm of the exact weight has lost what a weight near 1 lacks of it.
    assert np.all(np.abs(found[is_live] - logs) <= 2 * np.spacing(-logs.astype(np.float32)) + 1e-18)
    mean = (p * wide).sum(axis=1, keepdims=True)
    most = np.abs(p * wide).max(axis=1, keepdims=True)
    for derivative in (sx.softmax.vjp, sx.softmax.jvp):
        assert np.all(np.abs(derivative(x, g) - p * (wide - mean)) <= 4 * np.spacing(most.astype(np.float32)))
    total = np.where(is_live, wide, 0).sum(axis=1, keepdims=True)
    most = np.abs(np.where(is_live, wide, 0)).max(axis=1, keepdims=True) + np.abs(p * total).max(axis=1, keepdims=True)
    wanted = np.where(is_live, wide - p * total, 0)
    assert np.all(np.abs(sx.log_softmax.vjp(x, g) - wanted) <= 4 * np.spacing(most.astype(np.float32)))


@pytest.mark.parametrize("n", [64, 100, 128, 200, 1000, 4096, 5000, 40_000])
def test_faint_weights_are_computed_in_two_ways_to_the_same_bits(n):
    """Rows in which subnormal weights are met take other steps; whether they are is seen in some vectors alone."""
    rng = np.random.default_rng(n)
    is_looked_at = (np.arange(n) // 16 % 8 == 0) | (np.arange(n) % 8 == 0) if n > 128 else np.arange(n) < 64
    for ties in (1, 3, 7, 11):
        met = rng.uniform(-110, -60, size=(3, n)).astype(np.float32)
        met[:, :ties] = 0
        # No more of them, and as many, where that is seen; they are no digit of any sum.
        missed = np.where(is_looked_at & (met < 0), np.float32(-58), met)
        both = sx.softmax(met), sx.softmax(missed)
        assert_bits(both[0][:, ~is_looked_at], both[1][:, ~is_looked_at], (n, ties))
        assert_bits(np.ascontiguousarray(sx.softmax(np.asfortranarray(met), axis=-1)), both[0], (n, ties, "across"))
        assert_bits(np.ascontiguousarray(sx.softmax(np.asfortranarray(missed), axis=-1)), both[1], (n, ties, "across"))
        exact = np.exp(met.astype(np.longdouble)) / ties
        error = np.abs(both[0] - exact) / np.maximum(np.spacing(exact.astype(np.float32)), 2.0**-149)
        assert error.max() < 2 and np.any((both[0] > 0) & (both[0] < 2.0**-126))


@pytest.mark.parametrize("n", [2, 64, 100, 1000, 5000])
def test_a_subnormal_weight_may_have_the_largest_derivative(n):
    """Subnormals are flushed beside derivatives, but a cotangent can make normal numbers of them."""
    for gap, size, temperature in itertools.product((89, 95, 104, 118), (1, 1e5, 1e20, 3e38), (1.0, 2.0)):
        x, g = np.full((3, n), -np.inf, np.float32), np.zeros((3, n), np.float32)
        x[:, 0], x[:, -1], g[:, -1] = 0, -gap * temperature, size
        e = np.exp(np.longdouble(-gap))
        wanted = e / (1 + e) ** 2 * np.longdouble(g[0, -1]) / temperature
        if wanted < 2.0**-126:
            continue
        for derivative in (sx.softmax.vjp, sx.softmax.jvp):
            found = derivative(x, g, temperature=temperature)
            across = derivative(np.asfortranarray(x), np.asfortranarray(g), temperature=temperature)
            assert abs(found[0, -1] - wanted) <= 4 * np.spacing(np.float32(wanted)), (gap, size, temperature)
            assert_bits(np.ascontiguousarray(across), found, (gap, size, temperature))


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
def test_scores_that_a_large_temperature_brings_near(name):
    with instructions(name):
        for least, temperature in ((-3e38, 1e9), (-1e36, 1e7), (-3e38, 1e18), (-3e38, 1.5)):
            found = sx.log_softmax(np.array([[0, least, 1]], np.float32), temperature=temperature)
            assert np.isclose(found[0, 1], np.float64(np.float32(least)) / temperature, rtol=1e-6)
            assert np.isclose(found[0, 0], -np.log(1 + np.exp(1 / temperature)), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sure_rows_do_not_cost_their_neighbours_a_digit(dtype):
    """Of rows with one score far above all others logarithms and losses are found by another walk."""
    rng = np.random.default_rng(12)
    for n in (5, 16, 64, 127, 129, 1000, 4096, 5000):
        x = rng.normal(size=(37, n))
        x[::3, n // 2] += rng.uniform(20, 45, 13)
        x[7, n // 2], x[11] = 300, -np.inf
        x = x.astype(numpy_dtype(dtype))
        alone = np.concatenate([sx.log_softmax(x[r : r + 1]) for r in range(37)])
        assert_bits(sx.log_softmax(x), alone, n)
        assert_bits(np.ascontiguousarray(sx.log_softmax(np.asfortranarray(x), axis=-1)), alone, (n, "across"))
        y = rng.integers(0, n, 37)
        y[::2] = n // 2
        losses = [sx.cross_entropy(x[r : r + 1], y[r : r + 1], reduction="none") for r in range(37)]
        assert_bits(sx.cross_entropy(x, y, reduction="none"), np.concatenate(losses), n)
        is_there = np.arange(37) != 11
        z = x[is_there].astype(np.longdouble)
        gaps = z - z.max(axis=1, keepdims=True)
        others = (gaps == 0).sum(axis=1, keepdims=True) - 1
        rest = np.where(gaps < 0, np.exp(gaps), 0).sum(axis=1, keepdims=True) + others
        wanted = gaps - np.log1p(rest)
        digits = 2.0 ** {"float32": -23, "float16": -10, "bfloat16": -7}[dtype]
        error = np.abs(alone[is_there].astype(np.longdouble) - wanted)
        assert np.all(error <= 2 * digits * np.abs(wanted) + (2.0**-25 if dtype == "float16" else 2.0**-149)), n


def test_the_mode_of_a_thread_changes_no_bit():
    """A caller may have subnormals flushed; the mode stays as it was."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(3)
    x, g = (25 * rng.normal(size=(50, 1000))).astype(np.float32), rng.normal(size=(50, 1000)).astype(np.float32)
    wanted = sx.softmax(x), sx.softmax.vjp(x, g), sx.log_softmax.vjp(x, g)
    tiny = torch.tensor([2.0**-140])
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor flushes no subnormals")
    try:
        found = sx.softmax(x), sx.softmax.vjp(x, g), sx.log_softmax.vjp(x, g)
        flushed = float((tiny * 1).view(torch.int32))
    finally:
        torch.set_flush_denormal(False)
    assert flushed == 0 and float((tiny * 1).view(torch.int32)) > 0
    for one, right in zip(found, wanted, strict=True):
        assert_bits(one, right, "flushed")


BACKWARD = 9


@pytest.mark.parametrize("map_", [sx.softmax, sx.log_softmax, sx.sparsemax, sx.entmax15], ids=repr)
def test_the_way_back_of_rows_that_lie_across_has_the_bits_of_others(map_):
    rng, number = np.random.default_rng(6), [sx.softmax, sx.log_softmax, sx.sparsemax, sx.entmax15].index(map_)
    for n in (1, 2, 4, 5, 15, 16, 17, 31, 32, 33, 48, 127, 128, 129, 257, 4097, 16_383, 16_384, 16_385, 33_000)[::THIN]:
        for count in counts_across(n):
            p = map_(2 * rng.normal(size=(n, count)).astype(np.float32), axis=0)
            plain = rng.normal(size=p.shape).astype(np.float32)
            hidden, with_nan = np.where(p == 0, np.float32(np.nan), plain), p.copy()
            with_nan[-1, count // 2] = np.nan
            hidden[0, 2] = np.inf
            for weights, g in ((p, plain), (with_nan, hidden), (p, np.float32(1e35) * plain)):
                for temperature, negated in ((1.0, False), (0.37, True), (np.linspace(0.5, 2.0, count), False)):
                    given = {
                        "type": 1,
                        "map": number,
                        "method": BACKWARD,
                        "temperature": temperature,
                        "negated": negated,
                    }
                    result = np.empty_like(p)
                    run(x=weights.T, operand=g.T, result=result.T, **given)
                    rows = {"x": np.ascontiguousarray(weights.T), "operand": np.ascontiguousarray(g.T)}
                    wanted = run(**rows, result=np.empty((count, n), np.float32), **given)
                    assert_bits(np.ascontiguousarray(result.T), wanted, (n, count, temperature))
                    run(x=weights.T, operand=rows["operand"], result=result.T, **given)
                    assert_bits(np.ascontiguousarray(result.T), wanted, (n, count, temperature, "operand in rows"))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("map_", [sx.softmax, sx.log_softmax, sx.sparsemax, sx.entmax15], ids=repr)
def test_the_way_back_of_narrow_rows_that_lie_across_has_the_bits_of_others(map_, name):
    rng, number = np.random.default_rng(7), [sx.softmax, sx.log_softmax, sx.sparsemax, sx.entmax15].index(map_)
    dtype = numpy_dtype(name)
    for n, count in ((2, 21), (16, 48), (17, 3), (33, 16), (130, 23), (4097, 12), (4097, 17), (16_390, 9)):
        p = map_(2 * rng.normal(size=(n, count)).astype(np.float32), axis=0).astype(dtype)
        g, result = rng.normal(size=p.shape).astype(dtype), np.empty_like(p)
        shifted = np.empty(p.nbytes + 1, np.uint8)[1:].view(dtype).reshape(p.shape)
        given = {"type": 2 if name == "float16" else 3, "map": number, "method": BACKWARD}
        rows = [np.ascontiguousarray(one.T) for one in (p, g, result)]
        wanted = run(x=rows[0], operand=rows[1], result=rows[2], **given)
        for found in (result, shifted):
            run(x=p.T, operand=g.T, result=found.T, **given)
            assert_bits(np.ascontiguousarray(found.T), wanted, (n, count))


# -- sparse rows -------------------------------------------------------------------------------------------------------


def crowds(rng, rows, n):
    """Rows of which few entries count, many, nearly all; tied ones; and one that stands out."""
    x = rng.normal(size=(rows, n)) * 2
    x[1::5] = rng.normal(size=(len(x[1::5]), n)) * 1e-3
    x[2::5] = np.round(x[2::5])
    x[3::5, n // 2] = 30.0
    x[4::5] *= 0.1
    return x.astype(np.float32)


@pytest.mark.parametrize("n", [2, 16, 17, 64, 129, 256, 257, 300, 1000, 2049, 4096, 4097, 20_000, (1 << 18) + 5])
@pytest.mark.parametrize("map_", [sx.sparsemax, sx.entmax15], ids=lambda each: each.name)
def test_all_solvers_of_sparse_rows_agree(map_, n):
    """Sixteen rows side by side, a row alone, columns, huge rows in blocks, and rows with a temperature of 1 each."""
    x = crowds(np.random.default_rng(n), 5 if n > 4097 else 37, n)
    with threads(1):
        wanted = map_(x)
    alone = np.concatenate([map_(row[None]) for row in x])
    across = np.ascontiguousarray(map_(np.ascontiguousarray(x.T), axis=0).T)
    tempered = map_(x, temperature=np.ones((len(x), 1)))
    with sx.kernels("none"):
        right = map_(x.astype(np.float64))
    for name, found in {"two threads": map_(x), "alone": alone, "across": across, "tempered": tempered}.items():
        assert_bits(found, wanted, name)
    assert np.all(np.abs(wanted - right) <= 2.0**-23 * right.max(axis=1, keepdims=True))


# -- arrays of bits ----------------------------------------------------------------------------------------------------


def test_bfloat16_may_come_as_bits():
    x = np.random.default_rng(9).normal(size=(4, 50)).astype(numpy_dtype("bfloat16"))
    g = x[::-1].copy()
    for map_, (method, operand) in ((map_, each) for map_ in range(5) for each in ((0, None), (VJP, g), (4, g))):
        if (map_, method) == (LOG_SOFTMAX, 4):
            continue
        found = []
        cpu.set_bfloat16(x.dtype)
        for kind in (x.dtype, np.dtype("uint16")):
            arrays = {"x": x.view(kind), "operand": None if operand is None else operand.view(kind)}
            found.append(run(map=map_, method=method, type=3, result=np.empty_like(x).view(kind), **arrays))
        assert_bits(found[1].view(x.dtype), found[0], map_)
    assert cpu.short_cut(0, False, False, 1.5)("value", x.view("u2"), None, -1, None, {}) is None


# -- rows that were hard once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("centre", [0, 100, 300, 500, 2000])
@pytest.mark.parametrize("map_", [sx.softmax, sx.softmin], ids=lambda each: each.name)
def test_scores_far_from_zero_cost_no_digits(map_, centre, name):
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no floats wider than float64 here to judge by")
    x = (centre + 20 * np.random.default_rng(centre).normal(size=(20, 5000))).astype(np.float32)
    z = np.longdouble(-1 if map_ is sx.softmin else 1) * x
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    is_normal = p > 2 * np.finfo(np.float32).tiny
    with instructions(name):
        errors = np.abs(map_(x) - p)[is_normal] / np.spacing(p.astype(np.float32))[is_normal]
    assert float(errors.max()) <= 2.0


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(
    "map_",
    [sx.softmax, sx.log_softmax, sx.softmin, sx.log_softmin, sx.sparsemax, sx.entmax15, sx.entmax],
    ids=lambda each: each.name,
)
def test_numbers_near_the_end_of_the_range(map_, name):
    """Without fused multiply-add products are cut into pieces, of which none is to overflow."""
    with instructions(name):
        x = np.array([[1e308, -1e308, 0.0, 3e307]])
        for temperature in (1e299, 1e301, 1e307, 1e308):
            found = map_(x, temperature=temperature)
            np.testing.assert_allclose(found, map_(x * 1e-200, temperature=temperature * 1e-200), rtol=1e-13)
        rng = np.random.default_rng(3)
        for n in (3, 40, 400, 3000):
            scores, operand = rng.normal(size=(2, 2, n))
            for derivative, size in itertools.product((map_.vjp, map_.jvp), (1e299, 1e302, 1e305)):
                usual = derivative(scores, operand)
                found = derivative(scores, operand * size)
                np.testing.assert_allclose(found / size, usual, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 1e-30), ("float32", 1e30), ("float64", 1e-160), ("float64", 1e200)]
)
def test_derivatives_are_linear_at_any_size(dtype, size):
    x = np.array([0.0, 0.5, -1.0, 2.0], dtype)
    g = np.array([1.0, 0.0, -2.0, 0.5], dtype)
    for map_ in (sx.softmax, sx.log_softmax):
        for derivative in (map_.vjp, map_.jvp):
            usual, other = derivative(x, g), derivative(x, g * np.asarray(size, dtype))
            np.testing.assert_allclose(other / np.asarray(size, dtype), usual, rtol=8 * np.finfo(dtype).eps)


def test_a_temperature_as_large_as_the_scores():
    assert sx.softmax.loss(np.array([1e308, -1e308]), 1, temperature=1e300) == pytest.approx(2e8, rel=1e-14)
    np.testing.assert_allclose(
        sx.softmax.vjp(np.zeros(2), np.array([1.0, 0.0]), temperature=1e200), [2.5e-201, -2.5e-201]
    )


def test_a_row_that_weighs_what_no_float_shows():
    """The weight of an entry at -130 is no float32, its product with a large cotangent is one, in any layout."""
    x, g = np.full(100_000, -500, np.float32), np.zeros(100_000, np.float32)
    x[:16], x[20], x[30], g[30] = -16, 0, -130, 1e19
    alone = sx.softmax.vjp(x, g)
    among = sx.softmax.vjp(np.stack([x] * 3, axis=1), np.stack([g] * 3, axis=1), axis=0)
    assert same_bits(alone, np.ascontiguousarray(among[:, 0]))


def test_the_last_digits_of_gaps_decide_where_alpha_is_large():
    """At alpha = 50 a weight is the 49th root of a distance: gaps that differ by one digit weigh much or nothing."""
    x = np.full(9, -2.0686960055467214e-07)
    x[1:4], x[4], x[5:8], x[8] = -2.0686960055467193e-07, -2.068696005546719e-07, -1.03e-05, 0.00017771549239291548
    got = sx.entmax(x, alpha=50.0)
    with sx.kernels("none"):
        wanted = sx.entmax(x, alpha=50.0)
    assert 0.0 < wanted[4] < 0.5 and wanted[5] == 0.0  # some near-ties weigh something, what lies lower nothing
    np.testing.assert_allclose(got, wanted, rtol=0, atol=16 * np.finfo(np.float64).eps)
