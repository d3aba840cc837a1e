"""What an extra of softplex asks for, a line each, softplex's own other extras followed: `requirements.py dev`.

pip has no option for installing that alone. The versions stand in pyproject.toml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWN = re.compile(r"softplex\[([\w,-]+)\]")


def requirements(project: dict[str, Any], extra: str) -> Iterator[str]:
    """The requirements of an extra, other than softplex."""
    for each in project["optional-dependencies"][extra]:
        own = OWN.fullmatch(each)
        if own is None:
            if each.startswith("softplex"):
                raise SystemExit(f"requirements.py: {each!r} is not softplex[extra, ...]")
            yield each
            continue
        for other in own[1].split(","):
            yield from requirements(project, other)


def main() -> None:
    """Print those of softplex and of the extra that is named."""
    project = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    if len(sys.argv) != 2:
        raise SystemExit(f"requirements.py: name an extra, one of {', '.join(project['optional-dependencies'])}")
    print("\n".join(dict.fromkeys([*project["dependencies"], *requirements(project, sys.argv[1])])))


if __name__ == "__main__":
    main()
