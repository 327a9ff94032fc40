"""The ratings of a judging run of MMHal-Bench, and its numbers by arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from eval.stats.permutation import holm
from eval.tasks.judge.scoring import READ, STATES, UNPARSED
from eval.tasks.mmhal.scoring import (
    Difference,
    Numbers,
    Rating,
    ReferenceNumbers,
    difference,
    kinds_of,
    numbers,
    rating_of,
    reference_numbers,
)

if TYPE_CHECKING:
    from eval.tasks.judge.config import JudgeConfig
    from eval.tasks.judge.store import Judgements
    from eval.tasks.mmhal.answers import Answers
    from eval.tasks.mmhal.plan import MMHalPlan
    from eval.tasks.mmhal.questions import Question


@dataclass(frozen=True)
class RatedRun:
    """A judging run, complete or not; arms are compared with `reference`."""

    config: JudgeConfig
    plan: MMHalPlan
    questions: Sequence[Question]
    arms: Sequence[Answers]
    reference: str
    judgements: Judgements

    @cached_property
    def ratings(self) -> dict[str, dict[int, Rating]]:
        """The ratings of each arm's answers, by index of the question."""
        final = self.judgements.final
        return {
            name: {at: rating_of(final.get(request.key)) for at, request in of.items()}
            for name, of in self.plan.requests.items()
        }

    @cached_property
    def numbers(self) -> dict[str, Numbers | None]:
        """The numbers of each arm."""
        return {name: numbers(self.questions, of) for name, of in self.ratings.items()}

    @cached_property
    def by_kind(self) -> dict[str, dict[str, Numbers | None]]:
        """The numbers by type of question, then arm."""
        return {
            kind: {name: numbers(of, ratings) for name, ratings in self.ratings.items()}
            for kind, of in kinds_of(self.questions).items()
        }

    @cached_property
    def differences(self) -> dict[str, Difference | None]:
        """Each other arm minus the reference."""
        return {
            name: difference(self.questions, self.ratings[self.reference], of)
            for name, of in self.ratings.items()
            if name != self.reference
        }

    @cached_property
    def adjusted(self) -> dict[str, float]:
        """The p-values of average scores after Holm's correction for all arms."""
        tested = {name: one.score_test.p_value for name, one in self.differences.items() if one}
        return dict(zip(tested, holm(list(tested.values())), strict=True))

    def states(self, name: str) -> dict[str, int]:
        """Return how many answers of an arm are in each state."""
        found = [one.state for one in self.ratings[name].values()]
        return {state: found.count(state) for state in STATES}

    def as_reference(self, name: str) -> ReferenceNumbers | None:
        """Compute the script's numbers of an arm's replies; None if replies are missing."""
        return reference_numbers([one.text for one in self.replied(name)])

    def replied(self, name: str) -> list[Rating]:
        """Return an arm's ratings that have a reply, readable or not, in the questions' order."""
        found = [self.ratings[name].get(one.position) for one in self.questions]
        return [one for one in found if one is not None and one.state in (READ, UNPARSED)]

    @cached_property
    def judges(self) -> list[str]:
        """The models named in the replies; an alias may refer to several."""
        return sorted({one.model for one in self.judgements.final.values() if one.model})
