"""The analyzer that needs no downloads: a table of word forms instead of a tagger and WordNet.

The table, `configs/chair_lexicon.tsv`, is made by `scripts/make_lexicon.py`. It holds every
inflected form of CHAIR's words as a noun, and as a verb where the form is no such noun ("seated",
"skiing"): a tagger would be needed to tell the seated guest from the guest who is seated, and the
numbers do not.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from eval.tasks.chair.vocabulary import Analysis, Token, Vocabulary, lower
from models.settings import CONFIGS

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
