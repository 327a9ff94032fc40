"""OPERA's settings, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class OperaSettings:
    """Settings of OPERA, named as in its commands.

    Attributes:
        scale_factor: Factor on the local attention before the products.
        threshold: Steps that must attend to one location before OPERA rolls back to it.
        num_attn_candidates: Candidate tokens per beam, and how often a position may be chosen
            again.
        penalty_weights: Weight of the penalty against the logits.
        parity: Compute as the authors' fork of transformers 4.29.2: column scores in float16, and
            the prompt's ids counted in the length of an answer.
    """

    scale_factor: float = 50.0
    threshold: int = 15
    num_attn_candidates: int = 5
    penalty_weights: float = 1.0
    parity: bool = False

    def __post_init__(self) -> None:
        """Check the numbers once."""
        if not self.scale_factor > 0:
            raise ValueError(f"scale_factor={self.scale_factor}, but it must be above 0")
        if self.threshold < 1:
            raise ValueError(f"threshold={self.threshold}, but at least 1 is needed")
        if self.num_attn_candidates < 1:
            raise ValueError(
                f"num_attn_candidates={self.num_attn_candidates}, but at least 1 is needed"
            )

    @property
    def score_dtype(self) -> torch.dtype:
        """Dtype that column scores are stored in."""
        return torch.float16 if self.parity else torch.float32
