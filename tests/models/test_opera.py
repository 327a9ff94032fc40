"""OPERA, against the sequences that its authors' fork of transformers 4.29.2 returned."""

from __future__ import annotations

import copy
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from models.decoding.base import MethodError, Request
from models.decoding.beams import Beams
from models.decoding.last_attention import record_last_rows
from models.decoding.opera import Opera
from models.decoding.opera_search import opera_search
from models.decoding.opera_settings import OperaSettings
from models.decoding.opera_state import OperaState
from models.generation import EncodedPrompts

EOS = 2


class NoEosBefore(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """The golden runs had min_new_tokens 30."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] < self.tokens:
            scores = scores.clone()
            scores[:, EOS] = -torch.inf
        return scores


class Golden(NamedTuple):
    model: Any
    embeds: torch.Tensor
    image: torch.Tensor
    cases: list[dict[str, Any]]
    sequences: dict[str, list[int]]


def read_golden(path: Path, kernel: str) -> Golden:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    config = json.loads(metadata["config"])
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "max_position_embeddings", "rms_norm_eps")
    model = LlamaForCausalLM(
        LlamaConfig(**{key: config[key] for key in keys}, attn_implementation=kernel)
    )
    weights = {
        name.removeprefix("weights."): tensor
        for name, tensor in tensors.items()
        if name.startswith("weights.")
    }
    model.load_state_dict(weights)
    embeds = tensors["inputs_embeds"]
    place = json.loads(metadata["key_position"])
    image = torch.zeros(embeds.shape[:2], dtype=torch.bool)
    image[:, place["image_start"] : place["image_end"] + 1] = True
    sequences = {
        name: tensor[0, 1:].tolist()  # the first is the BOS that 4.29.2 returns
        for name, tensor in tensors.items()
        if name.startswith(("opera.", "beam."))
    }
    return Golden(model.eval(), embeds, image, json.loads(metadata["cases"]), sequences)


def request_of(golden: Golden, case: dict[str, Any], copies: int = 1, pad: int = 0) -> Request:
    embeds = torch.nn.functional.pad(golden.embeds, (0, 0, pad, 0)).repeat(copies, 1, 1)
    image = torch.nn.functional.pad(golden.image, (pad, 0)).repeat(copies, 1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    mask[:, :pad] = 0
    config = GenerationConfig(
        num_beams=case["num_beams"],
        max_new_tokens=case["max_new_tokens"],
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return Request(
        golden.model,
        EncodedPrompts(embeds, mask, image),
        None,
        config,
        LogitsProcessorList([NoEosBefore(30)]),
        StoppingCriteriaList(),
        counted=(1,) * copies,  # the BOS that 4.29.2 starts from
    )


def settings_of(case: dict[str, Any], **changes: Any) -> Opera:
    names = ("scale_factor", "threshold", "num_attn_candidates", "penalty_weights")
    return Opera(**{**{name: case[name] for name in names}, "parity": True, **changes})


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_all_sequences_equal_the_authors_token_for_token(
    shared: Path, name: str, kernel: str
) -> None:
    golden = read_golden(shared / f"golden/opera_{name}.safetensors", kernel)
    rolled_back = []
    for i, case in enumerate(golden.cases):
        (state,) = opera_search(request_of(golden, case), settings_of(case))
        assert state.beams.best().tolist() == golden.sequences[f"opera.{i}"]
        rolled_back.append(state.rollbacks > 0)

    assert len(rolled_back) == 5
    assert [i for i, rolled in enumerate(rolled_back) if rolled] == [{"a": 3, "b": 4}[name]]


@pytest.mark.parametrize("name", ["a", "b"])
def test_without_penalty_and_rollback_opera_is_beam_search(shared: Path, name: str) -> None:
    """With every token a candidate, nothing is left of OPERA but the search."""
    golden = read_golden(shared / f"golden/opera_{name}.safetensors", "sdpa")
    for i, case in enumerate(golden.cases):
        nothing = settings_of(case, penalty_weights=0.0, threshold=10**6, num_attn_candidates=160)
        (state,) = opera_search(request_of(golden, case), nothing)
        assert state.beams.best().tolist() == golden.sequences[f"beam.{i}"]


def test_prompts_of_a_batch_roll_back_on_their_own(shared: Path) -> None:
    """Different prompts, padded differently, one of which rolls back: as each of them alone."""
    golden = read_golden(shared / "golden/opera_a.safetensors", "sdpa")
    case = golden.cases[3]
    opera = settings_of(case)
    whole = request_of(golden, case)
    short = golden._replace(embeds=golden.embeds[:, 7:] * 1.1, image=golden.image[:, 7:])
    other = request_of(short, case, pad=7)
    both = EncodedPrompts(
        *(
            torch.cat([getattr(r.prompts, name) for r in (other, whole, other)])
            for name in ("embeds", "attention_mask", "image_mask")
        )
    )
    together = replace(whole, prompts=both, counted=(1, 1, 1))

    states = opera_search(together, opera)

    (alone,) = opera_search(request_of(short, case), opera)
    assert states[1].beams.best().tolist() == golden.sequences["opera.3"]
    assert states[0].beams.best().tolist() == alone.beams.best().tolist()
    assert states[2].beams.best().tolist() == alone.beams.best().tolist()
    assert states[1].rollbacks == 1
    assert states[0].rollbacks == states[2].rollbacks == alone.rollbacks
    assert alone.beams.best().tolist() != golden.sequences["opera.3"]


def test_a_step_is_two_forward_passes_however_many_candidates(shared: Path) -> None:
    golden = read_golden(shared / "golden/opera_a.safetensors", "sdpa")
    case = golden.cases[0]
    assert case["num_attn_candidates"] == 5
    passes = []
    hook = golden.model.register_forward_pre_hook(lambda *_: passes.append(1))

    Opera(**{k: v for k, v in case.items() if k in Opera.__dataclass_fields__}).generate(
        request_of(golden, case)
    )

    hook.remove()
    steps = case["max_new_tokens"]
    assert len(passes) == 2 * steps  # a prefill, two per step, the last token's needs none


def small_model(vocabulary: int = 50, layers: int = 2) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def small_request(model: Any, tokens: int, beams: int, prompt: int = 20) -> Request:
    embeds = torch.randn(1, prompt, 32)
    image = torch.zeros(1, prompt, dtype=torch.bool)
    image[:, 2:10] = True
    config = GenerationConfig(
        num_beams=beams, max_new_tokens=tokens, eos_token_id=EOS, pad_token_id=0
    )
    prompts = EncodedPrompts(embeds, torch.ones(1, prompt, dtype=torch.long), image)
    processors = LogitsProcessorList([NoEosBefore(tokens)])
    return Request(model, prompts, None, config, processors, StoppingCriteriaList(), counted=(1,))


def test_rows_of_the_last_layer_are_the_eager_maps_largest_over_heads() -> None:
    model = small_model()
    eager = LlamaForCausalLM(model.config)
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    ids = torch.randint(3, 50, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0

    with torch.inference_mode(), record_last_rows(model) as watched:
        watched.wanted = True
        model(input_ids=ids, attention_mask=mask)
        rows = watched.take()
        maps = eager(input_ids=ids, attention_mask=mask, output_attentions=True).attentions[-1]

    torch.testing.assert_close(rows[0, 3:], maps[0].amax(0)[3:])
    torch.testing.assert_close(rows[1], maps[1].amax(0))


def test_a_kernel_that_takes_no_masks_is_refused() -> None:
    model = small_model()
    module = model.model.layers[-1].self_attn
    own = module.config
    module.config = copy.copy(own)
    module.config._attn_implementation = "flash_attention_2"

    with pytest.raises(MethodError, match="attn_implementation='flash_attention_2', but"):
        opera_search(small_request(model, 4, 2), OperaSettings())

    assert module.config._attn_implementation == "flash_attention_2"


def test_column_scores_are_products_of_scaled_attention_from_the_diagonal_down() -> None:
    settings = OperaSettings(scale_factor=10.0, num_attn_candidates=1, penalty_weights=2.0)
    state = OperaState(
        settings,
        Beams(2, 1.0, EOS, counted=None),
        ids=torch.zeros(2, 11, dtype=torch.long),
        beam_scores=torch.zeros(2),
        products=torch.ones(2, 0),
    )
    maps = torch.rand(2, 12, 12).tril()
    for row in range(11):
        state.add_row(maps[:, row, : row + 1])
    logits = torch.zeros(2, 5)

    scores = state.penalise(logits, torch.tensor([[3], [4]]), maps[:, None, 11], torch.zeros(2, 1))

    assert scores is not None
    for beam, token in ((0, 3), (1, 4)):
        columns = [(maps[beam, j:, j] * 10).prod() * 1e-7 for j in range(12)]
        assert scores[beam, token].item() == pytest.approx(-2 * max(columns).item(), rel=1e-4)
        assert (scores[beam] == -999).sum() == 4


def test_a_short_response_is_scored_by_its_attention_to_the_image() -> None:
    state = OperaState(
        OperaSettings(penalty_weights=3.0),
        Beams(2, 1.0, EOS, counted=None),
        ids=torch.zeros(2, 0, dtype=torch.long),
        beam_scores=torch.zeros(2),
        products=torch.ones(2, 0),
    )

    scores = state.penalise(
        torch.zeros(2, 4), torch.tensor([[1], [2]]), torch.full((2, 1, 1), 0.5),
        torch.tensor([[0.25], [0.5]]),
    )  # fmt: skip

    assert scores is not None
    assert scores[0, 1].item() == pytest.approx(0.75)
    assert scores[1, 2].item() == pytest.approx(1.5)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, key, None)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return output


@pytest.mark.parametrize("tokens", [128, 512])
def test_memory_stays_near_beam_searchs(tokens: int) -> None:
    """Within 1.5 times of its peak and the map that OPERA needs: a triangle of T * T per beam.

    Beam search holds two caches while it reorders one, as OPERA does.
    """
    model, beams = small_model(layers=4), 5
    request = small_request(model, tokens, beams)
    with torch.inference_mode(), LiveBytes() as beam:
        model.generate(
            inputs_embeds=request.prompts.embeds,
            attention_mask=request.prompts.attention_mask,
            generation_config=request.config,
            logits_processor=request.processors,
        )
    with torch.inference_mode(), LiveBytes() as opera:
        states = opera_search(request, OperaSettings())

    maps = beams * tokens * (tokens + 1) // 2 * 4
    assert opera.peak <= 1.5 * beam.peak + maps
    assert states[0].ids.shape[1] == tokens
    del states
    assert sum(opera.sizes.values()) < 0.1 * opera.peak


def test_finished_answers_are_ranked_by_length_as_each_version_counts_it() -> None:
    cases = ((1, [-1.0 / 4, -6.0 / 5]), (48, [-1.0 / 51, -6.0 / 52]), (None, [-1.0 / 4, -6.0 / 4]))
    for counted, expected in cases:
        beams = Beams(2, 1.0, EOS, counted)
        scores = torch.full((2, 6), -50.0)
        scores[0, EOS] = -1.0
        beams.advance(scores, torch.ones(2, 3, dtype=torch.long))
        beams.cut_off(torch.tensor([-6.0]), torch.ones(1, 4, dtype=torch.long))

        assert [score for score, _ in beams.finished] == pytest.approx(expected)
        assert beams.best().tolist() == [1, 1, 1]
