"""As much of lmms-eval 0.7.3 as the plug-in uses, around a tiny LLaVA.

Its model answers as theirs do: documents are read one by one, longest prompt first, and a
generation that fails becomes an empty answer.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

from tests.eah import tiny


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


@dataclass
class Instance:
    request_type: str
    arguments: tuple[Any, ...]
    resps: list[str] = field(default_factory=list)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


class Lmms(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def generate_until(self, requests: Sequence[Instance]) -> list[str]: ...


class LlavaHf(Lmms):
    """A class of theirs."""

    is_simple = False
    loaded = 0

    def __init__(self, pretrained: str = "", batch_size: int = 1, **kwargs: Any) -> None:
        super().__init__()
        assert kwargs == {}, f"Unexpected kwargs: {kwargs}"
        type(self).loaded += 1
        self.pretrained, self.batch_size, self.rank = pretrained, batch_size, 0
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.model = tiny.tiny_llava().eval()

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        found: dict[int, str] = {}
        order = sorted(range(len(requests)), key=lambda at: -requests[at].args[3])
        for at in order:
            _, messages, _, document, task, split = requests[at].args
            inputs = messages(self.task_dict[task][split][document])
            try:
                ids = self.model.generate(**inputs, max_new_tokens=4, do_sample=False)
                found[at] = str(ids[0, inputs["input_ids"].shape[1] :].tolist())
            except Exception:  # as lmms-eval's own classes: what failed is an empty answer
                found[at] = ""
        return [found[at] for at in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        return ["rounds"] * len(requests)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        return [(0.0, False)] * len(requests)


class SimpleLlavaHf(LlavaHf):
    is_simple = True


class Remote(Lmms):
    """A class without a model of transformers."""

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        return []


class ConfigurableTask:
    def __init__(self, model_name: str | None) -> None:
        self.model_name = model_name
        self._prepare_model_specific_config()

    def _prepare_model_specific_config(self) -> None:
        prompts = {"llava_hf": "long", "default": "short"}
        self.prompt = prompts.get(str(self.model_name), prompts["default"])


def get_model(name: str, force_simple: bool = False) -> type:
    return {"llava_hf": SimpleLlavaHf if force_simple else LlavaHf, "remote": Remote}[name]


def parse(text: str) -> dict[str, Any]:
    def value(part: str) -> Any:
        if part.isnumeric():
            return int(part)
        try:
            return float(part)
        except ValueError:
            return part

    return {key: value(part) for key, part in (one.split("=", 1) for one in text.split(","))}


CONTENT: dict[str, dict[str, Any]] = {
    "lmms_eval": {},
    "lmms_eval.api": {},
    "lmms_eval.api.model": {"lmms": Lmms},
    "lmms_eval.api.task": {"ConfigurableTask": ConfigurableTask},
    "lmms_eval.models": {
        "get_model": get_model,
        "list_available_models": lambda: ["llava_hf", "remote", "eah_llava_hf"],
    },
    "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    "lmms_eval.utils": {"simple_parse_args_string": parse},
}


def modules() -> dict[str, ModuleType]:
    """Return the stand-in's modules by name."""
    found: dict[str, ModuleType] = {}
    for name, content in CONTENT.items():
        module = found[name] = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        vars(module).update(content)
        above, _, last = name.rpartition(".")
        if above:
            setattr(found[above], last, module)
    return found
