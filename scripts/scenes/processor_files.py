"""The small JSON files that let transformers' AutoProcessor read a LLaVA checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import LlavaConfig

from models.images import CLIP_MEAN, CLIP_STD
from models.tokenizer_json import write_tokenizer_json

BICUBIC = 3  # PIL's number for it


def write_processor_files(output: Path, config: LlavaConfig) -> None:
    """Write tokenizer and processor files next to `tokenizer.model`, as hub checkpoints have them.

    Args:
        output: Checkpoint folder.
        config: Its image token `<image>` follows the vocabulary, then comes `<pad>`.
    """
    model = output / "tokenizer.model"
    write_tokenizer_json(model, output, added=("<image>", "<pad>"), processor="LlavaProcessor")
    side = config.vision_config.image_size
    files: dict[str, dict[str, Any]] = {
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": side},
            "resample": BICUBIC,
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(CLIP_MEAN),
            "image_std": list(CLIP_STD),
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": "<image>",
            "patch_size": config.vision_config.patch_size,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,  # CLS, which "default" takes away again
        },
    }
    for name, content in files.items():
        (output / name).write_text(json.dumps(content, indent=1) + "\n")
