"""p(yes) in runs: recorded with every answer of a yes/no task, or the answer by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from eval import runs
from eval.errors import EvaluationError
from eval.pope_eval import main
from eval.run.plan import Prompt
from eval.run.recorded import find_run
from eval.run.runner import likelier_word
from eval.tasks.yes_no.parsers import PARSERS
from eval.tasks.yes_no.settings import YesNoSettings
from models.decoding.vcd import Vcd
from models.decoding.yes_no import YesNoIds, yes_no_ids
from tests.eval.small_runs import lines_of, only_run, pope_flags, questions

QUESTIONS, PICTURES = 24, 4
Values = dict[tuple[str, int], float]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pope_flags(tmp_path_factory.mktemp("scenes"), PICTURES)


@pytest.fixture(scope="module")
def generated(scenes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that generates answers; copy it before writing."""
    root = tmp_path_factory.mktemp("generated")
    assert main([*scenes, "--method", "baseline", "eah", "--output-dir", str(root)]) == 0
    return only_run(root)


@pytest.fixture
def flags(scenes: list[str], tmp_path: Path) -> list[str]:
    return [*scenes, "--output-dir", str(tmp_path)]


def values(run: Path, arm: str) -> Values:
    return {(line["part"], line["id"]): line["p_yes"] for line in lines_of(run, arm)}


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """Count the forward passes of the language model in each call of the model."""
    passes: list[int] = []
    answer_batch = models.VLM.answer_batch

    def counted(self: models.VLM, features: torch.Tensor, *rest: Any) -> Any:
        at = len(passes)
        passes.append(0)

        def one(*_: Any) -> None:
            passes[at] += 1

        hook = self.language_model.register_forward_pre_hook(one)
        try:
            return answer_batch(self, features, *rest)
        finally:
            hook.remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.VLM, "answer_batch", counted)
        yield passes


# Recorded --------------------------------------------------------------------------------------


def test_every_answer_has_it_and_arm_json_says_of_which_tokens(generated: Path) -> None:
    for arm in ("baseline", "eah"):
        found = values(generated, arm)
        assert len(found) == QUESTIONS
        assert len(set(found.values())) == QUESTIONS, "rows can be told apart"
        info = json.loads((generated / f"arms/{arm}/arm.json").read_text())
        ids = yes_no_ids(models.load("tiny-llava", device="cpu").tokenizer)
        assert info["yes_no"] == ids.as_record()
    assert values(generated, "baseline") != values(generated, "eah")
    assert "p_yes" in json.loads((generated / "report/metrics.json").read_text())


@pytest.mark.parametrize(
    "extra", [["--batch-size", "48"], ["--batch-size", "5", "--no-prefix-reuse"]], ids=" ".join
)
def test_questions_that_parts_share_have_one_and_each_its_own(
    flags: list[str], generated: Path, tmp_path: Path, extra: list[str]
) -> None:
    """The rows of a batch are fewer than its answers, and two beams of each."""
    assert main([*flags, "--pope-type", "all", "--beam", "2", *extra]) == 0

    for arm in ("baseline", "eah"):
        lines = lines_of(only_run(tmp_path), arm)
        asked: dict[tuple[str, str], set[float]] = {}
        for line in lines:
            asked.setdefault((line["image"], line["question"]), set()).add(line["p_yes"])
        if "48" in extra:
            assert len(asked) < len(lines)
            assert all(len(of) == 1 for of in asked.values())
        greedy = values(generated, arm)
        beams = {key: p for key, p in values(only_run(tmp_path), arm).items() if key in greedy}
        assert beams == pytest.approx(greedy, abs=1e-5), "the first step is the same"


def test_runs_and_rescore_print_it(
    generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.json"
    for action in ("show", "rescore"):
        assert runs.main([action, str(generated), "--json", str(file)]) == 0
        assert "| arm, by p(yes) " in capsys.readouterr().out
        found = json.loads(file.read_text())["p_yes"]
        assert found == json.loads((generated / "report/metrics.json").read_text())["p_yes"]
    assert runs.main(["compare", str(generated), str(generated)]) == 0
    assert "| B:baseline - A:baseline | " in capsys.readouterr().out.split("| arm, by p(yes) ")[1]


def test_answers_of_an_older_version_have_none_and_are_no_error(
    generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / generated.name
    for arm in ("baseline", "eah"):
        (run / "arms" / arm).mkdir(parents=True)
        lines = lines_of(generated, arm)
        for line in lines[: None if arm == "baseline" else 2]:
            del line["p_yes"]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run / f"arms/{arm}/answers.jsonl").write_text(text)
        (run / f"arms/{arm}/arm.json").write_bytes(
            (generated / f"arms/{arm}/arm.json").read_bytes()
        )
    (run / "run.json").write_bytes((generated / "run.json").read_bytes())

    assert runs.main(["rescore", str(run)]) == 0

    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"baseline: no numbers, since {QUESTIONS} of {QUESTIONS} answers have no p(yes)" in printed
    )
    assert f"eah: no numbers, since 2 of {QUESTIONS} answers have no p(yes)" in printed


def test_a_vocabulary_without_the_words_is_said_or_refused(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("answering", "runner"):
        nothing = YesNoIds({7: "yes"}, {})
        monkeypatch.setattr(f"eval.run.{module}.yes_no_ids", lambda _, ids=nothing: ids)

    assert main([*flags, "--scoring", "likelihood"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no token that is 'no', which --scoring likelihood compares; use --scoring" in error
    assert not list(tmp_path.rglob("answers.jsonl"))

    assert main([*flags, "--method", "baseline"]) == 0
    captured = capsys.readouterr()
    assert "note: the model's vocabulary has no token that is 'no', so no prob" in captured.err
    assert "p(yes)" not in captured.out


# Likelihood ------------------------------------------------------------------------------------


def test_likelihood_asks_one_forward_pass_per_question_and_says_the_likelier_word(
    flags: list[str], generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    likelihood = ["--scoring", "likelihood", "--batch-size", "1", "--no-prefix-reuse"]
    with counted_passes() as passes:
        assert main([*flags, *likelihood, "--method", "baseline", "eah", "dola"]) == 0

    assert passes == [1] * (3 * QUESTIONS)
    run = only_run(tmp_path)
    for arm in ("baseline", "eah"):
        # The first step of generation, whatever is generated behind it.
        assert values(run, arm) == pytest.approx(values(generated, arm), abs=1e-5)
    for arm in ("baseline", "eah", "dola"):
        for line in lines_of(run, arm):
            assert line["answer"] == ("Yes" if line["p_yes"] >= 0.5 else "No")
            assert line["finished"]
    settings = find_run(str(run), tmp_path).settings
    assert (settings["scoring"], settings["decoding"]["max_new_tokens"]) == ("likelihood", 1)
    assert "likelihood of the first token\n" in capsys.readouterr().out


def test_with_shared_prefixes_a_question_takes_one_pass_besides_its_prefixes(
    flags: list[str], tmp_path: Path
) -> None:
    with counted_passes() as passes:
        likelihood = ["--scoring", "likelihood", "--batch-size", "1", "--method", "baseline"]
        assert main([*flags, *likelihood]) == 0

    assert sorted(passes) == [1] * (QUESTIONS - PICTURES) + [2] * PICTURES
    costs = (only_run(tmp_path) / "arms/baseline/costs.jsonl").read_text().splitlines()
    assert [json.loads(cost)["forwards"] for cost in costs] == [1] * QUESTIONS


def test_likelihood_is_another_run_and_generation_keeps_its_folder(
    flags: list[str], generated: Path, tmp_path: Path
) -> None:
    assert main([*flags, "--scoring", "likelihood", "--method", "baseline"]) == 0
    assert only_run(tmp_path).name != generated.name
    assert "-likelihood-" in only_run(tmp_path).name
    assert "scoring" not in find_run(str(generated), tmp_path).settings

    again = [*flags, "--scoring", "generate", "--method", "baseline"]
    assert main(again) == 0
    assert (tmp_path / "pope/tiny-llava" / generated.name).is_dir()


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--sample"], "likelihood can't be combined with --sample: nothing is sampled; leave"),
        (["--beam", "5"], "can't be combined with --beam: beams do not change the first token's"),
        (
            ["--max-new-tokens", "3"],
            "with --max-new-tokens: nothing is generated",
        ),
        (["--parser", "strict"], "can't be combined with --parser: there is no text to parse"),
        (["--method", "baseline", "opera"], "method opera: --scoring likelihood needs a method"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_does_not_go_with_likelihood_is_refused_in_one_sentence(
    flags: list[str], capsys: pytest.CaptureFixture[str], extra: list[str], sentence: str
) -> None:
    assert main([*flags, "--scoring", "likelihood", *extra]) == 2

    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert sentence in error


def test_a_method_without_scores_of_the_first_token_is_refused(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Vcd, "scores_first_token", False)

    assert main([*flags, "--scoring", "likelihood", "--method", "baseline", "vcd+eah"]) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert "method vcd+eah: --scoring likelihood needs a method that scores the first" in error
    assert "VCD does not; leave the arm out, or use --scoring generate" in error


def test_an_unknown_scoring_is_refused() -> None:
    with pytest.raises(EvaluationError, match="scoring 'likelihod' is unknown: did you mean"):
        YesNoSettings(scoring="likelihod")
    assert replace(YesNoSettings(), scoring="likelihood").scoring == "likelihood"


@pytest.mark.parametrize(
    ("p_yes", "word"), [(0.5, "yes"), (1.0, "yes"), (0.4999, "no"), (0.0, "no")]
)
def test_the_likelier_word_is_the_answer(p_yes: float, word: str) -> None:
    (item, *_) = questions()

    said = likelier_word(p_yes, "eah", Prompt(item, "Is it?"))

    assert {name: parse(said) for name, parse in PARSERS.items()} == dict.fromkeys(PARSERS, word)


def test_where_neither_word_is_possible_likelihood_is_refused() -> None:
    (item, *_) = questions()

    with pytest.raises(EvaluationError, match=r"method vcd: .*question \('random', 0\) can be nei"):
        likelier_word(None, "vcd", Prompt(item, "Is it?"))


def test_scoring_does_not_go_with_saved_answers(
    flags: list[str], generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = generated / "arms/baseline/answers.jsonl"

    assert main([*flags, "--answers", str(answers), "--scoring", "likelihood"]) == 2

    assert (
        "--scoring likelihood can't be combined with --answers: the answers already exist"
        in capsys.readouterr().err
    )
