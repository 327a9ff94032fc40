"""Prompts of repositories that EAH runs under: text, and where the image tokens stand in it.

Written from the facts about the repositories. Texts are encoded one by one with LLaMA's tokenizer;
tests/eah/test_prompt_formats.py compares the counts here with that.
"""

from __future__ import annotations

from typing import NamedTuple

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
QUESTION = "Is there a snowboard in the image?"
BOS, EOS, IM_START, IM_END, VOCABULARY = 1, 2, 32001, 32002, 32003


class Format(NamedTuple):
    """A prompt of one repository.

    Attributes:
        name: The repository.
        before: Texts and ids of special tokens before the image.
        image: Number of image tokens.
        after: Texts and ids after it.
        start: Position of the first image token.
        length: Tokens of the whole prompt.
    """

    name: str
    before: tuple[str | int, ...]
    image: int
    after: tuple[str | int, ...]
    start: int
    length: int

    @property
    def span(self) -> list[int]:
        return [self.start, self.start + self.image]


FORMATS = (
    Format(
        "LLaVA", (BOS, f"{SYSTEM} USER: "), 576,
        (f"\n{QUESTION}\nAnswer the question using a single word or phrase. ASSISTANT:",), 35, 638,
    ),
    Format(
        "VCD", (BOS, f"{SYSTEM} USER: "), 576,
        (f"\n{QUESTION} Please answer this question with one word. ASSISTANT:",), 35, 635,
    ),
    Format("llava-hf", (BOS, "USER: "), 576, (f"\n{QUESTION} ASSISTANT:",), 5, 597),
    Format("OPERA", (BOS, f"{SYSTEM}USER: "), 576, (f" {QUESTION} ASSISTANT:",), 34, 625),
    Format("PAI", (BOS, f"{SYSTEM}USER: "), 576, (f" {QUESTION} ASSISTANT:",), 34, 625),
    Format(
        "Shikra", (BOS, f"{SYSTEM}USER:", IM_START), 256,
        (IM_END, f"{QUESTION} ASSISTANT:"), 34, 305,
    ),
    Format("MiniGPT-4", (BOS, "###Human: <Img>"), 32, (f"</Img> {QUESTION} ###Assistant:",), 8, 56),
    Format("InstructBLIP", (), 32, (EOS, QUESTION), 0, 42),
)  # fmt: skip
