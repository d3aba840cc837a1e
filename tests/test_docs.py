"""The examples of the README and the guides run as they stand: Python, and the commands of `softplex`.

In a Markdown file, ```python blocks run from top to bottom as one program (those with >>> as doctests), and in
```console blocks each line `$ softplex ...` runs as a process; what stands below it must be what it prints, `...`
standing for anything. Other commands (git, pip, make) are not run, nor is a block below the comment <!-- not run -->.
The examples in docstrings are run by `pytest --doctest-modules`.
"""

import doctest
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from processes import softplex

ROOT = Path(__file__).parents[1]
PAGES = [
    path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))) if path.exists()
]
BLOCK = re.compile(r"^(?P<skip><!-- not run -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if not match["skip"]:
            yield Block(match["language"], match["text"], text.count("\n", 0, match.start("text")))


def run_python(page, block, names):
    if ">>>" not in block.text:
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        return
    example = doctest.DocTestParser().get_doctest(block.text, names, page.name, str(page), block.line)
    report = []
    results = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append, clear_globs=False)
    names.update(example.globs)
    assert results.failed == 0, "".join(report)


def run_console(block, folder):
    """Run the block's commands; the lines between two commands are the output of the first."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        words = shlex.split(command, comments=True)
        if words[0] != "softplex" or words[1:2] == ["demo"]:
            continue
        result = softplex(*words[1:], folder=folder, COLUMNS="100")
        assert result.returncode == 0, (command, result.stderr)
        if expected.strip():
            assert re.fullmatch(pattern_of(expected), " ".join(result.stdout.split())), (command, result.stdout)


def pattern_of(expected):
    """The pattern of an expected output: `...` is anything, and any white space is as good as any other."""
    return ".*".join(re.escape(" ".join(piece.split())) for piece in expected.split("..."))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for block in blocks_of(page):
        if block.language in ("python", "pycon"):
            run_python(page, block, names)
        elif block.language == "console":
            run_console(block, tmp_path)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", ">>> 1 + 1\n3\n"),
        ("python", "assert False\n"),
        ("console", "$ softplex show 5 7 10\nnothing of the kind\n"),
        ("console", "$ softplex show 5 7 10\n... sparsemax ... 0.9465 ... softmax ...\n"),
        ("console", "$ softplex show five\n"),
    ],
)
def test_an_example_that_is_wrong_is_seen(tmp_path, language, text):
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\n```{language}\n{text}```\n")
    (block,) = blocks_of(page)
    with pytest.raises(AssertionError):
        run_python(page, block, {}) if language == "python" else run_console(block, tmp_path)


def test_an_example_that_is_not_to_run_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run -->\n```python\nassert False\n```\n\n```console\n$ make nothing\n$ softplex info\n```\n"
    )
    (block,) = blocks_of(page)
    run_console(block, tmp_path)
