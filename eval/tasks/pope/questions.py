"""POPE's questions: read from published files, or built from COCO's instances.

They are built as in the POPE paper (arXiv 2305.10355): up to three objects that are in the picture,
and as many that are not, chosen at random, by their frequency in the data set (popular), or by how
often they occur together with the object of the previous question (adversarial). Pictures with
fewer than three categories give as many pairs as they have; the paper leaves such pictures out.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Item
from eval.files.coco import read_instances
from eval.files.rows import read_rows
from eval.files.storage import Record
from eval.tasks.yes_no.identity import PICTURE_SUFFIXES, id_of, slashes

POPE_TYPES: Final = ("random", "popular", "adversarial")
LABELS: Final = ("yes", "no")
KEYS: Final = ("question_id", "image", "text", "label")
# Keys in lmms-eval's copy of POPE.
OTHER_KEYS: Final = {"image": "image_source", "text": "question", "label": "answer"}


def read_questions(path: Path, pope_type: str) -> list[Item]:
    """Read a question file: question_id, image, text and label in each row.

    Formats are JSON lines as published, a JSON list, CSV and TSV. The keys of lmms-eval's copy are
    supported. If rows name their POPE type in `category`, those of other types are left out, with a
    note.

    Raises:
        EvaluationError: If a row is not a question, naming it, or if there are no questions.
    """
    named = [name for name in POPE_TYPES if name in path.stem.lower()]
    if len(named) == 1 and pope_type not in named:
        raise EvaluationError(
            f"{path} has the type {named[0]} in its name, but --pope-type is {pope_type}; pass "
            f"--pope-type {named[0]}, or rename the file"
        )
    questions: dict[int | str, Item] = {}
    places: dict[int | str, str] = {}
    others: Counter[str] = Counter()
    rows = read_rows(path).rows
    by_type = any(_category(row) in POPE_TYPES for _, row in rows)
    for where, row in rows:
        category = _category(row)
        if by_type and category not in POPE_TYPES:
            raise EvaluationError(
                f"{path}, {where}: category {row.get('category')!r:.60} is not one of "
                f"{', '.join(POPE_TYPES)}, unlike in other rows; correct it"
            )
        if by_type and category != pope_type:
            others[category] += 1
            continue
        item = _question(row, pope_type, f"{path}, {where}")
        if item.id in questions:
            raise EvaluationError(
                f"{path}, {where}: question_id {item.id} is already in {places[item.id]}; each "
                "question needs its own id"
            )
        questions[item.id], places[item.id] = item, where
    if not questions:
        raise EvaluationError(
            f"{path} has no questions of type {pope_type}; download it again, or pass its type as "
            "--pope-type"
        )
    if others:
        counts = ", ".join(f"{name} ({count} rows)" for name, count in others.items())
        print(f"note: {path.name} also has questions of other types, which are not asked: "
              f"{counts}", file=sys.stderr)  # fmt: skip
    return list(questions.values())


def _category(row: Record) -> str:
    return str(row.get("category", "")).strip().lower()


def dump_questions(items: Iterable[Item]) -> str:
    """Return the text of a question file."""
    rows = [
        {"question_id": i.id, "image": i.image, "text": i.question, "label": i.label} for i in items
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _question(row: Record, pope_type: str, where: str) -> Item:
    keys = {name: next((key for key in (name, OTHER_KEYS.get(name)) if key in row), name)
            for name in KEYS}  # fmt: skip
    row_id = id_of(row.get("question_id"))
    for name, key in keys.items():
        value = row_id if name == "question_id" else row.get(key)
        if value is None or (name != "question_id" and not (isinstance(value, str) and value)):
            raise EvaluationError(
                f"{where}: {key!r} is {row.get(key)!r:.60}; a question needs question_id (a number "
                "or text), image, text and label"
            )
    assert row_id is not None
    image, text, label = (str(row[keys[name]]) for name in KEYS[1:])
    if label.strip().lower() not in LABELS:
        raise EvaluationError(f"{where}: label {label!r} is neither 'yes' nor 'no'; correct it")
    image = slashes(image)
    if keys["image"] != "image" and not image.lower().endswith(PICTURE_SUFFIXES):
        image += ".jpg"  # lmms-eval's copy drops COCO's suffix
    return Item(row_id, image, text, label.strip().lower(), pope_type)


PAIRS_PER_IMAGE = 3


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """A picture's file name and the categories of its objects."""

    file_name: str
    categories: tuple[str, ...]


def annotated_images(path: Path) -> list[AnnotatedImage]:
    """Read the pictures of a COCO instances file; those without objects are left out.

    Raises:
        EvaluationError: If the file can't be read, is not in COCO's format, or has no such picture.
    """
    instances = read_instances(path)
    images = [
        AnnotatedImage(instances.file_names[image_id], tuple(sorted(categories)))
        for image_id, categories in sorted(instances.objects.items())
        if categories
    ]
    if not images:
        raise EvaluationError(
            f"{path} has no picture with objects, so no question can be built; pass another "
            "instances file as --build-from"
        )
    return images


def build_questions(
    images: Sequence[AnnotatedImage], *, count: int, seed: int
) -> dict[str, list[Item]]:
    """Build the three question files.

    Args:
        images: All annotated pictures, which determine frequencies and co-occurrences.
        count: Number of pictures to ask about, sampled with the seed; fewer if there are fewer.
        seed: Seed of the sample; the same seed gives the same files.
    Returns:
        Questions by POPE type; all three types ask about the same present objects.
    Raises:
        EvaluationError: If each picture has all categories, so that no absent object exists.
    """
    order = sorted({name for image in images for name in image.categories})
    frequency = Counter(name for image in images for name in image.categories)
    together = Counter(pair for image in images for pair in permutations(image.categories, 2))
    rng = random.Random(seed)
    chosen = rng.sample(list(images), min(count, len(images)))
    built: dict[str, list[Item]] = {pope_type: [] for pope_type in POPE_TYPES}
    for image in chosen:
        absent = [name for name in order if name not in image.categories]
        pairs = min(PAIRS_PER_IMAGE, len(image.categories), len(absent))
        present = rng.sample(image.categories, pairs)
        shuffled = rng.sample(absent, len(absent))
        popular = sorted(absent, key=lambda name: -frequency[name])
        likely = {name: _most_together(name, absent, together) for name in present}
        for pope_type, ranked in (
            ("random", dict.fromkeys(present, shuffled)),
            ("popular", dict.fromkeys(present, popular)),
            ("adversarial", likely),
        ):
            _ask(built[pope_type], pope_type, image.file_name, ranked)
    if not built[POPE_TYPES[0]]:
        raise EvaluationError(
            f"no questions can be built: each of the {len(chosen)} pictures has all {len(order)} "
            f"categories of the instances file ({some_ids(order)}), so no absent object exists; "
            "pass an instances file with more categories as --build-from"
        )
    return built


def _most_together(name: str, absent: Sequence[str], together: Counter[Any]) -> list[str]:
    """Return the absent categories, those that most often occur with `name` first."""
    return sorted(absent, key=lambda other: -together[name, other])


def _ask(
    questions: list[Item], pope_type: str, file_name: str, ranked: Mapping[str, Sequence[str]]
) -> None:
    """Append, for each present object, a question about it and one about an absent one.

    Args:
        questions: List that is extended.
        pope_type: Type of the questions.
        file_name: The picture.
        ranked: Absent objects by present object; the first that is not used yet is taken.
    """
    used: set[str] = set()
    for name, candidates in ranked.items():
        negative = next(other for other in candidates if other not in used)
        used.add(negative)
        for asked, label in ((name, "yes"), (negative, "no")):
            article = "an" if asked[0] in "aeiou" else "a"
            text = f"Is there {article} {asked} in the image?"
            questions.append(Item(len(questions) + 1, file_name, text, label, pope_type))
