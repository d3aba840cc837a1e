"""Wrong kernels of GPUs, each with a mistake that a kernel can have, and the map and task that must show it.

Each is the true launch with an argument, a switch or the result spoiled, and is given them by name; or a step of the
true kernel, spoiled likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl

import softplex as sx


class WrongKernel:
    """A kernel, but for what its launches do."""

    def __init__(self, true, spoiled):
        self._true, self._spoiled = true, spoiled

    def __getitem__(self, grid):
        def launch(*given, **named):
            arguments = dict(zip(self._true.arg_names, given, strict=False)) | named
            self._spoiled(self._true[grid], arguments)

        return launch


class WrongStep:
    """A function that kernels call, but for what it makes of its arguments."""

    def __init__(self, true, spoiled):
        self._true, self._spoiled = true, spoiled

    def __call__(self, *given):
        return self._spoiled(self._true, *given)


@dataclass(frozen=True)
class Mutant:
    """A mistake in a kernel of a module, or in a step of one, and the map and the task that show it."""

    name: str
    kernel: str
    map: Any
    task: str
    run: Callable


MUTANTS: list[Mutant] = []


def task(given, **changed):
    """The arguments, but for something that the kernel is compiled for."""
    return {**given, "TASK": given["TASK"]._replace(**changed)}


def mutant(kernel, map_, task):
    """Enrol a function of the true launch and its arguments as a wrong launch."""

    def enrol(run):
        MUTANTS.append(Mutant(run.__name__, kernel, map_, task, run))
        return run

    return enrol


@mutant("short_rows", sx.softmax, "value")
def steps_off(run, given):
    run(**given)
    given["result"].mul_(1 + 8 * torch.finfo(given["result"].dtype).eps)


@mutant("short_rows", sx.softmax, "value")
def sums_in_the_narrow_type(run, given):
    run(**task(given, is_precise=False))


@mutant("short_rows", sx.sparsemax, "value")
def last_column_unset(run, given):
    run(**{**given, "n": given["n"] - 1})


@mutant("short_rows", sx.softmin, "vjp")
def last_row_unset(run, given):
    run(**{**given, "rows": given["rows"] - 1})


@mutant("short_rows", sx.entmax15, "value")
def mask_not_read(run, given):
    run(**task(given, has_where=False))


@mutant("short_rows", sx.sparsemax, "value")
def sink_not_read(run, given):
    run(**task(given, has_sink=False))


@mutant("short_rows", sx.log_softmax, "value")
def temperature_not_read(run, given):
    run(**task(given, temperature=0))


@mutant("short_rows", sx.softmin, "value")
def sign_forgotten(run, given):
    run(**task(given, is_negated=False))


@mutant("short_rows", sx.entmax, "value")
def another_alpha(run, given):
    run(**{**given, "a_high": given["a_high"] * (1 + 1e-4)})


@mutant("short_rows", sx.softmax, "value")
def empty_rows_always_zero(run, given):
    run(**task(given, empty_is_nan=False))


@mutant("short_rows", sx.log_softmax, "vjp")
def jacobian_not_transposed(run, given):
    run(**task(given, method=2))


@mutant("short_rows", sx.entmax15, "jvp")
def slope_of_sparsemax(run, given):
    run(**task(given, map=2))


@mutant("short_rows", sx.softmax, "loss of index")
def the_next_class(run, given):
    run(**{**given, "classes": (given["classes"] + 1) % given["n"]})


@mutant("short_rows", sx.log_softmax, "cross_entropy")
def ignored_rows_counted(run, given):
    run(**{**given, "ignored": -(2**63)})


@mutant("short_rows", sx.sparsemax, "residual of index")
def residual_of_rounded_weights(run, given):
    run(**task(given, method=0))
    result, classes = given["result"], given["classes"]
    if result.ndim == 2 and result.is_contiguous() and len(classes) == len(result):
        result.scatter_add_(1, classes[:, None], torch.full_like(result[:, :1], -1.0))


@mutant("short_rows", sx.sparsemax, "value")
def strides_of_a_plain_result(run, given):
    lay = given["LAY"]
    run(**{**given, "result_strides": (given["n"],) * lay.batch_dims + (1,) * lay.row_dims})


@mutant("long_rows", sx.entmax15, "value")
def a_part_not_written(run, given):
    run(**{**given, "n": min(given["n"], 20)})


@mutant("arrived", sx.softmax, "value")
def nobody_waits(true, arrivals, programs, patience):
    return true(arrivals, programs, patience) * 0 + programs


@mutant("numbers_of_parts", sx.softmax, "value")
def a_part_left_out(true, telling, kind, many, other):
    found = true(telling, kind, many, other)
    return found if kind == 0 else tl.where(many == telling[3] - 1, other, found)


@mutant("numbers_of_parts", sx.log_softmax, "value")
def a_top_too_low(true, telling, kind, many, other):
    found = true(telling, kind, many, other)
    return tl.where(many == telling[3] - 1, found - 0.5, found) if kind == 0 else found


@mutant("exponentials_of_parts", sx.softmax, "vjp")
def no_mean(true, *given):
    ties, depth, more = true(*given)
    return ties, depth, more * 0.0


@mutant("near_sums", sx.entmax15, "value")
def a_round_told_in_the_next_one_s_place(true, held, telling, part, kind, *more):
    return true(held, telling, part, kind + 2, *more)


@mutant("last_sums", sx.sparsemax, "jvp")
def centred_by_nothing(true, *given):
    first, second = true(*given)
    return first * 0.0, second
