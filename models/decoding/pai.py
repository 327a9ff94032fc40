"""PAI: paying more attention to the image (arXiv 2407.21771).

In every layer but the first two, the newest token's attention scores on image tokens grow by alpha
times their absolute value before the softmax (equation 3). The next token's scores are contrasted
with those of the prompt without its image (equation 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import ChangedRows, Rows
from models.decoding.base import Contrast, DecodingMethod, MethodError, Request, check_number
from models.decoding.loop import decode, mask_implausible
from models.generation import Decoding, concat_prompts

PLAUSIBLE = 0.1  # the authors' constant


@dataclass(frozen=True, slots=True)
class Pai(AttentionMethod):
    """PAI with its settings.

    Attributes:
        alpha: Growth of attention scores on image tokens, relative to their absolute value; 0 for
            no change.
        gamma: Weight in the contrast gamma log p - (gamma - 1) log p without the image; 1 for no
            contrast.
        start_layer: First changed layer, counted from 0; all later layers are changed as well.
    """

    contrast = Contrast.TEXT
    title = "PAI"
    needs_embeddings = True
    layer_setting = "start_layer"
    alpha: float = 0.2
    gamma: float = 1.1
    start_layer: int = 2

    def __post_init__(self) -> None:
        """Check the numbers once."""
        check_number("alpha", self.alpha, low=0)
        check_number("gamma", self.gamma, low=1)
        check_number("start_layer", self.start_layer, low=0)

    @property
    def is_off(self) -> bool:
        """Whether attention is unchanged."""
        return self.alpha == 0

    @property
    def rows(self) -> ChangedRows:
        """The last row."""
        return ChangedRows.LAST

    @property
    def can_use_cached_prefix(self) -> bool:
        """False: prompts with and without their image do not share a prefix."""
        return False

    def check(self, decoding: Decoding) -> None:
        """Refuse beams: each token is chosen from two prompts' scores."""
        DecodingMethod.check(self, decoding)

    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers from `start_layer` on.

        Raises:
            MethodError: If there are none.
        """
        changed = [layer for layer in layers if layer >= self.start_layer]
        if not changed:
            raise MethodError(
                f"start_layer={self.start_layer}, but the model has layers 0..{max(layers)}; name "
                "one of them"
            )
        return changed

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with raised scores, shape (R, n, H, D)."""
        scores = rows.scores()  # (R, H, n, K)
        raised = scores + self.alpha * scores.abs() * rows.image[:, None, None]
        return rows.output(rows.weights(raised))

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded with 0 after EOS."""
        assert request.contrast is not None, "PAI without text-only prompts"
        both = self.gamma != 1
        prompts = request.require_embeddings()
        batch = concat_prompts([prompts, request.contrast]) if both else prompts

        def combine(_: object, logits: torch.Tensor) -> torch.Tensor:
            if not both:
                return logits
            image, text = logits.log_softmax(-1).chunk(2)
            return mask_implausible(self.gamma * image - (self.gamma - 1) * text, image, PLAUSIBLE)

        return decode(request, batch, combine)
