"""What decides a folder, what is asked in it, and which recorded answers are kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models
from eval import chair_eval
from eval.errors import EvaluationError
from eval.evaluate import ask, task_class
from eval.pope_eval import main
from eval.run.arm_folder import ArmFolder
from eval.run.plan import CPU_PROMPTS
from eval.run.session import Session, describe, plan_session
from eval.run.settings import RunSettings
from eval.tasks.base import TaskProtocol
from eval.tasks.chair.task import ChairCaptions, ChairSettings
from models import methods
from models.decoding.vcd import Vcd
from scripts.scenes.make import write_scenes
from tests.eval.results import result_in
from tests.eval.small_runs import (
    ROOT,
    count_calls,
    lines_of,
    numbers_of,
    only_run,
    pope_flags,
    same_answers,
    state_of,
)

QUESTIONS = 24


def session_of(settings: RunSettings) -> Session:
    kind = task_class("chair" if isinstance(settings, ChairSettings) else "pope")
    described = describe(settings)
    protocol = kind.protocol_of(described.protocol, described.family)
    task = kind(settings, protocol)
    return plan_session(task, task.items(), described)


def folder_of(settings: RunSettings) -> Path:
    return session_of(settings).folder.path


@pytest.fixture
def captions(tmp_path: Path) -> ChairSettings:
    write_scenes(tmp_path, count=2, seed=2014)
    return ChairSettings(model="tiny-llava", device="cpu", data_path=tmp_path / "val2014")


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "official"},
        {"dtype": "bfloat16"},
        {"beam": 2},
        {"sample": True},
        {"max_new_tokens": 64},
        {"limit": 1},
        {"question": "Describe this image."},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_decides_every_arms_answers_decides_the_folder(
    captions: ChairSettings, change: dict[str, Any]
) -> None:
    assert folder_of(replace(captions, **change)) != folder_of(captions)


@pytest.mark.parametrize(
    "change",
    [
        {"num_workers": 5},
        {"batch_size": 4},
        {"batch_size": None},
        {"seed": 1},
        {"prefix_reuse": False},
        {"method": ("eah",)},
        {"method": ("eah", "baseline")},
        {"method": ("baseline", "eah", "vcd")},
        {"sweep": ("layers=0,1",)},
        {"preset": "paper"},
        {"layers": (2,)},
        {"head": 3},
        {"sink_threshold": 0.01},
        {"device": "cpu"},
        {"protocol": "opera"},
        {"fresh": True},
        {"accept_old": True},
        {"wide": True},
        {"json": Path("x")},
        {"reference": "eah"},
    ],
    ids=lambda change: "-".join(map(str, change.items())),
)
def test_what_decides_no_answer_of_an_arm_does_not(
    captions: ChairSettings, change: dict[str, Any]
) -> None:
    assert folder_of(replace(captions, **change)) == folder_of(captions)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 4}], ids=["seed", "batch size"])
def test_seed_and_batch_size_decide_what_is_sampled(
    captions: ChairSettings, change: dict[str, Any]
) -> None:
    sampled = replace(captions, sample=True)

    assert folder_of(replace(sampled, **change)) != folder_of(sampled)
    assert folder_of(replace(sampled, num_workers=2)) == folder_of(sampled)


def test_the_output_folder_is_not_in_the_name(captions: ChairSettings, tmp_path: Path) -> None:
    other = replace(captions, output_dir=tmp_path)

    assert folder_of(other).name == folder_of(captions).name
    assert folder_of(other).parent == tmp_path / "chair/tiny-llava"


def test_a_folder_says_what_it_holds(captions: ChairSettings) -> None:
    names = [folder_of(replace(captions, **c)).name for c in ({}, {"beam": 3}, {"sample": True})]

    assert [name.rpartition("-")[0] for name in names] == [
        "opera-2images", "opera-2images-beam3", "opera-2images-sample",
    ]  # fmt: skip


def test_another_order_of_questions_is_another_folder(
    captions: ChairSettings, tmp_path: Path
) -> None:
    folders = []
    for order in ("1 2", "2 1"):
        ids = tmp_path / f"{order}.txt"
        ids.write_text(order.replace(" ", "\n"))
        folders.append(folder_of(replace(captions, image_ids=ids)))

    assert folders[0] != folders[1]


def test_another_suffix_of_a_protocol_is_another_folder(
    captions: ChairSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder_of(captions)
    protocols = {("", "opera"): TaskProtocol(512, suffix=" Be brief.")}
    monkeypatch.setattr(ChairCaptions, "protocols", protocols)

    assert folder_of(captions) != before


def test_one_byte_of_a_picture_is_another_folder(captions: ChairSettings) -> None:
    before = folder_of(captions)
    picture = captions.pictures_folder() / "COCO_val2014_000000000002.jpg"
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 1
    picture.write_bytes(content)

    assert folder_of(captions) != before


def test_a_picture_that_is_not_asked_about_changes_nothing(captions: ChairSettings) -> None:
    before = folder_of(replace(captions, limit=1))
    asked = session_of(replace(captions, limit=1)).plan.prompts[0].image
    (other,) = (p for p in captions.pictures_folder().iterdir() if p.name != asked)
    other.write_bytes(b"another")

    assert folder_of(replace(captions, limit=1)) == before


@pytest.mark.parametrize("at", [9, 2_000_000, -1], ids=["header", "middle", "end"])
def test_one_byte_of_the_weights_is_another_folder_wherever_they_lie(
    captions: ChairSettings, tmp_path: Path, at: int
) -> None:
    copied = shutil.copytree(ROOT / "models/tiny-llava", tmp_path / "copied")
    same = replace(captions, checkpoint=str(copied))
    before = folder_of(same)
    weights = next(copied.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[at] ^= 1
    weights.write_bytes(content)

    assert before == folder_of(captions)
    assert folder_of(same) != before


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "chat_template.jinja"])
def test_a_replaced_file_behind_a_link_is_another_folder(
    captions: ChairSettings, tmp_path: Path, name: str
) -> None:
    """As in the hub's cache; size and times stay."""
    copied = Path(shutil.copytree(ROOT / "models/tiny-llava", tmp_path / "snapshots/abc"))
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for file in sorted(copied.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(f"../../blobs/{file.name}")
    same = replace(captions, checkpoint=str(copied))
    before, blob = folder_of(same), blobs / name
    state, new = blob.stat(), blobs / "new"
    new.write_bytes(blob.read_bytes()[:-1] + b"!")
    os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
    new.replace(blob)

    assert folder_of(same) != before


def test_a_changed_tokenizer_is_another_folder(captions: ChairSettings, tmp_path: Path) -> None:
    copied = shutil.copytree(ROOT / "models/tiny-llava", tmp_path / "copied")
    same = replace(captions, checkpoint=str(copied))
    before = folder_of(same)
    path = copied / "tokenizer_config.json"
    path.write_text(path.read_text() + " ")

    assert folder_of(same) != before


def test_the_model_is_loaded_as_resolved(
    captions: ChairSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    asked: list[Any] = []

    def load(*arguments: Any, **named: Any) -> None:
        asked.append((arguments, named))
        raise Stopped

    monkeypatch.setattr(models, "load", load)
    settings = replace(
        captions, protocol="official", dtype="bfloat16", checkpoint="models/tiny-llava",
        device=None, output_dir=tmp_path,
    )  # fmt: skip
    task = task_class("chair")(settings)
    with pytest.raises(Stopped):
        ask(task, task.items())

    ((arguments, named),) = asked
    assert arguments == ("tiny-llava",)
    assert named.pop("device") in {"cpu", "cuda:0"}
    assert named == {
        "checkpoint": "models/tiny-llava", "protocol": "official", "dtype": "bfloat16",
        "parts": {}, "quantization": None, "converted": None,
        "system": None,
    }  # fmt: skip


@pytest.mark.parametrize("size", [8, None])
def test_the_released_code_is_run_one_prompt_at_a_time(
    captions: ChairSettings, size: int | None
) -> None:
    released = replace(captions, preset="released-code", batch_size=size)

    with pytest.raises(EvaluationError, match="pass --batch-size 1"):
        session_of(released)
    session_of(replace(released, batch_size=1))
    session_of(replace(released, method=("baseline",)))


def test_pictures_are_read_in_worker_processes_beside_a_gpu_only(captions: ChairSettings) -> None:
    assert session_of(captions).plan.num_workers == 0
    assert session_of(replace(captions, num_workers=3)).plan.num_workers == 3


# Runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pope_flags(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def finished(scenes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output folder with a finished run of baseline and EAH; copy it before writing."""
    root = tmp_path_factory.mktemp("finished")
    assert main([*scenes, "--method", "baseline", "eah", "--output-dir", str(root)]) == 0
    return root


@pytest.fixture
def flags(scenes: list[str], finished: Path, tmp_path: Path) -> list[str]:
    """Return flags that go on with a copy of the finished run in `tmp_path/runs`."""
    shutil.copytree(finished, tmp_path / "runs")
    return [*scenes, "--output-dir", str(tmp_path / "runs")]


@pytest.fixture
def new_flags(scenes: list[str], tmp_path: Path) -> list[str]:
    return [*scenes, "--output-dir", str(tmp_path / "runs")]


def test_an_added_arm_alone_is_asked(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = only_run(tmp_path / "runs")
    before = state_of(run / "arms")
    assert len(lines_of(run, "eah")) == QUESTIONS
    asked = count_calls(monkeypatch)

    assert main([*flags, "--method", "baseline", "eah", "vcd"]) == 0

    after = state_of(only_run(tmp_path / "runs") / "arms")
    assert {name: after[name] for name in before} == before, "bytes and times of what was there"
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"vcd"}
    assert {type(decoding) for _, decoding in asked} == {Vcd}
    assert asked.prompts == QUESTIONS
    results = numbers_of(run / "report/metrics.json")["results"]
    assert [one["arm"] for one in results] == ["baseline", "eah", "vcd"]


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--batch-size", "3"],
        ["--batch-size", "auto"],
        ["--num-workers", "1"],
        ["--no-prefix-reuse"],
        ["--method", "eah"],
        ["--method", "eah", "baseline"],
    ],
    ids=" ".join,
)
def test_what_is_answered_is_never_asked_again(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str]
) -> None:
    before = state_of(only_run(tmp_path / "runs") / "arms")
    monkeypatch.setattr(models, "load", None)

    assert main([*flags, *extra]) == 0

    run = only_run(tmp_path / "runs")
    assert state_of(run / "arms") == before
    shown = extra[1:] if "--method" in extra else ["baseline", "eah"]
    results = numbers_of(run / "report/metrics.json")["results"]
    assert [one["arm"] for one in results] == shown


def test_batches_that_fit_leave_room_for_the_answers(
    new_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    assert main([*new_flags, "--limit", "1", "--method", "baseline", "--max-new-tokens", "1"]) == 0
    scenes = Path(new_flags[new_flags.index("--pope-path") + 1])
    rows = (scenes / "coco_pope_random.json").read_text().splitlines()
    longest = max(vlm.prompt_length(json.loads(row)["text"]) for row in rows)
    asked = count_calls(monkeypatch)
    # Two of the longest prompts fit with answers of nine tokens, and not with ten.
    monkeypatch.setattr(
        "eval.run.answering.batch_room", lambda *_: {"tokens": 2 * (longest + 10) - 1}
    )

    for new in ("10", "9"):
        flags = ["--batch-size", "auto", "--no-prefix-reuse", "--max-new-tokens", new]
        asked.clear()
        assert main([*new_flags, *flags, "--method", "baseline"]) == 0
        assert asked[0][0] == {"10": 1, "9": 2}[new]


def test_a_folder_keeps_the_batches_that_it_was_begun_with(
    new_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was begun before processors had smaller ones goes on with those of then."""
    flags = [*new_flags, "--batch-size", "auto", "--method", "baseline"]
    interrupted(flags, after=1)
    file = only_run(tmp_path / "runs") / "batches.json"
    assert (
        json.loads(file.read_text())["prompts"]
        == CPU_PROMPTS
        == len(lines_of(file.parent, "baseline"))
    )
    with monkeypatch.context() as patch:
        asked = count_calls(patch)
        assert main(flags) == 0
    assert [count for count, _ in asked] == [CPU_PROMPTS] * 2

    file.write_text(json.dumps({"tokens": json.loads(file.read_text())["tokens"]}))
    asked = count_calls(monkeypatch)
    assert main([*flags, "--fresh"]) == 0
    assert [count for count, _ in asked] == [QUESTIONS]


def test_another_seed_of_greedy_decoding_asks_noised_arms_alone(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*flags, "--method", "baseline", "vcd"]) == 0
    asked = count_calls(monkeypatch)
    flags = [*flags, "--pope-path", flags[flags.index("--pope-path") + 1]]
    del flags[flags.index("--build-from") : flags.index("--build-from") + 2]

    assert main([*flags, "--seed", "7", "--method", "baseline", "vcd"]) == 0

    assert asked.prompts == QUESTIONS
    arms = {path.name for path in (only_run(tmp_path / "runs") / "arms").iterdir()}
    assert arms == {"baseline", "eah", "vcd", "vcd@seed=7"}


def test_after_too_little_memory_a_smaller_batch_goes_on_in_the_same_folder(
    new_flags: list[str], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_batch = models.VLM.answer_batch

    def small_memory(self: models.VLM, features: Any, *rest: Any) -> Any:
        if len(features) > 5:
            raise MemoryError
        return answer_batch(self, features, *rest)

    monkeypatch.setattr(models.VLM, "answer_batch", small_memory)

    assert main([*new_flags, "--batch-size", "7"]) == 2
    assert main([*new_flags, "--batch-size", "5"]) == 0

    run, other = only_run(tmp_path / "runs"), only_run(finished)
    assert run.name == other.name
    assert same_answers(run, other, ["eah"])
    info = json.loads((run / "arms/baseline/arm.json").read_text())
    assert info["batch_size"] == 5, "what the answers were asked with"


def interrupted(flags: list[str], after: int) -> None:
    """Run until Ctrl-C in a call of the model."""
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, stop_at=after)
        assert main(flags) == 130


def test_a_stopped_run_goes_on_with_what_is_missing(
    new_flags: list[str], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted([*new_flags, "--batch-size", "4"], after=4)
    run, other = only_run(tmp_path / "runs"), only_run(finished)
    assert len(lines_of(run, "baseline")) == len(lines_of(run, "eah")) == 8
    first = json.loads((run / "arms/eah/arm.json").read_text())
    asked = count_calls(monkeypatch)

    assert main([*new_flags, "--batch-size", "7", "--no-prefix-reuse"]) == 0

    assert asked.prompts == 2 * (QUESTIONS - 7), "whole batches of the new size"
    assert same_answers(run, other, ["baseline", "eah"])
    info = json.loads((run / "arms/eah/arm.json").read_text())
    (resumed,) = info.pop("resumed")
    assert info == first
    assert (info["batch_size"], resumed["batch_size"]) == (4, 7)
    assert (info["prefix_reuse"], resumed["prefix_reuse"]) == (True, False)
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1


def test_after_a_full_disk_the_run_goes_on(
    new_flags: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync, synced = os.fsync, []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main([*new_flags, "--batch-size", "4"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "jsonl can't be written: No space left on device; what was written before is" in error

    assert main(new_flags) == 0

    run, other = only_run(tmp_path / "runs"), only_run(finished)
    assert same_answers(run, other, ["baseline", "eah"])


def test_an_output_folder_that_can_not_be_written_is_one_sentence(
    scenes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")

    assert main([*scenes, "--output-dir", str(tmp_path / "file")]) == 2

    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "can't be written: Not a directory" in error
    assert (tmp_path / "file").read_text() == "mine"


def test_a_kill_before_answers_are_put_in_order_loses_nothing(
    new_flags: list[str], tmp_path: Path
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    # Batches go picture by picture, which is not the order of the questions of two files.
    flags = [*new_flags, "--pope-type", "popular", "random"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArmFolder, "finish", stop)
        assert main(flags) == 130

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", None)
        assert main(flags) == 0

    lines = lines_of(only_run(tmp_path / "runs"), "eah")
    assert [(x["part"], x["id"]) for x in lines] == [
        (part, number) for part in ("popular", "random") for number in range(1, QUESTIONS + 1)
    ]


def test_fresh_sets_answers_aside_and_asks_again(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = only_run(tmp_path / "runs")
    before, other = state_of(run / "arms/eah"), state_of(run / "arms/baseline")
    asked = count_calls(monkeypatch)

    assert main([*flags, "--method", "eah", "--fresh"]) == 0

    assert state_of(run / "set_aside/eah-1") == before
    assert state_of(run / "arms/baseline") == other
    assert asked.prompts == QUESTIONS
    assert (run / "arms/eah/answers.jsonl").read_bytes() == before["answers.jsonl"][0]
    assert f"the answers of eah are in {run / 'set_aside/eah-1'} now" in capsys.readouterr().err


def test_fresh_is_for_one_process(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    before = state_of(only_run(tmp_path / "runs") / "arms")

    assert main([*flags, "--fresh"]) == 2

    assert (
        "--fresh with 2 processes would set each other's answers aside" in capsys.readouterr().err
    )
    assert state_of(only_run(tmp_path / "runs") / "arms") == before


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        (["--method", "eah", "vcd"], {"eah": (24, 0), "vcd": (0, 24)}),
        (["--method", "eah", "--fresh"], {"eah": (0, 24)}),
        (["--limit", "4"], {"baseline": (0, 4), "eah": (0, 4)}),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_would_be_asked_and_writes_nothing(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], extra: list[str], status: dict[str, tuple[int, int]],
) -> None:  # fmt: skip
    run = only_run(tmp_path / "runs")
    with (run / "arms/eah/answers.jsonl").open("ab") as file:
        file.write(b'{"id": 1, "im')  # another process may be writing it
    flags = [*flags, "--pope-path", str(tmp_path / "absent"), "--json", str(tmp_path / "x.json")]
    before = state_of(tmp_path)
    monkeypatch.setattr(models, "load", None)

    assert main([*flags, *extra, "--dry-run"]) == 0

    assert state_of(tmp_path) == before
    assert not (tmp_path / "absent").exists()
    printed = capsys.readouterr().out
    rows = [line.strip("| ").split("|") for line in printed.splitlines() if line.startswith("| ")]
    shown = {row[0].strip(): (int(row[1]), int(row[2])) for row in rows[2:]}
    assert shown == status
    total = sum(next(iter(status.values())))
    assert f"questions: {total}\n" in printed
    assert (f"run folder: {run}\n" in printed) == (total == QUESTIONS)


def test_an_unknown_reference_is_named_before_anything_is_asked(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "describe", None)

    assert main([*flags, "--reference", "vcd"]) == 2

    assert "--reference vcd is not an arm of this run (baseline, eah)" in capsys.readouterr().err


def test_without_a_baseline_a_note_says_so(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--method", "eah"]) == 0

    assert "note: this run has no baseline arm" in capsys.readouterr().err
    assert main(flags) == 0
    assert "note:" not in capsys.readouterr().err


# Code and settings of recorded answers ---------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the sources, which the hash is of in this test."""
    root = tmp_path / "checkout"
    only_code = shutil.ignore_patterns("*.safetensors", "__pycache__")
    for folder in ("eah", "models"):
        shutil.copytree(ROOT / folder, root / folder, ignore=only_code)
    monkeypatch.setattr("eval.run.provenance.ROOT", root)
    return root


def edit(sources: Path) -> None:
    with (sources / "eah/method.py").open("a") as file:
        file.write("# changed\n")


def new_module(sources: Path) -> None:
    (sources / "models/decoding/new.py").write_text("")


def other_torch(sources: Path) -> None:
    path = next((sources.parent / "runs").rglob("arms/eah/arm.json"))
    path.write_text(path.read_text().replace('"torch": "', '"torch": "0'))


CHANGES = pytest.mark.parametrize(
    ("change", "named"),
    [
        (edit, "eah/method.py changed"),
        (new_module, "models/decoding/new.py changed"),
        (other_torch, "torch 0"),
    ],
    ids=["edited", "added", "version"],
)
Change = Callable[[Path], None]


@CHANGES
def test_an_unfinished_arm_of_other_code_is_not_continued(
    new_flags: list[str], sources: Path, capsys: pytest.CaptureFixture[str], change: Change,
    named: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    interrupted([*new_flags, "--method", "eah"], after=1)
    capsys.readouterr()
    change(sources)
    run = only_run(sources.parent / "runs")
    before = state_of(run)
    monkeypatch.setattr(models, "load", None)

    assert main([*new_flags, "--method", "eah"]) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("pope_eval: error: arm eah of")
    assert named in error
    assert "pass --fresh to set its 8 answers aside and ask again, or --accept-old" in error
    assert state_of(run) == before


def test_fresh_asks_the_new_code_and_keeps_the_old_answers(
    new_flags: list[str], sources: Path
) -> None:
    interrupted([*new_flags, "--method", "eah"], after=1)
    run = only_run(sources.parent / "runs")
    before = state_of(run / "arms/eah")
    edit(sources)

    assert main([*new_flags, "--method", "eah", "--fresh"]) == 0

    assert state_of(run / "set_aside/eah-1") == before
    folders = (run / "set_aside/eah-1", run / "arms/eah")
    old, new = (json.loads((folder / "arm.json").read_text()) for folder in folders)
    assert old["code"] != new["code"]
    assert "resumed" not in new
    assert len(lines_of(run, "eah")) == QUESTIONS


def test_accepted_old_answers_are_kept_and_that_is_recorded(
    new_flags: list[str], sources: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    interrupted([*new_flags, "--method", "eah"], after=1)
    run = only_run(sources.parent / "runs")
    first = json.loads((run / "arms/eah/arm.json").read_text())
    edit(sources)
    asked = count_calls(monkeypatch)

    assert main([*new_flags, "--method", "eah", "--accept-old"]) == 0

    info = json.loads((run / "arms/eah/arm.json").read_text())
    assert asked.prompts == QUESTIONS - 8
    assert info["code"] == first["code"]
    (resumed,) = info["resumed"]
    assert resumed["code"] != first["code"]
    assert resumed["files"].keys() == first["files"].keys()
    capsys.readouterr()
    assert main([*new_flags, "--method", "eah"]) == 0
    assert "was answered by other code (eah/method.py changed)" in capsys.readouterr().err


@CHANGES
def test_a_finished_arm_of_other_code_is_printed_with_a_note(
    flags: list[str], sources: Path, capsys: pytest.CaptureFixture[str], change: Change,
    named: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = only_run(sources.parent / "runs")
    change(sources)
    before = state_of(run / "arms")
    monkeypatch.setattr(models, "load", None)

    assert main([*flags, "--method", "eah"]) == 0

    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if "other code" in line]
    (note,) = notes
    assert note.startswith("note: arm eah of")
    assert named in note
    assert "--fresh asks again" in note
    assert "| eah " in printed.out
    assert state_of(run / "arms") == before


def test_unchanged_code_has_no_note(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 0

    assert "other code" not in capsys.readouterr().err


def test_code_that_never_answered_is_not_recorded(new_flags: list[str], sources: Path) -> None:
    interrupted([*new_flags, "--method", "eah"], after=0)
    run = only_run(sources.parent / "runs")
    first = json.loads((run / "arms/eah/arm.json").read_text())
    edit(sources)

    assert main([*new_flags, "--method", "eah", "--batch-size", "5"]) == 0

    info = json.loads((run / "arms/eah/arm.json").read_text())
    assert info["code"] != first["code"], "the code that answered"
    assert info["batch_size"] == 5


def test_other_settings_under_the_same_name_are_refused(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    published = methods.read_methods()
    assert main([*flags, "--method", "vcd"]) == 0
    changed = {**published, "vcd": {**published["vcd"], "alpha": 0.25}}
    monkeypatch.setattr(methods, "read_methods", lambda: changed)
    monkeypatch.setattr("eval.run.arms.read_methods", lambda: changed)
    capsys.readouterr()
    before = state_of(only_run(tmp_path / "runs") / "arms")

    assert main([*flags, "--method", "vcd"]) == 2

    assert "other code or settings (alpha 1.0 -> 0.25): pass --fresh" in capsys.readouterr().err
    assert state_of(only_run(tmp_path / "runs") / "arms") == before
    assert main([*flags, "--method", "vcd", "--fresh"]) == 0
    info = json.loads((only_run(tmp_path / "runs") / "arms/vcd/arm.json").read_text())
    assert info["settings"]["alpha"] == 0.25


def test_other_eah_settings_under_the_same_name_are_refused(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = only_run(tmp_path / "runs") / "arms/eah/arm.json"
    info = json.loads(path.read_text())
    info["eah"]["layers"] = [3]
    path.write_text(json.dumps(info))

    assert main([*flags, "--method", "baseline", "eah"]) == 2

    assert "arm eah of" in (error := capsys.readouterr().err)
    assert "(layers [3] -> [1])" in error


# Outputs that are inputs -----------------------------------------------------------------------


def test_json_holds_what_metrics_json_holds(flags: list[str], tmp_path: Path) -> None:
    output = tmp_path / "new/x.json"

    assert main([*flags, "--json", str(output)]) == 0
    assert main([*flags, "--json", str(output)]) == 0, "it may be written again"

    metrics = only_run(tmp_path / "runs") / "report/metrics.json"
    assert result_in(output) == json.loads(metrics.read_text())


@pytest.mark.parametrize("what", ["picture", "question file", "config", "answers", "run.json"])
def test_an_output_that_is_an_input_is_refused(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    scenes = Path(flags[flags.index("--data-path") + 1])
    run = only_run(tmp_path / "runs")
    config = tmp_path / "my.yaml"
    config.write_text("wide: false\n")
    target = {
        "picture": next(scenes.iterdir()),
        "question file": scenes.parent / "pope/coco_pope_random.json",
        "config": config,
        "answers": run / "arms/eah/answers.jsonl",
        "run.json": run / "run.json",
    }[what]
    before = target.read_bytes()

    assert main([*flags, "--config", str(config), "--json", str(target)]) == 2

    error = capsys.readouterr().err
    assert f"pope_eval: error: --json {target} is an input or a record of a run" in error
    assert target.read_bytes() == before


@pytest.mark.parametrize("arm", ["eah@layers=9", "eah@head=99", "eah@layers=0+9"])
def test_an_arm_that_the_model_cannot_run_is_refused_before_any_answer(
    arm: str, captions: ChairSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(captions.data_path)]

    assert chair_eval.main([*flags, "--output-dir", str(tmp_path / "runs"), "--method", "baseline",
                            arm]) == 2  # fmt: skip

    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.rglob("answers.jsonl"))


@pytest.fixture
def described(captions: ChairSettings, tmp_path: Path) -> tuple[list[str], Path]:
    """Return the flags of a finished run, and its folder."""
    flags = ["--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(captions.data_path),
             "--max-new-tokens", "4", "--output-dir", str(tmp_path / "runs")]  # fmt: skip
    assert chair_eval.main(flags) == 0
    (folder,) = (tmp_path / "runs/chair/tiny-llava").iterdir()
    return flags, folder


def test_answers_of_unknown_code_are_refused(
    described: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags, folder = described
    (folder / "arms/eah/arm.json").unlink()

    assert chair_eval.main(flags) == 2
    assert "arm eah of" in (error := capsys.readouterr().err)
    assert "(arm.json is missing): pass --fresh" in error
    assert chair_eval.main([*flags, "--fresh"]) == 0
    assert (folder / "arms/eah/arm.json").is_file()


@pytest.mark.parametrize("change", [{"question": "Where?"}, {"label": "no"}, {"image": "x.jpg"}])
def test_answers_to_other_questions_are_refused(
    described: tuple[list[str], Path], change: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags, folder = described
    path = folder / "arms/eah/answers.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | change) + "\n" + "".join(rest))

    assert chair_eval.main(flags) == 2

    assert "is recorded as " in capsys.readouterr().err


def test_a_missing_run_json_is_written_again(described: tuple[list[str], Path]) -> None:
    flags, folder = described
    before = json.loads((folder / "run.json").read_text())["settings"]
    (folder / "run.json").unlink()

    assert chair_eval.main(flags) == 0

    assert json.loads((folder / "run.json").read_text())["settings"] == before
