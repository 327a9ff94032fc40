"""The judge's prompt: a text with four places, or the benchmark's script with it inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.tasks.mmhal.template import read_template
from tests.eval.mmhal_inputs import TEMPLATE, write


def test_texts_stand_where_format_would_put_them(tmp_path: Path) -> None:
    template = read_template(write(tmp_path / "t.txt", TEMPLATE))

    assert template.fill("a", "b", "c", "d") == TEMPLATE.format("a", "b", "c", "d")


def test_braces_in_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    template = read_template(write(tmp_path / "t.txt", "{}|{}|{}|{}"))

    assert template.fill("{}", "{0}", "{{", "}") == "{}|{0}|{{|}"


def test_the_script_is_read_and_not_run(tmp_path: Path) -> None:
    script = f"import no_such_module\ntemplate = '''{TEMPLATE}'''\nraise SystemExit(1)\n"

    found = read_template(write(tmp_path / "eval_gpt_mmhal.py", script))

    assert found == read_template(write(tmp_path / "t.txt", TEMPLATE))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.txt", "{} {} {}", "has 3 fields; four {} are needed, for the labels, the question"),
        ("t.txt", "", "has 0 fields"),
        ("t.txt", "{} {} {} {} {}", "has 5 fields"),
        ("t.txt", "{question} {} {} {}", "has the field {question}, which is not filled"),
        ("t.txt", "{0} {1} {2} {3}", "has the field {0}"),
        ("t.txt", "{:>9} {} {} {}", "which is not filled"),
        ("t.txt", "{} {} {} {!r}", "which is not filled"),
        ("t.txt", "{} {} {} {} }", "is not a template (Single '}' encountered in format string)"),
        ("t.txt", "{} {} {} {", "is not a template"),
        ("t.py", "template = (", "is not a valid Python file"),
        ("t.py", "prompt = '{} {} {} {}'", "has no string called 'template'"),
        ("t.py", "template = 5", "has no string called 'template'"),
    ],
)
def test_other_templates_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        read_template(write(tmp_path / name, text))

    assert message in str(caught.value)


def test_a_template_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match="no template: pass the file with the judge's prompt as --template"
    ):
        read_template(None)
    with pytest.raises(EvaluationError, match=r"nowhere\.txt can't be read"):
        read_template(tmp_path / "nowhere.txt")
