"""The programs in examples/ run to their end, without a warning; those that train, for a few steps only."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STARTING = re.compile(
    r"^(I0000 |WARNING: All log messages before absl::InitializeLog|To enable the following instructions: ).*\n",
    re.MULTILINE,
)
"""What TensorFlow, which Keras imports where it is installed, says of the machine."""

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    source = path.read_text(encoding="utf-8")
    if "import torch" in source and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    if "import keras" in source and not (importlib.util.find_spec("keras") and importlib.util.find_spec("jax")):
        pytest.skip("keras or jax is not installed")
    short = [word for name in ("--steps", "--epochs") if f'"{name}"' in source for word in (name, "3")]
    command = [sys.executable, "-W", "error", str(path), *short]
    here = {**os.environ, "KERAS_BACKEND": "jax"}  # test_keras.py runs it on the others
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False, env=here)
    assert (result.returncode, STARTING.sub("", result.stderr)) == (0, "")
    assert result.stdout
    pictures = list(tmp_path.glob("*.png"))
    assert bool(pictures) == ("savefig" in source)
