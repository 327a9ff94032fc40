"""Question files about scenes: published layouts, true labels, and nobody else's files touched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.tasks.mme import PERCEPTION, Mme
from eval.tasks.pope.questions import annotated_images, build_questions
from eval.tasks.yes_no.task import YesNoSettings
from scripts.scenes.make import write_scenes
from scripts.scenes.questions import main
from scripts.scenes.scene import CATEGORIES, VIVID
from tests.eval.small_runs import state_of

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
SINGULAR = {"people": "person"}
SCENES, COUNT = 48, 40


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=SCENES, seed=7)
    return folder


def write(scenes: Path, output: Path, *flags: str) -> int:
    return main(["--scenes", str(scenes), "--output", str(output), *flags])


@pytest.fixture(scope="module")
def made(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    assert write(scenes, folder) == 0
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def objects(scenes: Path) -> dict[int, Objects]:
    """Return what each picture holds, from its instances alone."""
    content = read(scenes / "annotations/instances_val2014.json")
    names = {one["id"]: one["name"] for one in content["categories"]}
    found: dict[int, Objects] = defaultdict(list)
    for one in content["annotations"]:
        found[one["image_id"]].append({**one, "name": names[one["category_id"]]})
    return found


@pytest.fixture(scope="module")
def by_picture(scenes: Path, objects: dict[int, Objects]) -> dict[bytes, Objects]:
    """Return the same by the picture's bytes, whatever it is called."""
    return {
        (scenes / f"val2014/COCO_val2014_{number:012d}.jpg").read_bytes(): found
        for number, found in objects.items()
    }


def holds(question: str, objects: Objects) -> bool:
    """Read a question as a person would, and answer it from the annotations."""
    text = question.removesuffix(" Please answer yes or no.")
    names = Counter(one["name"] for one in objects)

    def middle(name: str) -> float:
        (one,) = (one for one in objects if one["name"] == name)
        return float(one["bbox"][0] + one["bbox"][2] / 2)

    if found := re.fullmatch(
        r"Is the (.+) (?:to|on) the (left|right) of the (.+?)( in .+)?\?", text
    ):
        first, second = middle(found[1]), middle(found[3])
        return first < second if found[2] == "left" else first > second
    if found := re.fullmatch(r"Is the (.+) (\w+) in this image\?", text):
        (one,) = (one for one in objects if one["name"] == found[1])
        return bool(one["color"] == found[2])
    if found := re.fullmatch(r"(?:Is|Are) there (one|two|three|four) (.+) in this image\?", text):
        name = SINGULAR.get(found[2], found[2])
        return names[name if name in names else name.removesuffix("s")] == NUMBERS[found[1]]
    found = re.fullmatch(r"(?:Is there|Can you see) an? (.+) in (?:this|the) image\?.*", text)
    assert found, text
    color, _, name = found[1].partition(" ")
    if color in VIVID:
        return any(one["name"] == name and one["color"] == color for one in objects)
    return names[found[1]] > 0


def test_colours_of_objects_are_those_of_the_pictures(
    scenes: Path, objects: dict[int, Objects]
) -> None:
    vivid = np.array(list(VIVID.values()))
    looked_at = 0
    for number, found in objects.items():
        picture = Image.open(scenes / f"val2014/COCO_val2014_{number:012d}.jpg")
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
        for one in found:
            x, y, width, height = one["bbox"]
            others = [other["bbox"] for other in found if other is not one]
            if one["color"] is None or any(
                x < a + w and a < x + width and y < b + h and b < y + height
                for a, b, w, h in others
            ):
                continue
            inside = pixels[y : y + height, x : x + width].reshape(-1, 1, 3)
            near = (np.abs(inside - vivid).max(-1) < 40).sum(0)
            assert list(VIVID)[int(near.argmax())] == one["color"]
            assert one["name"] in ("bird", "car", "cup", "kite", "umbrella")
            looked_at += 1
    assert looked_at > 10


def test_amber_has_its_order_its_types_and_true_answers(
    made: Path, by_picture: dict[bytes, Objects]
) -> None:
    folder = made / "amber"
    generative = read(folder / "query_generative.json")
    discriminative = read(folder / "query_discriminative.json")
    annotations = read(folder / "annotations.json")
    relation = read(folder / "relation.json")

    assert read(folder / "query_all.json") == generative + discriminative
    assert [row["id"] for row in annotations] == list(range(1, len(annotations) + 1))
    assert [row["id"] for row in generative + discriminative] == [row["id"] for row in annotations]
    assert generative[2] == {"id": 3, "image": "AMBER_3.jpg", "query": "Describe this image."}
    assert len(generative) == COUNT
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for row in discriminative:
        annotation = annotations[row["id"] - 1]
        picture = by_picture[(folder / "image" / row["image"]).read_bytes()]
        assert annotation["truth"] == ("yes" if holds(row["query"], picture) else "no"), row
        kinds[annotation["type"]][annotation["truth"]] += 1
    assert list(kinds) == [
        "discriminative-attribute-number", "discriminative-attribute-state",
        "discriminative-hallucination", "discriminative-relation", "relation",
    ]  # fmt: skip
    assert kinds["discriminative-attribute-number"] == {"yes": COUNT, "no": COUNT}
    assert kinds["discriminative-attribute-state"]["yes"] > 10
    assert len(set(kinds["discriminative-attribute-state"].values())) == 1
    assert set(kinds["discriminative-hallucination"]) == set(kinds["relation"]) == {"no"}
    assert set(kinds["discriminative-relation"]) == {"yes"}
    words = {*relation, *(word for words in relation.values() for word in words)}
    safe = (folder / "safe_words.txt").read_text().split("\n")
    assert safe
    assert set(safe) <= words
    for row, annotation in zip(generative, annotations, strict=False):
        picture = by_picture[(folder / "image" / row["image"]).read_bytes()]
        nouns = {one["name"].split()[-1] for one in picture}
        assert set(annotation["truth"]) == nouns - {*safe}
        assert annotation["hallu"]
        assert not nouns & set(annotation["hallu"])
        assert {*annotation["truth"], *annotation["hallu"]} <= relation.keys() - {*safe}


def test_amber_and_hallusionbench_have_the_keys_of_the_real_files(made: Path, shared: Path) -> None:
    real = shared / "benchmarks"
    for name in ("query_generative.json", "query_discriminative.json", "annotations.json"):
        ours, theirs = read(made / "amber" / name), read(real / "amber" / name)
        assert {tuple(row) for row in ours} == {tuple(row) for row in theirs}
    types = {row["type"] for row in read(real / "amber/annotations.json")}
    assert {row["type"] for row in read(made / "amber/annotations.json")} <= types
    rows = read(made / "hallusionbench/HallusionBench.json")
    theirs = read(real / "hallusionbench/HallusionBench.json")
    assert {tuple(row) for row in rows} == {tuple(row) for row in theirs}
    for key in ("category", "subcategory", "visual_input", "figure_id", "gt_answer"):
        assert {row[key] for row in rows} <= {row[key] for row in theirs}
    for path in (made / "pope-aokvqa-gqa").iterdir():
        theirs = read(real / "pope-aokvqa-gqa" / path.name)
        assert {tuple(row) for row in read(path)} == {tuple(row) for row in theirs}


def test_mme_asks_two_questions_about_a_picture_one_of_each_answer(
    made: Path, by_picture: dict[bytes, Objects]
) -> None:
    folder = made / "mme/MME_Benchmark_release_version"
    items = Mme(YesNoSettings(data_path=folder)).items()

    assert list(dict.fromkeys(item.part for item in items)) == list(PERCEPTION[:4])
    assert Counter(item.part for item in items)["existence"] == 2 * COUNT
    labels = defaultdict(list)
    for item in items:
        picture = by_picture[(folder / item.image).read_bytes()]
        assert item.label == ("yes" if holds(item.question, picture) else "no"), item
        assert item.question.endswith("? Please answer yes or no.")
        labels[item.image].append(item.label)
    assert {tuple(sorted(found)) for found in labels.values()} == {("no", "yes")}


def test_the_two_sets_are_arrays_with_a_question_twice_in_adversarial(
    made: Path, objects: dict[int, Objects]
) -> None:
    for name in ("aokvqa", "gqa"):
        for kind in ("random", "popular", "adversarial"):
            rows = read(made / f"pope-aokvqa-gqa/{name}_pope_seem_{kind}.json")
            assert [row["question_id"] for row in rows] == list(range(1, len(rows) + 1))
            assert list(Counter(row["label"] for row in rows).values()) == [len(rows) // 2] * 2
            asked = Counter((row["image"], row["text"]) for row in rows)
            assert sum(asked.values()) - len(asked) == (kind == "adversarial")
            for row in rows:
                picture = objects[int(row["image"][-16:-4])]
                assert row["label"] == ("yes" if holds(row["text"], picture) else "no")


def test_labels_of_repope_are_for_most_of_the_questions_that_are_built(
    scenes: Path, made: Path
) -> None:
    instances = annotated_images(scenes / "annotations/instances_val2014.json")
    kept_yes = []
    for kind, items in build_questions(instances, count=500, seed=42).items():
        text = (made / f"repope/coco_repope_{kind}.json").read_text()
        rows = {(r["question_id"], r["image"], r["text"]): r["label"]
                for r in map(json.loads, text.splitlines())}  # fmt: skip
        known = {(item.id, item.image, item.question): item.label for item in items}

        assert rows.items() < known.items()
        assert 0.02 < 1 - len(rows) / len(known) < 0.2
        kept_yes.append({key[1:] for key, label in rows.items() if label == "yes"})
    assert kept_yes[0] == kept_yes[1] == kept_yes[2]


def test_dash_b_has_as_many_pictures_with_an_object_as_without(
    made: Path, by_picture: dict[bytes, Objects]
) -> None:
    images = made / "dash_b/images"
    sides = {side: read(images / f"dash_benchmark_{side}.json") for side in ("neg", "pos")}

    sizes = {}
    for side, sources in sides.items():
        for source, found in sources.items():
            for name, files in found.items():
                assert len(set(files)) == len(files) == 4
                for file in files:
                    picture = by_picture[(images / side / source / name / file).read_bytes()]
                    assert holds(f"Can you see a {name} in this image?", picture) == (side == "pos")
        sizes[side] = {source: list(found) for source, found in sources.items()}
    assert sizes["neg"] == sizes["pos"]
    assert [len(names) for names in sizes["pos"].values()] == [4, 4]


def test_hallusionbench_asks_about_originals_and_edited_copies(
    made: Path, scenes: Path, objects: dict[int, Objects]
) -> None:
    rows = read(made / "hallusionbench/HallusionBench.json")
    originals = {
        np.asarray(Image.open(scenes / f"val2014/COCO_val2014_{number:012d}.jpg")).tobytes(): number
        for number in objects
    }
    kinds = {category.name: category.supercategory for category in CATEGORIES}
    groups = Counter()
    for row in rows:
        assert all(isinstance(value, str) for value in row.values() if value is not row["filename"])
        head = f"{row['category']}/{row['subcategory']}/{row['set_id']}"
        groups[f"{head}/{row['question_id']}"] += 1
        question, added = row["question"], row["sample_note"]
        if row["visual_input"] == "0":
            assert (row["category"], row["figure_id"], row["filename"]) == ("VS", "0", None)
            found = re.fullmatch(rf"Is an? {added} an? (\w+)\?", question)
            assert found
            assert row["gt_answer"] == str(int(kinds[added] == found[1]))
            continue
        assert row["filename"] == f"./{head}_{row['figure_id']}.png"
        first = 1 if row["category"] == "VS" else 0
        assert int(row["figure_id"]) == int(row["visual_input"]) - 1 + first
        picture = Image.open(made / "hallusionbench" / row["filename"])
        original = Image.open(made / f"hallusionbench/{head}_{first}.png")
        found_objects = list(objects[originals[np.asarray(original).tobytes()]])
        is_edited = row["visual_input"] == "2"
        assert (picture.tobytes() != original.tobytes()) == is_edited
        if is_edited:
            found_objects.append({"name": added, "color": None})
        if row["category"] == "VS":
            found_objects = [{"name": kinds[one["name"]], "color": None} for one in found_objects]
        assert row["gt_answer"] == str(int(holds(question, found_objects))), row
    assert set(groups.values()) == {2, 3}  # VD asks of two figures, VS of none, too
    assert {row["gt_answer"] for row in rows} == {"0", "1"}


def test_mmhal_has_96_items_of_eight_types_in_turn(made: Path, objects: dict[int, Objects]) -> None:
    items = read(made / "mmhal/response_template.json")

    assert [item["question_type"] for item in items] == 12 * [
        "attribute", "adversarial", "comparison", "counting",
        "relation", "environment", "holistic", "other",
    ]  # fmt: skip
    assert len({(item["image_id"], item["question"]) for item in items}) == 96
    for item in items:
        assert list(item) == [
            "question_type", "question_topic", "image_id", "image_src", "image_content",
            "question", "gt_answer", "model_answer",
        ]  # fmt: skip
        name = item["image_src"].rsplit("/", 1)[1]
        assert (made / "mmhal/images" / name).is_file()
        found = objects[int(item["image_id"])]
        assert set(item["image_content"]) == {one["name"] for one in found}
        assert item["model_answer"] == ""
        if item["question_type"] == "attribute":
            (one,) = (one for one in found if one["name"] == item["question_topic"])
            assert item["gt_answer"] == f"The {one['name']} is {one['color']}."
        if item["question_type"] == "adversarial":
            assert item["question_topic"] not in item["image_content"]
        if item["question_type"] == "comparison":
            largest = max(found, key=lambda one: one["area"] if _single(one, found) else 0)
            assert item["gt_answer"] == f"The {largest['name']} takes more room."
        if item["question_type"] == "counting":
            text = re.fullmatch(r"There (?:is|are) (\w+) .+ in the image\.", item["gt_answer"])
            number = sum(one["name"] == item["question_topic"] for one in found)
            assert text
            assert NUMBERS[text[1]] == number
        if item["question_type"] == "relation":
            text = re.fullmatch(r"The (.+) is to the left of the (.+)\.", item["gt_answer"])
            assert text
            assert holds(f"Is the {text[1]} to the left of the {text[2]}?", found)


def _single(one: dict[str, Any], found: Objects) -> bool:
    return sum(other["name"] == one["name"] for other in found) == 1


def test_a_seed_gives_the_same_files_in_every_process(
    scenes: Path, made: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "scripts/scenes/questions.py"), "--scenes", str(scenes)]
    done = subprocess.run(
        [*command, "--output", "new"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
    )

    assert done.stdout.startswith(f"questions about {COUNT} scenes in new: amber, mme, ")
    ours = {name: content for name, (content, _) in state_of(tmp_path / "new").items()}
    assert ours == {name: content for name, (content, _) in state_of(made).items()}


def test_other_questions_replace_all_earlier_ones_and_nothing_else(
    scenes: Path, made: Path, tmp_path: Path
) -> None:
    assert write(scenes, tmp_path, "--count", "22") == 0
    (tmp_path / "amber/responses.json").write_text("mine")

    assert write(scenes, tmp_path, "--count", "20", "--seed", "1") == 0

    again = tmp_path / "again"
    assert write(scenes, again, "--count", "20", "--seed", "1") == 0
    expected = {name for name in state_of(again)} | {"amber/responses.json"}
    assert {name for name in state_of(tmp_path) if not name.startswith("again")} == expected
    assert (tmp_path / "amber/responses.json").read_text() == "mine"
    assert (tmp_path / "amber/query_all.json").read_bytes() != (
        made / "amber/query_all.json"
    ).read_bytes()


@pytest.mark.parametrize("how", ["foreign", "edited", "link", "folder"])
def test_files_of_others_are_kept(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    name = "mmhal/response_template.json"
    path = tmp_path / "to" / name
    if how == "edited":
        assert write(scenes, tmp_path / "to", "--count", "20") == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "folder":
        path.mkdir()
    elif how == "link":
        (tmp_path / "mine").write_text("mine")
        path.symlink_to(tmp_path / "mine")
    else:
        path.write_text("mine")
    before = state_of(tmp_path)
    capsys.readouterr()

    assert write(scenes, tmp_path / "to", "--count", "20", "--seed", "3") == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert f"holds {name} of another source, or changed since" in line
    assert state_of(tmp_path) == before
    if how == "edited":
        assert write(scenes, tmp_path / "to", "--count", "20", "--overwrite") == 0


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        ("", ["--count", "3"], "--count 3 of 48 scenes, but at least 20 are needed"),
        ("", ["--output", " "], "--output is empty"),
        ("no file", [], "has no annotations/instances_val2014.json; make scenes with: python scr"),
        ("foreign", [], "is of another source; make scenes with: "),
        ("older", [], "lacks what questions need ('color'), as one of an older version does"),
        ("no pictures", [], "48 pictures are not there, "),
    ],
)
def test_scenes_that_cannot_be_asked_about_are_refused_in_a_sentence(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    flags: list[str],
    said: str,
) -> None:
    path = tmp_path / "scenes/annotations/instances_val2014.json"
    path.parent.mkdir(parents=True)
    content = read(scenes / "annotations/instances_val2014.json")
    if change == "foreign":
        content["info"] = {"description": "COCO 2014 Dataset"}
    if change == "older":
        for one in content["annotations"]:
            del one["color"]
    if change != "no file":
        path.write_text(json.dumps(content))
    source = tmp_path / "scenes" if change else scenes

    assert write(source, tmp_path / "to", *flags) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("questions: error: ")
    assert said in line
    assert not (tmp_path / "to").exists()
