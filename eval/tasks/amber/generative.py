"""AMBER's generative half: captions, scored by their hallucinated words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.saved import SavedAnswers
from eval.files.writing import write_atomically
from eval.output.table import WIDTH
from eval.run.flag_parser import FlagParser
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.amber.folder import (
    QUESTIONS,
    Amber,
    amber_folder,
    query_file,
    read_captions_half,
    read_queries,
)
from eval.tasks.amber.output import (
    COUNTS,
    Scored,
    caption_lines,
    hal_tests,
    hal_text,
    reference_numbers,
    reference_table,
    responses,
    sums_of,
)
from eval.tasks.amber.scoring import ScoredWords, nouns, score_words
from eval.tasks.amber.settings import GenerativeSettings
from eval.tasks.amber.similar import Exact, Similar, read_similar
from eval.tasks.base import Appendix, Task, TaskProtocol
from eval.tasks.nltk_words import Nltk
from eval.tasks.yes_no.answer_rows import Matching
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.settings import add_saved_flags

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

EXPECTED: Final = 1004


class AmberGenerative(Task):
    """Captions of AMBER's pictures, scored like its `inference.py`.

    CHAIR is the primary metric. It has no test, because its denominator, the number of mentioned
    words, differs between arms. Hal is tested instead: each caption is right or wrong.
    """

    name = "amber-generative"
    title = "AMBER, captions"
    pictures = "data/AMBER/image"
    download_name = "amber"
    unit = "caption"
    settings_class = GenerativeSettings
    settings: GenerativeSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # AMBER's files set no length; this is that of OPERA's and EAH's chair_eval.py.
        ("", "opera"): TaskProtocol(512),
        ("", "official"): TaskProtocol(512),
        # Any model's chat template.
        ("", "chat"): TaskProtocol(512),
    }
    published = False
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("chair", "CHAIR", digits=1),
        Metric("cover", "Cover", digits=1),
        Metric("hal", "Hal", digits=1),
        Metric("cog", "Cog", digits=1),
        Metric("words", factor=1.0, digits=1, highest=None),
        Metric("cut", "cut %", digits=1),
        Metric("empty", "empty %", digits=1),
    )

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags for AMBER's files and for saved captions."""
        flags.flag("--questions", type=Path, help="folder data/ of AMBER's repository (data/AMBER)")
        flags.flag("--similar", type=Path, metavar="FILE",
                   help="pairs of similar words (default: only equal words match)")  # fmt: skip
        add_saved_flags(flags)

    @cached_property
    def amber(self) -> Amber:
        """The content of AMBER's files."""
        return read_captions_half(amber_folder(self.settings.questions))

    @cached_property
    def _items(self) -> dict[int | str, Item]:
        return {item.id: item for item in self.amber.items}

    @cached_property
    def similar(self) -> Similar:
        """Which words are similar."""
        path = self.settings.similar
        return Exact if path is None else read_similar(path, self.amber.words)

    @cached_property
    def nltk(self) -> Nltk:
        """NLTK, which finds the nouns."""
        return Nltk("AMBER's score")

    @cached_property
    def _known(self) -> dict[tuple[int | str, str], ScoredWords]:
        """Scored captions by id and text."""
        return {}

    def items(self) -> list[Item]:
        """Return the pictures to describe, cut to the limit."""
        _ = self.similar, self.nltk  # so that missing files are reported before the model is asked
        return list(self.amber.items[: self.settings.limit])

    def input_paths(self) -> list[Path]:
        """Return AMBER's folder."""
        return [amber_folder(self.settings.questions)]

    def label(self, items: Sequence[Item]) -> str:
        """Return the number of captions."""
        return f"{len(items)}captions"

    def answers_path(self) -> Path | None:
        """Return the file or run folder of `--answers`."""
        return self.settings.answers

    def read_saved(self, path: Path, items: Sequence[Item]) -> SavedAnswers:
        """Read the captions of a file."""
        settings, amber = self.settings, self.amber
        others = {item.id for item in amber.items} - {item.id for item in items}
        if query_file(amber.folder, QUESTIONS).is_file():
            others |= {item.id for item in read_queries(amber.folder, QUESTIONS)}
        rule = Matching(partial=settings.partial, ignored=frozenset(others))
        return read_answers(
            path, items, answer_key=settings.answer_key, id_key=settings.id_key, rule=rule
        )

    def check_run(self, run: RecordedRun) -> None:
        """Refuse flags for files of answers, since a run folder is scored whole."""
        self.settings.check_whole(run.path)

    def score(self, answer: Answer) -> ScoredWords:
        """Score a caption like AMBER.

        Raises:
            EvaluationError: If the caption was generated with other files of AMBER.
        """
        item, amber = answer.item, self.amber
        key = (item.id, answer.text)
        if self._items.get(item.id) != item:
            raise EvaluationError(
                f"caption {item.id} of {item.image} was generated with other files than those in "
                f"{amber.folder}: its question or annotation is not there; pass the folder that it "
                "was generated with as --questions"
            )
        if key not in self._known:
            found = nouns(answer.text, self.nltk)
            of = amber.annotations[item.id]
            self._known[key] = score_words(found, of, amber.words, self.similar)
        return self._known[key]

    def score_all(self, answers: Sequence[Answer]) -> Scored:
        """Return each caption with its scored words."""
        return [(answer, self.score(answer)) for answer in answers]

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Count captions, AMBER's numerators and denominators, words, cut and empty captions."""
        of_amber = np.zeros(len(COUNTS), dtype=int)
        for answer in answers:
            of_amber += self.score(answer).counts()
        return [
            len(answers),
            *of_amber.tolist(),
            sum(len(answer.text.split()) for answer in answers),
            sum(not answer.finished for answer in answers),
            sum(not answer.text.strip() for answer in answers),
        ]

    def numbers(self, sums: Array) -> Array:
        """Compute CHAIR, Cover, Hal, Cog, mean words, and the shares of cut and empty captions."""
        captions, wrong, mentions, covered, truth, marked, hallu, free, words, cut, empty = sums
        return np.stack(
            [
                ratio(wrong, mentions),
                ratio(covered, truth),
                ratio(captions - free, captions),
                ratio(marked, hallu),
                *(ratio(count, captions) for count in (words, cut, empty)),
            ]
        )

    def facts(self) -> dict[str, Any]:
        """Return the name of the word vectors."""
        return {"vectors": self.similar.vectors}

    def appendix(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return the test of Hal, and the numbers as AMBER's script prints them."""
        scored = {arm: self.score_all(answers) for arm, answers in arms.items()}
        tests = hal_tests(scored, references)
        text = "\n\n".join(filter(None, [hal_text(tests), reference_table(scored)]))
        content = {
            "hal_tests": [test.as_dict() for test in tests],
            "counts": {arm: sums_of(of) for arm, of in scored.items()},
            "reference": {arm: reference_numbers(of) for arm, of in scored.items()},
        }
        return Appendix(text, content)

    def extra_metrics(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return the coverage, and what the numbers depend on besides the captions."""
        answered = len(next(iter(arms.values())))
        return {
            "coverage": {"answered": answered, "expected": EXPECTED},
            "nltk": self.nltk.identity,
            "words_sha256": self.amber.words.hash,
            "similar": self.similar.facts,
        }

    def notes(self, arms: Mapping[str, Sequence[Answer]]) -> list[str]:
        """Return notes on the coverage, on captions without known words, and on the vectors."""
        answered = len(
            {answer.item.id for answer in next(iter(arms.values()))}
        )  # repeats count once
        lines = [
            f"answered: {answered:,} of {EXPECTED:,} captions; nouns by "
            f"{self.nltk.identity}; lower is better, except for Cover"
        ]
        for arm, answers in arms.items():
            if silent := sum(not found.mentions for _, found in self.score_all(answers)):
                lines.append(
                    f"note: {silent} of {len(answers)} captions of {arm} have no word that AMBER "
                    "knows: Hal counts them as free of hallucinations, and CHAIR ignores them"
                )
        lines += [self.similar.note] * bool(self.similar.note)
        return ["\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)]

    def write_files(self, report: Path, arms: Mapping[str, Sequence[Answer]]) -> Appendix:
        """Write each caption's scored words, and the captions in the format of AMBER's script."""
        for arm, answers in arms.items():
            scored = self.score_all(answers)
            write_atomically(report / f"amber_{arm}.jsonl", caption_lines(scored))
            write_atomically(report / f"responses_{arm}.json", responses(scored))
        return Appendix(f"captions with their scored words: amber_*.jsonl in {report}")
