"""Which prompts are looked at, and which record of one counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eval.analysis.observations import read_observations, unique_prompts
from eval.analysis.observed import Observed, ObservedLayer


def test_what_several_parts_ask_is_looked_at_once() -> None:
    asked = [("a.jpg", "one?"), ("a.jpg", "two?"), ("a.jpg", "one?"), ("b.jpg", "one?")]
    prompts = [SimpleNamespace(image=image, text=text) for image, text in asked]
    session: Any = SimpleNamespace(plan=SimpleNamespace(prompts=prompts))

    found = [(one.image, one.text) for one in unique_prompts(session)]

    assert found == [asked[0], asked[1], asked[3]]


def test_of_two_records_of_a_prompt_the_first_counts() -> None:
    layer = ObservedLayer(0, ((1,),), (0.5,), (0,))
    first, second = (Observed("a.jpg", "one?", tokens, (layer,)) for tokens in (4, 8))
    records = [one.as_record() for one in (first, second)]
    lines = SimpleNamespace(read=lambda: records)
    folder: Any = SimpleNamespace(path=Path("run"), lines=lambda name: lines)

    assert read_observations(folder, 1) == {first.key: first}
