"""Judge answers: P(this answer is good) from the forecast, the answer's features, and which answers agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import ArtifactError, InputError
from eccos_core.plans.belief import Belief
from eccos_core.plans.evidence import BINS, EVIDENCE, AnswerEvidence
from eccos_core.plans.joint import QUESTION_FEATURES, JointModel
from eccos_core.plans.logistic import logit, sigmoid
from eccos_core.plans.state import PlanState


class Verifier(Protocol):
    """Says how likely each answer of a plan is good."""

    @property
    def models(self) -> tuple[str, ...]:
        """The pool, in the order of the columns."""
        ...

    @property
    def learned(self) -> bool:
        """Whether it learned from graded answers of this pool. If not, it is a rule of thumb."""
        ...

    def quality(self, state: PlanState) -> FloatArray:
        """Return P(good) of every model (R, M): of the answers given, and of models that were not asked."""
        ...

    def belief(self, state: PlanState) -> Belief:
        """Return the belief that a stopping rule looks ahead from."""
        ...

    def judge(self, belief: Belief) -> FloatArray:
        """Return P(good) of every model (R, M) under a belief."""
        ...

    def for_pool(self, models: Sequence[str]) -> Verifier:
        """The same verifier for these models, in this order. Raises `ArtifactError` for an unknown model."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LearnedVerifier:
    """A verifier that learned from graded answers of its pool.

    slope, intercept (C,): Platt's calibration of P(good) after 1, 2, ... C answers, from held-out questions.
    """

    models: tuple[str, ...]
    joint: JointModel
    slope: FloatArray
    intercept: FloatArray

    @property
    def learned(self) -> bool:
        """True: it learned from graded answers."""
        return True

    def belief(self, state: PlanState) -> Belief:
        """Return the belief after the answers of a state. Raises `ArtifactError` for another pool."""
        return believe(self.models, self.joint, state)

    def quality(self, state: PlanState) -> FloatArray:
        """Return P(good) of every model (R, M). Before the first call it is the forecast."""
        if not state.calls:
            check_pool(self.models, state)
            return state.quality
        return self.judge(self.belief(state))

    def judge(self, belief: Belief) -> FloatArray:
        """Return P(good) of every model (R, M), calibrated for the number of answers."""
        place = min(belief.asked.shape[1], len(self.slope)) - 1
        return sigmoid(self.slope[place] * logit(belief.quality()) + self.intercept[place])

    def for_pool(self, models: Sequence[str]) -> LearnedVerifier:
        """The same verifier for these models, in this order. You may leave models out.

        Raises `ArtifactError` for a model that it does not know.
        """
        columns = _columns(self.models, models)
        return LearnedVerifier(tuple(models), self.joint.for_pool(columns), self.slope, self.intercept)


@dataclass(frozen=True, slots=True, eq=False)
class RuleOfThumbVerifier:
    """A verifier for a pool without graded answers. It knows nothing of the pool but what is usual.

    Answers that agree are likely good, and tokens of low probability make an answer doubtful. The numbers are typical
    values, not fitted ones. features: those of `EVIDENCE` that the answers of this pool will have.
    """

    models: tuple[str, ...]
    joint: JointModel

    @classmethod
    def of(cls, models: Sequence[str], features: Sequence[str] = ()) -> RuleOfThumbVerifier:
        """Make one for a pool. Raises `InputError` for an unknown feature."""
        unknown = [name for name in features if name not in EVIDENCE]
        if unknown:
            raise InputError(f"unknown features: {', '.join(unknown)}. There are: {', '.join(EVIDENCE)}.")
        return cls(tuple(models), _usual_joint(len(models), features))

    @property
    def learned(self) -> bool:
        """False: nothing was learned."""
        return False

    def belief(self, state: PlanState) -> Belief:
        """Return the belief after the answers of a state. Raises `ArtifactError` for another pool."""
        return believe(self.models, self.joint, state)

    def quality(self, state: PlanState) -> FloatArray:
        """Return P(good) of every model (R, M). Before the first call it is the forecast."""
        return state.quality if not state.calls else self.judge(self.belief(state))

    def judge(self, belief: Belief) -> FloatArray:
        """Return P(good) of every model (R, M)."""
        return belief.quality()

    def for_pool(self, models: Sequence[str]) -> RuleOfThumbVerifier:
        """The same rule of thumb for these models, in this order. Raises `ArtifactError` for an unknown model."""
        return RuleOfThumbVerifier(tuple(models), self.joint.for_pool(_columns(self.models, models)))


def believe(models: Sequence[str], joint: JointModel, state: PlanState) -> Belief:
    """Return the belief of a joint model after the answers of a state. Raises `ArtifactError` for another pool."""
    check_pool(models, state)
    belief = Belief.start(joint, joint.questions(state.quality, state.output_tokens))
    for call in range(state.calls):
        asked = state.asked[:, call]
        told = {name: values[:, call] for name, values in state.features.items()}
        ratio = joint.evidence.log_ratio(told, asked)
        belief = belief.after(asked, ratio, state.agreement[:, call, :call], state.known[:, call])
    return belief


def check_pool(models: Sequence[str], state: PlanState) -> None:
    """Raise `ArtifactError` if a state is of other models than a verifier's, or in another order."""
    if tuple(models) != state.models:
        raise ArtifactError(
            f"a verifier of another pool: it judges {', '.join(models)}, and this plan is for "
            f"{', '.join(state.models)}. Run `eccos fit` again."
        )


def _columns(known: Sequence[str], models: Sequence[str]) -> list[int]:
    unknown = [name for name in models if name not in known]
    if unknown:
        raise ArtifactError(
            f"a verifier of another pool: it does not know {', '.join(unknown)} (it knows {', '.join(known)}). "
            "Run `eccos fit` again."
        )
    return [known.index(name) for name in models]


_USUAL_WEIGHTS = {  # change of the log odds per unit of `_USUAL_SCALE`
    "mean_logprob": 0.8,
    "least_logprob": 0.4,
    "cut_off": -1.5,
    "filtered": -2.0,
    "refuses": -2.5,
    "valid": 1.0,
    "reward": 1.0,
    "judge": 1.2,
    "length_ratio": -0.2,
}
_USUAL_CENTRE = {"mean_logprob": -0.3, "least_logprob": -2.0, "valid": 0.9, "reward": 0.6, "judge": 0.7}
_USUAL_SCALE = {"mean_logprob": 0.3, "least_logprob": 1.5, "valid": 0.5, "reward": 0.25, "judge": 0.25}


def _usual_joint(models: int, features: Sequence[str]) -> JointModel:
    evidence = AnswerEvidence.none(models)
    weights, centre, scale = evidence.weights.copy(), evidence.centre.copy(), evidence.scale.copy()
    for place, name in enumerate(EVIDENCE):
        weights[:, place] = _USUAL_WEIGHTS[name]
        centre[:, place] = _USUAL_CENTRE.get(name, 0.0)
        scale[:, place] = _USUAL_SCALE.get(name, 1.0)
    edges, share = evidence.edges, evidence.share
    if {"mean_logprob", "least_logprob", "reward", "judge"} & {*features}:
        edges = np.tile([-0.5, 0.5], (models, 1))
        share = np.tile(np.array([[0.5, 0.2], [0.3, 0.3], [0.2, 0.5]]), (models, 1, 1))
    assert share.shape == (models, BINS, 2)
    question, known = np.zeros(QUESTION_FEATURES), np.zeros((QUESTION_FEATURES, models))
    question[0], known[0] = -1.0, 4.0
    return JointModel(
        loading=np.full(models, 1.0),
        both_right=0.95,
        mixed=0.02,
        both_wrong=question,
        pair=np.zeros((models, models)),
        known=known,
        centre=np.zeros((2, models)),
        scale=np.ones((2, models)),
        evidence=AnswerEvidence(centre, scale, weights, edges, share),
    )
