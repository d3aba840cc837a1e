"""The programs in examples/ run to their end, without a warning; those that train, for a few steps only."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    source = path.read_text(encoding="utf-8")
    if "import torch" in source and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    short = ["--steps", "3"] if '"--steps"' in source else []
    command = [sys.executable, "-W", "error", str(path), *short]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout
    pictures = list(tmp_path.glob("*.png"))
    assert bool(pictures) == ("savefig" in source)
