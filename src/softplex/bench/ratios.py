"""From raw times to figures: the ratio of each peer to softplex, and whether a goal is reached. Pure functions of data.

A measurement is a dict as it stands in the JSON file (see `suite`); its "times" has a dict for each way of each peer.
A time is the best of its rounds: whatever else runs on a machine can only add to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from softplex.bench.cases import Case, Goal

Measurement = Mapping[str, Any]

LEAST_ALLOWANCE = 2**20
"""Bytes that a thread may take whatever the row's length."""


class Ratio(NamedTuple):
    """A peer's time over softplex's on one shape."""

    value: float
    function: str
    shape: str


# ---- ratios of one measurement


def best(times: Mapping[str, Any]) -> float:
    """The best round of a way, in seconds a call."""
    return float(min(times["seconds"]))


def ways_of(measurement: Measurement, peer: str) -> list[Mapping[str, Any]]:
    """The ways of a peer that have times."""
    return [times for times in measurement.get("times", ()) if times["peer"] == peer and "seconds" in times]


def ratio(measurement: Measurement, peer: str) -> float | None:
    """The peer's best way over softplex's: to a given place if the peer can do that too, otherwise made anew."""
    theirs = ways_of(measurement, peer)
    if not theirs:
        return None
    is_preallocated = any(way["preallocated"] for way in theirs)
    return min(map(best, theirs)) / own_best(measurement, is_preallocated)


def own_best(measurement: Measurement, is_preallocated: bool) -> float:
    """Softplex's time for a result of that kind, or for the one kind that it has."""
    ours = ways_of(measurement, "softplex")
    return min(map(best, [way for way in ours if way["preallocated"] is is_preallocated] or ours))


def function_of(measurement: Measurement) -> str:
    """What a mean is taken for: the function, with a dtype that is not the usual one."""
    usual = measurement["dtype"] == "float32"
    return str(measurement["operation"]) if usual else f"{measurement['operation']} {measurement['dtype']}"


def ratios(measurements: Sequence[Measurement], case: str, peer: str, from_entries: int = 0) -> list[Ratio]:
    """The ratios of a case to a peer, over arrays of at least so many entries."""
    return [
        Ratio(value, function_of(each), each["label"])
        for each in measurements
        if each["case"] == case and each["entries"] >= from_entries and (value := ratio(each, peer)) is not None
    ]


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def means(found: Sequence[Ratio]) -> dict[str, float]:
    """The geometric mean over the shapes for each function."""
    functions = dict.fromkeys(each.function for each in found)
    return {name: geometric_mean([each.value for each in found if each.function == name]) for name in functions}


# ---- goals


def judged(cases: Sequence[Case], measurements: Sequence[Measurement], instructions: str) -> list[dict[str, Any]]:
    """What became of every goal of the cases, in their order."""
    return [judge(case, goal, measurements, instructions) for case in cases for goal in case.goals]


def judge(case: Case, goal: Goal, measurements: Sequence[Measurement], instructions: str) -> dict[str, Any]:
    """One line of the table as data; the figure is None where nothing was measured."""
    target = target_of(goal, instructions)
    found = STATISTICS[goal.statistic](case, goal, measurements)
    return {
        "case": case.name,
        "what": goal.what or case.what,
        "peer": goal.peer,
        "statistic": goal.statistic,
        "functions": len(case.operations) * len(case.dtypes),
        "is a share": isinstance(goal.target, Mapping),
        "target": target,
        **found,
        "reached": is_reached(found["figure"], target, goal.statistic),
    }


def target_of(goal: Goal, instructions: str) -> float | None:
    """The figure that is promised on this instruction set."""
    return goal.target.get(instructions) if isinstance(goal.target, Mapping) else goal.target


def is_reached(figure: float | None, target: float | None, statistic: str) -> bool | None:
    """None where there is no figure or no promise."""
    if figure is None or target is None:
        return None
    return figure <= target if statistic in ("time", "memory") else figure >= target


def of_means(case: Case, goal: Goal, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The lowest of the functions' means, and the worst shape of all."""
    found = ratios(measurements, case.name, goal.peer, goal.from_entries)
    if not found:
        return {"figure": None}
    by_function = means(found)
    lowest = min(by_function, key=lambda name: by_function[name])
    return {"figure": by_function[lowest], "of": lowest, "means": by_function, "worst": min(found)._asdict()}


def of_worst(case: Case, goal: Goal, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The lowest ratio."""
    found = ratios(measurements, case.name, goal.peer, goal.from_entries)
    if not found:
        return {"figure": None}
    return {"figure": min(found).value, "of": min(found).function, "worst": min(found)._asdict()}


def of_times(case: Case, goal: Goal, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Seconds of the slowest shape, the result made anew."""
    return largest((own_best(each, False), each) for each in of_case(measurements, case, "times"))


def of_memory(case: Case, goal: Goal, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Memory beyond the result over what is allowed, the most of all."""
    return largest((rows_beyond(each), each) for each in of_case(measurements, case, "bytes beyond"))


def of_case(measurements: Sequence[Measurement], case: Case, key: str) -> Iterator[Measurement]:
    """The measurements of a case that have such an entry."""
    return (each for each in measurements if each["case"] == case.name and each.get(key) is not None)


def largest(figures: Iterator[tuple[float, Measurement]]) -> dict[str, Any]:
    """The largest figure, and where it was found."""
    figure, where = max(figures, key=lambda pair: pair[0], default=(None, None))
    if figure is None or where is None:
        return {"figure": None}
    worst = Ratio(figure, function_of(where), where["label"])
    return {"figure": figure, "of": worst.function, "worst": worst._asdict()}


def rows_beyond(measurement: Measurement) -> float:
    """Memory beyond the result in rows a thread, a row counting as a MiB where it is shorter."""
    row = max(4 * measurement["row"], LEAST_ALLOWANCE)
    return float(measurement["bytes beyond"] / (measurement["threads"] * row))


STATISTICS: Mapping[str, Callable[[Case, Goal, Sequence[Measurement]], dict[str, Any]]] = {
    "mean": of_means,
    "worst": of_worst,
    "time": of_times,
    "memory": of_memory,
}
