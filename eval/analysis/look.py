"""One model to observe: its questions, its settings, and the folder of observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import eah
from eah.settings import EAHConfig
from eval.analysis.counting import Counting, counting_of
from eval.analysis.observations import (
    observe_all,
    read_observations,
    read_recorded,
    run_folder,
    unique_prompts,
)
from eval.analysis.observed import Observed
from eval.analysis.picture import PictureView, view_picture
from eval.analysis.views import load_view, save_view, view_file
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Item
from eval.files.pictures import read_picture
from eval.run.answering import Loader
from eval.run.folder import RunFolder
from eval.run.provenance import current_code
from eval.run.session import Session, describe, plan_session
from eval.tasks.base import Task
from models import VLM

if TYPE_CHECKING:
    from eval.analysis.settings import SinkSettings


@dataclass(frozen=True, slots=True)
class Look:
    """The questions and settings of an observation, and its run folder.

    Attributes:
        task: The benchmark that asks the questions, with its protocol.
        session: The questions as they are asked of the model.
        folder: The run folder; entered while something is recorded.
        counting: What sinks are counted with.
        eah: EAH's settings.
        tried: Those of arms that are asked, too.
    """

    task: Task
    session: Session
    folder: RunFolder
    counting: Counting
    eah: EAHConfig
    tried: Sequence[EAHConfig] = ()

    def status(self) -> str:
        """Return how many prompts are recorded, and how many are left, in words."""
        done = read_observations(self.folder, len(self.counting.thresholds))
        wanted = [(p.image, p.text) for p in unique_prompts(self.session)]
        left = sum(key not in done for key in wanted)
        return (
            f"run folder: {self.folder.path}\n"
            f"prompts to look at: {left}, recorded: {len(wanted) - left}"
        )

    def observe(self, load: Loader) -> list[Observed] | None:
        """Return the observations of all prompts, see `observe_all`."""
        return observe_all(self.session, self.folder, self.counting, lambda: self._model(load))

    def read_recorded(self) -> list[Observed] | None:
        """Return what all processes have recorded; None if a prompt is left."""
        return read_recorded(self.session, self.folder, self.counting)

    def view(self, item: Item, name: str, load: Loader) -> PictureView:
        """Return what heads see of a question's picture, before and after EAH.

        Args:
            item: The question.
            name: The model, as tables call it.
            load: Called as `models.load`, if that is not recorded.
        """
        assert self.task.protocol is not None
        text = self.task.prompt(item, self.task.protocol)
        code = current_code(self.session.described.weights)["code"]
        path = view_file(self.folder.path, item.image, text, self.eah, code)
        if path.is_file():
            # Names depend on the other models of the command.
            return replace(load_view(path), model=name)
        picture = read_picture(self.session.plan.data_path / item.image)
        view = view_picture(self._model(load), picture, item.image, text, self.eah, name)
        save_view(path, view)
        return view

    def _model(self, load: Loader) -> VLM:
        """Return the loaded model, which has the layers and heads of all settings.

        Raises:
            EAHError: If it lacks one: better now than after hours.
        """
        vlm = load(self.session.settings.model, **self.session.arguments)
        for config in (self.eah, *self.tried):
            with eah.enabled(vlm, config):
                pass
        return vlm


def look_at(
    settings: SinkSettings,
    items: Sequence[Item],
    left_out: Sequence[str],
    tried: Sequence[EAHConfig] = (),
) -> Look:
    """Plan the observation of one model.

    Args:
        settings: Of the model.
        items: The questions.
        left_out: Pictures that were left out of them because they can't be read.
        tried: EAH's settings in arms that are asked, too.
    Raises:
        EvaluationError: If settings are incompatible.
    """
    described, plain = describe(settings), settings.task([BASELINE])
    protocol = type(plain).protocol_of(described.protocol, described.family)
    task = type(plain)(plain.settings, protocol)
    config = settings.eah()
    if config.rule == "released_code" and settings.batch_size != 1:
        raise EvaluationError(
            f"batch_size={settings.batch_size or 'auto'}, but the rule released-code looks at the "
            "first prompt of a batch only, as the release does; pass --batch-size 1"
        )
    counting = counting_of(config, settings.thresholds)
    session = plan_session(task, items, described, left_out)
    folder = run_folder(session, counting, task.label(items))
    return Look(task, session, folder, counting, config, tried)
