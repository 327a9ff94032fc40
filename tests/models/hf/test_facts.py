"""What the table of checkpoints says of positions and attention, against the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from tests.models.hf import CHECKPOINTS
from tests.models.hf.asking import Inputs, Loaded, encode
from tests.models.hf.scenes import Scenes

Load = Callable[[str], Loaded]
families = pytest.mark.parametrize("name", CHECKPOINTS)


@pytest.fixture(scope="session")
def picture(scenes: Scenes) -> Image.Image:
    return scenes.pictures()[0]


@families
def test_positions_have_three_dimensions_where_said(name: str, load: Load) -> None:
    loaded = load(name)
    own_positions = any(hasattr(part, "get_rope_index") for part in loaded.model.modules())
    assert ("M-RoPE" if own_positions else "1-D") == loaded.checkpoint.positions


@families
def test_windows_are_where_said(name: str, load: Load) -> None:
    loaded = load(name)
    kinds = getattr(loaded.model.config.get_text_config(), "layer_types", None) or ()
    assert ("sliding_attention" in kinds) == loaded.checkpoint.window


@families
def test_image_tokens_see_what_is_said(name: str, load: Load, picture: Image.Image) -> None:
    """Changing a later token changes the first image token's state only if it sees that token."""
    loaded = load(name)
    inputs = encode(loaded.processor, loaded.checkpoint, ["no"], [[picture]])
    token = loaded.processor.tokenizer.convert_tokens_to_ids(loaded.checkpoint.placeholder)
    image = (inputs["input_ids"][0] == token).nonzero().flatten().tolist()
    first, neighbour, text = image[0], image[1], inputs["input_ids"].shape[1] - 1
    plain = states_of(loaded, inputs, changed=None)[first]
    sees = [
        not torch.equal(states_of(loaded, inputs, changed=column)[first], plain)
        for column in (first, neighbour, text)
    ]
    expected = {
        "causal": [True, False, False],
        "their picture": [True, True, False],
        "the whole prompt": [True, True, True],
    }
    assert sees == expected[loaded.checkpoint.attention]


@torch.no_grad()
def states_of(loaded: Loaded, inputs: Inputs, *, changed: int | None) -> torch.Tensor:
    """Return the first decoder layer's output, (S, D), after one column of its input changed."""
    kept: list[torch.Tensor] = []

    def change(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        named = "hidden_states" in kwargs
        states = (kwargs["hidden_states"] if named else args[0]).clone()
        if changed is not None:
            states[:, changed] = states[:, changed].flip(-1)
        if named:
            return args, {**kwargs, "hidden_states": states}
        return (states, *args[1:]), kwargs

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output).view(-1, 32))

    layer = first_layer(loaded.model)
    hooks = [
        layer.register_forward_pre_hook(change, with_kwargs=True),
        layer.register_forward_hook(keep),
    ]
    try:
        loaded.model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return kept[0]


def first_layer(model: nn.Module) -> nn.Module:
    """Return the first layer of the language model."""
    (layers,) = (
        part
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList)
        and name.endswith("layers")
        and not any(other in name for other in ("vision", "visual", "tower", "perceiver"))
    )
    return layers[0]
