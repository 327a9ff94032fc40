"""The CHAIR command as a user runs it: numbers, files, comparisons, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.chair import main
from scripts.scenes.make import write_scenes
from tests.eval.tables import table_rows
from tests.eval.tasks.chair.test_runs import write_run

ROOT = Path(__file__).resolve().parents[2]
TRUTH = {str(i): ["dog", "person"] for i in range(1, 21)}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(TRUTH))
    return path


def captions(path: Path, texts: dict[int, str]) -> Path:
    rows = [{"image_id": i, "caption": text} for i, text in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return captions(tmp_path / "good.jsonl", {i: "A man and his dog." for i in range(1, 21)})


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    texts = {i: "A man and his dog." + " A kite flies." * (i % 2) for i in range(20, 0, -1)}
    return captions(tmp_path / "bad.jsonl", texts)


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--analyzer", "lexicon"])


def test_the_papers_command_on_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path, count=6, seed=5)
    annotations = tmp_path / "annotations"
    for kind in ("instances", "captions"):  # COCO has two splits; scenes have one
        content = json.loads((annotations / f"{kind}_val2014.json").read_text())
        (annotations / f"{kind}_train2014.json").write_text(
            json.dumps(content | {"images": [], "annotations": []})
        )
    texts = {i: "A person with a dog." for i in range(1, 7)}
    out = tmp_path / "out.json"

    assert run("--cap_file", captions(tmp_path / "captions.jsonl", texts),
               "--image_id_key", "image_id", "--caption_key", "caption",
               "--coco_path", annotations, "--save_path", out) == 0  # fmt: skip

    printed = capsys.readouterr().out
    assert "analyzer lexicon" in printed
    assert "| captions | " in printed
    assert "bootstrap resamples of the 6 picture(s)" in printed
    assert len(json.loads(out.read_text())["sentences"]) == 6
    assert len(list(annotations.glob("chair_ground_truth-lexicon-*.json.gz"))) == 1


def test_the_output_file_says_what_the_numbers_depend_on(
    tmp_path: Path, truth: Path, good: Path, bad: Path
) -> None:
    out = tmp_path / "out.json"

    assert run("--cap_file", good, "--baseline", bad, "--ground-truth", truth,
               "--save_path", out) == 0  # fmt: skip

    content = json.loads(out.read_text())
    assert content["method"] == "good"
    assert content["overall_metrics"] == {"CHAIRs": 0, "CHAIRi": 0, "Recall": 1, "Len": 0.06}
    assert content["other_arms"][0]["overall_metrics"]["CHAIRs"] == 0.5
    assert content["comparisons"][0]["differences"]["CHAIRs"]["value"] == -0.5
    assert content["comparisons"][0]["cut_baseline"]["max_words"] == 5
    assert content["analyzer"].startswith("lexicon ")
    assert content["protocol"].startswith("CHAIR as OPERA's chair.py")
    assert "SHA-256" in content["ground_truth"]
    assert "SHA-256" in content["captions"]
    recall = content["intervals"]["Recall"]  # all alike: Wilson's interval
    assert (recall["value"], recall["high"]) == (1, 1)
    assert recall["low"] == pytest.approx(20 / (20 + 1.959964**2))
    assert content["bootstrap"]["resamples"] == 10_000
    first = content["sentences"][0]
    assert first["image_id"] == 1
    assert first["mscoco_generated_words"] == ["person", "dog"]


def test_two_files_are_compared_by_picture(
    truth: Path, good: Path, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--cap_file", good, "--baseline", bad, "--ground-truth", truth) == 0

    printed = capsys.readouterr().out
    assert printed.index("| bad ") < printed.index("| good ")
    assert (
        "\nmethod - bad, in percent (Len: in words and punctuation marks); gained, lost:" in printed
    )
    assert "| good   | CHAIRs | -50.0 (-70.0 to -30.0) |            0.002 (10, 0) |" in printed
    assert "alone could explain the gain in CHAIRs and CHAIRi" in " ".join(printed.split())


def test_arms_of_a_run_folder_are_compared(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"method": method, "image_id": i, "caption": text, "finished": True}
        for i in range(1, 9)
        for method, text in (("eah", "A dog."), ("baseline", "A dog and a kite."))
    ]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.json"

    assert run("--cap_file", tmp_path, "--ground-truth", truth, "--save_path", out) == 0

    printed = capsys.readouterr().out
    assert "\nmethod - baseline, " in printed
    assert "| eah    | CHAIRs | -100.0 (-100.0 to -67.6) |            0.0078 (8, 0)" in printed
    assert json.loads(out.read_text())["method"] == "eah"


def test_a_run_folder_and_its_captions_files_score_the_same(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = write_run(tmp_path / "run", {"eah": range(1, 9), "baseline": range(1, 9)})
    (run_folder / "report").mkdir()
    files = {
        arm: captions(
            run_folder / f"report/captions_{arm}.jsonl", {i: f"{arm}{i}" for i in range(1, 9)}
        )
        for arm in ("baseline", "eah")
    }
    found = []

    for flags in (["--cap_file", run_folder],
                  ["--cap_file", files["eah"], "--baseline", files["baseline"]]):  # fmt: skip
        out = tmp_path / "out.json"
        assert run(*flags, "--ground-truth", truth, "--json", out) == 0
        rows = table_rows(capsys.readouterr().out)
        assert ["EAH", "36.4", "9.9", "-", "-", "a"] in rows
        content = json.loads(out.read_text())
        assert content.pop("captions").startswith(f"{flags[1]}, SHA-256 ")
        content.pop("baseline", None)
        found.append(content)

    assert found[0] == found[1]
    assert found[0]["captions_run"].startswith("llava-1.5, protocol opera, 5 beam(s)")
    assert [found[0]["method"], found[0]["other_arms"][0]["method"]] == ["eah", "baseline"]


def test_an_unfinished_run_is_one_sentence(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = write_run(tmp_path / "run", {"baseline": range(1, 9), "eah": range(1, 3)})

    assert run("--cap_file", run_folder, "--ground-truth", truth) == 2

    assert capsys.readouterr().err.startswith(f"chair: error: {run_folder} is incomplete: eah")


def test_a_baseline_of_several_arms_is_refused(
    tmp_path: Path, truth: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = write_run(tmp_path / "run", {"baseline": [1], "eah": [1]})

    assert run("--cap_file", good, "--baseline", run_folder, "--ground-truth", truth) == 2

    assert "has captions of 2 methods; pass a file with one" in capsys.readouterr().err


def test_captions_of_a_run_say_how_they_were_made(
    tmp_path: Path, truth: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoding = {"num_beams": 5, "do_sample": False, "max_new_tokens": 512}
    settings = {"model": "llava-1.5", "protocol": "opera", "question": "Describe.",
                "decoding": decoding}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    out = tmp_path / "out.json"

    assert run("--cap_file", good, "--ground-truth", truth, "--save_path", out) == 0

    assert json.loads(out.read_text())["captions_run"] == (
        "llava-1.5, protocol opera, 5 beam(s), at most 512 tokens, question 'Describe.'"
    )
    printed = capsys.readouterr().out
    assert ["EAH", "36.4", "9.9", "-", "-", "a"] in table_rows(printed)
    assert ["EAH", "38.76 +- 2.47", "11.05 +- 0.81", "-", "86.28", "g"] in table_rows(printed)
    assert "\na: EAH, as quoted by the LocoRE paper; 2nd\n" in printed


def test_two_files_of_one_name_are_kept_apart(
    tmp_path: Path, truth: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    other = captions(tmp_path / "other/good.jsonl", {i: "A dog." for i in range(1, 21)})

    assert run("--cap_file", good, "--baseline", other, "--ground-truth", truth) == 0

    printed = " ".join(capsys.readouterr().out.split())
    assert f"method - {other}, in percent" in printed
    assert f"[1] {other}" in printed


def test_captions_can_be_cut(
    tmp_path: Path, truth: Path, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    flags = ("--cap_file", bad, "--ground-truth", truth, "--save_path", out)

    assert run(*flags, "--max-words", 6, "--drop-unfinished") == 0
    content = json.loads(out.read_text())
    assert {row["caption"] for row in content["sentences"]} == {"A man and his dog."}
    assert content["cut"] == "after 6 words, unfinished last sentence dropped"

    assert run(*flags, "--max-words", 3, "--drop-unfinished") == 0
    assert "20 captions of bad are empty and were scored as they are" in capsys.readouterr().out


def test_fixes_are_off_unless_asked_for(tmp_path: Path, truth: Path) -> None:
    out = tmp_path / "out.json"
    file = captions(tmp_path / "men.jsonl", {1: "Two men."})
    flags = ("--cap_file", file, "--ground-truth", truth, "--save_path", out)

    found = []
    for extra in ([], ["--lexicon-fixes"]):
        assert run(*flags, *extra) == 0
        content = json.loads(out.read_text())
        found.append((content["sentences"][0]["mscoco_generated_words"], content["lexicon_fixes"]))

    assert found == [([], "off"), (["person"], "on")]


def test_the_last_of_several_captions_can_be_taken(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text('{"image_id": 1, "caption": "a kite"}\n{"image_id": 1, "caption": "a dog"}\n')

    assert run("--cap_file", path, "--ground-truth", truth) == 2
    assert "more than one caption for 1 pictures: 1; pass --last" in capsys.readouterr().err
    assert run("--cap_file", path, "--ground-truth", truth, "--last") == 0
    assert "| twice  |           0.0 |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["m_cn", "m_emptycap"])
def test_captions_that_name_no_object_are_no_perfect_result(
    shared: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = shared / "cases/captions-without-objects", tmp_path / "out.json"

    assert run("--cap_file", case / f"{name}.jsonl", "--ground-truth", case / "gt.json",
               "--save_path", out, "--report", tmp_path / "report.html") == 0  # fmt: skip

    printed = capsys.readouterr().out
    (row,) = [row for row in table_rows(printed) if row[0] == name]
    assert row[2] == "n/a"
    assert f"note: 3 of 3 captions of {name} mention no object" in " ".join(printed.split())
    assert ("are empty" in printed) == (name == "m_emptycap")
    content = json.loads(out.read_text())
    assert content["overall_metrics"]["CHAIRi"] is None
    assert set(content["intervals"]["CHAIRi"].values()) <= {None, False}
    assert content["sentences"][0]["metrics"]["CHAIRi"] == 0  # as OPERA's chair.py has it
    assert "NaN" not in out.read_text()
    assert f"3 of 3 captions of {name} mention no object" in (tmp_path / "report.html").read_text()


def test_beside_a_baseline_their_difference_is_n_a_too(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = shared / "cases/captions-without-objects"
    baseline = captions(tmp_path / "named.jsonl", {1: "A dog.", 2: "A kite.", 3: "A cat."})

    assert run("--cap_file", case / "m_cn.jsonl", "--baseline", baseline, "--ground-truth",
               case / "gt.json", "--report", tmp_path / "report.html") == 0  # fmt: skip

    rows = table_rows(capsys.readouterr().out)
    assert ["m_cn", "CHAIRi", "n/a", ""] in rows


def test_auto_says_which_analyzer_it_took(
    truth: Path, good: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)

    assert main(["--cap_file", str(good), "--ground-truth", str(truth)]) == 0

    assert "; analyzer lexicon " in " ".join(capsys.readouterr().out.split())


def test_a_ground_truth_of_another_analyzer_is_noted(
    tmp_path: Path, truth: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth.write_text(json.dumps({"analyzer": "nltk 3", "inputs": {}, "objects": TRUTH}))

    assert run("--cap_file", good, "--ground-truth", truth) == 0

    assert "ground truth was analyzed by nltk 3, the captions by lexicon" in capsys.readouterr().out


def test_the_report_is_written(tmp_path: Path, truth: Path, good: Path, bad: Path) -> None:
    report = tmp_path / "report.html"

    assert run("--cap_file", good, "--baseline", bad, "--ground-truth", truth,
               "--report", report) == 0  # fmt: skip

    page = report.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "kite" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no ground truth: pass --coco_path with the folder of COCO's annotations"),
        (["--coco_path", "nowhere"], "--coco_path nowhere is not a folder"),
        (["--coco_path", "."], ". lacks instances_train2014.json, instances_val2014.json"),
        (["--ground-truth", "absent.json"], "absent.json can't be read"),
        (["--ground-truth", "chair.pkl"], "python scripts/data/import_chair_cache.py chair.pkl"),
        (["--ground-truth", "T", "--coco_path", "."], "are given, but only one is allowed"),
        (["--ground-truth", "T", "--max-words", "0"], "--max_words 0, but at least 1 is needed"),
        (["--ground-truth", "T", "--baseline", "absent"], "absent can't be read"),
        (
            ["--ground-truth", "T", "--caption_key", "answer"],
            "has no 'answer'; its keys are caption, image_id",
        ),
        (
            ["--ground-truth", "T", "--image_id_key", "id"],
            "has no 'id'; its keys are caption, image_id",
        ),
        (
            ["--ground-truth", "T", "--images", "."],
            "--images . must be an existing folder, and needs",
        ),
        (["--ground-truth", "T", "--save_path", "/dev/null/x.json"], "can't be written"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    message: str,
    truth: Path,
    good: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(truth) if argument == "T" else argument for argument in arguments]

    assert run("--cap_file", good, *arguments) == 2

    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("chair: error: ")
    assert message in errors[0]


def test_a_pickle_is_not_taken_for_a_cache(
    tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path, count=2, seed=1)
    pickle = tmp_path / "chair.pkl"
    pickle.write_bytes(b"\x80\x04.")

    assert run("--cap_file", good, "--coco_path", tmp_path / "annotations", "--splits", "val2014",
               "--cache", pickle) == 2  # fmt: skip

    assert "scripts/data/import_chair_cache.py" in capsys.readouterr().err
    assert pickle.read_bytes() == b"\x80\x04."


def test_pictures_that_the_ground_truth_lacks_are_named(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = captions(tmp_path / "x.jsonl", {1: "a dog", 77: "a cat"})

    assert run("--cap_file", file, "--ground-truth", truth) == 2

    assert "the ground truth lacks 1 of 2 pictures: 77" in capsys.readouterr().err


def test_nothing_is_overwritten_by_half(
    tmp_path: Path, truth: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert run("--cap_file", good, "--ground-truth", truth, "--save_path", out) == 2

    assert out.read_text() == "old"
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("start", [["eval/chair.py"], ["-m", "eval.chair"]])
def test_both_ways_to_start_it_work(start: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "--image_id_key" in done.stdout


def test_an_unknown_flag_names_the_nearest(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--cap_file", str(good), "--coco_pth", "."])

    assert "--coco_pth is unknown: did you mean --coco_path?" in capsys.readouterr().err
