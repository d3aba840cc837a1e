"""Wrong maps, each with a mistake that somebody has made, and the law that must catch it.

Most are a true map behind a wrapper that spoils one call (`Wrong`); those of the formula replace one of its pieces.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import softplex as sx
from frameworks import load_tensorflow


class Wrong:
    """A map, but for the calls that are replaced; a replacement gets the true map first."""

    def __init__(self, map_, **replaced):
        self._map, self._replaced = map_, replaced
        self.__name__ = map_.__name__

    def __getattr__(self, name):
        if name in self._replaced:
            return lambda *arguments, **more: self._replaced[name](self._map, *arguments, **more)
        return getattr(self._map, name)

    def __call__(self, *arguments, **more):
        if "call" in self._replaced:
            return self._replaced["call"](self._map, *arguments, **more)
        return self._map(*arguments, **more)


@dataclass(frozen=True)
class Mutant:
    """A mistake: what it is called, the map it is made in, the law that sees it, and the dtype it shows in."""

    name: str
    of: object
    law: str
    make: Callable
    dtype: str = "float64"
    framework: str = "numpy"


MUTANTS: list[Mutant] = []


def mutant(of, law, dtype="float64", on=("numpy",)):
    """Enrol a function from the true map to the wrong one, on each of some frameworks."""

    def enrol(make):
        for framework in on:
            name = make.__name__ if framework == "numpy" else f"{make.__name__} on {framework}"
            MUTANTS.append(Mutant(name, of, law, make, dtype, framework))
        return make

    return enrol


def piece(map_, **pieces):
    """The map with pieces of its formula replaced."""
    return dataclasses.replace(map_, formula=dataclasses.replace(map_.formula, **pieces))


# -- thresholds and values --------------------------------------------------------------------------------------------


@mutant(sx.sparsemax, "values_are_accurate")
def sums_of_cumulative_sums(true):
    """Keras 3: the threshold from a cumulative sum that is summed again."""

    def call(true, x, axis=-1, **_):
        x = np.asarray(x)
        ranked = -np.sort(-x, axis=-1)
        running = np.cumsum(ranked, axis=-1)
        inside = 1 + np.arange(1, x.shape[-1] + 1) * ranked > running
        count = inside.sum(axis=-1, keepdims=True)
        tau = (np.sum(np.where(inside, running, 0), axis=-1, keepdims=True) - 1) / count
        return np.maximum(x - tau, 0)

    return Wrong(true, call=call)


@mutant(sx.softmax, "values_are_accurate", "float32")
def no_maximum_taken_off(true):
    def call(true, x, axis=-1, **_):
        with np.errstate(all="ignore"):
            raised = np.exp(np.asarray(x))
            return raised / raised.sum(axis=axis, keepdims=True)

    return Wrong(true, call=call)


@mutant(sx.softmax, "values_are_accurate", "float32")
def rounding_of_the_difference_forgotten(true):
    """torch, SciPy and JAX: x - max rounded in float32, and exp amplifies it."""

    def call(true, x, axis=-1, **_):
        raised = np.exp(x - x.max(axis=axis, keepdims=True))
        return raised / raised.sum(axis=axis, keepdims=True)

    return Wrong(true, call=call)


@mutant(sx.log_softmax, "values_are_accurate")
def logarithm_of_softmax(true):
    def call(true, x, axis=-1, **more):
        with np.errstate(all="ignore"):
            return np.log(sx.softmax(x, axis, **more))

    return Wrong(true, call=call)


@mutant(sx.log_softmax, "values_are_accurate")
def logarithm_of_a_sum_with_the_leading_one(true):
    def call(true, x, axis=-1, **_):
        gap = x - x.max(axis=axis, keepdims=True)
        return gap - np.log(np.exp(gap).sum(axis=axis, keepdims=True))

    return Wrong(true, call=call)


@mutant(sx.softmax, "values_are_accurate", "float16")
def sums_kept_in_sixteen_bits(true):
    def call(true, x, axis=-1, **_):
        with np.errstate(all="ignore"):
            raised = np.exp(x - x.max(axis=axis, keepdims=True))
            return raised / raised.sum(axis=axis, keepdims=True, dtype=x.dtype)

    return Wrong(true, call=call)


@mutant(sx.entmax15, "supports_of_every_size_are_exact")
def small_weights_cut_off(true):
    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        return np.where(p < 1e-3, 0, p)

    def support_size(true, x, axis=-1, **options):
        return np.count_nonzero(call(true, x, axis, **options), axis=axis)

    return Wrong(true, call=call, support_size=support_size)


@mutant(sx.sparsemax, "values_are_accurate")
def support_with_a_floor(true):
    def call(true, x, *more, **options):
        return np.maximum(true(x, *more, **options), 1e-9)

    return Wrong(true, call=call)


@mutant(sx.entmax, "values_are_accurate")
def alpha_two_at_its_neighbours(true):
    """A tolerance around alpha = 2 that takes the closed form there."""

    def call(true, x, *more, alpha=1.5, **options):
        return true(x, *more, alpha=2.0 if abs(alpha - 2) < 1e-3 else alpha, **options)

    return Wrong(true, call=call)


@mutant(sx.budget, "values_are_accurate")
def a_budget_without_a_cap(true):
    def call(true, x, *more, budget, **options):
        return budget * sx.sparsemax(np.asarray(x) / budget, *more, **options) if budget else true(x, budget=0)

    return Wrong(true, call=call)


@mutant(sx.softmin, "values_are_accurate")
def the_sign_forgotten(true):
    return Wrong(true, call=lambda true, x, *more, **options: sx.softmax(x, *more, **options))


@mutant(sx.entmax, "ties_get_equal_bits")
def the_first_of_a_tie_wins(true):
    def call(true, x, *more, alpha=1.5, **options):
        p = true(x, *more, alpha=alpha, **options)
        if not np.isinf(alpha):
            return p
        return (np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]).astype(x.dtype)

    return Wrong(true, call=call)


@mutant(sx.softmax, "ties_get_equal_bits")
def a_tail_handled_by_other_code(true):
    """The last entries of a row off by one unit, as a vector loop's remainder may be."""

    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        p[..., 5:] = np.nextafter(p[..., 5:], np.inf)
        return p

    return Wrong(true, call=call)


# -- pieces of the formula --------------------------------------------------------------------------------------------


@mutant(sx.sparsemax, "vjp_is_accurate")
def slope_of_softmax(true):
    return piece(true, slope=lambda xp, p: p)


@mutant(sx.entmax15, "jvp_is_accurate")
def slope_without_the_root(true):
    return piece(true, slope=lambda xp, p: xp.sqrt(p) * p)


@mutant(sx.sparsemax, "losses_are_accurate_against_a_distribution")
def omega_without_its_half(true):
    return piece(true, omega=lambda xp, p: p * (p - 1.0))


@mutant(sx.sparsemax, "regularizer_vanishes_at_a_vertex")
def omega_not_shifted_to_zero(true):
    return piece(true, omega=lambda xp, p: 0.5 * p * p)


@mutant(sx.entmax15, "values_are_accurate")
def link_with_another_scale(true):
    def moved(xp, p, d):
        root = xp.maximum(xp.sqrt(p) + 0.25 * d, 0.0)
        return root * root

    return piece(true, moved=moved)


@mutant(sx.entmax, "parameter_derivatives_are_accurate")
def partials_two_percent_off(true):
    partials = true.formula.partials
    return piece(true, partials=lambda xp, p, **hyper: {"alpha": 1.02 * partials(xp, p, **hyper)["alpha"]})


@mutant(sx.entmax, "alpha_derivative_is_accurate_near_its_special_values")
def no_limit_at_alpha_one(true):
    partials = true.formula.partials

    def moved_away(xp, p, alpha):
        return partials(xp, p, alpha=xp.where(alpha < 1.0001, 1.0001, alpha))

    return piece(true, partials=moved_away)


# -- arguments --------------------------------------------------------------------------------------------------------


@mutant(sx.softmax, "values_are_accurate_under_a_temperature")
def temperature_multiplied(true):
    def call(true, x, *more, temperature=1.0, **options):
        return true(x, *more, temperature=1 / np.asarray(temperature), **options)

    return Wrong(true, call=call)


@mutant(sx.sparsemax, "derivatives_are_accurate_with_everything_at_once")
def temperature_left_out_of_the_gradient(true):
    def vjp(true, x, g, *more, temperature=1.0, **options):
        return true.vjp(x, g, *more, temperature=temperature, **options) * np.asarray(temperature, x.dtype)

    return Wrong(true, vjp=vjp)


@mutant(sx.softmax, "smooth_max_takes_temperature_sink_and_mask")
def smooth_max_of_the_scaled_scores(true):
    def smooth_max(true, x, *more, temperature=1.0, **options):
        return true.smooth_max(x, *more, temperature=temperature, **options) / np.squeeze(temperature)

    return Wrong(true, smooth_max=smooth_max)


@mutant(sx.softmax, "values_are_accurate_with_a_sink")
def sink_forgotten(true):
    return Wrong(true, call=lambda true, x, *more, sink=None, **options: true(x, *more, **options))


@mutant(sx.sparsemax, "a_sink_is_one_more_entry")
def sink_not_divided_by_the_temperature(true):
    def call(true, x, *more, sink=None, temperature=1.0, **options):
        sink = None if sink is None else sink * np.asarray(temperature)
        return true(x, *more, sink=sink, temperature=temperature, **options)

    return Wrong(true, call=call)


@mutant(sx.softmax, "a_sink_takes_all_of_a_masked_row")
def masked_rows_are_empty_beside_a_sink(true):
    def call(true, x, *more, where=None, **options):
        p = true(x, *more, where=where, **options)
        empty = options.get("empty") == "nan" and where is not None and not np.any(where)
        return np.full_like(p, np.nan) if empty else p

    return Wrong(true, call=call)


@mutant(sx.softmax, "a_mask_removes_entries")
def a_leaking_mask(true):
    """The mask as a large negative number added to the scores: NaN under it leaks out."""

    def call(true, x, *more, where=None, **options):
        return true(x if where is None else x + np.where(where, 0, -1e9), *more, **options)

    return Wrong(true, call=call)


@mutant(sx.softmax, "empty_rows_are_zero_or_nan")
def a_masked_row_is_uniform(true):
    def call(true, x, *more, where=None, **options):
        return true(x if where is None else np.where(where, x, -1e9), *more, **options)

    return Wrong(true, call=call)


@mutant(sx.softmax, "dead_entries_pass_no_gradient")
def zero_times_nan(true):
    def vjp(true, x, g, *more, **options):
        p = true(x, *more)
        return p * (g - np.sum(p * g, axis=-1, keepdims=True))

    return Wrong(true, vjp=vjp)


@mutant(sx.softmax, "bad_rows_are_nan_and_alone")
def one_maximum_for_all_rows(true):
    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        return p + (0 * x.max())

    return Wrong(true, call=call)


@mutant(sx.sparsemax, "bad_rows_are_nan_and_alone")
def infinity_takes_all(true):
    def call(true, x, *more, **options):
        return true(np.where(np.isposinf(x), 1e300, x), *more, **options)

    return Wrong(true, call=call)


@mutant(sx.softmax, "axes_are_what_they_say")
def all_axes_taken_for_the_last(true):
    def call(true, x, **options):
        return true(x, **{key: -1 if value is None and key == "axis" else value for key, value in options.items()})

    return Wrong(true, call=call)


@mutant(sx.softmax, "bad_temperatures_are_refused")
def any_temperature_will_do(true):
    def call(true, x, *more, temperature=1.0, **options):
        try:
            return true(x, *more, temperature=temperature, **options)
        except ValueError:
            return true(x, *more, **options)

    return Wrong(true, call=call)


# -- derivatives ------------------------------------------------------------------------------------------------------


@mutant(sx.sparsemax, "jvp_is_accurate")
def silent_zeros(true):
    """torch's custom operators, and a while loop under jacfwd."""
    return Wrong(true, jvp=lambda true, x, t, *more, **options: np.zeros_like(x))


@mutant(sx.log_softmax, "vjp_is_accurate")
def vjp_that_is_not_transposed(true):
    return Wrong(true, vjp=lambda true, x, g, *more, **options: true.jvp(x, g, *more, **options))


@mutant(sx.sparsemax, "jacobian_puts_the_axis_last")
def jacobian_along_the_last_axis(true):
    def jacobian(true, x, axis=-1, **options):
        return true.jacobian(x, **options)

    return Wrong(true, jacobian=jacobian)


@mutant(sx.entmax15, "wrt_takes_a_name_or_names")
def wrt_in_an_order_of_its_own(true):
    def vjp(true, x, g, *more, wrt="x", **options):
        if isinstance(wrt, str):
            return true.vjp(x, g, *more, wrt=wrt, **options)
        found = dict(zip(sorted(wrt), true.vjp(x, g, *more, wrt=tuple(sorted(wrt)), **options), strict=True))
        return tuple(found.values())

    return Wrong(true, vjp=vjp)


@mutant(sx.softmax, "scalar_parameters_gather_all_rows")
def parameter_gradient_of_the_first_row(true):
    def vjp(true, x, g, *more, wrt="x", **options):
        if wrt == "temperature":
            return true.vjp(x[:1], g[:1], *more, wrt=wrt, **options)
        return true.vjp(x, g, *more, wrt=wrt, **options)

    return Wrong(true, vjp=vjp)


# -- losses -----------------------------------------------------------------------------------------------------------


@mutant(sx.softmax, "residuals_are_accurate", "float32")
def residual_that_cancels(true):
    def residual(true, x, y, *more, **options):
        p = true(x, *more, **options)
        target = np.eye(p.shape[-1], dtype=p.dtype)[y] if y.dtype.kind in "iu" else y
        return p - target

    return Wrong(true, residual=residual)


@mutant(sx.sparsemax, "losses_are_accurate_against_a_distribution")
def loss_without_omega_of_y(true):
    def loss(true, x, y, *more, **options):
        return true.loss(x, y, *more, **options) - true.regularizer(y, *more)

    return Wrong(true, loss=loss)


@mutant(sx.softmax, "losses_reduce_as_torch_does")
def mean_over_the_rows_instead_of_the_weights(true):
    def loss(true, x, y, *more, reduction="mean", **options):
        rows = true.loss(x, y, *more, reduction="none", **options)
        return {"none": rows, "sum": rows.sum(), "mean": rows.mean()}[reduction]

    return Wrong(true, loss=loss)


@mutant(sx.softmax, "all_ignored_means_zero")
def nothing_over_nothing(true):
    def loss(true, x, y, *more, reduction="mean", **options):
        found = true.loss(x, y, *more, reduction=reduction, **options)
        return found * np.nan if reduction == "mean" and np.all(y == options.get("ignore_index")) else found

    return Wrong(true, loss=loss)


@mutant(sx.softmax, "label_smoothing_spreads_over_what_competes")
def smoothing_over_all_entries(true):
    def loss(true, x, y, *more, label_smoothing=0.0, **options):
        y = np.eye(x.shape[-1])[y] if y.dtype.kind in "iu" else y
        return true.loss(x, (1 - label_smoothing) * y + label_smoothing / x.shape[-1], *more, **options)

    return Wrong(true, loss=loss)


@mutant(sx.sparsemax, "impossible_targets_are_infinite_never_nan")
def impossible_targets_are_nan(true):
    def loss(true, x, y, *more, **options):
        found = true.loss(x, y, *more, **options)
        return np.where(np.isinf(found), np.nan, found)

    return Wrong(true, loss=loss)


# -- arrays -----------------------------------------------------------------------------------------------------------


@mutant(sx.softmax, "a_rows_bits_depend_on_that_row_alone")
def another_order_of_sums_in_a_batch(true):
    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        return np.nextafter(p, 1) if x.ndim > 1 else p

    return Wrong(true, call=call)


@mutant(sx.softmax, "layout_changes_no_bits", "float32")
def sums_in_the_order_of_memory(true):
    def call(true, x, axis=-1, **_):
        with np.errstate(all="ignore"):
            gap = np.exp(np.asarray(x, x.dtype.newbyteorder("=")) - x.max(axis=axis, keepdims=True))
            return gap / gap.sum(axis=axis, keepdims=True, dtype=gap.dtype)

    return Wrong(true, call=call)


@mutant(sx.softmax, "inputs_are_never_written")
def shifted_in_place(true):
    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        x -= x.max()
        return p

    return Wrong(true, call=call)


@mutant(sx.softmax, "out_takes_the_result")
def out_is_ignored(true):
    return Wrong(true, call=lambda true, x, *more, out=None, **options: true(x, *more, **options))


@mutant(sx.softmax, "out_may_overlap_x")
def overlap_not_noticed(true):
    def call(true, x, axis=-1, out=None, **options):
        if out is None:
            return true(x, axis, **options)
        for place in range(len(x)) if axis == -1 else ():
            out[place] = true(x[place], **options)
        return out if axis == -1 else true(x, axis, out=out, **options)

    return Wrong(true, call=call)


@mutant(sx.softmax, "results_keep_kind_and_dtype", "float32")
def a_parameter_promotes_the_result(true):
    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        return p.astype(np.float64) if np.ndim(options.get("temperature", 1.0)) else p

    return Wrong(true, call=call)


@mutant(sx.sparsemax, "support_size_counts_what_is_not_zero")
def support_size_in_another_dtype(true):
    return Wrong(true, support_size=lambda true, *more, **options: true.support_size(*more, **options).astype(np.int32))


# -- where frameworks differentiate: values right, derivatives wrong ---------------------------------------------------


FOLLOWED = ("torch", "jax")
ALL = (*FOLLOWED, "tensorflow")


def still(array):
    """The same numbers without their derivatives."""
    if hasattr(array, "detach"):
        return array.detach()
    if type(array).__module__.startswith("tensorflow"):
        return load_tensorflow().stop_gradient(array)
    return importlib.import_module("jax").lax.stop_gradient(array)


def sum_of(array):
    """All numbers of an array."""
    if type(array).__module__.startswith("tensorflow"):
        return load_tensorflow().reduce_sum(array)
    return array.sum()


def numbers_of(array):
    """The array with numbers for NaN and infinities."""
    if hasattr(array, "nan_to_num"):
        return array.nan_to_num()
    return importlib.import_module("jax.numpy").nan_to_num(array)


def with_derivatives_times(factor):
    """The map with all derivatives multiplied."""

    def call(true, x, *more, **options):
        p = true(x, *more, **options)
        return still(p) + factor * (p - still(p))

    return call


@mutant(sx.entmax15, "backward_is_accurate", on=ALL)
def a_gradient_one_percent_off(true):
    return Wrong(true, call=with_derivatives_times(1.01))


@mutant(sx.softmax, "forward_mode_is_accurate", on=ALL)
def silent_zeros_of_an_operator(true):
    return Wrong(true, call=lambda true, x, *more, **options: true(still(x), *more, **options))


@mutant(sx.softmax, "higher_orders_agree_with_differences", on=FOLLOWED)
def a_jacobian_that_is_a_constant(true):
    def call(true, x, **options):
        here = still(x)
        return true(here, **options) + true.jvp(here, x - here, **options)

    return Wrong(true, call=call)


@mutant(sx.entmax, "autograd_checks_pass_in_all_arguments", on=FOLLOWED)
def an_alpha_without_a_gradient(true):
    def call(true, x, alpha=1.5, **options):
        return true(x, alpha=alpha if isinstance(alpha, float) else still(alpha), **options)

    return Wrong(true, call=call)


@mutant(sx.sparsemax, "masked_entries_take_and_give_no_gradient", on=ALL)
def zero_times_a_hidden_nan(true):
    return Wrong(true, call=lambda true, x, *more, **options: true(x, *more, **options) + 0.0 * (x - still(x)))


@mutant(sx.softmax, "bad_rows_spoil_no_other_gradient", on=FOLLOWED)
def one_sum_for_all_rows(true):
    def call(true, x, *more, **options):
        return true(x, *more, **options) * (1.0 + 0.0 * numbers_of(x).sum())

    return Wrong(true, call=call)


@mutant(sx.sparsemax, "losses_have_their_gradients_under_all_options", on=ALL)
def a_loss_whose_gradient_forgets_the_temperature(true):
    def loss(true, x, y, *more, **options):
        found = true.loss(x, y, *more, **options)
        plain = true.loss(x, y, *more, **{**options, "temperature": 1.0})
        return still(found) + plain - still(plain)

    return Wrong(true, loss=loss)


@mutant(sx.softmax, "second_derivatives_know_numbers_and_sinks", on=FOLLOWED)
def a_sink_forgotten_at_second_order(true):
    def call(true, x, *more, sink=None, **options):
        here = still(true(x, *more, sink=sink, **options))
        p = true(x, *more, **options)
        return here + p - still(p)

    return Wrong(true, call=call)


@mutant(sx.entmax15, "the_gradient_of_a_loss_is_its_residual", on=ALL)
def a_loss_without_its_target(true):
    def loss(true, x, y, *more, **options):
        found = true.loss(x, y, *more, **options)
        total = sum_of(true.smooth_max(x, **{k: v for k, v in options.items() if k != "reduction"}))
        return still(found) + total - still(total)

    return Wrong(true, loss=loss)


@mutant(sx.entmax, "parameters_get_their_gradients", on=("jax", "tensorflow"))
def an_alpha_that_is_a_constant(true):
    def call(true, x, alpha=1.5, **options):
        return true(x, alpha=alpha if isinstance(alpha, float) else still(alpha), **options)

    return Wrong(true, call=call)


@mutant(sx.sparsemax, "losses_have_their_gradients_under_all_options", on=("jax", "tensorflow"))
def a_loss_that_takes_class_weights_for_constants(true):
    def loss(true, x, y, weight=None, **options):
        return true.loss(x, y, weight=weight if weight is None else still(weight), **options)

    return Wrong(true, loss=loss)
