"""Convert a model's original files to one folder that other machines can load without them.

    python scripts/data/convert_checkpoint.py --model minigpt4 --from DOWNLOADS --to minigpt4-7b
    python eval/pope_eval.py --model minigpt4 --checkpoint minigpt4-7b ...

The evaluation commands do so themselves, into the folder `--converted`. Every tensor keeps the
precision that it is stored in.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from eval.command import finish
from eval.run.flag_parser import FlagParser
from models import PARTS, ModelError, model_settings, wrapper_of
from models.checkpoints.convert import convert_checkpoint
from models.sources import refuse_empty


def parser() -> FlagParser:
    """Return the command's flags."""
    flags = FlagParser(__doc__ or "")
    flags.flag("--model", required=True, help="model in configs/, such as minigpt4")
    flags.flag("--from", dest="source", help="folder or hub id of the original files")
    for part in PARTS:
        flags.flag(
            f"--{part.replace('_', '-')}", help="this part's original file, if it is not in --from"
        )
    flags.flag("--to", required=True, help="folder to write, new or empty")
    return flags


def convert(model: str, source: str | None, parts: dict[str, str], to: str) -> str:
    """Write one folder of safetensors, and return its name; it appears when it is complete.

    Args:
        model: Name in `configs/`.
        source: Folder or hub id that holds the original files, or some of them.
        parts: Original files by part.
        to: Folder to write.
    Raises:
        ModelError: If a file is missing or of another model, or the folder holds anything else.
    """
    settings = model_settings(model)
    wrapper = wrapper_of(settings)
    checkpoint = wrapper.find(settings, source, parts)
    refuse_empty("--to", to)
    if checkpoint.is_whole:
        raise ModelError(f"{checkpoint.name} is in transformers' format already; use it as it is")
    made = convert_checkpoint(checkpoint, wrapper.model_class, wrapper.load_config(checkpoint), to)
    return made.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish(
        "convert_checkpoint",
        lambda: run(parser().parse(arguments)),
        ModelError,
        OSError,
        interrupted="nothing was written",
    )


def run(given: Mapping[str, Any]) -> None:
    """Convert as the flags ask, and print how to use the result."""
    parts = {part: given[part] for part in PARTS if part in given}
    folder = convert(given["model"], given.get("source"), parts, given["to"])
    print(f"wrote {folder}; use it with --model {given['model']} --checkpoint {folder}")


if __name__ == "__main__":
    sys.exit(main())
