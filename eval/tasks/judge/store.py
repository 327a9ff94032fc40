"""judgements.jsonl: every request before it is sent, and every reply as soon as it is there.

A line is appended and flushed to the disk before the next step is taken. So a run that is killed
knows which requests it sent whose reply it never saw; they count as paid, at the most they may have
cost, and are asked again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from eval.run.folder import RunFolder
from eval.tasks.judge.key import Key
from eval.tasks.judge.reply import Failure, Kind, Reply
from eval.tasks.judge.requests import Request

JUDGEMENTS: Final = "judgements.jsonl"
# Outcomes that end a request for good.
ANSWERED, REFUSED, REJECTED = "answered", "refused", "rejected"
FINAL: Final = (ANSWERED, REFUSED, REJECTED)
Row = dict[str, Any]


class Judgements:
    """What a run folder knows of its requests."""

    def __init__(self, folder: RunFolder, key: Key | None) -> None:
        """Read what is there.

        Args:
            folder: The run's folder, entered.
            key: What must not be written; None if nothing will be asked.
        """
        self._folder = folder
        self._key = key
        rows = folder.predictions()
        self._sent = {row["request"]: row for row in rows if row["event"] == "sent"}
        self._open = dict(self._sent)
        self.replies: list[Row] = []
        self.final: dict[str, Row] = {}
        for row in rows:
            if row["event"] == "reply":
                self._note(row)
        self.lost = list(self._open.values())
        self._last = max(self._sent, default=0)

    @property
    def requests(self) -> int:
        """Return how many requests the run has sent."""
        return len(self._sent)

    @property
    def spent(self) -> float:
        """Return what they cost in US dollars; those without a reply count at their most."""
        known = sum(row["cost_usd"] for row in self.replies)
        return float(known + sum(row["most_usd"] for row in self._open.values()))

    def left(self, requests: Sequence[Request], *, ask_again: bool = False) -> list[Request]:
        """Return the requests that have no final outcome.

        Args:
            requests: All requests of the run.
            ask_again: Take refused and rejected ones for open.
        """
        done = {key for key, row in self.final.items()
                if row["outcome"] == ANSWERED or not ask_again}  # fmt: skip
        # Where both answers are the same text, both orders are one request.
        return list({r.key: r for r in requests if r.key not in done}.values())

    def borrow(self, requests: Sequence[Request]) -> int:
        """Take over what other runs beside this one have paid for, and return how much it was."""
        wanted = {request.key for request in requests} - self.final.keys()
        found = answered_in(self._folder.path.parent, wanted, own=self._folder.path.name)
        if found:
            self._append({**row, "request": None, "cost_usd": 0.0} for row in found.values())
        return len(found)

    def sent(self, request: Request, most_usd: float) -> int:
        """Record a request that is about to be sent and return its number."""
        self._last += 1
        row = {
            "event": "sent",
            "request": self._last,
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
            "at": _now(),
        }  # fmt: skip
        self._append([row])
        return self._last

    def received(self, number: int, reply: Reply, cost_usd: float) -> None:
        """Record a reply."""
        refused = bool(reply.refusal) or reply.finish_reason == "content_filter"
        self._append([{
            **self._head(number, REFUSED if refused else ANSWERED, cost_usd),
            "text": reply.text,
            "reason": (reply.refusal or "stopped by the endpoint's content filter")
            if refused else None,
            "finish_reason": reply.finish_reason,
            "model": reply.model,
            "prompt_tokens": reply.prompt_tokens,
            "reply_tokens": reply.reply_tokens,
        }])  # fmt: skip

    def failed(self, number: int, failure: Failure, cost_usd: float) -> None:
        """Record that a request has no reply."""
        outcome = REJECTED if failure.kind is Kind.REJECTED else failure.kind.value
        self._append([{**self._head(number, outcome, cost_usd), "reason": failure.reason}])

    def _head(self, number: int, outcome: str, cost_usd: float) -> Row:
        sent = {name: self._sent[number][name] for name in ("key", "image_id", "order")}
        return {"event": "reply", "request": number, **sent, "outcome": outcome,
                "cost_usd": cost_usd, "at": _now()}  # fmt: skip

    def _append(self, rows: Iterable[Row]) -> None:
        clean = [_without(row, self._key) for row in rows]
        self._folder.append(clean)
        for row in clean:
            if row["event"] == "sent":
                self._sent[row["request"]] = self._open[row["request"]] = row
            else:
                self._note(row)

    def _note(self, row: Row) -> None:
        self.replies.append(row)
        if row["request"] is not None:
            self._open.pop(row["request"], None)
        if row["outcome"] in FINAL:
            self.final[row["key"]] = row


def _without(row: Row, key: Key | None) -> Row:
    """Return a row without the key and without halves of characters, which UTF-8 can't write."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(one) for name, one in value.items()}
        if not isinstance(value, str):
            return value
        whole = value.encode("utf-8", errors="replace").decode()
        return whole if key is None else key.hide(whole)

    return {name: clean(value) for name, value in row.items()}


def answered_in(
    root: Path, wanted: Collection[str], *, own: str, ask_again: bool = False
) -> dict[str, Row]:
    """Return what need not be asked, by key: replies that any run beside this one has paid for.

    Args:
        root: Folder of run folders.
        wanted: Keys of the requests.
        own: Name of this run's folder, where refusals are final too.
        ask_again: Take refused and rejected ones for open.
    """
    found: dict[str, Row] = {}
    for path in sorted(root.glob(f"*/{JUDGEMENTS}")):
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:  # Another process may be writing its last line just now.
                continue
            final = FINAL if path.parent.name == own and not ask_again else (ANSWERED,)
            if row.get("outcome") in final and row["key"] in wanted:
                found.setdefault(row["key"], {"borrowed_from": path.parent.name, **row})
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
