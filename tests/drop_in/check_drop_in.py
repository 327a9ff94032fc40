"""The drop-in inside a transformers install: run by scripts/test_matrix.sh in one after the other.

Needs torch, transformers and pytest only, and a transformers in which EAH's file is swapped in.
What it is compared with is the original file beside it, loaded once more under another name, and
the authors' arithmetic written out here from its description.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
KERNELS = ["eager", "sdpa"] if VERSION >= (4, 36) else ["eager"]
SPAN = (3, 19)
SETTINGS = {"EAH_IMAGE_SPAN": "3:19", "EAH_LAYERS": "1", "EAH_THRESHOLD": "0.05"}
NEW_TOKENS = 8


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Start from the settings of these tests, whatever the caller's environment has."""
    for name in [*os.environ]:
        if name.startswith("EAH_") or name in ("LAYER_NUM", "THRES", "HEAD_NUM"):
            monkeypatch.delenv(name)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """Return the original file once more, under a name of its own, untouched by EAH."""
    path = Path(modeling_llama.__file__).with_name("modeling_llama_original.py")
    name = "transformers.models.llama.plain_llama"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def tally(environment: pytest.MonkeyPatch) -> Any:
    """Let each test start as a process does: nothing counted, nothing said yet."""
    tally = modeling_llama.TALLY
    for name, value in vars(type(tally)()).items():
        environment.setattr(tally, name, value)
    environment.setattr(tally, "_process", -1)  # what a test did is not shown at exit
    return tally


def tiny_config(kernel: str = "eager", **changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2 if VERSION >= (4, 31) else 4,
        "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    } | changes  # fmt: skip
    config = LlamaConfig(**settings)
    if VERSION >= (4, 36):
        config._attn_implementation = kernel
    return config


def build(cls: Any = LlamaForCausalLM, kernel: str = "eager", **changes: Any) -> Any:
    """Return a model whose heads differ, the same weights whatever the class."""
    torch.manual_seed(0)
    model = cls(tiny_config(kernel, **changes)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            scale = 0.6 if "proj" in name else 0.3
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.1 * noise if "norm" in name else scale * noise)
    return model


def prompts(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a left-padded batch of random prompts and its mask."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.randint(3, 64, (length,), generator=generator)
        mask[row, -length:] = 1
    return ids, mask


@torch.no_grad()
def logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    return model(**inputs).logits


@torch.no_grad()
def prefill_and_steps(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """Return the logits of a prompt, and of three decode steps after it."""
    output = model(input_ids=ids, attention_mask=mask, use_cache=True)
    found = [output.logits]
    for _ in range(3):
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        output = model(input_ids=found[-1][:, -1:].argmax(-1), attention_mask=mask,
                       past_key_values=output.past_key_values, use_cache=True)  # fmt: skip
        found.append(output.logits)
    return found


def generated(model: Any, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> list[Any]:
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS,
                             min_new_tokens=NEW_TOKENS, do_sample=False, **options)  # fmt: skip
    return out[:, ids.shape[1] :].tolist()


def sharing_layers(model: Any) -> list[int]:
    layers = getattr(model, "model", model).layers
    return [i for i, layer in enumerate(layers) if type(layer.self_attn).__name__.startswith("EAH")]


# The authors' file -------------------------------------------------------------------------------


def released(weights: torch.Tensor) -> torch.Tensor:
    """Share a head as the authors' file does, head by head (facts: layer 15, row 0, 36:611)."""
    own = 1 - torch.eye(weights.shape[-1], dtype=weights.dtype)
    best, most = 0, -1
    for head in range(weights.shape[1]):
        column = (weights[0, head] * own)[:, 36:611].sum(0) / torch.arange(611, 36, -1)
        count = int((column > 0.0008).sum())
        if count > most:
            best, most = head, count
    if best > 0:
        weights = weights.clone()
        weights[0, :] = weights[0, best].clone()
    return weights


class ReleasedSoftmax:
    """`torch.nn.functional`, whose sixteenth softmax of a forward pass is the authors'."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(nn.functional, name)

    def softmax(self, scores: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        weights = nn.functional.softmax(scores, *args, **kwargs)
        self.calls += 1
        return released(weights) if self.calls == 16 else weights


@pytest.fixture(scope="session")
def golden(shared: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(shared / "golden/llama_official_eah.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def golden_model(cls: Any, golden: Any, kernel: str) -> Any:
    tensors, metadata = golden
    settings = json.loads(metadata["config"])
    known = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size",
             "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
             "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id",
             "pad_token_id")  # fmt: skip
    config = LlamaConfig(**{name: settings[name] for name in known})
    if VERSION >= (4, 36):
        config._attn_implementation = kernel
    model = cls(config).eval()
    weights = {n[len("weights.") :]: t for n, t in tensors.items() if n.startswith("weights.")}
    missing, _ = model.load_state_dict(weights, strict=False)
    assert all("rotary" in name for name in missing)
    return model


@pytest.mark.parametrize("kernel", KERNELS)
def test_golden_tokens_of_the_authors_file(
    golden: Any, kernel: str, environment: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        environment.delenv(name)
    environment.setenv("EAH_PRESET", "released-code")
    tensors, metadata = golden
    model = golden_model(LlamaForCausalLM, golden, kernel)
    assert sharing_layers(model) == [15]

    for length in json.loads(metadata["lengths"]):
        ids = tensors[f"ids.{length}"].reshape(1, -1)
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24,
                                 do_sample=False)  # fmt: skip
        assert (
            out[0, ids.shape[1] :].tolist()
            == tensors[f"generated_eah.{length}"].flatten().tolist()[-24:]
        )


def test_logits_are_bitwise_those_of_the_authors_arithmetic(
    golden: Any, plain: ModuleType, environment: pytest.MonkeyPatch
) -> None:
    """Eager attention, on this machine: the golden logits are of another one's matrix products."""
    for name in SETTINGS:
        environment.delenv(name)
    environment.setenv("EAH_PRESET", "released-code")
    tensors, metadata = golden
    model = golden_model(LlamaForCausalLM, golden, "eager")
    oracle = golden_model(plain.LlamaForCausalLM, golden, "eager")

    for length in json.loads(metadata["lengths"]):
        ids = tensors[f"ids.{length}"].reshape(1, -1)
        functional = ReleasedSoftmax()
        proxy = SimpleNamespace(**{**vars(nn), "functional": functional})
        environment.setattr(plain, "nn", proxy)
        expected = logits(oracle, input_ids=ids)
        assert functional.calls == 18

        assert torch.equal(logits(model, input_ids=ids), expected)


# Off, and around the target layers ---------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_disabled_is_bitwise_the_original(
    plain: ModuleType, kernel: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("EAH_DISABLE", "1")
    ids, mask = prompts([30, 24])
    model, other = build(kernel=kernel), build(plain.LlamaForCausalLM, kernel)

    assert sharing_layers(model) == []
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(
        prefill_and_steps(model, ids, mask), prefill_and_steps(other, ids, mask), strict=True
    ))  # fmt: skip
    assert generated(model, ids, mask) == generated(other, ids, mask)


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_changes_prompts_with_an_image_and_nothing_else(plain: ModuleType, kernel: str) -> None:
    ids, _ = prompts([30])
    model, other = build(kernel=kernel), build(plain.LlamaForCausalLM, kernel)

    assert sharing_layers(model) == [1]
    assert not torch.allclose(logits(model, input_ids=ids), logits(other, input_ids=ids), atol=1e-3)
    short = ids[:, : SPAN[1] - 1]
    assert torch.equal(logits(model, input_ids=short), logits(other, input_ids=short))


@pytest.mark.parametrize("kernel", KERNELS)
def test_decode_steps_are_bitwise_the_originals(plain: ModuleType, kernel: str) -> None:
    """The same cache, filled by EAH's prefill, read by the model and by the original."""
    ids, mask = prompts([30, 24])
    model, other = build(kernel=kernel), build(plain.LlamaForCausalLM, kernel)
    more = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)

    steps = []
    for decoder in (model, other):
        with torch.no_grad():
            past = model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
            steps.append(decoder(input_ids=ids[:, :1], attention_mask=more, past_key_values=past,
                                 use_cache=True).logits)  # fmt: skip

    assert torch.equal(*steps)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_map_shared_is_one_heads(kernel: str, environment: pytest.MonkeyPatch) -> None:
    """With head 2 named, every head attends with the query and key of head 2."""
    environment.setenv("EAH_HEAD", "2")
    ids, _ = prompts([30])
    model = build(kernel=kernel)
    environment.setenv("EAH_DISABLE", "1")
    oracle = build(kernel=kernel)
    attention = oracle.model.layers[1].self_attn
    size = 32 // 4
    group = 2 if VERSION >= (4, 31) else 1
    with torch.no_grad():
        for projection, head, heads in (
            (attention.q_proj, 2, 4), (attention.k_proj, 2 // group, 4 // group),
        ):  # fmt: skip
            rows = projection.weight[head * size : (head + 1) * size]
            projection.weight.copy_(rows.repeat(heads, 1))

    torch.testing.assert_close(logits(model, input_ids=ids), logits(oracle, input_ids=ids))


def test_a_short_prompt_warns_once(capsys: pytest.CaptureFixture[str]) -> None:
    model = build()
    ids, _ = prompts([SPAN[1] - 1])

    for _ in range(3):
        logits(model, input_ids=ids)

    assert [line for line in capsys.readouterr().err.splitlines() if "too short" in line] == [
        "EAH: a prompt of 18 tokens is too short for the image tokens 3:19, so it runs without "
        "EAH; set EAH_IMAGE_SPAN=auto, or give their positions with image_tokens()"
    ]


# Batches, beams, embeddings ----------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_left_padded_batch_is_its_prompts_one_by_one(kernel: str, beams: int) -> None:
    model = build(kernel=kernel)
    ids, mask = prompts([30, 22, 27, 40])

    together = generated(model, ids, mask, num_beams=beams)

    for row, length in enumerate(mask.sum(1).tolist()):
        alone = generated(model, ids[row : row + 1, -length:], mask[row : row + 1, -length:],
                          num_beams=beams)  # fmt: skip
        assert together[row] == alone[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_image_tokens_says_where_they_are(kernel: str, environment: pytest.MonkeyPatch) -> None:
    ids, mask = prompts([30, 24])
    by_environment = logits(build(kernel=kernel), input_ids=ids, attention_mask=mask)
    environment.setenv("EAH_IMAGE_SPAN", "100:110")
    model = build(kernel=kernel)
    columns = torch.zeros_like(mask, dtype=torch.bool)
    for row, pad in enumerate((0, 6)):
        columns[row, pad + SPAN[0] : pad + SPAN[1]] = True

    for given in (SPAN, columns):
        with modeling_llama.image_tokens(given):
            found = logits(model, input_ids=ids, attention_mask=mask)
        assert torch.equal(found, by_environment)
    with pytest.raises(ValueError, match="image span"), modeling_llama.image_tokens((5, 5)):
        pass


class LlavaStyleModel(modeling_llama.LlamaModel):
    """What LLaVA's own repository does: a subclass that is fed embeddings."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class LlavaStyleForCausalLM(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlavaStyleModel(config)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_subclass_fed_with_embeddings_works(kernel: str) -> None:
    ids, mask = prompts([30, 26])
    model, other = build(LlavaStyleForCausalLM, kernel), build(kernel=kernel)

    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
    found = logits(model, inputs_embeds=embeds, attention_mask=mask)

    assert sharing_layers(model) == [1]
    assert torch.equal(found, logits(other, input_ids=ids, attention_mask=mask))


# It is the original's module ---------------------------------------------------------------------


def test_every_name_of_the_original_resolves(plain: ModuleType) -> None:
    missing = [name for name in dir(plain) if not hasattr(modeling_llama, name)]

    assert missing == []
    assert modeling_llama.LlamaForCausalLM.__module__ == "transformers.models.llama.modeling_llama"


def test_all_ways_to_import_it_give_the_same_class() -> None:
    from transformers.models.llama import LlamaForCausalLM as of_package
    from transformers.models.llama import modeling_llama_original

    assert of_package is LlamaForCausalLM is modeling_llama.LlamaForCausalLM
    assert modeling_llama_original.LlamaForCausalLM is LlamaForCausalLM


def test_sources_and_docstrings_are_the_originals(plain: ModuleType) -> None:
    source = inspect.getsource(LlamaForCausalLM)
    documented = modeling_llama.LlamaForCausalLM.forward.__doc__

    assert source.lstrip("@").find("class LlamaForCausalLM") >= 0
    assert "input_ids" in inspect.signature(modeling_llama.LlamaModel.forward).parameters
    assert "ModelConfig" not in (documented or "")
    assert len(documented or "") >= len(plain.LlamaForCausalLM.forward.__doc__ or "")


def test_auto_classes_load_a_saved_folder(tmp_path: Path) -> None:
    model = build(kernel=KERNELS[-1])
    model.save_pretrained(tmp_path)
    ids, _ = prompts([30])

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()

    assert sharing_layers(loaded) == [1]
    torch.testing.assert_close(logits(loaded, input_ids=ids), logits(model, input_ids=ids))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_work_on_their_own(duplicate: Any) -> None:
    model = build()
    ids, mask = prompts([30, 24])
    expected = logits(model, input_ids=ids, attention_mask=mask)

    other = duplicate(model)
    del model

    assert torch.equal(logits(other, input_ids=ids, attention_mask=mask), expected)


def test_a_pickle_loads_where_no_model_was_built_yet(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(build()))
    code = "import pickle, sys; print(type(pickle.load(open(sys.argv[1], 'rb'))).__name__)"

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pkl")],
                          capture_output=True, text=True, check=True)  # fmt: skip

    assert done.stdout.strip() == "LlamaForCausalLM"


def test_weights_are_the_originals(plain: ModuleType) -> None:
    assert build().state_dict().keys() == build(plain.LlamaForCausalLM).state_dict().keys()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_left_alone_and_said_once(
    checkpointing: bool, plain: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, mask = prompts([30, 24])
    gradients = []
    for cls in (LlamaForCausalLM, plain.LlamaForCausalLM):
        model = build(cls).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        for _ in range(2):
            output = model(input_ids=ids, attention_mask=mask, use_cache=False)
        output.logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))
    said = [line for line in capsys.readouterr().err.splitlines() if "training mode" in line]
    assert said == [
        "EAH: LlamaModel is in training mode, so it runs without EAH; call model.eval() for EAH"
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_compiled_model_gives_the_same(kernel: str) -> None:
    model = build(kernel=kernel)
    ids, mask = prompts([30, 24])
    expected = logits(model, input_ids=ids, attention_mask=mask)
    torch._dynamo.reset()

    compiled = torch.compile(model, backend="eager")

    torch.testing.assert_close(logits(compiled, input_ids=ids, attention_mask=mask), expected)


# Settings and refusals ---------------------------------------------------------------------------


def test_the_names_of_the_papers_release_work(environment: pytest.MonkeyPatch) -> None:
    for name in ("EAH_LAYERS", "EAH_THRESHOLD"):
        environment.delenv(name)
    environment.setenv("LAYER_NUM", "2")
    environment.setenv("HEAD_NUM", "3")
    environment.setenv("THRES", "0.01")

    model = build()

    assert sharing_layers(model) == [2]
    config = model.model.eah_state.settings.config
    assert (config.head, config.threshold) == (3, 0.01)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EAH_LAYERS", "9", "has 3 decoder layers"),
        ("EAH_LAYERS", "one", "EAH_LAYERS='one' can't be used"),
        ("EAH_THRESHOLD", "2", "threshold=2.0, but a mean attention weight is in"),
        ("EAH_HEAD", "9", "has 4 heads"),
        ("EAH_HEAD", "-1", "head=-1"),
        ("EAH_IMAGE_SPAN", "9:3", "EAH_IMAGE_SPAN='9:3' can't be used"),
        ("EAH_PRESET", "papr", "EAH_PRESET='papr', but it is one of"),
    ],
)
def test_unusable_settings_are_one_sentence(
    name: str, value: str, message: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(name, value)

    with pytest.raises(ValueError, match=message):
        build()


def test_defaults_leave_a_model_alone_that_lacks_the_layer(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("EAH_LAYERS")

    assert sharing_layers(build(num_hidden_layers=1)) == []
    assert (
        "EAH: LlamaModel has no layer [1], so EAH does not act there\n" in capsys.readouterr().err
    )


def test_an_attention_class_of_somebody_else_is_refused() -> None:
    model = build()
    layer = model.model.layers[0]
    layer.self_attn.__class__ = type("OtherAttention", (type(layer.self_attn),), {})

    with pytest.raises(ValueError, match="does not know OtherAttention of layer 0"):
        modeling_llama._patch_attention(layer, model.model.eah_state, 0, modeling_llama)


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flex_attention"])
def test_a_kernel_that_hides_its_map_is_refused_when_the_model_is_built(kernel: str) -> None:
    model = build()
    layer = model.model.layers[0]
    layer.self_attn.config = copy.copy(layer.self_attn.config)
    layer.self_attn.config._attn_implementation = kernel

    with pytest.raises(
        ValueError, match=f"can't share a head in layer 0: its attention is {kernel}"
    ):
        modeling_llama._patch_attention(layer, model.model.eah_state, 0, modeling_llama)


def test_a_kernel_that_hides_its_map_is_refused_at_the_first_prompt(
    environment: pytest.MonkeyPatch,
) -> None:
    model = build()
    base = type(model.model.layers[1].self_attn).__mro__[2]
    rest = (None,) if VERSION >= (4, 48) else (None, None)
    environment.setattr(base, "forward", lambda self, hidden_states, **_: (hidden_states, *rest))
    ids, _ = prompts([30])

    with pytest.raises(TypeError, match=r"EAH saw no softmax .* in layer 1"):
        logits(model, input_ids=ids)
