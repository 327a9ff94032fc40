"""Keep what heads see of a picture in a file, so that a page is made again without the model."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from eah.settings import EAHConfig
from eval.analysis.picture import LayerView, PictureView
from eval.errors import EvaluationError
from eval.files.writing import write_atomically

FOLDER: Final = "pictures"
ARRAYS: Final = ("before", "after", "sinks_before", "sinks_after")


def view_file(run: Path, image: str, text: str, config: EAHConfig, code: str) -> Path:
    """Return where the view of a prompt is kept in a run folder, by what decides it."""
    decided = json.dumps([image, text, asdict(config), code], default=str)
    return run / FOLDER / f"{hashlib.sha256(decided.encode()).hexdigest()[:16]}.npz"


def save_view(path: Path, view: PictureView) -> None:
    """Write a view to a file, whole or not at all."""
    arrays: dict[str, Any] = {"seen": np.asarray(view.seen.convert("RGB"))}
    for layer in view.layers:
        arrays |= {f"{name}.{layer.layer}": getattr(layer, name) for name in ARRAYS}
    facts = {
        "model": view.model,
        "image": view.image,
        "question": view.question,
        "grid": view.grid,
        "target": view.target,
        "layers": [[one.layer, one.densest, one.shared] for one in view.layers],
    }
    content = io.BytesIO()
    np.savez_compressed(content, facts=np.array(json.dumps(facts)), **arrays)
    write_atomically(path, content.getvalue())


def load_view(path: Path) -> PictureView:
    """Return the view that is stored in a file.

    Raises:
        EvaluationError: If it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            facts = json.loads(str(kept["facts"]))
            arrays = {name: kept[name] for name in kept.files if name != "facts"}
        seen = Image.fromarray(arrays["seen"])
        layers = tuple(
            LayerView(
                layer,
                arrays[f"before.{layer}"],
                arrays[f"after.{layer}"],
                arrays[f"sinks_before.{layer}"],
                arrays[f"sinks_after.{layer}"],
                densest,
                shared,
            )
            for layer, densest, shared in facts["layers"]
        )
        rows, columns = facts["grid"] or (0, 0)
        if facts["grid"] and rows * columns != layers[0].before.shape[1]:
            raise ValueError(f"a grid of {rows} x {columns}")
        return PictureView(
            str(facts["model"]),
            str(facts["image"]),
            str(facts["question"]),
            seen,
            (rows, columns) if facts["grid"] else None,
            layers,
            int(facts["target"]),
        )
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise EvaluationError(
            f"{path} is damaged ({type(error).__name__}); delete it, it is made again"
        ) from error
