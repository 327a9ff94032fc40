"""AMBER's files: read as they are downloaded, and refused in one sentence where they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.amber.folder import CAPTIONS, amber_folder, read_captions_half, read_queries
from tests.eval.tasks.amber.invented import ANNOTATIONS, QUERY, RELATION, write_amber


def query(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "image": "AMBER_1.jpg", "query": QUERY, **changes}]


def annotation(**changes: Any) -> list[dict[str, Any]]:
    truth, hallu = ANNOTATIONS[0]
    row = {"id": 1, "type": "generative", "truth": truth, "hallu": hallu, **changes}
    return [row, *({**row, "id": at} for at in (2, 3))]


def test_the_real_files_are_what_is_known_of_them(real_amber: Path) -> None:
    amber = read_captions_half(real_amber)

    assert [item.id for item in amber.items] == list(range(1, 1005))
    assert {item.question for item in amber.items} == {QUERY}
    assert amber.items[76].image == "AMBER_77.jpg"
    assert (len(amber.words.association), len(amber.words.known)) == (340, 418)
    assert len(amber.words.safe) == 9
    of = amber.annotations.values()
    assert (sum(len(a.truth) for a in of), sum(len(a.hallu) for a in of)) == (5599, 4924)
    assert sum(len({*a.truth}) < len(a.truth) for a in of) == 14
    assert sum(bool({*a.truth} & {*a.hallu}) for a in of) == 61


def test_labels_are_the_annotations(tmp_path: Path) -> None:
    amber = read_captions_half(write_amber(tmp_path))

    assert amber.items[2].label == '{"truth": ["TV"], "hallu": ["table"]}'
    assert len(amber.words.known) == 8 + 8
    other = read_captions_half(write_amber(tmp_path, relation={**RELATION, "owl": []}))
    assert other.words.hash != amber.words.hash


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": None}, "annotations.json does not exist; pass the folder data/ of AMBER"),
        ({"relation": None}, "relation.json does not exist"),
        ({"safe_words": None}, "safe_words.txt does not exist"),
        ({"query_generative": None}, "query_generative.json does not exist"),
        ({"query_generative": "[1"}, "query_generative.json is not complete JSON"),
        ({"query_generative": "{}"}, "query_generative.json, entry 1 is {}"),
        ({"query_generative": []}, "query_generative.json has no queries"),
        ({"query_generative": query(id="1")}, "entry 1 is {'id': '1'"),
        ({"query_generative": query(id=True)}, "a whole number as id"),
        ({"query_generative": query(query="")}, "and text as image and query"),
        ({"query_generative": query() * 2}, "has duplicate ids (1), but each must be unique"),
        ({"query_generative": query(id=4)}, "has no entry of type 'generative' for id 4"),
        ({"annotations": annotation() * 2}, "annotates id 1 twice"),
        ({"annotations": annotation(truth="dog")}, "truth is 'dog' and hallu is ['cat', 'lamp']"),
        ({"annotations": annotation(hallu=None)}, "hallu is None; lists of words"),
        ({"annotations": annotation(truth=["owl"])}, "has owl for id 1, which relation.json lacks"),
        ({"relation": [1]}, "relation.json is damaged, it is not a JSON object"),
        ({"relation": {"dog": "cat"}}, "has 'cat' for 'dog'; a list of words is needed"),
        ({"relation": '{"dog": [], "dog": []}'}, "key 'dog' is duplicated"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError) as error:
        read_captions_half(write_amber(tmp_path, **changes))

    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_safe_words_may_end_in_any_way(tmp_path: Path) -> None:
    for text in ("light\ndog", "light\r\ndog\r\n", "\n light \ndog\n\n"):
        assert read_captions_half(write_amber(tmp_path, safe_words=text)).words.safe == {
            "light", "dog",
        }  # fmt: skip


def test_there_has_to_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is not a folder; pass the folder data/"):
        amber_folder(tmp_path / "none")
    assert read_queries(write_amber(tmp_path), "query_discriminative.json")[0].id == 4


def test_queries_are_found_where_the_repository_has_them(tmp_path: Path) -> None:
    folder = write_amber(tmp_path)
    flat = read_queries(folder, CAPTIONS)
    (folder / "query").mkdir()
    for path in list(folder.glob("query_*.json")):
        path.rename(folder / "query" / path.name)

    assert read_queries(folder, CAPTIONS) == flat
    assert read_captions_half(folder).items
