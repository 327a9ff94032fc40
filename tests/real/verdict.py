"""Whether a script did in its three states what it should, and its row of the table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import environments
from row import Row

STATES: Final = ("stock", "swapped", "disabled")


@dataclass(frozen=True)
class Run:
    """One run of a script.

    Attributes:
        code: Exit status.
        output: What it printed.
        passes: What `recorder.py` wrote of each forward pass.
        log: What EAH wrote of each prompt that it treated.
    """

    code: int
    output: str
    passes: list[dict[str, Any]]
    log: list[dict[str, Any]]

    @property
    def digests(self) -> list[str]:
        """Hashes of the decoder's outputs, pass by pass."""
        return [line["digest"] for line in self.passes]

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The passes with image features in them."""
        return [line for line in self.passes if line["image"] and any(line["image"])]

    @property
    def said(self) -> list[str]:
        """The lines that EAH shows."""
        return re.findall(r"EAH[: ].*", self.output)  # maybe behind a progress bar


def failures(row: Row, runs: dict[str, Run]) -> list[str]:
    """Return what is wrong with a row's three runs."""
    stock, swapped, disabled = (runs[state] for state in STATES)
    wrong = []
    if stock.code != 0 or not stock.prompts:
        wrong.append(f"stock: exit status {stock.code}, {len(stock.prompts)} prompts with an image")
    if row.keeps_original and (disabled.code != 0 or disabled.digests != stock.digests):
        wrong.append(f"disabled: exit status {disabled.code}, or not what stock computes")
    if row.expects == "nothing":
        if swapped.code != 0 or swapped.digests != stock.digests or swapped.said:
            wrong.append(f"swapped: exit status {swapped.code}, or EAH was there: {swapped.said}")
    elif row.expects != "acts":
        if swapped.code == 0 or row.expects not in swapped.output:
            wrong.append(f"swapped: exit status {swapped.code} without {row.expects!r}")
    else:
        wrong += failures_to_act(stock, swapped, row.beams)
    return wrong


def failures_to_act(stock: Run, swapped: Run, beams: int) -> list[str]:
    """Return what is wrong with a run in which EAH has to act."""
    wrong = []
    if swapped.code != 0 or len(swapped.prompts) != len(stock.prompts):
        wrong.append(f"swapped: exit status {swapped.code}, {len(swapped.prompts)} prompts")
    for before, after in zip(stock.prompts, swapped.prompts, strict=False):
        if before["digest"] == after["digest"]:
            wrong.append(f"swapped: a prompt of {before['rows'][1]} tokens is as without EAH")
    # The beams of a prompt are one line of the log.
    image = [spans for line in swapped.prompts for spans in line["image"][::beams]]
    taken = [line["image_spans"] for line in swapped.log]
    if taken != image:
        wrong.append(f"swapped: EAH takes {taken} for the images {image}")
    if len(swapped.said) < 2 or f"EAH: {len(image)} prompts treated" not in swapped.said[-1]:
        wrong.append(f"swapped: EAH shows {swapped.said}")
    return wrong


def failures_to_find(row: Row, checkouts: Path) -> list[str]:
    """Return what `python -m eah.swap check` does not say of a checkout."""
    if row.found is None:
        return []
    done = environments.call_swap("check", str(checkouts.resolve() / row.folder))
    if done.returncode == 1 and row.found in done.stdout:
        return []
    return [f"check: exit status {done.returncode} without {row.found!r}"]


def line_of(row: Row, runs: dict[str, Run], wrong: list[str]) -> str:
    """Return a row of the table."""
    stock, swapped, _ = (runs[state] for state in STATES)
    image = stock.prompts[0] if stock.prompts else {"image": [], "rows": [0, 0]}
    spans = sorted({f"{a}:{b}" for spans in image["image"] for a, b in spans})
    moved = max(
        (
            abs(x - y)
            for before, after in zip(stock.prompts, swapped.prompts, strict=False)
            for one, other in zip(before["last"], after["last"], strict=True)
            for x, y in zip(one, other, strict=True)
        ),
        default=0.0,
    )
    sets = ", ".join(f"`{key}={value}`" for key, value in row.settings.items()) or "nothing"
    does = {"acts": f"acts (last row moves by {moved:.2g})", "nothing": "is not reached"}
    does_what = does.get(row.expects, f"stops: `... {row.expects} ...`")
    disabled = "; disabled: bitwise equal to stock" if row.keeps_original else ""
    result = "; ".join(wrong) or does_what + disabled
    where = f"{' '.join(spans)} of {image['rows'][1]}"
    return f"| {row.name} | {row.transformers} | {where} | {sets} | {result} |"
