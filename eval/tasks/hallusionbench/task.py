"""HallusionBench's questions; answers are parsed like in VLMEvalKit, or have a judge's verdicts.

Sources: `evaluation.py` and `utils.py` of its repository (arXiv 2310.14566), and VLMEvalKit's
`Hallusion_rating` for parsing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eval.files.answers import Answer, Item
from eval.files.saved import SavedAnswers
from eval.run.flag_parser import FlagParser
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import Appendix, TaskProtocol, every_protocol
from eval.tasks.hallusionbench import board
from eval.tasks.hallusionbench.rows import FILE, PARTS, TEXT_ONLY, Judged, read_items, read_verdicts
from eval.tasks.hallusionbench.settings import HallusionSettings, check_verdicts, hash_of
from eval.tasks.yes_no.groups import count_right_groups
from eval.tasks.yes_no.parsers import JUDGE
from eval.tasks.yes_no.parts import PartsTask
from models.settings import ROOT

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun


class HallusionBench(PartsTask):
    """HallusionBench's questions; `--data-path` contains its folders VD/ and VS/."""

    name = "hallusionbench"
    title = "HallusionBench"
    pictures = "data/HallusionBench"
    download_name = "hallusionbench"
    settings_class = HallusionSettings
    settings: HallusionSettings
    scorer = "HallusionBench's utils.py"
    resampled = "set"
    pooled = True
    leave_out = ()
    parts = tuple(PARTS)
    presets: ClassVar[Mapping[str, Sequence[str]]] = {
        kind: [name for name in PARTS if name.startswith(kind)] for kind in ("VD", "VS")
    }
    default_folder = ROOT / "data/HallusionBench"
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("a_acc", "aAcc"), Metric("f_acc", "fAcc"), Metric("q_acc", "qAcc"),
        Metric("easy", "easy", wide=True), Metric("hard", "hard", wide=True),
        Metric("yes_ratio", "yes %"), Metric("unknown_rate", "unknown %", wide=True),
    )  # fmt: skip
    # The bare question, and 128 tokens as in lmms-eval: enough for a sentence.
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        **dict.fromkeys(every_protocol(), TaskProtocol(128, parser="word")),
        ("", "chat-short"): TaskProtocol(16, suffix="\nAnswer with yes or no.", parser="word"),
    }

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags for saved answers to questions without a picture, and for verdicts."""
        super().add_flags(flags)
        flags.flag("--text-only", action="store_true",
                   help="with --answers: also score questions without a picture")  # fmt: skip
        flags.flag("--verdicts", type=Path, metavar="FILE",
                   help=f"with --answers: {FILE} with a judge's verdicts")  # fmt: skip

    @property
    def parser(self) -> str:
        """Name of the parser; "judge" with verdicts."""
        return JUDGE if self._judged is not None else super().parser

    @cached_property
    def _judged(self) -> Judged | None:
        path = getattr(self.settings, "verdicts", None)
        return None if path is None else read_verdicts(path)

    def items(self) -> list[Item]:
        """Return the questions of the selected parts."""
        every = read_items(self.folder() / FILE)
        return self.select_parts([i for i in every if i.image or self.settings.text_only])

    def read_saved(self, path: Path, items: Sequence[Item]) -> SavedAnswers:
        """Read the answers of a file; the run records the hash of the verdicts."""
        found = super().read_saved(path, items)
        file = self.settings.verdicts
        return found if file is None else replace(found, facts={**found.facts, **hash_of(file)})

    def check_scored(self, run: RecordedRun) -> None:
        """Refuse settings without the verdicts that a run was scored with."""
        check_verdicts(run, self.settings)

    def read(self, answer: Answer) -> str | None:
        """Return "yes", "no", or None for unknown; a verdict gives the label or its opposite."""
        if self._judged is None:
            return super().read(answer)
        return board.judged_answer(answer.item, self._judged)

    def right(self, answer: Answer) -> bool:
        """Return whether an answer is right; without a picture, an unknown answer is right."""
        said = self.read(answer)
        return said == answer.item.label or (said is None and not answer.item.image)

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Return the yes/no counts, right answers, and for each kind of group: all and right ones.

        Groups: figures, questions over all figures, over original figures, and over edited figures.
        """
        shown = [one for one in answers if one.item.image]
        edited = [one for one in answers if one.item.groups["visual_input"] == board.EDITED]
        plain = [one for one in answers if one.item.groups["visual_input"] != board.EDITED]
        found = [*super().counts(answers), sum(map(self.right, answers))]
        for of, kind in ((shown, "figure"), (answers, "question"), (plain, "question"),
                         (edited, "question")):  # fmt: skip
            found += count_right_groups(of, kind, self.right)
        return found

    def numbers(self, sums: Array) -> Array:
        """Compute aAcc, fAcc, qAcc, group accuracies easy and hard, yes ratio and unknown rate."""
        *_, yes_ratio, unknown = super().numbers(sums[:-9])
        right, *groups = sums[-9:]
        rates = [ratio(groups[at + 1], groups[at]) for at in range(0, len(groups), 2)]
        return np.stack([ratio(right, sums[0]), *rates, yes_ratio, unknown])

    def sizes(self, arms: Mapping[str, Sequence[Answer]]) -> Mapping[str, int]:
        """Return the number of questions by part; text-only questions count if they are scored."""
        shown = all(one.item.image for answers in arms.values() for one in answers)
        asked = getattr(self.settings, "text_only", False) or not shown
        return {name: of + asked * TEXT_ONLY.get(name, 0) for name, of in PARTS.items()}

    def appendix(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return the numbers of the official leaderboard, after the probabilities."""
        first = super().appendix(arms, references)
        found = {
            arm: board.board(answers, self.read, self._judged) for arm, answers in arms.items()
        }
        text = "\n\n".join(filter(None, [first.text, board.board_text(found, self.parser)]))
        return Appendix(text, {**first.content, "board": found})

    def with_parser(self, parser: str) -> HallusionBench:
        """Return the same benchmark with another parser, without verdicts."""
        settings: Any = replace(self.settings, parser=parser, scoring="generate", verdicts=None)
        return HallusionBench(settings, self.protocol)
