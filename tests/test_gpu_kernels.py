"""The kernels of GPUs without a GPU: run by Triton's interpreter, and compiled for chips that need not be there.

Triton decides when it is imported whether it interprets, so that each has a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

for name in ("torch", "triton"):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)


def run(tmp_path, name, *arguments, **environment):
    """A file of tests in another process; what it printed, if it failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", HERE / name, *arguments]
    given = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment}
    given.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd=HERE.parent, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


PARTS = ["agree_with_formulas", "not agree_with_formulas and not wrong_kernel", "wrong_kernel"]


@pytest.mark.parametrize("part", PARTS)
def test_kernels_in_the_interpreter(tmp_path, part):
    run(tmp_path, "gpu_interpreted.py", "-k", part, TRITON_INTERPRET="1")


def test_kernels_compile_for_gpus(tmp_path):
    run(tmp_path, "gpu_compiled.py")
