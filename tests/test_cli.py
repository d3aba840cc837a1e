"""The command line as its users meet it: run as a process, judged by output, exit codes and what it leaves behind."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy_format

import softplex as sx
from processes import COMMAND, environment, only_error, softplex

ROOT = Path(__file__).parents[1]
MEGABYTE = 10**6
COMMANDS = ("demo", "show", "apply", "plot", "bench", "info")


def save_zeros(path, shape, first_rows=None, dtype="<f8"):
    """A .npy file that takes no room on the disk but for its first rows."""
    with open(path, "wb") as file:
        npy_format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        start = file.tell()
        if first_rows is not None:
            file.write(first_rows.astype(dtype).tobytes())
        file.truncate(start + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return path


def prepared(preamble, *arguments):
    """The command that runs Python statements first and then `softplex ARGUMENTS`."""
    code = f"{preamble}\nfrom softplex.cli import main\nmain()"
    return [sys.executable, "-c", code, *map(str, arguments)]


# ---- help, version, wrong usage


def test_the_console_script_is_the_tested_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["softplex"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert module == COMMAND[-1]


def test_version():
    assert softplex("--version").stdout == f"softplex {sx.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(arguments):
    result = softplex(*arguments)
    assert result.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\s+[A-Z]", result.stdout, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(command):
    result = softplex(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"softplex {command}" in result.stdout.partition("Usage")[2].partition("\n")[2]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["--bogus"], "No such option"),
        (["show"], "Missing argument"),
        (["show", "5", "seven"], "score 'seven' is not a number"),
        (["show", "5", "--bogus", "1"], "no such option: --bogus"),
        (["show", "5", "--temperature", "warm"], "Invalid value for '--temperature'"),
        (["show", "5", "7", "--temperature", "0"], "temperature"),
        (["apply", "sparsemax", "in.npy"], "Missing argument"),
        (
            ["apply", "sparsmax", "in.npy", "out.npy"],
            "no map is called 'sparsmax'; did you mean sparsemax? maps are softmax",
        ),
        (
            ["apply", "softmax", "in.npy", "out.npy", "--alpha", "2"],
            "softmax takes no --alpha; these do: entmax, normmax",
        ),
        (["apply", "softmax", "in.npy", "out.txt"], ".txt is no known format"),
        (["apply", "softmax", "in.npy", "out.npy", "--axis", "x"], "Invalid value for '--axis'"),
        (["apply", "softmax", "in.npy", "out.npy", "--axis", "5"], "axis 5 is out of bounds"),
        (["apply", "softmax", "in.npy", "out.npy", "--top-k", "0"], "--top-k is 0"),
        (["apply", "softmax", "in.npy", "out.npy", "--temperature", "-1"], "temperature"),
        (["apply", "entmax", "in.npy", "out.npy", "--alpha", "0.5"], "alpha"),
        (["apply", "budget", "in.npy", "out.npy", "--budget", "99"], "budget"),
        (["apply", "softmax", "in.npy", "out.npy", "--output", "dens"], "Invalid value for '--output'"),
        (["apply", "softmax", "in.npy", "out.npy", "--output", "sparse"], ".npy holds one array"),
        (["apply", "log_softmax", "in.npy", "out.npz", "--output", "sparse"], "log_softmax gives logarithms"),
        (["apply", "log_softmax", "in.npy", "out.npz", "--top-k", "2"], "log_softmax gives logarithms"),
        (["apply", "softmax", "in.npy", "in.npy", "--force"], "is INPUT itself"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(tmp_path, arguments, problem):
    np.save(tmp_path / "in.npy", np.zeros((3, 4)))
    assert problem in only_error(softplex(*arguments, folder=tmp_path), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.npy", None, "missing.npy: does not exist"),
        ("bad.npy", b"nonsense", "bad.npy: is not a readable .npy array"),
        ("bad.csv", b"a,b\n1,2\n3,x\n", "bad.csv: row 3, column 2 (b): 'x' is not a number"),
        ("bad.parquet", b"nonsense", "bad.parquet: is not a readable .parquet file"),
    ],
)
def test_a_failure_at_work_is_one_line_and_code_1(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert problem in only_error(softplex("apply", "softmax", name, "out.npy", folder=tmp_path), 1)
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(("arguments", "more"), [(["--debug"], {}), ([], {"SOFTPLEX_DEBUG": "1"})])
def test_debug_shows_the_traceback(tmp_path, arguments, more):
    result = softplex(*arguments, "apply", "softmax", "missing.npy", "out.npy", folder=tmp_path, **more)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "softplex: error: missing.npy: does not exist"


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("typer", "cli", ["info"]),
        ("rich", "cli", ["info"]),
        ("pyarrow", "cli", ["apply", "softmax", "in.npy", "out.parquet"]),
        ("ml_dtypes", "bfloat16", ["apply", "softmax", "in.safetensors", "out.npy"]),
        ("matplotlib", "demo", ["plot"]),
    ],
)
def test_a_missing_extra_is_named(tmp_path, package, extra, arguments):
    (tmp_path / "hidden").mkdir()
    missing = f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')"
    (tmp_path / "hidden" / f"{package}.py").write_text(missing)
    np.save(tmp_path / "in.npy", np.zeros((3, 4)))
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (tmp_path / "in.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    path = os.pathsep.join(filter(None, [str(tmp_path / "hidden"), os.environ.get("PYTHONPATH")]))
    error = only_error(softplex(*arguments, folder=tmp_path, PYTHONPATH=path), 1)
    assert f"the package {package}" in error
    assert f"pip install 'softplex[{extra}]'" in error
    assert not (tmp_path / "out.parquet").exists()


# ---- show, info


def numbers_of(output, name):
    """The numbers in the first line of `show` that begins with a map's name."""
    line = next(line for line in output.splitlines() if line.strip().startswith(f"{name} "))
    return line.split()[1:]


def test_show_has_every_map_and_the_known_weights():
    result = softplex("show", 5, 7, 10)
    assert (result.returncode, result.stderr) == (0, "")
    assert numbers_of(result.stdout, "softmax") == ["0.0064", "0.0471", "0.9465"]
    assert numbers_of(result.stdout, "sparsemax") == ["0", "0", "1.0000"]
    assert result.stdout.splitlines()[-1] == "maxout: 10"
    for each in sx.MAPS:
        assert re.search(rf"^ {each.name}\b", result.stdout, re.MULTILINE), each.name
    assert "█" in result.stdout


@pytest.mark.parametrize(
    "arguments", [["-2", "0", "0.5"], ["--", "-2", "0", "0.5"], ["-2", "0", "--temperature", "1", "0.5"]]
)
def test_show_takes_negative_scores(arguments):
    assert numbers_of(softplex("show", *arguments).stdout, "entmax15") == ["0", "0.3260", "0.6740"]


def test_show_passes_its_options_on():
    output = softplex("show", 1, 2, 4, "--temperature", 2, "--alpha", 1.3, "--budget", 1.5).stdout
    for label, expected in {
        "softmax": sx.softmax([1, 2, 4], temperature=2.0),
        "entmax(alpha=1.3)": sx.entmax([1, 2, 4], alpha=1.3, temperature=2.0),
        "budget(budget=1.5)": sx.budget([1, 2, 4], budget=1.5, temperature=2.0),
    }.items():
        np.testing.assert_allclose(np.array(numbers_of(output, label), float), expected, atol=5e-5, rtol=0)


def test_show_says_which_map_does_not_take_a_parameter():
    result = softplex("show", 1, 2, 4, "--alpha", "inf")
    assert result.returncode == 0
    assert numbers_of(result.stdout, "entmax(alpha=inf)") == ["0", "0", "1.0000"]
    assert re.search(r"^normmax\(alpha=inf\): .*alpha", result.stdout, re.MULTILINE)


def test_show_of_many_scores_and_of_infinities():
    output = softplex("show", *range(30), "-inf").stdout
    assert max(map(len, output.splitlines())) <= 100
    assert "-inf" in output
    assert numbers_of(softplex("show", 1, "-inf").stdout, "sparsemax") == ["1.0000", "0"]


def test_show_without_unicode():
    output = softplex("show", 5, 7, 10, PYTHONIOENCODING="ascii").stdout
    assert "###" in output
    assert output.isascii()


def test_info():
    output = softplex("info").stdout
    assert sx.__version__ in output
    assert np.__version__ in output
    assert all(name.replace("_", " ") in output for name in sx.info())


# ---- apply


def test_apply_agrees_with_the_library_and_says_what_it_did(tmp_path):
    scores = np.random.default_rng(0).normal(size=(100, 7)).astype(np.float32)
    scores[5, 2] = np.nan
    np.save(tmp_path / "in.npy", scores)
    arguments = ["apply", "entmax", "in.npy", "out.npz", "--alpha", 1.3, "--temperature", 0.5, "--axis", 0]
    result = softplex(*arguments, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "out.npz: 7 rows weighed of which 1 row held NaN or +inf and became NaN\n"
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npz")["weights"], sx.entmax(scores, axis=0, alpha=1.3, temperature=0.5)
    )
    assert "exists; add --force" in only_error(softplex(*arguments, folder=tmp_path), 2)
    assert softplex(*arguments, "--force", folder=tmp_path).returncode == 0


def test_apply_with_little_memory_says_what_to_raise(tmp_path):
    save_zeros(tmp_path / "in.npy", (3, 10_000))
    error = only_error(softplex("apply", "softmax", "in.npy", "out.npy", "--memory", 1, folder=tmp_path), 2)
    assert "a row along axis 1 has 10,000 entries" in error
    assert "--memory 1" in error
    assert softplex("apply", "softmax", "in.npy", "out.npy", "--memory", 2, folder=tmp_path).returncode == 0


@pytest.mark.parametrize("each", sx.MAPS, ids=lambda each: each.name)
def test_apply_takes_every_map(tmp_path, each):
    scores = np.random.default_rng(1).normal(size=(6, 5))
    np.save(tmp_path / "in.npy", scores)
    hyper = {"budget": 2.0} if "budget" in each.parameters else {}
    options = [part for name, value in hyper.items() for part in (f"--{name}", value)]
    result = softplex("apply", each.name, "in.npy", "out.npy", *options, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), each(scores, **hyper))


# A process counts what its parent held when it was forked, so the parent is a small one.
WAITING = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr, stdin=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def peak_memory(arguments, folder):
    """Run `softplex ARGUMENTS` and give the exit code and the most bytes that lay in memory at once."""
    with open(folder / "log", "wb") as log:
        process = subprocess.run(
            [sys.executable, "-c", WAITING, *COMMAND, *map(str, arguments)],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    code, peak = map(int, process.stdout.split())
    return code, peak * (1 if sys.platform == "darwin" else 1024)


def test_a_file_of_3_gb_takes_less_than_1_gb_of_memory(tmp_path):
    width = 1024
    rows = 3 * 2**30 // (width * 8)
    scores = np.random.default_rng(0).normal(size=(100, width))
    source = save_zeros(tmp_path / "in.npy", (rows, width), scores)
    assert source.stat().st_size > 3 * 2**30
    try:
        arguments = ["apply", "softmax", "in.npy", "out.npz", "--output", "sparse", "--top-k", 1]
        code, peak = peak_memory(arguments, tmp_path)
        log = (tmp_path / "log").read_text()
    finally:
        source.unlink()
    assert (code, log[:30]) == (0, f"out.npz: {rows:,} rows weighed ")
    assert peak < 1000 * MEGABYTE
    parts = np.load(tmp_path / "out.npz")
    assert tuple(parts["shape"]) == (rows, width)
    np.testing.assert_array_equal(parts["indptr"], np.arange(rows + 1))
    np.testing.assert_array_equal(parts["indices"][:100], scores.argmax(axis=1))
    np.testing.assert_array_equal(parts["weights"][:100], sx.softmax(scores).max(axis=1))
    np.testing.assert_array_equal(parts["indices"][100:], 0)
    np.testing.assert_array_equal(parts["weights"][100:], 1 / width)


@pytest.mark.parametrize("output", ["out.npy", "out.parquet", "out.safetensors"])
def test_dense_output_is_streamed_too(tmp_path, output):
    rows, width = 200_000, 256
    save_zeros(tmp_path / "in.npy", (rows, width), dtype="<f4")
    code, peak = peak_memory(["apply", "softmax", "in.npy", output], tmp_path)
    assert code == 0
    assert peak < 400 * MEGABYTE < 2 * rows * width * 4
    (tmp_path / output).unlink()


# ---- interrupted and failed runs


def wait_for_part(process, folder):
    """Wait until the command has begun to write its output."""
    while not any(path.stat().st_size for path in folder.glob(".out*.part")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize("output", ["out.npy", "out.npz", "out.parquet"])
@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "softplex: interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_an_interrupted_run_leaves_nothing(tmp_path, output, number, code, message):
    source = save_zeros(tmp_path / "in.npy", (2**18, 512))
    size, changed = source.stat().st_size, source.stat().st_mtime_ns
    # Whoever started the tests in the background may have had SIGINT ignored, which is inherited.
    usual_signals = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        prepared(usual_signals, "apply", "softmax", "in.npy", output),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_part(process, tmp_path)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (code, "", message)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]
    assert (source.stat().st_size, source.stat().st_mtime_ns) == (size, changed)


@pytest.mark.parametrize("output", ["out.npy", "out.npz", "out.safetensors", "out.parquet", "out.csv"])
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, output, form):
    if (output, form) == ("out.npy", "sparse"):
        return
    np.save(tmp_path / "in.npy", np.random.default_rng(0).normal(size=(50_000, 16)))
    small_files = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    result = subprocess.run(
        prepared(small_files, "apply", "softmax", "in.npy", output, "--output", form),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert only_error(result, 1) == f"{output}: cannot be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "show", *map(str, range(200))],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


# ---- a map with a parameter of its own

RIDGE = """
import softplex as sx, softplex.maps
from softplex.core.formula import Parameter
from softplex.core.map import Map
from softplex.core.separable import Separable
ridge = Map("ridge", Separable(
    lambda xp, p, strength: strength * p * (p - 1.0),
    lambda xp, p, d, strength: xp.maximum(p + d / (2.0 * strength), 0.0),
    lambda xp, p, strength: xp.astype(p > 0.0, xp.working) / (2.0 * strength),
    parameters=(Parameter("strength", None, 0.1, 10.0),),
))
sx.MAPS = softplex.maps.MAPS = (*sx.MAPS, ridge)
sx.ridge = ridge
"""


def run_with_ridge(*arguments):
    return subprocess.run(
        prepared(RIDGE, *arguments), capture_output=True, text=True, env=environment(), check=False, timeout=120
    )


def test_show_finds_a_number_for_a_parameter_it_has_never_seen():
    done = run_with_ridge("show", "1", "2")
    assert done.returncode == 0 and "ridge(strength=2.1)" in done.stdout
    done = run_with_ridge("show", "1", "2", "--set", "strength=0.5")
    assert "ridge(strength=0.5)" in done.stdout


def test_apply_sets_a_parameter_without_an_option_of_its_own(tmp_path):
    scores = np.array([[1.0, 2.0, 1.5]])
    np.save(tmp_path / "scores.npy", scores)
    files = (str(tmp_path / "scores.npy"), str(tmp_path / "weights.npy"))
    done = run_with_ridge("apply", "ridge", *files)
    assert done.returncode == 2 and "--set strength=" in done.stderr
    done = run_with_ridge("apply", "ridge", *files, "--set", "strength=0.5")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(files[1]), sx.sparsemax(scores))


@pytest.mark.parametrize("setting", ["strength=2", "alpha=warm", "alpha"])
def test_a_setting_that_is_none(setting):
    assert setting in only_error(softplex("show", "1", "2", "--set", setting), 2)
