"""Write question files about rendered scenes, in the layouts that benchmarks are published in.

    python scripts/scenes/questions.py --scenes data/scenes --output data/benchmarks

The scenes are those of make.py. Each benchmark has a folder: amber, mme, pope-aokvqa-gqa, repope,
dash_b, hallusionbench, mmhal. The labels are exact; scores of them check the software.
"""

from __future__ import annotations

import hashlib
import os.path
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.pictures import is_inside
from eval.files.storage import read_json, write_json
from eval.files.writing import write_atomically, write_errors
from eval.run.flag_parser import FlagParser
from eval.run.settings import DEFAULT_SEED
from scripts.scenes.layouts.amber import amber
from scripts.scenes.layouts.dash_b import dash_b
from scripts.scenes.layouts.described import Layout, Scenes, read_scenes
from scripts.scenes.layouts.hallusionbench import hallusionbench
from scripts.scenes.layouts.mme import mme
from scripts.scenes.layouts.mmhal import mmhal
from scripts.scenes.layouts.pope import repope, seem

LAYOUTS: Final[dict[str, Layout]] = {
    "amber": amber,
    "mme": mme,
    "pope-aokvqa-gqa": seem,
    "dash_b": dash_b,
    "hallusionbench": hallusionbench,
    "mmhal": mmhal,
}
FEWEST: Final = 20  # scenes, so that each kind of question can be asked
WRITTEN: Final = "scenes.json"  # what was written, with the sums by which it is known again
DESCRIPTION: Final = "Question files about rendered scenes"


def build(scenes: Scenes, *, count: int, seed: int) -> dict[str, bytes]:
    """Return the content of all files by path below the output folder.

    Args:
        scenes: All scenes: frequencies and co-occurrences are theirs.
        count: Scenes that are asked about, the first ones; RePOPE's labels are for all.
        seed: The same seed gives the same files.
    """
    asked = replace(scenes, pictures=scenes.pictures[:count])
    found: dict[str, str | bytes | Path] = {}
    for name, layout in LAYOUTS.items():
        files = layout(asked, random.Random(f"{seed}/{name}"))
        found |= {f"{name}/{path}": content for path, content in files.items()}
    found |= {f"repope/{path}": content for path, content in repope(scenes, seed).items()}
    return {path: _bytes(content) for path, content in found.items()}


def _bytes(content: str | bytes | Path) -> bytes:
    if isinstance(content, Path):
        return content.read_bytes()
    return content.encode() if isinstance(content, str) else content


def check_folder(output: Path, files: Mapping[str, bytes]) -> None:
    """Refuse to write over a file that this command did not write, or that was changed since.

    Raises:
        EvaluationError: Naming the file.
    """
    known = _written(output)
    for name, content in files.items():
        path = output / name
        if not os.path.lexists(path):
            continue
        is_ours = path.is_file() and _sum(path.read_bytes()) in (known.get(name), _sum(content))
        if path.is_symlink() or not is_ours:
            raise EvaluationError(
                f"--output {output} holds {name} of another source, or changed since; name another "
                "folder, or pass --overwrite to write into this one"
            )


def write(output: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, and remove those of an earlier call that are not among them.

    MME reads every text file of a folder, so what is left of other scenes would be asked, too.
    """
    for name, digest in _written(output).items():
        path = output / name
        is_left = name not in files and is_inside(output, name) and path.is_file()
        if is_left and _sum(path.read_bytes()) == digest:
            path.unlink()
    for name, content in files.items():
        write_atomically(output / name, content)
    sums = {name: _sum(content) for name, content in files.items()}
    write_json(output / WRITTEN, {"description": DESCRIPTION, "files": sums})


def _written(output: Path) -> dict[str, str]:
    """Return the sums of what an earlier call wrote, by path; nothing if there was none."""
    path = output / WRITTEN
    if not path.is_file():
        return {}
    content = read_json(path)
    files = content.get("files")
    if content.get("description") != DESCRIPTION or not isinstance(files, dict):
        raise EvaluationError(f"{path} is of another source; name another folder as --output")
    return files


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    flags.flag("--scenes", required=True, help="folder that make.py wrote")
    flags.flag("--output", required=True, help="folder to write into")
    flags.flag("--count", type=int, default=40, help="scenes to ask about (default: 40)")
    text = f"seed of the questions, as of pope_eval.py --build-from (default: {DEFAULT_SEED})"
    flags.flag("--seed", type=int, default=DEFAULT_SEED, help=text)
    flags.flag(
        "--overwrite",
        action="store_true",
        help="also replace files that this command did not write",
    )
    interrupted = "what was written is kept"
    return finish("questions", lambda: make(**flags.parse(arguments)), interrupted=interrupted)


def make(scenes: str, output: str, *, count: int, seed: int, overwrite: bool = False) -> None:
    """Write the question files, and print how many.

    Raises:
        EvaluationError: If the scenes can't be read or are too few, or the folder can't be written
            or holds files of another source.
    """
    for flag, value in (("--scenes", scenes), ("--output", output)):
        if not value.strip():
            raise EvaluationError(f"{flag} is empty, as an unset variable is; name a folder")
    found = read_scenes(Path(scenes))
    if count < FEWEST or len(found.pictures) < FEWEST:
        raise EvaluationError(
            f"--count {count} of {len(found.pictures)} scenes, but at least {FEWEST} are needed, "
            "so that each kind of question can be asked"
        )
    files = build(found, count=count, seed=seed)
    folder = Path(output)
    with write_errors(folder):
        if not overwrite:
            check_folder(folder, files)
        write(folder, files)
    asked = min(count, len(found.pictures))
    print(f"questions about {asked} scenes in {folder}: {', '.join((*LAYOUTS, 'repope'))}")


if __name__ == "__main__":
    sys.exit(main())
