"""The table of similar words: made once by a model that has vectors, and only used as it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eval.errors import EvaluationError
from eval.tasks.amber.folder import read_words
from eval.tasks.amber.similar import Exact, read_similar, table_of
from scripts.data.amber_pairs import main
from tests.eval.tasks.amber.invented import RELATION, write_amber

# At 0, 20 and 40 degrees, whose cosines are 0.94 and 0.77; a ship is a boat, a puppy has none.
ANGLES = {"dog": 0, "animal": 20, "cat": 40, "ship": 90, "boat": 90, "sky": 180, "table": 270}


class Text:
    def __init__(self, word: str) -> None:
        at = ANGLES.get(word)
        self.vector = np.zeros(2)
        if at is not None:
            self.vector = np.array([np.cos(np.radians(at)), np.sin(np.radians(at))])

    @property
    def vector_norm(self) -> float:
        return float(np.linalg.norm(self.vector))

    def similarity(self, other: Text) -> float:
        assert self.vector_norm
        assert other.vector_norm  # spaCy warns
        return float(self.vector @ other.vector)


class Nlp:
    meta = {"lang": "en", "name": "toy_lg", "version": "3.8.0"}  # noqa: RUF012

    def __init__(self, keys: int) -> None:
        self.vocab = SimpleNamespace(vectors=SimpleNamespace(n_keys=keys))

    def __call__(self, word: str) -> Text:
        return Text(word)


@pytest.fixture
def spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in in spaCy's place, which knows two models."""
    module = ModuleType("spacy")
    module.__version__ = "3.8.18"  # type: ignore[attr-defined]

    def load(name: str) -> Nlp:
        if name not in ("toy_lg", "toy_sm"):
            raise OSError(f"[E050] Can't find model '{name}'.\nmore")
        return Nlp(0 if name == "toy_sm" else 7)

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", module)


def make(folder: Path, *more: str, model: str = "toy_lg") -> int:
    amber = write_amber(folder / "data")
    table = str(folder / "pairs.json")
    return main(["--questions", str(amber), "--model", model, "--output", table, *more])


@pytest.mark.usefixtures("spacy")
def test_a_table_is_made_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path) == 0

    assert "3 similar pairs of 16 words in " in capsys.readouterr().out
    content = json.loads((tmp_path / "pairs.json").read_text())
    words = read_words(tmp_path / "data")
    assert content.pop("pairs") == {
        "animal": {"cat": pytest.approx(0.9397, abs=1e-4), "dog": pytest.approx(0.9397, abs=1e-4)},
        "boat": {"ship": pytest.approx(1.0)},
    }
    assert content.pop("words").split() == sorted(words.known)
    assert {"puppy", "TV"} < set(content.pop("without_vector"))
    assert content == {
        "written_by": "EAH amber_pairs", "model": "en_toy_lg", "version": "3.8.0",
        "spacy": "3.8.18", "threshold": 0.8, "words_sha256": words.hash,
    }  # fmt: skip
    similar = read_similar(tmp_path / "pairs.json", words)
    assert similar.vectors == "en_toy_lg 3.8.0"
    assert similar("dog", "animal")
    assert similar("animal", "dog")
    assert similar("TV", "TV")
    assert not similar("dog", "cat")
    assert "AMBER's inference.py uses en_core_web_lg" in similar.note
    assert "1 of 3 similar pairs share one vector, for example boat and ship" in similar.note
    assert similar.facts["spacy"] == "3.8.18"
    assert make(tmp_path) == 0  # over its own


@pytest.mark.usefixtures("spacy")
def test_tables_of_the_references_model_need_no_note(tmp_path: Path) -> None:
    assert make(tmp_path) == 0
    path = tmp_path / "pairs.json"
    content = json.loads(path.read_text())
    del content["pairs"]["boat"]
    path.write_text(json.dumps({**content, "model": "en_core_web_lg"}))

    assert read_similar(path, read_words(tmp_path / "data")).note == ""


@pytest.mark.usefixtures("spacy")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("toy_sm", "--model toy_sm has no word vectors"),
        ("toy", "spaCy can't load --model toy ([E050] Can't find model 'toy'.); install it with"),
    ],
)
def test_models_without_vectors_are_refused(
    tmp_path: Path, model: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path, model=model) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "pairs.json").exists()


@pytest.mark.usefixtures("spacy")
def test_a_file_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.json").write_text("mine")

    assert make(tmp_path) == 2
    assert "pass --overwrite to replace it" in capsys.readouterr().err
    assert make(tmp_path, "--overwrite") == 0


def test_without_spacy_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)

    assert make(tmp_path) == 2
    assert "pip install '.[amber]'" in capsys.readouterr().err


@pytest.mark.usefixtures("spacy")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 0.7}, "has the threshold 0.7, but AMBER's is 0.8"),
        ({"words_sha256": "0"}, "was made from other words than those of relation.json"),
        ({"model": 1}, "is not a table of similar words: its model is 1"),
        ({"pairs": []}, "its pairs is []"),
        ({"pairs": {"dog": {"cat": 0.8}}}, "'dog' and 'cat' with 0.8 are not a pair"),
        ({"pairs": {"dog": {"owl": 0.9}}}, "'dog' and 'owl' with 0.9 are not a pair"),
        ({"pairs": {"dog": {"cat": True}}}, "with True are not a pair"),
        ({"pairs": {"dog": ["cat"]}}, "with None are not a pair"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert make(tmp_path) == 0
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    with pytest.raises(EvaluationError) as error:
        read_similar(path, read_words(tmp_path / "data"))

    assert said in str(error.value)


def test_equal_words_alone_are_similar_without_a_table() -> None:
    words = [*RELATION, "light"]

    assert [(a, b) for a in words for b in words if Exact(a, b)] == [(a, a) for a in words]
    assert Exact.vectors == "exact"


def test_a_pair_at_the_threshold_is_none() -> None:
    """AMBER takes words that are strictly above it."""
    values = {"bee": 0.8, "cat": 0.8000001}

    found = table_of(["ant", "bee", "cat"], lambda one, other: values[other] if one == "ant" else 0)

    assert found == {"ant": {"cat": 0.8000001}}
