"""softplex.keras on each backend of Keras, which is chosen when it is imported: so each has a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("keras_checks.py")
EXAMPLE = CHECKS.parents[1] / "examples" / "keras_digits.py"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def run(backend, *command):
    environment = {
        **os.environ,
        **QUIET,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_on_the_backend(backend):
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    found = run(backend, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short", str(CHECKS))
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_the_example_runs_on(backend, tmp_path):
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    found = run(backend, str(EXAMPLE), "--epochs", "1", "--out", str(tmp_path))
    assert found.returncode == 0, found.stderr[-4000:]
    assert backend in found.stdout and list(tmp_path.glob("*.png"))


def test_softplex_alone_imports_neither_keras_nor_tensorflow():
    command = "import sys, softplex; assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    assert run("jax", "-c", command).returncode == 0
