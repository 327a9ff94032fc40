"""Any vision-language model of transformers: its processor, its chat template, its `generate`.

If a model accepts prompts as embeddings (`models.embedding`), a picture is encoded once for all
questions, questions about it can reuse a cached prefix, and every decoding method works. Other
models get ids and pixels for each question, as in a plain script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
import transformers
from PIL import Image
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
)

from eah.find import placeholder_ids
from models.base import VLM, check_question
from models.chat import Chat, Prepared, Video, check_protocol, collate, read_frames
from models.checkpoints.finite import refuse_nonfinite
from models.decoding.attention_method import AttentionMethod
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.vcd import Vcd
from models.embedding import decoder_inputs, reason_against, same_scores
from models.errors import ModelError
from models.generation import (
    Decoding,
    EncodedPrompts,
    Features,
    ProcessedPrompts,
    Prompts,
    ShownPrompt,
    pad_prompts,
)
from models.image_view import ImageView, processor_view
from models.library_errors import library_errors
from models.loading import load_pretrained
from models.pictures import Picture, to_picture
from models.precision import (
    DTYPES,
    MIXED,
    Precision,
    Quantization,
    resolve_precision,
    uniform_precision,
)
from models.processor import IDS, HFTokenizer, load_processor
from models.settings import ModelSettings
from models.sources import WHOLE, Checkpoint, Family, find_source
from models.trial import try_out

# Size of COCO's pictures, for estimates of prompt length and trial prompts.
TYPICAL_SIZE: Final = (640, 480)
TRIAL_QUESTIONS: Final = ("Is it?", "Is there a cat in the image?")
PIXELS: Final = "pixel_values"


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture (or several, or videos) that questions are asked about.

    Attributes:
        prepared: The processor's output for it.
        tokens: Embeddings of its image tokens, (I, E); None if the model gets pixels.
    """

    prepared: Prepared
    tokens: torch.Tensor | None = None


class HFVlm(VLM):
    """A model of `AutoModelForImageTextToText` with its processor.

    Attributes:
        chat: Makes prompts.
        note: Why prompts can't be given as embeddings; None if they are.
        left_out: Settings of the checkpoint's generation config that are not applied.
    """

    family = Family("hf", "", ())
    tokenizer: HFTokenizer

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        protocol: str = "chat",
        system: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Wrap a loaded model, and test whether its prompts can be given as embeddings.

        Raises:
            ModelError: If the processor can't make a prompt for a question about a picture.
        """
        check_protocol(protocol)
        self.chat = Chat(processor, system)
        ids = [id_ for found in placeholder_ids(model).values() for id_ in found]
        self._image_ids = torch.tensor(ids, dtype=torch.long)
        own, rows = model.generation_config, model.get_input_embeddings().weight.shape[0]
        self.left_out = _unapplied_settings(own)
        self._tried: set[DecodingMethod] = set()
        tokenizer = HFTokenizer(processor.tokenizer, own, rows, ids)
        super().__init__(model, tokenizer, protocol=protocol, precision=precision)
        typical = self.prompt_ids("")
        self._typical_length = len(typical)
        if ids and not self._image_mask(torch.tensor(typical)).any():
            raise ModelError(
                f"the prompt that {type(processor).__name__} makes for a picture contains none of "
                f"the image tokens that the model's config names ({ids}); its chat template omits "
                "pictures, or belongs to another model: copy the original one"
            )
        self.note: str | None = None
        self.note = self._reason_against_embeddings()

    @classmethod
    def check_protocol(cls, protocol: str, system: str | None = None) -> None:
        """Check that the protocol exists; all of them accept a system message.

        Raises:
            ModelError: If it does not exist.
        """
        check_protocol(protocol)

    @classmethod
    def resolve_precision(cls, name: str, device: str) -> Precision:
        """Return the precision of all parts: bfloat16 on a GPU unless another is named.

        Raises:
            ModelError: If it is unknown, or "mixed", which only the paper's wrappers have.
        """
        if name == MIXED:
            raise ModelError(
                "--dtype mixed is the precision of the paper's wrappers, and --model hf is not one "
                f"of them; use auto, {', '.join(DTYPES)}"
            )
        return resolve_precision(name, device, uniform_precision(torch.bfloat16))

    @classmethod
    def find(
        cls, settings: ModelSettings, checkpoint: str | None, parts: Mapping[str, str] | None
    ) -> Checkpoint:
        """Find a folder or hub repository in transformers' format.

        Raises:
            ModelError: If there is none, or parts of a model are named.
        """
        if parts:
            flags = ", ".join(f"--{part.replace('_', '-')}" for part in parts)
            raise ModelError(f"--model hf loads a whole model, --checkpoint; leave out {flags}")
        chosen = settings.checkpoint if checkpoint is None else checkpoint
        if chosen is None:
            raise ModelError(
                "--model hf needs --checkpoint, a folder in transformers' format or a hub id "
                "(owner/name); name one"
            )
        source = find_source(chosen, what="checkpoint", advice="check the path")
        kind = source.config.get("model_type")
        if not isinstance(kind, str):
            raise ModelError(
                f"checkpoint {source.name} has no config.json that names a model_type; --model hf "
                "loads folders in transformers' format, as `save_pretrained` writes them"
            )
        return Checkpoint(Family(kind, kind, ()), {WHOLE: source})

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        protocol: str,
        device: str,
        precision: Precision,
        quantization: Quantization | None = None,
        converted: str | None = None,  # refused earlier, for folders in transformers' format
        system: str | None = None,
    ) -> Self:
        """Load a model with its processor.

        Raises:
            ModelError: If transformers can't load it, or it is not a vision-language model.
        """
        config = cls.config(checkpoint)
        processor = cls.try_processor(checkpoint, config, system)
        model = load_pretrained(
            AutoModelForImageTextToText,
            checkpoint.name,
            config=config,
            dtype=precision.dtype,
            device=device,
            quantization=quantization,
        )
        refuse_nonfinite(f"checkpoint {checkpoint.name}", model.named_parameters())
        return cls(model, processor, protocol=protocol, system=system, precision=precision)

    @classmethod
    def prompt_of(
        cls,
        checkpoint: Checkpoint,
        protocol: str,
        question: str,
        image: Image.Image,
        system: str | None = None,
    ) -> ShownPrompt:
        """Return the prompt for a question, without loading the model; arguments as in `load`."""
        processor = cls.try_processor(checkpoint, cls.config(checkpoint), system)
        return Chat(processor, system).show_prompt(question, image)

    @classmethod
    def try_processor(cls, checkpoint: Checkpoint, config: Any, system: str | None) -> Any:
        """Load a checkpoint's processor and test it with one prompt; errors as in `load`."""
        processor = load_processor(checkpoint.name, config)
        typical = Image.new("RGB", TYPICAL_SIZE, "gray")
        try_out(
            f"checkpoint {checkpoint.name}: making a prompt for a picture",
            lambda: Chat(processor, system).show_prompt("", typical),
        )
        return processor

    @classmethod
    def config(cls, checkpoint: Checkpoint) -> Any:
        """Return the config of a vision-language model.

        Raises:
            ModelError: If the installed transformers has no class for it, or not one that answers
                questions about pictures.
        """
        kind = checkpoint.family.model_type
        where = (
            f"checkpoint {checkpoint.name} has model_type {kind!r:.80}, which transformers "
            f"{transformers.__version__} can't load without remote code"
        )
        advice = (
            "install a newer release, or pass a checkpoint in transformers' own format (often "
            "named -hf)"
        )
        with library_errors(where, advice):
            config = AutoConfig.from_pretrained(checkpoint.name, trust_remote_code=False)
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise ModelError(
                f"checkpoint {checkpoint.name} has model_type {kind!r}, which does not answer "
                "questions about pictures (AutoModelForImageTextToText); pass another checkpoint"
            )
        return config

    @property
    def preprocessing(self) -> Chat:
        """The object that makes prompts from pictures and questions."""
        return self.chat

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return self.tokenizer.eos_ids

    @property
    def pad_id(self) -> int:
        """Id that pads after the end of an answer, and before shorter prompts."""
        return self.tokenizer.pad_id

    @property
    def generation_note(self) -> str | None:
        """The checkpoint's generation settings that are not applied; None for none."""
        return ", ".join(f"{name}={value}" for name, value in self.left_out.items()) or None

    @property
    def prefix_note(self) -> str | None:
        """Why prompts about the same picture can't reuse a cached prefix; None if they can."""
        return self.note

    def prompt_ids(self, question: str) -> list[int]:
        """Return the ids of the prompt for a question about a picture of a typical size."""
        return self.shown_prompt(question, Image.new("RGB", TYPICAL_SIZE, "gray")).ids

    def prompt_length(self, question: str) -> int:
        """Return the approximate length of a question's prompt, in tokens."""
        return self._typical_length + len(self.tokenizer.encode(question))

    @property
    def num_image_tokens(self) -> int:
        """Image tokens of a picture of a typical size."""
        ids = torch.tensor(self.prompt_ids(""))
        return int(torch.isin(ids, self._image_ids).sum())

    def shown_prompt(self, question: str, image: Image.Image) -> ShownPrompt:
        """Return the prompt for a question in a readable form."""
        return self.chat.show_prompt(question, image)

    def encode_pixels(self, pixels: Any) -> Any:
        """Encode prepared pictures; the same as `encode`."""
        return self.encode(pixels)

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> list[EncodedPicture]:
        """Return the pictures, with embeddings of their image tokens if the model takes these."""
        if self.note is not None:
            return [EncodedPicture(one) for one in prepared]
        batch = self._batch(prepared, [next(iter(one.texts)) for one in prepared])
        embeds = decoder_inputs(self.model, batch.inputs)["inputs_embeds"]
        image = self._image_mask(batch.inputs[IDS])
        return [
            EncodedPicture(one, row[mask])
            for one, row, mask in zip(prepared, embeds, image, strict=True)
        ]

    def encode_prompts(
        self, features: Features, questions: Sequence[str], *, pad_after_image: bool = False
    ) -> Prompts:
        """Return a batch of prompts for `generate`, as embeddings if the model accepts them."""
        if self.note is None:
            return self.embed_prompts(features, questions, pad_after_image=pad_after_image)
        return self._batch([picture.prepared for picture in features], questions)

    def embed_prompts(
        self, features: Features, questions: Sequence[str], *, pad_after_image: bool = False
    ) -> EncodedPrompts:
        """Put image tokens into their prompts, and pad on the left or after the image.

        After the image only if it ends at the same position in all prompts, and if the prompts of a
        picture are identical up to there for every question.
        """
        rows, masks, stops = [], [], set()
        for picture, ids in zip(features, self._ids(features, questions), strict=True):
            mask = self._image_mask(ids)
            row = self._embed(ids.tolist()).clone()
            row[mask] = picture.tokens.to(row.device)
            rows.append(row)  # (S, E)
            masks.append(mask)
            stop = int(mask.nonzero().max()) + 1
            first = next(iter(picture.prepared.texts.values()))[IDS][0]
            stops.add(stop if torch.equal(first[:stop], ids[:stop]) else 0)
        prefix = stops.pop() if pad_after_image and len(stops) == 1 else 0
        return pad_prompts(rows, masks, prefix=prefix)

    def embed_text(self, features: Features, questions: Sequence[str]) -> EncodedPrompts:
        """Return the prompts without their image tokens; arguments as in `embed_prompts`."""
        ids = self._ids(features, questions)
        return self._pad_texts([row[~self._image_mask(row)].tolist() for row in ids])

    def image_view(self, prepared: Prepared) -> ImageView:
        """Return a prepared picture as the model sees it, with the grid of its image tokens.

        Raises:
            ModelError: If it is not exactly one picture.
        """
        if len(prepared.images) != 1 or prepared.videos:
            raise ModelError(
                f"{len(prepared.images)} pictures and {len(prepared.videos)} videos; prepare one "
                "picture to see it as the model does"
            )
        text = next(iter(prepared.texts.values()))
        tokens = int(self._image_mask(text[IDS]).sum())
        return processor_view(
            prepared.images[0],
            {**prepared.pixels, **text},
            tokens,
            self.chat.processor.image_processor,
            self.model.config,
        )

    def add_noise(self, prepared: Prepared, method: Vcd, seed: int) -> Prepared:
        """Return a prepared picture with VCD's noise."""
        (name,) = _pixel_names(prepared)  # `check_method` refuses others
        noised = method.add_noise(prepared.pixels[name], seed)
        return replace(prepared, pixels={**prepared.pixels, name: noised})

    @torch.inference_mode()
    def generate(
        self,
        image: Picture | list[Picture] | tuple[Picture, ...] | None,
        question: str,
        decoding: Decoding | None = None,
        *,
        videos: Sequence[Video] = (),
        **settings: Any,
    ) -> str:
        """Answer one question about pictures and videos, greedily by default.

        Args:
            image: A picture as `VLM.generate` takes it, a list of pictures, or None.
            question: The question; it comes after pictures and videos.
            decoding: How tokens are chosen.
            videos: Each a list of pictures, its frames, or an array of them, shape (frames, height,
                width, 3) uint8. All frames are used.
            settings: Settings of `Decoding` by name, instead of `decoding`: `max_new_tokens=50`.
        Raises:
            ModelError: If a picture can't be read, there is none, the processor takes no videos,
                the question is empty, or a setting is wrong.
        """
        check_question(question)
        chosen = Decoding.of(decoding, settings)
        given: list[Picture] = []
        if isinstance(image, (list, tuple)):
            given.extend(image)
        elif image is not None:
            given.append(image)
        if not isinstance(videos, (list, tuple)):
            raise ModelError(f"videos={videos!r}; pass a list of videos, each a list of its frames")
        if not given and not videos:
            raise ModelError("no picture and no video; pass at least one of them")
        films = [read_frames(video) for video in videos]
        prepared = self.chat.prepare_all([to_picture(one) for one in given], films, [question])
        return self.generate_batch(self.encode([prepared]), [question], chosen)[0]

    def check_method(self, method: DecodingMethod) -> None:
        """Refuse a decoding method that this model can't run.

        Raises:
            MethodError: With the reason.
        """
        name, model = method.title, type(self.model).__name__
        if method.needs_embeddings and self.note is not None:
            raise MethodError(
                f"{name} needs prompts as embeddings and plain causal attention, but with {model} "
                f"{self.note}; leave it out"
            )
        if isinstance(method, AttentionMethod) and not len(self._image_ids):
            raise MethodError(
                f"{name} needs to know the image tokens, but the config of {model} names none; "
                "leave it out"
            )
        if isinstance(method, Vcd):
            prepared = self.chat.prepare(Image.new("RGB", (64, 64)), ())
            shapes = {key: tuple(prepared.pixels[key].shape) for key in _pixel_names(prepared)}
            if len(shapes) != 1 or any(len(s) < 4 or s[-3] != 3 for s in shapes.values()):
                listed = ", ".join(f"{key} of shape {shape}" for key, shape in shapes.items())
                shape = listed or "no pixels"
                raise MethodError(
                    f"{name} adds noise to pixels, but the processor of {model} makes {shape}; "
                    "leave it out"
                )

        super().check_method(method)
        if method.needs_trial and method not in self._tried:
            self._tried.add(method)  # first, since the trial calls this function again
            self._try_method(method)

    def _try_method(self, method: DecodingMethod) -> None:
        """Choose one token by a method.

        Raises:
            MethodError: If the method does not support the model.
        """
        shown = self.encode([self.chat.prepare(Image.new("RGB", (64, 64)), ())])
        self.answer_batch(shown, TRIAL_QUESTIONS[:1], Decoding(1), method)

    def _ids(self, features: Features, questions: Sequence[str]) -> list[torch.Tensor]:
        """Return the ids of each prompt, (S,)."""
        return [
            self.chat.prepare_text(picture.prepared, question)[IDS][0]
            for picture, question in zip(features, questions, strict=True)
        ]

    def _batch(self, prepared: Sequence[Prepared], questions: Sequence[str]) -> ProcessedPrompts:
        rows = [
            {**picture.pixels, **self.chat.prepare_text(picture, question)}
            for picture, question in zip(prepared, questions, strict=True)
        ]
        batch = collate(rows, self.pad_id, self.device, self.model.dtype)
        if not len(self._image_ids):
            return batch
        is_token = batch.inputs.get("attention_mask", torch.ones_like(batch.inputs[IDS])).bool()
        return replace(batch, method_image_mask=self._image_mask(batch.inputs[IDS]) & is_token)

    def _image_mask(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a mask that is True at image tokens, in the shape of the ids."""
        return torch.isin(ids, self._image_ids.to(ids.device))

    def _reason_against_embeddings(self) -> str | None:
        """Return why prompts can't be given as embeddings, tested with two; None if they can."""
        if not len(self._image_ids):
            return "its config names no image token"
        picture = self.chat.prepare(_noise(), ())
        batch = self._batch([picture, picture], TRIAL_QUESTIONS)
        where = (
            f"{type(self.model).__name__} can't run the output of "
            f"{type(self.chat.processor).__name__} for a picture"
        )
        advice = "the processor belongs to another model: copy the original one"
        with library_errors(where, advice):
            reason = reason_against(self.model, batch.inputs)
        if reason is not None:
            return reason
        try:
            pictures = self.encode([picture]) * 2
            embedded = self.embed_prompts(pictures, TRIAL_QUESTIONS)
            if same_scores(self.model, batch, embedded):
                return None
        except (TypeError, ValueError, IndexError):
            return "its `generate` takes no embeddings"
        return "its scores differ when prompts are given as embeddings"


def _unapplied_settings(generation: GenerationConfig) -> dict[str, Any]:
    """Return what a generation config sets besides ids, lengths, caches and sampling."""
    kept = {
        "max_length",
        "max_new_tokens",
        "do_sample",
        "temperature",
        "top_p",
        "top_k",
        "use_cache",
    }
    return {
        name: value
        for name, value in generation.to_diff_dict().items()
        if name not in kept
        and not name.endswith(("_token_id", "_version", "_implementation"))
        and not name.startswith("_")
    }


def _pixel_names(prepared: Prepared) -> list[str]:
    return [name for name in prepared.pixels if PIXELS in name]


def _noise() -> Image.Image:
    """Return a picture of a typical size in which all regions differ."""
    size = TYPICAL_SIZE[0] * TYPICAL_SIZE[1] * 3
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(256, (size,), generator=generator, dtype=torch.uint8)
    return Image.frombytes("RGB", TYPICAL_SIZE, bytes(values.tolist()))
