"""Pictures, answers and settings for tests of the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.eval.judge_stub import MODEL

PRICES = {"input": 2.0, "output": 10.0, "image": {"patch": 32, "per_patch": 1.0, "base": 5}}


def write_inputs(folder: Path, count: int) -> None:
    """Write pictures and two files of answers; every text and picture is another one."""
    pictures = folder / "val2014"
    pictures.mkdir(parents=True)
    for image_id in range(1, count + 1):
        image = Image.new("RGB", (40, 30), (image_id % 256, 80, 200))
        image.save(pictures / f"COCO_val2014_{image_id:012}.jpg")
    for name in ("baseline", "eah"):
        rows = [{"image_id": image_id, "caption": f"A {name} picture {image_id} with a dog."}
                for image_id in range(1, count + 1)]  # fmt: skip
        (folder / f"captions_{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_config(folder: Path, url: str, **settings: Any) -> Path:
    """Write judge settings for the stub that wait little."""
    values = {
        "judge_model": MODEL, "judge_base_url": url, "first_wait_s": 0.01, "longest_wait_s": 5.0,
        "timeout_s": 3600.0, "prices": {MODEL: PRICES}, **settings,
    }  # fmt: skip
    path = folder / "judge.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML.
    return path


def flags_for(folder: Path, url: str, **settings: Any) -> list[str]:
    """Return the flags of a comparison of the two files."""
    return [
        "--answers-1", str(folder / "captions_baseline.jsonl"),
        "--answers-2", str(folder / "captions_eah.jsonl"),
        "--data-path", str(folder / "val2014"),
        "--judge-config", str(write_config(folder, url, **settings)),
        "--output-dir", str(folder / "runs"),
        "--num-images", "1000",
    ]  # fmt: skip


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "runs/judge" / MODEL).iterdir()
    return found


def rows_of(folder: Path, event: str = "reply") -> list[dict[str, Any]]:
    lines = (folder / "judgements.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [row for line in lines if (row := json.loads(line))["event"] == event]


def metrics_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content
