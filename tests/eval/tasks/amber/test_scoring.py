"""The steps of AMBER's scorer against loops that are written as its rules read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.tasks.amber.folder import Annotation, Words
from eval.tasks.amber.output import reference_numbers
from eval.tasks.amber.scoring import nouns, score_words
from eval.tasks.amber.similar import Exact, Similar
from eval.tasks.nltk_words import Nltk

LETTERS = "abcdefgh"


def plain_counts(
    found: list[str], truth: list[str], hallu: list[str], association: dict[str, list[str]],
    safe: list[str], similar: set[tuple[str, str]],
) -> list[int]:  # fmt: skip
    """Count with one list of flags per annotation, slot by slot, as the reference does."""
    vocabulary = set(association) | {word for of in association.values() for word in of}
    kept = [noun for noun in found if noun in vocabulary]

    def fillers(listed: list[str]) -> tuple[list[str], list[int]]:
        names, places = [], []
        for place in range(len(listed)):
            for word in association[listed[place]]:
                names.append(word)
                places.append(place)
        for place in range(len(listed)):
            names.append(listed[place])
            places.append(place)
        return names, places

    true_names, true_places = fillers(truth)
    wrong_names, wrong_places = fillers(hallu)
    true_flags, wrong_flags = [0] * len(truth), [0] * len(hallu)
    hallucinated = [0] * len(kept)
    for number, noun in enumerate(kept):
        if noun in safe:
            continue
        if noun in true_names:
            true_flags[true_places[true_names.index(noun)]] = 1
            continue
        if noun in wrong_names:
            wrong_flags[wrong_places[wrong_names.index(noun)]] = 1
        for name, place in zip(wrong_names, wrong_places, strict=True):
            if name == noun or (noun, name) in similar or (name, noun) in similar:
                wrong_flags[place] = 1
                break
        excused = False
        for name, place in zip(true_names, true_places, strict=True):
            if name == noun or (noun, name) in similar or (name, noun) in similar:
                true_flags[place] = 1
                excused = True
                break
        if not excused:
            hallucinated[number] = 1
    return [
        sum(hallucinated), len(hallucinated), sum(true_flags), len(true_flags),
        sum(wrong_flags), len(wrong_flags), int(sum(hallucinated) == 0),
    ]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Draw few words, so that they meet: doubles, words in both lists, and unknown ones."""
    word = st.sampled_from(LETTERS)
    keys = draw(st.lists(word, min_size=1, max_size=6, unique=True))
    stand = st.lists(st.sampled_from(LETTERS[:7]), max_size=3)
    return {
        "association": {key: draw(stand) for key in keys},
        "truth": draw(st.lists(st.sampled_from(keys), max_size=5)),
        "hallu": draw(st.lists(st.sampled_from(keys), max_size=5)),
        "safe": draw(st.lists(word, max_size=2)),
        "similar": draw(st.sets(st.tuples(word, word), max_size=8)),
        "found": draw(st.lists(word | st.sampled_from(["z", "A", ""]), max_size=8)),
    }


def words_of(association: dict[str, list[str]], safe: list[str]) -> Words:
    known = frozenset(association).union(*association.values())
    return Words({k: tuple(v) for k, v in association.items()}, frozenset(safe), known, "hash")


@settings(max_examples=200, deadline=None)
@given(cases())
def test_counts_are_those_of_plain_loops(case: dict[str, Any]) -> None:
    pairs = frozenset(case["similar"]) | {(b, a) for a, b in case["similar"]}

    found = score_words(
        case["found"],
        Annotation(tuple(case["truth"]), tuple(case["hallu"])),
        words_of(case["association"], case["safe"]),
        Similar("v", pairs),
    )

    assert found.counts() == plain_counts(**case)


RELATION = {"dog": ["puppy"], "cat": [], "boat": ["ship"], "lamp": ["light"]}


@pytest.mark.parametrize(
    ("found", "truth", "hallu", "pairs", "expected"),
    [
        pytest.param([], ["dog"], ["cat"], [], [0, 0, 0, 1, 0, 1, 1], id="no noun"),
        pytest.param(["sky"], ["dog"], ["cat"], [], [0, 0, 0, 1, 0, 1, 1], id="no known noun"),
        pytest.param(["Dog"], ["dog"], ["cat"], [], [0, 0, 0, 1, 0, 1, 1], id="case is kept"),
        pytest.param(["light"], ["dog"], ["lamp"], [], [0, 1, 0, 1, 0, 1, 1], id="safe"),
        pytest.param(["puppy", "dog"], ["dog"], [], [], [0, 2, 1, 1, 0, 0, 1], id="stands for"),
        pytest.param(["dog"], ["dog", "dog"], [], [], [0, 1, 1, 2, 0, 0, 1], id="double slot"),
        pytest.param(["cat"], ["cat"], ["cat"], [], [0, 1, 1, 1, 0, 1, 1], id="truth wins"),
        pytest.param(["cat", "cat"], ["dog"], ["cat"], [], [2, 2, 0, 1, 1, 1, 0], id="tokens"),
        pytest.param(["cat"], ["dog"], ["cat"], ["cat dog"], [0, 1, 1, 1, 1, 1, 1],
                     id="excused, and marked"),
        pytest.param(["cat"], [], ["dog", "cat"], ["cat dog"], [1, 1, 0, 0, 2, 2, 0],
                     id="equal and similar are two marks"),
        pytest.param(["ship"], ["lamp"], [], ["ship light"], [0, 1, 1, 1, 0, 0, 1],
                     id="similar to what stands for it"),
    ],
)  # fmt: skip
def test_each_rule(
    found: list[str], truth: list[str], hallu: list[str], pairs: list[str], expected: list[int]
) -> None:
    both = {(a, b) for pair in pairs for a, b in (pair.split(), pair.split()[::-1])}
    of = Annotation(tuple(truth), tuple(hallu))

    scored = score_words(found, of, words_of(RELATION, ["light"]), Similar("v", frozenset(both)))

    assert scored.counts() == expected


def test_positions_are_written_as_words() -> None:
    of = Annotation(("dog", "cat", "dog"), ("boat",))

    found = score_words(["dog", "ship", "ship"], of, words_of(RELATION, []), Exact).as_dict()

    assert found == {
        "mentions": ["dog", "ship", "ship"],
        "hallucinated": ["ship", "ship"],
        "covered": ["dog"],
        "not_covered": ["cat", "dog"],
        "marked": ["boat"],
    }


def test_nothing_at_all_divides_by_nearly_nothing_in_the_reference_numbers() -> None:
    empty = score_words([], Annotation((), ()), words_of(RELATION, []), Exact)

    numbers = reference_numbers([(None, empty)] * 2)  # type: ignore[list-item]

    # Hal: 100 - 100 * 2 / 2.001.
    assert numbers == {"CHAIR": 0.0, "Cover": 0.0, "Hal": 0.0, "Cog": 0.0}
    assert reference_numbers([(None, empty)])["Hal"] == 0.1  # type: ignore[list-item]


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize(
    "text",
    ["", " \n\t", "Dogs\n\ncats", "The dog\u2028sat.", "Hund\u00e4 \U0001f415 \u72ac \u0130\u0307",
     "a" * 5000, "\ud800 dog", "\"``''\"", "dog\0cat", "A\u00a0dog's TV."],
)  # fmt: skip
def test_nouns_of_odd_texts(text: str) -> None:
    """Dictionary forms are NLTK's own, see the tests of CHAIR's analyzers."""
    import nltk

    reader = Nltk("a test")
    tagged = nltk.pos_tag(nltk.word_tokenize(text))

    assert nouns(text, reader) == [reader.lemma(word, "n") for word, tag in tagged if "NN" in tag]
