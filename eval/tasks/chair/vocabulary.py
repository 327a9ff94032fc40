"""CHAIR's vocabulary: the words for COCO's 80 objects, and the phrases that count as one word.

Both analyzers turn a text into dictionary forms (lemmas). `Vocabulary.analysis` then finds the
objects among them by the rules of OPERA's `chair.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from models.settings import CONFIGS, read_yaml

OBJECTS_FILE: Final = CONFIGS / "chair_objects.yaml"


class Token(NamedTuple):
    """The dictionary form of the word at text[start:stop]."""

    lemma: str
    start: int
    stop: int


class Mention(NamedTuple):
    """The word at text[start:stop], which names an object."""

    word: str
    object: str
    start: int
    stop: int


class Analysis(NamedTuple):
    """The mentions of objects in a text in order, and its length in words.

    `num_words` also counts punctuation marks, and counts a phrase such as "hot dog" once.
    """

    mentions: tuple[Mention, ...]
    num_words: int


class Vocabulary:
    """Words that name objects.

    Attributes:
        object_of: Object by dictionary form; the name of an object is one of its words.
        phrases: Phrases that are read as one word, and that word.
        hash: SHA-256 of both.
    """

    def __init__(self, objects: Mapping[str, str], phrases: Mapping[str, str]) -> None:
        """Take the objects by word, and the words by phrase; phrases are separated by spaces."""
        self.object_of = dict(objects)
        self.phrases = {tuple(phrase.split()): word for phrase, word in phrases.items()}
        self._lengths: dict[str, list[int]] = {}
        for parts in sorted(self.phrases, key=len, reverse=True):
            self._lengths.setdefault(parts[0], []).append(len(parts))
        content = json.dumps([sorted(objects.items()), sorted(phrases.items())])
        self.hash = hashlib.sha256(content.encode()).hexdigest()

    def analysis(self, tokens: Sequence[Token]) -> Analysis:
        """Find the objects among the dictionary forms of a text."""
        merged = self._merge_phrases(tokens)
        lemmas = {token.lemma for token in merged}
        # "The seat of the toilet" is not a chair.
        ignored = "seat" if {"toilet", "seat"} <= lemmas else None
        found = tuple(
            Mention(lemma, self.object_of[lemma], start, stop)
            for lemma, start, stop in merged
            if lemma in self.object_of and lemma != ignored
        )
        return Analysis(found, len(merged))

    def parts(self) -> set[str]:
        """Return every relevant word: words of objects and words of phrases."""
        names = [*self.object_of, *map(" ".join, self.phrases)]
        return {part for name in names for part in name.split()}

    def _merge_phrases(self, tokens: Sequence[Token]) -> list[Token]:
        """Replace each phrase with one token, from left to right, the longest phrase first."""
        merged: list[Token] = []
        at = 0
        while at < len(tokens):
            token, read = tokens[at], 1
            for length in self._lengths.get(token.lemma, ()):
                part = tokens[at : at + length]
                word = self.phrases.get(tuple(one.lemma for one in part))
                if word is not None:
                    token, read = Token(word, token.start, part[-1].stop), length
                    break
            merged.append(token)
            at += read
        return merged


def load_vocabulary(*, fixes: bool = False) -> Vocabulary:
    """Return the vocabulary of `configs/chair_objects.yaml`.

    Args:
        fixes: Add the words that CHAIR's list contains but can never match.
    """
    content = _content()
    phrases = {pair: pair for pair in content["pairs"]}
    phrases |= {
        f"{age} {animal}": animal
        for age in ("baby", "adult")
        for animal in content["young_or_grown"]
    }
    phrases |= {f"passenger {vehicle}": vehicle for vehicle in content["for_passengers"]}
    phrases |= content["pairs_as"]
    objects = {word: name for name, words in content["objects"].items() for word in (name, *words)}
    if fixes:
        added = {word: name for name, words in content["fixes"].items() for word in words}
        objects |= added
        phrases |= {word: word for word in added if " " in word}
    return Vocabulary(objects, phrases)


@cache
def _content() -> dict[str, Any]:
    return read_yaml(OBJECTS_FILE)


def lower(text: str) -> str:
    """Return a text in lower case with the same length; letters that would become two are kept."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
