"""The commands of `softplex`: their arguments and help texts, and how they show results.

No mathematics, and no map of `MAPS` by name. Files are the business of `files`, the demonstration of `demo`, pictures
of `plots`; errors and exit codes of `cli`.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich.box
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.main import get_command

import softplex as sx
from softplex.files import SUFFIXES, Limits, Request, Summary, UsageError, apply_file

EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR_WIDTH = 6
CELL_WIDTH = BAR_WIDTH + 3
NAME_WIDTH = 26


def _names() -> str:
    return ", ".join(each.name for each in sx.MAPS)


app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed at work, 2 wrong usage, 130 interrupted.",
)


class Form(StrEnum):
    """What `apply` writes of the weights: all of them, or the support alone."""

    dense = "dense"
    sparse = "sparse"


Folder = Annotated[Path, typer.Option(help="The folder that the pictures go to.")]
Temperature = Annotated[float, typer.Option(help="Positive; the map sees scores / temperature.")]
Alpha = Annotated[float | None, typer.Option(help="For the maps that take alpha.")]
Budget = Annotated[float | None, typer.Option(help="For the maps that take a budget.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=NUMBER", help="A parameter that has no option of its own.")
]
OPTIONS = ("alpha", "budget")
"""The parameters that have an option of their own."""


def command_line() -> Any:
    """The whole command line, as the object that parses and runs it."""
    return get_command(app)


@app.callback(invoke_without_command=True)
def softplex(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show an error's traceback (as SOFTPLEX_DEBUG=1 does).")
    ] = False,
) -> None:
    """Turn scores into weights: softmax, sparsemax, entmax and the rest of the family.

    `softplex show 5 7 10` shows every map on three scores, `softplex demo` the family at work on real data,
    `softplex apply` weighs a file.
    """
    if version:
        print(f"softplex {sx.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


# ---- demo, plot, bench, info


@app.command()
def demo(
    out: Folder = Path("softplex-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds of training.")] = False,
) -> None:
    """Train on handwritten digits under several losses, compare them in a table and save pictures.

    Example: `softplex demo --out pictures`
    """
    from softplex.demo import run

    run(out, _console(), quick=quick)


@app.command()
def plot(out: Folder = Path("softplex-plots")) -> None:
    """Save pictures of every map: its curves, and its picture of the triangle of three classes.

    Example: `softplex plot --out pictures`
    """
    from softplex.plots import save_all

    for path in save_all(out):
        print(path)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="The folder that the figures and the picture go to.")] = Path(
        "softplex-bench"
    ),
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="For softplex and its peers alike.", show_default="all that this process may use"),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPES", help="Shapes to measure besides: 7x333, or 7x333@0 along axis 0; several: 2x3,4x5."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One row of the table, as --only vjp; several: vjp,half.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds and no large arrays.")] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="PATH", help="Where the figures go.", show_default="in the folder")
    ] = None,
) -> None:
    """Time softplex and the libraries that are installed beside it, and compare with what is promised.

    Prints a table, writes all times as JSON and draws a picture. Peers are PyTorch, SciPy, JAX and entmax; absent ones
    are left out by name.

    Examples: `softplex bench --quick`, `softplex bench --only softmax --shapes 7x333,5000x7@0 --threads 1`
    """
    from softplex.bench.suite import Request, run

    request = Request(out, threads or sx.get_num_threads(), json_path, tuple(shapes or ()), tuple(only or ()), quick)
    run(request, _console())


@app.command()
def info() -> None:
    """Say which version this is and what it has found on this machine.

    Example: `softplex info`
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in sx.info().items():
        table.add_row(str(name).replace("_", " "), _readable(value))
    _console().print(table, highlight=False)


def _readable(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


# ---- show


@app.command(context_settings={"ignore_unknown_options": True})
def show(
    scores: Annotated[list[str], typer.Argument(help="Numbers; -2, 1e3, inf and nan are fine.", metavar="SCORES...")],
    temperature: Temperature = 1.0,
    alpha: Alpha = None,
    budget: Budget = None,
    settings: Settings = None,
) -> None:
    """Show what every map makes of a few scores, as a table with bars.

    Examples: `softplex show 5 7 10`, `softplex show -2 0 0.5 --temperature 0.5 --alpha 1.3`
    """
    row = np.array([_score(text) for text in scores])
    given = _given(settings, alpha=alpha, budget=budget)
    shown, failed = _weights_of_all(row, temperature, given)
    if not shown:
        raise UsageError(next(iter(failed.values())))
    console = _console()
    per_table = max(1, (console.width - NAME_WIDTH) // CELL_WIDTH)
    for start in range(0, len(row), per_table):
        console.print(_weights_table(row, shown, slice(start, start + per_table), console))
    for name, problem in failed.items():
        console.print(f"{name}: {problem}", style="dim", highlight=False, markup=False)
    console.print(f"maxout: {float(sx.maxout(row)):g}", highlight=False)


def _score(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        problem = f"no such option: {text}" if text.startswith("--") else f"score {text!r} is not a number"
        raise UsageError(f"{problem} (see softplex show --help)") from None


def _weights_of_all(row: Any, temperature: float, given: Mapping[str, float]) -> tuple[dict[str, Any], dict[str, str]]:
    """The weights of each map that takes the row and the parameters, and why the others do not."""
    shown: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for label, weigh in _maps_to_show(given, len(row)):
        try:
            shown[label] = weigh(row, temperature=temperature)
        except ValueError as error:
            failed[label] = str(error).partition("\n")[0].partition(": ")[2]
    return shown, failed


def _maps_to_show(given: Mapping[str, float], length: int) -> Iterator[tuple[str, Callable[..., Any]]]:
    for each in sx.MAPS:
        usual = {p.name: p.usual(length) for p in each.formula.parameters if p.default is None}
        known: dict[str, Any] = {**usual, **given}
        hyper = {name: known[name] for name in each.parameters if name in known}
        settings = ", ".join(f"{name}={value:g}" for name, value in hyper.items())
        yield f"{each.name}({settings})" if hyper else each.name, partial(each, **hyper)
    yield "softmax + softmin, halves", sx.blend({sx.softmax: 0.5, sx.softmin: 0.5})


def _weights_table(row: Any, shown: Mapping[str, Any], part: slice, console: Console) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("scores", no_wrap=True)
    for score in row[part]:
        table.add_column(f"{score:g}", min_width=BAR_WIDTH, no_wrap=True)
    full = "#" if console.options.ascii_only else EIGHTHS
    for name, weights in shown.items():
        table.add_row(name, *(_cell(float(weight), full) for weight in weights[part]))
    return table


def _cell(weight: float, blocks: str) -> Text:
    # An exact zero and a small weight must not look alike.
    number = f"{weight:.4f}" if 1e-4 <= abs(weight) < 100 else f"{weight:.2g}"
    if not 0 < weight <= 1:
        return Text(number, style="dim" if weight == 0 else "")
    return Text.assemble(number, "\n", (_bar(weight, blocks), "cyan"))


def _bar(weight: float, blocks: str) -> str:
    if blocks == "#":
        return "#" * math.ceil(weight * BAR_WIDTH)
    eighths = math.ceil(weight * BAR_WIDTH * 8)
    return blocks[8] * (eighths // 8) + blocks[eighths % 8].strip()


# ---- apply


def _complete_map(incomplete: str) -> list[str]:
    return [each.name for each in sx.MAPS if each.name.startswith(incomplete)]


@app.command()
def apply(
    map_name: Annotated[
        str,
        typer.Argument(metavar="MAP", autocompletion=_complete_map, help=f"{_names()}."),
    ],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help=f"The scores: {', '.join(SUFFIXES)}.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The weights; its suffix says the format.")],
    axis: Annotated[int, typer.Option(help="The axis to normalise; a table's numeric columns are -1.")] = -1,
    temperature: Temperature = 1.0,
    alpha: Alpha = None,
    budget: Budget = None,
    settings: Settings = None,
    form: Annotated[Form, typer.Option("--output", help="All weights, or the support alone.")] = Form.dense,
    top_k: Annotated[
        int | None, typer.Option(help="Keep a row's K largest weights; of equal ones the first.", metavar="K")
    ] = None,
    renormalize: Annotated[
        bool, typer.Option("--renormalize", help="After --top-k, let each row sum to what it summed to before.")
    ] = False,
    key: Annotated[
        str | None, typer.Option(help="The one array of .npz or .safetensors to weigh.", metavar="NAME")
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header", help="Whether row 1 of a .csv file is a header.", show_default="found out"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUTPUT if it exists.")] = False,
    memory: Annotated[int, typer.Option(min=1, help="Working memory in MiB; a row must fit into it.")] = 512,
) -> None:
    """Weigh the scores of a file: every row along the axis becomes weights.

    Files larger than memory go through in blocks. OUTPUT appears when it is whole; a run that fails or is interrupted
    leaves nothing. Rows that hold NaN become NaN and are counted.

    Dense output keeps the dtype (integers and .csv: float64; bfloat16 becomes float32 where the format lacks it) and
    the columns of a .parquet table that are no numbers.

    Sparse output holds the arrays `indptr`, `indices`, `weights`, `shape` and `axis` in .npz and .safetensors (if INPUT
    has several arrays, each as `NAME.indptr` and so on), the lists `indices` and `weights` of each row in .parquet, and
    lines of row, index, weight in .csv. All of them count from 0.

    A few examples:

    `softplex apply sparsemax scores.npy weights.npy`

    `softplex apply entmax logits.safetensors top.npz --alpha 1.3 --output sparse --top-k 8`

    `softplex apply softmax table.csv table.parquet --temperature 0.5`
    """
    chosen = _chosen_map(map_name)
    hyper = _given(settings, alpha=alpha, budget=budget)
    _check_parameters(chosen, hyper)
    if form is Form.sparse or top_k is not None:
        _check_zero_means_absent(chosen)
    with _progress() as progress:
        summary = apply_file(
            Request(
                weigh=_weigher(chosen, temperature, hyper),
                source=source,
                output=output,
                axis=axis,
                sparse=form is Form.sparse,
                top_k=top_k,
                renormalize=renormalize,
                key=key,
                header=header,
                force=force,
                limits=Limits.of_memory(memory),
                progress=progress,
            )
        )
    print(_closing_line(output, summary, form))


def _chosen_map(name: str) -> Any:
    maps = {each.name: each for each in sx.MAPS}
    if name in maps:
        return maps[name]
    close = difflib.get_close_matches(name, maps, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no map is called {name!r}; {hint}maps are {_names()}")


def _given(settings: list[str] | None, **options: float | None) -> dict[str, float]:
    known = {name for each in sx.MAPS for name in each.parameters}
    given = {name: value for name, value in options.items() if value is not None}
    for setting in settings or []:
        name, _, text = setting.partition("=")
        if name not in known:
            raise UsageError(
                f"--set {setting}: no map has the parameter {name!r}; there are {', '.join(sorted(known))}"
            )
        try:
            given[name] = float(text)
        except ValueError:
            raise UsageError(f"--set {setting}: {text!r} is not a number; give --set {name}=NUMBER") from None
    return given


def _check_parameters(chosen: Any, hyper: Mapping[str, float]) -> None:
    for name in hyper:
        if name not in chosen.parameters:
            takers = ", ".join(each.name for each in sx.MAPS if name in each.parameters)
            raise UsageError(f"{chosen.name} takes no --{name}; these do: {takers or 'none'}")
    for parameter in chosen.formula.parameters:
        if parameter.default is None and parameter.name not in hyper:
            option = f"--{parameter.name}" if parameter.name in OPTIONS else f"--set {parameter.name}="
            raise UsageError(f"{chosen.name} needs {option}: a number {parameter.rule(None)}")


def _check_zero_means_absent(chosen: Any) -> None:
    if chosen.formula.kind == "logarithm":
        raise UsageError(
            f"{chosen.name} gives logarithms, of which 0 is the largest and none is absent: --output sparse and "
            "--top-k make no sense with it; take the map of the weights, or leave these options out"
        )


def _weigher(chosen: Any, temperature: float, hyper: Mapping[str, float]) -> Callable[[Any, int], Any]:
    def weigh(scores: Any, axis: int) -> Any:
        try:
            return chosen(scores, axis=axis, temperature=temperature, **hyper)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error).partition("\n")[0]) from error

    return weigh


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("weighing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("weighing", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _closing_line(output: Path, summary: Summary, form: Form) -> str:
    parts = [f"{output}: {_counted(summary.rows, 'row')} weighed"]
    if summary.arrays > 1:
        parts.append(f"in {summary.arrays} arrays")
    if form is Form.sparse:
        share = summary.support / summary.entries if summary.entries else 0.0
        parts.append(f"with {_counted(summary.support, 'weight')} in the support ({share:.3%})")
    if summary.nan_rows:
        parts.append(f"of which {_counted(summary.nan_rows, 'row')} held NaN or +inf and became NaN")
    return " ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _console() -> Console:
    return Console()
