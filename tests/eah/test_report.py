"""`python -m eah report`: what it shows, and what it never shows."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import eah
from eah import __main__, redact

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "tests/eval/data/runs-0.1/pope/tiny-llava/opera-all-beam1-28057fe1"
# Invented, in the forms that providers use and in forms that no list can know.
SECRETS = (
    "sk-proj-Qk3vZt8Yw2Lm5Nr7", "hf_QwErTyUiOpAsDfGhJk", "ghp_0123456789abcdefghij",
    "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe", "correct-horse-battery", "s3cr3t-of-a-url",
)  # fmt: skip


def report(*arguments: str, code: str = "", **variables: str) -> str:
    """Run the command in a process of its own, as a user does, after some code."""
    program = f"{code}\nimport sys; from eah.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "report", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a report with secrets in the environment and in the run's settings."""
    home = tmp_path_factory.mktemp("home")
    run = home / "runs" / "mine"
    content = json.loads((RUN / "run.json").read_text())
    content["checkpoint"] = f"{home}/models/private-name/llava-7b"
    content["command"] += ["--api-key", SECRETS[0]]
    content["password"] = SECRETS[6]
    content["settings"]["model"] = f"https://user:{SECRETS[7]}@example.org/model"
    content["settings"]["question"] = " and ".join(SECRETS[1:6])
    content["settings"]["decoding"]["token"] = SECRETS[6]
    content["settings"]["unknown"] = SECRETS[7]
    arm = {"name": "eah", "eah": {"layers": [1, 2], "threshold": 0.0025}, "code": SECRETS[5]}
    (run / "arms" / "eah").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(content))
    (run / "arms/eah/arm.json").write_text(json.dumps(arm))
    return report(
        str(run),
        HOME=str(home), MY_API_KEY=SECRETS[6], OPENAI_API_KEY=SECRETS[0], EAH_PRESET=SECRETS[6],
        EAH_LOG=f"{home}/logs/{SECRETS[1]}.jsonl", EAH_TOKEN=SECRETS[2], EAH_QUIET="1",
        UNRELATED="of-no-concern",
    )  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_shown(shown: str, secret: str) -> None:
    assert secret not in shown
    assert secret[4:16] not in shown


def test_other_variables_and_home_folders_are_not_shown(shown: str) -> None:
    assert "of-no-concern" not in shown
    assert "UNRELATED" not in shown
    assert "private-name" not in shown
    assert "/home0" not in shown
    assert "- EAH_QUIET: `1`" in shown.splitlines()
    assert "- EAH_LOG: `~/logs/[key].jsonl`" in shown.splitlines()
    assert "- EAH_TOKEN: `(not a setting of EAH; its value is not shown)`" in shown.splitlines()


def test_settings_that_decide_the_answers_are_shown(shown: str) -> None:
    lines = shown.splitlines()

    assert '- checkpoint: `"~/.../llava-7b"`' in lines
    assert '- settings.dtype: `"float32"`' in lines
    assert "- settings.seed: `42`" in lines
    assert '- arm eah, eah: `{"layers": [1, 2], "threshold": 0.0025}`' in lines
    assert "- settings.not shown: `unknown`" in lines


def test_versions_and_devices_are_those_of_this_machine(shown: str) -> None:
    import torch
    import transformers

    lines = shown.splitlines()
    assert f"- eah: `{eah.__version__}`" in lines
    assert f"- torch: `{torch.__version__}`" in lines
    assert f"- transformers: `{transformers.__version__}`" in lines
    assert any(line.startswith(f"- python: `{platform.python_version()}") for line in lines)
    assert f"- system: `{platform.platform()}`" in lines
    assert sum(line.startswith("- cuda:") for line in lines) == torch.cuda.device_count()
    assert "- sdpa: `available`" in lines
    assert platform.node() not in shown or len(platform.node()) < 4


HIDE = """
import importlib.metadata as metadata, importlib.util, sys
real, version = importlib.util.find_spec, metadata.version
def find_spec(name, package=None):
    return None if name.partition(".")[0] in HIDDEN else real(name, package)
def hidden(name):
    if name in HIDDEN:
        raise metadata.PackageNotFoundError(name)
    return version(name)
importlib.util.find_spec, metadata.version = find_spec, hidden
"""


def test_it_works_without_torch_and_transformers() -> None:
    hidden = ("torch", "transformers", "tokenizers", "accelerate", "triton")

    found = report(code=f"HIDDEN = {hidden!r}{HIDE}").splitlines()

    assert all(f"- {name}: `not installed`" in found for name in hidden)
    assert any("has no transformers; install it there" in line for line in found)


def test_an_old_transformers_with_the_drop_in_is_described(tmp_path: Path) -> None:
    folder = tmp_path / "transformers/models/llama"
    folder.mkdir(parents=True)
    (tmp_path / "transformers/__init__.py").write_text('__version__ = "4.29.0"\nraise SystemError')
    (folder / "configuration_llama.py").touch()
    (folder / "modeling_llama.py").write_text((ROOT / "eah/modeling_llama_eah.py").read_text())

    found = report(code=f"import sys; sys.path.insert(0, {str(tmp_path)!r})")

    (line,) = [line for line in found.splitlines() if line.startswith("- llama: ")]
    assert "transformers 4.29.0" in line
    assert f"is EAH {eah.__version__}" in line
    assert "modeling_llama_original.py, is missing" in line


def test_an_install_that_can_not_be_imported_is_described(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise OSError('libcudart.so.11: no such file')")

    found = report(code=f"import sys; sys.path.insert(0, {str(tmp_path)!r})")

    assert "- error: `OSError: libcudart.so.11: no such file`" in found.splitlines()
    assert "- system:" in found


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "JSONDecodeError"), ("[1]", "not a JSON object"), ("[" * 10**5, "RecursionError"),
     ("\udcff", "UnicodeDecodeError")],
)  # fmt: skip
def test_a_damaged_run_is_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    (tmp_path / "run.json").write_text(text, errors="surrogateescape")

    assert __main__.main(["report", str(tmp_path)]) == 0

    assert f"- run.json: `can't be read: {reason}`" in capsys.readouterr().out.splitlines()


def test_a_value_can_not_end_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"settings": {"question": "`\n# Title\n@someone", "model": "x" * 5000}}
    (tmp_path / "run.json").write_text(json.dumps(settings))

    assert __main__.main(["report", str(tmp_path)]) == 0

    out = capsys.readouterr().out
    assert all(line.count("`") in (0, 2) for line in out.splitlines())
    assert max(map(len, out.splitlines())) < 600


@pytest.mark.parametrize("name", ["", "nothing", "run.json"])
def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert __main__.main(["report", str(tmp_path / name)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("eah report: error: ")
    assert "has no run.json; name a run folder" in line


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/data/private/llava", ".../llava"), ("/home/alice/models/llava", "~/.../llava"),
        ("/Users/alice/llava", "~/llava"), (r"C:\Users\alice\models\llava", "~/.../llava"),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"), ("/", "..."), ("eah", "eah"),
    ],
)  # fmt: skip
def test_paths_are_shortened(path: str, short: str) -> None:
    assert redact.shorten_path(path) == short


@pytest.mark.parametrize(
    "text",
    ["vision_tokens: all", "max_new_tokens=512", "opera-all-beam1-28057fe1", "risk-assessment-of",
     "sha256:576435e84be8a8ba", "Llama-3.2-11B-Vision-Instruct", "token 5 of 7", "2.13.0+cpu"],
)  # fmt: skip
def test_ordinary_text_is_not_hidden(text: str) -> None:
    assert redact.hide_home(redact.hide_secrets(text, {})) == text


def test_a_misspelt_command_is_answered_with_the_one_that_is_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert __main__.main(["reports"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "'reports' is unknown: did you mean 'report'" in line
    assert "check, install, report" in line.replace("build, ", "")
