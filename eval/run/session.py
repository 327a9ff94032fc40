"""One run from its settings to its answers: folder, arms, and whatever the model has to be asked.

A task brings its questions. The rest of what decides the answers is put together here, so that it
is the same for all, and the hash in a folder's name misses nothing.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

import models
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer, Item, Key
from eval.run.arm_folder import ArmFolder
from eval.run.arms import arms_of
from eval.run.folder import RUN, RunFolder
from eval.run.pixels import pictures_hash
from eval.run.plan import AskedArm, Plan, Prompt, by_count, by_tokens, token_budget
from eval.run.processes import launcher_note, this_place
from eval.run.provenance import PACKAGES, code_changes, current_code, provenance, setting_changes
from eval.run.runner import Recorder, ask_batches
from eval.run.settings import RunSettings
from eval.tasks.base import Task
from models.yes_no import yes_no_ids

GPU_WORKERS: Final = 4
BATCHES: Final = "batches.json"
Loader = Callable[..., models.VLM]


@dataclass(frozen=True, slots=True)
class Session:
    """What is asked of a model, and the resolved settings that decide its answers.

    Attributes:
        plan: What is asked.
        folder: Where the answers go.
        described: The model, which is not loaded yet.
        arguments: For `models.load`.
        settings: The command's.
    """

    plan: Plan
    folder: RunFolder
    described: models.Description
    arguments: dict[str, Any]
    settings: RunSettings

    def arm_folder(self, arm: AskedArm) -> ArmFolder:
        """Return the folder of an arm."""
        place = self.folder.place
        return ArmFolder(self.folder.path, arm.name, None if place.is_alone else place.index)

    def wanted(self) -> list[Key]:
        """Return what identifies each question."""
        return [prompt.key for prompt in self.plan.prompts]

    def status(self) -> list[tuple[str, int]]:
        """Return each arm's name and how many of its answers are recorded and will be kept."""
        wanted = set() if self.settings.fresh else set(self.wanted())
        return [
            (arm.name, len(wanted & self.arm_folder(arm).answers().keys()))
            for arm in self.plan.arms
        ]


def describe(settings: RunSettings) -> models.Description:
    """Resolve model, protocol, device and precision of a run; nothing is loaded."""
    device = this_place().device(settings.device, torch.cuda.device_count())
    return models.describe(settings.model, **{**settings.model_arguments(), "device": device})


def plan_session(
    task: Task,
    items: Sequence[Item],
    described: models.Description,
    left_out: Sequence[str] = (),
) -> Session:
    """Put together what is asked of the model and what the answers depend on.

    Args:
        task: The benchmark, with its protocol.
        items: Its questions.
        described: The model, from `describe`.
        left_out: Pictures that were left out of them because they can't be read.
    Raises:
        EvaluationError: If settings do not go together.
    """
    settings, protocol = task.settings, task.protocol
    assert protocol is not None
    pictures = settings.pictures_folder()
    length = settings.max_new_tokens or protocol.max_new_tokens
    decoding = models.Decoding(
        max_new_tokens=1 if task.likelihood else length,
        num_beams=settings.beam,
        do_sample=settings.sample,
    )
    arms = [AskedArm(arm, arm.decoding()) for arm in arms_of(settings)]
    if task.likelihood:
        _check_likelihood(arms, decoding)
    _check_arms(arms, decoding, settings.batch_size)
    plan = Plan(
        [Prompt(item, task.prompt(item, protocol)) for item in items],
        arms,
        pictures,
        decoding,
        batch_size=settings.batch_size,
        num_workers=_workers(settings.num_workers, described.device),
        seed=settings.seed,
        prefix_reuse=settings.prefix_reuse,
        unit=task.unit,
        device=device_name(described.device),
        p_yes=task.wants_p_yes,
        likelihood=task.likelihood,
    )
    resolved = {
        "benchmark": task.name,
        "questions": _questions(plan.prompts),
        **task.asked(),
        **{key: value for key, value in asdict(described).items() if key != "checkpoint"},
        # Which GPU it is decides no answer.
        "device": described.device.split(":")[0],
        "decoding": asdict(decoding),
        "pictures": pictures_hash(pictures, {item.image for item in items}),
    }
    if left_out:
        resolved["left_out"] = list(left_out)
    if decoding.do_sample:
        # A batch is sampled with a seed of its own, so that here its size decides, too.
        resolved |= {"seed": settings.seed, "batch_size": settings.batch_size or "auto"}
    beams = f"-beam{decoding.num_beams}" if decoding.num_beams > 1 else ""
    how = "-likelihood" if task.likelihood else "-sample" if decoding.do_sample else beams
    root = settings.output_dir / task.name / described.model
    label = f"{described.protocol}-{task.label(items)}{how}"
    exact = {name: getattr(described, name) for name in ("protocol", "device", "dtype")}
    return Session(
        plan,
        RunFolder(root, label, resolved, this_place()),
        described,
        {**settings.model_arguments(), **exact},
        settings,
    )


def load_once() -> Loader:
    """Return a function that loads a model when it is called first, and returns it ever after."""
    loaded: list[models.VLM] = []

    def load(name: str, **arguments: Any) -> models.VLM:
        if not loaded:
            loaded.append(models.load(name, **arguments))
        return loaded[0]

    return load


def answer_all(session: Session, load: Loader | None = None) -> bool:
    """Ask the model what is not recorded yet; the session's folder is entered.

    Args:
        session: What is asked.
        load: Called as `models.load`, if there is something to ask; None for that.
    Returns:
        Whether this process has all answers; where several share a run, one of them has.
    """
    folder, plan = session.folder, session.plan
    if all(arm.name != BASELINE for arm in plan.arms) and folder.place.index == 0:
        print("note: no baseline arm in this run, so it can't show a gain", file=sys.stderr)
    if (note := launcher_note()) is not None:
        print(note, file=sys.stderr)
    wanted = session.wanted()
    folders = {arm.name: session.arm_folder(arm) for arm in plan.arms}
    if session.settings.fresh:
        _set_aside(session, list(folders.values()))
    done = {name: one.answers() for name, one in folders.items()}
    left = {name for name, answers in done.items() if any(key not in answers for key in wanted)}
    now = current_code(session.described.weights)
    _check_items(session, folders, done)
    _check_code(session, done, left, now)
    if not left and folder.place.index == 0 and not (folder.path / RUN).exists():
        _begin_run(session)
    if left:
        vlm = (load or models.load)(session.described.model, **session.arguments)
        for arm in plan.arms:
            if arm.name in left:
                with arm.applied(vlm):
                    pass  # Raises where the model lacks its layers or heads, before any answer.
        _begin(session, left, done, {**now, **_yes_no(plan, vlm)})
        recorder = Recorder(
            lambda name, answers: folders[name].append(answers),
            lambda name, cost: folders[name].spend(cost),
        )
        ask_batches(vlm, plan, _batches(session, vlm), done, recorder, folder.place)
    gathered = _gather(session, folders, left)
    if not gathered:
        print(
            f"process {folder.place.index} of {folder.place.count} is done; the last one prints "
            "the result",
            file=sys.stderr,
        )
    return gathered


def _yes_no(plan: Plan, vlm: models.VLM) -> dict[str, Any]:
    """Return which tokens are "yes" and "no", for arm.json; nothing where no task wants them.

    Raises:
        EvaluationError: If the answers are to be told by them, and there are none of one word.
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


def _gather(session: Session, folders: dict[str, ArmFolder], asked: set[str]) -> bool:
    """Put the answers of arms that are complete now into files in the order of the questions.

    The process that finds all answers recorded does it, once, and reports.
    """
    wanted, place = session.wanted(), session.folder.place
    with session.folder.common_lock():
        found = {name: folder.answers() for name, folder in folders.items()}
        if any(key not in answers for answers in found.values() for key in wanted):
            return False
        # Also those that a process answered to the end and was killed before it put them together.
        unjoined = [n for n, of in found.items() if folders[n].in_parts or list(of) != wanted]
        for name in unjoined:
            folders[name].finish([found[name][key] for key in wanted])
        return bool(place.is_alone or unjoined or (not asked and place.index == 0))


def _check_items(
    session: Session, folders: dict[str, ArmFolder], done: dict[str, dict[Key, Answer]]
) -> None:
    """Refuse answers whose question, picture or label is not that of the question file.

    Raises:
        EvaluationError: Naming the first.
    """
    items = {prompt.key: prompt.item for prompt in session.plan.prompts}
    for name, answers in done.items():
        for key, answer in answers.items():
            if key in items and answer.item != items[key]:
                raise EvaluationError(
                    f"{folders[name].path}: question {key} is recorded as {answer.item}, but it is "
                    f"{items[key]}; pass --fresh to set the arm's answers aside and ask again"
                )


def _check_code(
    session: Session, done: dict[str, dict[Key, Answer]], left: set[str], now: dict[str, Any]
) -> None:
    """Refuse to go on with answers of other code, and note that finished ones are of such.

    Raises:
        EvaluationError: If an arm was begun by other code and is not finished, or its name means
            other settings now.
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
            if session.folder.place.index == 0:
                print(
                    f"note: {what} was answered by other code ({'; '.join(changes)}); --fresh asks "
                    "again",
                    file=sys.stderr,
                )
        elif not session.settings.accept_old:
            raise EvaluationError(
                f"{what} was answered by other code or settings ({'; '.join(changes)}): pass "
                f"--fresh to set its {len(done[arm.name])} answers aside and ask again, or "
                "--accept-old to keep them and go on"
            )


def _begin(
    session: Session, left: set[str], done: dict[str, dict[Key, Answer]], now: dict[str, Any]
) -> None:
    """Write run.json and each arm's arm.json, or note in them that they are taken up again."""
    folder, settings = session.folder, session.settings
    start = {
        **provenance(()),
        "device": session.plan.device,
        "batch_size": settings.batch_size or "auto",
        "num_workers": session.plan.num_workers,
        "prefix_reuse": settings.prefix_reuse,
        "processes": folder.place.count,
    }
    with folder.common_lock():
        if folder.place.index == 0:
            _begin_run(session)
        for arm in session.plan.arms:
            if arm.name not in left:
                continue
            arm_folder = session.arm_folder(arm)
            info = arm_folder.info()
            # An arm that was stopped before its first answer is begun again.
            if info is None or not arm_folder.answers():
                arm_folder.write_info({"name": arm.name, **arm.arm.as_record(), **start, **now})
            elif folder.place.index == 0 and done[arm.name]:
                again = {**start, **now} if code_changes(info, now) else start
                resumed = [*info.get("resumed", []), again]
                arm_folder.write_info({**info, "resumed": resumed})


def _begin_run(session: Session) -> None:
    """Write run.json, or note in it that the run was started again."""
    checkpoint, device = session.described.checkpoint, session.plan.device
    start = {"checkpoint": checkpoint, **provenance(PACKAGES), "device": device}
    session.folder.begin(start)


def _set_aside(session: Session, folders: Sequence[ArmFolder]) -> None:
    if not session.folder.place.is_alone:
        raise EvaluationError(
            f"--fresh with {session.folder.place.count} processes: they would set each other's "
            "answers aside; start one process with --fresh, stop it, and start them all without"
        )
    for folder in folders:
        if (target := folder.set_aside()) is not None:
            print(f"note: the answers of {folder.name} are in {target} now", file=sys.stderr)


def _batches(session: Session, vlm: models.VLM) -> list[list[Prompt]]:
    """Return what is generated together, the same for all processes of the run."""
    plan = session.plan
    if plan.batch_size is not None:
        return by_count(plan.prompts, plan.batch_size)
    budget = session.folder.settle(BATCHES, {"tokens": token_budget(vlm, plan.decoding)})["tokens"]
    new = plan.decoding.max_new_tokens
    lengths = {text: vlm.prompt_length(text) + new for text in {p.text for p in plan.prompts}}
    return by_tokens(plan.prompts, lengths, budget)


def _questions(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return number and SHA-256 of the questions of each part, as they are asked."""
    parts: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        parts.setdefault(prompt.item.part, []).append(prompt)
    return {
        part: {
            "count": len(of),
            "sha256": hashlib.sha256(
                json.dumps([[p.item.id, p.image, p.text, p.item.label] for p in of]).encode()
            ).hexdigest(),
        }
        for part, of in parts.items()
    }


def _check_likelihood(arms: Sequence[AskedArm], decoding: models.Decoding) -> None:
    """Refuse arms that have no scores of the first token alone.

    Raises:
        EvaluationError: Naming the arm.
    """
    for arm in arms:
        method = arm.decoding
        if method is None:
            continue
        try:
            method.check(decoding)
            known = method.scores_first_token
        except ValueError:  # a beam search
            known = False
        if not known:
            raise EvaluationError(
                f"method {arm.name}: --scoring likelihood needs a method that scores the first "
                f"token by itself, and {type(method).__name__} does not; leave the arm out, or use "
                "--scoring generate"
            )


def _check_arms(
    arms: Sequence[AskedArm], decoding: models.Decoding, batch_size: int | None
) -> None:
    """Refuse beams, sampling and batches that an arm does not go with.

    Raises:
        EvaluationError: Naming the arm.
    """
    for arm in arms:
        if arm.decoding is not None:
            try:
                arm.decoding.check(decoding)
            except ValueError as error:
                raise EvaluationError(f"method {arm.name}: {error}") from error
        config = arm.arm.eah
        if config is not None and config.rule == "released_code" and batch_size != 1:
            raise EvaluationError(
                f"batch_size={batch_size or 'auto'}, but the rule released-code changes the first "
                "prompt of a batch only, as the release does; pass --batch-size 1"
            )


def _workers(wanted: int | None, device: str) -> int:
    """Return how many processes read pictures: beside a CPU none, unless they are asked for."""
    if wanted is not None:
        return wanted
    return 0 if device == "cpu" else GPU_WORKERS


def device_name(device: str) -> str:
    """Return what a person would call the device."""
    if device.startswith("cuda"):
        return f"{device}: {torch.cuda.get_device_name(device)}"
    if device == "auto":
        return f"{torch.cuda.device_count()} GPUs"
    return f"{device}: {platform.machine()}, {torch.get_num_threads()} threads"
