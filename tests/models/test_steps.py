"""Decode steps on fixed buffers choose the tokens that the model chooses by itself."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import eah
import models
from eah.state import STATE
from models.base import VLM
from models.decoding.steps.buffers import Buffers
from models.decoding.steps.plain import copy_plain
from models.decoding.steps.steps import KEPT, LONG, DecodeSteps
from models.decoding.steps.support import QUANTIZED, reason_against, reason_against_structure
from models.decoding.yes_no import yes_no_ids
from models.errors import ModelError
from models.generation import Answer
from models.precision import Precision
from models.prefix_cache import PicturePrefixes, PrefixCache
from tests.models.toys import FAMILIES, QUESTIONS, make_folder, pictures

PICTURES = [0, 0, 0, 1, 0, 1]
LAYERS: dict[str, tuple[int, ...] | None] = {"baseline": None, "eah": (1,), "two layers": (0, 2)}
SHORT, TOKENS = 6, LONG + 3


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VLM]:
    root = tmp_path_factory.mktemp("toys")
    folders = {family: make_folder(family, root / family) for family in FAMILIES}
    return {
        family: models.load(family, checkpoint=str(folder), device="cpu")
        for family, folder in folders.items()
    }


def enabled(vlm: VLM, arm: str) -> AbstractContextManager[Any]:
    layers = LAYERS[arm]
    if layers is None:
        return nullcontext()
    return eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free", layers=layers))


def features_of(vlm: VLM) -> Any:
    return vlm.encode_pixels(vlm.preprocess(pictures(2)))[PICTURES]


def uncaptured(vlm: VLM, **changes: Any) -> DecodeSteps:
    """Return steps as a GPU runs them, but for the capture."""
    return DecodeSteps(vlm.language_model, captures=False, **changes)


def ask(vlm: VLM, tokens: int = TOKENS, **options: Any) -> list[Answer]:
    decoding = models.Decoding(max_new_tokens=tokens, do_sample=options.pop("sample", False))
    torch.manual_seed(1)
    return vlm.answer_batch(features_of(vlm), QUESTIONS, decoding, **options)


@pytest.mark.parametrize("reuse", [False, True], ids=["whole prompts", "shared prefixes"])
@pytest.mark.parametrize("arm", LAYERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_models_own(
    wrapped: dict[str, VLM], family: str, arm: str, reuse: bool
) -> None:
    vlm = wrapped[family]
    prefixes = PicturePrefixes(PICTURES, PrefixCache()) if reuse else None
    yes_no = yes_no_ids(vlm.tokenizer)
    steps = uncaptured(vlm)

    with enabled(vlm, arm) as handle:
        expected = ask(vlm, prefixes=prefixes, yes_no=yes_no)
        report = handle and handle.report()
        for _ in range(2):  # new buffers, and the same ones again
            assert ask(vlm, prefixes=prefixes, yes_no=yes_no, steps=steps) == expected
            assert (handle and handle.report()) == report

    assert steps.note is None
    # The first token is the prefill's, and the first step of each is the model's own.
    longest = max(answer.tokens for answer in expected)
    assert steps.taken == 2 * (longest - 1) - len(steps._kept)


def test_sampled_answers_are_the_models_own(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]

    expected = ask(vlm, sample=True)

    assert ask(vlm, sample=True, steps=uncaptured(vlm)) == expected
    assert expected != ask(vlm)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_both_kernels_get_a_mask_of_their_kind(wrapped: dict[str, VLM], kernel: str) -> None:
    vlm = copy.copy(wrapped["llava-1.5"])
    vlm.model = copy.deepcopy(vlm.model)
    vlm.model.set_attn_implementation(kernel)

    assert ask(vlm, steps=uncaptured(vlm)) == ask(vlm)


def test_one_set_of_steps_serves_all_arms(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]
    steps = uncaptured(vlm)

    for arm in LAYERS:
        with enabled(vlm, arm):
            assert ask(vlm, steps=steps) == ask(vlm)

    assert len(steps._kept) == 1


def test_short_answers_get_steps_when_their_layout_comes_again(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]
    steps = uncaptured(vlm)

    first = ask(vlm, SHORT, steps=steps)
    assert steps.taken == 0
    assert ask(vlm, SHORT, steps=steps) == first == ask(vlm, SHORT)
    assert steps.taken == SHORT - 2


def test_few_layouts_are_kept(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]
    steps, decoding = uncaptured(vlm), models.Decoding(max_new_tokens=LONG)
    features = features_of(vlm)

    for rows in range(1, KEPT + 3):
        asked = features[:rows], QUESTIONS[:rows], decoding
        assert vlm.answer_batch(*asked, steps=steps) == vlm.answer_batch(*asked)
    assert [layout.rows for layout in steps._kept] == [3, 4, 5, 6]
    steps.forget()
    assert not steps._kept


def test_a_compiled_step_is_one_whole_graph(
    wrapped: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped["llava-1.5"]
    whole = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr("models.decoding.steps.step.torch.compile", whole)
    steps = uncaptured(vlm, compiles=True, is_required=True)

    with enabled(vlm, "eah"):
        assert ask(vlm, SHORT, steps=steps) == ask(vlm, SHORT)
    assert steps.taken == SHORT - 2


@pytest.mark.gpu
@pytest.mark.parametrize("compiles", [False, True], ids=["captured", "compiled"])
@pytest.mark.parametrize("arm", LAYERS)
def test_captured_steps_choose_the_models_own_tokens(
    wrapped: dict[str, VLM], arm: str, compiles: bool
) -> None:
    vlm = copy.copy(wrapped["llava-1.5"])
    vlm.model = copy.deepcopy(vlm.model).cuda()
    steps = DecodeSteps(vlm.language_model, compiles=compiles, is_required=True)

    for prefixes in (None, PicturePrefixes(PICTURES, PrefixCache())):
        with enabled(vlm, arm):
            expected = ask(vlm, prefixes=prefixes)
            for _ in range(2):
                assert ask(vlm, prefixes=prefixes, steps=steps) == expected
    assert all(step.is_captured for step in steps._kept.values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_a_batch_before_left_is_gone(wrapped: dict[str, VLM], bad: float) -> None:
    vlm = wrapped["llava-1.5"]
    steps = uncaptured(vlm)
    expected = ask(vlm)
    ask(vlm, steps=steps)
    with torch.inference_mode():
        for step in steps._kept.values():
            for layer in step.buffers.layers:
                layer.keys[1], layer.values[1] = bad, bad

    assert ask(vlm, steps=steps) == expected


def test_rows_keep_to_their_own_prefix_in_buffers_of_others(wrapped: dict[str, VLM]) -> None:
    vlm, cache = wrapped["llava-1.5"], PrefixCache()
    steps, decoding = uncaptured(vlm), models.Decoding(max_new_tokens=TOKENS)
    encoded = vlm.encode_pixels(vlm.preprocess(pictures(2)))

    for places in ([0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1]):  # of one layout
        features, prefixes = encoded[places], PicturePrefixes(places, cache)
        found = vlm.answer_batch(features, QUESTIONS, decoding, prefixes=prefixes, steps=steps)
        assert found == vlm.answer_batch(features, QUESTIONS, decoding)
    assert len(steps._kept) == 1


def test_the_prefills_keys_are_freed(
    wrapped: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped["llava-1.5"]
    steps, pasts = uncaptured(vlm), []
    own = DecodeSteps.step_of

    def seen(self: DecodeSteps, past: Any, *rest: Any) -> Any:
        pasts.append(past)
        return own(self, past, *rest)

    monkeypatch.setattr(DecodeSteps, "step_of", seen)
    for _ in range(2):
        ask(vlm, steps=steps)
    assert [len(past.layers) for past in pasts] == [0, 0]


def test_without_room_other_buffers_go_first(
    wrapped: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped["llava-1.5"]
    steps = uncaptured(vlm)
    expected, longer = ask(vlm), ask(vlm, TOKENS + 40)
    assert ask(vlm, steps=steps) == expected
    own = Buffers.__init__

    def scarce(self: Buffers, *arguments: Any) -> None:
        if steps._kept:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        own(self, *arguments)

    monkeypatch.setattr(Buffers, "__init__", scarce)
    assert ask(vlm, TOKENS + 40, steps=steps) == longer
    assert steps.note is None
    assert len(steps._kept) == 1


def test_steps_that_are_stopped_free_their_buffers(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]
    steps = uncaptured(vlm)
    assert not steps.stop(), "nothing was kept, so nothing is freed"
    expected = ask(vlm, steps=steps)

    assert steps.stop()
    assert not steps._kept
    assert ask(vlm, steps=steps) == expected
    assert not steps._kept


def test_scores_that_are_ruled_out_hide_no_difference(wrapped: dict[str, VLM]) -> None:
    steps = uncaptured(wrapped["llava-1.5"])
    expected = torch.randn(2, 1, 50, dtype=torch.float16)
    expected[..., :5] = torch.finfo(torch.float16).min
    assert steps.agree(expected.clone(), expected)
    assert steps.agree(expected * 1.01, expected)

    nothing = torch.full_like(expected, float("nan"))
    assert not steps.agree(nothing, nothing)
    assert steps.note is None
    assert not steps.agree(nothing, expected)
    assert "nan" in str(steps.note)

    expected[..., 7] += 1
    assert not steps.agree(torch.zeros_like(expected), expected)


def test_every_layout_may_be_compiled(
    wrapped: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped["llava-1.5"]
    monkeypatch.setattr(
        "models.decoding.steps.step.torch.compile", partial(torch.compile, backend="eager")
    )
    steps = uncaptured(vlm, compiles=True, is_required=True)
    decoding, features = models.Decoding(max_new_tokens=3), features_of(vlm)

    with torch._dynamo.config.patch(recompile_limit=1):
        for rows in (1, 2, 3):
            asked = features[:rows], QUESTIONS[:rows], decoding
            assert vlm.answer_batch(*asked, steps=steps) == vlm.answer_batch(*asked)
    assert steps.taken > 0


def test_a_plain_copy_shares_weights_and_leaves_hooks_behind(wrapped: dict[str, VLM]) -> None:
    model = wrapped["llava-1.5"].language_model
    called: list[str] = []
    hook = model.register_forward_pre_hook(lambda *_: called.append("hook"))
    try:
        with eah.enabled(model, eah.EAHConfig(layers=(1,))):
            copied = copy_plain(model)
            hooked = [m for m in model.modules() if m._forward_pre_hooks]
    finally:
        hook.remove()

    assert hooked
    assert all(a is b for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    for module in copied.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert STATE not in module.__dict__
        config = module.__dict__.get("config")
        assert getattr(config, "_attn_implementation", "sdpa") != "eah"
    copied(input_ids=torch.tensor([[1, 2]]))
    assert not called


@pytest.mark.parametrize("required", [False, True], ids=["auto", "always"])
def test_steps_that_score_otherwise_are_not_used(
    wrapped: dict[str, VLM],
    required: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vlm = wrapped["llava-1.5"]
    expected = ask(vlm)
    steps = uncaptured(vlm, is_required=required)
    own = Buffers.fill

    def misplaced(self: Buffers, *arguments: Any) -> None:
        own(self, *arguments)
        self.position.add_(5)

    monkeypatch.setattr(Buffers, "fill", misplaced)
    if required:
        with pytest.raises(ModelError, match=r"differ from .* leave out --compile"):
            ask(vlm, steps=steps)
        return
    assert ask(vlm, steps=steps) == expected
    assert ask(vlm, steps=steps) == expected, "the model goes on by itself"
    assert "differ" in str(steps.note)
    assert capsys.readouterr().err.count("without fixed buffers") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [(torch.OutOfMemoryError("out"), "memory"), (RuntimeError("no kernel\nmore"), "no kernel")],
)
def test_steps_that_cannot_be_made_are_left_out(
    wrapped: dict[str, VLM], error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped["llava-1.5"]
    steps = uncaptured(vlm)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("models.decoding.steps.steps.DecodeStep", fail)

    assert ask(vlm, steps=steps) == ask(vlm)
    assert said in str(steps.note)
    assert "more" not in str(steps.note)


def test_models_that_cannot_have_steps_are_known(wrapped: dict[str, VLM]) -> None:
    model = copy.deepcopy(wrapped["shikra"].language_model)

    assert "CUDA" in str(reason_against(wrapped["shikra"]))
    assert reason_against_structure(model) is None
    model.config.get_text_config().sliding_window = 8
    assert "window" in str(reason_against_structure(model))
    model.config.get_text_config().sliding_window = None
    model.config.get_text_config().layer_types = ["full_attention", "sliding_attention"]
    assert "window" in str(reason_against_structure(model))
    model.config.get_text_config().layer_types = None
    for name in ("rope_parameters", "rope_scaling"):  # transformers 5 and 4
        for kind in ("dynamic", "longrope"):
            for settings in ({"rope_type": kind}, {"full_attention": {"rope_type": kind}}):
                setattr(model.config.get_text_config(), name, settings)
                assert "position encoding" in str(reason_against_structure(model)), (name, settings)
        setattr(model.config.get_text_config(), name, {"rope_type": "default"})
    model.hf_quantizer = object()
    assert reason_against_structure(model) == QUANTIZED
    model.hf_quantizer = None
    next(model.children()).__dict__["_hf_hook"] = object()
    assert "accelerate" in str(reason_against_structure(model))
    assert reason_against_structure(nn.Linear(1, 1)) is not None


def on_a_gpu(vlm: VLM, **changes: Any) -> Any:
    """Return what looks like a model on a GPU."""
    weight = SimpleNamespace(device=torch.device("cuda:0"))
    model = SimpleNamespace(parameters=lambda: [weight])
    found = {
        "language_model": model,
        "model": SimpleNamespace(),
        "prefix_note": None,
        "precision": vlm.precision,
    }
    return SimpleNamespace(**{**found, **changes})


def test_how_a_model_is_given_prompts_and_computes_decides_too(
    wrapped: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped["shikra"]
    monkeypatch.setattr("models.decoding.steps.support.reason_against_structure", lambda _: None)
    part = vlm.precision.parts["llm"]

    def change_llm(**changes: Any) -> Precision:
        return replace(vlm.precision, parts={"llm": replace(part, **changes)})

    assert reason_against(on_a_gpu(vlm)) is None
    outer = SimpleNamespace(hf_quantizer=object())
    assert reason_against(on_a_gpu(vlm, model=outer)) == QUANTIZED
    assert reason_against(on_a_gpu(vlm, prefix_note="ids and pixels")) == "ids and pixels"
    casts = change_llm(autocast=torch.float16, linear=torch.float32)
    assert "torch.float32 weights at every step" in str(
        reason_against(on_a_gpu(vlm, precision=casts))
    )
    halved = change_llm(autocast=torch.float16, linear=torch.float16)
    assert reason_against(on_a_gpu(vlm, precision=halved)) is None
    spread = [SimpleNamespace(device=torch.device(f"cuda:{at}")) for at in (0, 1)]
    model = SimpleNamespace(parameters=lambda: spread)
    assert "several devices" in str(reason_against(on_a_gpu(vlm, language_model=model)))
