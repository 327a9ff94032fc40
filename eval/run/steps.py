"""Whether a run decodes by steps on fixed buffers (`models.decoding.steps`): `--compile`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from eval.errors import EvaluationError

if TYPE_CHECKING:
    from eval.run.plan import AskedArm, Plan
    from models import VLM
    from models.decoding.steps.steps import DecodeSteps

AUTO: Final = "auto"
ALWAYS: Final = "always"
NEVER: Final = "never"
NO_GPU: Final = "that needs a CUDA GPU"
COMPILE_MODES: Final = (AUTO, ALWAYS, NEVER)


def check_compile(value: object, source: str) -> None:
    """Check a value of the setting `compile`.

    Args:
        value: The given value.
        source: Where it was given, for the message.
    Raises:
        EvaluationError: If the value is not allowed.
    """
    if value not in COMPILE_MODES:
        raise EvaluationError(
            f"{source}: compile={value!r:.60}, but it is one of {', '.join(COMPILE_MODES)}"
            + (" (YAML reads on and off as true and false)" if isinstance(value, bool) else "")
        )


def check_steps(
    way: str, arms: Sequence[AskedArm], beams: int, new_tokens: int, device: str
) -> None:
    """Refuse --compile always on a CPU, or if arms do not support decode steps.

    Raises:
        EvaluationError: With the reason.
    """
    reason = _reason_against_arms(arms, beams, new_tokens)
    if reason is None and device == "cpu":
        reason = NO_GPU
    if way == ALWAYS and reason is not None:
        raise EvaluationError(f"--compile always: {reason}; leave --compile out")


def decode_steps(vlm: VLM, plan: Plan, *, is_first: bool) -> DecodeSteps | None:
    """Return the decode steps for all arms of a run; None if the model decodes itself.

    All arms of a run decode in the same way, so that their times are comparable.

    Args:
        vlm: The loaded model.
        plan: What to ask and how.
        is_first: Whether this process prints the run's notes.
    Raises:
        EvaluationError: If steps are required, but this model does not support them.
    """
    from models.decoding.steps.steps import DecodeSteps
    from models.decoding.steps.support import reason_against

    decoding = plan.decoding
    if (
        plan.compile == NEVER
        or _reason_against_arms(plan.arms, decoding.num_beams, decoding.max_new_tokens) is not None
    ):
        return None
    reason = reason_against(vlm)
    if reason is None:
        is_required = plan.compile == ALWAYS
        return DecodeSteps(vlm.language_model, compiles=is_required, is_required=is_required)
    if plan.compile == ALWAYS:
        raise EvaluationError(f"--compile always: {reason}; leave --compile out")
    if vlm.device.type == "cuda" and is_first:
        print(f"note: decoding without fixed buffers, which is slower: {reason}", file=sys.stderr)
    return None


def _reason_against_arms(arms: Sequence[AskedArm], beams: int, new_tokens: int) -> str | None:
    """Return why arms can't use decode steps; None if they can."""
    if beams > 1:
        return f"beam search (--beam {beams}) reorders the cache"
    if new_tokens < 2:
        return "an answer of one token has no decode step"
    named = [arm.name for arm in arms if arm.decoding is not None]
    return f"{', '.join(named)} chooses tokens or changes passes by itself" if named else None
