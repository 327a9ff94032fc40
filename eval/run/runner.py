"""Ask a model many questions about pictures, under several arms, and record every answer.

Questions are asked picture by picture, so that a picture is read and encoded once for all its
questions and all arms, and the prefix up to the picture's end is computed once per arm.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import torch
from tqdm import tqdm

from eah import LayerReport
from eval.errors import EvaluationError
from eval.files.answers import Answer, Finding, Key
from eval.run.costs import BatchCost, measure
from eval.run.pixels import Pixels, read_ahead
from eval.run.plan import AskedArm, BatchSplitter, Plan, Prompt, prefix_bytes
from eval.run.processes import Process
from eval.run.steps import decode_steps
from models import VLM
from models.decoding.base import MethodError
from models.decoding.steps.steps import DecodeSteps
from models.decoding.vcd import Vcd
from models.decoding.yes_no import yes_no_ids
from models.prefix_cache import PicturePrefixes, PrefixCache

Features = dict[str, Any]
"""Encoded pictures by file name."""


class Asker:
    """Asks a model, and caches encoded pictures and prefixes."""

    def __init__(self, vlm: VLM, plan: Plan, steps: DecodeSteps | None = None) -> None:
        """Start without pictures."""
        self._vlm = vlm
        self._plan = plan
        self._pixels: Pixels = {}
        self._features: Features = {}
        self._noised: dict[str, Features] = {arm.name: {} for arm in plan.arms}
        self._prefixes = PrefixCache(prefix_bytes(vlm))  # one for all arms
        self._asked = Counter(image for image, _ in {(p.image, p.text) for p in plan.prompts})
        self._yes_no = yes_no_ids(vlm.tokenizer) if plan.p_yes else None
        self._steps = steps
        self._parts = BatchSplitter(may_cut=plan.batch_size is None, free_memory=self._forget)

    def take(self, pixels: Pixels) -> None:
        """Encode pictures."""
        self._pixels |= pixels
        self._features |= self._encode(pixels)

    def keep(self, names: Collection[str]) -> None:
        """Forget all other pictures."""
        for kept in (self._pixels, self._features, *self._noised.values()):
            for name in kept.keys() - set(names):
                del kept[name]
        self._prefixes.keep(lambda picture: picture[1] in names)

    def end_batch(self, arm: AskedArm, following: Collection[str]) -> None:
        """Forget an arm's prefixes of all pictures but the next batch's."""
        self._prefixes.keep(lambda picture: picture[0] != arm.name or picture[1] in following)

    def _forget(self) -> bool:
        """Free what is kept for later batches; return whether the same batch may now fit."""
        self._prefixes.kept.clear()
        return self._steps is not None and self._steps.stop()

    def answers(
        self, arm: AskedArm, index: int, batch: Sequence[Prompt], cost: BatchCost
    ) -> Iterator[list[Answer]]:
        """Yield the answers to a batch, in parts if it does not fit into memory.

        Args:
            arm: The arm.
            index: The batch's index in the run, from which sampling derives its seed.
            batch: The prompts, whose pictures are encoded.
            cost: The cost to add to.
        """
        yield from self._parts.ask(batch, partial(self._answer_part, arm, index, cost))

    def _answer_part(
        self, arm: AskedArm, index: int, cost: BatchCost, batch: Sequence[Prompt], at: int
    ) -> list[Answer]:
        """Return the answers to a part of a batch, which starts at `at`."""
        part = f"{index}/{at}" if at else index
        torch.manual_seed(derive_seed(self._plan.seed, arm.name, part))
        asked = [(prompt.image, prompt.text) for prompt in batch]
        places = list(range(len(batch)))
        decoding = self._plan.decoding
        if not decoding.do_sample:
            # POPE's three files share half of their questions; equal prompts are asked once.
            unique = list(dict.fromkeys(asked))
            places, asked = [unique.index(prompt) for prompt in asked], unique
        names = [image for image, _ in asked]
        reused, passes = self._prefixes.reused, self._prefixes.passes - self._steps_taken
        contrast = self._contrast_features(arm, names)
        with measure(self._vlm.language_model, cost), arm.applied(self._vlm) as handle:
            try:
                answers = self._vlm.answer_batch(
                    [self._features[name] for name in names],
                    [question for _, question in asked],
                    decoding,
                    arm.decoding,
                    contrast,
                    self._picture_prefixes(arm, names),
                    self._yes_no,
                    self._steps,
                )
            except MethodError as error:
                raise EvaluationError(f"method {arm.name}: {error}") from error
            found = [] if handle is None else handle.report()
        cost.tokens += max(answer.tokens for answer in answers)
        # A contrast is a separate prompt with its own prefix.
        cost.prompts += len(asked) * (1 if contrast is None else 2)
        cost.reused += self._prefixes.reused - reused
        cost.forwards -= self._prefixes.passes - self._steps_taken - passes
        # transformers repeats a prompt for each of its beams.
        repeats = arm.decoding is None or arm.decoding.repeats_prompts
        beams = decoding.num_beams if repeats else 1
        rows = []
        for place, prompt in zip(places, batch, strict=True):
            text, finished, _, p_yes = answers[place]
            if self._plan.likelihood:
                text, finished = likelier_word(p_yes, arm.name, prompt), True
            findings = tuple(_finding(report, place * beams) for report in found)
            rows.append(Answer(prompt.item, text, finished, findings, p_yes))
        return rows

    @property
    def _steps_taken(self) -> int:
        """Forward passes that the model's hooks do not count."""
        return 0 if self._steps is None else self._steps.taken

    def _picture_prefixes(self, arm: AskedArm, names: Sequence[str]) -> PicturePrefixes | None:
        """Return the cached prefixes of a batch; None if no picture has several questions."""
        if self._plan.prefix_reuse and any(self._asked[name] > 1 for name in names):
            return PicturePrefixes([(arm.name, name) for name in names], self._prefixes)
        return None

    def _contrast_features(self, arm: AskedArm, names: Sequence[str]) -> list[Any] | None:
        """Return the features of noised pictures, for methods that contrast with them."""
        vcd = arm.decoding
        if not isinstance(vcd, Vcd):
            return None
        known = self._noised[arm.name]
        new = {name: self._pixels[name] for name in names if name not in known}
        if new:
            # The noise differs between pictures, and is the same in every run with a seed.
            known |= self._encode(
                {
                    name: self._vlm.add_noise(pixels, vcd, derive_seed(vcd.seed, "noise", name))
                    for name, pixels in new.items()
                }
            )
        return [known[name] for name in names]

    def _encode(self, pixels: Pixels) -> Features:
        """Return the features of pictures by name."""
        if not pixels:
            return {}
        return dict(zip(pixels, self._vlm.encode(list(pixels.values())), strict=True))


def _finding(report: LayerReport, at: int) -> Finding:
    """Return EAH's findings in a layer for one row of the batch (the first of its beams)."""
    head = report.head[at]
    return Finding(
        report.layer,
        head,
        max(report.counts[at]) if head is None else report.counts[at][head],
        report.image_tokens[at],
        report.saturated[at],
    )


def likelier_word(p_yes: float | None, arm: str, prompt: Prompt) -> str:
    """Return the likelier word at the first token, "Yes" if both are equally likely.

    Every parser reads this spelling, including AMBER's.

    Args:
        p_yes: Probability of "yes" against "no".
        arm: The arm's name, for the error.
        prompt: The prompt, for the error.
    Raises:
        EvaluationError: If there is no such probability.
    """
    if p_yes is None:
        raise EvaluationError(
            f"method {arm}: the first token of the answer to question {prompt.key} can be neither "
            "yes nor no, so --scoring likelihood has nothing to compare; leave the arm out, or use "
            "--scoring generate"
        )
    return "Yes" if p_yes >= 0.5 else "No"


def derive_seed(seed: int, what: str, which: int | str) -> int:
    """Derive a seed from a position in the run, so that a resumed run draws the same numbers."""
    digest = hashlib.sha256(f"{seed}/{what}/{which}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True, slots=True)
class Recorder:
    """Functions that record answers and costs; their first argument is the arm's name."""

    append: Callable[[str, Sequence[Answer]], None]
    append_cost: Callable[[str, BatchCost], None]


def ask_batches(
    vlm: VLM,
    plan: Plan,
    batches: Sequence[Sequence[Prompt]],
    done: Mapping[str, Collection[Key]],
    recorder: Recorder,
    process: Process,
) -> None:
    """Generate the answers of this process that are not recorded yet, batch by batch.

    Args:
        vlm: The model.
        plan: What to ask and how.
        batches: All batches of the run.
        done: Keys of the recorded answers by arm.
        recorder: Records answers and costs.
        process: This process, which answers its share of the batches.
    """
    mine = [(index, batch) for index, batch in enumerate(batches) if process.answers_batch(index)]
    left = [
        (index, batch)
        for index, batch in mine
        if any(prompt.key not in done[arm.name] for prompt in batch for arm in plan.arms)
    ]
    asker = Asker(vlm, plan, decode_steps(vlm, plan, is_first=process.index == 0))
    names = [list(dict.fromkeys(prompt.image for prompt in batch)) for _, batch in left]
    # Pictures of the previous batch need not be read again.
    fresh = [
        [name for name in now if name not in before]
        for before, now in zip([[], *names], names, strict=False)
    ]
    questions: dict[str, list[str]] = {}
    for prompt in dict.fromkeys((p.image, p.text) for p in plan.prompts):
        questions.setdefault(prompt[0], []).append(prompt[1])
    pictures = read_ahead(
        fresh,
        plan.data_path,
        vlm.preprocessing,
        questions,
        workers=plan.num_workers,
        pinned=vlm.device.type == "cuda",
    )
    keys = [(arm.name, prompt.key) for _, batch in mine for prompt in batch for arm in plan.arms]
    progress = tqdm(
        total=len(keys),
        initial=sum(key in done[name] for name, key in keys),
        unit=plan.unit,
        disable=process.index > 0,
    )
    warned, session = False, uuid4().hex[:8]
    with progress:
        for (index, batch), pixels, following in zip(left, pictures, [*names, []][1:], strict=True):
            asker.take(pixels)
            for arm in plan.arms:
                if all(prompt.key in done[arm.name] for prompt in batch):
                    continue
                progress.set_description(arm.name)
                cost = BatchCost(_batch_name(batch), plan.device, session=session)
                for answers in asker.answers(arm, index, batch, cost):
                    new = [one for one in answers if one.item.key not in done[arm.name]]
                    recorder.append(arm.name, new)
                    warned = warned or _warn_if_saturated(arm.name, new)
                    progress.update(len(new))
                recorder.append_cost(arm.name, cost)
                asker.end_batch(arm, following)
            asker.keep(following)


def _batch_name(batch: Sequence[Prompt]) -> str:
    """Return a batch's name, which depends on neither the arm nor how the run was started."""
    part, number = batch[0].key
    return f"{part}/{number}+{len(batch)}"


def _warn_if_saturated(arm: str, answers: Sequence[Answer]) -> bool:
    """Warn on standard error if EAH's counts are saturated; return whether they are."""
    layers = [one.layer for answer in answers for one in answer.findings if one.saturated]
    if layers:
        tqdm.write(
            f"warning: {arm}: in layer {layers[0]} every image token passes the threshold in every "
            "head, so the choice of head is meaningless; these prompts are too short for an "
            "absolute threshold, use --preset scale-free",
            file=sys.stderr,
        )
    return bool(layers)
