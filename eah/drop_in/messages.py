"""Messages of the drop-in: lines at the start and the end, warnings, and the log of prompts."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import torch

from eah.drop_in.names import VERSION
from eah.errors import EAHConfigError
from eah.method import NO_HEAD, Choice
from eah.settings import LOG_VARIABLE, QUIET_VARIABLE, DropInSettings

READ_AT_ONCE: Final = 64  # prompts whose findings may stay on their device
SHOWN_HEADS: Final = 6  # of each layer, in the line at the end


@dataclass(frozen=True)
class Findings:
    """Results of a forward pass with a prompt, on the model's device.

    Attributes:
        settings: The settings of its model.
        image: Image tokens per prompt, shape (B, K) bool.
        valid: True at tokens, shape (B or 1, K); None if nothing is padded.
        short: Prompts that are too short for the span, shape (B,) bool; None if it is not fixed.
        choices: By target layer.
        copies: Rows in sequence that are the same prompt (beams).
    """

    settings: DropInSettings
    image: torch.Tensor
    valid: torch.Tensor | None
    short: torch.Tensor | None
    choices: dict[int, Choice]
    copies: int = 1


class Tally:
    """Counts of what happened to the prompts of this process."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._lock = threading.RLock()
        self._pending: list[Findings] = []
        self._announced: set[DropInSettings] = set()
        self._prompts: Counter[str] = Counter()
        self._heads: dict[int, Counter[int]] = {}
        self._warned: set[str] = set()
        self._process = 0

    def announce(self, settings: DropInSettings, library: str) -> None:
        """Show the settings once, and register the line at the end.

        Raises:
            EAHConfigError: If the log can't be written.
        """
        if settings.log is not None:
            _append(settings.log, "")
        if settings in self._announced:
            return
        if not self._announced:
            self._process = os.getpid()
            atexit.register(self.close)
        self._announced.add(settings)
        if not settings.quiet:
            show(f"EAH {VERSION} in {library}: {settings} ({QUIET_VARIABLE}=1 hides this line)")

    def warn(self, kind: str, message: str) -> None:
        """Show each kind of warning once."""
        if kind not in self._warned:
            self._warned.add(kind)
            show(f"EAH: {message}")

    def skip(self, kind: str, count: int) -> None:
        """Count prompts that were left unchanged."""
        with self._lock:
            self._prompts[kind] += count

    def add(self, findings: Findings) -> None:
        """Count a pass. Its results are read later in batches, to synchronize the device rarely."""
        with self._lock:
            self._pending.append(findings)
            seen = sum(self._prompts.values())
            if findings.settings.log is not None or len(self._pending) > min(seen, READ_AT_ONCE):
                self._read()

    def _read(self) -> None:
        pending, self._pending = self._pending, []
        for findings in pending:
            tokens = findings.image.sum(-1).tolist()  # of each prompt
            short = [False] * len(tokens) if findings.short is None else findings.short.tolist()
            layers = {
                layer: (choice.head.tolist(), choice.counts.tolist())
                for layer, choice in findings.choices.items()
            }
            for row in range(0, len(tokens), findings.copies):
                if not tokens[row]:
                    self._prompts["short" if short[row] else "without"] += 1
                    continue
                self._prompts["treated"] += 1
                found = [
                    self._add_layer(layer, heads[row], counts[row], tokens[row])
                    for layer, (heads, counts) in layers.items()
                ]
                self._prompts["saturated"] += any(layer["saturated"] for layer in found)
                if findings.settings.log is not None:
                    self._log(findings, row, tokens[row], found)

    def _add_layer(self, layer: int, head: int, counts: list[int], tokens: int) -> dict[str, Any]:
        """Count what a layer did with a prompt, and return it for the log."""
        self._heads.setdefault(layer, Counter())[head] += 1
        saturated = min(counts) == tokens
        if saturated:
            self.warn(
                "saturated",
                f"every one of {tokens} image tokens is a sink in every head of layer {layer}, so "
                "all counts tie and the choice of head says nothing; EAH_PRESET=scale-free suits "
                "short prompts",
            )
        sinks = None if head == NO_HEAD else counts[head]
        return {
            "layer": layer,
            "head": None if head == NO_HEAD else head,
            "sinks": sinks,
            "saturated": saturated,
        }

    def _log(self, findings: Findings, row: int, tokens: int, layers: list[dict[str, Any]]) -> None:
        """Append a prompt's line to the log."""
        image = findings.image[row]
        valid = torch.ones_like(image)
        if findings.valid is not None:
            valid = findings.valid[row % len(findings.valid)].to(image.device)
        line = {
            "process": os.getpid(),
            "prompt": self._prompts["treated"],
            "tokens": int(valid.sum()),
            "image_tokens": tokens,
            "image_spans": _spans(image[valid].tolist()),
            "layers": layers,
        }
        try:
            _append(str(findings.settings.log), json.dumps(line) + "\n")
        except EAHConfigError as error:  # generation continues
            self.warn("log", str(error))

    def close(self) -> None:
        """Show the counts, unless this is a forked process or EAH_QUIET is set."""
        with self._lock:
            if os.getpid() != self._process:
                return
            self._read()
            shown = [settings for settings in self._announced if not settings.quiet]
            if any(settings.enabled for settings in shown):
                show(f"EAH: {self}")

    def __str__(self) -> str:
        """Return the counts in one line."""
        n = self._prompts
        heads = "".join(
            f"; layer {layer}: {_list_heads(self._heads[layer])}" for layer in sorted(self._heads)
        )
        return (
            f"{n['treated']} prompts treated, {n['without']} without image, {n['short']} too "
            f"short, {n['saturated']} saturated{heads}"
        )


TALLY: Final = Tally()


def show(line: str) -> None:
    """Write a line to standard error, if there is one."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):  # closed, or None
        return


def _list_heads(heads: Counter[int]) -> str:
    """Return how often heads were chosen, the most frequent first."""
    named = [
        f"{'no head' if head == NO_HEAD else f'head {head}'} in {count}"
        for head, count in sorted(heads.items(), key=lambda item: (-item[1], item[0]))
    ]
    more = len(named) - SHOWN_HEADS
    return ", ".join(named[:SHOWN_HEADS]) + (f", {more} others" if more > 0 else "")


def _spans(flags: list[bool]) -> list[list[int]]:
    """Return where flags are true, as [start, stop) pairs."""
    edges = [
        place
        for place, (before, now) in enumerate(zip([False, *flags], [*flags, False]))  # noqa: B905
        if before != now
    ]
    return [list(pair) for pair in zip(edges[::2], edges[1::2])]  # noqa: B905  # Python 3.8


def _append(path: str, text: str) -> None:
    """Append text to a file in one write, so that lines of processes do not mix.

    Raises:
        EAHConfigError: If it can't be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise EAHConfigError(
            f"{LOG_VARIABLE}={path!r} can't be written ({error.strerror}); name another file, or "
            "unset it"
        ) from error
