"""Compiled kernels: the extension for CPUs if it was built, else why not. What they compute stands in C++, in cpu/.

Only an extension that is not there is tolerated: one that cannot be loaded says so when softplex is imported.
"""

from __future__ import annotations

import threading
from importlib import import_module
from types import ModuleType

from softplex.core.threads import Threads

EXTENSION = "softplex.native._cpu"


def load() -> tuple[ModuleType | None, str]:
    """The extension, and why there is none."""
    try:
        return import_module(EXTENSION), ""
    except ModuleNotFoundError as error:
        if error.name != EXTENSION:
            raise
        return None, "softplex was installed without its compiled kernels"


cpu, reason = load()
if cpu is not None:
    cpu.set_threads(Threads.count)
    Threads.told.append(cpu.set_threads)


class Chosen(threading.local):
    """What a thread has chosen, for kernels that are not the extension's."""

    formulas_only = False


chosen = Chosen()


def formulas_only() -> bool:
    """Whether this thread is to use formulas alone."""
    return chosen.formulas_only
