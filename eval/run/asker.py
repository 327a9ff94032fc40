"""Ask a model one batch of questions, and keep what is computed once for a picture."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import torch

from eah import LayerReport
from eval.errors import EvaluationError
from eval.run.batches import Parts
from eval.run.costs import BatchCost, measured
from eval.run.pixels import Pixels
from eval.run.plan import Arm, Plan
from eval.run.prompt import Key, Prompt, Row
from models import VLM
from models.decoding.base import MethodError
from models.decoding.vcd import Vcd
from models.prefix_store import PrefixStore, Sharing

Features = dict[str, torch.Tensor]


class Asker:
    """A model with the pictures that it was shown."""

    def __init__(self, vlm: VLM, plan: Plan) -> None:
        """Start without pictures."""
        self._vlm = vlm
        self._plan = plan
        self._pixels: Pixels = {}
        self._features: Features = {}
        self._noised: dict[str, Features] = {arm.name: {} for arm in plan.arms}
        self._prefixes = {arm.name: PrefixStore() for arm in plan.arms}
        self._asked = Counter(image for image, _ in {(p.image, p.question) for p in plan.prompts})
        self._parts = Parts(may_cut=plan.batch_size is None, freed=self._forget_prefixes)

    def take(self, pixels: Pixels) -> None:
        """Encode pictures."""
        self._pixels |= pixels
        self._features |= self._encoded(pixels)

    def keep(self, names: Collection[str]) -> None:
        """Forget all other pictures."""
        for kept in (self._pixels, self._features, *self._noised.values()):
            for name in kept.keys() - set(names):
                del kept[name]
        for store in self._prefixes.values():
            store.keep(names)

    def answers(
        self, arm: Arm, index: int, batch: Sequence[Prompt], cost: BatchCost
    ) -> Iterator[list[tuple[Key, Row]]]:
        """Yield the answers to a batch by prompt key, in parts where it does not fit into memory.

        Args:
            arm: The method.
            index: The batch's place in the run, which sampling derives its seed from.
            batch: The prompts, about pictures that were taken.
            cost: What the answers cost is added to it.
        """
        yield from self._parts.ask(batch, partial(self._answered, arm, index, cost))

    def _answered(
        self, arm: Arm, index: int, cost: BatchCost, batch: Sequence[Prompt], at: int
    ) -> list[tuple[Key, Row]]:
        """Return one row per prompt of a part that begins somewhere in a batch."""
        part = f"{index}/{at}" if at else index
        torch.manual_seed(seed_of(self._plan.seed, arm.name, part))
        asked = [(prompt.image, prompt.question) for prompt in batch]
        places = list(range(len(batch)))
        decoding = self._plan.decoding
        if not decoding.do_sample:
            # POPE's three files share half of their questions: the same prompt has the same answer.
            unique = list(dict.fromkeys(asked))
            places, asked = [unique.index(prompt) for prompt in asked], unique
        names = [image for image, _ in asked]
        store = self._prefixes[arm.name]
        reused, passes = store.reused, store.passes
        with measured(self._vlm.language_model, cost), arm.applied(self._vlm) as handle:
            try:
                answers = self._vlm.answer_batch(
                    torch.stack([self._features[name] for name in names]),
                    [question for _, question in asked],
                    decoding,
                    arm.decoding,
                    self._contrast(arm, names),
                    self._sharing(names, store),
                )
            except MethodError as error:
                raise EvaluationError(f"method {arm.name}: {error}") from error
            found = [] if handle is None else handle.report()
        cost.tokens += max(answer.tokens for answer in answers)
        cost.prompts += len(asked)
        cost.reused += store.reused - reused
        cost.forwards -= store.passes - passes
        # transformers repeats a prompt for each of its beams; other methods run it once.
        beams = 1 if arm.decoding else decoding.num_beams
        rows = []
        for place, prompt in zip(places, batch, strict=True):
            text, finished, _ = answers[place]
            row = {"method": arm.name, **prompt.row, self._plan.text_key: text}
            row["finished"] = finished
            if handle is not None:
                row["eah"] = [_found(report, place * beams) for report in found]
            rows.append((prompt.key, row))
        return rows

    def _sharing(self, names: Sequence[str], store: PrefixStore) -> Sharing | None:
        """Return how a batch shares prefixes; None where no picture is asked about twice."""
        if self._plan.prefix_reuse and any(self._asked[name] > 1 for name in names):
            return Sharing(names, store)
        return None

    def _contrast(self, arm: Arm, names: Sequence[str]) -> torch.Tensor | None:
        """Return the features of noised pictures, for methods that contrast with them."""
        vcd = arm.decoding
        if not isinstance(vcd, Vcd):
            return None
        known = self._noised[arm.name]
        new = {name: self._pixels[name] for name in names if name not in known}
        if new:
            # Noise of its own for each picture, the same in every run of a seed.
            known |= self._encoded(
                {
                    name: vcd.noised(pixels, seed_of(self._plan.seed, "noise", name))
                    for name, pixels in new.items()
                }
            )
        return torch.stack([known[name] for name in names])

    def _encoded(self, pixels: Pixels) -> Features:
        """Return the features of pictures by name."""
        if not pixels:
            return {}
        encoded = self._vlm.encode_pixels(torch.cat(list(pixels.values())))
        return dict(zip(pixels, encoded, strict=True))

    def _forget_prefixes(self) -> None:
        for store in self._prefixes.values():
            store.keep([])


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


def seed_of(seed: int, what: str, which: int | str) -> int:
    """Derive a seed from a place in the run, so that a resumed run draws the same."""
    digest = hashlib.sha256(f"{seed}/{what}/{which}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
