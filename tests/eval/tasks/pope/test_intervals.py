"""POPE's intervals and differences: what is printed and written, recomputed in another way."""

from __future__ import annotations

import json
import random
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.pope_eval import main
from eval.run.folder import RunFolder
from eval.stats.intervals import Interval, McNemar
from eval.tasks.pope.pope_intervals import Difference, differences_of, intervals_of
from eval.tasks.pope.pope_report import report_of
from eval.tasks.pope.pope_run import report
from eval.tasks.pope.scoring import score_answers
from eval.tasks.pope.settings import PopeSettings

Row = dict[str, Any]
TYPES = ("random", "popular", "adversarial")
METHODS = ("baseline", "eah", "other")
PICTURES = 80


def rows_of(methods: tuple[str, ...] = METHODS, types: tuple[str, ...] = TYPES) -> list[Row]:
    """Return answers as a run records them.

    Every type asks about the same three objects that are there, answered alike each time, and about
    three of its own that are not. One answer in twenty says neither yes nor no.
    """
    rng = random.Random(5)
    rows = []
    for number in range(PICTURES):
        easy = rng.random() < 0.7  # for all methods
        for method in methods:
            present = [answer("yes", easy, rng) for _ in range(3)]
            for kind in types:
                absent = [answer("no", easy, rng) for _ in range(3)]
                for i, text in enumerate(present + absent):
                    thing = f"thing{i}" if i < 3 else f"{kind}{i}"
                    rows.append(
                        {
                            "method": method,
                            "pope_type": kind,
                            "question_id": 6 * number + i + 1,
                            "image": f"{PICTURES - number:03}.jpg",
                            "question": f"Is there a {thing} in the image?",
                            "label": "yes" if i < 3 else "no",
                            "answer": text,
                        }
                    )
    return rows


def answer(label: str, easy: bool, rng: random.Random) -> str:
    if rng.random() < 0.05:
        return "cannot tell"
    right = rng.random() < (0.95 if easy else 0.5)
    return label if right else {"yes": "no", "no": "yes"}[label]


def confusion(rows: list[Row], method: str, kind: str) -> np.ndarray[Any, Any]:
    """Return asked, right, tp, said yes, is yes and unknown by picture, by the strict parser."""
    table = np.zeros((PICTURES, 6))
    for row in rows:
        if (row["method"], row["pope_type"]) == (method, kind):
            said, label = row["answer"], row["label"]
            table[int(row["image"][:3]) - 1] += [
                1,
                said == label,
                said == label == "yes",
                said == "yes",
                label == "yes",
                said == "cannot tell",
            ]
    return table


def textbook(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    asked, right, tp, said_yes, is_yes, unknown = table.sum(axis=0)
    f1 = 2 * tp / (said_yes + is_yes)
    return np.array([right / asked, tp / said_yes, tp / is_yes, f1, said_yes / asked,
                     unknown / asked])  # fmt: skip


NAMES = ["accuracy", "precision", "recall", "f1", "yes_ratio", "unknown_rate"]


def resampled(rows: list[Row], methods: tuple[str, ...] = METHODS) -> np.ndarray[Any, Any]:
    """Return metrics of 4,000 resamples: (resamples, methods, types and mean, metrics)."""
    tables = [[confusion(rows, method, kind) for kind in TYPES] for method in methods]
    rng = np.random.default_rng(77)
    found = []
    for _ in range(4000):
        drawn = rng.integers(0, PICTURES, PICTURES)
        each = np.array([[textbook(table[drawn]) for table in arm] for arm in tables])
        found.append(np.concatenate([each, each.mean(axis=1, keepdims=True)], axis=1))
    return np.array(found)


def close(interval: Row, samples: np.ndarray[Any, Any]) -> bool:
    low, high = np.percentile(samples, [2.5, 97.5])
    slack = 0.08 * (high - low)  # what 4,000 resamples leave open
    return bool(abs(interval["low"] - low) < slack and abs(interval["high"] - high) < slack)


def written(rows: list[Row], folder: Path, parser: str = "strict") -> Row:
    resolved = {
        "protocol": "opera", "dtype": "float32", "device": "cpu", "questions": {},
        "decoding": {"do_sample": False, "num_beams": 1, "max_new_tokens": 10},
    }  # fmt: skip
    with RunFolder(folder, "run", resolved) as run:
        report(run, rows, PopeSettings(model="tiny-llava", parser=parser))
    metrics: Row = json.loads((run.path / "metrics.json").read_text())
    return metrics


def test_metrics_json_equals_a_recomputation(tmp_path: Path) -> None:
    rows = rows_of()
    samples = resampled(rows)

    metrics = written(rows, tmp_path)

    assert metrics["parser"] == "strict"
    assert metrics["bootstrap"]["pictures"] == PICTURES
    values = {}
    for result in metrics["results"]:
        m, t = METHODS.index(result["method"]), TYPES.index(result["pope_type"])
        for i, name in enumerate(NAMES):
            interval = result["intervals"][name]
            assert interval["value"] == result["scores"]["strict"][name]
            assert close(interval, samples[:, m, t, i]), (result["method"], name)
            values[m, t, i] = interval["value"]
    assert [mean["method"] for mean in metrics["means"]] == list(METHODS)
    for m, mean in enumerate(metrics["means"]):
        for i, name in enumerate(NAMES):
            expected = sum(values[m, t, i] for t in range(3)) / 3
            assert mean["intervals"][name]["value"] == pytest.approx(expected, rel=1e-12)
            assert close(mean["intervals"][name], samples[:, m, 3, i]), (mean["method"], name)
    assert [(d["method"], d["baseline"], d["pope_type"]) for d in metrics["differences"]] == [
        (method, "baseline", kind) for method in METHODS[1:] for kind in (*TYPES, "mean")
    ]
    kinds = (*TYPES, "mean")
    for found in metrics["differences"]:
        m, t = METHODS.index(found["method"]), kinds.index(found["pope_type"])
        for name, i in (("accuracy", 0), ("f1", 3)):
            assert close(found[name], samples[:, m, t, i] - samples[:, 0, t, i]), found


def test_values_are_the_scores_of_the_chosen_parser() -> None:
    rows = rows_of()

    for parser in ("opera", "strict"):
        found = intervals_of(rows, parser)["eah", "popular"]
        mine = [r for r in rows if (r["method"], r["pope_type"]) == ("eah", "popular")]
        expected = score_answers([r["answer"] for r in mine], [r["label"] for r in mine], parser)
        assert {name: i.value for name, i in found.items()} == {
            name: getattr(expected, name) for name in NAMES
        }


def test_mcnemar_counts_a_question_that_every_type_asks_once() -> None:
    rows = rows_of(("baseline", "eah"))
    found = {
        difference.pope_type: difference.mcnemar for difference in differences_of(rows, "strict")
    }

    for kind in (*TYPES, "mean"):
        right: dict[str, set[str]] = {"baseline": set(), "eah": set()}
        for row in rows:
            if kind in (row["pope_type"], "mean") and row["answer"] == row["label"]:
                right[row["method"]].add(row["image"] + row["question"])
        gained = len(right["eah"] - right["baseline"])
        lost = len(right["baseline"] - right["eah"])
        tail = sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))
        assert (found[kind].gained, found[kind].lost) == (gained, lost)
        assert found[kind].p_value == pytest.approx(min(1, 2 * tail / 2 ** (gained + lost)))
    assert found["mean"].gained < sum(found[kind].gained for kind in TYPES)


def test_pictures_are_matched_by_name_not_by_order() -> None:
    rows = rows_of()
    shuffled = random.Random(1).sample(rows, len(rows))
    shuffled.sort(key=lambda row: (METHODS.index(row["method"]), TYPES.index(row["pope_type"])))

    assert report_of(shuffled, "strict").text() == report_of(rows, "strict").text()


def test_the_lines_below_the_table() -> None:
    difference = Difference(
        "eah",
        "random",
        Interval(-0.0075, -0.016, 0.001),
        Interval(-0.00001, -0.0171, 0.0123),
        McNemar(12, 20, 0.2153),
    )

    assert difference.sentence() == (
        "eah - baseline, random, with 95 % intervals: accuracy -0.75 (-1.60 to +0.10), "
        "F1 +0.00 (-1.71 to +1.23); McNemar p = 0.22 (12 questions gained, 20 lost)"
    )


def test_the_text_has_a_line_for_each_comparison_and_fits_a_terminal() -> None:
    found = report_of(rows_of(), "strict")
    table, below = found.text().split("\n\n")
    note, *lines = below.splitlines()

    assert "10000 bootstrap resamples of the 80 picture(s)" in note
    assert [line.split(", with")[0] for line in lines] == [
        f"{method} - baseline, {kind}" for method in METHODS[1:] for kind in (*TYPES, "mean")
    ]
    (mean,) = [line for line in table.splitlines() if line.startswith("| eah      | mean ")]
    for column, name in ((4, "accuracy"), (7, "f1")):
        value, low, high = (
            100 * end for end in found.intervals["eah", "mean"][name].as_dict().values()
        )
        assert mean.split("|")[column].strip() == f"{value:.2f} ({low:.1f}..{high:.1f})"
    assert mean.split("|")[3].strip() == str(3 * 6 * PICTURES)
    assert max(map(len, table.splitlines())) <= 150
    assert "-:" in table.splitlines()[1].split("|")[4]  # numbers stand right, brackets or not


def test_one_type_has_no_mean_and_no_baseline_no_difference(tmp_path: Path) -> None:
    one_type = written(rows_of(types=("random",)), tmp_path / "one")
    no_baseline = written(rows_of(methods=("eah", "other")), tmp_path / "none")

    assert one_type["means"] == []
    assert [d["pope_type"] for d in one_type["differences"]] == ["random", "random"]
    assert no_baseline["differences"] == []
    assert len(no_baseline["means"]) == 2


def test_one_picture_is_reported_without_an_interval(tmp_path: Path) -> None:
    rows = [row for row in rows_of() if row["image"] == "001.jpg"]

    metrics = written(rows, tmp_path)

    assert metrics["results"][0]["intervals"]["accuracy"]["low"] is None
    assert "NaN" not in json.dumps(metrics)
    text = report_of(rows, "strict").text()
    assert "nan" not in text
    assert "(no interval)" in text


def test_saved_answers_of_several_methods_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of()
    for kind in TYPES:
        asked = [r for r in rows if (r["method"], r["pope_type"]) == ("eah", kind)]
        lines = [
            {"question_id": r["question_id"], "image": r["image"], "text": r["question"],
             "label": r["label"]}
            for r in asked
        ]  # fmt: skip
        (tmp_path / f"coco_pope_{kind}.json").write_text("\n".join(map(json.dumps, lines)))
    saved = tmp_path / "answers.jsonl"
    saved.write_text("\n".join(map(json.dumps, rows)))

    arguments = ["--answers", str(saved), "--pope-type", "all", "--pope-path", str(tmp_path)]
    assert main([*arguments, "--parser", "strict"]) == 0

    assert capsys.readouterr().out.split("\n\n", 1)[1] == report_of(rows, "strict").text() + "\n"
