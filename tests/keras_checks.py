"""softplex.keras on the backend that KERAS_BACKEND names; test_keras.py runs this file once for each.

Values are compared with tests/reference.py and with softplex on NumPy, never with Keras.
"""

import functools
import importlib
import json
import os
import warnings

import numpy as np
import pytest

import reference
import softplex as sx

with warnings.catch_warnings():  # what the frameworks say of themselves as they are imported
    warnings.simplefilter("ignore")
    import keras

    sk = importlib.import_module("softplex.keras")

pytestmark = pytest.mark.filterwarnings(  # TensorFlow's variables, as Keras makes arrays of them
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
BACKEND = os.environ["KERAS_BACKEND"]
assert keras.backend.backend() == BACKEND
KERAS_OWN = set(importlib.import_module("keras.src.activations").ALL_OBJECTS_DICT)
sk.register(replace=False)
UNTOUCHED = keras.activations.get("sparsemax")
sk.register()

SCORES = np.array([[0.5, 0.3, 0.1, -1.0], [0.1, 0.2, 0.3, 0.2], [3.0, 1.0, 2.0, 0.0]])
WITH_DEFAULTS = [m for m in sx.MAPS if all(rule.default is not None for rule in m.formula.parameters)]
WITH_LOSS = [m for m in WITH_DEFAULTS if m.formula.kind == "simplex"]
ACCURATE = {"rtol": 3e-6, "atol": 1e-7}
WIDE = "float32" if BACKEND == "jax" else "float64"  # what JAX has, unless it is told to have more
HOW = {"tensorflow": ("eager", "graph", "jit", "auto"), "jax": ("jit", "auto"), "torch": ("eager", "auto")}[BACKEND]


def named(maps):
    return pytest.mark.parametrize("each", maps, ids=lambda m: m.name)


def usual(each):
    return {rule.name: rule.usual(3) for rule in each.formula.parameters}


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def class_of(each, suffix=""):
    return getattr(sk, "".join(part.capitalize() for part in each.name.split("_")) + suffix)


def gradient(function, value):
    """The gradient of a number that is computed from one array."""
    value = np.asarray(value, "float32")
    if BACKEND == "tensorflow":
        tf = importlib.import_module("tensorflow")
        with tf.GradientTape() as tape:
            x = tf.constant(value)
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x).numpy()
    if BACKEND == "torch":
        x = importlib.import_module("torch").tensor(value, requires_grad=True)
        function(x).backward()
        return x.grad.numpy()
    return np.asarray(importlib.import_module("jax").grad(function)(value))


def compiled(function):
    """The function as the backend compiles it; torch's layers are compiled in test_torch_modules.py."""
    if BACKEND == "tensorflow":
        tf = importlib.import_module("tensorflow")
        return tf.function(function), tf.function(function, jit_compile=True)
    return (importlib.import_module("jax").jit(function),) if BACKEND == "jax" else ()


# -- names ------------------------------------------------------------------------------------------------------------


def test_sparsemax_is_the_one_name_that_is_taken_over():
    assert UNTOUCHED is keras.activations.sparsemax
    for name in KERAS_OWN:
        found = keras.activations.get(name)
        assert isinstance(found, sk.Weights) == (name == "sparsemax"), name
    for each in WITH_DEFAULTS:
        if each.name not in KERAS_OWN - {"sparsemax"}:
            assert keras.activations.get(each.name) is getattr(sk, each.name)
    with pytest.raises(ValueError):
        keras.activations.get("budget")  # it has no default, so no layer could call it


def test_a_layer_takes_an_activation_by_its_name():
    for name in ("softmin", "sparsemax", "entmax15", "entmax", "log_softmin", "normmax"):
        layer = keras.layers.Activation(name)
        np.testing.assert_allclose(array(layer(SCORES)), getattr(sx, name)(SCORES.astype("float32")), **ACCURATE)
    dense = keras.layers.Dense(3, activation="entmax15")
    again = keras.layers.Dense.from_config(json.loads(json.dumps(dense.get_config())))
    assert again.activation == dense.activation and again.activation.map is sx.entmax15
    bound = keras.layers.Dense(3, activation=sk.Weights(sx.blend({sx.entmax.bind(alpha=1.3): 0.5, sx.softmin: 0.5})))
    again = keras.layers.Dense.from_config(json.loads(json.dumps(bound.get_config())))
    np.testing.assert_array_equal(array(again.activation(SCORES)), array(bound.activation(SCORES)))


def test_losses_have_names():
    for each in WITH_LOSS:
        assert keras.losses.get(f"{each.name}_loss") is getattr(sk, f"{each.name}_loss")
        assert isinstance(keras.losses.get(class_of(each, "Loss").__name__), class_of(each, "Loss"))
    with pytest.raises(AttributeError, match="there are"):
        getattr(sk, "nothing")  # noqa: B009


# -- layers -----------------------------------------------------------------------------------------------------------


@named(sx.MAPS)
def test_a_layer_gives_the_reference_and_its_gradient(each):
    """On supports of several entries, in the dtype that layers have."""
    hyper = usual(each)
    layer, x = class_of(each)(**hyper), SCORES.astype("float32")
    g = np.array([[1.0, -2.0, 0.5, 3.0], [0.3, 0.1, -1.0, 2.0], [1.0, 1.0, -1.0, 0.0]], "float32")
    rows = [reference.row(each.name, row, **hyper) for row in x.astype(np.float64)]
    wanted = np.array([[float(value) for value in row.values] for row in rows])
    np.testing.assert_allclose(array(layer(x)), wanted, **ACCURATE)
    pulled = np.array([[float(v) for v in row.vjp(line)] for row, line in zip(rows, g.astype(np.float64), strict=True)])
    loss = lambda x: keras.ops.sum(layer(x) * keras.ops.convert_to_tensor(g))  # noqa: E731
    np.testing.assert_allclose(gradient(loss, x), pulled, rtol=1e-5, atol=1e-6)
    if each not in (sx.sparsemax, sx.entmax):  # the others are compiled in test_tensorflow.py and test_jax.py
        return
    for function in compiled(layer):
        np.testing.assert_allclose(array(function(keras.ops.convert_to_tensor(x))), wanted, **ACCURATE)
    for function in compiled(loss)[-1:]:
        np.testing.assert_allclose(gradient(function, x), pulled, rtol=1e-5, atol=1e-6)


@named(sx.MAPS)
def test_a_layer_survives_its_config(each):
    layer = class_of(each)(**usual(each), axis=[0, 1], temperature=0.5, empty="nan", name="mine", dtype=WIDE)
    again = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    wanted = each(SCORES, axis=(0, 1), temperature=0.5, **usual(each))
    assert array(again(SCORES.astype("float32"))).dtype.name == WIDE
    np.testing.assert_allclose(array(again(SCORES.astype("float32"))), wanted, rtol=1e-5, atol=1e-7)


def test_masks_are_those_of_softmax():
    x = SCORES.astype("float32")
    mask = np.array([[True, True, False, True], [False] * 4, [True, False, True, True]])
    wanted = sx.sparsemax(x, where=mask)
    for given in (mask, mask.astype("float32"), mask.astype("int32")):
        np.testing.assert_allclose(array(sk.Sparsemax()(x, mask=given)), wanted, **ACCURATE)
    close = array(keras.layers.Softmax()(x, mask=mask))
    np.testing.assert_allclose(array(sk.Softmax()(x, mask=mask)), close, rtol=1e-5, atol=1e-7)
    one_row = np.array([True, False, True, True])
    np.testing.assert_allclose(array(sk.Entmax15()(x, mask=one_row)), sx.entmax15(x, where=one_row), **ACCURATE)
    with pytest.raises(ValueError, match="does not broadcast"):
        sk.Sparsemax()(x, mask=np.ones((2, 4), bool))


def test_a_mask_may_be_a_list(tmp_path):
    x, mask = SCORES.astype("float32"), [True, False, True, True]
    wanted = sx.sparsemax(x, where=np.array(mask))
    for given in (mask, [mask] * 3, tuple(mask), [1, 0, 1, 1], [1.0, 0.5, 1.0, 0.75]):
        np.testing.assert_allclose(array(sk.Sparsemax()(x, mask=given)), wanted, **ACCURATE)
    inputs = keras.Input((4,))
    keras.Model(inputs, sk.Sparsemax()(inputs, mask=mask)).save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), wanted, **ACCURATE)
    for wrong in ("yes", ["yes"] * 4, [[True], [True, False]]):
        with pytest.raises(TypeError, match="Sparsemax: mask is .*(give|not an array)"):
            sk.Sparsemax()(x, mask=wrong)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", WIDE])
def test_precision_policies_are_followed(policy):
    x = SCORES.astype("float32")
    for layer in (sk.Entmax(1.3, learnable=True, dtype=policy), sk.Sparsemax(dtype=policy), sk.Maxout(2, dtype=policy)):
        found = layer(x)
        assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
    narrow = x.astype(np.float16).astype("float32") if policy == "mixed_float16" else x
    if policy != "mixed_bfloat16":
        np.testing.assert_allclose(array(sk.Sparsemax(dtype=policy)(x)), sx.sparsemax(narrow), atol=1e-3)
    learned = sk.Entmax(1.3, learnable=True, dtype=policy)
    learned(x)
    assert "16" not in learned.raw_alpha.dtype  # or 1.3 would be rounded
    dense = sk.MaxoutDense(3, 2, dtype=policy)
    assert keras.backend.standardize_dtype(dense(x).dtype) == policy.removeprefix("mixed_")
    assert dense.kernel.dtype == (WIDE if policy == WIDE else "float32")


def test_alpha_is_learned():
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    wanted = sx.entmax(x, alpha=1.8)
    layer = sk.Entmax(1.3, learnable=True)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, wanted, epochs=20, batch_size=64, verbose=0)
    assert 1.7 < float(array(layer.alpha)) < 1.9
    each_row = sk.Entmax([[1.2], [1.5], [2.0]], learnable=True)
    np.testing.assert_allclose(
        array(each_row(SCORES)), sx.entmax(SCORES.astype("float32"), alpha=np.array([[1.2], [1.5], [2.0]])), rtol=1e-5
    )
    assert sk.Entmax(1.4).alpha == 1.4 and sk.Entmax(1.4, learnable=True).alpha == 1.4


# -- losses -----------------------------------------------------------------------------------------------------------


@named(WITH_LOSS)
def test_a_loss_is_that_of_the_map(each):
    x, index = SCORES.astype("float32"), np.array([1, 3, 0])
    loss, function = class_of(each, "Loss")(), getattr(sk, f"{each.name}_loss")
    spread = np.array([[0.5, 0.5, 0, 0], [0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0]], "float32")
    for y, given in ((index, index), (index, index[:, None]), (spread, spread)):
        np.testing.assert_allclose(array(function(given, x)), each.loss(x, y, reduction="none"), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(array(loss(given, x)), each.loss(x, y), rtol=1e-5)
        sign = -1.0 if each.name == "softmin" else 1.0
        found = gradient(lambda x, given=given: loss(given, x), x)
        np.testing.assert_allclose(found, sign * each.residual(x, y) / 3, rtol=2e-5, atol=1e-6)
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


def test_ignored_classes_are_left_out_by_fit():
    x, y = SCORES.astype("float32")[:3], np.array([1, -1, 0])
    same = keras.layers.Dense(x.shape[1], use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((x.shape[1],)), same])
    model.compile("sgd", loss=sk.SparsemaxLoss(ignore_class=-1))
    found = model.evaluate(x, y, batch_size=3, verbose=0)
    np.testing.assert_allclose(found, sx.sparsemax_loss(x, y, ignore_index=-1), rtol=1e-5)
    model.fit(x, y, verbose=0)


def test_options_of_a_loss():
    x, index = SCORES.astype("float32"), np.array([1, -1, 0])
    loss = sk.EntmaxLoss(1.3, temperature=0.5, label_smoothing=0.1, ignore_class=-1)
    rows = sx.entmax.loss(x, index, alpha=1.3, temperature=0.5, label_smoothing=0.1, ignore_index=-1, reduction="none")
    np.testing.assert_allclose(array(loss.call(index, x)), rows, rtol=1e-5)
    np.testing.assert_allclose(array(loss(index, x)), rows.sum() / 2, rtol=1e-5)
    first = sk.FenchelYoungLoss(sx.entmax.bind(alpha=1.3), axis=1, reduction=None)
    images = np.stack([x, x + 1], axis=-1)  # classes second, then places
    np.testing.assert_allclose(
        array(first(np.array([[0, 1], [2, 3], [1, 1]]), images)),
        sx.entmax.loss(images, np.array([[0, 1], [2, 3], [1, 1]]), axis=1, alpha=1.3, reduction="none"),
        rtol=1e-5,
    )
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(first))))
    assert again.map == first.map and again.axis == 1 and again.reduction == first.reduction


# -- maxout -----------------------------------------------------------------------------------------------------------


def pieces_by_hand(y, pieces, axis=-1):
    y = np.moveaxis(y, axis, -1)
    return np.moveaxis(y.reshape(*y.shape[:-1], -1, pieces).max(axis=-1), -1, axis)


def test_maxout_dense_is_a_product_and_maxima():
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")
    layer = sk.MaxoutDense(4, pieces=2, bias_initializer="normal", activation="relu")
    y = array(layer(x))
    assert layer.kernel.shape == (3, 8) and layer.bias.shape == (8,) and layer.units == 4
    by_hand = pieces_by_hand(x @ array(layer.kernel) + array(layer.bias), 2)
    np.testing.assert_allclose(y, np.maximum(by_hand, 0), rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((None, 2, 3)) == (None, 2, 4)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_maxout_convolutions_are_keras_own_and_maxima(rank, groups):
    x = np.random.default_rng(1).normal(size=(2, *(7, 6)[:rank], 4)).astype("float32")
    made, plain = getattr(sk, f"MaxoutConv{rank}D"), getattr(keras.layers, f"Conv{rank}D")
    if groups > 1 and BACKEND == "tensorflow":
        x = x[:1]
    layer = made(6, 3, pieces=2, strides=2, padding="same", groups=groups)
    inner = plain(12, 3, strides=2, padding="same", groups=groups)
    inner.build(x.shape)
    layer.build(x.shape)
    inner.set_weights(layer.get_weights())
    np.testing.assert_allclose(array(layer(x)), pieces_by_hand(array(inner(x)), 2), rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((None, *x.shape[1:]))[-1] == 6 == layer.filters
    assert tuple(layer(keras.KerasTensor((None, *x.shape[1:]))).shape) == (None, *layer(x).shape[1:])


@pytest.mark.parametrize(
    "layer",
    [
        lambda: sk.Maxout(2, axis=1),
        lambda: sk.MaxoutDense(4, 2, activation="softmin", kernel_regularizer="l2", activity_regularizer="l1"),
        lambda: sk.MaxoutConv1D(4, 3, 2, data_format="channels_last", use_bias=False),
        lambda: sk.MaxoutConv2D(4, (3, 2), 2, dilation_rate=2, kernel_initializer="zeros"),
        lambda: sk.Entmax(1.5, learnable=True),
        lambda: sk.Activation(sx.entmax.bind(alpha=1.3), axis=0),
    ],
)
def test_configs_of_layers_survive(layer):
    layer = layer()
    again = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()


def test_a_mask_ends_where_its_axis_is_shrunk():
    steps = np.array([[1, 2, 3, 4, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(steps)
    assert keras_mask(embedded) is not None
    assert keras_mask(sk.Maxout(2)(embedded)) is not None
    assert keras_mask(sk.Maxout(2, axis=1)(embedded)) is None and keras_mask(sk.Maxout(2, axis=-2)(embedded)) is None


def keras_mask(x):
    return importlib.import_module("keras.src.backend.common.masking").get_keras_mask(x)


def test_numbers_of_numpy_and_classes_of_dtypes_are_no_inputs(tmp_path):
    inputs = keras.Input((2, 4))
    outputs = sx.softmax(inputs, axis=np.int64(1), temperature=np.float32(0.5), dtype=np.float32)
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    again, x = keras.saving.load_model(tmp_path / "model.keras"), np.random.default_rng(0).normal(size=(3, 2, 4))
    for each in (model, again, keras.models.clone_model(model)):
        np.testing.assert_allclose(array(each(x)), sx.softmax(x, axis=1, temperature=0.5), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, 0.5, 1e20, np.inf])
def test_a_label_that_is_no_integer_is_no_class(bad):
    x, y = np.zeros((3, 4), "float32"), np.array([0.0, bad, 2.0], "float32")
    try:
        found = array(sk.SparsemaxLoss(reduction=None)(y, x))
    except IndexError:
        return
    assert np.isnan(found[1]) and np.isfinite(found[[0, 2]]).all()


# -- models -----------------------------------------------------------------------------------------------------------


def digits():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 96)
    return (np.eye(4)[y] * 2 + random.normal(size=(96, 4))).astype("float32"), y


def a_model():
    inputs = keras.Input((4,))
    x = sk.MaxoutDense(8, pieces=2)(inputs)
    x = keras.layers.Dense(8, activation="softmin")(x)
    x = sk.Entmax(1.5, learnable=True)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("how", HOW)
def test_a_model_learns(how):
    keras.utils.set_random_seed(0)
    x, y = digits()
    model = a_model()
    options = {"run_eagerly": True} if how == "eager" else {"jit_compile": "auto" if how == "auto" else how == "jit"}
    model.compile(keras.optimizers.Adam(0.05), loss="sparsemax_loss", metrics=["accuracy"], **options)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=2 if how == "eager" else 12, batch_size=32, verbose=0)
    after = model.evaluate(x, y, verbose=0)
    assert after[0] < (0.95 if how == "eager" else 0.8) * before[0]


@pytest.mark.skipif(BACKEND != "torch", reason="the others compile in test_a_model_learns")
@pytest.mark.filterwarnings("ignore")  # what torch's compiler says of Keras' layers
def test_torch_compiles_what_trains(monkeypatch):
    """By all of torch.compile but the C++ that it writes in the end, which takes minutes."""
    torch = importlib.import_module("torch")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)  # larger models come to its usual 8
    x, y = digits()
    found = []
    for is_compiled in (False, True):
        keras.utils.set_random_seed(0)
        model = a_model()
        model.compile(keras.optimizers.Adam(0.05), loss="sparsemax_loss", jit_compile=is_compiled)
        model.fit(x, y, batch_size=32, verbose=0)
        assert model.jit_compile is is_compiled
        found.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_a_model_survives_its_file(tmp_path):
    x, y = digits()
    model = a_model()
    model.compile("adam", loss=sk.Entmax15Loss(label_smoothing=0.1))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert isinstance(again.loss, sk.Entmax15Loss) and again.loss.label_smoothing == 0.1
    again.fit(x, y, verbose=0)


def test_functions_on_symbols_make_a_model(tmp_path):
    x = SCORES.astype("float32")
    inputs, mask = keras.Input((4,)), keras.Input((4,), dtype="bool")
    p = sx.sparsemax(inputs, temperature=0.5, where=mask)
    q = sx.blend({sx.entmax.bind(alpha=1.3): 0.25, sx.softmin: 0.75})(inputs, -1, dtype="float32")
    top = sx.maxout(inputs, 2)
    size = sx.entmax15.smooth_max(inputs)
    jacobian = sx.sparsemax.jacobian(inputs)
    loss = sx.cross_entropy(inputs, keras.ops.cast(mask, "float32"), reduction="none")
    assert [tuple(one.shape) for one in (p, q, top, size, jacobian, loss)] == [
        (None, 4),
        (None, 4),
        (None, 2),
        (None,),
        (None, 4, 4),
        (None,),
    ]
    model = keras.Model([inputs, mask], [p, q, top, size, jacobian, loss])
    model.save(tmp_path / "model.keras")
    allowed = np.array([[True, True, False, True], [True] * 4, [False, True, True, False]])
    wanted = [
        sx.sparsemax(x, temperature=0.5, where=allowed),
        sx.blend({sx.entmax.bind(alpha=1.3): 0.25, sx.softmin: 0.75})(x),
        sx.maxout(x, 2),
        sx.entmax15.smooth_max(x),
        sx.sparsemax.jacobian(x),
        sx.cross_entropy(x, allowed.astype("float32"), reduction="none"),
    ]
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        for found, expected in zip(each([x, allowed]), wanted, strict=True):
            np.testing.assert_allclose(array(found), expected, rtol=1e-5, atol=1e-6)


def test_variables_are_taken_as_scores_and_as_parameters():
    x, alpha = keras.Variable(SCORES.astype("float32")), keras.Variable(1.3)
    wanted = sx.entmax(SCORES.astype("float32"), alpha=np.float32(1.3))
    np.testing.assert_allclose(array(sx.entmax(x, alpha=alpha)), wanted, **ACCURATE)
    np.testing.assert_allclose(array(sx.entmax(keras.ops.convert_to_tensor(x), alpha=alpha)), wanted, **ACCURATE)
    np.testing.assert_allclose(
        array(sx.sparsemax.vjp(x, x)), sx.sparsemax.vjp(*[SCORES.astype("float32")] * 2), **ACCURATE
    )
    assert float(array(sx.sparsemax_loss(x, np.array([0, 1, 2])))) > 0


def test_a_parameter_that_is_a_variable_gets_its_gradient():
    layer = keras.layers.Layer()
    alpha = layer.add_weight(shape=(), initializer=lambda shape, dtype=None: keras.ops.ones(shape, dtype) * 1.3)
    g = np.ones((3, 4), "float32") * np.arange(4, dtype="float32")
    wanted = float(sx.entmax.vjp(SCORES.astype("float32"), g, wrt="alpha", alpha=np.float64(np.float32(1.3))))
    x = keras.ops.convert_to_tensor(SCORES.astype("float32"))
    if BACKEND == "tensorflow":
        tf = importlib.import_module("tensorflow")
        with tf.GradientTape() as tape:
            y = keras.ops.sum(sx.entmax(x, alpha=alpha) * g)
        found = float(tape.gradient(y, alpha.value))
    elif BACKEND == "torch":
        keras.ops.sum(sx.entmax(x, alpha=alpha) * keras.ops.convert_to_tensor(g)).backward()
        found = float(alpha.value.grad)
    else:
        found = gradient(lambda a: keras.ops.sum(sx.entmax(x, alpha=a) * g), array(alpha))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


# -- what is wrong is said --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (sk.Budget, TypeError, "missing a required argument: 'budget'.*it takes"),
        (lambda: sk.Softmin(alpha=2.0), TypeError, "^Softmin got.*'alpha'; it takes axis, temperature.*name"),
        (lambda: sk.Entmax(alhpa=2.0), TypeError, "^Entmax got.*'alhpa'; it takes alpha, axis"),
        (lambda: sk.Activation(sx.entmax, alhpa=2.0), TypeError, "^Activation got.*'alhpa'; it takes alpha, map, axis"),
        (lambda: sk.Softmin(learnable=True), TypeError, "to be learned"),
        (lambda: sk.Activation(sx.softmax, learnable=True), TypeError, "no hyper-parameter"),
        (lambda: sk.Activation(np.exp), TypeError, "is not a map"),
        (lambda: sk.Weights("sparsemax"), TypeError, "is not a map"),
        (lambda: sk.Entmax(0.5), ValueError, "^Entmax: alpha is 0.5; it must be at least 1"),
        (lambda: sk.Entmax("2"), TypeError, "^Entmax: alpha='2' is not a number; give one, at least 1"),
        (lambda: sk.Entmax("2", learnable=True), TypeError, "^Entmax: alpha is an array of dtype <U1.*give float64"),
        (lambda: sk.Entmax([1.2, 1.5]), TypeError, r"^Entmax: alpha=\[1.2, 1.5\] is not a number; give one"),
        (lambda: sk.Entmax(None), TypeError, "^Entmax needs alpha=..., at least 1"),
        (lambda: sk.Entmax(0.5, learnable=True), ValueError, "starts at 0.5.*at least 1"),
        (lambda: sk.Entmax(1.5, True), TypeError, "axis=True is not an axis"),
        (lambda: sk.Sparsemax("last"), TypeError, "^Sparsemax: axis='last' is not an axis; give an integer"),
        (lambda: sk.Sparsemax([0, 1.5]), TypeError, "^Sparsemax: axis=.* is not an axis; give an integer"),
        (lambda: sk.Sparsemax([]), ValueError, "^Sparsemax: axis=.* names no axis; give at least one"),
        (lambda: sk.Sparsemax([1, 1]), ValueError, "^Sparsemax: axis=.* names an axis twice"),
        (lambda: sk.Sparsemax(temperature=0), ValueError, "^Sparsemax: temperature is 0.0; it must be more than 0"),
        (lambda: sk.Sparsemax(temperature="hot"), TypeError, "^Sparsemax: temperature='hot' is not a number; give one"),
        (lambda: sk.Sparsemax(empty="none"), ValueError, "^Sparsemax: empty='none' is not known; give 'zero' or 'nan'"),
        (lambda: sk.Budget(2.0, learnable=True), TypeError, "cannot be learnable"),
        (lambda: sk.Maxout(0), ValueError, "pieces=0"),
        (lambda: sk.Maxout(1.5), TypeError, "not an integer"),
        (lambda: sk.Maxout(2, axis=None), TypeError, "^Maxout: axis=None is not an axis; give an integer"),
        (lambda: sk.Maxout(2, axes=1), TypeError, "^Maxout got.*'axes'; it takes pieces, axis"),
        (lambda: sk.MaxoutDense(3, 2, bias=True), TypeError, "^MaxoutDense got.*'bias'; it takes units.*use_bias"),
        (lambda: sk.Maxout(3)(np.zeros((2, 4), "float32")), ValueError, "must divide"),
        (lambda: sk.MaxoutDense(0, 2), ValueError, "units=0"),
        (lambda: sk.MaxoutConv1D(3, 1, pieces=2, groups=2), ValueError, "groups must divide filters"),
        (lambda: sk.FenchelYoungLoss(sx.log_softmax), TypeError, "has no loss"),
        (lambda: sk.EntmaxLoss(0.5), ValueError, "^EntmaxLoss: alpha is 0.5; it must be at least 1"),
        (lambda: sk.EntmaxLoss(alhpa=1.5), TypeError, "^EntmaxLoss got.*'alhpa'; it takes alpha, axis"),
        (lambda: sk.FenchelYoungLoss(sx.budget), TypeError, "^FenchelYoungLoss needs budget=..., at least 0"),
        (lambda: sk.SparsemaxLoss((0, 1)), TypeError, r"^SparsemaxLoss: axis=\(0, 1\) is not an axis; give an integer"),
        (lambda: sk.SparsemaxLoss(temperature=-1), ValueError, "^SparsemaxLoss: temperature is -1.0; it must be"),
        (lambda: sk.SparsemaxLoss(label_smoothing=2), ValueError, "^SparsemaxLoss: label_smoothing is 2; it must lie"),
        (lambda: sk.SparsemaxLoss(ignore_class="no"), TypeError, "^SparsemaxLoss: ignore_class='no' is not a class"),
        (lambda: sk.SparsemaxLoss()(np.zeros((2, 3)), np.zeros((2, 4))), ValueError, "shape"),
        (lambda: sx.sparsemax(keras.Input((4,)), axis=5), ValueError, "out of bounds"),
    ],
)
def test_what_is_wrong_is_said(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def test_every_name_is_documented():
    for name in sk.__all__:
        assert getattr(sk, name).__doc__, name
