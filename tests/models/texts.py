"""Texts on which two tokenizers that differ in anything should give different ids."""

from __future__ import annotations

import random
from typing import Final

COUNT: Final = 500
WORDS: Final = (
    "Is there a cat in the image?", "Describe it.", "traffic light", "Ünïcödé", "naïve cafe\u0301",
    "猫がいる", "고양이", "кошка", "قطة", "ﬁne ①",
    "🐈", "🐈\u200d⬛", "🇩🇪", "don't", "3.14159", "007",
    "x=y+z;", "http://a.b/c?d=e", "<0x41>", "▁", "a▁b", "....", "======", "hahahaha", "aAaAaA",
    "\x00", "\x7f", "\ufffd", "\u00a0", "\u3000", "\u200b",
)  # fmt: skip
BETWEEN: Final = ("", " ", " ", " ", "  ", " " * 17, "\n", "\n\n", "\r\n", "\t", " \t ")
SPECIAL: Final = ("<s>", "</s>", "<unk>", "<image>", "<pad>")


def texts(*, special: bool = False) -> list[str]:
    """Return texts of many scripts and kinds of space.

    Args:
        special: Whether half of them also spell special tokens.
    """
    rng = random.Random(f"texts {special}")
    found = ["", " ", "   ", "\n", " a", "a ", " " * 100, "▁", "\n a \n"]
    while len(found) < COUNT:
        words = rng.choices(WORDS, k=rng.randint(1, 8))
        if special and len(found) % 2:
            words.insert(rng.randint(0, len(words)), rng.choice(SPECIAL))
            words.insert(rng.randint(0, len(words)), rng.choice(SPECIAL))
        found.append("".join(word + rng.choice(BETWEEN) for word in words))
    return found
