"""NLTK's tokenizer, tagger and WordNet, which reproduce the published scores of captions.

Data is never downloaded. An error names what is missing and the command that installs it.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final
from zipfile import BadZipFile

from eval.errors import EvaluationError

NLTK_DATA: Final = {
    "punkt_tab": ("tokenizers/punkt_tab/english",),
    "averaged_perceptron_tagger_eng": ("taggers/averaged_perceptron_tagger_eng",),
    "wordnet": ("corpora/wordnet", "corpora/wordnet.zip"),
}
# Words and irregular forms of WordNet 3.0, by part of speech: a file with fewer was cut.
WORDNET: Final = {
    "noun": (117_798, 2_054),
    "verb": (11_529, 2_401),
    "adj": (21_479, 1_490),
    "adv": (4_481, 7),
}


class NltkMissing(EvaluationError):
    """NLTK or its data is not installed."""


class Nltk:
    """NLTK with its data.

    Attributes:
        identity: Versions of everything that its results depend on.
    """

    def __init__(self, what: str, instead: str = "") -> None:
        """Load NLTK; its data is read on first use.

        Args:
            what: What needs it, such as "the nltk analyzer", for messages.
            instead: An alternative, for the end of a message.

        Raises:
            NltkMissing: With the command that installs what is missing.
        """
        try:
            import nltk
        except ModuleNotFoundError as error:
            raise NltkMissing(f"{what} needs NLTK: pip install nltk{instead}") from error
        missing = [name for name, places in NLTK_DATA.items() if not any(map(_is_there, places))]
        if missing:
            raise NltkMissing(
                f"NLTK's data is missing ({', '.join(missing)}): run "
                f"`python -m nltk.downloader {' '.join(missing)}` (NLTK_DATA names another "
                f"folder){instead}"
            )
        self.identity = f"nltk {version('nltk')}, WordNet 3.0"
        self._tokenize, self._tag = nltk.word_tokenize, nltk.pos_tag
        self._wordnet = lru_cache(maxsize=1)(lambda: wordnet(instead))
        self._forms = lru_cache(maxsize=None)(self._lemmatize)

    def tokens(self, text: str) -> list[str]:
        """Return the words and punctuation marks of a text."""
        return list(self._tokenize(text))

    def tag(self, tokens: list[str]) -> list[tuple[str, str]]:
        """Return words and punctuation marks, each with its Penn Treebank tag."""
        return list(self._tag(tokens))

    def lemma(self, word: str, part: str) -> str:
        """Return a word's dictionary form, like NLTK's `WordNetLemmatizer`.

        Args:
            word: The word.
            part: WordNet's part of speech: n, v, a or r.
        """
        return self._forms(word, part)

    def _lemmatize(self, word: str, part: str) -> str:
        return min(self._wordnet()._morphy(word, part), key=len, default=word)


def wordnet(instead: str = "") -> Any:
    """Return NLTK's reader of WordNet, which only loads what dictionary forms need.

    NLTK itself also reads all meanings of all words, and maps them between versions.

    Raises:
        EvaluationError: If its files are damaged, or of another version.
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
            f"nltk.downloader wordnet`{instead}"
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
