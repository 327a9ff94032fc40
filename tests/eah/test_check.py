"""The command `python -m eah check`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Gemma2Config, LlamaConfig

from eah import __main__, check
from tests.eah import tiny

TINY_LLAVA = Path(__file__).resolve().parents[2] / "models" / "tiny-llava"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = __main__.main(["check", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_model_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, TINY_LLAVA)

    assert status == 0
    assert "model: LlavaForConditionalGeneration, attention sdpa" in out
    assert "layers that can be patched: 0..3" in out
    assert "image tokens: placeholder tokens in input_ids (image 640)" in out
    assert "layer 1: head" in out
    assert "heads have the same map: yes" in out
    assert "outputs bitwise restored: yes" in out
    assert "s with EAH" in out


def test_a_config_alone_is_built_with_random_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    LlamaConfig(**tiny.SETTINGS).save_pretrained(tmp_path)

    status, out, _ = run(capsys, tmp_path, "--layers", 0, 2)

    assert status == 0
    assert "model: LlamaForCausalLM" in out
    assert "no placeholder in the config" in out
    assert "layer 0: " in out
    assert "layer 2: " in out


@pytest.mark.parametrize("preset", ["scale-free", "released-code"])
def test_other_presets_are_tried(capsys: pytest.CaptureFixture[str], preset: str) -> None:
    status, out, _ = run(capsys, TINY_LLAVA, "--preset", preset, "--layers", 1)

    assert status == 0
    assert "outputs bitwise restored: yes" in out


def test_saturation_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = {**tiny.SETTINGS, "initializer_range": 1e-4}  # attention is uniform
    LlamaConfig(**settings).save_pretrained(tmp_path)

    _, out, _ = run(capsys, tmp_path)

    assert "saturated: every image token is a sink in every head" in out


def test_layers_that_cannot_be_patched_have_a_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Gemma2Config(**tiny.SETTINGS, head_dim=8).save_pretrained(tmp_path)

    status, out, _ = run(capsys, tmp_path)

    assert status == 1
    assert "layers that can be patched: none" in out
    assert "passes 'softcap'" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nowhere/at/all"],
            "nowhere/at/all is not a folder, and no model of that name",
        ),
        ([TINY_LLAVA.parent], "has no config.json; give a folder in transformers' format"),
        ([TINY_LLAVA, "--layers", "9"], "layers that can be patched: 0..3"),
        ([TINY_LLAVA, "--layers", "1", "1"], "names a layer twice"),
        ([TINY_LLAVA, "--preset", "papr"], "did you mean 'paper'"),
    ],
)
def test_mistakes_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    status, _, err = run(capsys, *arguments)

    assert status == 2
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[" * 100_000, "can't be loaded (RecursionError"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "x"}', "can't be loaded ("),
        ("config.json", b'{"model_type": "llava", "text_config": 5}', "can't be loaded ("),
        ("model.safetensors", b"no weights", "can't be loaded (SafetensorError"),
        ("model.safetensors", None, "lacks 114 weights of the model that its config names"),
    ],
)
def test_a_damaged_folder_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    for path in TINY_LLAVA.iterdir():
        shutil.copy(path, tmp_path)
    if content is None:
        save_file({"other": torch.ones(2)}, tmp_path / name, metadata={"format": "pt"})
    else:
        (tmp_path / name).write_bytes(content)

    status, _, err = run(capsys, tmp_path)

    assert status == 2
    assert err.splitlines()[-1].startswith(f"eah check: error: {tmp_path} ")
    assert message in err.splitlines()[-1]


def test_a_folder_of_something_else_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toaster"}))

    status, _, err = run(capsys, tmp_path)

    assert status == 2
    assert err.splitlines()[-1].startswith("eah check: error: ")


def test_a_model_whose_outputs_are_not_restored_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = check.Trial([], None, False, 0.0, 0.0)
    monkeypatch.setattr(check, "try_out", lambda model, config: trial)

    status, out, _ = run(capsys, TINY_LLAVA)

    assert status == 1
    assert "outputs bitwise restored: NO" in out


def test_the_module_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eah", "check", str(TINY_LLAVA)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "heads have the same map: yes" in done.stdout
