"""The paper's claim: answers without hallucination go with dense vision sinks in shallow layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Final

import numpy as np

from eval.analysis.wording import count_noun, join_names
from eval.errors import EvaluationError
from eval.stats.association import associations
from eval.stats.intervals import FEW, Array, Interval, few_pictures_note
from eval.stats.permutation import holm

if TYPE_CHECKING:
    from eval.analysis.labels import AnswerLabels
    from eval.analysis.observed import Observed

LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class LayerClaim:
    """One layer. Density is that of its densest head, a share of the image tokens.

    Attributes:
        layer: Layer index, from 0.
        without: Mean density over answers without hallucination.
        hallucinating: Mean density over answers with one.
        difference: Without minus with: above 0 is what the paper claims.
        p_value: Of a permutation test over pictures; nan where densities or answers don't vary.
        p_holm: Adjusted for the layers that are tested.
    """

    layer: int
    without: Interval
    hallucinating: Interval
    difference: Interval
    p_value: float
    p_holm: float

    @property
    def is_found(self) -> bool:
        """Whether the densities differ by more than chance; not if p is nan."""
        return self.p_holm < LEVEL


@dataclass(frozen=True, slots=True)
class Claim:
    """What one model's answers show.

    Attributes:
        model: The model, as tables call it.
        what: What counts as a hallucination, in words.
        threshold: With its unit, in words.
        pictures: Number of pictures.
        without: Number of answers without hallucination.
        hallucinating: Number of answers with one.
        layers: By layer.
        left_out: Number of prompts whose answers are neither.
        pictures_of: Number of pictures that have answers without hallucination, and with one.
    """

    model: str
    what: str
    threshold: str
    pictures: int
    without: int
    hallucinating: int
    layers: tuple[LayerClaim, ...]
    left_out: int = 0
    pictures_of: tuple[int, int] = (0, 0)

    def found(self) -> list[LayerClaim]:
        """Return the layers whose densities differ, by their adjusted p-values."""
        return [one for one in self.layers if one.is_found]

    def sentence(self) -> str:
        """Return the finding in plain words, also if no layer differs."""
        if reason := self._untested():
            return f"{self.model}: {reason}, so nothing can be said of the paper's claim."
        denser = [one for one in self.found() if one.difference.value > 0]
        sparser = [one for one in self.found() if one.difference.value < 0]
        if not denser and not sparser:
            return self._nothing_found()
        where = "in vision sinks where answers don't hallucinate"
        agrees = (
            f"{_describe_difference(denser, f'denser {where}')}, as the paper claims for "
            "shallow layers"
        )
        where = "there" if denser else where
        opposes = (
            f"{_describe_difference(sparser, f'less dense {where}')}, the opposite of what "
            "the paper claims for shallow layers"
        )
        parts = ([agrees] if denser else []) + ([opposes] if sparser else [])
        return (
            f"{self.model}: {'; '.join(parts)}. This is an association and doesn't show what "
            "causes it."
        )

    def notes(self) -> list[str]:
        """Return caveats to the numbers."""
        notes = []
        if self.left_out:
            notes.append(
                f"note: {self.left_out} prompt(s) of {self.model} are left out, since their "
                "answers can't be read as right or wrong"
            )
        same = [one.layer for one in self.layers if isnan(one.p_holm)]
        if same and len(same) < len(self.layers):
            notes.append(
                f"note: layer(s) {_ranges(same)} of {self.model} are not tested, since no exchange "
                "of pictures changes their difference"
            )
        fewest = min(self.pictures_of)
        if self.pictures >= FEW > fewest > 0:
            kind = "with a" if fewest == self.pictures_of[1] else "without"
            notes.append(
                f"note: {fewest} picture(s) of {self.model} have answers {kind} hallucination, "
                f"fewer than {FEW}: bootstrap intervals are too narrow for so few"
            )
        return notes + few_pictures_note(self.pictures)

    def _untested(self) -> str:
        """Return why no layer is tested; empty if one is."""
        if not self.hallucinating:
            return f"none of {count_noun(self.without, 'answer')} hallucinates ({self.what})"
        if not self.without:
            return f"{_all_hallucinate(self.hallucinating)} ({self.what})"
        if not all(isnan(one.p_holm) for one in self.layers):
            return ""
        means = [end.value for one in self.layers for end in (one.without, one.hallucinating)]
        if all(mean > 1 - 1e-9 for mean in means):
            return (
                f"at the threshold {self.threshold} every image token is a sink of the densest "
                "head, in every layer and for every prompt (a higher threshold may separate heads)"
            )
        if not any(means):
            return (
                f"at the threshold {self.threshold} no head has a sink, in any layer or prompt (a "
                "lower threshold may find some)"
            )
        return "no pictures with equally many answers differ in both their answers and a density"

    def _nothing_found(self) -> str:
        """Return that no layer differs."""
        tested = [one for one in self.layers if not isnan(one.p_holm)]
        least = min(tested, key=lambda one: (one.p_holm, one.p_value))
        layers = "the one layer" if len(tested) == 1 else f"any of the {len(tested)} layers"
        return (
            f"{self.model}: {count_noun(self.without, 'answer')} without and {self.hallucinating} "
            f"with a hallucination ({self.what}) show no difference in the densest head's density "
            f"in {layers} where it varies (smallest adjusted p {_p(least.p_holm)}, layer "
            f"{least.layer}). These answers neither support nor refute the paper's claim."
        )


def compare_densities(
    observed: Sequence[Observed], labels: AnswerLabels, *, model: str, threshold: str
) -> Claim:
    """Compare the densest heads of prompts whose answers hallucinate with those of the others.

    Args:
        observed: Prompts; those without a label are left out.
        labels: Which prompts' answers hallucinate.
        model: The model, as tables call it.
        threshold: The first threshold of `observed`, with its unit, in words.
    Raises:
        EvaluationError: If no observed prompt has a label.
    """
    # Parts of a benchmark may ask the same: a prompt counts once.
    known = list({one.key: one for one in observed if one.key in labels.hallucinates}.values())
    if not known:
        raise EvaluationError(
            f"none of the {len(observed)} observed prompts has an answer that is labelled "
            f"({labels.what}); answer the same questions about the same pictures"
        )
    hallucinates = np.array([labels.hallucinates[one.key] for one in known])
    _, picture = np.unique([one.image for one in known], return_inverse=True)
    found = associations(densities(known), hallucinates, picture)
    adjusted = holm([one.p_value for one in found])
    layers = tuple(
        LayerClaim(layer.layer, one.without, one.labelled, one.difference, one.p_value, p_holm)
        for layer, one, p_holm in zip(known[0].layers, found, adjusted, strict=True)
    )
    wrong = int(hallucinates.sum())
    return Claim(
        model,
        labels.what,
        threshold,
        pictures=int(picture.max()) + 1,
        without=len(known) - wrong,
        hallucinating=wrong,
        layers=layers,
        left_out=labels.left_out,
        pictures_of=(len({*picture[~hallucinates]}), len({*picture[hallucinates]})),
    )


def densities(observed: Sequence[Observed]) -> Array:
    """Return the density of each layer's densest head by the first threshold, (N, L)."""
    return np.array(
        [[max(layer.sinks[0]) / one.image_tokens for layer in one.layers] for one in observed]
    )


def _describe_difference(layers: Sequence[LayerClaim], how: str) -> str:
    """Return how layers' densest heads differ, with the largest difference and its interval."""
    if not layers:
        return ""
    names = _ranges([one.layer for one in layers])
    who = f"layer {names} the densest head is"
    if len(layers) > 1:
        who = f"layers {names} the densest heads are"
    most = max(layers, key=lambda one: abs(one.difference.value))
    sign = 1 if most.difference.value > 0 else -1
    low, high = sorted(100 * sign * end for end in (most.difference.low, most.difference.high))
    interval = "" if isnan(low) else f"95 %: {low + 0.0:.1f} to {high + 0.0:.1f}; "
    at_most = f" at most, in layer {most.layer}" if len(layers) > 1 else ""
    return (
        f"in {who} {how}, by {100 * abs(most.difference.value):.1f} % of the image tokens{at_most} "
        f"({interval}adjusted p {_p(most.p_holm)})"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return layers in words: 1, 2 and 5-8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
    return join_names(parts)


def _all_hallucinate(answers: int) -> str:
    return "the one answer hallucinates" if answers == 1 else f"all {answers} answers hallucinate"


def _p(value: float) -> str:
    return f"{value:.2g}" if value < 0.995 else "1"
