"""The pictures: one panel a map, nothing of matplotlib's global state touched, files that show something."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softplex as sx

pytest.importorskip("matplotlib", reason="the pictures need the extra demo: pip install 'softplex[demo]'")

from matplotlib.image import imread

from softplex import plots
from softplex.core.map import Map

WEIGHTS = [one for one in sx.MAPS if one.formula.kind == "simplex"]


def titles(figure):
    """The bold titles of the panels, without bound hyper-parameters."""
    found = [axes.get_title(loc="left").partition("(")[0] for axes in figure.axes]
    return [title for title in found if title]


def lines_of(figure, name):
    (axes,) = (axes for axes in figure.axes if axes.get_title(loc="left") == name)
    return {line.get_label(): line.get_xydata() for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_curves_have_a_panel_for_every_map():
    assert sorted(titles(plots.curves())) == sorted(one.name for one in sx.MAPS)


@pytest.mark.parametrize("picture", [plots.triangle, plots.regions], ids=lambda picture: picture.__name__)
def test_pictures_of_three_classes_have_a_panel_for_every_map_of_weights(picture):
    assert [title for title in titles(picture()) if title != "the scores"] == [one.name for one in WEIGHTS]


def test_curves_are_what_the_maps_say():
    figure = plots.curves()
    for one in sx.MAPS:
        if one.formula.parameters:
            continue
        lines = lines_of(figure, one.name)
        assert set(lines) == {"of two", "of three"}
        for length, label in ((2, "of two"), (3, "of three")):
            t, values = lines[label].T
            scores = np.concatenate([t[:, None], np.zeros((len(t), length - 1))], axis=1)
            np.testing.assert_array_equal(values, one(scores)[:, 0])


def test_a_map_with_a_hyper_parameter_is_drawn_under_several_numbers_for_it():
    figure = plots.curves()
    for one in sx.MAPS:
        if one.formula.parameters:
            lines = lines_of(figure, one.name)
            assert len(lines) >= 3
            assert len({values.tobytes() for values in lines.values()}) == len(lines)


def test_a_new_map_appears_in_every_picture_by_itself():
    throwaway = Map("throwaway", sx.sparsemax.formula)
    family = (*sx.MAPS, throwaway)
    for picture in (plots.curves, plots.triangle, plots.regions):
        assert "throwaway" in titles(picture(family))
    scores = np.arange(20.0).reshape(2, 10)
    figure = plots.digits(np.zeros((2, 8, 8)), scores, [9, 3], family)
    assert "throwaway" in {text.get_text() for axes in figure.axes for text in axes.texts}


def test_digits_show_every_map_on_every_digit():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 2, (3, 10)), [1, 2, 3]
    figure = plots.digits(rng.random((3, 8, 8)), scores, labels)
    assert len(figure.axes) == 3 * (1 + len(sx.MAPS))
    names = {text.get_text().partition("(")[0] for axes in figure.axes for text in axes.texts}
    assert {one.name for one in sx.MAPS} <= names
    counts = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text().endswith("of 10")]
    expected = [f"{plots.ready(one, 10).support_size(row)} of 10" for row in scores for one in WEIGHTS]
    assert sorted(counts) == sorted(expected)


def test_a_parameter_without_a_default_gets_a_number_that_is_allowed():
    for one in sx.MAPS:
        for length in (1, 2, 3, 10):
            weights = plots.ready(one, length)(np.zeros(length))
            assert np.isfinite(weights).all()


def test_save_all_writes_pictures_that_show_something(tmp_path):
    paths = plots.save_all(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["curves.png", "triangle.png", "regions.png"]
    for path in paths:
        assert_shows_something(path)


def assert_shows_something(path: Path):
    pixels = imread(path)
    height, width = pixels.shape[:2]
    assert min(height, width) >= 600
    colours, counts = np.unique(pixels[..., :3].round(1).reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) >= 10
    assert 1 - counts.max() / counts.sum() > 0.02


# The setting "backend" is left out: to read it is to import pyplot.
GLOBAL_STATE = """
import sys, pathlib, matplotlib
settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
from softplex import plots
plots.save_all(pathlib.Path(sys.argv[1]))
assert settings() == before, "settings changed"
assert "matplotlib.pyplot" not in sys.modules, "pyplot imported"
"""


def test_no_global_state_of_matplotlib_is_touched(tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", GLOBAL_STATE, str(tmp_path)], check=True, timeout=300)
