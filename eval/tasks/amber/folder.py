"""Read AMBER's files: questions, annotations, and the words that captions are scored with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Item
from eval.files.rows import read_rows
from eval.files.storage import Record, read_json
from eval.files.text import read_text
from models.settings import ROOT

CAPTIONS: Final = "query_generative.json"
QUESTIONS: Final = "query_discriminative.json"
ANNOTATIONS: Final = "annotations.json"
RELATION: Final = "relation.json"
SAFE_WORDS: Final = "safe_words.txt"
GENERATIVE: Final = "generative"
FOLDER: Final = ROOT / "data/AMBER"  # the default
ADVICE: Final = (
    "pass the folder data/ of AMBER's repository (github.com/junyangwang0410/AMBER) as --questions "
    "(scripts/data/download.sh --only amber fetches its files)"
)


@dataclass(frozen=True, slots=True)
class Words:
    """AMBER's vocabulary.

    Attributes:
        association: Synonyms by word.
        safe: Words that never count as hallucinated.
        known: All words that count as mentions.
        hash: SHA-256 of the known words.
    """

    association: Mapping[str, tuple[str, ...]]
    safe: frozenset[str]
    known: frozenset[str]
    hash: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """Words for what is in a picture, and for what a model is likely to hallucinate there.

    Scores count positions in the lists, so repeated words count several times.

    Attributes:
        truth: Words for what is in the picture.
        hallu: Words for likely hallucinations.
    """

    truth: tuple[str, ...]
    hallu: tuple[str, ...]

    def __str__(self) -> str:
        """Return the annotation as JSON, which is the label of a question."""
        return json.dumps({"truth": self.truth, "hallu": self.hallu}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Amber:
    """The data of the generative half.

    Attributes:
        folder: The folder.
        items: One for each picture; their labels are the annotations.
        annotations: By id.
        words: Vocabulary of `relation.json` and `safe_words.txt`.
    """

    folder: Path
    items: tuple[Item, ...]
    annotations: Mapping[int | str, Annotation]
    words: Words


def amber_folder(path: Path | None) -> Path:
    """Return the folder of AMBER's files.

    Raises:
        EvaluationError: If it does not exist.
    """
    folder = path or FOLDER
    if not folder.is_dir():
        what = f"AMBER's files are not in {FOLDER}" if path is None else f"{path} is not a folder"
        raise EvaluationError(f"{what}; {ADVICE}")
    return folder


def read_captions_half(folder: Path) -> Amber:
    """Read the generative half.

    Raises:
        EvaluationError: If a file is missing or damaged, or the files are of different versions.
    """
    words = read_words(folder)
    asked = read_queries(folder, CAPTIONS)
    annotations = _annotations(folder / ANNOTATIONS, {item.id for item in asked})
    found: dict[int | str, Annotation] = {}
    for item in asked:
        if item.id not in annotations:
            raise EvaluationError(
                f"{folder / ANNOTATIONS} has no entry of type {GENERATIVE!r} for id {item.id} of "
                f"{CAPTIONS}; both must be from one version of AMBER"
            )
        of = annotations[item.id]
        if unknown := sorted({*of.truth, *of.hallu} - words.association.keys()):
            raise EvaluationError(
                f"{folder / ANNOTATIONS} has {some_ids(unknown)} for id {item.id}, which "
                f"{RELATION} lacks; both must be from one version of AMBER"
            )
        found[item.id] = of
    items = tuple(
        Item(item.id, item.image, item.question, str(found[item.id])) for item in asked
    )  # fmt: skip
    return Amber(folder, items, found, words)


def query_file(folder: Path, name: str) -> Path:
    """Return the path of a query file, in the folder or in its `query/` as in the repository."""
    inner = folder / "query" / name
    return inner if inner.is_file() else folder / name


def read_queries(folder: Path, name: str) -> list[Item]:
    """Read the queries of a file, without labels.

    Args:
        folder: Folder of AMBER's files.
        name: CAPTIONS or QUESTIONS.
    Raises:
        EvaluationError: If it can't be read, or an id is duplicated.
    """
    path = query_file(folder, name)
    items: list[Item] = []
    for number, row in enumerate(read_objects(path), start=1):
        kinds = {"id": int, "image": str, "query": str}
        if any(type(row.get(key)) is not kind or row[key] == "" for key, kind in kinds.items()):
            raise EvaluationError(
                f"{path}, entry {number} is {row!r:.80}; it needs a whole number as id, and text "
                "as image and query"
            )
        items.append(Item(row["id"], row["image"], row["query"]))
    counts = Counter(item.id for item in items)
    if doubled := [at for at, count in counts.items() if count > 1]:
        raise EvaluationError(
            f"{path} has duplicate ids ({some_ids(doubled)}), but each must be unique; download it "
            "again"
        )
    if not items:
        raise EvaluationError(f"{path} has no queries; {ADVICE}")
    return items


def read_words(folder: Path) -> Words:
    """Read the vocabulary of `relation.json` and `safe_words.txt`.

    Raises:
        EvaluationError: If a file is missing or damaged.
    """
    path = folder / RELATION
    relation = read_json(_require_file(path))
    for word, of in relation.items():
        if not _are_texts(of):
            raise EvaluationError(f"{path} has {of!r:.60} for {word!r}; a list of words is needed")
    association = {word: tuple(of) for word, of in relation.items()}
    known = frozenset(association).union(*association.values())
    safe = frozenset(filter(None, map(str.strip, _text(folder / SAFE_WORDS).split("\n"))))
    return Words(
        association, safe, known, hashlib.sha256(json.dumps(sorted(known)).encode()).hexdigest()
    )


def _annotations(path: Path, wanted: set[int | str]) -> dict[int | str, Annotation]:
    """Return the annotations of the pictures with the given ids."""
    found: dict[int | str, Annotation] = {}
    for row in read_objects(path):
        at = row.get("id")
        if at not in wanted or row.get("type") != GENERATIVE:
            continue
        if at in found:
            raise EvaluationError(
                f"{path} annotates id {at} twice, but once is needed; download it again"
            )
        truth, hallu = row.get("truth", ""), row.get("hallu", "")
        if not (_are_texts(truth) and _are_texts(hallu)):
            raise EvaluationError(
                f"{path}, id {at}: truth is {truth!r:.60} and hallu is {hallu!r:.60}; lists of "
                "words are needed"
            )
        found[at] = Annotation(tuple(truth), tuple(hallu))
    return found


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def read_objects(path: Path) -> list[Record]:
    """Return the objects of a JSON list."""
    return [row for _, row in read_rows(_require_file(path)).rows]


def _text(path: Path) -> str:
    return read_text(_require_file(path))


def _require_file(path: Path) -> Path:
    """Return the path if the file exists; raise an error otherwise."""
    if not path.exists():
        raise EvaluationError(f"{path} does not exist; {ADVICE}")
    return path
