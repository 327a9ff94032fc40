"""What makes a run fast changes no answer: shared prefixes, batches, parts of batches."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import models
from eval.pope_eval import main
from eval.run import plan, runner
from eval.run.costs import BatchCost
from eval.run.recorded import RecordedRun, read_run
from models.decoding.steps.steps import DecodeSteps
from models.generation import Answer
from models.prefix_cache import MAX_BYTES, CachedPrefix, PrefixCache
from models.prompts import IMAGE
from scripts.scenes.make import write_scenes

QUESTIONS = 120
Answers = dict[tuple[Any, ...], tuple[Any, ...]]
Costs = dict[str, list[BatchCost]]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=24, seed=2014)
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--pope-type", "popular", "--limit",
        str(QUESTIONS), "--data-path", str(folder / "val2014"), "--pope-path",
        str(folder / "pope"), "--build-from", str(folder / "annotations/instances_val2014.json"),
    ]  # fmt: skip


def run(flags: list[str], folder: Path, *extra: str) -> tuple[Answers, Costs]:
    """Return what was answered, with EAH's heads and counts, and what it cost, by arm."""
    assert main([*flags, *extra, "--output-dir", str(folder)]) == 0
    (found,) = (folder / "pope/tiny-llava").iterdir()
    recorded = read_run(found)
    return answers_in(recorded), {name: arm.costs for name, arm in recorded.arms.items()}


class Near(float):
    """A probability; its last digits depend on which prompts are computed together."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) < 1e-5

    __hash__ = float.__hash__


def answers_in(recorded: RecordedRun) -> Answers:
    return {
        (name, answer.item.key): (
            (answer.text, Near(answer.p_yes)),
            answer.finished,
            answer.findings,
        )
        for name, arm in recorded.arms.items()
        for answer in arm.answers
    }


@pytest.fixture(scope="module")
def one_by_one(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("one")
    answers, spent = run(flags, folder, "--no-prefix-reuse", "--batch-size", "1")
    assert len(answers) == 2 * QUESTIONS
    assert len({said[1] for said, _, _ in answers.values()}) > QUESTIONS, "rows can be told apart"
    assert all(cost.reused == 0 for batches in spent.values() for cost in batches)
    return answers


@pytest.mark.parametrize(
    "extra",
    [
        ["--batch-size", "16"],
        ["--batch-size", "7"],
        ["--batch-size", "16", "--no-prefix-reuse"],
        ["--batch-size", "auto"],
        ["--batch-size", "auto", "--no-prefix-reuse", "--num-workers", "0"],
    ],
    ids=" ".join,
)
def test_answers_heads_and_counts_are_those_of_one_prompt_at_a_time(
    flags: list[str], one_by_one: Answers, tmp_path: Path, extra: list[str]
) -> None:
    answers, spent = run(flags, tmp_path, *extra)

    assert answers == one_by_one
    reused = {arm: sum(cost.reused for cost in batches) for arm, batches in spent.items()}
    if "--no-prefix-reuse" in extra:
        assert reused == {"baseline": 0, "eah": 0}
    else:
        assert reused["baseline"] > QUESTIONS / 2
        assert 0 < reused["eah"] <= reused["baseline"]


@pytest.mark.parametrize("extra", [[], ["--no-prefix-reuse"]], ids=["shared", "whole"])
def test_answers_by_decode_steps_are_those_of_one_prompt_at_a_time(
    flags: list[str],
    one_by_one: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: list[str],
) -> None:
    made: list[DecodeSteps] = []

    def uncaptured(vlm: models.VLM, *_: Any, **__: Any) -> DecodeSteps:
        made.append(DecodeSteps(vlm.language_model, captures=False, is_required=True))
        return made[-1]

    monkeypatch.setattr(runner, "decode_steps", uncaptured)

    answers, spent = run(flags, tmp_path, "--batch-size", "16", *extra)
    assert answers == one_by_one
    (steps,) = made
    assert steps.taken > QUESTIONS / 16

    monkeypatch.undo()
    plain, expected = run(flags, tmp_path / "plain", "--batch-size", "16", *extra)
    assert plain == one_by_one
    for arm, batches in expected.items():
        assert [c.forwards for c in spent[arm]] == [c.forwards for c in batches], arm


def test_buffers_of_steps_go_before_a_batch_is_refused(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [*flags, "--limit", "24", "--batch-size", "8"]
    expected, _ = run(few, tmp_path / "plain")
    made: list[DecodeSteps] = []
    answer_batch = models.VLM.answer_batch

    def uncaptured(vlm: models.VLM, *_: Any, **__: Any) -> DecodeSteps:
        made.append(DecodeSteps(vlm.language_model, captures=False))
        return made[-1]

    def full(self: models.VLM, *rest: Any) -> list[Answer]:
        if made[0]._kept:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return answer_batch(self, *rest)

    monkeypatch.setattr(runner, "decode_steps", uncaptured)
    monkeypatch.setattr(models.VLM, "answer_batch", full)

    answers, _ = run(few, tmp_path / "full")

    assert answers == expected
    assert made[0].note is not None
    assert "do not fit into memory together with the batches" in capsys.readouterr().err


@pytest.mark.parametrize("prefixes", [0, 1, 3])
def test_prefixes_of_all_arms_together_keep_to_their_bytes(
    flags: list[str],
    one_by_one: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefixes: int,
) -> None:
    seen: list[tuple[int, int, set[str]]] = []
    evict = PrefixCache.evict

    def spied(self: PrefixCache, needed: Collection[CachedPrefix] = ()) -> None:
        evict(self, needed)
        if not needed:  # a batch has ended
            arms = {str(prefix.picture[0]) for prefix in self.kept}  # type: ignore[index]
            seen.append((sum(prefix.nbytes for prefix in self.kept), self.max_bytes, arms))

    one = prefix_size(models.load("tiny-llava", device="cpu"))
    monkeypatch.setattr(PrefixCache, "evict", spied)
    monkeypatch.setattr(runner, "prefix_bytes", lambda _: int(1.1 * prefixes * one))

    answers, spent = run(flags, tmp_path, "--batch-size", "7")

    assert answers == one_by_one
    assert len(seen) == sum(map(len, spent.values()))
    assert all(kept <= most == int(1.1 * prefixes * one) for kept, most, _ in seen)
    assert max(kept for kept, _, _ in seen) >= prefixes * one
    assert any(len(arms) == 2 for *_, arms in seen) == (prefixes == 3)
    assert sum(cost.reused for cost in spent["baseline"]) > QUESTIONS / 2


def prefix_size(vlm: models.VLM) -> int:
    """Return the bytes of keys and values of a prefix."""
    config = vlm.language_model.config.get_text_config()
    length = vlm.prompt_ids("").index(IMAGE) + vlm.num_image_tokens
    heads = config.num_key_value_heads / config.num_attention_heads
    return int(2 * 4 * config.num_hidden_layers * length * config.hidden_size * heads)


def test_the_share_of_prefixes_is_free_beside_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    for free, expected in ((8 << 20, 1 << 20), (1 << 40, MAX_BYTES)):
        memory = SimpleNamespace(available=free)
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
        assert plan.prefix_bytes(vlm) == expected
    assert max(plan.GPU_SHARE, plan.CPU_SHARE) + plan.PREFIX_SHARE < 1


@pytest.fixture(scope="module")
def beams_alone(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Return what two beams answer when each prompt is asked alone."""
    alone = ["--no-prefix-reuse", "--batch-size", "1"]
    answers, _ = run(flags, tmp_path_factory.mktemp("beams"), *TWO_BEAMS, *alone)
    heads = [found[0].head for _, _, found in answers.values()]
    # Neighbours differ, so that the row of another prompt, or of another beam, would be seen.
    assert len(set(heads)) > 2
    return answers


TWO_BEAMS = ["--pope-type", "all", "--limit", "16", "--beam", "2", "--method", "eah"]


@pytest.mark.parametrize(
    "extra",
    [
        ["--batch-size", "48"],
        ["--batch-size", "5"],
        ["--batch-size", "9", "--no-prefix-reuse"],
    ],
    ids=" ".join,
)
def test_heads_recorded_with_beams_are_those_of_each_prompt_alone(
    flags: list[str], beams_alone: Answers, tmp_path: Path, extra: list[str]
) -> None:
    """The types share questions, so that a batch has fewer rows than answers."""
    answers, spent = run(flags, tmp_path, *TWO_BEAMS, *extra)

    assert {key: found for key, (_, _, found) in answers.items()} == {
        key: found for key, (_, _, found) in beams_alone.items()
    }
    assert answers == beams_alone
    if "--batch-size 48" in " ".join(extra):
        assert sum(cost.prompts for cost in spent["eah"]) < len(answers)


def test_a_batch_that_does_not_fit_is_cut_and_nothing_is_lost(
    flags: list[str],
    one_by_one: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    answer_batch = models.VLM.answer_batch

    def small_memory(self: models.VLM, features: torch.Tensor, *rest: Any) -> list[Answer]:
        sizes.append(len(features))
        if len(features) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return answer_batch(self, features, *rest)

    monkeypatch.setattr(models.VLM, "answer_batch", small_memory)

    answers, _ = run(flags, tmp_path, "--batch-size", "auto")

    assert answers == one_by_one
    assert max(sizes) > 5
    assert sum(size > 5 for size in sizes) < 6, "what did not fit is tried again and again"


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ("4", "4 prompts at a time do not fit into memory; pass a smaller --batch-size, or"),
        ("1", "a single prompt does not fit into memory; choose a smaller --dtype"),
        ("auto", "a single prompt does not fit into memory; choose a smaller --dtype"),
    ],
)
def test_too_little_memory_is_one_sentence(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    size: str,
    sentence: str,
) -> None:
    def no_memory(*_: Any) -> list[Answer]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(models.VLM, "answer_batch", no_memory)

    assert main([*flags, "--batch-size", size, "--output-dir", str(tmp_path)]) == 2

    assert sentence in capsys.readouterr().err


def test_other_errors_of_a_model_are_not_taken_for_too_little_memory(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: Any) -> list[Answer]:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(models.VLM, "answer_batch", broken)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main([*flags, "--batch-size", "auto", "--output-dir", str(tmp_path)]) == 1

    assert "a bug in EAH, please report it (RuntimeError: shapes" in capsys.readouterr().err
    (details,) = tmp_path.glob("eah-bug-*.txt")
    assert "in broken" in details.read_text()
