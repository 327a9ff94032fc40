"""Find the objects that a text mentions: analyzers turn its words into dictionary forms.

`nltk` gives the published numbers and needs NLTK with its data. `lexicon` needs nothing else and
gives nearly the same scores: it looks up every word in a table and ignores its part of speech.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final, Protocol

from eval.tasks.chair.vocabulary import Analysis, Token, Vocabulary, load_vocabulary, lower
from eval.tasks.nltk_words import Nltk, NltkMissing
from models.settings import CONFIGS

ANALYZERS: Final = ("auto", "nltk", "lexicon")

# Made by scripts/data/make_lexicon.py: every inflected form of CHAIR's words as a noun, and as a
# verb if the form is not such a noun ("seated", "skiing"). Distinguishing the seated guest from the
# guest who is seated would need a tagger, and would not change the numbers.
LEXICON_FILE: Final = CONFIGS / "chair_lexicon.tsv"
HEADER: Final = "form\tword\tobject"

# Words as NLTK's tokenizer splits them: "n't" and "'s" are separate words. Hyphens and slashes do
# not end a word, nor does a full stop, a comma or an apostrophe inside it.
MARKS: Final = re.escape('()[]{}<>"\u201c\u201d\u2018\u2019\u201e«»`;@#$%&?!')
ENDING: Final = r"'(?:s|m|d|ll|re|ve)\b"
TOKEN: Final = re.compile(
    rf"""
      n't\b | {ENDING} | \.{{2,}} | --+
    | (?: [^{MARKS},:.'n\s] | n(?!'t\b)
        | [,:](?=\d) | \.(?=[^{MARKS},.'\s]) | (?<=\w)(?!{ENDING})'(?=\w) )+
    | [{MARKS},:.']
    """,
    re.VERBOSE,
)

PARTS_OF_SPEECH: Final = {"J": "a", "V": "v", "N": "n", "R": "r"}  # Penn's tag -> WordNet's
QUOTES: Final = ("``", "''")  # the tokenizer's output for a double quote and for these two
QUOTE: Final = re.compile("\"|``|''")


class Analyzer(Protocol):
    """Finds the objects that a text mentions.

    Attributes:
        name: "nltk" or "lexicon".
        identity: Its name, and a hash or version of everything that its results depend on.
    """

    name: str
    identity: str

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""


def choose(name: str, *, fixes: bool = False) -> Analyzer:
    """Return an analyzer by name.

    Args:
        name: "nltk", "lexicon", or "auto": nltk if it and its data are installed.
        fixes: Add the words that CHAIR's list contains but can never match.
    Raises:
        NltkMissing: If name is "nltk", and NLTK or its data is not installed.
    """
    vocabulary = load_vocabulary(fixes=fixes)
    if name == "lexicon":
        return LexiconAnalyzer(vocabulary)
    try:
        return NltkAnalyzer(vocabulary)
    except NltkMissing:
        if name == "nltk":
            raise
        return LexiconAnalyzer(vocabulary)


class LexiconAnalyzer:
    """Reads texts with a table of word forms, which is in the repository."""

    name = "lexicon"

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Read the table."""
        content = LEXICON_FILE.read_text(encoding="utf-8")
        header, *lines = content.splitlines()
        assert header == HEADER
        self._word_of = {form: word for form, word, _ in (line.split("\t") for line in lines)}
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.identity = f"lexicon {digest[:12]}, vocabulary {vocabulary.hash[:12]}"
        self._vocabulary = vocabulary

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""
        word_of = self._word_of
        tokens = [
            Token(word_of.get(form := match.group(), form), *match.span())
            for match in TOKEN.finditer(lower(text))
        ]
        return self._vocabulary.analysis(tokens)


class NltkAnalyzer:
    """Reads texts with NLTK's tokenizer, tagger and WordNet, like OPERA's `caption_to_words`."""

    name = "nltk"

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Load NLTK.

        Raises:
            NltkMissing: With the command that installs what is missing.
        """
        self._nltk = Nltk("the nltk analyzer", ", or use --analyzer lexicon")
        self.identity = f"{self._nltk.identity}, vocabulary {vocabulary.hash[:12]}"
        self._vocabulary = vocabulary

    def __reduce__(self) -> tuple[type[NltkAnalyzer], tuple[Vocabulary]]:
        """Make another process load its own NLTK."""
        return NltkAnalyzer, (self._vocabulary,)

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""
        lowered = lower(text)
        words, lemma = self._nltk.tokens(lowered), self._nltk.lemma
        tokens = [
            Token(lemma(word, PARTS_OF_SPEECH.get(tag[0], "n")), *span)
            for (word, tag), span in zip(self._nltk.tag(words), _spans(lowered, words), strict=True)
        ]
        return self._vocabulary.analysis(tokens)


def _spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the position of each of the tokenizer's words in the text."""
    spans = []
    at = 0
    for word in words:
        # The tokenizer changes quotes, so the next quote of any form is taken. One search for all
        # forms is faster: a separate search for an absent form reads the rest of the text.
        mark = QUOTE.search(text, at) if word in QUOTES else None
        start = text.find(word, at) if mark is None else mark.start()
        at = start + len(word if mark is None else mark.group())
        spans.append((start, at))
    return spans
