"""The lint of stilted phrases finds them where people read them, and reports the right line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check import prose

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts/check/prose.py"
PYTHON = '''"""First line.

The order is
    no list of files.

    Bit

for bit: another paragraph.
"""

raise ValueError(
    f"{value} is no {kind}; "  # a comment about nothing
    "the setting stands "
    f"twice, and {', '.join(n for n in names)} lies "
    "below {braces}"
)
log(f"""{value}
    goes
    on""")
# A comment that
# goes on for two lines.
first = 1  # one that goes
second = 2  # on another statement
print(f"{'where nobody' if many else 'one'}")
KEY = "told"
PATTERN = rb"told to no one"
'''
FOUND_IN_PYTHON = [
    (3, "is no l"),
    (12, "is no x"),
    (13, "stands twice"),
    (14, "lies below"),
    (18, "goes on"),
    (21, "goes on"),
    (24, "where nobody"),
]
MARKDOWN = """# A page

The folder is
no list, and `this is
no list` is code.

```bash
echo "told"  # in silence
```

~~~~text
in silence
~~~
told
~~~~

> A quotation goes
> on here.

- A point stands
  twice. ``told ` told``
"""
FOUND_IN_MARKDOWN = [(3, "is no l"), (17, "goes on"), (20, "stands twice")]
SHELL = """#!/usr/bin/env bash
# The file that
#   nobody wants.
echo "error: $name is told" >&2
"""


def found_in(path: Path, content: str) -> list[tuple[int, str]]:
    path.write_text(content)
    found = []
    for line in prose.findings(path, prose.read_rules()):
        place, _, rest = line.removeprefix(f"{path}:").partition(": ")
        found.append((int(place), rest.split(": write ")[0].strip("'")))
    return found


def test_strings_docstrings_and_comments_of_python(tmp_path: Path) -> None:
    assert found_in(tmp_path / "code.py", PYTHON) == FOUND_IN_PYTHON


def test_pages_without_code(tmp_path: Path) -> None:
    assert found_in(tmp_path / "page.md", MARKDOWN) == FOUND_IN_MARKDOWN


@pytest.mark.parametrize("name", ["script.sh", "settings.yaml", "settings.toml", "page.js"])
def test_other_files_are_read_whole(tmp_path: Path, name: str) -> None:
    assert found_in(tmp_path / name, SHELL) == [(2, "that nobody"), (4, "told")]


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("def computing():\n    pass", True),
        ("class told:\n    pass", True),
        ("class A:\n    def third(self):\n        pass", True),
        ("third = 3", True),
        ("_HOMES: dict = {}", True),
        ("class A:\n    @property\n    def padded(self):\n        pass", False),
        ("class A:\n    padded: bool", False),
        ("def f():\n    padded = 1", False),
        ("def compute():\n    pass", False),
    ],
)
def test_names(tmp_path: Path, code: str, is_found: bool) -> None:
    (tmp_path / "code.py").write_text(code)

    found = prose.findings(tmp_path / "code.py", prose.read_rules())

    assert [": the name '" in line for line in found] == [True] * is_found


def test_status_and_output_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text("Plain.\n\nIt goes on.\n")
    (tmp_path / "good.md").write_text("It continues.\n")
    (tmp_path / "broken.py").write_text("def (:\n")

    def run(*names: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, SCRIPT, *names], cwd=tmp_path, capture_output=True, text=True
        )

    bad = run("good.md", "bad.md")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert bad.stdout == "bad.md:3: 'goes on': write continues; resumes\n"
    good = run("good.md")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    for name in ("absent.md", "broken.py"):
        refused = run(name)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"prose: error: {name} can't be read: ")


def test_excluded_files_are_left_out_even_if_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = SCRIPT.with_suffix(".yaml")

    assert prose.main([str(rules)]) == 0
    assert capsys.readouterr().out == ""


def test_the_whole_project_is_checked_without_tests() -> None:
    checked = {path.relative_to(ROOT).as_posix() for path in prose.project_files()}

    assert {"README.md", "pyproject.toml", "docs/swap.md", "eah/method.py", "scripts/test.sh",
            "configs/judge.yaml", "eval/pope_eval.py", "models/base.py"} <= checked  # fmt: skip
    assert not any(name.startswith(("tests/", ".venv/")) for name in checked)
