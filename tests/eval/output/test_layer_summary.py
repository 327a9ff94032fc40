"""What EAH did layer by layer, against hand-counted numbers and a plain loop."""

from __future__ import annotations

import random

import pytest

from eval.files.answers import Answer, Finding, Item, answer_of
from eval.output.layer_summary import HEADER, LayerSummary, layer_summaries


def answer(number: int, *findings: Finding) -> Answer:
    return Answer(Item(number, "a.jpg", "?"), "yes", True, findings)


def test_numbers_counted_by_hand() -> None:
    answers = [
        answer(1, Finding(2, 5, 30, 64, False), Finding(0, None, 7, 64, False)),
        answer(2, Finding(2, 3, 10, 64, True), Finding(0, 1, 8, 64, False)),
        answer(3, Finding(2, 3, 5, 16, True), Finding(0, None, 9, 16, False)),
    ]

    first, second = layer_summaries(answers)

    assert first == LayerSummary(0, 3, {"none": 2, "1": 1}, 8.0, 48.0, 0)
    assert second == LayerSummary(2, 3, {"3": 2, "5": 1}, 15.0, 48.0, 2)
    assert first.cells() == ["0", "3", "none: 67 %, 1: 33 %", "8.0 of 48", "0"]
    assert second.cells() == ["2", "3", "3: 67 %, 5: 33 %", "15.0 of 48", "2"]
    assert second.as_dict() == {
        "layer": 2,
        "prompts": 3,
        "heads": {"3": 2, "5": 1},
        "mean_sinks": 15.0,
        "mean_image_tokens": 48.0,
        "saturated": 2,
    }


@pytest.mark.parametrize(
    ("heads", "cell"),
    [
        ([4], "4: 100 %"),
        ([4, 4, 4, 2, 2, 1], "4: 50 %, 2: 33 %, 1: 17 %"),
        ([4, 4, 4, 2, 2, 1, 0], "4: 43 %, 2: 29 %, 1: 14 %, 1 more"),
        ([0, 1, 2, 3, 4, 5], "0: 17 %, 1: 17 %, 2: 17 %, 3 more"),
        ([1, None, None, 0, 0, 0], "0: 50 %, none: 33 %, 1: 17 %"),
    ],
)
def test_the_three_heads_that_were_chosen_most_are_shown(
    heads: list[int | None], cell: str
) -> None:
    answers = [answer(k, Finding(1, head, 1, 4, False)) for k, head in enumerate(heads)]

    (summary,) = layer_summaries(answers)

    assert summary.cells()[HEADER.index("chosen heads")] == cell
    assert sum(summary.heads.values()) == len(heads)


def test_any_answers_give_what_a_plain_loop_gives() -> None:
    rng = random.Random(3)
    layers = (0, 1, 31)
    answers = [
        answer(
            number,
            *(
                Finding(
                    layer,
                    rng.choice([None, 0, 7, 31]),
                    rng.randrange(577),
                    rng.choice([64, 576]),
                    rng.random() < 0.3,
                )
                for layer in layers
            ),
        )
        for number in range(57)
    ]

    for summary, layer in zip(layer_summaries(answers), layers, strict=True):
        prompts = sinks = tokens = saturated = 0
        heads: dict[str, int] = {}
        for one in answers:
            for found in one.findings:
                if found.layer != layer:
                    continue
                prompts += 1
                sinks += found.sinks
                tokens += found.image_tokens
                saturated += found.saturated
                name = "none" if found.head is None else f"{found.head}"
                heads[name] = heads.get(name, 0) + 1
        assert (summary.layer, summary.prompts, summary.saturated) == (layer, prompts, saturated)
        assert summary.heads == heads
        assert list(summary.heads.values()) == sorted(heads.values(), reverse=True)
        assert summary.mean_sinks == pytest.approx(sinks / prompts, rel=1e-12)
        assert summary.mean_image_tokens == pytest.approx(tokens / prompts, rel=1e-12)


def test_recorded_answers_give_the_same_summary() -> None:
    answers = [answer(k, Finding(1, k % 2 or None, k, 64, k == 0)) for k in range(5)]

    read = [answer_of(one.as_record(), "here") for one in answers]

    assert layer_summaries(read) == layer_summaries(answers)


def test_answers_without_findings_have_no_layers() -> None:
    assert layer_summaries([answer(1), answer(2)]) == []
    mixed = [answer(1), answer(2, Finding(1, 3, 9, 64, False))]
    assert [(one.layer, one.prompts) for one in layer_summaries(mixed)] == [(1, 1)]
