"""Benchmarks in POPE's form: on A-OKVQA and GQA, and with checked labels.

The first two are POPE's own (`output/seem/` of its repository), built from SEEM's segmentation, so
their labels have errors that nobody has measured. RePOPE is POPE on COCO, checked by people.
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
from eval.tasks.yes_no.said import Matching
from models.settings import ROOT

WHOLE: Final = MappingProxyType(dict.fromkeys(POPE_TYPES, 3000))
SEEM: Final = (ROOT / "data/POPE",)  # as scripts/download_data.sh puts the files


class PopeAokvqa(TypedTask):
    """POPE on pictures of A-OKVQA, which are COCO's val2014."""

    name = "pope-aokvqa"
    title = "POPE on A-OKVQA"
    published = False
    file_name = "aokvqa_pope_seem_{}.json"
    folders = SEEM
    fetched = "seem"
    expected = WHOLE


class PopeGqa(TypedTask):
    """POPE on pictures of GQA, which are Visual Genome's."""

    name = "pope-gqa"
    title = "POPE on GQA"
    pictures = "data/GQA/images"
    fetched_by = "seem"
    published = False
    file_name = "gqa_pope_seem_{}.json"
    folders = SEEM
    fetched = "seem"
    expected = WHOLE


class RePope(TypedTask):
    """RePOPE's questions with its labels; unknown answers are left out, as its scorer does.

    Saved answers are found by picture and text, since its ids number other questions than most
    copies of POPE. `--task pope --labels repope` reports both label sets on the same answers.
    """

    name = "repope"
    title = "RePOPE"
    published = False
    scorer = "RePOPE's eval_utils.py"
    file_name = "coco_repope_{}.json"
    folders = (LABELS_FOLDER,)
    fetched = "repope"
    expected = MappingProxyType({"random": 2774, "popular": 2727, "adversarial": 2684})
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        key: replace(protocol, parser="substring") for key, protocol in TypedTask.protocols.items()
    }

    @property
    def matching(self) -> Matching:
        """By picture and text; answers to questions that were removed are left out."""
        return replace(super().matching, by_text=True)
