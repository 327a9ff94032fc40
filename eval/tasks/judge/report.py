"""The judge's report: picture, both answers and all judgements, as one HTML page.

The page needs no network, no other file and no script. Answers and replies are a model's output, so
the template escapes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eval.files.thumbnails import Thumbnail, thumbnail
from eval.files.writing import write_atomically
from eval.output.page import TEMPLATES, page_template
from eval.tasks.chair.images import pictures_in
from eval.tasks.judge.output import (
    Outcome,
    flips_in_words,
    grade_difference,
    headline,
    notes,
    result_table,
)
from eval.tasks.judge.prompts import CRITERIA
from eval.tasks.judge.scoring import JudgedPicture, Judgement, results, winner

TEMPLATE: Final = TEMPLATES / "judge_report.html"


@dataclass(frozen=True, slots=True)
class Card:
    """One picture of the page.

    Attributes:
        answers: Of both arms, by name.
        verdict: Who wins, in words.
        thumbnail: None if the page shows no pictures.
    """

    image_id: int
    answers: dict[str, str]
    judgements: tuple[Judgement, ...]
    verdict: str
    thumbnail: Thumbnail | None


def write_report(path: Path, outcome: Outcome, *, images: Path | None) -> None:
    """Write a judging run, picture by picture, as one self-contained HTML page.

    Args:
        path: The file to write.
        outcome: The run.
        images: Folder of the pictures; None to show none.
    Raises:
        EvaluationError: If the folder has no pictures, or the page can't be written.
    """
    filters = {
        "difference": grade_difference,
        "flips": flips_in_words,
        "grade": lambda grade: f"{grade:g}",
    }
    names = (outcome.pair.first.name, outcome.pair.second.name)
    page = page_template(TEMPLATE, filters).render(
        names=names,
        title=headline(outcome).splitlines()[0],
        about=headline(outcome).splitlines()[1],
        criteria=CRITERIA,
        results=results(outcome.pictures),
        nothing=result_table(outcome),
        notes=notes(outcome),
        facts=_facts(outcome),
        cards=list(_cards(outcome, images)),
    )
    write_atomically(path, page.encode("utf-8", errors="replace"))


def _cards(outcome: Outcome, images: Path | None) -> Iterator[Card]:
    names = {} if images is None else pictures_in(images)
    for picture in outcome.pictures:
        yield Card(
            picture.image_id,
            {arm.name: arm.texts[picture.image_id]
             for arm in (outcome.pair.first, outcome.pair.second)},
            picture.judgements,
            _verdict(outcome, picture),
            None if images is None else thumbnail(images, names.get(picture.image_id)),
        )  # fmt: skip


def _facts(outcome: Outcome) -> dict[str, str]:
    """Return what the judgements depend on, as texts by name."""
    settings = outcome.plan.settings
    kept = ("endpoint", "judge_model", "judge_protocol", "judge_mode", "image_size",
            "image_detail", "max_output_tokens", "temperature", "reasoning_effort")  # fmt: skip
    facts = {name: str(settings[name]) for name in kept if settings[name] is not None}
    for arm in (outcome.pair.first, outcome.pair.second):
        facts[f"answers of {arm.name}"] = f"{arm.source}, SHA-256 of the answers {arm.hash()}"
    facts["pictures"] = f"{len(outcome.pictures)}, SHA-256 of their ids "
    facts["pictures"] += settings["images"]["sha256"]
    if settings["references"] is not None:
        facts["objects"] = f"SHA-256 {settings['references']}"
    return facts


def _verdict(outcome: Outcome, picture: JudgedPicture) -> str:
    """Return who wins by each criterion, or that the picture does not count."""
    if not picture.counts:
        return "does not count: not all of its judgements can be read"
    names = ("tie", *(f"{arm.name} wins" for arm in (outcome.pair.first, outcome.pair.second)))
    parts = []
    for criterion in CRITERIA:
        one, two = picture.grades(criterion)
        flipped = ", flips with the order" if len(set(picture.winners(criterion))) > 1 else ""
        parts.append(f"{criterion} {one:g} : {two:g}, {names[winner((one, two))]}{flipped}")
    return "; ".join(parts)
