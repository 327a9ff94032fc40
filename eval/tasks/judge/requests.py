"""Data classes of a judging run: pairs of answers, requests, and their outcomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.image_ids import ImageId
from eval.files.pictures import data_url, read_picture
from eval.tasks.judge.config import JudgeConfig, Tokens
from eval.tasks.judge.protocols import response_format


@dataclass(frozen=True, slots=True)
class Arm:
    """One method's answers by image id.

    Attributes:
        name: The method's name, or the file's.
        texts: Answers by image id, in the order of the run.
        source: Where they were read.
    """

    name: str
    texts: dict[ImageId, str]
    source: str

    def only(self, ids: Sequence[ImageId]) -> Arm:
        """Return the arm with only some of its pictures, in the given order."""
        return replace(self, texts={image_id: self.texts[image_id] for image_id in ids})

    def hash(self) -> str:
        """Return the SHA-256 of image ids and answers, which does not depend on the file."""
        return hashlib.sha256(json.dumps(list(self.texts.items())).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms of the same pictures in the same order."""

    first: Arm
    second: Arm

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """Both arms in order."""
        return self.first, self.second

    @property
    def ids(self) -> list[ImageId]:
        """The image ids in order."""
        return list(self.first.texts)

    @property
    def equal(self) -> list[ImageId]:
        """The image ids with equal texts, apart from spaces around them; they are not judged."""
        one, two = self.first.texts, self.second.texts
        return [image_id for image_id in self.ids if one[image_id].strip() == two[image_id].strip()]

    def equal_in_words(self) -> str:
        """Return the number and share of pictures that are not judged, as text."""
        equal, count = len(self.equal), len(self.ids)
        return (
            f"{equal} of {count} pictures ({100 * equal / count:.0f} %) have two equal texts; they "
            "are not judged and not counted in any number"
        )

    def cut(self, count: int) -> Pair:
        """Return the pair with its first pictures only."""
        ids = self.ids[:count]
        return Pair(self.first.only(ids), self.second.only(ids))


def pair_arms(first: Arm, second: Arm) -> Pair:
    """Return two arms as a pair, in the order of the first arm's pictures.

    Raises:
        EvaluationError: If they are about different pictures.
    """
    parts = []
    for arm, other in ((first, second), (second, first)):
        ids = [image_id for image_id in arm.texts if image_id not in other.texts]
        if ids:
            parts.append(f"{len(ids)} image ids only in {arm.source} ({some_ids(ids)})")
    if parts:
        raise EvaluationError(
            f"the answers are about different pictures: {' and '.join(parts)}; both files must "
            "have one answer for each of the same image ids"
        )
    return Pair(first, second.only(list(first.texts)))


QUALITY: Final = 90
# The order of the answers in a prompt; the paper uses the first.
ORDERS: Final = ("12", "21")
# Outcomes after which a request is not sent again.
ANSWERED, REFUSED, REJECTED = "answered", "refused", "rejected"
FINAL: Final = (ANSWERED, REFUSED, REJECTED)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was read and checked; `width` and `height` as it is sent, rounded up."""

    path: Path
    sha256: str
    width: int
    height: int

    def url(self, size: int) -> str:
        """Return it as a data URL, no side longer than `size` pixels."""
        return data_url(read_picture(self.path), (size, size), QUALITY)[0]


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the judge.

    Attributes:
        key: Hash of all that decides the reply.
        order: "12" or "21"; "1" for a single answer.
        picture: The picture that is sent; None in the text mode.
        most_usd: Highest possible cost in US dollars; 0 if the model has no price.
    """

    key: str
    image_id: ImageId
    order: str
    text: str
    picture: Picture | None
    tokens: Tokens
    most_usd: float

    def body(self, config: JudgeConfig) -> dict[str, Any]:
        """Return the arguments of the chat-completions call, including the picture."""
        # JSON may contain half a surrogate pair, which UTF-8 can't encode.
        text = self.text.encode("utf-8", errors="replace").decode()
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if self.picture is not None:
            image = {"url": self.picture.url(config.image_size), "detail": config.image_detail}
            content.append({"type": "image_url", "image_url": image})
        return {**parameters(config), "messages": [{"role": "user", "content": content}]}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request: a reply, or why there is none.

    Attributes:
        request: Number of the request; None if another run paid for it.
        key, image_id, order: As in `Request`.
        outcome: One of FINAL, or a failure's kind.
        cost_usd: Cost in US dollars; 0 if another run paid for it.
        at: Time of the reply.
        reason: Why there is no answer; None if there is one.
        text, finish_reason, model, prompt_tokens, reply_tokens: As in `replies.Reply`; None without
            a reply.
        borrowed_from: Name of the folder of the run that paid for it.
    """

    request: int | None
    key: str
    image_id: ImageId
    order: str
    outcome: str
    cost_usd: float
    at: str
    reason: str | None = None
    text: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    borrowed_from: str | None = None


def open_requests(requests: Sequence[Request], answered: Mapping[str, Any]) -> list[Request]:
    """Return the requests whose key has no answer, each key once.

    Copies of a picture with the same answers share one request.
    """
    return list({one.key: one for one in requests if one.key not in answered}.values())


def parameters(config: JudgeConfig) -> dict[str, Any]:
    """Return the arguments of a call that all requests of a run share."""
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
