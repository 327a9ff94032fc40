"""Look at every layer while a model reads prompts, and record what is seen, prompt by prompt.

Nothing is generated: one forward pass per prompt. What is recorded is never looked at again; a run
that was stopped goes on, and several processes share one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from tqdm import tqdm

import eah
import models
from eah.handle import Observer
from eval.analysis.counting import Counting
from eval.analysis.observed import Observed, ObservedLayer, observed_of
from eval.errors import EvaluationError
from eval.files.storage import read_json
from eval.files.writing import writing
from eval.run.folder import BATCHES, SINKS, RunFolder
from eval.run.pixels import read_ahead
from eval.run.plan import Parts, Prompt, by_count, by_tokens, token_budget
from eval.run.provenance import code_changes, current_code, provenance
from eval.run.session import Session

Key = tuple[str, str]
"""Picture and text, which identify a prompt."""
OBSERVATIONS: Final = "observations.jsonl"
OBSERVED: Final = "observed.json"  # what code observed
SET_ASIDE: Final = "set_aside"
# Of a run of answers, what decides no observation.
UNUSED: Final = ("benchmark", "decoding", "seed", "batch_size", "scoring")
ONE_TOKEN: Final = models.Decoding(max_new_tokens=1)


def run_folder(session: Session, counting: Counting, label: str) -> RunFolder:
    """Return the folder of what is observed, named after what decides it.

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
    return RunFolder(root, label, settings, session.folder.place)


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
        for found in _observed(vlm, session, folder, counting, prompts, done):
            folder.lines(OBSERVATIONS).append(one.as_record() for one in found)
    return recorded(session, folder, counting)


def recorded(session: Session, folder: RunFolder, counting: Counting) -> list[Observed] | None:
    """Return what is recorded of all prompts, in their order; None if one is not there yet."""
    done = read_observations(folder, len(counting.thresholds))
    wanted = [(prompt.image, prompt.text) for prompt in unique_prompts(session)]
    return None if any(key not in done for key in wanted) else [done[key] for key in wanted]


def _code_changes(folder: RunFolder, now: dict[str, Any]) -> list[str]:
    """Return in words what differs between the code that observed before and this one."""
    path = folder.path / OBSERVED
    return code_changes(read_json(path), now) if path.is_file() else [f"{OBSERVED} is missing"]


def _check_code(session: Session, folder: RunFolder, changes: Sequence[str], *, left: int) -> None:
    """Refuse to go on with what other code observed, and note that all of it is of such.

    Raises:
        EvaluationError: If something is left to look at.
    """
    what = f"{folder.path} was observed by other code ({'; '.join(changes)})"
    if not left:
        print(f"note: {what}; --fresh looks again", file=sys.stderr)
    elif not session.settings.accept_old:
        raise EvaluationError(
            f"{what}, and {left} prompts are left: pass --fresh to set what is there aside and "
            "look again, or --accept-old to keep it and go on"
        )


def _begin(
    session: Session,
    folder: RunFolder,
    now: dict[str, Any],
    *,
    is_begun: bool,
    changes: Sequence[str],
) -> None:
    """Write run.json and observed.json, or note in them that they are taken up again."""
    start = {**provenance(()), "device": session.plan.device}
    with folder.common_lock():
        if folder.place.index:
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
    if not folder.place.is_alone:
        raise EvaluationError(
            f"--fresh with {folder.place.count} processes: they would set each other's records "
            "aside; start one process with --fresh, stop it, and start them all without"
        )
    for path in folder.lines(OBSERVATIONS).parts():
        aside, number = folder.path / SET_ASIDE, 1
        while (target := aside / f"{path.stem}-{number}{path.suffix}").exists():
            number += 1
        with writing(target):
            aside.mkdir(exist_ok=True)
            path.rename(target)
        print(f"note: what was observed is in {target} now", file=sys.stderr)


def _observed(
    vlm: models.VLM,
    session: Session,
    folder: RunFolder,
    counting: Counting,
    prompts: Sequence[Prompt],
    done: Collection[Key],
) -> Iterator[list[Observed]]:
    """Yield what this process sees, in batches that are the same for all processes."""
    plan = session.plan
    if plan.batch_size is not None:
        batches = by_count(prompts, plan.batch_size)
    else:
        budget = folder.settle(BATCHES, {"tokens": token_budget(vlm, ONE_TOKEN)})["tokens"]
        lengths = {p.text: vlm.prompt_length(p.text) + 1 for p in prompts}
        batches = by_tokens(prompts, lengths, budget)
    mine = [batch for index, batch in enumerate(batches) if folder.place.takes(index)]
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
    parts = Parts(may_cut=plan.batch_size is None, freed=lambda: None)
    progress = tqdm(total=sum(map(len, mine)), initial=sum(map(len, mine)) - sum(map(len, left)),
                    unit="prompt", desc="observed", disable=folder.place.index > 0)  # fmt: skip
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
    vlm.answer_batch([features[p.image] for p in batch], [p.text for p in batch], ONE_TOKEN)
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
        at: Place of the layer among those observed.
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
