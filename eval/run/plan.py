"""Everything that decides the answers of a run, besides the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from eah import EAHConfig, EAHHandle, enabled
from eval.run.prompt import Key, Prompt
from models import VLM, Decoding
from models.decoding.base import DecodingMethod


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
        batch_size: Prompts that are generated together; None for as many as fit.
        num_workers: Processes that read pictures ahead.
        seed: Seed of sampling; each batch derives its own.
        prefix_reuse: Whether prompts about the same picture share its prefix.
        text_key: What the text is called where it is recorded.
    """

    prompts: Sequence[Prompt]
    arms: Sequence[Arm]
    data_path: Path
    decoding: Decoding
    batch_size: int | None
    num_workers: int
    seed: int
    prefix_reuse: bool = True
    text_key: str = "answer"

    def keys(self) -> list[Key]:
        """Return (method, *prompt key) of every answer, in the order of the table."""
        return [(arm.name, *prompt.key) for arm in self.arms for prompt in self.prompts]
