"""Which embeddings are rows of a table, against loops, and what the library makes of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

import eah
from eah import detection
from eah.detection import HASHED, EmbeddingRows, image_rows
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, logits

ROWS, WIDTH = 40, 24
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def table_of(dtype: torch.dtype = torch.float32) -> nn.Embedding:
    return nn.Embedding(ROWS, WIDTH, dtype=dtype)


def by_loops(table: torch.Tensor, embeds: torch.Tensor) -> list[list[bool]]:
    """Compare the bytes of every embedding with those of every row."""
    rows = {row.numpy().tobytes() for row in table.detach().to(embeds.dtype).view(torch.uint8)}
    return [[one.numpy().tobytes() in rows for one in row.view(torch.uint8)] for row in embeds]


def mixed(table: nn.Module, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return embeddings of two prompts: some of the table, some almost, some of nowhere."""
    embeds = table(torch.randint(0, ROWS, (2, 12))).detach().clone()
    embeds[0, 3] = torch.randn(WIDTH)
    embeds[1, 4, -1] = torch.nextafter(embeds[1, 4, -1].float(), torch.tensor(9.0)) + 0.1
    embeds[1, 7] = -embeds[1, 7]
    return embeds if dtype is None else embeds.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_known_by_their_bits(dtype: torch.dtype) -> None:
    table = table_of(dtype)
    embeds = mixed(table)

    found = EmbeddingRows().known(table, embeds)

    assert found is not None
    assert found.tolist() == by_loops(table.weight, embeds)
    assert not found.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_table_cast", [False, True])
def test_embeddings_in_another_dtype_are_compared_in_it(
    dtype: torch.dtype, is_table_cast: bool
) -> None:
    table = table_of(dtype if is_table_cast else torch.float32)
    embeds = mixed(table, torch.float32 if is_table_cast else dtype)

    found = EmbeddingRows().known(table, embeds)

    assert found is not None
    assert found.tolist() == by_loops(table.weight, embeds)


def test_rows_that_agree_in_the_hashed_columns_are_told_apart() -> None:
    table = table_of()
    width = torch.arange(HASHED) * WIDTH // HASHED
    with torch.no_grad():
        table.weight[:, width] = 1.0
    embeds = mixed(table)
    embeds[..., width] = 1.0

    found = EmbeddingRows().known(table, embeds)

    assert found is not None
    assert found.tolist() == by_loops(table.weight, embeds)
    assert 0 < int(found.sum()) < found.numel()


def test_a_zero_differs_from_a_negative_one_and_nan_equals_itself() -> None:
    table = table_of()
    with torch.no_grad():
        table.weight[3] = 0.0
        table.weight[4, 5] = float("nan")
    embeds = table(torch.tensor([[3, 4, 5]])).detach().clone()
    embeds[0, 0, 0] = -0.0

    found = EmbeddingRows().known(table, embeds)

    assert found is not None
    assert found.tolist() == [[False, True, True]]


def test_scaled_embeddings_are_compared_as_they_come_out() -> None:
    table = Gemma3TextScaledWordEmbedding(ROWS, WIDTH, 0, embed_scale=4.9)
    embeds = table(torch.randint(1, ROWS, (1, 8))).detach()

    rows = EmbeddingRows()

    assert bool(rows.known(table, embeds).all())  # type: ignore[union-attr]
    assert not bool(rows.known(table, table.weight[None, 1:9].detach()).any())  # type: ignore[union-attr]


class Unsteady(nn.Embedding):
    """An embedding whose rows depend on how many of them are asked for."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * (1.0 + ids.numel())


@pytest.mark.parametrize(
    "table", [Unsteady(ROWS, WIDTH), nn.Embedding(ROWS, 2 * WIDTH), nn.Identity()]
)
def test_what_cant_be_compared_is_not_known(table: nn.Module) -> None:
    assert EmbeddingRows().known(table, torch.randn(1, 4, WIDTH)) is None


def test_a_weight_on_another_device_is_read_through_the_module() -> None:
    table, weight = table_of(), None

    class Offloaded(nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return nn.functional.embedding(ids, weight)

    weight = table.weight.detach()
    offloaded = Offloaded(ROWS, WIDTH, device="meta")
    embeds = mixed(table)

    found = EmbeddingRows().known(offloaded, embeds)

    assert found is not None
    assert found.tolist() == by_loops(weight, embeds)


def test_a_plain_table_is_hashed_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    table, rows, hashed = table_of(), EmbeddingRows(), []
    hashes = detection._row_hashes

    def count(embed: Any, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        hashed.append(len(ids))
        return hashes(embed, ids, dtype)

    monkeypatch.setattr(detection, "_row_hashes", count)
    for _ in range(3):
        rows.known(table, mixed(table))
    assert hashed.count(ROWS) == 1

    table.weight.data += 1.0
    rows.known(table, mixed(table))
    assert hashed.count(ROWS) == 2


class Switched(nn.Embedding):
    """An embedding of which an adapter, no parameter of its own, changes some rows."""

    shift = 0.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) + self.shift * (ids == 7)[..., None]


def test_an_adapter_that_is_switched_on_is_noticed() -> None:
    table, rows = Switched(ROWS, WIDTH), EmbeddingRows()
    ids = torch.arange(9)[None]

    for shift in (0.0, 1.0, 0.0):
        table.shift = shift
        assert bool(rows.known(table, table(ids).detach()).all())  # type: ignore[union-attr]


def test_a_table_that_its_own_reading_changes_is_not_read() -> None:
    table = nn.Embedding(ROWS, WIDTH, max_norm=1.0)
    before = table.weight.detach().clone()

    assert EmbeddingRows().known(table, torch.randn(1, 3, WIDTH)) is None
    assert torch.equal(table.weight, before)


def test_replicas_on_other_devices_have_tables_of_their_own() -> None:
    table, rows = table_of(), EmbeddingRows()
    embeds = mixed(table)
    expected = rows.known(table, embeds)
    replica = copy.copy(table)  # as torch makes them: the weight is an attribute, no parameter
    replica._parameters = {}
    replica.weight = table.weight.detach().clone()

    found = rows.known(replica, embeds)

    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)
    assert list(rows._tables) == [torch.device("cpu")]


class Adapted(nn.Embedding):
    """An embedding with an adapter: a part of it that is no row."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) + self.shift


def test_an_adapter_that_changes_is_noticed() -> None:
    table, rows = Adapted(ROWS, WIDTH), EmbeddingRows()
    ids = torch.arange(9)[None]

    for shift in (0.0, 0.5):
        with torch.no_grad():
            table.shift.fill_(shift)
        assert bool(rows.known(table, table(ids)).all())  # type: ignore[union-attr]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_read_the_table_anew(duplicate: Any) -> None:
    table, rows = table_of(), EmbeddingRows()
    rows.known(table, mixed(table))

    other = duplicate(rows)

    assert other._tables == {}
    assert other.known(table, table.weight[None].detach()).all()


def test_padding_and_zeros_are_neither_image_nor_text() -> None:
    known = torch.tensor([[True, False, False, True], [False, False, False, True]])
    embeds = torch.ones(2, 4, 3)
    embeds[0, 2] = embeds[1, 3] = 0.0
    valid = torch.tensor([[True, True, True, True], [False, True, True, True]])

    found = image_rows(known, embeds, valid)

    assert found.image.tolist() == [[False, True, False, False], [False, True, True, False]]
    assert found.has_text.tolist() == [True, False]


# In the library -----------------------------------------------------------------------------------


def merged(model: Any, prompt: dict[str, Any]) -> torch.Tensor:
    """Return the embeddings that a LLaVA hands to its decoder."""
    caught: list[torch.Tensor] = []

    def catch(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        caught.append(kwargs["inputs_embeds"])

    hook = model.model.language_model.register_forward_pre_hook(catch, with_kwargs=True)
    logits(model, prompt)
    hook.remove()
    return caught[0].detach()


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_embeddings_with_images_give_the_result_of_placeholders(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt(2)
    embeds = merged(model, prompt)

    with eah.enabled(model, CONFIG) as handle:
        expected = logits(model, prompt)
        report = handle.report()
        found = logits(model, {"inputs_embeds": embeds})

        assert handle.report() == report
    torch.testing.assert_close(found, expected)


def test_placeholders_among_embeddings_are_image_tokens() -> None:
    """The model puts the pictures in their place."""
    model, prompt = tiny.tiny_llava(), tiny.image_prompt(2)
    embeds = model.get_input_embeddings()(prompt["input_ids"]).detach()

    with eah.enabled(model, CONFIG) as handle:
        expected = logits(model, prompt)
        rest = {name: value for name, value in prompt.items() if name != "input_ids"}
        found = logits(model, {"inputs_embeds": embeds, **rest})

        assert handle.report()[0].image_tokens == (IMAGE_TOKENS,) * 2
    torch.testing.assert_close(found, expected)


class LlavaStyle(LlamaForCausalLM):
    """As LLaVA's own code does it: ids with a negative placeholder, and pictures beside them."""

    def forward(self, input_ids: Any = None, images: Any = None, **kwargs: Any) -> Any:
        if images is not None:
            embeds = self.get_input_embeddings()(input_ids.clamp(min=0))
            embeds = torch.where((input_ids < 0)[..., None], images, embeds)
            return super().forward(inputs_embeds=embeds, **kwargs)
        return super().forward(input_ids=input_ids, **kwargs)


def test_a_decoder_of_ones_own_that_gets_embeddings_further_in_works() -> None:
    model = tiny.tiny_llama()
    text, images = tiny.text_prompt(), torch.randn(1, 24, 32)
    plain = logits(model, text)
    model.__class__ = LlavaStyle
    ids = text["input_ids"].clone()
    ids[:, slice(*SPAN)] = -200

    with eah.enabled(model, CONFIG) as handle:
        found = logits(model, {"input_ids": ids, "images": images})
        assert handle.report()[0].image_tokens == (IMAGE_TOKENS,)
        with eah.image_tokens(model, SPAN):
            assert torch.equal(logits(model, {"input_ids": ids, "images": images}), found)
        assert torch.equal(logits(model, text), plain)
        assert handle.report()[0].skipped == "the prompt has no image tokens"
    without = logits(model, {"input_ids": ids, "images": images})
    assert not torch.allclose(found, without, atol=1e-3)


class WithKeptPictures(LlamaForCausalLM):
    """A model that got its pictures before, and whose decoder gets embeddings."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        embeds = self.get_input_embeddings()(input_ids).clone()
        embeds[:, slice(*SPAN)] = self.pictures
        return super().forward(inputs_embeds=embeds, **kwargs)


def test_ids_say_nothing_of_what_the_decoder_gets() -> None:
    model = tiny.tiny_llama()
    model.__class__ = WithKeptPictures
    model.pictures = torch.randn(IMAGE_TOKENS, 32)

    with eah.enabled(model, CONFIG) as handle:
        logits(model, tiny.text_prompt())

        assert handle.report()[0].image_tokens == (IMAGE_TOKENS,)


def test_ids_without_placeholders_are_text() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    before = logits(model, prompt)

    with eah.enabled(model, CONFIG) as handle:
        assert torch.equal(logits(model, prompt), before)
        assert handle.report()[0].skipped == "the prompt has no image tokens"


class WithPictures(LlamaForCausalLM):
    """A model whose decoder gets ids, and pictures by an argument that EAH does not know."""

    def forward(self, input_ids: Any = None, pictures: Any = None, **kwargs: Any) -> Any:
        return self.model(input_ids=input_ids, pictures=pictures, **kwargs)


def test_ids_beside_an_unknown_tensor_are_refused_before_a_layer_runs() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    model.__class__ = WithPictures
    reached = []
    tiny.attention(model, 0).register_forward_pre_hook(lambda *_: reached.append(0))

    with eah.enabled(model, CONFIG), pytest.raises(eah.EAHStateError, match="are not known"):
        model(**prompt, pictures=torch.ones(1, 4))
    with eah.observe(model) as seen, torch.no_grad():
        model(**prompt, pictures=torch.ones(1, 4))

    assert len(reached) == 1
    assert "are not known" in str(seen.report()[0].skipped)


def test_pictures_and_videos_are_not_told_apart_by_embeddings() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    embeds = merged(model, prompt)
    for kinds, is_known in ((("image",), True), (("image", "video"), False)):
        with eah.enabled(model, eah.EAHConfig(threshold=0.05, vision_tokens="image")) as handle:
            handle._session.vision_ids = {kind: (60 + len(kind),) for kind in kinds}
            if is_known:
                logits(model, {"inputs_embeds": embeds})
                assert handle.report()[0].image_tokens == (IMAGE_TOKENS,)
                continue
            with pytest.raises(eah.EAHStateError, match="are not known"):
                logits(model, {"inputs_embeds": embeds})


def test_generation_from_embeddings_finds_them_with_beams_and_padding() -> None:
    model = tiny.tiny_llama()
    embeds = model.get_input_embeddings()(tiny.text_prompt(2)["input_ids"]).detach().clone()
    embeds[:, slice(*SPAN)] = torch.randn(2, IMAGE_TOKENS, 32)
    mask = torch.ones(2, 24, dtype=torch.long)
    mask[0, :2] = 0
    columns = torch.zeros(2, 24, dtype=torch.bool)
    columns[:, slice(*SPAN)] = True

    def generate() -> torch.Tensor:
        return model.generate(
            inputs_embeds=embeds, attention_mask=mask, num_beams=2, max_new_tokens=5,
            min_new_tokens=5, do_sample=False,
        )  # fmt: skip

    with eah.enabled(model, CONFIG) as handle:
        found = generate()
        report = handle.report()
        with eah.image_tokens(model, columns):
            assert torch.equal(generate(), found)
        assert handle.report() == report
    assert report[0].image_tokens == (IMAGE_TOKENS,) * 4


def test_an_image_in_a_later_turn_is_refused_where_the_first_is_cached() -> None:
    model = tiny.tiny_llama()
    embeds = model.get_input_embeddings()(tiny.text_prompt()["input_ids"]).detach().clone()
    embeds[:, 3:6] = embeds[:, 15:20] = torch.randn(1, 1, 32)

    with eah.enabled(model, CONFIG), torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        with pytest.raises(eah.EAHStateError, match="split over forward passes"):
            model(inputs_embeds=embeds[:, 10:], past_key_values=past, use_cache=True)


def test_rows_that_were_repeated_have_the_image_of_their_cache() -> None:
    model = tiny.tiny_llama()
    embeds = model.get_input_embeddings()(tiny.text_prompt()["input_ids"]).detach().clone()
    embeds[:, 3:6] = embeds[:, 15:20] = torch.randn(1, 1, 32)

    with eah.enabled(model, CONFIG), torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        past.batch_repeat_interleave(2)
        with pytest.raises(eah.EAHStateError, match="split over forward passes"):
            model(inputs_embeds=embeds[:, 10:].repeat(2, 1, 1), past_key_values=past)


def test_a_pass_of_an_image_alone_behind_cached_text_is_found() -> None:
    model = tiny.tiny_llama()
    embeds = model.get_input_embeddings()(tiny.text_prompt()["input_ids"]).detach().clone()
    embeds[:, 10:] = torch.randn(1, 14, 32)

    with eah.enabled(model, CONFIG) as handle, torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        model(inputs_embeds=embeds[:, 10:], past_key_values=past, use_cache=True)
        assert handle.report()[0].image_tokens == (14,)


def asking_another(model: Any, embeds: torch.Tensor, handle: Any, found: list[Any]) -> Any:
    """Return a processor that asks a model a second prompt at the first step of `generate`."""

    def process(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not found:
            output = model(inputs_embeds=embeds, use_cache=True)
            found.extend((output.logits, handle.report()[0].image_tokens))
        return scores

    return process


def image_embeds(model: Any, length: int, span: tuple[int, int]) -> torch.Tensor:
    torch.manual_seed(3)
    embeds = model.get_input_embeddings()(torch.randint(3, 60, (1, length))).detach().clone()
    embeds[:, slice(*span)] = torch.randn(1, span[1] - span[0], 32)
    return embeds


def test_another_prompt_within_generate_is_a_prompt_of_its_own() -> None:
    """Contrastive decoding asks one that is longer."""
    model, found = tiny.tiny_llama(), []
    embeds = image_embeds(model, 60, (30, 50))

    with eah.enabled(model, CONFIG) as handle, torch.no_grad():
        expected = model(inputs_embeds=embeds, use_cache=True).logits
        model.generate(
            inputs_embeds=image_embeds(model, 24, SPAN), max_new_tokens=3, do_sample=False,
            logits_processor=[asking_another(model, embeds, handle, found)],
        )  # fmt: skip

    assert torch.equal(found[0], expected)
    assert found[1] == (20,)


@pytest.mark.parametrize("use_cache", [True, False])
def test_placeholders_that_grow_do_not_hide_the_prompts_end(use_cache: bool) -> None:
    """LLaVA's code gives `generate` one id for each image."""
    model = tiny.tiny_llama()
    model.__class__ = Growing
    model.pictures = torch.randn(1, IMAGE_TOKENS, 32)
    ids = torch.tensor([[5, 6, 7, -200, 8, 9, 10, 11]])

    def generate() -> list[int]:
        return model.generate(
            ids, max_new_tokens=5, min_new_tokens=5, do_sample=False, use_cache=use_cache
        ).tolist()[0][8:]

    with eah.enabled(model, CONFIG) as handle:
        found = generate()
        assert handle.report()[0].image_tokens == (IMAGE_TOKENS,)
        expected = by_hand(model, ids, 5)
    assert found == expected


class Growing(LlamaForCausalLM):
    """Puts the pictures in the place of one id."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        if (input_ids == -200).any():
            at = int((input_ids[0] == -200).nonzero())
            embed = self.get_input_embeddings()
            parts = [embed(input_ids[:, :at]), self.pictures, embed(input_ids[:, at + 1 :])]
            kwargs["position_ids"] = None
            return super().forward(inputs_embeds=torch.cat(parts, 1), **kwargs)
        return super().forward(input_ids=input_ids, **{**kwargs, "position_ids": None})


@torch.no_grad()
def by_hand(model: Any, ids: torch.Tensor, steps: int) -> list[int]:
    """Generate greedily with a cache, by calls of the model."""
    output, found = model(input_ids=ids, use_cache=True), []
    for _ in range(steps):
        found.append(int(output.logits[0, -1].argmax()))
        output = model(input_ids=torch.tensor([found[-1:]]), past_key_values=output.past_key_values)
    return found


def test_a_prompt_that_is_cut_behind_its_image_is_refused() -> None:
    model = tiny.tiny_llava()
    ids = tiny.image_prompt()

    with (
        eah.enabled(model, CONFIG),
        pytest.raises(eah.EAHStateError, match=r"or text that follows them"),
    ):
        model.generate(**ids, max_new_tokens=2, prefill_chunk_size=20)


@pytest.mark.parametrize("way", ["tuple output", "copied cache"])
def test_an_image_that_is_split_is_refused_however_the_cache_is_handed_on(way: str) -> None:
    model = tiny.tiny_llama()
    embeds = image_embeds(model, 24, SPAN)

    with eah.enabled(model, CONFIG), torch.no_grad():
        if way == "tuple output":
            past = model(inputs_embeds=embeds[:, :10], use_cache=True, return_dict=False)[1]
        else:
            past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
            past = copy.deepcopy(past)
        with pytest.raises(eah.EAHStateError, match="split over forward passes"):
            model(inputs_embeds=embeds[:, 10:], past_key_values=past, use_cache=True)


def test_an_image_behind_a_copied_cache_of_text_is_found() -> None:
    model = tiny.tiny_llama()
    embeds = image_embeds(model, 24, (12, 20))

    with eah.enabled(model, CONFIG) as handle, torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        for _ in range(2):
            model(inputs_embeds=embeds[:, 10:], past_key_values=copy.deepcopy(past))
            assert handle.report()[0].image_tokens == (8,)


def test_an_image_behind_a_cache_that_was_not_seen_is_refused() -> None:
    model = tiny.tiny_llama()
    embeds = image_embeds(model, 24, (12, 20))

    with torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        with eah.enabled(model, CONFIG), pytest.raises(eah.EAHStateError, match="10 cached tokens"):
            model(inputs_embeds=embeds[:, 10:], past_key_values=past)
