"""The small JSON files that let transformers' AutoProcessor read a LLaVA checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import LlavaConfig

from models.images import CLIP_MEAN, CLIP_STD

BICUBIC = 3  # PIL's number for it


def write_processor_files(output: Path, config: LlavaConfig) -> None:
    """Write tokenizer and processor configs beside `tokenizer.model`, as hub checkpoints have them.

    Args:
        output: Checkpoint folder.
        config: Its image token is `<image>`, and the id after it is `<pad>`.
    """
    image, pad = config.image_token_index, config.image_token_index + 1
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    contents = ["<unk>", "<s>", "</s>"]
    added = {str(index): _token(content) for index, content in enumerate(contents)}
    added |= {str(image): _token("<image>"), str(pad): _token("<pad>")}
    side = config.vision_config.image_size
    files: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": ["<image>"],
            "legacy": False,
            "padding_side": "left",
            "processor_class": "LlavaProcessor",
            **special,
        },
        "special_tokens_map.json": {**special, "additional_special_tokens": ["<image>"]},
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


def _token(content: str) -> dict[str, Any]:
    flags = dict.fromkeys(["lstrip", "normalized", "rstrip", "single_word"], False)
    return {"content": content, **flags, "special": True}
