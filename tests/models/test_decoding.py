"""Decoding methods: formulas by hand, no-ops, batches, EAH beside them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PretrainedConfig

import eah
import models
from models.decoding.base import Contrast, DecodingMethod, Request
from models.decoding.dola import Dola, contrast_layers, jensen_shannon
from models.decoding.loop import mask_implausible
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.vcd import STEPS, Vcd, remaining_variance
from models.generation import EncodedPrompts, concat_prompts
from tests.models.toys import FAMILIES, QUESTIONS, make_folder, pictures

NO_OPS: dict[str, DecodingMethod] = {
    "vcd": Vcd(alpha=0.0, beta=0.0),
    "pai": Pai(alpha=0.0, gamma=1.0),
}
ALL = {"vcd": Vcd(), "pai": Pai(start_layer=2), "dola": Dola(), "opera": Opera()}


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, make_folder(request.param, tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="module")
def vlm(model: tuple[str, Path]) -> models.VLM:
    return models.load(model[0], checkpoint=str(model[1]), device="cpu")


def decoding(name: str, *, sample: bool = False) -> models.Decoding:
    return models.Decoding(10, num_beams=3 if name == "opera" else 1, do_sample=sample)


def noised(vlm: models.VLM, method: DecodingMethod, count: int) -> torch.Tensor | None:
    if not isinstance(method, Vcd):
        return None
    pixels = vlm.preprocess(pictures(count))
    return vlm.encode_pixels(
        torch.stack([method.add_noise(one, seed) for seed, one in enumerate(pixels)])
    )


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("name", NO_OPS)
def test_methods_that_do_nothing_answer_as_the_baseline(
    vlm: models.VLM, name: str, sample: bool
) -> None:
    features, how = vlm.encode_images(pictures()), decoding(name, sample=sample)
    method = NO_OPS[name]

    torch.manual_seed(3)
    expected = vlm.answer_batch(features, QUESTIONS, how)
    torch.manual_seed(3)
    found = vlm.answer_batch(features, QUESTIONS, how, method, noised(vlm, method, len(QUESTIONS)))

    assert found == expected
    assert len(set(found)) > 3


@pytest.mark.parametrize("name", ALL)
def test_methods_change_answers_and_batches_do_not(vlm: models.VLM, name: str) -> None:
    features, how, method = vlm.encode_images(pictures()), decoding(name), ALL[name]
    noise = noised(vlm, method, len(QUESTIONS))

    together = vlm.answer_batch(features, QUESTIONS, how, method, noise)
    alone = [
        vlm.answer_batch(
            features[i : i + 1],
            [question],
            how,
            method,
            None if noise is None else noise[i : i + 1],
        )[0]
        for i, question in enumerate(QUESTIONS)
    ]

    assert together == alone
    assert together != vlm.answer_batch(features, QUESTIONS, how)


@pytest.mark.parametrize("name", ALL)
def test_eah_works_under_every_method_and_finds_what_it_finds_alone(
    vlm: models.VLM, name: str
) -> None:
    features, how, method = vlm.encode_images(pictures()), decoding(name), ALL[name]
    noise = noised(vlm, method, len(QUESTIONS))
    config = eah.EAHConfig.preset("scale-free")

    with eah.enabled(vlm.model, config) as handle:
        vlm.answer_batch(features, QUESTIONS, models.Decoding(2))
        alone = handle.report()[0]
    with eah.enabled(vlm.model, config) as handle:
        both = vlm.answer_batch(features, QUESTIONS, how, method, noise)
        beside = handle.report()[0]

    count = len(QUESTIONS)
    assert beside.head[:count] == alone.head
    assert beside.image_tokens[:count] == alone.image_tokens
    assert len(both) == count
    assert not eah.is_enabled(vlm.model)


@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
def test_methods_run_in_half_precision(model: tuple[str, Path], dtype: str) -> None:
    half = models.load(model[0], checkpoint=str(model[1]), device="cpu", dtype=dtype)
    features = half.encode_images(pictures(2))

    for name, method in ALL.items():
        with eah.enabled(half.model, eah.EAHConfig.preset("scale-free")):
            answers = half.answer_batch(
                features, QUESTIONS[:2], decoding(name), method, noised(half, method, 2)
            )
        assert len(set(answers)) == 2


@pytest.mark.parametrize("name", ALL)
def test_a_method_leaves_the_model_as_it_was(vlm: models.VLM, name: str) -> None:
    features, how, method = vlm.encode_images(pictures(2)), decoding(name), ALL[name]
    prompts = vlm.embed_prompts(features, QUESTIONS[:2])

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            output = vlm.language_model(
                inputs_embeds=prompts.embeds, attention_mask=prompts.attention_mask
            )
        return output.logits.clone()

    before = logits()
    configs = [id(m.config) for m in vlm.model.modules() if hasattr(m, "config")]
    vlm.answer_batch(features, QUESTIONS[:2], how, method, noised(vlm, method, 2))

    assert torch.equal(logits(), before)
    assert [id(m.config) for m in vlm.model.modules() if hasattr(m, "config")] == configs


def test_eah_and_pai_can_not_share_a_layer(vlm: models.VLM) -> None:
    features = vlm.encode_images(pictures(1))
    config = eah.EAHConfig.preset("scale-free", layers=(2,))

    with (
        eah.enabled(vlm.model, config),
        pytest.raises(ValueError, match="PAI and EAH both change layer 2; one layer can't"),
    ):
        vlm.answer_batch(features, QUESTIONS[:1], decoding("pai"), Pai())


def test_vcd_contrasts_and_keeps_what_is_plausible() -> None:
    clear = torch.tensor([[0.0, math.log(0.5), math.log(0.05)]])
    noisy = torch.tensor([[1.0, 0.0, -9.0]])
    request = one_step(torch.cat([clear, noisy]))

    with_beta = Vcd(alpha=1.0, beta=0.1).generate(request)
    without = Vcd(alpha=1.0, beta=0.0).generate(request)

    # 2 clear - noisy: -1, 2 log 0.5 = -1.39, 2 log 0.05 + 9 = 3.0; the last is below a tenth of
    # the likeliest token, so that only beta keeps it out
    assert with_beta.tolist() == [[0]]
    assert without.tolist() == [[2]]


def test_vcds_noise_has_the_variance_of_its_step() -> None:
    pixels = torch.full((3, 200, 200), 2.0)
    share = remaining_variance()
    variances = [1e-5 + (5e-3 - 1e-5) / (1 + math.exp(6 - 12 * i / 999)) for i in range(501)]
    expected = math.prod(1 - variance for variance in variances)

    found = Vcd(noise_step=500).add_noise(pixels, seed=1)

    assert share[500].item() == pytest.approx(expected, rel=1e-4)
    assert found.mean().item() == pytest.approx(2 * math.sqrt(expected), abs=0.01)
    assert found.std().item() == pytest.approx(math.sqrt(1 - expected), rel=0.01)
    assert torch.equal(found, Vcd(noise_step=500).add_noise(pixels, seed=1))
    assert not torch.equal(found, Vcd(noise_step=500).add_noise(pixels, seed=2))
    assert len(share) == STEPS
    assert (share.diff() < 0).all()


def test_dola_chooses_the_most_different_layer_and_subtracts_it() -> None:
    final = torch.tensor([[0.7, 0.25, 0.05]]).log()
    near = torch.tensor([[0.6, 0.3, 0.1]]).log()
    far = torch.tensor([[0.1, 0.1, 0.8]]).log()

    scores = contrast_layers(final, torch.stack([near, far]), 0.1)

    assert scores[0, 0].item() == pytest.approx(math.log(7), rel=1e-5)
    assert scores[0, 1].item() == pytest.approx(math.log(2.5), rel=1e-5)
    assert scores[0, 2].item() == -math.inf  # 0.05 is below a tenth of 0.7


def test_the_divergence_is_scipys() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    first, second = torch.rand(2, 4, 9).softmax(-1)

    found = jensen_shannon(first.log(), second.log())

    expected = [distance.jensenshannon(p, q) ** 2 for p, q in zip(first, second, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("layers", "depth", "expected"),
    [
        ("low", 32, [0, 2, 4, 6, 8, 10, 12, 14]),
        ("high", 32, [16, 18, 20, 22, 24, 26, 28, 30]),
        ((1, 3), 4, [1, 3]),
    ],
)
def test_dolas_early_layers(layers: str | tuple[int, ...], depth: int, expected: list[int]) -> None:
    assert Dola(layers).early_layers(depth) == expected


def test_pai_contrasts_log_probabilities() -> None:
    image = torch.tensor([[0.0, math.log(0.5), math.log(0.01)]])
    text = torch.tensor([[0.0, -2.0, -20.0]])
    request = one_step(torch.cat([image, text]))
    normalised, other = image.log_softmax(-1), text.log_softmax(-1)
    expected = 3 * normalised - 2 * other
    assert expected.argmax() == 2  # implausible, so that the next one wins
    assert expected[0, 1] > expected[0, 0]

    assert Pai(alpha=0.0, gamma=3.0).generate(request).tolist() == [[1]]


def test_pai_raises_the_last_rows_scores_on_image_tokens_by_their_size() -> None:
    """One layer, by plain softmax over scores that were raised by hand."""
    config = LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    layer = model.model.layers[0].self_attn
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    embeds = torch.randn(1, 6, 8)
    image = torch.tensor([[False, True, True, False, False, False]])
    caught: list[torch.Tensor] = []
    layer.o_proj.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))

    with torch.inference_mode():
        model(inputs_embeds=embeds)
        with Pai(alpha=0.5, start_layer=0).applied(model, image):
            model(inputs_embeds=embeds)

    plain, raised = caught
    assert torch.equal(plain[:, :-1], raised[:, :-1])
    hidden = model.model.layers[0].input_layernorm(embeds)
    cos, sin = model.model.rotary_emb(hidden, torch.arange(6)[None])
    query, key, value = (
        linear(hidden)[0].view(6, -1, 4) for linear in (layer.q_proj, layer.k_proj, layer.v_proj)
    )

    def rotated(x: torch.Tensor) -> torch.Tensor:
        turned = torch.cat([-x[..., 2:], x[..., :2]], dim=-1)
        return x * cos[0][:, None] + turned * sin[0][:, None]

    query, key = rotated(query), rotated(key)
    for head in range(2):
        scores = (key[:, 0] @ query[-1, head]) / 2.0
        scores[1:3] += 0.5 * scores[1:3].abs()
        expected = scores.softmax(-1) @ value[:, 0]
        torch.testing.assert_close(raised[0, -1, 4 * head : 4 * head + 4], expected)
    assert not torch.allclose(plain[:, -1], raised[:, -1])


class FixedLogits(torch.nn.Module):
    """Stands for a model: whatever it is asked, the rows' scores are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.config = PretrainedConfig()

    def forward(self, **_: object) -> Any:
        return type("Output", (), {"logits": self.logits[:, None], "past_key_values": None})()

    def generate(
        self, inputs_embeds: torch.Tensor, logits_processor: Any, **_: object
    ) -> torch.Tensor:
        """Return one token per row, as transformers' generate would choose it greedily."""
        scores = logits_processor(torch.zeros(len(inputs_embeds), 0).long(), self().logits[:, -1])
        return torch.as_tensor(scores.argmax(-1)[:, None])


def one_step(logits: torch.Tensor) -> Request:
    """Return a request for one token, whose scores are given for prompt and contrast."""
    from transformers import LogitsProcessorList, StoppingCriteriaList

    prompts = EncodedPrompts(
        torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3).bool()
    )
    config = GenerationConfig(max_new_tokens=1, eos_token_id=99, pad_token_id=0)
    nothing = LogitsProcessorList(), StoppingCriteriaList()
    return Request(FixedLogits(logits), prompts, prompts, config, *nothing, counted=(1,))


def test_joined_branches_are_padded_on_the_left() -> None:
    long = EncodedPrompts(torch.ones(1, 4, 2), torch.ones(1, 4).long(), torch.ones(1, 4).bool())
    short = EncodedPrompts(torch.ones(1, 2, 2), torch.ones(1, 2).long(), torch.zeros(1, 2).bool())

    both = concat_prompts([long, short])

    assert both.attention_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert both.image_mask.sum(-1).tolist() == [4, 0]
    assert both.embeds[1, :2].abs().sum() == 0


def test_plausibility_keeps_the_share_itself_and_all_at_zero() -> None:
    reference = torch.tensor([[0.0, math.log(0.2), math.log(0.199)]])
    scores = torch.tensor([[1.0, 2.0, 3.0]])

    assert mask_implausible(scores, reference, 0.2).tolist() == [[1.0, 2.0, -math.inf]]
    assert mask_implausible(scores, reference, 0.0).tolist() == scores.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vcd(alpha=-1), "alpha=-1, but it must be at least 0"),
        (lambda: Vcd(beta=1.5), "beta=1.5, but it must be between 0 and 1"),
        (lambda: Vcd(noise_step=1000), "noise_step=1000, but it must be between 0 and 999"),
        (lambda: Pai(gamma=0.5), "gamma=0.5, but it must be at least 1"),
        (
            lambda: Dola("middle"),
            "layers='middle', but it must be 'low' or 'high' or distinct numbers from 0",
        ),
        (lambda: Dola((40,)).early_layers(32), r"layers=\[40\], but early layers are 0..31"),
        (lambda: Opera(scale_factor=0), "scale_factor=0, but it must be above 0"),
        (lambda: Opera(num_attn_candidates=0), "num_attn_candidates=0, but at least 1"),
        (lambda: Opera().check(models.Decoding()), "OPERA is a beam search, but one beam"),
        (
            lambda: Opera().check(models.Decoding(num_beams=5, do_sample=True)),
            "OPERA is a beam search, but sampling was requested",
        ),
        (lambda: Vcd().check(models.Decoding(num_beams=5)), "VCD chooses one token after another"),
    ],
)
def test_bad_settings_are_one_sentence(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_what_each_method_compares_with() -> None:
    assert {name: method.contrast for name, method in ALL.items()} == {
        "vcd": Contrast.NOISED_IMAGE,
        "pai": Contrast.TEXT,
        "dola": Contrast.NONE,
        "opera": Contrast.NONE,
    }


def test_the_ids_that_count_in_an_answers_length_are_those_of_the_reference(
    vlm: models.VLM,
) -> None:
    """LLaVA's with the image as one, Shikra's with each image token, elsewhere BOS alone."""
    prompts = vlm.embed_prompts(vlm.encode_images(pictures(1)), QUESTIONS[:1])
    length = len(vlm.prompt_ids(QUESTIONS[0]))
    expected = {"llava-1.5": length, "shikra": length + 3, "instructblip": 1, "minigpt4": 1}

    assert vlm.count_ids(QUESTIONS[:1], prompts) == (expected[vlm.family.name],)


@pytest.mark.parametrize("enabled", [False, True])
def test_embeds_of_the_text_alone_leave_the_image_out(
    vlm: models.VLM, enabled: bool, tmp_path: Path
) -> None:
    with eah.enabled(vlm.model) if enabled else nullcontext():
        prompts = vlm.embed_text([], QUESTIONS)

    lengths = [len(vlm.prompt_ids(question)) - 1 for question in QUESTIONS]
    assert prompts.attention_mask.sum(-1).tolist() == lengths
    assert not prompts.image_mask.any()
