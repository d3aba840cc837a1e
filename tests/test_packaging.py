"""How softplex is built: without a compiler, beside its sources, as sources. No kernel is compiled here."""

import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ["CMakeLists.txt", "LICENSE", "README.md", "packaging", "pyproject.toml", "src"]
NOT_COPIED = shutil.ignore_patterns("*.so", "__pycache__")
IMPORT = "import sys; sys.path.insert(0, 'packaging'); import softplex_build as backend\n"
BUILD = IMPORT + "print(getattr(backend, sys.argv[1])('.'))"
EXTRACT = IMPORT + "import pathlib; backend.extract_extension(pathlib.Path('made.whl'))"
SAY = "import softplex as sx; print(sx.info()['instruction set'], sx.softmax([1.0, 1.0]))"

NO_COMPILER = {"CXX": "/there/is/none"}
NO_CMAKE = {"PATH": "", **NO_COMPILER}
MISSING = pytest.mark.parametrize("missing", [NO_COMPILER, NO_CMAKE], ids=["compiler", "cmake"])

EXTENSION = f"softplex/native/_cpu{importlib.machinery.EXTENSION_SUFFIXES[0]}"


@pytest.fixture
def project(tmp_path):
    for part in map(ROOT.joinpath, PARTS):
        if part.is_dir():
            shutil.copytree(part, tmp_path / part.name, ignore=NOT_COPIED)
        else:
            shutil.copy(part, tmp_path)
    return tmp_path


def build(project, what, **more):
    """The process that asked the backend for something, and the file that it made."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOFTPLEX_", "SKBUILD", "CMAKE"))}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{what}"],
        capture_output=True, text=True, cwd=project, env={**kept, **more}, timeout=300, check=False,
    )  # fmt: skip
    return done, project / (done.stdout.splitlines() or [""])[-1]


@MISSING
def test_what_is_missing_leaves_pure_python(project, missing):
    done, wheel = build(project, "wheel", **missing)
    assert done.returncode == 0, done.stderr
    assert "built without its compiled kernels" in done.stdout
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"softplex/py.typed", "softplex/native/_cpu.pyi"} <= names
    assert [name for name in names if not name.endswith((".py", ".pyi")) and ".dist-info/" not in name] == [
        "softplex/py.typed"
    ]
    zipfile.ZipFile(wheel).extractall(project / "installed")
    here = {**os.environ, "PYTHONPATH": str(project / "installed")}
    said = subprocess.check_output([sys.executable, "-c", SAY], cwd=project, env=here, text=True).strip()
    assert re.fullmatch(r"none: .*without its compiled kernels.* \[0\.5 0\.5\]", said)


@MISSING
@pytest.mark.parametrize("what", ["wheel", "editable"])
def test_an_install_may_insist_on_kernels(project, what, missing):
    done, _ = build(project, what, SOFTPLEX_REQUIRE_NATIVE="1", **missing)
    assert done.returncode == 1
    assert "SOFTPLEX_REQUIRE_NATIVE" in done.stderr.splitlines()[-1]
    assert not list(project.glob("*.whl"))


def test_an_editable_install_is_a_path(project):
    stale = project / "src" / EXTENSION
    stale.write_bytes(b"of an earlier install")
    done, wheel = build(project, "editable", SOFTPLEX_PURE_PYTHON="1")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("softplex.pth").decode() == f"{project / 'src'}\n"
        record = archive.read(next(name for name in names if name.endswith("/RECORD"))).decode()
    assert [name for name in names if ".dist-info/" not in name] == ["softplex.pth"]
    assert [line.split(",")[0] for line in record.splitlines()] == names
    assert not stale.exists()


def test_the_extension_of_a_wheel_comes_to_lie_beside_its_sources(project):
    place = project / "src" / EXTENSION
    place.write_bytes(b"old")
    with zipfile.ZipFile(project / "made.whl", "w") as archive:
        archive.writestr(EXTENSION, b"new")
        archive.writestr("softplex/__init__.py", b"not taken")
    with place.open("rb") as in_use:
        subprocess.run([sys.executable, "-c", EXTRACT], cwd=project, check=True)
        assert (place.read_bytes(), in_use.read()) == (b"new", b"old")
    assert (project / "src/softplex/__init__.py").read_bytes() != b"not taken"


def test_the_sources_are_those_of_a_build(project):
    (project / "src" / EXTENSION).write_bytes(b"made by an editable install")
    done, archive = build(project, "sdist")
    assert done.returncode == 0, done.stderr
    with tarfile.open(archive) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert files - names == {f"src/{EXTENSION}", archive.name}
