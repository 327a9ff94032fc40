"""Subclasses of lmms-eval's model classes that apply EAH to the loaded model.

`eah.lmms.classes.NAME_KIND` is the class of a model of `eah.lmms.MODELS`. It is created on first
access, because each of lmms-eval's classes needs different packages.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any, Final

from lmms_eval.api import task as lmms_tasks
from lmms_eval.api.model import lmms
from lmms_eval.models import get_model, list_available_models
from lmms_eval.utils import simple_parse_args_string

import eah
from eah.errors import EAHConfigError, EAHError, nearest
from eah.lmms import ANY, KINDS, MODELS
from eah.lmms.arguments import read
from eah.lmms.heads import HeadsFile

OF: Final = "of"
_base_names: dict[str, str] = {}  # our name of a loaded model -> lmms-eval's


class StopRun(SystemExit):
    """Ends lmms-eval with a sentence and exit status 1.

    lmms-eval's models answer "" when `generate` raises an `Exception`, and its command prints a
    traceback and exits with 0. A failed answer must not be scored, so neither may catch this.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"eah: {message}")


class UnderEAH:
    """Mixin that applies EAH; lmms-eval's own class follows it in the method resolution order."""

    eah_name: str
    eah_of: str

    def __init__(self, *values: Any, **given: Any) -> None:
        """Load the model as lmms-eval does, and enable EAH on it.

        Args:
            values: Positional arguments of lmms-eval's own class.
            given: Its keyword arguments and those of `eah.lmms.arguments`.
        Raises:
            StopRun: If an argument of EAH is not allowed, or EAH does not support the model.
        """
        theirs: Any = super()
        own = inspect.signature(theirs.__init__).parameters
        self._eah_heads: HeadsFile | None = None
        self._eah_handle: eah.EAHHandle | None = None
        try:
            arguments = read(given, own)
            if arguments.heads and str(given.get("batch_size", 1)) != "1":
                raise EAHConfigError(
                    f"heads={arguments.heads} with batch_size={given['batch_size']}: lmms-eval "
                    "reorders requests; set batch_size=1, or leave heads out"
                )
            if arguments.heads:
                HeadsFile(arguments.heads)  # refused before a model is loaded
            theirs.__init__(*values, **arguments.others)
            model: Any = getattr(self, "model", None)
            if not hasattr(model, "generate"):
                what = "no model" if model is None else f"a {type(model).__name__}"
                raise EAHConfigError(
                    f"lmms-eval's {self.eah_of} has {what}; EAH needs a model of transformers that "
                    "generates"
                )
            if arguments.config is not None:
                self._eah_handle = eah.enable(model, arguments.config)
            if arguments.heads:
                self._eah_heads = HeadsFile(arguments.heads, int(getattr(self, "rank", 0)))
        except EAHError as error:
            raise StopRun(str(error)) from error
        model.generate = self._eah_wrap_generate(model.generate)
        _base_names[self.eah_name] = self.eah_of
        _use_prompts_of_base_model()

    def generate_until(self, requests: Sequence[Any]) -> Any:
        """Answer as lmms-eval does, and write the heads if `heads` is set."""
        theirs: Any = super()
        if self._eah_heads is None:
            return theirs.generate_until(requests)
        answers = theirs.generate_until(self._eah_heads.watch(requests))
        try:
            self._eah_heads.finish()
        except EAHError as error:
            raise StopRun(str(error)) from error
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:
        """Answer as lmms-eval does."""
        if self._eah_heads is not None:
            raise StopRun("heads=FILE has one line a request, but this task asks in rounds: leave "
                          "heads out")  # fmt: skip
        theirs: Any = super()
        return theirs.generate_until_multi_round(requests)

    def loglikelihood(self, requests: Sequence[Any]) -> Any:
        """Score answers as lmms-eval does, in the baseline."""
        if self._eah_handle is not None:
            raise StopRun("a task scores given answers (loglikelihood), and lmms-eval runs prompt "
                          "and answer as one, so EAH can't separate them: use tasks that "
                          "generate, or arm=baseline")  # fmt: skip
        theirs: Any = super()
        return theirs.loglikelihood(requests)

    def _eah_wrap_generate(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `generate` that writes the heads, and ends the run if it fails."""

        @wraps(generate)
        def generate_or_stop(*values: Any, **given: Any) -> Any:
            try:
                found = generate(*values, **given)
            except Exception as error:
                what = "" if isinstance(error, EAHError) else f"{type(error).__name__}: "
                raise StopRun(f"no answer could be generated: {what}{error}") from error
            try:
                if self._eah_heads is not None and self._eah_handle is not None:
                    self._eah_heads.write(self._eah_handle.report())
            except EAHError as error:
                raise StopRun(str(error)) from error
            return found

        return generate_or_stop


class OfAny:
    """Creates a model of the class that the argument `of` names."""

    eah_kind: str

    @classmethod
    def create_from_arg_string(cls, text: str, additional_config: Any = None) -> Any:
        """Return a model of lmms-eval under EAH.

        Args:
            text: `--model_args`, with of=NAME.
            additional_config: Arguments that the command adds; None values are ignored.
        Raises:
            StopRun: If `of` is missing or unknown.
        """
        given = simple_parse_args_string(text)
        known = [name for name in list_available_models() if not name.startswith("eah_")]
        of = given.pop(OF, None)
        if of is None:
            example = f"--model {ANY} --model_args of=gemma3,pretrained=..."
            raise StopRun(f"{ANY} needs the name of lmms-eval's own model: {example}")
        if of not in known:
            hint = nearest(str(of), known).partition("known are")[0] or "name one of its models"
            raise StopRun(f"lmms-eval has no model {of!r}: {hint.strip()}")
        more = {name: value for name, value in (additional_config or {}).items()
                if value is not None}  # fmt: skip
        return class_over(ANY, of, cls.eah_kind)(**given, **more)


@cache
def class_over(name: str, of: str, kind: str) -> Any:
    """Return our subclass of one of lmms-eval's classes.

    Args:
        name: Our name of the model.
        of: lmms-eval's name of the model.
        kind: "simple" for its simple class, "chat" for the class that lmms-eval prefers.
    """
    theirs = get_model(of, force_simple=kind == KINDS[0])
    names = {"eah_name": name, "eah_of": of, "__module__": __name__, "__doc__": theirs.__doc__}
    return type(f"{name}_{kind}", (UnderEAH, theirs), names)


def _use_prompts_of_base_model() -> None:
    """Make tasks use the prompts of the base model for our models.

    Tasks have prompts and lengths for some models, by the name given to `--model`.
    """
    own = lmms_tasks.ConfigurableTask._prepare_model_specific_config
    if getattr(own, "_eah", False):
        return

    @wraps(own)
    def prepare(task: Any) -> None:
        task.model_name = _base_names.get(task.model_name, task.model_name)
        own(task)

    prepare._eah = True  # type: ignore[attr-defined]
    lmms_tasks.ConfigurableTask._prepare_model_specific_config = prepare


def __getattr__(name: str) -> Any:
    """Make the class of a model."""
    model, _, kind = name.rpartition("_")
    if model in MODELS and kind in MODELS[model][1]:
        return class_over(model, MODELS[model][0], kind)
    if model == ANY and kind in KINDS:
        simple = kind == KINDS[0]
        return type(name, (OfAny, lmms), {"eah_kind": kind, "is_simple": simple})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
