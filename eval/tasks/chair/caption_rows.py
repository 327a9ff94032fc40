"""Read the rows of a captions file: the layouts of `eval.files.rows`, and maps by image id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.image_ids import PICTURE_SUFFIXES, image_id_of
from eval.files.rows import OBJECT, read_rows
from eval.files.storage import Record

IMAGES_TO_ROWS: Final = "imgToEval"  # key in the output of the original CHAIR


def caption_rows(path: Path, *, image_id_key: str, caption_key: str) -> list[tuple[str, Record]]:
    """Return the rows of a captions file, each with its position in the file.

    A JSON object whose keys are all image ids maps them to captions: text, a row, or a list of
    these, as in the results of pycocoevalcap.

    Raises:
        EvaluationError: If the file can't be read or is in no known layout.
    """
    found = read_rows(path)
    if found.layout != OBJECT:
        return found.rows
    ((_, content),) = found.rows
    by_id = content.get(IMAGES_TO_ROWS, content)
    if not isinstance(by_id, dict) or not all(map(_is_image_id, by_id)):
        return [("line 1", content)]
    return list(_rows_of_map(path, by_id, image_id_key, caption_key))


def _is_image_id(key: str) -> bool:
    is_name = PurePath(key).suffix.lower() in PICTURE_SUFFIXES
    return is_name or isinstance(image_id_of(key), int)


def _rows_of_map(
    path: Path, by_id: Mapping[str, Any], image_id_key: str, caption_key: str
) -> Iterator[tuple[str, Record]]:
    for image_id, value in by_id.items():
        of = value if isinstance(value, list) else [value]
        if not of:
            raise EvaluationError(
                f'{path} has no caption of image {image_id}; write "" if the model gave no text'
            )
        for one in of:
            row = one if isinstance(one, dict) else {caption_key: one}
            own = row.get(image_id_key, image_id)
            if image_id_of(own) != image_id_of(image_id):
                raise EvaluationError(
                    f"{path}: the row of image {image_id} has {image_id_key!r} {own!r:.60}, but "
                    "both must be the same image; correct one of them"
                )
            yield f"image {image_id}", {image_id_key: image_id, **row}
