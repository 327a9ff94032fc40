"""The prompts of each model: code, frozen by golden tests.

A prompt is text, special tokens and one run of image tokens. Each text is encoded by itself,
because that is what the reference wrappers do and because it is visible in the ids: sentencepiece
puts its dummy prefix in front of every text.

Sources: for protocol "opera" the wrappers and `eval_configs/*.yaml` of OPERA (which EAH's release
shares byte for byte); for "official" LLaVA's `conversation.py` (`vicuna_v1`), LAVIS's
`blip2_vicuna_instruct.py`, MiniGPT-4's `conversation.py` and Shikra's `base_conversation.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from eah.errors import nearest
from models.generation import ShownPrompt
from models.tokenizer import ChunkTokenizer, check_characters

IMAGE: Final = -200
"""A single id that represents the whole run of image tokens in a list of prompt ids."""

VICUNA_SYSTEM: Final = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
MINIGPT4_SYSTEM: Final = (
    "Give the following image: <Img>ImageContent</Img>. "
    "You will be able to see the image once I provide it to you. Please answer my questions."
)


class Token(Enum):
    """Parts of a prompt that are not text, and their spelling."""

    BOS = "<s>"
    EOS = "</s>"
    IMAGE = "<image>"  # all image tokens
    IM_START = "<im_start>"  # Shikra's, which it added after the LLaMA vocabulary
    IM_END = "<im_end>"


Template = tuple[str | Token, ...]
BOS: Final = Token.BOS
IMG: Final = Token.IMAGE

# The image comes first, and the tokenizer's BOS is set to "</s>" when the model is built.
INSTRUCTBLIP: Final[Template] = (IMG, Token.EOS, "{question}")
# The slow tokenizer that Shikra was trained and evaluated with strips the spaces on both sides
# of an added token: there is none before <im_start> and none after <im_end>.
SHIKRA_END: Final = (Token.IM_START, IMG, Token.IM_END, "{question} ASSISTANT:")

TEMPLATES: Final[dict[tuple[str, str], Template]] = {
    # No space between the system message and "USER:": OPERA glues the two, which makes "USER" the
    # single token 11889 where LLaVA's own prompt has the tokens "US" and "ER".
    ("llava-1.5", "opera"): (BOS, VICUNA_SYSTEM + "USER: ", IMG, " {question} ASSISTANT:"),
    ("llava-1.5", "official"): (BOS, VICUNA_SYSTEM + " USER: ", IMG, "\n{question} ASSISTANT:"),
    # LAVIS and OPERA ask the same way.
    ("instructblip", "opera"): INSTRUCTBLIP,
    ("instructblip", "official"): INSTRUCTBLIP,
    # OPERA leaves the system message out and puts a space before the second "###".
    ("minigpt4", "opera"): (BOS, "###Human: <Img>", IMG, "</Img> {question} ###Assistant:"),
    ("minigpt4", "official"): (
        BOS,
        MINIGPT4_SYSTEM + "###Human: <Img>",
        IMG,
        "</Img> {question}###Assistant: ",
    ),
    ("shikra", "opera"): (BOS, VICUNA_SYSTEM + "USER:", *SHIKRA_END),
    ("shikra", "official"): (BOS, VICUNA_SYSTEM + " USER:", *SHIKRA_END),
}


def template(model: str, protocol: str) -> Template:
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
        question: The question, unchanged from the question file.
        tokenizer: The checkpoint's tokenizer (a `sentencepiece.SentencePieceProcessor` will do).
        protocol: Whose prompt: "opera" (the papers') or "official" (the model's own).
    Returns:
        Token ids, with a single `IMAGE` (-200) for all image tokens.
    Raises:
        ModelError: If the question can't be encoded.
    """
    check_characters(question)
    # Shikra added <im_patch>, <im_start>, <im_end> in this order: 32000, 32001, 32002.
    added = tokenizer.get_piece_size()
    special = {
        Token.BOS: tokenizer.bos_id(),
        Token.EOS: tokenizer.eos_id(),
        Token.IMAGE: IMAGE,
        Token.IM_START: added + 1,
        Token.IM_END: added + 2,
    }
    ids: list[int] = []
    for piece in template(model, protocol):
        if isinstance(piece, Token):
            ids.append(special[piece])
        else:
            ids += tokenizer.encode(piece.replace("{question}", question))
    return ids


def show_prompt(model: str, question: str, tokenizer: ChunkTokenizer, protocol: str) -> ShownPrompt:
    """Return a prompt as text and ids, for people to read; arguments as in `prompt_ids`."""
    pieces = template(model, protocol)
    text = "".join(piece.value if isinstance(piece, Token) else piece for piece in pieces)
    ids = prompt_ids(model, question, tokenizer, protocol)
    return ShownPrompt(text.replace("{question}", question), ids)
