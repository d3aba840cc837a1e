"""Laws of refusal: the exception's type, and that its message names what was given and what is allowed."""

from __future__ import annotations

import re

import numpy as np
import pytest

import hard_rows
from lawbook import is_simplex, law

NUMPY_ONLY = ("numpy",)


def refuses(function, *arguments, error=ValueError, says=(), **more):
    """A call that must raise, with every one of some words in its message."""
    with pytest.raises(error) as caught:
        function(*arguments, **more)
    message = str(caught.value)
    for word in (says,) if isinstance(says, str) else says:
        assert re.search(word, message), f"{message!r} does not say {word!r}"


def usual(case):
    return case.few(3)[0]


@law(only=("numpy", "array_api_strict"))
def bad_axes_are_refused(case):
    x, hyper, axis_error = case.array(np.zeros((2, 3))), usual(case), np.exceptions.AxisError
    for function in (case.map, lambda x, **more: case.map.vjp(x, x, **more), case.map.jacobian):
        refuses(function, x, axis=2, error=axis_error, says=("2", "dimension"), **hyper)
        refuses(function, x, axis=-3, error=axis_error, says="-3", **hyper)
        refuses(function, x, axis=(0, 5), error=axis_error, says="5", **hyper)
        refuses(function, x, axis=(1, -1), says=(r"1", "twice|once|repeat|duplicate"), **hyper)
        refuses(function, x, axis=(), says=r"\(\)", **hyper)
        refuses(function, x, axis=1.0, error=TypeError, says="1.0", **hyper)
        refuses(function, x, axis="rows", error=TypeError, says="rows", **hyper)
        refuses(function, x, axis=1, dim=1, error=TypeError, says=("axis", "dim"), **hyper)
        refuses(function, x, axis=-1, dim=-1, error=TypeError, says=("axis", "dim"), **hyper)
    assert issubclass(axis_error, ValueError) and issubclass(axis_error, IndexError)


@law(only=("numpy", "array_api_strict"))
def bad_temperatures_are_refused(case):
    x, hyper = case.array(np.zeros((2, 3))), usual(case)
    for temperature in (0, 0.0, -1.0, np.inf, -np.inf, np.nan):
        says = ("temperature", re.escape(repr(float(temperature))[:4]))
        refuses(case.map, x, temperature=temperature, says=says, **hyper)
        column = case.other(np.array([[1.0], [temperature]]))
        refuses(case.map, x, temperature=column, says=says, **hyper)
        refuses(case.map.vjp, x, x, temperature=temperature, says=says, **hyper)
    for shape in ((2, 3), (3,), (3, 1), (1, 2, 1)):
        refuses(
            case.map, x, temperature=case.other(np.ones(shape)), says=("temperature", re.escape(str(shape))), **hyper
        )
    refuses(case.map, x, temperature="warm", error=TypeError, says=("temperature", "warm|str|<U"), **hyper)
    refuses(case.map, x, temperature=None, error=TypeError, says="temperature", **hyper)
    refuses(case.map, x, temperature=1j, error=TypeError, says="temperature", **hyper)


@law(only=("numpy", "array_api_strict"))
def bad_masks_sinks_and_words_are_refused(case):
    x, hyper = case.array(np.zeros((2, 3))), usual(case)
    refuses(case.map, x, where=case.other(np.ones((3, 2), bool)), says=("where", r"\(3, 2\)", r"\(2, 3\)"), **hyper)
    refuses(case.map, x, where=case.other(np.ones((1, 2, 3), bool)), says=("where", r"\(1, 2, 3\)"), **hyper)
    refuses(
        case.map,
        x,
        where=case.other(np.ones((2, 3), np.int64)),
        error=TypeError,
        says=("where", "bool", "int64"),
        **hyper,
    )
    refuses(case.map, x, sink=case.other(np.ones((2, 3))), says=("sink", r"\(2, 3\)"), **hyper)
    refuses(case.map, x, sink="low", error=TypeError, says=("sink", "low|str|<U"), **hyper)
    refuses(case.map, x, empty="none", says=("empty", "none", "zero", "nan"), **hyper)
    refuses(case.map, x, dtype="int64", error=TypeError, says=("int64", "float32"), **hyper)
    refuses(case.map, x, dtype="complex128", error=TypeError, says="complex128", **hyper)
    refuses(case.map, x, softness=1, error=TypeError, says="softness", **hyper)
    if case.name not in ("entmax", "normmax"):
        refuses(case.map, x, alpha=1.5, error=TypeError, says="alpha", **hyper)
    with pytest.raises(TypeError):
        case.map()
    with pytest.raises(TypeError):
        case.map(x, -1, 1.0)


@law(only=("numpy", "array_api_strict"), maps=lambda name: name in ("entmax", "normmax", "budget"))
def bad_hyper_parameters_are_refused(case):
    x = case.array(np.zeros((2, 3)))
    key, wrong = {
        "entmax": ("alpha", (0.99, 0, -1.0, np.nan, -np.inf)),
        "normmax": ("alpha", (1, 1.0, 0.5, np.inf, np.nan)),
        "budget": ("budget", (-0.5, 3.5, np.nan, np.inf)),
    }[case.name]
    for value in wrong:
        says = (key, re.escape(f"{float(value)}"[:4]))
        refuses(case.map, x, says=says, **{key: value})
        refuses(case.map, x, says=says, **{key: case.other(np.array([[1.5], [value]]))})
        refuses(case.map.vjp, x, x, says=says, **{key: value})
        refuses(case.map.smooth_max, x, says=says, **{key: value})
    refuses(case.map, x, says=(key, r"\(2, 3\)"), **{key: case.other(np.full((2, 3), 1.5))})
    refuses(case.map, x, error=TypeError, says=(key, "much|str|<U"), **{key: "much"})
    if case.name == "budget":
        refuses(case.map, x, error=TypeError, says="budget")
        assert case.raw(case.map(x, sink=0.0, budget=4)).shape == (2, 3)  # a sink counts
        refuses(case.map, x, sink=0.0, budget=4.5, says=("budget", "4.5"))


@law(only=("numpy", "array_api_strict"))
def bad_derivative_arguments_are_refused(case):
    x, hyper = case.array(np.zeros((2, 3))), usual(case)
    for method in ("vjp", "jvp"):
        function = getattr(case.map, method)
        refuses(function, x, case.array(np.zeros((3, 2))), says=(r"\(3, 2\)", r"\(2, 3\)"), **hyper)
        refuses(function, x, case.array(np.zeros(3)), says=(r"\(3,\)", r"\(2, 3\)"), **hyper)
        with pytest.raises(TypeError):
            function(x, **hyper)
    refuses(case.map.vjp, x, x, wrt="slope", says=("slope", "temperature"), **hyper)
    refuses(case.map.vjp, x, x, wrt=("x", "slope"), says=("slope", "temperature"), **hyper)
    refuses(case.map.vjp, x, x, wrt="sink", says="sink", **hyper)


@law(only=NUMPY_ONLY, dtypes=("float64",))
def other_dtypes_are_refused_by_name(case):
    hyper = usual(case)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    wrong = [
        np.zeros(3, np.complex128),
        np.zeros(3, np.complex64),
        np.array([1, None, "a"], object),
        np.array(["1", "2", "3"]),
        np.zeros(3, ml_dtypes.float8_e4m3fn),
        np.zeros(3, ml_dtypes.float8_e5m2),
        np.zeros(3, "M8[s]"),
        np.zeros(3, "m8[s]"),
        np.zeros(3, [("a", "f8")]),
    ]
    if np.dtype(np.longdouble) != np.dtype(np.float64):
        wrong.append(np.zeros(3, np.longdouble))
    for x in wrong:
        name = re.escape(
            {"O": "object", "U": "str|<U", "M": "datetime64", "m": "timedelta64", "V": "|void|float8|a"}.get(
                x.dtype.kind, x.dtype.name
            )
        ).replace(r"\|", "|")
        refuses(case.map, x, error=TypeError, says=name, **hyper)
        refuses(case.map.vjp, x, np.zeros(3), error=TypeError, says=name, **hyper)
        refuses(case.map.vjp, np.zeros(3), x, error=TypeError, says=name, **hyper)
    refuses(case.map, np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]), error=TypeError, says="[Mm]asked", **hyper)
    refuses(case.map, "abc", error=TypeError, says="str|<U", **hyper)
    refuses(case.map, None, error=TypeError, says="None", **hyper)
    refuses(case.map, [1.0, "a"], error=TypeError, **hyper)
    refuses(case.map, [1.0, None], error=TypeError, **hyper)
    refuses(case.map, [[1.0], [1.0, 2.0]], error=(TypeError, ValueError), **hyper)
    refuses(case.map, {"a": 1.0}, error=TypeError, says="dict", **hyper)


@law(only=("numpy", "array_api_strict"), maps=is_simplex)
def bad_loss_arguments_are_refused(case):
    x, hyper = (
        case.array(hard_rows.plain("float64", (2, 3))),
        {**usual(case), **({"budget": 1} if case.name == "budget" else {})},
    )
    y, soft = case.other(np.array([0, 2])), case.array(np.full((2, 3), 1 / 3))
    loss, residual = case.map.loss, case.map.residual
    for function in (loss, residual):
        refuses(function, x, case.other(np.array([0, 3])), error=IndexError, says="3", **hyper)
        refuses(function, x, case.other(np.array([-1, 0])), error=IndexError, says="-1", **hyper)
        refuses(function, x, case.other(np.array([0, 1, 2])), says=r"\(3,\)", **hyper)
        refuses(function, x, case.array(np.zeros((3, 2))), says=r"\(3, 2\)", **hyper)
        refuses(function, x, case.other(np.zeros((2, 3), np.complex128)), error=TypeError, says="complex128", **hyper)
        refuses(function, x, case.other(np.zeros(2, bool)), error=TypeError, says="bool", **hyper)
    refuses(loss, x, case.other(np.array([0, -100])), error=IndexError, says="-100", **hyper)
    refuses(loss, x, y, reduction="average", says=("reduction", "average", "mean", "sum", "none"), **hyper)
    for ignored in ("a", 1.0, True):
        refuses(loss, x, y, ignore_index=ignored, error=TypeError, says=("ignore_index", str(ignored)), **hyper)
    for smoothing in (-0.1, 1.5, np.nan):
        refuses(loss, x, y, label_smoothing=smoothing, says=("label_smoothing", str(smoothing)), **hyper)
    refuses(loss, x, y, weight=case.array(np.ones(4)), says=("weight", r"\(4,\)", "3"), **hyper)
    refuses(loss, x, soft, weight=case.array(np.ones((2, 3))), says=("weight", r"\(2, 3\)"), **hyper)
    if case.name == "budget":
        refuses(loss, x, y, budget=2, says=("budget", "1"))


@law(only=NUMPY_ONLY, dtypes=("float64",), maps=lambda name: not is_simplex(name))
def log_maps_have_values_and_derivatives_only(case):
    x = np.zeros((2, 3))
    for method, more in (
        ("loss", (x,)),
        ("residual", (x,)),
        ("regularizer", ()),
        ("smooth_max", ()),
        ("support_size", ()),
    ):
        refuses(getattr(case.map, method), x, *more, error=TypeError, says=(case.name, method))


@law(only=("dask",), lazy=True)
def numbers_that_cannot_be_seen_make_nan_rows(case):
    """A lazy parameter out of range cannot be refused: its rows are NaN, never a plausible wrong weight."""
    x = hard_rows.plain(case.dtype, (3, 4))
    hyper = case.few(4)[0]
    column = np.array([[1.0], [np.nan], [0.0]])
    got = case.call(x, temperature=case.other(column), **hyper)
    assert np.all(np.isnan(got[1:])) and np.all(np.isfinite(got[0])) and np.any(got[0])
    key, wrong = {"entmax": ("alpha", 0.5), "normmax": ("alpha", 1.0), "budget": ("budget", 9.0)}.get(
        case.name, (None, None)
    )
    if key:
        got = case.call(x, **{key: case.other(np.array([[1.5], [wrong], [2.0]]))})
        assert np.all(np.isnan(got[1])) and np.all(np.isfinite(got[[0, 2]])) and np.any(got[[0, 2]])


@law(only=("dask", "jax in 32 bit"), lazy=True)
def lazy_values_and_derivatives_are_accurate(case):
    """A row of each kind, with everything that a call can be given; nothing is computed before it is asked for."""
    x = np.array([[0.3, -1.0, 2.0, 0.5], [1.0, 1.0, 1.0, 1.0], [0.0, -40.0, 3.0, 2.5], [np.nan, 1.0, 0.5, 0.0]])
    g = case.rounded(hard_rows.plain("float64", x.shape))
    where = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    column = np.array([[0.5], [1.0], [2.0], [1.0]])
    hyper = case.few(3)[-1]
    rows = case.rows(x, where=where, temperature=column, sink=0.25, **hyper)
    given = {"where": case.other(where), "temperature": case.other(column), "sink": 0.25, **hyper}
    got = case.map(case.array(x), **given)
    assert case.framework.is_array(got)
    case.assert_values(case.numbers(got), rows, temperature=True)
    for method in ("vjp", "jvp"):
        found = case.call(x, g, method=method, **given)
        for place, row in enumerate(rows):
            case.assert_linear(
                found[place], getattr(row, method)(g[place]), row, g[place], temperature=True, kind=method
            )


@law(only=("dask",), lazy=True, maps=is_simplex)
def lazy_losses_are_accurate(case):
    x, y = hard_rows.plain(case.dtype, (3, 4)), np.array([2, 0, -1])
    hyper = {"budget": 1} if case.name == "budget" else case.few(3)[0]
    got = case.numbers(case.map.loss(case.array(x), case.other(y), reduction="none", ignore_index=-1, **hyper))
    for value, row, target in zip(got[:2], case.rows(x[:2], **hyper), y, strict=False):
        wanted = float(row.loss(int(target)))
        assert abs(value - wanted) <= 64 * np.finfo(case.np_dtype).eps * max(wanted, 1)
    assert got[2] == 0
    mean = case.numbers(case.map.loss(case.array(x), case.other(y), ignore_index=-1, **hyper))
    assert abs(mean - got[:2].mean()) <= 4 * np.finfo(case.np_dtype).eps * mean
