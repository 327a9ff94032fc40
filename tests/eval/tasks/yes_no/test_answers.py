"""Saved answers of any tool are matched with the questions, or refused with a sentence."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.saved import NO_MODEL
from eval.tasks.yes_no.answers import UNNAMED, read_answers

DOG, CAT = "Is there a dog in the image?", "Is there a cat in the image?"
IMAGE = "COCO_val2014_000000000001.jpg"
QUESTIONS = [Item(1, IMAGE, DOG, "yes", "random"), Item(5, IMAGE, CAT, "no", "random")]
OTHERS = [Item(1, "b.jpg", DOG, "no", "popular")]
TEXTS = ["Yes", "No"]


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts_of(
    tmp_path: Path, rows: Sequence[dict[str, Any]], items: Sequence[Item] = QUESTIONS, **keys: str
) -> list[str]:
    """Return the answers of the only arm of a file with these rows."""
    found = read_answers(written(tmp_path / "a.jsonl", rows), items, **keys)
    ((arm, answers),) = found.arms.items()
    assert arm == UNNAMED
    assert [answer.item for answer in answers] == list(items)
    return [answer.text for answer in answers]


def by_id(**more: Any) -> list[dict[str, Any]]:
    return [{"question_id": item.id, "answer": text, **more}
            for item, text in PAIRS]  # fmt: skip


PAIRS = list(zip(QUESTIONS, TEXTS, strict=True))
LLAVA = [{"question_id": i.id, "prompt": i.question, "text": t, "answer_id": "x",
          "model_id": "m", "metadata": {}} for i, t in PAIRS]  # fmt: skip
VCD = [{"question_id": i.id, "prompt": i.question, "text": t, "model_id": "m", "image": i.image,
        "metadata": {}} for i, t in PAIRS]  # fmt: skip
PAI = [{"query": i.question, "label": int(i.label == "yes"), "ans": t,
        "question": f"A chat. USER: <ImageHere> {i.question} ASSISTANT:", "file_path": "eval"}
       for i, t in PAIRS]  # fmt: skip
POPES = [{"question": i.question, "answer": t} for i, t in PAIRS]
LMMS = [{"doc_id": n, "target": i.label, "resps": [["raw"]], "filtered_resps": [t],
         "doc": {"question_id": str(i.id), "question": i.question, "answer": i.label,
                 "image_source": i.image[:-4], "category": i.part}}
        for n, (i, t) in enumerate(PAIRS)]  # fmt: skip
# As lmms-eval 0.7.3 writes them with --log_samples, less hashes and counts.
SAMPLES = [{"doc_id": n, "target": i.label, "filtered_resps": t, "pope_accuracy": {"score": 1.0},
            "input": f"{i.question}\nAnswer the question using a single word or phrase."}
           for n, (i, t) in enumerate(PAIRS)]  # fmt: skip
TABLE = [{"index": n, "question": i.question, "answer": i.label.title(), "category": i.part,
          "prediction": t} for n, (i, t) in enumerate(PAIRS)]  # fmt: skip
OLD = [{"method": UNNAMED, "pope_type": i.part, "question_id": i.id, "image": i.image,
        "question": i.question, "label": i.label, "answer": t, "finished": True}
       for i, t in PAIRS]  # fmt: skip
OURS = [Answer(i, t).as_record() for i, t in PAIRS]
FILES = {
    "LLaVA": LLAVA, "PAI": PAI, "lmms-eval samples": LMMS, "VLMEvalKit table": TABLE,
    "version 0.1": OLD, "answers of an arm": OURS, "POPE's own, in order": POPES,
    "rows with 'answer'": by_id(),
}  # fmt: skip


@pytest.mark.parametrize("layout", FILES)
def test_the_layouts_of_tools_are_read_and_named(tmp_path: Path, layout: str) -> None:
    assert texts_of(tmp_path, FILES[layout]) == TEXTS
    facts = read_answers(tmp_path / "a.jsonl", QUESTIONS).facts
    assert facts["layout"] == f"{layout} (JSON lines)"
    assert facts["file"] == "a.jsonl"


@pytest.mark.parametrize(
    "rows",
    [
        VCD,
        [{**row, "filtered_resps": [[row["filtered_resps"][0]]]} for row in LMMS],
        [{k: v if k != "resps" else row["filtered_resps"] for k, v in row.items()
          if k != "filtered_resps"} for row in LMMS],
        [{**row, "doc": {"question": row["doc"]["question"]}} for row in reversed(LMMS)],
        SAMPLES,
        list(reversed(SAMPLES)),
        [{**SAMPLES[0], "resps": ["Yes "]}, SAMPLES[1]],
        [{**row, "doc_id": row["doc_id"] + 60} for row in SAMPLES],
        list(reversed(TABLE)),
        [{**row, "index": row["index"] + 1} for row in reversed(TABLE)],
        [{**row, "image": IMAGE} for row in reversed(POPES)],
        [{"id": "1", "response": "Yes"}, {"id": 5, "response": "No"}],
        [{"qid": 5, "answer": "No"}, {"qid": 1, "answer": "Yes"}],
        [{"questionId": 5, "answer": "No"}, {"questionId": 1, "answer": "Yes"}],
        [{"ID": 5, "answer": "No"}, {"ID": 1, "answer": "Yes"}],
        [{"idx": 1, "answer": "No"}, {"idx": 0, "answer": "Yes"}],
        [{"id": "0001", "response": "Yes"}, {"id": "5.0", "response": "No"}],
        [{**row, "question_id": float(row["question_id"]), "image_id": "1.0"} for row in by_id()],
        [{**row, "index": f"{row['index']}.0"} for row in reversed(TABLE)],
        [{**row, "answer_gt": "yes", "output_tokens": 3, "model_name": "x"} for row in by_id()],
    ],
)  # fmt: skip
def test_variants_of_layouts_are_read(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert texts_of(tmp_path, rows) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.csv.gz"])
def test_answers_are_read_from_any_table_and_encoding(
    tmp_path: Path, name: str, encoding: str
) -> None:
    rows = [{"question_id": row["question_id"], "answer": row["answer"]} for row in by_id()]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if "tsv" in name else ",")
    writer.writeheader()
    writer.writerows(rows)
    text = {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows), "a.json": json.dumps(rows)}
    content = text.get(name, file.getvalue()).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    (answers,) = read_answers(tmp_path / name, QUESTIONS).arms.values()

    assert [answer.text for answer in answers] == TEXTS


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        ([{"question_id": i.id, "said": t} for i, t in PAIRS],
         {"answer_key": "said"}),
        ([{"n": i.id, "question_id": 0, "answer": t} for i, t in PAIRS],
         {"id_key": "n"}),
        ([{"question_id": i.id, "text": i.question, "label": i.label, "answer": t}
          for i, t in PAIRS], {"answer_key": "answer"}),
        ([{"question_id": i.id, "out": {"text": [t]}, "answer": "?", "text": "!"}
          for i, t in PAIRS], {"answer_key": "out.text"}),
    ],
)  # fmt: skip
def test_keys_may_be_given(
    tmp_path: Path, rows: list[dict[str, Any]], keys: dict[str, str]
) -> None:
    assert texts_of(tmp_path, rows, **keys) == TEXTS
    facts = read_answers(tmp_path / "a.jsonl", QUESTIONS, **keys).facts
    assert {name: facts[name] for name in keys} == keys


def test_a_given_key_is_taken_in_a_known_layout_too(tmp_path: Path) -> None:
    assert texts_of(tmp_path, TABLE, answer_key="answer") == ["Yes", "No"]
    found = read_answers(tmp_path / "a.jsonl", QUESTIONS, answer_key="answer")
    assert found.facts["layout"] == "VLMEvalKit table, 'answer' (JSON lines)"


def test_answers_by_id_may_come_in_any_order(tmp_path: Path) -> None:
    assert texts_of(tmp_path, list(reversed(by_id()))) == TEXTS


def test_answers_of_several_methods_and_types_keep_both(tmp_path: Path) -> None:
    items = [*QUESTIONS, *OTHERS]
    rows = [
        {"method": method, "pope_type": item.part, "question_id": item.id,
         "answer": f"{method} {item.part} {item.id}"}
        for item in reversed(items)
        for method in ("baseline", "eah")
    ]  # fmt: skip

    found = read_answers(written(tmp_path / "a.jsonl", rows), items)

    assert found.model == NO_MODEL
    assert found.arms == {
        method: [Answer(item, f"{method} {item.part} {item.id}") for item in items]
        for method in ("baseline", "eah")
    }


@pytest.mark.parametrize(
    ("names", "model", "arms"),
    [
        (["m-7b"], "m-7b", [UNNAMED]),
        (["m-7b", "m-13b"], NO_MODEL, ["m-7b", "m-13b"]),
        (["org/m"], "org/m", [UNNAMED]),
        (["org/m-7b", "org/m-13b"], NO_MODEL, ["org-m-7b", "org-m-13b"]),
        (["llava-1.5/eah"], "llava-1.5", ["eah"]),
        (["llava-1.5/eah@layers=2", "llava-1.5/baseline"], "llava-1.5",
         ["eah@layers=2", "baseline"]),
    ],
)  # fmt: skip
def test_each_model_of_a_file_is_an_arm(
    tmp_path: Path, names: list[str], model: str, arms: list[str]
) -> None:
    rows = [{**row, "model_id": name} for name in names for row in LLAVA]

    found = read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)

    assert (found.model, list(found.arms)) == (model, arms)
    assert all([a.text for a in of] == TEXTS for of in found.arms.values())


def test_what_an_answer_of_ours_holds_besides_its_text_is_kept(tmp_path: Path) -> None:
    cut = [Answer(item, "Yes, there is", finished=False) for item in QUESTIONS]
    path = written(tmp_path / "answers.jsonl", [answer.as_record() for answer in cut])

    assert list(read_answers(path, QUESTIONS).arms.values()) == [cut]


def test_parts_that_are_not_asked_for_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*by_id(category="Random"), *by_id(category="advers"), *by_id(category="popular")]

    assert texts_of(tmp_path, rows) == TEXTS

    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "has answers to other parts, which are not scored: advers (2 rows), popular (2 rows)"
        in line
    )


def test_a_row_may_be_of_several_parts(tmp_path: Path) -> None:
    """VLMEvalKit's copy of POPE has a question that several types share once."""
    items = [Item(3, IMAGE, DOG, "yes", "random"), Item(7, IMAGE, DOG, "yes", "popular")]
    rows = [{**TABLE[0], "category": "popular,random", "prediction": "Yes!"}]

    assert texts_of(tmp_path, rows, items) == ["Yes!"] * 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no answers"),
        ([{"question_id": 1, "answer": "Yes"}], r"has no answer to question_id 5 \(1 in total\)"),
        ([{"question_id": i, "answer": "Yes"} for i in (1, 5, 9)], "question_id 9, which the"),
        ([{"question_id": i, "answer": "Yes"} for i in (1, 5, "5")], "id 5 more than once"),
        ([{"question_id": 1, "words": "Yes"}],
         "no key looks like the model's answer; pass the key"),
        ([{"answer": "Yes"}], "1 answers without question_id, but there are 2 questions"),
        ([{"question": "?", "answer": "Yes"}] * 2, r"line 1 answers '\?', but question 1 is"),
        ([{**row, "question": DOG} for row in by_id()], "line 2 answers 'Is there a dog .*tion 5"),
        ([{**row, "image": "2.jpg"} for row in by_id()], "about picture '2.jpg', but question 1"),
        ([{**row, "image_id": 2} for row in by_id()], "line 1 is about picture 2, but question 1"),
        ([{**row, "image_id": 2.0} for row in by_id()], "line 1 is about picture 2, but question"),
        ([{**row, "image": ["2.jpg"]} for row in by_id()], "line 1 is about picture '2.jpg'"),
        ([{**row, "image": {"path": "2.jpg"}} for row in by_id()], "is about picture '2.jpg'"),
        ([{**row, "images": ["2.jpg"]} for row in by_id()], "line 1 is about picture '2.jpg'"),
        ([{**row, "Question": DOG} for row in by_id()], "line 2 answers 'Is there a dog"),
        ([{**row, "instruction": DOG} for row in by_id()], "line 2 answers 'Is there a dog"),
        ([{**row, "input": DOG} for row in by_id()], "line 2 answers 'Is there a dog"),
        ([{**row, "prompt": [DOG]} for row in by_id()], "line 2 answers 'Is there a dog"),
        ([{**row, "messages": [{"role": "user", "content": DOG}]} for row in by_id()],
         "line 2 answers 'user Is there a dog"),
        ([{**row, "file_name": "2.jpg"} for row in by_id()], "line 1 is about picture '2.jpg'"),
        ([{**row, "modelAnswer": "x"} for row in by_id()], "'answer' and 'modelAnswer' could each"),
        ([{**row, "result": "x"} for row in by_id()], "'answer' and 'result' could each"),
        ([{**row, "category": "coco"} for row in by_id()], "only to coco .*or rename that key"),
        ([{**TABLE[0], "index": ""}, TABLE[1]], "line 1: 'index' is ''.* whole number is needed"),
        ([{**row, "model": m} for m in "ab" for row in by_id()][:3], "the answers of b to random"),
        ([{**row, "text": "Yes"} for row in by_id()],
         "'answer' and 'text' could each .*--answer-key"),
        ([{**row, "prediction": "x"} for row in by_id()], "'answer' and 'prediction' could each"),
        ([{**row, "model_output": "x"} for row in by_id()], "'answer' and 'model_output' could"),
        ([{**LLAVA[0], "answer": "Yes"}], "'text' and 'answer' could each be"),
        ([by_id()[0], {"answer": "No"}], r"line 2 has no question id, but 1 of 2 rows have one"),
        ([{"question_id": None, "answer": "a"}], "'question_id' is None; a question's id must"),
        ([{"question_id": 1.5, "answer": "a"}], "'question_id' is 1.5; a question's id must"),
        ([{"question_id": [1], "answer": "a"}], r"'question_id' is \[1\]; a question's id must"),
        ([{"question_id": {}, "answer": "a"}], r"'question_id' is \{\}; a question's id must"),
        ([{"question_id": True, "answer": "a"}], "'question_id' is True; a question's id must"),
        ([{"question_id": "", "answer": "a"}], "'question_id' is ''; a question's id must"),
        ([{"question_id": 1, "answer": None}], "'answer' is None, not text"),
        ([{"question_id": 1, "answer": 1}], "'answer' is 1, not text"),
        ([by_id()[0], {"question_id": 5, "answer": ["a", "b"]}], r"line 2: 'answer' is \['a', 'b'"),
        ([by_id()[0], {"question_id": 5}], "line 2: 'answer' is None, not text"),
        ([{**LMMS[0], "filtered_resps": []}], r"'filtered_resps' is \[\], not text"),
        ([{**row, "method": ["a"]} for row in by_id()],
         r"'method' is \['a'\], but a name must be text"),
        ([{**by_id()[0], "method": "a"}, by_id()[1]],
         "names the model or method in some rows only"),
        ([{**row, "method": m} for row in by_id() for m in "/."],
         "names can't be used for folders: /, .*; rename"),
        ([{**by_id()[0], "part": "random"}, by_id()[1]], "does not name the part of some answers"),
    ],
)  # fmt: skip
def test_answers_that_do_not_match_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)


@pytest.mark.parametrize(
    ("question", "picture"),
    [
        (DOG + "\nAnswer the question using a single word or phrase.", IMAGE),
        ("<image>\n" + DOG, "COCO_val2014_000000000001"),
        (" is  there a dog\nin the image?  Please answer this question with one word.", 1),
        (DOG, "val2014\\COCO_val2014_000000000001.jpg"),
        (DOG, "/data/val2017/000000000001.jpg"),
        (DOG, "iVBORw0KGgo" * 1000),
    ],
)
def test_prompts_around_a_question_and_names_of_its_picture_are_known(
    tmp_path: Path, question: str, picture: int | str
) -> None:
    rows = [{"question_id": 1, "answer": "Yes", "question": question, "image": picture}]

    assert texts_of(tmp_path, rows, QUESTIONS[:1]) == ["Yes"]


def test_questions_without_their_label_are_compared_under_a_given_key(tmp_path: Path) -> None:
    rows = [{**row, "text": DOG} for row in by_id()]
    with pytest.raises(EvaluationError, match=r"line 2 answers 'Is there a dog .*question 5"):
        texts_of(tmp_path, rows, answer_key="answer")
    assert texts_of(tmp_path, [{**r, "text": "x"} for r in by_id()], answer_key="answer") == TEXTS


def test_a_question_that_is_asked_twice_is_matched_in_order(tmp_path: Path) -> None:
    items = [*QUESTIONS, Item(9, IMAGE, DOG, "yes", "random")]
    rows = [{"image": i.image, "question": i.question, "answer": t}
            for i, t in zip([items[1], items[0], items[2]], "NAB", strict=True)]  # fmt: skip

    assert texts_of(tmp_path, rows, items) == ["A", "N", "B"]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question_id": 1, "answer": "Yes", "answer": "No"}\n')
    with pytest.raises(EvaluationError, match="key 'answer' is duplicated in one object"):
        read_answers(tmp_path / "a.jsonl", QUESTIONS)


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"question_id": {"9" * 5000}, "answer": "Yes"}}\n')

    with pytest.raises(EvaluationError, match=r"can't be read .*is it the right file"):
        read_answers(tmp_path / "a.jsonl", QUESTIONS)


@pytest.mark.parametrize("flag", ["answer", "id"])
def test_a_given_key_that_a_row_lacks_is_named(tmp_path: Path, flag: str) -> None:
    path = written(tmp_path / "a.jsonl", by_id())
    keys: dict[str, Any] = {f"{flag}_key": "mine"}

    with pytest.raises(
        EvaluationError, match=f"--{flag}-key mine is not a key of .*line 1; pass one of its keys"
    ):
        read_answers(path, QUESTIONS, **keys)


def test_answers_without_a_type_need_one_type(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"question_id": 1, "answer": "Yes"}])

    with pytest.raises(EvaluationError, match="pass one --pope-type"):
        read_answers(path, [*QUESTIONS, *OTHERS])


def test_an_answer_of_another_type_is_not_taken(tmp_path: Path) -> None:
    rows = [{"pope_type": "popular", "question_id": i, "answer": "Yes"} for i in (1, 5)]

    with pytest.raises(EvaluationError, match=r"no answers to random, only to popular \(2 rows\)"):
        read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)


def test_samples_without_documents_are_joined_by_their_row_and_checked(tmp_path: Path) -> None:
    swapped = [{**row, "doc_id": 1 - row["doc_id"]} for row in SAMPLES]
    with pytest.raises(EvaluationError, match=r"line 2 answers 'Is there a cat .*, but question 1"):
        texts_of(tmp_path, swapped)
    with pytest.raises(EvaluationError, match="has 1 answers without question_id, but there are"):
        texts_of(tmp_path, SAMPLES[:1])
    with pytest.raises(EvaluationError, match="line 2: doc_id 0 is duplicated, but rows"):
        texts_of(tmp_path, [SAMPLES[0], {**SAMPLES[1], "doc_id": 0}])
    with pytest.raises(EvaluationError, match=r"does not name the part of the answers"):
        texts_of(tmp_path, SAMPLES, [*QUESTIONS, *OTHERS])


def test_samples_of_mme_say_their_category_and_picture(tmp_path: Path) -> None:
    def row(number: int, key: str, part: str, picture: str, question: str) -> dict[str, Any]:
        asked = {"question_id": f"{part}/{picture}", "category": part, "score": 1.0}
        return {"doc_id": number, "target": "Yes", "filtered_resps": part, "input": question,
                key: asked}  # fmt: skip

    items = [Item(1, "existence/1.jpg", DOG, "yes", "existence"),
             Item(1, "code_reasoning/2.png", CAT, "yes", "code_reasoning")]  # fmt: skip
    rows = [row(0, "mme_cognition_score", "code_reasoning", "2.png", CAT),
            row(1, "mme_perception_score", "existence", "1.jpg", DOG)]  # fmt: skip

    assert texts_of(tmp_path, rows, items) == ["existence", "code_reasoning"]
    rows[1]["mme_perception_score"]["question_id"] = "existence/3.jpg"
    with pytest.raises(EvaluationError, match=r"is about picture 'existence/3.jpg', but question"):
        texts_of(tmp_path, rows, items)
