"""What every wrapper is: pictures become image tokens, a question becomes a prompt, text comes out.

Axes: B batch, S prompt positions, I image tokens of one picture, E width of the language model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import GenerationConfig

import eah
from models.checkpoints import Checkpoint
from models.prompts import IMAGE, prompt_ids
from models.tokenizer import ChunkTokenizer


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen: greedy by default, beams, or nucleus sampling.

    `top_p` and `temperature` are the reference wrappers' values and count only when sampling.
    """

    max_new_tokens: int = 512
    num_beams: int = 1
    do_sample: bool = False
    top_p: float = 0.9
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers once."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}, but at least 1 is needed")
        if self.num_beams < 1:
            raise ValueError(f"num_beams={self.num_beams}, but at least 1 is needed (1 is greedy)")


class Answer(NamedTuple):
    """A stripped answer; `finished` is False where `max_new_tokens` came before its end."""

    text: str
    finished: bool


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """A left-padded batch of prompts as embeddings."""

    embeds: torch.Tensor  # (B, S, E)
    attention_mask: torch.Tensor  # (B, S), 1 where there is a token
    image_mask: torch.Tensor  # (B, S), True at image tokens


class VLM(ABC):
    """A vision-language model with its prompt, its preprocessing and its tokenizer.

    Attributes:
        family: Name that `models.prompts` knows the model by.
        model: The transformers model; EAH is enabled on it.
        tokenizer: Encodes prompt chunks.
        protocol: Whose prompt and preprocessing are used.
        model_type: The architecture's name in a checkpoint's `config.json`.
        stop_text: Text that ends an answer, besides EOS.
    """

    family: str
    model_type: str
    stop_text: str | None = None

    def __init__(self, model: Any, tokenizer: ChunkTokenizer, *, protocol: str) -> None:
        """Wrap a loaded model; the protocol is checked at once."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.prompt_ids("")

    @property
    def device(self) -> torch.device:
        """Device of the embeddings, where inputs go (also when the model is split over several)."""
        return torch.device(self.model.get_input_embeddings().weight.device)

    @classmethod
    @abstractmethod
    def load_model(cls, checkpoint: Checkpoint, *, device: str, dtype: torch.dtype) -> Any:
        """Load the transformers model of a checkpoint; no weight may be missing."""

    @abstractmethod
    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels as the protocol wants them, shape (B, 3, side, side), float32."""

    @abstractmethod
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the image tokens' embeddings, shape (B, I, E), in the model's dtype."""

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the image tokens of pictures, shape (B, I, E), in the model's dtype."""
        return self.encode_pixels(self.preprocess(images))

    def prompt_ids(self, question: str) -> list[int]:
        """Return the prompt's ids with -200 once in the place of the image tokens."""
        return prompt_ids(self.family, question, self.tokenizer, self.protocol)

    def embed_prompts(self, features: torch.Tensor, questions: Sequence[str]) -> EncodedPrompts:
        """Put image tokens into their prompts and pad on the left.

        Args:
            features: Image tokens, one picture per question, shape (B, I, E).
            questions: One per picture.
        Returns:
            The batch, on the model's device.
        """
        embedding = self.model.get_input_embeddings()
        features = features.to(self.device, embedding.weight.dtype)
        rows, spans = [], []
        for image_tokens, question in zip(features, questions, strict=True):
            ids = self.prompt_ids(question)
            place = ids.index(IMAGE)
            before, after = (
                embedding(torch.tensor(chunk, dtype=torch.long, device=self.device))
                for chunk in (ids[:place], ids[place + 1 :])
            )
            rows.append(torch.cat([before, image_tokens, after]))  # (S, E)
            spans.append((place, place + len(image_tokens)))
        length = max(map(len, rows))
        embeds = features.new_zeros(len(rows), length, features.shape[-1])
        attention_mask = torch.zeros(len(rows), length, dtype=torch.long, device=self.device)
        image_mask = torch.zeros(len(rows), length, dtype=torch.bool, device=self.device)
        for index, (row, (start, stop)) in enumerate(zip(rows, spans, strict=True)):
            pad = length - len(row)
            embeds[index, pad:] = row
            attention_mask[index, pad:] = 1
            image_mask[index, pad + start : pad + stop] = True
        return EncodedPrompts(embeds, attention_mask, image_mask)

    @torch.inference_mode()
    def answer_batch(
        self, features: torch.Tensor, questions: Sequence[str], decoding: Decoding
    ) -> list[Answer]:
        """Answer a batch of questions about already encoded pictures.

        Args:
            features: Image tokens, one picture per question, shape (B, I, E).
            questions: One per picture; prompts of different length are padded on the left.
            decoding: How tokens are chosen.
        Returns:
            One answer per question.
        """
        prompts = self.embed_prompts(features, questions)
        with eah.image_tokens(self.model, prompts.image_mask):
            output = self.model.generate(
                inputs_embeds=prompts.embeds,
                attention_mask=prompts.attention_mask,
                generation_config=self._generation_config(decoding),
            )
        return [self._answer(ids) for ids in output.tolist()]

    def generate_batch(
        self, features: torch.Tensor, questions: Sequence[str], decoding: Decoding
    ) -> list[str]:
        """Return the answers' texts only; arguments as in `answer_batch`."""
        return [answer.text for answer in self.answer_batch(features, questions, decoding)]

    @torch.inference_mode()
    def generate(self, image: Image.Image, question: str, decoding: Decoding | None = None) -> str:
        """Answer one question about one picture, greedily unless told otherwise."""
        features = self.encode_images([image])
        return self.generate_batch(features, [question], decoding or Decoding())[0]

    def _generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Spell every setting out, so that none comes from the checkpoint's own defaults."""
        sampling: dict[str, Any] = {}
        if decoding.do_sample:
            # top_k 50 is the library default that was in force under the reference wrappers.
            sampling = {"top_p": decoding.top_p, "temperature": decoding.temperature, "top_k": 50}
        return GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            do_sample=decoding.do_sample,
            use_cache=True,
            bos_token_id=self.tokenizer.bos_id(),
            eos_token_id=self.tokenizer.eos_id(),
            pad_token_id=0,
            **sampling,
        )

    def _answer(self, ids: list[int]) -> Answer:
        """Decode new tokens up to EOS and cut at the stop text."""
        eos = self.tokenizer.eos_id()
        finished = eos in ids
        text = self.tokenizer.decode(ids[: ids.index(eos)] if finished else ids)
        if self.stop_text is not None and self.stop_text in text:
            text, finished = text.split(self.stop_text)[0], True
        return Answer(text.strip(), finished)
