"""The analyzer of the published numbers: NLTK's tokenizer, tagger and WordNet lemmatizer.

Source: `caption_to_words` of OPERA's `chair.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Final

from eval.errors import EvaluationError
from eval.tasks.chair.vocabulary import Analysis, Token, Vocabulary, lower

DATA: Final = {
    "punkt_tab": ("tokenizers/punkt_tab/english",),
    "averaged_perceptron_tagger_eng": ("taggers/averaged_perceptron_tagger_eng",),
    "wordnet": ("corpora/wordnet", "corpora/wordnet.zip"),
}
PARTS_OF_SPEECH: Final = {"J": "a", "V": "v", "N": "n", "R": "r"}  # Penn's tag -> WordNet's
QUOTES: Final = ("``", "''")  # what the tokenizer writes for a double quote


class NltkMissing(EvaluationError):
    """NLTK or its data is not installed."""


class NltkAnalyzer:
    """Reads texts as OPERA's scorer does; needs NLTK and three of its data packages."""

    name = "nltk"

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Load NLTK.

        Raises:
            NltkMissing: With the command that installs what is missing.
        """
        try:
            import nltk
            from nltk.stem import WordNetLemmatizer
        except ModuleNotFoundError as error:
            raise NltkMissing(
                "the nltk analyzer needs NLTK: pip install nltk, or use --analyzer lexicon"
            ) from error
        missing = [name for name, places in DATA.items() if not any(map(_is_there, places))]
        if missing:
            raise NltkMissing(
                f"NLTK's data is missing ({', '.join(missing)}): run "
                f"`python -m nltk.downloader {' '.join(missing)}` (NLTK_DATA names another "
                "folder), or use --analyzer lexicon"
            )
        self.identity = f"nltk {version('nltk')}, WordNet 3.0, vocabulary {vocabulary.hash[:12]}"
        self._vocabulary = vocabulary
        self._tokenize, self._tag = nltk.word_tokenize, nltk.pos_tag
        self._lemma = lru_cache(maxsize=None)(WordNetLemmatizer().lemmatize)

    def __reduce__(self) -> tuple[type[NltkAnalyzer], tuple[Vocabulary]]:
        """Let another process load NLTK for itself."""
        return NltkAnalyzer, (self._vocabulary,)

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""
        lowered = lower(text)
        words = self._tokenize(lowered)
        lemmas = [self._lemma(word, PARTS_OF_SPEECH.get(tag[0], "n"))
                  for word, tag in self._tag(words)]  # fmt: skip
        tokens = [Token(lemma, *span)
                  for lemma, span in zip(lemmas, _spans(lowered, words), strict=True)]  # fmt: skip
        return self._vocabulary.analysis(tokens)


def _is_there(place: str) -> bool:
    import nltk

    try:
        nltk.data.find(place)
    except LookupError:
        return False
    return True


def _spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the tokenizer's words stand in the text."""
    spans = []
    at = 0
    for word in words:
        places = [text.find(mark, at) for mark in ('"', word)] if word in QUOTES else []
        start = min((place for place in places if place >= 0), default=text.find(word, at))
        stop = start + (1 if places and text[start] == '"' else len(word))
        spans.append((start, stop))
        at = stop
    return spans
