"""Settings of the judge, checked once. Flags override configs/judge.yaml, which overrides defaults.

This module does not need torch or a model, so comparing two files of answers starts in a second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.text import read_text
from eval.files.values import convert
from eval.tasks.judge.protocols import MODES, PROTOCOLS
from eval.tasks.judge.urls import check_url
from models.settings import CONFIGS
from models.yaml_files import parse_yaml

DEFAULT_URL: Final = "https://api.openai.com/v1"
URL_VARIABLE: Final = "OPENAI_BASE_URL"
CONFIG_FILE: Final = CONFIGS / "judge.yaml"
# Upper bounds far above sensible values, low enough that calculations with them do not overflow.
LARGEST: Final = {
    "judge_workers": 1000, "image_size": 100_000, "max_output_tokens": 10**8, "max_attempts": 1000,
    "max_requests": 10**9, "timeout_s": 86_400, "first_wait_s": 86_400, "longest_wait_s": 86_400,
    "max_cost": 10**9,
}  # fmt: skip
HIGHEST_PRICE: Final = 10**6
LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """Tokens of a picture: `base`, plus `per_patch` for each square of `patch` x `patch` pixels."""

    patch: int
    per_patch: float
    base: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens of the prompt and of the reply, and the tokens of a picture."""

    input: float
    output: float
    image: ImageTokens


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a request: upper bounds and estimates."""

    prompt_most: int
    reply_most: int
    prompt_likely: int
    reply_likely: int


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Settings that decide judgements, and bounds; configs/judge.yaml explains every setting.

    `max_cost` (in US dollars) and `max_requests` are None without a bound.
    """

    judge_model: str = ""
    judge_base_url: str | None = None
    judge_protocol: str = "opera"
    judge_mode: str = "image"
    judge_workers: int = 8
    image_size: int = 768
    image_detail: str = "high"
    max_output_tokens: int = 1200
    temperature: float | None = None
    reasoning_effort: str | None = None
    timeout_s: float = 120.0
    max_attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    max_cost: float | None = None
    max_requests: int | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without the endpoint.

        Raises:
            EvaluationError: Naming the setting, its value and what is allowed.
        """
        if not self.judge_model.strip():
            raise EvaluationError(
                "no judge is set: pass --judge-model, or set judge_model in configs/judge.yaml"
            )
        for name, known in (("judge_protocol", PROTOCOLS), ("judge_mode", MODES)):
            value = getattr(self, name)
            if value not in known:
                raise EvaluationError(f"{name} {value!r} is unknown: {nearest(value, known)}")
        for name in ("judge_workers", "image_size", "max_output_tokens", "max_attempts",
                     "max_requests"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"{name}={value}, but at least 1 is needed")
        for name in ("timeout_s", "first_wait_s", "longest_wait_s", "max_cost"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise EvaluationError(f"{name}={value}, but a number above 0 is needed")
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if value is not None and value > largest:
                raise EvaluationError(f"{name}={value}, but at most {largest} is allowed")
        if self.temperature is not None and not isfinite(self.temperature):
            raise EvaluationError(f"temperature={self.temperature}, but a number is needed")
        for name in ("judge_model", "image_detail", "reasoning_effort"):
            value = getattr(self, name)
            if value is not None and not (value.isprintable() and len(value) <= LONGEST_NAME):
                raise EvaluationError(
                    f"{name} {value!r:.60} is not a name: at most {LONGEST_NAME} printable "
                    "characters are allowed; correct it"
                )
        if self.judge_base_url is not None:
            check_url(self.judge_base_url, "judge_base_url")
        if self.max_cost is not None and self.price is None:
            raise EvaluationError(
                f"max_cost={self.max_cost:g}, but {self.judge_model!r} has no price: add it to "
                "prices in configs/judge.yaml, or bound the run with --max-requests"
            )

    @property
    def price(self) -> Price | None:
        """Return the model's price; None if it is not known."""
        return self.prices.get(self.judge_model)


def endpoint(config: JudgeConfig) -> str:
    """Return the endpoint's address: the setting, else OPENAI_BASE_URL, else OpenAI's.

    Raises:
        EvaluationError: If the variable is not an address, or contains a secret.
    """
    url = config.judge_base_url
    if url is None:
        url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
        check_url(url, f"the variable {URL_VARIABLE}")
    return url.rstrip("/")


def read_config(path: Path, flags: Mapping[str, Any]) -> JudgeConfig:
    """Read a YAML file of judge settings; flags override its values.

    Raises:
        EvaluationError: If the file can't be read, a name is unknown or a value is not allowed.
    """
    try:
        values = parse_yaml(read_text(path))
    except ValueError as error:
        raise EvaluationError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise EvaluationError(
            f"{path} contains {type(values).__name__}; it must have `key: value` lines"
        )
    known = {item.name: str(item.type) for item in fields(JudgeConfig)}
    for name, value in values.items():
        if name not in known:
            raise EvaluationError(f"{path}: {name!r} is unknown: {nearest(str(name), known)}")
        if name != "prices":
            converted = convert(name, known[name], value, str(path))
            # An equal value is kept as written: the keys of paid requests distinguish 0 and 0.0.
            values[name] = value if converted == value else converted
    prices = values.get("prices") or {}
    if not isinstance(prices, dict):
        raise EvaluationError(f"{path}: prices is {prices!r}; a price per model is needed")
    values["prices"] = {str(model): _price(model, of, path) for model, of in prices.items()}
    return JudgeConfig(**{**values, **flags})


def _price(model: Any, values: Any, path: Path) -> Price:
    """Read one entry of `prices`; its numbers must not be negative."""
    try:
        image = ImageTokens(**values["image"])
        price = Price(values["input"], values["output"], image)
        numbers = (price.input, price.output, image.per_patch, image.base)
        # Text and booleans are rejected; nan fails the comparison.
        right = all(type(one) in (int, float) and 0 <= one <= HIGHEST_PRICE for one in numbers)
        if right and type(image.patch) is int and 1 <= image.patch <= HIGHEST_PRICE:
            return price
    except (KeyError, TypeError):
        pass
    raise EvaluationError(
        f"{path}: the price of {model} is {values!r}; it must read "
        "{input: 0.75, output: 4.50, image: {patch: 32, per_patch: 1.62, base: 0}}"
    )
