"""Build POPE's question files from COCO instance annotations.

As the POPE paper (arXiv 2305.10355) defines them: up to three objects that are in the picture, and
as many that are not, chosen at random, by their frequency in the data set (popular), or by how
often they occur together with the object asked before (adversarial). Pictures with fewer than three
categories give as many pairs as they have; the paper leaves such pictures out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from eval.errors import EvaluationError
from eval.files.coco import read_instances
from eval.tasks.pope.questions import POPE_TYPES, Question

PAIRS_PER_IMAGE = 3


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """A picture's file name and the categories that are in it."""

    file_name: str
    categories: tuple[str, ...]


def annotated_images(path: Path) -> list[AnnotatedImage]:
    """Return the pictures of a COCO instances file; those without objects are left out.

    Raises:
        EvaluationError: If the file can't be read or is not COCO's, or names no such picture.
    """
    instances = read_instances(path)
    images = [
        AnnotatedImage(instances.file_names[image_id], tuple(sorted(categories)))
        for image_id, categories in sorted(instances.objects.items())
        if categories
    ]
    if not images:
        raise EvaluationError(f"{path} names no picture with objects; no question can be built")
    return images


def build_questions(
    images: Sequence[AnnotatedImage], *, count: int, seed: int
) -> dict[str, list[Question]]:
    """Build the three question files.

    Args:
        images: All annotated pictures: frequencies and co-occurrences are theirs.
        count: Pictures to ask about, drawn with the seed; fewer if there are not so many.
        seed: The same seed gives the same files.
    Returns:
        Questions by POPE type; the three ask the same present objects.
    """
    order = sorted({name for image in images for name in image.categories})
    frequency = Counter(name for image in images for name in image.categories)
    together = Counter(pair for image in images for pair in permutations(image.categories, 2))
    rng = random.Random(seed)
    chosen = rng.sample(list(images), min(count, len(images)))
    built: dict[str, list[Question]] = {pope_type: [] for pope_type in POPE_TYPES}
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
            _ask(built[pope_type], image.file_name, ranked)
    return built


def _most_together(name: str, absent: Sequence[str], together: Counter[Any]) -> list[str]:
    """Return the absent categories, those that most often occur with `name` first."""
    return sorted(absent, key=lambda other: -together[name, other])


def _ask(questions: list[Question], file_name: str, ranked: Mapping[str, Sequence[str]]) -> None:
    """Append, for each present object, a question about it and one about an absent one.

    Args:
        questions: Appended to.
        file_name: The picture.
        ranked: Absent objects by present object; the first that is not asked yet is taken.
    """
    used: set[str] = set()
    for name, candidates in ranked.items():
        negative = next(other for other in candidates if other not in used)
        used.add(negative)
        for asked, label in ((name, "yes"), (negative, "no")):
            article = "an" if asked[0] in "aeiou" else "a"
            text = f"Is there {article} {asked} in the image?"
            questions.append(Question(len(questions) + 1, file_name, text, label))
