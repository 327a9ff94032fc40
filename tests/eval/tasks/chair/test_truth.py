"""Ground truth: built from COCO's annotations, cached, and read from other people's files."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.chair.analyzers import Analyzer, choose
from eval.tasks.chair.truth import GroundTruth, _objects_in, cached_truth, read, write
from scripts.scenes.make import write_scenes

LEXICON = choose("lexicon")
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 67, "name": "dining table"}]
INSTANCES = {
    "train2014": ([11, 12], [(11, 1), (11, 67), (11, 1)]),
    "val2014": ([21], [(21, 67)]),
}
CAPTIONS = {
    "train2014": [(11, "A man with two puppies."), (12, "Hot dogs on a desk."), (12, "Grass.")],
    "val2014": [(21, "Skiers are skiing.")],
}
EXPECTED = {
    11: {"person", "dining table", "dog"},
    12: {"hot dog", "dining table"},
    21: {"dining table", "person", "skis"},
}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    folder = tmp_path / "annotations"
    folder.mkdir()
    for split, (ids, objects) in INSTANCES.items():
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in ids]
        rows = [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(objects)]
        texts = [{"id": n, "image_id": i, "caption": t} for n, (i, t) in enumerate(CAPTIONS[split])]
        content: dict[str, Any] = {"images": images, "annotations": rows, "categories": CATEGORIES}
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
        content = {"images": images, "annotations": texts}
        (folder / f"captions_{split}.json").write_text(json.dumps(content))
    return folder


def build(folder: Path, cache: Path, analyzer: Analyzer = LEXICON, **changes: Any) -> GroundTruth:
    options: dict[str, Any] = {"splits": ("train2014", "val2014"), "num_workers": 2} | changes
    return cached_truth(folder, analyzer, cache=cache, **options)


def test_objects_are_those_of_instances_and_captions(annotations: Path, tmp_path: Path) -> None:
    truth = build(annotations, tmp_path / "cache.json.gz")

    assert truth.objects == EXPECTED
    assert truth.analyzer == LEXICON.identity
    assert set(truth.inputs or {}) == {path.name for path in annotations.iterdir()}


def test_one_split_is_enough_for_its_pictures(annotations: Path, tmp_path: Path) -> None:
    for path in annotations.glob("*train2014.json"):
        path.unlink()

    assert build(annotations, tmp_path / "c.json", splits=("val2014",)).objects == {
        21: EXPECTED[21]
    }


def test_the_cache_is_used_as_long_as_nothing_changed(
    annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache.json.gz"
    first = build(annotations, cache)
    written = cache.read_bytes()
    monkeypatch.setattr("eval.tasks.chair.truth.build", None)

    assert build(annotations, cache) == first
    assert cache.read_bytes() == written


def test_the_cache_is_made_again_for_other_inputs_or_another_analyzer(
    annotations: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.json"
    build(annotations, cache)
    path = annotations / "captions_val2014.json"
    path.write_text(path.read_text().replace("Skiers", "Cats"))

    changed = build(annotations, cache)
    assert changed.objects[21] == {"dining table", "cat", "skis"}
    assert read(cache) == changed

    other = choose("lexicon", fixes=True)
    assert build(annotations, cache, other).analyzer == other.identity


def test_a_foreign_file_is_not_taken_for_a_cache(annotations: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"11": ["dog"]}')

    with pytest.raises(
        EvaluationError, match="so it is not overwritten; pass it as --ground-truth"
    ):
        build(annotations, mine)
    assert mine.read_text() == '{"11": ["dog"]}'


def test_a_cache_that_cannot_be_written_does_not_lose_the_ground_truth(
    annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(annotations, Path("/dev/null/cache.json")).objects == EXPECTED

    assert "note: the ground truth could not be saved (/dev/null/cache.json can't be" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    truth = GroundTruth({3: frozenset({"dog"}), 1: frozenset()}, "lexicon x", {"a.json": "0a" * 32})

    write(tmp_path / name, truth)

    assert read(tmp_path / name) == truth
    first = (tmp_path / name).read_bytes()
    write(tmp_path / name, truth)
    assert (tmp_path / name).read_bytes() == first


def test_a_plain_mapping_is_read(tmp_path: Path) -> None:
    path = tmp_path / "truth.json.gz"
    path.write_bytes(gzip.compress(b'{"9": ["bowl", "orange"], "25": []}', mtime=0))

    assert read(path) == GroundTruth({9: frozenset({"bowl", "orange"}), 25: frozenset()})


def test_the_reference_ground_truth_is_read(shared: Path) -> None:
    truth = read(shared / "coco/chair_ground_truth.json.gz")

    assert len(truth.objects) == 123_287
    assert truth.objects[25] == {"giraffe", "person"}


def test_the_hash_is_of_the_pictures_that_count() -> None:
    first = GroundTruth({1: frozenset({"dog", "cat"}), 2: frozenset({"bus"})})
    second = GroundTruth({1: frozenset({"cat", "dog"}), 2: frozenset()}, "another file")

    assert first.hash([1]) == second.hash([1])
    assert first.hash([1, 2]) != second.hash([1, 2])
    assert first.hash([1, 2]) == first.hash([2, 1])


def test_several_workers_find_the_same(
    annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.tasks.chair.truth.TEXTS_AT_ONCE", 1)

    found = [build(annotations, tmp_path / f"{n}.json", num_workers=n).objects for n in (1, 3)]

    assert found == [EXPECTED, EXPECTED]


def test_scenes_are_a_ground_truth(tmp_path: Path) -> None:
    """Scenes are named as COCO's categories; "a table scene" is a dining table to CHAIR."""
    write_scenes(tmp_path, count=15, seed=3)
    folder = tmp_path / "annotations"
    instances = json.loads((folder / "instances_val2014.json").read_text())
    names = {c["id"]: c["name"] for c in instances["categories"]}
    drawn: dict[int, set[str]] = {}
    for row in instances["annotations"]:
        drawn.setdefault(row["image_id"], set()).add(names[row["category_id"]])

    truth = build(folder, tmp_path / "cache.json", splits=("val2014",))

    assert truth.objects.keys() == drawn.keys()
    for image_id, objects in truth.objects.items():
        assert drawn[image_id] <= objects <= drawn[image_id] | {"dining table"}


def test_missing_annotations_are_named(annotations: Path, tmp_path: Path) -> None:
    (annotations / "captions_train2014.json").unlink()

    with pytest.raises(
        EvaluationError,
        match=r"lacks captions_train2014\.json \(needed: instances_train2014\.json, .*"
        r"annotations_trainval2014\.zip of cocodataset\.org, which scripts/data/download\.sh",
    ):
        build(annotations, tmp_path / "cache.json")
    with pytest.raises(EvaluationError, match="is not a folder"):
        build(tmp_path / "absent", tmp_path / "cache.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions_val2014.json", '{"annotations": [{"ima', "is not complete JSON"),
        ("captions_val2014.json", "[]", "is not a COCO annotation file"),
        ("captions_val2014.json", "{}", "is not a COCO annotation file of this kind"),
        (
            "instances_val2014.json",
            '{"images": [], "annotations": []}',
            "no list of categories",
        ),
        ("instances_val2014.json", "", "is not complete JSON"),
    ],
)
def test_damaged_annotations_are_one_sentence(
    annotations: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (annotations / name).write_text(content)

    with pytest.raises(EvaluationError, match=re.escape(message)) as raised:
        build(annotations, tmp_path / "cache.json")
    assert name in str(raised.value)
    assert not (tmp_path / "cache.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"1": ["dog"', "is not valid JSON"),
        ("x.json.gz", b"no gzip", "is not valid JSON"),
        (
            "x.json.gz",
            gzip.compress(b'{"1": ["dog"]}' * 99, mtime=0)[:20],
            "is gzipped and cut off",
        ),
        ("x.json", b"\xff\xfe", "is not valid JSON"),
        ("x.json", b"[]", "must map image ids to object names"),
        ("x.json", b'{"objects": []}', "must map image ids to object names"),
        ("x.json", b'{"-1": ["dog"]}', "but has '-1': ['dog']"),
        ("x.json", b'{"1": ["dog"], "1": ["cat"]}', "key '1' is duplicated in one object"),
        ("x.json", b'{"1": ["dog"], "1.jpg": ["cat"]}', "objects of image 1 twice, the second"),
        ("x.json", b'{"1": "dog"}', "but has '1': 'dog'"),
        ("x.json", b'{"1": [["dog"]]}', "but has '1': [['dog']]"),
        ("x.json", b'{"1": ["puppy"]}', "image 1: 'puppy' is not one of COCO's 80 objects"),
        ("chair.pkl", b"\x80\x04.", "is a pickle, which can run code when it is loaded"),
    ],
)
def test_unusable_ground_truth_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(EvaluationError, match=re.escape(message)) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_a_missing_ground_truth_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="can't be read: No such file"):
        read(tmp_path / "absent.json")


def test_a_killed_process_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.tasks.chair.truth._read_part", _die)
    analyzer = choose("lexicon")

    with pytest.raises(EvaluationError, match="pass --num-workers 1"):
        list(_objects_in(["A dog."], analyzer, "captions", 100_000))


def _die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "change",
    [{"inputs": {}}, {"inputs": {"a.json": "mine"}}, {"comment": "by hand"}, {"analyzer": None}],
)
def test_a_file_that_is_no_cache_of_ours_is_never_replaced(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    content = {"analyzer": "hand", "inputs": {"a.json": "0a" * 32}, "objects": {"1": ["dog"]}}
    (tmp_path / "hand.json").write_text(json.dumps({**content, **change}))

    assert read(tmp_path / "hand.json").inputs is None
