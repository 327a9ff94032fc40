"""The page of a run: order, numbers and verdicts as in the report, and nothing that harms."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.files.answers import Item
from eval.output.run_page import _contrast, run_page
from eval.output.run_report import score
from eval.run.recorded import RecordedRun, read_run
from eval.runs import main
from eval.stats.grouped import Difference
from eval.stats.intervals import Interval
from eval.stats.metric import Metric
from tests.eval.output.test_exports import task_of
from tests.eval.small_runs import always_yes, questions, right, write_run
from tests.eval.tasks.chair.test_report import ATTACK, Element, Tree, check_policy

ARMS = {"baseline": always_yes, "eah": right, "eah@layers=2,threshold=0.001": always_yes}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    """Return a run of two parts: one arm is always right, another answers as the baseline."""
    items = questions(60, ("random", "popular"))
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "opera-0a1b2c3d", ARMS, items))


def page_of(run: RecordedRun) -> Element:
    return Tree(run_page(run, score(task_of(run), run, None))).open[0]


@pytest.fixture(scope="module")
def page(run: RecordedRun) -> Element:
    return page_of(run)


def test_what_differs_comes_first_and_costs_last(page: Element) -> None:
    assert [one.text for one in page.all("h2")] == [
        "Where the arms differ", "Numbers of each arm", "Differences in each part", "Details",
        "Costs",
    ]  # fmt: skip
    settings = page.one("dl", class_="facts")
    assert "model" in [one.text for one in settings.all("dt")]
    assert any(settings in list(one) for one in page.all("details"))  # folded


def test_the_sentences_claim_what_the_test_finds(page: Element) -> None:
    sentences = [one.plain for one in page.one("header").all("p", class_="lead")]

    assert sentences[0].startswith(
        "Higher accuracy (mean) with eah than with baseline: 100.00 % against 50.00 %, difference "
        "+50.00 points (95 % interval "
    )
    assert sentences[1].startswith(
        "No difference in accuracy (mean) can be claimed between eah@layers=2,threshold=0.001 and "
        "baseline: 50.00 % against 50.00 %, difference +0.00 points ("
    )


def test_only_significant_rows_have_a_class(page: Element) -> None:
    rows = page.all("table", class_="contrasts")[0].all("tr")
    named = {}
    for row in rows[1:]:
        if row.all("th", scope="rowgroup"):
            metric = row.text.strip().removesuffix("in points")
        else:
            named[metric, row.one("th").text] = row

    assert named["accuracy", "eah"].attributes["class"] == "differs"
    assert named["accuracy", "eah"].one("b").text == "higher"
    assert named["yes %", "eah"].one("b").text == "lower"
    for (_, arm), row in named.items():
        if arm != "eah":
            assert "class" not in row.attributes
            assert row.one("b").text == "n.s."


def test_all_arms_and_parts_have_their_numbers(run: RecordedRun, page: Element) -> None:
    report = score(task_of(run), run, None)
    rows = page.all("table")[1].one("tbody").all("tr")

    assert len(rows) == len(report.grouped.results) == 9
    for row, result in zip(rows, report.grouped.results, strict=True):
        part, *cells, size = row.all("td")
        assert (row.one("th").text, part.text, size.text) == (
            result.arm, result.part, str(result.answers),
        )  # fmt: skip
        for cell, metric in zip(cells, report.task.metrics, strict=True):
            value = metric.factor * result.numbers[metric.name].value
            assert cell.text.startswith("n/a" if value != value else f"{value:.{metric.digits}f}")


def test_differences_in_parts_are_folded_and_complete(run: RecordedRun, page: Element) -> None:
    report = score(task_of(run), run, None)
    (folded,) = [one for one in page.all("details") if "All parts and metrics" in one.text]

    rows = folded.all("th", scope="row")
    assert len(rows) == 2 * 2 * len(report.task.metrics)


def test_the_page_loads_nothing_and_texts_are_text(tmp_path: Path, page: Element) -> None:
    check_policy(page, scripts=1)
    for one in page:
        assert (one.attributes.get("href") or "#").startswith("#")
        assert not one.attributes.get("src")
    items = [Item(i, f"{i}.jpg", "Is it?", "yes", ATTACK) for i in range(2)]
    attacked = page_of(read_run(write_run(tmp_path / "x", {"baseline": right}, items)))

    assert len(attacked.all("script")) == 1
    assert ATTACK in [one.text for one in attacked.all("td")]


def test_export_writes_the_page_again_but_not_over_another_file(
    run: RecordedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.html"
    command = ["export", str(run.path), "--format", "html", "--output", str(path)]

    assert main(command) == 0
    assert Tree(path.read_text(encoding="utf-8")).open[0].one("h1").text == "POPE: tiny-llava"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert main(command) == 0  # it is ours
    path.write_text("<html>mine</html>", encoding="utf-8")
    assert main(command) != 0
    assert path.read_text(encoding="utf-8") == "<html>mine</html>"
    capsys.readouterr()


def test_an_interval_without_0_is_no_claim_where_the_adjusted_test_disagrees(
    tmp_path: Path,
) -> None:
    arms = {"baseline": always_yes, "eah": right}
    page = page_of(read_run(write_run(tmp_path / "x", arms, questions(4))))

    row = page.all("table", class_="contrasts")[0].all("tr")[1]
    assert "p = 0.12;" in row.text  # all 4 pictures gain: 2 of 16 sign patterns
    assert "class" not in row.attributes
    assert page.one("header").all("p")[0].text.startswith("No difference in accuracy")


def test_a_sweep_is_summed_up_and_notes_are_one_line_each(tmp_path: Path) -> None:
    arms = {"baseline": always_yes, **{f"eah@layers={layer}": right for layer in range(2, 7)}}
    page = page_of(read_run(write_run(tmp_path / "x", arms, questions(20))))

    first = page.one("header").all("p", class_="lead")[0].plain
    assert first.startswith("Accuracy (random): higher in 5 of 5 comparisons with baseline: eah@")
    notes = [one.plain for one in page.one("ul", class_="notes quiet").all("li")]
    assert any(note.endswith("positive class: yes") for note in notes)
    assert {"p", "gained, lost"} <= {
        one.text for one in page.one("dl", class_="terms quiet").all("dt")
    }


@pytest.mark.parametrize(("change", "verdict"), [(-3.0, "fewer"), (3.0, "more")])
def test_a_significant_change_of_a_count_is_fewer_or_more(change: float, verdict: str) -> None:
    words = Metric("words", factor=1.0, highest=None)
    difference = Difference(
        "eah", "baseline", "", {"words": Interval(change, change - 1, change + 1)}, None
    )

    found = _contrast(difference, words, name="eah")

    assert found.verdict == verdict
    assert found.unit == "words"
