"""The fitted reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError, UnknownModelError
from eccos_core.grading.reward.features import answer_features
from eccos_core.grading.reward.logistic import sigmoid
from eccos_core.io.answers import Answer
from eccos_core.protocols import Encoder


@dataclass(frozen=True, slots=True, eq=False)
class RewardModel:
    """The probability that an answer is good: sigmoid(weights . features + offset of its model).

    encoder: reads questions and answers. models: the M models whose answers it was fitted to. weights (P,) and offsets
    (M,) are log odds. `offsets` make the mean reward of each model that of its grades.
    """

    encoder: Encoder
    models: tuple[str, ...]
    weights: FloatArray
    offsets: FloatArray

    def score(self, answers: Sequence[Answer]) -> FloatArray:
        """Return the reward of each answer, (N,) in [0, 1]. Raises `UnknownModelError` for a model not fitted to."""
        if not answers:
            raise InputError("there is no answer to score")
        for answer in answers:
            if answer.model not in self.models:
                raise UnknownModelError(answer.model, list(self.models))
        offsets = self.offsets[[self.models.index(answer.model) for answer in answers]]
        return sigmoid(answer_features(answers, self.encoder) @ self.weights + offsets)

    def score_unnamed(self, answers: Sequence[Answer]) -> FloatArray:
        """Return the reward (N,) of answers whatever their model, with the mean of all models' offsets."""
        if not answers:
            raise InputError("there is no answer to score")
        return sigmoid(answer_features(answers, self.encoder) @ self.weights + self.offsets.mean())
