"""Wrong kernels, each with a mistake that a kernel can have, and the samples that must see it.

Each is the true kernel with an argument or the result spoiled; it is given the arguments of `run` by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import softplex as sx

NAMES = ("map", "method", "type", "negated", "row_axes", "threads", "empty", "x", "operand", "index", "mask", "result")
NAMES += ("temperature", "sink", "alpha", "scale", "is_result_made", "scores")
SOFTMAX, VALUE, VJP, JVP, FLOAT32 = 0, 0, 1, 2, 1


class WrongKernel:
    """The extension, but for `run`."""

    def __init__(self, true, spoiled):
        self._true, self._spoiled = true, spoiled

    def __getattr__(self, name):
        return getattr(self._true, name)

    def run(self, *arguments):
        self._spoiled(self._true.run, dict(zip(NAMES, arguments, strict=True)))


@dataclass(frozen=True)
class Mutant:
    """A mistake: what it is called, the map and the task that show it, and the wrong run."""

    name: str
    map: object
    task: str
    run: Callable


MUTANTS: list[Mutant] = []
BACKWARD: list[Mutant] = []
"""Those of the derivative from the weights, which test_native_backward.py has samples of; maps by their names."""


def mutant(map_, task):
    """Enrol a function of the true run and its arguments as a wrong run."""

    def enrol(run):
        (BACKWARD if task == "backward" else MUTANTS).append(Mutant(run.__name__, map_, task, run))
        return run

    return enrol


# -- numbers ----------------------------------------------------------------------------------------------------------


@mutant(sx.softmax, "value")
def one_entry_a_thousandth_off(run, given):
    run(**given)
    given["result"][..., -1:] *= 1.001


@mutant(sx.softmin, "value")
def six_steps_off_in_float32(run, given):
    run(**given)
    if given["type"] == FLOAT32:
        given["result"][...] *= np.float32(1 + 6 * 2.0**-23)


@mutant(sx.softmax, "value")
def float64_in_float32(run, given):
    run(**given)
    given["result"][...] = given["result"].astype(np.float32)


@mutant(sx.softmax, "value")
def sixteen_bits_cut_off(run, given):
    """Not rounded to nearest."""
    run(**given)
    if given["result"].dtype.name == "bfloat16":
        wide = np.empty(given["x"].shape, np.float32)
        run(**{**given, "type": FLOAT32, "x": given["x"].astype(np.float32), "result": wide})
        given["result"][...] = (wide.view(np.uint32) & 0xFFFF0000).view(np.float32)


@mutant(sx.log_softmax, "value")
def logarithm_of_softmax(run, given):
    run(**{**given, "map": SOFTMAX})
    with np.errstate(all="ignore"):
        np.log(given["result"], out=given["result"])


@mutant(sx.softmax, "residual of index")
def residual_of_rounded_weights(run, given):
    run(**given)
    if given["row_axes"] == 1:
        weights, places = given["result"], given["index"][..., None]
        run(**{**given, "method": VALUE, "index": None})
        np.put_along_axis(weights, places, np.take_along_axis(weights, places, -1) - 1, -1)


# -- arguments --------------------------------------------------------------------------------------------------------


@mutant(sx.sparsemax, "value")
def sink_dropped(run, given):
    run(**{**given, "sink": None})


@mutant(sx.softmax, "vjp")
def mask_ignored_in_the_last_lane(run, given):
    if given["mask"] is not None:
        given["mask"] = given["mask"].copy()
        given["mask"][..., 15::16] = True
    run(**given)


@mutant(sx.entmax15, "jvp")
def temperature_of_the_first_row(run, given):
    run(**{**given, "temperature": float(np.ravel(given["temperature"])[0])})


@mutant(sx.entmax, "value")
def alpha_of_the_first_row(run, given):
    run(**{**given, "alpha": float(np.ravel(given["alpha"])[0])})


@mutant(sx.softmin, "loss")
def negation_forgotten(run, given):
    run(**{**given, "negated": False})


@mutant(sx.sparsemax, "value")
def empty_rows_always_zero(run, given):
    run(**{**given, "empty": 0.0})


@mutant(sx.entmax, "value")
def nan_taken_as_absent(run, given):
    absent = np.asarray(-np.inf, given["x"].dtype)
    run(**{**given, "x": np.where(np.isnan(given["x"]), absent, given["x"])})


@mutant(sx.softmax, "loss of index")
def the_next_class(run, given):
    length = int(np.prod(given["x"].shape[-given["row_axes"] :]))
    run(**{**given, "index": (given["index"] + 1) % length})


# -- results ----------------------------------------------------------------------------------------------------------


@mutant(sx.entmax15, "vjp")
def sign_swapped(run, given):
    run(**given)
    np.negative(given["result"], out=given["result"])


@mutant(sx.log_softmax, "vjp")
def jacobian_not_transposed(run, given):
    run(**{**given, "method": JVP})


@mutant(sx.softmax, "value")
def last_lane_of_a_tail_unset(run, given):
    run(**given)
    if given["x"].shape[-1] % 16:
        given["result"][..., -1] = 0


@mutant(sx.log_softmin, "jvp")
def last_row_unset(run, given):
    run(**given)
    given["result"][-1:] = 0


@mutant(sx.entmax, "vjp")
def tile_transposed(run, given):
    run(**given)
    if given["x"].ndim > given["row_axes"] and min(given["x"].shape[-2:]) > 1:
        corner = given["result"][..., :2, :2]
        corner[...] = corner.swapaxes(-1, -2).copy()


@mutant(sx.sparsemax, "support_size")
def support_of_all_entries(run, given):
    given["result"][...] = np.prod(given["x"].shape[-given["row_axes"] :])


# -- maxout -----------------------------------------------------------------------------------------------------------


@mutant(sx.maxout, "winner")
def last_winner(run, given):
    run(**given)
    if given["row_axes"] == 1:
        run(**{**given, "x": given["x"][..., ::-1]})
        given["result"][...] = given["x"].shape[-1] - 1 - given["result"]


@mutant(sx.maxout, "value")
def nan_loses(run, given):
    nan_taken_as_absent(run, given)


@mutant(sx.maxout, "vjp")
def every_winner_gets_it(run, given):
    run(**given)
    if given["row_axes"] == 1 and given["method"] == VJP:
        wins = given["x"] == given["x"].max(axis=-1, keepdims=True)
        given["result"][...] = np.where(wins, given["operand"][..., None], given["result"])


# -- the derivative from the weights ----------------------------------------------------------------------------------


@mutant("softmax", "backward")
def mean_left_out(run, given):
    """p g."""
    run(**given)
    given["result"][...] = given["x"] * given["operand"]


@mutant("softmax", "backward")
def nine_steps_off(run, given):
    run(**given)
    if given["type"] == FLOAT32:
        given["result"][...] *= np.float32(1 + 9 * 2.0**-23)


@mutant("log_softmax", "backward")
def logarithms_taken_as_weights(run, given):
    run(**{**given, "map": SOFTMAX})


@mutant("log_softmax", "backward")
def sum_over_masked_entries(run, given):
    floor = np.asarray(-1e4, given["x"].dtype)
    run(**{**given, "x": np.maximum(given["x"], floor)})


@mutant("sparsemax", "backward")
def mean_over_all_entries(run, given):
    run(**{**given, "x": np.where(given["x"] == 0, np.asarray(1e-3, given["x"].dtype), given["x"])})


@mutant("entmax15", "backward")
def slope_of_sparsemax(run, given):
    run(**{**given, "map": 2})


@mutant("entmax", "backward")
def alpha_of_the_first_row_alone(run, given):
    run(**{**given, "alpha": float(np.ravel(given["alpha"])[0])})


@mutant("sparsemax", "backward")
def temperature_of_the_first_row_alone(run, given):
    run(**{**given, "temperature": float(np.ravel(given["temperature"])[0])})


@mutant("entmax15", "backward")
def negation_left_out(run, given):
    run(**{**given, "negated": False})


@mutant("sparsemax", "backward")
def cotangents_read_where_nothing_is_weighed(run, given):
    run(**given)
    with np.errstate(all="ignore"):
        given["result"][...] = given["result"] + 0 * given["operand"]


@mutant("softmax", "backward")
def nan_weighs_nothing(run, given):
    run(**{**given, "x": np.nan_to_num(given["x"])})


@mutant("log_softmax", "backward")
def last_row_of_eight_unset(run, given):
    run(**given)
    given["result"][7::8] = 0
