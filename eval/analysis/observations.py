"""The run folder of observations, prompt by prompt.

Recorded prompts are never observed again: a stopped run resumes, and several processes share one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import models
from eval.analysis.counting import Counting
from eval.analysis.observed import Key, Observed, observed_of
from eval.analysis.observing import observe_prompts
from eval.errors import EvaluationError
from eval.files.storage import read_json
from eval.files.writing import write_errors
from eval.run.folder import SINKS, RunFolder
from eval.run.plan import Prompt
from eval.run.provenance import code_changes, current_code, provenance
from eval.run.session import Session

OBSERVATIONS: Final = "observations.jsonl"
OBSERVED: Final = "observed.json"  # what code observed
SET_ASIDE: Final = "set_aside"
# Settings of a run of answers that no observation depends on.
UNUSED: Final = ("benchmark", "decoding", "seed", "batch_size", "scoring")


def run_folder(session: Session, counting: Counting, label: str) -> RunFolder:
    """Return the folder of observations, named after the settings that decide them.

    Args:
        session: The questions as they would be asked of the model.
        counting: What sinks are counted with.
        label: What the questions are called.
    """
    settings = {
        "benchmark": SINKS,
        "questions_of": session.folder.settings["benchmark"],
        **{name: value for name, value in session.folder.settings.items() if name not in UNUSED},
        "counted": counting.as_record(),
    }
    root = session.settings.output_dir / SINKS / session.described.model
    label = f"{session.described.protocol}-{label}"
    return RunFolder(root, label, settings, session.folder.process)


def unique_prompts(session: Session) -> list[Prompt]:
    """Return each question about a picture once: POPE's files share half of theirs."""
    return list({(p.image, p.text): p for p in session.plan.prompts}.values())


def read_observations(folder: RunFolder, thresholds: int) -> dict[Key, Observed]:
    """Return what is recorded, by prompt; where processes looked at the same, the first counts.

    Raises:
        EvaluationError: If a line is damaged.
    """
    where = f"{folder.path / OBSERVATIONS}, observation"
    records = enumerate(folder.lines(OBSERVATIONS).read(), start=1)
    found = [observed_of(record, thresholds, f"{where} {at}") for at, record in records]
    return {one.key: one for one in reversed(found)}


def observe_all(
    session: Session, folder: RunFolder, counting: Counting, model: Callable[[], models.VLM]
) -> list[Observed] | None:
    """Look at the prompts that are not recorded yet; the folder is entered.

    Args:
        session: The questions, and the model.
        folder: From `run_folder`.
        counting: What sinks are counted with.
        model: Returns the loaded model, if there is something to look at.
    Returns:
        What was observed, in the order of the questions; None if another process is not done.
    Raises:
        EvaluationError: If what is recorded is of other code, or a layer can't be counted.
        EAHError: If the model's attention can't be counted.
    """
    prompts = unique_prompts(session)
    if session.settings.fresh:
        _set_aside(folder)
    done = read_observations(folder, len(counting.thresholds))
    left = [prompt for prompt in prompts if (prompt.image, prompt.text) not in done]
    now = current_code(session.described.weights)
    changes = _code_changes(folder, now) if done else []
    if changes:
        _check_code(session, folder, changes, left=len(left))
    if left:
        vlm = model()
        _begin(session, folder, now, is_begun=bool(done), changes=changes)
        for found in observe_prompts(vlm, session, folder, counting, prompts, done):
            folder.lines(OBSERVATIONS).append(one.as_record() for one in found)
    return read_recorded(session, folder, counting)


def read_recorded(session: Session, folder: RunFolder, counting: Counting) -> list[Observed] | None:
    """Return what is recorded of all prompts, in their order; None if one is not there yet."""
    done = read_observations(folder, len(counting.thresholds))
    wanted = [(prompt.image, prompt.text) for prompt in unique_prompts(session)]
    return None if any(key not in done for key in wanted) else [done[key] for key in wanted]


def _code_changes(folder: RunFolder, now: dict[str, Any]) -> list[str]:
    """Return in words what differs between the code that observed before and this one."""
    path = folder.path / OBSERVED
    return code_changes(read_json(path), now) if path.is_file() else [f"{OBSERVED} is missing"]


def _check_code(session: Session, folder: RunFolder, changes: Sequence[str], *, left: int) -> None:
    """Refuse to resume what other code observed, and note it if all is observed already.

    Raises:
        EvaluationError: If something is left to look at.
    """
    what = f"{folder.path} was observed by other code ({'; '.join(changes)})"
    if not left:
        print(f"note: {what}; --fresh observes again", file=sys.stderr)
    elif not session.settings.accept_old:
        raise EvaluationError(
            f"{what}, and {left} prompts are left: pass --fresh to set what is there aside and "
            "observe again, or --accept-old to keep it and continue"
        )


def _begin(
    session: Session,
    folder: RunFolder,
    now: dict[str, Any],
    *,
    is_begun: bool,
    changes: Sequence[str],
) -> None:
    """Write run.json and observed.json, or note in them that the run resumes."""
    start = {**provenance(()), "device": session.plan.device}
    with folder.common_lock():
        if folder.process.index:
            # The first process writes both. It may start later, and has to know this one's code.
            if not is_begun and not (folder.path / OBSERVED).is_file():
                folder.write(OBSERVED, {**start, **now})
            return
        folder.begin(start)
        if not is_begun:
            folder.write(OBSERVED, {**start, **now})
        elif changes:
            info = read_json(folder.path / OBSERVED) if (folder.path / OBSERVED).is_file() else now
            folder.write(
                OBSERVED, {**info, "resumed": [*info.get("resumed", []), {**start, **now}]}
            )


def _set_aside(folder: RunFolder) -> None:
    """Move what is recorded out of the way."""
    if not folder.process.is_alone:
        raise EvaluationError(
            f"--fresh with {folder.process.count} processes: they would set each other's records "
            "aside; start one process with --fresh, stop it, and start them all without"
        )
    for path in folder.lines(OBSERVATIONS).parts():
        aside, number = folder.path / SET_ASIDE, 1
        while (target := aside / f"{path.stem}-{number}{path.suffix}").exists():
            number += 1
        with write_errors(target):
            aside.mkdir(exist_ok=True)
            path.rename(target)
        print(f"note: what was observed is in {target} now", file=sys.stderr)
