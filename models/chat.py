"""Prompts of any vision-language model of transformers, made by its own processor.

The prompt's text comes from the processor's chat template; without a template it is the image token
followed by the question. The processor then turns text and pictures into ids and pixels.
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
"""Both send the processor's prompt; with the second the benchmark asks for a short answer."""
PIXELS: Final = "pixel"  # in the names of pixel tensors


def check_protocol(protocol: str) -> None:
    """Check that a protocol is one of this module's.

    Raises:
        ModelError: If it is unknown.
    """
    if protocol not in PROTOCOLS:
        raise ModelError(
            f"protocol {protocol!r} is unknown to --model hf, which sends what the processor's own "
            f"chat template makes: {nearest(protocol, PROTOCOLS)}"
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pictures and videos, and the processor's output for some questions about them.

    Attributes:
        images: Pictures in 8-bit RGB; one in evaluations.
        videos: As `Chat.inputs` takes them.
        pixels: The processor's pixel tensors, by name; noise may be added to them.
        texts: The other tensors for each question, by name.
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
        system: System message; None for the template's default.
    """

    processor: Any
    system: str | None = None

    def describe(self) -> str:
        """Return the class of the image processor, which depends on torchvision being installed."""
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
            question: Question text; it comes after pictures and videos.
            images: Number of pictures.
            videos: Number of videos.
        Raises:
            ModelError: If the question contains a special token or can't be encoded, or the
                template does not support the request.
        """
        check_characters(f"{self.system or ''}{question}")
        self._refuse_special(question)
        if self.template is None:
            return self._plain_prompt(question, images, videos)
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
        for what, given in (("question", question), ("system message", self.system or "")):
            if given.strip() not in text:  # templates may strip it
                raise ModelError(
                    f"the chat template of {type(self.processor).__name__} leaves the {what} out "
                    f"({text[:200]!r}); "
                    + ("leave --system out" if self.system else "pass another checkpoint")
                )
        return str(text)

    def inputs(
        self, question: str, images: Sequence[Image.Image], videos: Sequence[Any] = ()
    ) -> dict[str, torch.Tensor]:
        """Return the model's inputs for one question, by name, one batch row.

        Args:
            question: What is asked.
            images: Pictures.
            videos: Frames of each, (frames, 3, height, width) uint8.
        Raises:
            ModelError: If the processor can't make them.
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
            given["do_sample_frames"] = False  # use all frames
        if self.template is not None and bos is not None and text.startswith(bos):
            given["add_special_tokens"] = False  # the template already contains BOS
        what = f"{len(images)} picture(s)" + (f" and {len(videos)} video(s)" if videos else "")
        advice = "pass others, or the original files of the processor"
        with library_errors(f"{name} can't make a prompt of {what}", advice):
            made = self.processor(text=[text], return_tensors="pt", **given)
        made.pop("labels", None)  # for training
        odd = [key for key, value in made.items() if not isinstance(value, torch.Tensor)]
        if odd:
            raise ModelError(f"{name} returns {odd[0]!r}, which is not a tensor; use another model")
        return dict(made)

    def __call__(self, images: Sequence[Image.Image]) -> Any:
        """Return prepared pictures without questions."""
        return [self.prepare(image, ()) for image in images]

    def prepare(self, image: Image.Image, questions: Sequence[str]) -> Prepared:
        """Return a picture with the processor's output for questions."""
        return self.prepare_all([image], (), questions)

    def prepare_all(
        self, images: Sequence[Image.Image], videos: Sequence[Any], questions: Sequence[str]
    ) -> Prepared:
        """Return pictures and videos with the processor's output for questions."""
        rgb = tuple(to_rgb(image) for image in images)
        first = questions[0] if questions else ""
        text, pixels = split_pixels(self.inputs(first, rgb, videos))
        prepared = Prepared(rgb, tuple(videos), pixels, {first: text})
        for question in questions:
            self.prepare_text(prepared, question)
        return prepared

    def prepare_text(self, prepared: Prepared, question: str) -> dict[str, torch.Tensor]:
        """Return the processor's output for a question about pictures, and cache it."""
        if question not in prepared.texts:
            made = self.inputs(question, prepared.images, prepared.videos)
            prepared.texts[question], _ = split_pixels(made)
        return prepared.texts[question]

    def show_prompt(self, question: str, image: Image.Image) -> ShownPrompt:
        """Return the prompt of a question as text and ids, for display."""
        ids = self.inputs(question, [image])[IDS][0].tolist()
        return ShownPrompt(self.text(question), ids)

    def _plain_prompt(self, question: str, images: int, videos: int) -> str:
        """Return the prompt of a processor without a chat template."""
        name = type(self.processor).__name__
        if self.system is not None:
            raise ModelError(
                f"{name} has no chat template for a system message; leave --system out"
            )
        if videos:
            raise ModelError(f"{name} has no chat template for videos; pass pictures")
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
                    f"the text {text[:80]!r} contains {token!r}, which is a special token of this "
                    "model, not text; leave it out"
                )


def split_pixels(
    inputs: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Split a processor's output into the question's tensors and the pictures' pixels."""
    pixels = {name: value for name, value in inputs.items() if PIXELS in name}
    return {name: value for name, value in inputs.items() if name not in pixels}, pixels


def collate(
    rows: Sequence[Mapping[str, torch.Tensor]], pad_id: int, device: torch.device, dtype: Any
) -> ProcessedPrompts:
    """Put prompts into one batch.

    Args:
        rows: What `Chat.inputs` returned for each.
        pad_id: Id that pads shorter prompts on the left.
        device: Where the batch goes.
        dtype: Of pixels.
    """
    length = max(row[IDS].shape[1] for row in rows)
    inputs = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        # Tensors with an entry per token are padded on the left, as ids are.
        if all(part.shape[:2] == row[IDS].shape for part, row in zip(parts, rows, strict=True)):
            fill = pad_id if name == IDS else 0
            parts = [
                torch.cat(
                    [part.new_full((1, length - part.shape[1], *part.shape[2:]), fill), part], 1
                )
                for part in parts
            ]
        joined = _stack(parts)
        inputs[name] = joined.to(device, dtype if joined.is_floating_point() else None)
    return ProcessedPrompts(inputs)


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate tensors along the first axis; pad the others with zeros.

    Processors do the same with a batch of pictures that differ in their number of tiles.
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
        ModelError: If it is something else, or its frames differ in size.
    """
    if not isinstance(video, (list, tuple, np.ndarray)) or not len(video):
        raise ModelError(f"video {video!r}; pass a list of its frames, each a picture")
    frames = [to_picture(frame) for frame in video]
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ModelError(f"a video with frames of {len(sizes)} sizes; make them the same size")
    return torch.stack([torch.from_numpy(np.array(frame)) for frame in frames]).permute(0, 3, 1, 2)
