"""What a method can't do right is refused in one sentence, at best before the model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import eah
from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.deco import Deco
from models.decoding.hgai import Hgai
from models.decoding.pai import Pai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from models.hf import HFVlm
from tests.models.rivals.toy import (
    DECO,
    METHODS,
    SINK_DIMS,
    VAR,
    answers,
    make_llama,
    make_prompts,
    one_prompt,
    randomize,
    run_steps,
)

ATTENTION = {name: METHODS[name] for name in ("hgai", "vaf", "spin", "adhh", "var", "pai")}


def refusal(act: Callable[[], Any]) -> str:
    """Return the error of an act: one sentence, whose parts are joined by semicolons."""
    with pytest.raises(MethodError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text
    return text


def enter(method: DecodingMethod, model: Any) -> None:
    with method.applied(model, make_prompts().image_mask):
        pass


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Hgai(), "HGAI changes layers 5..18, but LlamaForCausalLM has no layer 5 (it has 0..3); "
         "name others: hgai@layers=..."),
        (Vaf(), "VAF changes layers 9..14, but LlamaForCausalLM has no layer 9"),
        (Spin((2, 9)), "SPIN changes layers 2, 9, but LlamaForCausalLM has no layer 9"),
        (Adhh("1h0+16h29"), "has no layer 16 (it has 0..3); name others: adhh@heads=..."),
        (Adhh("1h0+3h4"), "AD-HH: head 3h4 does not exist, since layer 3 has 4 heads"),
        (Adhh(), "AD-HH needs the hallucination heads of this language model"),
        (Var(), "VAR needs the dimensions in which this language model's sinks are large"),
        (Var((5, 32), tau=3.0), "sink_dims has 32, but hidden states of this model have dimensions "
         "0..31"),
        (Var(SINK_DIMS), "tau=20, but in hidden states of 32 dimensions no value is larger than "
         "5.66 times their root mean square"),
        (replace(VAR, start_layer=4), "VAR changes no layer of LlamaForCausalLM; choose other "
         "layers: "
         "var@start_layer=..."),
        (Hgai(()), "HGAI changes no layer of LlamaForCausalLM; choose other layers: hgai@layers="),
        (Vaf(()), "VAF changes no layer of LlamaForCausalLM"),
        (Spin(()), "SPIN changes no layer of LlamaForCausalLM"),
        (Pai(start_layer=4), "start_layer=4, but the model has layers 0..3"),
        (Deco(), "DeCo's layers 20..28 are published for models of 32 layers, but this one has 4; "
         "name others: deco@layers=2-3"),
        (Deco((1, 4)), "layers=[1, 4], but early layers are 0..3"),
        (Deco(()), "layers=[], but early layers are 0..3"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_the_model_lacks(method: DecodingMethod, expected: str) -> None:
    model = make_llama()

    assert expected in refusal(lambda: method.check_model(model))
    assert expected in refusal(lambda: enter(method, model))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Hgai(alpha=-1), "alpha=-1, but it must be between 0 and 10000"),
        (lambda: Hgai(alpha=float("nan")), "alpha=nan, but it must be a finite number"),
        (lambda: Vaf(enhance=-0.1), "enhance=-0.1, but it must be between 0 and 10000"),
        (lambda: Vaf(suppress=-2), "suppress=-2, but it must be between 0 and 10000"),
        (lambda: Spin(kept=1.1), "kept=1.1, but it must be between 0 and 1"),
        (lambda: Spin(scale=-1), "scale=-1, but it must be between 0 and 1"),
        (lambda: Spin("some"), "layers='some', but it must be 'all' or distinct numbers"),
        (
            lambda: Adhh("1-3"),
            "heads='1-3' with '1-3', but each head is written once, as layer, h, head",
        ),
        (lambda: Adhh("1h3+"), "heads='1h3+' with ''"),
        (lambda: Adhh("1h3", threshold=-1), "threshold=-1, but it must be at least 0"),
        (lambda: Deco(top_k=2.5), "top_k=2.5, but it must be a whole number"),  # type: ignore[arg-type]
        (lambda: Var((-1,)), "sink_dims=(-1,), but it must be distinct numbers from 0"),
        (lambda: Var(rho=2), "rho=2, but it must be between 0 and 1"),
        (lambda: Var(summ=-1), "summ=-1, but it must be between 0 and 1"),
        (lambda: Var(p=1.5), "p=1.5, but it must be between 0 and 1"),
        (lambda: Var(tau=-1), "tau=-1, but it must be at least 0"),
        (lambda: Var(start_layer=-1), "start_layer=-1, but it must be at least 0"),
        (lambda: Deco("low"), "layers='low', but it must be 'published' or distinct numbers"),
        (lambda: Deco(alpha=-1), "alpha=-1, but it must be between 0 and 10000"),
        (lambda: Deco(top_p=1.2), "top_p=1.2, but it must be between 0 and 1"),
        (lambda: Deco(top_k=0), "top_k=0, but it must be at least 1"),
    ],
)
def test_settings_out_of_range(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(ValueError, match="but") as caught:
        make()
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["hgai", "vaf", "adhh", "var", "pai"])
def test_eah_in_the_same_layer(name: str) -> None:
    model, method = make_llama(), METHODS[name]
    config = eah.EAHConfig.preset("scale-free", layers=(2,))
    method = replace(method, layers=(2, 3)) if name == "vaf" else method  # type: ignore[call-arg]

    with eah.enabled(model, config):
        text = refusal(lambda: method.check_model(model))
        assert text == refusal(lambda: enter(method, model))

    title = type(method).title  # type: ignore[attr-defined]
    assert text.startswith(f"{title} and EAH both change layer 2; one layer can't have both")
    method.check_model(model)


def test_spin_leaves_eahs_layers_out_but_not_all() -> None:
    model, prompts = make_llama(), make_prompts()
    with eah.enabled(model, eah.EAHConfig.preset("scale-free", layers=(1, 2))):
        text = refusal(lambda: Spin((1, 2)).check_model(model))
        with eah.image_tokens(model, prompts.image_mask):
            every, others = (
                torch.cat(run_steps(model, Spin(layers, kept=0.5), prompts, answers(prompts)))
                for layers in ("all", (0, 3))
            )

    assert text.startswith("SPIN changes no layer of LlamaForCausalLM besides EAH's (1, 2)")
    assert torch.equal(every, others)


def test_eah_that_is_enabled_inside_of_a_block() -> None:
    model, prompts = make_llama(), make_prompts()
    config = eah.EAHConfig.preset("scale-free", layers=(1,))

    def act() -> None:
        with (
            Hgai((1, 2)).applied(model, prompts.image_mask),
            eah.enabled(model, config),
            eah.image_tokens(model, prompts.image_mask),
        ):
            model(inputs_embeds=prompts.embeds, attention_mask=prompts.attention_mask)

    assert refusal(act).startswith("HGAI and EAH both change layer 1; one layer can't have both")


def test_two_methods_in_the_same_layers() -> None:
    model, prompts = make_llama(), make_prompts()

    with (
        Vaf((1, 2)).applied(model, prompts.image_mask),
        Hgai((3,)).applied(model, prompts.image_mask),
    ):
        text = refusal(lambda: enter(Spin((0, 1, 2)), model))
        Hgai((0,)).check_model(model)
        METHODS["spin"].check_model(make_llama())  # another model
    METHODS["spin"].check_model(model)

    assert text == (
        "SPIN and VAF both change layers 1, 2; one layer can't have both: choose other layers for "
        "SPIN or for VAF"
    )


@pytest.mark.parametrize("kernel", ["flex_attention", "flash_attention_2"])
@pytest.mark.parametrize("name", ATTENTION)
def test_kernels_that_take_no_masks_of_ours(name: str, kernel: str) -> None:
    model = make_llama()
    model.config._attn_implementation_internal = kernel

    text = refusal(lambda: ATTENTION[name].check_model(model))

    assert text == (
        f"attn_implementation={kernel!r}, but this method works with 'eager' and 'sdpa': load the "
        "model with one of them"
    )


def tiny(model: Any, config: Any, **settings: Any) -> Any:
    """Return a small random model of another family."""
    sizes = {"vocab_size": 31, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    made = model(config(**sizes, **heads, max_position_embeddings=128, **settings)).eval()
    randomize(made)
    return made


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize(
    ("model", "config", "settings"),
    [
        (MistralForCausalLM, MistralConfig, {"sliding_window": 12}),
        (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 12, "head_dim": 8}),
    ],
    ids=["mistral", "gemma3"],
)
def test_layers_with_a_sliding_window(
    model: Any, config: Any, settings: dict[str, Any], name: str, steps: int
) -> None:
    made, prompts = tiny(model, config, **settings), make_prompts()
    tokens = answers(prompts, steps)

    text = refusal(lambda: run_steps(made, ATTENTION[name], prompts, tokens))

    assert "keys for 19 tokens (a sliding window), so the positions of the image tokens" in text
    wide = tiny(model, config, **{**settings, "sliding_window": 64})
    assert run_steps(wide, ATTENTION[name], prompts, answers(prompts))


@pytest.mark.parametrize("name", ATTENTION)
def test_caches_of_a_fixed_size(name: str) -> None:
    model, one = make_llama(), one_prompt(make_prompts(), 0)

    def act() -> None:
        with ATTENTION[name].applied(model, one.image_mask):
            model.generate(**one.inputs, max_new_tokens=3, cache_implementation="static")

    assert "(a cache of a fixed size), so the positions of the image tokens" in refusal(act)


@pytest.mark.parametrize("name", ATTENTION)
def test_scores_that_are_capped(name: str) -> None:
    model = tiny(Gemma2ForCausalLM, Gemma2Config, head_dim=8)

    text = refusal(lambda: ATTENTION[name].check_model(model))

    title = type(ATTENTION[name]).title  # type: ignore[attr-defined]
    assert text.startswith(f"{title} in layer ")
    assert "passes 'softcap' to its attention kernel" in text


@pytest.mark.parametrize("method", [*ATTENTION.values(), DECO], ids=str)
def test_encoders_with_decoders(method: DecodingMethod) -> None:
    config = T5Config(vocab_size=31, d_model=8, num_layers=1, d_ff=8, num_heads=1)
    model = T5ForConditionalGeneration(config)

    assert "is an encoder-decoder" in refusal(lambda: method.check_model(model))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny(GraniteForCausalLM, GraniteConfig, logits_scaling=8.0),
        lambda: tiny(CohereForCausalLM, CohereConfig, logit_scale=0.06, eos_token_id=2),
        lambda: tiny(Gemma2ForCausalLM, Gemma2Config, head_dim=8, final_logit_softcapping=1.0),
    ],
    ids=["granite", "cohere", "gemma2"],
)
def test_deco_refuses_logits_that_are_scaled_or_capped(make: Callable[[], Any]) -> None:
    model, prompts = make(), make_prompts()

    text = refusal(lambda: run_steps(model, DECO, prompts, answers(prompts)))

    assert text.startswith("DeCo reads early layers with the output layer, but this model scales")


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_deco_refuses_scores_that_generate_has_changed_before() -> None:
    model, one = make_llama(), one_prompt(make_prompts(), 0)

    def act() -> None:
        with DECO.applied(model) as processors:
            model.generate(
                **one.inputs,
                max_new_tokens=6,
                do_sample=False,
                repetition_penalty=3.0,
                logits_processor=processors,
            )

    assert "or `generate` changed them first" in refusal(act)


@pytest.mark.parametrize("name", ATTENTION)
def test_image_tokens_that_nobody_said(name: str) -> None:
    model, prompts = make_llama(), make_prompts()

    def act() -> None:
        with ATTENTION[name].applied(model):
            model(inputs_embeds=prompts.embeds, attention_mask=prompts.attention_mask)

    assert "has no mask of the image tokens of 4 prompts" in refusal(act)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda mask: mask[:3], "has no mask of the image tokens of 4 prompts"),
        (lambda mask: mask[:1], "the mask of image tokens has 1 rows for 4 prompts"),
        (lambda mask: mask[:2], "the mask of image tokens has 2 rows for 4 prompts"),
        (lambda mask: mask[0], "the mask of image tokens is torch.bool of shape (19,); pass"),
        (lambda mask: mask[:, :18], "has 18 positions, but the prompt begins with a pass of 19"),
        (
            lambda mask: torch.cat([mask, mask[:, :2]], 1),
            "has 21 positions, but the prompt begins with a pass of 19",
        ),
    ],
)
@pytest.mark.parametrize("name", ATTENTION)
def test_masks_of_other_prompts(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], expected: str
) -> None:
    model, prompts = make_llama(), make_prompts()
    image = change(prompts.image_mask)

    text = refusal(
        lambda: run_steps(model, ATTENTION[name], prompts, answers(prompts), image=image)
    )

    assert expected in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda mask: mask.long(),
            "is torch.int64 of shape (4, 19); pass a bool tensor with",
        ),
        (lambda mask: mask.numpy(), "the mask of image tokens is ndarray; pass a bool tensor"),
        (lambda mask: mask[:0], "is torch.bool of shape (0, 19); pass a bool tensor"),
        (lambda mask: mask & False, "is False everywhere; pass one that is True at them"),
    ],
)
def test_what_is_no_mask_of_image_tokens(change: Callable[[Any], Any], expected: str) -> None:
    model, prompts = make_llama(), make_prompts()

    def act() -> None:
        with METHODS["hgai"].applied(model, change(prompts.image_mask)):
            raise AssertionError("entered")

    assert expected in refusal(act)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_maps_are_not_returned(name: str) -> None:
    model, prompts = make_llama(), make_prompts()
    model.set_attn_implementation("eager")

    def act() -> None:
        with ATTENTION[name].applied(model, prompts.image_mask):
            model(**prompts.inputs, output_attentions=True)

    assert "not attention maps; leave output_attentions out" in refusal(act)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("chunk", [1, 4, 18])
def test_prompts_in_pieces(name: str, chunk: int) -> None:
    """Their first piece can't be told from a prompt that the mask is too long for."""
    model, prompts = make_llama(), make_prompts()
    ids = torch.ones_like(prompts.attention_mask)

    def act() -> None:
        with ATTENTION[name].applied(model, prompts.image_mask), torch.no_grad():
            # As `generate(prefill_chunk_size=chunk)` begins.
            model(ids[:, :chunk], attention_mask=ids[:, :chunk], use_cache=True)

    assert f"begins with a pass of {chunk}; pass a mask" in refusal(act)


def test_var_refuses_a_prompt_that_ran_before_its_block() -> None:
    model, one = make_llama(), one_prompt(make_prompts(), 0)
    with torch.inference_mode():
        cache = model(**one.inputs, use_cache=True).past_key_values

    def act() -> None:
        with VAR.applied(model, one.image_mask), torch.inference_mode():
            model(input_ids=torch.tensor([[5]]), past_key_values=cache)

    assert "run the whole prompt inside" in refusal(act)


def test_models_that_are_not_given_embeddings() -> None:
    vlm = object.__new__(HFVlm)
    vlm.note, vlm.model = "its `generate` takes no embeddings", make_llama()

    text = refusal(lambda: vlm.check_method(METHODS["pai"]))

    assert "needs prompts as embeddings and plain causal attention, but with Llama" in text


def test_vars_released_form_refuses_batches() -> None:
    model, prompts = make_llama(), make_prompts()

    text = refusal(lambda: run_steps(model, replace(VAR, released=True), prompts, answers(prompts)))

    assert text.startswith(
        "VAR: released=true supports one question at a time, but the batch has 4;"
    )


@pytest.mark.parametrize("name", ATTENTION)
def test_prompts_that_are_padded_on_the_right(name: str) -> None:
    model, prompts = make_llama(), make_prompts()
    mask = prompts.attention_mask.flip(1)

    def act() -> None:
        with ATTENTION[name].applied(model, prompts.image_mask.flip(1)):
            model(inputs_embeds=prompts.embeds.flip(1), attention_mask=mask)

    assert "some prompts are padded on the right" in refusal(act)
