"""Two arms side by side: which is better, how surely, and whether it only says less."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Caption
from eval.tasks.chair.analyzers import choose
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.compare import DIFFERENCES, _cut_at, compare, with_holm
from eval.tasks.chair.scoring import METRICS, ScoredArm, cut_words, drop_unfinished, score
from eval.tasks.chair.truth import read

LEXICON = choose("lexicon")
IDS = range(40)
TRUTH = {i: frozenset({"dog", "person"}) for i in IDS}


def arm(name: str, texts: dict[int, str]) -> ScoredArm:
    return ScoredArm(name, score([Caption(i, t) for i, t in texts.items()], TRUTH, LEXICON))


LONG = arm("long", {i: "A dog and a man. " + ("There is a kite" if i % 2 else "There is grass")
                    for i in IDS})  # fmt: skip
SHORT = arm("short", {i: "A dog and a man." for i in IDS})


def test_a_gain_that_the_baseline_has_at_that_length_is_explained() -> None:
    found = compare(SHORT, LONG, LEXICON)

    assert found.gains() == ["CHAIRs", "CHAIRi"]
    assert found.differences["CHAIRs"].value == -0.5
    assert found.cut is not None
    assert found.cut.max_words == 5
    assert found.cut.values["CHAIRs"] == 0
    assert found.length_sentence() == (
        "short's captions are shorter: cut after 5 space-separated words, to a mean Len of 6.0, "
        "long scores CHAIRs 0.0, CHAIRi 0.0, Recall 100.0; shorter captions alone could explain "
        "the gain in CHAIRs and CHAIRi"
    )


def test_a_gain_at_the_front_of_the_caption_is_not_explained_by_length() -> None:
    early = arm("early", {i: "A kite and a dog, a man. More words follow here." for i in IDS})

    found = compare(SHORT, early, LEXICON)

    assert found.cut is not None
    assert (found.length_sentence() or "").endswith(
        "length alone does not explain the gain in CHAIRs and CHAIRi"
    )


def test_a_gain_that_is_not_significant_is_not_explained_but_called_so() -> None:
    kite = {i: "A dog and a man. There is a kite." for i in range(3)}
    long = arm("long", {i: "A dog and a man. There is grass." for i in IDS} | kite)

    found = compare(SHORT, long, LEXICON)

    assert found.gains() == ["CHAIRs", "CHAIRi"]
    assert found.differences["CHAIRs"].high == 0
    assert found.cut is None
    assert found.length_sentence() == (
        "short's gain in CHAIRs and CHAIRi is not significant: its 95 % interval includes 0"
    )


def test_a_gain_of_one_picture_has_no_interval_and_is_called_so() -> None:
    one, other = arm("one", {0: "A dog."}), arm("other", {0: "A kite."})

    assert compare(one, other, LEXICON).length_sentence() == (
        "one's gain in CHAIRs and CHAIRi is not significant: it has no interval"
    )


def test_each_metric_s_gain_has_its_own_verdict() -> None:
    """CHAIRs gains everywhere, CHAIRi on average but not surely."""
    before = arm("before", {i: "A kite. A dog. A man. A dog." for i in IDS})
    after = {i: "A dog. A man. A dog." if i % 4 else "A kite. A bus." for i in IDS}

    sentence = compare(arm("after", after), before, LEXICON).length_sentence() or ""

    assert sentence.startswith("after's gain in CHAIRi is not significant: ")
    assert sentence.endswith("does not explain the gain in CHAIRs")
    assert "CHAIRs and CHAIRi" not in sentence


def test_the_cut_matches_len_not_the_words_between_spaces() -> None:
    """Punctuation counts in Len: with much of it, fewer space-separated words are as long."""
    dotted = arm("dotted", {i: "A kite, a kite, a dog, a man, a dog, a man." for i in IDS})
    plain = arm("plain", {i: "A dog and a man sit here now" for i in IDS})

    found = compare(plain, dotted, LEXICON)

    assert found.cut is not None
    assert found.cut.max_words == 5  # "A kite, a kite, a": 7 with commas; 6 words have 8 and more
    assert found.cut.values["Len"] == pytest.approx(0.07)
    assert plain.values()["Len"] == pytest.approx(0.08)
    assert "cut after 5 space-separated words, to a mean Len of 7.0, " in str(
        found.length_sentence()
    )


@pytest.mark.parametrize("name", ["llava-1.5/greedy.jsonl"])
def test_the_cut_is_the_longest_that_is_not_above_the_methods_len(shared: Path, name: str) -> None:
    path = shared / "captions" / name
    (found,) = read_captions(path, image_id_key="image_id", caption_key="caption").values()
    truth = read(shared / "coco/chair_ground_truth.json.gz").objects
    whole = ScoredArm("whole", score(found, truth, LEXICON))
    short = [Caption(one.image_id, drop_unfinished(cut_words(one.text, 60))) for one in found]
    method = ScoredArm("method", score(short, truth, LEXICON))

    cut = compare(method, whole, LEXICON).cut

    assert cut is not None
    longer = [Caption(one.image_id, cut_words(one.text, cut.max_words + 1)) for one in found]
    above = ScoredArm("above", score(longer, truth, LEXICON)).values()["Len"]
    assert cut.values["Len"] <= method.values()["Len"] < above
    assert above - cut.values["Len"] < 0.015


def test_the_cut_is_right_where_punctuation_is_at_the_front() -> None:
    """Words spread evenly would be cut after 6, which is 9 words and commas."""
    rest = "a dog and a man sit here in the sun by the tree"
    front = arm("front", {i: f"A kite, a kite, a kite, {rest}" for i in IDS})
    plain = arm("plain", {i: "A dog and a man sit here" for i in IDS})

    cut = compare(plain, front, LEXICON).cut

    assert cut is not None
    assert (cut.max_words, cut.values["Len"]) == (5, pytest.approx(0.07))


def test_a_long_baseline_is_cut_after_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exclamation marks are one word between spaces: half of it is at its very end."""
    count = 4000
    long = arm("long", {0: "kite " * count + "!" * count, 1: "A kite."})
    method = arm("method", {0: "dog " * 1234, 1: "A dog."})
    tried: list[int] = []

    def counted(words: int, *others: Any) -> Any:
        tried.append(words)
        return _cut_at(words, *others)

    monkeypatch.setattr("eval.tasks.chair.compare._cut_at", counted)

    cut = compare(method, long, LEXICON).cut

    assert cut is not None
    assert cut.max_words == 1234
    assert len(tried) <= 30


def test_a_baseline_that_names_nothing_at_that_length_explains() -> None:
    early = arm("early", {i: "There it is in all of this, a dog, a man, a kite." for i in IDS})

    found = compare(SHORT, early, LEXICON)

    assert found.cut is not None
    assert isnan(found.cut.values["CHAIRi"])
    assert found.as_dict()["cut_baseline"]["metrics"]["CHAIRi"] is None
    assert "CHAIRi n/a" in str(found.length_sentence())
    assert str(found.length_sentence()).endswith("could explain the gain in CHAIRs and CHAIRi")


def test_p_values_of_several_arms_are_holm_adjusted() -> None:
    kites = [arm(str(n), {i: "A dog." + " A kite." * (i < n) for i in IDS}) for n in (6, 12, 40)]
    *methods, baseline = kites

    found = with_holm([compare(one, baseline, LEXICON) for one in methods])

    for at, (one, factor) in enumerate(zip(found, (2, 1), strict=True)):
        assert one.p_holm == pytest.approx(factor * one.test.p_value)
        assert one.as_dict()["mcnemar"]["p_holm"] == one.p_holm
        assert f"{one.p_holm:.2g} (" in one.rows()[0][3], at
    assert found[0].p_holm != found[0].test.p_value
    assert with_holm([]) == ()


def test_no_word_of_length_where_the_method_is_longer_or_the_same() -> None:
    assert compare(LONG, SHORT, LEXICON).cut is None
    assert compare(SHORT, SHORT, LEXICON).cut is None
    assert compare(LONG, SHORT, LEXICON).length_sentence() is None


def test_mcnemar_counts_captions_free_of_hallucinations() -> None:
    test = compare(SHORT, LONG, LEXICON).test

    assert (test.gained, test.lost) == (20, 0)
    assert test.p_value == pytest.approx(2 / 2**20)


def test_arms_are_paired_by_picture_not_by_place() -> None:
    texts = {i: c.text for i, c in zip(IDS, LONG.captions, strict=True)}
    reversed_arm = arm("reversed", dict(reversed(texts.items())))

    found = compare(reversed_arm, LONG, LEXICON)

    assert (found.test.gained, found.test.lost) == (0, 0)
    assert all(d.value == 0 for d in found.differences.values())
    assert all(found.differences[m].low == -found.differences[m].high for m in METRICS[:3])
    assert isnan(found.differences["Len"].high)
    # No picture differs: Wilson's interval, both ways.
    assert found.differences["CHAIRs"].high == pytest.approx(1.96**2 / (40 + 1.96**2), abs=1e-3)


def test_arms_of_other_pictures_are_refused() -> None:
    part = ScoredArm("part", SHORT.captions[3:])

    with pytest.raises(EvaluationError, match="part lacks captions of 3 pictures that long has: 0"):
        compare(part, LONG, LEXICON)
    with pytest.raises(EvaluationError, match="part lacks captions of 3 pictures that long has: 0"):
        compare(LONG, part, LEXICON)


def test_the_table_and_the_file_say_the_same() -> None:
    found = compare(SHORT, LONG, LEXICON)

    row = found.as_dict()
    assert [len(cells) for cells in found.rows()] == [len(DIFFERENCES)] * 4
    assert [cells[:2] for cells in found.rows()] == [["short", name] for name in METRICS]
    assert found.rows()[0][2:] == ["-50.0 (-65.0 to -35.0)", "1.9e-06 (20, 0)"]
    assert {cells[3] for cells in found.rows()[1:]} == {""}
    assert row["differences"]["CHAIRs"]["value"] == -0.5
    assert row["mcnemar"]["gained"] == 20
    assert row["cut_baseline"]["max_words"] == 5
