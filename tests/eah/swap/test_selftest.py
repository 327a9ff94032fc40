"""The selftest in copies of the installed transformers: as it is, swapped, and sabotaged."""

from __future__ import annotations

import ast
import re
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers

from eah import swap
from eah.drop_in.names import VERSION
from eah.swap import selftest
from tests.eah.copied_install import copy_install

LLAMA = Path("transformers", "models", "llama", "modeling_llama.py")
ACTS = "with EAH, an image prompt gives other logits than the original"
ALIKE = "all heads of layer 1 attend alike, the original's do not"
TEXT = "with EAH, a text-only prompt gives exactly the original's logits"
DISABLED = "with EAH_DISABLE=1, all logits are exactly the original's"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a swapped copy of the installed transformers."""
    folder = tmp_path_factory.mktemp("site-packages")
    copy_install(folder)
    assert swap.main(["install", "--site-packages", str(folder)]) == 0
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command, and gives its status and what it printed."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = selftest.main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def proofs(output: str, mark: str) -> list[str]:
    lines = [line for line in output.splitlines() if line.startswith(mark)]
    return [line[len(mark) :].strip().partition(" (")[0] for line in lines if ": " in line]


def test_all_proofs_hold_in_a_swapped_install_whatever_the_callers_environment(
    site: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')\n")
    for name, value in {
        "EAH_DISABLE": "1", "EAH_LAYERS": "77", "EAH_IMAGE_SPAN": "900:901", "HEAD_NUM": "no",
        "EAH_LOG": str(tmp_path / "missing" / "log"), "PYTHONPATH": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    status, out, err = run("--site-packages", site)

    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == (
        f"torch {torch.__version__}, transformers {transformers.__version__}: {site / LLAMA} is "
        f"EAH {VERSION}"
    )
    assert proofs(out, "ok") == [
        f"{kernel}: {proof}"
        for kernel in ("eager", "sdpa")
        for proof in (ACTS, ALIKE, TEXT, DISABLED)
    ]
    assert re.fullmatch(r"all proofs hold; \d+\.\d s", lines[-1])
    assert len(lines) == 10
    assert list(tmp_path.iterdir()) == [tmp_path / "torch.py"]


def test_an_install_that_is_not_swapped_fails_and_says_how(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_install(tmp_path)
    monkeypatch.chdir(tmp_path.parent)

    status, out, _ = run("--site-packages", tmp_path.name)

    assert status == 1
    assert out.splitlines()[0].endswith("modeling_llama.py is transformers' own")
    assert out.splitlines()[1] == (
        "FAILED  EAH's file is not installed; run python -m eah.swap install --site-packages "
        f"{tmp_path.name}"
    )
    assert str(tmp_path / LLAMA) in out


PASSES_ON = "prompt.is_decoding or prompt.skipped is not None:\n            return forward("
SDPA = "shared = attend(*share_head(query, key, choice.head))"
EAGER = "torch.where(found if receives is None else found & receives, shared, weights)"


@pytest.mark.parametrize(
    ("edits", "failing"),
    [
        ({EAGER: "weights", SDPA: "shared = attend(query, key)"}, [
            f"{kernel}: {proof}" for kernel in ("eager", "sdpa") for proof in (ACTS, ALIKE)
        ]),
        ({EAGER: f"torch.cat([weights[:, :1], {EAGER}[:, 1:]], dim=1)"}, [f"eager: {ALIKE}"]),
        ({f"{PASSES_ON}hidden_states,": f"{PASSES_ON}1.01 * hidden_states,"},
         [f"{kernel}: {TEXT}" for kernel in ("eager", "sdpa")]),
        ({"if settings.enabled:\n": "if True:\n"},
         [f"{kernel}: {DISABLED}" for kernel in ("eager", "sdpa")]),
    ],
    ids=["shares nothing", "leaves a head out", "changes text", "can't be disabled"],
)  # fmt: skip
def test_a_file_that_does_something_else_fails_where_it_does(
    edits: dict[str, str], failing: list[str], site: Path, run: Run, edit: Callable[..., None]
) -> None:
    edit(edits)

    status, out, _ = run("--site-packages", site)

    assert (status, proofs(out, "FAILED")) == (1, failing)
    assert out.splitlines()[-1].startswith("FAILED; ")


@pytest.fixture
def edit(site: Path) -> Iterator[Callable[..., None]]:
    """Return a function that edits the swapped file, until the end of the test."""
    kept = (site / LLAMA).read_text(encoding="utf-8")

    def replace(edits: dict[str, str]) -> None:
        text = kept
        for before, after in edits.items():
            assert text.count(before) == 1
            text = text.replace(before, after)
        (site / LLAMA).write_text(text, encoding="utf-8")

    yield replace
    (site / LLAMA).write_text(kept, encoding="utf-8")


def test_a_model_that_can_not_be_run_fails_with_the_reason(
    site: Path, run: Run, edit: Callable[..., None]
) -> None:
    edit({PASSES_ON: PASSES_ON.replace("prompt.is", "True or prompt.is")})

    status, out, _ = run("--site-packages", site)

    assert status == 1
    assert re.search(r"^FAILED  the model there could not be built or run: .* layer 1 did not run "
                     r"through EAH", out, re.MULTILINE)  # fmt: skip


def test_other_families_are_tested_or_refused(run: Run, tmp_path: Path) -> None:
    copy_install(tmp_path, "llama", "qwen2", "phi")
    for family in ("qwen2", "phi"):
        assert swap.main(["install", "--site-packages", str(tmp_path), "--model", family]) == 0

    assert run("--site-packages", tmp_path, "--model", "qwen2")[0] == 0
    status, _, err = run("--site-packages", tmp_path, "--model", "phi")
    assert run("--site-packages", tmp_path)[0] == 1

    assert status == 2
    assert "PhiAttention has no v_proj or no o_proj, which the proofs need" in err


def test_an_original_that_is_gone_fails_with_the_reason(site: Path, run: Run) -> None:
    original = (site / LLAMA).with_name("modeling_llama_original.py")
    moved = original.rename(original.with_suffix(".moved"))
    try:
        status, out, _ = run("--site-packages", site)
    finally:
        moved.rename(original)

    assert status == 1
    assert out.splitlines()[0].endswith(f"{site / LLAMA} is EAH's")
    assert "FAILED  EAH's file can be imported (" in out
    assert "modeling_llama_original.py" in out


def test_a_process_that_ends_before_its_proofs_fails() -> None:
    results = [{"torch": "2"}, {"transformers": "4"}, {"file": "x.py"}, {"eah": "1"}]
    install = selftest.Install(Path(sys.executable), None, "")

    _, failures = selftest.describe(results, "", install)

    assert failures == 1


# Interpreters ------------------------------------------------------------------------------------


def test_an_interpreter_without_torch_is_one_sentence(run: Run, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"

    status, out, err = run("--python", python)

    assert (status, out) == (2, "")
    assert err == (
        f"eah: error: {python} has no torch, or one of its packages is missing; install it there, "
        "or name another interpreter with --python\n"
    )


def test_the_interpreter_named_is_the_one_that_runs(run: Run) -> None:
    status, out, _ = run("--python", sys.executable)

    assert status == 1
    assert f"{Path(transformers.__file__).parent}/models/llama/modeling_llama.py is" in out
    assert f"run python -m eah.swap install --python {sys.executable}\n" in out
    assert run()[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--python", "/nonexistent/python"], "--python /nonexistent/python can't be run (No such"),
        (["--site-packages", "/nonexistent"], "/nonexistent has no transformers; install it there"),
        (["--model", "nonsense"], "--model is the name of one of its folders in models/, such as"),
        (["--model", "../llama"], "--model is the name of one of its folders in models/, such as"),
        (["--python", "/bin/false"], "/bin/false can't import torch and transformers (exit status"),
    ],
)
def test_what_can_not_be_tested_is_one_sentence(
    arguments: list[str], message: str, run: Run
) -> None:
    status, out, err = run(*arguments)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_broken_torch_is_one_sentence_with_its_last_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart is missing')\n")
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").touch()

    status, _, err = run("--site-packages", tmp_path)

    assert status == 2
    assert "can't import torch and transformers (OSError: libcudart is missing); repair" in err


def test_the_settings_and_paths_of_the_caller_are_left_out() -> None:
    kept = {"PATH": "/bin", "HOME": "/root"}
    given = {**kept, "EAH_THRESHOLD": "1", "EAH_NEW": "1", "THRES": "2", "LAYER_NUM": "3",
             "PYTHONPATH": "/x", "PYTHONHOME": "/y"}  # fmt: skip

    cleaned = selftest.clean_environment(given)

    assert {name: cleaned[name] for name in cleaned.keys() & given.keys()} == kept


def test_the_program_is_for_python_3_8() -> None:
    ast.parse(selftest.PROGRAM.read_text(encoding="utf-8"), feature_version=(3, 8))
