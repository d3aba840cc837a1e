"""The kernels within programs of JAX: the bits that NumPy's calls have, and refusals where a frame is wrong."""

import threading
from dataclasses import replace

import numpy as np
import pytest

import softplex as sx
from lawbook import same_bits
from native_samples import CALLS, LOSSES, drawn, drawn_maxout
from softplex.core.arguments import read
from softplex.core.call import Asked
from softplex.core.targets import read_targets
from softplex.native import calls, cpu, reason

pytest.importorskip("jax", reason="JAX is not installed")
pytestmark = pytest.mark.skipif(cpu is None, reason=reason)

from frameworks import load_jax, with_64_bit  # noqa: E402
from softplex.backends.jax import kernels  # noqa: E402

jax = load_jax()

EACH = [pytest.param(*call, id=f"{call[0].__name__} {call[1]}") for call in CALLS]
WITH_GRADIENTS = [each for each in EACH if each.values[1] in LOSSES]
SOME = 8


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def has_x64(request):
    with with_64_bit(request.param):
        yield request.param


@pytest.fixture
def x64():
    with with_64_bit(True):
        yield


# -- calls as NumPy checks them, with JAX's arrays in them ----------------------------------------------------------


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
    return call, Asked(sample.task.partition(" of ")[0], map_.formula, targets), operands


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
        if "weight" in sample.arguments:
            sample.arguments.pop("temperature", None)  # else NumPy rounds twice in another order
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


def test_a_gradient_without_x64_keeps_the_division_in_float64():
    """A scale by a temperature is rounded to float32 once."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(40, 7)).astype(np.float32), rng.integers(0, 7, 40)
    scale = rng.normal(size=40).astype(np.float32).astype(np.float64)
    call = read("softmin", sx.softmin.formula, x, temperature=0.3)
    asked = Asked("gradient", sx.softmin.formula, read_targets(call, y))
    wanted = calls.computed(call, asked, [y, scale], None)
    with with_64_bit(False):
        got = called(call, asked, [y.astype(np.int32), scale.astype(np.float32)])
    assert_same(got, wanted, "softmin")


def value_of(map_, x, axis=-1, **options):
    """A value in a program, `options` being as in a call."""
    numbers = {name: options.pop(name) for name in ("temperature", "alpha") if name in options}
    call = read("map", map_.formula, x, axis, **options)
    call = call._replace(temperature=numbers.pop("temperature", 1.0), hyper={**call.hyper, **numbers})
    return called(call, Asked("value", map_.formula), [])[0]


def test_subnormal_weights_are_not_flushed(x64):
    for dtype, far in (("float32", -95.0), ("float16", -14.0), ("float64", -730.0)):
        x = np.array([[0.0, far, 1.0]], dtype)
        wanted = sx.softmax(x)
        assert 0.0 < wanted[0, 1] < np.finfo(dtype).smallest_normal
        assert same_bits(value_of(sx.softmax, x), wanted)


def test_numbers_arrive_exactly(has_x64):
    x = np.array([[0.5, 0.25, 0.125, -3.0]], np.float32)
    for temperature in (0.1, 1 / 3, 1e-3, 1e30):  # also where one program serves all numbers
        for options in ({"temperature": temperature}, {"sink": temperature}):
            assert same_bits(sx.softmax(jax.numpy.asarray(x), **options), sx.softmax(x, **options))
    for temperature in (0.1, 1e-3, np.nextafter(1.0, 2.0), 5e-324, 1e308, 1 / 3):
        assert same_bits(value_of(sx.softmax, x, temperature=temperature), sx.softmax(x, temperature=temperature))
    for alpha in (1.0, 1.0 + 1e-9, 1.7, np.inf):
        assert same_bits(value_of(sx.entmax, x, alpha=alpha), sx.entmax(x, alpha=alpha))
    for sink in (-0.0, 0.1, -np.inf, np.inf, np.nan):
        assert same_bits(value_of(sx.softmax, x, sink=sink), sx.softmax(x, sink=sink))


def test_empty_rows_and_nan_rows_stay_apart(has_x64):
    x = np.array([[1.0, np.nan, 2.0], [-np.inf] * 3, [0.0, 1.0, 2.0], [np.inf, 0.0, 0.0]], np.float32)
    where = np.array([True, False, True])
    for map_ in (sx.softmax, sx.log_softmax, sx.sparsemax):
        for options in ({}, {"where": where}, {"where": where, "empty": "nan"}, {"sink": 0.5, "empty": "nan"}):
            assert same_bits(value_of(map_, x, **options), map_(x, **options)), (map_, options)


# -- what cannot be looked at ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_", [sx.softmax, sx.sparsemax, sx.log_softmax], ids=repr)
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_not_allowed_makes_its_rows_nan(map_, bad, has_x64):
    x = np.random.default_rng(1).normal(size=(3, 6, 2)).astype(np.float32)
    where = np.array([True, True, False, True, True, True])[:, None]
    temperature = np.array([0.5, bad, 2.0])[:, None, None]
    got = value_of(map_, x, axis=1, where=where, temperature=temperature)
    wanted = map_(x, axis=1, where=where, temperature=np.where(temperature == 0.5, 0.5, 2.0))
    assert same_bits(got[[0, 2]], wanted[[0, 2]])
    assert np.isnan(got[1, where[:, 0]]).all() and same_bits(got[1, 2], wanted[1, 2])


@pytest.mark.parametrize("bad", [0.5, np.nan, -np.inf])
def test_an_alpha_that_is_not_allowed_makes_its_rows_nan(bad, has_x64):
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    got = value_of(sx.entmax, x, axis=0, alpha=np.array([[1.25, bad, 3.0]]))
    assert np.isnan(got[:, 1]).all()
    assert same_bits(got[:, ::2], sx.entmax(x, axis=0, alpha=np.array([[1.25, 1.0, 3.0]]))[:, ::2])


def test_invalid_rows_are_nan_for_every_method(has_x64):
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(2, 4, 3, 5)).astype(np.float32), rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    where = rng.random((4, 1, 5)) < 0.7
    where[:, :, 0] = True
    invalid = np.array([[[False], [True], [False]]])[None]
    y = np.abs(t) / np.abs(t).sum(axis=(1, 3), keepdims=True)
    for method in ("value", "vjp", "jvp", "residual", "loss", "support_size"):
        call = read("softmax", sx.softmax.formula, x, (1, 3), where=where)
        operands = {"vjp": [t], "jvp": [t], "residual": [y], "loss": [y]}.get(method, [])
        targets = read_targets(call, y) if method in ("residual", "loss") else None
        asked = Asked(method, sx.softmax.formula, targets)
        got, plain = called(call, asked, operands, invalid)[0], called(call, asked, operands)[0]
        is_bad = np.zeros(x.shape if got.ndim == 4 else call.batch, bool)
        if got.ndim == 4:
            is_bad[:, :, 1] = np.broadcast_to(where, x.shape)[:, :, 1]
        else:
            is_bad[:, 1] = True
        assert same_bits(got[~is_bad], plain[~is_bad]), method
        if method == "support_size":
            count = np.broadcast_to(where, x.shape)[:, :, 1].sum(axis=(1, 2))
            assert np.array_equal(got[:, 1], count)
        else:
            assert np.isnan(got[is_bad]).all(), method


WRONG = [-1, 4, -(2**31), 2**31 - 1]


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "uint32"])
@pytest.mark.parametrize("weight", [None, np.array([0.5, 0.0, 2.0, 1.0])], ids=["", "weighted"])
@pytest.mark.parametrize("ignore_index", [None, -100, 1])
def test_a_class_index_out_of_range_makes_its_row_nan(dtype, weight, ignore_index, has_x64):
    if dtype == "int64" and not has_x64:
        pytest.skip("there is no int64 without x64")
    wrong = [index for index in [*WRONG, 200, 2**32 - 100] if np.iinfo(dtype).min <= index <= np.iinfo(dtype).max]
    right = [0, 1, 2, 3]
    y = np.array([*right, *wrong], dtype)
    x = np.random.default_rng(3).normal(size=(len(y), 4)).astype(np.float32)
    call = read("softmax", sx.softmax.formula, x)
    weight = weight if weight is None else weight.astype(np.float64 if has_x64 else np.float32)
    seen = read_targets(call, np.where(np.arange(len(y)) < 4, y, 0), ignore_index=ignore_index, weight=weight)
    operands = [seen.y] if weight is None else [seen.y, weight]
    scale = np.ones(len(y), np.float32)
    for method, extra in (("loss", []), ("gradient", [scale])):
        asked = Asked(method, sx.softmax.formula, seen)
        wanted = as_jax_has_it(calls.computed(call, asked, [*operands, *extra], None), has_x64)
        got = called(call, asked, [y, *operands[1:], *extra])
        assert same_bits(got[0][:4], wanted[0][:4]), method
        assert np.isnan(got[0][4:]).all(), method
    asked = Asked("residual", sx.softmax.formula, read_targets(call, seen.y))
    got = called(call, asked, [y])[0]
    assert np.isnan(got[4:]).all() and same_bits(got[:4], sx.softmax.residual(x, seen.y)[:4])


def test_a_row_with_scale_0_has_no_gradient_whatever_it_holds(x64):
    x, y = np.array([[np.nan, 1.0], [1.0, 2.0]], np.float32), np.array([0, 7])
    call = read("softmax", sx.softmax.formula, x)
    asked = Asked("gradient", sx.softmax.formula, read_targets(call, np.array([0, 0])))
    assert same_bits(called(call, asked, [y, np.zeros(2)])[0], np.zeros((2, 2), np.float32))


# -- declining ---------------------------------------------------------------------------------------------------------


def test_what_has_no_kernel_is_declined(x64):
    x, y = np.ones((2, 3), np.float32), np.full((2, 3), 1 / 3, np.float32)
    call = read("map", sx.softmax.formula, x)
    soft = read_targets(call, y, weight=np.ones(3))
    smooth = read_targets(call, np.array([0, 1]), label_smoothing=0.1)
    wide, asked = np.ones((2, 3)), Asked("value", sx.softmax.formula)
    assert called(call, asked, []) is not None
    declined = [
        (call, Asked("value", sx.normmax.formula), []),
        (call, Asked("regularizer", sx.softmax.formula), []),
        (call, Asked("vjp", sx.softmax.formula), [wide]),
        (call, Asked("loss", sx.softmax.formula, soft), [y, soft.weight]),
        (call, Asked("loss", sx.softmax.formula, smooth), [smooth.y]),
        (call, Asked("gradient", sx.softmax.formula, smooth), [smooth.y, np.ones(2)]),
        (call, Asked("cross_entropy", sx.log_softmax.formula, soft), [y, soft.weight]),
        (call._replace(x=np.ones((0, 3), np.float32)), asked, []),
        (call._replace(dtype=np.dtype(np.complex64)), asked, []),
    ]
    for each in declined:
        assert called(*each) is None, each
    with sx.kernels("none"):
        assert called(call, asked, []) is None


def test_without_a_cpu_or_with_another_version_formulas_compute(monkeypatch):
    """XLA says so when it is told of the kernels, never later."""
    call, asked = read("map", sx.softmax.formula, np.ones((2, 3), np.float32)), Asked("value", sx.softmax.formula)

    def refuse(*given, **how):
        raise RuntimeError("the handler's API version is incompatible")

    for owner, name in ((jax.ffi, "register_ffi_target"), (jax, "devices")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, refuse)
            kernels.is_available.cache_clear()
            assert called(call, asked, []) is None
    kernels.is_available.cache_clear()
    assert called(call, asked, []) is not None


def test_scores_of_another_dtype_are_cast_first(x64):
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    got = value_of(sx.softmax, x, dtype=np.float32)
    assert same_bits(got, sx.softmax(x, dtype=np.float32))


def test_vmap_and_grad_are_refused_honestly(x64):
    call = read("softmax", sx.softmax.formula, np.ones((2, 3), np.float32))

    def value(x):
        return kernels.computed(call._replace(x=x), Asked("value", sx.softmax.formula), [])[0]

    with pytest.raises(NotImplementedError, match="vmap"):
        jax.vmap(value)(np.ones((4, 2, 3), np.float32))
    with pytest.raises(ValueError, match="cannot be differentiated"):
        jax.jvp(value, (np.ones((2, 3), np.float32),), (np.ones((2, 3), np.float32),))


# -- threads -----------------------------------------------------------------------------------------------------------


def test_many_threads_call_at_once():
    rng = np.random.default_rng(4)
    shapes = [(3, 5), (300, 700), (1, 300_000)]
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    wanted = [sx.sparsemax(x) for x in inputs]

    @jax.jit
    def program(x):
        call = read("sparsemax", sx.sparsemax.formula, np.empty(x.shape, np.float32))._replace(x=x)
        return kernels.computed(call, Asked("value", sx.sparsemax.formula), [])[0]

    failures = []

    def work():
        for _ in range(10):
            for x, other in zip(inputs, wanted, strict=True):
                if not same_bits(np.asarray(program(x)), other):
                    failures.append(x.shape)

    for x in inputs:
        program(x)
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# -- wrong frames ------------------------------------------------------------------------------------------------------

X = np.ones((2, 3), np.float32)
GOOD = {"map": 0, "method": 0, "negated": 0, "axes": 0b10, "given": 0, "empty": 0}
NAMES = {name: 1 << place for place, name in enumerate(kernels.OPERANDS)}


def handed_over(attributes, *arrays, result=X, results=None):
    """A call of the handler as it is written."""
    shapes = results or jax.ShapeDtypeStruct(result.shape, result.dtype)
    found = jax.jit(lambda *given: jax.ffi.ffi_call(kernels.TARGET, shapes)(*given, **attributes))(*arrays)
    return np.asarray(found)


def wrong(match, arrays=(X,), result=X, results=None, **changes):
    given = {**{name: np.int64(value) for name, value in GOOD.items()}}
    for name, value in changes.items():
        given[name] = np.int64(value) if isinstance(value, int) else value
    given = {name: value for name, value in given.items() if value is not None}
    return match, given, arrays, result, results


ROWS, NUMBERS = np.ones(2, np.int32), np.ones((2, 1), np.float32)
FRAMES = [
    *[wrong(f"{name} is missing among the attributes", **{name: None}) for name in GOOD],
    wrong("temper is not known", temper=1),
    wrong("map is not an attribute of type int64", map=np.int32(0)),
    wrong("map is not an attribute of type int64", map=np.array([0, 0])),
    wrong("empty is not an attribute of type int64", empty=np.float64(0.0)),
    wrong("map is not known", map=6),
    wrong("map is not known", map=-1),
    wrong("method is not known", method=11),
    wrong("method is not one that this map has", method=8),
    wrong("axes names no axis", axes=0),
    wrong("axes names no axis", axes=0b100),
    wrong("axes names no axis", axes=-1),
    wrong("given names an operand that is not known", given=1 << 8),
    wrong("given names an operand that is not known", given=-1),
    wrong("more arrays than its attributes name", arrays=(X, X)),
    wrong("mask is missing among the arrays", given=NAMES["mask"]),
    wrong("more results than one", results=[jax.ShapeDtypeStruct((2, 3), np.float32)] * 2),
    wrong("x holds none of", arrays=(X.astype(np.int32),)),
    wrong("x is missing", arrays=()),
    wrong("the result has the wrong shape", result=np.ones((3, 2), np.float32)),
    wrong("the result has the wrong shape", result=np.ones(6, np.float32)),
    wrong("the result does not hold the dtype of x", result=X.astype(np.float16)),
    wrong("the result holds neither int64 nor int32", method=7, result=np.ones(2, np.float32)),
    wrong("the result holds neither float64 nor float32", method=6, given=1, arrays=(X, X), result=ROWS),
    wrong("operand is missing", method=1),
    wrong("operand has no meaning", given=NAMES["operand"], arrays=(X, X)),
    wrong("operand does not hold the dtype of x", method=1, given=1, arrays=(X, X.astype(np.float16))),
    wrong("operand has the wrong shape", method=1, given=1, arrays=(X, X[:1])),
    wrong("index holds neither", method=3, given=NAMES["index"], arrays=(X, np.ones(2, np.int16))),
    wrong("index has the wrong shape", method=3, given=NAMES["index"], arrays=(X, np.ones(3, np.int32))),
    wrong("mask does not hold booleans", given=NAMES["mask"], arrays=(X, X)),
    wrong("mask has a shape that does not fit", given=NAMES["mask"], arrays=(X, np.ones(2, bool))),
    wrong("mask has more axes than x", given=NAMES["mask"], arrays=(X, np.ones((1, 2, 3), bool))),
    wrong("temperature holds neither", given=NAMES["temperature"], arrays=(X, NUMBERS.astype(np.int16))),
    wrong("temperature has more than one number a row", given=NAMES["temperature"], arrays=(X, X)),
    wrong("both as an attribute and as an array", given=NAMES["temperature"], temperature=0, arrays=(X, NUMBERS)),
    wrong("temperature is not a number that is allowed", temperature=0),
    wrong("temperature is not a number that is allowed", temperature=-1),
    wrong("not the bits of one number", given=NAMES["temperature"], arrays=(X, ROWS[:, None])),
    wrong("temperature is not a number that is allowed", given=NAMES["temperature"], arrays=(X, np.zeros(2, np.int32))),
    wrong("alpha is not a number that is allowed", alpha=0),
    wrong("scale has no meaning", scale=0),
    wrong("scale has no meaning", gradient=1),
    wrong("invalid does not hold booleans", given=NAMES["invalid"], arrays=(X, NUMBERS)),
    wrong("invalid has more than one number a row", given=NAMES["invalid"], arrays=(X, X > 0)),
    wrong("mask has no meaning", map=5, given=NAMES["mask"], arrays=(X, X > 0), result=np.ones(2, np.float32)),
    wrong("no meaning for a mask", method=9, given=1 | NAMES["mask"], arrays=(X, X, X > 0)),
]


def test_a_right_frame_is_taken():
    assert kernels.is_available()
    assert same_bits(handed_over({name: np.int64(value) for name, value in GOOD.items()}, X), sx.softmax(X))


@pytest.mark.parametrize(("match", "attributes", "arrays", "result", "results"), FRAMES)
def test_wrong_frames_are_refused(match, attributes, arrays, result, results):
    assert kernels.is_available()
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT: softplex: .*{match}"):
        handed_over(attributes, *arrays, result=result, results=results)
