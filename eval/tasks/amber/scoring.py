"""Score a caption like AMBER, following its `inference.py` (commit 534babf6) step by step.

Words are single nouns and case-sensitive ("Sky" at the start of a sentence is not "sky"). A name of
two words counts as two. Cover and Cog count positions in the lists of an annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from eval.tasks.amber.folder import Annotation, Words
from eval.tasks.nltk_words import Nltk

Alike = Callable[[str, str], bool]


class Slot(NamedTuple):
    """A word that matches a position of a list."""

    word: str
    at: int


@dataclass(frozen=True, slots=True)
class ScoredWords:
    """The words of a caption that AMBER scores.

    Attributes:
        mentions: Nouns in AMBER's vocabulary, in order, with repetitions.
        hallucinated: Mentions that match nothing in the picture.
        covered: Positions of `annotation.truth` that are mentioned.
        marked: Positions of `annotation.hallu` that are mentioned.
        annotation: The picture's annotation.
    """

    mentions: tuple[str, ...]
    hallucinated: tuple[str, ...]
    covered: frozenset[int]
    marked: frozenset[int]
    annotation: Annotation

    def counts(self) -> list[int]:
        """Return the numerators and denominators of CHAIR, Cover and Cog, then 1 without Hal.

        They are AMBER's, without the initial 0.001 of its denominators.
        """
        return [
            len(self.hallucinated),
            len(self.mentions),
            len(self.covered),
            len(self.annotation.truth),
            len(self.marked),
            len(self.annotation.hallu),
            int(not self.hallucinated),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a line of JSON, with words instead of positions."""
        truth, hallu = self.annotation.truth, self.annotation.hallu
        return {
            "mentions": list(self.mentions),
            "hallucinated": list(self.hallucinated),
            "covered": [truth[at] for at in sorted(self.covered)],
            "not_covered": [word for at, word in enumerate(truth) if at not in self.covered],
            "marked": [hallu[at] for at in sorted(self.marked)],
        }


def nouns(text: str, nltk: Nltk) -> list[str]:
    """Return the dictionary forms of a text's nouns in order; upper and lower case are kept."""
    tagged = nltk.tag(nltk.tokens(text))
    return [nltk.lemma(word, "n") for word, tag in tagged if tag.startswith("NN")]


def score_words(
    found: Sequence[str], annotation: Annotation, words: Words, alike: Alike
) -> ScoredWords:
    """Score the nouns of a caption.

    Args:
        found: The nouns, in order.
        annotation: Annotation of the caption's picture.
        words: AMBER's vocabulary.
        alike: Returns whether two words are similar, see `Similar`.
    """
    mentions = tuple(noun for noun in found if noun in words.known)
    truth, hallu = _slots(annotation.truth, words), _slots(annotation.hallu, words)
    hallucinated: list[str] = []
    covered, marked = set[int](), set[int]()
    for noun in mentions:
        if noun in words.safe:
            continue
        if (at := _first(truth, noun, _equal)) is not None:
            covered.add(at)
            continue
        # A hallucinated object counts for Cog even if it resembles one in the picture.
        marked |= {at for same in (_equal, alike) if (at := _first(hallu, noun, same)) is not None}
        if (at := _first(truth, noun, alike)) is not None:
            covered.add(at)
        else:
            hallucinated.append(noun)
    return ScoredWords(
        mentions, tuple(hallucinated), frozenset(covered), frozenset(marked), annotation
    )


def _slots(listed: Sequence[str], words: Words) -> list[Slot]:
    """Return the words that match a list: synonyms of its words, then its words."""
    synonyms = [Slot(word, at) for at, own in enumerate(listed) for word in words.association[own]]
    return [*synonyms, *(Slot(word, at) for at, word in enumerate(listed))]


def _first(slots: Sequence[Slot], noun: str, same: Alike) -> int | None:
    """Return the position of the first word that matches."""
    return next((slot.at for slot in slots if same(noun, slot.word)), None)


def _equal(one: str, other: str) -> bool:
    return one == other
