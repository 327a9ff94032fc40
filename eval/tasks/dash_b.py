"""DASH-B: is a {object} in the picture? Half of the pictures only look as if they contained one.

`--data-path` is the folder `images/` of the benchmark: `dash_benchmark_neg.json` and `_pos.json`
list file names by source and object; the pictures are in `neg/<source>/<object>/` and `pos/...`
(arXiv 2503.23573). Source of prompt and formulas: `src/eval_utils.py` of its repository.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.files.storage import read_json
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import TaskProtocol, every_protocol
from eval.tasks.yes_no.task import YesNoTask

SIDES: Final = {"neg": "no", "pos": "yes"}
EXPECTED: Final = {"": 2682}
PROMPT: Final = "Can you see a {} in this image? Please answer only with yes or no."


class DashB(YesNoTask):
    """DASH-B's questions, grouped by the source of the object's name and by the object."""

    name = "dash-b"
    title = "DASH-B"
    pictures = "data/DASH-B/images"
    download_name = "dash-b"
    scorer = "DASH-B's eval_utils.py"
    leave_out = ()
    expected = EXPECTED
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = dict.fromkeys(
        every_protocol(), TaskProtocol(16, parser="substring")
    )
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("accuracy"),
        Metric("tnr", "TNR"),
        Metric("tpr", "TPR"),
        Metric("harmonic_mean", "harmonic"),
        Metric("yes_ratio", "yes %"),
        Metric("unknown_rate", "unknown %", wide=True),
    )

    def items(self) -> list[Item]:
        """Return the questions about pictures without, then with the object, each up to a limit."""
        root = self.settings.pictures_folder(self.pictures)
        found = []
        for side, label in SIDES.items():
            path = root / f"dash_benchmark_{side}.json"
            if not path.is_file():
                raise EvaluationError(
                    f"{path} does not exist; pass the folder images/ of DASH-B's repository, with "
                    "neg/ and pos/ in it, as --data-path"
                )
            items = [
                Item(f"{side}/{of}", f"{side}/{of}", PROMPT.format(name), label, "", groups)
                for source, name, of in _read_list(path)
                for groups in [{"source": source, "object": name}]
            ]
            found += items[: self.settings.limit]
        return found

    def numbers(self, sums: Array) -> Array:
        """Compute accuracy, TNR, TPR, their harmonic mean, yes ratio and unknown rate.

        An unknown answer is always wrong.
        """
        accuracy, _, tpr, _, yes_ratio, unknown = super().numbers(sums)
        total, tn, positives = sums[0], sums[3], sums[6]
        tnr = ratio(tn, total - positives)
        harmonic = ratio(2 * tpr * tnr, tpr + tnr)
        return np.stack([accuracy, tnr, tpr, harmonic, yes_ratio, unknown])


def _read_list(path: Path) -> list[tuple[str, str, str]]:
    """Read source, object and `<source>/<object>/<file>` of each picture from a list."""
    found = []
    for source, objects in read_json(path).items():
        for name, files in objects.items() if isinstance(objects, dict) else [("", objects)]:
            if not isinstance(files, list) or not all(isinstance(one, str) for one in files):
                raise EvaluationError(
                    f"{path} has {files!r:.60} for {source!r:.60}, {name!r:.60}, but needs a list "
                    "of file names; download it again"
                )
            found += [(source, name, f"{source}/{name}/{file}") for file in files]
    return found
