"""AMBER's own numbers on its own files: nouns, counts of every caption, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.evaluate import main
from eval.tasks.amber.folder import read_captions_half, read_words
from eval.tasks.amber.output import COUNTS
from eval.tasks.amber.scoring import nouns, score_words
from eval.tasks.amber.similar import Exact, Similar, read_similar, table_content
from eval.tasks.nltk_words import Nltk

pytestmark = pytest.mark.usefixtures("nltk_data")
# AMBER's names of the counts, in the order of ours.
KEYS = ["chair_score", "chair_num", "safe_cover_score", "safe_cover_num",
        "hallu_cover_score", "hallu_cover_num", "non_hallu_score"]  # fmt: skip
NUMBERS = {"chair": "CHAIR", "cover": "Cover", "hal": "Hal", "cog": "Cog"}


@pytest.fixture
def golden(shared: Path, real_amber: Path) -> dict[str, Any]:
    path = shared / "golden/benchmarks/amber_generative.json"
    if not path.is_file():
        pytest.skip("no reference data: golden/benchmarks/amber_generative.json is not there")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert content["count_keys"] == KEYS
    return content


@pytest.fixture
def md_table(shared: Path, real_amber: Path, tmp_path: Path) -> Path:
    """Write the reference's pairs of the md model as a table of ours."""
    found = json.loads((shared / "golden/benchmarks/amber_similar_pairs_md.json").read_text())
    pairs: dict[str, dict[str, float]] = {}
    for one, other, value in found["pairs"]:
        pairs.setdefault(one, {})[other] = value
    model, version = found["model"].split(" ")[:2]
    content = table_content(
        read_words(real_amber), pairs, model=model, version=version, spacy="3.8.18"
    )
    path = tmp_path / "md.json"
    path.write_text(json.dumps(content))
    return path


def similar_of(backend: str, table: Path, folder: Path) -> Similar:
    return Exact if backend == "exact" else read_similar(table, read_words(folder))


def test_nouns_are_those_that_the_reference_finds(golden: dict[str, Any]) -> None:
    reader = Nltk("a test")

    found = [nouns(item["response"], reader) for item in golden["items"]]

    assert found == golden["nouns"]
    assert sum(map(len, found)) > 1000


@pytest.mark.parametrize("backend", ["exact", "md"])
def test_every_caption_counts_as_in_the_reference(
    golden: dict[str, Any], real_amber: Path, md_table: Path, backend: str
) -> None:
    amber, alike = read_captions_half(real_amber), similar_of(backend, md_table, real_amber)

    found = [
        score_words(of, amber.annotations[item["id"]], amber.words, alike).counts()
        for item, of in zip(golden["items"], golden["nouns"], strict=True)
    ]

    assert found == golden["runs"][backend]["per_item_counts"]


@pytest.mark.parametrize("backend", ["exact", "md"])
def test_totals_and_printed_numbers_are_the_references(
    golden: dict[str, Any], real_amber: Path, md_table: Path, tmp_path: Path, backend: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    expected = golden["runs"][backend]
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(golden["items"][::-1]))  # in any order
    table = [] if backend == "exact" else ["--similar", str(md_table)]

    status = main(
        ["--task", "amber-generative", "--questions", str(real_amber), "--answers", str(answers),
         "--partial", "--output-dir", str(tmp_path), *table]
    )  # fmt: skip

    assert status == 0
    (path,) = (tmp_path / "amber-generative/saved").glob("*/report/metrics.json")
    content = json.loads(path.read_text())
    assert content["reference"]["answers"] == expected["reference"]
    totals = expected["totals"]
    for key, name in zip(KEYS, COUNTS, strict=True):
        start = 0.001 if key.endswith("_num") else 0.0
        assert content["counts"]["answers"][name] + start == pytest.approx(totals[key], abs=1e-9)
    (result,) = content["results"]
    numbers = result["numbers"]
    for name, part, whole in (("chair", 0, 1), ("cover", 2, 3), ("cog", 4, 5)):
        exact = totals[KEYS[part]] / round(totals[KEYS[whole]])
        assert numbers[name]["value"] == pytest.approx(exact, abs=1e-9)
    assert numbers["hal"]["value"] == pytest.approx(1 - totals["non_hallu_score"] / 162, abs=1e-9)
    out = capsys.readouterr().out
    assert "answered: 162 of 1,004 captions" in out
    vectors = "exact" if backend == "exact" else "en_core_web_md 3.8.0"
    assert content["vectors"] == vectors
    assert f"vectors {vectors}" in out.replace("'", "")
    said = "545 of 577 similar pairs share one vector" in " ".join(out.split())
    assert said == (backend == "md")


def test_how_far_equal_words_are_from_vectors_is_printed(
    golden: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The approximation's distance, on invented captions, from a model that is not AMBER's."""
    exact, md = (golden["runs"][name]["reference"] for name in ("exact", "md"))
    distance = {name: round(exact[name] - md[name], 1) for name in NUMBERS.values()}

    with capsys.disabled():
        print(f"\nAMBER, equal words minus en_core_web_md 3.8.0, in points: {distance}")

    assert distance == {"CHAIR": 9.1, "Cover": -4.9, "Hal": 7.4, "Cog": -4.6}


def test_captions_in_a_file_of_both_halves(
    shared: Path, real_amber: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = json.loads((shared / "golden/benchmarks/amber_all.json").read_text())
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(golden["records"]))

    status = main(
        ["--task", "amber-generative", "--questions", str(real_amber), "--answers", str(answers),
         "--partial", "--output-dir", str(tmp_path), "--json", str(tmp_path / "all.json")]
    )  # fmt: skip

    assert status == 0
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["reference"]["answers"] == golden["reference"]["Generative Task"]
    assert content["coverage"] == {"answered": 20, "expected": 1004}
    assert (
        "385 row(s) of answers.json answer other questions and are not scored"
        in capsys.readouterr().err
    )
