"""The demonstration: train on handwritten digits under several losses, compare the models in a table, save pictures.

Everything is NumPy: the gradients come from the maps' own `residual` and from `maxout.vjp`, the rest is the chain rule
of a matrix product. The digits are those that scikit-learn brings along. How pictures look is the business of `plots`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rich.box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softplex as sx
from softplex import plots

CLASSES = 10
UNITS, PIECES = 64, 3
BATCH = 64
SHOWN_DIGITS = 5

# A Fenchel-Young loss is that of its map; softmax's has a name of its own.
LOSS_NAMES = {sx.softmax: "log-loss"}


def run(out_dir: Path, console: Console, quick: bool = False) -> None:
    """Train the models, print the table that compares them and save the pictures.

    Arguments:
        out_dir: the folder that the pictures go to.
        console: where progress, the table and the paths of the pictures are printed.
        quick: fewer rounds of training.
    """
    data = digits_data()
    models = make_models(data)
    console.print(
        f"{len(data.train_x):,} handwritten digits to learn from, {len(data.test_x)} to test on, 8 x 8 pixels, seeded.",
        highlight=False,
    )
    with progress_of(console) as advance:
        rounds = 8 if quick else 40
        seconds = {name: train(model, data, rounds, advance(name)) for name, model in models.items()}
    found = results(models, data, seconds)
    console.print(results_table(found))
    console.print("Log-loss and Fenchel-Young losses are each their own map's; compare a loss only with the same one.")
    console.print("Pictures:")
    for path in [*plots.save_all(out_dir), save_ambiguous(models, data, out_dir)]:
        console.print(f"  {path}", highlight=False, markup=False, soft_wrap=True)
    kept = out_dir / "demo.json"
    kept.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console.print(f"The table: {kept}", highlight=False, markup=False, soft_wrap=True)


# ---- data


@dataclass(frozen=True)
class Data:
    """Grey values between 0 and 1, one row a digit, and classes."""

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any


def digits_data() -> Data:
    """scikit-learn's digits under a fixed split: three quarters to learn from, each class in both parts alike."""
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.data / 16.0, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return Data(train_x, train_y, test_x, test_y)


# ---- models


class Model(Protocol):
    """Scores of digits, and the gradient of the mean loss with respect to the parameters."""

    head: sx.Map
    parameters: list[Any]

    def scores(self, x: Any) -> Any:
        """One score a class, shape (len(x), classes)."""

    def gradient(self, x: Any, y: Any) -> list[Any]:
        """The gradient on a batch, one array a parameter."""


@dataclass
class Linear:
    """scores = x W + b, trained under the Fenchel-Young loss of a map."""

    head: sx.Map
    parameters: list[Any]

    def scores(self, x: Any) -> Any:
        """One score a class."""
        W, b = self.parameters
        return x @ W + b

    def gradient(self, x: Any, y: Any) -> list[Any]:
        """The loss's gradient is p - y, which the map gives without cancellation."""
        g = self.head.residual(self.scores(x), y) / len(x)
        return [x.T @ g, g.sum(axis=0)]


@dataclass
class MaxoutNetwork:
    """scores = maxout(x W1 + b1) W2 + b2 (Goodfellow et al. 2013): the hidden layer learns its own activation."""

    head: sx.Map
    parameters: list[Any]

    def scores(self, x: Any) -> Any:
        """One score a class."""
        W1, b1, W2, b2 = self.parameters
        return sx.maxout(x @ W1 + b1, PIECES) @ W2 + b2

    def gradient(self, x: Any, y: Any) -> list[Any]:
        """Back through the head, the second product, the pieces that won and the first product."""
        W1, b1, W2, b2 = self.parameters
        pieces = x @ W1 + b1
        units = sx.maxout(pieces, PIECES)
        g = self.head.residual(units @ W2 + b2, y) / len(x)
        pieces_g = sx.maxout.vjp(pieces, g @ W2.T, PIECES)
        return [x.T @ pieces_g, pieces_g.sum(axis=0), units.T @ g, g.sum(axis=0)]


def make_models(data: Data) -> dict[str, Model]:
    """The models by name, untrained."""
    pixels = data.train_x.shape[1]
    models: dict[str, Model] = {
        f"linear, {head.name}": Linear(head, [np.zeros((pixels, CLASSES)), np.zeros(CLASSES)])
        for head in (sx.softmax, sx.sparsemax, sx.entmax15)
    }
    rng = np.random.default_rng(0)
    first = rng.normal(0.0, pixels**-0.5, (pixels, UNITS * PIECES))
    second = rng.normal(0.0, UNITS**-0.5, (UNITS, CLASSES))
    models["maxout, entmax15"] = MaxoutNetwork(
        sx.entmax15, [first, np.zeros(UNITS * PIECES), second, np.zeros(CLASSES)]
    )
    return models


# ---- training


@dataclass
class Adam:
    """Steps against the gradient, scaled by its running mean and mean square (Kingma & Ba 2015), with weight decay."""

    rate: float = 0.01
    decay: float = 0.01
    step: int = 0
    means: list[Any] = field(default_factory=list)
    squares: list[Any] = field(default_factory=list)

    def update(self, parameters: list[Any], gradients: list[Any]) -> None:
        """Move the parameters, in place."""
        if self.step == 0:
            self.means = [np.zeros_like(p) for p in parameters]
            self.squares = [np.zeros_like(p) for p in parameters]
        self.step += 1
        for i, g in enumerate(gradients):
            self.means[i] += 0.1 * (g - self.means[i])
            self.squares[i] += 0.001 * (g * g - self.squares[i])
            mean = self.means[i] / (1.0 - 0.9**self.step)
            scale = np.sqrt(self.squares[i] / (1.0 - 0.999**self.step)) + 1e-8
            parameters[i] -= self.rate * (mean / scale + self.decay * parameters[i])


def train(model: Model, data: Data, rounds: int, advance: Callable[[int, int], None]) -> float:
    """Train a model in place, in shuffled batches, reporting each round; returns the seconds that it took."""
    rng = np.random.default_rng(0)
    adam = Adam()
    start = time.perf_counter()
    for done in range(1, rounds + 1):
        order = rng.permutation(len(data.train_x))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            adam.update(model.parameters, model.gradient(data.train_x[batch], data.train_y[batch]))
        advance(done, rounds)
    return time.perf_counter() - start


@contextmanager
def progress_of(console: Console) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Moving bars on a terminal; elsewhere, lines of text."""
    if not console.is_terminal:
        yield lambda name: lines_of(console, name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:

        def bar_of(name: str) -> Callable[[int, int], None]:
            task = bars.add_task(f"training {name}", total=None)
            return lambda done, number: bars.update(task, completed=done, total=number)

        yield bar_of


def lines_of(console: Console, name: str) -> Callable[[int, int], None]:
    """A line half way through a model's training, and one at its end."""

    def advance(done: int, number: int) -> None:
        if done in {number // 2, number}:
            console.print(f"training {name}: round {done} of {number}", highlight=False)

    return advance


# ---- results


def results(models: dict[str, Model], data: Data, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """One row a model: how often it is right, how sparse its weights are, its loss and the time of training."""
    rows = []
    for name, model in models.items():
        scores = model.scores(data.test_x)
        weights = model.head(scores)
        row = {
            "model": name,
            "test accuracy": float(np.mean(weights.argmax(axis=-1) == data.test_y)),
            "mean support": float(model.head.support_size(scores).mean()),
            "exact zeros": float(np.mean(weights == 0.0)),
            "test loss": float(model.head.loss(scores, data.test_y)),
            "loss": LOSS_NAMES.get(model.head, "Fenchel-Young"),
            "seconds": seconds[name],
        }
        rows.append(row)
    return rows


def shown_results(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The cells of the table, headings first."""
    headings = ["model", "test accuracy", "mean support", "exact zeros", "test loss", "", "time in s"]
    cells = [
        [
            row["model"],
            f"{row['test accuracy']:.1%}",
            f"{row['mean support']:.2f}",
            f"{row['exact zeros']:.1%}",
            f"{row['test loss']:.4f}",
            row["loss"],
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]
    return [headings, *cells]


def results_table(rows: list[dict[str, Any]]) -> Table:
    """The table as the terminal shows it."""
    headings, *cells = shown_results(rows)
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        is_text = heading in ("model", "")
        words = heading.replace(" ", "\n", 1)
        table.add_column(words, justify="left" if is_text else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def save_ambiguous(models: dict[str, Model], data: Data, out_dir: Path) -> Path:
    """Draw what every map makes of the first model's scores of the digits that are hardest to read."""
    name, model = next(iter(models.items()))
    scores = model.scores(data.test_x)
    chosen = ambiguous(models, data, scores)[:SHOWN_DIGITS]
    images = data.test_x[chosen].reshape(-1, 8, 8)
    figure = plots.digits(images, scores[chosen], data.test_y[chosen], scored_by=f"the model “{name}”")
    return plots.save(figure, out_dir / "digits.png")


def ambiguous(models: dict[str, Model], data: Data, scores: Any) -> Any:
    """Indices of the test digits on which the maps differ in support, the least certain first.

    How certain a digit is: its largest weight, on the mean over the models.
    """
    certainty = np.mean([model.head(model.scores(data.test_x)).max(axis=-1) for model in models.values()], axis=0)
    sizes = [plots.ready(one, CLASSES).support_size(scores) for one in sx.MAPS if not plots.gives_logarithms(one)]
    differ = np.flatnonzero(np.ptp(sizes, axis=0) > 0)
    return differ[np.argsort(certainty[differ], kind="stable")]
