"""Pictures of the maps: their curves, where they land on the triangle of three classes, the weights that digits get.

Every picture is a matplotlib Figure made from `MAPS` by what a map says of itself (its kind, its hyper-parameters), so
that no map is named here and a new one appears by itself. Figures are drawn without pyplot: no global state, no window,
safe in threads. Which digits are shown, and how their scores came about, is the business of `demo`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from softplex.core.map import Map
from softplex.maps import MAPS

# Okabe and Ito's colours, which stay apart for colour-blind readers, in print and on a screen.
BLUE, ORANGE, VERMILION, GREEN = "#0072B2", "#E69F00", "#D55E00", "#009E73"
INK, GREY, PALE = "#1F2328", "#8C959F", "#E6E8EB"
FAN = ("#9ECAE1", "#4292C6", "#08519C", "#041F3D")
DOTS_PER_INCH = 150

# The colour of a point says how many of three classes weigh: one (a corner), two (an edge), all.
SUPPORT_COLOURS = {3: BLUE, 2: ORANGE, 1: VERMILION}
SUPPORT_WORDS = {3: "all three weigh", 2: "two weigh, one is exactly 0", 1: "one takes all"}
CORNERS = np.array([[0.0, 1.0], [-math.sqrt(0.75), -0.5], [math.sqrt(0.75), -0.5]])


def save_all(out_dir: Path, maps: Sequence[Map] | None = None) -> list[Path]:
    """Save the curves, the triangle and the regions of the maps as PNG files in a folder, made if need be.

    Arguments:
        out_dir: the folder.
        maps: the maps to draw; None for all of `MAPS`.

    Returns:
        The paths of the pictures.
    """
    chosen = MAPS if maps is None else maps
    figures = {"curves": curves(chosen), "triangle": triangle(chosen), "regions": regions(chosen)}
    return [save(figure, out_dir / f"{name}.png") for name, figure in figures.items()]


def save(figure: Figure, path: Path) -> Path:
    """Save a figure as a PNG file; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    # The pictures are flat colours and their soft edges: a palette holds them in a third of the bytes.
    picture = Image.open(drawn).convert("RGB").quantize(255, dither=Image.Dither.NONE)
    picture.save(path, format="PNG", optimize=True)
    return path


# ---- hyper-parameters, by what they say of themselves


def ready(chosen: Map, length: int) -> Map:
    """The map with a number for each hyper-parameter, its default or one that is good for rows of this length."""
    numbers = {parameter.name: parameter.usual(length) for parameter in chosen.formula.parameters}
    return chosen.bind(**numbers) if numbers else chosen


def fan(chosen: Map, length: int) -> list[tuple[str, Map]]:
    """A map under several numbers for its first hyper-parameter, each with its label."""
    parameter = chosen.formula.parameters[0]
    step = parameter.usual(length) - parameter.low
    factors = (0.5, 1.0, 1.5) if parameter.high is None else (0.5, 1.0, 2.0, 6.0)
    values = [parameter.low + step * factor for factor in factors]
    allowed = [value for value in values if bool(parameter.allowed(np.asarray(value), length))]
    bound = [ready(chosen.bind(**{parameter.name: value}), length) for value in allowed]
    return [(f"{parameter.name} = {value:g}", one) for value, one in zip(allowed, bound, strict=True)]


def gives_logarithms(chosen: Map) -> bool:
    """Whether the map's values are logarithms of weights."""
    return chosen.formula.kind == "logarithm"


# ---- what the pictures share


MARGIN = 0.15
HEAD = 0.6


def blank(width: float, height: float, title: str, note: str) -> Figure:
    """An empty figure, in inches, with a title and a note above what is to come."""
    figure = Figure(figsize=(width, height))
    figure.text(MARGIN / width, 1.0 - 0.12 / height, title, size=15, weight="bold", color=INK, va="top")
    figure.text(MARGIN / width, 1.0 - 0.45 / height, note, size=9.5, color=INK, va="top")
    return figure


def panels(
    number: int, columns: int, size: tuple[float, float], gap: tuple[float, float], foot: float, title: str, note: str
) -> tuple[Figure, Iterator[Axes]]:
    """A figure of small multiples, in inches: panels of a size, with a gap to the left of and above each."""
    rows = math.ceil(number / columns)
    width = columns * (size[0] + gap[0]) + MARGIN
    height = rows * (size[1] + gap[1]) + HEAD + foot
    figure = blank(width, height, title, note)
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": gap[0] / width,
            "right": 1.0 - MARGIN / width,
            "top": 1.0 - (HEAD + gap[1]) / height,
            "bottom": foot / height,
            "wspace": gap[0] / size[0],
            "hspace": gap[1] / size[1],
        },
    ).ravel()
    for spare in axes[number:]:
        spare.set_axis_off()
    return figure, iter(axes)


def head_panel(axes: Axes, title: str, fact: str) -> None:
    """A bold line and a fine one above a panel."""
    axes.set_title(title, loc="left", size=11.5, weight="bold", color=INK, pad=17)
    axes.text(0.0, 1.03, fact, transform=axes.transAxes, size=8.8, color=INK, va="bottom")


def quiet(axes: Axes) -> None:
    """Axes that stay behind the data."""
    axes.tick_params(labelsize=8.5, color=GREY, labelcolor=INK, length=3)
    axes.grid(color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(GREY)


# ---- curves


def curves(maps: Sequence[Map] = MAPS) -> Figure:
    """A panel a map: the weight of the first of two or three scores as it runs; log maps last, on their own axis."""
    ordered = sorted(maps, key=gives_logarithms)
    columns = min((3, 4), key=lambda columns: -len(ordered) % columns)
    figure, axes = panels(
        len(ordered),
        columns,
        (8.55 / columns, 1.75),
        (0.45, 0.76),
        0.55,
        "From scores to weights: the curve of every map",
        "The weight of a score t among others that stay at 0. A ring: from here on exactly 0, or exactly 1.",
    )
    for chosen, panel in zip(ordered, axes, strict=False):
        draw_curve(panel, chosen)
    figure.text(0.5, 0.12 / figure.get_figheight(), "score t", size=10, color=INK, ha="center")
    return figure


def draw_curve(axes: Axes, chosen: Map) -> None:
    """The curves of one map."""
    t = np.linspace(-3.0, 3.0, 601)
    if chosen.formula.parameters:
        lines = [(label, colour, one, 2) for (label, one), colour in zip(fan(chosen, 2), FAN, strict=False)]
    else:
        lines = [("of two", BLUE, chosen, 2), ("of three", ORANGE, chosen, 3)]
    for label, colour, one, length in lines:
        values = first_of(one, t, length)
        axes.plot(t, values, color=colour, linewidth=2.0, label=label, solid_capstyle="round")
        mark_bounds(axes, t, values, colour)
    quiet(axes)
    axes.set_xlim(-3.0, 3.0)
    axes.set_xticks([-2, 0, 2])
    if gives_logarithms(chosen):
        axes.set_yticks([-3, -2, -1, 0])
    else:
        axes.set_ylim(-0.06, 1.06)
        axes.set_yticks([0.0, 0.5, 1.0])
    head_panel(axes, chosen.name, curve_fact(chosen, t))
    axes.legend(
        fontsize=8, frameon=False, handlelength=1.2, labelspacing=0.25, borderaxespad=0.2, handletextpad=0.5, loc="best"
    )


def first_of(chosen: Map, t: Any, length: int) -> Any:
    """What the map gives to the score t among others that are 0."""
    scores = np.zeros((len(t), length))
    scores[:, 0] = t
    return chosen(scores)[:, 0]


def mark_bounds(axes: Axes, t: Any, values: Any, colour: str) -> None:
    """A ring where a curve reaches a bound and stays there."""
    for bound in (0.0, 1.0):
        at_bound = values == bound
        entries = np.flatnonzero(at_bound[1:] & ~at_bound[:-1]) + 1
        exits = np.flatnonzero(at_bound[:-1] & ~at_bound[1:])
        turns = np.concatenate([entries, exits])
        if at_bound.sum() > 1:
            style: dict[str, Any] = {
                "markersize": 4.5,
                "markerfacecolor": "white",
                "markeredgecolor": colour,
                "zorder": 3,
            }
            axes.plot(t[turns], values[turns], "o", **style)


def curve_fact(chosen: Map, t: Any) -> str:
    """Whether and where the first of two scores weighs nothing."""
    if gives_logarithms(chosen):
        return "the logarithm of the weight"
    is_zero = first_of(ready(chosen, 2), t, 2) == 0.0
    given = ", ".join(f"{parameter.name} = {parameter.usual(2):g}" for parameter in chosen.formula.parameters)
    among = f"two scores, {given}: " if given else "two scores: "
    if not is_zero.any():
        return f"{among}never 0"
    zeros = t[is_zero]
    return among + (f"0 up to t = {zeros[-1]:.2g}" if is_zero[0] else f"0 from t = {zeros[0]:.2g}")


# ---- the triangle of three classes


def triangle(maps: Sequence[Map] = MAPS) -> Figure:
    """Where circles of scores land on the triangle of three classes: a panel a map, the scores in the first."""
    shown = [ready(one, 3) for one in maps if one.formula.kind == "simplex"]
    figure, axes = panels(
        len(shown) + 1,
        4,
        (2.25, 2.1),
        (0.2, 0.5),
        0.5,
        "Three classes: where each map puts the same circles of scores",
        "An edge leaves one class out, a corner two; the shares are of the disc of scores. Green: A alone rises.",
    )
    draw_scores(next(axes))
    for chosen, panel in zip(shown, axes, strict=False):
        draw_landing(panel, chosen)
    handles = [
        Line2D([], [], color=colour, linewidth=3, label=SUPPORT_WORDS[size]) for size, colour in SUPPORT_COLOURS.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=10)
    return figure


RADII = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)
DIRECTIONS = 24


def on_circle(radius: Any, angle: Any) -> Any:
    """Three scores that sum to 0, their norm and direction given: along a corner, that class leads."""
    radius, angle = np.broadcast_arrays(radius, angle)
    plane = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return math.sqrt(2.0 / 3.0) * plane @ CORNERS.T


def place(weights: Any) -> Any:
    """Points of the plane for weights of three classes; weights that do not sum to 1 are scaled to."""
    return weights / weights.sum(axis=-1, keepdims=True) @ CORNERS


def draw_scores(axes: Axes) -> None:
    """The circles and rays before any map."""
    frame(axes)
    scale = 0.78 / max(RADII)
    turn = np.linspace(0.0, 2.0 * math.pi, 181)
    for radius in RADII:
        axes.plot(scale * radius * np.cos(turn), scale * radius * np.sin(turn), color=INK, linewidth=0.9)
    for angle in ray_angles():
        axes.plot([0.0, 0.78 * math.cos(angle)], [0.0, 0.78 * math.sin(angle)], **ray_style(angle))
    for corner, label in zip(CORNERS, "ABC", strict=True):
        axes.annotate(label, 0.93 * corner, size=9, color=INK, ha="center", va="center")
    head_panel(axes, "the scores", f"circles of norm {RADII[0]:g} to {RADII[-1]:g}, mean 0")


def ray_angles() -> Any:
    """Directions evenly round the circle, those of the corners among them."""
    return 0.5 * math.pi + np.arange(DIRECTIONS) * (2.0 * math.pi / DIRECTIONS)


def ray_style(angle: float) -> dict[str, Any]:
    """Rays are faint, but for the one on which the first class leads."""
    leads = math.isclose(angle, 0.5 * math.pi)
    return {"color": GREEN, "linewidth": 2.4, "zorder": 6} if leads else {"color": GREY, "linewidth": 0.5, "zorder": 1}


def draw_landing(axes: Axes, chosen: Map) -> None:
    """The circles and rays as a map lands them, coloured by how many classes weigh."""
    frame(axes)
    axes.fill(*CORNERS.T, facecolor="#F6F8FA", edgecolor=GREY, linewidth=0.8, zorder=0)
    steps = np.linspace(0.0, max(RADII), 181)
    for angle in ray_angles():
        axes.plot(*place(chosen(on_circle(steps, angle))).T, **ray_style(angle))
    turn = 0.5 * math.pi + np.linspace(0.0, 2.0 * math.pi, 721)
    for radius in RADII:
        draw_by_support(axes, chosen(on_circle(radius, turn)))
    for corner, label in zip(CORNERS, "ABC", strict=True):
        axes.annotate(label, 1.14 * corner, size=9, color=INK, ha="center", va="center")
    head_panel(axes, chosen.name, landing_fact(chosen))


def draw_by_support(axes: Axes, weights: Any) -> None:
    """A line through weights, each stretch in the colour of its support; a stretch that stands still is a dot."""
    points, sizes = place(weights), np.count_nonzero(weights, axis=-1)
    for size, colour in SUPPORT_COLOURS.items():
        mine = sizes == size
        # One point more at each end closes the gap to the next stretch, in the colour of the fuller support.
        mine[1:] |= (sizes[:-1] == size) & (sizes[1:] < size)
        mine[:-1] |= (sizes[1:] == size) & (sizes[:-1] < size)
        stretch = np.where(mine[:, None], points, np.nan)
        axes.plot(*stretch.T, color=colour, linewidth=1.1 if size == 3 else 2.4, zorder=5 - size)
    alone = np.unique(points[sizes == 1].round(9), axis=0)
    axes.plot(*alone.T, "o", color=SUPPORT_COLOURS[1], markersize=6, zorder=7, linestyle="none", clip_on=False)


def landing_fact(chosen: Map) -> str:
    """How the disc of scores divides between inside, edges and corners."""
    radius = max(RADII) * np.sqrt(np.linspace(0.0, 1.0, 61)[1:])
    angle = np.linspace(0.0, 2.0 * math.pi, 181)[:-1] + 1e-3
    sizes = chosen.support_size(on_circle(radius[:, None], angle[None, :]))
    shares = {words: np.mean(sizes == size) for size, words in ((3, "inside"), (2, "edge"), (1, "corner"))}
    return " · ".join(f"{words} {share:.0%}" for words, share in shares.items() if share > 0)


def frame(axes: Axes) -> None:
    """Room for the triangle, without scales."""
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-0.8, 1.22)


# ---- regions of the plane of scores


def regions(maps: Sequence[Map] = MAPS) -> Figure:
    """How many classes weigh at each point of the plane of scores, with the contours of the first class's weight."""
    shown = [ready(one, 3) for one in maps if one.formula.kind == "simplex"]
    figure, axes = panels(
        len(shown) + 1,
        4,
        (2.25, 2.25),
        (0.2, 0.35),
        0.15,
        "Three classes: how many weigh, over the plane of scores",
        "Lines: where class A has 0.1, 0.3, ... 0.9 of the weight. Letters: the direction in which a class leads.",
    )
    for chosen, panel in zip(shown, axes, strict=False):
        draw_regions(panel, chosen)
    key = next(axes)
    handles = [
        Patch(facecolor=tint(colour), edgecolor=GREY, label=SUPPORT_WORDS[size])
        for size, colour in SUPPORT_COLOURS.items()
    ]
    key.legend(handles=handles, loc="center", frameon=False, fontsize=10, labelspacing=0.9)
    key.set_axis_off()
    return figure


def draw_regions(axes: Axes, chosen: Map) -> None:
    """The regions and contours of one map."""
    reach = 1.5
    side = np.linspace(-reach, reach, 361)
    across, up = np.meshgrid(side, side)
    weights = chosen(on_circle(np.hypot(across, up), np.arctan2(up, across)))
    sizes = np.count_nonzero(weights, axis=-1)
    colours = ListedColormap([tint(SUPPORT_COLOURS[size]) for size in (1, 2, 3)])
    axes.imshow(
        sizes,
        cmap=colours,
        vmin=0.5,
        vmax=3.5,
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        interpolation="nearest",
    )
    share = weights[..., 0] / weights.sum(axis=-1)
    axes.contour(across, up, share, levels=[0.1, 0.3, 0.5, 0.7, 0.9], colors=INK, linewidths=0.8)
    for corner, label in zip(CORNERS, "ABC", strict=True):
        axes.annotate(label, 1.3 * corner, size=9.5, weight="bold", color=INK, ha="center", va="center", bbox=halo())
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(chosen.name, loc="left", size=11.5, weight="bold", color=INK)


def tint(colour: str) -> str:
    """A light shade of a colour."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - 0.55 * (255 - part)):02x}" for part in parts)


# ---- digits

# The part of a panel, in heights of its bars, that is left free above them.
NOTE_ROOM = 0.28


def digits(
    images: Any, scores: Any, labels: Any, maps: Sequence[Map] = MAPS, *, scored_by: str = "a classifier"
) -> Figure:
    """What each map makes of the same scores of some images: a column an image, a row a map, a bar a class.

    Arguments:
        images: grey values, shape (n, height, width).
        scores: one score a class, shape (n, classes).
        labels: the true classes, shape (n,).
        maps: the maps, in the order of the rows; log maps go last.
        scored_by: what made the scores, for the caption.

    Returns:
        The figure.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    number, classes = scores.shape
    ordered = [ready(one, classes) for one in sorted(maps, key=gives_logarithms)]
    heights = [1.35, *([0.65] * len(ordered))]
    gap, label_width = 0.1, 1.85
    width = label_width + number * 1.6 + MARGIN
    height = HEAD + 0.4 + sum(heights) + gap * len(ordered) + 0.3
    note = (
        f"Every map on the scores of {scored_by}. A bar is a weight, a dot exactly 0; in the corner, how many weigh. "
        "Green: the true class."
    )
    figure = blank(width, height, "Digits that are hard to read", note)
    grid = figure.add_gridspec(
        len(heights),
        number,
        height_ratios=heights,
        left=label_width / width,
        right=1 - MARGIN / width,
        top=1 - (HEAD + 0.4) / height,
        bottom=0.3 / height,
        hspace=gap * len(heights) / sum(heights),
        wspace=0.1,
    )
    for column in range(number):
        draw_digit(figure.add_subplot(grid[0, column]), images[column], int(labels[column]))
        for row, chosen in enumerate(ordered, start=1):
            axes = figure.add_subplot(grid[row, column])
            draw_weights(axes, chosen, scores[column], int(labels[column]), is_last=row == len(ordered))
            if column == 0:
                name_row(axes, chosen.name)
    return figure


def name_row(axes: Axes, name: str) -> None:
    """The map's name to the left of its row."""
    axes.text(-0.06, 0.5, name, transform=axes.transAxes, ha="right", va="center", size=10, weight="bold", color=INK)


def draw_digit(axes: Axes, image: Any, label: int) -> None:
    """The image and what it is."""
    axes.imshow(image, cmap="gray_r", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.set_title(f"a {label}", size=11, color=GREEN, weight="bold", pad=4)


def draw_weights(axes: Axes, chosen: Map, scores: Any, label: int, *, is_last: bool) -> None:
    """The bars of one map for one row of scores, with the number of classes that weigh."""
    values = chosen(scores)
    places = np.arange(len(values))
    colours = [GREEN if place == label else BLUE for place in places]
    axes.bar(places, values, color=colours, width=0.78)
    if gives_logarithms(chosen):
        lowest = float(np.min(values))
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        axes.set_ylim(1.02 * lowest, -NOTE_ROOM * lowest)
        name_value(axes, f"down to {lowest:.0f}")
    else:
        # A weight that is too small to see has a foot all the same.
        is_zero = values == 0.0
        axes.bar(places[~is_zero], 0.025, color=[colours[place] for place in places[~is_zero]], width=0.78)
        axes.plot(places[is_zero], np.full(is_zero.sum(), 0.02), ".", color=GREY, markersize=3.5, clip_on=False)
        axes.set_ylim(0.0, 1.0 + NOTE_ROOM)
        name_value(axes, f"{int(chosen.support_size(scores))} of {len(values)}")
    axes.set_xlim(-0.7, len(values) - 0.3)
    axes.set_xticks(places, [str(place) for place in places] if is_last else [])
    axes.set_yticks([])
    axes.tick_params(labelsize=8, length=0, pad=2, labelcolor=INK)
    axes.spines[:].set_visible(False)


def name_value(axes: Axes, text: str) -> None:
    """A small note at the top right of a panel, where no bar reaches."""
    axes.text(1.0, 1.0, text, transform=axes.transAxes, size=7.5, color=INK, ha="right", va="top")


def halo() -> dict[str, Any]:
    """A white ground for text that a bar may lie under."""
    return {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
