"""Laws of differentiation by torch: backward, forward mode, transforms and higher orders, on values and not on shapes.

The reference is the exact Jacobian of reference.py; second derivatives are compared with differences.
"""

from __future__ import annotations

import importlib

import numpy as np

import hard_rows
from frameworks import load_torch
from lawbook import is_simplex, law
from laws_derivatives import directions, parameters_of

TORCH = ("torch", "torch formulas")
EAGER = ("torch",)
SLACK = {"float64": 1, "float32": 1, "float16": 3, "bfloat16": 3}
"""In 16 bit a way back may start from the rounded weights (section 4)."""


def torch():
    return load_torch()


def followed(case, values):
    """A tensor that asks for a gradient."""
    return case.array(values).requires_grad_()


def column(values, dtype="float64"):
    """One number a row, asking for a gradient."""
    return torch().tensor(np.reshape(values, (-1, 1)), dtype=getattr(torch(), dtype)).requires_grad_()


@law(only=TORCH)
def backward_is_accurate(case):
    for labels, x in case.batches():
        g = directions(case, x.shape)
        for hyper in case.few(x.shape[1]):
            tensor = followed(case, x)
            case.map(tensor, **hyper).backward(case.array(g))
            assert tensor.grad.dtype == tensor.dtype
            got = case.numbers(tensor.grad)
            for place, row in enumerate(case.rows(x, **hyper)):
                case.assert_linear(
                    got[place], row.vjp(g[place]), row, g[place], slack=SLACK[case.dtype], note=labels[place]
                )


def with_dual_tensors(function, x, t):
    forward_ad = torch().autograd.forward_ad
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(x, t))).tangent
    assert tangent is not None
    return tangent


def with_func_jvp(function, x, t):
    return torch().func.jvp(function, (x,), (t,))[1]


@law(only=EAGER)
def forward_mode_is_accurate(case):
    x = hard_rows.plain(case.dtype, (4, 9), scale=0.4)
    t = directions(case, x.shape, seed=8)
    for hyper in case.few(9):
        for road in (with_dual_tensors, with_func_jvp):
            tangent = road(lambda tensor, hyper=hyper: case.map(tensor, **hyper), case.array(x), case.array(t))
            got = case.numbers(tangent)
            for place, row in enumerate(case.rows(x, **hyper)):
                wanted = row.jvp(t[place])
                assert any(got[place]) == any(map(float, wanted)), road.__name__
                case.assert_linear(got[place], wanted, row, t[place], kind="jvp", slack=4, note=road.__name__)


@law(only=EAGER, dtypes=("float64",))
def transforms_give_the_jacobian(case):
    func = torch().func
    x = case.array(hard_rows.plain(case.dtype, (3, 5), scale=0.4))
    for hyper in case.few(5):
        jacobians = torch().stack([case.map.jacobian(row, **hyper) for row in x])
        function = lambda row, hyper=hyper: case.map(row, **hyper)  # noqa: E731
        assert jacobians.abs().max() > 0
        for each in (
            func.vmap(func.jacrev(function))(x),
            func.vmap(func.jacfwd(function))(x),
            func.vmap(lambda row, function=function: func.vmap(func.vjp(function, row)[1])(torch().eye(5).double())[0])(
                x
            ),
        ):
            assert torch().allclose(each, jacobians, rtol=1e-11, atol=1e-13)
        across = func.vmap(function, in_dims=1, out_dims=1)(x.T.contiguous().T)
        assert torch().allclose(across, case.map(x, axis=0, **hyper), rtol=1e-12, atol=1e-15)


@law(only=EAGER, dtypes=("float64",))
def higher_orders_agree_with_differences(case):
    func, eye = torch().func, torch().eye(5).double()
    x = case.array(hard_rows.plain(case.dtype, (5,), scale=0.4))
    step = 1e-6
    for hyper in case.few(5):
        function = lambda row, hyper=hyper: case.map(row, **hyper)  # noqa: E731
        jacobian = lambda row, hyper=hyper: case.map.jacobian(row, **hyper)  # noqa: E731
        second = torch().stack([(jacobian(x + step * e) - jacobian(x - step * e)) / (2 * step) for e in eye], -1)
        ways = {
            "forward over reverse": func.hessian(function),
            "reverse over forward": func.jacrev(func.jacfwd(function)),
            "forward over forward": func.jacfwd(func.jacfwd(function)),
            "reverse over reverse": func.jacrev(func.jacrev(function)),
            "of the jacobian": func.jacrev(jacobian),
        }
        for name, way in ways.items():
            assert torch().allclose(way(x), second, rtol=1e-6, atol=1e-7), name
        hessian = func.hessian(function)
        third = torch().stack([(hessian(x + step * e) - hessian(x - step * e)) / (2 * step) for e in eye], -1)
        assert torch().allclose(func.jacfwd(hessian)(x), third, rtol=1e-5, atol=1e-6)


@law(only=EAGER, dtypes=("float64",))
def autograd_checks_pass_in_all_arguments(case):
    """torch's own checks, both orders and both modes, with a mask, a sink, temperatures and hyper-parameters."""
    checks = importlib.import_module("torch.autograd.gradcheck")
    x = followed(case, hard_rows.plain(case.dtype, (3, 5), scale=0.15))
    where = torch().tensor(np.random.default_rng(1).random((3, 5)) < 0.8)
    parameters = {name: column(np.maximum(v, 1.2) if name == "alpha" else v) for name, v in parameters_of(case).items()}

    def weights(x, *values):
        p = case.map(x, where=where, **dict(zip(parameters, values, strict=True)))
        return torch().where(where, p, 0.0)

    arguments = (x, *parameters.values())
    alone = lambda x: case.map(x, **case.few(5)[0])  # noqa: E731
    assert checks.gradcheck(alone, (x,), check_forward_ad=True, check_batched_grad=True, raise_exception=False)
    assert checks.gradgradcheck(alone, (x,), check_fwd_over_rev=True, raise_exception=False)
    assert checks.gradcheck(weights, arguments, check_forward_ad=True, check_batched_grad=True, raise_exception=False)
    assert checks.gradgradcheck(weights, arguments, check_fwd_over_rev=True, raise_exception=False)


@law(only=EAGER, dtypes=("float64",))
def second_derivatives_know_numbers_and_sinks(case):
    """What a layer gives: temperature, sink and hyper-parameters as plain numbers."""
    checks = importlib.import_module("torch.autograd.gradcheck")
    x = followed(case, hard_rows.plain(case.dtype, (2, 5), scale=0.2))
    for options in ({"temperature": 0.7}, {"sink": 0.1}, {"temperature": 1.7, "sink": -0.2}):
        for hyper in case.few(5):
            weights = lambda x, options=options, hyper=hyper: case.map(x, **options, **hyper)  # noqa: E731
            assert checks.gradcheck(weights, (x,), raise_exception=False)
            assert checks.gradgradcheck(weights, (x,), check_fwd_over_rev=True, raise_exception=False)


@law(only=TORCH, dtypes=("float64",), maps=is_simplex)
def losses_have_their_gradients_under_all_options(case):
    """Temperatures, masks, class weights, smoothing: against differences of the losses."""
    x = followed(case, hard_rows.plain(case.dtype, (3, 5), scale=0.2))
    weight = torch().linspace(0.5, 2.0, 5, dtype=torch().float64).requires_grad_()
    where = torch().tensor([[True] * 5, [True, True, False, True, True], [True] * 5])
    index, spread = torch().tensor([1, 0, 4]), torch().softmax(torch().linspace(-1, 1, 15).double().reshape(3, 5), -1)
    spread = torch().where(where, spread, 0.0)
    hyper = {"budget": 1.0} if case.name == "budget" else {}
    step = 1e-6
    for y in (index, spread):
        for options in (
            {"temperature": 0.7},
            {"temperature": column([0.5, 1.0, 2.0]).detach(), "where": where},
            {"temperature": 1.3, "label_smoothing": 0.2, "where": where},
            {"temperature": 0.6, "weight": weight},
        ):
            loss = lambda x, y=y, options=options: case.map.loss(x, y, **options, **hyper)  # noqa: E731
            asking = (x, weight) if "weight" in options else (x,)
            for each, got in zip(asking, torch().autograd.grad(loss(x), asking), strict=True):
                wanted = torch().zeros_like(each)
                with torch().no_grad():
                    for place in range(each.numel()):
                        flat, number = each.reshape(-1), each.reshape(-1)[place].item()
                        ends = []
                        for moved in (number + step, number - step):
                            flat[place] = moved
                            ends.append(loss(x).item())
                        flat[place] = number
                        wanted.reshape(-1)[place] = (ends[0] - ends[1]) / (2 * step)
                assert torch().allclose(got, wanted, rtol=1e-6, atol=1e-7), (options, got, wanted)
                assert got.abs().max() > 0 or each is weight


@law(only=TORCH, dtypes=("float64", "float32"))
def parameters_get_their_gradients(case):
    """A backward pass gives what a vjp by name gives."""
    x = hard_rows.plain(case.dtype, (3, 9), scale=0.15)
    g = directions(case, x.shape)
    parameters = {name: column(values, case.dtype) for name, values in parameters_of(case).items()}
    tensor = followed(case, x)
    case.map(tensor, **parameters).backward(case.array(g))
    names = ("x", *parameters)
    still = {name: value.detach() for name, value in parameters.items()}
    wanted = case.map.vjp(case.array(x), case.array(g), wrt=names, **still)
    for name, each, expected in zip(names, (tensor, *parameters.values()), wanted, strict=True):
        got, expected = case.numbers(each.grad), case.numbers(expected)
        assert np.any(expected), name
        close = 1e-11 if case.dtype == "float64" else 1e-5
        np.testing.assert_allclose(got, expected, rtol=close, atol=close * np.max(np.abs(expected)), err_msg=name)


@law(only=TORCH)
def masked_entries_take_and_give_no_gradient(case):
    """NaN and infinities under the mask, in the scores and in the cotangent."""
    x, g = hard_rows.plain(case.dtype, (3, 9), scale=0.3), directions(case, (3, 9))
    where = np.random.default_rng(1).random((3, 9)) < 0.7
    for hole in (np.nan, np.inf, -np.inf):
        for extra in ({}, {"sink": 0.2}, {"temperature": column([0.5, 1.0, 2.0])}):
            for hyper in case.few(4):
                tensor = followed(case, np.where(where, x.astype(np.float64), hole))
                p = case.map(tensor, where=case.other(where), **extra, **hyper)
                p.backward(case.array(np.where(where, g, hole)))
                got = case.numbers(tensor.grad)
                assert np.all(got[~where] == 0)
                assert np.all(np.isfinite(got)) and np.any(got)
                if "temperature" in extra:
                    assert torch().isfinite(extra["temperature"].grad).all()


@law(only=TORCH)
def bad_rows_spoil_no_other_gradient(case):
    x = hard_rows.plain(case.dtype, (4, 6), scale=0.3)
    sign = -1 if case.name.endswith("softmin") else 1
    x[1, 2], x[2, 3], x[3, 0] = np.nan, sign * np.inf, -sign * np.inf
    g = directions(case, x.shape)
    for hyper in case.few(5):
        tensor = followed(case, x)
        case.map(tensor, **hyper).backward(case.array(g))
        got = case.numbers(tensor.grad)
        assert np.all(np.isfinite(got[0])) and np.any(got[0])
        assert np.all(np.isnan(got[1:3]))
        again = torch().autograd.grad(case.map(tensor, **hyper), tensor, case.array(g), create_graph=True)[0]
        assert np.array_equal(np.isnan(case.numbers(again)), np.isnan(got))
        assert got[3, 0] == 0 and np.all(np.isfinite(got[3])) and np.any(got[3])


@law(only=EAGER, dtypes=("float64",))
def empty_rows_have_one_gradient_on_every_road(case):
    """0, or NaN where they are asked to be NaN: by a vjp, backward, backward that is followed, and a transform."""
    x, g = hard_rows.plain(case.dtype, (2, 4), scale=0.3), directions(case, (2, 4))
    where = case.other(np.array([[False] * 4, [True, True, False, True]]))
    for empty, wanted in (("zero", 0.0), ("nan", np.nan)):
        for hyper in case.few(3):
            weights = lambda x, hyper=hyper, empty=empty: case.map(x, where=where, empty=empty, **hyper)  # noqa: E731
            tensor = followed(case, x)
            p = weights(tensor)
            for road in (
                case.map.vjp(case.array(x), case.array(g), where=where, empty=empty, **hyper),
                torch().autograd.grad(p, tensor, case.array(g), retain_graph=True)[0],
                torch().autograd.grad(p, tensor, case.array(g), create_graph=True)[0],
                torch().func.vjp(weights, case.array(x))[1](case.array(g))[0],
            ):
                got = case.numbers(road)
                assert np.array_equal(got[0], np.full(4, wanted), equal_nan=True), (empty, got)
                assert np.all(np.isfinite(got[1])) and np.any(got[1])


@law(only=TORCH, maps=is_simplex)
def the_gradient_of_a_loss_is_its_residual(case):
    x = hard_rows.plain(case.dtype, (3, 9), scale=0.5)
    spread = np.abs(hard_rows.plain(case.dtype, (3, 9), seed=5)).astype(np.float64)
    for hyper in case.few(9):
        mass = hyper.get("budget", 1)
        y = case.rounded(spread / spread.sum(-1, keepdims=True) * mass)
        targets = [case.array(y)] if mass != 1 else [case.array(y), case.other(np.array([1, 0, 8]))]
        for target in targets:
            tensor = followed(case, x)
            loss = case.map.loss(tensor, target, reduction="sum", **hyper)
            loss.backward()
            wanted = case.call(x, method="residual", y=target, **hyper)
            if case.name == "softmin":
                wanted = -wanted
            close = {"float64": 1e-11, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[case.dtype]
            assert np.any(wanted)
            np.testing.assert_allclose(case.numbers(tensor.grad), wanted, rtol=close, atol=close * 0.05)
            if case.dtype == "float64":
                assert importlib.import_module("torch.autograd.gradcheck").gradgradcheck(
                    lambda x, target=target, hyper=hyper: case.map.loss(x, target, **hyper), (tensor,)
                )
