"""Laws of differentiation by TensorFlow: tapes, forward accumulators and higher orders, on values and not on shapes.

The reference is the exact Jacobian of reference.py; second derivatives are compared with differences.
"""

from __future__ import annotations

import numpy as np

import hard_rows
from frameworks import load_tensorflow
from lawbook import is_simplex, law
from laws_autograd import SLACK
from laws_derivatives import directions, parameters_of

BOTH = ("tensorflow", "tensorflow formulas")
EAGER = ("tensorflow",)


def tf():
    return load_tensorflow()


def gradient(function, tensors, g=None):
    """Cotangents of the tensors."""
    with tf().GradientTape() as tape:
        tape.watch(tensors)
        y = function(*tensors)
    return tape.gradient(y, tensors, g, tf().UnconnectedGradients.ZERO)


def tangent(function, x, t):
    """What forward mode finds."""
    with tf().autodiff.ForwardAccumulator(x, t) as accumulator:
        y = function(x)
    return accumulator.jvp(y, tf().UnconnectedGradients.ZERO)


@law(only=BOTH)
def tape_gradients_are_accurate(case):
    for labels, x in case.batches():
        g = directions(case, x.shape)
        for hyper in case.few(x.shape[1]):
            (found,) = gradient(lambda x, hyper=hyper: case.map(x, **hyper), [case.array(x)], case.array(g))
            assert found.dtype.name == case.dtype
            got = case.numbers(found)
            for place, row in enumerate(case.rows(x, **hyper)):
                case.assert_linear(
                    got[place], row.vjp(g[place]), row, g[place], slack=SLACK[case.dtype], note=labels[place]
                )


@law(only=BOTH)
def accumulators_are_accurate(case):
    x = hard_rows.plain(case.dtype, (4, 9), scale=0.4)
    t = directions(case, x.shape, seed=8)
    for hyper in case.few(9):
        got = case.numbers(tangent(lambda x, hyper=hyper: case.map(x, **hyper), case.array(x), case.array(t)))
        for place, row in enumerate(case.rows(x, **hyper)):
            wanted = row.jvp(t[place])
            assert any(got[place]) == any(map(float, wanted))
            case.assert_linear(got[place], wanted, row, t[place], kind="jvp", slack=4)


@law(only=EAGER, dtypes=("float64",))
def higher_orders_of_tapes_agree_with_differences(case):
    x, step = hard_rows.plain(case.dtype, (5,), scale=0.4), 1e-6
    g, t = directions(case, (5,), seed=3), directions(case, (5,), seed=4)
    for hyper in case.few(5):
        weights = lambda x, hyper=hyper: case.map(x, **hyper)  # noqa: E731
        pulled = lambda x, weights=weights: gradient(weights, [x], case.array(g))[0]  # noqa: E731
        ends = [case.numbers(case.map.vjp(case.array(x + side * step * t), case.array(g), **hyper)) for side in (1, -1)]
        second = (ends[0] - ends[1]) / (2 * step)
        x_tensor, t_tensor = case.array(x), case.array(t)
        by_tapes = lambda x, pulled=pulled: gradient(pulled, [x], case.array(t))[0]  # noqa: E731
        assert np.allclose(case.numbers(by_tapes(x_tensor)), second, rtol=1e-6, atol=1e-7)
        assert np.allclose(case.numbers(tangent(pulled, x_tensor, t_tensor)), second, rtol=1e-6, atol=1e-7)
        ends = [case.numbers(by_tapes(case.array(x + side * step * t))) for side in (1, -1)]
        third = (ends[0] - ends[1]) / (2 * step)
        found = gradient(by_tapes, [x_tensor], t_tensor)[0]
        assert np.allclose(case.numbers(found), third, rtol=1e-5, atol=1e-6)


@law(only=BOTH, dtypes=("float64", "float32"))
def parameters_get_their_tape_gradients(case):
    """A backward pass gives what a vjp by name gives."""
    x = hard_rows.plain(case.dtype, (3, 9), scale=0.15)
    g = directions(case, x.shape)
    columns = {name: np.reshape(values, (-1, 1)).astype(case.np_dtype) for name, values in parameters_of(case).items()}
    tensors = {name: tf().constant(values) for name, values in columns.items()}
    names = ("x", *columns)
    found = gradient(
        lambda x, *values: case.map(x, **dict(zip(columns, values, strict=True))),
        [case.array(x), *tensors.values()],
        case.array(g),
    )
    wanted = case.map.vjp(case.array(x), case.array(g), wrt=names, **tensors)
    for name, got, expected in zip(names, found, wanted, strict=True):
        got, expected = case.numbers(got), case.numbers(expected)
        assert np.any(expected), name
        close = 1e-11 if case.dtype == "float64" else 1e-5
        np.testing.assert_allclose(got, expected, rtol=close, atol=close * np.max(np.abs(expected)), err_msg=name)


@law(only=BOTH)
def masked_entries_are_left_out_by_tapes(case):
    """NaN and infinities under the mask, in the scores and in the cotangent."""
    x, g = hard_rows.plain(case.dtype, (3, 9), scale=0.3), directions(case, (3, 9))
    where = np.random.default_rng(1).random((3, 9)) < 0.7
    for hole in (np.nan, np.inf, -np.inf):
        for extra in ({}, {"sink": 0.2}):
            for hyper in case.few(4):
                weights = lambda x, extra=extra, hyper=hyper: case.map(x, where=where, **extra, **hyper)  # noqa: E731
                holed = case.array(np.where(where, x.astype(np.float64), hole))
                got = case.numbers(gradient(weights, [holed], case.array(np.where(where, g, hole)))[0])
                assert np.all(got[~where] == 0)
                assert np.all(np.isfinite(got)) and np.any(got)


@law(only=BOTH, maps=is_simplex)
def the_tape_gradient_of_a_loss_is_its_residual(case):
    x = hard_rows.plain(case.dtype, (3, 9), scale=0.5)
    spread = np.abs(hard_rows.plain(case.dtype, (3, 9), seed=5)).astype(np.float64)
    close = {"float64": 1e-11, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[case.dtype]
    for hyper in case.few(9):
        mass = hyper.get("budget", 1)
        y = case.rounded(spread / spread.sum(-1, keepdims=True) * mass)
        targets = [case.array(y)] if mass != 1 else [case.array(y), case.other(np.array([1, 0, 8]))]
        for target in targets:
            loss = lambda x, target=target, hyper=hyper: case.map.loss(x, target, reduction="sum", **hyper)  # noqa: E731
            wanted = case.call(x, method="residual", y=target, **hyper)
            if case.name == "softmin":
                wanted = -wanted
            got = case.numbers(gradient(loss, [case.array(x)])[0])
            assert np.any(wanted)
            np.testing.assert_allclose(got, wanted, rtol=close, atol=close * 0.05)


@law(only=EAGER, dtypes=("float64",), maps=is_simplex)
def targets_and_weights_of_losses_have_tape_gradients(case):
    """Class weights, smoothing, temperature, distributions: against differences of the losses."""
    x = hard_rows.plain(case.dtype, (2, 4), scale=0.2)
    y = np.abs(hard_rows.plain(case.dtype, (2, 4), seed=5)) + 0.1
    hyper = {"budget": 1.0} if case.name == "budget" else {}
    arrays = [x, y / y.sum(-1, keepdims=True), np.linspace(0.5, 2.0, 4), np.array(0.7)]

    def loss(x, y, weight, temperature):
        return case.map.loss(x, y, weight=weight, temperature=temperature, label_smoothing=0.2, **hyper)

    found = gradient(loss, [tf().constant(array) for array in arrays])
    for place, got in enumerate(found):
        wanted = np.zeros_like(arrays[place])
        for spot in np.ndindex(wanted.shape):
            ends = []
            for side in (1e-6, -1e-6):
                moved = [array.copy() for array in arrays]
                moved[place][spot] += side
                ends.append(float(loss(*moved)))
            wanted[spot] = (ends[0] - ends[1]) / 2e-6
        assert np.any(wanted)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-7)
