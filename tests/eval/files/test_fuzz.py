"""Fuzz of every reader: the result is an object or an error of ours, never another exception.

Valid files are changed as people and disks change them: any value of JSON in the place of another,
keys deleted, lines doubled, bytes flipped or cut off. EAH_TEST_FUZZ=N tries N times as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.files.coco import read_captions as read_coco_captions
from eval.files.coco import read_instances
from eval.run.arm_settings import read_value
from eval.run.arms import expand
from eval.run.recorded import read_run
from eval.run.settings import merge
from eval.tasks.chair import truth
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.image_lists import read_ids
from eval.tasks.pope.questions import read_questions
from eval.tasks.pope.task import PopeSettings
from eval.tasks.yes_no.answers import read_answers
from models.errors import ModelError
from models.settings import read_yaml
from tests.eval.small_runs import right, write_run

ITEMS = [Item(i, f"{i}.jpg", f"Is there a thing {i}?", "yes", "random") for i in (1, 2, 3)]
QUESTIONS = [{"question_id": i.id, "image": i.image, "text": i.question, "label": i.label}
             for i in ITEMS]  # fmt: skip
FOUND = {"layer": 1, "head": 3, "sinks": 2, "image_tokens": 64, "saturated": False}
OWN = [{"id": i.id, "image": i.image, "question": i.question, "label": i.label, "part": i.part,
        "answer": "Yes.", "finished": True, "p_yes": 0.5, "eah": [FOUND]}
       for i in ITEMS]  # fmt: skip
LLAVA = [{"question_id": i.id, "prompt": i.question, "text": "Yes.", "model_id": "m"}
         for i in ITEMS]  # fmt: skip
LMMS = [{"doc_id": n, "doc": {"question_id": i.id, "question": i.question}, "target": "yes",
         "resps": [["Yes."]], "filtered_resps": ["Yes."]} for n, i in enumerate(ITEMS)]  # fmt: skip
TABLE = [{"index": n, "question": i.question, "answer": "yes", "prediction": "Yes.",
          "category": "random"} for n, i in enumerate(ITEMS)]  # fmt: skip
CAPTIONS = [{"image_id": i.id, "caption": "A dog.", "method": "eah"} for i in ITEMS]
COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "categories": [{"id": 3, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": 3, "caption": "A dog."}],
}


def answers(path: Path) -> object:
    return read_answers(path, ITEMS)


def questions(path: Path) -> object:
    return read_questions(path, "random")


READERS: dict[str, tuple[Callable[[Path], object], Any]] = {
    "questions": (questions, QUESTIONS),
    "own": (answers, OWN),
    "llava": (answers, LLAVA),
    "lmms": (answers, LMMS),
    "table": (answers, TABLE),
    "captions": (read_captions, CAPTIONS),
    "results": (read_captions, {"results": CAPTIONS}),
    "map": (read_captions, {"1": "A dog.", "2": ["A cat.", {"caption": "x"}]}),
    "img_to_eval": (read_captions, {"imgToEval": {"1": {"caption": "A dog."}}}),
    "ids": (read_ids, [1, "2", "kitchen.jpg"]),
    "id_rows": (read_ids, CAPTIONS),
    "instances": (read_instances, COCO),
    "coco_captions": (read_coco_captions, COCO),
    "truth": (truth.read, {"analyzer": None, "inputs": {}, "objects": {"1": ["dog"]}}),
}
FEW = settings(
    max_examples=25 * int(os.environ.get("EAH_TEST_FUZZ", "1")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats()
    | st.sampled_from(["", " ", "\0", "\ud800", "1", "001", "1.0", "-1", "x" * 300, "../x", "yes"])
)  # fmt: skip
values = scalars | st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a value."""
    inner: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value)
    return [(), *((key, *rest) for key, of in inner for rest in places(of))]


@st.composite
def changed(draw: st.DrawFn, valid: Any) -> Any:
    """Return a value of JSON with one or two of its values replaced, deleted or doubled."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from(places(value))) or (None,)
        if last is None:
            return draw(values)
        holder = value
        for key in above:
            holder = holder[key]
        what = draw(st.sampled_from(["replace", "replace", "replace", "delete", "double"]))
        if what == "delete":
            del holder[last]
        elif what == "double" and isinstance(holder, list):
            holder.append(holder[last])
        else:
            holder[last] = draw(values)
    return value


@st.composite
def damaged(draw: st.DrawFn, valid: Any) -> bytes:
    """Return the bytes of a file: JSON or JSON lines, in some encoding, cut or with other bytes."""
    value = draw(changed(valid)) if draw(st.booleans()) else valid
    as_lines = isinstance(value, list) and draw(st.booleans())
    rows = value if as_lines else [value]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
    )
    if draw(st.integers(0, 3)) == 0:
        content = content[: draw(st.integers(0, len(content)))]
    for _ in range(draw(st.integers(0, 3)) if content else 0):
        at = draw(st.integers(0, len(content) - 1)) if content else 0
        content = content[:at] + draw(st.binary(max_size=2)) + content[at + 1 :]
    return content


def ours_or_nothing(read: Callable[[], object]) -> None:
    """Call a reader; what it raises is an error of ours, without words of Python's own."""
    said = ""
    try:
        read()
    except (EvaluationError, ModelError) as error:
        said = str(error)
    for words in ("object is not", "has no attribute", "__init__", "argument "):
        assert words not in said


@pytest.mark.parametrize("name", READERS)
def test_files_of_rows(name: str, tmp_path: Path) -> None:
    read, valid = READERS[name]

    @FEW
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        path = tmp_path / data.draw(st.sampled_from(["x.json", "x.jsonl", "x.csv", "x.tsv", "x"]))
        path.write_bytes(data.draw(damaged(valid)))
        ours_or_nothing(lambda: read(path))

    fuzz()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [
    b"", b"[" * 100_000, b"9" * 5000, b"NaN", b"null", b"[[1]]", b'{"a": 1, "a": 2}', b"\x1f\x8b",
    b'{"imgToEval": [1]}', b'{"image_id": 1e999, "caption": "x"}', b"\0\0", b'a,b\n"1', b"\xff\xfe",
    b'{"annotations": [1], "images": [], "categories": []}', b"image_id\n", b'"\\ud800"',
])  # fmt: skip
def test_found_files(name: str, content: bytes, tmp_path: Path) -> None:
    for suffix in ("json", "csv"):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(content)
        ours_or_nothing(lambda path=path: READERS[name][0](path))  # type: ignore[misc]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("fuzz") / "x", {"eah": right})


@pytest.mark.parametrize("name", ["run.json", "arm.json", "answers.jsonl", "costs.jsonl"])
def test_run_folders(name: str, run: Path) -> None:
    path = run / name if name == "run.json" else run / "arms/eah" / name
    valid = path.read_bytes()
    lines = name.endswith("l")
    content = [json.loads(line) for line in valid.splitlines()] if lines else json.loads(valid)

    @FEW
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        path.write_bytes(data.draw(damaged(content)))
        ours_or_nothing(lambda: read_run(run).total)

    try:
        fuzz()
    finally:
        path.write_bytes(valid)


yaml_texts = st.text(max_size=60) | st.sampled_from([
    "pope_type: []", "seed: [1", "1: 2", "? [a]\n: 1", "seed: 1\nseed: 2", "a: &x [*x]", "- a",
    "seed: 2020-13-45", "seed: !!binary x", "layers: [0, x]", "<<: 1", "seed: .nan",
    "repeats: 1e99",
    "data_path: \"\\0\"", "data_path: ~nobody/x", f"limit: {10**400}", "method: {}",
    "method: [[a]]",
])  # fmt: skip


@FEW
@given(yaml_texts, st.sampled_from(["utf-8", "latin-1", "utf-16"]))
@example("pope_type: []", "utf-8")
@example("data_path: ~nobody/x", "utf-8")
def test_yaml_settings(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode(encoding, "replace"))
    ours_or_nothing(lambda: merge(PopeSettings(), read_yaml(path), "x"))


@FEW
@given(st.text(max_size=30) | st.sampled_from(["0-99999999", "1e999", "9" * 5000, "[" * 3000]))
@example("0-99999999")
def test_settings_of_arms(text: str) -> None:
    ours_or_nothing(lambda: read_value(text))
    ours_or_nothing(lambda: expand(["eah"], [text, f"layers={text}"]))


def test_a_grid_without_end_is_refused() -> None:
    numbers = ",".join(map(str, range(1000)))
    with pytest.raises(EvaluationError, match="a run has at most 1000"):
        expand(["eah"], [f"layers={numbers}", f"head={numbers}"])
