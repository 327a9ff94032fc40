"""Observe every layer while a model reads prompts: one forward pass each, without answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

import eah
import models
from eah.handle import Observer
from eval.analysis.counting import Counting
from eval.analysis.observed import Key, Observed, ObservedLayer
from eval.analysis.prefill import ONE_TOKEN, prefill
from eval.errors import EvaluationError
from eval.run.folder import BATCHES, RunFolder
from eval.run.pixels import read_ahead
from eval.run.plan import BatchSplitter, Prompt, batch_room, batches_by_count, batches_by_tokens
from eval.run.session import Session


def observe_prompts(
    vlm: models.VLM,
    session: Session,
    folder: RunFolder,
    counting: Counting,
    prompts: Sequence[Prompt],
    done: Collection[Key],
) -> Iterator[list[Observed]]:
    """Yield what this process observes, in batches that are the same for all processes.

    Args:
        vlm: The model.
        session: The questions.
        folder: Whose processes share them.
        counting: What sinks are counted with.
        prompts: All prompts of the run.
        done: Those that are recorded.
    """
    plan = session.plan
    if plan.batch_size is not None:
        batches = batches_by_count(prompts, plan.batch_size)
    else:
        room = folder.write_once(BATCHES, batch_room(vlm, ONE_TOKEN))
        lengths = {p.text: vlm.prompt_length(p.text) + 1 for p in prompts}
        batches = batches_by_tokens(prompts, lengths, room)
    mine = [batch for index, batch in enumerate(batches) if folder.process.answers_batch(index)]
    left = [[p for p in batch if (p.image, p.text) not in done] for batch in mine]
    left = [batch for batch in left if batch]
    questions: dict[str, list[str]] = {}
    for prompt in prompts:
        questions.setdefault(prompt.image, []).append(prompt.text)
    pixels = read_ahead(
        [list(dict.fromkeys(prompt.image for prompt in batch)) for batch in left],
        plan.data_path,
        vlm.preprocessing,
        questions,
        workers=plan.num_workers,
        pinned=vlm.device.type == "cuda",
    )
    parts = BatchSplitter(may_cut=plan.batch_size is None, free_memory=lambda: False)
    progress = tqdm(total=sum(map(len, mine)), initial=sum(map(len, mine)) - sum(map(len, left)),
                    unit="prompt", desc="observed", disable=folder.process.index > 0)  # fmt: skip
    # Once for all batches: finding what to patch takes some milliseconds.
    with progress, eah.observe(vlm, config=counting.configs[0], rules=()) as seen:
        for batch, prepared in zip(left, pixels, strict=True):
            encoded = vlm.encode(list(prepared.values()))
            features = dict(zip(prepared, encoded, strict=True))

            def look(part: Sequence[Prompt], _: int, features: Any = features) -> list[Observed]:
                return observe_batch(vlm, seen, features, part, counting)

            for found in parts.ask(batch, look):
                yield found
                progress.update(len(found))


def observe_batch(
    vlm: models.VLM,
    seen: Observer,
    features: Mapping[str, Any],
    batch: Sequence[Prompt],
    counting: Counting,
) -> list[Observed]:
    """Return what every layer shows while a model reads some prompts.

    Args:
        vlm: The model; nothing in it is changed.
        seen: Observes it.
        features: What `VLM.encode` returned, by the picture's file name.
        batch: The prompts.
        counting: What sinks are counted with.
    Raises:
        EvaluationError: If a layer was not counted.
    """
    pictures, span = [features[p.image] for p in batch], counting.configs[0].image_span
    prefill(vlm, pictures, [p.text for p in batch], span)
    reports = [seen.report(config) for config in counting.configs]
    for layer in reports[0]:
        if layer.skipped is not None:
            raise EvaluationError(
                f"layer {layer.layer} was not counted: {layer.skipped}; sinks are counted among "
                "image tokens that the language model reads in its prompt: choose another model"
            )
    return [
        Observed(
            prompt.image,
            prompt.text,
            reports[0][0].image_tokens[row],
            tuple(_layer(at, row, reports) for at in range(len(seen.layers))),
        )
        for row, prompt in enumerate(batch)
    ]


def _layer(at: int, row: int, reports: Sequence[Sequence[eah.LayerObservation]]) -> ObservedLayer:
    """Return one layer of one prompt.

    Args:
        at: Index of the layer among those observed.
        row: The prompt's row of the batch.
        reports: By threshold, then layer.
    """
    layers = [report[at] for report in reports]
    return ObservedLayer(
        layers[0].layer,
        tuple(layer.sinks[row] for layer in layers),
        layers[0].image_attention[row],
        tuple((layer.heads or {})["config"][row] for layer in layers),
    )
