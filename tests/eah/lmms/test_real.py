"""lmms-eval itself, from its command to its log, on a local task with a tiny LLaVA.

It can't live in the project's own environment, because it needs an older filelock. So it runs by
the interpreter of an environment of its own, see docs/lmms-eval.md.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eval import runs
from eval.files.answers import Item
from eval.tasks.yes_no.answers import read_answers
from scripts.bench.peer_tools import make_checkpoint
from tests.eah.lmms.local_task import SUFFIX, TOKENS, answers, lmms_eval, samples, write_task
from tests.eval.small_runs import questions, right, write_run
from tests.models.hf.scenes import write

ROOT = Path(__file__).resolve().parents[3]
PYTHON = Path(os.environ.get("LMMS_PYTHON") or ROOT / ".venvs/lmms/bin/python")
THRESHOLD = "0.01"
LEAST = 100

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.is_file(),
        reason="needs an environment with lmms-eval: python -m venv .venvs/lmms && "
        ".venvs/lmms/bin/pip install -e '.[lmms]', or LMMS_PYTHON=its interpreter",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a task, its pictures and a checkpoint."""
    root = tmp_path_factory.mktemp("lmms")
    (root / "scenes").mkdir()
    documents = write_task(root / "task", write(root / "scenes"))
    assert len(documents) >= LEAST
    make_checkpoint(root / "model", tiny=True)
    return root


def run(folder: Path, name: str, model: str, more: str = "", *flags: str) -> list[dict[str, Any]]:
    """Return the samples of a run of lmms-eval."""
    given = f"pretrained={folder / 'model'},device_map=cpu,dtype=float32{more}"
    flags = ("--log_samples", "--output_path", str(folder / name), *flags)
    done = lmms_eval(PYTHON, folder / "task", model, given, *flags)
    assert done.returncode == 0, done.stderr
    return samples(folder / name)


def ours(folder: Path, *layers: str) -> dict[str, list[Any]]:
    """Return our own answers to the same prompts, by the same interpreter."""
    command = [str(PYTHON), str(ROOT / "tests/eah/lmms/own_run.py"), str(folder / "model"),
               str(folder / "task"), SUFFIX, str(TOKENS), THRESHOLD, *layers]  # fmt: skip
    around = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=around, capture_output=True, text=True, check=True)
    found: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_baseline_is_theirs_and_eah_is_ours(folder: Path) -> None:
    theirs = run(folder, "theirs", "llava_hf")
    baseline = run(folder, "baseline", "eah_llava_hf", ",arm=baseline")
    heads = folder / "heads.jsonl"
    settings = f",layers=1,threshold={THRESHOLD},heads={heads}"
    shared = run(folder, "shared", "eah_llava_hf", settings)

    assert len(set(answers(theirs))) > 10
    assert theirs[0]["input"].endswith(SUFFIX)  # which the task has for llava_hf alone
    assert [row["input"] for row in baseline] == [row["input"] for row in theirs]
    assert answers(baseline) == answers(theirs)
    own = ours(folder, "1")
    assert [text.strip() for text in answers(shared)] == own["answers"]
    assert answers(shared) != answers(theirs)
    lines = [json.loads(line) for line in heads.read_text(encoding="utf-8").splitlines()]
    lines.sort(key=lambda line: int(line["doc_id"]))
    assert [[layer["head"] for layer in line["layers"]] for line in lines] == own["heads"]


def test_its_log_is_read_by_the_rows_of_the_question_file(folder: Path) -> None:
    documents = [json.loads(line) for line in (folder / "task/docs.jsonl").open(encoding="utf-8")]
    items = [Item(one["question_id"], one["image_source"], one["question"], one["answer"], "random")
             for one in documents if one["category"] == "random"]  # fmt: skip
    logged = run(folder, "random", "llava_hf", "", "--limit", str(len(items)))
    (path,) = (folder / "random").rglob("*_samples_*.jsonl")

    saved = read_answers(path, items)

    (found,) = saved.arms.values()
    assert [(one.item, one.text) for one in found] == list(zip(items, answers(logged), strict=True))
    assert saved.facts["layout"] == "lmms-eval samples (JSON lines)"


def test_it_reads_our_export(tmp_path: Path) -> None:
    path = write_run(tmp_path / "x-1234", {"eah": right}, questions(parts=("random",)))
    exported = tmp_path / "exported.jsonl"
    assert runs.main(["export", str(path), "--format", "lmms-eval", "--output", str(exported)]) == 0
    code = "import sys\nfrom lmms_eval.baselines import load_baseline\n"
    code += "print(load_baseline(sys.argv[1], 'pope')[0])"

    done = subprocess.run(
        [str(PYTHON), "-c", code, str(exported)], capture_output=True, text=True, check=True
    )

    rows = [json.loads(line) for line in exported.read_text(encoding="utf-8").splitlines()]
    assert done.stdout.splitlines()[-1] == str({row["doc_id"]: 1.0 for row in rows})


def test_any_model_of_theirs_and_both_kinds(folder: Path) -> None:
    settings = f",of=llava_hf,layers=0+1,threshold={THRESHOLD}"
    flags = ("--limit", "8")
    chat = run(folder, "chat", "eah_hf", settings, *flags)
    simple = run(folder, "simple", "eah_hf", settings, *flags, "--force_simple")
    own = ours(folder, "0", "1")["answers"][:8]

    assert [text.strip() for text in answers(chat)] == own
    assert len(simple) == 8


def test_a_refusal_is_a_sentence_and_an_exit_status(folder: Path) -> None:
    given = f"pretrained={folder / 'model'},device_map=cpu,treshold=0.1"

    done = lmms_eval(PYTHON, folder / "task", "eah_llava_hf", given)

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "did you mean 'threshold'?" in done.stderr.splitlines()[-1]
