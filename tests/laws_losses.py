"""Laws of the regulariser, the smooth maximum, the losses and their residuals."""

from __future__ import annotations

import numpy as np

import hard_rows
import reference
import tolerances
from lawbook import is_simplex, law
from tolerances import ulp


def mass_of(hyper):
    return hyper.get("budget", 1)


def distributions(case, shape, mass, seed=21):
    """Targets that sum to the map's mass (nearly: the dtype rounds them), some of their entries 0."""
    rng = np.random.default_rng(seed)
    y = rng.random(shape) * (rng.random(shape) < 0.7)
    y[..., 0] += 0.1
    return case.rounded(mass * y / y.sum(axis=-1, keepdims=True))


def assert_loss(case, got, wanted, row, target, *, temperature=False, note=""):
    """Within ULPs of the largest term of the loss, and never below zero."""
    if wanted == reference.exact.inf:
        assert got == np.inf, f"{note}: {got}"
        return
    scale = row.loss_scale(target)
    bound = tolerances.linear_bound(case.dtype, temperature=temperature, formulas=case.formulas)
    if wanted > tolerances.largest(case.dtype):
        return
    error = float(abs(reference.mpf(float(got)) - wanted) / ulp(case.dtype, scale))
    case.record(("loss", "largest term"), error)
    assert error <= bound, f"{note} loss {got!r}, not {float(wanted)!r}, off by {error:.3g} ULP, y {target} in {row}"


def usable(x):
    """Rows whose losses are numbers of their dtype."""
    return [place for place, row in enumerate(x.astype(np.float64)) if np.all(np.abs(row[np.isfinite(row)]) < 1e4)]


def index_settings(case, size):
    """Hyper-parameters under which a class index is a target."""
    return [hyper for hyper in case.grid(size) if mass_of(hyper) == 1]


@law(maps=is_simplex)
def regularizer_is_omega(case):
    for hyper in case.grid(6):
        mass = mass_of(hyper)
        if mass > 5:
            continue
        p = distributions(case, (3, 6), mass)
        got = case.numbers(case.map.regularizer(case.array(p), **hyper))
        assert got.shape == (3,)
        for value, line in zip(got, p, strict=True):
            wanted = reference.regularizer(case.name, line, **hyper)
            scale = max(float(abs(wanted)), mass)
            assert abs(value - float(wanted)) <= 16 * max(ulp(case.dtype, scale), 1e-300), f"{hyper} {value} {wanted}"


@law(maps=is_simplex)
def regularizer_vanishes_at_a_vertex(case):
    for hyper in case.grid(4):
        if mass_of(hyper) != 1:
            continue
        corner = np.eye(4)[[2, 0]]
        assert np.all(case.numbers(case.map.regularizer(case.array(corner), **hyper)) == 0)
        where = corner == 1
        got = case.numbers(
            case.map.regularizer(case.array(np.where(where, 1, np.nan)), where=case.other(where), **hyper)
        )
        assert np.all(got == 0)
        assert case.numbers(case.map.regularizer(case.array(corner.T), axis=0, **hyper)).shape == (2,)


@law(maps=is_simplex)
def smooth_max_is_accurate(case):
    for labels, x, hypers in case.trials(case.grid):
        kept = usable(x)
        if not kept:
            continue
        for hyper in hypers:
            got = case.call(x[kept], method="smooth_max", **hyper)
            assert got.shape == (len(kept),)
            for value, row, place in zip(got, case.rows(x[kept], **hyper), kept, strict=True):
                assert_smooth_max(case, value, row, f"{labels[place]} {hyper}")


def assert_smooth_max(case, value, row, note, *, temperature=False):
    wanted = row.smooth_max()
    size = max([reference.mpf(1), *(abs(score) for score in row.competitors)]) * row.temperature
    scale = max(size * max(reference.mpf(1), row.hyper.get("budget", 1)), abs(wanted))
    error = float(abs(reference.mpf(float(value)) - wanted) / ulp(case.dtype, scale))
    bound = tolerances.linear_bound(case.dtype, temperature=temperature, formulas=case.formulas)
    case.record(("smooth_max", "largest term"), error)
    assert error <= bound, f"{note}: {value!r}, not {float(wanted)!r}, off by {error:.3g} ULP"


@law(maps=is_simplex)
def smooth_max_takes_temperature_sink_and_mask(case):
    x = hard_rows.plain(case.dtype, (4, 8))
    where = np.random.default_rng(4).random(x.shape) < 0.7
    column = np.array([[0.1], [0.5], [2.0], [9.0]])
    for hyper in case.few(4):
        got = case.call(
            np.where(where, x.astype(float), np.nan),
            method="smooth_max",
            where=case.other(where),
            temperature=case.other(column),
            sink=0.75,
            **hyper,
        )
        rows = case.rows(x, where=where, temperature=column, sink=0.75, **hyper)
        for value, row in zip(got, rows, strict=True):
            assert_smooth_max(case, value, row, str(hyper), temperature=True)


@law(maps=is_simplex)
def smooth_max_tends_to_the_maximum(case):
    x = case.rounded([[1.0, 3.0, 2.5, -1.0], [0.5, 0.5, 0.25, 0.125]])
    sign = -1 if case.name == "softmin" else 1
    for hyper in case.few(4):
        mass = mass_of(hyper)
        ranked = -np.sort(-sign * x, axis=1)
        whole = int(mass)
        wanted = ranked[:, :whole].sum(axis=1) + (mass - whole) * ranked[:, min(whole, 3)]
        got = case.call(x, method="smooth_max", temperature=2.0**-40, **hyper)
        assert np.all(np.abs(got - wanted) <= 8 * ulp(case.dtype, 3.0 * max(mass, 1)) + 2.0**-36)


@law(maps=is_simplex)
def losses_are_accurate_against_an_index(case):
    for labels, x, hypers in case.trials(lambda size: index_settings(case, size)):
        kept, size = usable(x), x.shape[1]
        y = np.array([place % size for place in range(len(x))])
        for hyper in hypers if kept else []:
            got = case.numbers(case.map.loss(case.array(x[kept]), case.other(y[kept]), reduction="none", **hyper))
            assert got.shape == (len(kept),) and np.all(got >= 0)
            for value, row, place in zip(got, case.rows(x[kept], **hyper), kept, strict=True):
                assert_loss(case, value, row.loss(int(y[place])), row, int(y[place]), note=labels[place])


@law(maps=is_simplex)
def losses_are_accurate_against_a_distribution(case):
    for labels, x, hypers in case.trials(case.grid):
        kept = [place for place in usable(x) if np.all(np.isfinite(x[place].astype(float)))]
        for hyper in hypers if kept else []:
            y = distributions(case, (len(kept), x.shape[1]), mass_of(hyper))
            got = case.call(x[kept], y, method="loss", reduction="none", **hyper)
            for value, row, line, place in zip(got, case.rows(x[kept], **hyper), y, kept, strict=True):
                wanted = row.loss(line)  # below 0 only where the dtype's y does not sum to the mass
                assert value >= 0 or wanted < 0, f"{labels[place]}: {value!r} for y {line} in {row}"
                assert_loss(case, value, wanted, row, line, note=labels[place])


@law(maps=is_simplex)
def loss_is_zero_at_its_own_weights(case):
    """Zero exactly where y = m(x) and m(x) is exact, zero within the bound where m(x) is rounded."""
    sign = -1 if case.name == "softmin" else 1
    for hyper in index_settings(case, 4):
        sure = sign * np.array([[3e3, -3e3, -3e3, -3e3]])
        certain = case.numbers(case.map.loss(case.array(sure), case.other(np.array([0])), reduction="none", **hyper))
        assert np.all(certain == 0) or (hyper.get("alpha", 2) < 1.01 and np.all(certain < 1e-300)), certain
    x = hard_rows.plain(case.dtype, (4, 7))
    for hyper in case.few(7):
        y = case.call(x, **hyper)
        got = case.call(x, y, method="loss", reduction="none", **hyper)
        for value, row, line in zip(got, case.rows(x, **hyper), y, strict=True):
            assert_loss(case, value, row.loss(line), row, line)


@law(maps=is_simplex)
def losses_take_temperature_sink_and_mask(case):
    x = hard_rows.plain(case.dtype, (4, 8))
    where = np.random.default_rng(4).random(x.shape) < 0.7
    where[:, 3] = True
    column = np.array([[0.5], [1.0], [2.0], [9.0]])
    for hyper in case.few(4):
        arguments = {"temperature": column, "sink": 0.75, **hyper}
        given = {**arguments, "temperature": case.other(column)}
        masked = np.where(where, x.astype(float), np.nan)
        rows = case.rows(x, where=where, **arguments)
        y = np.where(where, distributions(case, x.shape, 1), 0)
        y = case.rounded(mass_of(hyper) * y / y.sum(axis=1, keepdims=True))
        got = case.call(masked, y, method="loss", reduction="none", where=case.other(where), **given)
        residual = case.call(masked, y, method="residual", where=case.other(where), **given)
        for place, row in enumerate(rows):
            assert_loss(case, got[place], row.loss(y[place]), row, y[place], temperature=True)
            assert_residual(case, residual[place], row, y[place], temperature=True)


def residual_scale(case, row, wanted, y, is_index):
    """Section 4: itself for softmax against an index, max(p) for the others; against a distribution max(p_i, y_i).

    A residual beyond max(p) (p_y - 1 in a flat row) is rounded to its own ULP, whatever the map.
    """
    if case.name in tolerances.SOFTMAX_FAMILY:
        return abs(wanted) if is_index else max(abs(wanted), y, y + wanted)
    if case.dtype == "float64" and case.name == "entmax" and row.hyper["alpha"] > 2:
        return reference.ONE
    return max(abs(wanted), y, *row.solved.weights)


def assert_residual(case, got, row, target, *, temperature=False):
    bound = tolerances.residual_bound(case.dtype, temperature=temperature, formulas=case.formulas)
    is_index, distribution = isinstance(target, int), row.smoothed(target, 0)
    for entry, (found, wanted) in enumerate(zip(got.tolist(), row.residual(target), strict=True)):
        scale = residual_scale(case, row, wanted, distribution[entry], is_index)
        if scale and abs(scale) < tolerances.smallest_promised(case.dtype):
            assert abs(found) <= 2 * tolerances.smallest_normal(case.dtype)
            continue
        error = float(abs(reference.mpf(found) - wanted) / ulp(case.dtype, scale))
        case.record(("residual", "index" if is_index else "distribution"), error)
        assert error <= bound, f"entry {entry}: {found!r}, not {float(wanted)!r}, y {target} in {row}"


@law(maps=is_simplex)
def residuals_are_accurate(case):
    for _, x, hypers in case.trials(case.grid):
        kept = [place for place in range(len(x)) if np.all(np.isfinite(x[place].astype(float)))]
        size = x.shape[1]
        indices = np.array(
            [int(np.argmax(row.astype(float))) if place % 2 else place % size for place, row in enumerate(x)]
        )
        for hyper in hypers if kept else []:
            rows = case.rows(x[kept], **hyper)
            y = distributions(case, (len(kept), size), mass_of(hyper))
            got = case.call(x[kept], y, method="residual", **hyper)
            for place, row in enumerate(rows):
                assert_residual(case, got[place], row, y[place])
            if mass_of(hyper) == 1:
                got = case.numbers(case.map.residual(case.array(x[kept]), case.other(indices[kept]), **hyper))
                for place, row in enumerate(rows):
                    assert_residual(case, got[place], row, int(indices[kept][place]))


@law(maps=lambda name: name in ("softmax", "softmin"))
def a_confident_residual_does_not_cancel(case):
    gap = {"float16": 6.0, "bfloat16": 30.0, "float32": 40.0, "float64": 90.0}[case.dtype]
    sign = -1 if case.name == "softmin" else 1
    x = sign * np.array([[0.0, -gap, -gap - 1]])
    got = case.numbers(case.map.residual(case.array(x), case.other(np.array([0]))))
    assert got[0, 0] < 0 and got[0, 1] > 0
    (row,) = case.rows(x)
    assert_residual(case, got[0], row, 0)


@law(maps=is_simplex)
def losses_reduce_as_torch_does(case):
    x, y = hard_rows.plain(case.dtype, (5, 4)), np.array([0, 3, -100, 2, 1])
    w = case.rounded([0.5, 2.0, 1.0, 0.25])
    sign = 16 * ulp(case.dtype, 1)
    for hyper in case.few(4):
        if mass_of(hyper) != 1:
            continue
        kept = y != -100
        exact_loss = np.array(
            [float(row.loss(int(t))) if t >= 0 else 0.0 for row, t in zip(case.rows(x, **hyper), y, strict=True)]
        )
        share = np.where(kept, w[np.where(kept, y, 0)], 0)
        for weight, part in ((None, kept.astype(float)), (case.array(w), share)):
            arguments = {"ignore_index": -100, "weight": weight, **hyper}
            given = case.array(x), case.other(y)
            none = case.numbers(case.map.loss(*given, reduction="none", **arguments))
            total = case.numbers(case.map.loss(*given, reduction="sum", **arguments))
            mean = case.numbers(case.map.loss(*given, **arguments))
            assert none.shape == (5,) and total.shape == mean.shape == ()
            assert none[2] == 0
            np.testing.assert_allclose(none, exact_loss * part, rtol=sign * 8, atol=0 if exact_loss.min() else sign * 4)
            np.testing.assert_allclose(total, np.sum(exact_loss * part), rtol=sign * 8)
            np.testing.assert_allclose(mean, np.sum(exact_loss * part) / part.sum(), rtol=sign * 8)


@law(maps=is_simplex)
def distributions_weigh_rows_and_divide_by_their_number(case):
    x, w = hard_rows.plain(case.dtype, (5, 4)), case.rounded([0.5, 2.0, 1.0, 0.25])
    y = distributions(case, (5, 4), 1)
    for hyper in case.few(4):
        if mass_of(hyper) != 1:
            continue
        for smoothing in (0.0, 0.25):
            rows = zip(case.rows(x, **hyper), y, strict=True)
            exact_loss = np.array([float(row.loss(t, smoothing=smoothing)) for row, t in rows])
            tolerance = {"rtol": 128 * ulp(case.dtype, 1), "atol": 64 * ulp(case.dtype, 1) * exact_loss.max()}
            for weight, share in ((None, np.ones(5)), (case.array(w), y @ w)):
                arguments = {"weight": weight, "label_smoothing": smoothing, **hyper}
                got = case.call(x, y, method="loss", reduction="none", **arguments)
                np.testing.assert_allclose(got, exact_loss * share, **tolerance)
                mean = case.call(x, y, method="loss", **arguments)
                np.testing.assert_allclose(mean, np.sum(exact_loss * share) / 5, **tolerance)


@law(maps=is_simplex)
def label_smoothing_spreads_over_what_competes(case):
    sign = -1 if case.name == "softmin" else 1
    x = case.rounded(hard_rows.plain("float64", (3, 6)))
    where = np.ones(x.shape, bool)
    where[0, 1] = where[2, 4] = False
    x[1, 5] = -np.inf * sign
    y = np.array([0, 2, 5])
    soft = np.where(np.isfinite(x) & where, distributions(case, x.shape, 1), 0)
    soft = case.rounded(soft / soft.sum(axis=1, keepdims=True))
    for hyper in case.few(4):
        if mass_of(hyper) != 1:
            continue
        rows = case.rows(x, where=where, sink=0.5, **hyper)
        for targets, given in ((y, case.other(y)), (soft, case.array(soft))):
            arguments = {"where": case.other(where), "sink": 0.5, "label_smoothing": 0.25, **hyper}
            got = case.numbers(case.map.loss(case.array(x), given, reduction="none", **arguments))
            for value, row, target in zip(got, rows, targets, strict=True):
                target = int(target) if np.ndim(target) == 0 else target
                wanted = row.loss(target, smoothing=0.25)
                assert_loss(case, value, wanted, row, row.smoothed(target, 0.25), note="smoothed")


@law(maps=is_simplex)
def impossible_targets_are_infinite_never_nan(case):
    sign = -1 if case.name == "softmin" else 1
    x = np.array([[1.0, 2.0, -np.inf * sign, 0.5], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 0.5]])
    where = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)
    for hyper in case.few(3):
        if mass_of(hyper) != 1:
            continue
        for y in (case.other(np.array([2, 2, 2])), case.array([[0.5, 0, 0.5, 0]] * 3)):
            got = case.numbers(case.map.loss(case.array(x), y, reduction="none", where=case.other(where), **hyper))
            assert np.all(got[:2] == np.inf) and np.isfinite(got[2]), got
            assert case.numbers(case.map.loss(case.array(x), y, where=case.other(where), **hyper)) == np.inf
        possible = case.array([[0.5, 0.25, 0, 0.25]] * 3)
        got = case.numbers(case.map.loss(case.array(x), possible, reduction="none", where=case.other(where), **hyper))
        assert np.all(np.isfinite(got)) and np.all(got >= 0)


@law(maps=is_simplex)
def all_ignored_means_zero(case):
    x, y = hard_rows.plain(case.dtype, (3, 4)), np.array([7, 7, 7])
    for hyper in case.few(4):
        if mass_of(hyper) != 1:
            continue
        for reduction in ("mean", "sum"):
            got = case.numbers(
                case.map.loss(case.array(x), case.other(y), ignore_index=7, reduction=reduction, **hyper)
            )
            assert got == 0
        residual = case.numbers(case.map.residual(case.array(x), case.other(np.array([1, 0, 3])), **hyper))
        assert np.any(residual)


@law(maps=is_simplex)
def losses_of_special_rows(case):
    """A NaN row's loss is NaN, an empty row's 0 (or NaN when asked), and neither touches its neighbours."""
    sign = -1 if case.name == "softmin" else 1
    x = sign * np.array([[1.0, 2.0, 3.0], [np.nan, 0.0, 1.0], [-np.inf] * 3, [0.5, 0.25, 0.0]])
    y = distributions(case, (4, 3), 1)
    for hyper in case.few(1):
        got = case.call(x, y, method="loss", reduction="none", **hyper)
        alone = case.call(x[[0, 3]], y[[0, 3]], method="loss", reduction="none", **hyper)
        assert np.isnan(got[1]) and got[2] == 0
        assert np.array_equal(got[[0, 3]], alone)
        nan = case.call(x, y, method="loss", reduction="none", empty="nan", **hyper)
        assert np.isnan(nan[2])
        soft = case.call(x, method="smooth_max", **hyper)
        assert np.isnan(soft[1]) and np.all(np.isfinite(soft[[0, 3]]))
