"""Ask a model many questions about pictures, under several methods, and record every answer.

Questions are taken picture by picture, so that a picture is read and encoded once for all its
questions and all arms, and what a model computes up to the picture's end is computed once per arm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence

from tqdm import tqdm

from eval.run.asker import Asker
from eval.run.costs import BatchCost
from eval.run.pixels import read_ahead
from eval.run.plan import Plan
from eval.run.processes import Place
from eval.run.prompt import Key, Prompt, Row
from models import VLM


def answer(
    vlm: VLM,
    plan: Plan,
    batches: Sequence[Sequence[Prompt]],
    done: Collection[Key],
    append: Callable[[list[Row]], None],
    spent: Callable[[BatchCost], None],
    place: Place,
) -> None:
    """Generate the answers of this process that are not done yet, and append them batch by batch.

    Args:
        vlm: The model.
        plan: What to ask, and how.
        batches: All batches of the run.
        done: Keys (method, *prompt key) of recorded answers.
        append: Records a list of rows.
        spent: Records what a batch cost.
        place: Which batches are this process's.
    """
    mine = [(index, batch) for index, batch in enumerate(batches) if place.takes(index)]
    keys = [(arm.name, *prompt.key) for _, batch in mine for prompt in batch for arm in plan.arms]
    left = [
        (index, batch)
        for index, batch in mine
        if any((arm.name, *prompt.key) not in done for prompt in batch for arm in plan.arms)
    ]
    asker = Asker(vlm, plan)
    names = [list(dict.fromkeys(prompt.image for prompt in batch)) for _, batch in left]
    # Pictures that the batch before has too are at hand.
    fresh = [
        [name for name in now if name not in before]
        for before, now in zip([[], *names], names, strict=False)
    ]
    pictures = read_ahead(
        fresh,
        plan.data_path,
        vlm.preprocessing,
        workers=plan.num_workers,
        pinned=vlm.device.type == "cuda",
    )
    progress = tqdm(
        total=len(keys),
        initial=sum(key in done for key in keys),
        unit=plan.text_key,
        desc=vlm.protocol,
        disable=place.index > 0,
    )
    warned = False
    with progress:
        for (index, batch), pixels, following in zip(left, pictures, [*names[1:], []], strict=True):
            asker.take(pixels)
            for arm in plan.arms:
                if all((arm.name, *prompt.key) in done for prompt in batch):
                    continue
                cost = BatchCost(arm.name, index)
                for rows in asker.answers(arm, index, batch, cost):
                    new = [row for key, row in rows if (arm.name, *key) not in done]
                    append(new)
                    warned = warned or _warn_if_saturated(new)
                    progress.update(len(new))
                spent(cost)
            asker.keep(following)


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
