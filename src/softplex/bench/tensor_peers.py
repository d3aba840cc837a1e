"""Peers on tensors: softplex called as PyTorch's users call it, PyTorch itself, and the entmax package.

An operation is a function's name after "tensor" (its value, nobody following) or "step" (forward and backward).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import softplex as sx
from softplex.bench.inputs import Inputs
from softplex.bench.ways import Prepare, Way, tensor_of

Function = Callable[..., Any]

LEARNED = 1.3


def value(function: Function, inputs: Inputs) -> list[Way]:
    """A call that nobody follows."""
    return [Way("fresh", False, partial(function, tensor_of(inputs.x), inputs.axis))]


def call_to_follow(function: Function, inputs: Inputs) -> list[Way]:
    """A call on scores that ask for a gradient."""
    return [Way("fresh", False, partial(function, tensor_of(inputs.x).requires_grad_(), inputs.axis))]


def step(function: Function, inputs: Inputs) -> list[Way]:
    """Forward and backward from a cotangent."""
    x, g = tensor_of(inputs.x).requires_grad_(), tensor_of(inputs.cotangent)

    def run() -> Any:
        x.grad = None
        function(x, inputs.axis).backward(g)
        return x.grad

    return [Way("backward", False, run)]


def learned_step(function: Function, inputs: Inputs) -> list[Way]:
    """The same of a function of scores, of a number that is learned, and of the axis."""
    x, g = tensor_of(inputs.x).requires_grad_(), tensor_of(inputs.cotangent)
    number = tensor_of(np.array(LEARNED, np.float32)).requires_grad_()

    def run() -> Any:
        x.grad = number.grad = None
        function(x, number, inputs.axis).backward(g)
        return x.grad

    return [Way("backward", False, run)]


def loss_step(function: Function, inputs: Inputs) -> list[Way]:
    """Forward and backward of the mean loss against one class a row."""
    x, y = tensor_of(inputs.x).requires_grad_(), tensor_of(inputs.classes)

    def run() -> Any:
        x.grad = None
        function(x, y).backward()
        return x.grad

    return [Way("backward", False, run)]


def functions_of(named: Mapping[str, Function], losses: Mapping[str, Function]) -> dict[str, Prepare]:
    """What is done with functions of scores, and with losses."""
    ways: dict[str, Prepare] = {}
    for name, function in named.items():
        ways[f"tensor {name}"] = partial(value, function)
        ways[f"tensor {name}, followed"] = partial(call_to_follow, function)
        ways[f"step {name}"] = partial(step, function)
    return ways | {f"step {name}": partial(loss_step, function) for name, function in losses.items()}


def own_functions() -> dict[str, Prepare]:
    """softplex on tensors."""
    maps = {name: getattr(sx, name) for name in ("softmax", "log_softmax", "softmin", "sparsemax", "entmax15")}
    losses = {name: getattr(sx, name) for name in ("cross_entropy", "sparsemax_loss", "entmax15_loss")}
    return functions_of(maps, losses) | {
        "step softmax, learned": partial(learned_step, lambda x, t, axis: sx.softmax(x, axis, temperature=t)),
        "step log_softmax, learned": partial(learned_step, lambda x, t, axis: sx.log_softmax(x, axis, temperature=t)),
        "step entmax, learned": partial(learned_step, lambda x, alpha, axis: sx.entmax(x, axis, alpha=alpha)),
    }


def torch_functions() -> dict[str, Prepare]:
    """PyTorch's own."""
    functional = importlib.import_module("torch.nn.functional")
    names = ("softmax", "log_softmax", "softmin")
    found = functions_of(
        {name: getattr(functional, name) for name in names}, {"cross_entropy": functional.cross_entropy}
    )
    return found | {
        "step softmax, learned": partial(learned_step, lambda x, t, axis: functional.softmax(x / t, axis)),
        "step log_softmax, learned": partial(learned_step, lambda x, t, axis: functional.log_softmax(x / t, axis)),
    }


def entmax_functions() -> dict[str, Prepare]:
    """The entmax package's; its losses are summed by hand."""
    entmax = importlib.import_module("entmax")

    def mean(function: Function) -> Function:
        return lambda x, y: function(x, y).mean()

    return functions_of(
        {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15},
        {"sparsemax_loss": mean(entmax.sparsemax_loss), "entmax15_loss": mean(entmax.entmax15_loss)},
    )
