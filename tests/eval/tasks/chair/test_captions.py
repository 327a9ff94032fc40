"""Captions as other tools write them, and cut as papers cut them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Caption
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.scoring import cut_words, drop_unfinished

ROWS = [{"image_id": 7, "caption": "A dog.\u2028Two."}, {"image_id": 3, "caption": ""}]
CAPTIONS = [Caption(7, "A dog.\u2028Two."), Caption(3, "")]


def read(path: Path, **changes: object) -> dict[str, list[Caption]]:
    options = {"image_id_key": "image_id", "caption_key": "caption", "last": False} | changes
    return read_captions(path, **options)  # type: ignore[arg-type]


def lines(*rows: object) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        lines(*ROWS),
        "\n" + lines(*ROWS).replace("\n", "\r\n\r\n"),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"overall": {}, "imgToEval": {"7": ROWS[0], "3": ROWS[1]}}),
        json.dumps({"config": {"beams": 1}, "results": ROWS}, indent=1),
        json.dumps({"info": {}, "images": [{"id": 7}], "annotations": ROWS}),
        json.dumps({row["image_id"]: row["caption"] for row in ROWS}),
        json.dumps({f"{row['image_id']:012}": [row] for row in ROWS}),
        json.dumps({f"{row['image_id']}.jpg": {"caption": row["caption"]} for row in ROWS}),
    ],
    ids=[
        "lines",
        "empty lines, CRLF",
        "list",
        "indented list",
        "the original CHAIR's",
        "results",
        "COCO's",
        "map of texts",
        "pycocoevalcap's",
        "map of rows",
    ],
)
def test_formats(tmp_path: Path, content: str) -> None:
    path = tmp_path / "captions_mine.jsonl"
    path.write_text(content, encoding="utf-8", newline="")

    assert read(path) == {"mine": CAPTIONS}


def test_one_caption_is_a_file_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(lines(ROWS[0]))

    assert read(path) == {"one": CAPTIONS[:1]}


@pytest.mark.parametrize(
    ("name", "delimiter"), [("captions_t.csv", ","), ("captions_t.csv", ";"), ("t.tsv.gz", "\t")]
)
def test_tables(tmp_path: Path, name: str, delimiter: str) -> None:
    text = delimiter.join(["id", "text"]) + "\n" + delimiter.join(["7", '"A, b; ""c""\td."']) + "\n"
    content = text.encode("utf-16")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    assert read(tmp_path / name, image_id_key="id", caption_key="text") == {
        "t": [Caption(7, 'A, b; "c"\td.')]
    }


def test_one_row_with_a_list_in_it_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(lines({"image_id": 7, "caption": "A dog.", "boxes": [{"image_id": 1}]}))

    assert read(path) == {"one": [Caption(7, "A dog.")]}


def test_pictures_without_numbers_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"kitchen.jpg": "A cup.", "garden/1.jpg": "A tree."}))

    assert read(path) == {
        "x": [Caption("kitchen.jpg", "A cup."), Caption("garden/1.jpg", "A tree.")]
    }


def test_other_keys_and_file_names_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(lines({"file": "COCO_val2014_000000226988.jpg", "text": "a"},
                          {"file": "12", "text": "b"}))  # fmt: skip

    assert read(path, image_id_key="file", caption_key="text") == {
        "x": [Caption(226988, "a"), Caption(12, "b")]
    }


def test_a_run_folder_holds_several_methods(tmp_path: Path) -> None:
    rows = [{"method": m, "image_id": i, "caption": f"{m}{i}"}
            for i in (2, 1) for m in ("eah", "baseline")]  # fmt: skip
    (tmp_path / "predictions.jsonl").write_text(lines(*rows))

    assert read(tmp_path) == {
        "eah": [Caption(2, "eah2"), Caption(1, "eah1")],
        "baseline": [Caption(2, "baseline2"), Caption(1, "baseline1")],
    }


def test_doubles_are_named_and_the_last_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(lines(*[{"image_id": i % 7, "caption": str(i)} for i in range(9)]))

    with pytest.raises(
        EvaluationError, match=r"more than one caption for 2 pictures: 0, 1; .*--last"
    ):
        read(path)
    assert [(c.image_id, c.text) for c in read(path, last=True)["x"]][:3] == [
        (0, "7"), (1, "8"), (2, "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no captions"),
        ("[]", "has no captions"),
        (lines({"id": 1, "text": "a"}), "line 1 has no 'image_id'; its keys are id, text: "
         "pass the right ones as --image_id_key and --caption_key"),
        (lines(ROWS[0], {"image_id": 1, "caption": None}), "line 2: 'caption' is null, not text"),
        (lines({"image_id": 1, "caption": ["a"]}), """line 1: 'caption' is ["a"], not text"""),
        (lines({"image_id": True, "caption": "a"}), "line 1: True is not an image id"),
        (lines({"image_id": "-2", "caption": "a"}), "line 1: '-2' is not an image id"),
        (lines(ROWS[0]) + '{"image_id": 1, "capt', "line 2 is not JSON"),
        ('[{"image_id": 1, "caption": "a"}, {"ima', "is not complete JSON"),
        ('{"file": "12", "text": "b"}', "line 1 has no 'image_id'; its keys are file, text"),
        ('{"7": 5}', "image 7: 'caption' is 5, not text"),
        ('{"7": []}', "has no caption of image 7"),
        ('{"7": "a", "7": "b"}', "key '7' is duplicated in one object"),
        ('{"7": {"image_id": 8, "caption": "a"}}', "the row of image 7 has 'image_id' 8"),
        (lines({"image_id": "1" * 5000, "caption": "a"}), "1 is not an image id"),
        (lines({**ROWS[0], "method": "m"}, ROWS[1]),
         "has 1 rows without a method, but others have one"),
        ("[1]", "entry 1 is not a JSON object: 1"),
        (lines(1), "contains 1; each row must be a JSON object"),
    ],
)  # fmt: skip
def test_unusable_files_are_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(content)

    with pytest.raises(EvaluationError, match=re.escape(message)) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_an_empty_method_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text('image_id,caption,method\n7,"A dog, a cat",\n')
    assert read(tmp_path / "mine.csv") == {"mine": [Caption(7, "A dog, a cat")]}


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="can't be read: No such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(EvaluationError, match=r"is not a run folder, since it has no run\.json"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [("a b c", 2, "a b"), ("a b c", 3, "a b c"), ("a b c", 9, "a b c"), ("", 3, ""),
     ("a\n\nb c", 1, "a\n\nb"), ("a  b", 2, "a ")],
)  # fmt: skip
def test_cutting_words(text: str, count: int, expected: str) -> None:
    assert cut_words(text, count) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog. A cat", "A dog."),
        ("A dog. A cat.", "A dog. A cat."),
        ('It says "Stop." A', 'It says "Stop."'),
        ("Really? Yes! Per", "Really? Yes!"),
        ("It costs 3.50 in", ""),
        ("A dog.\n\nA cat", "A dog."),
        ("A dog", ""),
        ("", ""),
    ],
)
def test_dropping_what_is_unfinished(text: str, expected: str) -> None:
    assert drop_unfinished(text) == expected
