"""Evaluate object hallucination with POPE.

    python eval/pope_eval.py --model llava-1.5 --data-path /data/COCO/val2014 \
        --pope-type random --gpu-id 0 --beam 5

Asks every question under each method of the run (baseline and EAH by default) and prints one
table. The run folder that it names holds every answer; the same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eval.command import RUN_ERRORS, finish
from eval.errors import EvaluationError
from eval.files.writing import write_atomically
from eval.run.flags import Parser, resolve
from eval.tasks.pope.answers import read_answers
from eval.tasks.pope.build import annotated_images, build_questions
from eval.tasks.pope.pope_report import report_of
from eval.tasks.pope.questions import (
    POPE_TYPES,
    Question,
    dump_questions,
    question_file,
    read_questions,
)
from eval.tasks.pope.scoring import PARSERS
from eval.tasks.pope.settings import PopeSettings
from models.settings import ROOT

# Where the paper's question files are if nobody says: as scripts/download_data.sh puts them, and as
# they lie in the authors' checkout.
QUESTION_FOLDERS = (ROOT / "data/COCO/pope-opera-2910", Path("pope_coco"))


def parser() -> Parser:
    """Return the command's flags."""
    flags = Parser((__doc__ or "").splitlines()[0])
    flags.flag(
        "--pope-type",
        nargs="+",
        metavar="TYPE",
        help=f"{', '.join(POPE_TYPES)}, or all (random)",
    )
    flags.flag("--pope-path", type=Path, help="folder of coco_pope_TYPE.json, or one file of it")
    flags.flag("--parser", help=f"how answers are read: {', '.join(PARSERS)} (the protocol's)")
    flags.flag("--answers", type=Path, help="score these saved answers; no model is loaded")
    flags.flag("--build-from", type=Path, help="instances_*.json to build question files from")
    flags.flag("--build-images", type=int, help="pictures to ask about when building (500)")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = parser().parse(arguments)
    return finish("pope_eval", lambda: evaluate(resolve(PopeSettings(), given)), *RUN_ERRORS)


def evaluate(settings: PopeSettings) -> None:
    """Build questions if asked to, get answers from a model or a file, score and print."""
    if settings.build_from is not None:
        settings = build(settings)
    questions = load_questions(settings)
    if settings.answers is None:
        check_pictures(settings.pictures_folder(), questions)
        # Not before: it loads torch, which takes seconds, and what is wrong so far has been said.
        from eval.tasks.pope.pope_run import run_model

        run_model(settings, questions)
        return
    rows = read_answers(settings.answers, questions)
    chosen = settings.parser or "opera"
    print(f"POPE, saved answers {settings.answers}, parser {chosen}\n")
    print(report_of(rows, chosen).text())


def build(settings: PopeSettings) -> PopeSettings:
    """Build the three question files, and return settings that point at them.

    Raises:
        EvaluationError: If one of them is there already and holds other questions.
    """
    assert settings.build_from is not None
    folder = settings.pope_path or settings.build_from.parent / "pope"
    images = annotated_images(settings.build_from)
    built = build_questions(images, count=settings.build_images, seed=settings.seed)
    for pope_type, questions in built.items():
        path, text = question_file(folder, pope_type), dump_questions(questions)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise EvaluationError(
                f"{path} exists and holds other questions; delete it or pass another --pope-path"
            )
        if not path.exists():
            write_atomically(path, text)
    print(f"question files in {folder}", file=sys.stderr)
    return replace(settings, pope_path=folder)


def load_questions(settings: PopeSettings) -> dict[str, list[Question]]:
    """Read the question files of the run, cut to the limit."""
    path = settings.pope_path or next((p for p in QUESTION_FOLDERS if p.is_dir()), None)
    if path is None:
        raise EvaluationError(
            "no question files: pass --pope-path (scripts/download_data.sh fetches them), or "
            "--build-from instances_val2014.json to build some"
        )
    if path.is_file() and len(settings.pope_type) > 1:
        raise EvaluationError(f"--pope-path {path} is one file; pass one --pope-type with it")
    found = {}
    for pope_type in settings.pope_type:
        file = path if path.is_file() else question_file(path, pope_type)
        if not file.is_file():
            raise EvaluationError(
                f"{file} does not exist; pass the folder of coco_pope_{pope_type}.json as "
                "--pope-path (scripts/download_data.sh fetches it)"
            )
        found[pope_type] = read_questions(file)[: settings.limit]
    return found


def check_pictures(folder: Path, questions: Mapping[str, Sequence[Question]]) -> None:
    """Check that all pictures are there, before anything costly starts.

    Raises:
        EvaluationError: Naming the first that is missing, and how many are.
    """
    names = dict.fromkeys(question.image for asked in questions.values() for question in asked)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(names)} pictures are not in {folder}, {missing[0]} among "
            "them; pass the right --data-path (scripts/download_data.sh fetches COCO's)"
        )


if __name__ == "__main__":
    sys.exit(main())
