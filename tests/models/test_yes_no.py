"""p(yes) equals what a forward pass written by hand gives, however the answer is decoded."""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers
from torch.nn import functional as F  # as everyone calls it
from transformers import LogitsProcessor, LogitsProcessorList

import eah
import models
from models.base import VLM
from models.decoding.base import DecodingMethod
from models.decoding.dola import Dola
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.vcd import Vcd
from models.decoding.yes_no import LARGEST, SMALLEST, FirstToken, YesNoIds, yes_no_ids
from models.prefix_cache import PicturePrefixes, PrefixCache
from models.tokenizer import BYTES, JsonTokenizer
from scripts.scenes.scene import render

TINY = Path(__file__).resolve().parents[2] / "models/tiny-llava"
YES, NO = [426], [421, 422, 424, 425]  # "▁Yes"; "No", "no", "▁No", "▁no"
LAYERS, HEADS, WIDTH, EPS = 4, 8, 128, 1e-5
ONE_TOKEN = models.Decoding(max_new_tokens=1)
QUESTIONS = [
    "Is there a cat in the image?",
    "Is there a sports ball or a stop sign in the image?",
    "Is there a cat in the image?",
    "Is there a bird?",
    "?",
]
PICTURES = [0, 0, 1, 1, 0]
METHODS: dict[str, tuple[DecodingMethod, int]] = {
    "vcd": (Vcd(beta=0.0), 1),
    "pai": (Pai(start_layer=2), 1),
    "dola": (Dola(layers=(0, 2), relative_top=0.0), 1),
    "opera": (Opera(), 3),
}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return models.load("tiny-llava", device="cpu")


@pytest.fixture(scope="module")
def pixels(vlm: VLM) -> torch.Tensor:
    return vlm.preprocess([render(random.Random(seed)).image for seed in range(2)])


@pytest.fixture(scope="module")
def features(vlm: VLM, pixels: torch.Tensor) -> torch.Tensor:
    return vlm.encode_pixels(pixels)[PICTURES]


@pytest.fixture(scope="module")
def noised(vlm: VLM, pixels: torch.Tensor) -> torch.Tensor:
    return vlm.encode_pixels(pixels + 0.3)[PICTURES]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """Return the language model's weights in float64, by the names of its parts."""
    found = load_file(TINY / "model.safetensors")
    return {
        name.removeprefix("language_model."): tensor.double()
        for name, tensor in found.items()
        if name.startswith("language_model.")
    }


def weight(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return tensors[f"{name}.weight"]


def norm(tensors: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight(tensors, name)


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Return rotary positions applied, (S, H, D)."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x)).double()[:, None] / 10000 ** (torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def densest(maps: torch.Tensor, image: torch.Tensor) -> int:
    """Return the head that preset scale-free chooses, or -1; maps (H, S, S)."""
    size = maps.shape[-1]
    rows = torch.arange(size - 1, -1, -1).clamp(min=1)  # below each column's own
    means = maps.tril(-1).sum(1) / rows  # (H, S, S) -> (H, S)
    uniform = torch.ones(size, size).double().tril() / torch.arange(1, size + 1)[:, None]
    even = uniform.tril(-1).sum(0) / rows
    columns = image.nonzero().flatten().tolist()
    counts = [sum(bool(row[y] > 1.25 * even[y]) for y in columns) for row in means]
    received = [float(sum(row[y] for y in columns)) for row in means]
    best = max(range(len(maps)), key=lambda h: (counts[h], received[h]))
    return best if counts[best] else -1


def states(
    tensors: dict[str, torch.Tensor],
    embeds: torch.Tensor,
    image: torch.Tensor,
    *,
    shared: int | None = None,
    boost: tuple[int, float] = (LAYERS, 0.0),
) -> list[torch.Tensor]:
    """Run one prompt by hand and return its last position after each layer, embeddings first.

    Args:
        tensors: Weights.
        embeds: The prompt, (S, E).
        image: True at image tokens, (S,).
        shared: Layer in which all heads get the densest head's map.
        boost: First layer and share by which the last row's scores on image tokens grow.
    """
    x = embeds.double()
    found, size = [x[-1]], len(x)
    hidden = torch.ones(size, size, dtype=torch.bool).triu(1)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        y = norm(tensors, f"{layer}.input_layernorm", x)
        q, k, v = (
            (y @ weight(tensors, f"{layer}.self_attn.{name}_proj").T).view(size, HEADS, -1)
            for name in "qkv"
        )
        scores = torch.einsum("qhd,khd->hqk", rotated(q), rotated(k)) / math.sqrt(q.shape[-1])
        if i >= boost[0]:
            scores[:, -1, image] += boost[1] * scores[:, -1, image].abs()
        maps = scores.masked_fill(hidden, -math.inf).softmax(-1)
        if i == shared and (head := densest(maps, image)) >= 0:
            maps = maps[[head]].expand(HEADS, -1, -1)
        y = torch.einsum("hqk,khd->qhd", maps, v).reshape(size, WIDTH)
        x = x + y @ weight(tensors, f"{layer}.self_attn.o_proj").T
        y = norm(tensors, f"{layer}.post_attention_layernorm", x)
        gate = F.silu(y @ weight(tensors, f"{layer}.mlp.gate_proj").T)
        y = gate * (y @ weight(tensors, f"{layer}.mlp.up_proj").T)
        x = x + y @ weight(tensors, f"{layer}.mlp.down_proj").T
        found.append(x[-1])
    return found


def logits_of(tensors: dict[str, torch.Tensor], state: torch.Tensor) -> torch.Tensor:
    return norm(tensors, "model.norm", state) @ weight(tensors, "lm_head").T


def share(scores: torch.Tensor) -> float:
    """Return p(yes) from scores of the vocabulary."""
    probabilities = scores.softmax(-1)
    yes, no = float(probabilities[YES].sum()), float(probabilities[NO].sum())
    return yes / (yes + no)


def by_hand(
    vlm: VLM, tensors: dict[str, torch.Tensor], features: torch.Tensor, **options: Any
) -> list[torch.Tensor]:
    """Return the first token's logits of each question."""
    found = []
    for row, question in zip(features, QUESTIONS, strict=True):
        prompt = vlm.embed_prompts(row[None], [question])
        last = states(tensors, prompt.embeds[0], prompt.image_mask[0], **options)[-1]
        found.append(logits_of(tensors, last))
    return found


@pytest.fixture(scope="module")
def plain(
    vlm: VLM, tensors: dict[str, torch.Tensor], features: torch.Tensor
) -> dict[str, list[float]]:
    """Return p(yes) of each question by hand, without EAH and with it in layer 1."""
    expected = {
        arm: [share(one) for one in by_hand(vlm, tensors, features, shared=layer)]
        for arm, layer in (("baseline", None), ("eah", 1))
    }
    assert expected["baseline"] != pytest.approx(expected["eah"], abs=1e-3)
    assert len(set(expected["baseline"])) == len(QUESTIONS)
    return expected


def enabled(vlm: VLM, arm: str) -> Any:
    if arm == "baseline":
        return nullcontext()
    return eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free"))


def p_yes(answers: list[Any]) -> list[float | None]:
    return [answer.p_yes for answer in answers]


def test_the_tokens_are_whole_words_in_any_casing(vlm: VLM) -> None:
    found = yes_no_ids(vlm.tokenizer)

    assert (sorted(found.yes), sorted(found.no)) == (YES, NO)  # neither "Ye" nor "Y" nor "N"
    assert found.as_record() == {
        "yes": {"426": "▁Yes"},
        "no": {"421": "No", "422": "no", "424": "▁No", "425": "▁no"},
    }
    assert found.missing is None


def test_a_tokenizer_json_has_the_same_pieces(tmp_path: Path) -> None:
    from tokenizers.models import BPE

    learned = ["y", "e", "s", "▁", "ye", "yes", "▁yes", "YES", "▁No", "no", "not", "N"]
    names = ["<unk>", "<s>", "</s>", *BYTES, *learned]
    vocabulary = {piece: index for index, piece in enumerate(names)}
    merges = [("y", "e"), ("ye", "s"), ("▁", "yes")]
    tokenizer: Any = Tokenizer(BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Prepend("▁")
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    found = yes_no_ids(JsonTokenizer(tmp_path / "tokenizer.json"))

    assert found == YesNoIds({264: "yes", 265: "▁yes", 266: "YES"}, {267: "▁No", 268: "no"})


@pytest.mark.parametrize("arm", ["baseline", "eah"])
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(
    "decoding",
    [
        models.Decoding(max_new_tokens=1),
        models.Decoding(max_new_tokens=6),
        models.Decoding(max_new_tokens=6, num_beams=3),
        models.Decoding(max_new_tokens=6, do_sample=True),
    ],
    ids=["one token", "greedy", "beams", "sampling"],
)
def test_p_yes_is_that_of_a_forward_pass_by_hand_and_changes_no_answer(
    vlm: VLM,
    features: torch.Tensor,
    plain: dict[str, list[float]],
    arm: str,
    reuse: bool,
    decoding: models.Decoding,
) -> None:
    prefixes = PicturePrefixes(PICTURES, PrefixCache()) if reuse else None
    ids = yes_no_ids(vlm.tokenizer)

    with enabled(vlm, arm):
        torch.manual_seed(5)
        before = vlm.answer_batch(features, QUESTIONS, decoding, None, None, prefixes)
        torch.manual_seed(5)
        found = vlm.answer_batch(features, QUESTIONS, decoding, None, None, prefixes, ids)

    assert p_yes(found) == pytest.approx(plain[arm], abs=1e-5)
    assert [answer._replace(p_yes=None) for answer in found] == before
    assert p_yes(before) == [None] * len(QUESTIONS)


@pytest.mark.parametrize("name", METHODS)
def test_methods_record_their_own_scores_of_the_first_token(
    vlm: VLM,
    tensors: dict[str, torch.Tensor],
    features: torch.Tensor,
    noised: torch.Tensor,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else the tiny model is so sure of itself that PAI rules one word out nearly everywhere.
    monkeypatch.setattr("models.decoding.pai.PLAUSIBLE", 0.0)
    method, beams = METHODS[name]
    decoding = models.Decoding(max_new_tokens=3, num_beams=beams)
    assert method.scores_first_token

    found = vlm.answer_batch(
        features, QUESTIONS, decoding, method, noised, None, yes_no_ids(vlm.tokenizer)
    )
    before = vlm.answer_batch(features, QUESTIONS, decoding, method, noised)

    expected = expected_scores(vlm, tensors, features, noised, name)
    assert p_yes(found) == pytest.approx([share(one) for one in expected], abs=1e-5)
    assert [answer._replace(p_yes=None) for answer in found] == before


def expected_scores(
    vlm: VLM,
    tensors: dict[str, torch.Tensor],
    features: torch.Tensor,
    noised: torch.Tensor,
    name: str,
) -> list[torch.Tensor]:
    clear = by_hand(vlm, tensors, features)
    if name == "opera":
        return clear
    if name == "vcd":
        blurred = by_hand(vlm, tensors, noised)
        return [2 * one - other for one, other in zip(clear, blurred, strict=True)]
    if name == "pai":
        boosted = by_hand(vlm, tensors, features, boost=(2, 0.2))
        scores = []
        for one, question in zip(boosted, QUESTIONS, strict=True):
            text = vlm.embed_text([], [question])
            bare = logits_of(
                tensors, states(tensors, text.embeds[0], text.image_mask[0])[-1]
            ).log_softmax(-1)
            scores.append(1.1 * one.log_softmax(-1) - 0.1 * bare)
        return scores
    return [dola_scores(vlm, tensors, row, q) for row, q in zip(features, QUESTIONS, strict=True)]


def dola_scores(
    vlm: VLM, tensors: dict[str, torch.Tensor], row: torch.Tensor, question: str
) -> torch.Tensor:
    prompt = vlm.embed_prompts(row[None], [question])
    layers = states(tensors, prompt.embeds[0], prompt.image_mask[0])
    final = logits_of(tensors, layers[-1]).log_softmax(-1)
    head = weight(tensors, "lm_head")
    early = [(layers[i] @ head.T).log_softmax(-1) for i in (0, 2)]
    middle = [((final.exp() + one.exp()) / 2).log() for one in early]
    divergence = [
        float((final.exp() * (final - m)).sum() + (one.exp() * (one - m)).sum())
        for one, m in zip(early, middle, strict=True)
    ]
    return final - early[divergence.index(max(divergence))]


def test_what_a_method_rules_out_is_0_1_or_nothing() -> None:
    first = FirstToken(YesNoIds({0: "yes", 1: "Yes"}, {2: "no"}), 4)
    inf = math.inf

    first.record(torch.tensor([[-inf, 1.0, -inf], [-inf, -inf, 1.0], [-inf] * 3, [0.0, 0.0, 0.0]]))

    assert first.p_yes()[:3] == [1.0, 0.0, None]
    assert first.p_yes()[3] == pytest.approx(2 / 3)


def test_small_probabilities_keep_their_size_and_are_never_0_or_1() -> None:
    first = FirstToken(YesNoIds({0: "yes"}, {1: "no"}), 4)

    first.record(torch.tensor([[-300.0, 0.0], [0.0, -20.0], [5000.0, 0.0], [0.0, 5000.0]]))

    tiny, near, *far = first.p_yes()
    assert tiny == pytest.approx(math.exp(-300), rel=1e-12)
    assert near is not None
    assert 1 - near == pytest.approx(math.exp(-20), rel=1e-6)
    assert far == [LARGEST, SMALLEST]


def test_only_the_first_scores_count_and_beams_are_skipped() -> None:
    first = FirstToken(YesNoIds({0: "yes"}, {1: "no"}), 2)

    first.record(torch.tensor([[0.0, 0.0], [9.0, 0.0], [math.log(3.0), 0.0], [9.0, 0.0]]))
    first.record(torch.full((4, 2), 7.0))

    assert first.p_yes() == pytest.approx([0.5, 0.75])


def test_without_scores_or_without_a_word_there_is_no_probability() -> None:
    without = YesNoIds({0: "yes"}, {})
    first = FirstToken(without, 2)
    first.record(torch.zeros(2, 3))

    assert without.missing == "no"
    assert first.p_yes() == [None, None]
    assert FirstToken(YesNoIds({0: "yes"}, {1: "no"}), 2).p_yes() == [None, None]


class NoYes(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Forbids what begins with yes."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.tensor(YES), -math.inf)


@pytest.mark.parametrize("method", [None, Vcd(beta=0.0)], ids=str)
def test_processors_such_as_the_repetition_penalty_are_not_in_it(
    vlm: VLM, features: torch.Tensor, noised: torch.Tensor, method: DecodingMethod | None
) -> None:
    ids = yes_no_ids(vlm.tokenizer)
    expected = vlm.answer_batch(features, QUESTIONS, ONE_TOKEN, method, noised, None, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm, "logits_processors", lambda: LogitsProcessorList([NoYes()]))
        found = vlm.answer_batch(features, QUESTIONS, ONE_TOKEN, method, noised, None, ids)

    assert p_yes(found) == p_yes(expected)
    assert [answer.text for answer in found] != [answer.text for answer in expected]
