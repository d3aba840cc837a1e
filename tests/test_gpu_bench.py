"""bench/gpu.py without a GPU: its plan, its file, its checks on what a kernel must not do, its picture."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

PATH = Path(__file__).parent.parent / "bench" / "gpu.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_gpu", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_gpu"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_gpu"]


def row(task, dtype, n, contender, share, scores="normal", graph=False):
    return {
        "task": task,
        "dtype": dtype,
        "n": n,
        "contender": contender,
        "share": share,
        "scores": scores,
        "with graph": graph,
    }


def test_the_plan_holds_each_figure_once_and_the_main_ones_first(bench):
    cases = bench.distinct(bench.plan())
    assert len(cases) == len(set(cases)) > 100
    assert [case.task.name for case in cases[:8]] == ["softmax forward"] * 7 + ["sparsemax forward"]
    names = {case.task.name for case in cases}
    assert {"cross_entropy forward + backward", "softmax backward", "entmax(1.3) forward"} <= names
    for name in ("softmax forward", "sparsemax forward", "entmax15 forward"):
        assert {case.n for case in cases if case.task.name == name} >= set(bench.WIDTHS)
    assert {case.scores for case in cases} == set(bench.SCORES)
    assert {case.n for case in cases if case.with_graph} == set(bench.SHORT)


def test_bytes_and_shares(bench):
    case = bench.Case(bench.FORWARD["softmax"], "float32", 1024)
    assert case.rows * 1024 * 4 == bench.BYTES and case.bytes == 2 * bench.BYTES
    assert bench.share(case.bytes, 1e-3, case.bytes / 5e-4) == 0.5
    assert bench.LOSS.streams == 2 and bench.BACKWARD["softmax"].streams == 3


def test_the_file_is_whole_after_every_row(bench, tmp_path, capsys):
    record = bench.Record(tmp_path / "deep" / "gpu.json")
    record.note(device="none")
    for n in (1, 2):
        record.add("times", n=n, share=0.5)
        assert json.loads(record.path.read_text())["times"][-1] == {"n": n, "share": 0.5}
    assert not record.is_late() and "share=0.5" in capsys.readouterr().out
    record.deadline = 0.0
    assert record.is_late()


def test_scores_are_what_they_are_called(bench):
    for scores in bench.SCORES:
        case = bench.Case(bench.FORWARD["softmax"], "float32", 4096, scores, with_graph=True)
        x = bench.scores_of(case, "cpu")
        assert x.shape == (case.rows, 4096)
        assert {"normal": x.std() > 1.5, "flat": x.std() < 0.01, "peaked": x.amax(1).min() == 20.0}[scores]


def test_rows_of_batches_that_lie_otherwise_are_compared(bench, monkeypatch):
    """On the CPU, where they agree to the bit; and not where a row knows its batch."""
    record = bench.Record(None)
    bench.checked_batches(record, "cpu")
    assert len(record.found["layouts"]) == 2 * 4 * 2 * len(bench.maps_with_kernels())
    assert not bench.what_is_bad(record.found)
    plain = bench.maps_with_kernels()[0]

    class KnowsItsBatch:
        name, formula = plain.name, plain.formula

        def __call__(self, x):
            return plain(x) * (1 + 1e-6 * x.ndim)

    monkeypatch.setattr(bench, "maps_with_kernels", lambda: [KnowsItsBatch()])
    bench.checked_batches(record, "cpu")
    assert bench.what_is_bad(record.found)


def test_programs_that_wait_or_do_not_are_compared(bench, monkeypatch):
    """On the CPU, where nobody waits; and not where waiting makes a difference."""
    from softplex.native.gpu import widths

    record = bench.Record(None)
    bench.checked_waiting(record, "cpu")
    assert len(record.found["layouts"]) == 2 * 2 * len(bench.maps_with_kernels())
    assert not bench.what_is_bad(record.found)
    monkeypatch.setattr(bench, "everything_of", lambda *_: lambda: [torch.tensor(widths.PATIENCE)])
    bench.checked_waiting(record, "cpu")
    assert len(bench.what_is_bad(record.found)) == 2 * len(bench.maps_with_kernels())


def test_what_is_off_is_seen(bench):
    wanted = torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64)
    size = wanted.amax(1, keepdim=True).expand_as(wanted)
    assert bench.worst(wanted.float(), wanted, size) == 0.0
    assert bench.worst(wanted.float() * (1 + 2**-20), wanted, size) > 4.0
    assert bench.worst(torch.tensor([[0.25, 0.75, torch.nan]]), wanted, size) == float("inf")


def test_checks_run_on_the_formulas_too(bench, tmp_path):
    """On a CPU they hold its kernels to the formulas: the checks themselves are right."""
    record = bench.Record(tmp_path / "gpu.json")
    for dtype in (torch.float32, torch.bfloat16):
        for n in (1, 7, 300):
            bench.checked(record, n, dtype, "cpu")
    assert len(record.found["checks"]) == 2 * 3 * (7 + 5)
    assert all(each["is good"] for each in record.found["checks"])


@pytest.mark.parametrize("n", [300, 5000])
@pytest.mark.parametrize("spoiled", ["vjp", "back"])
def test_derivatives_that_are_all_zero_are_seen(bench, spoiled, n, monkeypatch):
    """However small those of a long row are."""
    for true in bench.maps_with_kernels():

        class Wrong:
            name, formula, residual, loss = true.name, true.formula, true.residual, true.loss

            def __call__(self, x, true=true):
                p = true(x)
                return p + (p.detach() - p).nan_to_num(0.0) if spoiled == "back" else p

            def vjp(self, x, g, true=true):
                found = true.vjp(x, g)
                wrong = spoiled == "vjp" and x.dtype is torch.bfloat16
                return torch.where(found.isfinite(), torch.zeros_like(found), found) if wrong else found

        record = bench.Record(None)
        monkeypatch.setattr(bench, "maps_with_kernels", lambda: [Wrong()])
        monkeypatch.setattr(bench, "checked_loss", lambda *_: None)
        bench.checked(record, n, torch.bfloat16, "cpu")
        assert bench.what_is_bad(record.found), true.name
        monkeypatch.undo()


def test_a_check_that_breaks_down_or_comes_too_late_is_told(bench):
    def breaking(record):
        raise ValueError("no")

    record = bench.Record(None)
    bench.tried(record, breaking)
    record.deadline = 0.0
    bench.tried(record, bench.checked, 7, torch.float32)
    assert [row["error"] for row in bench.what_is_bad(record.found)] == ["ValueError: no", "not begun: too late"]


def test_contenders_have_what_they_are_asked_for(bench):
    case = bench.Case(bench.LOSS, "float32", 64)
    x = torch.randn(4, 64)
    for contender in ("softplex", "torch"):
        assert bench.function_of(case, contender) is not None
    assert bench.function_of(case, "entmax") is None
    for name, task in bench.FORWARD.items():
        assert bench.function_of(bench.Case(task, "float32", 64), "softplex")(x).shape == x.shape, name


def test_a_peer_that_fails_is_a_row_and_no_more(bench, tmp_path, monkeypatch):
    """The others are timed, each on scores of its own."""

    def function_of(case, contender):
        def spoiling(x):
            assert float(x.abs().max()) > 0, "what another has written"
            return x.zero_()

        def failing(x):
            raise RuntimeError("no such kernel")

        return {"torch": failing, "softplex": spoiling, "quack": spoiling}.get(contender)

    monkeypatch.setattr(bench, "function_of", function_of)
    monkeypatch.setattr(bench, "median_time", lambda call: call() is not None)
    monkeypatch.setattr(bench, "scores_of", lambda case, device: torch.randn(2, case.n))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    record = bench.Record(tmp_path / "gpu.json")
    bench.timed(record, bench.Case(bench.FORWARD["softmax"], "float32", 64), 1.0)
    found = json.loads(record.path.read_text())
    assert [row["contender"] for row in found["times"]] == ["softplex", "quack"]
    assert [(row["contender"], row["error"]) for row in found["failed"]] == [("torch", "RuntimeError: no such kernel")]
    assert not bench.what_is_bad(found)


def test_what_makes_the_run_fail(bench, tmp_path):
    record = bench.Record(None)
    bench.add_layout(record, bench.imported("softplex:softmax"), "dim", 0.5)
    assert not bench.what_is_bad(record.found)
    bench.add_layout(record, bench.imported("softplex:softmax"), "dim", 5.0)
    record.add("failed", contender="softplex")
    record.add("checks", **{"is good": False})
    assert len(bench.what_is_bad(record.found)) == 3


def test_without_a_gpu_it_says_so(bench, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main([]) == 1 and "no GPU" in capsys.readouterr().err
    assert bench.main(["--plan"]) == 0 and "softmax forward" in capsys.readouterr().out


def test_the_picture_has_a_line_a_contender(bench, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs the extra demo")
    times = [
        row("softmax forward", dtype, n, contender, share)
        for dtype in bench.DTYPES
        for n in (4096, 1024)
        for contender, share in (("softplex", 0.9), ("torch", 0.6))
    ]
    times += [row("softmax forward", "float32", 64, "torch", 2.0, graph=True)]
    found = {"times": times, "device": "a GPU", "date": "2026-01-01"}
    assert bench.series(found, "softmax forward", "float32") == {
        "softplex": [(1024, 0.9), (4096, 0.9)],
        "torch": [(1024, 0.6), (4096, 0.6)],
    }
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(found))
    assert bench.main(["--draw", str(path)]) == 0
    assert path.with_suffix(".png").stat().st_size > 1000
