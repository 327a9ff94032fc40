"""Show where the vision sinks are, and what correlates with them.

    python eval/sinks.py --model llava-1.5 --data-path data/COCO/val2014 --num-images 200 --captions

Records every layer and head during the prefill of each picture's prompt, and draws maps of their
vision sinks. With --captions or --pope-type the model also answers, to test whether hallucinations
go with fewer sinks. --ablate tries other settings of EAH. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.analysis.ablation_plan import AblationPlan, plan_ablation
from eval.analysis.choice import split_pictures
from eval.analysis.flags import flags, model_names, settings_of
from eval.analysis.questions import items_of, shown_pictures
from eval.analysis.settings import SinkSettings
from eval.command import RUN_ERRORS, finish
from eval.evaluate import ask, check_pictures, inputs_of
from eval.files.answers import BASELINE
from eval.run.outputs import check_outputs, output_files, paths_in

if TYPE_CHECKING:
    from eval.analysis.ablation import Ablation
    from eval.analysis.analysed import Analysed, Answered
    from eval.analysis.look import Look
    from eval.files.answers import Item
    from eval.run.answering import Loader
    from eval.run.recorded import RecordedRun


def run(arguments: Sequence[str] | None) -> None:
    """Observe each model, collect its answers, and write numbers and figures."""
    given = flags(__doc__ or "").parse(arguments)
    config, every = given.get("config"), settings_of(given)
    first, names = every[0], model_names(every)
    outputs = output_files("sinks", overwrite=first.overwrite, json=first.json, report=first.report)
    read = [path for settings in every for path in inputs_of(settings)]
    check_outputs(outputs.values(), [*read, *paths_in(config)])
    # Imported late: this loads torch, which takes seconds; errors above are reported first.
    from eval.analysis.figures.panel import check_matplotlib
    from eval.analysis.output import write_all

    check_matplotlib()
    found = [analyse(*one) for one in zip(every, names, strict=True)]
    complete = [one for one in found if one is not None]
    if len(complete) == len(found):
        print(write_all(complete, outputs, first.output_dir))


def analyse(settings: SinkSettings, name: str) -> Analysed | None:
    """Observe one model, and collect its answers if requested.

    Args:
        settings: Its settings.
        name: The model's name in tables.
    Returns:
        The analysis; None after `--dry-run`, or while another process is still running.
    """
    plan = plan_ablation(settings.ablate, settings.task().settings) if settings.ablate else None
    items, left_out = check_pictures(settings, items_of(settings))
    choice: list[Item] = []
    if settings.choose_on is not None:
        choice, items = split_pictures(items, settings.choose_on, settings.seed)
    shown = shown_pictures(settings, items)
    from eval.analysis.analysed import analyse_model
    from eval.analysis.look import look_at
    from eval.run.answering import load_once

    tried = () if plan is None else plan.configs()
    look, load = look_at(settings, items, left_out, tried), load_once()
    collector = AnswerCollector(settings, name, look, left_out, load)
    if settings.dry_run:
        print(look.status())
        collector.collect(plan, choice, items)
        return None
    with look.folder:
        observed = look.observe(load)
        answered = collector.collect(plan, choice, items)
        if observed is None:  # recorded by another process, which may have finished meanwhile
            observed = look.read_recorded()
        if observed is None or (answered is None and settings.has_answers):
            return None
        views = [look.view(item, name, load) for item in shown]
    return analyse_model(settings, name, look, observed, answered, views)


class AnswerCollector:
    """Collects a model's answers in the same runs as the commands of POPE and CHAIR."""

    def __init__(
        self, settings: SinkSettings, name: str, look: Look, left_out: Sequence[str], load: Loader
    ) -> None:
        """Store what all questions share.

        Args:
            settings: The command's.
            name: The model's name in tables.
            look: The observation, which has the protocol.
            left_out: Pictures that can't be read.
            load: Called like `models.load`, if there is something to ask.
        """
        self._settings, self._name, self._look = settings, name, look
        self._left_out, self._load = left_out, load

    def collect(
        self, plan: AblationPlan | None, choice: Sequence[Item], items: Sequence[Item]
    ) -> Answered | None:
        """Return the model's answers; None if it is not asked, or another process is running.

        Args:
            plan: Settings of EAH to try; None for the baseline only.
            choice: Questions on which to choose one setting; empty to report all settings.
            items: Questions to report.
        """
        from eval.analysis.ablation import choose
        from eval.analysis.analysed import Answered
        from eval.analysis.choice import choice_sentence

        if not self._settings.has_answers:
            return None
        if plan is None:
            run = self._ask([BASELINE], items)
            return None if run is None else Answered(run)
        if not choice:
            run = self._ask(plan.arms(), items)
            if run is None:
                return None
            tried = self._ablations(plan, run)
            return Answered(run, tried, [choice_sentence(one) for one in tried])
        first = self._ask(plan.arms(), choice)
        if first is None:
            return None
        tried = self._ablations(plan, first)
        chosen = plan.only(choose(tried[0]).arm)
        run = self._ask(chosen.arms(), items)
        if run is None:
            print(
                "note: the setting is chosen; if no process prints a result, start all of them "
                "again to answer the questions about the reported pictures",
                file=sys.stderr,
            )
            return None
        return Answered(run, tried, [choice_sentence(tried[0], self._ablations(chosen, run)[0])])

    def _ask(self, arms: Sequence[str], items: Sequence[Item]) -> RecordedRun | None:
        return ask(self._settings.task(arms), items, self._left_out, self._load)

    def _ablations(self, plan: AblationPlan, run: RecordedRun) -> list[Ablation]:
        from eval.analysis.ablation import ablations
        from eval.analysis.analysed import scorer_of

        scorer, benchmark = scorer_of(self._look.task), self._look.task.name
        names = {"model": self._name, "config": self._settings.model, "benchmark": benchmark}
        return ablations(plan, scorer, run.answers(), **names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("sinks", lambda: run(arguments), *RUN_ERRORS)


if __name__ == "__main__":
    sys.exit(main())
