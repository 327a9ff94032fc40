"""Two pictures, and POPE's question of each in the formats of the repositories."""

from __future__ import annotations

import json
from pathlib import Path

import checkpoints
import numpy as np
import torch
from PIL import Image


def write_inputs(folder: Path, tokenizer: Path) -> None:
    """Write checkpoints, pictures and questions."""
    torch.manual_seed(0)
    checkpoints.write_vision(folder / "clip-336", 336)
    checkpoints.write_vision(folder / "clip-224", 224, checkpoints.SHIKRA_VISION)
    checkpoints.write_llava(folder / "llava-v1.5-7b", folder / "clip-336", tokenizer)
    checkpoints.write_shikra(folder / "shikra-7b", folder / "clip-224", tokenizer)
    checkpoints.write_llama(folder / "vicuna-7b", tokenizer)
    checkpoints.write_queries(folder)
    questions, chats = [], []
    (folder / "pictures").mkdir()
    for index, (thing, label) in enumerate((("dog", "yes"), ("traffic light", "no")), start=1):
        pixels = np.random.default_rng(index).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        name = f"COCO_val2014_{index:012d}.jpg"
        Image.fromarray(pixels).save(folder / "pictures" / name)
        asked = {"text": f"Is there a {thing} in the image?", "label": label}
        questions.append({"question_id": index, "image": name, **asked})
        chats.append({"image": name, **{key: [value] for key, value in asked.items()}})
    write_lines(folder / "questions.jsonl", questions)
    write_lines(folder / "chat.jsonl", chats)


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
