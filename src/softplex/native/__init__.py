"""Compiled kernels: the extension for CPUs if it was built, else why not. What they compute stands in C++, in cpu/.

Only an extension that is not there is tolerated: one that cannot be loaded says so when softplex is imported.
"""

from __future__ import annotations

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
