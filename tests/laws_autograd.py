"""Laws of differentiation by the frameworks: backward, forward mode, transforms, higher orders; values, not shapes.

The reference is the exact Jacobian of reference.py; second derivatives are compared with differences. How a framework
differentiates stands in autograd.py.
"""

from __future__ import annotations

import numpy as np

import hard_rows
from lawbook import is_simplex, law
from laws_derivatives import directions, parameters_of

FOLLOWED = ("torch", "torch formulas", "jax", "jax in 32 bit", "tensorflow", "tensorflow formulas")
EAGER = ("torch", "jax", "tensorflow")
CHECKED = ("torch", "jax")  # those that have checks of their own
WHOLE = ("torch", "jax")
"""Where whole tensors of second derivatives take no minutes; TensorFlow's are taken along a direction."""
SLACK = {"float64": 1, "float32": 1, "float16": 3, "bfloat16": 3}
"""In 16 bit a way back may start from the rounded weights (section 4)."""


def column(case, values, dtype="float64"):
    """One number a row."""
    return case.other(np.reshape(np.asarray(values, dtype), (-1, 1)))


def weights_of(case, **options):
    return lambda x: case.map(x, **options)


@law(only=FOLLOWED)
def backward_is_accurate(case):
    for labels, x, hypers in case.trials(case.few):
        g = directions(case, x.shape)
        for hyper in hypers:
            array = case.array(x)
            (got,) = case.autograd.vjp(weights_of(case, **hyper), (array,), case.array(g))
            assert got.dtype == array.dtype
            got = case.numbers(got)
            for place, row in enumerate(case.rows(x, **hyper)):
                case.assert_linear(
                    got[place], row.vjp(g[place]), row, g[place], slack=SLACK[case.dtype], note=labels[place]
                )


@law(only=EAGER)
def forward_mode_is_accurate(case):
    x = hard_rows.plain(case.dtype, (4, 9), scale=0.4)
    t = directions(case, x.shape, seed=8)
    for hyper in case.few(9):
        for name, jvp in case.autograd.forwards.items():
            got = case.numbers(jvp(weights_of(case, **hyper), (case.array(x),), (case.array(t),)))
            for place, row in enumerate(case.rows(x, **hyper)):
                wanted = row.jvp(t[place])
                assert any(got[place]) == any(map(float, wanted)), name
                case.assert_linear(got[place], wanted, row, t[place], kind="jvp", slack=4, note=name)


@law(only=WHOLE, dtypes=("float64",))
def transforms_give_the_jacobian(case):
    x = hard_rows.plain(case.dtype, (3, 5), scale=0.4)
    vmap = case.autograd.vmap
    for hyper in case.few(5):
        weights = weights_of(case, **hyper)
        jacobians = np.stack([case.numbers(case.map.jacobian(case.array(row), **hyper)) for row in x])
        assert np.abs(jacobians).max() > 0
        for jacobian in case.autograd.jacobians.values():
            got = case.numbers(vmap(jacobian(weights))(case.array(x)))
            np.testing.assert_allclose(got, jacobians, rtol=1e-11, atol=1e-13)
        pulled = vmap(
            lambda g, weights=weights: case.autograd.backwards[case.autograd.batched](weights, (case.array(x),), g)[0]
        )
        got = case.numbers(pulled(case.array(np.broadcast_to(np.eye(5)[:, None], (5, 3, 5)))))
        np.testing.assert_allclose(np.moveaxis(got, 0, 1), jacobians, rtol=1e-11, atol=1e-13)
        across = case.numbers(vmap(weights, 1, 1)(case.array(x)))
        np.testing.assert_allclose(across, case.numbers(case.map(case.array(x), axis=0, **hyper)), rtol=1e-12)


@law(only=WHOLE, dtypes=("float64",))
def higher_orders_agree_with_differences(case):
    x, step = hard_rows.plain(case.dtype, (5,), scale=0.4), 1e-6

    def differences(function):
        ends = [[case.numbers(function(case.array(x + side * step * e))) for side in (1, -1)] for e in np.eye(5)]
        return np.stack([(high - low) / (2 * step) for high, low in ends], -1)

    for hyper in case.few(5):
        weights = weights_of(case, **hyper)
        jacobian = lambda row, hyper=hyper: case.map.jacobian(row, **hyper)  # noqa: E731
        second = differences(jacobian)
        of_one = next(iter(case.autograd.jacobians.values()))
        ways = {name: way(weights) for name, way in case.autograd.seconds.items()}
        for name, way in {**ways, "of the jacobian": of_one(jacobian)}.items():
            got = case.numbers(way(case.array(x)))
            np.testing.assert_allclose(got, second, rtol=1e-6, atol=1e-7, err_msg=name)
        third = differences(next(iter(case.autograd.seconds.values()))(weights))
        for name, way in case.autograd.thirds.items():
            got = case.numbers(way(weights)(case.array(x)))
            np.testing.assert_allclose(got, third, rtol=1e-5, atol=1e-6, err_msg=name)


@law(only=CHECKED, dtypes=("float64",))
def autograd_checks_pass_in_all_arguments(case):
    """The framework's own checks, both orders and modes, with a mask, a sink, temperatures and hyper-parameters."""
    x = case.array(hard_rows.plain(case.dtype, (3, 4), scale=0.15))
    where = case.other(np.random.default_rng(1).random((3, 4)) < 0.8)
    parameters = {
        name: column(case, np.maximum(v, 1.2) if name == "alpha" else v) for name, v in parameters_of(case).items()
    }

    def weights(x, *values):
        p = case.map(x, where=where, **dict(zip(parameters, values, strict=True)))
        return case.autograd.where(where, p, 0.0)

    case.autograd.check(weights_of(case, **case.few(5)[0]), (x,))
    case.autograd.check(weights, (x, *parameters.values()))


@law(only=CHECKED, dtypes=("float64",))
def second_derivatives_know_numbers_and_sinks(case):
    """What a layer gives: temperature, sink and hyper-parameters as plain numbers."""
    x = case.array(hard_rows.plain(case.dtype, (2, 5), scale=0.2))
    given = [{"temperature": 0.7}, {"sink": 0.1}, {"temperature": 1.7, "sink": -0.2}]
    hypers = case.few(5)
    for number in range(max(len(given), len(hypers))):
        options, hyper = given[number % len(given)], hypers[number % len(hypers)]
        case.autograd.check(weights_of(case, **options, **hyper), (x,))


@law(only=FOLLOWED, dtypes=("float64",), maps=is_simplex)
def losses_have_their_gradients_under_all_options(case):
    """Temperatures, masks, class weights, smoothing: against differences of the losses."""
    x, weight = hard_rows.plain(case.dtype, (3, 5), scale=0.2), np.linspace(0.5, 2.0, 5)
    mask = np.array([[True] * 5, [True, True, False, True, True], [True] * 5])
    spread = np.exp(np.linspace(-1, 1, 15).reshape(3, 5))
    spread = np.where(mask, spread / spread.sum(-1, keepdims=True), 0.0)
    where = case.other(mask)
    hyper = {"budget": 1.0} if case.name == "budget" else {}
    step = 1e-6
    for y in (case.other(np.array([1, 0, 4])), case.array(spread)):
        for options in (
            {"temperature": 0.7},
            {"temperature": column(case, [0.5, 1.0, 2.0]), "where": where},
            {"temperature": 1.3, "label_smoothing": 0.2, "where": where},
            {"temperature": 0.6, "weight": weight},
        ):
            given = {"x": x, **{name: options[name] for name in ("weight",) if name in options}}

            def loss(*arrays, y=y, options=options, names=tuple(given)):
                known = dict(zip(names, arrays, strict=True))
                return case.map.loss(known.pop("x"), y, **{**options, **known}, **hyper)

            arrays = [case.array(values) for values in given.values()]
            gradients = case.autograd.vjp(loss, arrays, case.array(1.0))
            for which, (name, values) in enumerate(given.items()):
                wanted = np.zeros_like(values)
                for place in np.ndindex(values.shape):
                    ends = []
                    for side in (1, -1):
                        moved = values.copy()
                        moved[place] += side * step
                        again = [case.array(moved) if n == which else array for n, array in enumerate(arrays)]
                        ends.append(float(case.numbers(loss(*again))))
                    wanted[place] = (ends[0] - ends[1]) / (2 * step)
                got = case.numbers(gradients[which])
                np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7, err_msg=f"{name} under {options}")
                assert np.abs(got).max() > 0 or name == "weight"


@law(only=FOLLOWED, dtypes=("float64", "float32"))
def parameters_get_their_gradients(case):
    """A backward pass gives what a vjp by name gives."""
    x = hard_rows.plain(case.dtype, (3, 9), scale=0.15)
    g = directions(case, x.shape)
    parameters = {name: column(case, values, case.dtype) for name, values in parameters_of(case).items()}
    names = ("x", *parameters)

    def weights(x, *values):
        return case.map(x, **dict(zip(parameters, values, strict=True)))

    found = case.autograd.vjp(weights, (case.array(x), *parameters.values()), case.array(g))
    wanted = case.map.vjp(case.array(x), case.array(g), wrt=names, **parameters)
    for name, got, expected in zip(names, found, wanted, strict=True):
        got, expected = case.numbers(got), case.numbers(expected)
        assert np.any(expected), name
        close = 1e-11 if case.dtype == "float64" else 1e-5
        np.testing.assert_allclose(got, expected, rtol=close, atol=close * np.max(np.abs(expected)), err_msg=name)


@law(only=FOLLOWED)
def masked_entries_take_and_give_no_gradient(case):
    """NaN and infinities under the mask, in the scores and in the cotangent."""
    x, g = hard_rows.plain(case.dtype, (3, 9), scale=0.3), directions(case, (3, 9))
    mask = np.random.default_rng(1).random((3, 9)) < 0.7
    where = case.other(mask)
    for hole in (np.nan, np.inf, -np.inf):
        scores = case.array(np.where(mask, x.astype(np.float64), hole))
        extras = ({}, {"sink": 0.2}, {"temperature": column(case, [0.5, 1.0, 2.0])})
        for turn, extra in enumerate(extras):
            for hyper in case.taking_turns(case.few(4), turn):
                moved = [scores, *(value for value in extra.values() if not isinstance(value, float))]

                def weights(x, *some, extra=extra, hyper=hyper):
                    given = dict(zip(extra, some, strict=True)) if some else extra
                    return case.map(x, where=where, **given, **hyper)

                got, *others = case.autograd.vjp(weights, moved, case.array(np.where(mask, g, hole)))
                got = case.numbers(got)
                assert np.all(got[~mask] == 0)
                assert np.all(np.isfinite(got)) and np.any(got)
                assert all(np.all(np.isfinite(case.numbers(other))) for other in others)


@law(only=FOLLOWED)
def bad_rows_spoil_no_other_gradient(case):
    x = hard_rows.plain(case.dtype, (4, 6), scale=0.3)
    sign = -1 if case.name.endswith("softmin") else 1
    x[1, 2], x[2, 3], x[3, 0] = np.nan, sign * np.inf, -sign * np.inf
    g = directions(case, x.shape)
    for hyper in case.few(5):
        for name, vjp in case.autograd.backwards.items():
            got = case.numbers(vjp(weights_of(case, **hyper), (case.array(x),), case.array(g))[0])
            assert np.all(np.isfinite(got[0])) and np.any(got[0]), name
            assert np.all(np.isnan(got[1:3])), name
            assert got[3, 0] == 0 and np.all(np.isfinite(got[3])) and np.any(got[3]), name


@law(only=FOLLOWED, dtypes=("float64", "float32"), maps=is_simplex)
def ignored_rows_have_no_gradient_whatever_they_hold(case):
    x = hard_rows.plain(case.dtype, (4, 6), scale=0.3)
    x[1, 2], x[2, 3] = np.nan, np.inf
    y = case.other(np.array([0, -7, -7, 2]))
    for hyper in case.few(3):
        if hyper.get("budget", 1) != 1:
            continue
        for options in ({}, {"temperature": 0.7}, {"label_smoothing": 0.1}):
            loss = lambda x, options={**options, **hyper}: case.map.loss(x, y, ignore_index=-7, **options)  # noqa: E731
            for name, vjp in case.autograd.backwards.items():
                got = case.numbers(vjp(loss, (case.array(x),), case.array(1.0))[0])
                assert np.all(got[1:3] == 0), (name, options, got)
                assert np.all(np.isfinite(got)) and np.any(got), (name, options, got)


@law(only=EAGER, dtypes=("float64",))
def empty_rows_have_one_gradient_on_every_road(case):
    """0, or NaN where they are asked to be NaN: by a vjp and by every way back."""
    x, g = hard_rows.plain(case.dtype, (2, 4), scale=0.3), directions(case, (2, 4))
    where = case.other(np.array([[False] * 4, [True, True, False, True]]))
    for empty, wanted in (("zero", 0.0), ("nan", np.nan)):
        for hyper in case.few(3):
            options = {"where": where, "empty": empty, **hyper}
            roads = {"the method": case.map.vjp(case.array(x), case.array(g), **options)}
            for name, vjp in case.autograd.backwards.items():
                roads[name] = vjp(weights_of(case, **options), (case.array(x),), case.array(g))[0]
            for name, road in roads.items():
                got = case.numbers(road)
                assert np.array_equal(got[0], np.full(4, wanted), equal_nan=True), (name, empty, got)
                assert np.all(np.isfinite(got[1])) and np.any(got[1]), name


@law(only=FOLLOWED, maps=is_simplex)
def the_gradient_of_a_loss_is_its_residual(case):
    x = hard_rows.plain(case.dtype, (3, 9), scale=0.5)
    spread = np.abs(hard_rows.plain(case.dtype, (3, 9), seed=5)).astype(np.float64)
    for hyper in case.few(9):
        mass = hyper.get("budget", 1)
        y = case.rounded(spread / spread.sum(-1, keepdims=True) * mass)
        targets = [case.array(y)] if mass != 1 else [case.array(y), case.other(np.array([1, 0, 8]))]
        for target in targets:
            loss = lambda x, target=target, hyper=hyper: case.map.loss(x, target, reduction="sum", **hyper)  # noqa: E731
            (got,) = case.autograd.vjp(loss, (case.array(x),), case.array(1.0))
            wanted = case.call(x, method="residual", y=target, **hyper)
            if case.name == "softmin":
                wanted = -wanted
            close = {"float64": 1e-11, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[case.dtype]
            assert np.any(wanted)
            np.testing.assert_allclose(case.numbers(got), wanted, rtol=close, atol=close * 0.05)
            if case.dtype == "float64" and case.framework.name in EAGER:
                case.autograd.check_backward(loss, (case.array(x),))
