"""What JAX asks of its functions beyond the laws: transforms, programs, precisions, shards, and errors."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import reference
import softplex as sx
from frameworks import load_jax, with_64_bit
from processes import environment

pytest.importorskip("jax", reason="jax is not installed")
jax = load_jax()
jnp = jax.numpy
compiled = importlib.import_module("softplex.backends.jax.primitive").compiled
program = importlib.import_module("softplex.backends.jax.derivatives").program

MAPS = [pytest.param(map_, {"budget": 2.0} if map_ is sx.budget else {}, id=map_.name) for map_ in sx.MAPS]
SIMPLEX = [each for each in MAPS if not each.id.startswith("log")]
KERNELS = not sx.info()["instruction set"].startswith("none")


def draws(*shape, seed=0, dtype="float32", scale=1.0):
    return jnp.asarray((np.random.default_rng(seed).normal(size=shape) * scale).astype(dtype))


def close(got, wanted, rtol=2e-5):
    wanted = np.asarray(wanted, np.float64)
    scale = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=0.0)
    np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=rtol, atol=rtol * scale)


# -- the same numbers as NumPy -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not KERNELS, reason="softplex was built without its kernels")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("map_", "hyper"), [each for each in MAPS if each.id not in ("normmax", "budget")])
def test_programs_on_the_cpu_have_the_bits_of_numpy(map_, hyper, dtype):
    x, g = draws(5, 33, dtype=dtype), draws(5, 33, seed=1, dtype=dtype)
    where = jnp.asarray(np.random.default_rng(2).random((5, 33)) < 0.7)
    for options in ({}, {"temperature": 0.7}, {"sink": 0.3}, {"where": where}, {"axis": 0}):
        plain = {name: np.asarray(value) if name == "where" else value for name, value in options.items()}
        call = jax.jit(lambda x, options=options: map_(x, **options, **hyper))
        assert np.array_equal(call(x), map_(np.asarray(x), **plain, **hyper))
        back = jax.jit(lambda x, g, options=options: map_.vjp(x, g, **options, **hyper))
        assert np.array_equal(back(x, g), map_.vjp(np.asarray(x), np.asarray(g), **plain, **hyper))


def test_one_program_serves_all_temperatures_and_sinks_of_an_eager_loop():
    """Annealing by Python numbers compiles once, as it does for every other function of JAX."""
    x, y = draws(4, 9), jnp.zeros(4, int)
    calls = [
        lambda each: sx.softmax(x, temperature=each),
        lambda each: jax.grad(lambda x: sx.sparsemax_loss(x, y, temperature=each))(x),
        lambda each: jax.grad(lambda x: jnp.sum(sx.entmax15(x, temperature=each, sink=each) ** 2))(x),
        lambda each: sx.normmax.vjp(x, x, temperature=each),
    ]
    for call in calls:
        first = call(0.5)
        before = [each.cache_info().misses for each in (compiled, program)]
        found = [call(each) for each in (0.7, 0.9, 1.1)]
        assert [each.cache_info().misses for each in (compiled, program)] == before
        for each, one in zip((0.7, 0.9, 1.1), found, strict=True):
            assert not np.array_equal(one, first)
            close(one, jax.jit(call, static_argnums=0)(each))


@pytest.mark.parametrize("temperature", [0.3, 1 / 3, 0.1])
def test_a_temperature_that_float32_does_not_hold_is_not_rounded(temperature):
    """Section 4's bound for formulas in 32 bit is 16 ULP; a rounded temperature costs up to 55."""
    x = draws(50, 30, scale=5.0)
    wanted = sx.softmax(np.asarray(x, np.float64), temperature=temperature)
    with sx.kernels("none"):
        for call in (
            lambda x: sx.softmax(x, temperature=temperature),
            jax.jit(partial(sx.softmax, temperature=temperature)),
        ):
            off = np.abs(np.asarray(call(x), np.float64) - wanted)
            assert np.max((off / np.spacing(wanted.astype(np.float32)))[wanted > 1e-36]) < 8


@pytest.mark.parametrize("loss", [sx.cross_entropy, sx.sparsemax_loss, sx.entmax15_loss])
def test_batches_of_class_weights_are_differentiated_from_outside(loss):
    x, weight = jnp.asarray([[[0.5, 0.3, 0.1]], [[1.0, 2.0, 0.0]]]), jnp.asarray([[1.0, 2.0, 3.0], [0.5, 1.0, 1.0]])

    def one(x, weight):
        return loss(x, jnp.asarray([1]), weight=weight, reduction="sum")

    wanted = jax.vmap(jax.grad(one))(x, weight)
    close(jax.grad(lambda x: jnp.sum(jax.vmap(one)(x, weight)))(x), wanted)
    for t in (jnp.ones_like(x), draws(2, 1, 3, seed=4)):
        found = jax.jvp(lambda x: jax.vmap(one)(x, weight), (x,), (t,))[1]
        np.testing.assert_allclose(found, jnp.sum(wanted * t, axis=(1, 2)), atol=1e-6)


def test_an_unsigned_class_that_wraps_around_is_none():
    y = jnp.asarray([0, 1, 2**32 - 100, 2], jnp.uint32)
    found = jax.jit(lambda y: sx.cross_entropy(draws(4, 5), y, reduction="none"))(y)
    assert np.array_equal(np.isnan(found), [False, False, True, False])


@pytest.mark.parametrize("kernels", ["auto", "none"])
def test_callers_may_forbid_that_ranks_are_promoted(kernels):
    x, y, p, weight = draws(4, 5), jnp.zeros(4, int), sx.softmax(draws(4, 5, seed=1)), jnp.arange(1.0, 6.0)
    cases = [
        lambda loss: jax.grad(lambda x: loss(x, y, weight=weight))(x),
        lambda loss: jax.grad(lambda x: loss(x, y, weight=weight, label_smoothing=0.1))(x),
        lambda loss: jax.grad(lambda x: loss(x, p, label_smoothing=0.1))(x),
    ]
    for loss in (sx.cross_entropy, sx.entmax15_loss):
        for case in cases:
            wanted = case(loss)
            with jax.numpy_rank_promotion("raise"), sx.kernels(kernels):
                assert np.any(np.asarray(wanted))
                close(case(loss), wanted)


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_lists_of_axes_and_masks_that_broadcast(map_, hyper):
    x = draws(3, 4, 5)
    where = jnp.asarray(np.random.default_rng(2).random((4, 1)) < 0.8)
    for axis in (1, (0, 2), None):
        close(jax.jit(lambda x, axis=axis: map_(x, axis, where=where, **hyper))(x),
              map_(np.asarray(x), axis, where=np.asarray(where), **hyper))  # fmt: skip
    close(map_(x[0, 0, 0], **({"budget": 1.0} if hyper else {})), 0.0 if map_.name.startswith("log") else 1.0)


@pytest.mark.parametrize("formulas", [False, True])
@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_64_bit_and_32_bit_live_side_by_side(map_, hyper, formulas):
    x = np.random.default_rng(0).normal(size=(3, 7))
    with sx.kernels("none" if formulas else "auto"):
        with with_64_bit(True):
            wide = map_(jnp.asarray(x), **hyper)
            assert wide.dtype == jnp.float64
            close(wide, map_(x, **hyper), 1e-14)
            assert map_(jnp.arange(3), **hyper).dtype == jnp.float64
        narrow = map_(jnp.asarray(x), **hyper)
        assert narrow.dtype == jnp.float32
        close(narrow, map_(x.astype(np.float32), **hyper), 1e-6)
        assert map_(jnp.arange(3), **hyper).dtype == jnp.float32
        assert map_(jnp.asarray(x), dtype=jnp.bfloat16, **hyper).dtype == jnp.bfloat16
        if not map_.name.startswith("log"):
            assert map_.support_size(jnp.asarray(x), **hyper).dtype == jnp.int32


# -- transforms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_vmap_over_everything_that_can_be_given(map_, hyper):
    x, g = draws(4, 3, 6), draws(4, 3, 6, seed=1)
    warm, sink = jnp.asarray([0.5, 1.0, 2.0, 0.7]), jnp.asarray([-1.0, 0.0, 0.5, 0.2])
    where = jnp.asarray(np.random.default_rng(2).random((4, 3, 6)) < 0.8)

    def both(x, g, t, s, w):
        return map_(x, temperature=t, sink=s, where=w, **hyper), map_.vjp(x, g, temperature=t, sink=s, where=w, **hyper)

    wanted = both(x, g, warm[:, None, None], sink[:, None, None], where)
    for got, one in zip(jax.vmap(both)(x, g, warm, sink, where), wanted, strict=True):
        close(got, one)
    for place in range(5) if map_ in (sx.softmax, sx.entmax) else (0, 3):
        axes = [None] * 5
        axes[place] = 0
        given = [x[0], g[0], warm[0], sink[0], where[0]]
        given[place] = (x, g, warm, sink, where)[place]
        got = jax.jit(jax.vmap(both, in_axes=tuple(axes)))(*given)
        for index in range(4):
            one = list(given)
            one[place] = given[place][index]
            for left, right in zip(got, both(*one), strict=True):
                close(left[index], right)
    close(
        jax.vmap(lambda x: map_(x, axis=1, **hyper), in_axes=0, out_axes=2)(x.transpose(0, 1, 2)),
        jnp.moveaxis(map_(x, axis=2, **hyper), 0, 2),
    )


@pytest.mark.parametrize(("map_", "hyper"), SIMPLEX)
def test_losses_under_vmap_with_targets_and_class_weights_of_their_own(map_, hyper):
    if hyper:
        hyper = {"budget": 1.0}
    x, weights = draws(3, 4, 5), jnp.asarray(np.random.default_rng(3).random((3, 5)).astype(np.float32))
    y = jnp.asarray(np.random.default_rng(4).integers(0, 5, (3, 4)))
    spread = jax.nn.softmax(draws(3, 4, 5, seed=5))
    for target in (y, spread):
        loss = lambda x, y, w: map_.loss(x, y, weight=w, **hyper)  # noqa: E731
        got = jax.vmap(jax.value_and_grad(loss))(x, target, weights)
        for place in range(3):
            one = jax.value_and_grad(loss)(x[place], target[place], weights[place])
            plain = map_.loss(*(np.asarray(a[place]) for a in (x, target)), weight=np.asarray(weights[place]), **hyper)
            close(got[0][place], plain)
            close(got[1][place], one[1])
            assert np.abs(one[1]).max() > 0


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_scan_remat_and_nested_programs(map_, hyper):
    x = draws(4, 6)

    def steps(x):
        return jax.lax.scan(lambda carry, row: (carry + map_(row, **hyper).sum(), map_(row, **hyper)), 0.0, x)[1]

    close(jax.jit(steps)(x), map_(x, **hyper))
    g = draws(4, 6, seed=1)
    plain = jax.grad(lambda x: (map_(x, **hyper) * g).sum())(x)
    assert np.abs(plain).max() > 0
    close(jax.grad(lambda x: (jax.jit(steps)(x) * g).sum())(x), plain)
    close(jax.grad(lambda x: (jax.checkpoint(lambda x: map_(x, **hyper))(x) * g).sum())(x), plain)
    close(jax.vmap(jax.grad(lambda x, g: (jax.checkpoint(steps)(x[None]) * g).sum()))(x, g), plain)


@pytest.mark.parametrize("formulas", [False, True])
@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_forward_mode_gives_values_under_every_transform(map_, hyper, formulas):
    with sx.kernels("none" if formulas else "auto"):
        x, t = draws(3, 7), draws(3, 7, seed=1)
        wanted = map_.jvp(np.asarray(x), np.asarray(t), **hyper)
        call = lambda x: map_(x, **hyper)  # noqa: E731
        assert np.abs(wanted).max() > 0
        close(jax.jvp(call, (x,), (t,))[1], wanted)
        close(jax.jit(lambda x, t: jax.jvp(jax.jit(call), (x,), (t,))[1])(x, t), wanted)
        close(jax.linearize(call, x)[1](t), wanted)
        close(jax.vmap(lambda x, t: jax.jvp(call, (x,), (t,))[1])(x, t), wanted)
        close(jnp.einsum("bij,bj->bi", jax.vmap(jax.jacfwd(call))(x), t), wanted)


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_fourth_derivatives(map_, hyper):
    """Every order, by the same rule: against differences of the third."""
    with with_64_bit(True):
        x, t = (jnp.asarray(np.random.default_rng(seed).normal(size=5) * 0.3) for seed in (0, 1))
        order = lambda x: map_(x, **hyper)  # noqa: E731
        for _ in range(3):
            order = lambda x, inner=order: jax.jvp(inner, (x,), (t,))[1]  # noqa: E731
        got = jax.jit(lambda x: jax.jvp(order, (x,), (t,))[1])(x)
        step, third = 1e-5, jax.jit(order)
        wanted = (third(x + step * t) - third(x - step * t)) / (2 * step)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
        if map_.name in ("softmax", "softmin", "log_softmax", "entmax15"):
            assert np.abs(got).max() > 1e-6


def test_gradients_go_to_the_first_winner():
    x = jnp.asarray([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 1.0, 0.0]])
    for formulas in ("auto", "none"):
        with sx.kernels(formulas):
            g = jax.grad(lambda x: (sx.maxout(x, pieces=2) * jnp.asarray([1.0, 10.0])).sum())(x)
            assert np.array_equal(g, [[0, 1, 10, 0], [1, 0, 10, 0]])
            t = jax.jvp(sx.maxout, (x,), (jnp.arange(8.0).reshape(2, 4),))[1]
            assert np.array_equal(t, [1.0, 4.0])
            batched = jax.vmap(jax.grad(lambda x: sx.maxout(x) ** 2))(x)
            assert np.array_equal(batched, [[0, 6, 0, 0], [10, 0, 0, 0]])
            second = jax.hessian(lambda x: sx.maxout(x) ** 2)(x[0])
            assert np.array_equal(second, np.diag([0.0, 2.0, 0.0, 0.0]))


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_masks_that_hide_nan_leave_finite_zero_gradients(map_, hyper):
    where = jnp.asarray([[True, True, False, True], [False] * 4])
    x = jnp.where(where, draws(2, 4), jnp.nan)
    g = jnp.where(where, draws(2, 4, seed=1), jnp.nan)
    warm, sink = {"temperature": jnp.asarray([[0.5], [2.0]])}, {"sink": jnp.asarray(0.1)}
    for formulas, tried in (("auto", ({}, warm, sink)), ("none", ({},))):
        with sx.kernels(formulas):
            for options in tried:
                moved = {"x": x, **options}
                loss = lambda moved: jnp.where(where, map_(**moved, where=where, **hyper) * g, 0.0).sum()  # noqa: E731
                found = jax.jit(jax.grad(loss))(moved)
                assert all(np.all(np.isfinite(one)) for one in found.values())
                assert np.all(found["x"][~where] == 0) and np.any(found["x"][0] != 0)
    hessian = jax.jit(jax.hessian(lambda x: jnp.where(where, map_(x, where=where, **hyper) * g, 0.0).sum()))(x)
    assert np.all(np.isfinite(hessian)) and np.any(hessian) == (map_ is not sx.sparsemax and map_ is not sx.budget)


# -- parameters and losses ---------------------------------------------------------------------------------------------


def test_learned_parameters_get_their_gradients_in_32_bit():
    x, g = draws(3, 9, scale=0.4), draws(3, 9, seed=1)
    for map_, hyper in ((sx.entmax, {"alpha": 1.4}), (sx.normmax, {"alpha": 2.5}), (sx.budget, {"budget": 2.0})):
        given = {"temperature": 0.8, "sink": 0.1, **hyper}

        def loss(given, map_=map_):
            return (map_(x, **given) * g).sum()

        got = jax.jit(jax.grad(loss))({name: jnp.asarray(value) for name, value in given.items()})
        wide = {name: np.asarray(value) for name, value in given.items()}
        wanted = map_.vjp(np.asarray(x, np.float64), np.asarray(g, np.float64), wrt=tuple(wide), **wide)
        for name, one in zip(wide, wanted, strict=True):
            assert abs(one) > 1e-3
            assert abs(got[name] - one) < 2e-4 * abs(one) + 2e-5, (map_, name)


def test_losses_agree_with_optax():
    optax = pytest.importorskip("optax", reason="optax is not installed")
    x, y = draws(6, 10, scale=3.0), jnp.asarray([0, 3, 9, 1, 1, 5])
    soft = jax.nn.softmax(draws(6, 10, seed=1))
    for mine, theirs in (
        (lambda x: sx.cross_entropy(x, y), lambda x: optax.softmax_cross_entropy_with_integer_labels(x, y).mean()),
        (lambda x: sx.cross_entropy(x, soft), lambda x: optax.softmax_cross_entropy(x, soft).mean()),
        (
            lambda x: sx.softmax.loss(x, y),
            lambda x: optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)(x, jax.nn.one_hot(y, 10)).mean(),
        ),
    ):
        for left, right in zip(jax.value_and_grad(mine)(x), jax.value_and_grad(theirs)(x), strict=True):
            close(left, right, 1e-5)


def test_sparsemax_loss_agrees_with_optax_on_two_classes():
    """optax has the binary one, of the difference of two scores."""
    optax = pytest.importorskip("optax", reason="optax is not installed")
    x, y = draws(20, scale=2.0), jnp.arange(20) % 2
    mine = sx.sparsemax_loss(jnp.stack([jnp.zeros(20), x], -1), y, reduction="none")
    close(mine, jax.vmap(optax.losses.sparsemax_loss)(x, y), 1e-5)


@pytest.mark.parametrize(("map_", "hyper"), SIMPLEX)
def test_the_gradient_of_the_smooth_maximum_is_the_map(map_, hyper):
    x = draws(3, 8)
    sign = -1.0 if map_ is sx.softmin else 1.0  # whose scores are -x
    close(jax.grad(lambda x: map_.smooth_max(x, **hyper).sum())(x), sign * map_(x, **hyper))


# -- what cannot be looked at ------------------------------------------------------------------------------------------


def test_wrong_numbers_are_refused_where_they_can_be_seen_and_nan_where_not():
    x, column = draws(3, 4), jnp.asarray([[1.0], [0.0], [2.0]])
    with pytest.raises(ValueError, match="temperature is an array with 0.0"):
        sx.softmax(x, temperature=column)
    with pytest.raises(IndexError, match="holds the index 4"):
        sx.cross_entropy(x, jnp.asarray([0, 4, 1]))
    with pytest.raises(ValueError, match="alpha is 0.5"):
        jax.jit(lambda x: sx.entmax(x, alpha=0.5))(x)
    with pytest.raises(ValueError, match="temperature is an array with 0.0"):
        jax.jit(lambda x: sx.softmax(x, temperature=column))(x)  # a constant of the program
    for formulas in ("auto", "none"):
        with sx.kernels(formulas):
            p = jax.jit(lambda x, t: sx.softmax(x, temperature=t))(x, column)
            assert np.array_equal(np.isnan(p).all(-1), [False, True, False])
            assert np.array_equal(np.isnan(p).any(-1), [False, True, False])
            loss = jax.jit(lambda x, y: sx.cross_entropy(x, y, reduction="none"))
            got = loss(x, jnp.asarray([0, 4, -100]))
            assert np.array_equal(np.isnan(got), [False, True, False]) and got[2] == 0 and got[0] > 0
            g = jax.jit(jax.grad(lambda x, y: sx.cross_entropy(x, y, reduction="sum")))(x, jnp.asarray([0, 4, -100]))
            assert np.array_equal(np.isnan(g).any(-1), [False, True, False])
            p = jax.jit(lambda x, a: sx.entmax(x, alpha=a))(x, jnp.asarray([[1.5], [0.5], [2.0]]))
            assert np.array_equal(np.isnan(p).all(-1), [False, True, False])
            p = jax.jit(lambda x, k: sx.budget(x, budget=k))(x, jnp.asarray([[1.5], [9.0], [2.0]]))
            assert np.array_equal(np.isnan(p).all(-1), [False, True, False])


def test_wrong_arguments_say_what_to_do():
    x = draws(3, 4)
    with pytest.raises(TypeError, match="complex64"):
        sx.softmax(x.astype(jnp.complex64))
    with pytest.raises(TypeError, match="float8_e4m3fn"):
        sx.softmax(x.astype(jnp.float8_e4m3fn))
    with pytest.raises(TypeError, match="64-bit mode"):
        sx.softmax(x, dtype="float64")
    with pytest.raises(TypeError, match="out is for NumPy"):
        sx.softmax(x, out=np.empty((3, 4), np.float32))
    with pytest.raises(TypeError, match="where has dtype float32"):
        sx.softmax(x, where=x)
    with pytest.raises(np.exceptions.AxisError, match="axis 2"):
        sx.softmax(x, axis=2)
    with pytest.raises(ValueError, match="must broadcast|does not broadcast"):
        sx.softmax(x, where=jnp.ones((2, 4), bool))
    with pytest.raises(TypeError, match="key<"):
        sx.softmax(jax.random.key(0))


TRACED = {
    "temperature": lambda t: sx.softmax(np.ones(3), temperature=t),
    "alpha": lambda t: sx.entmax([1.0, 2.0], alpha=t),
    "where": lambda t: sx.softmax(np.ones((2, 3)), where=t > 0),
    "g": lambda t: sx.softmax.vjp(np.float64(1.0), t),
    "weight": lambda t: sx.cross_entropy(np.ones((2, 1)), np.zeros(2, int), weight=t[None]),
}


@pytest.mark.parametrize("what", TRACED)
def test_numpy_scores_with_what_is_traced_are_refused(what):
    with pytest.raises(TypeError, match=f": {what} is jax.*give x as an array of jax too"):
        jax.jit(TRACED[what])(2.0)


@pytest.mark.parametrize(("map_", "hyper"), MAPS)
def test_empty_arrays(map_, hyper):
    hyper = {"budget": 0.0} if hyper else {}
    for shape in ((0, 3), (3, 0), (0,)):
        for call in (map_, jax.jit(lambda x: map_(x, **hyper))):
            assert call(jnp.zeros(shape), **({} if call is not map_ else hyper)).shape == shape
        assert jax.grad(lambda x: map_(x, **hyper).sum())(jnp.zeros(shape)).shape == shape


def test_programs_are_kept_and_not_made_again():
    """A second call, and one with other numbers, makes no new program; nor does a learned temperature."""
    x = draws(3, 9)
    calls = [
        lambda k: sx.sparsemax(x + k),
        lambda k: sx.normmax(x, temperature=jnp.asarray(0.5 + k)),
        lambda k: sx.sparsemax.vjp(x, x + k),
        lambda k: sx.entmax15_loss(x + k, jnp.asarray([0, 1, 2])),
        lambda k: jax.grad(lambda x: sx.normmax(x, alpha=jnp.asarray(2.0)).sum())(x + k),
    ]
    for call in calls:
        call(0.0), call(0.5)
    with jax.log_compiles(), no_new_programs():
        for call in calls:
            call(1.0), call(2.0)


class no_new_programs:
    """No program of the primitive is compiled within."""

    def __enter__(self):
        from softplex.backends.jax.derivatives import program
        from softplex.backends.jax.primitive import compiled

        self.caches = [compiled, program]
        self.sizes = [cache.cache_info().currsize for cache in self.caches]

    def __exit__(self, *error):
        assert self.sizes == [cache.cache_info().currsize for cache in self.caches]


def test_exported_programs_hold_no_function_of_ours():
    export = pytest.importorskip("jax.export")
    for map_ in (sx.softmax, sx.sparsemax):
        exported = export.export(jax.jit(map_))(jax.ShapeDtypeStruct((3, 5), jnp.float32))
        again = export.deserialize(exported.serialize())
        x = draws(3, 5)
        assert "softplex" not in again.mlir_module() or "custom_call" not in again.mlir_module()
        close(again.call(x), map_(np.asarray(x)), 1e-6)


def test_what_debugging_turns_on_changes_nothing():
    x = draws(3, 5)
    with jax.disable_jit():
        close(sx.sparsemax(x), sx.sparsemax(np.asarray(x)), 1e-6)
        close(jax.grad(lambda x: sx.entmax15(x)[0, 0])(x), jax.jit(jax.grad(lambda x: sx.entmax15(x)[0, 0]))(x))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        sx.softmax(jnp.asarray([1.0, jnp.nan]))


def test_numbers_that_32_bits_do_not_hold():
    for formulas in ("auto", "none"):
        with sx.kernels(formulas):
            assert np.array_equal(sx.softmax(jnp.asarray([1.0, 2.0]), temperature=1e-50), [0.0, 1.0])
            assert np.array_equal(sx.softmax(jnp.asarray([1.0, 2.0]), sink=1e300), [0.0, 0.0])
    with with_64_bit(True):
        wide = jnp.ones((3, 5))
    with pytest.raises(TypeError, match="64-bit mode"):
        sx.softmax(wide)
    assert np.isfinite(sx.cross_entropy(draws(2, 3), jnp.asarray([0, 2]), ignore_index=2**40))


def test_logarithms_that_overflow_keep_their_gradients():
    x = jnp.asarray([0.0, 100.0], jnp.float16)
    for map_ in (sx.log_softmax, sx.log_softmin):
        g = jax.grad(lambda x, map_=map_: map_(x, temperature=1e-3)[0])(x)
        wanted = map_.vjp(np.asarray(x), np.asarray([1, 0], np.float16), temperature=1e-3)
        assert np.array_equal(g, wanted) and np.all(wanted != 0) == (map_ is sx.log_softmax)
    where = jnp.asarray([True, False, True])
    g = jax.grad(lambda x: sx.log_softmax(x, where=where)[0])(jnp.asarray([60000.0, 1.0, -60000.0], jnp.float16))
    assert np.array_equal(g, [0, 0, 0])


def test_no_kernel_where_none_is_wanted():
    def parameter_gradient(x):
        with sx.kernels("none"):
            return jax.grad(lambda t: (sx.entmax(x, temperature=t) ** 2).sum())(1.4)

    assert "@softplex" not in jax.jit(parameter_gradient).lower(draws(2, 3)).as_text()


# -- shards ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs_on_four_devices():
    script = Path(__file__).with_name("sharded.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split("|") for line in done.stdout.splitlines()]
    return {tuple(line[:3]): line[3:] for line in lines}


def test_sharded_classes_cost_sums_of_a_few_numbers_a_row(programs_on_four_devices):
    assert len(programs_on_four_devices) >= 5 * len(sx.MAPS)
    for (name, map_, sharded), (counts, largest, error) in programs_on_four_devices.items():
        counts = {key: int(count) for key, count in (each.split("=") for each in counts.split())}
        what = f"{name} of {map_} with sharded {sharded}: {counts}"
        assert not any(count for key, count in counts.items() if key != "all-reduce"), what
        assert float(largest) <= 2, what
        assert float(error) < 3e-6, (what, error)
        if sharded == "classes":
            assert counts["all-reduce"] > 0, what


SHARDED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, numpy as np, softplex as sx
from jax.sharding import AxisType, PartitionSpec as P

mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32))
y, t = jnp.asarray([1, 4]), jnp.asarray([[0.5], [2.0]])

def loss(x, y):
    return jax.lax.psum(sx.sparsemax_loss(x, y, reduction="sum"), "d")

def warm(x, t):
    return jax.lax.psum((sx.softmax(x[:1], temperature=t) ** 2).sum(), "d")

for x_spec, f in ((P("d"), loss), (P("d"), warm), (P(), warm)):
    shards = jax.shard_map(f, mesh=mesh, in_specs=(x_spec, P("d")), out_specs=P())
    got = jax.grad(shards)(x, y if f is loss else t)
    one = jax.grad(lambda x: sx.sparsemax_loss(x, y, reduction="sum"))(x)
    if f is warm:
        rows = lambda x: x if x_spec == P("d") else jnp.concatenate([x[:1], x[:1]])
        one = jax.grad(lambda x: (sx.softmax(rows(x), temperature=t) ** 2).sum())(x)
    assert np.abs(got - one).max() < 1e-6 and np.abs(one).max() > 0
"""


def test_gradients_within_shard_map():
    """Also of scores that all shards share, under targets and parameters that they do not."""
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


AT_LEISURE = """
import jax, numpy as np, softplex as sx

x, g = np.random.default_rng(0).normal(size=(2, 3, 9)).astype(np.float32)
hypers = [(each, {"budget": 2.0} if each is sx.budget else {}) for each in sx.MAPS]

def everything(x, g):
    return [(each(x, **hyper), each.vjp(x, g, **hyper)) for each, hyper in hypers]

with sx.kernels("none"):
    found = jax.jit(everything)(x, g)
for pair, wanted in zip(found, everything(x, g), strict=True):
    for one, other in zip(pair, wanted, strict=True):
        assert np.abs(one - other).max() < 3e-6 and np.abs(other).max() > 0
"""


def test_formulas_compiled_as_users_compile_them():
    """With all that XLA does to a program, of which the laws and the shards have less."""
    given = {**environment(), "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", AT_LEISURE], capture_output=True, text=True, env=given, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_reference_knows_supports_larger_than_one():
    """The rows that Keras computes wrongly, against the reference."""
    for row in ([0.5, 0.3, 0.1], [0.5, 0.5], [0.1, 0.2, 0.3, 0.2]):
        wanted = [float(value) for value in reference.row("sparsemax", np.asarray(row)).values]
        close(sx.sparsemax(jnp.asarray(row)), wanted, 1e-6)
        assert sum(value > 0 for value in wanted) > 1
