"""Benchmarks in POPE's format: on A-OKVQA and GQA, and with checked labels.

The first two are part of POPE (`output/seem/` of its repository) and were built from SEEM's
segmentation, so their labels have an unknown number of errors. RePOPE is POPE on COCO with labels
that people checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Final

from eval.tasks.base import TaskProtocol
from eval.tasks.pope.files import TypedTask
from eval.tasks.pope.questions import POPE_TYPES
from eval.tasks.pope.repope import LABELS_FOLDER
from eval.tasks.yes_no.answer_rows import Matching
from models.settings import ROOT

WHOLE: Final = MappingProxyType(dict.fromkeys(POPE_TYPES, 3000))
SEEM: Final = (ROOT / "data/POPE",)  # where scripts/data/download.sh puts the files


class PopeAokvqa(TypedTask):
    """POPE on pictures of A-OKVQA, which are from COCO's val2014."""

    name = "pope-aokvqa"
    title = "POPE on A-OKVQA"
    published = False
    file_name = "aokvqa_pope_seem_{}.json"
    folders = SEEM
    questions_download_name = "seem"
    expected = WHOLE


class PopeGqa(TypedTask):
    """POPE on pictures of GQA, which are from Visual Genome."""

    name = "pope-gqa"
    title = "POPE on GQA"
    pictures = "data/GQA/images"
    download_name = "seem"
    published = False
    file_name = "gqa_pope_seem_{}.json"
    folders = SEEM
    questions_download_name = "seem"
    expected = WHOLE


class RePope(TypedTask):
    """RePOPE's questions with its labels; unknown answers are left out, as in its scorer.

    Saved answers are matched by picture and text, since its ids differ from those of most copies of
    POPE. `--task pope --labels repope` reports both label sets on the same answers.
    """

    name = "repope"
    title = "RePOPE"
    published = False
    scorer = "RePOPE's eval_utils.py"
    file_name = "coco_repope_{}.json"
    folders = (LABELS_FOLDER,)
    questions_download_name = "repope"
    expected = MappingProxyType({"random": 2774, "popular": 2727, "adversarial": 2684})
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        key: replace(protocol, parser="substring") for key, protocol in TypedTask.protocols.items()
    }

    @property
    def matching(self) -> Matching:
        """Match by picture and text; answers to removed questions are left out."""
        return replace(super().matching, by_text=True)
