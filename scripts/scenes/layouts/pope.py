"""POPE's A-OKVQA and GQA sets, and RePOPE's labels, for questions that the POPE task builds.

The two sets are JSON arrays, each adversarial one with a question twice; RePOPE's files are JSON
lines with the numbers of the questions that were kept. The pictures are the scenes' own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from eval.files.answers import Item
from eval.tasks.pope.questions import annotated_images, build_questions, dump_questions
from eval.tasks.pope.task import PopeSettings
from scripts.scenes.layouts.described import Files, Scenes, array

SETS: Final = ("aokvqa", "gqa")
LEFT_OUT: Final = 0.08  # of the questions, as ambiguous ones are of RePOPE


def seem(scenes: Scenes, rng: random.Random) -> Files:
    """Write the six files of the two sets, each about different pictures."""
    files = {}
    images = annotated_images(scenes.instances)
    for name in SETS:
        built = build_questions(images, count=len(scenes.pictures), seed=rng.getrandbits(32))
        built["adversarial"] = _with_duplicate(built["adversarial"])
        for pope_type, items in built.items():
            files[f"{name}_pope_seem_{pope_type}.json"] = array(_rows(items))
    return files


def repope(scenes: Scenes, seed: int) -> Files:
    """Write labels of what `pope_eval.py --build-from INSTANCES --seed SEED` asks."""
    images = annotated_images(scenes.instances)
    built = build_questions(images, count=PopeSettings().build_images, seed=seed)
    return {
        f"coco_repope_{pope_type}.json": dump_questions(item for item in items if _kept(item, seed))
        for pope_type, items in built.items()
    }


def _kept(item: Item, seed: int) -> bool:
    """Return whether a question is kept; where it is asked in several types, in all or none."""
    return random.Random(f"{seed}/{item.image}/{item.question}").random() >= LEFT_OUT


def _with_duplicate(items: Sequence[Item]) -> list[Item]:
    """Return the questions, the last one that can be a repetition of an earlier one being so."""
    earlier: dict[tuple[str, str], Item] = {}
    repeated: Item | None = None
    for item in items:
        first = earlier.setdefault((item.image, item.label), item)
        if first is not item:
            repeated = replace(item, question=first.question)
    return [repeated if repeated and item.id == repeated.id else item for item in items]


def _rows(items: Iterable[Item]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dump_questions(items).splitlines()]
