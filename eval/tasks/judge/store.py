"""Write judgements.jsonl: every request before it is sent, and every reply when it arrives.

Each line is flushed to disk before the next step. After a kill, the next start therefore knows
which requests were sent without a recorded reply. They count as paid, at their highest possible
cost, and are sent again.
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
    open_requests,
)

JUDGEMENTS: Final = "judgements.jsonl"
# Keys of a record: this project's hashes, and text from outside.
HASHES: Final = ("key", "sha256")
FROM_OUTSIDE: Final = ("text", "reason", "model", "finish_reason")
SHOWN: Final = 3  # Number of files that a note names.


def any_reply(outcome: Outcome) -> bool:
    """Accept any reply."""
    return True


class Judgements:
    """The requests and replies of a run folder.

    Attributes:
        outcomes: Outcomes of all requests, in the order of arrival.
        final: Final outcomes by key.
        lost: Requests of earlier starts whose outcome is unknown.
    """

    def __init__(self, folder: RunFolder, key: Key | None) -> None:
        """Read the judgements of a run folder; no key is needed if nothing will be sent.

        Raises:
            EvaluationError: If a line is damaged.
        """
        self._lines = folder.lines(JUDGEMENTS)
        self._key = key
        self._sent: dict[int, Sent] = {}
        self._open: dict[int, Sent] = {}
        self.outcomes: list[Outcome] = []
        self.final: dict[str, Outcome] = {}
        for event in own_events(self._lines.path):
            self._remember(event)
        self.lost = list(self._open.values())

    @property
    def requests(self) -> int:
        """Number of requests that the run has sent."""
        return len(self._sent)

    @property
    def spent(self) -> float:
        """Their cost in US dollars; requests without an outcome count at their highest cost."""
        known = sum(one.cost_usd for one in self.outcomes)
        return float(known + sum(one.most_usd for one in self._open.values()))

    def hide_in(self, value: Any) -> Any:
        """Return a JSON value without the key, if the key is known."""
        return value if self._key is None else self._key.hide_in(value)

    def open_requests(
        self,
        requests: Sequence[Request],
        *,
        ask_again: bool = False,
        reads: Callable[[Outcome], bool] = any_reply,
    ) -> list[Request]:
        """Return requests without a final outcome; with `ask_again`, without a readable answer."""
        done = {
            key: one
            for key, one in self.final.items()
            if not ask_again or (one.outcome == ANSWERED and reads(one))
        }
        return open_requests(requests, done)

    def borrow(self, paid: Mapping[str, Outcome]) -> None:
        """Record the answers that other runs paid for, see `find_paid_answers`."""
        found = [outcome for key, outcome in paid.items() if key not in self.final]
        own = {"request": None, "cost_usd": 0.0}
        self._append(*({"event": "reply", **asdict(outcome), **own} for outcome in found))

    def record_request(self, request: Request, most_usd: float) -> int:
        """Record a request that is about to be sent, and return its number."""
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

    def record_reply(self, number: int, reply: Reply | Failure, cost_usd: float) -> None:
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
        """Write lines, and update the state as if they had been read from the file."""
        if records:
            written = [_clean_record(record, self._key) for record in records]
            # Validated before writing, so that every line can be read again.
            events = [event_of(record) for record in written]
            self._lines.append(written)
            for event in events:
                self._remember(event)

    def _remember(self, event: Sent | Outcome) -> None:
        if isinstance(event, Sent):
            self._sent[event.request] = self._open[event.request] = event
            return
        if self._key is not None:  # Earlier versions cut replies before they hid the key.
            event = replace(event, **{name: self._key.hide_in(getattr(event, name))
                                      for name in FROM_OUTSIDE})  # fmt: skip
        self.outcomes.append(event)
        if event.request is not None:
            self._open.pop(event.request, None)
        if event.outcome in FINAL:
            self.final[event.key] = event


def own_events(path: Path) -> list[Sent | Outcome]:
    """Read the requests and replies of a run's own file.

    Raises:
        EvaluationError: If a line is damaged.
    """
    found: list[Sent | Outcome] = []
    for event in read_events(path):
        if isinstance(event, Damaged):
            what = "the file" if event.number is None else "that line"
            raise EvaluationError(
                f"{path} is damaged, {event.where}; nothing was sent. Restore {what} from a copy "
                f"if there is one; otherwise delete {what}: an answer in it is then paid for again"
            )
        found.append(event)
    return found


def find_paid_answers(
    root: Path,
    wanted: Collection[str],
    *,
    own: str,
    ask_again: bool = False,
    reads: Callable[[Outcome], bool] = any_reply,
) -> dict[str, Outcome]:
    """Return the answers, by key, that any run in a folder has paid for.

    In this run's own folder, named `own`, refusals and rejections are final too, unless
    `ask_again`. Of several answers, the first that `reads` accepts counts, or else the first.
    Damaged lines of other runs' files are reported on standard error and skipped.

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
            "note: damaged lines of other runs are skipped, so their answers may be paid for "
            f"again: {', '.join(left_out[:SHOWN])}{more}",
            file=sys.stderr,
        )
    return found


def _files_in(root: Path) -> list[Path]:
    """Return the paths of the judgements of all runs in a folder."""
    try:
        return sorted(folder / JUDGEMENTS for folder in root.iterdir() if folder.is_dir())
    except OSError:  # Missing so far; a later step reports if it can't be written.
        return []


def _clean_record(record: Record, key: Key | None) -> Record:
    """Return a record without the key, except in hashes, and without half surrogate pairs."""
    return {
        name: value if name in HASHES else _clean_value(value, key)
        for name, value in record.items()
    }


def _clean_value(value: Any, key: Key | None) -> Any:
    if isinstance(value, dict):
        return _clean_record(value, key)
    if not isinstance(value, str):
        return value
    # UTF-8 can't write half of a surrogate pair.
    whole = value.encode("utf-8", errors="replace").decode()
    return whole if key is None else key.hide(whole)
