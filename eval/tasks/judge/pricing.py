"""Build a request with its key, a hash of all that decides the reply, and its highest cost."""

from __future__ import annotations

import hashlib
import json

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.cost import cost_of, tokens_of
from eval.tasks.judge.protocols import response_format
from eval.tasks.judge.replies import LONGEST_TEXT
from eval.tasks.judge.requests import QUALITY, Picture, Request, parameters


def request_of(
    config: JudgeConfig,
    image_id: ImageId,
    order: str,
    text: str,
    picture: Picture | None = None,
    *,
    what: str,
) -> Request:
    """Return a request with its key, its tokens and its highest possible cost.

    Args:
        config: The judge's settings.
        image_id: The picture.
        order: Order of the answers, "12" or "21"; "1" for a single answer.
        text: Text of the prompt.
        picture: Picture of the prompt; None without one.
        what: Description of the text before `image_id`, for messages.
    Raises:
        EvaluationError: If the text is too long to send.
    """
    if len(text) > LONGEST_TEXT:
        raise EvaluationError(
            f"{what} {image_id} have {len(text):,} characters, but at most {LONGEST_TEXT:,} are "
            "sent to a judge; check that these are the right files"
        )
    schema = json.dumps(response_format(config.judge_protocol))
    size = None if picture is None else (picture.width, picture.height)
    num_bytes = len((text + schema).encode("utf-8", errors="replace"))
    tokens = tokens_of(config, num_bytes, size)
    most = cost_of(config, tokens.prompt_most, tokens.reply_most)
    return Request(_key(config, text, picture), image_id, order, text, picture, tokens, most)


def _key(config: JudgeConfig, text: str, picture: Picture | None) -> str:
    shown = None if picture is None else {
        "sha256": picture.sha256,
        "size": config.image_size,
        "quality": QUALITY,
        "detail": config.image_detail,
    }  # fmt: skip
    decisive = [endpoint(config), parameters(config), text, shown]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
