"""Show where the vision sinks are, and what goes with them.

    python eval/sinks.py --model llava-1.5 --data-path data/COCO/val2014 --num-images 200 --captions

Looks at every layer and head while the model reads about each picture, and draws maps of their
vision sinks. With --captions or --pope-type the model answers, too: do its hallucinations go with
fewer sinks? --ablate tries other settings of EAH. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.analysis.questions import items_of, shown_pictures, split_items
from eval.analysis.settings import SinkSettings, flags, model_names, settings_of
from eval.command import RUN_ERRORS, finish
from eval.evaluate import ask, inputs_of, with_pictures
from eval.run.outputs import check_outputs, output_files, paths_in

if TYPE_CHECKING:
    from eval.analysis.analysed import Analysed, Answered
    from eval.analysis.observing import Look
    from eval.files.answers import Item
    from eval.run.answering import Loader


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("sinks", lambda: run(arguments), *RUN_ERRORS)


def run(arguments: Sequence[str] | None) -> None:
    """Look at each model, let it answer, compute and draw."""
    given = flags(__doc__ or "").parse(arguments)
    config, every = given.get("config"), settings_of(given)
    first = every[0]
    outputs = output_files("sinks", overwrite=first.overwrite, json=first.json, report=first.report)
    read = [path for settings in every for path in inputs_of(settings)]
    check_outputs(outputs.values(), [*read, *paths_in(config)])
    # Not before: it loads torch, which takes seconds, and what is wrong so far has been said.
    from eval.analysis.figures.files import check_matplotlib
    from eval.analysis.output import write_all

    check_matplotlib()
    found = [analyse(*one) for one in zip(every, model_names(every), strict=True)]
    complete = [one for one in found if one is not None]
    if len(complete) == len(found):
        print(write_all(complete, outputs))


def analyse(settings: SinkSettings, name: str) -> Analysed | None:
    """Look at one model, and let it answer if it is to.

    Args:
        settings: Its settings.
        name: The model, as tables call it.
    Returns:
        What was found; None after `--dry-run`, or where another process is not done.
    """
    from eval.analysis.analysed import analysed
    from eval.analysis.observing import look_at
    from eval.run.answering import load_once

    items, left_out = with_pictures(settings, items_of(settings))
    choice, items = split_items(settings, items)
    shown = shown_pictures(settings, items)
    look = look_at(settings, items, left_out)
    if settings.dry_run:
        print(look.status())
        if settings.has_answers:
            _answers(settings, choice, items, left_out, load_once())
        return None
    load = load_once()
    with look.folder:
        observed = look.observe(load)
        answered = _answers(settings, choice, items, left_out, load) if settings.has_answers else ()
        if observed is None or answered is None:
            return None
        views = [look.view(item, name, load) for item in shown]
    return analysed(look, name, observed, answered, views)
