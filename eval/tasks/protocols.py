"""Whose evaluation protocol: what is added to a question, how long an answer is, how it is read.

A model's `protocol` names prompt and preprocessing in `models/` and the rest here, so that one name
stands for a whole way of measuring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from eah.errors import nearest
from eval.errors import EvaluationError

AnyProtocol = TypeVar("AnyProtocol")


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


@dataclass(frozen=True, slots=True)
class ChairProtocol:
    """How captions are asked for.

    Attributes:
        question: The question, without the model's prompt around it.
        max_new_tokens: Length of a caption.
    """

    question: str
    max_new_tokens: int


# By model family and protocol; "" stands for every other family.
POPE_PROTOCOLS: Final = {
    # OPERA's and EAH's pope_eval.py: the bare question, 10 tokens.
    ("", "opera"): PopeProtocol("", 10, "opera"),
    # LLaVA's docs/Evaluation.md and model_vqa_loader.py: short-answer suffix, 128 tokens.
    ("llava-1.5", "official"): PopeProtocol(
        "\nAnswer the question using a single word or phrase.", 128, "pope"
    ),
    # The others publish no command for POPE: POPE's own question and parser, room for a sentence.
    ("", "official"): PopeProtocol("", 128, "pope"),
}

CHAIR_PROTOCOLS: Final = {
    # OPERA's and EAH's chair_eval.py.
    ("", "opera"): ChairProtocol("Please describe this image in detail.", 512),
    # No model publishes CHAIR: the same question and length, under the model's own prompt.
    ("", "official"): ChairProtocol("Please describe this image in detail.", 512),
}


def pope_protocol(name: str, family: str) -> PopeProtocol:
    """Return a POPE protocol by name, for a model family.

    Raises:
        EvaluationError: If it is unknown.
    """
    return _named(name, family, POPE_PROTOCOLS)


def chair_protocol(name: str, family: str) -> ChairProtocol:
    """Return a CHAIR protocol by name, for a model family.

    Raises:
        EvaluationError: If it is unknown.
    """
    return _named(name, family, CHAIR_PROTOCOLS)


def _named(name: str, family: str, protocols: Mapping[tuple[str, str], AnyProtocol]) -> AnyProtocol:
    for key in ((family, name), ("", name)):
        if key in protocols:
            return protocols[key]
    known = {protocol for _, protocol in protocols}
    raise EvaluationError(f"protocol {name!r} is unknown: {nearest(name, known)}")
