"""A whole run of `softplex bench`: choose, measure, judge, keep, show. How each is done is said elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from softplex.bench import machine, memory, peers, report, timing
from softplex.bench.cases import Case, Shape, chosen_cases, parse_shapes
from softplex.bench.inputs import MASKED_SHARE, SCORES, SEED, Inputs
from softplex.bench.peers import Peer
from softplex.bench.ratios import judged
from softplex.bench.timing import Effort
from softplex.bench.ways import Way
from softplex.files.errors import UsageError, needs_package, reason

PICTURE, FILE = "bench.png", "bench.json"


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    out: Path
    threads: int
    json: Path | None = None
    shapes: Sequence[str] = ()
    only: Sequence[str] = ()
    quick: bool = False


@dataclass(frozen=True)
class Setting:
    """What holds for all measurements of a run."""

    peers: Mapping[str, Peer]
    effort: Effort
    threads: int


def run(request: Request, console: Console) -> None:
    """Measure, keep the figures, print the table and draw the picture.

    Arguments:
        request: what was asked for.
        console: where progress, the table and the paths are printed.

    Raises:
        UsageError: for rows or shapes that do not exist, or a place that cannot be written to.
    """
    words = [word for text in request.only for word in text.replace(",", " ").split()]
    cases = chosen_cases(words, parse_shapes(request.shapes), request.quick, machine.last_level_cache())
    path = place_for(request)
    found = measured(cases, request, console)
    report.write(found, path)
    report.show(found, console)
    report.show_path(console, "The figures", path)
    draw(found, request.out / PICTURE, console)


def place_for(request: Request) -> Path:
    """Where the figures go; found out before anything is measured."""
    path = request.json or request.out / FILE
    for folder in (request.out, path.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: is no folder and cannot be made into one: {reason(error)}") from None
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give --json the name of a file")
    return path


def draw(found: Mapping[str, Any], path: Path, console: Console) -> None:
    """Draw the picture, or say which package that takes."""
    try:
        from softplex.bench.picture import save
    except ImportError as error:
        missing = needs_package(path.name, (error.name or "matplotlib").partition(".")[0], "demo")
        console.print(f"The picture was left out. {missing}", highlight=False, markup=False, soft_wrap=True)
        return
    report.show_path(console, "The picture", save(found, path))


# ---- what is kept


def measured(cases: Sequence[Case], request: Request, console: Console) -> dict[str, Any]:
    """All that the JSON file holds."""
    at_start = machine.described()
    present, absent = peers.load(dict.fromkeys(["softplex", *(name for case in cases for name in case.peers)]))
    effort = timing.QUICK if request.quick else timing.FULL
    with peers.equal_threads(request.threads):
        measurements = measure_all(cases, Setting(present, effort, request.threads), absent, console)
    return {
        "date": machine.today(),
        "machine": at_start,
        "versions": machine.versions() | peers.versions(present),
        "left out": absent,
        "settings": settings(request, present, effort),
        "goals": judged(cases, measurements, at_start["instruction set"]),
        "measurements": measurements,
    }


def settings(request: Request, present: Mapping[str, Peer], effort: Effort) -> dict[str, Any]:
    """What one has to know to take the same figures again."""
    return {
        "quick": request.quick,
        "threads": request.threads,
        "threads of": {name: peer.threads for name, peer in present.items()},
        "scores": {name: words for name, (words, _, _) in SCORES.items()},
        "masked share": MASKED_SHARE,
        "seed": SEED,
        "effort": dataclasses.asdict(effort),
        "seconds": "a call, one figure a round, the mean over its loops; the best round counts",
        "vjp": "softplex computes y from x; PyTorch's backward and its operator are given y",
    }


# ---- measuring


def measure_all(
    cases: Sequence[Case], setting: Setting, absent: dict[str, str], console: Console
) -> list[dict[str, Any]]:
    """The measurements of all cases; a dtype that takes a missing package is entered among what is absent."""
    total = sum(len(case.shapes) * len(case.dtypes) * len(case.operations) for case in cases)
    found = []
    with progress_of(console, total) as advance:
        for case, shape, dtype in parts(cases):
            inputs = Inputs(shape, dtype, case.scores)
            for operation in case.operations:
                advance(f"{case.name}: {operation}, {dtype}, {shape.label}")
                try:
                    result = MEASURES[case.measure](operation, inputs, case, setting)
                except ImportError as error:
                    absent[dtype if error.name == "ml_dtypes" else str(error.name)] = str(error).partition("\n")[0]
                    continue
                found.append({**described(case, operation, inputs), **result})
    return found


def parts(cases: Sequence[Case]) -> Iterator[tuple[Case, Shape, str]]:
    """What has arrays of its own."""
    return ((case, shape, dtype) for case in cases for dtype in case.dtypes for shape in case.shapes)


def described(case: Case, operation: str, inputs: Inputs) -> dict[str, Any]:
    """What a measurement is of."""
    shape = inputs.shape
    return {
        "case": case.name,
        "operation": operation,
        "dtype": inputs.dtype,
        "scores": inputs.scores,
        "shape": list(shape.sizes),
        "axis": shape.axis,
        "label": shape.label,
        "entries": shape.entries,
        "row": shape.row,
    }


def measure_speed(operation: str, inputs: Inputs, case: Case, setting: Setting) -> dict[str, Any]:
    """The times of softplex and of the case's peers, in turns."""
    own = setting.peers["softplex"].functions[operation](inputs)
    ready, failed = ready_ways([setting.peers[name] for name in case.peers if name in setting.peers], operation, inputs)
    ways = [("softplex", way) for way in needed(own, [way for _, way in ready])] + ready
    times = timing.compete([way.call for _, way in ways], setting.effort)
    return {"times": [entry(name, way, each) for (name, way), each in zip(ways, times, strict=True)] + failed}


def ready_ways(
    rivals: Sequence[Peer], operation: str, inputs: Inputs
) -> tuple[list[tuple[str, Way]], list[dict[str, str]]]:
    """The peers' ways that work, each called once, and what the others raise."""
    ready: list[tuple[str, Way]] = []
    failed = []
    for peer in rivals:
        try:
            ways = peer.functions[operation](inputs)
            for way in ways:
                way.call()
        except Exception as error:  # noqa: BLE001 - what a peer cannot do is a finding, and no end of the run
            failed.append({"peer": peer.name, "failed": f"{type(error).__name__}: {error}".partition("\n")[0]})
            continue
        ready += [(peer.name, way) for way in ways]
    return ready, failed


def needed(own: Sequence[Way], theirs: Sequence[Way]) -> list[Way]:
    """Our ways of the kinds that the peers have; all where there is nothing to choose by."""
    kinds = {way.is_preallocated for way in theirs}
    return [way for way in own if way.is_preallocated in kinds] or list(own)


def entry(peer: str, way: Way, times: timing.Times) -> dict[str, Any]:
    """The times of one way, to four digits."""
    seconds = [float(f"{each:.4g}") for each in times.seconds]
    return {
        "peer": peer,
        "way": way.name,
        "preallocated": way.is_preallocated,
        "loops": times.loops,
        "seconds": seconds,
    }


def measure_memory(operation: str, inputs: Inputs, case: Case, setting: Setting) -> dict[str, Any]:
    """Memory beyond the result, in a process of its own."""
    beyond = memory.measure(operation, inputs.shape, setting.threads)
    return {"threads": setting.threads, "bytes beyond": beyond}


MEASURES: Mapping[str, Callable[[str, Inputs, Case, Setting], dict[str, Any]]] = {
    "speed": measure_speed,
    "memory": measure_memory,
}


# ---- progress


@contextmanager
def progress_of(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """A moving bar on a terminal; elsewhere a line for each row of the table."""
    if not console.is_terminal:
        yield lines_of(console)
        return
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=total)
        # What is begun is not yet done.
        started = -1

        def advance(words: str) -> None:
            nonlocal started
            started += 1
            bars.update(task, completed=started, description=words)

        yield advance


def lines_of(console: Console) -> Callable[[str], None]:
    """Print what comes before the colon when it changes."""
    last = ""

    def advance(words: str) -> None:
        nonlocal last
        name = words.partition(":")[0]
        if name != last:
            console.print(f"measuring: {name}", highlight=False, markup=False)
        last = name

    return advance
