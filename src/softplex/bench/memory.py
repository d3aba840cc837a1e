"""How much memory a call takes beyond its result: the growth of the peak over what lay in memory before.

Each measurement runs in a process of its own (`python -m softplex.bench.memory`), whose scores and place for the result
are there, and touched, before the call. Linux forgets the peak on request; elsewhere the peak since the start is taken,
to which scores and result bring the process without detours. Where the system says neither, nothing is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import softplex as sx
from softplex.bench.cases import Shape
from softplex.bench.inputs import Inputs

STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")


def measure(operation: str, shape: Shape, threads: int) -> int | None:
    """Bytes beyond the result of a map of that name, float32, measured in a process of its own; None: unknown."""
    command = [sys.executable, "-m", __name__, operation, json.dumps(shape.sizes), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    found: int | None = json.loads(done.stdout)
    return found


def growth(operation: str, sizes: tuple[int, ...], threads: int) -> int | None:
    """The growth of this process's peak during a call."""
    sx.set_num_threads(threads)
    chosen = getattr(sx, operation)
    small = Inputs(Shape((64, 1000)))
    chosen(small.x, out=small.out)
    inputs = Inputs(Shape(sizes))
    x, out = inputs.x, inputs.out
    before = resident_now()
    if before is None:
        return None
    chosen(x, out=out)
    after = peak()
    return None if after is None else max(0, after - before)


def resident_now() -> int | None:
    """The bytes that lie in memory, and from now on the peak is reckoned from here."""
    try:
        FORGET.write_text("5", encoding="ascii")
    except OSError:
        return peak()
    return status("VmRSS")


def peak() -> int | None:
    """The most bytes that have lain in memory."""
    return status("VmHWM") or peak_of_usage()


def status(key: str) -> int | None:
    """A line of the process's status, in bytes."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(values[0]) * 1024 if values else None


def peak_of_usage() -> int | None:
    """The peak as the system's accounting has it."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    most: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) * unit


if __name__ == "__main__":
    print(json.dumps(growth(sys.argv[1], tuple(json.loads(sys.argv[2])), int(sys.argv[3]))))
