"""What a user sees of the drop-in: lines at the start and at the end, warnings, errors, the log.

Run like check_drop_in.py, whose models and settings it uses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from check_drop_in import (
    KERNELS,
    NEW_TOKENS,
    SETTINGS,
    SPAN,
    VERSION,
    build,
    environment,  # noqa: F401  # a fixture for every test
    generated,
    logits,
    plain,  # noqa: F401  # a fixture
    prompts,
    tally,  # noqa: F401  # a fixture for every test
)
from transformers.models.llama import modeling_llama

OURS = sys.modules["transformers.models.llama.modeling_llama_eah"]
START = (
    f"EAH {OURS.VERSION} in transformers {transformers.__version__}: layers 1; densest head; "
    "threshold 0.05 (attention); image tokens 3:19 of every prompt (EAH_QUIET=1 hides this line)"
)
PROGRAM = """
import os, sys, torch
sys.path.insert(0, sys.argv[1])
import check_drop_in as checks
model = checks.build()
checks.build()
ids, mask = checks.prompts([30, 24])
checks.generated(model, ids, mask, num_beams=3)
checks.logits(model, input_ids=ids[:, :10])
if os.fork() == 0:
    sys.exit()
os.wait()
"""


@pytest.fixture
def log(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    environment.setenv("EAH_LOG", str(tmp_path / "eah.jsonl"))
    return tmp_path / "eah.jsonl"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def said(**settings: str) -> list[str]:
    """Return the lines about EAH that a program with models and prompts shows."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(Path(__file__).parent)],
                          env={**os.environ, **SETTINGS, **settings}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    return [line for line in done.stderr.splitlines() if line.startswith("EAH")]


# Lines at the start and at the end ----------------------------------------------------------------


def test_a_program_shows_a_line_at_its_start_and_one_at_its_end() -> None:
    start, short, end = said()

    assert start == START
    assert "a prompt of 10 tokens is too short" in short
    assert end.startswith(
        "EAH: 2 prompts treated, 0 without image, 2 too short, 0 saturated; layer 1: head "
    )
    assert sum(int(part.split(" in ")[1]) for part in end.split("layer 1: ")[1].split(", ")) == 2


def test_quiet_hides_both_lines_and_no_warning() -> None:
    (short,) = said(EAH_QUIET="1")

    assert "too short" in short


def test_off_is_said_and_nothing_is_counted() -> None:
    assert said(EAH_DISABLE="1") == [
        f"EAH {OURS.VERSION} in transformers {transformers.__version__}: off (EAH_DISABLE) "
        "(EAH_QUIET=1 hides this line)"
    ]


def test_the_line_at_the_start_is_shown_once_for_each_setting(
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build()
    build()
    environment.setenv("EAH_IMAGE_SPAN", "auto")
    build()

    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("EAH")]
    assert shown == [START, START.replace("3:19 of every prompt", "found by their embeddings")]


def test_prompts_of_threads_are_all_counted(tally: Any) -> None:
    model, (ids, _) = build(), prompts([30])

    def work() -> None:
        for _ in range(40):
            logits(model, input_ids=ids)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    tally._read()
    assert str(tally).startswith("160 prompts treated, 0 without image")
    assert str(tally).endswith(" in 160")


def test_findings_are_read_many_at_a_time(tally: Any) -> None:
    """Each reading waits for the device."""
    model, (ids, _), read = build(), prompts([30]), []
    original = tally._read
    tally._read = lambda: (read.append(1), original())

    for _ in range(200):
        logits(model, input_ids=ids)

    del tally._read
    assert 3 <= len(read) <= 12


def test_a_closed_standard_error_is_no_error(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(sys, "stderr", None)

    assert generated(build(), *prompts([30])) is not None


# The log ------------------------------------------------------------------------------------------


def sinks(model: Any, ids: torch.Tensor, mask: torch.Tensor, row: int) -> list[int]:
    """Return the sinks of each head in layer 1 of a plain model, by loops over its map."""
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, output_attentions=True)
    weights, tokens = output.attentions[1][row].tolist(), mask[row].tolist()
    pad = tokens.index(1)
    counts = []
    for head in weights:
        count = 0
        for y in range(pad + SPAN[0], pad + SPAN[1]):
            received = [head[x][y] for x in range(y + 1, len(tokens))]
            count += sum(received) / len(received) > 0.05
        counts.append(count)
    return counts


def test_the_log_has_a_line_for_each_treated_prompt(log: Path, plain: Any) -> None:
    model, other = build(), build(plain.LlamaForCausalLM)
    ids, mask = prompts([30, 24])

    generated(model, ids, mask, num_beams=2)
    logits(model, input_ids=ids[:, :10])

    expected = [sinks(other, ids, mask, row) for row in range(2)]
    assert lines(log) == [
        {
            "process": os.getpid(), "prompt": row + 1, "tokens": length, "image_tokens": 16,
            "image_spans": [list(SPAN)],
            "layers": [{"layer": 1, "head": counts.index(max(counts)), "sinks": max(counts),
                        "saturated": False}],
        }
        for row, (length, counts) in enumerate(zip((30, 24), expected, strict=True))
    ]  # fmt: skip
    assert NEW_TOKENS > 1


def test_a_log_that_cant_be_written_is_one_sentence(
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    environment.setenv("EAH_LOG", str(tmp_path / "no" / "eah.jsonl"))

    with pytest.raises(ValueError, match=r"EAH_LOG='.*' can't be written \(No such file"):
        build()


def test_a_log_that_goes_away_does_not_stop_the_answers(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, (ids, _) = build(), prompts([30])
    log.unlink()
    log.mkdir()

    assert torch.equal(logits(model, input_ids=ids), logits(model, input_ids=ids))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "EAH_LOG" in line]
    assert len(warnings) == 1


# Warnings and errors ------------------------------------------------------------------------------


def test_saturation_is_warned_of_once(
    environment: pytest.MonkeyPatch,
    log: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment.setenv("EAH_THRESHOLD", "1e-12")
    model, (ids, _) = build(), prompts([30])

    for _ in range(2):
        logits(model, input_ids=ids)

    warnings = [line for line in capsys.readouterr().err.splitlines() if "sink in every" in line]
    assert warnings == [
        "EAH: every one of 16 image tokens is a sink in every head of layer 1, so all counts tie "
        "and the choice of head says nothing; EAH_PRESET=scale-free suits short prompts"
    ]
    assert [line["layers"][0]["saturated"] for line in lines(log)] == [True, True]


def own_forward(model: Any) -> Any:
    """Return what replaces the `forward` of layer 1's attention, as PAI's code does."""
    forward = type(model.model.layers[1].self_attn).__mro__[2].forward

    def new_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    new_forward.__module__, new_forward.__qualname__ = "attention", "llama_new_forward"
    return new_forward


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_forward_that_was_replaced_is_an_error_that_names_it(kernel: str) -> None:
    model, (ids, _) = build(kernel=kernel), prompts([30])
    attention = model.model.layers[1].self_attn
    attention.forward = types.MethodType(own_forward(model), attention)

    with pytest.raises(RuntimeError) as error:
        logits(model, input_ids=ids)
    assert str(error.value) == (
        "the attention of layer 1 did not run through EAH: its forward was replaced by "
        "attention.llama_new_forward; remove that change, set EAH_LAYERS to layers without it, "
        "or set EAH_DISABLE=1"
    )

    logits(model, input_ids=ids[:, :10])  # no image, so nothing is missed
    del attention.forward
    logits(model, input_ids=ids)


def test_an_attention_that_was_replaced_is_an_error_that_names_it() -> None:
    model, (ids, _) = build(), prompts([30])
    model.model.layers[1].self_attn = build().model.layers[0].self_attn

    with pytest.raises(RuntimeError, match=r"layer 1 .*: it was replaced by a Llama"):
        logits(model, input_ids=ids, use_cache=False)


def test_a_class_whose_forward_was_replaced_is_named(
    environment: pytest.MonkeyPatch,
) -> None:
    """As LLaVA's and FastChat's patches for xformers and FlashAttention do."""
    model, (ids, _) = build(), prompts([30])
    base = type(model.model.layers[1].self_attn).__mro__[2]
    rest = (None,) if VERSION >= (4, 48) else (None, None)

    def xformers_forward(self: Any, hidden_states: Any, *_: Any, **__: Any) -> Any:
        return (hidden_states, *rest)

    xformers_forward.__module__ = "llava.train.llama_xformers_attn_monkey_patch"
    xformers_forward.__qualname__ = "xformers_forward"
    environment.setattr(base, "forward", xformers_forward)

    with pytest.raises(TypeError) as error:
        logits(model, input_ids=ids)
    assert (
        f"{base.__name__}.forward was replaced by llava.train.llama_xformers_attn_monkey_patch."
        "xformers_forward, which computes attention differently; remove that patch, set other "
        "EAH_LAYERS"
    ) in str(error.value)


def test_a_layer_that_is_called_outside_of_the_models_forward_is_an_error() -> None:
    """As by a derived class with a forward of its own, such as FastV's."""
    attention = build().model.layers[1].self_attn

    with pytest.raises(RuntimeError, match=r"layer 1 was called outside of the forward of"):
        attention(torch.randn(1, 5, 32))


def test_an_attention_in_training_mode_is_left_alone(plain: Any, tally: Any) -> None:
    model, other = build(), build(plain.LlamaForCausalLM)
    ids, _ = prompts([30])
    model.model.layers[1].self_attn.train()

    assert torch.equal(logits(model, input_ids=ids), logits(other, input_ids=ids))
    assert "0 prompts treated" in str(tally)


def test_frozen_layers_of_a_model_in_training_are_left_alone(plain: Any) -> None:
    model, other = build(), build(plain.LlamaForCausalLM)
    ids, _ = prompts([30])
    for one in (model, other):
        one.train()
        one.model.layers.eval()

    assert torch.equal(logits(model, input_ids=ids), logits(other, input_ids=ids))


def test_a_log_stays_where_it_was_named(
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    environment.chdir(tmp_path)
    environment.setenv("EAH_LOG", "eah.jsonl")
    model, (ids, _) = build(), prompts([30])
    (tmp_path / "elsewhere").mkdir()
    environment.chdir(tmp_path / "elsewhere")

    logits(model, input_ids=ids)

    assert len(lines(tmp_path / "eah.jsonl")) == 1


def test_a_preset_with_fixed_columns_is_not_told_to_find_them(
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("EAH_IMAGE_SPAN", "EAH_LAYERS", "EAH_THRESHOLD"):
        environment.delenv(name)
    environment.setenv("EAH_PRESET", "released-code")

    logits(build(num_hidden_layers=16), input_ids=prompts([30])[0])

    assert "without EAH; the preset released-code has fixed columns" in capsys.readouterr().err


@pytest.mark.skipif(VERSION < (4, 46), reason="early exit came later")
def test_a_draft_that_exits_before_the_layer_is_no_error() -> None:
    model = build()
    ids, mask = prompts([30])
    model.config.num_hidden_layers = 1

    logits(model, input_ids=ids, attention_mask=mask)


def test_the_functions_of_callers_are_found_in_the_module() -> None:
    assert callable(modeling_llama.image_tokens)
    assert callable(modeling_llama.prompt_length)
