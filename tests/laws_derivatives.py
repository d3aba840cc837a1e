"""Laws of the derivatives: VJP, JVP, Jacobian, parameters. Bounds are relative to a row's terms: zeros never pass."""

from __future__ import annotations

import numpy as np

import hard_rows
import reference
import tolerances
from lawbook import WIDE, law


def directions(case, shape, seed=7):
    """A cotangent or tangent in the case's dtype."""
    return case.rounded(np.random.default_rng(seed).normal(size=shape))


def parameters_of(case):
    """Names and values of what a VJP may be taken with respect to, one value a row for three rows."""
    hyper = {
        "entmax": {"alpha": [1.0, 1.5, 2.5]},
        "normmax": {"alpha": [1.3, 2.0, 4.0]},
        "budget": {"budget": [0.5, 1.5, 2.5]},
    }
    return {"temperature": [0.7, 1.0, 3.0], "sink": [0.25, -0.5, 1.0], **hyper.get(case.name, {})}


@law()
def vjp_is_accurate(case):
    for labels, x, hypers in case.trials(case.grid):
        g = directions(case, x.shape)
        for hyper in hypers:
            got = case.call(x, g, method="vjp", **hyper)
            for place, row in enumerate(case.rows(x, **hyper)):
                case.assert_linear(got[place], row.vjp(g[place]), row, g[place], note=labels[place])


@law()
def jvp_is_accurate(case):
    for labels, x, hypers in case.trials(case.grid):
        t = directions(case, x.shape, seed=8)
        for hyper in hypers:
            got = case.call(x, t, method="jvp", **hyper)
            for place, row in enumerate(case.rows(x, **hyper)):
                case.assert_linear(got[place], row.jvp(t[place]), row, t[place], kind="jvp", note=labels[place])


@law()
def derivatives_are_accurate_with_everything_at_once(case):
    """A temperature, a sink, a mask and NaN under the mask, in x and in the cotangent."""
    x, g = hard_rows.plain(case.dtype, (3, 9), scale=0.15), directions(case, (3, 9))
    where = np.random.default_rng(1).random((3, 9)) < 0.7
    for hyper in case.few(4):
        arguments = {"temperature": 0.4, "sink": 0.1, **hyper}
        rows = case.rows(x, where=where, **arguments)
        holes = np.where(where, x.astype(np.float64), np.nan), np.where(where, g, np.nan)
        for method in ("vjp", "jvp"):
            got = case.call(*holes, method=method, where=case.other(where), **arguments)
            assert np.all(got[~where] == 0)
            for place, row in enumerate(rows):
                wanted = getattr(row, method)(g[place])
                assert any(wanted) == (sum(slope > 0 for slope in row.solved.slopes) > 1)
                case.assert_linear(got[place], wanted, row, g[place], temperature=True, kind=method)


@law()
def jvp_is_the_transpose_of_vjp(case):
    x = hard_rows.plain(case.dtype, (4, 9), scale=0.4)
    g, t = directions(case, x.shape), directions(case, x.shape, seed=9)
    for hyper in case.few(9):
        pulled, pushed = case.call(x, g, method="vjp", **hyper), case.call(x, t, method="jvp", **hyper)
        for place, row in enumerate(case.rows(x, **hyper)):
            one, other = float(pulled[place] @ t[place]), float(pushed[place] @ g[place])
            scale = float(
                max(
                    row.linear_scale(g[place]) * np.sum(np.abs(t[place])),
                    row.linear_scale(t[place]) * np.sum(np.abs(g[place])),
                )
            )
            assert row.nearest < tolerances.boundary(case.dtype) or abs(one - other) <= 32 * tolerances.ulp(
                case.dtype, scale
            )
            assert one != 0 or sum(slope > 0 for slope in row.solved.slopes) < 2


@law()
def jacobian_is_the_matrix(case):
    x = hard_rows.plain(case.dtype, (2, 6), scale=0.3)
    for hyper in case.few(6):
        got = case.numbers(case.map.jacobian(case.array(x), sink=0.5, temperature=0.5, **hyper))
        assert got.shape == (2, 6, 6)
        for place, row in enumerate(case.rows(x, sink=0.5, temperature=0.5, **hyper)):
            wanted = row.jacobian()
            for column in range(6):
                unit = np.eye(6)[column]
                case.assert_linear(
                    got[place, :, column],
                    [line[column] for line in wanted],
                    row,
                    unit,
                    temperature=True,
                    kind="jacobian",
                )


@law()
def jacobian_puts_the_axis_last(case):
    x = hard_rows.plain(case.dtype, (2, 3, 4), scale=0.2)
    for hyper in case.few(3):
        for axis, order in ((1, (0, 2, 1)), ((0, 2), (1, 0, 2)), (None, (0, 1, 2))):
            count = 3 if axis is None else (1 if axis == 1 else 2)
            moved = np.transpose(x, order)
            flat = np.ascontiguousarray(moved).reshape(*moved.shape[: 3 - count], -1)
            got = case.numbers(case.map.jacobian(case.array(x), axis=axis, **hyper))
            wanted = case.numbers(case.map.jacobian(case.array(flat), **hyper))
            assert got.shape == (*flat.shape, flat.shape[-1])
            assert np.any(wanted)
            np.testing.assert_allclose(got, wanted, rtol=64 * tolerances.ulp(case.dtype, 1))


@law(dtypes=WIDE)
def parameter_derivatives_are_accurate(case):
    """One value a row: the derivative has the parameter's shape."""
    x, g = hard_rows.plain(case.dtype, (3, 8), scale=0.3), directions(case, (3, 8))
    given = {key: np.array(value)[:, None] for key, value in parameters_of(case).items()}
    names = ("x", *given)
    got = case.numbers(
        case.map.vjp(
            case.array(x), case.array(g), wrt=names, **{key: case.other(value) for key, value in given.items()}
        )
    )
    assert isinstance(got, tuple) and len(got) == len(names)
    rows = case.rows(x, **given)
    for name, result in zip(names[1:], got[1:], strict=True):
        assert result.shape == (3, 1), f"{name}: {result.shape}"
        assert any(any(row.derivative(name)) for row in rows), f"no row depends on {name}: the law would see nothing"
        for place, row in enumerate(rows):
            assert_parameter(case, name, result[place, 0], [row], g[place : place + 1])


@law(dtypes=WIDE)
def scalar_parameters_gather_all_rows(case):
    x, g = hard_rows.plain(case.dtype, (3, 8), scale=0.3), directions(case, (3, 8))
    for place in range(3):
        given = {key: value[place] for key, value in parameters_of(case).items()}
        rows = case.rows(x, **given)
        for name in given:
            result = case.numbers(case.map.vjp(case.array(x), case.array(g), wrt=name, **given))
            assert result.shape == (), f"{name}: {result.shape}"
            assert_parameter(case, name, float(result), rows, g)


def assert_parameter(case, name, got, rows, g):
    """Relative to the largest term; a derivative that is not zero must not come out as zero."""
    wanted = [row.parameter_vjp(name, line) for row, line in zip(rows, g, strict=True)]
    terms = [
        abs(reference.number(a) * b)
        for row, line in zip(rows, g, strict=True)
        for a, b in zip(line, row.derivative(name), strict=True)
    ]
    scale, total = float(max(terms)), float(sum(wanted))
    error = abs(got - total)
    case.record(("d/d " + name, "relative"), error / scale if scale else error)
    assert error <= tolerances.parameter_bound(case.dtype, formulas=case.formulas) * scale, (
        f"d / d {name}: {got!r}, not {total!r}, of {rows}"
    )


@law(dtypes=WIDE, maps=lambda name: name == "entmax")
def alpha_derivative_is_accurate_near_its_special_values(case):
    x, g = hard_rows.plain(case.dtype, (2, 8), scale=0.3), directions(case, (2, 8))
    for alpha in (1, 1 + 1e-12, 1 + 1e-6, 1.001, 1.3, 1.5, 2 - 1e-6, 2, 2 + 1e-6, 2.5, 5, 50):
        for row, scores, line in zip(case.rows(x, alpha=alpha), x, g, strict=True):
            got = case.call(scores, line, method="vjp", wrt="alpha", alpha=alpha)
            assert_parameter(case, "alpha", float(got), [row], line[None])
    assert case.call(x, g, method="vjp", wrt="alpha", alpha=np.inf) == 0


@law(dtypes=WIDE, maps=lambda name: name == "budget")
def budget_derivative_is_zero_without_inner_weights(case):
    x, g = np.array([[9.0, 5.0, 1.0, -3.0]]), directions(case, (1, 4))
    for budget in (0, 1, 2, 3, 4):
        assert case.call(x, g, method="vjp", wrt="budget", budget=budget) == 0
        assert not np.any(case.call(x, g, method="vjp", budget=budget))


@law()
def wrt_takes_a_name_or_names(case):
    x = case.array(hard_rows.plain(case.dtype, (3, 5)))
    for hyper in case.few(5):
        alone = case.raw(case.map.vjp(x, x, temperature=0.5, sink=1.0, **hyper))
        arguments = {"temperature": 0.5, "sink": 1.0, **hyper}
        (single,) = case.raw(case.map.vjp(x, x, wrt=("x",), **arguments))
        assert np.array_equal(alone.astype(float), single.astype(float))
        names = ("temperature", "x", "sink")
        for name, part in zip(names, case.raw(case.map.vjp(x, x, wrt=names, **arguments)), strict=True):
            own = case.raw(case.map.vjp(x, x, wrt=name, **arguments))
            assert part.shape == (() if name != "x" else alone.shape)
            assert np.array_equal(part.astype(float), own.astype(float)), name


@law()
def dead_entries_pass_no_gradient(case):
    """-inf entries, empty rows and masked entries: gradient exactly 0, and their cotangents are not read."""
    sign = -1 if case.name.endswith("softmin") else 1
    x = case.rounded(hard_rows.plain("float64", (4, 6)))
    x[0, 2], x[1, :], x[2, 1:4] = -np.inf * sign, -np.inf * sign, -np.inf * sign
    dead = np.isinf(x)
    g = np.where(dead, np.nan, directions(case, x.shape))
    for hyper in case.few(3):
        for method in ("vjp", "jvp"):
            got = case.call(x, g, method=method, **hyper)
            assert np.all(got[dead] == 0), got
            masked = case.call(np.where(dead, np.nan, x), g, method=method, where=case.other(~dead), **hyper)
            assert np.array_equal(got, masked)
            for place, row in enumerate(case.rows(x, **hyper)):
                if row.places:
                    case.assert_linear(got[place], getattr(row, method)(g[place]), row, g[place], kind=method)
            names = ("x", "temperature")
            if method == "vjp":
                assert all(np.all(np.isfinite(part)) for part in case.call(x, g, method=method, wrt=names, **hyper))
        nan = case.call(x, g, method="vjp", empty="nan", **hyper)
        assert np.all(np.isnan(nan[1])) and np.all(np.isfinite(nan[[0, 2, 3]]))


@law()
def bad_rows_spoil_their_own_gradient_only(case):
    sign = -1 if case.name.endswith("softmin") else 1
    calm = case.rounded(hard_rows.plain("float64", (4, 6)))
    g = directions(case, calm.shape)
    x, where = calm.copy(), np.ones(calm.shape, bool)
    x[1, 2], x[2, 0], where[2, 3] = np.nan, np.inf * sign, False
    for hyper in case.few(3):
        for method in ("vjp", "jvp"):
            got = case.call(x, g, method=method, where=case.other(where), **hyper)
            assert np.all(np.isnan(got[1])) and np.all(np.isnan(got[2][where[2]])) and got[2, 3] == 0
            wanted = case.call(calm, g, method=method, where=case.other(where), **hyper)
            case.assert_alike(got[[0, 3]], wanted[[0, 3]])


@law()
def derivatives_follow_the_axis(case):
    x, g = hard_rows.plain(case.dtype, (3, 4, 5)), directions(case, (3, 4, 5))
    for hyper in case.few(3):
        for method in ("vjp", "jvp"):
            got = case.call(x, g, method=method, axis=1, temperature=0.5, **hyper)
            moved = case.call(np.moveaxis(x, 1, 2), np.moveaxis(g, 1, 2), method=method, temperature=0.5, **hyper)
            assert np.any(got)
            if case.framework.bits:
                assert np.array_equal(got, np.moveaxis(moved, 2, 1))
            else:
                scale = np.max(np.abs(moved), initial=0.0)
                assert np.max(np.abs(got - np.moveaxis(moved, 2, 1))) <= 32 * tolerances.ulp(case.dtype, float(scale))
