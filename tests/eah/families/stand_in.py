"""A vision tower in the place of one that needs the package timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class StandIn(nn.Module):
    """A convolution in the place of a vision tower that needs the package timm."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, hidden, 4, 4)

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=self.patches(pixel_values))


def with_stand_in(build: Callable[[str], PreTrainedModel]) -> Callable[[str], PreTrainedModel]:
    """Return a builder whose model has the stand-in for its vision tower."""
    original = AutoModel.from_config

    def from_config(config: PretrainedConfig, **settings: Any) -> Any:
        if config.model_type in ("timm_wrapper", "gemma3n_vision"):
            return StandIn(config.hidden_size)
        return original(config, **settings)

    def built(kernel: str) -> PreTrainedModel:
        with patch.object(AutoModel, "from_config", from_config):
            return build(kernel)

    return built
