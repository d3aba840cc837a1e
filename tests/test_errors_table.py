"""bench/errors.py: its search finds what is planted and nothing else, its wide floats agree with mpmath."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import reference
import tolerances
from frameworks import numpy_dtype

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "errors.py"
if not SCRIPT.exists():
    pytest.skip("bench/ is not here", allow_module_level=True)


def loaded():
    spec = importlib.util.spec_from_file_location("errors_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


errors = loaded()
pytestmark = pytest.mark.skipif(not errors.WIDE_ENOUGH, reason="longdouble has no more digits than float64 here")


def function(label):
    (found,) = [each for each in errors.FUNCTIONS if each.label == label]
    return found


def exactly_rounded(asked, dtype):
    """A library that answers with the wide floats, rounded once."""

    def call(x, extra, alpha):
        with np.errstate(all="ignore"):
            return asked.exact(errors.wide(x), extra, alpha).values.astype(numpy_dtype(dtype))

    return call


def searched(asked, dtype, calls, *, rounds=6, size=0):
    libraries = [errors.Library(name, name, {asked.name: call}) for name, call in calls.items()]
    search = errors.Search(asked, dtype, libraries)
    search.run(seconds=0.0, rounds=rounds, seed=5, size=size)
    return search.report()["results"]


def ten_off(call):
    """Wrong by 10 ULP in the last entry of some rows of three."""

    def wrong(x, extra, alpha):
        p = call(x, extra, alpha)
        if x.shape[1] == 3:
            last = p[:, 2]
            p[:, 2] = np.where((last > 0.6) & (last < 0.9), last - 10 * np.spacing(last), last)
        return p

    return wrong


def as_usual(x, extra, alpha):
    """log_softmax as the frameworks compute it: log of a sum that holds the leading 1."""
    gap = x - x.max(axis=1, keepdims=True)
    return gap - np.log(np.exp(gap).sum(axis=1, keepdims=True))


def test_a_planted_error_is_found_and_an_exact_result_is_half_an_ulp():
    asked = function("softmax")
    right = exactly_rounded(asked, "float32")
    found = searched(asked, "float32", {"right": right, "planted": ten_off(right)})
    assert 0.49 < found["right"]["error"] <= 0.5001
    assert 10.3 < found["planted"]["error"] <= 10.5001
    assert found["planted"]["by"] == "mpmath"
    assert found["planted"]["length"] == 3 and found["planted"]["entry"] == 2


def test_the_row_in_the_file_is_enough_to_check_the_error():
    asked = function("softmax")
    found = searched(asked, "float32", {"planted": ten_off(exactly_rounded(asked, "float32"))})["planted"]
    row = [float(score) for score in found["x"].split()]
    exact = reference.Row("softmax", row).values[found["entry"]]
    error = abs(reference.mpf(float(found["found"])) - exact) / tolerances.ulp("float32", exact)
    assert float(error) == found["error"]


def test_the_usual_log_softmax_is_found_out():
    asked = function("log_softmax")
    found = searched(asked, "float32", {"right": exactly_rounded(asked, "float32"), "usual": as_usual})
    assert found["right"]["error"] <= 0.5001
    assert found["usual"]["error"] > 1e6
    assert found["usual"]["by kind"]["normal"] < 1e3  # only where the prediction is confident


def test_offspring_are_worse_than_what_they_come_from(monkeypatch):
    """An error that grows towards a place that no kind of input hits is climbed: not so by fresh rows alone."""
    asked = function("softmax")
    right = exactly_rounded(asked, "float64")

    def call(x, extra, alpha):
        near = np.exp(-10 * np.abs(x[:, :1] - 1234.5))
        return right(x, extra, alpha) * (1 + 1e-9 * near)

    bred = searched(asked, "float64", {"x": call}, rounds=60)["x"]
    monkeypatch.setattr(errors, "bred", lambda asked, rng, n, dtype, champions: errors.fresh(asked, rng, n, dtype))
    unbred = searched(asked, "float64", {"x": call}, rounds=60)["x"]
    assert bred["error"] > 2 * unbred["error"] and bred["kind"].startswith("from ")


@pytest.mark.parametrize("dtype", tolerances.PRECISION)
@pytest.mark.parametrize("label", ["sparsemax", "cross-entropy", "residual", "entmax, alpha = 2.5"])
def test_exact_results_stay_exact_in_every_dtype(label, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    asked = function(label)
    found = searched(asked, dtype, {"right": exactly_rounded(asked, dtype)}, rounds=2)["right"]
    assert 0.2 < found["error"] <= (0.51 if dtype == "float64" else 0.5001)
    assert "entries on the wrong side of the threshold" not in found
    assert "rows with NaN or infinities" not in found


def test_nan_exceptions_and_wrong_supports_are_told():
    asked = function("sparsemax")
    right = exactly_rounded(asked, "float32")

    def refuses(x, extra, alpha):
        raise KeyError("no")

    calls = {
        "nan": lambda *given: np.where(given[0] > 79, np.nan, right(*given)),
        "refuses": refuses,
        "dense": lambda *given: right(*given) + np.float32(1e-30),
    }
    found = searched(asked, "float32", calls, rounds=2)
    assert found["nan"]["rows with NaN or infinities"] > 0 and found["nan"]["error"] <= 0.5001
    assert max(float(score) for score in found["nan"]["first of them"].split()) > 79
    assert found["refuses"] == {"raises": "KeyError"}
    assert found["dense"]["entries on the wrong side of the threshold"] > 0
    cells = {name: errors.cell(result) for name, result in found.items()}
    assert cells == {"nan": "0.5, NaN", "refuses": "raises KeyError", "dense": "0.5†"}


@pytest.mark.parametrize("asked", errors.FUNCTIONS, ids=lambda each: each.label)
def test_the_wide_floats_agree_with_mpmath(asked):
    """To a fiftieth of an ULP of float64, the narrowest measure in use, on every kind of input."""
    for n in (2, 17):
        batch = errors.fresh(asked, np.random.default_rng(n), n, "float64")
        chosen = np.concatenate([np.flatnonzero(batch.kinds == kind)[:2] for kind in errors.KINDS])
        x, extra = batch.x[chosen], None if batch.extra is None else batch.extra[chosen]
        unit = asked.unit_in("float64")
        with np.errstate(all="ignore"):
            exact = asked.exact(errors.wide(x), extra, asked.alpha)
        for place, row in enumerate(x):
            given = None if extra is None else extra[place]
            head = exact.values[place].astype(np.float64)
            rest = (exact.values[place] - head).astype(np.float64)
            assert_agrees(asked, row, given, unit, head, rest)


def assert_agrees(asked, row, extra, unit, head, rest):
    hyper = {} if asked.alpha is None else {"alpha": asked.alpha}
    values, scale = errors.exact_row(asked, reference.Row(asked.row, row, **hyper), extra, unit)
    for high, low, value in zip(head.tolist(), rest.tolist(), values, strict=True):
        at = abs(value) if scale is None else scale
        if at >= tolerances.smallest_normal("float64"):
            error = abs(reference.mpf(high) + reference.mpf(low) - value) / tolerances.ulp("float64", at)
            assert error < 0.02, f"{float(error)} in {row}, {extra}"


def test_the_rounds_decide_the_rows():
    asked = function("residual")
    call = {"right": exactly_rounded(asked, "float32")}
    one, other = (searched(asked, "float32", call, rounds=4, size=3000) for _ in range(2))
    assert one == other
    assert {"3000 entries, uniform", "3000 entries, N(0, 2)"} <= set(one["right"]["by kind"])


def test_the_table_has_a_line_for_every_case():
    asked = function("softmax vjp")
    search = errors.Search(asked, "float32", [errors.Library("softplex", "softplex", {})])
    search.calls["softplex"] = exactly_rounded(asked, "float32")
    search.tallies["softplex"] = errors.Tally()
    search.run(seconds=0.0, rounds=2, seed=1, size=0)
    found = {
        "date": "2024-06-07",
        "machine": {"cpu": "a processor"},
        "versions": {"softplex": "1", "PyTorch": "2", "NumPy": "3", "Python": "4", "mpmath": "5"},
        "instruction set": "none",
        "settings": {"seconds a case": 10.0, "rounds a case": None, "long rows": 10**7, "bits of the wide floats": 64},
        "cases": [search.report()],
    }
    found = json.loads(json.dumps(found))
    text = errors.table(found, "results.json")
    (line,) = [line for line in text.splitlines() if line.startswith("| softmax vjp, float32 |")]
    assert line.split("|")[2:4] == [" the largest term ", " 4 "]
    assert line.split("|")[5] == " – "
    assert "10^7" in text and "results.json" in text
    assert "softmax vjp" not in errors.table(found, "results.json", dtypes=("float64",))


def test_bounds_and_units_are_those_of_section_4():
    bounds = {
        ("softmax", "float32"): (2, "itself"),
        ("log_softmin", "float64"): (3, "itself"),
        ("sparsemax", "float16"): (0.51, "max(p)"),
        ("entmax, alpha = 1.3", "float64"): (4, "max(p)"),
        ("entmax, alpha = 50", "float64"): (4, "1"),
        ("entmax, alpha = 50", "float32"): (4, "max(p)"),
        ("softmax vjp", "bfloat16"): (1, "largest term"),
        ("cross-entropy", "float32"): (2, "itself"),
        ("residual", "float64"): (4, "itself"),
    }
    for (label, dtype), wanted in bounds.items():
        asked = function(label)
        assert (asked.bound(dtype), asked.unit_in(dtype)) == wanted, label
