"""Complete a session: ask the questions without a recorded answer, and merge the answers.

Recorded answers are reused only if questions and code are unchanged; otherwise the user decides.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

import models
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer, Key
from eval.files.pictures import read_picture
from eval.run.arm_folder import ArmFolder
from eval.run.arms import Size, check_size, notes_on_methods
from eval.run.folder import BATCHES, RUN
from eval.run.plan import AskedArm, Plan, Prompt, batch_room, batches_by_count, batches_by_tokens
from eval.run.processes import launcher_note
from eval.run.provenance import PACKAGES, code_changes, current_code, provenance, setting_changes
from eval.run.runner import Recorder, ask_batches
from eval.run.session import Session
from models.decoding.base import MethodError
from models.decoding.yes_no import yes_no_ids

Loader = Callable[..., models.VLM]


def load_once() -> Loader:
    """Return a function that loads a model on the first call, and returns it on later calls."""
    loaded: list[models.VLM] = []

    def load(name: str, **arguments: Any) -> models.VLM:
        if not loaded:
            loaded.append(models.load(name, **arguments))
        return loaded[0]

    return load


def answer_all(session: Session, load: Loader | None = None) -> bool:
    """Ask the questions without a recorded answer; the session's folder must be locked.

    Args:
        session: The run.
        load: Called instead of `models.load`; None for `models.load`.
    Returns:
        Whether this process has all answers; if several share a run, only one of them does.
    """
    folder, plan = session.folder, session.plan
    if all(arm.name != BASELINE for arm in plan.arms) and folder.process.index == 0:
        print(
            "note: this run has no baseline arm, so it cannot show an improvement", file=sys.stderr
        )
    if (note := launcher_note()) is not None:
        print(note, file=sys.stderr)
    wanted = session.question_keys()
    folders = {arm.name: session.arm_folder(arm) for arm in plan.arms}
    if session.settings.fresh:
        _set_aside(session, list(folders.values()))
    done = {name: one.answers() for name, one in folders.items()}
    left = {name for name, answers in done.items() if any(key not in answers for key in wanted)}
    now = current_code(session.described.weights)
    _check_items(session, folders, done)
    _check_code(session, done, left, now)
    if not left and folder.process.index == 0 and not (folder.path / RUN).exists():
        _begin_run(session)
    if left:
        vlm = (load or models.load)(session.settings.model, **session.arguments)
        asked = [arm.arm for arm in plan.arms if arm.name in left]
        check_size(asked, session.settings.model, _size(vlm))
        for arm in plan.arms:
            if arm.name in left:
                _check_arm(arm, vlm, is_begun=bool(done[arm.name]))
        _print_notes(session, vlm)
        _begin(session, left, done, {**now, **_yes_no_record(plan, vlm)}, vlm)
        recorder = Recorder(
            lambda name, answers: folders[name].append(answers),
            lambda name, cost: folders[name].append_cost(cost),
        )
        ask_batches(vlm, plan, _batches(session, vlm), done, recorder, folder.process)
    gathered = _gather(session, folders, left)
    if not gathered:
        print(
            f"process {folder.process.index} of {folder.process.count} is done; the last one "
            "prints the result",
            file=sys.stderr,
        )
    return gathered


def _yes_no_record(plan: Plan, vlm: models.VLM) -> dict[str, Any]:
    """Return the tokens of "yes" and "no" for arm.json; empty if no task uses them.

    Raises:
        EvaluationError: If --scoring likelihood needs them, and a word has no token.
    """
    if not plan.p_yes:
        return {}
    ids = yes_no_ids(vlm.tokenizer)
    if ids.missing is not None:
        what = f"the model's vocabulary has no token that is {ids.missing!r}"
        if plan.likelihood:
            raise EvaluationError(
                f"{what}, which --scoring likelihood compares; use --scoring generate"
            )
        print(f"note: {what}, so no probability of yes is recorded", file=sys.stderr)
    return {"yes_no": ids.as_record()}


def _check_arm(arm: AskedArm, vlm: models.VLM, *, is_begun: bool) -> None:
    """Refuse an arm that the model can't run, before the first answer.

    Raises:
        EvaluationError: If the model can't run the arm's decoding method, alone or with EAH, or
            another process started the arm and it can't be resumed.
        EAHError: If the model lacks the layers or heads of EAH's settings.
    """
    if is_begun and arm.decoding is not None and arm.decoding.depends_on_history:
        raise EvaluationError(
            f"method {arm.name}: answers depend on the first question of a process, so another "
            "process cannot resume them; pass --fresh to set them aside and ask again"
        )
    with arm.applied(vlm):
        if arm.decoding is None:
            return
        arm.decoding.forget(vlm.language_model)
        try:
            vlm.check_method(arm.decoding)
        except MethodError as error:
            raise EvaluationError(f"method {arm.name}: {error}") from error


def _size(vlm: models.VLM) -> Size:
    """Return the size of the language model."""
    text = vlm.language_model.config.get_text_config(decoder=True)
    return Size(text.num_hidden_layers, text.hidden_size)


def _print_notes(session: Session, vlm: models.VLM) -> None:
    """Print notes on ignored settings, and on pictures that are encoded more than once."""
    plan, process = session.plan, session.folder.process
    if vlm.generation_note is not None and process.index == 0:
        print(
            "note: the checkpoint's generation_config.json sets "
            f"{vlm.generation_note}, which is not applied: only the flags set decoding",
            file=sys.stderr,
        )
    if process.index == 0:
        arms = [arm.arm for arm in plan.arms]
        for note in notes_on_methods(arms, session.settings.model, _size(vlm)):
            print(note, file=sys.stderr)
    is_repeated = len({prompt.image for prompt in plan.prompts}) < len(plan.prompts)
    if plan.prefix_reuse and is_repeated and vlm.prefix_note is not None and process.index == 0:
        print(
            "note: each question prefills its picture again (no cached prefixes): with "
            f"{type(vlm.model).__name__} {vlm.prefix_note}",
            file=sys.stderr,
        )


def _gather(session: Session, folders: dict[str, ArmFolder], asked: set[str]) -> bool:
    """Merge the answers of complete arms into one file each, in the order of the questions.

    The process that finds all answers recorded does this, once, and reports.
    """
    wanted, process = session.question_keys(), session.folder.process
    with session.folder.common_lock():
        found = {name: folder.answers() for name, folder in folders.items()}
        if any(key not in answers for answers in found.values() for key in wanted):
            return False
        # Including arms that a process completed before it was killed, but did not merge.
        unjoined = [n for n, of in found.items() if folders[n].in_parts or list(of) != wanted]
        for name in unjoined:
            folders[name].finish([found[name][key] for key in wanted])
        return bool(process.is_alone or unjoined or (not asked and process.index == 0))


def _check_items(
    session: Session, folders: dict[str, ArmFolder], done: dict[str, dict[Key, Answer]]
) -> None:
    """Refuse answers whose question, picture or label differs from the question file.

    Raises:
        EvaluationError: Naming the first one.
    """
    items = {prompt.key: prompt.item for prompt in session.plan.prompts}
    for name, answers in done.items():
        for at, (key, answer) in enumerate(answers.items(), start=1):
            if key not in items:
                raise EvaluationError(
                    f"{folders[name].path}, answer {at} answers {answer.item}, which this run does "
                    "not ask; remove that line, or pass --fresh to set the arm's answers aside"
                )
            if answer.item != items[key]:
                raise EvaluationError(
                    f"{folders[name].path}, answer {at}: question {key} is recorded as "
                    f"{answer.item}, but it is {items[key]}; pass --fresh to set the arm's answers "
                    "aside and ask again"
                )


def _check_code(
    session: Session, done: dict[str, dict[Key, Answer]], left: set[str], now: dict[str, Any]
) -> None:
    """Refuse to resume answers of other code, and print a note if finished answers are of it.

    Raises:
        EvaluationError: If an unfinished arm was started by other code, or an arm's name now means
            other settings.
    """
    for arm in session.plan.arms:
        folder = session.arm_folder(arm)
        info = folder.info()
        if not done[arm.name]:
            continue
        record = json.loads(json.dumps(arm.arm.as_record(), default=str))
        other = ["arm.json is missing"] if info is None else setting_changes(info, record)
        changes = other if info is None else [*other, *code_changes(info, now)]
        if not changes:
            continue
        what = f"arm {arm.name} of {session.folder.path}"
        if arm.name not in left and not other:
            if session.folder.process.index == 0:
                print(
                    f"note: {what} was answered by other code ({'; '.join(changes)}); --fresh asks "
                    "again",
                    file=sys.stderr,
                )
        elif not session.settings.accept_old:
            raise EvaluationError(
                f"{what} was answered by other code or settings ({'; '.join(changes)}): pass "
                f"--fresh to set its {len(done[arm.name])} answers aside and ask again, or "
                "--accept-old to keep them and continue"
            )


def _begin(
    session: Session,
    left: set[str],
    done: dict[str, dict[Key, Answer]],
    now: dict[str, Any],
    vlm: models.VLM,
) -> None:
    """Write run.json and each arm's arm.json, or record in them that the run was resumed."""
    folder, settings = session.folder, session.settings
    start = {
        **provenance(()),
        "device": session.plan.device,
        "batch_size": settings.batch_size or "auto",
        "num_workers": session.plan.num_workers,
        "prefix_reuse": settings.prefix_reuse,
        "compile": settings.compile,
        "processes": folder.process.count,
    }
    with folder.common_lock():
        if folder.process.index == 0:
            _begin_run(session, vlm)
        for arm in session.plan.arms:
            if arm.name not in left:
                continue
            arm_folder = session.arm_folder(arm)
            info = arm_folder.info()
            # An arm that was stopped before its first answer starts again.
            if info is None or not arm_folder.answers():
                arm_folder.write_info({"name": arm.name, **arm.arm.as_record(), **start, **now})
            elif folder.process.index == 0 and done[arm.name]:
                again = {**start, **now} if code_changes(info, now) else start
                resumed = [*info.get("resumed", []), again]
                arm_folder.write_info({**info, "resumed": resumed})


def _begin_run(session: Session, vlm: models.VLM | None = None) -> None:
    """Write run.json, or record in it that the run was resumed."""
    checkpoint, device = session.described.checkpoint, session.plan.device
    start = {"checkpoint": checkpoint, **provenance(PACKAGES), "device": device}
    if vlm is not None:
        if vlm.generation_note is not None:
            start["generation_config_not_applied"] = vlm.generation_note
        first = first_prompt(session, vlm.shown_prompt)
        pixels = vlm.preprocessing.describe()
        start["prompt"] = {"text": first.text, "ids": first.short_ids(), "pixels": pixels}
    session.folder.begin(start)


def first_prompt(
    session: Session, show: Callable[[str, Image.Image], models.ShownPrompt]
) -> models.ShownPrompt:
    """Return the prompt of the first question.

    Args:
        session: The run.
        show: Builds it from a question and its picture.
    """
    first = session.plan.prompts[0]
    return show(first.text, read_picture(session.plan.data_path / first.image))


def _set_aside(session: Session, folders: Sequence[ArmFolder]) -> None:
    if not session.folder.process.is_alone:
        raise EvaluationError(
            f"--fresh with {session.folder.process.count} processes would set each other's "
            "answers aside; start one process with --fresh, stop it, then start all without --fresh"
        )
    for folder in folders:
        if (target := folder.set_aside()) is not None:
            print(f"note: the answers of {folder.name} are in {target} now", file=sys.stderr)


def _batches(session: Session, vlm: models.VLM) -> list[list[Prompt]]:
    """Return the batches, which are the same for all processes of the run."""
    plan = session.plan
    if plan.batch_size is not None:
        return batches_by_count(plan.prompts, plan.batch_size)
    room = session.folder.write_once(BATCHES, batch_room(vlm, plan.decoding))
    new = plan.decoding.max_new_tokens
    lengths = {text: vlm.prompt_length(text) + new for text in {p.text for p in plan.prompts}}
    return batches_by_tokens(plan.prompts, lengths, room)
