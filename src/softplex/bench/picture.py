"""The picture of a run: every ratio, a panel a row of the table, shapes downwards, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from softplex import plots
from softplex.bench.ratios import Ratio, ratios
from softplex.plots import BLUE, GREEN, GREY, INK, PALE, VERMILION

COLOURS = (BLUE, VERMILION, GREEN)
MARKERS = ("o", "s", "^", "D", "v")
COLUMNS = 2
PANEL = (4.4, 2.8)
GAP = (1.6, 0.95)
FOOT = 0.4
LINE = 15.0
"""Points from one line above a panel to the next."""
LEFT = GAP[0] - plots.MARGIN
"""Inches from where these lines begin to the panel: above the shapes, so that long ones have room."""

Goals = Sequence[Mapping[str, Any]]


def save(found: Mapping[str, Any], path: Path) -> Path:
    """Draw the ratios of a run and save them as a PNG file."""
    return plots.save(drawn(found), path)


def drawn(found: Mapping[str, Any]) -> Figure:
    """A panel for each case that has ratios."""
    cases = comparable(found)
    machine = found["machine"]
    title = "The peers' times over softplex's"
    note = (
        "Right of 1 softplex is faster. Dotted, and in brackets: what is promised. "
        f"{machine['cpu']}, {machine['instruction set']}, {found['date']}."
    )
    if not cases:
        return plots.blank(8.0, 2.0, title, f"{note}\nNothing to compare was measured.")
    columns = min(COLUMNS, len(cases))
    # A panel alone is too narrow for the title.
    width = PANEL[0] if columns == COLUMNS else 2 * PANEL[0]
    figure, axes = plots.panels(len(cases), columns, (width, PANEL[1]), GAP, FOOT, title, note)
    for goals, panel in zip(cases.values(), axes, strict=False):
        draw_case(panel, goals, found["measurements"])
    return figure


def comparable(found: Mapping[str, Any]) -> dict[str, Goals]:
    """The goals that are ratios and have figures, by case; of several for one peer the first."""
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for goal in found["goals"]:
        goals = cases.setdefault(goal["case"], [])
        if goal["statistic"] == "mean" and goal["figure"] is not None:
            goals.append(goal)
    shown: dict[str, Goals] = {name: goals for name, goals in cases.items() if goals}
    # A single point is no picture, unless there is nothing else.
    return {name: goals for name, goals in shown.items() if number_of_ratios(goals, found) > 1} or shown


def number_of_ratios(goals: Goals, found: Mapping[str, Any]) -> int:
    """How many points a panel would have."""
    return sum(len(ratios(found["measurements"], goal["case"], goal["peer"])) for goal in goals)


def draw_case(axes: Axes, goals: Goals, measurements: Sequence[Mapping[str, Any]]) -> None:
    """A peer a colour, a function a marker, a dotted line for what is promised against a peer."""
    found = [ratios(measurements, goal["case"], goal["peer"]) for goal in goals]
    shapes = list(dict.fromkeys(each.shape for one in found for each in one))
    functions = list(dict.fromkeys(each.function for one in found for each in one))
    quiet(axes, shapes)
    for i, (goal, one, colour) in enumerate(zip(goals, found, COLOURS, strict=False)):
        draw_peer(axes, one, (shapes, functions), colour, 0.25 * (i - (len(goals) - 1) / 2))
        if goal["target"] is not None:
            axes.axvline(goal["target"], color=colour, linestyle=":", linewidth=1.4, zorder=1)
    axes.axvline(1.0, color=INK, linewidth=1.0, zorder=1)
    scale(axes, [each.value for one in found for each in one] + [goal["target"] for goal in goals if goal["target"]])
    head(axes, goals, functions)


def quiet(axes: Axes, shapes: Sequence[str]) -> None:
    """Shapes downwards, every second one on a grey band."""
    plots.quiet(axes)
    axes.grid(False, axis="y")
    axes.set_ylim(len(shapes) - 0.5, -0.5)
    axes.set_yticks(range(len(shapes)), shapes)
    for i in range(0, len(shapes), 2):
        axes.axhspan(i - 0.5, i + 0.5, color=PALE, alpha=0.5, linewidth=0, zorder=0)


def draw_peer(
    axes: Axes, found: Sequence[Ratio], order: tuple[Sequence[str], Sequence[str]], colour: str, shift: float
) -> None:
    """The ratios to one peer."""
    shapes, functions = order
    for marker, function in zip(MARKERS, functions, strict=False):
        points = [(each.value, shapes.index(each.shape) + shift) for each in found if each.function == function]
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, marker, color=colour, markersize=5, markerfacecolor=f"{colour}66", zorder=3)


def scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic scale with numbers that one can read, and 1 on it."""
    low, high = min([*values, 1.0]) / 1.25, max([*values, 1.0]) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=steps(math.log10(high / low))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def steps(decades: float) -> tuple[float, ...]:
    """Where numbers stand within a decade: the fewer decades, the closer."""
    if decades > 2.5:
        return (1.0,)
    return (1.0, 2.0, 5.0) if decades > 0.9 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)


def head(axes: Axes, goals: Goals, functions: Sequence[str]) -> None:
    """Above a panel: its title, the peers' colours and, where there are several functions, their markers."""
    peers = [
        Line2D([], [], color=colour, linewidth=5, label=label_of(goal))
        for colour, goal in zip(COLOURS, goals, strict=False)
    ]
    shown = [
        Line2D([], [], color=GREY, marker=marker, linestyle="", label=function)
        for marker, function in zip(MARKERS, functions, strict=False)
    ]
    lines = [shown, peers] if len(functions) > 1 else [peers]
    for i, handles in enumerate(lines):
        add_legend(axes, handles, LINE * i)
    width = axes.get_window_extent().width / axes.figure.dpi
    title = {"size": 11, "weight": "bold", "color": INK, "x": -LEFT / width}
    axes.set_title(goals[0]["what"], title, loc="left", pad=4 + LINE * len(lines))


def label_of(goal: Mapping[str, Any]) -> str:
    """A peer, and what is promised against it."""
    return f"{goal['peer']} ({goal['target']:g})" if goal["target"] is not None else str(goal["peer"])


def add_legend(axes: Axes, handles: Sequence[Line2D], points: float) -> None:
    """One line, so many points above the panel."""
    # Made by hand: axes.legend keeps one only, and draws it once more when it is added as well.
    legend = Legend(
        axes,
        handles,
        [str(handle.get_label()) for handle in handles],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=axes.transAxes + ScaledTranslation(-LEFT, points / 72, axes.figure.dpi_scale_trans),
        borderaxespad=0.0,
        borderpad=0.3,
        ncols=len(handles),
        fontsize=8.2,
        frameon=False,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    axes.add_artist(legend)
