"""The kernels within programs of JAX: the bits that NumPy's calls have, and refusals where a frame is wrong."""

import ctypes
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import native_samples
import softplex as sx
from frameworks import numpy_dtype
from lawbook import same_bits
from native_samples import CALLS, drawn, drawn_maxout, laid
from softplex.core.arguments import read
from softplex.core.call import Asked
from softplex.core.targets import read_targets
from softplex.native import calls, cpu, reason
from softplex.native.table import kernel_of

jax = pytest.importorskip("jax", reason="JAX is not installed")
pytestmark = pytest.mark.skipif(cpu is None, reason=reason)

from softplex.backends.jax import kernels  # noqa: E402

EACH = [pytest.param(*call, id=f"{call[0].__name__} {call[1]}") for call in CALLS]
WITH_GRADIENTS = [each for each in EACH if each.values[1] in ("loss", "loss of index", "cross_entropy")]
SOME = 8
CPU_DIR = Path(kernels.__file__).parents[2] / "native" / "cpu"


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def has_x64(request):
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# -- calls as NumPy checks them, with JAX's arrays in them ----------------------------------------------------------------


def posed(sample):
    """What a sample asks: a call, what is asked of it, its operands."""
    map_ = sample.map if sample.bound_alpha is None else sample.map.bind(alpha=sample.bound_alpha)
    given = {
        key: value for key, value in sample.arguments.items() if key not in ("reduction", "ignore_index", "weight")
    }
    call = read("map", map_.formula, sample.x, sample.axis, **given)
    targets = None
    if sample.operand is not None and sample.task not in ("vjp", "jvp"):
        loss = {key: sample.arguments.get(key) for key in ("ignore_index", "weight")}
        targets = read_targets(call, sample.operand, **loss)
    operands = [] if sample.operand is None else [sample.operand]
    operands += [targets.weight] if targets is not None and targets.weight is not None else []
    return call, Asked(sample.task.removesuffix(" of index"), map_.formula, targets), operands


def on_jax(value):
    """An array as JAX holds it; floats and None as they are."""
    if not isinstance(value, np.ndarray):
        return value
    return jax.numpy.asarray(np.array(value, value.dtype.newbyteorder("="), order="C"))


def called(call, asked, operands, invalid=None):
    """The same in a program of JAX; None if there is no kernel for it."""
    fields = ("x", "where", "temperature", "sink")
    arrays = {name: on_jax(getattr(call, name)) for name in fields}
    arrays |= {"hyper": {name: on_jax(value) for name, value in call.hyper.items()}, "invalid": on_jax(invalid)}
    fixed = {name: value for name, value in arrays.items() if isinstance(value, float)}
    floats = {name: value for name, value in arrays["hyper"].items() if isinstance(value, float)}
    arrays = {name: value for name, value in arrays.items() if name not in fixed}
    arrays["hyper"] = {name: value for name, value in arrays["hyper"].items() if name not in floats}

    @jax.jit
    def program(arrays, operands):
        targets = asked.targets
        if targets is not None:
            weight = None if targets.weight is None else operands[1]
            targets = replace(targets, y=operands[0], weight=weight)
        traced = call._replace(**{**fixed, **arrays, "hyper": {**floats, **arrays["hyper"]}})
        return kernels.computed(traced, replace(asked, targets=targets), operands)

    found = program(arrays, [on_jax(operand) for operand in operands])
    return None if found is None else [np.asarray(one) for one in found]


def assert_same(got, wanted, note):
    assert (got is None) == (wanted is None), note
    for one, other in zip(got or [], wanted or [], strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape, note
        assert same_bits(one, other), note


def float32_numbers(sample):
    """The sample with the arrays of parameters that JAX has without x64."""
    rounded = {
        key: np.asarray(value, np.float32).astype(np.float64)
        for key, value in sample.arguments.items()
        if key in ("temperature", "sink", "alpha") and np.ndim(value)
    }
    return replace(sample, arguments={**sample.arguments, **rounded})


def samples(map_, task, has_x64, count=SOME):
    place = CALLS.index((map_, task))
    for seed in range(count):
        sample = drawn((place, 77, seed), map_, task, lengths=(1, 2, 5, 16, 33, 100))
        if has_x64:
            yield sample
        elif sample.dtype != "float64" and sample.x.dtype.itemsize < 8:
            yield float32_numbers(sample)


def as_jax_has_it(results, has_x64):
    """What NumPy computed, in the dtypes that JAX has."""
    if has_x64 or results is None:
        return results
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    with np.errstate(all="ignore"):
        return [one.astype(narrow.get(one.dtype, one.dtype)) for one in results]


@pytest.mark.parametrize(("map_", "task"), EACH)
def test_a_program_computes_the_bits_of_numpy(map_, task, has_x64):
    for sample in samples(map_, task, has_x64):
        if not has_x64:
            sample.arguments.pop("weight", None)
        call, asked, operands = posed(sample)
        wanted = calls.computed(call, asked, operands, None)
        assert wanted is not None, sample
        assert_same(called(call, asked, operands), as_jax_has_it(wanted, has_x64), sample)


@pytest.mark.parametrize(("map_", "task"), WITH_GRADIENTS)
def test_gradients_of_losses_have_the_bits_of_numpy(map_, task, x64):
    rng = np.random.default_rng(5)
    for sample in samples(map_, task, True):
        call, asked, operands = posed(sample)
        scale = rng.normal(size=call.batch) * (rng.random(call.batch) < 0.8)
        asked, operands = replace(asked, method="gradient"), [*operands, scale]
        wanted = calls.computed(call, asked, operands, None)
        assert_same(called(call, asked, operands), wanted, sample)


@pytest.mark.parametrize("task", ["value", "winner", "vjp", "jvp"])
def test_maxout_computes_the_bits_of_numpy(task, x64):
    for seed in range(12):
        x, g, t, arguments, note = drawn_maxout((7, seed))
        groups = sx.maxout._read(x, **{"pieces": None, **arguments})
        call = sx.maxout._split_call(groups)
        operands = {"vjp": [g.reshape(call.batch)], "jvp": [np.reshape(t, groups.call.x.shape)]}.get(task, [])
        if task == "jvp":
            operands = [sx.maxout._grouped(groups, operands[0])]
        asked = Asked(task, sx.maxout)
        operands = [operand.astype(call.dtype) for operand in operands]
        assert_same(called(call, asked, operands), calls.computed(call, asked, operands, None), note)
