"""Settings of the judge: the file in configs/, flags over it, and what is not allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.judge.config import CONFIG_FILE, DEFAULT_URL, JudgeConfig, endpoint, read_config

PRICE = {"input": 1, "output": 2.5, "image": {"patch": 32, "per_patch": 1.2}}


def config(tmp_path: Path, flags: dict[str, Any] | None = None, **values: Any) -> JudgeConfig:
    path = tmp_path / "judge.yaml"
    path.write_text(json.dumps({"judge_model": "m", **values}))
    return read_config(path, flags or {})


def test_the_file_in_the_checkout_names_a_priced_judge_and_its_date() -> None:
    found = read_config(CONFIG_FILE, {})

    assert found.price is not None
    assert 0 < found.price.input < found.price.output
    assert "As of 20" in CONFIG_FILE.read_text()


def test_the_file_in_the_checkout_states_every_default_that_the_code_has(tmp_path: Path) -> None:
    stated, bare = read_config(CONFIG_FILE, {}), config(tmp_path)

    for name in JudgeConfig.__slots__:
        if name not in ("judge_model", "prices"):
            assert getattr(stated, name) == getattr(bare, name), name


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    found = config(tmp_path, {"judge_model": "n", "judge_workers": 3}, judge_workers=5)

    assert (found.judge_model, found.judge_workers) == ("n", 3)


def test_the_endpoint_is_the_setting_else_the_variable_else_the_vendor_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert endpoint(config(tmp_path)) == DEFAULT_URL
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    assert endpoint(config(tmp_path)) == "http://127.0.0.1:1/v1"
    assert endpoint(config(tmp_path, {"judge_base_url": "http://b/v1"})) == "http://b/v1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"judge_model": " "}, "no judge is set: pass --judge-model"),
        ({"judge_protocol": "oprea"}, "did you mean 'opera'"),
        ({"judge_mode": "pixels"}, "judge_mode 'pixels' is unknown"),
        ({"judge_workers": 0}, "judge_workers=0, but at least 1"),
        ({"judge_workers": "8"}, "judge_workers is '8', but it must be of type int"),
        ({"max_attempts": True}, "max_attempts is True, but it must be of type int"),
        ({"max_requests": 0}, "max_requests=0, but at least 1"),
        ({"timeout_s": -1}, "timeout_s=-1, but a number above 0"),
        ({"max_cost": 0}, "max_cost=0, but a number above 0"),
        ({"max_cost": 5}, "'m' has no price: add it to prices"),
        ({"judge_base_url": "127.0.0.1:8000"}, "is not an address; it must be like http://"),
        ({"judge_base_url": "http://[::1"}, "is not an address"),
        ({"judge_modle": 0}, "'judge_modle' is unknown: did you mean 'judge_mod"),
        ({"prices": 3}, "a price per model is needed"),
        ({"prices": {"m": {"input": 1}}}, "the price of m is {'input': 1}; it must read"),
        ({"prices": {"m": {**PRICE, "input": -1}}}, "it must read"),
        ({"prices": {"m": {**PRICE, "input": "1"}}}, "it must read"),
        ({"prices": {"m": {**PRICE, "image": {"patch": 0, "per_patch": 1}}}}, "it must read"),
    ],
)
def test_bad_settings_are_one_sentence(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluationError) as caught:
        config(tmp_path, **values)

    assert message in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:secret@h/v1", "https://h/v1?api-key=secret"])
def test_an_address_with_a_secret_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(EvaluationError, match="leave it out of the address") as caught:
        config(tmp_path, {"judge_base_url": url})

    assert "secret" not in str(caught.value)


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="can't be read"):
        read_config(tmp_path / "absent.yaml", {})
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(EvaluationError, match="contains list"):
        read_config(tmp_path / "list.yaml", {})
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(EvaluationError, match="is not YAML"):
        read_config(tmp_path / "bad.yaml", {})
