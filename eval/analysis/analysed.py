"""The findings for one model, from its observations and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval.analysis.ablation import Ablation
from eval.analysis.claim import Claim, compare_densities
from eval.analysis.labels import answer_labels
from eval.analysis.maps import HeadMap, head_map
from eval.analysis.observed import Observed
from eval.analysis.picture import PictureView
from eval.analysis.wording import count_noun
from eval.files.answers import BASELINE
from eval.output.run_report import check_asked
from eval.run.recorded import RecordedRun
from eval.stats.intervals import few_pictures_note
from eval.stats.metric import Scorer
from eval.tasks.base import Task
from eval.tasks.chair.repeats import CaptionScorer
from eval.tasks.chair.task import ChairCaptions, score_settings

if TYPE_CHECKING:
    from eval.analysis.look import Look
    from eval.analysis.settings import SinkSettings


@dataclass(frozen=True, slots=True)
class Answered:
    """What the model answered.

    Attributes:
        run: The run of the questions that are reported.
        ablations: By metric; empty without.
        notes: Caveats, in sentences.
    """

    run: RecordedRun
    ablations: Sequence[Ablation] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Analysed:
    """The findings for one model.

    Attributes:
        folder: Its run folder.
        map: Numbers by layer and head.
        claim: How answers relate to sinks; None without answers.
        ablations: By metric; empty without.
        views: Pictures shown in detail.
        facts: Settings and sizes behind the numbers, by name.
        notes: Caveats, in sentences.
    """

    folder: Path
    map: HeadMap
    claim: Claim | None
    ablations: Sequence[Ablation]
    views: Sequence[PictureView]
    facts: Mapping[str, str]
    notes: Sequence[str]


def analyse_model(
    settings: SinkSettings,
    name: str,
    look: Look,
    observed: Sequence[Observed],
    answered: Answered | None,
    views: Sequence[PictureView],
) -> Analysed:
    """Compute the numbers of one model.

    Args:
        settings: The command's.
        name: The model, as tables call it.
        look: Questions, settings and run folder.
        observed: The observed prompts.
        answered: What the model answered; None if it was not asked.
        views: Pictures shown in detail.
    """
    counting = look.counting
    found = head_map(
        observed,
        model=name,
        thresholds=counting.thresholds,
        unit=counting.unit,
        gammas=settings.gammas,
    )
    claim, notes = None, few_pictures_note(found.pictures)
    if answered is not None:
        check_asked(look.task, answered.run)
        labels = answer_labels(look.task, answered.run.arms[BASELINE].answers)
        claim = compare_densities(observed, labels, model=name, threshold=found.threshold_text(0))
        notes = [*claim.notes(), *answered.notes]
    notes += _notes(found)
    ablations = () if answered is None else answered.ablations
    facts = _facts(look, name, found, answered)
    return Analysed(look.folder.path, found, claim, ablations, views, facts, notes)


def _notes(found: HeadMap) -> list[str]:
    """Return notes on layers whose counts say little."""
    full = [layer for layer, share in zip(found.layers, found.saturated[0], strict=True) if share]
    missing = sorted({*range(found.layers[-1])} - {*found.layers})
    notes = []
    if full:
        notes.append(
            f"in layers {_layer_list(full)}, every image token is a sink in every head of some "
            "prompts, so the counts distinguish no heads there: use --preset scale-free, or a "
            "higher --THRES"
        )
    if missing:
        notes.append(f"layers {_layer_list(missing)} have no attention that can be counted")
    return notes


def _layer_list(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def _facts(look: Look, name: str, found: HeadMap, answered: Answered | None) -> dict[str, str]:
    """Return the settings and sizes behind the numbers, in words."""
    recorded, described = look.folder.settings, look.session.described
    asked = sorted({prompt.text for prompt in look.session.plan.prompts})
    more = f" and {len(asked) - 1} others" if len(asked) > 1 else ""
    config = look.eah
    facts = {
        "model": f"{name}, {described.checkpoint}",
        "weights": described.weights,
        "precision": f"{described.dtype} on {look.session.plan.device}",
        "protocol": described.protocol,
        "prompts": f"{found.prompts} about {count_noun(found.pictures, 'picture')}, "
        f"{found.image_tokens:.4g} image tokens on average",
        "asked": f"{asked[0]!r}{more}",
        "sinks": f"columns above {', '.join(map(str, found.thresholds))} ({found.unit}), rule "
        f"{config.rule}",
        "EAH": f"layers {_layer_list(config.layers)}, threshold {config.threshold} "
        f"({config.threshold_unit})",
        "pictures": f"SHA-256 {recorded['pictures']}",
        "observations": str(look.folder.path),
    }
    if answered is not None:
        facts["answers"] = str(answered.run.path)
    return facts


def scorer_of(task: Task) -> Scorer:
    """Return the scorer of a benchmark's answers; captions are scored by CHAIR."""
    if isinstance(task, ChairCaptions):
        return CaptionScorer(score_settings(task.settings))
    return task
