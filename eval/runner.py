"""Ask a model many questions about pictures, under several methods, and record every answer.

Questions are taken picture by picture, so that a picture is read and encoded once for all its
questions and all arms. Batches follow from the whole list of questions, not from what is left of
it: a run that was stopped and started again forms the same batches as one that was not.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from tqdm import tqdm

from eah import EAHConfig, EAHHandle, LayerReport, enabled
from eval.costs import BatchCost, measured
from eval.errors import EvaluationError
from models import VLM, Decoding
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.vcd import Vcd

Key = tuple[Any, ...]
Row = dict[str, Any]
BATCHES_AHEAD: Final = 3


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question about one picture; `row` is what is recorded with the answer."""

    key: Key
    image: str
    question: str
    row: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arm:
    """A method of a run: its name, EAH's settings where it uses EAH, and how tokens are chosen."""

    name: str
    eah: EAHConfig | None = None
    decoding: DecodingMethod | None = None

    def applied(self, vlm: VLM) -> AbstractContextManager[EAHHandle | None]:
        """Return a context in which the model answers under this method."""
        return nullcontext() if self.eah is None else enabled(vlm.model, self.eah)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the answers of a run, besides the model.

    Attributes:
        prompts: All prompts of the run.
        arms: Methods, in order.
        data_path: Folder of the pictures.
        decoding: How tokens are chosen.
        batch_size: Prompts that are generated together.
        num_workers: Threads that read pictures ahead.
        seed: Seed of sampling; each batch derives its own.
        text_key: What the text is called where it is recorded.
    """

    prompts: Sequence[Prompt]
    arms: Sequence[Arm]
    data_path: Path
    decoding: Decoding
    batch_size: int
    num_workers: int
    seed: int
    text_key: str = "answer"

    def batches(self) -> list[list[Prompt]]:
        """Return the prompts picture by picture, in batches."""
        first = {name: i for i, name in enumerate(dict.fromkeys(p.image for p in self.prompts))}
        ordered = sorted(self.prompts, key=lambda prompt: first[prompt.image])
        size = self.batch_size
        return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def check_images(folder: Path, names: Sequence[str]) -> None:
    """Check that all pictures are there, before anything costly starts.

    Raises:
        EvaluationError: Naming the first that is missing, and how many are.
    """
    missing = [name for name in dict.fromkeys(names) if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(set(names))} pictures are not in {folder}, {missing[0]} among "
            "them; pass the right --data-path (scripts/download_data.sh fetches COCO's)"
        )


def answer(
    vlm: VLM,
    plan: Plan,
    done: Mapping[Key, Row],
    append: Callable[[list[Row]], None],
    spent: Callable[[BatchCost], None],
) -> None:
    """Generate the answers that are not done yet, and append them batch by batch.

    Args:
        vlm: The model.
        plan: What to ask, and how.
        done: Recorded answers by (method, *prompt key).
        append: Records a list of rows.
        spent: Records what a batch cost.
    """
    total = len(plan.prompts) * len(plan.arms)
    progress = tqdm(total=total, initial=len(done), unit=plan.text_key, desc=vlm.protocol)
    warned = False
    with progress, ThreadPoolExecutor(plan.num_workers) as pool:
        left = [
            (index, batch)
            for index, batch in enumerate(plan.batches())
            if any((arm.name, *p.key) not in done for arm in plan.arms for p in batch)
        ]
        for index, batch, pixels in _read_ahead(vlm, left, plan.data_path, pool):
            features = _encoded(vlm, pixels)
            for arm in plan.arms:
                if all((arm.name, *prompt.key) in done for prompt in batch):
                    continue
                with measured(vlm.language_model, arm.name, index) as cost:
                    noised = None
                    if isinstance(arm.decoding, Vcd):
                        noised = _encoded(vlm, _noised(pixels, arm.decoding, plan.seed))
                    rows, cost.tokens = _answer_batch(
                        vlm, plan, arm, index, batch, features, noised
                    )
                fresh = [
                    row
                    for prompt, row in zip(batch, rows, strict=True)
                    if (arm.name, *prompt.key) not in done
                ]
                append(fresh)
                spent(cost)
                warned = warned or _warn_if_saturated(fresh)
                progress.update(len(fresh))


def _answer_batch(
    vlm: VLM,
    plan: Plan,
    arm: Arm,
    index: int,
    batch: Sequence[Prompt],
    features: Mapping[str, torch.Tensor],
    noised: Mapping[str, torch.Tensor] | None,
) -> tuple[list[Row], int]:
    """Return one row per prompt of a batch under one arm, and the tokens of the longest answer."""
    torch.manual_seed(_seed_of(plan.seed, arm.name, index))
    asked = [(prompt.image, prompt.question) for prompt in batch]
    places = list(range(len(batch)))
    if not plan.decoding.do_sample:
        # POPE's three files share half of their questions: the same prompt has the same answer.
        unique = list(dict.fromkeys(asked))
        places, asked = [unique.index(prompt) for prompt in asked], unique
    stacked = torch.stack([features[image] for image, _ in asked])
    contrast = None if noised is None else torch.stack([noised[image] for image, _ in asked])
    questions = [question for _, question in asked]
    with arm.applied(vlm) as handle:
        try:
            answers = vlm.answer_batch(stacked, questions, plan.decoding, arm.decoding, contrast)
        except MethodError as error:
            raise EvaluationError(f"method {arm.name}: {error}") from error
        found = [] if handle is None else handle.report()
    rows = []
    # transformers repeats a prompt for each of its beams; other methods run it once.
    beams = 1 if arm.decoding else plan.decoding.num_beams
    for place, prompt in zip(places, batch, strict=True):
        text, finished, _ = answers[place]
        row = {"method": arm.name, **prompt.row, plan.text_key: text, "finished": finished}
        if handle is not None:
            row["eah"] = [_found(report, place * beams) for report in found]
        rows.append(row)
    return rows, max(answer.tokens for answer in answers)


def _encoded(vlm: VLM, pixels: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the features of pictures by name."""
    return dict(zip(pixels, vlm.encode_pixels(torch.cat(list(pixels.values()))), strict=True))


def _noised(pixels: Mapping[str, torch.Tensor], vcd: Vcd, seed: int) -> dict[str, torch.Tensor]:
    """Return pictures under noise of their own, the same in every run of a seed."""
    return {name: vcd.noised(one, _seed_of(seed, "noise", name)) for name, one in pixels.items()}


def _warn_if_saturated(rows: Sequence[Row]) -> bool:
    """Warn on standard error if EAH's counts said nothing, and tell whether it was so."""
    saturated = [found for row in rows for found in row.get("eah", []) if found["saturated"]]
    if saturated:
        tqdm.write(
            f"warning: in layer {saturated[0]['layer']} every image token passes the threshold in "
            "every head, so that the choice of head says nothing; these prompts are too short for "
            "an absolute threshold, use --preset scale-free",
            file=sys.stderr,
        )
    return bool(saturated)


def _found(report: LayerReport, at: int) -> Row:
    """Return what EAH found in a layer for one row of the batch (the first of its beams)."""
    head = report.head[at]
    return {
        "layer": report.layer,
        "head": head,
        "sinks": max(report.counts[at]) if head is None else report.counts[at][head],
        "image_tokens": report.image_tokens[at],
        "saturated": report.saturated[at],
    }


def _read_ahead(
    vlm: VLM,
    batches: Sequence[tuple[int, list[Prompt]]],
    folder: Path,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, list[Prompt], dict[str, torch.Tensor]]]:
    """Yield batches with their pictures' pixels, reading a few batches ahead of the model."""

    def start(item: tuple[int, list[Prompt]]) -> tuple[int, list[Prompt], dict[str, Future[Any]]]:
        index, batch = item
        names = dict.fromkeys(prompt.image for prompt in batch)
        return index, batch, {name: pool.submit(_pixels, vlm, folder / name) for name in names}

    waiting = iter(batches)
    queue = [start(item) for item in islice(waiting, BATCHES_AHEAD)]
    try:
        while queue:
            index, batch, futures = queue.pop(0)
            yield index, batch, {name: future.result() for name, future in futures.items()}
            queue += [start(item) for item in islice(waiting, 1)]
    finally:
        for _, _, futures in queue:
            for future in futures.values():
                future.cancel()


def _pixels(vlm: VLM, path: Path) -> torch.Tensor:
    """Read and preprocess one picture, shape (1, 3, side, side)."""
    try:
        with Image.open(path) as image:
            return vlm.preprocess([image.convert("RGB")])
    except OSError as error:  # PIL's UnidentifiedImageError and truncated files are OSErrors
        raise EvaluationError(
            f"picture {path} can't be read ({error}); replace it and run the same command again"
        ) from error


def _seed_of(seed: int, what: str, which: int | str) -> int:
    """Derive a seed from a place in the run, so that a resumed run draws the same."""
    digest = hashlib.sha256(f"{seed}/{what}/{which}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
