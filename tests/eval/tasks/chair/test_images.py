"""Which pictures are captioned: a list is obeyed in its order, a sample depends on the seed."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId
from eval.tasks.chair.image_lists import read_ids
from eval.tasks.chair.images import find_ids, ids_hash, pictures_in, sample_ids

NAMES = ["COCO_val2014_000000000009.jpg", "b_3.PNG", "000000000012.jpeg", "a7.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


def ids_of(tmp_path: Path, text: str) -> list[ImageId]:
    path = tmp_path / "ids.txt"
    path.write_text(text, encoding="utf-8")
    return read_ids(path)


def test_pictures_are_found_by_id_in_the_order_of_their_names(folder: Path) -> None:
    for other in ("readme.txt", "noext", "._COCO_val2014_000000000009.jpg"):
        (folder / other).touch()
    (folder / "21.jpg").mkdir()

    found = pictures_in(folder)

    assert list(found) == [12, 9, 7, 3]
    assert [found[i] for i in found] == sorted(NAMES)


def test_pictures_in_folders_below_have_their_paths_as_ids(tmp_path: Path) -> None:
    for name in ("b/1.webp", "a/1.tif", "a/b/COCO_val2014_000000000005.jpg", "2.bmp", ".git/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)

    assert pictures_in(tmp_path) == {
        2: "2.bmp",
        "a/1.tif": "a/1.tif",
        5: "a/b/COCO_val2014_000000000005.jpg",
        "b/1.webp": "b/1.webp",
    }


def test_pictures_that_are_not_read_are_noted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pictures_in(folder)
    assert capsys.readouterr().err == ""
    for name in ("1.heic", "2.HEIC"):
        (folder / name).touch()

    assert pictures_in(folder) == before
    assert "note: 2 pictures in" in (said := capsys.readouterr().err)
    assert "(the first is 1.heic): their format is not supported" in said


def test_nothing_is_left_out_in_silence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = pictures_in(folder)
    assert capsys.readouterr().err == ""
    for name in ("1.svg", "._a7.jpg", "noext", "notes.txt", ".hidden"):
        (folder / name).touch()
    (folder / "gone.jpg").symlink_to("absent.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.png")

    assert pictures_in(folder) == before

    starts = [line.split(":")[1] for line in capsys.readouterr().err.splitlines()]
    assert starts == [
        f" 1 files in {folder} are left out (the first is ._a7.jpg)",
        f" 1 pictures in {folder} are left out (the first is 1.svg)",
        f" 3 files in {folder} are left out (the first is gone.jpg)",
        f" 2 files in {folder} are left out (the first is noext)",
    ]


def test_a_folder_that_is_linked_is_read_once_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "z/deep").mkdir(parents=True)
    (tmp_path / "z/deep/x.jpg").touch()
    (tmp_path / "a").symlink_to(tmp_path / "z/deep")
    (tmp_path / "b").symlink_to(tmp_path / "z")

    assert pictures_in(tmp_path) == {"z/deep/x.jpg": "z/deep/x.jpg"}


def test_a_webp_beside_a_jpg_is_another_picture_or_refused(tmp_path: Path) -> None:
    for name in ("kitchen.jpg", "kitchen.webp"):
        (tmp_path / name).touch()
    assert set(pictures_in(tmp_path)) == {"kitchen.jpg", "kitchen.webp"}
    for name in ("1.jpg", "0001.webp"):
        (tmp_path / name).touch()

    with pytest.raises(EvaluationError, match=r"0001\.webp and 1\.jpg in .* the same image id 1;"):
        pictures_in(tmp_path)


def test_two_names_of_one_picture_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures: dict[ImageId, str] = {"kitchen.jpg": "kitchen.jpg"}

    found = find_ids(["kitchen", "kitchen.jpg"], pictures, path=tmp_path / "ids", folder=tmp_path)

    assert found == ["kitchen.jpg"]
    assert (
        "has 2 image ids for 1 pictures: some pictures are listed twice" in capsys.readouterr().err
    )


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(
        EvaluationError, match=r"no pictures in .* or its subfolders \(.jpg, .*--data-path"
    ):
        pictures_in(tmp_path)


def test_two_pictures_with_one_id_are_an_error(folder: Path) -> None:
    (folder / "12.jpg").touch()

    with pytest.raises(EvaluationError, match=r"000000000012.jpeg and 12.jpg in .* id 12;"):
        pictures_in(folder)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sample_does_not_depend_on_the_order_of_the_directory(
    folder: Path, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100, 140):
        (folder / f"{number}.jpg").touch()
    scan = os.scandir

    class Reordered:
        def __init__(self, path: Path) -> None:
            with scan(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=reverse)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reordered)
    # Sorted as text: "000000000012.jpeg", "100.jpg" to "139.jpg", "COCO_...", "a7.jpg", "b_3.PNG".
    by_hand = [12, *range(100, 140), 9, 7, 3]

    assert sample_ids(pictures_in(folder), 10, seed=5) == random.Random(5).sample(by_hand, 10)


def test_another_seed_is_another_sample_and_a_small_folder_is_taken_whole(folder: Path) -> None:
    pictures = {number: f"{number}.jpg" for number in range(100)}

    assert sample_ids(pictures, 20, seed=1) == sample_ids(pictures, 20, seed=1)
    assert sample_ids(pictures, 20, seed=1) != sample_ids(pictures, 20, seed=2)
    assert sorted(sample_ids(pictures_in(folder), 500, seed=1)) == [3, 7, 9, 12]


def test_ids_are_read_in_every_form(tmp_path: Path) -> None:
    plain = "226988\n\n  000000000042 \r\nCOCO_val2014_000000337443.jpg\nval2014/7.PNG\n0"
    rows = [
        {"image_id": 3, "caption": "a\u2028b"},
        {"image_id": "2"},
        {"caption": "{", "image_id": "COCO_val2014_000000000001.jpg"},
    ]

    assert ids_of(tmp_path, plain) == [226988, 42, 337443, "val2014/7.PNG", 0]
    assert ids_of(tmp_path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)) == [
        3,
        2,
        1,
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.json", "[3, 1]"),
        ("ids.json", '["3", "COCO_val2014_000000000001"]'),
        ("ids.json", '[{"image_id": 3}, {"image_id": 1}, {"image_id": 3}]'),
        ("ids.json", '{"3": "A dog.", "1": "A cat."}'),
        ("ids.json", '{"annotations": [{"image_id": 3}, {"image_id": 1}], "images": []}'),
        ("ids.csv", "image_id\n3\n1\n"),
        ("ids.csv", "3\n1\n"),
        ("ids.csv", '"caption","image_id"\n"A, b","3"\n"c","1"\n'),
        ("ids.tsv", "image_id\tcaption\n3\ta\n1\tb\n"),
        ("ids.txt", "image_id\n3\n1\n"),
        ("ids.txt", "3.jpg\nCOCO_val2014_000000000001\n"),
        ("one.jsonl", '{"id": 3, "answer": "A dog.", "eah": [{"layer": 1}]}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gzip"])
def test_lists_of_other_tools_are_read(
    tmp_path: Path, name: str, content: str, encoding: str
) -> None:
    path = tmp_path / (f"{name}.gz" if encoding == "gzip" else name)
    encoded = gzip.compress(content.encode()) if encoding == "gzip" else content.encode(encoding)
    path.write_bytes(encoded)

    assert read_ids(path) == ([3] if name == "one.jsonl" else [3, 1])


def test_names_stand_for_the_only_picture_called_so(tmp_path: Path) -> None:
    pictures = {
        "kitchen.jpg": "kitchen.jpg",
        7: "7.png",
        "a/1.jpg": "a/1.jpg",
        "b/1.jpg": "b/1.jpg",
    }
    where = {"path": Path("list"), "folder": Path("pictures")}

    names = ["val2014/7.PNG", "kitchen", "a/1.jpg", "b/1.jpg"]
    assert find_ids(names, pictures, **where) == [7, "kitchen.jpg", "a/1.jpg", "b/1.jpg"]
    with pytest.raises(EvaluationError, match="1 of 1 image ids of list have no picture"):
        find_ids(["c/1.jpg"], pictures, **where)


def test_captions_of_several_methods_name_each_picture_once(tmp_path: Path) -> None:
    rows = [{"method": m, "image_id": i} for m in ("baseline", "eah") for i in (5, 1, 3)]

    assert ids_of(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)) == [5, 1, 3]


def test_the_list_of_the_released_captions_is_read(shared: Path) -> None:
    ids = read_ids(shared / "captions/llava-1.5/greedy.jsonl")

    assert ids[:3] == [226988, 337443, 112022]
    assert len(ids) == 500
    assert ids_hash(ids) == "8e6d37b0baa8afa603e8b238cc35f705ca251b8abef2954d5f2a7526bee44558"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no image ids"),
        ("\n \n", "has no image ids"),
        ("1\n-2\n", "line 2: '-2' is not an image id"),
        ("[1, -2]\n", "entry 2: -2 is not an image id"),
        ("[1, 2, 1]\n", "entry 3: image id 1 is already in entry 1"),
        ("[1, 2\n", "is not complete JSON"),
        ("[]\n", "has no image ids"),
        ("image_id\n", "has no image ids"),
        ("1\n\n7\n07\n", "line 4: image id 7 is already in line 3"),
        ('1\n{"image_id": 2}\n', "line 2: .* is not an image id"),
        ('{"image_id": 2}\n1\n', "line 2 is not a JSON object: 1"),
        ('{"image_id": 2}\n{"image\n', "line 2 is not JSON"),
        ('{"image_id": 2}\n{"id": 3}\n', "line 2: 'image_id' is None, .* keys of the row are id"),
        ('{"image_id": true}\n', "line 1: 'image_id' is True"),
        ('{"image_id": -1}\n', "line 1: 'image_id' is -1"),
    ],
)
def test_a_bad_list_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        ids_of(tmp_path, text)

    assert str(tmp_path / "ids.txt") in str(caught.value)


def test_ids_without_a_picture_are_counted_and_the_first_is_named() -> None:
    with pytest.raises(
        EvaluationError,
        match=r"2 of 3 image ids of l.txt have no picture in val2014, the first is 8",
    ):
        find_ids([1, 8, 9], {1: "1.jpg"}, path=Path("l.txt"), folder=Path("val2014"))
