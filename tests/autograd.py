"""How frameworks differentiate, under one set of names, so that each law of differentiation is written once.

`vjp(function, arrays, g)` gives a cotangent for each array, `jvp(function, arrays, tangents)` the result's tangent.
No law and no map is here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Autograd:
    """A framework's ways; the first of each kind is its usual one."""

    backwards: dict[str, Callable]  # vjp(function, arrays, g)
    forwards: dict[str, Callable]  # jvp(function, arrays, tangents)
    jacobians: dict[str, Callable]  # of a function of one row
    seconds: dict[str, Callable]  # second derivatives, likewise
    thirds: dict[str, Callable]
    vmap: Callable  # vmap(function, in_axes, out_axes)
    batched: str  # the way back that vmap takes
    check: Callable  # check(function, arrays): both orders and both modes against differences
    check_backward: Callable  # both orders, backward alone
    where: Callable

    @property
    def vjp(self):
        return next(iter(self.backwards.values()))


# -- torch ---------------------------------------------------------------------------------------------------------


def torch():
    from frameworks import load_torch

    return load_torch()


def asking(arrays):
    return tuple(array.detach().clone().requires_grad_() for array in arrays)


def torch_backward(function, arrays, g):
    arrays = asking(arrays)
    function(*arrays).backward(g)
    return tuple(array.grad for array in arrays)


def torch_followed(function, arrays, g):
    """A backward pass that is differentiated in turn takes another road."""
    arrays = asking(arrays)
    return torch().autograd.grad(function(*arrays), arrays, g, create_graph=True)


def torch_func_vjp(function, arrays, g):
    return torch().func.vjp(function, *arrays)[1](g)


def with_dual_tensors(function, arrays, tangents):
    forward_ad = torch().autograd.forward_ad
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip(arrays, tangents, strict=True)]
        tangent = forward_ad.unpack_dual(function(*duals)).tangent
    assert tangent is not None
    return tangent


def torch_func_jvp(function, arrays, tangents):
    return torch().func.jvp(function, tuple(arrays), tuple(tangents))[1]


def torch_check(function, arrays):
    checks = importlib.import_module("torch.autograd.gradcheck")
    arrays = asking(arrays)
    assert checks.gradcheck(function, arrays, check_forward_ad=True, check_batched_grad=True, raise_exception=False)
    assert checks.gradgradcheck(function, arrays, check_fwd_over_rev=True, raise_exception=False, fast_mode=True)


def torch_check_backward(function, arrays):
    checks = importlib.import_module("torch.autograd.gradcheck")
    assert checks.gradcheck(function, asking(arrays), raise_exception=False)
    assert checks.gradgradcheck(function, asking(arrays), raise_exception=False)


def torch_autograd(backwards):
    func = importlib.import_module("torch.func")
    return Autograd(
        backwards=backwards,
        forwards={"dual tensors": with_dual_tensors, "func.jvp": torch_func_jvp},
        jacobians={"jacrev": func.jacrev, "jacfwd": func.jacfwd},
        seconds={
            "hessian": func.hessian,
            "reverse over forward": lambda f: func.jacrev(func.jacfwd(f)),
            "forward over forward": lambda f: func.jacfwd(func.jacfwd(f)),
            "reverse over reverse": lambda f: func.jacrev(func.jacrev(f)),
        },
        thirds={"forward": lambda f: func.jacfwd(func.hessian(f))},
        vmap=lambda f, in_axes=0, out_axes=0: func.vmap(f, in_dims=in_axes, out_dims=out_axes),
        batched="func.vjp",
        check=torch_check,
        check_backward=torch_check_backward,
        where=torch().where,
    )


def of_torch():
    ways = {"backward": torch_backward, "backward that is followed": torch_followed, "func.vjp": torch_func_vjp}
    return torch_autograd(ways)


def of_torch_formulas():
    return torch_autograd({"backward": torch_backward, "backward that is followed": torch_followed})


# -- JAX -----------------------------------------------------------------------------------------------------------


def of_jax():
    jax = importlib.import_module("jax")

    def vjp(function, arrays, g):
        return jax.vjp(function, *arrays)[1](g)

    def vjp_of_a_program(function, arrays, g):
        return jax.jit(lambda arrays, g: jax.vjp(jax.jit(function), *arrays)[1](g))(tuple(arrays), g)

    def jvp(function, arrays, tangents):
        return jax.jvp(function, tuple(arrays), tuple(tangents))[1]

    def jvp_of_a_program(function, arrays, tangents):
        return jax.jit(lambda a, t: jax.jvp(function, a, t)[1])(tuple(arrays), tuple(tangents))

    def check(function, arrays):
        checks = importlib.import_module("jax.test_util")
        close = {"rtol": 1e-4, "atol": 1e-5, "eps": 1e-5}
        checks.check_grads(jax.jit(function), tuple(arrays), order=1, modes=("fwd",), **close)
        checks.check_grads(jax.jit(function), tuple(arrays), order=2, modes=("rev",), **close)

    return Autograd(
        backwards={"vjp": vjp, "vjp of a program": vjp_of_a_program},
        forwards={"jvp": jvp, "jvp of a program": jvp_of_a_program},
        jacobians={"jacrev": jax.jacrev, "jacfwd": jax.jacfwd},
        seconds={
            "hessian": lambda f: jax.jit(jax.hessian(f)),
            "reverse over forward": lambda f: jax.jit(jax.jacrev(jax.jacfwd(f))),
            "forward over forward": lambda f: jax.jit(jax.jacfwd(jax.jacfwd(f))),
            "reverse over reverse": lambda f: jax.jit(jax.jacrev(jax.jacrev(f))),
        },
        thirds={
            "forward": lambda f: jax.jit(jax.jacfwd(jax.hessian(f))),
            "reverse": lambda f: jax.jit(jax.jacrev(jax.hessian(f))),
        },
        vmap=lambda f, in_axes=0, out_axes=0: jax.vmap(f, in_axes=in_axes, out_axes=out_axes),
        batched="vjp",
        check=check,
        check_backward=check,
        where=jax.numpy.where,
    )


# -- TensorFlow ----------------------------------------------------------------------------------------------------


def of_tensorflow():
    tf = importlib.import_module("frameworks").load_tensorflow()
    zero = tf.UnconnectedGradients.ZERO

    def vjp(function, arrays, g):
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            y = function(*arrays)
        return tape.gradient(y, list(arrays), g, zero)

    def vjp_that_is_followed(function, arrays, g):
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            return vjp(function, arrays, g)

    def jvp(function, arrays, tangents):
        with tf.autodiff.ForwardAccumulator(list(arrays), list(tangents)) as accumulator:
            y = function(*arrays)
        return accumulator.jvp(y, zero)

    def inner(one, other):
        return sum(tf.reduce_sum(a * b) for a, b in zip(one, other, strict=True))

    def differences(function, arrays, tangents, step=1e-6):
        ends = [function(*[x + side * step * t for x, t in zip(arrays, tangents, strict=True)]) for side in (1, -1)]
        return float(ends[0] - ends[1]) / (2 * step)

    def check(function, arrays, forward=True):
        """<g, J t>, and by tapes its derivative along t too, against differences."""
        random = np.random.default_rng(0)
        tangents = [tf.constant(random.normal(size=array.shape)) for array in arrays]
        g = tf.constant(random.normal(size=function(*arrays).shape))
        along = lambda *arrays: inner(vjp(function, arrays, g), tangents)  # noqa: E731
        first = differences(lambda *arrays: inner([function(*arrays)], [g]), arrays, tangents)
        found = [(along(*arrays), first)]
        found += [(inner(vjp(along, arrays, tf.ones((), g.dtype)), tangents), differences(along, arrays, tangents))]
        found += [(inner([jvp(function, arrays, tangents)], [g]), first)] if forward else []
        for got, wanted in found:
            np.testing.assert_allclose(float(got), wanted, rtol=1e-5, atol=1e-6)

    return Autograd(
        backwards={"tape": vjp, "tape that is followed": vjp_that_is_followed},
        forwards={"accumulator": jvp},
        jacobians={},
        seconds={},
        thirds={},
        vmap=tf.vectorized_map,
        batched="tape",
        check=check,
        check_backward=lambda f, arrays: check(f, arrays, forward=False),
        where=tf.where,
    )
