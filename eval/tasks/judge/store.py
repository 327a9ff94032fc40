"""judgements.jsonl: every request before it is sent, and every reply as soon as it is there.

A line is flushed to the disk before the next step is taken. So a run that is killed knows which
requests it sent whose reply it never saw; they count as paid, at the most they may have cost, and
are asked again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.storage import Record
from eval.run.folder import RunFolder
from eval.run.provenance import now
from eval.tasks.judge.keys import Key
from eval.tasks.judge.records import Damaged, Sent, event_of, read_events
from eval.tasks.judge.replies import Failure, Reply
from eval.tasks.judge.requests import (
    ANSWERED,
    FINAL,
    REFUSED,
    Outcome,
    Request,
    unanswered,
)

JUDGEMENTS: Final = "judgements.jsonl"
# Of a record: hashes of ours, and what others have said.
HASHES: Final = ("key", "sha256")
FROM_OUTSIDE: Final = ("text", "reason", "model", "finish_reason")
SHOWN: Final = 3  # Files that are named.


def any_reply(outcome: Outcome) -> bool:
    """Return that any reply will do."""
    return True


class Judgements:
    """What a run folder knows of its requests.

    Attributes:
        outcomes: Of all requests, in the order in which they came.
        final: Final outcomes by key.
        lost: Requests of earlier starts whose outcome is not known.
    """

    def __init__(self, folder: RunFolder, key: Key | None) -> None:
        """Read what a run's folder holds; no key is needed where nothing will be asked.

        Raises:
            EvaluationError: If a line of it is damaged.
        """
        self._lines = folder.lines(JUDGEMENTS)
        self._key = key
        self._sent: dict[int, Sent] = {}
        self._open: dict[int, Sent] = {}
        self.outcomes: list[Outcome] = []
        self.final: dict[str, Outcome] = {}
        for event in own_events(self._lines.path):
            self._note(event)
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

    def hide_in(self, value: Any) -> Any:
        """Return a value of JSON without the key, if it is known."""
        return value if self._key is None else self._key.hide_in(value)

    def left(
        self,
        requests: Sequence[Request],
        *,
        ask_again: bool = False,
        reads: Callable[[Outcome], bool] = any_reply,
    ) -> list[Request]:
        """Return the requests without a final outcome; if `ask_again`, without one that reads."""
        done = {
            key: one
            for key, one in self.final.items()
            if not ask_again or (one.outcome == ANSWERED and reads(one))
        }
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
            written = [_writable(record, self._key) for record in records]
            # What could not be read again is not written.
            events = [event_of(record) for record in written]
            self._lines.append(written)
            for event in events:
                self._note(event)

    def _note(self, event: Sent | Outcome) -> None:
        if isinstance(event, Sent):
            self._sent[event.request] = self._open[event.request] = event
            return
        if self._key is not None:  # Earlier versions have cut replies before they hid it.
            event = replace(event, **{name: self._key.hide_in(getattr(event, name))
                                      for name in FROM_OUTSIDE})  # fmt: skip
        self.outcomes.append(event)
        if event.request is not None:
            self._open.pop(event.request, None)
        if event.outcome in FINAL:
            self.final[event.key] = event


def own_events(path: Path) -> list[Sent | Outcome]:
    """Return what a run's own file says.

    Raises:
        EvaluationError: If a line of it is damaged.
    """
    found: list[Sent | Outcome] = []
    for event in read_events(path):
        if isinstance(event, Damaged):
            what = "the file" if event.number is None else "that line"
            raise EvaluationError(
                f"{path} is damaged, {event.where}; nothing was asked. Take {what} from a copy if "
                f"there is one; else delete {what}: an answer in it is then paid for again"
            )
        found.append(event)
    return found


def answered_in(
    root: Path,
    wanted: Collection[str],
    *,
    own: str,
    ask_again: bool = False,
    reads: Callable[[Outcome], bool] = any_reply,
) -> dict[str, Outcome]:
    """Return what need not be asked, by key: answers that any run of a folder has paid for.

    In this run's own folder, named `own`, refusals and rejections are final too, unless they are to
    be asked again. Of several answers the first counts that `reads` can read, else the first. What
    can't be read of other runs' files is named on standard error and left out.

    Raises:
        EvaluationError: If a line of this run's own file is damaged.
    """
    found: dict[str, Outcome] = {}
    left_out: list[str] = []
    for path in _files_in(root):
        name = path.parent.name
        taken = FINAL if name == own and not ask_again else (ANSWERED,)
        events = own_events(path) if name == own else read_events(path)
        damaged: list[Damaged] = []
        for event in events:
            if isinstance(event, Damaged):
                damaged.append(event)
            elif isinstance(event, Outcome) and event.outcome in taken and event.key in wanted:
                payer = event.borrowed_from or name
                held = found.get(event.key)
                if held is None or (not reads(held) and reads(event)):
                    found[event.key] = replace(event, borrowed_from=payer)
        if damaged:
            more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            left_out.append(f"{path} ({damaged[0].where}{more})")
    if left_out:
        more = f" and {len(left_out) - SHOWN} more files" if len(left_out) > SHOWN else ""
        print(
            f"note: of other runs, what can't be read is left out: {', '.join(left_out[:SHOWN])}"
            f"{more}",
            file=sys.stderr,
        )
    return found


def _files_in(root: Path) -> list[Path]:
    """Return the files of all runs of a folder, whatever they are."""
    try:
        return sorted(folder / JUDGEMENTS for folder in root.iterdir() if folder.is_dir())
    except OSError:  # Not there yet; whether it can be written shows later.
        return []


def _writable(record: Record, key: Key | None) -> Record:
    """Return a record without the key, but in our own hashes, and without halves of characters."""
    return {name: value if name in HASHES else _whole(value, key) for name, value in record.items()}


def _whole(value: Any, key: Key | None) -> Any:
    if isinstance(value, dict):
        return _writable(value, key)
    if not isinstance(value, str):
        return value
    # UTF-8 can't write half of a surrogate pair.
    whole = value.encode("utf-8", errors="replace").decode()
    return whole if key is None else key.hide(whole)
