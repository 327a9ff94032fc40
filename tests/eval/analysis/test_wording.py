"""What sentences say where there is one, and where names are long or many."""

from __future__ import annotations

import pytest

from eval.analysis.figures.panel import slug
from eval.analysis.wording import count_noun, join_names


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures")]
)
def test_one_picture_is_no_plural(number: int, text: str) -> None:
    assert count_noun(number, "picture") == text


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_the_last_two_names_have_an_and(names: list[str], text: str) -> None:
    assert join_names(names) == text


def test_the_name_of_a_file_fits_into_a_file_system() -> None:
    """Most allow 255 bytes; a figure's name has the model's, the picture's, and an ending."""
    name = f"{slug('m' * 300)}-picture-{slug('x' * 251)}-10.csv"

    assert len(name) < 200
    assert slug("COCO_val2014_000000000008") == "coco-val2014-000000000008"
