"""Read the captions to score."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Caption
from eval.files.image_ids import ImageId, image_id_of
from eval.files.storage import AppendedLines, read_json
from eval.run.arm_folder import ANSWERS, ARMS
from eval.run.folder import OLD_ANSWERS, RUN
from eval.run.question_check import check_questions
from eval.run.recorded import read_run
from eval.tasks.chair.caption_rows import caption_rows


class Origin(NamedTuple):
    """The model that wrote captions, and a description of model, protocol and decoding."""

    model: str
    words: str


def read_captions(
    path: Path, *, image_id_key: str = "image_id", caption_key: str = "caption", last: bool = False
) -> dict[str, list[Caption]]:
    """Return captions by method, in the file's order.

    Reads the layouts of `caption_rows`, or a run folder of `chair_eval.py`, for which the keys
    below are ignored. Rows with a `method` are captions of that method. A file without methods is
    one method, named after the file.

    Args:
        path: The file, or the run folder.
        image_id_key: Key of the image id: a number, or the picture's name.
        caption_key: Key of the caption.
        last: If a method has several captions of a picture, take the last one.
    Raises:
        EvaluationError: If there are no captions, a row has none, or an id is duplicated.
    """
    if path.is_dir() and ((path / RUN).is_file() or not (path / OLD_ANSWERS).is_file()):
        return _read_run_folder(path)
    path = path / OLD_ANSWERS if path.is_dir() else path
    name = path.with_suffix("").stem if path.suffix == ".gz" else path.stem
    name = name.removeprefix("captions_")
    arms: dict[str, list[Caption]] = {}
    for place, row in caption_rows(path, image_id_key=image_id_key, caption_key=caption_key):
        for key in (image_id_key, caption_key):
            if key not in row:
                raise EvaluationError(
                    f"{path}, {place} has no {key!r}; its keys are {', '.join(sorted(row))}: pass "
                    "the right ones as --image_id_key and --caption_key"
                )
        text = row[caption_key]
        if not isinstance(text, str):
            raise EvaluationError(
                f"{path}, {place}: {caption_key!r} is {json.dumps(text)[:60]}, not text; write the "
                'caption, or "" if the model gave no text'
            )
        method = str(row.get("method") or "")
        image_id = _image_id(row[image_id_key], f"{path}, {place}")
        arms.setdefault(method, []).append(Caption(image_id, text))
    if not arms:
        raise EvaluationError(f"{path} has no captions; pass the file that contains them")
    if "" in arms and len(arms) > 1:
        raise EvaluationError(
            f"{path} has {len(arms[''])} rows without a method, but others have one; name it in "
            "every row, or in none"
        )
    arms = {method or name: rows for method, rows in arms.items()}
    return {method: _remove_duplicates(path, rows, last=last) for method, rows in arms.items()}


def captions_hash(path: Path) -> str:
    """Return the SHA-256 of a captions file, or of the answers of a run folder."""
    found = [path]
    if path.is_dir():
        arms = [AppendedLines(arm / ANSWERS) for arm in sorted(path.glob(f"{ARMS}/*"))]
        found = [*path.glob(OLD_ANSWERS), *(part for arm in arms for part in arm.parts())]
    return hashlib.sha256(b"".join(file.read_bytes() for file in found)).hexdigest()


def origin_of(path: Path) -> Origin | None:
    """Return the origin of captions; None if there is no run.json of a captioning run.

    Args:
        path: The run folder, or a file in it or in one of its folders.
    """
    folders = [path] if path.is_dir() else path.absolute().parents[:2]
    found = next((folder / RUN for folder in folders if (folder / RUN).is_file()), None)
    settings = {} if found is None else read_json(found).get("settings")
    if not isinstance(settings, dict):
        return None
    texts = [settings.get(name) for name in ("model", "protocol", "question")]
    decoding = settings.get("decoding")
    known = ("do_sample", "num_beams", "max_new_tokens")
    if not isinstance(decoding, dict) or not all(name in decoding for name in known):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    model, protocol, question = map(str, texts)
    how = "nucleus sampling" if decoding["do_sample"] else f"{decoding['num_beams']} beam(s)"
    words = (
        f"{model}, protocol {protocol}, {how}, at most {decoding['max_new_tokens']} tokens, "
        f"question {question!r}"
    )
    return Origin(model, words)


def _read_run_folder(path: Path) -> dict[str, list[Caption]]:
    """Return the captions of a run folder by arm, the baseline first.

    Raises:
        EvaluationError: If there are none, or an arm lacks captions that another arm has.
    """
    run = read_run(path)
    run.check_answered()
    check_questions(run, lambda item: item.question)
    arms = {name: arm.answers for name, arm in run.arms.items()}
    ids = dict.fromkeys(answer.item.id for answers in arms.values() for answer in answers)
    if not ids:
        raise EvaluationError(f"{path} has no answers; run the command that made it again")
    for name, answers in arms.items():
        there = {answer.item.id for answer in answers}
        if missing := [one for one in ids if one not in there]:
            raise EvaluationError(
                f"{path} is incomplete: {name} lacks {len(missing)} of {len(ids)} pictures, the "
                f"first is {missing[0]}; run the command that made it again"
            )
    return {
        name: [Caption(_image_id(one.item.id, f"{path}, {name}"), one.text) for one in answers]
        for name, answers in arms.items()
    }


def _image_id(value: Any, where: str) -> ImageId:
    image_id = image_id_of(value)
    if image_id is None:
        raise EvaluationError(
            f"{where}: {value!r:.60} is not an image id; a number is needed, or a picture's name "
            "such as COCO_val2014_000000000042.jpg"
        )
    return image_id


def _remove_duplicates(path: Path, captions: Sequence[Caption], *, last: bool) -> list[Caption]:
    counts = Counter(caption.image_id for caption in captions)
    doubled = [image_id for image_id, count in counts.items() if count > 1]
    if doubled and not last:
        raise EvaluationError(
            f"{path} has more than one caption for {len(doubled)} pictures: {some_ids(doubled)}; "
            "pass --last to take the last caption of each, or remove the others"
        )
    return list({caption.image_id: caption for caption in captions}.values())
