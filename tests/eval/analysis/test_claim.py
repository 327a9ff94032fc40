"""What is said of the paper's claim: planted differences, nulls, and what can't be tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from statistics import fmean

import numpy as np
import pytest

from eval.analysis.claim import Claim, LayerClaim, compare_densities, densities
from eval.analysis.labels import AnswerLabels
from eval.analysis.observed import Observed, ObservedLayer
from eval.errors import EvaluationError
from eval.stats.intervals import Array, Interval

TOKENS = 100
TEXTS = ("Is there a dog?", "Is there a cat?", "Is there a kite?")


def observed_of(sinks: Array) -> list[Observed]:
    """Return three prompts per picture; sinks of the densest head by picture and layer, (N, L).

    The densest head is another one in each layer, and a second threshold counts all tokens.
    """
    found = []
    for number, of_picture in enumerate(sinks.astype(int).tolist()):
        layers = []
        for layer, most in enumerate(of_picture):
            heads = [0, 0, 0]
            heads[layer % 3] = most
            densest = layer % 3 if most else None
            counts = (tuple(heads), (TOKENS,) * 3)
            layers.append(ObservedLayer(layer, counts, (0.1,) * 3, (densest, 0)))
        found += [Observed(f"{number}.jpg", text, TOKENS, tuple(layers)) for text in TEXTS]
    return found


def labels_of(wrong: Sequence[Sequence[bool]]) -> AnswerLabels:
    """Return labels of three prompts per picture."""
    found = {
        (f"{number}.jpg", text): bool(label)
        for number, of in enumerate(wrong)
        for text, label in zip(TEXTS, of, strict=True)
    }
    return AnswerLabels(found, "a wrong answer", left_out=2)


def claim_of(sinks: Array, wrong: Sequence[Sequence[bool]]) -> Claim:
    found = observed_of(sinks)
    return compare_densities(
        found, labels_of(wrong), model="toy", threshold="0.002 (mean attention)"
    )


def planted(direction: int, layers: int = 4, seed: int = 0) -> tuple[Array, list[list[bool]]]:
    """Return densities and labels of 60 pictures: where layer 1 is dense, answers are better."""
    rng = np.random.default_rng(seed)
    sinks = rng.integers(5, 60, (60, layers))
    chance = np.where(sinks[:, 1] > 30, 0.1, 0.7) if direction > 0 else sinks[:, 1] / 70
    return sinks, (rng.random((60, 3)) < chance[:, None]).tolist()


def test_the_density_is_that_of_the_densest_head_by_the_first_threshold() -> None:
    sinks = np.array([[3, 50], [0, 7]])

    found = densities(observed_of(sinks))

    assert found.tolist() == [[0.03, 0.5]] * 3 + [[0.0, 0.07]] * 3


def test_a_planted_difference_is_found_and_said() -> None:
    sinks, wrong = planted(direction=1)

    found = claim_of(sinks, wrong)

    assert [one.layer for one in found.found()] == [1]
    (layer,) = found.found()
    flat = [label for of in wrong for label in of]
    dense = np.repeat(sinks[:, 1] / TOKENS, 3).tolist()
    right = fmean(d for d, label in zip(dense, flat, strict=True) if not label)
    hallucinating = fmean(d for d, label in zip(dense, flat, strict=True) if label)
    assert layer.without.value == pytest.approx(right)
    assert layer.hallucinating.value == pytest.approx(hallucinating)
    assert layer.difference.value == pytest.approx(right - hallucinating)
    assert (found.pictures, found.without, found.hallucinating) == (60, 180 - sum(flat), sum(flat))
    assert found.left_out == 2
    low, high = 100 * layer.difference.low, 100 * layer.difference.high
    assert found.sentence() == (
        "toy: in layer 1 the densest head is denser in vision sinks where answers don't "
        f"hallucinate, by {100 * (right - hallucinating):.1f} % of the image tokens "
        f"(95 %: {low:.1f} to {high:.1f}; adjusted p {layer.p_holm:.2g}), as the paper claims for "
        "shallow layers. This is an association and doesn't show what causes it."
    )


def test_the_opposite_of_the_claim_is_said() -> None:
    found = claim_of(*planted(direction=-1))

    (layer,) = found.found()
    low, high = -100 * layer.difference.high, -100 * layer.difference.low
    assert 0 < low < high
    assert found.sentence().startswith(
        "toy: in layer 1 the densest head is less dense in vision sinks where answers don't "
        "hallucinate, by "
    )
    assert f"(95 %: {low:.1f} to {high:.1f}; adjusted p " in found.sentence()
    assert (
        "the opposite of what the paper claims for shallow layers. This is an" in found.sentence()
    )
    assert "as the paper claims" not in found.sentence()


def test_several_layers_in_both_directions_are_named() -> None:
    sinks, wrong = planted(direction=1, layers=9)
    sinks[:, [2, 3, 7]] = sinks[:, [1]]
    sinks[:, 6] = 70 - sinks[:, 1]

    sentence = claim_of(sinks, wrong).sentence()

    assert sentence.startswith("toy: in layers 1-3 and 7 the densest heads are denser in vision")
    assert " % of the image tokens at most, in layer 1 (95 %: " in sentence
    assert "; in layer 6 the densest head is less dense there, by " in sentence
    assert sentence.count(". ") == 1


def test_the_largest_difference_is_the_one_that_is_shown() -> None:
    nothing = Interval(0.4, nan, nan)
    differences = (Interval(-0.02, -0.03, -0.01), Interval(-0.2, -0.3, -0.1),
                   Interval(0.5, 0.4, 0.6))  # fmt: skip
    layers = [
        LayerClaim(at, nothing, nothing, difference, p_value=p, p_holm=p)
        for at, (difference, p) in enumerate(zip(differences, (0.01, 0.02, 0.05), strict=True))
    ]

    found = Claim("toy", "a wrong answer", "0.002", 80, 90, 10, tuple(layers))

    assert [one.layer for one in found.found()] == [0, 1], "0.05 is not below 0.05"
    assert (
        "in layers 0 and 1 the densest heads are less dense in vision sinks where answers don't "
        "hallucinate, by 20.0 % of the image tokens at most, in layer 1 (95 %: 10.0 to 30.0; "
        "adjusted p 0.02), the opposite"
    ) in found.sentence()


def test_notes_say_what_is_left_out_and_not_tested() -> None:
    sinks, wrong = planted(direction=1)
    found = claim_of(sinks, wrong)
    sinks[:, [0, 2, 3]] = TOKENS
    untested = claim_of(sinks[:40], wrong[:40])

    left_out = (
        "note: 2 prompt(s) of toy are left out, since their answers can't be read as right or wrong"
    )
    having = sum(map(any, wrong))
    assert found.pictures_of == (sum(not all(of) for of in wrong), having)
    assert found.notes() == [
        left_out,
        f"note: {having} picture(s) of toy have answers with a hallucination, fewer than 50: "
        "bootstrap intervals are too narrow for so few",
    ]
    assert untested.notes()[:2] == [
        left_out,
        "note: layer(s) 0, 2 and 3 of toy are not tested, since no exchange of pictures changes "
        "their difference",
    ]
    assert untested.notes()[2].startswith("note: 40 picture(s), fewer than 50")


def test_nothing_is_found_in_unrelated_answers_and_that_is_said() -> None:
    rng = np.random.default_rng(1)
    wrong = (rng.random((60, 3)) < 0.3).tolist()

    found = claim_of(planted(direction=1)[0], wrong)

    count = sum(map(sum, wrong))
    least = min(found.layers, key=lambda one: (one.p_holm, one.p_value))
    assert found.found() == []
    assert least.p_holm > 0.05
    assert found.sentence() == (
        f"toy: {180 - count} answers without and {count} with a hallucination (a wrong answer) "
        "show no difference in the densest head's density in any of the 4 layers where it varies "
        f"(smallest adjusted p {least.p_holm:.2g}, layer {least.layer}). These answers neither "
        "support nor refute the paper's claim."
    )


def test_a_layer_that_is_the_same_everywhere_is_not_tested() -> None:
    sinks, wrong = planted(direction=1)
    sinks[:, 2:] = [TOKENS, 0]

    found = claim_of(sinks, wrong)

    assert [isnan(one.p_holm) for one in found.layers] == [False, False, True, True]
    p_values = [one.p_value for one in found.layers[:2]]
    assert found.layers[1].p_holm == pytest.approx(2 * min(p_values))


@pytest.mark.parametrize(
    ("sinks", "reason"),
    [
        (TOKENS, "every image token is a sink of the densest head, in every layer and for every"),
        (0, "no head has a sink, in any layer or prompt (a lower threshold may find some)"),
        (40, "no pictures with equally many answers differ in both their answers and a density"),
    ],
)
def test_densities_that_do_not_vary_say_nothing(sinks: int, reason: str) -> None:
    wrong = np.arange(30).reshape(10, 3) % 4 == 0

    found = claim_of(np.full((10, 2), sinks), wrong.tolist())

    assert all(isnan(one.p_value) for one in found.layers)
    assert reason in found.sentence()
    assert found.sentence().endswith(", so nothing can be said of the paper's claim.")


def test_answers_that_are_all_alike_say_nothing() -> None:
    sinks = planted(direction=1)[0][:10]

    none, every = (claim_of(sinks, [[label] * 3] * 10) for label in (False, True))

    assert "none of 30 answers hallucinates (a wrong answer), so nothing" in none.sentence()
    assert "all 30 answers hallucinate (a wrong answer), so nothing" in every.sentence()
    assert isnan(none.layers[0].hallucinating.value)


def test_prompts_without_a_label_are_left_out_and_others_count_once() -> None:
    sinks, wrong = planted(direction=1)
    prompts = observed_of(sinks)
    strange = replace(prompts[0], text="Something else?")
    foreign = replace(prompts[1], image="other.jpg")

    found = compare_densities(
        [strange, *prompts, foreign, *prompts[:5]], labels_of(wrong), model="toy", threshold="0.002"
    )

    assert replace(found, threshold="0.002 (mean attention)") == claim_of(sinks, wrong)
    with pytest.raises(EvaluationError, match="none of the 2 observed prompts has an answer"):
        compare_densities([strange, foreign], labels_of(wrong), model="toy", threshold="0.002")


def test_shuffled_labels_say_that_nothing_was_found() -> None:
    """The sentence under a null: as often as the test promises, it names no layer."""
    sinks, wrong = planted(direction=1)
    rng = np.random.default_rng(8)

    said = [
        claim_of(sinks, [wrong[at] for at in rng.permutation(60)]).sentence() for _ in range(20)
    ]

    assert sum("show no difference" in sentence for sentence in said) >= 17


def test_one_picture_has_numbers_without_intervals() -> None:
    found = claim_of(np.array([[10, 20]]), [[True, False, True]])

    assert found.layers[0].without.value == 0.1
    assert isnan(found.layers[0].difference.low)
    assert isnan(found.layers[0].p_value)
    assert "no pictures with equally many answers differ" in found.sentence()
