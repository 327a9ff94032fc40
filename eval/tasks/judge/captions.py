"""Get the two answers per picture to compare, from files, run folders, or a model.

The model only generates captions that no run of chair_eval.py has. They are stored in a run folder
that `eval/chair.py` can score as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.run.recorded import RecordedRun, runs_below
from eval.tasks.chair.captions import read_captions
from eval.tasks.judge.requests import Arm, Pair, pair_arms

if TYPE_CHECKING:
    from eval.run.arms import Arm as RunArm
    from eval.run.session import Session
    from eval.tasks.chair.task import ChairSettings

# Settings that do not change the caption of a picture: which pictures a run has.
INCIDENTAL: Final = ("questions", "pictures")


@dataclass(frozen=True, slots=True)
class Format:
    """Keys of the image id and the answer in a row; `last`: of several answers take the last."""

    image_id_key: str = "image_id"
    caption_key: str = "caption"
    last: bool = False

    def read(self, path: Path) -> dict[str, Arm]:
        """Read the answers of a file or run folder by method, like `eval/chair.py`."""
        found = read_captions(path, **asdict(self))
        return {
            method: Arm(method, {one.image_id: one.text for one in captions}, str(path))
            for method, captions in found.items()
        }


PLAIN: Final = Format()


def from_files(first: Path, second: Path, layout: Format = PLAIN) -> Pair:
    """Read the answers of two files.

    Raises:
        EvaluationError: If one can't be read or has several methods, or their pictures differ.
    """
    one, two = _only_method(first, layout), _only_method(second, layout)
    if first == second:
        raise EvaluationError(
            f"--answers-1 and --answers-2 are both {first}; pass two different files"
        )
    if one.name == two.name:
        one, two = replace(one, name=str(first)), replace(two, name=str(second))
    return pair_arms(one, two)


def from_run(folder: Path, methods: Sequence[str], layout: Format = PLAIN) -> Pair:
    """Read the answers of two methods of one file or run folder.

    Raises:
        EvaluationError: If it lacks one of them, or their pictures differ.
    """
    arms = layout.read(folder)
    for method in methods:
        if method not in arms:
            raise EvaluationError(
                f"{folder} has no answers of method {method!r}, only of {', '.join(arms)}; name "
                "two of these as --method"
            )
    first, second = methods
    return pair_arms(arms[first], arms[second])


def _only_method(path: Path, layout: Format) -> Arm:
    arm, *more = layout.read(path).values()
    if more:
        raise EvaluationError(
            f"{path} has answers of {len(more) + 1} methods, but one is needed; pass it as "
            "--answers-from, and two of its methods as --method"
        )
    return arm


def from_model(
    settings: ChairSettings, items: Sequence[Item], *, dry_run: bool = False
) -> Pair | None:
    """Return the answers of two arms, after generating those that no run has.

    Args:
        settings: Settings of captioning; its two arms are compared.
        items: The pictures.
        dry_run: If no run has the answers, print what the model would be asked, and return None.
    """
    # Imported here, because loading torch takes seconds; earlier errors are reported without it.
    from eval.evaluate import ask
    from eval.output.run_report import report_run
    from eval.run.arms import with_arms
    from eval.run.session import describe, plan_session
    from eval.tasks.chair.task import ChairCaptions

    described = describe(settings)
    protocol = ChairCaptions.protocol_of(described.protocol, described.family)
    session = plan_session(ChairCaptions(settings, protocol), items, described)
    arms = [asked.arm for asked in session.plan.arms]
    found = {arm.name: _find_recorded(session, arm, items) for arm in arms}
    missing = [name for name, texts in found.items() if texts is None]
    if missing:
        # Standard output is reserved for the judge's result.
        with redirect_stdout(sys.stdout if dry_run else sys.stderr):
            missing_only = replace(with_arms(settings, missing), dry_run=dry_run)
            run = ask(ChairCaptions(missing_only), items)
            if run is None:
                return None
            report_run(ChairCaptions, run, missing_only)
        for name in missing:
            found[name] = _texts_of(run, name, items)
    first, second = (found[arm.name] for arm in arms)
    assert first is not None
    assert second is not None
    return pair_arms(first, second)


def _find_recorded(session: Session, arm: RunArm, items: Sequence[Item]) -> Arm | None:
    """Return an arm's answers from the first run that has all of them; None without such a run."""
    from eval.run.provenance import code_changes, current_code, setting_changes

    wanted = json.loads(json.dumps(arm.as_record(), default=str))
    for run in runs_below(session.folder.path.parent):
        if (
            arm.name not in run.arms
            or run.old
            or _decisive_settings(run) != _decisive_settings(session.folder)
        ):
            continue
        info = run.arms[arm.name].info
        texts = None if setting_changes(info, wanted) else _texts_of(run, arm.name, items)
        if texts is None or not _same_pictures(run, session.plan.data_path):
            continue
        print(f"answers of {arm.name}: {run.path}", file=sys.stderr)
        if changes := code_changes(info, current_code(session.described.weights)):
            print(f"note: other code generated them ({'; '.join(changes)})", file=sys.stderr)
        return texts
    return None


def _texts_of(run: RecordedRun, name: str, items: Sequence[Item]) -> Arm | None:
    """Return an arm's answers about some pictures; None if one is missing."""
    texts = {answer.item.id: answer.text for answer in run.arms[name].answers}
    if any(item.id not in texts for item in items):
        return None
    return Arm(name, {item.id: texts[item.id] for item in items}, str(run.path))


def _decisive_settings(run: Any) -> dict[str, Any]:
    return {name: value for name, value in run.settings.items() if name not in INCIDENTAL}


def _same_pictures(run: RecordedRun, pictures: Path) -> bool:
    """Return whether a run's pictures have the same names and contents as those in a folder."""
    from eval.run.pixels import pictures_hash

    names = {answer.item.image for arm in run.arms.values() for answer in arm.answers}
    try:
        return bool(run.settings["pictures"] == pictures_hash(pictures, names))
    except (OSError, EvaluationError):
        return False
