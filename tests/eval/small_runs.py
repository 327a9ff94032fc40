"""Small POPE runs on the embedded model, and runs that are written without any model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models
from eval.evaluate import task_class
from eval.files.answers import Answer, Finding, Item
from eval.run.arm_folder import ArmFolder
from eval.run.costs import BatchCost
from eval.run.folder import questions_record
from scripts.scenes.make import write_scenes

ROOT = Path(__file__).resolve().parents[2]
OLD_RUNS = ROOT / "tests/eval/data/runs-0.1"
State = dict[str, tuple[bytes, int]]


def pope_flags(folder: Path, pictures: int = 4) -> list[str]:
    """Write scenes and return flags of `pope_eval` that ask about them."""
    write_scenes(folder, count=pictures, seed=2014)
    return [
        "--model", "tiny-llava", "--device", "cpu", "--data-path", str(folder / "val2014"),
        "--build-from", str(folder / "annotations/instances_val2014.json"),
        "--pope-path", str(folder / "pope"),
    ]  # fmt: skip


def only_run(root: Path, benchmark: str = "pope") -> Path:
    """Return the folder of the only run below an output folder."""
    (folder,) = (root / benchmark / "tiny-llava").iterdir()
    return folder


def state_of(folder: Path) -> State:
    """Return bytes and modification time of all files below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines_of(run: Path, arm: str) -> list[dict[str, Any]]:
    """Return the records of an arm's answers."""
    path = run / "arms" / arm / "answers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def same_answers(run: Path, other: Path, arms: Sequence[str]) -> bool:
    """Return whether two runs have the same answers in the same order.

    All is compared exactly but p_yes. Its last digits depend on which prompts are computed
    together, since a batch's shape orders floating-point sums, and batches after a kill are others.
    """
    for arm in arms:
        one, two = lines_of(run, arm), lines_of(other, arm)
        values = [[line.pop("p_yes", None) for line in lines] for lines in (one, two)]
        if json.dumps(one) != json.dumps(two) or values[0] != pytest.approx(values[1], abs=1e-5):
            return False
    return True


def numbers_of(path: Path) -> dict[str, Any]:
    """Return what a `metrics.json` holds, without what the clock or a digit of p_yes decides."""
    content = json.loads(path.read_text())
    return {name: of for name, of in content.items() if name not in ("costs", "p_yes")}


class Asked(list[tuple[int, Any]]):
    """The calls of the model: number of prompts and decoding method, each."""

    @property
    def prompts(self) -> int:
        return sum(count for count, _ in self)


def count_calls(patch: pytest.MonkeyPatch, stop_at: int | None = None) -> Asked:
    """Record calls of the model; with `stop_at`, Ctrl-C comes in that call."""
    asked = Asked()
    answer_batch = models.VLM.answer_batch

    def counted(self: models.VLM, features: Any, *rest: Any) -> Any:
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        asked.append((len(features), rest[2]))
        return answer_batch(self, features, *rest)

    patch.setattr(models.VLM, "answer_batch", counted)
    return asked


SETTINGS = {
    "benchmark": "pope", "model": "tiny-llava", "family": "llava-1.5", "protocol": "opera",
    "dtype": "float32", "device": "cpu", "quantization": None, "weights": "sha256:1",
    "pictures": "aa", "decoding": {"do_sample": False, "num_beams": 1, "max_new_tokens": 10},
}  # fmt: skip


def questions(pictures: int = 3, parts: Sequence[str] = ("random",)) -> list[Item]:
    """Return two questions about each picture in each part."""
    return [
        Item(2 * number + yes, f"{number}.jpg", f"Is there a thing {yes}?", ["no", "yes"][yes], p)
        for p in parts
        for number in range(pictures)
        for yes in range(2)
    ]


def right(item: Item) -> str:
    return "Yes, there is." if item.label == "yes" else "No, there is none."


def always_yes(_: Item) -> str:
    return "Yes, there is."


def write_run(
    path: Path,
    arms: Mapping[str, Callable[[Item], str]],
    items: Sequence[Item] | None = None,
    **settings: Any,
) -> Path:
    """Write a run whose arms answer as functions say; arms with EAH have findings."""
    items = questions() if items is None else items
    recorded = {**SETTINGS, **settings}
    kind = task_class(recorded["benchmark"])
    protocol = kind.protocol_of(recorded["protocol"], recorded["family"])
    asked = questions_record(
        [(item, kind(kind.settings_class()).prompt(item, protocol)) for item in items]
    )
    path.mkdir(parents=True)
    content = {"settings": {"questions": asked, **recorded}, "started": "2026-01-02"}
    (path / "run.json").write_text(json.dumps(content))
    for number, (name, answer) in enumerate(arms.items()):
        folder = ArmFolder(path, name)
        folder.write_info({"name": name, "started": f"2026-01-02T0{number}", "code": "c0de"})
        found = (Finding(1, 5, 30, 64, False),) if "eah" in name else ()
        folder.append([Answer(item, answer(item), findings=found) for item in items])
        folder.append_cost(BatchCost("random/0+6", "cpu", 10, 10, 1.0 + number, 6, 4))
    return path


def renamed(items: Sequence[Item], **changes: Any) -> list[Item]:
    """Return questions of which the first is another."""
    return [replace(items[0], **changes), *items[1:]]
