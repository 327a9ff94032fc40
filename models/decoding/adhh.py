"""AD-HH: adaptive deactivation of hallucination heads (ICLR 2025).

"Modular Attribution and Intervention": some heads cause objects that are not in the picture. If
such a head's attention on the text after the image sums to `threshold` or more, that attention is
set to zero; its other weights stay. Follows the authors' `modeling_llama.py` and the heads that
they found in LLaVA-1.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from eah.find import num_heads
from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import ChangedRows, Rows
from models.decoding.base import MethodError, check_number, check_switch

HEAD: Final = r"(0|[1-9]\d{0,3})h(0|[1-9]\d{0,3})"


@dataclass(frozen=True, slots=True)
class Adhh(AttentionMethod):
    """AD-HH with its settings.

    Attributes:
        heads: Layer and index of each head, such as "16h29+26h9"; "none" for no head, "" if
            unknown.
        threshold: Attention on text from which a head is deactivated; above 1 for never.
        batch_sum: Whether attention is summed over the batch before the comparison, as in the
            authors' code, where the rows are the beams of one question.
    """

    title = "AD-HH"
    layer_setting = "heads"
    heads: str = ""
    threshold: float = 0.4
    batch_sum: bool = False

    def __post_init__(self) -> None:
        """Check the settings once."""
        check_number("threshold", self.threshold, low=0)
        check_switch("batch_sum", self.batch_sum)
        heads = self.heads.split("+") if isinstance(self.heads, str) else [self.heads]
        for head in heads if self.heads not in ("", "none") else ():
            if not re.fullmatch(HEAD, str(head)) or heads.count(head) > 1:
                raise ValueError(
                    f"heads={self.heads!r:.60} with {head!r:.20}, but each head is written once, "
                    "as layer, h, head: 16h29+26h9"
                )

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.heads == "none"

    @property
    def rows(self) -> ChangedRows:
        """The last row."""
        return ChangedRows.LAST

    @property
    def runs_alone(self) -> bool:
        """Whether answers in a batch affect each other."""
        return self.batch_sum

    def by_layer(self) -> dict[int, list[int]]:
        """Return the heads of each layer.

        Raises:
            MethodError: If the heads are unknown.
        """
        if not self.heads:
            raise MethodError(
                "AD-HH needs the hallucination heads of this language model; its authors published "
                "them only for LLaVA-1.5 7B and 13B; name them: adhh@heads=16h29+26h9"
            )
        found: dict[int, list[int]] = {}
        for head in self.heads.split("+"):
            layer, _, index = head.partition("h")
            found.setdefault(int(layer), []).append(int(index))
        return found

    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers of the heads; errors as `by_layer`."""
        return sorted(self.by_layer())

    def check_layers(self, modules: Mapping[int, Any]) -> None:
        """Refuse heads that a layer does not have.

        Raises:
            MethodError: Naming head and layer.
        """
        for layer, heads in self.by_layer().items():
            count = num_heads(modules[layer])
            if max(heads) >= count:
                raise MethodError(
                    f"AD-HH: head {layer}h{max(heads)} does not exist, since layer {layer} has "
                    f"{count} heads; name other heads"
                )

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with some heads deactivated, shape (R, n, H, D)."""
        own, call = rows.own(), rows.call
        heads = torch.tensor(self.by_layer()[call.layer], device=own.device)
        weights = rows.weights(rows.scores(heads))  # (R, heads, n, K)
        text = rows.columns >= rows.stops[:, None]  # (R, K)
        mass = (weights * text[:, None, None]).sum(-1)  # (R, heads, n)
        if self.batch_sum:
            mass = mass.sum(0, keepdim=True)
        silent = (mass >= self.threshold)[..., None] & text[:, None, None]
        output = rows.output(weights.masked_fill(silent, 0), heads)  # (R, n, heads, D)
        is_silent = silent.any(-1).transpose(1, 2)[..., None]  # (R, n, heads, 1)
        changed = own.clone()
        changed[:, :, heads] = torch.where(is_silent, output.to(own.dtype), own[:, :, heads])
        return changed
