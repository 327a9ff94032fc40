"""judgements.jsonl: every request before it is sent, and every reply as soon as it is there.

A line is flushed to the disk before the next step is taken. So a run that is killed knows which
requests it sent whose reply it never saw; they count as paid, at the most they may have cost, and
are asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId
from eval.files.storage import AppendedLines, Record
from eval.run.folder import RunFolder
from eval.run.provenance import now
from eval.tasks.judge.client import Failure, Key, Reply
from eval.tasks.judge.requests import (
    ANSWERED,
    FINAL,
    REFUSED,
    Outcome,
    Request,
    unanswered,
)

JUDGEMENTS: Final = "judgements.jsonl"


@dataclass(frozen=True, slots=True)
class Sent:
    """What a later start needs to know of a request that was about to be sent; numbers from 1."""

    request: int
    key: str
    image_id: ImageId
    order: str
    most_usd: float


class Judgements:
    """What a run folder knows of its requests.

    Attributes:
        outcomes: Of all requests, in the order in which they came.
        final: Final outcomes by key.
        lost: Requests of earlier starts whose outcome is not known.
    """

    def __init__(self, folder: RunFolder, key: Key | None) -> None:
        """Read what a run's folder holds; no key is needed where nothing will be asked."""
        self._lines = folder.lines(JUDGEMENTS)
        self._key = key
        self._sent: dict[int, Sent] = {}
        self._open: dict[int, Sent] = {}
        self.outcomes: list[Outcome] = []
        self.final: dict[str, Outcome] = {}
        for record in self._lines.read():
            self._note(record)
        self.lost = list(self._open.values())

    @property
    def requests(self) -> int:
        """How many requests the run has sent."""
        return len(self._sent)

    @property
    def spent(self) -> float:
        """What they cost in US dollars; those without an outcome count at their most."""
        known = sum(one.cost_usd for one in self.outcomes)
        return float(known + sum(one.most_usd for one in self._open.values()))

    def left(self, requests: Sequence[Request], *, ask_again: bool = False) -> list[Request]:
        """Return the requests that have no final outcome, or no answer if `ask_again`."""
        taken = (ANSWERED,) if ask_again else FINAL
        done = {key: one for key, one in self.final.items() if one.outcome in taken}
        return unanswered(requests, done)

    def borrow(self, paid: Mapping[str, Outcome]) -> None:
        """Take over the answers that other runs have paid for, as `answered_in` finds them."""
        found = [outcome for key, outcome in paid.items() if key not in self.final]
        own = {"request": None, "cost_usd": 0.0}
        self._append(*({"event": "reply", **asdict(outcome), **own} for outcome in found))

    def sent(self, request: Request, most_usd: float) -> int:
        """Record a request that is about to be sent and return its number."""
        number = max(self._sent, default=0) + 1
        self._append({
            "event": "sent",
            "request": number,
            "key": request.key,
            "image_id": request.image_id,
            "order": request.order,
            "text": request.text,
            "picture": None if request.picture is None else {
                "file": request.picture.path.name,
                "sha256": request.picture.sha256,
                "width": request.picture.width,
                "height": request.picture.height,
            },
            "most_usd": most_usd,
            "at": now(),
        })  # fmt: skip
        return number

    def received(self, number: int, reply: Reply | Failure, cost_usd: float) -> None:
        """Record a reply, or why there is none."""
        sent = self._sent[number]
        if isinstance(reply, Failure):
            outcome = reply.kind.value
            what: Record = {"reason": reply.reason}
        else:
            outcome = ANSWERED if reply.refused is None else REFUSED
            what = {**asdict(reply), "reason": reply.refused}
            del what["refusal"]
        self._append({
            "event": "reply",
            "request": number,
            "key": sent.key,
            "image_id": sent.image_id,
            "order": sent.order,
            "outcome": outcome,
            "cost_usd": cost_usd,
            "at": now(),
            **what,
        })  # fmt: skip

    def _append(self, *records: Record) -> None:
        """Write lines, and know of them what a later start would read."""
        if records:
            written = [_without(record, self._key) for record in records]
            self._lines.append(written)
            for record in written:
                self._note(record)

    def _note(self, record: Record) -> None:
        event = _event_of(record, self._lines.path)
        if isinstance(event, Sent):
            self._sent[event.request] = self._open[event.request] = event
            return
        self.outcomes.append(event)
        if event.request is not None:
            self._open.pop(event.request, None)
        if event.outcome in FINAL:
            self.final[event.key] = event


def answered_in(
    root: Path, wanted: Collection[str], *, own: str, ask_again: bool = False
) -> dict[str, Outcome]:
    """Return what need not be asked, by key: answers that any run of a folder has paid for.

    In this run's own folder, named `own`, refusals and rejections are final too, unless they are to
    be asked again.
    """
    found: dict[str, Outcome] = {}
    for path in sorted(root.glob(f"*/{JUDGEMENTS}")):
        name = path.parent.name
        taken = FINAL if name == own and not ask_again else (ANSWERED,)
        # As of another process: it may be writing the last line just now, which stays then.
        for record in AppendedLines(path, process=0).read():
            if record.get("outcome") in taken and record["key"] in wanted:
                event = _event_of({"borrowed_from": name, **record}, path)
                assert isinstance(event, Outcome)
                found.setdefault(event.key, event)
    return found


def _event_of(record: Record, path: Path) -> Sent | Outcome:
    kind: type[Sent] | type[Outcome] = Sent if record.get("event") == "sent" else Outcome
    known = {item.name: record[item.name] for item in fields(kind) if item.name in record}
    try:
        return kind(**known)
    except TypeError as error:
        raise EvaluationError(
            f"{path} holds a line that is no request and no reply ({error}); delete that line and "
            "run again"
        ) from error


def _without(value: Any, key: Key | None) -> Any:
    """Return a value without the key and without halves of characters, which UTF-8 can't write."""
    if isinstance(value, dict):
        return {name: _without(one, key) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    whole = value.encode("utf-8", errors="replace").decode()
    return whole if key is None else key.hide(whole)
