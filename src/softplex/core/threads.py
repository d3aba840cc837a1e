"""How many threads share the blocks of a call, and how they do. What a block computes stands elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

WORTH_IT = 4
"""With fewer blocks than this the calling thread does all the work itself."""


class Threads:
    """The number asked for; one instance below."""

    count: int = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def set_num_threads(n: int) -> None:
    """Let a call use at most n threads. The results do not depend on it.

    Arguments:
        n: at least 1; at the start the number of processors that this process may use.

    Raises:
        TypeError, ValueError: for a number that is not an integer or below 1.

    Example:
        >>> import softplex as sx
        >>> before = sx.get_num_threads()
        >>> sx.set_num_threads(1)
        >>> sx.get_num_threads()
        1
        >>> sx.set_num_threads(before)
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"set_num_threads: {n!r} is not an integer; give how many threads a call may use")
    if n < 1:
        raise ValueError(f"set_num_threads: {n} threads cannot compute; give at least 1")
    Threads.count = n


def get_num_threads() -> int:
    """How many threads a call may use.

    Returns:
        The number last set, at the start that of the processors that this process may use.

    Example:
        >>> import softplex as sx
        >>> sx.get_num_threads() >= 1
        True
    """
    return Threads.count


def for_each(work: Callable[[int], None], starts: Sequence[int]) -> None:
    """Call `work` for every item, on several threads where there is enough to do.

    The pool lives as long as the call, so that a forked child finds none of it; after an error or Ctrl-C nothing new is
    begun.
    """
    if Threads.count == 1 or len(starts) < WORTH_IT:
        for start in starts:
            work(start)
        return
    pool = ThreadPoolExecutor(min(Threads.count, len(starts)))
    try:
        for done in [pool.submit(work, start) for start in starts]:
            done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
