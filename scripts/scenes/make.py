"""Write rendered scenes in COCO's layout: val2014 JPEGs, instances and captions.

    python scripts/scenes/make.py --output data/scenes --count 200 --seed 2014

The pictures need no network and no licence; the annotations are in the format of COCO's.
"""

from __future__ import annotations

import json
import os.path
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.writing import write_errors
from eval.run.flag_parser import FlagParser
from scripts.scenes.scene import CATEGORIES, Placed, Scene, render
from scripts.scenes.text import captions

JPEG_QUALITY = 92
MOST_SCENES: Final = 1_000_000  # COCO has 330,000 pictures; file names have room for more
FILES: Final = ("instances_val2014.json", "captions_val2014.json")
HEAD_BYTES: Final = 4096  # of a file of ours, which has its description in them
ADVICE: Final = "name another folder, or pass --overwrite to write into this one"
INFO = {"description": "Rendered scenes of COCO categories", "version": "1.0"}


def scene_of(seed: int, index: int) -> tuple[Scene, random.Random]:
    """Render scene `index` of a seed; also return its generator, for the captions."""
    rng = random.Random(f"{seed}/{index}")  # a string seeds the same way in every process
    return render(rng), rng


def write_scenes(output: Path, *, count: int, seed: int) -> None:
    """Write `val2014/*.jpg` and `annotations/{instances,captions}_val2014.json`.

    Besides COCO's keys, a picture has its `theme`, and an object its `color`, or null.
    """
    (output / "val2014").mkdir(parents=True, exist_ok=True)
    (output / "annotations").mkdir(exist_ok=True)
    ids = {category.name: category.id for category in CATEGORIES}
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for index in range(count):
        scene, rng = scene_of(seed, index)
        image_id = index + 1
        file_name = f"COCO_val2014_{image_id:012d}.jpg"
        scene.image.save(output / "val2014" / file_name, quality=JPEG_QUALITY)
        width, height = scene.image.size
        size = {"width": width, "height": height}
        images.append({"id": image_id, "file_name": file_name, **size, "theme": scene.theme})
        for placed in scene.objects:
            instances.append(_instance(len(instances) + 1, image_id, ids[placed.name], placed))
        for text in captions(scene, rng):
            texts.append({"id": len(texts) + 1, "image_id": image_id, "caption": text})
    categories = [
        {"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in CATEGORIES
    ]
    for name, content in (
        ("instances", {"annotations": instances, "categories": categories}),
        ("captions", {"annotations": texts}),
    ):
        path = output / "annotations" / f"{name}_val2014.json"
        path.write_text(json.dumps({"info": INFO, "licenses": [], "images": images, **content}))


def _instance(number: int, image_id: int, category_id: int, placed: Placed) -> dict[str, Any]:
    x, y, width, height = placed.bbox
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x, y, width, height],
        "area": placed.area,
        "iscrowd": 0,
        "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
        "color": placed.color,
    }


def check_folder(output: Path) -> None:
    """Refuse a folder whose pictures and annotations are not of this command, such as COCO's.

    Raises:
        EvaluationError: Naming what would be overwritten.
    """
    for name in FILES:
        path = output / "annotations" / name
        if os.path.lexists(path) and not _is_ours(path):
            raise EvaluationError(
                f"--output {output} holds {path.name} of another source; {ADVICE}"
            )
    pictures = output / "val2014"
    holds_pictures = pictures.is_dir() and any(pictures.iterdir())
    if holds_pictures and not (output / "annotations" / FILES[0]).exists():
        raise EvaluationError(f"--output {output} holds pictures of another source; {ADVICE}")


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return INFO["description"].encode() in file.read(HEAD_BYTES)
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    flags.flag("--output", required=True, help="folder to write into")
    flags.flag("--count", type=int, default=200, help="number of scenes (default: 200)")
    flags.flag(
        "--seed",
        type=int,
        default=2014,
        help="seed of the scenes; each seed makes different ones (default: 2014)",
    )
    flags.flag("--overwrite", action="store_true", help="also write into a folder with other files")
    interrupted = "what was written is kept"
    return finish("make", lambda: make(**flags.parse(arguments)), interrupted=interrupted)


def make(output: str, *, count: int, seed: int, overwrite: bool = False) -> None:
    """Write scenes after checking that the folder is free for them, and print how many.

    Raises:
        EvaluationError: If the folder can't be written, or holds files of another source.
    """
    if not output.strip():
        raise EvaluationError("--output is empty (an unset shell variable?); name a folder")
    if count < 1:
        raise EvaluationError(f"--count {count}, but at least one scene is needed")
    if count > MOST_SCENES:
        raise EvaluationError(f"--count {count} is too many; name at most {MOST_SCENES}")
    folder = Path(output)
    with write_errors(folder):
        if not overwrite:
            check_folder(folder)
        write_scenes(folder, count=count, seed=seed)
    print(f"{count} scenes in {folder}")


if __name__ == "__main__":
    sys.exit(main())
