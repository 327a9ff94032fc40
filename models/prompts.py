"""What each model is asked, as text around the image: prompts are code, frozen by golden tests.

A prompt is two chunks of text with the image tokens between them. Each chunk is encoded by itself,
because that is what the reference wrappers do and because it is visible in the ids: sentencepiece
puts its dummy prefix in front of every chunk.

Sources: the wrappers and `eval_configs/*.yaml` of OPERA (which EAH's release shares byte for byte)
for protocol "opera"; LLaVA's `conversation.py` (`vicuna_v1`) for protocol "llava".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eah.errors import nearest
from models.tokenizer import ChunkTokenizer

IMAGE: Final = -200
"""Stands once for the whole run of image tokens in a list of prompt ids."""

VICUNA_SYSTEM: Final = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Text before and after the image tokens; `{question}` stands in `after`."""

    before: str
    after: str


TEMPLATES: Final[dict[tuple[str, str], PromptTemplate]] = {
    # No space between the system message and "USER:": OPERA glues the two, which makes "USER" the
    # single piece 11889 where LLaVA's own prompt has the pieces "US" and "ER".
    ("llava-1.5", "opera"): PromptTemplate(VICUNA_SYSTEM + "USER: ", " {question} ASSISTANT:"),
    ("llava-1.5", "llava"): PromptTemplate(VICUNA_SYSTEM + " USER: ", "\n{question} ASSISTANT:"),
}


def template(model: str, protocol: str) -> PromptTemplate:
    """Return the prompt template of a model family under a protocol.

    Raises:
        ValueError: If there is none; the message names the nearest and lists what there is.
    """
    if (model, protocol) in TEMPLATES:
        return TEMPLATES[model, protocol]
    protocols = [p for m, p in TEMPLATES if m == model]
    if not protocols:
        raise ValueError(
            f"no prompt for model {model!r}: {nearest(model, {m for m, _ in TEMPLATES})}"
        )
    raise ValueError(f"protocol {protocol!r} is unknown to {model}: {nearest(protocol, protocols)}")


def prompt_ids(
    model: str, question: str, tokenizer: ChunkTokenizer, protocol: str = "opera"
) -> list[int]:
    """Encode a question as the prompt of a model.

    Args:
        model: Model family, such as "llava-1.5".
        question: The question as it stands in the question file.
        tokenizer: The checkpoint's tokenizer (a `sentencepiece.SentencePieceProcessor` will do).
        protocol: Whose prompt: "opera" (the papers') or the model's own.
    Returns:
        Token ids with `IMAGE` (-200) once in the place of the image tokens.
    """
    chosen = template(model, protocol)
    before = tokenizer.encode(chosen.before)
    after = tokenizer.encode(chosen.after.replace("{question}", question))
    return [tokenizer.bos_id(), *before, IMAGE, *after]
