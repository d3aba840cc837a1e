"""The frameworks that the laws run on: how each makes an array and gives it back. One entry here enrols a framework."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import numpy as np

import autograd
import softplex as sx
from reference import FAMILY

FLOATS = ("float64", "float32", "float16", "bfloat16")
HAS_KERNELS = not sx.info()["instruction set"].startswith("none")
WITH_A_KERNEL = ("softmax", "log_softmax", "softmin", "log_softmin", "sparsemax", "entmax15", "entmax")


@dataclass(frozen=True)
class Framework:
    """`asarray` takes a NumPy array and keeps its dtype; `to_numpy` goes back."""

    name: str
    module: str
    dtypes: tuple[str, ...]
    asarray: Callable
    to_numpy: Callable
    is_array: Callable
    compiles: bool = False  # a program for each shape and each hyper-parameter
    lazy: bool = False  # numbers cannot be looked at: errors in values become NaN rows, and calls are slow
    kernels: tuple[str, ...] = ()  # maps without section 4's factor of four, which is for formulas
    bits: bool = False  # section 5: a row's bits depend on that row alone
    maps: tuple[str, ...] | None = None  # None: all
    setting: Callable = nullcontext  # a context manager to call the library in
    laws: tuple[str, ...] | None = None  # those it has the time for beside those that name it; None: all
    brief: tuple[str, ...] = ()  # maps whose programs take so long to compile that they have BRIEF_LAWS alone
    ways: Callable | None = None  # how it differentiates, if it does: see autograd.py

    def runs(self, name):
        return self.maps is None or name in self.maps

    @property
    def missing(self):
        """Why it cannot run here, or None."""
        found = importlib.util.find_spec(self.module.partition(".")[0])
        return None if found else f"{self.name} is not installed ({self.module} cannot be imported)"


@contextmanager
def threads(number, library=sx):
    """softplex's number of threads for a while, or that of a library that names it likewise."""
    before = library.get_num_threads()
    library.set_num_threads(number)
    try:
        yield
    finally:
        library.set_num_threads(before)


def numpy_dtype(name):
    if name == "bfloat16":
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    return np.dtype(name)


def strict_array(array):
    return importlib.import_module("array_api_strict").asarray(np.array(array))


def strict_to_numpy(array):
    return np.array(np.from_dlpack(array)) if array.size else np.empty(array.shape, array.dtype._np_dtype)


def dask_array(array):
    dask = importlib.import_module("dask.array")
    chunks = tuple(
        max(1, (size + 1) // 2) if place == 0 and array.ndim > 1 else -1 for place, size in enumerate(array.shape)
    )
    return dask.from_array(np.array(array), chunks=chunks)


def dask_to_numpy(array):
    """Computed in this thread, where NumPy's warnings can be silenced: they come after the library's call is over."""
    with np.errstate(all="ignore"):
        return np.asarray(array.compute(scheduler="synchronous"))


NUMPY = Framework(
    "numpy",
    "numpy",
    FLOATS,
    np.array,
    lambda array: array,
    lambda array: type(array) is np.ndarray,
    kernels=WITH_A_KERNEL if HAS_KERNELS else (),
    bits=True,
)
FORMULAS = replace(
    NUMPY,
    name="numpy formulas",
    dtypes=("float64", "float32"),
    kernels=(),
    maps=WITH_A_KERNEL,
    setting=lambda: sx.kernels("none"),
)
STRICT = Framework(
    "array_api_strict",
    "array_api_strict",
    ("float64", "float32"),
    strict_array,
    strict_to_numpy,
    lambda array: type(array).__module__.startswith("array_api_strict"),
)
DASK = Framework(
    "dask",
    "dask.array",
    ("float64", "float32"),
    dask_array,
    dask_to_numpy,
    lambda array: type(array).__module__.startswith("dask"),
    lazy=True,
)


@cache
def load_torch():
    """torch, with what it loads of itself at the first use of forward mode, which warns of its own doings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = importlib.import_module("torch")
        importlib.import_module("torch._decomp.decompositions_for_jvp")
    return torch


def torch_tensor(array):
    torch = load_torch()
    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.astype(np.float32)).to(torch.bfloat16)
    return torch.tensor(array)


def tensor_to_numpy(tensor):
    torch = load_torch()
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().float().numpy().astype(numpy_dtype("bfloat16"))
    return tensor.detach().numpy()


def forward_mode():
    """Under it no tensor may be looked at: all take the road of graphs."""
    return load_torch().autograd.forward_ad.dual_level()


TORCH = Framework(
    "torch",
    "torch",
    FLOATS,
    torch_tensor,
    tensor_to_numpy,
    lambda array: type(array).__module__ == "torch" and type(array).__name__ == "Tensor",
    kernels=WITH_A_KERNEL if HAS_KERNELS else (),
    bits=True,
    ways=autograd.of_torch,
)
TORCH_FORMULAS = replace(
    TORCH,
    name="torch formulas",
    dtypes=("float64", "float32"),
    kernels=(),
    bits=False,
    setting=forward_mode,
    ways=autograd.of_torch_formulas,
)


COMPILED_QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
SOME_LAWS = ("values_are_accurate", "vjp_is_accurate", "losses_are_accurate_against_an_index")
BRIEF_LAWS = (
    *SOME_LAWS,
    "backward_is_accurate",
    "forward_mode_is_accurate",
    "masked_entries_take_and_give_no_gradient",
    "parameters_get_their_gradients",
    "transforms_give_the_jacobian",
)
USES, PROGRAMS_KEPT = count(1), 40
"""The laws make thousands of programs, and each takes memory as long as it is kept."""


@cache
def load_tensorflow():
    """TensorFlow, without the words that it starts with."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("tensorflow")


def tensorflow_tensor(array):
    return load_tensorflow().constant(np.asarray(array))


TENSORFLOW = Framework(
    "tensorflow",
    "tensorflow",
    ("float64", "bfloat16"),
    tensorflow_tensor,
    lambda tensor: tensor.numpy(),
    lambda array: type(array).__name__ == "EagerTensor",
    kernels=WITH_A_KERNEL if HAS_KERNELS else (),
    ways=autograd.of_tensorflow,
)


@contextmanager
def unread():
    """Under it no tensor's numbers are read: all take the road of graphs, operation by operation."""
    load_tensorflow()
    backend = importlib.import_module("softplex.backends.tensorflow.backend")
    before, backend.is_plain = backend.is_plain, lambda x: False
    try:
        yield
    finally:
        backend.is_plain = before


TENSORFLOW_FORMULAS = replace(
    TENSORFLOW,
    name="tensorflow formulas",
    dtypes=("float32",),
    kernels=(),
    setting=unread,
    laws=SOME_LAWS,
)


@cache
def load_jax():
    """JAX, told not to spend more time on a program than the laws spend in it."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COMPILED_QUICKLY}"
    return importlib.import_module("jax")


def with_64_bit(is_on):
    """A context in which JAX has 64-bit numbers, or has not; older ones keep it elsewhere."""
    jax = load_jax()
    place = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return place.enable_x64(is_on)


@contextmanager
def forgetting():
    """Programs are dropped now and then."""
    jax = load_jax()
    yield
    if next(USES) % PROGRAMS_KEPT == 0:
        jax.clear_caches()


def jax_array(array):
    return load_jax().numpy.asarray(array)


@contextmanager
def in_64_bit():
    with with_64_bit(True), forgetting():
        yield


@contextmanager
def by_formulas_in_32_bit():
    with with_64_bit(False), forgetting(), sx.kernels("none"):
        yield


JAX = Framework(
    "jax",
    "jax",
    ("float64",),
    jax_array,
    np.asarray,
    lambda array: isinstance(array, load_jax().Array),
    kernels=WITH_A_KERNEL if HAS_KERNELS else (),
    compiles=True,
    setting=in_64_bit,
    brief=("normmax", "budget"),
    ways=autograd.of_jax,
)
JAX_SINGLE = replace(
    JAX,
    name="jax in 32 bit",
    dtypes=("float32", "bfloat16"),
    kernels=(),
    maps=tuple([name for name in FAMILY if name not in JAX.brief]),
    setting=by_formulas_in_32_bit,
    laws=SOME_LAWS,
)
FRAMEWORKS = (
    NUMPY,
    *([FORMULAS] if HAS_KERNELS else []),
    STRICT,
    DASK,
    TORCH,
    TORCH_FORMULAS,
    JAX,
    JAX_SINGLE,
    TENSORFLOW,
    TENSORFLOW_FORMULAS,
)
