"""What lets one file stand in the place of transformers' models/llama/modeling_llama.py.

The original stands beside it as modeling_llama_original.py and is what everybody gets; its model
class is patched in place. `modeling_llama_eah.py` is built from this file and those that it
imports, see `eah.swap`.

Axes: B batch, H query heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from eah.errors import EAHConfigError, EAHStateError, UnsupportedModelError
from eah.method import NO_HEAD, Choice, choose, column_sums, share_head
from eah.prompt import (
    ImageColumns,
    Prompt,
    cached_tokens,
    check_unpadded,
    columns_of_mask,
    columns_of_span,
    read_prompt,
    repeat_rows,
    token_mask,
)
from eah.settings import (
    DEFAULT_SPAN,
    DropInSettings,
    is_int,
    settings_from_environment,
    validate_span,
)
from eah.visibility import Visibility

logger = logging.getLogger(__name__)

VERSION: Final = "0.1.0"
ORIGINAL_SUFFIX: Final = "_original"
SHARING_PREFIX: Final = "EAH"
SOFTMAX: Final = (functional.softmax, torch.softmax, torch.Tensor.softmax)
MAPLESS_KERNELS: Final = ("flash", "flex", "paged")  # no torch functions, so none to intercept
ASSISTED: Final = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")
REMEMBERED: Final = 256  # forward passes whose backward pass may still come

# transformers from 4.48 on searches the text of a folder's files for what they define, and of two
# files that define a name it takes the one whose group of requirements comes later, or that the
# file system happens to list later. So that it never takes the original, whose names are in the
# group "torch", ours stand in a group that follows it, in a form that the search understands.
LAZY_EXPORTS: Final[str] = """
@export(backends=("torch",))
class SharingAttention(
@export(backends=("torch", "tokenizers"))
class LlamaForCausalLM(
@export(backends=("torch", "tokenizers"))
class LlamaForQuestionAnswering(
@export(backends=("torch", "tokenizers"))
class LlamaForSequenceClassification(
@export(backends=("torch", "tokenizers"))
class LlamaForTokenClassification(
@export(backends=("torch", "tokenizers"))
class LlamaModel(
@export(backends=("torch", "tokenizers"))
class LlamaPreTrainedModel(
@requires(backends=("torch",))
class SharingAttention(
@requires(backends=("torch", "tokenizers"))
class LlamaForCausalLM(
@requires(backends=("torch", "tokenizers"))
class LlamaForQuestionAnswering(
@requires(backends=("torch", "tokenizers"))
class LlamaForSequenceClassification(
@requires(backends=("torch", "tokenizers"))
class LlamaForTokenClassification(
@requires(backends=("torch", "tokenizers"))
class LlamaModel(
@requires(backends=("torch", "tokenizers"))
class LlamaPreTrainedModel(
"""


# What callers say about their prompts -------------------------------------------------------------


class _Generation:
    """A call of `generate` under way: where its prompt ends."""

    def __init__(self, length: int, is_assisted: bool) -> None:
        self.length, self.is_assisted, self.begun = length, is_assisted, False

    def prompt_length(self, keys: int) -> int:
        """Return the length of the prompt, given the tokens of a pass and those before it.

        A model that puts image tokens in the place of one placeholder makes the prompt longer than
        what `generate` was given; its first pass shows by how much.
        """
        if not self.begun and not self.is_assisted:
            self.length = max(self.length, keys)
        self.begun = True
        return self.length


_given: ContextVar[Any] = ContextVar("eah_image_tokens", default=None)
_length: ContextVar[Any] = ContextVar("eah_prompt_length", default=None)
_current: ContextVar[Any] = ContextVar("eah_prompt", default=None)
_open_blocks: list[object] = []


@contextmanager
def image_tokens(tokens: tuple[int, int] | torch.Tensor) -> Iterator[None]:
    """Say which tokens of the prompts in this block are image tokens.

    The block holds for the thread that enters it; while it is open, other threads that call a model
    have to enter blocks of their own.

    Args:
        tokens: A span [start, stop) of every prompt, its padding not counted, or a mask of shape
            (B, S) bool over the padded prompts.
    Raises:
        EAHConfigError: If it is neither.
    """
    if isinstance(tokens, torch.Tensor):
        if tokens.dim() != 2:
            raise EAHConfigError(f"an image mask has shape (B, S), not {tuple(tokens.shape)}")
        tokens = tokens.bool()
    else:
        tokens = validate_span(tokens)
    token, block = _given.set(tokens), object()
    _open_blocks.append(block)
    try:
        yield
    finally:
        _open_blocks.remove(block)
        _given.reset(token)


@contextmanager
def prompt_length(length: int | torch.Tensor) -> Iterator[None]:
    """Say where the answers begin that the forward passes in this block score.

    Args:
        length: Position of the answer's first token in the padded input, one for all prompts or
            one per prompt, shape (B,). Rows from it on attend as in decoding.
    Raises:
        EAHConfigError: If it is neither.
    """
    if isinstance(length, torch.Tensor) and length.dim() == 1 and not length.is_floating_point():
        rows = length[:, None]
    elif isinstance(length, int) and is_int(length) and length >= 1:
        rows = torch.full((1, 1), length)
    else:
        raise EAHConfigError(f"prompt length {length!r}; it is an int from 1, or one per prompt")
    token = _length.set(rows)
    try:
        yield
    finally:
        _length.reset(token)


# The forward pass under way -----------------------------------------------------------------------


@dataclass
class PatchedModel:
    """What a patched model shares with its target attention modules.

    Attributes:
        settings: The settings in force.
        warned: Whether a prompt that is too short was warned of.
        checkpointed: Prompts by the address of their position ids, for gradient checkpointing.
    """

    settings: DropInSettings
    warned: bool = False
    checkpointed: OrderedDict[int, Prompt] = field(default_factory=OrderedDict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles keep the settings and nothing else."""
        return PatchedModel, (self.settings,)

    def read(self, arguments: Mapping[str, Any]) -> Prompt | None:
        """Read a forward pass of the model from its arguments; None if there is no prompt.

        Raises:
            EAHStateError: If EAH can't know the image tokens, or can't see all of them.
        """
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        tokens = embeds if ids is None else ids
        if tokens is None:
            return None
        (batch, queries), device = tokens.shape[:2], tokens.device
        cached = cached_tokens(arguments.get("past_key_values"))
        keys, length = cached + queries, _length.get()
        if isinstance(length, _Generation):
            length = torch.full((1, 1), length.prompt_length(keys))
        if (cached and queries == 1) or (length is not None and cached >= int(length.max())):
            return Prompt(queries, cached, is_decoding=True)
        answer = None
        if length is not None and int(length.min()) < keys:
            answer = repeat_rows(length, batch, "prompt length")
        valid = token_mask(arguments.get("attention_mask"), cached, queries)
        return read_prompt(
            self._columns(batch, keys, valid, device),
            queries=queries,
            cached=cached,
            valid=None if valid is None else valid.to(device),
            answer=answer,
        )

    def _columns(
        self, batch: int, keys: int, valid: torch.Tensor | None, device: torch.device
    ) -> ImageColumns:
        """Return the image tokens among the keys; none in too short a prompt."""
        given = _given.get()
        if given is None and _open_blocks:
            raise EAHStateError(
                "`image_tokens` is in force in another thread, and this thread has no such block; "
                "enter the block in the thread that calls the model (it holds for that one alone)"
            )
        if self.settings.config.rule == "released_code":
            check_unpadded(valid)
        if isinstance(given, torch.Tensor):
            return columns_of_mask(given, batch, keys, device)
        start, stop = given or self.settings.config.image_span or DEFAULT_SPAN
        columns, length = columns_of_span((start, stop), batch, keys, valid, device)
        fits = length >= stop
        if not self.warned and not bool(fits.all()):
            self.warned = True
            logger.warning(
                "EAH: a prompt of %d tokens is too short for the image tokens %d:%d, so it runs "
                "without EAH; EAH_IMAGE_SPAN or image_tokens() says where they are",
                int(length.min()),
                start,
                stop,
            )
        return ImageColumns(columns & fits[:, None])

    def remember(self, position_ids: torch.Tensor, prompt: Prompt) -> None:
        """Keep a prompt until its layers are run again in the backward pass."""
        self.checkpointed[position_ids.data_ptr()] = prompt
        while len(self.checkpointed) > REMEMBERED:
            self.checkpointed.popitem(last=False)


class SharingAttention:
    """What the class of a target layer's attention has before the original's: one head's map."""

    eah_state: PatchedModel
    eah_layer: int

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the original's attention, at image prefill with the densest head's map for all."""
        forward = super().forward  # type: ignore[misc]  # the original's class follows
        prompt = self._prompt(hidden_states, kwargs.get("position_ids"))
        if prompt is None or prompt.is_decoding or prompt.skipped is not None:
            return forward(hidden_states, *args, **kwargs)
        names = tuple(inspect.signature(forward).parameters)[1:]
        mask = {**dict(zip(names, args)), **kwargs}.get("attention_mask")  # noqa: B905  # Python 3.8
        sharing = HeadSharing(self.eah_state.settings, prompt, hidden_states.dtype, mask)
        with sharing:
            output = forward(hidden_states, *args, **kwargs)
        if not sharing.done:
            raise UnsupportedModelError(
                f"EAH saw no softmax and no scaled_dot_product_attention in layer "
                f"{self.eah_layer}: its attention kernel can't be shared; load the model with "
                "attn_implementation='eager' or 'sdpa', or set EAH_DISABLE=1"
            )
        return output

    def _prompt(
        self, hidden_states: torch.Tensor, position_ids: torch.Tensor | None
    ) -> Prompt | None:
        """Return the prompt of the pass under way, or of the one whose layer is run again."""
        state, under_way = self.eah_state, _current.get()
        is_trained = self.training  # type: ignore[attr-defined]  # the original's class has it
        if under_way is not None and under_way[0] is state:
            prompt: Prompt | None = under_way[1]
            if is_trained and position_ids is not None and prompt is not None:
                state.remember(position_ids, prompt)
            return prompt
        if is_trained and position_ids is not None:
            return state.checkpointed.get(position_ids.data_ptr())
        return None


class HeadSharing(TorchFunctionMode):
    """While active, gives the heads of one attention call the densest head's map.

    With `scaled_dot_product_attention` they get that head's query and key; with a softmax over
    scores they get its output.
    """

    def __init__(
        self, settings: DropInSettings, prompt: Prompt, dtype: torch.dtype, mask: Any
    ) -> None:
        """Take the settings, the prompt, the dtype that the model computes in, and its mask."""
        super().__init__()
        self.config, self.prompt, self.dtype, self.mask = settings.config, prompt, dtype, mask
        self.done = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Intercept the two functions; all others run as they are."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        output = func(*args, **kwargs)
        scores = args[0] if args else kwargs.get("input")
        if func in SOFTMAX and isinstance(scores, torch.Tensor) and scores.dim() == 4:
            return self._shared(output)
        return output

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run the kernel with one head's query and key."""

        def attend(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, **kwargs
            )

        scale = kwargs.get("scale")
        columns = column_sums(
            query,
            key,
            self._visibility(attn_mask, is_causal, query.shape[2], key.shape[2]),
            scaling=query.shape[-1] ** -0.5 if scale is None else scale,
            rounding=query.dtype if self.config.rule == "released_code" else None,
        )
        choice = choose(columns, self.prompt.columns(key.shape[2], key.device), self.config)
        self.done = True
        shared = attend(*share_head(query, key, choice.head))  # (B, H, Q, D)
        gets = self._receives(choice)
        return shared if gets is None else torch.where(gets, shared, attend(query, key))

    def _shared(self, weights: torch.Tensor) -> torch.Tensor:
        """Return softmax output, (B, H, Q, K), in which heads have the densest head's map."""
        keys = weights.shape[3]
        mask = self.mask[..., :keys] if isinstance(self.mask, torch.Tensor) else None

        def rows(start: int, stop: int, keys: int, _: torch.Tensor) -> torch.Tensor:
            # A copy: summing overwrites the rows, and the model goes on with these weights.
            return weights[:, :, start:stop, :keys].detach().to(torch.float32, copy=True)

        columns = column_sums(
            weights,
            weights.transpose(2, 3),
            self._visibility(mask, False, weights.shape[2], keys),
            scaling=1.0,
            rounding=self.dtype if self.config.rule == "released_code" else None,
            rows=rows,
        )
        choice = choose(columns, self.prompt.columns(keys, weights.device), self.config)
        self.done = True
        row = torch.arange(len(weights), device=weights.device)
        shared = weights[row, choice.head.clamp(min=0)][:, None]  # (B, 1, Q, K)
        found = (choice.head != NO_HEAD)[:, None, None, None]
        gets = self._receives(choice)
        return torch.where(found if gets is None else found & gets, shared, weights)

    def _receives(self, choice: Choice) -> torch.Tensor | None:
        """Return which rows of which heads get the map, (B, H or 1, Q or 1, 1); None for all."""
        answer = self.prompt.answer_rows(choice.head.device)
        gets = None if answer is None else ~answer[:, None, :, None]
        if choice.receivers is None:
            return gets
        heads = choice.receivers[:, :, None, None]
        return heads if gets is None else gets & heads

    def _visibility(
        self, mask: torch.Tensor | None, is_causal: bool, rows: int, keys: int
    ) -> Visibility:
        """Return which keys are seen, from what the kernel goes by.

        Raises:
            UnsupportedModelError: If each head has a mask of its own.
        """
        if mask is not None and (mask.dim() != 4 or mask.shape[1] != 1):
            raise UnsupportedModelError(
                f"EAH: the target layer's mask has shape {tuple(mask.shape)}, but one mask for all "
                "heads is needed, (B, 1, Q, K)"
            )
        if mask is None and is_causal and self.prompt.cached:
            raise UnsupportedModelError(
                f"EAH: the kernel gets no mask for a pass behind {self.prompt.cached} cached "
                "tokens, so what it would see is not known; pass the whole prompt at once"
            )
        if mask is None and not is_causal:
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool).expand(1, 1, rows, keys)
        if mask is not None:
            self.prompt.check_answer(mask)
        return self.prompt.visibility(mask)


# The original file, patched -----------------------------------------------------------------------


def replace_module(name: str, path: str) -> None:
    """Load the original file under this module's name, and patch its model class.

    The module that everybody gets is the original's own, so that its names, its sources and its
    pickles are what they were.

    Raises:
        ImportError: If the original is not beside this file, or defines no model to patch.
    """
    original = Path(path).with_name(Path(path).stem + ORIGINAL_SUFFIX + ".py")
    alias = name + ORIGINAL_SUFFIX
    ours = sys.modules[name]
    module = sys.modules.get(alias)
    if module is None:
        if not original.is_file():
            raise ImportError(
                f"{path} is EAH's and needs the original beside it as {original.name}; put it "
                "there, or reinstall transformers"
            )
        spec = importlib.util.spec_from_file_location(name, original)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = sys.modules[alias] = module
        try:
            with _sources_found_as(str(original), path):
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules[name] = ours
            del sys.modules[alias]
            raise
    sys.modules[name] = module
    models = [
        value
        for key, value in vars(module).items()
        if key.endswith("Model")
        and not key.endswith("PreTrainedModel")
        and isinstance(value, type)
        and value.__module__ == module.__name__
    ]
    if len(models) != 1:
        raise ImportError(
            f"{original.name} defines {len(models)} decoder models, but EAH patches a file with one"
        )
    _patch_model(models[0], module)
    # torch.compile looks our functions' globals up by the name of their module.
    ours.__name__ = name + "_eah"
    sys.modules[ours.__name__] = ours
    # Under these names pickles find what a patched model holds, and users find `image_tokens`.
    for key, value in vars(ours).items():
        if getattr(value, "__module__", None) == name:
            vars(module).setdefault(key, value)
    for key, value in list(vars(module).items()):
        if isinstance(value, type) and issubclass(value, nn.Module) and "Attention" in key:
            shared = type(SHARING_PREFIX + key, (SharingAttention, value), {"__module__": name})
            setattr(module, shared.__name__, shared)


@contextmanager
def _sources_found_as(original: str, path: str) -> Iterator[None]:
    """Say that the original's functions are in the file that it was.

    transformers 4.52 and later write a model's docstrings by the name of that file, and complain on
    standard output about one that they do not know.
    """
    find = inspect.getsourcefile

    def getsourcefile(thing: Any) -> str | None:
        found = find(thing)
        return path if found == original else found

    inspect.getsourcefile = getsourcefile  # type: ignore[assignment]  # the same, less strictly typed
    try:
        yield
    finally:
        inspect.getsourcefile = find


def _patch_model(model: Any, module: ModuleType) -> None:
    """Make a model class patch its target layers when it is built, and read its prompts."""
    build, run = model.__init__, model.forward
    names = tuple(inspect.signature(run).parameters)[1:]

    @functools.wraps(build)
    def patched_init(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        settings = settings_from_environment(os.environ)
        _announce(settings)
        if settings.enabled:
            self.eah_state = PatchedModel(settings)
            for layer in _layers_of(self, settings):
                _share_in(self.layers[layer], self.eah_state, layer, module)

    @functools.wraps(run)
    def patched_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = getattr(self, "eah_state", None)
        if state is None:
            return run(self, *args, **kwargs)
        arguments = {**dict(zip(names, args)), **kwargs}  # noqa: B905  # OPERA's Python is 3.9
        if self.training and arguments.get("position_ids") is not None:
            # Their address tells this pass from others in the backward pass.
            position_ids = arguments["position_ids"].clone()
            args, kwargs = (), {**arguments, "position_ids": position_ids}
        token = _current.set((state, state.read(arguments)))
        try:
            return run(self, *args, **kwargs)
        finally:
            _current.reset(token)

    model.__init__, model.forward = patched_init, patched_forward
    _patch_generate()


def _patch_generate() -> None:
    """Let `generate` of every model say where its prompt ends.

    What follows is an answer, also where a pass runs it together with the prompt.
    """
    from transformers.generation.utils import GenerationMixin

    run = GenerationMixin.generate

    @functools.wraps(run)
    def patched_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = kwargs.get("inputs_embeds")
        for given in (kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1]):
            inputs = given if inputs is None else inputs
        if not isinstance(inputs, torch.Tensor) or inputs.dim() < 2:
            return run(self, *args, **kwargs)
        settings = (kwargs.get("generation_config"), getattr(self, "generation_config", None))
        is_assisted = any(kwargs.get(name) for name in ASSISTED) or any(
            getattr(config, name, None) for config in settings for name in ASSISTED
        )
        token = _length.set(_Generation(inputs.shape[1], is_assisted))
        try:
            return run(self, *args, **kwargs)
        finally:
            _length.reset(token)

    GenerationMixin.generate = patched_generate


@functools.lru_cache(maxsize=None)  # noqa: UP033  # Python 3.8
def _announce(settings: DropInSettings) -> None:
    """Show the settings once."""
    logger.info("EAH %s: %s", VERSION, settings)


def _layers_of(model: Any, settings: DropInSettings) -> list[int]:
    """Return the target layers that a model has.

    Raises:
        ValueError: If the environment names one that it does not have.
    """
    count = len(model.layers)
    missing = [layer for layer in settings.config.layers if layer >= count]
    if missing and settings.layers_named:
        raise ValueError(
            f"EAH layers {', '.join(map(str, settings.config.layers))}, but "
            f"{type(model).__name__} has {count} decoder layers (0..{count - 1}); set EAH_LAYERS, "
            "or EAH_DISABLE=1"
        )
    if missing:
        logger.warning("EAH: %s has no layer %s, so it runs without", type(model).__name__, missing)
    return [layer for layer in settings.config.layers if layer < count]


def _share_in(layer: Any, state: PatchedModel, index: int, module: ModuleType) -> None:
    """Give a decoder layer's attention a class that shares the densest head's map.

    Raises:
        ValueError: If its kernel is known to be one that can't be shared, or the head not to exist.
    """
    attention = layer.self_attn
    base = type(attention)
    config = getattr(attention, "config", None)
    kernel = str(getattr(config, "_attn_implementation", "")) + base.__name__.lower()
    if any(name in kernel for name in MAPLESS_KERNELS):
        raise ValueError(
            f"EAH can't share a head in layer {index}: its attention is "
            f"{getattr(config, '_attn_implementation', base.__name__)}; load the model with "
            "attn_implementation='eager' or 'sdpa', or set EAH_DISABLE=1"
        )
    heads = getattr(config, "num_attention_heads", None)
    head = state.settings.config.head
    if head is not None and heads is not None and head >= heads:
        raise ValueError(f"EAH_HEAD={head}, but layer {index} has {heads} heads (0..{heads - 1})")
    sharing = vars(module).get(SHARING_PREFIX + base.__name__)
    if sharing is None:
        raise ValueError(
            f"EAH does not know {base.__name__} of layer {index}, which {module.__name__} does not "
            "define; set other EAH_LAYERS, or EAH_DISABLE=1"
        )
    attention.__class__ = sharing
    attention.eah_state, attention.eah_layer = state, index


if __name__.startswith("transformers."):
    replace_module(__name__, __file__)
