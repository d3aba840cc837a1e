"""The two ways in which work on files fails. Their texts are one line, complete as they stand."""


class FileError(Exception):
    """A file that cannot be read, written or made sense of."""


class UsageError(FileError):
    """A request that no file could satisfy, or that would harm one: the caller has to ask differently."""


def needs_package(path: object, package: str, extra: str) -> FileError:
    """The error for a file whose format takes an optional package that is not installed."""
    return FileError(f"{path}: this takes the package {package}; install it with: pip install 'softplex[{extra}]'")


def reason(error: OSError) -> str:
    """What went wrong, without the number and the file name."""
    return error.strerror or str(error)
