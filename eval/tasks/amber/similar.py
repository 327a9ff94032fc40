"""Pairs of AMBER's words that its word vectors treat as similar.

AMBER's scorer asks spaCy for the similarity of two words, both of which are in `relation.json`. The
vectors therefore only decide a set of pairs, which scripts/data/amber_pairs.py writes once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.storage import read_json
from eval.tasks.amber.folder import RELATION, Words

EXACT: Final = "exact"
THRESHOLD: Final = 0.8  # similarity must be above it, as in AMBER's inference.py
REFERENCE: Final = "en_core_web_lg"
SAME: Final = 1 - 1e-6  # from this similarity on, two words share a vector
COMMAND: Final = "python scripts/data/amber_pairs.py"


@dataclass(frozen=True, slots=True)
class Similar:
    """Pairs of words that are similar; a word is similar to itself.

    Attributes:
        vectors: The model and its version; EXACT without vectors.
        pairs: Both orders of each pair.
        facts: Facts about the table, for `metrics.json`.
        note: A printed note on the vectors; empty if none is needed.
    """

    vectors: str
    pairs: frozenset[tuple[str, str]] = frozenset()
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __call__(self, one: str, other: str) -> bool:
        """Return whether two words are similar."""
        return one == other or (one, other) in self.pairs


Exact: Final = Similar(
    EXACT,
    note=f"note: vectors {EXACT}: only equal words match; AMBER's inference.py also matches words "
    f"that {REFERENCE} finds similar, which gives a lower CHAIR (see --similar)",
)


def read_similar(path: Path, words: Words) -> Similar:
    """Read a table of similar pairs.

    Raises:
        EvaluationError: If it can't be read, or was made for another vocabulary.
    """
    table = read_json(path)
    kinds = {"model": str, "version": str, "spacy": str, "words_sha256": str, "pairs": dict}
    for name, kind in kinds.items():
        if type(table.get(name)) is not kind:
            raise EvaluationError(
                f"{path} is not a table of similar words: its {name} is {table.get(name)!r:.40}; "
                f"make one with `{COMMAND}`"
            )
    if table.get("threshold") != THRESHOLD:
        raise EvaluationError(
            f"{path} has the threshold {table.get('threshold')!r:.40}, but AMBER's is {THRESHOLD}; "
            f"make the table with `{COMMAND}`"
        )
    if table["words_sha256"] != words.hash:
        raise EvaluationError(
            f"{path} was made from other words than those of {RELATION}; make it again with "
            f"`{COMMAND}`"
        )
    found = _pairs(path, table["pairs"], words)
    vectors = f"{table['model']} {table['version']}"
    facts = {name: of for name, of in table.items() if name not in ("words", "pairs")}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    pairs = frozenset(found) | {(other, one) for one, other in found}
    return Similar(vectors, pairs, {**facts, "file_sha256": digest}, _note(vectors, found))


def table_of(
    words: Iterable[str], similarity: Callable[[str, str], float]
) -> dict[str, dict[str, float]]:
    """Return the similar pairs of some words, each once: by first word, then second."""
    ordered = sorted(words)
    found: dict[str, dict[str, float]] = {}
    for at, one in enumerate(ordered):
        for other in ordered[at + 1 :]:
            value = similarity(one, other)
            if value > THRESHOLD:
                found.setdefault(one, {})[other] = value
    return found


def table_content(
    words: Words, pairs: dict[str, dict[str, float]], **model: str | list[str]
) -> dict[str, Any]:
    """Return the content of a table.

    Args:
        words: AMBER's vocabulary.
        pairs: The result of `table_of`.
        model: Its name and version, spaCy's version, and the words without a vector.
    """
    return {**model, "threshold": THRESHOLD, "words_sha256": words.hash, "pairs": pairs,
            "words": " ".join(sorted(words.known))}  # fmt: skip


def _pairs(path: Path, table: dict[str, Any], words: Words) -> dict[tuple[str, str], float]:
    """Return the pairs of a table after checking words and similarities."""
    found: dict[tuple[str, str], float] = {}
    for one, others in table.items():
        rows = others.items() if isinstance(others, dict) else [(others, None)]
        for other, value in rows:
            if not (type(value) is float and value > THRESHOLD and {one, other} <= words.known):
                raise EvaluationError(
                    f"{path}: {one!r:.40} and {other!r:.40} with {value!r:.40} are not a pair of "
                    f"AMBER's words above {THRESHOLD}; make the table again with `{COMMAND}`"
                )
            found[one, other] = value
    return found


def _note(vectors: str, pairs: dict[tuple[str, str], float]) -> str:
    """Return a note if the vectors are of another model, or words share one; empty otherwise."""
    same = [pair for pair, value in pairs.items() if value >= SAME]
    parts = []
    if vectors.split(" ")[0] != REFERENCE:
        parts.append(f"AMBER's inference.py uses {REFERENCE}")
    if same:
        one, other = same[0]
        parts.append(
            f"{len(same)} of {len(pairs)} similar pairs share one vector, for example {one} and "
            f"{other}: pruned vectors, such as those of md models, confuse unrelated words"
        )
    return f"note: vectors {vectors}: {'; '.join(parts)}" if parts else ""
