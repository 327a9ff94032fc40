"""Find the objects that a text mentions: analyzers turn its words into dictionary forms.

`nltk` gives the published numbers and needs NLTK with its data. `lexicon` needs nothing and scores
nearly the same: it looks every word up in a table, without asking what part of speech it is.
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
# verb where the form is no such noun ("seated", "skiing"). A tagger would be needed to tell the
# seated guest from the guest who is seated, and the numbers do not.
LEXICON_FILE: Final = CONFIGS / "chair_lexicon.tsv"
HEADER: Final = "form\tword\tobject"

# Words as NLTK's tokenizer cuts them: "n't" and "'s" stand alone; hyphens and slashes do not end a
# word, nor do a full stop, a comma or an apostrophe inside of it.
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
QUOTES: Final = ("``", "''")  # what the tokenizer writes for a double quote or either of these
QUOTE: Final = re.compile("\"|``|''")


class Analyzer(Protocol):
    """Finds the objects that a text mentions.

    Attributes:
        name: "nltk" or "lexicon".
        identity: Name and a hash or version of everything that its results depend on.
    """

    name: str
    identity: str

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""


def choose(name: str, *, fixes: bool = False) -> Analyzer:
    """Return an analyzer by name.

    Args:
        name: "nltk", "lexicon", or "auto": nltk if it and its data are installed.
        fixes: Add the words that CHAIR's list means but never matches.
    Raises:
        NltkMissing: If nltk is asked for and it or its data are not installed.
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
    """Reads texts with a table of word forms; needs nothing that is not in the repository."""

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
    """Reads texts with NLTK's tokenizer, tagger and WordNet, as OPERA's `caption_to_words` does."""

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
        """Let another process load NLTK for itself."""
        return NltkAnalyzer, (self._vocabulary,)

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""
        lowered = lower(text)
        words, lemma = self._nltk.tokens(lowered), self._nltk.lemma
        tokens = [
            Token(lemma(word, PARTS_OF_SPEECH.get(tag[0], "n")), *span)
            for (word, tag), span in zip(
                self._nltk.tagged(words), _spans(lowered, words), strict=True
            )
        ]
        return self._vocabulary.analysis(tokens)


def _spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the tokenizer's words stand in the text."""
    spans = []
    at = 0
    for word in words:
        # The nearest mark, whichever the tokenizer made of it. To look for each by itself would
        # read the rest of the text for those that are not there, every time.
        mark = QUOTE.search(text, at) if word in QUOTES else None
        start = text.find(word, at) if mark is None else mark.start()
        at = start + len(word if mark is None else mark.group())
        spans.append((start, at))
    return spans
