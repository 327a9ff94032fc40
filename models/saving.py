"""Write a model as one folder in the format of transformers' hub checkpoints.

Names are those that all versions of transformers read, whatever the installed one calls the
parameters in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from huggingface_hub import save_torch_state_dict

from models.layouts import WHOLE, part_rules
from models.tensor_plan import originals

SHARD_SIZE: Final = "5GB"


def save_model(model: Any, family: str, folder: Path) -> None:
    """Write config and safetensors, each tensor in its own precision.

    Args:
        model: The transformers model.
        family: Key of `models.layouts.LAYOUTS`.
        folder: Where to write; made if need be.
    """
    layout = part_rules(family, frozenset({WHOLE}))
    tensors = {
        originals(name, layout)[0][1]: tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(tensors, folder, max_shard_size=SHARD_SIZE)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
