"""MME: the reference scorer's numbers, its data as it is downloaded, and the whole command."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from eval.errors import EvaluationError
from eval.evaluate import main
from eval.files.answers import Answer, Item
from eval.output.report import report_of
from eval.tasks.mme import COGNITION, PERCEPTION, REQUEST, Mme
from eval.tasks.yes_no.parsers import PARSERS, parse_first_4
from eval.tasks.yes_no.settings import YesNoSettings
from scripts.scenes.make import write_scenes
from tests.eval.results import result_in
from tests.eval.tables import table_rows, widest_table_line

SPLIT = ("posters", "celebrity", "scene", "landmark", "artwork")
PNG = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
LLAVA = "\nAnswer the question using a single word or phrase."


def mme(folder: Path | None = None, **settings: Any) -> Mme:
    protocol = Mme.protocol_of("official", "llava-1.5")
    return Mme(YesNoSettings(data_path=folder, **settings), protocol)


# Against the reference scorer.


def golden(shared: Path, case: str) -> dict[str, Any]:
    path = shared / "golden/benchmarks/mme.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cases"][case]
    return content


def golden_answers(case: dict[str, Any]) -> list[Answer]:
    # A newline reached the reference tool as a space: its files have one row a line.
    return [
        Answer(Item(index, image, question, label.lower(), category), response.replace("\n", " "))
        for index, (category, image, question, label, response) in enumerate(case["rows"])
    ]


@pytest.mark.parametrize("name", ["clean", "odd"])
def test_scores_are_those_of_the_reference_scorer(shared: Path, name: str) -> None:
    case = golden(shared, name)
    reference = case["reference"]

    report = report_of(mme(), {"baseline": golden_answers(case)})

    found = {r.part: r.numbers["score"].value for r in report.grouped.results}
    expected = {**reference["Perception"]["tasks"], **reference["Cognition"]["tasks"]}
    assert len(expected) == 14
    expected |= {group.lower(): of["total"] for group, of in reference.items()}
    expected["hallucination"] = sum(expected[part] for part in PERCEPTION[:4])
    assert found.keys() == expected.keys()
    for part, score in expected.items():
        assert found[part] == pytest.approx(score, abs=1e-12, rel=1e-12), part


@pytest.mark.parametrize("name", ["clean", "odd"])
def test_answers_are_read_as_the_reference_scorer_reads_them(shared: Path, name: str) -> None:
    case = golden(shared, name)

    read = [parse_first_4(answer.text) or "other" for answer in golden_answers(case)]

    assert read == case["reference_labels"]
    if name == "odd":
        assert set(read) == {"yes", "no", "other"}
        assert len(set(zip(read, (row[4][:4].lower() for row in case["rows"]), strict=True))) > 20


def test_the_categories_are_the_reference_scorers(shared: Path) -> None:
    reference = golden(shared, "clean")["reference"]

    assert list(PERCEPTION) == list(reference["Perception"]["tasks"])
    assert list(COGNITION) == list(reference["Cognition"]["tasks"])


def test_an_answer_of_neither_kind_is_wrong_and_breaks_nothing() -> None:
    """The reference tool crashes where a category has no other answers."""
    items = [Item(k, "a.jpg", "?", label, "count") for k, label in enumerate(("yes", "no"))]

    report = report_of(mme(), {"baseline": [Answer(item, "maybe") for item in items]})

    numbers = {name: number.value for name, number in report.grouped.results[0].numbers.items()}
    assert numbers == {
        "score": 0.0, "accuracy": 0.0, "accuracy_plus": 0.0, "yes_ratio": 0.0, "unknown_rate": 1.0,
    }  # fmt: skip


def test_intervals_resample_pictures_with_both_questions() -> None:
    """Perfect on half of the pictures, wrong on the others: accuracy and accuracy+ are one."""
    items = [Item(f"{k}/{label}", f"{k}.jpg", "?", label, "count")
             for k in range(40) for label in ("yes", "no")]  # fmt: skip
    flip = {"yes": "no", "no": "yes"}
    answers = [
        Answer(item, item.label if int(item.image[:-4]) < 20 else flip[item.label])
        for item in items
    ]

    (result,) = report_of(mme(), {"baseline": answers}).grouped.results

    rng = np.random.default_rng(1)
    drawn = 200 * rng.binomial(40, 0.5, 100_000) / 40
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert result.numbers["score"].value == 100.0
    assert result.numbers["score"].low == pytest.approx(low, abs=5.0)
    assert result.numbers["score"].high == pytest.approx(high, abs=5.0)
    assert result.numbers["accuracy"] == result.numbers["accuracy_plus"]


def test_every_parser_counts_pairs_picture_by_picture() -> None:
    items = [Item(f"{k}/{label}", f"{k}.jpg", "?", label, "count")
             for k in range(4) for label in ("yes", "no")]  # fmt: skip
    said = ["yes", "no", "yes", "yes", "yes", "no", "so, yes", "no"]
    answers = [Answer(item, text) for item, text in zip(items, said, strict=True)]

    parsers = mme().extra_metrics({"eah": answers})["parsers"]

    assert list(parsers) == list(PARSERS)
    plus = {name: found["eah"]["count"]["accuracy_plus"] for name, found in parsers.items()}
    assert plus == {
        "opera": 0.75, "pope": 0.75, "strict": 0.75, "exact": 0.0, "first-4": 0.5,
        "substring": 0.75, "word": 0.75,
    }  # fmt: skip
    assert parsers["first-4"]["eah"]["count"]["unknown"] == 1
    assert parsers["strict"]["eah"]["count"]["score"] == 100 * (7 / 8 + 3 / 4)


def test_a_picture_with_one_answer_is_no_pair() -> None:
    """Saved answers may lack some: the right one of picture b counts for accuracy alone."""
    said = enumerate((("a", "yes"), ("a", "no"), ("b", "yes")))
    answers = [Answer(Item(k, name, f"{k}?", "yes", "count"), text) for k, (name, text) in said]

    (found,) = report_of(mme(), {"baseline": answers}).grouped.results

    assert found.numbers["accuracy"].value == pytest.approx(2 / 3)
    assert found.numbers["accuracy_plus"].value == 0
    assert found.numbers["score"].value == pytest.approx(200 / 3)


def test_totals_need_all_of_their_categories() -> None:
    task = mme()

    assert list(task.totals([*PERCEPTION, *COGNITION])) == [
        "perception", "cognition", "hallucination",
    ]  # fmt: skip
    assert task.totals(PERCEPTION[:4]) == {"hallucination": PERCEPTION[:4]}
    some = [*PERCEPTION[1:], *COGNITION[1:]]
    assert task.totals(some) == {"all parts": some}
    assert task.totals(PERCEPTION[:1]) == {}


# Prompts.


@pytest.mark.parametrize(
    ("protocol", "family", "question", "prompt"),
    [
        ("opera", "llava-1.5", f"Is it red?{REQUEST}", "Is it red? Please answer yes or no."),
        ("opera", "shikra", f"Is it red?{REQUEST}", "Is it red? Please answer yes or no."),
        ("official", "minigpt4", f"Is it red?{REQUEST}", "Is it red? Please answer yes or no."),
        ("official", "llava-1.5", f"Is it red?{REQUEST}", f"Is it red?{LLAVA}"),
        # Some questions lack the mark, and some may lack the request.
        ("official", "llava-1.5", f"Is it red{REQUEST}", f"Is it red{LLAVA}"),
        ("official", "llava-1.5", "Is it red?", f"Is it red?{LLAVA}"),
    ],
)
def test_prompts_of_both_protocols(protocol: str, family: str, question: str, prompt: str) -> None:
    found = Mme.protocol_of(protocol, family)

    assert mme().prompt(Item(1, "a.jpg", question), found) == prompt
    assert (found.max_new_tokens, found.parser) == (16, "first-4")


# The data.


def question_lines(category: str, picture: int) -> list[str]:
    return [
        f"Is number {picture} about {category}?{REQUEST}\tYes",
        f"Is number {picture} about nothing?{REQUEST}\tNo",
    ]


def write_mme(root: Path, categories: Sequence[str], *, pictures: int = 2, end: str = "\n") -> None:
    """Write empty pictures and question files as the zip has them."""
    for category in categories:
        names = [f"{picture:04d}" for picture in range(pictures)]
        split = category in SPLIT
        images = root / category / "images" if split else root / category
        questions = root / category / "questions_answers_YN" if split else root / category
        images.mkdir(parents=True)
        questions.mkdir(exist_ok=True)
        for picture, name in enumerate(names):
            (images / f"{name}{'.png' if category in PNG else '.jpg'}").touch()
            text = end.join(question_lines(category, picture)) + end
            (questions / f"{name}.txt").write_bytes(text.encode())


@pytest.mark.parametrize("inner", ["", "MME_Benchmark"])
def test_all_categories_are_read_as_the_zip_has_them(tmp_path: Path, inner: str) -> None:
    write_mme(tmp_path / inner, [*COGNITION, *PERCEPTION])

    items = mme(tmp_path).items()

    assert list(dict.fromkeys(item.part for item in items)) == [*PERCEPTION, *COGNITION]
    assert len(items) == 14 * 2 * 2
    assert len({item.key for item in items}) == len(items)
    assert all((tmp_path / item.image).is_file() for item in items)
    places = {item.part: Path(item.image).relative_to(inner).as_posix() for item in items}
    assert places["existence"] == "existence/0001.jpg"
    assert places["celebrity"] == "celebrity/images/0001.jpg"
    assert places["code_reasoning"] == "code_reasoning/0001.png"
    first, second = [item for item in items if item.part == "count"][:2]
    assert (first.question, first.label) == (f"Is number 0 about count?{REQUEST}", "yes")
    assert (second.question, second.label) == (f"Is number 0 about nothing?{REQUEST}", "no")
    assert (first.id, second.id) == ("0000.jpg/1", "0000.jpg/2")


def test_lines_may_end_as_on_windows_and_be_empty(tmp_path: Path) -> None:
    write_mme(tmp_path / "unix", ["count", "scene"])
    write_mme(tmp_path / "windows", ["count", "scene"], end="\r\n")
    spaced = tmp_path / "windows/count/0000.txt"
    spaced.write_bytes(b"".join(line + b" \r\n\r\n" for line in spaced.read_bytes().split(b"\r\n")))

    windows = mme(tmp_path / "windows").items()

    assert [(i.question, i.label) for i in windows] == [
        (i.question, i.label) for i in mme(tmp_path / "unix").items()
    ]


def test_a_file_beside_the_folder_holds_a_whole_category(tmp_path: Path) -> None:
    """The evaluation tool's files: picture, question, answer; a response may follow."""
    write_mme(tmp_path, ["count", "landmark"])
    inside = [(i.image, i.question, i.label, i.part) for i in mme(tmp_path).items()]
    for category in ("count", "landmark"):
        for path in (tmp_path / category).rglob("*.txt"):
            path.unlink()
        lines = [
            f"{picture:04d}.jpg\t{line}{response}"
            for picture in range(2)
            for line, response in zip(question_lines(category, picture), ("", "\tno"), strict=True)
        ]
        (tmp_path / f"{category}.txt").write_text("\n".join(lines))

    items = mme(tmp_path).items()

    assert [(i.image, i.question, i.label, i.part) for i in items] == inside
    assert [item.id for item in items][:3] == ["0000.jpg/1", "0000.jpg/2", "0001.jpg/3"]


def test_missing_categories_are_left_out(tmp_path: Path) -> None:
    write_mme(tmp_path, ["position", "OCR"])
    (tmp_path / "eval_tool").mkdir()
    (tmp_path / "notes.txt").touch()

    assert {item.part for item in mme(tmp_path).items()} == {"position", "OCR"}


def test_the_limit_is_of_each_category(tmp_path: Path) -> None:
    write_mme(tmp_path, ["position", "OCR"], pictures=4)

    assert [item.part for item in mme(tmp_path, limit=4).items()] == ["position"] * 4 + ["OCR"] * 4


def test_the_picture_of_a_name_is_the_one_that_is_there(tmp_path: Path) -> None:
    write_mme(tmp_path, ["count"], pictures=1)
    (tmp_path / "count/0000.jpg").rename(tmp_path / "count/0000.jpeg")

    assert {item.image for item in mme(tmp_path).items()} == {"count/0000.jpeg"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Is it?\tYes\nIs it not? No\n",
            r"0000.txt, line 2: 'Is it not\? No' is not a question; que",
        ),
        ("Is it?\tYes\nIs it not?\tmaybe\n", r"0000.txt, line 2: .* Yes or No are needed"),
        ("Is it?\tYes\nNo\n", "0000.txt, line 2: 'No' is not a question"),
        (
            "Is it?\tYes\n",
            r"count/0000.jpg in .* has 1 question\(s\), but MME asks two different ones",
        ),
        ("Is it?\tYes\nIs it?\tNo\n", "but MME asks two different ones"),
        ("A?\tYes\nB?\tNo\nC?\tNo\n", r"count/0000.jpg in .* has 3 question\(s\)"),
        ("A?\tYes\nB?\tNo\nC?\tNo\nD?\tYes\n", r"has 4 question\(s\)"),
    ],
)
def test_broken_question_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write_mme(tmp_path, ["count", "existence"])
    (tmp_path / "count/0000.txt").write_text(text)

    with pytest.raises(EvaluationError, match=message):
        mme(tmp_path).items()


@pytest.mark.parametrize("line", ["Is it?\tYes", "0000.jpg\tIs it?", "0000.jpg Is it? Yes"])
def test_a_file_beside_the_folder_names_its_pictures(tmp_path: Path, line: str) -> None:
    write_mme(tmp_path, ["count"])
    (tmp_path / "count.txt").write_text(f"{line}\n")

    with pytest.raises(EvaluationError, match=r"line 1: .*; picture, question and Yes or No are"):
        mme(tmp_path).items()


def test_a_folder_without_categories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="pass the folder MME_Benchmark_release_version"):
        mme(tmp_path).items()


# The command.


@pytest.fixture(scope="module")
def scenes_as_mme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes under MME's categories on hallucination, and two with folders inside."""
    folder = tmp_path_factory.mktemp("mme")
    write_scenes(folder / "scenes", count=8, seed=2014)
    coco = json.loads((folder / "scenes/annotations/instances_val2014.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects = defaultdict(set)
    for one in coco["annotations"]:
        objects[one["image_id"]].add(names[one["category_id"]])
    known = sorted(set().union(*objects.values()))
    for at, category in enumerate(("existence", "count", "position", "color", "scene")):
        root = folder / "data/MME_Benchmark" / category
        images, questions = (
            (root / "images", root / "questions_answers_YN") if category in SPLIT else (root, root)
        )
        images.mkdir(parents=True)
        questions.mkdir(exist_ok=True)
        for image in coco["images"][at : at + 4]:
            name = Path(image["file_name"])
            there = objects[image["id"]]
            shutil.copy(folder / "scenes/val2014" / name, images / name)
            absent = next(thing for thing in known if thing not in there)
            lines = [f"Is there a {min(there)} in the image?\tYes",
                     f"Is there a {absent} in the image?\tNo"]  # fmt: skip
            (questions / f"{name.stem}.txt").write_text("\n".join(lines))
    return folder / "data"


@pytest.fixture(scope="module")
def command(
    scenes_as_mme: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path, Callable[[], Path]]:
    output = tmp_path_factory.mktemp("runs")
    flags = [
        "--task", "mme", "--model", "tiny-llava", "--device", "cpu",
        "--data-path", str(scenes_as_mme), "--output-dir", str(output),
        "--method", "baseline", "eah", "vcd@alpha=0.5", "vcd+eah@alpha=0.5,layers=2",
    ]  # fmt: skip
    return flags, output, lambda: next((output / "mme/tiny-llava").iterdir())


def test_the_command_asks_scores_and_resumes(
    command: tuple[list[str], Path, Callable[[], Path]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags, output, folder = command

    assert main([*flags, "--json", str(output / "all.json")]) == 0

    printed = capsys.readouterr().out
    run = folder()
    metrics = json.loads((run / "report/metrics.json").read_text())
    assert metrics == result_in(output / "all.json")
    assert run.name.startswith("opera-40questions-")
    assert str(run) in printed
    arms = ["baseline", "eah", "vcd@alpha=0.5", "vcd+eah@alpha=0.5,layers=2"]
    parts = ["existence", "count", "position", "color", "scene", "hallucination"]
    assert [(r["arm"], r["part"]) for r in metrics["results"]] == [
        (arm, part) for arm in arms for part in parts
    ]
    for arm in arms:
        assert_scores(metrics, arm, run / "arms" / arm / "answers.jsonl")
    compared = {(d["arm"], d["reference"]) for d in metrics["differences"]}
    assert compared == {*((arm, arms[0]) for arm in arms[1:]), (arms[3], arms[2])}
    assert widest_table_line(printed) <= 100
    found = {tuple(row[:2]): row[2] for row in reversed(table_rows(printed)) if len(row) > 2}
    for result in metrics["results"]:
        cell = found[result["arm"], result["part"]]
        assert cell.split(" ")[0] == f"{result['numbers']['score']['value']:.2f}"

    monkeypatch.setattr(models, "load", None)
    assert main(flags) == 0
    assert capsys.readouterr().out == printed


def assert_scores(metrics: dict[str, Any], arm: str, path: Path) -> None:
    """Compare an arm's numbers with those that plain loops over its answers give."""
    pairs: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for line in path.read_text().splitlines():
        row = json.loads(line)
        said = row["answer"].lower()[:4]
        read = "yes" if "yes" in said else "no" if "no" in said else "other"
        pairs[row["part"]][row["image"]].append(read == row["label"])
    scores = {}
    for part, pictures in pairs.items():
        right = [both for of in pictures.values() for both in of]
        plus = [all(of) for of in pictures.values()]
        assert (len(right), len(plus)) == (8, 4)
        scores[part] = 100 * sum(right) / 8 + 100 * sum(plus) / 4
    scores["hallucination"] = sum(scores[part] for part in PERCEPTION[:4])
    found = {
        r["part"]: r["numbers"]["score"]["value"] for r in metrics["results"] if r["arm"] == arm
    }
    assert found == pytest.approx(scores, abs=1e-12)
    assert 100 < scores["hallucination"] <= 800


def test_an_arm_that_is_added_is_asked_alone(
    command: tuple[list[str], Path, Callable[[], Path]],
) -> None:
    flags, _, folder = command
    assert main(flags) == 0
    before = {path: path.read_bytes() for path in folder().glob("arms/*/answers.jsonl")}
    assert len(before) == 4

    assert main([*flags, "eah@layers=0", "--batch-size", "3"]) == 0

    after = {path: path.read_bytes() for path in folder().glob("arms/*/answers.jsonl")}
    assert {path.parent.name for path in after.keys() - before.keys()} == {"eah@layers=0"}
    assert {path: after[path] for path in before} == before


def test_a_picture_that_is_missing_is_named(
    scenes_as_mme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scenes_as_mme, tmp_path / "data")
    gone = next((tmp_path / "data/MME_Benchmark/scene/images").iterdir())
    gone.unlink()

    assert main(["--task", "mme", "--model", "tiny-llava", "--data-path", str(tmp_path / "data")])

    error = capsys.readouterr().err
    assert "evaluate: error: 1 of 20 pictures are not in" in error
    assert f"scene/images/{gone.name}" in error
    assert (
        "such as data/MME/MME_Benchmark_release_version (`scripts/data/download.sh --only mme`"
        in (error)
    )
