"""Original files load: every tensor in its place, against plain computations from their keys."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from models.blip import InstructBlip, MiniGPT4
from models.checkpoints.convert import model_shapes
from models.checkpoints.layouts import LAYOUTS
from models.checkpoints.plan import plan_tensors
from models.prompts import IMAGE
from scripts.data.convert_checkpoint import main as convert
from tests.models import layout_files as files
from tests.models import plain_forward as plain
from tests.models.layout_files import Original, write_llm, write_original, write_parts
from tests.models.toys import FAMILIES, PIECES, QUESTIONS, make_folder, pictures

TOWER = {
    "hidden_size": files.TOWER,
    "num_hidden_layers": files.BLOCKS,
    "num_attention_heads": files.TOWER_HEADS,
    "intermediate_size": files.TOWER_MLP,
    "image_size": files.IMAGE,
}
QFORMER = {
    "hidden_size": files.Q_WIDTH,
    "num_hidden_layers": files.Q_LAYERS,
    "num_attention_heads": files.Q_HEADS,
    "intermediate_size": files.Q_MLP,
    "vocab_size": files.Q_VOCABULARY,
}


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original files of EVA and Q-Former do not say how large they are."""
    for wrapper in (InstructBlip, MiniGPT4):
        monkeypatch.setattr(wrapper, "vision_sizes", TOWER)
        monkeypatch.setattr(wrapper, "qformer_sizes", QFORMER)
        monkeypatch.setattr(wrapper, "num_query_tokens", files.QUERIES)


@pytest.fixture(scope="module", params=FAMILIES)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    return write_original(request.param, tmp_path_factory.mktemp("original") / "files")


def load(original: Original, **changes: str) -> models.VLM:
    return models.load(original.family, parts={**original.parts, **changes}, device="cpu")


def plain_image_tokens(
    original: Original, pixels: torch.Tensor, vlm: models.VLM, eps: float = 1e-5
) -> torch.Tensor:
    """Return the image tokens of one picture and the first question, by plain computation."""
    tensors = original.tensors
    if original.family in ("llava-1.5", "shikra"):
        x = plain.clip(tensors["vision"], pixels, heads=files.TOWER_HEADS, layers=files.BLOCKS + 1)
        name = "model.mm_projector"
        if original.family == "shikra":
            return plain.linear(tensors["llm"], name, x)
        hidden = plain.gelu(plain.linear(tensors["llm"], f"{name}.0", x))
        return plain.linear(tensors["llm"], f"{name}.2", hidden)
    x = plain.eva(tensors["vision"], pixels, heads=files.TOWER_HEADS, blocks=files.BLOCKS)
    x = plain.norm(tensors["qformer"], "ln_vision", x, eps)
    shape = {"heads": files.Q_HEADS, "layers": files.Q_LAYERS}
    if original.family == "minigpt4":
        x = plain.qformer(tensors["qformer"], x, **shape)
        return plain.linear(tensors["projector"], "llama_proj", x)
    ids, mask = vlm.instruction_ids(QUESTIONS[:1])  # type: ignore[attr-defined]
    x = plain.qformer(tensors["qformer"], x, **shape, text=ids, text_mask=mask)
    return plain.linear(tensors["qformer"], "llm_proj", x)


def test_the_forward_pass_equals_a_plain_computation(original: Original) -> None:
    vlm = load(original)
    pixels = vlm.preprocess(pictures(1))
    llm = original.tensors["llm"]

    features = vlm.encode_pixels(pixels)
    prompts = vlm.embed_prompts(features, QUESTIONS[:1])
    with torch.inference_mode():
        logits = vlm.language_model(
            inputs_embeds=prompts.embeds, attention_mask=prompts.attention_mask
        ).logits

    image_tokens = plain_image_tokens(original, pixels, vlm)
    found = vlm.image_embeds(features, QUESTIONS[:1])
    torch.testing.assert_close(found, image_tokens)
    ids = vlm.prompt_ids(QUESTIONS[0])
    place = ids.index(IMAGE)
    table = llm["model.embed_tokens.weight"]
    embeds = torch.cat([table[ids[:place]], image_tokens[0], table[ids[place + 1 :]]])[None]
    expected = plain.llama(llm, embeds, heads=files.HEADS, layers=files.LAYERS, eps=1e-6)
    torch.testing.assert_close(logits, expected)
    assert image_tokens.std() > 0.1
    if original.family in ("instructblip", "minigpt4"):  # the test could tell ln_vision's eps
        other = plain_image_tokens(original, pixels, vlm, eps=1e-6)
        assert (other - image_tokens).abs().max() > 1e-4
    assert expected.std() > 0.1


def is_useless(family: str, name: str) -> bool:
    """Tensors that a model has no use for, by the facts."""
    return (
        name.endswith(("position_ids", "inv_freq"))
        or name.startswith(("text_", "visual_projection", "logit_scale", "t5_proj"))
        or name.startswith(f"blocks.{files.BLOCKS}.")
    )


def parameters_of(original: Original) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters that the original files fill."""
    settings = models.model_settings(original.family)
    wrapper = models.wrapper_of(settings)
    checkpoint = wrapper.find(settings, None, original.parts)
    return model_shapes(wrapper.model_class, wrapper.config(checkpoint))


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("change", ["drop", "rename", "reshape", "nothing"])
def test_one_tensor_amiss_is_an_error_that_names_it(original: Original, change: str) -> None:
    """Every tensor of every file, one after the other, in the plan that loading follows."""
    parameters = parameters_of(original)
    layout = LAYOUTS[original.family]
    every = {part: shapes(tensors) for part, tensors in original.tensors.items()}
    used = 0
    for part, tensors in original.tensors.items():
        for name in tensors:
            if is_useless(original.family, name):
                continue
            used += 1
            amiss = dict(every[part])
            shape = amiss.pop(name)
            if change == "rename":
                amiss[f"{name}_other"] = shape
            elif change == "reshape":
                amiss[name] = (*shape, 2)
            elif change == "nothing":
                amiss[name] = shape
            arguments = (parameters, layout, {**every, part: amiss}, dict.fromkeys(every, "file"))
            if change == "nothing":
                plan_tensors(*arguments)
                continue
            with pytest.raises(models.ModelError) as error:
                plan_tensors(*arguments)
            named = (f"lacks {name} of the", f"contains {name} of shape", f"contains {name}_other")
            assert any(text in str(error.value) for text in named), (name, error.value)
    assert used > 60


def test_a_layer_too_many_is_an_error(original: Original) -> None:
    """Its name fits a rule, but the model has no such layer."""
    every = {part: shapes(tensors) for part, tensors in original.tensors.items()}
    more = next(name for name in every["llm"] if ".layers.0." in name).replace("rs.0.", "rs.77.")
    every["llm"][more] = (2, 2)

    with pytest.raises(
        models.ModelError, match=rf"contains {more}, which this model does not have"
    ):
        plan_tensors(
            parameters_of(original), LAYOUTS[original.family], every, dict.fromkeys(every, "file")
        )


def test_each_parameter_is_filled_once_where_a_later_part_holds_it_too(tmp_path: Path) -> None:
    original = write_original("llava-1.5", tmp_path / "original")
    every = {part: shapes(tensors) for part, tensors in original.tensors.items()}
    name = "vision_model.encoder.layers.0.mlp.fc1.bias"
    copied = f"model.vision_tower.vision_tower.{name}"
    every["llm"][copied] = every["vision"][name]

    plan = plan_tensors(
        parameters_of(original), LAYOUTS["llava-1.5"], every, dict.fromkeys(every, "file")
    )

    assert copied in plan["llm"]
    assert name not in plan["vision"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dropped_tensor_fails_the_load(tmp_path: Path, family: str) -> None:
    original = write_original(family, tmp_path / "whole")
    tensors = {part: dict(found) for part, found in original.tensors.items()}
    name = {
        "llava-1.5": "vision_model.encoder.layers.1.mlp.fc1.bias",
        "shikra": "vision_model.pre_layrnorm.weight",
        "instructblip": "blocks.1.attn.v_bias",
        "minigpt4": "blocks.0.attn.q_bias",
    }[family]
    del tensors["vision"][name]
    parts = write_parts(family, tensors, tmp_path / "holed")

    with pytest.raises(models.ModelError, match=rf"vision .* lacks {name} of the \d+ weights"):
        load(replace(original, parts=parts))


def test_the_text_half_of_instructblips_qformer_must_be_there(tmp_path: Path) -> None:
    """A file of BLIP-2's second stage has none; the reference would leave it random."""
    original = write_original("instructblip", tmp_path / "whole")
    tensors = dict(original.tensors)
    tensors["qformer"] = files.qformer_tensors(text=False) | files.linear_tensors(
        "llm_proj", files.WIDTH, files.Q_WIDTH, 5
    )
    parts = write_parts("instructblip", tensors, tmp_path / "holed")

    with pytest.raises(models.ModelError, match=r"lacks Qformer\.bert\.\S+ and \d+ more"):
        load(replace(original, parts=parts))


def test_a_text_half_in_minigpt4s_qformer_is_left_aside(tmp_path: Path) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    tensors = dict(original.tensors)
    tensors["qformer"] = {
        **files.qformer_tensors(text=True, seed=9),
        **tensors["qformer"],
        "Qformer.cls.predictions.bias": torch.zeros(60),
    }
    parts = write_parts("minigpt4", tensors, tmp_path / "more")
    decoding = models.Decoding(max_new_tokens=4)

    plain_model, model = load(original), load(replace(original, parts=parts))

    assert model.generate(pictures(1)[0], "What?", decoding) == plain_model.generate(
        pictures(1)[0], "What?", decoding
    )


def test_a_tower_in_instructblips_file_replaces_eva_vit_g(tmp_path: Path) -> None:
    original = write_original("instructblip", tmp_path / "whole")
    tensors = dict(original.tensors)
    other = files.eva_tensors(blocks=files.BLOCKS, prefix="visual_encoder.", seed=77)
    tensors["qformer"] = {**tensors["qformer"], **other}
    parts = write_parts("instructblip", tensors, tmp_path / "more")

    vlm = load(replace(original, parts=parts))

    layer = vlm.model.vision_model.encoder.layers[1].self_attn
    prefix = "visual_encoder.blocks.1.attn"
    assert torch.equal(layer.qkv.weight, other[f"{prefix}.qkv.weight"])
    assert torch.equal(layer.qkv.bias[: files.TOWER], other[f"{prefix}.q_bias"])
    assert not layer.qkv.bias[files.TOWER : 2 * files.TOWER].any()


def test_a_full_dump_of_llava_brings_its_own_tower(tmp_path: Path) -> None:
    original = write_original("llava-1.5", tmp_path / "whole")
    tensors = dict(original.tensors)
    tower = {
        f"model.vision_tower.vision_tower.{name}": tensor + 1
        for name, tensor in original.tensors["vision"].items()
        if name.startswith("vision_model.") and tensor.is_floating_point()
    }
    tensors["llm"] = {**tensors["llm"], **tower}
    parts = write_parts("llava-1.5", tensors, tmp_path / "more")

    found = load(replace(original, parts=parts)).model.state_dict()

    (name,) = [key for key in found if key.endswith("vision_model.pre_layrnorm.weight")] or [
        key for key in found if key.endswith("vision_tower.pre_layrnorm.weight")
    ]
    assert torch.equal(
        found[name], original.tensors["vision"]["vision_model.pre_layrnorm.weight"] + 1
    )


def test_safetensors_shards_load_as_pickled_ones_do(tmp_path: Path) -> None:
    original = write_original("shikra", tmp_path / "whole")
    safe = write_llm(tmp_path / "safe", original.tensors["llm"], "shikra", safe=True)

    pickled, mapped = load(original), load(original, llm=str(safe))

    for name, tensor in pickled.model.state_dict().items():
        assert torch.equal(tensor, mapped.model.state_dict()[name])


def test_one_folder_with_all_parts_is_recognised(original: Original) -> None:
    folder = Path(original.parts["llm"]).parent

    found = models.load(original.family, checkpoint=str(folder), device="cpu")

    assert found.model.state_dict().keys() == load(original).model.state_dict().keys()
    described = models.describe(original.family, checkpoint=str(folder), device="cpu")
    assert described == models.describe(original.family, parts=original.parts, device="cpu")


def test_a_converted_folder_answers_bitwise_as_the_originals_and_needs_none_of_them(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "originals"
    shutil.copytree(Path(original.parts["llm"]).parent, copied)
    before = load(original)
    target = tmp_path / "made/converted"

    assert convert(["--model", original.family, "--from", str(copied), "--to", str(target)]) == 0
    shutil.rmtree(copied)
    after = models.load(original.family, checkpoint=str(target), device="cpu")

    assert f"--model {original.family} --checkpoint {target}" in capsys.readouterr().out
    assert {path.name for path in target.parent.iterdir()} == {"converted"}
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, after.model.state_dict()[name])
    decoding = models.Decoding(max_new_tokens=6)
    answers = [
        vlm.generate_batch(vlm.encode_images(pictures()), QUESTIONS, decoding)
        for vlm in (before, after)
    ]
    assert answers[0] == answers[1]
    assert convert(["--model", original.family, "--from", str(target), "--to", str(target)]) == 2
    assert "is in transformers' format already; use it as it is" in capsys.readouterr().err


def test_a_converted_folder_keeps_each_tensors_precision(tmp_path: Path) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    tensors = dict(original.tensors)
    tensors["llm"] = {name: tensor.half() for name, tensor in tensors["llm"].items()}
    parts = write_parts("minigpt4", tensors, tmp_path / "half")
    flags = [word for part, path in parts.items() for word in (f"--{part}", path)]

    assert convert(["--model", "minigpt4", *flags, "--to", str(tmp_path / "to")]) == 0

    from safetensors import safe_open

    with safe_open(tmp_path / "to/model.safetensors", "pt") as file:
        assert file.get_tensor("language_model.lm_head.weight").dtype == torch.float16
        assert file.get_tensor("language_projection.weight").dtype == torch.float32


def test_wrong_ids_in_vicunas_config_do_not_reach_generation(tmp_path: Path) -> None:
    vlm = load(write_original("minigpt4", tmp_path / "whole"))

    config = vlm.generation_config(models.Decoding())

    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert vlm.language_model.config.eos_token_id == 2


@pytest.mark.parametrize(
    ("family", "part", "words"),
    [
        ("minigpt4", "vision", ["eva_vit_g.pth", "https://", "pass it with --vision"]),
        ("minigpt4", "qformer", ["blip2_pretrained_flant5xxl.pth", "--qformer"]),
        ("minigpt4", "projector", ["pretrained_minigpt4_7b.pth", "MiniGPT-4's README"]),
        ("instructblip", "qformer", ["instruct_blip_vicuna7b_trimmed.pth", "https://"]),
        ("shikra", "llm", ["apply_delta.py", "pass it with --llm"]),
    ],
)
def test_a_missing_part_says_which_file_and_where_it_is_had(
    tmp_path: Path, family: str, part: str, words: list[str]
) -> None:
    original = write_original(family, tmp_path / "whole")
    parts = {name: path for name, path in original.parts.items() if name != part}

    with pytest.raises(models.ModelError) as error:
        models.load(family, parts=parts, device="cpu")

    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_vicuna_v0_is_refused_where_v1_1_is_needed(tmp_path: Path) -> None:
    original = write_original("instructblip", tmp_path / "whole")
    v0 = write_llm(tmp_path / "v0", files.llm_tensors(PIECES + 1))

    with pytest.raises(models.ModelError, match=r"641 embeddings for 640 tokens, as Vicuna v0"):
        load(original, llm=str(v0))


def test_vicuna_v1_1_is_warned_of_where_v0_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    v1 = write_llm(tmp_path / "v1", files.llm_tensors(PIECES))

    with caplog.at_level(logging.WARNING):
        load(original)
        assert not caplog.records
        load(original, llm=str(v1))

    assert "Vicuna v0, which MiniGPT-4 was trained with, has one more" in caplog.text


@pytest.mark.parametrize("family", ["shikra", "minigpt4"])
def test_delta_weights_are_refused(tmp_path: Path, family: str) -> None:
    original = write_original(family, tmp_path / "whole")
    deltas = {
        name: tensor * 1e-3 if "mm_projector" not in name else tensor
        for name, tensor in original.tensors["llm"].items()
    }
    kind = "shikra" if family == "shikra" else "llama"
    folder = write_llm(tmp_path / "delta", deltas, kind)

    with pytest.raises(
        models.ModelError, match=r"contains delta weights.*apply_delta.*--base LLAMA"
    ):
        load(original, llm=str(folder))


def test_other_models_and_swapped_files_are_refused(tmp_path: Path) -> None:
    minigpt4 = write_original("minigpt4", tmp_path / "minigpt4")
    llava = write_original("llava-1.5", tmp_path / "llava")
    qformer, eva = minigpt4.parts["qformer"], minigpt4.parts["vision"]

    with pytest.raises(models.ModelError, match=r"vision .* contains .* does not have"):
        load(minigpt4, vision=qformer)
    with pytest.raises(models.ModelError, match=r"projector .* contains .* does not have"):
        load(minigpt4, projector=eva)
    with pytest.raises(models.ModelError, match=r"has model_type 'llava' .* 'llama' is needed"):
        load(minigpt4, llm=llava.parts["llm"])
    with pytest.raises(models.ModelError, match=r"model_type 'llama' .* but CLIP is needed"):
        load(llava, vision=minigpt4.parts["llm"])
    with pytest.raises(models.ModelError, match="has no separate part 'projector'"):
        load(llava, projector=eva)
    toy = make_folder("instructblip", tmp_path / "toy")
    with pytest.raises(models.ModelError, match=r"model_type 'instructblip' .* needs 'blip-2'"):
        models.load("minigpt4", checkpoint=str(toy), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(models.ModelError, match="none of a model's original files"):
        models.load("minigpt4", checkpoint=str(tmp_path / "empty"), device="cpu")


def test_a_model_of_another_size_is_refused(tmp_path: Path) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    torch.save(
        {"model": files.linear_tensors("llama_proj", 80, files.Q_WIDTH, 7)}, tmp_path / "13b.pth"
    )

    with pytest.raises(
        models.ModelError, match=r"llama_proj.weight of shape \(80, 32\), but .*\(64, 32\)"
    ):
        load(original, projector=str(tmp_path / "13b.pth"))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, keep: float) -> None:
    original = write_original("shikra", tmp_path / "whole")
    shard = sorted(Path(original.parts["llm"]).glob("*.bin"))[1]
    safe = write_llm(tmp_path / "safe", original.tensors["llm"], "shikra", safe=True)
    other = sorted(safe.glob("*.safetensors"))[0]
    for path in (shard, other):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    for llm, name in ((original.parts["llm"], shard.name), (str(safe), other.name)):
        with pytest.raises(models.ModelError, match=r"truncated") as error:
            load(original, llm=llm)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    original = write_original("llava-1.5", tmp_path / "whole")
    (Path(original.parts["llm"]) / "pytorch_model-00002-of-00002.bin").unlink()

    with pytest.raises(models.ModelError, match=r"1 of 2 shards .* pytorch_model-00002-of-00002"):
        load(original)


class Payload:
    """What an attacker's file would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('owned').touch()",)


def test_nothing_in_a_pickled_file_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    torch.save({"model": original.tensors["projector"], "x": Payload()}, tmp_path / "bad.pth")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(models.ModelError, match="more than tensors and plain values"):
        load(original, projector=str(tmp_path / "bad.pth"))

    assert not (tmp_path / "owned").exists()


def test_files_of_old_torch_versions_load(tmp_path: Path) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    tensors = original.tensors["projector"]
    old = tmp_path / "old.pth"
    torch.save({"model": tensors}, old, _use_new_zipfile_serialization=False)

    vlm = load(original, projector=str(old))

    assert torch.equal(vlm.model.language_projection.weight, tensors["llama_proj.weight"])


def test_parts_decide_the_runs_identity(tmp_path: Path) -> None:
    original = write_original("minigpt4", tmp_path / "whole")
    before = models.describe("minigpt4", parts=original.parts, device="cpu").weights
    torch.save(
        {"model": files.linear_tensors("llama_proj", files.WIDTH, files.Q_WIDTH, 99)},
        tmp_path / "other.pth",
    )
    parts = {**original.parts, "projector": str(tmp_path / "other.pth")}

    assert models.describe("minigpt4", parts=original.parts, device="cpu").weights == before
    assert models.describe("minigpt4", parts=parts, device="cpu").weights != before
