"""Find the objects that a text mentions: analyzers turn its words into dictionary forms.

`nltk` gives the published numbers and needs NLTK with its data. `lexicon` needs nothing and scores
nearly the same: it looks every word up in a table, without asking what part of speech it is.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol
from zipfile import BadZipFile

from eval.errors import EvaluationError
from eval.tasks.chair.vocabulary import Analysis, Token, Vocabulary, load_vocabulary, lower
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

NLTK_DATA: Final = {
    "punkt_tab": ("tokenizers/punkt_tab/english",),
    "averaged_perceptron_tagger_eng": ("taggers/averaged_perceptron_tagger_eng",),
    "wordnet": ("corpora/wordnet", "corpora/wordnet.zip"),
}
PARTS_OF_SPEECH: Final = {"J": "a", "V": "v", "N": "n", "R": "r"}  # Penn's tag -> WordNet's
# Words and irregular forms of WordNet 3.0, by part of speech: a file with fewer was cut.
WORDNET: Final = {
    "noun": (117_798, 2_054),
    "verb": (11_529, 2_401),
    "adj": (21_479, 1_490),
    "adv": (4_481, 7),
}
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


class NltkMissing(EvaluationError):
    """NLTK or its data is not installed."""


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
        try:
            from importlib.metadata import version

            import nltk
        except ModuleNotFoundError as error:
            raise NltkMissing(
                "the nltk analyzer needs NLTK: pip install nltk, or use --analyzer lexicon"
            ) from error
        missing = [name for name, places in NLTK_DATA.items() if not any(map(_is_there, places))]
        if missing:
            raise NltkMissing(
                f"NLTK's data is missing ({', '.join(missing)}): run "
                f"`python -m nltk.downloader {' '.join(missing)}` (NLTK_DATA names another "
                "folder), or use --analyzer lexicon"
            )
        self.identity = f"nltk {version('nltk')}, WordNet 3.0, vocabulary {vocabulary.hash[:12]}"
        self._vocabulary = vocabulary
        self._tokenize, self._tag = nltk.word_tokenize, nltk.pos_tag
        self._wordnet = lru_cache(maxsize=1)(_wordnet)
        self._lemma = lru_cache(maxsize=None)(self._lemmatized)

    def __reduce__(self) -> tuple[type[NltkAnalyzer], tuple[Vocabulary]]:
        """Let another process load NLTK for itself."""
        return NltkAnalyzer, (self._vocabulary,)

    def _lemmatized(self, word: str, part: str) -> str:
        """Return a word's dictionary form, as NLTK's `WordNetLemmatizer` does."""
        return min(self._wordnet()._morphy(word, part), key=len, default=word)

    def analyze(self, text: str) -> Analysis:
        """Return the mentions of a text in order, and its length in words."""
        lowered = lower(text)
        words = self._tokenize(lowered)
        tokens = [
            Token(self._lemma(word, PARTS_OF_SPEECH.get(tag[0], "n")), *span)
            for (word, tag), span in zip(self._tag(words), _spans(lowered, words), strict=True)
        ]
        return self._vocabulary.analysis(tokens)


def _wordnet() -> Any:
    """Return NLTK's reader of WordNet with what finding dictionary forms takes, and nothing else.

    NLTK reads every meaning of every word besides, and maps those of one version to another's.
    """
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.data import find

    class Forms(WordNetCorpusReader):  # type: ignore[misc]  # NLTK is untyped
        def __init__(self) -> None:
            self._lemma_pos_offset_map: dict[str, str] = {}
            self._exception_map: dict[str, dict[str, list[str]]] = {}
            for part, name in self._FILEMAP.items():
                lines = _lines(find(f"corpora/wordnet/index.{name}"))
                words = [line[: line.index(" ")] for line in lines if not line.startswith(" ")]
                for word in words:
                    parts = self._lemma_pos_offset_map.get(word, "")
                    self._lemma_pos_offset_map[word] = parts + part
                others = [line.split() for line in _lines(find(f"corpora/wordnet/{name}.exc"))]
                self._exception_map[part] = {form: of for form, *of in others}
                if (len(words), len(others)) != WORDNET[name]:
                    raise ValueError(f"{name} has {len(words)} words and {len(others)} forms")

    try:
        return Forms()
    except (ValueError, LookupError, OSError, BadZipFile, zlib.error) as error:
        raise EvaluationError(
            f"NLTK's WordNet is not version 3.0, or is damaged ({error}): delete corpora/wordnet "
            "and corpora/wordnet.zip where NLTK looks for its data, and run `python -m "
            "nltk.downloader wordnet`, or use --analyzer lexicon"
        ) from error


def _lines(place: Any) -> list[str]:
    with place.open() as file:
        return str(file.read(), "utf-8").splitlines()


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
        # The nearest mark, whichever the tokenizer made of it. To look for each by itself would
        # read the rest of the text for those that are not there, every time.
        mark = QUOTE.search(text, at) if word in QUOTES else None
        start = text.find(word, at) if mark is None else mark.start()
        at = start + len(word if mark is None else mark.group())
        spans.append((start, at))
    return spans
