"""A joint model of which answers to a question are good, and of which answers say the same.

Given the forecast, what is left is shared in part: a question is harder or easier for everybody than forecast. One
standard normal number z per question stands for that. Given z, models are right or wrong on their own. Two right
answers nearly always say the same, a right and a wrong one nearly never, and two wrong ones with a probability that
depends on the pair and the question. Dawid and Skene (1979) with a difficulty, as in GLAD (Whitehill et al. 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.plans.evidence import AnswerEvidence
from eccos_core.plans.logistic import logit, sigmoid

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()
QUESTION_FEATURES = 6  # 1, mean log odds, mean log tokens, and their products
_NEWTON_STEPS = 4
_PROBIT = 16 * 3**0.5 / (15 * np.pi)  # a normal with this scale is near the logistic distribution


@dataclass(frozen=True, slots=True, eq=False)
class JointModel:
    """The parameters. M models.

    - loading (M,): how much z moves the log odds of each model.
    - both_right: P(two right answers say the same). mixed: P(a right and a wrong one do).
    - both_wrong (Q,) and pair (M, M): log odds that two wrong answers say the same, by question and by pair.
    - known (Q, M): log odds that the answer of a model can be compared at all, by question.
    - centre, scale (2, M): of log odds and of log tokens, to standardise them.
    - evidence: what the features of an answer say.
    """

    loading: FloatArray
    both_right: float
    mixed: float
    both_wrong: FloatArray
    pair: FloatArray
    known: FloatArray
    centre: FloatArray
    scale: FloatArray
    evidence: AnswerEvidence

    @property
    def count(self) -> int:
        """M."""
        return len(self.loading)

    def questions(self, quality: FloatArray, output_tokens: FloatArray) -> QuestionTerms:
        """Return what the model says of R requests with these forecasts (R, M)."""
        about = question_features(quality, output_tokens, self.centre, self.scale)
        return QuestionTerms(
            quality,
            condition(quality, self.loading),
            sigmoid((about @ self.both_wrong)[:, None, None] + self.pair),
            sigmoid(about @ self.known),
        )

    def for_pool(self, columns: Sequence[int]) -> JointModel:
        """The same model for these columns, in this order."""
        chosen = list(columns)
        return JointModel(
            self.loading[chosen],
            self.both_right,
            self.mixed,
            self.both_wrong,
            self.pair[np.ix_(chosen, chosen)],
            self.known[:, chosen],
            self.centre[:, chosen],
            self.scale[:, chosen],
            self.evidence.for_pool(chosen),
        )


@dataclass(frozen=True, slots=True, eq=False)
class QuestionTerms:
    """What a joint model says of R requests.

    quality (R, M): the forecast. good (R, M, K): P(good | node of z). same_wrong (R, M, M): P(two wrong answers say the
    same). known (R, M): P(the answer can be compared).
    """

    quality: FloatArray
    good: FloatArray
    same_wrong: FloatArray
    known: FloatArray

    def rows(self, index: IntArray) -> QuestionTerms:
        """The terms of the chosen requests."""
        return QuestionTerms(self.quality[index], self.good[index], self.same_wrong[index], self.known[index])


def question_features(
    quality: FloatArray, output_tokens: FloatArray, centre: FloatArray, scale: FloatArray
) -> FloatArray:
    """Return what is known of a question before any call, (R, Q). Models count alike, so any pool will do."""
    ease = ((logit(quality) - centre[0]) / scale[0]).mean(axis=1)
    with np.errstate(invalid="ignore"):
        lengths = (np.log1p(output_tokens) - centre[1]) / scale[1]
    counted = ~np.isnan(lengths)
    length = np.where(counted, lengths, 0.0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    ease, length = np.clip(ease, -3, 3), np.clip(length, -3, 3)
    return np.column_stack([np.ones(len(ease)), ease, length, ease**2, length**2, ease * length])


def condition(quality: FloatArray, loading: FloatArray) -> FloatArray:
    """Return P(good | z) at each node, (R, M, K), whose mean over z is the forecast `quality` (R, M).

    It is sigmoid(a + loading z). Newton's method finds a.
    """
    target = np.clip(quality, 1e-4, 1 - 1e-4)
    start = logit(target) * np.sqrt(1 + (_PROBIT * loading) ** 2)
    shift = loading[:, None] * NODES
    found = start
    good = sigmoid(found[..., None] + shift)
    for _ in range(_NEWTON_STEPS):
        slope = np.maximum((good * (1 - good)) @ NODE_WEIGHTS, 1e-6)
        found = found + np.clip((target - good @ NODE_WEIGHTS) / slope, -1.0, 1.0)
        good = sigmoid(found[..., None] + shift)
    return good
