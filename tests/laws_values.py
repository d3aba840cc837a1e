"""Laws of the values: accuracy against the reference, symmetries, masks, sinks, temperatures, special rows."""

from __future__ import annotations

import numpy as np

import hard_rows
import tolerances
from lawbook import FEW, assert_same_bits, has_support, is_simplex, law
from tolerances import ulp

TEMPERATURES = (0.05, 0.7, 3.0, 60.0)


@law()
def values_are_accurate(case):
    for labels, x, hypers in case.trials(case.grid):
        for hyper in hypers:
            case.assert_values(case.call(x, **hyper), case.rows(x, **hyper), labels=labels)


@law()
def values_are_accurate_under_a_temperature(case):
    for labels, x, hypers in case.trials(case.few):
        column = np.resize(TEMPERATURES, (len(x), 1))
        for hyper in hypers:
            for temperature in (0.3, column):
                given = temperature if np.isscalar(temperature) else case.other(temperature)
                rows = case.rows(x, temperature=temperature, **hyper)
                got = case.call(x, temperature=given, **hyper)
                case.assert_values(got, rows, temperature=True, labels=labels)


@law()
def values_are_accurate_with_a_sink(case):
    for labels, x, hypers in case.trials(case.few):
        column = np.resize([0.0, 2.0, -1.0, 30.0], (len(x), 1))
        for hyper in hypers:
            for sink in (0.5, column):
                given = sink if np.isscalar(sink) else case.other(sink)
                case.assert_values(case.call(x, sink=given, **hyper), case.rows(x, sink=sink, **hyper), labels=labels)


@law()
def values_are_accurate_under_a_mask(case):
    rng = np.random.default_rng(11)
    for labels, x, hypers in case.trials(case.few):
        where = rng.random(x.shape) < 0.6
        where[:, 0] = True
        where &= x.shape[1] > 1  # a row of one entry is empty once masked: 0, or -inf for a logarithm
        for hyper in hypers:
            got = case.call(x, where=case.other(where), **hyper)
            rows = case.rows(x, where=where, **hyper)
            kept = [place for place, row in enumerate(rows) if row.places]
            assert np.all(got[~where] == case.absent)
            assert np.all(got[[place for place in range(len(x)) if place not in kept]] == case.absent)
            if kept:
                case.assert_values(got[kept], [rows[place] for place in kept], labels=[labels[place] for place in kept])


@law(maps=is_simplex)
def weights_sum_to_one(case):
    """Or to the budget, or to the number of entries where these are fewer."""
    for _, x, hypers in case.trials(case.few):
        for hyper in hypers:
            bound = max(case.value_bound(alpha=hyper.get("alpha")).ulps, 1)
            for weights, scores in zip(case.call(x, **hyper), x.astype(np.float64), strict=True):
                wanted = min(hyper.get("budget", 1), np.sum(np.isfinite(scores)))
                error = abs(float(np.sum(weights)) - wanted)
                assert error <= (np.count_nonzero(weights) + 1) * bound * ulp(case.dtype, weights.max()), (
                    hyper,
                    scores,
                )


@law()
def a_shift_changes_nothing(case):
    x = np.round(hard_rows.plain("float64", (4, 9)) * 8) / 8  # eighths: shifted exactly in every dtype
    for hyper in case.few(9):
        case.assert_close(case.call(x + 4, **hyper), case.call(x, **hyper), alpha=hyper.get("alpha"))


@law()
def the_order_of_entries_does_not_matter(case):
    x = case.rounded(hard_rows.plain("float64", (4, 9)))
    order = np.random.default_rng(2).permutation(9)
    for hyper in case.few(9):
        case.assert_close(case.call(x[:, order], **hyper), case.call(x, **hyper)[:, order], alpha=hyper.get("alpha"))


@law()
def ties_get_equal_bits(case):
    x = np.array([[1.3, 0.2, 1.3, -2.0, 0.2, 1.3, 0.2, -2.0], [0.1] * 8, [5.0, 4.9, 5.0, 4.9, 4.9, 5.0, -1e3, -1e3]])
    for hyper in case.grid(8):
        got = case.raw(case.map(case.array(x), sink=0.3, **hyper))
        for row, weights in zip(case.rounded(x), got, strict=True):
            for value in np.unique(row):
                same = weights[row == value]
                assert_same_bits(same, np.broadcast_to(same[:1], same.shape), f"ties at {value}")


@law(maps=lambda name: is_simplex(name) and has_support(name))
def supports_of_every_size_are_exact(case):
    for _, x, hypers in case.trials(case.grid):
        for hyper in hypers:
            rows = case.rows(x, **hyper)
            sizes = case.support_size(x, **hyper)
            assert sizes.dtype == np.int64
            for size, row in zip(sizes, rows, strict=True):
                clear = row.nearest > tolerances.boundary(case.dtype) and not any(
                    0 < weight < tolerances.smallest_promised(case.dtype) for weight in row.weights
                )
                assert not clear or size == sum(weight > 0 for weight in row.weights), f"{size} in {row}"


@law(maps=is_simplex)
def support_size_counts_what_is_not_zero(case):
    x = hard_rows.plain(case.dtype, (3, 4, 6), scale=4)
    for hyper in case.few(4):
        weights = case.raw(case.map(case.array(x), sink=0.0, axis=1, **hyper))
        sizes = case.support_size(x, sink=0.0, axis=1, **hyper)
        assert sizes.dtype == np.int64
        assert np.array_equal(sizes, np.count_nonzero(weights, axis=1))


@law()
def temperature_is_a_scale(case):
    x = case.rounded(hard_rows.plain("float64", (4, 9)))
    column = np.array([[0.25], [1.0], [2.0], [8.0]])
    for hyper in case.few(9):
        got = case.call(x, temperature=case.other(column), **hyper)
        case.assert_close(got, case.call(x / column, **hyper), temperature=True, alpha=hyper.get("alpha"))
        alone = case.call(x, temperature=0.25, **hyper)
        case.assert_close(alone, case.call(x * 4, **hyper), temperature=True, alpha=hyper.get("alpha"))


@law()
def a_mask_removes_entries(case):
    x = case.rounded(hard_rows.plain("float64", (4, 9)))
    where = np.array([1, 0, 1, 1, 0, 0, 1, 1, 1], bool)
    for hyper in case.few(6):
        got = case.call(np.where(where, x, np.nan), where=case.other(where), **hyper)
        case.assert_close(got[:, where], case.call(x[:, where], **hyper), alpha=hyper.get("alpha"))
        assert np.all(got[:, ~where] == case.absent)


@law()
def a_sink_is_one_more_entry(case):
    x = case.rounded(hard_rows.plain("float64", (4, 9)))
    sink = case.rounded([[0.5], [-1.0], [3.0], [0.0]])
    for hyper in case.few(9):
        longer = case.call(np.concatenate([x, sink], axis=1), temperature=0.5, **hyper)
        got = case.call(x, sink=case.other(sink), temperature=0.5, **hyper)
        case.assert_close(got, longer[:, :-1], temperature=True, alpha=hyper.get("alpha"))
        missing = case.call(x, sink=-np.inf if not case.name.endswith("softmin") else np.inf, **hyper)
        case.assert_close(missing, case.call(x, **hyper), alpha=hyper.get("alpha"))


@law()
def a_sink_takes_all_of_a_masked_row(case):
    x, where = np.array([[np.nan, 1.0, 2.0, 3.0]]), np.zeros((1, 4), bool)
    for hyper in case.few(4):
        for empty in ("zero", "nan"):
            got = case.call(x, where=case.other(where), sink=0.0, empty=empty, **hyper)
            assert np.all(got == case.absent), got


@law()
def empty_rows_are_zero_or_nan(case):
    sign = -1 if case.name.endswith("softmin") else 1
    x = np.array([[-np.inf] * 4, [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, -np.inf, 2.0]]) * sign
    where = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
    for hyper in case.few(2):
        for sink in (None, -np.inf * sign):
            got = case.call(x, where=case.other(where), sink=sink, **hyper)
            assert np.all(got[:2] == case.absent), got
            nan = case.call(x, where=case.other(where), empty="nan", sink=sink, **hyper)
            assert np.all(np.isnan(nan[:2])), nan
            assert np.array_equal(nan[2], got[2])


@law()
def bad_rows_are_nan_and_alone(case):
    """NaN and the infinity that wins make every unmasked entry of their row NaN, and touch no other row."""
    sign = -1 if case.name.endswith("softmin") else 1
    x = np.tile(hard_rows.plain("float64", (1, 6)), (7, 1)) * sign
    where = np.ones(x.shape, bool)
    x[1, 2], x[3, 0], x[5, :] = np.nan, np.inf * sign, np.nan
    where[1, 4], where[5, 5], where[6, 1] = False, False, False
    x[6, 1] = np.nan
    sink = np.array([[0.0], [0.0], [np.nan], [0.0], [np.inf * sign], [0.0], [0.0]])
    bad = np.array([False, True, True, True, True, True, False])
    for hyper in case.few(4):
        got = case.raw(case.map(case.array(x), where=case.other(where), sink=case.other(sink), **hyper))
        assert np.all(np.isnan(got[bad[:, None] & where].astype(np.float64)))
        assert np.all(got[~where].astype(np.float64) == case.absent)
        calm = np.where(bad[:, None] | ~where, 0.0, x)
        alone = case.raw(case.map(case.array(calm), where=case.other(where), sink=0.0, **hyper))
        assert_same_bits(got[~bad], alone[~bad], "a row beside a bad one")


@law()
def infinitely_low_entries_weigh_nothing(case):
    sign = -1 if case.name.endswith("softmin") else 1
    x = case.rounded(hard_rows.plain("float64", (3, 6)))
    low = np.zeros(x.shape, bool)
    low[0, 1] = low[1, :5] = low[2, ::2] = True
    for hyper in case.few(1):
        got = case.call(np.where(low, -np.inf * sign, x), **hyper)
        assert np.all(got[low] == case.absent)
        assert_same_bits(got, case.call(np.where(low, 7.0, x), where=case.other(~low), **hyper), "-inf and a mask")
        assert got[1, 5] == (0.0 if case.is_log else min(1, hyper.get("budget", 1)))


@law()
def a_row_of_one_has_weight_one(case):
    x = np.array([[3.5], [-1e4], [0.0]])
    one = 0.0 if case.is_log else 1.0
    for hyper in case.few(1):
        assert np.all(case.call(x, **hyper) == one)
        scalar = case.raw(case.map(case.array(2.5), **hyper))
        assert scalar.shape == () and scalar == one


@law(lazy=True)
def empty_arrays_stay_empty(case):
    for shape, axis in (((0,), -1), ((3, 0), -1), ((0, 4), -1), ((0, 4), 0), ((2, 0, 3), 1), ((2, 0, 3), None)):
        for hyper in FEW.get(case.name, [{}])[:1]:
            if hyper.get("budget") and 0 in (np.prod(shape) if axis is None else shape[axis],):
                hyper = {"budget": 0}
            x = case.array(np.zeros(shape))
            got = case.raw(case.map(x, axis=axis, **hyper))
            assert got.shape == shape and got.dtype == case.np_dtype
            assert case.raw(case.map.vjp(x, x, axis=axis, **hyper)).shape == shape
            assert case.raw(case.map.jvp(x, x, axis=axis, **hyper)).shape == shape


@law()
def results_keep_kind_and_dtype(case):
    x = case.array(hard_rows.plain("float64", (3, 5)))
    for hyper in case.few(5):
        column = case.other(np.full((3, 1), 0.5))
        for result in (
            case.map(x, **hyper),
            case.map(x, temperature=column, sink=column, **hyper),
            case.map.vjp(x, x, **hyper),
            case.map.jvp(x, x, temperature=column, **hyper),
        ):
            assert case.framework.is_array(result), type(result)
            got = case.raw(result)
            assert got.shape == (3, 5) and got.dtype == case.np_dtype
        wanted = case.raw(case.map(case.framework.asarray(np.zeros((3, 5))), dtype=x.dtype, **hyper))
        assert wanted.dtype == case.np_dtype


@law()
def axes_are_what_they_say(case):
    x = hard_rows.plain(case.dtype, (3, 4, 5), scale=3)
    for hyper in case.few(3):
        for axis in (0, 1, 2, -1, -2, -3):
            moved = np.moveaxis(x, axis, -1)
            wanted = np.moveaxis(
                case.call(np.ascontiguousarray(moved).reshape(-1, moved.shape[-1]), **hyper).reshape(moved.shape),
                -1,
                axis,
            )
            case.assert_alike(case.call(x, axis=axis, **hyper), wanted, f"axis {axis}")
            case.assert_alike(case.call(x, dim=axis, **hyper), wanted, f"dim {axis}")
        flat = case.call(x.reshape(-1), **hyper).reshape(x.shape)
        for axis in (None, (0, 1, 2), (2, 0, 1), (-1, 0, -2)):
            case.assert_alike(case.call(x, axis=axis, **hyper), flat, f"axis {axis}")
        pair = np.moveaxis(x, 1, 0)
        joint = case.call(np.ascontiguousarray(pair).reshape(4, -1), **hyper).reshape(4, 3, 5)
        for axis in ((0, 2), (2, 0), (-1, -3)):
            case.assert_alike(case.call(x, axis=axis, **hyper), np.moveaxis(joint, 0, 1), f"axis {axis}")


@law()
def parameters_may_differ_by_row(case):
    """Columns of temperatures, sinks and hyper-parameters do to each row what the scalar does to it alone."""
    x = hard_rows.plain(case.dtype, (4, 6))
    columns = {"temperature": np.array([[0.5], [1.0], [2.0], [7.0]]), "sink": np.array([[0.0], [1.0], [-2.0], [9.0]])}
    for key, values in {
        "entmax": {"alpha": [1.0, 1.5, 2.0, 4.0]},
        "normmax": {"alpha": [1.3, 2.0, 2.5, 9.0]},
        "budget": {"budget": [0.5, 1.0, 3.0, 6.0]},
    }.get(case.name, {}).items():
        columns[key] = np.array(values)[:, None]
    got = case.call(x, **{key: case.other(column) for key, column in columns.items()})
    for place in range(4):
        scalars = {key: float(column[place, 0]) for key, column in columns.items()}
        alone = case.call(x[place], **scalars)
        case.assert_close(got[place], alone, temperature=True, alpha=scalars.get("alpha"))
