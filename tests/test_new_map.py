"""A throwaway map, added as one file and one line to a copy of the package, gets everything and passes every law.

The map is entmax at alpha = 1.25 in closed pieces, so that the reference knows what it must give.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import softplex

NAME = "quarterpower"
FILE = '''"""quarterpower: entmax at alpha = 1.25, added by a test."""

from __future__ import annotations

from softplex.core.arrays import Array, Namespace
from softplex.core.map import Map
from softplex.core.separable import Separable


def omega(xp: Namespace, p: Array) -> Array:
    """(p^1.25 - p) / 0.3125."""
    return p * (xp.sqrt(xp.sqrt(p)) - 1.0) / 0.3125


def moved(xp: Namespace, p: Array, d: Array) -> Array:
    """(p^(1/4) + d / 4)_+^4."""
    root = xp.maximum(xp.sqrt(xp.sqrt(p)) + 0.25 * d, 0.0)
    return root * root * root * root


def slope(xp: Namespace, p: Array) -> Array:
    """p^(3/4)."""
    root = xp.sqrt(xp.sqrt(p))
    return root * root * root


quarterpower = Map(
    "quarterpower",
    Separable(omega, moved, slope),
    summary="entmax at alpha = 1.25.",
    equation="p_i = (x_i / 4 - tau)_+^4 with sum p = 1;  Omega(p) = sum (p^1.25 - p) / 0.3125",
    source="a test",
    example="""
    >>> quarterpower([0.0, 0.0])
    array([0.5, 0.5])
    """,
)
'''
LINE = "from softplex.maps.quarterpower import quarterpower as quarterpower\n"
SESSION = """
import importlib.util, pickle, pytest, reference, sys
import numpy as np
import softplex as sx

assert [each.__name__ for each in sx.MAPS].count("quarterpower") == 1
assert sx.quarterpower is sx.MAPS[-1] or sx.quarterpower in sx.MAPS
x, y = np.array([[0.3, -1.0, 2.0]]), np.array([[0.25, 0.25, 0.5]])
assert np.allclose(sx.quarterpower(x), sx.entmax(x, alpha=1.25), rtol=1e-13)
for method in ("vjp", "jvp", "loss", "residual"):
    found = getattr(sx.quarterpower, method)(x, y)
    assert np.allclose(found, getattr(sx.entmax, method)(x, y, alpha=1.25), rtol=1e-10) and np.any(found)
for method in ("jacobian", "support_size", "smooth_max"):
    found = getattr(sx.quarterpower, method)(x)
    assert np.allclose(found, getattr(sx.entmax, method)(x, alpha=1.25), rtol=1e-10) and np.any(found)
assert sx.blend({sx.quarterpower: 0.5, sx.softmax: 0.5})(x).sum() > 0.99
if importlib.util.find_spec("torch"):
    import softplex.torch as layers, torch
    rows = torch.tensor(x)
    assert np.allclose(layers.Quarterpower()(rows), sx.quarterpower(x)) and "Quarterpower" in layers.__all__
    assert np.allclose(layers.QuarterpowerLoss()(rows, torch.tensor(y)), sx.quarterpower.loss(x, y))
    assert pickle.loads(pickle.dumps(layers.Quarterpower(0))).dim == 0
if importlib.util.find_spec("keras") and importlib.util.find_spec("jax"):
    import softplex.keras as layers
    layers.register()
    import keras
    assert np.allclose(layers.Quarterpower()(x), sx.quarterpower(x), rtol=1e-5) and "Quarterpower" in layers.__all__
    assert keras.activations.get("quarterpower") is layers.quarterpower
    assert np.allclose(keras.losses.get("quarterpower_loss")(y, x), sx.quarterpower.loss(x, y), rtol=1e-5)
reference.teach("quarterpower", alpha=1.25)
chosen = ["-k", "quarterpower and (numpy or strict)", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
sys.exit(pytest.main([*chosen, "-c", CONFIG, TESTS]))
"""


def add_map(folder):
    """A copy of the package with one file and one line more; how many files differ."""
    package = folder / "softplex"
    source = Path(softplex.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "maps" / f"{NAME}.py").write_text(FILE)
    register = package / "maps" / "__init__.py"
    text = register.read_text()
    last = max(at for at in range(len(text)) if text.startswith("from softplex.maps.", at))
    end = text.index("\n", last) + 1
    register.write_text(text[:end] + LINE + text[end:])


def test_one_file_and_one_line_give_a_map_everything(tmp_path):
    assert len(FILE.splitlines()) <= 60
    add_map(tmp_path)
    tests = Path(__file__).parent
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\naddopts = --import-mode=importlib\npythonpath = {tests}\nfilterwarnings =\n    error\n"
    )
    session = SESSION.replace("CONFIG", repr(str(tmp_path / "pytest.ini"))).replace(
        "TESTS", repr(str(tests / "test_laws.py"))
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tests)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "KERAS_BACKEND": "jax",
    }
    done = subprocess.run(
        [sys.executable, "-c", session],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 150, done.stdout[-1000:]
