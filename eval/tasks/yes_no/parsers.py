"""How an answer is read as yes or no: the papers' ways, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final


def parse_opera(answer: str) -> str:
    """Read an answer as OPERA and EAH do: "no" iff some word of it is a negation.

    Full stops and commas are dropped from the whole text, which is then split at single spaces.
    Source: `recorder` in their `pope_eval.py`.
    """
    words = answer.replace(".", "").replace(",", "").split(" ")
    negated = any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words)
    return "no" if negated else "yes"


def parse_pope(answer: str) -> str:
    """Read an answer as POPE and LLaVA do: "no" iff the first sentence has No, not or no.

    Source: POPE's `evaluate.py`, LLaVA's `eval_pope.py`.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def parse_strict(answer: str) -> str | None:
    """Read an answer that says yes or no, and nothing else: None where it says neither.

    The first word decides if it is yes or no; else the one of the two that occurs alone.
    """
    words = re.findall(r"[a-z']+", answer.lower())
    if words and words[0] in ("yes", "no"):
        return str(words[0])
    said = {"yes", "no"} & set(words)
    return said.pop() if len(said) == 1 else None


MARKS: Final = ';/[]"{}()=+\\_-><@`,?!'
MOST_STOPS: Final = 32  # full stops that VLMEvalKit removes: a flag of its stands for their number


def parse_exact(answer: str) -> str | None:
    """Read an answer as AMBER does: only "Yes" and "No", written so, with nothing around.

    Source: AMBER's `inference.py`.
    """
    return {"Yes": "yes", "No": "no"}.get(answer)


def parse_word(answer: str) -> str | None:
    """Read an answer as VLMEvalKit does: the one of the words yes and no that the text has.

    None where it has both or neither. A mark is removed where the text has it beside a space, or
    has a comma between digits; else it separates words: "yes-no" is two words, and in "yes-no - so"
    the first word is "yesno". Source: `vlmeval/dataset/utils/yorn.py`.
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
    """Read an answer as MME does: yes or no alone, or in its first four characters; else None.

    Source: `parse_pred_ans` in its `eval_tool/calculation.py`.
    """
    said = answer.lower()
    if said in ("yes", "no"):
        return said
    start = said[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def parse_substring(answer: str) -> str | None:
    """Read an answer as RePOPE and DASH-B do: yes if "yes" occurs anywhere, else no if "no" does.

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
JUDGE: Final = "judge"  # a benchmark's name for verdicts that are given, in the place of a parser
OLD_NAMES: Final = {"mme": "first-4"}
# Parsers whose reference scorer leaves unknown answers out of every denominator.
LEAVE_OUT: Final = ("substring",)
