"""The figures for people and for machines: the table, and the JSON file. Nothing is measured or judged here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

HEADINGS = ("what", "against", "ratio", "worst", "promised", "reached")
WORDS = {True: "yes", False: "NO", None: "–"}
STYLES = {True: "green", False: "bold red", None: "dim"}


# ---- the file


def write(found: Mapping[str, Any], path: Path) -> Path:
    """Write the figures; a line for each goal and each measurement, so that files can be compared by eye."""
    lines = [f"{json.dumps(key)}: {_value(key, value)}" for key, value in found.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def _value(key: str, value: Any) -> str:
    if key not in ("goals", "measurements"):
        return json.dumps(value, indent=2, ensure_ascii=False)
    return "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in value) + "\n]"


# ---- the table


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the table, with what it was taken on above and what is missing below it."""
    console.print(taken_on(found), highlight=False, markup=False)
    console.print(table(found))
    for line in remarks(found):
        console.print(line, highlight=False, markup=False)


def taken_on(found: Mapping[str, Any]) -> str:
    """One sentence on the machine and the versions."""
    machine, threads = found["machine"], found["settings"]["threads"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"{found['date']}, {machine['cpu']}, instruction set {machine['instruction set']}, "
        f"{threads} thread{'' if threads == 1 else 's'}, {versions}."
    )


def table(found: Mapping[str, Any]) -> Table:
    """A line a goal."""
    made = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading in ("what", "against", "worst") else "right")
    last = ""
    for goal in found["goals"]:
        what, *cells = shown(goal)
        word = Text(WORDS[goal["reached"]], style=STYLES[goal["reached"]])
        made.add_row("" if what == last else what, *cells, word)
        last = what
    return made


def shown(goal: Mapping[str, Any]) -> list[str]:
    """The cells of a goal's line, but for whether it is reached."""
    return [goal["what"], peer(goal), figure(goal, goal["figure"]), worst(goal), promised(goal)]


def peer(goal: Mapping[str, Any]) -> str:
    """Nobody, where softplex is measured alone."""
    return "–" if goal["peer"] == "softplex" else str(goal["peer"])


def figure(goal: Mapping[str, Any], value: float | None) -> str:
    """A figure in the unit of its goal."""
    if value is None:
        return "not measured"
    if goal["statistic"] == "time":
        return f"{digits(value * 1e6)} µs"
    return f"{value:.0%}" if goal["is a share"] else digits(value)


def digits(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def worst(goal: Mapping[str, Any]) -> str:
    """The worst figure, where it was found, and of which function if there are several."""
    found = goal.get("worst")
    if not found:
        return "–"
    function = f", {found['function']}" if goal["functions"] > 1 else ""
    return f"{figure(goal, found['value'])} ({found['shape']}{function})"


def promised(goal: Mapping[str, Any]) -> str:
    """The target in words."""
    if goal["target"] is None:
        return "–"
    least = "at most" if goal["statistic"] in ("time", "memory") else "at least"
    return f"{least} {figure(goal, goal['target'])}"


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know: what it counts, who is missing, who has threads of its own."""
    lines = [
        "A ratio is the peer's time over softplex's, geometric mean over the shapes; of several functions the lowest."
    ]
    lines += [f"Left out: {name} ({why})" for name, why in found["left out"].items()]
    lines += [f"{name} failed: {why}" for name, why in sorted(failures(found)) if name not in found["left out"]]
    if "JAX" in found["settings"]["threads of"]:
        lines.append(f"JAX has {found['settings']['threads of']['JAX']}.")
    if is_busy(found["machine"]):
        lines.append(
            "The machine was busy at the start; that slows libraries with threads most. Take the figures again."
        )
    unsteady, number = steadiness(found)
    if unsteady > number / 10:
        lines.append(f"{unsteady} of {number} timings were unsteady: other work on the machine makes them doubtful.")
    if any(goal["is a share"] and goal["figure"] is None for goal in found["goals"]):
        size = found["machine"]["last-level cache in bytes"] / 2**20
        lines.append(f"No array measured is beyond the cache ({size:.0f} MiB); --shapes adds larger ones.")
    if found["settings"]["quick"]:
        lines.append("A quick run: few rounds, no large arrays; the figures are rough.")
    return lines


def is_busy(machine: Mapping[str, Any]) -> bool:
    """Whether other processes kept half of the processors busy in the minute before."""
    return bool((machine["load at the start"] or 0.0) >= 0.5 * machine["processors"])


def steadiness(found: Mapping[str, Any]) -> tuple[int, int]:
    """How many timings have a middle round that is half as long again as the best, and how many there are."""
    times = [
        times["seconds"] for each in found["measurements"] for times in each.get("times", ()) if "seconds" in times
    ]
    return sum(median(seconds) > 1.5 * min(seconds) for seconds in times), len(times)


def failures(found: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The peers that could not compute something, and what they raised."""
    times = [times for each in found["measurements"] for times in each.get("times", ())]
    return {(each["peer"], each["failed"]) for each in times if "failed" in each}


def show_path(console: Console, words: str, path: Path) -> None:
    """Where something has been written to."""
    console.print(f"{words}: {path}", highlight=False, markup=False, soft_wrap=True)
