"""Write the chosen heads of each request to a separate file of JSON lines.

lmms-eval's log of samples has no field for them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from eah.errors import EAHConfigError, EAHStateError
from eah.handle import LayerReport


class HeadsFile:
    """A file of chosen heads, one line per request.

    The file is always new: a run never appends to the file of another run. It is created with its
    first line.
    """

    def __init__(self, name: str, rank: int = 0) -> None:
        """Check that the file can be created.

        Args:
            name: Name of the file.
            rank: Rank of this process; others than the first write heads.rank1.jsonl and so on.
        Raises:
            EAHConfigError: If the file exists, or its folder does not.
        """
        path = Path(name)
        self.path = path.with_name(f"{path.stem}.rank{rank}{path.suffix}") if rank else path
        self._file: TextIO | None = None
        self._asked: deque[tuple[str, str, Any]] = deque()
        if self.path.exists():
            raise self._exists_error()
        if not self.path.parent.is_dir():
            raise EAHConfigError(f"heads={name}: there is no folder {path.parent}; make it first")

    def watch(self, requests: Sequence[Any]) -> list[Any]:
        """Return requests that record when their document is read, which precedes its answer."""
        return [
            replace(one, arguments=tuple(self._watch_argument(part, one.args) for part in one.args))
            for one in requests
        ]

    def _watch_argument(self, part: Any, arguments: Sequence[Any]) -> Any:
        if not callable(part):
            return part
        document, task, split = arguments[-3:]

        def read(*given: Any, **named: Any) -> Any:
            self._asked.append((task, split, document))
            return part(*given, **named)

        read_document: Callable[..., Any] = read
        return read_document

    def write(self, report: Sequence[LayerReport]) -> None:
        """Write the line of the first request that was read and has no line yet.

        Args:
            report: Report of the prefill of one prompt.
        Raises:
            EAHConfigError: If another run has created the file since, or it can't be written.
            EAHStateError: If no document was read.
        """
        if not self._asked:
            raise EAHStateError(
                "an answer was generated, but no document was read before it, so heads=FILE can't "
                "name its document for this model of lmms-eval; leave heads out"
            )
        task, split, document = self._asked.popleft()
        layers = [
            {
                "layer": layer.layer,
                "head": layer.head[0],
                "sinks": layer.counts[0],
                "image_tokens": layer.image_tokens[0],
                "saturated": layer.saturated[0],
                "skipped": layer.skipped,
            }
            for layer in report
        ]
        row = {"task": task, "split": split, "doc_id": document, "layers": layers}
        try:
            if self._file is None:
                self._file = self.path.open("x", encoding="utf-8", newline="\n")
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()
        except FileExistsError as error:
            raise self._exists_error() from error
        except OSError as error:
            raise EAHConfigError(f"heads={self.path} can't be written: {error}") from error

    def finish(self) -> None:
        """Check that every document that was read has a line.

        Raises:
            EAHStateError: If one has no line, so other lines may name the wrong document.
        """
        if self._asked:
            raise EAHStateError(
                f"{len(self._asked)} documents were read but not answered one by one, so lines of "
                f"{self.path} may name wrong documents; remove it, and leave heads out here"
            )

    def _exists_error(self) -> EAHConfigError:
        return EAHConfigError(
            f"heads={self.path} exists, and may be of another run; remove it or name another file"
        )
