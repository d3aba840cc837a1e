"""The kernels of GPUs run by Triton's interpreter, on tensors of the CPU that are taken for a GPU's.

Import this before Triton. The interpreter rounds float32 to bfloat16 towards 0, which no GPU does: put right here.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import signal
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

import softplex as sx
from softplex.backends.torch import backend, gpu, quick, quick_losses
from softplex.backends.torch.modes import PLAIN, is_transformed
from softplex.native.gpu import launch

TYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
rounded_by_the_interpreter = interpreter._convert_float


def rounded(values, given, wanted, mode):
    """float32 to bfloat16 by torch."""
    if given is tl.float32 and wanted is tl.bfloat16:
        exact = torch.from_numpy(np.ascontiguousarray(values).copy()).to(torch.bfloat16)
        return exact.view(torch.int16).numpy().view(np.uint16).reshape(np.shape(values))
    return rounded_by_the_interpreter(values, given, wanted, mode)


interpreter._convert_float = rounded

patch_the_language, known_by = interpreter._patch_lang, set()


def at_a_launch(kernel):
    """The modules of functions that it calls are looked through again."""
    known_by.clear()
    known_by.add(id(kernel.__globals__))
    return patch_the_language(kernel)


def called(function, *given, **named):
    """A function of kernels: its module is looked through once a launch; at every call, that took most of the time."""
    if id(function.fn.__globals__) not in known_by:
        known_by.add(id(function.fn.__globals__))
        patch_the_language(function.fn)
    return function.rewrite()(*given, **named)


interpreter._patch_lang = at_a_launch
interpreter.InterpretedFunction.__call__ = called


def is_taken(x):
    return type(x) in PLAIN and x.layout is torch.strided and not is_transformed()


@contextmanager
def taken_for_a_gpu():
    """CPU tensors take the road of a GPU's; what is not written to is NaN, or a number that is not to be believed."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        on_gpu = gpu.GpuBackend(torch.device("cpu"))
        usual = backend.backend_for
        patch.setattr(backend, "backend_for", lambda x: on_gpu if is_taken(x) else usual(x))
        patch.setattr(quick, "value", lambda *_: None)
        patch.setattr(quick_losses, "loss", lambda *_: None)
        patch.setattr(gpu, "is_taken", is_taken)
        for name in ("room", "room_like"):
            patch.setattr(launch, name, poisoned(getattr(launch, name)))
        yield patch


def poisoned(make):
    def made(*arguments, **more):
        room = make(*arguments, **more)
        return room.fill_(torch.nan if room.is_floating_point() else 77)

    return made


class AtOnce:
    """A kernel whose programs run at once, a process each, on memory that they share; some more patient than others."""

    def __init__(self, true, patience=(1 << 20,)):
        self._true, self._patience = true, patience

    def __getitem__(self, grid):
        def launch(*given, **named):
            children = {self._started(program, given, named) for program in range(grid[0])}
            while children:
                child, status = os.wait()
                children.discard(child)
                if status:
                    for each in children:
                        os.kill(each, signal.SIGKILL)
                        os.waitpid(each, 0)
                    raise AssertionError(f"a program ended with {os.waitstatus_to_exitcode(status)}")

        return launch

    def _started(self, program, given, named):
        child = os.fork()
        if child:
            return child
        try:
            run_alone(self._true, program, given, {**named, "patience": self._patience[program % len(self._patience)]})
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child that raised would go on with the parent's tests
            traceback.print_exc()
            os._exit(1)


class InAnyOrder:
    """A kernel whose programs run one after the other, the last first."""

    def __init__(self, true):
        self._true = true

    def __getitem__(self, grid):
        def launch(*given, **named):
            for program in reversed(range(grid[0])):
                with pytest.MonkeyPatch.context() as patch:
                    run_alone(self._true, program, given, named, patch.setattr)

        return launch


def run_alone(kernel, program, given, named, change=setattr):
    """One program of a grid."""
    builder = interpreter.interpreter_builder
    change(builder, "set_grid_idx", lambda *_: setattr(builder, "grid_idx", (program, 0, 0)))
    kernel[(1,)](*given, **named)


def as_tensor(array):
    """A tensor over an array's memory where torch can have one, else over a copy."""
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype.name == "bfloat16":
        return as_tensor(array.view(np.int16) if array.dtype.isnative else array.astype("f4")).view(torch.bfloat16)
    is_plain = array.dtype.isnative and array.flags.writeable and all(step >= 0 for step in array.strides)
    if not is_plain or any(step % array.itemsize for step in array.strides):
        array = np.array(array, array.dtype.newbyteorder("="))
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(array)


def as_array(tensor, dtype=None):
    if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.detach().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def on_gpu(sample):
    """The sample as a call on tensors; dtypes are torch's."""
    arguments = {key: as_tensor(value) for key, value in sample.arguments.items()}
    if "dtype" in arguments:
        arguments["dtype"] = TYPES[sample.dtype]
    operand = None if sample.operand is None else as_tensor(sample.operand)
    return replace(sample, x=as_tensor(sample.x), operand=operand, arguments=arguments, out=None)


def result(sample):
    """What the road of GPUs makes of a sample of arrays."""
    return as_array(on_gpu(sample).result())


__all__ = ["AtOnce", "InAnyOrder", "launch", "sx", "taken_for_a_gpu"]
