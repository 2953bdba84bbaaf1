"""Grade with a reward model, which needs no reference and no call."""

from __future__ import annotations

from dataclasses import dataclass

from eccos_core.grading.protocol import Reference
from eccos_core.grading.reward.model import RewardModel
from eccos_core.io.answers import Answer


@dataclass(frozen=True, slots=True, eq=False)
class RewardGrader:
    """Score an answer by a reward model of `eccos fit-reward`: its probability that the answer is good.

    The score is no proof. It says how often answers that look like this one were good.
    """

    reward: RewardModel
    name: str = "reward"

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return the score in [0, 1] of an answer whose model you do not know. The reference is not read."""
        return self.grade_answer(Answer(question, "", answer))

    def grade_answer(self, answer: Answer) -> float:
        """Return the score in [0, 1]. A model that the reward was not fitted to counts as the mean of all models."""
        if answer.model in self.reward.models:
            return float(self.reward.score([answer])[0])
        return float(self.reward.score_unnamed([answer])[0])
