"""Many questions about one picture in one forward pass, each trained exactly as it is used alone.

A picture's prompt prefix (system message and image tokens) is computed once and followed by
segments: a description, and yes/no questions. A segment sees the prefix and itself but no other
segment, and its positions continue from the prefix.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from models.llava import Llava
from models.prompts import IMAGE
from scripts.scenes.samples import Sample
from scripts.scenes.scene import CATEGORIES, RARE, THEMES
from scripts.scenes.text import QUESTION_DESCRIBE, answer, article, question

IGNORE: Final = -100


@dataclass(frozen=True, slots=True)
class Segment:
    """A question with its answer; `name` is what a yes/no question asks about."""

    question: str
    answer: str
    name: str | None = None
    present: bool = False


class Packed(NamedTuple):
    """A batch of packed pictures; P prefix positions, T segment positions, N yes/no questions.

    Attributes:
        ids: Segment ids, shape (B, T).
        labels: Ids to learn, IGNORE elsewhere, shape (B, T).
        positions: Shape (B, P + T).
        mask: Additive, shape (B, 1, P + T, P + T).
        name_rows: Batch row of each yes/no question, shape (N,).
        name_columns: Where the last token of the asked name is, along P + T, shape (N,).
        present: Whether the picture holds it, shape (N,).
    """

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    name_rows: torch.Tensor
    name_columns: torch.Tensor
    present: torch.Tensor


def segments(sample: Sample, rng: random.Random) -> list[Segment]:
    """Choose what a picture is asked: its description, all that is in it, as much that is not.

    One answer of each kind is a whole sentence; of the others only the first word is learned.
    """
    absent = [c.name for c in CATEGORIES if c.name not in sample.names]
    likely = [THEMES[sample.theme].get(name, RARE) for name in absent]
    yes = rng.sample(sample.names, len(sample.names))
    no = [*rng.choices(absent, weights=likely, k=len(yes) // 2)]
    no += rng.sample([name for name in absent if name not in no], k=len(yes) - len(no))
    asked = [Segment(QUESTION_DESCRIBE, sample.description)]
    for names, present in ((yes, True), (no, False)):
        for index, name in enumerate(names):
            sentence = answer(name, present=present)
            reply = sentence if index == 0 else sentence.split(",")[0]
            asked.append(Segment(question(name), reply, name, present))
    return asked


class Packer:
    """Lays prefix and segments of a batch out, with a mask that keeps the segments apart."""

    def __init__(self, vlm: Llava) -> None:
        """Remember the prompt's text before the image, which all prompts share."""
        self.vlm = vlm
        ids = vlm.prompt_ids("")
        self.before = ids[: ids.index(IMAGE)]
        self.yes_no = torch.tensor([vlm.tokenizer.encode(word)[0] for word in ("Yes", "No")])
        vision = vlm.model.config.vision_config
        self.prefix = len(self.before) + (vision.image_size // vision.patch_size) ** 2

    def encode(self, segment: Segment) -> tuple[list[int], list[int]]:
        """Return ids and labels of one segment; only the answer is learned, EOS with a sentence."""
        ids = self.vlm.prompt_ids(segment.question)
        after = ids[ids.index(IMAGE) + 1 :]
        reply = self.vlm.tokenizer.encode(segment.answer)
        if segment.answer.endswith("."):
            reply = [*reply, self.vlm.tokenizer.eos_id()]
        return after + reply, [IGNORE] * len(after) + reply

    def name_end(self, name: str) -> int:
        """Return where the last token of the asked name is in a segment."""
        return len(self.vlm.tokenizer.encode(f" Is there {article(name)} {name}")) - 1

    def pack(self, rows: list[list[Segment]]) -> Packed:
        """Lay the segments of each picture out one after the other."""
        encoded = [[self.encode(segment) for segment in row] for row in rows]
        length = max(sum(len(ids) for ids, _ in row) for row in encoded)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        labels = torch.full((len(rows), length), IGNORE)
        positions = torch.arange(self.prefix + length).repeat(len(rows), 1)
        owner = torch.full((len(rows), self.prefix + length), -1)  # -1: prefix, seen by all
        names = []
        for index, row in enumerate(rows):
            at = 0
            for number, segment in enumerate(row):
                piece, label = encoded[index][number]
                stop, first = at + len(piece), self.prefix + at
                ids[index, at:stop] = torch.tensor(piece)
                labels[index, at:stop] = torch.tensor(label)
                positions[index, first : self.prefix + stop] = self.prefix + torch.arange(stop - at)
                owner[index, first : self.prefix + stop] = number
                if segment.name is not None:
                    names.append((index, first + self.name_end(segment.name), segment.present))
                at = stop
            owner[index, self.prefix + at :] = len(row)  # padding sees itself only
        seen = owner[:, :, None] == owner[:, None, :]
        seen = (seen | (owner[:, None, :] == -1)).tril()
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        return Packed(ids, labels, positions, mask[:, None], *torch.tensor(names).T)
