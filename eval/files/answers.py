"""Questions and answers, from the question file to the metrics; dictionaries only in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NamedTuple

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId

BASELINE: Final = "baseline"
_ROW_TYPES: Final = {"int": int, "str": str, "bool": bool, "None": type(None)}
Key = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one picture.

    Attributes:
        id: Unique within its part, such as POPE's question_id or COCO's image id.
        image: File name below the folder of the pictures.
        question: As the benchmark has it; a protocol may add a suffix to it.
        label: The right answer; empty where an answer is scored in another way.
        part: The part of the benchmark that it belongs to, such as "random"; empty if there is one.
    """

    id: int | str
    image: str
    question: str
    label: str = ""
    part: str = ""

    @property
    def key(self) -> Key:
        """What identifies the question in a run."""
        return self.part, self.id


@dataclass(frozen=True, slots=True)
class Finding:
    """What EAH found in one layer on one prompt.

    Attributes:
        layer: Layer index, from 0.
        head: The head whose map was shared; None where no head qualified.
        sinks: Number of its sinks; without a head, the most that any head has.
        image_tokens: Number of image tokens.
        saturated: Whether every image token passes the threshold in every head.
    """

    layer: int
    head: int | None
    sinks: int
    image_tokens: int
    saturated: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one arm.

    Attributes:
        item: What was asked.
        text: What the model said.
        finished: Whether it ended by itself, not at the length limit.
        findings: What EAH found, by layer; empty in arms without EAH.
    """

    item: Item
    text: str
    finished: bool = True
    findings: tuple[Finding, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return the answer for a line of `answers.jsonl`."""
        item = {name: value for name, value in asdict(self.item).items() if value != ""}
        record = {**item, "answer": self.text, "finished": self.finished}
        if self.findings:
            record["eah"] = [asdict(finding) for finding in self.findings]
        return record


class Caption(NamedTuple):
    """One caption of one picture."""

    image_id: ImageId
    text: str


def answer_of(record: Mapping[str, Any], where: str) -> Answer:
    """Return the answer that a line of `answers.jsonl` holds.

    Args:
        record: The line's object.
        where: File and line, for error messages.
    Raises:
        EvaluationError: If something is missing in it, or of another type.
    """
    try:
        item = Item(
            record["id"],
            record["image"],
            record["question"],
            record.get("label", ""),
            record.get("part", ""),
        )
        findings = tuple(Finding(**finding) for finding in record.get("eah", ()))
        answer = Answer(item, record["answer"], record.get("finished", True), findings)
        for row in (answer, item, *findings):
            check_types(row)
        return answer
    except (KeyError, TypeError) as error:
        raise EvaluationError(
            f"{where} is no recorded answer ({error}); delete that line and run again"
        ) from error


def check_types(row: Any) -> None:
    """Check that a dataclass that was read from a file holds what its fields declare.

    Raises:
        TypeError: Naming the first field that does not. Fields of other types are not checked.
    """
    for item in fields(row):
        value, kinds = getattr(row, item.name), str(item.type).split(" | ")
        if kinds == ["float"]:
            right = type(value) in (int, float)
        else:
            known = [_ROW_TYPES[kind] for kind in kinds if kind in _ROW_TYPES]
            right = len(known) < len(kinds) or type(value) in known
        if not right:
            raise TypeError(f"{item.name} is {value!r:.60}, not {item.type}")
