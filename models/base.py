"""The base class of all wrappers: from pictures and questions to answers.

Axes: B batch, S prompt positions, I image tokens of one picture, E width of the language model,
F and C positions and width of a picture's features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
)

from eah.grids import token_grid
from eah.patch import handle_of
from models.checkpoints.config_types import check_config_types
from models.checkpoints.convert import convert_checkpoint
from models.checkpoints.finite import refuse_nonfinite
from models.checkpoints.locate import locate
from models.decoding.base import Contrast, DecodingMethod, MethodError, Request, generate
from models.decoding.steps.steps import DecodeSteps
from models.decoding.vcd import Vcd
from models.decoding.yes_no import FirstToken, YesNoIds
from models.errors import ModelError
from models.generation import (
    PAD,
    Answer,
    Decoding,
    EncodedPrompts,
    Features,
    Prompts,
    ShownPrompt,
    concat_prompts,
    image_tokens,
    pad_prompts,
)
from models.image_view import ImageView, to_image
from models.images import CLIP_MEAN, CLIP_STD, Preprocessing
from models.library_errors import library_errors
from models.loading import check_vocabulary, load_pretrained, load_tokenizer
from models.pictures import Picture, to_picture
from models.precision import Parts, Precision, Quantization, resolve_precision, uniform_precision
from models.prefix_cache import PicturePrefixes, generate_after_prefixes
from models.prompt_images import prompt_images
from models.prompts import IMAGE, prompt_ids, show_prompt, template
from models.settings import ModelSettings
from models.sources import WHOLE, Checkpoint, Family, find_source
from models.tokenizer import ChunkTokenizer, check_characters, check_token_ids


class VLM(ABC):
    """A vision-language model with its prompt, its preprocessing and its tokenizer.

    Attributes:
        family: How its checkpoints are recognised; its name is the key in `models.prompts`.
        model_class: transformers' class, or ours where transformers has none.
        parts: Which part of the model a parameter belongs to.
        mixed: Precision of the reference wrapper on a GPU; `--dtype auto` uses it there.
        stop_text: Text that ends an answer, besides EOS.
        answer_mark: Text of the prompt after which an answer begins. If the model repeats it, the
            answer begins after the last occurrence, as in the reference wrappers.
        repetition_penalty: Applied to generated ids, not to the prompt's.
        image_depends_on_question: Whether the image tokens depend on the question. Prompts about
            the same picture then have no common prefix.
        model: The transformers model; EAH is enabled on it.
        tokenizer: Encodes text of prompts.
        protocol: Whose prompt and preprocessing are used.
        precision: Precision of each part.
    """

    family: ClassVar[Family]
    model_class: ClassVar[Any]
    parts: ClassVar[Parts]
    mixed: ClassVar[Precision]
    stop_text: ClassVar[str | None] = None
    answer_mark: ClassVar[str | None] = None
    repetition_penalty: ClassVar[float] = 1.0
    image_depends_on_question: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        tokenizer: ChunkTokenizer,
        *,
        protocol: str,
        precision: Precision | None = None,
    ) -> None:
        """Wrap a loaded model and check the protocol."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.precision = precision or uniform_precision(next(model.parameters()).dtype)
        # Nothing that changes scores comes from a checkpoint's generation_config.json.
        own = self.language_model.generation_config
        check_token_ids(own)
        self.language_model.generation_config = GenerationConfig(
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
        )
        self.prompt_ids("")

    @classmethod
    def check_protocol(cls, protocol: str, system: str | None = None) -> None:
        """Check that the protocol exists, and that it takes a system message if one is given.

        Raises:
            ModelError: If the protocol is unknown or takes no system message.
        """
        if system is not None:
            raise ModelError(
                f"--system is for --model hf; protocol {protocol!r} of {cls.family.name} has the "
                "system message that it was published with: leave it out"
            )
        try:
            template(cls.family.name, protocol)
        except ValueError as error:
            raise ModelError(str(error)) from error

    @classmethod
    def resolve_precision(cls, name: str, device: str) -> Precision:
        """Return the precision of every part for a `--dtype`.

        Raises:
            ModelError: If the precision is unknown.
        """
        return resolve_precision(name, device, cls.mixed)

    @classmethod
    def find(
        cls, settings: ModelSettings, checkpoint: str | None, parts: Mapping[str, str] | None
    ) -> Checkpoint:
        """Find the checkpoint, from the user's choice and the model's config.

        Parts that the user names replace the config's checkpoint. If a named checkpoint contains
        only some parts, the config's parts complete it.

        Raises:
            ModelError: If a part is unknown, missing, or of another model.
        """
        chosen = settings.checkpoint if checkpoint is None and not parts else checkpoint
        found = None
        if chosen is not None:
            found = find_source(chosen, what="checkpoint", advice="name one of the three")
            if not parts and found.is_whole(cls.family):
                return Checkpoint(cls.family, {WHOLE: found})
        return locate(cls.family, found, parts or {}, settings)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        protocol: str,
        device: str,
        precision: Precision,
        quantization: Quantization | None = None,
        converted: str | None = None,
    ) -> Self:
        """Load a checkpoint; original files are first converted, once, to the folder `converted`.

        Raises:
            ModelError: If a file is missing, unreadable or of another model.
        """
        if not checkpoint.is_whole:
            config = cls.load_config(checkpoint)
            checkpoint = convert_checkpoint(checkpoint, cls.model_class, config, converted)
        parts = cls.load_parts(checkpoint, device, precision, quantization)
        return cls(*parts, protocol=protocol, precision=precision, **cls.extra_kwargs(checkpoint))

    @classmethod
    def extra_kwargs(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return further keyword arguments of the wrapper, besides model and tokenizer."""
        return {}

    @classmethod
    def load_parts(
        cls,
        checkpoint: Checkpoint,
        device: str,
        precision: Precision,
        quantization: Quantization | None,
    ) -> tuple[Any, ChunkTokenizer]:
        """Return the model and its tokenizer; arguments and errors as in `load`."""
        tokenizer = load_tokenizer(checkpoint.text)
        config = cls.load_config(checkpoint)
        check_vocabulary(checkpoint, config.get_text_config(decoder=True).vocab_size, tokenizer)
        kept = cls.parts.modules(*precision.float32)
        model = load_pretrained(
            cls.model_class,
            checkpoint.name,
            config=config,
            dtype=precision.dtype,
            float32=[name.rpartition(".")[2] for name in kept],
            device=device,
            quantization=quantization,
            unquantized=cls.parts.modules("vision", "qformer", "projector"),
        )
        precision.cast(model, cls.parts)
        refuse_nonfinite(f"checkpoint {checkpoint.name}", model.named_parameters())
        return model, tokenizer

    @classmethod
    def load_config(cls, checkpoint: Checkpoint) -> Any:
        """Return the checked config of a checkpoint, see `config`.

        Raises:
            ModelError: If transformers can't build it from the files.
        """
        where = f"the config.json of {checkpoint.name} does not describe {cls.family.name}"
        advice = "copy it again from the original checkpoint"
        with library_errors(where, advice):
            config = cls.config(checkpoint)
            check_config_types(config)
        return config

    @classmethod
    @abstractmethod
    def config(cls, checkpoint: Checkpoint) -> Any:
        """Return the config of a checkpoint's model, a transformers `*Config`."""

    @property
    def language_model(self) -> Any:
        """The model whose `generate` takes a prompt's embeddings."""
        return self.model

    @property
    def device(self) -> torch.device:
        """Device of the embeddings, where inputs go, even if the model is split over several."""
        return torch.device(self.language_model.get_input_embeddings().weight.device)

    @property
    @abstractmethod
    def num_image_tokens(self) -> int:
        """Image tokens of a picture, I."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return (self.tokenizer.eos_id(),)

    @property
    def pad_id(self) -> int:
        """Id that pads an answer after its end."""
        return PAD

    def prompt_length(self, question: str) -> int:
        """Return the length of a question's prompt, image tokens included."""
        return len(self.prompt_ids(question)) - 1 + self.num_image_tokens

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """The protocol's preprocessing, which turns pictures into pixels."""

    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels for the protocol, shape (B, 3, side, side), float32."""
        return self.preprocessing(images)

    @abstractmethod
    def encode_pixels(self, pixels: Any) -> Any:
        """Return the features of pictures, which no question changes, shape (B, F, C)."""

    def image_embeds(self, features: torch.Tensor, questions: Sequence[str]) -> torch.Tensor:
        """Return the image tokens' embeddings, shape (B, I, E).

        Args:
            features: What `encode_pixels` returned, one picture per question.
            questions: Ignored by models whose image tokens do not depend on the question.
        """
        return features

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Any:
        """Return the features of pictures, shape (B, F, C), in the model's dtype."""
        return self.encode_pixels(self.preprocess(images))

    def encode(self, prepared: Sequence[Any]) -> list[Any]:
        """Return the features of each picture.

        Args:
            prepared: What `preprocessing.prepare` made of each picture.
        """
        return list(self.encode_pixels(torch.cat(list(prepared))))

    def image_view(self, prepared: Any) -> ImageView:
        """Return a prepared picture as the model sees it, with the grid of its image tokens."""
        grid = token_grid(self.model.config, self.num_image_tokens)
        return ImageView(to_image(prepared, CLIP_MEAN, CLIP_STD), grid)

    def add_noise(self, prepared: Any, method: Vcd, seed: int) -> Any:
        """Return a prepared picture with VCD's noise added."""
        return method.add_noise(prepared, seed)

    def check_method(self, method: DecodingMethod) -> None:
        """Refuse a decoding method that this model can't run with its current EAH settings.

        Raises:
            MethodError: With the reason.
        """
        method.check_model(self.language_model)

    @property
    def generation_note(self) -> str | None:
        """Generation settings of the checkpoint that are not applied; None if there are none."""
        return None

    @property
    def prefix_note(self) -> str | None:
        """Why no method can use cached prefixes with this model; None if some can.

        None, too, if the image tokens depend on the question, which is documented.
        """
        return None

    def shown_prompt(self, question: str, image: Image.Image) -> ShownPrompt:
        """Return the prompt of a question, for display.

        Args:
            question: As `generate` takes it.
            image: Its picture.
        """
        return show_prompt(self.family.name, question, self.tokenizer, self.protocol)

    @classmethod
    def prompt_of(
        cls, checkpoint: Checkpoint, protocol: str, question: str, image: Image.Image
    ) -> ShownPrompt:
        """Return the prompt of a question without loading the model."""
        return show_prompt(cls.family.name, question, load_tokenizer(checkpoint.text), protocol)

    def prompt_ids(self, question: str) -> list[int]:
        """Return the prompt's ids, with a single -200 for all image tokens."""
        return prompt_ids(self.family.name, question, self.tokenizer, self.protocol)

    def encode_prompts(
        self, features: Features, questions: Sequence[str], *, pad_after_image: bool = False
    ) -> Prompts:
        """Return a batch of prompts as `generate` takes it; arguments as in `embed_prompts`."""
        return self.embed_prompts(features, questions, pad_after_image=pad_after_image)

    def embed_prompts(
        self, features: Features, questions: Sequence[str], *, pad_after_image: bool = False
    ) -> EncodedPrompts:
        """Insert image tokens into their prompts and pad, on the left or after the image.

        Args:
            features: What `encode` returned, one picture per question, (F, C) each.
            questions: One per picture.
            pad_after_image: Whether to pad after the image, where a cached prefix ends.
        Returns:
            The batch, on the model's device.
        """
        if not isinstance(features, torch.Tensor):
            features = torch.stack(list(features))  # (F, C) each -> (B, F, C)
        image = self.image_embeds(features, questions).to(self.device)
        rows, masks = [], []
        for picture, question in zip(image, questions, strict=True):
            ids = self.prompt_ids(question)
            start = ids.index(IMAGE)
            # If the parts' precisions differ, the prompt has the higher one.
            before, after = self._embed(ids[:start]), self._embed(ids[start + 1 :])
            rows.append(torch.cat([before, picture, after]))  # (S, E)
            mask = torch.zeros(len(rows[-1]), dtype=torch.bool)
            mask[start : start + len(picture)] = True
            masks.append(mask)
        return pad_prompts(rows, masks, prefix=start + image.shape[1] if pad_after_image else 0)

    def embed_text(self, features: Features, questions: Sequence[str]) -> EncodedPrompts:
        """Return the prompts without their image tokens; arguments as in `embed_prompts`."""
        texts = [[id_ for id_ in self.prompt_ids(q) if id_ != IMAGE] for q in questions]
        return self._pad_texts(texts)

    def _pad_texts(self, texts: Sequence[Sequence[int]]) -> EncodedPrompts:
        rows = [self._embed(ids) for ids in texts]
        return pad_prompts(rows, [torch.zeros(len(row), dtype=torch.bool) for row in rows])

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the embeddings of token ids, shape (S, E)."""
        embeds: torch.Tensor = self.language_model.get_input_embeddings()(
            torch.tensor(list(ids), dtype=torch.long, device=self.device)
        )
        return embeds

    @torch.inference_mode()
    def answer_batch(
        self,
        features: Features,
        questions: Sequence[str],
        decoding: Decoding,
        method: DecodingMethod | None = None,
        noised: Features | None = None,
        prefixes: PicturePrefixes | None = None,
        yes_no: YesNoIds | None = None,
        steps: DecodeSteps | None = None,
    ) -> list[Answer]:
        """Answer a batch of questions about already encoded pictures.

        Args:
            features: What `encode` or `encode_images` returned, one picture per question.
            questions: One per picture; prompts of different lengths are padded.
            decoding: How tokens are chosen.
            method: Decoding method; None for transformers' `generate`.
            noised: Features of the pictures with noise added, for methods that contrast the two.
            prefixes: Cached prefixes of the pictures, used if `can_use_cached_prefix`.
            yes_no: Tokens to compute `Answer.p_yes` from, which changes no answer; None to skip it.
            steps: Fast decode steps, used without a method and without beams if prompts are
                embeddings.
        Returns:
            One answer per question.
        Raises:
            ValueError: If the method does not support these settings.
        """
        if method is not None:
            method.check(decoding)
            self.check_method(method)
            if method.runs_alone and len(questions) > 1:
                raise MethodError(
                    f"{len(questions)} prompts in a batch, but with these settings of "
                    f"{method.title} they change each other's answers; use batch size 1"
                )
        pad_after_image = prefixes is not None and self.can_use_cached_prefix(method)
        prompts = self.encode_prompts(features, questions, pad_after_image=pad_after_image)
        first = None if yes_no is None else FirstToken(yes_no, len(questions))
        contrast = None
        if method is not None:
            contrast = self._contrast(
                method, features, questions, noised, pad_after_image=pad_after_image
            )
        model = self.language_model
        applied = nullcontext(LogitsProcessorList()) if method is None else method.applied(model)
        with (
            image_tokens(self.model, prompts.image_mask),
            prompt_images(prompts.method_image_mask),
            self.autocast(),
            applied as changes,
        ):
            request = Request(
                model=model,
                prompts=prompts,
                contrast=contrast,
                config=self.generation_config(decoding),
                processors=self.logits_processors(),
                stopping=self.stopping(decoding),
                counted=self._count_prompt_ids(questions, prompts),
                first=first,
                changes=changes,
                steps=steps if _can_step(prompts, decoding, method) else None,
            )
            choose = partial(generate if method is None else method.generate, request)
            # A single token after the prefix would be taken for a decode step.
            if (
                prefixes is not None
                and isinstance(prompts, EncodedPrompts)
                and 0 < prompts.prefix < prompts.embeds.shape[1] - 1
            ):
                whole = prompts if contrast is None else concat_prompts([prompts, contrast])
                assert isinstance(whole, EncodedPrompts), "prompts and contrast differ in type"
                pictures = prefixes if contrast is None else prefixes.add_noised()
                output = generate_after_prefixes(model, whole, pictures, choose)
            else:
                output = choose()
        answers = [self._answer(ids) for ids in output.tolist()]
        if first is None:
            return answers
        return [
            answer._replace(p_yes=p_yes)
            for answer, p_yes in zip(answers, first.p_yes(), strict=True)
        ]

    def can_use_cached_prefix(self, method: DecodingMethod | None = None) -> bool:
        """Return whether prompts about the same picture can continue from a cached prefix.

        They can't if the image tokens depend on the question, if EAH's choice depends on the
        position in the batch, or under methods that change how prompts are run.
        """
        handle = handle_of(self.model)
        return (
            not self.image_depends_on_question
            and (method is None or method.can_use_cached_prefix)
            and (handle is None or handle.config.is_per_prompt)
        )

    def _count_prompt_ids(self, questions: Sequence[str], prompts: Prompts) -> tuple[int, ...]:
        if isinstance(prompts, EncodedPrompts):
            return self.count_ids(questions, prompts)
        return (prompts.returned,) * len(questions)

    def count_ids(self, questions: Sequence[str], prompts: EncodedPrompts) -> tuple[int, ...]:
        """Return how many ids of each prompt the reference wrapper passes to `generate`.

        1 if it passes embeddings: transformers 4.29.2 then starts from BOS.
        """
        return (1,) * len(questions)

    def _contrast(
        self,
        method: DecodingMethod,
        features: Features,
        questions: Sequence[str],
        noised: Features | None,
        *,
        pad_after_image: bool,
    ) -> Prompts | None:
        """Return the contrast prompts of a method."""
        if method.contrast is Contrast.TEXT:
            return self.embed_text(features, questions)
        if method.contrast is Contrast.NOISED_IMAGE:
            if noised is None:
                raise ValueError(f"{method.title} needs the features of noised pictures")
            return self.encode_prompts(noised, questions, pad_after_image=pad_after_image)
        return None

    def generate_batch(
        self, features: Features, questions: Sequence[str], decoding: Decoding
    ) -> list[str]:
        """Return the answers' texts only; arguments as in `answer_batch`."""
        return [answer.text for answer in self.answer_batch(features, questions, decoding)]

    @torch.inference_mode()
    def generate(
        self, image: Picture, question: str, decoding: Decoding | None = None, **settings: Any
    ) -> str:
        """Answer one question about one picture, greedily by default.

        Args:
            image: A file, a PIL picture, or an array of uint8 from 0 to 255, shape (height, width,
                3) or (height, width). It is not turned by its EXIF data.
            question: Question text; the prompt template is added.
            decoding: How tokens are chosen.
            settings: Settings of `Decoding` by name, instead of `decoding`: `max_new_tokens=50`.
        Raises:
            ModelError: If the picture can't be read, the question is empty, or a setting is wrong.
        """
        check_question(question)
        chosen = Decoding.of(decoding, settings)
        features = self.encode_images([to_picture(image)])
        return self.generate_batch(features, [question], chosen)[0]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context of the language model."""
        return self.precision.parts["llm"].context(self.device)

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Set every setting explicitly, so that none comes from the checkpoint's defaults."""
        sampling: dict[str, Any] = {}
        if decoding.do_sample:
            # The reference wrappers used the library default, top_k 50.
            sampling = {"top_p": decoding.top_p, "temperature": decoding.temperature, "top_k": 50}
        return GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            do_sample=decoding.do_sample,
            use_cache=True,
            bos_token_id=self.tokenizer.bos_id(),
            eos_token_id=self.eos_ids[0] if len(self.eos_ids) == 1 else list(self.eos_ids),
            pad_token_id=self.pad_id,
            **sampling,
        )

    def logits_processors(self) -> LogitsProcessorList:
        """Return the processors of the next token's scores.

        The penalty is not set in `generation_config`: transformers 5 would then exempt as many new
        tokens as the prompt has padding, so rows would depend on the batch.
        """
        if self.repetition_penalty == 1.0:
            return LogitsProcessorList()
        return LogitsProcessorList([RepetitionPenaltyLogitsProcessor(self.repetition_penalty)])

    def stopping(self, decoding: Decoding) -> StoppingCriteriaList:
        """Return further stopping criteria besides EOS and `max_new_tokens`: none by default."""
        return StoppingCriteriaList()

    def _answer(self, ids: list[int]) -> Answer:
        """Decode new tokens up to EOS, cut at the stop text and start after the answer mark."""
        ends = [at for at, id_ in enumerate(ids) if id_ in self.eos_ids]
        finished = bool(ends)
        if finished:
            ids = ids[: ends[0]]
        while ids and ids[-1] == self.pad_id:
            ids = ids[:-1]
        tokens = len(ids) + finished
        text = self.tokenizer.decode(ids)
        if self.stop_text is not None and self.stop_text in text:
            text, finished = text.split(self.stop_text)[0], True
        if self.answer_mark is not None:
            text = text.split(self.answer_mark)[-1]
        return Answer(text.strip(), finished, tokens)


def _can_step(prompts: Prompts, decoding: Decoding, method: DecodingMethod | None) -> bool:
    return method is None and decoding.num_beams == 1 and isinstance(prompts, EncodedPrompts)


def check_question(question: object) -> None:
    """Refuse a question that is not a text, or is empty, before a picture is encoded.

    Raises:
        ModelError: If it is not a text or is empty.
    """
    if not isinstance(question, str) or not question.strip():
        raise ModelError(f"question {question!r}; pass a text, such as 'What is this?'")
    check_characters(question)
