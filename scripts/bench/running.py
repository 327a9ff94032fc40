"""The sections of a bench one after the other, in the time that there is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from functools import partial

import torch

from eval.errors import EvaluationError
from models.base import VLM
from scripts.bench.record import Record
from scripts.bench.rounds import (
    Limits,
    Measurements,
    NoTimeError,
    free_memory,
    reason_of,
    run_rounds,
)
from scripts.bench.rows import Row
from scripts.bench.sections import MODEL_SECTIONS, OWN_SECTIONS
from scripts.bench.sizes import CPU, GPU, TINY
from scripts.bench.vlm import make_vlm, reduced_config


def model_builders(
    models: Sequence[str], device: torch.device, *, tiny: bool = False
) -> dict[str, Callable[[], VLM]]:
    """Return what builds each model, by name; a CPU has the reduced LLaVA alone."""
    if device.type == "cuda" and not tiny:
        return {name: partial(make_vlm, name, device) for name in models}
    return {"llava-1.5": partial(make_vlm, "llava-1.5", device, reduced_config(tiny=tiny))}


def measure(
    sections: Collection[str],
    models: Sequence[str],
    device: torch.device,
    repeats: int,
    seconds: float,
    record: Record,
    *,
    tiny: bool = False,
) -> None:
    """Measure sections, one after the other; one that fails is a row of the record.

    Args:
        sections: Their names.
        models: Names of the models that a GPU measures.
        device: Where.
        repeats: Rounds that count, at most.
        seconds: How long it may take; sections share it.
        record: Takes the rows as they come.
        tiny: Whether to take toy sizes.
    """
    sizes = TINY if tiny else GPU if device.type == "cuda" else CPU
    end = time.monotonic() + seconds
    own = [name for name in OWN_SECTIONS if name in sections]
    of_models = [name for name in MODEL_SECTIONS if name in sections]
    builders = model_builders(models, device, tiny=tiny) if of_models else {}
    left = len(own) + len(of_models) * len(builders)

    def run_next(about: str, start: Callable[[], Measurements]) -> None:
        nonlocal left
        limits = Limits(end, end).part(1 / left)
        left -= 1
        run_section(about, start, repeats, limits, record)
        free_memory()

    for section in own:
        run_next(section, partial(OWN_SECTIONS[section], sizes, device))
    for name, build in builders.items():
        try:
            vlm = build()
        except Exception as error:  # it may not fit; another may
            record.add([Row(name, "", "all", note=f"failed: {reason_of(error)}")])
            left -= len(of_models)
            continue
        for section in of_models:
            run_next(f"{section}, {name}", partial(MODEL_SECTIONS[section], sizes, vlm, name))
        del vlm
        free_memory()


def run_section(
    about: str,
    start: Callable[[], Measurements],
    repeats: int,
    limits: Limits,
    record: Record,
) -> None:
    """Measure a section.

    Args:
        about: Its name.
        start: Returns what it measures.
        repeats: Rounds that count, at most.
        limits: When to stop earlier.
        record: Takes the rows as they come.
    """
    print(f"{about}: the first round says how long it takes", file=sys.stderr, flush=True)
    if time.monotonic() > limits.end:
        record.add([Row(about, "", "all", note="left out: the time was over")])
        return
    try:
        with closing(start()) as measurements:
            for this in measurements:
                try:
                    rows = run_rounds(this, repeats, limits.part(this.share), record.update)
                except NoTimeError as error:
                    record.add([Row(this.measured, "", "all", note=f"left out: {error}")])
                else:
                    record.add(rows, this.lines(rows))
    except EvaluationError:  # of the files
        raise
    except Exception as error:  # whatever it is, the other sections can be measured
        record.add([Row(about, "", "all", note=f"failed: {reason_of(error)}")])
