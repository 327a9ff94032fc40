"""Prompts of any vision-language model of transformers, made by its own processor.

A question and its pictures become the text of the processor's chat template, or, where it has none,
its image token followed by the question; and the text and the pictures become ids and pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from PIL import Image

from eah.errors import nearest
from models.errors import ModelError
from models.generation import ProcessedPrompts, ShownPrompt
from models.images import Preprocessing
from models.library_errors import library_errors
from models.pictures import Picture, to_picture, to_rgb
from models.processor import IDS, VIDEOS_NEED, image_token
from models.tokenizer import check_characters

CHAT: Final = "chat"
CHAT_SHORT: Final = "chat-short"
Video: TypeAlias = Sequence[Picture] | np.ndarray[Any, Any]
"""Frames, as in `read_frames`."""
PROTOCOLS: Final = (CHAT, CHAT_SHORT)
"""Both send what the processor makes; the benchmark adds a request for a short answer or not."""
PIXELS: Final = "pixel"  # in the names of what holds pixels


def check_protocol(protocol: str) -> None:
    """Check that a protocol is one of this module's.

    Raises:
        ModelError: If it is not.
    """
    if protocol not in PROTOCOLS:
        raise ModelError(
            f"protocol {protocol!r} is unknown to --model hf, which sends what the processor's own "
            f"chat template makes: {nearest(protocol, PROTOCOLS)}"
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What questions are about, and what the processor made of it for some of them.

    Attributes:
        images: Pictures in 8-bit RGB; one in evaluations.
        videos: As `Chat.inputs` takes them.
        pixels: What the processor makes of these alone, by name; noise may be added to it.
        texts: What it makes of each question, by name.
    """

    images: tuple[Image.Image, ...]
    videos: tuple[Any, ...]
    pixels: dict[str, torch.Tensor]
    texts: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chat(Preprocessing):
    """Makes prompts of questions and pictures, as the processor does.

    Attributes:
        processor: transformers' processor of the model.
        system: System message; None for what the template has by itself.
    """

    processor: Any
    system: str | None = None

    def describe(self) -> str:
        """Return what makes pixels: which class it is depends on torchvision being installed."""
        return type(self.processor.image_processor).__name__

    @property
    def tokenizer(self) -> Any:
        """Transformers' tokenizer of the model."""
        return self.processor.tokenizer

    @property
    def template(self) -> Any:
        """The chat template, a Jinja text (or several by name); None if there is none."""
        own = getattr(self.processor, "chat_template", None)
        return own or getattr(self.tokenizer, "chat_template", None)

    def text(self, question: str, *, images: int = 1, videos: int = 0) -> str:
        """Return the prompt before its image placeholders are repeated.

        Args:
            question: What is asked; it comes after pictures and videos.
            images: Number of pictures.
            videos: Number of videos.
        Raises:
            ModelError: If the question holds a special token or is no text that can be encoded, or
                the template can't be used so.
        """
        check_characters(f"{self.system or ''}{question}")
        self._refuse_special(question)
        if self.template is None:
            return self._plain(question, images, videos)
        content: list[dict[str, str]] = [{"type": "image"}] * images + [{"type": "video"}] * videos
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        if self.system is not None:
            self._refuse_special(self.system)
            system = [{"type": "text", "text": self.system}]
            messages.insert(0, {"role": "system", "content": system})
        # A processor that has a template may have another one for videos.
        own = getattr(self.processor, "chat_template", None) is not None
        template = {} if own else {"chat_template": self.template}
        where = f"the chat template of {type(self.processor).__name__} can't be used"
        advice = "leave --system out" if self.system else "pass another checkpoint"
        with library_errors(where, advice):
            text = self.processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **template
            )
        if str(messages[-1]["content"]) in text:
            raise ModelError(
                f"the chat template of {type(self.processor).__name__} is one for text alone "
                f"({text[:200]!r}); pass a checkpoint with a template for pictures"
            )
        for what, said in (("question", question), ("system message", self.system or "")):
            if said.strip() not in text:  # templates may strip it
                raise ModelError(
                    f"the chat template of {type(self.processor).__name__} leaves the {what} out "
                    f"({text[:200]!r}); "
                    + ("leave --system out" if self.system else "pass another checkpoint")
                )
        return str(text)

    def inputs(
        self, question: str, images: Sequence[Image.Image], videos: Sequence[Any] = ()
    ) -> dict[str, torch.Tensor]:
        """Return what the model is given for one question, by name, one batch row.

        Args:
            question: What is asked.
            images: Pictures.
            videos: Frames of each, (frames, 3, height, width) uint8.
        Raises:
            ModelError: If the processor can't make it.
        """
        name = type(self.processor).__name__
        if videos and (package := getattr(self.processor, VIDEOS_NEED, None)) is not None:
            raise ModelError(
                f"{name} needs {package} for videos, which is not installed; install it, of the "
                "release that belongs to your torch, or pass pictures"
            )
        if videos and getattr(self.processor, "video_processor", None) is None:
            raise ModelError(f"{name} takes no videos; pass pictures, such as some of its frames")
        text = self.text(question, images=len(images), videos=len(videos))
        bos = self.tokenizer.bos_token
        given: dict[str, Any] = {}
        if images:
            given["images"] = [[to_rgb(image) for image in images]]
        if videos:
            given["videos"] = list(videos)
            given["do_sample_frames"] = False  # all frames that were given
        if self.template is not None and bos is not None and text.startswith(bos):
            given["add_special_tokens"] = False  # the template has BOS, which comes once
        what = f"{len(images)} picture(s)" + (f" and {len(videos)} video(s)" if videos else "")
        advice = "pass others, or the original files of the processor"
        with library_errors(f"{name} can't make a prompt of {what}", advice):
            made = self.processor(text=[text], return_tensors="pt", **given)
        made.pop("labels", None)  # for training
        odd = [key for key, value in made.items() if not isinstance(value, torch.Tensor)]
        if odd:
            raise ModelError(f"{name} returns {odd[0]!r}, which is no tensor; use another model")
        return dict(made)

    def __call__(self, images: Sequence[Image.Image]) -> Any:
        """Return prepared pictures that no question has been asked about yet."""
        return [self.prepare(image, ()) for image in images]

    def prepare(self, image: Image.Image, questions: Sequence[str]) -> Prepared:
        """Return a picture with what the processor makes of it for questions."""
        return self.prepare_all([image], (), questions)

    def prepare_all(
        self, images: Sequence[Image.Image], videos: Sequence[Any], questions: Sequence[str]
    ) -> Prepared:
        """Return pictures and videos with what the processor makes of them for questions."""
        rgb = tuple(to_rgb(image) for image in images)
        first = questions[0] if questions else ""
        text, pixels = split(self.inputs(first, rgb, videos))
        prepared = Prepared(rgb, tuple(videos), pixels, {first: text})
        for question in questions:
            self.prepare_text(prepared, question)
        return prepared

    def prepare_text(self, prepared: Prepared, question: str) -> dict[str, torch.Tensor]:
        """Return what the processor makes of a question about pictures, and keep it."""
        if question not in prepared.texts:
            made = self.inputs(question, prepared.images, prepared.videos)
            prepared.texts[question], _ = split(made)
        return prepared.texts[question]

    def shown(self, question: str, image: Image.Image) -> ShownPrompt:
        """Return the prompt of a question as text and ids, for people to read."""
        ids = self.inputs(question, [image])[IDS][0].tolist()
        return ShownPrompt(self.text(question), ids)

    def _plain(self, question: str, images: int, videos: int) -> str:
        """Return the prompt of a processor without a chat template."""
        name = type(self.processor).__name__
        if self.system is not None:
            raise ModelError(
                f"{name} has no chat template for a system message; leave --system out"
            )
        if videos:
            raise ModelError(f"{name} has no chat template that places a video; pass pictures")
        token = image_token(self.processor)
        return f"{'' if token is None else token * images}{question}"

    def _refuse_special(self, text: str) -> None:
        """Refuse text that would become special tokens, image placeholders among them.

        Raises:
            ModelError: Naming the token.
        """
        added = self.tokenizer.added_tokens_decoder.values()
        media = (getattr(self.processor, f"{kind}_token", None) for kind in ("image", "video"))
        special = {str(token) for token in added if token.special} | {str(t) for t in media if t}
        for token in {*special, *self.tokenizer.all_special_tokens}:
            if token.strip() and token in text:
                raise ModelError(
                    f"the text {text[:80]!r} holds {token!r}, which is a special token of this "
                    "model, not text; leave it out"
                )


def split(
    inputs: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return what a processor made of a question, and the pixels, which are the same for all."""
    pixels = {name: value for name, value in inputs.items() if PIXELS in name}
    return {name: value for name, value in inputs.items() if name not in pixels}, pixels


def collate(
    rows: Sequence[Mapping[str, torch.Tensor]], pad_id: int, device: torch.device, dtype: Any
) -> ProcessedPrompts:
    """Put prompts into one batch.

    Args:
        rows: What `Chat.inputs` returned for each.
        pad_id: In the place of ids, to the left of shorter prompts.
        device: Where the batch goes.
        dtype: Of pixels.
    """
    length = max(row[IDS].shape[1] for row in rows)
    inputs = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        # What has an entry for each token is padded as ids are, on the left.
        if all(part.shape[:2] == row[IDS].shape for part, row in zip(parts, rows, strict=True)):
            fill = pad_id if name == IDS else 0
            parts = [
                torch.cat(
                    [part.new_full((1, length - part.shape[1], *part.shape[2:]), fill), part], 1
                )
                for part in parts
            ]
        joined = _stacked(parts)
        inputs[name] = joined.to(device, dtype if joined.is_floating_point() else None)
    return ProcessedPrompts(inputs)


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join tensors along the first axis; the others are filled with zeros where they differ.

    So do processors when they make a batch: of pictures that are cut into more or fewer tiles.
    """
    sizes = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].dim())]
    filled = []
    for part in parts:
        pad = [(0, size - own) for size, own in zip(sizes, part.shape[1:], strict=True)]
        flat = [amount for pair in reversed(pad) for amount in pair]
        filled.append(torch.nn.functional.pad(part, flat) if any(flat) else part)
    return torch.cat(filled)


def read_frames(video: Video) -> torch.Tensor:
    """Return the frames of a video, shape (frames, 3, height, width) uint8.

    Args:
        video: A list of pictures, or an array of shape (frames, height, width, 3) uint8.
    Raises:
        ModelError: If it is something else, or its frames are of several sizes.
    """
    if not isinstance(video, (list, tuple, np.ndarray)) or not len(video):
        raise ModelError(f"video {video!r}; pass a list of its frames, each a picture")
    frames = [to_picture(frame) for frame in video]
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ModelError(f"a video with frames of {len(sizes)} sizes; make them the same size")
    return torch.stack([torch.from_numpy(np.array(frame)) for frame in frames]).permute(0, 3, 1, 2)
