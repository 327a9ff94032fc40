"""The judge's page: who has which grade, who is better, and that nothing given can harm it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from eval.gpt4v_eval import main
from tests.eval.judge_inputs import flags_for, metrics_of, run_folder, write_inputs
from tests.eval.judge_stub import SECRET, Stub, grades_by_hash, serve
from tests.eval.tasks.chair.test_report import Element, Tree, check_policy

ATTACK = '<script>alert(1)</script><img src="http://evil/x" onerror=alert(1)>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_inputs(folder, 3)
    path = folder / "captions_eah.jsonl"
    path.write_text(path.read_text().replace("A eah picture 2", ATTACK.replace('"', '\\"')))

    def fault(text: str, attempt: int) -> str:
        return "refusal" if "picture 3" in text else "well"

    def answer(text: str) -> str:
        return f"Both good {ATTACK}" if "picture 1 " in text else grades_by_hash(text)

    with pytest.MonkeyPatch.context() as patch, serve(Stub(fault=fault, answer=answer)) as stub:
        patch.setenv("OPENAI_API_KEY", SECRET)
        assert main([*flags_for(folder, stub.url), "--report", str(folder / "r.html")]) == 0
    return (folder / "r.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(page: str) -> Element:
    return Tree(page).open[0]


def test_the_page_runs_its_own_script_only_and_loads_nothing(page: str, tree: Element) -> None:
    check_policy(tree, scripts=1)
    assert not {"link", "iframe"} & {one.tag for one in tree}
    for one in tree:
        assert not [name for name in one.attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (one.attributes.get(name) or "#").startswith(("#", "data:image/jpeg"))


def test_answers_and_replies_are_text(page: str, tree: Element) -> None:
    assert ATTACK not in page
    assert page.count(html.escape(ATTACK, quote=False).replace('"', "&#34;")) >= 2
    assert ATTACK in tree.one("article", **{"data-id": "2"}).text


def test_each_picture_has_both_answers_and_both_judgements(tree: Element) -> None:
    cards = [" ".join(one.text.split()) for one in tree.all("article")]

    assert [len(one.all("img")) for one in tree.all("article")] == [1, 1, 1]
    for card in cards:
        assert "A baseline picture" in card
        assert len(re.findall(r"baseline shown first:|eah shown first:", card)) == 2
    assert "unparsed" in cards[0]
    assert "does not count" in cards[0]
    assert "refused I can't judge that." in cards[2]


def test_each_grade_has_the_name_of_its_arm(tree: Element) -> None:
    """The stub's grades are known: those of the answer that is first, then of the other."""
    card = tree.one("article", **{"data-id": "2"})
    found: dict[str, dict[str, list[float]]] = {"accuracy": {}, "detailedness": {}}
    for details in card.all("details"):
        summary, reply = " ".join(details.one("summary").text.split()), details.one("p").text
        order = (
            ["baseline", "eah"]
            if summary.startswith("baseline shown first")
            else ["eah", "baseline"]
        )
        for criterion, of in found.items():
            pair = re.search(rf"{criterion.title()}: (\d+),? (\d+)", reply)
            assert pair
            for name, grade in zip(order, pair.groups(), strict=True):
                of.setdefault(name, []).append(float(grade))
                assert re.search(rf"{criterion} [^;]*\b{name}: {grade}\b", summary)

    lines = [one.text for one in card.all("p", class_="grades")]
    assert len(lines) == 2
    for line, (criterion, of) in zip(lines, found.items(), strict=True):
        means = {name: sum(grades) / 2 for name, grades in of.items()}
        best = max(means, key=lambda name: means[name])
        verdict = "tie" if len(set(means.values())) == 1 else f"{best} wins"
        assert line.startswith(
            f"{criterion}: {verdict} (baseline: {means['baseline']:g}, eah: {means['eah']:g})"
        )


def test_the_top_has_the_numbers_and_what_they_depend_on(page: str, tree: Element) -> None:
    top = page.split('id="pictures"')[0].replace("&nbsp;", " ")

    assert tree.one("h1").text == "Judge: eah against baseline on 3 pictures"
    assert "no interval" in top  # One picture counts.
    assert "over the 1 of 3 pictures" in top
    assert "<dt>image size</dt><dd>768</dd>" in page
    assert "prefers-color-scheme: dark" in top


def test_costs_come_after_the_findings_and_the_pictures(page: str, tree: Element) -> None:
    assert [one.text for one in tree.all("h2")] == [
        "Where the answers differ", "Grades and wins", "Pictures", "Costs and settings",
    ]  # fmt: skip
    assert page.count("spent: 6 requests") == 1
    assert page.index("spent: 6 requests") > page.index('id="facets"')


def test_pictures_can_be_searched_filtered_and_sorted(tree: Element) -> None:
    names = [one.attributes.get("name") for one in tree.one("form", id="filters")]
    facets = json.loads(tree.one("script", id="facets").text)

    assert {"search", "sort", "accuracy_winner", "detailedness_winner", "flips", "uncounted"} <= {
        *names
    }
    assert [one["uncounted"] for one in facets] == [True, False, True]
    assert [one["accuracy"] is None for one in facets] == [True, False, True]
    winners = tree.one("select", name="accuracy_winner").all("option")
    assert [(one.attributes["value"], one.text) for one in winners] == [
        ("", "any"), ("0", "tie"), ("1", "baseline"), ("2", "eah"),
    ]  # fmt: skip
    keys = {
        (one.attributes["value"] or "").lstrip("-")
        for one in tree.one("select", name="sort").all("option")
    }
    assert keys - {""} <= facets[0].keys()


# Verdicts, from grades that are planted


def planted(tmp_path: Path, better: str, *, pictures: int, wins: int) -> Element:
    """Return the page of answers of which one arm's get 9 and the others 5 in some pictures."""
    write_inputs(tmp_path, pictures)

    def answer(text: str) -> str:
        number = int(re.findall(r"picture (\d+) with", text)[0])
        is_first = text.index(f"A {better} picture") == min(
            text.index(f"A {name} picture") for name in ("baseline", "eah")
        )
        high, low = (9, 5) if number <= wins else (5, 9)
        one, two = (high, low) if is_first else (low, high)
        return f"Accuracy: {one} {two}\nReason: so.\n\nDetailedness: 6, 6\nReason: so."

    path = tmp_path / "r.html"
    with pytest.MonkeyPatch.context() as patch, serve(Stub(answer=answer)) as stub:
        patch.setenv("OPENAI_API_KEY", SECRET)
        assert main([*flags_for(tmp_path, stub.url), "--report", str(path)]) == 0
    return Tree(path.read_text(encoding="utf-8")).open[0]


@pytest.mark.parametrize("better", ["baseline", "eah"])
def test_the_verdict_names_the_better_arm_with_interval_and_test(
    tmp_path: Path, better: str
) -> None:
    page = planted(tmp_path, better, pictures=10, wins=9)

    first, second, _ = page.one("header").all("p")
    other = "eah" if better == "baseline" else "baseline"
    sign = "+" if better == "eah" else "-"
    # 9 wins and 1 loss: twice 11 of 1024 ways, and that times 2 criteria.
    assert re.fullmatch(
        rf"{better} is more accurate: mean grade 8\.60 \({better}\) against 5\.40 \({other}\), "
        rf"difference \{sign}3\.20 grades \(eah minus baseline; 95 % interval \S+ to \S+; "
        rf"sign test p = 0\.043\)\.",
        first.plain,
    )
    assert second.text.startswith(
        "No difference in detailedness can be claimed between eah and baseline: mean grade 6.00 "
        "(eah) against 6.00 (baseline), difference +0.00 grades (eah minus baseline; no interval"
    )
    rows = page.one("table", class_="contrasts").all("tr")[1:]
    assert [row.attributes.get("class") for row in rows] == ["differs", None]
    assert [row.one("b").text for row in rows] == [f"{better} is better", "no interval"]


def test_an_interval_without_0_is_no_verdict_where_the_sign_test_disagrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = planted(tmp_path, "eah", pictures=5, wins=5)  # p = 2 / 2**5, and 2 criteria

    first = page.one("header").all("p")[0].text
    assert first.startswith("No difference in accuracy can be claimed between eah and baseline: ")
    assert "sign test p = 0.12" in first
    row = page.one("table", class_="contrasts").all("tr")[1]
    assert "class" not in row.attributes
    scores = metrics_of(run_folder(tmp_path))["scores"]["accuracy"]
    assert (scores["sign_test_p"], scores["sign_test_p_holm"]) == (2 * 0.5**5, 4 * 0.5**5)
    assert "| p = 0.12 " in capsys.readouterr().out
