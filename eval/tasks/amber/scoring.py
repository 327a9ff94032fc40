"""How AMBER scores a caption, step by step as its `inference.py` does (commit 534babf6).

Words are single nouns as they stand ("Sky" at the start of a sentence is no "sky"), names of two
words count as two, and what counts are positions in the lists of an annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from eval.tasks.amber.folder import Annotation, Words
from eval.tasks.nltk_words import Nltk

Alike = Callable[[str, str], bool]


class Slot(NamedTuple):
    """A word that fills a position of a list."""

    word: str
    at: int


@dataclass(frozen=True, slots=True)
class ScoredWords:
    """What AMBER finds in a caption.

    Attributes:
        mentions: The nouns that AMBER knows, in order, doubles too.
        hallucinated: Those of them that nothing in the picture explains.
        covered: Positions in the list of what is there that are named.
        marked: Positions in the list of what a model may imagine that are named.
        annotation: The lists.
    """

    mentions: tuple[str, ...]
    hallucinated: tuple[str, ...]
    covered: frozenset[int]
    marked: frozenset[int]
    annotation: Annotation

    def counts(self) -> list[int]:
        """Return the numerators and denominators of CHAIR, Cover and Cog, then 1 for no Hal.

        They are AMBER's own, without the 0.001 that its denominators start at.
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
        """Return it for a line of JSON, with words in the place of positions."""
        truth, hallu = self.annotation.truth, self.annotation.hallu
        return {
            "mentions": list(self.mentions),
            "hallucinated": list(self.hallucinated),
            "covered": [truth[at] for at in sorted(self.covered)],
            "not_covered": [word for at, word in enumerate(truth) if at not in self.covered],
            "marked": [hallu[at] for at in sorted(self.marked)],
        }


def nouns(text: str, nltk: Nltk) -> list[str]:
    """Return the dictionary forms of a text's nouns, in order, in the case that they have."""
    tagged = nltk.tagged(nltk.tokens(text))
    return [nltk.lemma(word, "n") for word, tag in tagged if tag.startswith("NN")]


def score_words(
    found: Sequence[str], annotation: Annotation, words: Words, alike: Alike
) -> ScoredWords:
    """Score the nouns of a caption.

    Args:
        found: The nouns, in order.
        annotation: Of the caption's picture.
        words: AMBER's.
        alike: Whether two words are similar, as `Similar` says it.
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
        # An imagined object counts for Cog even where it resembles one that is there.
        marked |= {at for same in (_equal, alike) if (at := _first(hallu, noun, same)) is not None}
        if (at := _first(truth, noun, alike)) is not None:
            covered.add(at)
        else:
            hallucinated.append(noun)
    return ScoredWords(
        mentions, tuple(hallucinated), frozenset(covered), frozenset(marked), annotation
    )


def _slots(listed: Sequence[str], words: Words) -> list[Slot]:
    """Return what fills a list: the words that stand for each of its own, then its own."""
    stand = [Slot(word, at) for at, own in enumerate(listed) for word in words.association[own]]
    return [*stand, *(Slot(word, at) for at, word in enumerate(listed))]


def _first(slots: Sequence[Slot], noun: str, same: Alike) -> int | None:
    """Return the position that the first fitting word fills."""
    return next((slot.at for slot in slots if same(noun, slot.word)), None)


def _equal(one: str, other: str) -> bool:
    return one == other
