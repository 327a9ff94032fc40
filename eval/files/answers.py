"""Questions and answers, from the question file to the metrics; only files have dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId
from eval.files.typed import check_types, row_of

BASELINE: Final = "baseline"
UNIT: Final = "unit"
Key = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one picture.

    Attributes:
        id: Unique within its part, such as POPE's question_id or COCO's image id.
        image: File name below the folder of the pictures.
        question: As the benchmark has it; a protocol may add a suffix to it.
        label: The right answer; empty if answers are scored in another way.
        part: Part of the benchmark, such as "random"; empty if there is only one.
        groups: Other groups by kind, such as the object that the question names.
    """

    id: int | str
    image: str
    question: str
    label: str = ""
    part: str = ""
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def unit(self) -> str:
        """The unit of resampling: the picture, or the group UNIT of several pictures."""
        return self.groups.get(UNIT, self.image)

    @property
    def key(self) -> Key:
        """The key that identifies the question in a run."""
        return self.part, self.id

    def __str__(self) -> str:
        """Return the question as messages show it."""
        part = f" of {self.part}" if self.part else ""
        label = f" (label {self.label})" if self.label else ""
        groups = f" ({', '.join(f'{k} {of}' for k, of in self.groups.items())})"
        about = f"{self.question!r:.80} about {self.image or 'no picture'}"
        return f"{self.id}{part}, {about}{label}{groups if self.groups else ''}"


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
        text: The model's answer.
        finished: Whether the model ended the answer before the length limit.
        findings: What EAH found, by layer; empty in arms without EAH.
        p_yes: Probability of "yes" against "no" at the first token; 0 or 1 if the decoding method
            excludes one of them; None if unknown.
    """

    item: Item
    text: str
    finished: bool = True
    findings: tuple[Finding, ...] = ()
    p_yes: float | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the answer for a line of `answers.jsonl`."""
        fields = asdict(self.item).items()
        # A question without a picture has an empty file name, which is read back as such.
        item = {name: of for name, of in fields if name == "image" or of not in ("", {})}
        record = {**item, "answer": self.text, "finished": self.finished}
        if self.p_yes is not None:
            record["p_yes"] = self.p_yes
        if self.findings:
            record["eah"] = [asdict(finding) for finding in self.findings]
        return record


class Caption(NamedTuple):
    """One caption of one picture."""

    image_id: ImageId
    text: str


def answer_of(record: Mapping[str, Any], where: str) -> Answer:
    """Return the answer in a line of `answers.jsonl`.

    Args:
        record: The line's object.
        where: File and line, for error messages.
    Raises:
        EvaluationError: If a field is missing or has the wrong type.
    """
    try:
        for name in ("id", "image", "question", "answer"):
            if name not in record:
                raise TypeError(f"it has no {name!r}")
        item = Item(
            record["id"],
            record["image"],
            record["question"],
            record.get("label", ""),
            record.get("part", ""),
            groups_of(record),
        )
        findings = findings_of(record)
        p_yes = record.get("p_yes")
        answer = Answer(item, record["answer"], record.get("finished", True), findings, p_yes)
        for row in (answer, item):
            check_types(row)
        if p_yes is not None and not 0 <= p_yes <= 1:
            raise TypeError(f"p_yes is {p_yes}, not a probability from 0 to 1")
        return answer
    except TypeError as error:
        raise EvaluationError(
            f"{where} is not a recorded answer ({error}); delete that line and run again"
        ) from error


def groups_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the groups of a recorded question.

    Raises:
        TypeError: If they are not names of groups by kind.
    """
    found = record.get("groups", {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise TypeError(f"groups is {found!r:.60}, not names of groups by kind")
    return found


def findings_of(record: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Return what EAH found, from a recorded answer.

    Raises:
        TypeError: If it is not a list of findings.
    """
    found = record.get("eah", [])
    if not isinstance(found, list):
        raise TypeError(f"eah is {found!r:.60}, not a list of what was found")
    return tuple(row_of(Finding, one, f"finding {at}") for at, one in enumerate(found, start=1))
