"""The page of a judging run: who is better, then grades, pictures and costs.

The page needs no network and no other file. Answers and replies are a model's output, so the
template escapes all of them.
"""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any, Final

from eval.files.pictures import THUMBNAIL_SIZE, thumbnail
from eval.output.contrasts import (
    Contrast,
    ContrastGroup,
    contrast_table,
    finding,
    terms,
)
from eval.output.page import page_template, picture_size
from eval.tasks.chair.images import pictures_in
from eval.tasks.judge.output import (
    JudgedRun,
    flips_in_words,
    headline,
    result_notes,
    result_table,
)
from eval.tasks.judge.plan import DECISIVE
from eval.tasks.judge.protocols import CRITERIA, HIGHEST, LOWEST
from eval.tasks.judge.scoring import JudgedPicture, winner
from eval.tasks.judge.spending import spending_notes

TEMPLATE: Final = "judge_report.html"
ADJECTIVES: Final = {"accuracy": "accurate", "detailedness": "detailed"}
GRADES: Final = (
    "Grades",
    f"from {LOWEST} (worst) to {HIGHEST} (best); accuracy falls with what an answer invents, "
    "detailedness rises with what it describes correctly",
)
SIGN_TEST: Final = (
    "Sign test",
    "whether chance explains that one arm wins in more pictures than the other; ties are left "
    f"out, and p is Holm-adjusted for {len(CRITERIA)} criteria",
)


def report_page(run: JudgedRun, *, images: Path | None) -> str:
    """Return a judging run, picture by picture, as one page; without a folder, show no pictures.

    Raises:
        EvaluationError: If the folder has no pictures.
    """
    # An answer in a user's file may contain the key, too; results are numbers.
    hide_in = run.judgements.hide_in
    names = hide_in([arm.name for arm in run.pair.arms])
    rows = _contrasts(run, names)
    title, about = hide_in(headline(run))
    return page_template(TEMPLATE, {"grade": lambda grade: f"{grade:g}"}).render(
        title=f"Judge: {title}",
        about=about,
        names=names,
        criteria=CRITERIA,
        findings=[_finding(run, one, names) for one in rows],
        nothing="" if run.results else hide_in(result_table(run)),
        differences=contrast_table(
            "Criterion",
            f"{names[1]} minus {names[0]}",
            [ContrastGroup(row.name, [row], "mean grade, 1 to 10") for row in rows],
        ),
        terms=[GRADES, SIGN_TEST, *terms(rows)],
        grades_header=_grades_header(names),
        grades_rows=_grades_rows(run),
        notes=hide_in(result_notes(run)),
        costs=hide_in(spending_notes(run.spent)),
        facts=hide_in(_facts(run)),
        cards=_cards(run, names, images),
        facets=[_facets(hide_in(one.image_id), one) for one in run.pictures],
        winners=[("", "any"), *((str(at), name) for at, name in enumerate(("tie", *names)))],
        orders=_orders(names),
    )


def _contrasts(run: JudgedRun, names: list[str]) -> list[Contrast]:
    """Return the second arm minus the first by criterion."""
    return [
        Contrast(
            name=name,
            found=result.difference,
            unit="grades",
            words=(f"{names[0]} is better", f"{names[1]} is better"),
            p_value=result.p_holm,
            detail=f"sign test p = {result.p_holm:.2g}",
            digits=(2, 2),
        )
        for name, result in run.results.items()
    ]


def _finding(run: JudgedRun, contrast: Contrast, names: list[str]) -> str:
    """Return who is better by a criterion as a sentence, the better arm's grade first."""
    result = run.results[contrast.name]
    grades = (result.first.value, result.second.value)
    best = 0 if contrast.is_significant and contrast.found.value < 0 else 1
    values = " against ".join(f"{grades[at]:.2f} ({names[at]})" for at in (best, 1 - best))
    return finding(
        contrast,
        f"{names[best]} is more {ADJECTIVES[contrast.name]}",
        f"No difference in {contrast.name} can be claimed between {names[1]} and {names[0]}",
        f"mean grade {values}",
        contrast.detail,
        f"{names[1]} minus {names[0]}",
    )


def _grades_header(names: list[str]) -> list[Any]:
    return [
        "Criterion",
        *((name, "mean grade") for name in names),
        *((f"{name} wins", "pictures") for name in (names[1], names[0])),
        ("Ties", "pictures"),
        ("Flips", "winner changes with the order of the answers"),
    ]


def _grades_rows(run: JudgedRun) -> list[list[Any]]:
    """Return mean grades with their intervals, wins, ties and flips by criterion."""
    return [
        [
            name,
            *(
                (
                    f"{mean.value:.2f}",
                    "" if isnan(mean.low) else f"{mean.low:.2f} to {mean.high:.2f}",
                )
                for mean in (result.first, result.second)
            ),
            str(result.wins),
            str(result.losses),
            str(result.ties),
            flips_in_words(result),
        ]
        for name, result in run.results.items()
    ]


def _cards(run: JudgedRun, names: list[str], images: Path | None) -> list[dict[str, Any]]:
    """Return what the template shows of each picture; no thumbnail if it shows no pictures."""
    files = {} if images is None else pictures_in(images)
    size = picture_size(len(run.pictures), THUMBNAIL_SIZE)
    hide_in = run.judgements.hide_in
    return [
        {
            "image_id": hide_in(picture.image_id),
            "answers": hide_in({arm.name: arm.texts[picture.image_id] for arm in run.pair.arms}),
            "judgements": picture.judgements,
            "verdicts": _verdicts(picture, names),
            "thumbnail": None
            if images is None
            else thumbnail(images, files.get(picture.image_id), size),
        }
        for picture in run.pictures
    ]


def _facets(image_id: Any, picture: JudgedPicture) -> dict[str, Any]:
    """Return what the page filters and sorts a picture by; winners are 0 (tie), 1 and 2."""
    found: dict[str, Any] = {"id": image_id, "uncounted": not picture.counts}
    for name in CRITERIA:
        pair = picture.grades(name) if picture.counts else None
        found[f"{name}_winner"] = None if pair is None else str(winner(pair))
        found[name] = None if pair is None else pair[1] - pair[0]
    found["flips"] = picture.counts and any(
        len(set(picture.winners(name))) > 1 for name in CRITERIA
    )
    return found


def _orders(names: list[str]) -> list[tuple[str, str]]:
    """Return the orders of the pictures."""
    found = [("", "order of the answers")]
    for name in CRITERIA:
        found += [(f"-{name}", f"{name}: most in favour of {names[1]} first"),
                  (name, f"{name}: most in favour of {names[0]} first")]  # fmt: skip
    return [*found, ("id", "image id")]


def _facts(run: JudgedRun) -> dict[str, str]:
    """Return what the judgements depend on, as texts by name."""
    settings = run.plan.settings
    names = ("endpoint", *DECISIVE)
    facts = {name: str(settings[name]) for name in names if settings[name] is not None}
    for arm in run.pair.arms:
        facts[f"answers of {arm.name}"] = f"{arm.source}, SHA-256 of the answers {arm.hash()}"
    ids = settings["images"]["sha256"]
    facts["pictures"] = f"{len(run.pair.ids)}, SHA-256 of their ids {ids}"
    if settings["references"] is not None:
        facts["objects"] = f"SHA-256 {settings['references']}"
    return facts


def _verdicts(picture: JudgedPicture, names: list[str]) -> list[str]:
    """Return a line by criterion: who wins, and whose mean grade is which."""
    if not picture.counts:
        return ["does not count: not all of its judgements can be read"]
    wins = ("tie", *(f"{name} wins" for name in names))
    lines = []
    for criterion in CRITERIA:
        one, two = picture.grades(criterion)
        flipped = ", flips with the order" if len(set(picture.winners(criterion))) > 1 else ""
        grades = f"{names[0]}: {one:g}, {names[1]}: {two:g}"
        lines.append(f"{criterion}: {wins[winner((one, two))]} ({grades}){flipped}")
    return lines
