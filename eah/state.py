"""The current forward pass of each thread: its prompt, and the findings of the target layers.

The outermost patched model in a call begins a pass before it runs and ends it afterwards (hooks);
the attention functions of its layers read it. It is stored in a context variable and not on the
model, so threads and replicas do not interfere. What `with` blocks set for their prompts (image
tokens, prompt length, cached prefix) is stored in the same way, as frames.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from eah.cached_images import CachedImages
from eah.detection import EmbeddingRows
from eah.method import Choice
from eah.prefix import SharedPrefix
from eah.prompt import NO_IMAGE, Prompt
from eah.scoped_values import ScopedValues
from eah.settings import EAHConfig

STATE: Final = "_eah"  # attribute of patched attention modules


class Finding(NamedTuple):
    """Findings of one layer: the choice, and the image columns, (B, K) bool."""

    choice: Choice
    image: torch.Tensor


@dataclass(eq=False)
class Findings:
    """Findings of a forward pass, which outlive the pass.

    Attributes:
        batch: Batch rows.
        skipped: Why EAH did not act; None if it acted.
        layers: What EAH found, by layer.
        observed: What each observer found, by layer. Weak, because it is itself stored under an
            observer and would never be freed otherwise.
        unchecked: The image columns of a prompt that may have none, (B, K) bool, until it
            is checked.
    """

    batch: int
    skipped: str | None
    layers: dict[int, Finding] = field(default_factory=dict)
    observed: WeakKeyDictionary[ObserverKey, dict[int, Any]] = field(
        default_factory=WeakKeyDictionary
    )
    unchecked: torch.Tensor | None = None

    def skip_if_text(self) -> None:
        """Mark the pass as skipped if the prompt has no image tokens (waits for the device)."""
        image, self.unchecked = self.unchecked, None
        if image is not None and not bool(image.any()):
            self.skipped = NO_IMAGE
            self.layers.clear()
            self.observed.clear()


@dataclass(eq=False)
class ObserverKey:
    """Key under which the findings of an observer are stored.

    Attributes:
        counts_rounded: Whether it also sums weights as rounded to the query's dtype, for the rule
            "released_code". In half precision that is a second count.
    """

    counts_rounded: bool = True


@dataclass(eq=False)
class Session:
    """Settings and state of a patched model.

    Attributes:
        config: EAH's settings; None while EAH is not enabled.
        vision_ids: Ids of placeholder tokens by kind, "image" and "video"; empty if the model's
            config names none.
        observers: Layers that each observer counts in.
        open_blocks: A token for each `image_tokens` block that is open in any thread.
        cached_images: Image tokens that are in a KV cache.
        rows: Finds which embeddings are rows of the model's table.
        has_warned_of_training: Whether the warning about training mode was shown.
    """

    config: EAHConfig | None
    vision_ids: dict[str, tuple[int, ...]]
    observers: dict[ObserverKey, frozenset[int]] = field(default_factory=dict)
    open_blocks: list[object] = field(default_factory=list)
    cached_images: CachedImages = field(default_factory=CachedImages)
    rows: EmbeddingRows = field(default_factory=EmbeddingRows)
    has_warned_of_training: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles keep only the settings."""
        return Session, (self.config, self.vision_ids)

    @property
    def is_active(self) -> bool:
        """Whether EAH is enabled or the model is observed."""
        return self.config is not None or bool(self.observers)

    @property
    def shared_layers(self) -> tuple[int, ...]:
        """Layers that EAH changes."""
        return () if self.config is None else self.config.layers

    @property
    def leaves_text_alone(self) -> bool:
        """Whether counting the layers of a prompt without image tokens leaves its output unchanged.

        A user's functions must not see it, and a kernel that runs twice returns no weights.
        """
        config = self.config
        if config is None:
            return True
        return isinstance(config.rule, str) and config.apply is None and config.receivers == "all"

    def uses(self, layer: int) -> bool:
        """Return whether a layer is changed or observed."""
        return layer in self.shared_layers or any(layer in o for o in self.observers.values())

    def placeholder_ids(self) -> tuple[int, ...]:
        """Return the ids of the tokens that count as image tokens."""
        kind = "all" if self.config is None else self.config.vision_tokens
        return tuple(i for k, ids in self.vision_ids.items() if kind in ("all", k) for i in ids)


@dataclass(eq=False)
class Pass:
    """The current forward pass.

    Attributes:
        session: Session of the patched model.
        model: The model that began it; None when it has ended.
        frame: Python frame of the call of that model, which identifies an interrupted pass.
        outer: The pass of another model around it.
        prompt: Its prompt.
        prefix: The cached prefix, if any.
        findings: What its layers found.
        reached: Layers whose attention ran.
        past: The KV cache that it continues from.
        columns: Image columns by number of keys and device, the same for its layers.
        is_open: Whether the image tokens are not known yet; an inner model may get embeddings.
    """

    session: Session
    model: nn.Module | None
    frame: FrameType | None
    outer: Pass | None
    prompt: Prompt
    prefix: SharedPrefix | None
    findings: Findings
    reached: set[int] = field(default_factory=set)
    past: Any = None
    columns: dict[tuple[int, torch.device], torch.Tensor] = field(default_factory=dict)
    is_open: bool = False

    def image_columns(self, keys: int, device: torch.device) -> torch.Tensor:
        """Return the image columns among keys, (B, K) bool; computed once for all layers."""
        wanted = keys, device
        if wanted not in self.columns:
            self.columns[wanted] = self.prompt.columns(keys, device)
        return self.columns[wanted]

    def is_running(self) -> bool:
        """Return whether the call that began it is still on the stack (Ctrl-C runs no hooks)."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self.frame:
            frame = frame.f_back
        return frame is not None


class PromptLength(NamedTuple):
    """Where answers begin: position per prompt, (B or 1, 1), and the first and last of them."""

    rows: torch.Tensor
    first: int
    last: int


class Frame(NamedTuple):
    """A value that a `with` block sets for the prompts of a session."""

    session: Session
    kind: str
    value: Any


current: ContextVar[Pass | None] = ContextVar("eah_pass", default=None)
_frames: ScopedValues[list[Frame]] = ScopedValues("eah_frames")
_last = threading.local()


def current_pass(session: Session) -> Pass | None:
    """Return the current forward pass of a session in this thread, if any."""
    active_pass = current.get()
    return active_pass if active_pass is not None and active_pass.session is session else None


def last_findings(of: Session | ObserverKey) -> Findings | None:
    """Return the findings of this thread's last forward pass, not counting decode steps.

    Args:
        of: The session, or an observer, for the last pass that it observed.
    Returns:
        The findings (reading them first may wait for the device); None before the first pass.
    """
    found = _kept().get(of)
    if found is not None:
        found.skip_if_text()
    return found


def keep_findings(session: Session, findings: Findings) -> None:
    """Store the findings of a pass for the session's handles and observers in this thread."""
    keys: list[Session | ObserverKey] = [session, *session.observers]
    for key in keys:
        _kept()[key] = findings


def _kept() -> WeakKeyDictionary[Session | ObserverKey, Findings]:
    if not hasattr(_last, "findings"):
        _last.findings = WeakKeyDictionary()
    kept: WeakKeyDictionary[Session | ObserverKey, Findings] = _last.findings
    return kept


@contextmanager
def set_scoped(sessions: list[Session], kind: str, value: object) -> Iterator[None]:
    """Set a value for the prompts of a `with` block, in this thread."""
    with _frames.scope([Frame(session, kind, value) for session in sessions]):
        yield


def scoped_value(session: Session, kind: str) -> Any:
    """Return the value that the innermost `with` block of this thread set; None without one."""
    frames = [frame for block in _frames.values() for frame in block]
    for frame in reversed(frames):
        if frame.session is session and frame.kind == kind:
            return frame.value
    return None
