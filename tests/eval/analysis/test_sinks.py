"""The command `eval/sinks.py`: what it records, asks, and finds in planted cases."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

import models
from eval import chair_eval, pope_eval, runs, sinks
from eval.analysis.claim import densities
from eval.analysis.observed import Observed, observed_of
from eval.stats.association import permutation_p_values
from eval.stats.permutation import holm
from scripts.scenes.make import write_scenes
from tests.eval.analysis.small_models import IMAGE_TOKENS, write_llava
from tests.eval.small_runs import count_calls, state_of

TRIES = 100
FLAT = (1, 3)  # layer and head


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=24, seed=5)
    return folder


@pytest.fixture
def folder(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a new folder, to which the scenes are linked."""
    for name in ("val2014", "annotations"):
        (tmp_path / name).symlink_to(scenes / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def count_reads(patch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[int]:
    """Record of how many prompts each batch is that is read; Ctrl-C comes in batch `stop_at`."""
    batches: list[int] = []
    encode_prompts = models.VLM.encode_prompts

    def counted(self: models.VLM, features: Any, questions: Any, **rest: Any) -> Any:
        if len(batches) == stop_at:
            raise KeyboardInterrupt
        batches.append(len(questions))
        return encode_prompts(self, features, questions, **rest)

    patch.setattr(models.VLM, "encode_prompts", counted)
    return batches


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures and write no page, which take longer than tiny models."""
    monkeypatch.setattr(
        "eval.analysis.output.write_folder", lambda *_: "<html><head></head></html>"
    )


TINY = ["--model", "tiny-llava"]
DATA = ["--data-path", "val2014", "--gpu-id", "-1", "--batch-size", "4"]
POPE = ["--pope-type", "random", "--build-from", "annotations/instances_val2014.json",
        "--pope-path", "pope"]  # fmt: skip
CAPTIONS = ["--captions", "--analyzer", "lexicon"]


def run_folder(root: str = "runs/sinks") -> Path:
    (found,) = Path(root).glob("*/*")
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def observed_in(path: Path) -> list[Observed]:
    lines = (path / "observations.jsonl").read_text(encoding="utf-8").splitlines()
    return [observed_of(json.loads(line), 1, "line") for line in lines]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("flat"), flat=FLAT)


def of(model: Path) -> list[str]:
    return ["--model", "llava-1.5", "--checkpoint", str(model), "--dtype", "float32"]


def test_a_flat_head_shows_in_map_claim_and_figures(
    folder: Path, flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its columns have the mean of uniform attention, which others reach in few columns only."""
    assert sinks.main([*of(flat), *DATA, *POPE, "--num-images", "6", "--THRES", "0.009"]) == 0

    layer, head = FLAT
    path = run_folder()
    own = {(int(r["layer"]), int(r["head"])): r for r in rows_of(path / "sinks.csv")}
    planted = own.pop(FLAT)
    assert float(planted["density"]) == float(planted["densest"]) == 1
    assert all(float(one["density"]) < 0.9 for one in own.values())
    (drawn,) = (path / "figures").glob("*-density-0.009.csv")
    cells = {
        (int(row["layer"]), at): float(cell)
        for row in rows_of(drawn)
        for at, cell in enumerate(list(row.values())[1:])
    }
    assert max(cells, key=lambda at: cells[at]) == FLAT
    claim = json.loads((path / "sinks.json").read_text())["models"][0]["claim"]
    both = [(one["without"]["value"], one["hallucinating"]["value"]) for one in claim["layers"]]
    assert both[layer] == (1, 1)
    assert max(max(one) for at, one in enumerate(both) if at != layer) < 0.95
    assert claim["layers"][layer]["p_holm"] is None
    table = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    (shown,) = (line for line in table if line[1].strip() == str(layer))
    assert (shown[3].strip(), shown[4].strip()) == (f"{head} in 100 %", "100.0")
    page = (path / "sinks.html").read_text(encoding="utf-8")
    assert f"head {head} of layer {layer} is densest" in " ".join(page.split())


def test_answers_that_go_with_density_are_found_and_shuffled_ones_are_not(
    folder: Path, flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*of(flat), *DATA, *CAPTIONS, "--max-new-tokens", "2", "--num-images", "24"]
    words += ["--THRES", "0.012"]
    assert sinks.main(words) == 0
    path, answers = run_folder(), run_folder("runs/chair") / "arms/baseline/answers.jsonl"
    observed = observed_in(path)
    planted = 4
    density = {one.image: max(one.layers[planted].sinks[0]) / IMAGE_TOKENS for one in observed}
    middle = median(density.values())
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    # No scene has one of them.
    for line in lines:
        sparse = density[line["image"]] < middle
        line["answer"] = "A giraffe and a toilet." if sparse else "A picture."
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    capsys.readouterr()

    assert sinks.main(words) == 0

    said = " ".join(capsys.readouterr().out.split())
    assert "denser in vision sinks where answers don't hallucinate" in said
    (claim,) = [one["claim"] for one in json.loads((path / "sinks.json").read_text())["models"]]
    found = [one["layer"] for one in claim["layers"] if (one["p_holm"] or 1) < 0.05]
    assert planted in found
    assert claim["layers"][planted]["difference"]["low"] > 0

    rng = np.random.default_rng(0)
    labels = np.array([density[one.image] < middle for one in observed])
    pictures, tries = np.arange(len(observed)), 0
    for _ in range(TRIES):
        shuffled = rng.permutation(labels)
        adjusted = holm(permutation_p_values(densities(observed), shuffled, pictures))
        tries += all(not p < 0.05 for p in adjusted)
    assert 93 <= tries <= 98


def test_what_was_seen_is_not_looked_at_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *DATA, "--num-images", "8"]
    asked = count_reads(monkeypatch)
    assert sinks.main(words) == 0
    first = {name: content for name, (content, _) in state_of(folder).items()}
    said = capsys.readouterr().out
    # Eight prompts, and a picture without EAH and with it.
    assert sum(asked) == 10

    assert sinks.main(words) == 0

    assert sum(asked) == 10
    assert capsys.readouterr().out == said
    assert {name: content for name, (content, _) in state_of(folder).items()} == first


def test_ctrl_c_loses_no_prompt(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *DATA, "--num-images", "10"]
    with monkeypatch.context() as patch:
        count_reads(patch, stop_at=1)
        assert sinks.main(words) == 130
    kept = (run_folder() / "observations.jsonl").read_text().splitlines()
    assert len(kept) == 4
    asked = count_reads(monkeypatch)

    assert sinks.main([*words[:-3], "3", *words[-2:]]) == 0  # another batch size

    assert sum(asked) == 6 + 2
    lines = (run_folder() / "observations.jsonl").read_text().splitlines()
    assert lines[:4] == kept
    assert len(lines) == len({json.loads(line)["image"] for line in lines}) == 10


def test_other_code_is_noticed(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *DATA, "--num-images", "8"]
    with monkeypatch.context() as patch:
        count_reads(patch, stop_at=1)
        assert sinks.main(words) == 130
    path = run_folder() / "observed.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    capsys.readouterr()

    assert sinks.main(words) == 2
    assert "torch 1.0 -> " in capsys.readouterr().err
    assert sinks.main([*words, "--fresh"]) == 0
    assert "what was observed is in" in capsys.readouterr().err
    assert len(list((run_folder() / "set_aside").iterdir())) == 1
    assert sinks.main(words) == 0
    assert "note:" not in capsys.readouterr().err, "the record is of this code now"
    path.write_text(json.dumps(record))
    assert sinks.main(words) == 0
    assert "observed by other code (torch 1.0 -> " in capsys.readouterr().err
    path.unlink()
    assert sinks.main(words) == 0
    assert "observed by other code (observed.json is missing)" in capsys.readouterr().err


def test_processes_share_a_run(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    words = [*TINY, *DATA, *CAPTIONS, "--num-images", "9", "--max-new-tokens", "4"]
    words[words.index("--gpu-id") : words.index("--gpu-id") + 2] = ["--device", "cpu"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert sinks.main(words) == 0
        said.append(capsys.readouterr().out)

    assert said[0] == ""
    assert "run folder: " in said[1]
    monkeypatch.delenv("WORLD_SIZE")
    asked = count_reads(monkeypatch)
    assert sinks.main(words) == 0
    assert sum(asked) == 0
    assert capsys.readouterr().out == said[1]


def test_the_process_that_answers_last_writes_the_page_though_it_looked_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *DATA, *CAPTIONS, "--num-images", "9", "--max-new-tokens", "4"]
    words[words.index("--gpu-id") : words.index("--gpu-id") + 2] = ["--device", "cpu"]
    collect = sinks.AnswerCollector.collect
    said: list[str] = []

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(sinks.AnswerCollector, "collect", collect)
        monkeypatch.setenv("RANK", "0")
        assert sinks.main(words) == 0
        said.append(capsys.readouterr().out)
        monkeypatch.setenv("RANK", "1")
        return collect(*arguments)

    monkeypatch.setattr(sinks.AnswerCollector, "collect", late)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")

    assert sinks.main(words) == 0

    assert said == [""]
    assert "run folder: " in capsys.readouterr().out


def test_answers_are_those_of_the_benchmarks_own_runs(
    folder: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*DATA, "--num-images", "5", "--max-new-tokens", "4"]
    assert sinks.main([*TINY, *words, *CAPTIONS]) == 0
    asked = count_calls(monkeypatch)

    assert chair_eval.main([*TINY, *words, "--method", "baseline"]) == 0
    assert asked.prompts == 0
    assert chair_eval.main([*TINY, *words]) == 0
    assert asked.prompts == 5
    capsys.readouterr()
    assert runs.main(["list"]) == 0
    assert f"sinks/tiny-llava/{run_folder().name} observations" in capsys.readouterr().out
    for words in (["show"], ["export"], ["compare", str(run_folder())]):
        assert runs.main([*words, str(run_folder())]) == 2
        assert "contains observations of eval/sinks.py, not answers" in capsys.readouterr().err
    answers = ["--answers", str(run_folder())]
    assert pope_eval.main([*TINY, *answers]) == 2
    assert "contains observations of eval/sinks.py, not answers" in capsys.readouterr().err


def test_a_setting_is_chosen_on_pictures_that_are_not_reported(
    folder: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *DATA, *POPE, "--num-images", "6", "--choose-on", "4"]
    assert sinks.main([*words, "--ablate", "layers=0,1", "receivers=2"]) == 0

    said = " ".join(capsys.readouterr().out.split())
    assert "on 4 pictures that it was chosen on" in said
    assert "On 6 other pictures" in said
    reported = {one.image for one in observed_in(run_folder())}
    arms = {}
    for path in Path("runs/pope/tiny-llava").iterdir():
        lines = (path / "arms/baseline/answers.jsonl").read_text().splitlines()
        names = {json.loads(line)["image"] for line in lines}
        arms[frozenset(names)] = {one.name for one in (path / "arms").iterdir()}
    choice, *others = sorted(arms, key=len)
    assert (len(choice), len(reported)) == (4, 6)
    assert others == [frozenset(reported)]
    assert choice.isdisjoint(reported)
    assert arms[choice] == {"baseline", "eah", "eah@layers=0", "eah@receivers=2"}
    assert {"baseline", "eah"} <= arms[others[0]]


def test_several_models_have_a_folder_each_and_one_together(
    folder: Path, flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "hf", "--checkpoint", str(flat), "--model", "tiny-llava"]
    assert sinks.main([*words, *DATA, "--num-images", "3"]) == 2
    assert "2 models and 1 checkpoints" in capsys.readouterr().err
    words = ["--model", "llava-1.5", "--checkpoint", str(flat)]
    words += ["--model", "tiny-llava", "--checkpoint", str(sinks_root() / "models/tiny-llava")]
    assert sinks.main([*words, *DATA, *POPE, "--num-images", "3", "--json", "all.json"]) == 0

    assert [path.name for path in sorted(Path("runs/sinks").iterdir())] == [
        "llava-1.5", "llava-1.5+tiny-llava", "tiny-llava",
    ]  # fmt: skip
    (together,) = Path("runs/sinks/llava-1.5+tiny-llava").iterdir()
    assert {row["model"] for row in rows_of(together / "sinks.csv")} == {"llava-1.5", "tiny-llava"}
    assert list((together / "figures").glob("*claim*"))
    assert [one["map"]["model"] for one in json.loads(Path("all.json").read_text())["models"]] == [
        "llava-1.5", "tiny-llava",
    ]  # fmt: skip


def sinks_root() -> Path:
    return Path(sinks.__file__).resolve().parents[1]


def test_the_page_is_written_where_the_flag_says_and_over_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *DATA, "--num-images", "2", "--report"]
    assert sinks.main([*words, "page.html"]) == 0
    assert 'content="EAH sinks"' in Path("page.html").read_text(encoding="utf-8")
    assert sinks.main([*words, "page.html"]) == 0
    Path("theirs.html").write_text("mine")
    assert sinks.main([*words, "theirs.html"]) == 2
    assert sinks.main([*words, str(run_folder() / "observations.jsonl")]) == 2
    assert Path("theirs.html").read_text() == "mine"


@pytest.mark.parametrize("tried", ["layers=1,99", "head=77", "receivers=77"])
def test_a_setting_that_the_model_lacks_is_refused_before_anything_is_looked_at(
    folder: Path, tried: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = count_reads(monkeypatch)

    assert sinks.main([*TINY, *DATA, *CAPTIONS, "--num-images", "2", "--ablate", tried]) == 2

    assert "sinks: error: " in capsys.readouterr().err
    assert sum(asked) == 0


def test_a_dry_run_looks_at_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = count_reads(monkeypatch)
    assert sinks.main([*TINY, *DATA, *CAPTIONS, "--num-images", "7", "--dry-run"]) == 0

    said = capsys.readouterr().out
    assert "prompts to look at: 7, recorded: 0" in said
    assert "baseline" in said
    assert sum(asked) == 0
    assert not Path("runs").exists()


@pytest.fixture
def recorded(folder: Path, undrawn: None) -> tuple[Path, dict[str, Any]]:
    assert sinks.main([*TINY, *DATA, "--num-images", "2"]) == 0
    path = run_folder() / "observations.jsonl"
    return path, json.loads(path.read_text().splitlines()[0])


@pytest.mark.parametrize(
    "change",
    [
        {"image_tokens": 0},
        {"image_tokens": "64"},
        {"layers": []},
        {"layers": [{"layer": 0}]},
        {"layers": [{"layer": 0, "sinks": [[1, 2]], "attention": [0.5], "densest": [0]}]},
        {"layers": [{"layer": 0, "sinks": [[65]], "attention": [0.5], "densest": [0]}]},
        {"layers": [{"layer": 0, "sinks": [[1]], "attention": [0.5], "densest": [1]}]},
        {"layers": [{"layer": 0, "sinks": [[1]], "attention": [-0.5], "densest": [0]}]},
        {"layers": [{"layer": 0, "sinks": [[1]], "attention": ["a"], "densest": [0]}]},
        {"layers": 3},
        {"image": None},
    ],
)
def test_a_damaged_record_is_one_sentence(
    recorded: tuple[Path, dict[str, Any]], change: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, line = recorded
    path.write_text(json.dumps({**line, **change}) + "\n")
    capsys.readouterr()

    assert sinks.main([*TINY, *DATA, "--num-images", "2"]) == 2

    (said,) = capsys.readouterr().err.splitlines()
    assert "observations.jsonl, observation 1 is not a recorded observation" in said


def test_a_damaged_picture_file_is_one_sentence(
    recorded: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = (run_folder() / "pictures").iterdir()
    whole = file.read_bytes()
    for content in (b"", whole[:200], b"x" * 300):
        file.write_bytes(content)
        capsys.readouterr()
        assert sinks.main([*TINY, *DATA, "--num-images", "2"]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "is damaged" in said


def test_a_picture_that_was_looked_at_has_the_models_name_of_this_command(
    folder: Path, flat: Path
) -> None:
    words = [*DATA, "--num-images", "1"]
    assert sinks.main([*of(flat), *words]) == 0
    other = write_llava(folder / "other", seed=1)
    both = ["--model", "llava-1.5", "--checkpoint", str(other)]

    assert sinks.main([*of(flat), *both, *words]) == 0

    figures = [path.name for path in Path("runs/sinks").glob("*+*/*/figures/*-picture-*.csv")]
    assert {name.split("-picture-")[0] for name in figures} == {flat.name, "other"}
