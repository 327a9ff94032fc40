"""Code that a swap can't reach, as real repositories write it, and code like it that is reached."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import transformers

from eah import swap
from eah.swap.content import validate_supported
from eah.swap.reach import main
from eah.swap.reach.classes import SWAPPABLE

COPY = """
    import torch
    from torch import nn

    class LlamaAttention(nn.Module):
        def forward(self, hidden_states):
            return hidden_states

    class LlamaDecoderLayer(nn.Module):
        def __init__(self, config):
            self.self_attn = LlamaAttention()

    class LlamaModel(LlamaPreTrainedModel):
        def __init__(self, config):
            self.layers = nn.ModuleList([LlamaDecoderLayer(config)])

    class LlamaForCausalLM(LlamaPreTrainedModel):
        pass
"""
REACHED = """
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

    class LlavaConfig(LlamaConfig):
        model_type = "llava"

    class LlavaLlamaModel(LlavaMetaModel, LlamaModel):
        config_class = LlavaConfig

    class ShikraLlamaModel(LlamaModel):
        def forward(self, input_ids, inputs_embeds=None):
            return super(ShikraLlamaModel, self).forward(inputs_embeds=inputs_embeds)

    class ByName(LlamaModel):
        def forward(self, **kwargs):
            return LlamaModel.forward(self, **kwargs)

    class LlavaLlamaForCausalLM(LlamaForCausalLM, LlavaMetaForCausalLM):
        def forward(self, input_ids):
            return self.model(input_ids)
"""

Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Return a function that writes files, and gives the command's status and lines on them."""

    def run(files: dict[str, str]) -> tuple[int, list[str]]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), encoding="utf-8")
        status = main([str(tmp_path)])
        output = capsys.readouterr()
        assert output.err == ""
        return status, output.out.splitlines()

    return run


def findings(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.startswith("  ") and line[2] not in " -"]


def found_in(check: Check, text: str, name: str = "code.py") -> list[str]:
    status, lines = check({name: text})
    assert status == (1 if findings(lines) else 0)
    return findings(lines)


# Copies ------------------------------------------------------------------------------------------


def test_a_copy_is_named_with_what_imports_it(check: Check) -> None:
    status, lines = check({
        "minigpt4/models/modeling_llama.py": COPY,
        "minigpt4/models/mini_gpt4.py": "import os\nfrom minigpt4.models.modeling_llama import X\n",
        "minigpt4/models/near.py": "from . import modeling_llama\n",
        "minigpt4/models/nearer.py": "from .modeling_llama import LlamaForCausalLM\n",
        "minigpt4/up.py": "from ..minigpt4.models import modeling_llama\n",
        "other.py": "from transformers.models.llama.modeling_llama import LlamaModel\n",
        "elsewhere/modeling_llama_tools.py": "import modeling_llama\n",
    })  # fmt: skip

    assert status == 1
    assert findings(lines) == [
        "minigpt4/models/modeling_llama.py:5  class LlamaAttention, with LlamaModel"
    ]
    assert lines[2].strip() == (
        "imported by minigpt4/models/mini_gpt4.py:2, minigpt4/models/near.py:1, "
        "minigpt4/models/nearer.py:1, minigpt4/up.py:1"
    )
    assert "python -m eah.swap install --file PATH" in lines[3]


def test_a_copy_that_nothing_imports_says_so(check: Check) -> None:
    _, lines = check({"modeling_llama.py": COPY})

    assert "      imported by no file here" in lines


def test_many_importers_are_counted(check: Check) -> None:
    users = {f"user_{i}.py": "import modeling_llama\n" for i in range(9)}
    _, lines = check({"modeling_llama.py": COPY, **users})

    assert lines[2].endswith("user_5.py:1 and 3 more")


def test_attention_like_llamas_is_found_under_another_name(check: Check) -> None:
    text = """
        class {name}(nn.Module):
            def __init__(self, config):
                self.q_proj, self.k_proj = nn.Linear(1, 1), nn.Linear(1, 1)
                self.q_proj = nn.Linear(1, 1)
                self.k_proj = nn.Linear(1, 1)
                self.v_proj = nn.Linear(1, 1)
                self.{out} = nn.Linear(1, 1)
            def forward(self, x):
                return {rotary}(x)
    """
    ours = text.format(name="InternAttention", out="o_proj", rotary="apply_rotary_pos_emb")
    opts = text.format(name="OPTAttention", out="out_proj", rotary="apply_rotary_pos_emb")
    without = text.format(name="Attention", out="o_proj", rotary="plain")
    vision = text.format(name="VisionAttention", out="o_proj", rotary="apply_rotary_pos_emb")

    assert found_in(check, ours) == ["code.py:2  class InternAttention, without a model class"]
    assert [found_in(check, other) for other in (opts, without, vision)] == [[], [], []]


def test_a_copy_of_another_family_is_reported_once(check: Check) -> None:
    text = """
        class MistralAttention(nn.Module):
            def __init__(self, config):
                self.q_proj = self.k_proj = self.v_proj = self.o_proj = nn.Linear(1, 1)
                self.rotary_emb = MistralRotaryEmbedding(config)
            def forward(self, x):
                return x

        class MistralModel(MistralPreTrainedModel):
            def __init__(self, config):
                self.layers = []

        class MistralForCausalLM(MistralPreTrainedModel): pass
    """

    assert found_in(check, text) == ["code.py:2  class MistralAttention, with MistralModel"]


@pytest.mark.parametrize("checkout", ["", "transformers-4.29.2/src"])
def test_a_vendored_transformers_is_one_finding(checkout: str, check: Check) -> None:
    package = f"{checkout}/transformers".lstrip("/")
    status, lines = check({
        f"{package}/__init__.py": "", f"{package}/modeling_utils.py": "",
        f"{package}/models/llama/modeling_llama.py": COPY,
        f"{package}/models/mistral/modeling_mistral.py": COPY,
        "transformers-4.29.2/setup.py": "", "transformers-4.29.2/tests/test_llama.py": COPY,
        "run.py": "import transformers\n",
    })  # fmt: skip

    assert status == 1
    expected = [f"{package}/models/llama/modeling_llama.py:1"]
    if not checkout:
        expected = ["transformers-4.29.2/tests/test_llama.py:5", *expected]
    assert [finding.split()[0] for finding in findings(lines)] == expected


def test_code_beside_a_transformers_is_read_unless_it_is_its_checkout(check: Check) -> None:
    _, lines = check({
        "src/transformers/__init__.py": "", "src/transformers/modeling_utils.py": "",
        "src/transformers/models/llama/modeling_llama.py": COPY,
        "src/run.py": "layer.self_attn = f\n", "run.py": "layer.self_attn = f\n",
    })  # fmt: skip

    places = [finding.split()[0] for finding in findings(lines)]
    assert places == [
        "src/transformers/models/llama/modeling_llama.py:1",
        "run.py:1",
        "src/run.py:1",
    ]


def test_what_eah_was_swapped_into_is_reached(check: Check) -> None:
    status, lines = check({
        "modeling_llama.py": swap.SOURCE.read_text(encoding="utf-8"),
        "modeling_llama_original.py": COPY,
        "src/transformers/__init__.py": "", "src/transformers/modeling_utils.py": "",
        "src/transformers/models/llama/modeling_llama.py": "class SharingAttention: pass",
    })  # fmt: skip

    assert (status, findings(lines)) == (0, [])


# Attention that is replaced ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("for i in range(start, end):\n    m.layers[i].self_attn.forward = types.MethodType(f, 1)",
         "layers in range(start, end)"),
        ("for i in range(2, 32):\n    m.model.layers[i].self_attn.forward = f", "layers 2 to 31"),
        ("for i in range(8):\n    m.layers[i].self_attn = Mine()", "layers 0 to 7"),
        ("for layer in m.model.layers:\n    layer.self_attn.forward = f", "every layer"),
        ("for i, layer in enumerate(m.layers):\n    layer.self_attn.forward = f", "every layer"),
        ("for i in range(len(m.layers)):\n    m.layers[i].self_attn.forward = f", "every layer"),
        ("for layer in m.layers[4:]:\n    layer.self_attn.forward = f", "layers in m.layers[4:]"),
        ("m.layers[3].self_attn = Mine()", "layer 3"),
        ("m.layers[i + 1].self_attn.__class__ = Mine", "layer i + 1"),
        ("setattr(m.layers[3], 'self_attn', Mine())", "layer 3"),
        ("setattr(m.layers[3].self_attn, 'forward', f)", "layer 3"),
        ("object.__setattr__(m.layers[3].self_attn, 'forward', f)", "layer 3"),
        ("def patch(layer):\n    attn = layer.self_attn\n    attn.forward = f.__get__(attn)",
         "layers not known from the code"),
        ("for x in m.modules():\n    if isinstance(x, LlamaAttention):\n        x.forward = f",
         "every layer that passes the test there"),
        ("for n, x in m.named_modules():\n    if not isinstance(x, LlamaAttention):\n"
         "        continue\n    x.forward = f", "every layer that passes the test there"),
        ("class Patch:\n    def run(self, m):\n        for layer in m.layers:\n"
         "            layer.self_attn = Mine()", "every layer"),
        ("for n, x in m.named_modules():\n    if type(x).__name__ == 'LlamaAttention':\n"
         "        x.forward = f", "every layer that passes the test there"),
    ],
)  # fmt: skip
def test_replacements_in_a_model_are_found_with_their_layers(
    text: str, layers: str, check: Check
) -> None:
    (found,) = found_in(check, text)

    assert found.endswith(f"({layers})")
    assert found.startswith(f"code.py:{len(text.splitlines())}  ")


FLASH = """
    from flash_attn import flash_attn_func

    def forward(self, hidden_states):
        weights = softmax(hidden_states)
        return flash_attn_func(hidden_states)

"""
PLAIN = """
    def forward(self, hidden_states):
        return torch.nn.functional.softmax(hidden_states)

"""


@pytest.mark.parametrize(
    "line",
    [
        "transformers.models.llama.modeling_llama.LlamaAttention.forward = forward",
        "LlamaFlashAttention2.forward = forward",
        "setattr(LlamaSdpaAttention, 'forward', forward)",
        "mock.patch('transformers.models.llama.modeling_llama.LlamaAttention.forward', forward)",
        "ALL_ATTENTION_FUNCTIONS['mine'] = forward",
        "ALL_ATTENTION_FUNCTIONS.register('mine', forward)",
        "AttentionInterface.register('mine', forward)",
    ],
)
def test_a_forward_for_every_layer_is_found_unless_its_map_is_seen(line: str, check: Check) -> None:
    (found,) = found_in(check, f"{FLASH}    {line}\n")
    without = found_in(check, f"{PLAIN.replace('softmax', 'linear')}    {line}\n")

    assert found.startswith("code.py:8  ")
    assert [other.split()[0] for other in without] == ["code.py:5"]
    assert found_in(check, f"{PLAIN}    {line}\n") == []


def test_the_map_is_looked_for_in_other_files_and_in_methods(check: Check) -> None:
    patch = "from kernels import {0}\nLlamaAttention.forward = {0}\n"
    kernels = {"kernels.py": f"{FLASH}{PLAIN.replace('forward', 'seen_attention')}"}

    _, hidden = check({**kernels, "code.py": patch.format("forward")})
    _, seen = check({**kernels, "code.py": patch.format("seen_attention")})
    _, unknown = check({**kernels, "code.py": patch.format("missing")})
    method = "class Mine:\n    def forward(self):\n        return softmax(self)\n\n"
    by_method = found_in(check, method + "LlamaAttention.forward = Mine.forward\n")

    assert len(findings(hidden)) == len(findings(unknown)) == 1
    assert findings(seen) == by_method == []


@pytest.mark.parametrize(
    "line",
    [
        "LLAMA_ATTENTION_CLASSES['eager'] = Mine",
        "modeling_llama.LLAMA_ATTENTION_CLASSES['eager'] = Mine",
        "LLAMA_ATTENTION_CLASSES.update(eager=Mine)",
        "transformers.models.llama.modeling_llama.LlamaAttention = Mine",
        "class Mine(LlamaAttention):\n    pass",
        "class Mine(transformers.models.llama.modeling_llama.LlamaSdpaAttention):\n    pass",
    ],
)
def test_classes_put_in_the_place_of_llamas_are_found(line: str, check: Check) -> None:
    (found,) = found_in(check, line)

    assert found.startswith("code.py:1  ")


def test_a_layer_of_transformers_with_other_attention_is_found(check: Check) -> None:
    text = """
        from transformers.models.llama.modeling_llama import LlamaDecoderLayer

        class Layer(LlamaDecoderLayer):
            def __init__(self):
                self.self_attn = Mine()
    """

    assert len(found_in(check, text)) == 1
    assert found_in(check, text.replace("(LlamaDecoderLayer)", "(nn.Module)")) == []


@pytest.mark.parametrize(
    "text",
    [
        REACHED,
        "attn = layer.self_attn.q_proj\nlayer.mlp.forward = f\nmodel.forward = f",
        "vision_tower.encoder.layers[-2].self_attn.forward = f",
        "clip.layers[-2].self_attn = Mine()",
        "model.model.decoder.layers[0].self_attn.forward = f",
        "for x in m.modules():\n    if isinstance(x, CLIPAttention):\n        x.forward = f",
        "layer.self_attn.forward = layer.self_attn._old_forward",
        "layer.self_attn.forward = original_forward",
        "layer.self_attn.forward = timed(layer.self_attn.forward)",
        "def new(*a):\n    return orig_forward(*a)\n\nlayer.self_attn.forward = new",
        "LlamaAttention.forward = old_forward",
        "LlamaModel._prepare_decoder_attention_mask = f\nLlamaRMSNorm.forward = f",
        "layer.self_attn.alpha = 0.5\nx = layer.self_attn.forward\nif a.self_attn == b: pass",
        "# layer.self_attn.forward = f\n'''LlamaAttention.forward = f'''",
        "class LlamaAttentionConfig:\n    def forward(self): pass",
        "class LlamaAttention:\n    num_heads = 32",
        "def new(*a):\n    return orig_forward(*a)\n\nlayer.self_attn.forward = new.__get__(layer)",
        "CLIP_ATTENTION_CLASSES['eager'] = Mine",
    ],
)
def test_code_that_is_reached_is_not_reported(text: str, check: Check) -> None:
    status, lines = check({"code.py": text})

    assert (status, lines) == (
        0,
        ["1 Python file or notebook read; a swap of modeling_llama.py reaches the Llama code here"],
    )


# LlamaModel, kernels, other decoders -------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "from transformers import LlamaModel\nclass V(LlamaModel):\n    def forward(self): pass",
        "class Base(LlamaModel): pass\nclass FastV(Base):\n    def forward(self): self.forward()",
        "\n\ntransformers.models.llama.modeling_llama.LlamaModel.forward = f",
    ],
)
def test_a_forward_around_eahs_is_found(text: str, check: Check) -> None:
    (found,) = found_in(check, text)

    assert found.startswith("code.py:3  ")


@pytest.mark.parametrize(
    "text",
    [
        "kwargs['attn_implementation'] = 'flash_attention_2'",
        "train(attn_implementation='flash_attention_2')",
        "load(path, use_flash_attention_2=True)",
        "kwargs = {'attn_implementation': 'flash_attention_3'}",
        "config._attn_implementation = 'flex_attention'",
        "setattr(config, '_attn_implementation', 'paged|sdpa')",
        "attn_implementation: str = 'kernels-community/flash-attn'",
        "load(attn_implementation='flash_attention_2' if fast else 'sdpa')",
        "load(attn_implementation=given or 'flash_attention_2')",
        "def load(path, attn_implementation='flash_attention_2'): pass",
        "def load(path, *, attn_implementation='flash_attention_2'): pass",
        "parser.add_argument('--attn_implementation', default='flash_attention_2')",
    ],
)
def test_kernels_that_hide_their_map_are_found(text: str, check: Check) -> None:
    (found,) = found_in(check, text)

    assert found.startswith("code.py:1  ")
    for plain in ("sdpa", "eager"):
        others = text.replace("flash_attention_2'", f"{plain}'").replace("True", "False")
        assert others == text or found_in(check, others) == []


def test_a_request_in_a_training_script_says_so(check: Check) -> None:
    (found,) = found_in(check, "train(attn_implementation='flash_attention_2')", "a/train_mem.py")

    assert (
        found == "a/train_mem.py:1  attn_implementation='flash_attention_2' (training, by its path)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "if config._attn_implementation == 'flash_attention_2': pass",
        "CLIPVisionModel.from_pretrained(path, attn_implementation='flash_attention_2')",
        "print('flash_attention_2', attn='flash')",
    ],
)
def test_a_kernel_that_is_not_requested_for_a_decoder_is_not_reported(
    text: str, check: Check
) -> None:
    assert found_in(check, text) == []


def test_other_decoders_are_named_with_the_family_of_their_swap(check: Check) -> None:
    text = """
        from transformers import MistralForCausalLM, MptForCausalLM

        class LlavaMistralConfig(MistralConfig): pass
        class LlavaMistralModel(LlavaMetaModel, MistralModel): pass
        class LlavaMistralForCausalLM(MistralForCausalLM, LlavaMetaForCausalLM): pass
        class LlavaMptForCausalLM(MptForCausalLM, LlavaMetaForCausalLM): pass
        class T5ForConditionalGeneration(T5PreTrainedModel): pass
        class QWenLMHeadModel(QWenPreTrainedModel): pass
        class BertLMHeadModel(BertPreTrainedModel): pass
        class MyBlip(InstructBlipForConditionalGeneration): pass
    """

    assert found_in(check, text) == [
        "code.py:6  class LlavaMistralForCausalLM(MistralForCausalLM, LlavaMetaForCausalLM): "
        "--model mistral",
        "code.py:7  class LlavaMptForCausalLM(MptForCausalLM, LlavaMetaForCausalLM)",
        "code.py:8  class T5ForConditionalGeneration(T5PreTrainedModel)",
        "code.py:9  class QWenLMHeadModel(QWenPreTrainedModel)",
    ]


@pytest.mark.parametrize("family", sorted(SWAPPABLE.values()))
def test_the_families_named_for_a_swap_can_be_swapped(family: str) -> None:
    place = swap.find(family=family, site_packages=Path(transformers.__file__).parents[1])

    validate_supported(place, place.file.read_bytes())


# Folders and files of all kinds ------------------------------------------------------------------


def test_blocks_and_lines_are_sorted_and_end_with_advice(check: Check) -> None:
    status, lines = check({
        "b.py": "x = 1\n\nlayer.self_attn = f\nload(use_flash_attention_2=True)\n",
        "a.py": "layer.self_attn.forward = f\n",
        "a/b.py": "layer.self_attn.forward = f\n",
    })  # fmt: skip

    assert status == 1
    assert [line.split()[0] for line in findings(lines)] == [
        "a.py:1",
        "a/b.py:1",
        "b.py:3",
        "b.py:4",
    ]
    advice = [line for line in lines if line.startswith("  -> ")]
    assert ["EAH_LAYERS" in advice[0], "'eager' or 'sdpa'" in advice[1]] == [True, True]
    assert lines[-1] == "3 Python files and notebooks read; found: 4"


def test_files_that_do_not_parse_are_read_as_text(check: Check) -> None:
    text = """
        print "Python 2"
        # layer.self_attn.forward = f
        layer.self_attn.forward = f
        self.self_attn = LlamaAttention(config)
        load(attn_implementation="flash_attention_2")
        class LlamaAttention(nn.Module):
        class LlamaFlashAttention(LlamaAttention):
    """
    status, lines = check({"old.py": text})

    assert status == 1
    assert [found.split()[0] for found in findings(lines)] == ["old.py:7", "old.py:4", "old.py:6"]
    assert any(line.startswith("read as text, as it does not parse: old.py:2 (") for line in lines)


@pytest.mark.parametrize(
    "content",
    [b"x = '\xff'\n", b"\0", b"\xef\xbb\xbfx = 1\n", b"# -*- coding: nonsense -*-\n",
     b"x = " + b"(" * 500, b"x = " + b" + ".join([b"attn"] * 400),
     b"x = " + b" + ".join([b"'attn'"] * 3000)],
)  # fmt: skip
def test_no_file_stops_the_command(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.py").write_bytes(content)
    (tmp_path / "code.py").write_text("layer.self_attn = f\n")

    assert main([str(tmp_path)]) == 1

    assert "code.py:1  layer.self_attn = f" in capsys.readouterr().out


def test_notebooks_are_read_by_cell(check: Check) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["layer.self_attn = f"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "files = !ls\n", "f?\n"]},
        {"cell_type": "code", "source": "%%bash\nls | layer.self_attn = f"},
        {"cell_type": "code", "source": ["for layer in m.layers:\n", "    layer.self_attn = f"]},
    ]
    status, lines = check({"a.ipynb": json.dumps({"cells": cells}), "broken.ipynb": "{"})

    assert status == 1
    assert findings(lines) == ["a.ipynb:cell 4:2  layer.self_attn = f (every layer)"]
    assert not any("does not parse" in line for line in lines)
    assert "not read: broken.ipynb (not a notebook that can be read (JSONDecodeError))" in lines


def test_caches_environments_and_links_are_left_alone(check: Check, tmp_path: Path) -> None:
    for folder in (".git", "node_modules", "__pycache__", "conda", "deep/venv"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "code.py").write_text("layer.self_attn = f\n")
    (tmp_path / "conda" / "conda-meta").mkdir()
    (tmp_path / "deep" / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "away").symlink_to("/usr")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.py")

    status, lines = check({"env/code.py": "layer.self_attn = f\n"})

    assert (status, [found.split()[0] for found in findings(lines)]) == (1, ["env/code.py:1"])
    assert [line for line in lines if "not read" in line] == ["not read: away (a link to a folder)"]


def test_a_path_that_is_no_text_is_shown(check: Check, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("layer.self_attn = f\n")

    status, lines = check({})

    assert (status, findings(lines)[0].split()[0]) == (1, r"\udcff.py:1")


@pytest.mark.parametrize("name", ["missing", "file.py", "empty"])
def test_what_is_no_folder_with_code_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.py").write_text("layer.self_attn = f\n")
    (tmp_path / "empty").mkdir()

    assert main([str(tmp_path / name)]) == 2

    message = capsys.readouterr().err
    assert message.startswith(f"eah: error: {tmp_path / name} ")
    assert message.count("\n") == 1


def test_a_link_to_a_folder_can_be_checked(check: Check, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("layer.self_attn = f\n")
    (tmp_path / "link").symlink_to(tmp_path / "code")

    assert main([str(tmp_path / "link")]) == 1


def test_the_installed_transformers_is_one_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llama = Path(transformers.__file__).parent / "models" / "llama"
    (tmp_path / "transformers" / "models").mkdir(parents=True)
    shutil.copytree(llama, tmp_path / "transformers" / "models" / "llama")
    for name in ("__init__.py", "modeling_utils.py"):
        shutil.copy(llama.parents[1] / name, tmp_path / "transformers" / name)

    assert main([str(tmp_path)]) == main([str(tmp_path / "transformers")]) == 1

    out = capsys.readouterr().out
    assert out.count("models/llama/modeling_llama.py:1  ") == 2


def test_a_real_copy_of_modeling_llama_is_a_copy_with_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llama = Path(transformers.__file__).parent / "models" / "llama" / "modeling_llama.py"
    shutil.copy(llama, tmp_path / "my_llama.py")

    assert main([str(tmp_path)]) == 1

    (found,) = findings(capsys.readouterr().out.splitlines())
    assert found.startswith("my_llama.py:")
    assert found.endswith("  class LlamaAttention, with LlamaModel")
