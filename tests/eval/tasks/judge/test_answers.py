"""Two files of answers become a pair of the same pictures in the same order, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.judge.captions import from_files, from_run


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def captions(path: Path, ids: list[int], **more: str) -> Path:
    return write(path, [{"image_id": at, "caption": f"{path.stem} {at}", **more} for at in ids])


def test_the_order_is_that_of_the_first_file(tmp_path: Path) -> None:
    pair = from_files(captions(tmp_path / "a.jsonl", [3, 1, 2]),
                      captions(tmp_path / "captions_b.jsonl", [1, 2, 3]))  # fmt: skip

    assert pair.ids == list(pair.second.texts) == [3, 1, 2]
    assert (pair.first.name, pair.second.name) == ("a", "b")
    assert pair.second.texts[2] == "captions_b 2"
    assert pair.cut(2).ids == list(pair.cut(2).second.texts) == [3, 1]


def test_files_of_the_same_method_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    one, two = tmp_path / "x/eah.jsonl", tmp_path / "y/eah.jsonl"

    pair = from_files(captions(one, [1]), captions(two, [1]))

    assert (pair.first.name, pair.second.name) == (str(one), str(two))


def test_the_hash_is_of_the_answers_not_of_the_file(tmp_path: Path) -> None:
    a, b, c = (captions(tmp_path / f"{folder}/a.jsonl", [1, 2]) for folder in "xyz")
    c.write_text(c.read_text().replace("a 2", "a two"))
    b.write_text(b.read_text().replace('{"image_id"', '{"more": 1, "image_id"'))

    hashes = [from_files(path, captions(tmp_path / "o.jsonl", [1, 2])).first.hash()
              for path in (a, b, c)]  # fmt: skip

    assert hashes[0] == hashes[1] != hashes[2]


def test_bad_pairs_are_one_sentence(tmp_path: Path) -> None:
    a = captions(tmp_path / "a.jsonl", [1])
    both = write(tmp_path / "both.jsonl", [
        {"image_id": 1, "caption": "x", "method": method} for method in ("baseline", "eah")
    ])  # fmt: skip
    with pytest.raises(EvaluationError, match=r"are both .*a\.jsonl; pass two different files"):
        from_files(a, a)
    with pytest.raises(EvaluationError, match="answers of 2 methods, but one is needed; pass"):
        from_files(a, both)
    with pytest.raises(
        EvaluationError, match="no answers of method 'opera', only of baseline, eah"
    ):
        from_run(both, ["baseline", "opera"])
    with pytest.raises(EvaluationError, match=r"1 image ids only in .*b\.jsonl \(2\); both files"):
        from_files(a, captions(tmp_path / "b.jsonl", [1, 2]))
