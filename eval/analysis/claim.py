"""The paper's claim: answers without hallucination go with denser vision sinks in shallow layers."""

from __future__ import annotations

from dataclasses import dataclass

from eval.stats.intervals import Interval


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
    """

    model: str
    what: str
    threshold: str
    pictures: int
    without: int
    hallucinating: int
    layers: tuple[LayerClaim, ...]

    def sentence(self) -> str:
        """Return what was found, in plain words, also if it is nothing."""
        raise NotImplementedError
