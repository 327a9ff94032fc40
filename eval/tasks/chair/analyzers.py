"""Choose how a text becomes dictionary forms.

`nltk` gives the published numbers and needs NLTK with its data. `lexicon` needs nothing and scores
nearly the same: it looks every word up in a table, without asking what part of speech it is.
"""

from __future__ import annotations

from typing import Final, Protocol

from eval.tasks.chair.lexicon import LexiconAnalyzer
from eval.tasks.chair.nltk_analyzer import NltkAnalyzer, NltkMissing
from eval.tasks.chair.vocabulary import Analysis, load_vocabulary

ANALYZERS: Final = ("auto", "nltk", "lexicon")


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
