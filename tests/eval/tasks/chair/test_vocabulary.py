"""Which words name an object, and which words belong together, by CHAIR's rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.tasks.chair.vocabulary import Token, Vocabulary, load_vocabulary, lower

VOCABULARY = load_vocabulary()
FIXED = load_vocabulary(fixes=True)
COCO_OBJECTS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
vase, scissors, teddy bear, hair drier, toothbrush
"""


def tokens(text: str) -> list[Token]:
    """Take each word for its own dictionary form, at its place."""
    found, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        found.append(Token(word, start, at))
    return found


def objects(text: str, vocabulary: Vocabulary = VOCABULARY) -> list[str]:
    return [mention.object for mention in vocabulary.analysis(tokens(text)).mentions]


def test_there_are_cocos_eighty_objects() -> None:
    expected = COCO_OBJECTS.replace("\n", " ").strip().split(", ")

    assert len(expected) == 80
    assert list(dict.fromkeys(VOCABULARY.object_of.values())) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a woman and her puppy", ["person", "dog"]),
        ("a hot dog on a dining table", ["hot dog", "dining table"]),
        ("a traffic light and a light", ["traffic light"]),
        ("a baby giraffe beside an adult giraffe", ["giraffe", "giraffe"]),
        ("a baby and an adult", ["person", "person"]),
        ("a passenger train and a passenger", ["train", "person"]),
        ("a passenger jet", ["airplane"]),
        ("an adult cub", []),  # read as "cub", which is no object
        ("a bow tie", ["tie"]),
        ("home plate and train track", []),
        ("the toilet seat", ["toilet"]),
        ("the seat of the toilet", ["toilet"]),
        ("a seat beside a chair", ["chair", "chair"]),
        ("a motor bike", []),
        ("a cheesecake and an iphone", []),
        ("a stove top oven", ["oven", "oven"]),
    ],
)
def test_words_and_phrases(text: str, expected: list[str]) -> None:
    assert objects(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a motor bike", ["motorcycle"]),
        ("a cheesecake and an iphone", ["cake", "cell phone"]),
        ("a stove top oven", ["oven"]),
        ("two men", ["person"]),
        ("a stove top", ["oven"]),
    ],
)
def test_fixes_add_what_the_list_means(text: str, expected: list[str]) -> None:
    assert objects(text, FIXED) == expected


def test_fixes_take_nothing_away() -> None:
    assert VOCABULARY.object_of.items() <= FIXED.object_of.items()
    assert VOCABULARY.phrases.items() <= FIXED.phrases.items()
    assert VOCABULARY.hash != FIXED.hash


def test_a_phrase_stands_where_its_words_stand() -> None:
    text = "one hot dog here"

    (mention,), num_words = VOCABULARY.analysis(tokens(text))

    assert text[mention.start : mention.stop] == "hot dog"
    assert num_words == 3


def oracle(words: list[str]) -> tuple[list[str], int]:
    """Read dictionary forms as OPERA's chair.py describes it: a window of two words, then names."""
    pairs = {" ".join(phrase): word for phrase, word in VOCABULARY.phrases.items()}
    merged, rest = [], list(words)
    while rest:
        pair = " ".join(rest[:2])
        merged.append(pairs.get(pair, rest[0]))
        rest = rest[2:] if pair in pairs else rest[1:]
    kept = [word for word in merged if word != "seat" or "toilet" not in merged]
    return [VOCABULARY.object_of[word] for word in kept if word in VOCABULARY.object_of], len(
        merged
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(VOCABULARY.parts() | {"the", "."})), max_size=30))
def test_reading_agrees_with_a_window_of_two_words(words: list[str]) -> None:
    found = VOCABULARY.analysis(tokens(" ".join(words)))

    assert ([mention.object for mention in found.mentions], found.num_words) == oracle(words)


@pytest.mark.parametrize("text", ["A Dog", "İstanbul's DOG", "ẞtraße", ""])
def test_lower_case_keeps_the_length(text: str) -> None:
    assert len(lower(text)) == len(text)
    assert "DOG" not in lower(text)
