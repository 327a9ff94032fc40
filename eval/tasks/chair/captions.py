"""Read captions to be scored, and cut them where that is asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.json_lines import read_json_lines
from eval.run.folder import PREDICTIONS
from eval.tasks.chair.images import image_id_of

SHOWN_IDS: Final = 5


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption of one picture."""

    image_id: int
    text: str


def read_captions(
    path: Path, *, image_id_key: str, caption_key: str, last: bool = False
) -> dict[str, list[Caption]]:
    """Return captions by method, in the file's order.

    Takes JSON lines, a JSON list of objects, the original CHAIR's `imgToEval`, or a run folder of
    `chair_eval.py`. Rows that name a `method` are captions of that method; a file without is one
    method, named after the file.

    Args:
        path: The file, or the run folder.
        image_id_key: Where a row has the image's id: a number, or a COCO file name.
        caption_key: Where a row has the caption.
        last: If a method has several captions of a picture, take the last one.
    Raises:
        EvaluationError: If there are no captions, a row has none, or an id occurs twice.
    """
    path = captions_file(path)
    arms: dict[str, list[Caption]] = {}
    for place, row in _rows(path):
        for key in (image_id_key, caption_key):
            if key not in row:
                raise EvaluationError(
                    f"{path}, {place} has no {key!r}; the keys there are {', '.join(sorted(row))}: "
                    "pass the right ones as --image_id_key and --caption_key"
                )
        text = row[caption_key]
        if not isinstance(text, str):
            raise EvaluationError(
                f"{path}, {place}: {caption_key!r} is {json.dumps(text)[:60]}, not text; a caption "
                'is needed, "" if the model said nothing'
            )
        method = str(row.get("method", path.stem.removeprefix("captions_")))
        arms.setdefault(method, []).append(
            Caption(_image_id(row[image_id_key], f"{path}, {place}"), text)
        )
    if not arms:
        raise EvaluationError(f"{path} holds no captions")
    return {method: _without_doubles(path, rows, last=last) for method, rows in arms.items()}


def captions_file(path: Path) -> Path:
    """Return the file of captions that a path means: itself, or that of a run folder."""
    return path / PREDICTIONS if path.is_dir() else path


def captions_hash(path: Path) -> str:
    """Return the SHA-256 of a captions file."""
    return hashlib.sha256(captions_file(path).read_bytes()).hexdigest()


def cut_words(text: str, max_words: int) -> str:
    """Return the first words of a text.

    Words are what single spaces separate, as OPERA's scripts split; a line break separates none.
    """
    return " ".join(text.split(" ")[:max_words])


def drop_unfinished(text: str) -> str:
    """Return a text without its last sentence if that has no end, as OPERA's 64-token column does.

    A sentence ends in a full stop, an exclamation mark or a question mark, and a quotation mark or
    bracket after it belongs to it.
    """
    ends = [match.end() for match in re.finditer(r"[.!?][\"'\u201d\u2019)\]]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends else ""


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of a captions file, each with the place where it stands."""
    content = _one_value(path)
    if isinstance(content, dict) and "imgToEval" in content:
        content = list(content["imgToEval"].values())
    if not isinstance(content, list):
        return [(f"line {number}", row) for number, row in read_json_lines(path)]
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise EvaluationError(f"{path}, caption {number} is not a JSON object: {row!r:.60}")
    return [(f"caption {number}", row) for number, row in enumerate(content, start=1)]


def _one_value(path: Path) -> Any:
    """Return the content of a file that is one JSON value; None if it may be JSON lines."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        return None
    except json.JSONDecodeError as error:
        if content.lstrip()[:1] == b"[":
            raise EvaluationError(
                f"{path} is not whole JSON ({error.msg} at character {error.pos}); it may have "
                "been cut off, write or copy it again"
            ) from error
        return None


def _image_id(value: Any, where: str) -> int:
    image_id = image_id_of(value)
    if image_id is None:
        raise EvaluationError(
            f"{where}: {value!r} is no image id; a number is needed, or a file name such as "
            "COCO_val2014_000000000042.jpg"
        )
    return image_id


def _without_doubles(path: Path, captions: Sequence[Caption], *, last: bool) -> list[Caption]:
    counts = Counter(caption.image_id for caption in captions)
    doubled = [image_id for image_id, count in counts.items() if count > 1]
    if doubled and not last:
        raise EvaluationError(
            f"{path} has more than one caption of {len(doubled)} pictures: {some_ids(doubled)}; "
            "pass --last to take the last one of each, or remove the others"
        )
    return list({caption.image_id: caption for caption in captions}.values())


def some_ids(ids: Sequence[int]) -> str:
    """Return the first few ids as text."""
    shown = ", ".join(map(str, ids[:SHOWN_IDS]))
    return f"{shown}, ..." if len(ids) > SHOWN_IDS else shown
