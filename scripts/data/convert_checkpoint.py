"""Turn a model's original files into one folder that loads fast and needs none of them.

python scripts/data/convert_checkpoint.py --model minigpt4 --from DOWNLOADS --to minigpt4-7b
python eval/pope_eval.py --model minigpt4 --checkpoint minigpt4-7b ...

Every tensor keeps the precision that it is stored in.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.command import finish
from eval.run.flag_parser import FlagParser
from models import PARTS, VLM, ModelError, find_checkpoint, model_settings, wrapper_of
from models.checkpoints import Checkpoint
from models.instruction import FOLDER
from models.saving import save_model

TOKENIZERS: Final = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
INSTRUCTION_FILES: Final = ("vocab.txt", "tokenizer.json")


def parser() -> FlagParser:
    """Return the command's flags."""
    flags = FlagParser((__doc__ or "").splitlines()[0])
    flags.flag("--model", required=True, help="model in configs/, such as minigpt4")
    flags.flag("--from", dest="source", help="folder or hub id that holds the original files")
    for part in PARTS:
        flags.flag(f"--{part.replace('_', '-')}", help="one original part, if it lies elsewhere")
    flags.flag("--to", type=Path, required=True, help="folder to write, which must not exist")
    return flags


def convert(model: str, source: str | None, parts: dict[str, str], to: Path) -> Path:
    """Write one folder of safetensors; it appears when it is complete.

    Args:
        model: Name in `configs/`.
        source: Folder or hub id that holds the original files, or some of them.
        parts: Original files by part.
        to: Folder to write.
    Returns:
        The folder.
    Raises:
        ModelError: If a file is missing or of another model, or the folder exists.
    """
    if to.exists():
        raise ModelError(f"--to {to} exists; name a folder that does not")
    settings = model_settings(model)
    checkpoint = find_checkpoint(settings, source, parts)
    vlm = wrapper_of(settings).load(
        checkpoint, protocol=settings.protocol, device="cpu", precision=None
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as unfinished:
        folder = Path(unfinished) / to.name
        _save(vlm, checkpoint, folder)
        folder.rename(to)
    return to


def _save(vlm: VLM, checkpoint: Checkpoint, folder: Path) -> None:
    save_model(vlm.model, vlm.family.name, folder)
    _copy(checkpoint.text, TOKENIZERS, folder)
    if "qformer_tokenizer" in checkpoint.parts:
        _copy(checkpoint.parts["qformer_tokenizer"], INSTRUCTION_FILES, folder / FOLDER)
    origin = {
        part: {"name": Path(source.name).name, "weights": source.identity}
        for part, source in checkpoint.parts.items()
    }
    (folder / "converted_from.json").write_text(json.dumps(origin, indent=2) + "\n")


def _copy(source: Any, names: tuple[str, ...], folder: Path) -> None:
    """Copy small files that a source has."""
    folder.mkdir(exist_ok=True)
    if source.path is not None and source.path.is_file():
        shutil.copyfile(source.path, folder / names[0])
        return
    for name in names:
        found = source.file(name)
        if found is not None:
            shutil.copyfile(found, folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = parser().parse(arguments)
    return finish(
        "convert_checkpoint",
        lambda: run(given),
        ModelError,
        OSError,
        interrupted="nothing was written",
    )


def run(given: Mapping[str, Any]) -> None:
    """Convert what the flags say, and say how to use it."""
    parts = {part: given[part] for part in PARTS if part in given}
    folder = convert(given["model"], given.get("source"), parts, given["to"])
    print(f"wrote {folder}; use it with --model {given['model']} --checkpoint {folder}")


if __name__ == "__main__":
    sys.exit(main())
