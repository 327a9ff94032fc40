"""Results of `eah.observe`: sinks of every head, and the head that each rule would choose.

Axes: B batch, H query heads, K keys, I image tokens of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch

from eah.errors import EAHConfigError, nearest
from eah.method import RULES, Choice, Columns, choose, find_sinks, released_columns
from eah.settings import EAHConfig

CONFIG: Final = "config"  # name of the observer's own settings among the rules
RELEASED: Final = "released_code"


class Observation(NamedTuple):
    """Sums of one layer."""

    columns: Columns
    rounded: Columns | None  # of weights rounded to the query's dtype, if needed
    image: torch.Tensor  # True at image tokens, (B, K)

    def cpu(self) -> Observation:
        """Return the sums on the CPU, without copying those that are there already."""
        columns, rounded = self.columns, self.rounded
        there = Columns(*(part.cpu() for part in columns))
        if rounded is not None:
            is_same = rounded is columns
            rounded = there if is_same else Columns(*(part.cpu() for part in rounded))
        return Observation(there, rounded, self.image.cpu())

    def columns_of(self, config: EAHConfig) -> Columns:
        """Return the sums that a rule takes.

        Raises:
            EAHConfigError: If they were not counted.
        """
        if config.rule != RELEASED:
            return self.columns
        if self.rounded is None:
            raise EAHConfigError(
                f"rule={RELEASED!r} was not counted in this pass: name it among the `rules` of "
                "eah.observe, or among its settings"
            )
        return self.rounded


@dataclass(frozen=True, slots=True, eq=False)
class LayerObservation:
    """What one layer attended to in the last image prefill, without EAH in that layer.

    Attributes:
        layer: Layer index, from 0.
        image_tokens: Number of image tokens per batch row.
        sinks: Vision sinks per batch row and head, under the settings used for counting.
        density: Sinks divided by image tokens, likewise; 0.0 without an image.
        image_attention: Mean attention to the image per batch row and head: the sum of `means`.
        heads: Per rule, the head that it would have chosen in each batch row, None for none: the
            observed rules with their own thresholds, and "config", the settings that are counted
            with.
        skipped: Why nothing was observed in this pass; None if something was.
        receivers: Per batch row, the heads that EAH would give the chosen head's map, in order;
            empty where it would choose none.
    """

    layer: int
    image_tokens: tuple[int, ...] = ()
    sinks: tuple[tuple[int, ...], ...] = ()
    density: tuple[tuple[float, ...], ...] = ()
    image_attention: tuple[tuple[float, ...], ...] = ()
    heads: dict[str, tuple[int | None, ...]] | None = None
    skipped: str | None = None
    receivers: tuple[tuple[int, ...], ...] = ()
    _found: Observation | None = field(default=None, repr=False)
    _config: EAHConfig | None = field(default=None, repr=False)

    @property
    def means(self) -> tuple[torch.Tensor, ...]:
        """Per batch row, the mean attention that each image token receives in each head.

        Float32 tensors on the CPU, (H, I).
        """
        found = self._found
        return () if found is None else _of_image(found.columns.means, found.image)

    @property
    def uniform_means(self) -> tuple[torch.Tensor, ...]:
        """Per batch row, what `means` would be under uniform attention, (I,)."""
        found = self._found
        return () if found is None else _of_image(found.columns.uniform_means, found.image)

    @property
    def is_sink(self) -> tuple[torch.Tensor, ...]:
        """Per batch row, which image tokens are sinks of each head under these settings.

        (H, I) bool each; empty under a user's own rule, which returns only counts.
        """
        found, config = self._found, self._config
        if found is None or config is None or not isinstance(config.rule, str):
            return ()
        return _of_image(_sinks(found, config), found.image)

    def shared(self, values: torch.Tensor, row: int = 0) -> torch.Tensor:
        """Return values of heads as they are once EAH has shared the chosen head's map.

        Args:
            values: A row of `means` or `is_sink`, shape (H, I).
            row: Batch row.
        """
        head = (self.heads or {}).get(CONFIG, (None,) * (row + 1))[row]
        values = values.clone()
        if head is not None:
            values[list(self.receivers[row])] = values[head].clone()
        return values


def describe(
    layer: int, found: Observation, config: EAHConfig, rules: Sequence[str] = tuple(RULES)
) -> LayerObservation:
    """Return an observation as Python numbers.

    Args:
        layer: Layer index.
        found: The sums, on the CPU.
        config: Settings that sinks are counted with.
        rules: Named rules to report the heads of.
    Raises:
        EAHConfigError: If the settings' rule was not counted.
    """
    columns, image = found.columns, found.image
    choice = choose(found.columns_of(config), image, config)
    tokens = image.sum(-1)  # (B,)
    density = choice.counts / tokens.clamp(min=1)[:, None]
    attention = (columns.means * image[:, None]).sum(-1)  # (B, H)
    named = {name: EAHConfig.preset(name.replace("_", "-")) for name in rules}
    choices = {
        name: choose(found.columns_of(preset), image, preset) for name, preset in named.items()
    }
    return LayerObservation(
        layer,
        tuple(tokens.tolist()),
        tuple(map(tuple, choice.counts.tolist())),
        tuple(map(tuple, density.tolist())),
        tuple(map(tuple, attention.tolist())),
        {name: heads_of(found) for name, found in {**choices, CONFIG: choice}.items()},
        receivers=tuple(_receivers(choice, row) for row in range(len(image))),
        _found=found,
        _config=config,
    )


def validate_rules(rules: object) -> tuple[str, ...]:
    """Return names of rules as a tuple.

    Raises:
        EAHConfigError: If they are not names of rules.
    """
    names = tuple(rules) if isinstance(rules, (tuple, list)) else (rules,)
    for name in names:
        if name not in RULES:
            raise EAHConfigError(f"rules={rules!r} names {name!r}: {nearest(str(name), RULES)}")
    return names


def heads_of(choice: Choice) -> tuple[int | None, ...]:
    """Return the chosen head per batch row, None for none."""
    return tuple(None if head < 0 else head for head in choice.head.tolist())


def _sinks(found: Observation, config: EAHConfig) -> torch.Tensor:
    """Return the sinks of each head under a named rule, (B, H, K) bool."""
    columns, settings = found.columns_of(config), config.rule_arguments
    if config.rule == RELEASED:
        columns = released_columns(columns, found.image)
    unit = settings.get("threshold_unit", "attention")
    return find_sinks(columns, found.image, settings["threshold"], unit)


def _of_image(values: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return values of columns, (B, ..., K), at each prompt's image tokens alone, (..., I)."""
    return tuple(row[..., mine] for row, mine in zip(values, image, strict=True))


def _receivers(choice: Choice, row: int) -> tuple[int, ...]:
    """Return the heads of a batch row that get the chosen head's map."""
    if choice.head[row] < 0:
        return ()
    heads = range(choice.counts.shape[1])
    return tuple(h for h in heads if choice.receivers is None or bool(choice.receivers[row, h]))
