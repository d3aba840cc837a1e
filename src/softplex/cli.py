"""The command `softplex`: how it starts, what its errors look like, and its exit codes.

What the commands do is in `commands`. Exit codes: 0 done; 1 failed at work (a file, a missing package, a full disk);
2 wrong usage; 130 interrupted (Ctrl-C); 143 terminated.
Errors are one line on stderr; `softplex --debug ...` or SOFTPLEX_DEBUG=1 shows the traceback instead.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

# Which extra brings a package that a command may find missing.
EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "pyarrow": "cli",
    "sklearn": "demo",
    "matplotlib": "demo",
    "mpl_toolkits": "demo",
    "ml_dtypes": "bfloat16",
}


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code; every failure becomes one line on stderr."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _invoke(arguments)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - this is where a traceback becomes a line
        if "--debug" in arguments or os.environ.get("SOFTPLEX_DEBUG"):
            traceback.print_exc()
        code, text = _explained(error)
        if text:
            print(f"softplex: {text}", file=sys.stderr)
        return code


def _terminate(number: int, frame: FrameType | None) -> None:
    # Raised rather than taken by default, so that temporary files are removed on the way out.
    raise SystemExit(128 + number)


def _invoke(arguments: Sequence[str]) -> int:
    from softplex import commands

    result = commands.command_line().main(list(arguments), prog_name="softplex", standalone_mode=False)
    return _interrupted() if result == INTERRUPTED else int(result or DONE)


def _interrupted() -> int:
    print("softplex: interrupted", file=sys.stderr)
    return INTERRUPTED


def _explained(error: BaseException) -> tuple[int, str]:
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError):
        # Whoever read the output has gone; Python would complain about it once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED, ""
    return _exit_code(error), f"error: {_one_line(error)}"


def _exit_code(error: BaseException) -> int:
    if _is_parser_error(error):
        return WRONG_USAGE
    from softplex.files.errors import UsageError

    return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def _is_parser_error(error: BaseException) -> bool:
    # Typer has moved the classes of its parser from one package to another; what they can do has stayed.
    return hasattr(error, "format_message")


def _one_line(error: BaseException) -> str:
    from softplex.files.errors import FileError

    if isinstance(error, ImportError):
        return _missing_package(error)
    if isinstance(error, FileError):
        return str(error)
    if _is_parser_error(error):
        return _parser_message(error)
    if isinstance(error, MemoryError):
        return "out of memory; softplex apply takes less with a smaller --memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {_first_line(error)} (softplex --debug ... shows where)"


def _parser_message(error: BaseException) -> str:
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context is not None else message


def _missing_package(error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return f"cannot import: {_first_line(error)}"
    return f"the package {package} is missing; install it with: pip install 'softplex[{EXTRAS[package]}]'"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


if __name__ == "__main__":
    main()
