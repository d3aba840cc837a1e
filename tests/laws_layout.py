"""Laws of NumPy calls: `out`, strides, byte order, inputs left alone, and bits that depend on the row alone."""

from __future__ import annotations

import numpy as np
import pytest

import hard_rows
from frameworks import numpy_dtype
from lawbook import assert_same_bits, is_simplex, law, same_bits

NUMPY_ONLY = ("numpy", "numpy formulas")
METHODS = (None, "vjp", "jvp", "smooth_max", "residual", "loss")


def results(case, x, y, axis=-1, **arguments):
    """What every method makes of an array; y serves as cotangent, tangent and target."""
    one = [
        case.map(x, axis=axis, **arguments),
        case.map.vjp(x, y, axis=axis, **arguments),
        case.map.jvp(x, y, axis=axis, **arguments),
    ]
    if is_simplex(case.name):
        one.append(case.map.residual(x, y, axis=axis, **arguments))
        one.append(case.map.smooth_max(x, axis=axis, **arguments))
        one.append(case.map.loss(x, y, axis=axis, reduction="none", **arguments))
        one.append(case.map.support_size(x, axis=axis, **arguments))
    return one


def layouts(array):
    """The same numbers, lying differently in memory."""
    yield "Fortran order", np.asfortranarray(array)
    yield "transposed", np.ascontiguousarray(array.T).T
    wide = np.zeros((array.shape[0], 2 * array.shape[1]), array.dtype)
    wide[:, ::2] = array
    yield "every other column", wide[:, ::2]
    tall = np.zeros((3 * array.shape[0], array.shape[1]), array.dtype)
    tall[::3] = array
    yield "every third row", tall[::3]
    yield "negative strides", array[::-1, ::-1].copy()[::-1, ::-1]
    room = np.zeros(array.nbytes + 1, np.uint8)
    room[1:] = np.frombuffer(array.tobytes(), np.uint8)
    yield "unaligned", room[1:].view(array.dtype).reshape(array.shape)
    frozen = array.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    if array.dtype.kind == "f":
        yield "foreign byte order", array.astype(array.dtype.newbyteorder())


@law(only=NUMPY_ONLY)
def layout_changes_no_bits(case):
    x = hard_rows.plain(case.dtype, (6, 9), scale=3)
    y = np.abs(hard_rows.plain(case.dtype, (6, 9), seed=5))
    for hyper in case.few(9):
        wanted = results(case, x, y, **hyper)
        assert all(np.any(part) for part in wanted)
        for label, other in layouts(x):
            for target in (y, dict(layouts(y))[label]):
                for got, expected in zip(results(case, other, target, **hyper), wanted, strict=True):
                    assert got.dtype.isnative
                    assert_same_bits(got, expected, label)
        for got, expected in zip(
            results(case, np.broadcast_to(x[0], x.shape), np.broadcast_to(y[0], y.shape), **hyper), wanted, strict=True
        ):
            assert_same_bits(got[3], expected[0], "broadcast")


def mixed_batch(case, size):
    """Rows of every kind side by side, so that a short cut taken for all rows or none shows in the bits."""
    rows = [row for _, batch in case.batches() if batch.shape[1] == size for row in batch]
    bad = np.zeros(size)
    bad[1] = np.nan
    low = np.zeros(size)
    low[1:] = -np.inf
    ties = np.zeros(size)
    ties[::2] = 1
    extra = [bad, low, -low, ties, np.full(size, -np.inf), np.full(size, np.inf)]
    return np.stack([*rows, *(np.asarray(row).astype(numpy_dtype(case.dtype)) for row in extra)])


@law(only=NUMPY_ONLY, dtypes=("float64", "float16"))
def a_rows_bits_depend_on_that_row_alone(case):
    for size in (3, hard_rows.SIZE):
        x = mixed_batch(case, size)
        y = np.abs(hard_rows.plain(case.dtype, x.shape, seed=6))
        for hyper in case.few(size):
            together = results(case, x, y, **hyper)
            flipped = results(case, x[::-1], y[::-1], **hyper)
            along = results(case, x.T, y.T, axis=0, **hyper)
            for place in range(len(x)):
                alone = results(case, x[place], y[place], **hyper)
                for method, (one, wanted) in enumerate(zip(alone, together, strict=True)):
                    note = f"{METHODS[method] if method < 6 else 'support_size'} {hyper} of {x[place]}"
                    assert same_bits(one, wanted[place]), f"alone, {note}: {one} {wanted[place]}"
                    assert same_bits(flipped[method][len(x) - 1 - place], wanted[place]), f"flipped, {note}"
                    across = along[method]
                    across = across[:, place] if across.ndim == 2 else across[place]
                    assert same_bits(across, wanted[place]), f"other axis, {note}"


@law(only=NUMPY_ONLY)
def bits_survive_masks_sinks_and_parameters_of_other_rows(case):
    size = 8
    x = mixed_batch(case, size)
    rng = np.random.default_rng(8)
    where = rng.random(x.shape) < 0.7
    where[0], where[1] = True, False
    y = np.abs(hard_rows.plain(case.dtype, x.shape, seed=6))
    columns = {
        "temperature": rng.choice([0.25, 1.0, 1.7], (len(x), 1)),
        "sink": rng.choice([-np.inf, 0.0, 2.0], (len(x), 1)),
    }
    if case.name.endswith("softmin"):
        columns["sink"] = -columns["sink"]
    for key, values in {
        "entmax": {"alpha": [1.0, 1.000001, 1.5, 2.0, 3.0, np.inf]},
        "normmax": {"alpha": [1.5, 2.0, 5.0]},
        "budget": {"budget": [0.5, 1.0, 2.0, 3.5]},
    }.get(case.name, {}).items():
        columns[key] = np.resize(values, (len(x), 1))
    together = results(case, x, y, where=where, **columns)
    for place in range(len(x)):
        own = {key: column[place] for key, column in columns.items()}
        alone = results(case, x[place], y[place], where=where[place], **own)
        for method, (one, wanted) in enumerate(zip(alone, together, strict=True)):
            assert same_bits(one, wanted[place]), f"method {method} {own} of {x[place]}: {one} {wanted[place]}"


@law(only=NUMPY_ONLY)
def the_number_of_rows_changes_no_bits(case):
    """Long rows and many of them: blocked sums and buffers must not be cut by the batch."""
    rng = np.random.default_rng(12)
    x = (rng.normal(size=(40, 1031)) * 2).astype(numpy_dtype(case.dtype))
    g = rng.normal(size=x.shape).astype(x.dtype)
    for hyper in case.few(1031)[:2]:
        for function in (case.map, lambda part, **more: case.map.vjp(part, g[: len(part)], **more)):
            wanted = function(x, **hyper)
            for count in (1, 2, 7, 39):
                assert same_bits(function(x[:count], **hyper), wanted[:count]), f"{count} rows"
        assert same_bits(case.map(x.T, axis=0, **hyper), case.map(x, **hyper).T)
        assert same_bits(case.map(np.asfortranarray(x), **hyper), case.map(x, **hyper))


@law(only=NUMPY_ONLY)
def inputs_are_never_written(case):
    x, g = hard_rows.plain(case.dtype, (4, 6)), hard_rows.plain(case.dtype, (4, 6), seed=9)
    where = np.random.default_rng(0).random((4, 6)) < 0.8
    temperature, sink, weight = np.full((4, 1), 0.5), np.zeros((4, 1)), np.full(6, 0.5)
    given = (x, g, where, temperature, sink, weight)
    before = [array.tobytes() for array in given]
    shared = {"where": where, "temperature": temperature, "sink": sink}
    for hyper in case.few(3):
        for empty in ("zero", "nan"):
            case.map(x, empty=empty, **shared, **hyper)
            case.map.vjp(x, g, wrt=("x", "temperature", "sink"), empty=empty, **shared, **hyper)
            case.map.jvp(x, g, empty=empty, **shared, **hyper)
            case.map.jacobian(x, **shared, **hyper)
            if is_simplex(case.name):
                case.map.smooth_max(x, **shared, **hyper)
                case.map.residual(x, np.abs(g), **shared, **hyper)
                if hyper.get("budget", 1) == 1:
                    case.map.loss(x, np.abs(g), weight=weight, label_smoothing=0.1, **shared, **hyper)
    assert [array.tobytes() for array in given] == before


@law(only=NUMPY_ONLY)
def results_are_fresh_arrays(case):
    """Writing into a result must not change the input or a later result."""
    x = hard_rows.plain(case.dtype, (3, 6))
    for hyper in case.few(6):
        first = case.map(x, **hyper)
        wanted = first.copy()
        assert first.flags.writeable and not np.shares_memory(first, x)
        first[...] = 7
        assert_same_bits(case.map(x, **hyper), wanted)


@law(only=NUMPY_ONLY)
def out_takes_the_result(case):
    x = hard_rows.plain(case.dtype, (5, 6))
    for hyper in case.few(6):
        wanted = case.map(x, **hyper)
        for label, place in [
            ("fresh", np.empty_like(x)),
            ("Fortran", np.empty_like(x, order="F")),
            ("strided", np.empty((5, 12), x.dtype)[:, ::2]),
            ("reversed", np.empty_like(x)[::-1, ::-1]),
        ]:
            place[...] = 3
            got = case.map(x, out=place, **hyper)
            assert got is place, label
            assert_same_bits(place.copy(), wanted, label)
        itself = x.copy()
        assert case.map(itself, out=itself, **hyper) is itself
        assert_same_bits(itself, wanted, "in place")
        scalar = np.empty((), x.dtype)
        if hyper.get("budget", 1) <= 1:
            assert case.map(x[0, 0], out=scalar, **hyper) is scalar and scalar == case.map(x[0, 0], **hyper)


@law(only=NUMPY_ONLY)
def out_may_overlap_x(case):
    size = 6
    for hyper in case.few(size):
        room = hard_rows.plain(case.dtype, (8, size))
        for source, target in (
            (slice(0, 6), slice(2, 8)),
            (slice(2, 8), slice(0, 6)),
            (slice(0, 8), slice(None, None, -1)),
        ):
            memory = room.copy()
            wanted = case.map(memory[source].copy(), **hyper)
            case.map(memory[source], out=memory[target], **hyper)
            assert_same_bits(memory[target].copy(), wanted, f"{source} into {target}")
        square = hard_rows.plain(case.dtype, (size, size))
        wanted = case.map(square.copy(), **hyper)
        case.map(square, out=square.T, **hyper)
        assert_same_bits(np.ascontiguousarray(square.T), wanted, "transposed")
        memory = room.copy()
        wanted = case.map(memory, axis=0, **hyper) if hyper.get("budget", 0) <= 8 else None
        case.map(memory, axis=0, out=memory, **hyper)
        assert_same_bits(memory, wanted, "in place along axis 0")


@law(only=NUMPY_ONLY)
def out_must_fit(case):
    x = hard_rows.plain(case.dtype, (3, 6))
    hyper = case.few(3)[0]
    other = np.float32 if case.dtype != "float32" else np.float64
    with pytest.raises((TypeError, ValueError), match=str(np.dtype(other))):
        case.map(x, out=np.empty((3, 6), other), **hyper)
    with pytest.raises(ValueError, match=r"\(6, 3\)"):
        case.map(x, out=np.empty((6, 3), x.dtype), **hyper)
    with pytest.raises((TypeError, ValueError)):
        case.map(x, out=[[0.0] * 6] * 3, **hyper)
    frozen = np.zeros_like(x)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only|writ"):
        case.map(x, out=frozen, **hyper)
    assert not np.any(frozen)


@law(only=NUMPY_ONLY)
def dtype_casts_first(case):
    x = hard_rows.plain("float64", (3, 6))
    for hyper in case.few(3):
        wanted = case.map(x.astype(case.np_dtype), **hyper)
        for name in {case.np_dtype, *([case.dtype] if case.dtype != "bfloat16" else [])}:
            assert_same_bits(case.map(x, dtype=name, **hyper), wanted, str(name))
            assert_same_bits(case.map(x.tolist(), dtype=name, **hyper), wanted, "a list")
            assert_same_bits(case.map(x, dtype=name, out=np.empty(x.shape, case.np_dtype), **hyper), wanted, "out")
        assert_same_bits(
            case.map.vjp(x, x, dtype=case.np_dtype, **hyper), case.map.vjp(x.astype(case.np_dtype), x, **hyper), "vjp"
        )


@law(only=NUMPY_ONLY, dtypes=("float64",))
def integers_lists_and_scalars_are_float64(case):
    for hyper in case.few(3):
        wanted = case.map(np.array([[1.0, 0.0, 3.0], [2.0, 2.0, 0.0]]), **hyper)
        for given in (
            [[1, 0, 3], [2, 2, 0]],
            ((1.0, 0.0, 3.0), (2.0, 2.0, 0.0)),
            *(np.array([[1, 0, 3], [2, 2, 0]], kind) for kind in "bBhHiIqQ"),
        ):
            assert_same_bits(case.map(given, **hyper), wanted, str(given))
        booleans = case.map(np.array([True, False, True]), **hyper)
        assert_same_bits(booleans, case.map([1.0, 0.0, 1.0], **hyper), "booleans")
        assert_same_bits(case.map([True, False, True], **hyper), booleans, "a list of booleans")
    for hyper in case.few(1):
        one = np.float64(0.0 if case.is_log else min(1, hyper.get("budget", 1)))
        for scalar in (3, 2.5, True, np.float64(7), np.array(3), np.float32(2)):
            got = case.map(scalar, **hyper)
            assert np.shape(got) == () and got == one
            assert got.dtype == (np.float32 if isinstance(scalar, np.float32) else np.float64)
            assert case.map.vjp(scalar, 1.0, **hyper) == 0
    assert case.map([], **({"budget": 0} if case.name == "budget" else {})).shape == (0,)
