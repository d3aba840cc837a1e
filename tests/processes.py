"""How the tests run the command line: as a process of its own, its width fixed. What is tested is elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "softplex.cli"]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, without what would change the command's output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SOFTPLEX_", "FORCE_COLOR", "COLUMNS"))
    }
    return {**kept, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8", **more}


def softplex(*arguments: object, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `softplex ARGUMENTS` to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def only_error(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a command that failed with `code`, after checking that it is one line and no traceback."""
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (code, 1), (result.returncode, result.stdout, result.stderr)
    assert lines[0].startswith("softplex: error: ")
    assert "Traceback" not in result.stdout
    return lines[0].removeprefix("softplex: error: ")
