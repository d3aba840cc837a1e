"""`softplex bench`: what it keeps, counts and shows. No test asserts a time; ratios are those of made-up times."""

import gc
import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softplex as sx
from processes import only_error, softplex
from softplex.bench import cases, inputs, memory, peers, ratios, timing
from softplex.bench.cases import Case, Goal, Shape
from softplex.bench.inputs import Inputs
from softplex.files import UsageError

pytest.importorskip("rich", reason="the table needs the extra cli: pip install 'softplex[cli]'")

from rich.console import Console

from softplex.bench import report, suite

ROOT = Path(__file__).resolve().parent.parent
EFFORT = timing.Effort(rounds=3, stretch=1e-5, most=0.01, pause=0.0)
NEEDS_MATPLOTLIB = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="the picture needs the extra demo"
)


# ---- made-up times


def way(peer, seconds, preallocated=False, name="way"):
    return {"peer": peer, "way": name, "preallocated": preallocated, "loops": 1, "seconds": seconds}


def made_up(operation, sizes, *times, dtype="float32", case="made up"):
    shape = Shape(sizes)
    described = {"case": case, "operation": operation, "dtype": dtype, "label": shape.label}
    return {**described, "shape": list(sizes), "entries": shape.entries, "row": shape.row, "times": list(times)}


OURS = (way("softplex", [2.0, 1.0, 5.0]), way("softplex", [0.5, 4.0], True))
MADE_UP = [
    made_up("softmax", (2, 4), *OURS, way("A", [9.0, 3.0])),
    made_up("softmax", (4, 4), *OURS, way("A", [12.0]), way("B", [8.0]), way("B", [2.0], True)),
    made_up("softmin", (4, 4), *OURS, way("A", [1.5]), {"peer": "B", "failed": "RuntimeError: no"}),
]
CASE = Case("made up", "made up", ("softmax", "softmin"), (Goal("A", 2.0), Goal("B", 4.0)))


def test_the_best_round_of_the_best_way_counts_and_like_is_compared_with_like():
    # A makes its result anew, as our time of 1.0 does; B can write to a given place, as our time of 0.5 does.
    assert [ratios.ratio(each, "A") for each in MADE_UP] == [3.0, 12.0, 1.5]
    assert [ratios.ratio(each, "B") for each in MADE_UP] == [None, 4.0, None]


def test_where_softplex_has_no_place_for_a_result_its_one_way_counts():
    alone = made_up("softmax.vjp", (3,), way("softplex", [2.0]), way("B", [3.0], True))
    assert ratios.ratio(alone, "B") == 1.5


def test_a_mean_is_the_lowest_of_the_functions_means():
    found = ratios.judge(CASE, Goal("A", 2.0), MADE_UP, "any")
    assert found["means"] == {"softmax": pytest.approx(math.sqrt(3.0 * 12.0)), "softmin": 1.5}
    assert (found["figure"], found["of"], found["reached"]) == (1.5, "softmin", False)
    assert found["worst"] == {"value": 1.5, "function": "softmin", "shape": "4 × 4"}
    assert ratios.judge(CASE, Goal("A", 1.5), MADE_UP, "any")["reached"] is True


def test_the_worst_is_taken_over_arrays_of_enough_entries():
    found = ratios.judge(CASE, Goal("A", 1.2, "worst", 16), MADE_UP[:2], "any")
    assert (found["figure"], found["worst"]["shape"], found["reached"]) == (12.0, "4 × 4", True)


def test_dtypes_are_functions_of_their_own():
    half = [made_up("softmax", (4, 4), *OURS, way("A", [6.0]), dtype=dtype) for dtype in ("float16", "bfloat16")]
    assert set(ratios.means(ratios.ratios(half, "made up", "A"))) == {"softmax float16", "softmax bfloat16"}


@pytest.mark.parametrize(
    ("instructions", "target", "reached"), [("v4", 13.0, False), ("v3", 1.0, True), ("?", None, None)]
)
def test_a_target_may_depend_on_the_instruction_set(instructions, target, reached):
    found = ratios.judge(CASE, Goal("A", {"v4": 13.0, "v3": 1.0}), MADE_UP[1:2], instructions)
    assert (found["target"], found["reached"], found["is a share"]) == (target, reached, True)


def test_a_time_is_reached_from_below_and_is_that_of_a_result_made_anew():
    goal = Goal("softplex", 1.0, "time")
    assert ratios.judge(CASE, goal, MADE_UP, "any")["figure"] == 1.0
    assert [ratios.is_reached(figure, 1.0, "time") for figure in (0.9, 1.0, 1.1)] == [True, True, False]


def test_memory_is_counted_in_rows_a_thread_of_at_least_a_mebibyte():
    long = {**made_up("softmax", (1, 2**20)), "threads": 2, "bytes beyond": 2**23}
    short = {**made_up("softmax", (1000, 10)), "threads": 1, "bytes beyond": 2**19}
    assert [ratios.rows_beyond(each) for each in (long, short)] == [1.0, 0.5]
    unknown = {**short, "bytes beyond": None}
    found = ratios.judge(CASE, Goal("softplex", 0.75, "memory"), [short, long, unknown], "any")
    assert (found["figure"], found["worst"]["shape"], found["reached"]) == (1.0, "1 × 1048576", False)


@pytest.mark.parametrize("statistic", ratios.STATISTICS)
def test_nothing_measured_is_neither_reached_nor_missed(statistic):
    found = ratios.judge(CASE, Goal("softplex" if statistic in ("time", "memory") else "A", 1.0, statistic), [], "any")
    assert (found["figure"], found["reached"]) == (None, None)
    assert "not measured" in report.shown(found)


# ---- the timer


def test_contestants_take_turns_and_every_round_is_kept():
    calls = []
    found = timing.compete([lambda: calls.append("a"), lambda: calls.append("b")], EFFORT)
    assert [len(each.seconds) for each in found] == [3, 3]
    assert all(second >= 0.0 for each in found for second in each.seconds)
    turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    # Trials, then rounds that another one begins each time: a b, b a, a b.
    assert "".join(turns) == "abababab"[: len(turns)] and len(turns) >= 5


def test_a_round_begins_with_another_contestant_each_time():
    assert [timing.rotated(3, turn) for turn in range(3)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_a_slow_contestant_has_fewer_rounds_and_no_fewer_than_two():
    effort = timing.Effort(rounds=9, stretch=1.0, most=8.0, pause=0.0)
    assert [timing.affordable(timing.Trial(1, seconds), effort) for seconds in (0.1, 2.0, 60.0)] == [9, 4, 2]


def test_the_garbage_collector_is_as_before():
    assert gc.isenabled()
    with timing.collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


# ---- cases and inputs


def test_the_rows_are_consistent():
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)
    known = peers.softplex_peer().functions
    for case in cases.CASES:
        assert case.scores in inputs.SCORES and case.measure in suite.MEASURES
        assert all(goal.peer in peers.PEERS and goal.statistic in ratios.STATISTICS for goal in case.goals)
        assert case.measure == "memory" or all(operation in known for operation in case.operations)


def test_shapes_are_read_and_written():
    assert cases.parse_shapes(["7x333,5", "2x3x4@1 2x3@0", "2x3@1"]) == [
        Shape((7, 333)),
        Shape((5,)),
        Shape((2, 3, 4), 1),
        Shape((2, 3), 0),
        Shape((2, 3)),
    ]
    assert Shape((2, 3, 4), 1).label == "2 × 3 × 4, axis 1"
    assert (Shape((2, 3, 4), 1).entries, Shape((2, 3, 4), 1).row) == (24, 3)


def test_shapes_of_ones_own_count_with_the_others():
    own = Shape((1, 2**23))
    (softmax, beyond, call) = cases.chosen_cases(["softmax", "beyond-cache", "call"], [own, own], True, 2**25)
    assert softmax.shapes[-1] == own and softmax.shapes.count(own) == 1
    assert all(shape.entries <= cases.QUICK_ENTRIES for shape in softmax.shapes[:-1])
    assert beyond.shapes == (own,)
    assert call.shapes == (Shape((17,)),)


def test_beyond_the_cache_is_beyond_this_machines():
    (case,) = cases.chosen_cases(["beyond-cache"], [Shape((64, 10))], False, 2**25)
    assert case.shapes == cases.LARGE_SHAPES
    (case,) = cases.chosen_cases(["beyond-cache"], [Shape((64, 10))], False, 2**28)
    assert case.shapes[0] == Shape((4 * 4096, 4096)) and case.shapes[-1] == Shape((1, 80_000_000))
    assert all(2**28 <= 4 * shape.entries < 2**29 + 2**26 for shape in case.shapes)


def test_inputs_are_the_same_each_time_and_what_they_are_said_to_be():
    for scores, (_, mean, deviation) in inputs.SCORES.items():
        x = Inputs(Shape((100, 100)), scores=scores).x
        np.testing.assert_array_equal(x, Inputs(Shape((100, 100)), scores=scores).x)
        assert x.dtype == np.float32
        assert x.mean(dtype=np.float64) == pytest.approx(mean, abs=5 * deviation / 100)
        assert x.std(dtype=np.float64) == pytest.approx(deviation, rel=0.05)
    assert Inputs(Shape((100, 100))).mask.mean() == pytest.approx(1 - inputs.MASKED_SHARE, abs=0.03)
    assert Inputs(Shape((4,)), "float16").x.dtype == np.float16


# ---- peers


OWN = {
    "softmax": lambda one: sx.softmax(one.x, axis=one.axis),
    "log_softmax": lambda one: sx.log_softmax(one.x, axis=one.axis),
    "softmin": lambda one: sx.softmin(one.x, axis=one.axis),
    "sparsemax": lambda one: sx.sparsemax(one.x, axis=one.axis),
    "entmax15": lambda one: sx.entmax15(one.x, axis=one.axis),
    "entmax(1.3)": lambda one: sx.entmax(one.x, axis=one.axis, alpha=1.3),
    "softmax(where)": lambda one: sx.softmax(one.x, axis=one.axis, where=one.mask),
    "softmax.vjp": lambda one: sx.softmax.vjp(one.x, one.cotangent, axis=one.axis),
}
for each in (sx.softmax, sx.log_softmax, sx.softmin, sx.sparsemax, sx.entmax15):
    OWN[f"tensor {each.name}"] = OWN[f"tensor {each.name}, followed"] = OWN[each.name]
    OWN[f"step {each.name}"] = lambda one, each=each: each.vjp(one.x, one.cotangent, axis=one.axis)
    OWN[f"array {each.name}"], OWN[f"gradient {each.name}"] = OWN[each.name], OWN[f"step {each.name}"]
for each in (sx.softmax, sx.log_softmax):
    OWN[f"step {each.name}, learned"] = lambda one, each=each: each.vjp(
        one.x, one.cotangent, axis=one.axis, temperature=1.3
    )
OWN["step entmax, learned"] = lambda one: sx.entmax.vjp(one.x, one.cotangent, axis=one.axis, alpha=1.3)
OWN["array entmax(1.3)"] = OWN["entmax(1.3)"]
OWN["gradient entmax(1.3)"] = lambda one: sx.entmax.vjp(one.x, one.cotangent, axis=one.axis, alpha=1.3)
for name, each in {"cross_entropy": sx.softmax, "sparsemax_loss": sx.sparsemax, "entmax15_loss": sx.entmax15}.items():
    OWN[f"step {name}"] = lambda one, each=each: each.residual(one.x, one.classes) / one.classes.size


def array_of(found):
    found = found[1] if isinstance(found, tuple) else found  # a value and its gradient
    return np.asarray(found.detach() if hasattr(found, "detach") else found)


@pytest.mark.parametrize("shape", [Shape((5, 7)), Shape((5, 7), 0)], ids=lambda shape: shape.label)
@pytest.mark.parametrize("name", ["softplex", "SciPy"])
def test_a_peer_computes_what_it_is_timed_for(name, shape):
    if name == "SciPy":
        pytest.importorskip("scipy")
    pytest.importorskip("torch")
    peer = peers.PEERS[name]()
    for operation, prepare in peer.functions.items():
        one = Inputs(shape)
        for each in prepare(one):
            one.out.fill(7.0)
            found = array_of(each.call())
            np.testing.assert_allclose(found, OWN[operation](one), rtol=1e-5, atol=1e-6, err_msg=operation)
            assert (not np.all(one.out == 7.0)) == each.is_preallocated


# A process of its own: what frameworks warn of when they are imported is not what is tested here.
OTHERS = """
import sys
import numpy as np
import test_bench as tested
from softplex.bench import peers
from softplex.bench.cases import Shape
from softplex.bench.inputs import Inputs

present, absent = peers.load([name for name in peers.PEERS if name not in ("softplex", "own softmax", "JAX's softmax")])
for name, peer in present.items():
    for operation, prepare in peer.functions.items():
        for one in (Inputs(Shape((5, 7))), Inputs(Shape((5, 7), 0))):
            for way in prepare(one):
                found = way.call()
                if name == "streaming copy":
                    np.testing.assert_array_equal(one.out, one.x)
                    continue
                found = tested.array_of(found)
                np.testing.assert_allclose(found, tested.OWN[operation](one), rtol=2e-5, atol=2e-6, err_msg=name)
print(len(present), len(absent))
"""


def test_every_peer_that_is_installed_computes_what_it_is_timed_for():
    path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", OTHERS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) == len(peers.PEERS) - 3


def test_a_peer_that_cannot_be_imported_is_left_out_by_name(monkeypatch):
    for name in ("entmax", "scipy.special"):
        monkeypatch.setitem(sys.modules, name, None)
    present, absent = peers.load(["softplex", "SciPy", "entmax_bisect"])
    assert list(present) == ["softplex"]
    assert set(absent) == {"SciPy", "entmax_bisect"}
    assert all("\n" not in why and why for why in absent.values())


def test_threads_are_as_before_afterwards():
    before = sx.get_num_threads()
    with peers.equal_threads(before + 1):
        assert sx.get_num_threads() == before + 1
    assert sx.get_num_threads() == before


# ---- memory


def test_memory_is_measured_in_a_process_of_its_own():
    found = memory.measure("softmax", Shape((1, 1000)), 1)
    assert found is None or 0 <= found < 2**30


def test_memory_that_is_taken_is_seen(monkeypatch):
    if memory.status("VmHWM") is None:
        pytest.skip("the system does not say what lies in memory")

    def greedy(x, out):
        np.ones(2**23 if x.size == 1000 else 1)

    monkeypatch.setattr(sx, "greedy", greedy, raising=False)
    threads = sx.get_num_threads()
    try:
        assert memory.growth("greedy", (1, 1000), 1) > 2**25
    finally:
        sx.set_num_threads(threads)


# ---- a run


TINY = (
    Case("plain", "softmax", ("softmax", "softmin"), (Goal("SciPy", 1e9), Goal("nobody", 1.0)), (Shape((2, 3)),)),
    Case("own", "sparsemax", ("sparsemax",), (Goal("own softmax", 1e-9),), (Shape((2, 3)), Shape((2, 3), 0))),
    Case("call", "a call", ("softmax",), (Goal("softplex", 1e9, "time"),), (Shape((3,)),), takes_more_shapes=False),
)


def nobody():
    raise ModuleNotFoundError("No module named 'nobody'", name="nobody")


@pytest.fixture
def tiny(monkeypatch):
    """Three small rows; SciPy is a peer that does what softplex does, another peer is absent."""
    theirs = peers.softplex_peer().functions
    stand_in = peers.Peer("SciPy", "scipy", {name: theirs[name] for name in ("softmax", "softmin")})
    monkeypatch.setattr(peers, "PEERS", {**peers.PEERS, "SciPy": lambda: stand_in, "nobody": nobody})
    monkeypatch.setattr(suite, "chosen_cases", lambda only, more, quick, cache: list(TINY))
    monkeypatch.setattr(timing, "QUICK", EFFORT)


def run(tmp_path, **options):
    """What a run prints."""
    printed = io.StringIO()
    suite.run(suite.Request(tmp_path / "out", threads=1, quick=True, **options), Console(width=120, file=printed))
    return printed.getvalue()


@pytest.mark.usefixtures("tiny")
def test_the_file_holds_machine_versions_settings_goals_and_raw_times(tmp_path):
    path = tmp_path / "elsewhere" / "figures.json"
    run(tmp_path, json=path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["machine"]["instruction set"] == sx.info()["instruction set"]
    assert found["machine"]["processors"] >= 1 and found["machine"]["last-level cache in bytes"] > 0
    assert found["versions"]["softplex"] == sx.__version__ and found["versions"]["numpy"] == np.__version__
    assert found["settings"]["threads"] == 1 and found["settings"]["quick"] is True
    assert set(found["settings"]["threads of"]) == {"softplex", "SciPy", "own softmax"}
    assert found["left out"] == {"nobody": "No module named 'nobody'"}
    assert [each["label"] for each in found["measurements"]] == ["2 × 3", "2 × 3", "2 × 3", "2 × 3, axis 0", "3"]
    times = found["measurements"][0]["times"]
    assert [(each["peer"], each["way"]) for each in times] == [
        ("softplex", "fresh"),
        ("softplex", "out="),
        ("SciPy", "fresh"),
        ("SciPy", "out="),
    ]
    assert all(len(each["seconds"]) == EFFORT.rounds and min(each["seconds"]) > 0.0 for each in times)
    assert [goal["reached"] for goal in found["goals"]] == [False, None, True, True]
    # Where a peer's ways are all of one kind, ours of the other kind is not measured.
    assert [each["way"] for each in found["measurements"][2]["times"]] == ["out=", "out="]


@pytest.mark.usefixtures("tiny")
def test_the_table_says_in_words_what_is_reached_and_who_is_left_out(tmp_path):
    output = run(tmp_path)
    lines = {line.split("  ")[0].strip(): line for line in output.splitlines()}
    assert lines["softmax"].split()[-1] == "NO" and "at least 1000000000" in lines["softmax"]
    assert lines["sparsemax"].split()[-1] == "yes"
    assert "µs" in lines["a call"] and "at most" in lines["a call"]
    assert "not measured" in output
    assert "Left out: nobody (No module named 'nobody')" in output
    assert "quick run" in output
    assert str(tmp_path / "out" / "bench.json") in output


@pytest.mark.usefixtures("tiny")
def test_a_peer_that_fails_is_no_end_of_the_run(tmp_path, monkeypatch):
    def broken(one):
        raise RuntimeError("not implemented\nfor this")

    peer = peers.Peer("SciPy", "scipy", dict.fromkeys(("softmax", "softmin"), broken))
    monkeypatch.setitem(peers.PEERS, "SciPy", lambda: peer)
    assert "SciPy failed: RuntimeError: not implemented\n" in run(tmp_path)
    found = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert found["measurements"][0]["times"][-1] == {"peer": "SciPy", "failed": "RuntimeError: not implemented"}
    assert found["goals"][0]["figure"] is None


@pytest.mark.usefixtures("tiny")
def test_a_dtype_that_takes_a_missing_package_is_left_out_by_name(tmp_path, monkeypatch):
    halves = Case("half", "softmax", ("softmax",), (Goal("SciPy", 1.0),), (Shape((2, 3)),), ("float16", "bfloat16"))
    monkeypatch.setattr(suite, "chosen_cases", lambda only, more, quick, cache: [halves])
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert "Left out: bfloat16 (" in run(tmp_path)
    found = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert [each["dtype"] for each in found["measurements"]] == ["float16"]


@pytest.mark.usefixtures("tiny")
@NEEDS_MATPLOTLIB
def test_the_picture_can_be_read_and_shows_something(tmp_path):
    from matplotlib.image import imread

    assert str(tmp_path / "out" / "bench.png") in run(tmp_path)
    pixels = imread(tmp_path / "out" / "bench.png")[..., :3]
    assert min(pixels.shape[:2]) >= 400
    assert len(np.unique(pixels.round(1).reshape(-1, 3), axis=0)) >= 10


@NEEDS_MATPLOTLIB
def test_the_picture_has_a_panel_a_row_and_a_point_a_ratio():
    from softplex.bench import picture

    goals = ratios.judged([CASE], MADE_UP, "any")
    machine = {"cpu": "a processor", "instruction set": "any"}
    figure = picture.drawn({"goals": goals, "measurements": MADE_UP, "machine": machine, "date": "today"})
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "made up"
    points = [x for line in axes.get_lines() if line.get_marker() in picture.MARKERS for x in line.get_xdata()]
    assert sorted(points) == [1.5, 3.0, 4.0, 12.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2 × 4", "4 × 4"]
    nothing = picture.drawn({"goals": [], "measurements": [], "machine": machine, "date": "today"})
    assert any("Nothing to compare" in text.get_text() for text in nothing.texts)


@NEEDS_MATPLOTLIB
def test_no_title_nor_legend_of_the_picture_is_cut_off():
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    from softplex.bench import picture

    timed = [case for case in cases.CASES if case.measure == "speed"]
    made = [
        made_up(operation, sizes, way("softplex", [1.0]), *(way(peer, [2.0]) for peer in case.peers), case=case.name)
        for case in timed
        for operation in case.operations
        for sizes in ((2, 4), (4, 4))
    ]
    goals = ratios.judged(timed, made, "any")
    machine = {"cpu": "a processor", "instruction set": "any"}
    figure = picture.drawn({"goals": goals, "measurements": made, "machine": machine, "date": "today"})
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) > 10
    for axes in panels:
        above = [text for text in axes.findobj(Text) if text.get_text() == axes.get_title(loc="left")] + axes.findobj(
            Legend
        )
        boxes = [each.get_window_extent() for each in above]
        assert len(boxes) > 1
        assert all(0 <= box.x0 < box.x1 <= figure.bbox.x1 for box in boxes), axes.get_title(loc="left")


@pytest.mark.usefixtures("tiny")
def test_without_matplotlib_the_table_and_the_figures_are_there(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("softplex.bench.picture", "softplex.plots"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(sx, "plots", raising=False)
    output = run(tmp_path)
    assert "The picture was left out. bench.png: this takes the package matplotlib; install it with: pip" in output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bench.json"]


def test_other_work_on_the_machine_is_noticed():
    loads = {0.9: False, 1.0: True, None: False}
    assert {load: report.is_busy({"load at the start": load, "processors": 2}) for load in loads} == loads
    steady, unsteady = (
        made_up("softmax", (3,), way("A", [1.0, 1.1, 1.2])),
        made_up("softmax", (3,), way("A", [1.0, 2.0])),
    )
    assert report.steadiness({"measurements": [steady, unsteady]})[0] == 0
    unsteady["times"][0]["seconds"] += [2.0]
    assert report.steadiness({"measurements": [steady, unsteady]}) == (1, 2)


# ---- the command


def test_the_command_runs_and_adds_shapes(tmp_path):
    arguments = ("bench", "--quick", "--only", "masked", "--shapes", "3x5@0,2x2", "--threads", 1, "--out", "new/folder")
    result = softplex(*arguments, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "masked softmax" in result.stdout and "own softmax" in result.stdout
    found = json.loads((tmp_path / "new/folder/bench.json").read_text(encoding="utf-8"))
    assert {"3 × 5, axis 0", "2 × 2"} <= {each["label"] for each in found["measurements"]}
    assert {each["case"] for each in found["measurements"]} == {"masked"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--only", "bogus"], "--only bogus: there is no such row; rows are softmax, wide,"),
        (["--shapes", "7y3"], "--shapes 7y3: not a shape; write 7x333"),
        (["--shapes", "7x0"], "--shapes 7x0: sizes must be at least 1"),
        (["--shapes", "7x3@2"], "--shapes 7x3@2: axis 2 is out of bounds for 2 axes"),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--json", "."], ".: is a folder; give --json the name of a file"),
        (["--out", "a-file"], "a-file: is no folder and cannot be made into one"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_measured(tmp_path, arguments, problem):
    (tmp_path / "a-file").touch()
    assert problem in only_error(softplex("bench", "--quick", *arguments, folder=tmp_path), 2)


def test_help_has_an_example():
    result = softplex("bench", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "softplex bench --quick" in result.stdout


# ---- the README's table


@pytest.fixture
def compare(tmp_path):
    """bench/compare.py of a copy of the repository that has only what it needs."""
    pytest.importorskip("mpmath")
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
    (tmp_path / "bench" / "results").mkdir()
    spec = importlib.util.spec_from_file_location("compare_of_test_bench", tmp_path / "bench" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def kept(compare, name, instructions, quick=False, cpu="a processor"):
    """A file as the command writes it."""
    found = {
        "date": "2000-01-01",
        "machine": {"cpu": cpu, "instruction set": instructions},
        "versions": {"softplex": "0"},
        "settings": {"quick": quick, "threads": 2},
        "goals": ratios.judged([CASE], MADE_UP, instructions),
        "measurements": MADE_UP,
    }
    report.write(found, compare.RESULTS / name)


def test_the_readme_has_a_column_for_the_newest_full_run_of_each_processor_and_instruction_set(compare, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- speed: begin -->\nold\n<!-- speed: end -->\nafter\n", encoding="utf-8")
    compare.rewrite_readme()
    assert "\nold\n" in page.read_text(encoding="utf-8")
    for name in ("bench-1-v4.json", "bench-2-v4.json"):
        kept(compare, name, "v4")
    kept(compare, "bench-2-v3.json", "v3", cpu="Other(R) One(R) Processor")
    kept(compare, "bench-3-v4.json", "v4", quick=True)
    compare.rewrite_readme()
    lines = page.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "|  | against | a processor, v4 | Other One, v3 | promised |" in lines
    assert "| made up | A | **1.5** | **1.5** | at least 2 |" in lines
    assert "| made up | B | 4 | 4 | at least 4 |" in lines
    assert [f"bench-{name}.json" in "\n".join(lines) for name in ("1-v4", "2-v4", "2-v3", "3-v4")] == [0, 1, 1, 0]


def test_usage_errors_are_the_files_own():
    with pytest.raises(UsageError):
        cases.parse_shapes(["x"])
