"""Whose evaluation protocol: what is added to a question, how long an answer is, how it is read.

A model's `protocol` names prompt and preprocessing in `models/` and the rest here, so that one name
stands for a whole way of measuring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eah.errors import nearest
from eval.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class PopeProtocol:
    """How POPE is run.

    Attributes:
        suffix: Added to the question.
        max_new_tokens: Length of an answer.
        parser: How an answer is read.
    """

    suffix: str
    max_new_tokens: int
    parser: str


POPE_PROTOCOLS: Final = {
    # OPERA's and EAH's pope_eval.py: the bare question, 10 tokens.
    "opera": PopeProtocol("", 10, "opera"),
    # LLaVA's docs/Evaluation.md and model_vqa_loader.py: short-answer suffix, 128 tokens.
    "llava": PopeProtocol("\nAnswer the question using a single word or phrase.", 128, "pope"),
}


def pope_protocol(name: str) -> PopeProtocol:
    """Return a POPE protocol by name.

    Raises:
        EvaluationError: If it is unknown.
    """
    if name not in POPE_PROTOCOLS:
        raise EvaluationError(f"protocol {name!r} is unknown: {nearest(name, POPE_PROTOCOLS)}")
    return POPE_PROTOCOLS[name]
