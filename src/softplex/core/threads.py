"""How many threads share the blocks of a call, and how they do. What a block computes stands elsewhere."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Sequence

MOST = 65_536


class Threads:
    """The number asked for, one for the whole process."""

    told: list[Callable[[int], None]] = []  # noqa: RUF012 - who else keeps the number
    count: int = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def set_num_threads(n: int) -> None:
    """Let a call use at most n threads. The results do not depend on it. On tensors torch.set_num_threads rules.

    Arguments:
        n: from 1 to 65536; at the start the number of processors that this process may use.

    Raises:
        TypeError, ValueError: for a number that is not an integer or out of range.

    Example:
        >>> import softplex as sx
        >>> before = sx.get_num_threads()
        >>> sx.set_num_threads(1)
        >>> sx.get_num_threads()
        1
        >>> sx.set_num_threads(before)
    """
    try:
        count = operator.index(n)
    except TypeError:
        count = None
    if count is None or isinstance(n, bool):
        raise TypeError(f"set_num_threads: {n!r} is not an integer; give how many threads a call may use")
    if count < 1:
        raise ValueError(f"set_num_threads: {n} threads cannot compute; give at least 1")
    if count > MOST:
        raise ValueError(f"set_num_threads: {n} threads are more than any call uses; give at most {MOST}")
    Threads.count = count
    for tell in Threads.told:
        tell(count)


def get_num_threads() -> int:
    """How many threads a call may use. On tensors torch.get_num_threads says it.

    Returns:
        The number last set, at the start that of the processors that this process may use.

    Example:
        >>> import softplex as sx
        >>> sx.get_num_threads() >= 1
        True
    """
    return Threads.count


def for_each(work: Callable[[int], None], starts: Sequence[int], threads: int) -> None:
    """Call `work` for every item, on that many threads with the calling one.

    The threads live as long as the call, so that a forked child finds none of them. After an error or Ctrl-C nothing
    new is begun. Where no thread can be started, as at the end of the process, the calling thread does it all.
    """
    queue, lock, failures, is_stopped = iter(starts), threading.Lock(), list[BaseException](), threading.Event()

    def next_start() -> int | None:
        with lock:
            return None if is_stopped.is_set() else next(queue, None)

    def work_through() -> None:
        while (start := next_start()) is not None:
            work(start)

    def help_out() -> None:
        try:
            work_through()
        except BaseException as error:  # noqa: BLE001 - it is raised in the calling thread
            failures.append(error)
            is_stopped.set()

    helpers = started(help_out, min(threads, len(starts)) - 1)
    try:
        work_through()
    finally:
        is_stopped.set()
        for helper in helpers:
            helper.join()
    if failures:
        raise failures[0]


def started(target: Callable[[], None], count: int) -> list[threading.Thread]:
    """As many running threads as can be had, at most `count`."""
    running: list[threading.Thread] = []
    for _ in range(count):
        thread = threading.Thread(target=target, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            break
        running.append(thread)
    return running
