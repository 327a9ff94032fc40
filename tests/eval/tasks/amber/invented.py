"""A folder of AMBER's files about rendered scenes, and a few words of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from scripts.scenes.make import write_scenes

QUERY = "Describe this image."
RELATION: dict[str, list[str]] = {
    "dog": ["puppy", "animal"], "cat": ["animal"], "person": ["man", "woman"], "sky": [],
    "lamp": ["light"], "table": ["desk"], "boat": ["ship"], "TV": ["screen"],
}  # fmt: skip
ANNOTATIONS = [
    (["dog", "sky", "table"], ["cat", "lamp"]),
    (["person", "cat", "person"], ["dog", "boat"]),
    (["TV"], ["table"]),
]


def write_amber(folder: Path, **changes: Any) -> Path:
    """Write the files; `changes` replace the content of one by its stem, None leaves it out."""
    ids = range(1, len(ANNOTATIONS) + 1)
    content: dict[str, Any] = {
        "query_generative.json": [
            {"id": at, "image": f"AMBER_{at}.jpg", "query": QUERY} for at in ids
        ],
        "annotations.json": [
            *({"id": at, "type": "generative", "truth": truth, "hallu": hallu}
              for at, (truth, hallu) in zip(ids, ANNOTATIONS, strict=True)),
            {"id": 4, "type": "discriminative-hallucination", "truth": "no"},
        ],
        "query_discriminative.json": [
            {"id": 4, "image": "AMBER_1.jpg", "query": "Is there a boat in this image?"}
        ],
        "relation.json": RELATION,
        "safe_words.txt": "light",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, of in content.items():
        of = changes.get(name.partition(".")[0], of)
        if of is not None:
            text = of if isinstance(of, str) else json.dumps(of)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_scenes_of_amber(folder: Path, count: int) -> tuple[Path, Path]:
    """Render scenes under AMBER's names; return the folders of its files and of the pictures."""
    write_scenes(folder / "scenes", count=count, seed=2014)
    instances = json.loads((folder / "scenes/annotations/instances_val2014.json").read_text())
    names = {one["id"]: one["name"].split()[-1] for one in instances["categories"]}
    truth: dict[int, set[str]] = {at: set() for at in range(1, count + 1)}
    for one in instances["annotations"]:
        truth[one["image_id"]].add(names[one["category_id"]])
    words = sorted(set(names.values()))
    pictures = folder / "image"
    pictures.mkdir()
    for image in instances["images"]:
        shutil.copy(
            folder / "scenes/val2014" / image["file_name"], pictures / f"AMBER_{image['id']}.jpg"
        )
    amber = write_amber(
        folder / "data",
        query_generative=[
            {"id": at, "image": f"AMBER_{at}.jpg", "query": QUERY} for at in truth
        ],
        annotations=[
            {"id": at, "type": "generative", "truth": sorted(of),
             "hallu": [word for word in words if word not in of][:3]}
            for at, of in truth.items()
        ],
        query_discriminative=None,
        relation={word: [] for word in words} | {"person": ["man", "woman", "people"]},
    )  # fmt: skip
    return amber, pictures
