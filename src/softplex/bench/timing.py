"""A fair timer: contestants take turns within one run, so that a change of the machine's pace meets them all alike.

Each round times every contestant once, for a stretch of calls that lasts some milliseconds; before a stretch there is
a pause, in which the threads of the one before stop spinning, and a call that does not count. The garbage collector is
off. Nothing is summed up here: all times are kept (see `ratios`).
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

Call = Callable[[], Any]

FEWEST_ROUNDS = 2
LONG = 0.1
"""Seconds from which on a stretch needs no call before it."""


@dataclass(frozen=True)
class Effort:
    """How long to measure. A contestant that would take longer than `most` has fewer rounds, the first ones."""

    rounds: int
    stretch: float  # seconds
    most: float  # seconds
    pause: float  # seconds


FULL = Effort(rounds=15, stretch=0.003, most=3.0, pause=0.005)
QUICK = Effort(rounds=3, stretch=0.001, most=0.3, pause=0.002)


class Trial(NamedTuple):
    """What the first calls have shown: how many fill a stretch, and how long that lasts."""

    loops: int
    seconds: float


class Times(NamedTuple):
    """Seconds a call, one figure a round, each the mean over so many calls."""

    loops: int
    seconds: list[float]


def compete(calls: Sequence[Call], effort: Effort = FULL) -> list[Times]:
    """Time the calls in turns.

    Arguments:
        calls: functions without arguments.
        effort: how long.

    Returns:
        The times of each.
    """
    with collection_paused():
        trials = [tried(call, effort) for call in calls]
        found = [Times(trial.loops, []) for trial in trials]
        for turn in range(effort.rounds):
            for i in rotated(len(calls), turn):
                if turn < affordable(trials[i], effort):
                    found[i].seconds.append(stretch(calls[i], trials[i], effort))
    return found


def tried(call: Call, effort: Effort) -> Trial:
    """Find how many calls fill a stretch; whatever happens at a first call is over then."""
    call()
    loops = 1
    while (seconds := undisturbed(call, loops)) < effort.stretch:
        loops = max(2 * loops, int(0.5 * loops * effort.stretch / max(seconds, 1e-9)))
    return Trial(loops, seconds)


def undisturbed(call: Call, loops: int) -> float:
    """Seconds of so many calls, the better of two tries: one that another process disturbs would promise too much."""
    seconds = seconds_of(call, loops)
    return seconds if seconds >= LONG else min(seconds, seconds_of(call, loops))


def affordable(trial: Trial, effort: Effort) -> int:
    """How many rounds a contestant may have."""
    return max(FEWEST_ROUNDS, min(effort.rounds, int(effort.most / trial.seconds)))


def stretch(call: Call, trial: Trial, effort: Effort) -> float:
    """Seconds a call over a stretch of calls, after a pause and a call that does not count."""
    time.sleep(effort.pause)
    if trial.seconds < LONG:
        call()
    return seconds_of(call, trial.loops) / trial.loops


def seconds_of(call: Call, loops: int) -> float:
    """Seconds of so many calls."""
    repeats = itertools.repeat(None, loops)
    start = time.perf_counter()
    for _ in repeats:
        call()
    return time.perf_counter() - start


def rotated(number: int, turn: int) -> list[int]:
    """The order of a round: another contestant begins each time."""
    return [(turn + i) % number for i in range(number)]


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection within the block."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
