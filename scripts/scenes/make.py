"""Write rendered scenes in COCO's layout: val2014 JPEGs, instances and captions.

    python scripts/scenes/make.py --output data/scenes --count 200 --seed 2014

The pictures need no network and no licence; the annotations are in the format of COCO's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.command import finish
from eval.files.writing import write_atomically
from scripts.scenes.scene import CATEGORIES, Placed, Scene, render
from scripts.scenes.text import captions

JPEG_QUALITY = 92
INFO = {"description": "Rendered scenes of COCO categories", "version": "1.0"}


def scene_of(seed: int, index: int) -> tuple[Scene, random.Random]:
    """Render scene `index` of a seed; also return its generator, for the captions."""
    rng = random.Random(f"{seed}/{index}")  # a string seeds the same way in every process
    return render(rng), rng


def write_scenes(output: Path, *, count: int, seed: int) -> None:
    """Write `val2014/*.jpg` and `annotations/{instances,captions}_val2014.json`."""
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
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
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
        write_atomically(
            path, json.dumps({"info": INFO, "licenses": [], "images": images, **content})
        )


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
    }


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--count", type=int, default=200, help="number of scenes (default 200)")
    parser.add_argument(
        "--seed", type=int, default=2014, help="scenes of another seed share nothing (default 2014)"
    )
    args = parser.parse_args(arguments)
    if args.count < 1:
        parser.error(f"--count {args.count}: at least one scene is needed")
    write_scenes(args.output, count=args.count, seed=args.seed)
    print(f"{args.count} scenes in {args.output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("make", lambda: run(arguments), interrupted="run it again")


if __name__ == "__main__":
    sys.exit(main())
