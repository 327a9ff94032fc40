"""The plan of a run: prompts, arms, decoding, and which prompts are generated together.

Batches are formed from the whole list of prompts, not from the remaining ones. So a resumed run,
and a run of several processes, has the same batches as any other.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import psutil
import torch

from eah import EAHHandle, enabled
from eval.errors import EvaluationError
from eval.files.answers import Item, Key
from eval.run.steps import AUTO
from models import VLM, Decoding
from models.decoding.base import DecodingMethod
from models.prefix_cache import MAX_BYTES

if TYPE_CHECKING:
    from eval.run.arms import Arm


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question as it is sent to the model: the item's text with the protocol's suffix."""

    item: Item
    text: str

    @property
    def image(self) -> str:
        """File name of the picture."""
        return self.item.image

    @property
    def key(self) -> Key:
        """The key that identifies the question in the run."""
        return self.item.key


@dataclass(frozen=True, slots=True)
class AskedArm:
    """An arm with its decoding method built."""

    arm: Arm
    decoding: DecodingMethod | None

    @property
    def name(self) -> str:
        """The arm's recorded name."""
        return self.arm.name

    def applied(self, vlm: VLM) -> AbstractContextManager[EAHHandle | None]:
        """Return a context in which the model answers under this arm."""
        return nullcontext() if self.arm.eah is None else enabled(vlm.model, self.arm.eah)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask and how.

    Attributes:
        prompts: All prompts of the run.
        arms: All arms, in order.
        data_path: Folder of the pictures.
        decoding: How tokens are chosen.
        batch_size: Prompts that are generated together; None for as many as fit.
        num_workers: Processes that read pictures ahead.
        seed: Seed of sampling; each batch derives its own.
        prefix_reuse: Whether prompts about the same picture reuse its cached prefix.
        compile: Whether decoding runs captured steps (`eval.run.steps`).
        unit: Name of an answer on the progress bar.
        device: Name of the device, for the record of costs.
        p_yes: Whether the probability of "yes" against "no" is recorded with each answer.
        likelihood: Whether that probability decides the answer, and nothing else is generated.
    """

    prompts: Sequence[Prompt]
    arms: Sequence[AskedArm]
    data_path: Path
    decoding: Decoding
    batch_size: int | None
    num_workers: int
    seed: int
    prefix_reuse: bool = True
    compile: str = AUTO
    unit: str = "answer"
    device: str = ""
    p_yes: bool = False
    likelihood: bool = False


Answer = TypeVar("Answer")
MAX_PROMPTS: Final = 64  # a killed run loses the current batch
# On a CPU 64 are a sixth faster, but take five times the memory and the time to the first answers.
CPU_PROMPTS: Final = 8
GPU_SHARE: Final = 0.8
CPU_SHARE: Final = 0.5
CACHE_COPIES: Final = 2.5  # the KV cache, a layer's copy as it grows, and the prompts' prefixes
PREFIX_SHARE: Final = 0.125  # share of memory for prefixes that are kept for later batches


def group_by_picture(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Return the prompts about each picture, in the order of the pictures' first prompts."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.image, []).append(prompt)
    return groups


def batches_by_count(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Return batches of `size` prompts, picture by picture."""
    ordered = [prompt for group in group_by_picture(prompts).values() for prompt in group]
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def batches_by_tokens(
    prompts: Sequence[Prompt], lengths: Mapping[str, int], room: Mapping[str, int]
) -> list[list[Prompt]]:
    """Return batches of as many prompts as fit, picture by picture.

    Pictures with the longest prompt come first, so that the prompts of a batch have about the same
    length, and a batch that does not fit into memory fails early.

    Args:
        prompts: All prompts.
        lengths: Tokens by prompt text, including the answer.
        room: The result of `batch_room` that was stored in the run's folder at its start.
    """
    # Older folders do not limit prompts: they were started with the maximum.
    budget, most = room["tokens"], room.get("prompts", MAX_PROMPTS)
    groups = [
        sorted(group, key=lambda prompt: -lengths[prompt.text])
        for group in group_by_picture(prompts).values()
    ]
    groups.sort(key=lambda group: -lengths[group[0].text])
    batches: list[list[Prompt]] = []
    longest = 0
    for prompt in (prompt for group in groups for prompt in group):
        length = max(longest, lengths[prompt.text])
        size = len(batches[-1]) + 1 if batches else 0
        if 0 < size <= most and size * length <= budget:
            batches[-1].append(prompt)
            longest = length
        else:
            batches.append([prompt])
            longest = lengths[prompt.text]
    return batches


def batch_room(vlm: VLM, decoding: Decoding) -> dict[str, int]:
    """Return the largest number of tokens (prompts and answers) and of prompts in a batch.

    The number of tokens is an estimate of what fits into the free memory, from the sizes of the KV
    cache and of one layer's activations.
    """
    config = vlm.language_model.config.get_text_config(decoder=True)
    size = next(vlm.language_model.parameters()).element_size()
    width = config.hidden_size // config.num_attention_heads
    # Families without these settings (OPT) have as many key heads as heads, and an MLP of four
    # times the width.
    key_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    inner = getattr(config, "intermediate_size", 4 * config.hidden_size)
    inner = max(inner) if isinstance(inner, (list, tuple)) else inner
    cache = 2 * config.num_hidden_layers * key_heads * width
    activations = 8 * config.hidden_size + 3 * inner
    per_token = size * (CACHE_COPIES * cache + activations) * decoding.num_beams
    free, share = _free_bytes(vlm)
    most = MAX_PROMPTS if share == GPU_SHARE else CPU_PROMPTS
    return {"tokens": int(share * free / per_token), "prompts": most}


def prefix_bytes(vlm: VLM) -> int:
    """Return the limit, in bytes, of prefixes kept for later batches, for all arms together."""
    free, _ = _free_bytes(vlm)
    return min(int(PREFIX_SHARE * free), MAX_BYTES)


def _free_bytes(vlm: VLM) -> tuple[int, float]:
    """Return the free memory of a model's device, and the share of it that a batch may take."""
    devices = {p.device for p in vlm.model.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    if gpus:
        return sum(torch.cuda.mem_get_info(device)[0] for device in gpus), GPU_SHARE
    return int(psutil.virtual_memory().available), CPU_SHARE


class BatchSplitter:
    """Splits batches that do not fit into memory, and remembers the size that fits."""

    def __init__(self, *, may_cut: bool, free_memory: Callable[[], bool]) -> None:
        """Start with whole batches.

        Args:
            may_cut: Whether a batch that does not fit is split; otherwise it is an error.
            free_memory: Frees caches before a part is tried again; returns whether the whole part
                may now fit.
        """
        self.size: int | None = None
        self._may_cut = may_cut
        self._free_memory = free_memory

    def ask(
        self, batch: Sequence[Prompt], answer: Callable[[Sequence[Prompt], int], list[Answer]]
    ) -> Iterator[list[Answer]]:
        """Yield the answers to a batch part by part, each before the next is tried.

        Args:
            batch: The prompts.
            answer: Answers a part; gets its prompts and the index of the first one.
        Raises:
            EvaluationError: If a batch does not fit and must not be split, or a single prompt does
                not fit.
        """
        at = 0
        while at < len(batch):
            size = min(self.size or len(batch), len(batch) - at)
            rows = _try_answer(batch[at : at + size], at, answer)
            if rows is not None:
                yield rows
                at += size
                continue
            may_fit = self._free_memory()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if not may_fit:
                self._cut(size)

    def _cut(self, size: int) -> None:
        if size == 1:
            raise EvaluationError(
                "a single prompt does not fit into memory; choose a smaller --dtype or "
                "--quantization 4bit, fewer beams, or --device auto for several GPUs"
            )
        if not self._may_cut:
            raise EvaluationError(
                f"{size} prompts at a time do not fit into memory; pass a smaller "
                "--batch-size, or --batch-size auto, which finds one"
            )
        self.size = size // 2


def _try_answer(
    prompts: Sequence[Prompt], at: int, answer: Callable[[Sequence[Prompt], int], list[Answer]]
) -> list[Answer] | None:
    """Return the answers, or None if there was too little memory."""
    try:
        return answer(prompts, at)
    except (RuntimeError, MemoryError) as error:
        # Imported late: accelerate takes seconds, and is needed only here.
        from accelerate.utils.memory import should_reduce_batch_size

        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        return None
