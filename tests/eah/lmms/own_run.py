"""Ask a local task's questions as `--model hf` does, and print answers and shared heads as JSON.

    python own_run.py CHECKPOINT FOLDER SUFFIX TOKENS THRESHOLD [LAYER ...]

Without layers it is the baseline. Imports nothing of tests/, which other packages ship, too.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

from PIL import Image

import eah
import models
from models import Decoding


def main(
    checkpoint: str, folder: str, suffix: str, tokens: str, threshold: str, *layers: str
) -> None:
    vlm = models.load("hf", checkpoint=checkpoint, device="cpu", dtype="float32")
    config = eah.EAHConfig(layers=tuple(map(int, layers)) or (0,), threshold=float(threshold))
    answers, heads = [], []
    lines = Path(folder, "docs.jsonl").read_text(encoding="utf-8").splitlines()
    with eah.enabled(vlm.model, config) if layers else nullcontext() as handle:
        for line in lines:
            document = json.loads(line)
            with Image.open(document["path"]) as image:
                features = vlm.encode([vlm.preprocessing.prepare(image.convert("RGB"), [""])])
            question = document["question"] + suffix
            found = vlm.answer_batch(features, [question], Decoding(max_new_tokens=int(tokens)))
            answers.append(found[0].text)
            if handle is not None:
                heads.append([layer.head[0] for layer in handle.report()])
    print(json.dumps({"answers": answers, "heads": heads}))


if __name__ == "__main__":
    main(*sys.argv[1:])
