"""MME: two yes/no questions about each picture, in fourteen categories (arXiv 2306.13394).

A category's score is 100 times accuracy plus 100 times accuracy+, the share of pictures with both
questions right. Source: the benchmark's `eval_tool/calculation.py`.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.storage import read_lines
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import TaskProtocol, every_protocol
from eval.tasks.yes_no.groups import count_right_groups
from eval.tasks.yes_no.parts import PartsTask

PERCEPTION: Final = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
    "artwork", "OCR",
)  # fmt: skip
COGNITION: Final = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
# Papers on hallucination report the last: the object level and attribute level.
TOTALS: Final = {
    "perception": PERCEPTION,
    "cognition": COGNITION,
    "hallucination": PERCEPTION[:4],
}
# Two questions about each picture; there are 147 posters and 170 celebrities.
QUESTIONS: Final = {
    **dict.fromkeys(PERCEPTION[:4], 60), "posters": 294, "celebrity": 340, "scene": 400,
    "landmark": 400, "artwork": 400, "OCR": 40, "commonsense_reasoning": 140,
    **dict.fromkeys(COGNITION[1:], 40),
}  # fmt: skip
REQUEST: Final = " Please answer yes or no."
PAIR: Final = 2  # questions about each picture
INNER: Final = "MME_Benchmark"  # folder of the categories in the zip; some copies lack it
SUFFIXES: Final = (".jpg", ".png", ".jpeg")


class Mme(PartsTask):
    """MME's questions, by category; `--data-path` is the downloaded folder."""

    name = "mme"
    title = "MME"
    pictures = "data/MME/MME_Benchmark_release_version"
    download_name = "mme"
    scorer = "MME's eval_tool/calculation.py"
    parts = (*PERCEPTION, *COGNITION)
    presets = TOTALS
    expected = QUESTIONS
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("score", factor=1.0, summed=True, highest=200.0),
        Metric("accuracy"),
        Metric("accuracy_plus", "accuracy+"),
        Metric("yes_ratio", "yes %"),
        Metric("unknown_rate", "unknown %", wide=True),
    )
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # lmms-eval and LLaVA's scripts: greedy, 16 tokens; the question itself asks for one word.
        **dict.fromkeys(every_protocol(), TaskProtocol(16, parser="first-4")),
        # LLaVA's convert_answer_to_mme.py and lmms-eval: LLaVA's request replaces MME's.
        ("llava-1.5", "official"): TaskProtocol(
            16, suffix="\nAnswer the question using a single word or phrase.", parser="first-4"
        ),
    }

    def items(self) -> list[Item]:
        """Return the questions of the selected categories that the folder has."""
        root = self.settings.pictures_folder(self.pictures)
        folder = root / INNER if (root / INNER).is_dir() else root
        found: list[Item] = []
        for category in (*PERCEPTION, *COGNITION):
            items = [item for file in _question_files(folder / category)
                     for item in _read(file, folder / category, root)]  # fmt: skip
            asked = [(item.image, item.question) for item in items]
            files = _picture_folder(folder / category).glob("*")
            paths = (path for path in files if path.suffix.lower() in SUFFIXES)
            names = [Path(os.path.relpath(path, root)).as_posix() for path in paths]
            for name in dict.fromkeys([*names, *dict(asked)]):
                of = [question for image, question in asked if image == name]
                if len(of) != PAIR or len(set(of)) != PAIR:
                    raise EvaluationError(f"{name} in {root} has {len(of)} question(s), but MME "
                                          "asks two different ones; download it again")  # fmt: skip
            found += items
        if not found:
            raise EvaluationError(
                f"{root} has none of MME's categories ({PERCEPTION[0]}, {PERCEPTION[1]}, ...); "
                "pass the folder MME_Benchmark_release_version as --data-path"
            )
        return self.select_parts(found)

    def prompt(self, item: Item, protocol: TaskProtocol) -> str:
        """Return the question; the protocol's request, if any, replaces that of the question."""
        question = item.question
        return (question.removesuffix(REQUEST) if protocol.suffix else question) + protocol.suffix

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Return the counts of all yes/no questions, of pairs, and of pairs with both right."""
        return [*super().counts(answers), *count_right_groups(answers, "", self.right, size=PAIR)]

    def numbers(self, sums: Array) -> Array:
        """Compute score, accuracy, accuracy+, yes ratio and unknown rate."""
        accuracy, _, _, _, yes_ratio, unknown = super().numbers(sums[:-2])
        plus = ratio(sums[-1], sums[-2])
        return np.stack([100 * (accuracy + plus), accuracy, plus, yes_ratio, unknown])


def _question_files(folder: Path) -> list[Path]:
    """Return a category's question files: one next to its folder, or one per picture inside it."""
    beside = folder.with_name(f"{folder.name}.txt")
    if beside.is_file():
        return [beside]
    inside = folder / "questions_answers_YN"
    return sorted((inside if inside.is_dir() else folder).glob("*.txt"))


def _picture_folder(folder: Path) -> Path:
    """Return the folder of a category's pictures, which may be a subfolder."""
    return folder / "images" if (folder / "images").is_dir() else folder


def _read(path: Path, folder: Path, root: Path) -> list[Item]:
    """Read a file of tab-separated lines: picture (unless the file has one), question, answer."""
    inside = path.parent != folder.parent
    items = []
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        names = [f"{path.stem}{suffix}" for suffix in SUFFIXES] if inside else [fields.pop(0)]
        if len(fields) < 2 or fields[1].lower() not in ("yes", "no"):
            raise EvaluationError(
                f"{path}, line {number}: {line[:60]!r} is not a question; "
                f"{'' if inside else 'picture, '}question and Yes or No are needed, tab-separated"
            )
        places = [_picture_folder(folder) / name for name in names]
        picture = next((place for place in places if os.path.isfile(place)), places[0])
        key, name = f"{picture.name}/{number}", Path(os.path.relpath(picture, root)).as_posix()
        items.append(Item(key, name, fields[0], fields[1].lower(), folder.name))
    return items
