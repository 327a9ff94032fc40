"""What is asked about each picture: one request per order of the answers, each with a key.

The key is a hash of all that decides the reply: text, picture, model, endpoint, parameters. What
has been answered under a key is never asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eval.tasks.judge.answers import Pair
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.cost import Tokens, cost_of, tokens_of
from eval.tasks.judge.pictures import QUALITY, Picture, data_url
from eval.tasks.judge.prompts import render, response_format
from eval.tasks.judge.references import References

# Which answer stands first; the paper's order is the first of them.
ORDERS: Final = ("12", "21")


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the judge.

    Attributes:
        key: Hash of all that decides the reply.
        image_id: The picture.
        order: "12" or "21".
        text: What is asked.
        picture: What is shown; None in the text mode.
        tokens: How long it may be.
        most_usd: What it may cost; 0 if the model has no price.
    """

    key: str
    image_id: int
    order: str
    text: str
    picture: Picture | None
    tokens: Tokens
    most_usd: float


def plan_requests(
    config: JudgeConfig,
    endpoint: str,
    pair: Pair,
    *,
    orders: tuple[str, ...],
    pictures: Mapping[int, Picture],
    references: References | None,
) -> list[Request]:
    """Return all requests of a run, picture by picture.

    Args:
        config: The judge's settings.
        endpoint: Its address.
        pair: The answers.
        orders: Which of them stands first, in turn.
        pictures: By image id; not used in the text mode.
        references: What is in the pictures; None in the image mode.
    """
    schema = json.dumps(response_format(config.judge_protocol))
    requests = []
    for image_id in pair.ids:
        texts = {"1": pair.first.texts[image_id], "2": pair.second.texts[image_id]}
        picture = pictures[image_id] if references is None else None
        for order in orders:
            text = render(
                config.judge_protocol,
                *(texts[place] for place in order),
                objects=None if references is None else references.objects[image_id],
                kinds=() if references is None else references.kinds,
            )
            size = None if picture is None else (picture.width, picture.height)
            num_bytes = len((text + schema).encode("utf-8", errors="replace"))
            tokens = tokens_of(config, num_bytes, size)
            most = cost_of(config, tokens.prompt_most, tokens.reply_most) or 0.0
            key = _key(config, endpoint, text, picture)
            requests.append(Request(key, image_id, order, text, picture, tokens, most))
    return requests


def body_of(request: Request, config: JudgeConfig) -> dict[str, Any]:
    """Return the arguments of the chat-completions call, the picture inside."""
    # JSON may hold half a surrogate pair, which UTF-8 has no bytes for.
    text = request.text.encode("utf-8", errors="replace").decode()
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if request.picture is not None:
        url = data_url(request.picture.path, config.image_size)
        content.append(
            {"type": "image_url", "image_url": {"url": url, "detail": config.image_detail}}
        )
    return {**_parameters(config), "messages": [{"role": "user", "content": content}]}


def _parameters(config: JudgeConfig) -> dict[str, Any]:
    optional = {
        "temperature": config.temperature,
        "reasoning_effort": config.reasoning_effort,
        "response_format": response_format(config.judge_protocol),
    }
    return {
        "model": config.judge_model,
        "max_completion_tokens": config.max_output_tokens,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _key(config: JudgeConfig, endpoint: str, text: str, picture: Picture | None) -> str:
    shown = None if picture is None else {
        "sha256": picture.sha256,
        "size": config.image_size,
        "quality": QUALITY,
        "detail": config.image_detail,
    }  # fmt: skip
    decisive = [endpoint, _parameters(config), text, shown]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
