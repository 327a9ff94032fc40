"""A task of lmms-eval in a folder: POPE's questions about rendered scenes, as its `pope` is.

The YAML has a longer prompt for `llava_hf` than for others, as real tasks have for some models.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.models.hf.scenes import Scenes

NAME: Final = "local_pope"
TOKENS: Final = 6
SUFFIX: Final = "\nAnswer the question using a single word or phrase."
YAML: Final = """dataset_path: json
dataset_kwargs:
  data_files:
    test: docs.jsonl
task: "{name}"
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: "answer"
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: 0
process_results: !function utils.results
metric_list:
  - metric: {name}_accuracy
    aggregation: mean
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    post_prompt: ""
  llava_hf:
    post_prompt: {suffix}
"""
FUNCTIONS: Final = """
from PIL import Image


def visual(doc):
    with Image.open(doc["path"]) as image:
        return [image.convert("RGB")]


def text(doc, lmms_eval_specific_kwargs):
    return doc["question"] + lmms_eval_specific_kwargs["post_prompt"]


def results(doc, found):
    return {"NAME_accuracy": float(found[0].strip().lower() == doc["answer"])}
"""


def write_task(folder: Path, scenes: Scenes, name: str = NAME) -> list[dict[str, Any]]:
    """Write the task; return its documents."""
    documents = [
        {
            "question_id": item.id,
            "question": item.question,
            "answer": item.label,
            "category": pope_type,
            "image_source": Path(item.image).stem,
            "path": str(scenes.images / item.image),
        }
        for pope_type, items in scenes.questions.items()
        for item in items
    ]
    folder.mkdir()
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (folder / "docs.jsonl").write_text(lines, encoding="utf-8")
    text = YAML.format(name=name, tokens=TOKENS, suffix=json.dumps(SUFFIX))
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "utils.py").write_text(FUNCTIONS.replace("NAME", name), encoding="utf-8")
    return documents


def lmms_eval(
    python: Path, folder: Path, model: str, arguments: str, *flags: str, task: str = NAME
) -> subprocess.CompletedProcess[str]:
    """Run lmms-eval's command on the task."""
    root = Path(__file__).resolve().parents[3]
    around = {"PYTHONPATH": str(root), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1",
              "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    return subprocess.run(
        [
            *(str(python), "-m", "lmms_eval", "--model", model, "--model_args", arguments),
            *("--tasks", task, "--include_path", str(folder), "--device", "cpu"),
            *("--batch_size", "1", *flags),
        ],
        cwd=folder.parent,
        env={**os.environ, **around},
        capture_output=True,
        text=True,
        check=False,
    )


def samples(output: Path, task: str = NAME) -> list[dict[str, Any]]:
    """Return what --log_samples wrote below a folder, by document."""
    (path,) = output.rglob(f"*_samples_{task}.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: int(row["doc_id"]))


def answers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the model said to each document."""
    return [str(row["filtered_resps"]) for row in rows]
