"""What TensorFlow asks of its functions beyond the laws: bits, graphs, XLA, unknown sizes, modes, and errors."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import reference
import softplex as sx
from frameworks import load_tensorflow

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)
tf = load_tensorflow()

MAPS = [pytest.param(map_, {"budget": 2.0} if map_ is sx.budget else {}, id=map_.name) for map_ in sx.MAPS]
GRAPHS = {"graph": {}, "xla": {"jit_compile": True}}
graphs = pytest.mark.parametrize("how", GRAPHS.values(), ids=GRAPHS)


def scores(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype) * 2


def test_eager_tensors_have_the_bits_of_numpy():
    x, g = scores(7, 33, dtype="float32"), scores(7, 33, dtype="float32", seed=1)
    where, column = scores(7, 33, seed=2) < 1.0, np.linspace(0.5, 2.0, 7)[:, None]
    for map_ in sx.MAPS:
        hyper = {"budget": 2.0} if map_ is sx.budget else {}
        for options in ({}, {"sink": 0.3}, {"temperature": column, "where": where}):
            given = {name: tf.constant(value) if np.ndim(value) else value for name, value in options.items()}
            for method in ("__call__", "vjp", "jvp"):
                more = () if method == "__call__" else (g,)
                mine = getattr(map_, method)(tf.constant(x), *map(tf.constant, more), **given, **hyper)
                np.testing.assert_array_equal(mine.numpy(), getattr(map_, method)(x, *more, **options, **hyper))


@graphs
@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_graphs_give_the_reference_and_its_derivatives(map_, hyper, how):
    """With and without known sizes, first and second order, against the exact Jacobian and differences of it."""
    x = np.array([[0.5, 0.3, 0.1, -2.0, 0.2], [0.1, 0.2, 0.3, 0.2, 0.25], [3.0, 1.0, 2.0, 0.0, 2.5]])
    g, t = scores(3, 5, seed=1), scores(3, 5, seed=2)

    @tf.function(**how)
    def all_of_it(x, g, t):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                p = map_(x, **hyper)
            pulled = inner.gradient(p, x, g)
        return p, pulled, outer.gradient(pulled, x, t, tf.UnconnectedGradients.ZERO)

    rows = [reference.row(map_.__name__, row, **hyper) for row in x]
    values = np.array([[float(value) for value in row.values] for row in rows])
    vjps = np.array([[float(value) for value in row.vjp(line)] for row, line in zip(rows, g, strict=True)])
    step = 1e-6
    second = (map_.vjp(x + step * t, g, **hyper) - map_.vjp(x - step * t, g, **hyper)) / (2 * step)
    open_size = [None, 5] if map_ is sx.normmax else [None, None]
    for signature in ([3, 5], open_size):
        function = all_of_it.get_concrete_function(
            *[tf.TensorSpec(shape, tf.float64) for shape in (signature, signature, signature)]
        )
        found = [one.numpy() for one in function(*map(tf.constant, (x, g, t)))]
        np.testing.assert_allclose(found[0], values, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(found[1], vjps, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found[2], second, rtol=1e-6, atol=1e-7)


def value_and_gradient_of(loss, options):
    def function(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x, y, **options)
        return value, tape.gradient(value, x)

    return function


@graphs
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_in_graphs(how, dtype):
    x, index = tf.cast(scores(6, 5), dtype), np.array([0, 4, 2, -1, 1, 3])
    spread = np.abs(scores(6, 5, seed=1)).astype("float32")
    spread /= spread.sum(axis=1, keepdims=True)
    options = {"temperature": 0.7, "label_smoothing": 0.1, "weight": np.linspace(0.5, 2, 5)}
    for loss, y in ((sx.entmax15.loss, index), (sx.entmax15.loss, spread), (sx.cross_entropy, index)):
        more = {"ignore_index": -1} if y is index else {}

        found = tf.function(value_and_gradient_of(loss, {**options, **more}), **how)(x, tf.constant(y))
        with tf.GradientTape() as tape:
            tape.watch(x)
            eager = loss(x, tf.constant(y), **options, **more)
        wanted = loss(x.numpy(), y, **options, **more)
        close = {"rtol": 1e-5 if dtype == "float32" else 1e-2, "atol": 1e-6 if dtype == "float32" else 1e-3}
        for one in (found[0], eager):
            np.testing.assert_allclose(np.float64(one.numpy()), np.float64(wanted), **close)
        gradient = tape.gradient(eager, x)
        assert found[1].dtype == gradient.dtype == x.dtype and np.any(gradient.numpy())
        np.testing.assert_allclose(found[1].numpy().astype(np.float64), gradient.numpy().astype(np.float64), **close)


def test_a_forward_pass_has_one_loop_and_a_way_back_none():
    """The solver's rounds are in the graph once; a way back starts from the weights that the forward pass found."""

    def operations(function):
        graph = tf.function(function).get_concrete_function(tf.TensorSpec([None, 10], tf.float32)).graph
        return [each.type for each in graph.get_operations()]

    def followed(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            p = sx.sparsemax(x)
        return tape.gradient(p, x, x)

    forward, both = operations(sx.sparsemax), operations(followed)
    assert forward.count("StatelessWhile") + forward.count("While") == 1
    assert both.count("StatelessWhile") + both.count("While") == 1
    assert len(forward) < len(both) < 2 * len(forward)


def test_forward_mode_through_functions():
    x, t = tf.constant(scores(2, 5)), tf.constant(scores(2, 5, seed=1))
    for map_ in (sx.softmax, sx.sparsemax, sx.entmax15):
        for function in (map_, tf.function(lambda x, map_=map_: map_(x))):
            with tf.autodiff.ForwardAccumulator(x, t) as accumulator:
                p = function(x)
            np.testing.assert_allclose(accumulator.jvp(p), map_.jvp(x.numpy(), t.numpy()), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("map_", [sx.softmax, sx.entmax15], ids=lambda m: m.name)
def test_orders_and_modes_mix(map_):
    """Forward over reverse, forward over forward, and the third order, along one direction."""
    x, g, t = (tf.constant(scores(1, 5, seed=seed) / 4) for seed in range(3))

    def pulled(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            p = map_(x)
        return tape.gradient(p, x, g)

    def twice(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = pulled(x)
        return tape.gradient(first, x, t)

    def forward(function, t):
        def tangent(x):
            with tf.autodiff.ForwardAccumulator(x, t) as accumulator:
                y = function(x)
            return accumulator.jvp(y)

        return tangent

    def differences(function, t, step=1e-6):
        return ((function(x + step * t) - function(x - step * t)) / (2 * step)).numpy()

    with tf.GradientTape() as tape:
        tape.watch(x)
        second = twice(x)
    third = tape.gradient(second, x, t)
    close = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(second, differences(lambda x: map_.vjp(x, g), t), **close)
    np.testing.assert_allclose(forward(pulled, t)(x), second, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(forward(forward(map_, g), t)(x), differences(lambda x: map_.jvp(x, g), t), **close)
    np.testing.assert_allclose(third, differences(twice, t), rtol=1e-5, atol=1e-6)


@graphs
def test_what_cannot_be_looked_at_makes_nan_rows(how):
    x = tf.constant(scores(3, 4))

    @tf.function(**how)
    def calls(x, column, y):
        return (
            sx.sparsemax(x, temperature=column),
            sx.entmax(x, alpha=column),
            sx.sparsemax.loss(x, y, reduction="none"),
        )

    found = calls(x, tf.constant([[2.0], [-1.0], [np.nan]], tf.float64), tf.constant([0, 3, 4]))
    bad = [np.isnan(one.numpy()).reshape(3, -1).all(axis=1).tolist() for one in found]
    assert bad == [[False, True, True], [False, True, True], [False, False, True]]
    assert not np.isnan(found[0].numpy()[0]).any()
    with pytest.raises(ValueError, match="temperature"):
        sx.sparsemax(x, temperature=tf.constant([[2.0], [-1.0], [1.0]]))
    with pytest.raises(IndexError, match="holds the index 4"):
        sx.sparsemax.loss(x, tf.constant([0, 3, 4]))


def test_rows_with_nan_are_seen_by_xla():
    """XLA's maximum passes NaN over."""
    x = np.array([[np.nan, 1.0, 2.0], [1.0, np.inf, 0.0], [-np.inf] * 3, [1.0, 2.0, 3.0]])
    for map_ in (sx.softmax, sx.sparsemax, sx.entmax15):
        found = tf.function(lambda x, map_=map_: map_(x), jit_compile=True)(tf.constant(x)).numpy()
        np.testing.assert_allclose(found, map_(x), rtol=1e-12)
    pooled = tf.function(lambda x: sx.maxout(x, 3), jit_compile=True)(tf.constant(x)).numpy()
    np.testing.assert_array_equal(pooled, sx.maxout(x, 3))


def test_maxout_with_unknown_sizes():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 6], tf.float32)])
    def last(x):
        return sx.maxout(x, 2)

    @tf.function(input_signature=[tf.TensorSpec([None, 6, None, None], tf.float32)])
    def second(x):
        return sx.maxout(x, 3, axis=1, layout="strided")

    x = scores(2, 3, 4, 6, dtype="float32")
    np.testing.assert_array_equal(last(x).numpy(), sx.maxout(x, 2))
    assert tuple(last.get_concrete_function().output_shapes) == (None, None, None, 3)
    y = np.moveaxis(x, -1, 1)
    np.testing.assert_array_equal(second(y).numpy(), sx.maxout(y, 3, axis=1, layout="strided"))


def test_several_axes_and_masks_with_unknown_sizes():
    @tf.function(input_signature=[tf.TensorSpec([None, 3, 4], tf.float64), tf.TensorSpec([None, 1, 4], tf.bool)])
    def call(x, where):
        return sx.entmax15(x, axis=(1, 2), where=where), sx.softmax(x, axis=0, where=where)

    x, where = scores(2, 3, 4), scores(2, 1, 4, seed=1) < 1
    for found, axis, map_ in zip(call(x, where), ((1, 2), 0), (sx.entmax15, sx.softmax), strict=True):
        np.testing.assert_allclose(found.numpy(), map_(x, axis=axis, where=where), rtol=1e-12, atol=1e-15)


@graphs
@pytest.mark.parametrize(
    ("shape", "axis"),
    [([None, None, None, 4], (1, 2)), ([2, None, 3, None], (1, 3)), ([None] * 4, (0, 2)), ([None] * 4, None)],
)
def test_several_axes_of_unknown_sizes(shape, axis, how):
    """Values and derivatives of first and second order, in scores and in a parameter."""
    x, g, where, temperature = (
        scores(2, 5, 3, 4),
        scores(2, 5, 3, 4, seed=1),
        scores(2, 1, 3, 4, seed=2) < 1,
        np.array(0.7),
    )
    sizes = tf.TensorSpec(shape, tf.float64)

    @tf.function(input_signature=[sizes, sizes, tf.TensorSpec([], tf.float64)], **how)
    def all_of_it(x, g, temperature):
        options = {"axis": axis, "where": where, "temperature": temperature}
        with tf.GradientTape() as outer:
            outer.watch(g)
            with tf.GradientTape() as inner:
                inner.watch([x, temperature])
                p = sx.sparsemax(x, **options)
            pulled = inner.gradient(p, [x, temperature], g)
        pushed = outer.gradient(pulled[0], g, x)
        return p, *pulled, pushed, sx.sparsemax.smooth_max(x, **options), sx.sparsemax.support_size(x, **options)

    options = {"axis": axis, "where": where, "temperature": temperature}
    wanted = (
        sx.sparsemax(x, **options),
        *sx.sparsemax.vjp(x, g, wrt=("x", "temperature"), **options),
        sx.sparsemax.jvp(x, x, **options),
        sx.sparsemax.smooth_max(x, **options),
        sx.sparsemax.support_size(x, **options),
    )
    for one, other in zip(all_of_it(*map(tf.constant, (x, g, temperature))), wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-10, atol=1e-13)


def test_rows_of_unknown_sizes_may_turn_out_empty():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.float32)])
    def call(x):
        return sx.sparsemax(x, axis=(0, 2)), sx.sparsemax.smooth_max(x, axis=(0, 2))

    for shape in ((2, 0, 3), (0, 2, 3), (2, 3, 0)):
        p, top = call(tf.zeros(shape))
        assert tuple(p.shape) == shape and tuple(top.shape) == shape[1:2]
        assert not np.isfinite(top.numpy()).any()


def test_variables_integers_and_dtypes():
    x = scores(2, 3, dtype="float32")
    variable = tf.Variable(x)
    np.testing.assert_array_equal(sx.sparsemax(variable).numpy(), sx.sparsemax(x))
    with tf.GradientTape() as tape:
        loss = sx.sparsemax_loss(variable, [0, 1])
    np.testing.assert_allclose(tape.gradient(loss, variable).numpy(), sx.sparsemax.residual(x, [0, 1]) / 2, rtol=1e-6)
    assert sx.softmax(tf.constant([1, 2, 3])).dtype == tf.float32
    assert sx.softmax(tf.constant(x), dtype=tf.bfloat16).dtype == tf.bfloat16
    assert sx.sparsemax.support_size(tf.constant(x)).dtype == tf.int64
    assert sx.softmax(tf.constant(2.0)).numpy() == 1.0
    assert sx.sparsemax(tf.zeros((0, 3))).shape == (0, 3) == tuple(sx.sparsemax(tf.zeros((0, 3)), axis=0).shape)


def test_vectorized_map_and_a_saved_model(tmp_path):
    x = scores(4, 5)
    found = tf.vectorized_map(sx.sparsemax, tf.constant(x))
    np.testing.assert_allclose(found.numpy(), sx.sparsemax(x), rtol=1e-13)
    g = scores(4, 5, seed=1)
    for each in (sx.entmax15, tf.function(sx.entmax15)):
        with tf.GradientTape() as tape:
            rows = tf.constant(x)
            tape.watch(rows)
            p = tf.vectorized_map(each, rows)
        np.testing.assert_allclose(tape.gradient(p, rows, g), sx.entmax15.vjp(x, g), rtol=1e-12, atol=1e-14)
    module = tf.Module()
    module.call = tf.function(sx.entmax15, input_signature=[tf.TensorSpec([None, 5], tf.float64)])
    tf.saved_model.save(module, str(tmp_path))
    again = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(again.call(tf.constant(x)).numpy(), sx.entmax15(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: sx.softmax(tf.constant(["a"])), TypeError, "string"),
        (lambda: sx.softmax(tf.constant([1j])), TypeError, "complex128"),
        (lambda: sx.softmax(tf.ragged.constant([[1.0], [1.0, 2.0]])), TypeError, "RaggedTensor; give a dense"),
        (lambda: sx.softmax(tf.sparse.from_dense([[1.0]])), TypeError, "SparseTensor"),
        (lambda: sx.softmax(tf.constant([1.0]), out=np.zeros(1)), TypeError, "out is for NumPy"),
        (lambda: sx.softmax(tf.constant([1.0]), where=tf.constant([1.0])), TypeError, "where has dtype float32"),
        (lambda: sx.softmax(tf.constant([1.0]), axis=1), ValueError, "out of bounds"),
        (lambda: sx.softmax(tf.zeros((2, 3)), where=tf.ones((3, 3), tf.bool)), ValueError, "does not broadcast"),
        (lambda: sx.softmax(tf.constant([1.0]), dtype="int32"), TypeError, "is not taken"),
    ],
)
def test_what_is_wrong_is_said(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def test_unknown_ranks_and_lengths_are_said():
    def traced(function, shape):
        tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(shape, tf.float32))

    with pytest.raises(ValueError, match="unknown number of dimensions"):
        traced(sx.softmax, None)
    with pytest.raises(ValueError, match="left open in this graph"):
        traced(lambda x: sx.softmax.loss(x, tf.zeros(3, tf.int32)), [3, None])


@graphs
def test_numpy_scores_with_symbols_are_refused(how):
    scalar = tf.constant(2.0)
    for what, call in {
        "temperature": lambda t: sx.softmax(np.ones(3), temperature=t),
        "where": lambda t: sx.softmax(np.ones(3), where=t > 0),
        "y": lambda t: sx.softmax.loss(np.ones(1), tf.cast(t, tf.int32)),
    }.items():
        with pytest.raises(TypeError, match=f": {what} is tensorflow.*give x as an array of tensorflow too"):
            tf.function(call, autograph=False, **how)(scalar)
