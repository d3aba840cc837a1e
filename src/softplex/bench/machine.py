"""What the figures were taken on: processor, caches, versions. Nothing is measured here."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import softplex as sx

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHE = 32 * 2**20
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def today() -> str:
    """The date, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def described() -> dict[str, Any]:
    """The machine and what ran on it at the start."""
    return {
        "cpu": cpu_model(),
        "processors": processors(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "instruction set": instruction_set(),
        "last-level cache in bytes": last_level_cache(),
        "load at the start": load(),
    }


def versions() -> dict[str, str]:
    """What every run has; the peers' are added to it."""
    return {"softplex": sx.__version__, "numpy": np.__version__, "python": platform.python_version()}


def instruction_set() -> str:
    """The one in use; the environment variable SOFTPLEX_INSTRUCTIONS chooses another."""
    return str(sx.info()["instruction set"])


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_level_cache() -> int:
    """Bytes of the largest cache that the first processor sees, 32 MiB where the system does not say."""
    try:
        texts = [path.read_text(encoding="ascii").strip() for path in CACHES.glob("index*/size")]
        return max(int(text[:-1]) * UNITS[text[-1]] for text in texts)
    except (OSError, ValueError, KeyError, IndexError):
        return USUAL_CACHE


def load() -> float | None:
    """How many processes have run on average within the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
