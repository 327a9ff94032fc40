"""Inputs of public bug reports, through the commands as a user runs them."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import chair, chair_eval, pope_eval
from eval.files.pictures import read_picture
from scripts.scenes.make import write_scenes
from tests.eval.small_runs import lines_of, only_run, pope_flags

ROOT = Path(__file__).resolve().parents[2]
COCO_NAME = "COCO_val2014_000000000001"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def cases(shared: Path) -> Path:
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("no reference data: shared/cases is absent")
    return folder


@pytest.fixture
def writable(cases: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a folder of the cases to where a cache can be written."""

    def copy(name: str) -> Path:
        target = tmp_path / Path(name).name
        target.mkdir()
        for path in (cases / name).iterdir():
            shutil.copyfile(path, target / path.name)
        return target

    return copy


def ask_pope(tmp_path: Path, pictures: Path, questions: Path, *more: object) -> int:
    return pope_eval.main([
        "--model", "tiny-llava", "--device", "cpu", "--method", "baseline",
        "--output-dir", str(tmp_path / "runs"), "--data-path", str(pictures),
        "--pope-path", str(questions), *map(str, more),
    ])  # fmt: skip


def caption(tmp_path: Path, pictures: Path, *more: object) -> int:
    return chair_eval.main([
        "--model", "tiny-llava", "--device", "cpu", "--method", "baseline", "--max-new-tokens", "2",
        "--output-dir", str(tmp_path / "runs"), "--data-path", str(pictures), *map(str, more),
    ])  # fmt: skip


def captioned(tmp_path: Path) -> dict[int | str, str]:
    """Return the pictures of the only captioning run by id."""
    rows = lines_of(only_run(tmp_path / "runs", "chair"), "baseline")
    return {row["id"]: row["image"] for row in rows}


def score(*arguments: object) -> int:
    return chair.main(["--analyzer", "lexicon", *map(str, arguments)])


def scored(out: Path) -> dict[str, float]:
    numbers: dict[str, float] = json.loads(out.read_text())["overall_metrics"]
    return numbers


def refusal(capsys: Capture) -> str:
    """Return the only sentence of a refusal."""
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    return sentence


def test_deep_grey_is_scaled_and_asked_about(cases: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copyfile(cases / "pictures-deep/grey16.png", pictures / f"{COCO_NAME}.png")

    assert ask_pope(tmp_path, pictures, cases / "pictures-deep/coco_pope_random.json") == 0

    with Image.open(pictures / f"{COCO_NAME}.png") as image:
        high = np.asarray(image) // 256
    grey = np.asarray(read_picture(pictures / f"{COCO_NAME}.png"))
    assert (grey == high[..., None]).all()


@pytest.mark.parametrize(("name", "kind"), [("int32_tiff", "integers"), ("float_tiff", "floats")])
def test_pictures_of_32_bits_are_refused_by_name(
    cases: Path, tmp_path: Path, capsys: Capture, name: str, kind: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copyfile(cases / f"pictures-deep/{name}.png", pictures / f"{COCO_NAME}.png")

    assert ask_pope(tmp_path, pictures, cases / "pictures-deep/coco_pope_random.json") == 2

    assert f"{COCO_NAME}.png can't be read (its pixels are 32-bit {kind}" in refusal(capsys)


@pytest.mark.parametrize("name", [f"{COCO_NAME}.png", "text_chunk.png"])
def test_a_bomb_is_one_sentence_with_its_name(
    cases: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copyfile(cases / "pictures-bombs" / name, pictures / f"{COCO_NAME}.png")

    assert ask_pope(tmp_path, pictures, cases / "pictures-bombs/coco_pope_random.json") == 2

    assert f"picture {pictures}/{COCO_NAME}.png can't be read (" in refusal(capsys)


def test_a_strip_is_refused_by_name(cases: Path, tmp_path: Path, capsys: Capture) -> None:
    assert caption(tmp_path, cases / "picture-strip") == 2

    sentence = refusal(capsys)
    assert f"{COCO_NAME}.jpg can't be read (it has 1 x 20000 pixels; sides may be" in sentence
    assert "one at most 200 times as long as the other" in sentence


def test_an_unreadable_picture_ends_a_run_or_is_left_out_and_listed(
    cases: Path, tmp_path: Path, capsys: Capture
) -> None:
    write_scenes(tmp_path, count=4, seed=1)
    pictures = tmp_path / "val2014"
    broken, pointer = pictures / f"{COCO_NAME}.jpg", pictures / "COCO_val2014_000000000003.jpg"
    shutil.copyfile(cases / "picture-broken" / broken.name, broken)
    shutil.copyfile(cases / "picture-broken/lfs_pointer.jpg", pointer)

    assert caption(tmp_path, pictures, "--seed", 1) == 2
    assert "can't be read" in (said := refusal(capsys)) or "Git LFS" in said
    assert "--skip-unreadable" in said
    shutil.rmtree(tmp_path / "runs")
    assert caption(tmp_path, pictures, "--skip-unreadable") == 0

    said = capsys.readouterr().err
    assert "note: 2 of 4 pictures are left out, with their 2 questions:\n" in said
    assert f"  picture {broken} can't be read (image file is truncated" in said
    assert f"  picture {pointer} is a Git LFS pointer, not the picture" in said
    assert set(captioned(tmp_path)) == {2, 4}
    content = json.loads((only_run(tmp_path / "runs", "chair") / "run.json").read_text())
    assert sorted(content["settings"]["left_out"]) == [broken.name, pointer.name]


def test_unreadable_pictures_are_left_out_in_another_run(tmp_path: Path, capsys: Capture) -> None:
    flags = [*pope_flags(tmp_path), "--output-dir", str(tmp_path / "runs"), "--method", "baseline"]
    assert pope_eval.main([*flags, "--skip-unreadable"]) == 0
    assert "left out" not in capsys.readouterr().err
    whole = only_run(tmp_path / "runs")
    assert pope_eval.main(flags) == 0
    assert only_run(tmp_path / "runs") == whole  # nothing was left out, so it is the same run
    bad = lines_of(whole, "baseline")[0]["image"]
    (tmp_path / "val2014" / bad).write_bytes(b"no picture")
    shutil.rmtree(tmp_path / "runs")

    assert pope_eval.main([*flags, "--skip-unreadable"]) == 0

    run = only_run(tmp_path / "runs")
    asked = {row["image"] for row in lines_of(run, "baseline")}
    assert len(asked) == 3
    assert bad not in asked
    assert json.loads((run / "run.json").read_text())["settings"]["left_out"] == [bad]
    assert f"picture {tmp_path / 'val2014' / bad} can't be read" in capsys.readouterr().err
    (tmp_path / "val2014" / bad).unlink()
    assert pope_eval.main([*flags, "--skip-unreadable"]) == 2
    assert f"1 of 4 pictures are not in {tmp_path / 'val2014'}" in capsys.readouterr().err


def test_where_no_picture_can_be_read_nothing_is_asked(
    cases: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert caption(tmp_path, cases / "picture-broken", "--skip-unreadable") == 2

    assert "none of the 2 pictures can be read; picture " in refusal(capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("noid", {"garden.jpg": "garden.jpg", "kitchen.jpg": "kitchen.jpg"}),
        ("paren", {"IMG_2031 (1).jpg": "IMG_2031 (1).jpg"}),
        ("webp", {1: "000000000001.webp"}),
        ("mixed", {1: "000000000001.webp", 2: "000000000002.jpg"}),
    ],
)
def test_pictures_may_have_names_of_their_own(
    cases: Path, tmp_path: Path, folder: str, expected: dict[int | str, str]
) -> None:
    assert caption(tmp_path, cases / "pictures-own-names" / folder) == 0

    assert captioned(tmp_path) == expected


def own_pictures(folder: Path) -> Path:
    for name in ("kitchen/1.jpg", "garden/1.bmp", "cover.gif"):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (90, 200, 10)).save(path)
    return folder / "pictures"


def test_pictures_in_folders_are_captioned_listed_scored_and_shown(
    tmp_path: Path, capsys: Capture
) -> None:
    pictures = own_pictures(tmp_path)
    (pictures / "phone.heic").touch()
    truth = tmp_path / "truth.json"
    names = {"kitchen/1.jpg", "garden/1.bmp", "cover.gif"}
    truth.write_text(json.dumps({name: ["cup"] for name in names}))

    assert caption(tmp_path, pictures, "--score", "--ground-truth", truth) == 0
    said = capsys.readouterr().err
    assert "note: 1 pictures in" in said
    assert "phone.heic" in said

    run = only_run(tmp_path / "runs", "chair")
    assert set(captioned(tmp_path)) == names
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    assert score("--cap_file", run / "report/captions_baseline.jsonl", "--ground-truth", truth,
                 "--save_path", out, "--report", page, "--images", pictures) == 0  # fmt: skip
    assert {row["image_id"] for row in json.loads(out.read_text())["sentences"]} == names
    assert page.read_text().count("data:image/jpeg") == 3
    assert caption(tmp_path, pictures, "--image-ids", run / "report/image_ids.txt") == 0
    assert only_run(tmp_path / "runs", "chair") == run


def test_own_names_are_not_scored_by_coco(tmp_path: Path, capsys: Capture) -> None:
    write_scenes(tmp_path, count=1, seed=1)
    pictures = own_pictures(tmp_path)

    assert caption(tmp_path, pictures, "--score", "--coco_path", tmp_path / "annotations") == 2

    assert "3 of 3 pictures can't be scored: " in (said := refusal(capsys))
    assert "COCO's annotations identify pictures by numbers" in said
    assert not (tmp_path / "runs").exists()
    assert caption(tmp_path, pictures) == 0
    assert "--ground-truth /path/to/objects_by_name.json" in capsys.readouterr().out


@pytest.mark.parametrize(("folder", "name"), [("renamed_person", "human"), ("cap_names", "Banana")])
def test_other_categories_are_refused_before_a_cache_is_written(
    cases: Path, writable: Callable[[str], Path], capsys: Capture, folder: str, name: str
) -> None:
    annotations = writable(f"other-categories/{folder}")

    assert score("--cap_file", cases / "other-categories/caps.jsonl", "--splits", "val2014",
                 "--coco_path", annotations) == 2  # fmt: skip

    assert f"that are not among COCO's 80: {name}" in refusal(capsys)
    assert len(list(annotations.iterdir())) == 2


def test_half_a_surrogate_pair_is_scored_and_written(
    cases: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder, out, page = cases / "captions-surrogate", tmp_path / "out.json", tmp_path / "page.html"
    named = tmp_path / "named.jsonl"
    rows = (folder / "k_surrogate.jsonl").read_text().replace("}", ', "method": "m\\ud83d"}')
    named.write_text(rows)

    for path in (folder / "k_surrogate.jsonl", named):
        assert score("--cap_file", path, "--ground-truth", folder / "gt.json", "--save_path", out,
                     "--report", page) == 0  # fmt: skip
        assert scored(out)["Recall"] == 1
        assert json.loads(out.read_text())["sentences"][1]["caption"].endswith("bus. \ud83d")
        assert r"\ud83d" in page.read_text(encoding="utf-8")
    assert r"| m\ud83d " in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["captions-with-categories", "instances-string-ids"])
def test_annotations_of_other_writers_are_read(
    cases: Path, tmp_path: Path, writable: Callable[[str], Path], folder: str
) -> None:
    out, captions = tmp_path / "out.json", cases / "captions-with-categories/caps.jsonl"

    assert score("--cap_file", captions, "--coco_path", writable(folder), "--splits", "val2014",
                 "--save_path", out) == 0  # fmt: skip

    sentences = json.loads(out.read_text())["sentences"]
    truth = {row["image_id"]: set(row["mscoco_gt_words"]) for row in sentences}
    instances = json.loads((cases / folder / "instances_val2014.json").read_text())
    names = {one["id"]: one["name"] for one in instances["categories"]}
    for image_id in range(1, 5):
        drawn = {names[one["category_id"]] for one in instances["annotations"]
                 if int(one["image_id"]) == image_id}  # fmt: skip
        assert drawn <= truth[image_id] <= drawn | {"dining table"}


@pytest.mark.parametrize("name", ["map.json", "results.json", "results.json.gz", "table.csv"])
def test_captions_of_every_layout_are_scored(cases: Path, tmp_path: Path, name: str) -> None:
    folder, out = cases / "captions-map", tmp_path / "out.json"

    assert score("--cap_file", folder / name, "--ground-truth", folder / "truth.json",
                 "--save_path", out) == 0  # fmt: skip

    numbers, content = scored(out), json.loads(out.read_text())
    assert (numbers["CHAIRs"], numbers["CHAIRi"], numbers["Recall"]) == (0.5, 0.25, 1)
    assert content["method"] == name.partition(".")[0]


@pytest.mark.parametrize(
    ("name", "ids"),
    [("caplist.json", {1}), ("list.json", {1, 2, 3}), ("header.csv", {1, 2}), ("noext.txt", {1}),
     ("../encodings/bom.txt", {1, 2})],
)  # fmt: skip
def test_lists_of_images_of_every_form_are_obeyed(
    cases: Path, tmp_path: Path, name: str, ids: set[int]
) -> None:
    write_scenes(tmp_path, count=4, seed=1)

    assert caption(tmp_path, tmp_path / "val2014", "--image-ids",
                   cases / "image-ids-forms" / name) == 0  # fmt: skip

    assert set(captioned(tmp_path)) == ids


@pytest.mark.parametrize(
    "name", ["b_bom.jsonl", "b_bom_list.json", "c_utf16.jsonl", "c_utf16_list.json"]
)
def test_captions_of_any_encoding_are_scored(cases: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.json"

    assert score("--cap_file", cases / "encodings" / name, "--save_path", out,
                 "--ground-truth", cases / "captions-surrogate/gt.json") == 0  # fmt: skip

    assert scored(out)["CHAIRi"] == 2 / 7  # "bus" and "dining table" of seven mentions
    assert "café" in json.loads(out.read_text())["sentences"][0]["caption"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gzip"])
def test_annotations_and_configs_of_any_encoding_are_read(tmp_path: Path, encoding: str) -> None:
    def write(path: Path, text: str) -> Path:
        is_gzip = encoding == "gzip"
        path.write_bytes(gzip.compress(text.encode()) if is_gzip else text.encode(encoding))
        return path

    write_scenes(tmp_path, count=3, seed=1)
    for path in (tmp_path / "annotations").glob("*.json"):
        write(path, path.read_text())
    captions = write(tmp_path / "c.jsonl", '{"image_id": 1, "caption": "A dog."}\n')
    out = tmp_path / "out.json"

    assert score("--cap_file", captions, "--coco_path", tmp_path / "annotations", "--splits",
                 "val2014", "--save_path", out) == 0  # fmt: skip
    truth = {"1": json.loads(out.read_text())["sentences"][0]["mscoco_gt_words"]}
    assert score("--cap_file", captions, "--ground-truth",
                 write(tmp_path / "truth.json", json.dumps(truth))) == 0  # fmt: skip
    if encoding != "gzip":
        config = write(tmp_path / "my.yaml", "num_images: 2\n")
        assert caption(tmp_path, tmp_path / "val2014", "--config", config) == 0
        assert len(captioned(tmp_path)) == 2


def test_one_category_leaves_no_negatives_and_no_files(
    cases: Path, tmp_path: Path, capsys: Capture
) -> None:
    instances = cases / "one-category/instances_val2014.json"

    assert ask_pope(tmp_path, tmp_path, tmp_path / "pope", "--build-from", instances) == 2

    assert "no questions can be built: each of the 3 pictures has all 1 categories" in refusal(
        capsys
    )
    assert not (tmp_path / "pope").exists()


@pytest.mark.parametrize("name", ["tokenizer.model", "model.safetensors", "config.json"])
def test_a_checkpoint_of_lfs_pointers_is_one_sentence(
    cases: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    write_scenes(tmp_path, count=1, seed=1)
    checkpoint = Path(shutil.copytree(ROOT / "models/tiny-llava", tmp_path / "checkpoint"))
    shutil.copyfile(cases / "checkpoint-lfs-pointers/tokenizer.model", checkpoint / name)

    assert caption(tmp_path, tmp_path / "val2014", "--checkpoint", checkpoint) == 2

    assert f"{checkpoint / name} is a Git LFS pointer" in (said := refusal(capsys))
    assert "run `git lfs pull`" in said
