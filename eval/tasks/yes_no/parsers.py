"""The papers' parsers, which read an answer as yes or no, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final


def parse_opera(answer: str) -> str:
    """Read an answer like OPERA and EAH: "no" if some word is a negation, otherwise "yes".

    Full stops and commas are removed, and the text is split at single spaces.
    Source: `recorder` in their `pope_eval.py`.
    """
    words = answer.replace(".", "").replace(",", "").split(" ")
    negated = any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words)
    return "no" if negated else "yes"


def parse_pope(answer: str) -> str:
    """Read an answer like POPE and LLaVA: "no" if the first sentence has No, not or no, else "yes".

    Source: POPE's `evaluate.py`, LLaVA's `eval_pope.py`.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def parse_strict(answer: str) -> str | None:
    """Read an answer strictly: None if it is not clearly yes or no.

    The first word decides if it is yes or no; otherwise whichever of the two words occurs alone.
    """
    words = re.findall(r"[a-z']+", answer.lower())
    if words and words[0] in ("yes", "no"):
        return str(words[0])
    said = {"yes", "no"} & set(words)
    return said.pop() if len(said) == 1 else None


MARKS: Final = ';/[]"{}()=+\\_-><@`,?!'
MOST_STOPS: Final = 32  # full stops that VLMEvalKit removes: it passes a flag as their number


def parse_exact(answer: str) -> str | None:
    """Read an answer like AMBER: only exactly "Yes" and "No" count.

    Source: AMBER's `inference.py`.
    """
    return {"Yes": "yes", "No": "no"}.get(answer)


def parse_word(answer: str) -> str | None:
    """Read an answer like VLMEvalKit: whichever of the words yes and no the text contains.

    None if it has both or neither. A punctuation mark is removed if it is next to a space anywhere
    in the text, or if the text has a comma between digits. Otherwise it separates words: "yes-no"
    is two words, and in "yes-no - so" the first word is "yesno".
    Source: `vlmeval/dataset/utils/yorn.py`.
    """
    text = answer.lower()
    joined = re.search(r"\d,\d", text) is not None
    spaces = {
        ord(mark): "" if joined or f"{mark} " in text or f" {mark}" in text else " "
        for mark in MARKS
    }
    words = re.sub(r"\.(?!\d)", "", text.translate(spaces), count=MOST_STOPS).split()
    said = {"yes", "no"} & set(words)
    return said.pop() if len(said) == 1 else None


def parse_first_4(answer: str) -> str | None:
    """Read an answer like MME: yes or no alone, or in the first four characters; otherwise None.

    Source: `parse_pred_ans` in its `eval_tool/calculation.py`.
    """
    said = answer.lower()
    if said in ("yes", "no"):
        return said
    start = said[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def parse_substring(answer: str) -> str | None:
    """Read an answer like RePOPE and DASH-B: yes if "yes" occurs anywhere, else no if "no" does.

    "eyes" is a yes, and "know" a no. Source: `eval_utils.py` of both.
    """
    said = answer.lower()
    return "yes" if "yes" in said else "no" if "no" in said else None


PARSERS: Final[dict[str, Callable[[str], str | None]]] = {
    "opera": parse_opera,
    "pope": parse_pope,
    "strict": parse_strict,
    "exact": parse_exact,
    "first-4": parse_first_4,
    "substring": parse_substring,
    "word": parse_word,
}
JUDGE: Final = "judge"  # name for a judge's verdicts, which replace a parser
OLD_NAMES: Final = {"mme": "first-4"}
# Parsers whose reference scorer excludes unknown answers from every denominator.
LEAVE_OUT: Final = ("substring",)
