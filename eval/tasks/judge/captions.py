"""The answers of a model: those that runs of chair_eval.py have already, the rest by such a run.

So the answers are captions like any others, and `eval/chair.py` scores the same folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from eval.run.arms import OPERA, OPERA_FLAGS, ArmName, parse_arm
from eval.run.folder import PREDICTIONS, RUN
from eval.run.provenance import images_hash
from eval.tasks.chair.chair_run import plan_captions, run_model
from eval.tasks.chair.settings import ChairSettings
from eval.tasks.judge.answers import Arm, Pair, paired

# What two runs may differ in and still give a picture the same kind of caption: which pictures they
# are, how they are put into batches, and which methods are asked.
INCIDENTAL: Final = ("images", "pictures", "batch_size", "prefix_reuse", "method", "eah",
                     "decoding_methods")  # fmt: skip


def from_model(settings: ChairSettings, pictures: Mapping[int, str]) -> Pair:
    """Return the answers of two methods, after asking the model what no run has.

    Args:
        settings: Of captioning; its two methods are compared.
        pictures: File names by image id.
    """
    arms = settings.arms()
    found = {method: _recorded(settings, pictures, method) for method in arms}
    missing = tuple(method for method, arm in found.items() if arm is None)
    if missing:
        with redirect_stdout(sys.stderr):  # Standard output is for the judge's result.
            run_model(_only(settings, missing), pictures)
        found |= {method: _recorded(settings, pictures, method) for method in missing}
    first, second = (found[method] for method in arms)
    assert first is not None
    assert second is not None
    return paired(first, second)


def _recorded(settings: ChairSettings, pictures: Mapping[int, str], method: str) -> Arm | None:
    """Return one method's answers from the first run that has them all; None if there is none."""
    run = plan_captions(_only(settings, (method,)), pictures)
    wanted = json.loads(json.dumps(run.resolved, default=str))
    root = run.folder(settings.output_dir, "").path.parent
    for folder in sorted(path.parent for path in root.glob(f"*/{RUN}")):
        if not _alike(folder, wanted, method):
            continue
        rows = [row for row in _rows(folder) if row["method"] == method]
        texts = {row["image_id"]: row["caption"] for row in rows}
        if texts.keys() >= pictures.keys() and _same_pictures(folder, settings.pictures_folder()):
            print(f"answers of {method}: {folder}", file=sys.stderr)
            return Arm(method, {image_id: texts[image_id] for image_id in pictures}, str(folder))
    return None


def _only(settings: ChairSettings, arms: tuple[str, ...]) -> ChairSettings:
    """Return settings with some of the arms only, and without what is set for the others."""
    methods = {parse_arm(arm).method for arm in arms}
    kept = tuple(x for x in settings.method_settings if x.partition(".")[0] in methods)
    found = replace(settings, method=arms, method_settings=kept)
    if OPERA not in methods:
        cleared: dict[str, Any] = dict.fromkeys(OPERA_FLAGS)
        found = replace(found, **cleared)
    return found


def _alike(folder: Path, wanted: Mapping[str, Any], method: str) -> bool:
    """Say whether a run asked the same model the same question in the same way."""
    there = _settings(folder)
    names = (there.keys() | wanted.keys()) - set(INCIDENTAL)
    arm = parse_arm(method)
    same_eah = not arm.eah or there.get("eah") == wanted.get("eah")
    same_decoding = _decoding(there, arm) == _decoding(wanted, arm)
    same_rest = all(there.get(name) == wanted.get(name) for name in names)
    return same_eah and same_decoding and same_rest


def _decoding(settings: Mapping[str, Any], arm: ArmName) -> Any:
    """Return the settings of an arm's decoding method in a run."""
    return settings.get("decoding_methods", {}).get(arm.method)


def _same_pictures(folder: Path, pictures: Path) -> bool:
    """Say whether a run's pictures are those in a folder, by their names and sizes."""
    names = [row["image"] for row in _rows(folder)]
    there = all((pictures / name).is_file() for name in names)
    return there and _settings(folder).get("pictures") == images_hash(pictures, names)


def _settings(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / RUN).read_text(encoding="utf-8"))
    settings: dict[str, Any] = content["settings"]
    return settings


def _rows(folder: Path) -> Sequence[dict[str, Any]]:
    """Return the captions of a run so far; another process may be writing the last line."""
    path = folder / PREDICTIONS
    content = path.read_bytes() if path.is_file() else b""
    rows = []
    for line in content.split(b"\n"):
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows
