"""Handles and reports: what EAH found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from eah.method import Choice
from eah.observation import LayerObservation, describe, heads_of
from eah.overlay import overlay_of
from eah.settings import EAHConfig
from eah.state import Finding, Findings, ObserverKey, Session, last_findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What EAH did in one layer in the last forward pass of this thread, as Python numbers.

    Attributes:
        layer: Layer index, from 0.
        head: Densest head per batch row, None where none was found.
        counts: Vision sinks per batch row and head.
        image_tokens: Number of image tokens per batch row.
        saturated: Per batch row, whether every image token is a sink in every head; then all
            counts tie, and the choice is meaningless.
        skipped: Why EAH did not act in any row; None if it acted.
    """

    layer: int
    head: tuple[int | None, ...]
    counts: tuple[tuple[int, ...], ...]
    image_tokens: tuple[int, ...]
    saturated: tuple[bool, ...]
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class EAHHandle:
    """What `enable` returns: what was patched, and what the last forward pass found."""

    model: nn.Module
    layers: tuple[int, ...]
    config: EAHConfig
    _session: Session
    _heads: dict[int, int]
    _disable: Callable[[nn.Module], None]

    @property
    def choices(self) -> dict[int, Choice]:
        """Choice per layer in this thread's last forward pass, as tensors; empty if it had none.

        Decode steps do not count as forward passes.
        """
        found = last_findings(self._session)
        layers = {} if found is None else found.layers
        return {layer: layers[layer].choice for layer in sorted(layers)}

    def report(self) -> list[LayerReport]:
        """Return what this thread's last forward pass did (waits for the device).

        Decode steps do not count as forward passes. Empty before the first pass.
        """
        found = last_findings(self._session)
        if found is None:
            return []
        return [self._layer_report(layer, found) for layer in self.layers]

    def _layer_report(self, layer: int, found: Findings) -> LayerReport:
        if layer in found.layers:
            return _report(layer, found.layers[layer], self.config)
        nothing = (0,) * self._heads[layer]
        return LayerReport(
            layer,
            (None,) * found.batch,
            (nothing,) * found.batch,
            (0,) * found.batch,
            (False,) * found.batch,
            found.skipped,
        )

    def disable(self) -> None:
        """Disable EAH on the model."""
        self._disable(self.model)


def _report(layer: int, finding: Finding, config: EAHConfig) -> LayerReport:
    choice, tokens = finding.choice, finding.image.sum(-1)
    saturated = (choice.counts == tokens[:, None]).all(-1) & (tokens > 0)
    head = heads_of(choice)
    skipped = None
    if all(found is None for found in head):
        least = f", or its share is below min_density={config.min_density}"
        skipped = (
            f"the rule chose no head: none has a vision sink{least if config.min_density else ''}"
        )
    return LayerReport(
        layer,
        head,
        tuple(map(tuple, choice.counts.tolist())),
        tuple(tokens.tolist()),
        tuple(saturated.tolist()),
        skipped,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Observer:
    """What `observe` yields: the observed layers, and what the last forward pass showed."""

    layers: tuple[int, ...]
    config: EAHConfig
    rules: tuple[str, ...]
    _key: ObserverKey
    _model_config: Any

    def report(self, config: EAHConfig | None = None) -> list[LayerObservation]:
        """Return one entry per layer about this thread's last forward pass under observation.

        Decode steps do not count as forward passes. Empty before the first pass.
        The first report of a pass waits for the device; further ones, with other settings, don't.

        Args:
            config: Settings to count sinks with instead of the observer's; the image tokens stay
                those that were observed.
        Raises:
            EAHConfigError: If `config` has the rule "released_code" and that was not observed.
        """
        found = last_findings(self._key)
        if found is None:
            return []
        observed: dict[int, Any] = found.observed.get(self._key, {})
        for layer, sums in observed.items():
            observed[layer] = sums.cpu()
        reason = found.skipped or "the layer did not run"
        return [
            describe(layer, observed[layer], config or self.config, self.rules)
            if layer in observed
            else LayerObservation(layer, skipped=reason)
            for layer in self.layers
        ]

    def overlay(
        self,
        image: Any,
        *,
        layer: int | None = None,
        head: int | None = None,
        row: int = 0,
        grid: tuple[int, int] | None = None,
    ) -> Figure:
        """Return a figure of where a layer looks in the picture, before and after EAH.

        The picture is next to two heat maps of the mean attention that each image token
        receives, with sinks outlined: once without EAH, and once with the chosen head's map in the
        heads that EAH would give it to.

        Args:
            image: The picture as the model sees it (cropped, padded or resized): a PIL picture, a
                file, or an array of shape (height, width, 3) or (height, width), uint8.
            layer: An observed layer; None for the first of the settings' layers that was observed,
                else the first one.
            head: A head; None for the mean over heads, where a token is outlined that is a sink in
                more than half of them.
            row: Batch row.
            grid: Rows and columns of the image tokens; None for the model's own, where
                `eah.grids` knows it.
        Raises:
            EAHError: If matplotlib is missing, or the figure can't be drawn of what was observed.
        """
        return overlay_of(
            self.report(),
            self.config,
            self._model_config,
            image,
            layer=layer,
            head=head,
            row=row,
            grid=grid,
        )
