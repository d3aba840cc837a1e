"""The demonstration, run as its users run it: a process that prints a table and saves pictures."""

import json
import re

import numpy as np
import pytest

from processes import softplex

pytest.importorskip("sklearn", reason="the demo needs the extra demo: pip install 'softplex[demo]'")
pytest.importorskip("matplotlib", reason="the demo needs the extra demo: pip install 'softplex[demo]'")
pytest.importorskip("typer", reason="the demo needs the extra cli: pip install 'softplex[cli]'")

from softplex import demo

ROW = re.compile(
    r"^\s*(?P<model>\w+, \w+)\s+(?P<numbers>[\d.%\s]+?)\s+(?P<loss>log-loss|Fenchel-Young)\s+(?P<time>[\d.]+)\s*$"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The demo's process, run once and quick, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    return softplex("demo", "--quick", "--out", folder / "pictures", folder=folder), folder / "pictures"


def rows(output):
    found = [match for line in output.splitlines() if (match := ROW.match(line))]
    return {match["model"]: [float(text.rstrip("%")) for text in match["numbers"].split()] for match in found}


def test_it_ends_well_and_says_nothing_on_stderr(finished):
    result, _ = finished
    assert (result.returncode, result.stderr) == (0, "")


def test_the_table_has_a_row_for_every_model_and_sensible_numbers(finished):
    table = rows(finished[0].stdout)
    assert set(table) == set(demo.make_models(demo.digits_data()))
    for name, (accuracy, support, zeros, loss) in table.items():
        assert 90.0 < accuracy <= 100.0, name
        assert 1.0 <= support <= 10.0, name
        # The two columns are printed rounded.
        assert zeros == pytest.approx(100.0 - 10.0 * support, abs=0.11), name
        assert 0.0 < loss < 1.0, name
    assert table["linear, softmax"][1:3] == [10.0, 0.0]
    assert table["linear, sparsemax"][1] < table["linear, entmax15"][1] < 5.0


def test_every_model_shows_its_progress_without_a_terminal(finished):
    for name in rows(finished[0].stdout):
        assert re.search(rf"{name}: round (\d+) of \1\b", finished[0].stdout)


def test_the_pictures_exist_and_show_something(finished):
    from matplotlib.image import imread

    result, folder = finished
    saved = sorted(path.name for path in folder.glob("*.png"))
    assert saved == ["curves.png", "digits.png", "regions.png", "triangle.png"]
    for name in saved:
        assert str(folder / name) in result.stdout
        pixels = imread(folder / name)[..., :3]
        assert min(pixels.shape[:2]) >= 600
        assert len(np.unique(pixels.round(1).reshape(-1, 3), axis=0)) >= 10


def test_the_table_is_kept_as_numbers(finished):
    _, folder = finished
    rows = json.loads((folder / "demo.json").read_text())
    assert [row["model"] for row in rows] == [
        "linear, softmax",
        "linear, sparsemax",
        "linear, entmax15",
        "maxout, entmax15",
    ]
    assert all(0.8 < row["test accuracy"] < 1 and row["test loss"] > 0 for row in rows)
    assert rows[0]["exact zeros"] == 0 < rows[1]["exact zeros"]


@pytest.mark.parametrize("name", ["linear, softmax", "linear, sparsemax", "linear, entmax15", "maxout, entmax15"])
def test_the_gradients_are_those_of_the_loss(name):
    data = demo.digits_data()
    model = demo.make_models(data)[name]
    rng = np.random.default_rng(1)
    model.parameters[:] = [p + rng.normal(0, 0.1, p.shape) for p in model.parameters]
    x, y = data.train_x[:50], data.train_y[:50]
    for which, gradient in enumerate(model.gradient(x, y)):
        direction = rng.normal(size=gradient.shape)
        assert np.sum(gradient * direction) == pytest.approx(slope(model, which, direction, x, y), rel=1e-4)


def slope(model, which, direction, x, y, step=1e-6):
    """The loss's derivative along a direction of one parameter, by central differences."""
    given, found = model.parameters[which], []
    for sign in (1.0, -1.0):
        model.parameters[which] = given + sign * step * direction
        found.append(float(model.head.loss(model.scores(x), y)))
    model.parameters[which] = given
    return (found[0] - found[1]) / (2.0 * step)


def test_training_is_repeatable():
    data = demo.digits_data()
    found = []
    for _ in range(2):
        model = demo.make_models(data)["maxout, entmax15"]
        demo.train(model, data, 1, lambda done, number: None)
        found.append(model.parameters)
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_ambiguous_digits_come_least_certain_first_and_split_the_maps():
    data = demo.digits_data()
    models = demo.make_models(data)
    for model in models.values():
        demo.train(model, data, 1, lambda done, number: None)
    scores = next(iter(models.values())).scores(data.test_x)
    chosen = demo.ambiguous(models, data, scores)
    assert len(chosen) >= demo.SHOWN_DIGITS
    certainty = np.mean([model.head(model.scores(data.test_x)).max(axis=-1) for model in models.values()], axis=0)
    assert (np.diff(certainty[chosen]) >= 0).all()
