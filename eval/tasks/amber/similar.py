"""Similar words: which pairs of AMBER's words its word vectors hold for the same thing.

AMBER's scorer asks spaCy for the similarity of two words, of which both are in `relation.json`. So
all that the vectors decide is one set of pairs, which scripts/data/amber_pairs.py writes once.
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
THRESHOLD: Final = 0.8  # of AMBER's inference.py, strictly above
REFERENCE: Final = "en_core_web_lg"
SAME: Final = 1 - 1e-6  # so similar are words that have one vector
COMMAND: Final = "python scripts/data/amber_pairs.py"


@dataclass(frozen=True, slots=True)
class Similar:
    """Pairs of words that are similar; a word is similar to itself.

    Attributes:
        vectors: The model and its version; EXACT without any.
        pairs: Both orders of each pair.
        facts: What the table says of itself, for `metrics.json`.
        note: What has to be known of the vectors, for print.
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
    note=f"note: vectors {EXACT}: only equal words are the same; AMBER's inference.py also takes "
    f"words that {REFERENCE} finds similar, which gives a lower CHAIR (--similar)",
)


def read_similar(path: Path, words: Words) -> Similar:
    """Read a table of similar pairs.

    Raises:
        EvaluationError: If it can't be read, or was made of other words than these.
    """
    table = read_json(path)
    kinds = {"model": str, "version": str, "spacy": str, "words_sha256": str, "pairs": dict}
    for name, kind in kinds.items():
        if type(table.get(name)) is not kind:
            raise EvaluationError(
                f"{path} is no table of similar words, its {name} is {table.get(name)!r:.40}; make "
                f"one with `{COMMAND}`"
            )
    if table.get("threshold") != THRESHOLD:
        raise EvaluationError(
            f"{path} has the threshold {table.get('threshold')!r:.40}, but AMBER takes words above "
            f"{THRESHOLD}; make the table with `{COMMAND}`"
        )
    if table["words_sha256"] != words.hash:
        raise EvaluationError(
            f"{path} was made of other words than those of {RELATION}; make it again with "
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
    """Return the similar pairs of some words, each once, the first word of the two outside."""
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
        words: AMBER's.
        pairs: As `table_of` returns them.
        model: Its name and version, spaCy's version, and the words that it has no vector of.
    """
    return {**model, "threshold": THRESHOLD, "words_sha256": words.hash, "pairs": pairs,
            "words": " ".join(sorted(words.known))}  # fmt: skip


def _pairs(path: Path, table: dict[str, Any], words: Words) -> dict[tuple[str, str], float]:
    """Return the pairs of a table after checking that they are what it says."""
    found: dict[tuple[str, str], float] = {}
    for one, others in table.items():
        rows = others.items() if isinstance(others, dict) else [(others, None)]
        for other, value in rows:
            if not (type(value) is float and value > THRESHOLD and {one, other} <= words.known):
                raise EvaluationError(
                    f"{path}: {one!r:.40} and {other!r:.40} with {value!r:.40} is no pair of "
                    f"AMBER's words above {THRESHOLD}; make the table again with `{COMMAND}`"
                )
            found[one, other] = value
    return found


def _note(vectors: str, pairs: dict[tuple[str, str], float]) -> str:
    """Return what has to be known of vectors: another model, and words that share one."""
    same = [pair for pair, value in pairs.items() if value >= SAME]
    parts = []
    if vectors.split(" ")[0] != REFERENCE:
        parts.append(f"AMBER's inference.py takes {REFERENCE}")
    if same:
        one, other = same[0]
        parts.append(
            f"{len(same)} of {len(pairs)} similar pairs have one and the same vector, {one} and "
            f"{other} for one: pruned vectors, as those of md models, mix unrelated words up"
        )
    return f"note: vectors {vectors}: {'; '.join(parts)}" if parts else ""
