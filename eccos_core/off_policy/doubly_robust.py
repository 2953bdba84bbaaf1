"""Doubly robust evaluation of another policy on logged traffic (Dudík, Langford and Li, ICML 2011).

The value of a request is what a model forecasts for the new choice. Where the new choice is the logged one, the error
of that forecast is added, divided by how probable it was to see it. That is unbiased if either the forecasts or the
probabilities are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.off_policy.feedback import BanditFeedback
from eccos_core.off_policy.intervals import (
    LEAST_SAMPLE_SIZE,
    IntervalEstimate,
    UnseenAnswers,
    effective_sample_size,
    interval,
)
from eccos_core.off_policy.reward_model import calibrate_cost, calibrate_quality


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """What a policy is worth on logged traffic.

    - `quality` in [0, 1] and `cost_usd`: means of a request. `logged_quality` and `logged_cost_usd`: the same of what
      was really done. Its cost is known, so it has no interval.
    - `quality_change` and `cost_change_usd`: the policy minus what was done, on the same requests.
    - `agreement`: the share of the requests where the policy makes the logged choice.
    - `measurable`: the share of the requests for which a label could tell about the policy's choice. The rest is
      forecast, and the intervals take the worst and the best possible outcome there.
    - `effective_sample_size`: how many labels of equal weight tell as much about the quality as those of the log.
    - `positivity_in_doubt`: the log holds the policy's choices far less often than their probabilities say. Then some
      of them could not have been logged, and the estimates may be wrong.
    """

    quality: IntervalEstimate
    cost_usd: IntervalEstimate
    logged_quality: IntervalEstimate
    logged_cost_usd: float
    quality_change: IntervalEstimate
    cost_change_usd: IntervalEstimate
    agreement: float
    measurable: float
    effective_sample_size: float
    positivity_in_doubt: bool


def evaluate_policy(feedback: BanditFeedback, chosen: IntArray, *, confidence: float = 0.95) -> PolicyValue:
    """Estimate what a policy that makes these choices, (R,) model indices, is worth.

    The log must hold the probability of each choice. Labels may be missing, if they are missing at random among the
    answers of each model. Raises `InputError` for choices that do not fit.
    """
    if chosen.shape != feedback.action.shape or not ((chosen >= 0) & (chosen < len(feedback.models))).all():
        raise InputError(
            f"policy: choices have shape {chosen.shape}, must be {feedback.action.shape} with a model index each"
        )
    quality_model, cost_model = calibrate_quality(feedback), calibrate_cost(feedback)
    paid, forecast = feedback.cost_usd, cost_model[feedback.rows, feedback.action]
    ratios = np.divide(paid, forecast, out=np.ones(len(paid)), where=forecast > 0)
    quality = _Outcome(feedback, feedback.quality, quality_model, np.ones_like(quality_model))
    cost = _Outcome(feedback, paid, cost_model, cost_model * max(1.0, float(ratios.max())))
    _, weight = doubly_robust_scores(feedback, feedback.quality, quality_model, chosen)
    return PolicyValue(
        quality=quality.of_policy(chosen, confidence).clipped(0.0, 1.0),
        cost_usd=cost.of_policy(chosen, confidence).clipped(0.0, np.inf),
        logged_quality=quality.of_policy(feedback.action, confidence, logged=True).clipped(0.0, 1.0),
        logged_cost_usd=float(paid.mean()),
        quality_change=quality.change(chosen, confidence).clipped(-1.0, 1.0),
        cost_change_usd=cost.change(chosen, confidence),
        agreement=float((chosen == feedback.action).mean()),
        measurable=float(quality.measurable(chosen).mean()),
        effective_sample_size=effective_sample_size(weight),
        positivity_in_doubt=_is_positivity_in_doubt(feedback, chosen),
    )


def _is_positivity_in_doubt(feedback: BanditFeedback, chosen: IntArray) -> bool:
    """Whether the mean weight lies three standard errors below 1, its mean if every choice could be logged.

    One answer of the greatest weight that was not seen counts as an error, too.
    """
    possible = feedback.support[feedback.rows, chosen]
    weight = ((chosen == feedback.action) / feedback.propensity)[possible]
    if effective_sample_size(weight) < LEAST_SAMPLE_SIZE:
        return False
    greatest = float((1 / feedback.propensity[possible]).max())
    error = np.sqrt(((weight - weight.mean()) ** 2).sum() + greatest**2) / len(weight)
    return bool(weight.mean() + 3 * error < 1)


def doubly_robust_scores(
    feedback: BanditFeedback, value: FloatArray, model: FloatArray, chosen: IntArray, *, logged: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Return the scores (R,), whose mean is the estimate, and the weights (R,) of the seen answers.

    value (R,): what was seen, NaN where unknown. model (R, M): what is expected of each choice. With `logged`, the
    choices are those of the log itself, and their probability is 1.
    """
    known = ~np.isnan(value)
    weight = np.where(known & (chosen == feedback.action), 1 / _seen_probability(feedback, known, logged=logged), 0.0)
    return model[feedback.rows, chosen] + weight * _error(feedback, value, model), weight


def _error(feedback: BanditFeedback, value: FloatArray, model: FloatArray) -> FloatArray:
    """(R,) how far what was seen lies above what was expected, 0 where nothing was seen."""
    return np.where(np.isnan(value), 0.0, value - model[feedback.rows, feedback.action])


def _seen_probability(feedback: BanditFeedback, known: BoolArray, *, logged: bool) -> FloatArray:
    """(R,) how probable it was to make the logged choice and to know its value. 1 for a model without known values."""
    share = _known_share(feedback, known)[feedback.action]
    return np.asarray(np.where(share > 0, share, 1.0) * (1.0 if logged else feedback.propensity))


def _known_share(feedback: BanditFeedback, known: BoolArray) -> FloatArray:
    """(M,) the share of each model's answers whose value is known."""
    calls = np.bincount(feedback.action, minlength=len(feedback.models))
    return np.asarray(np.bincount(feedback.action, known, len(feedback.models)) / np.maximum(calls, 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """One outcome: its seen value (R,), what is expected of each choice (R, M), and the most it can be (R, M).

    The least is 0.
    """

    feedback: BanditFeedback
    value: FloatArray
    model: FloatArray
    most: FloatArray

    def measurable(self, chosen: IntArray) -> BoolArray:
        """(R,) whether the log can tell about a choice: it could have been logged, and some such answer is known."""
        share = _known_share(self.feedback, ~np.isnan(self.value))
        return np.asarray(self.feedback.support[self.feedback.rows, chosen] & (share[chosen] > 0))

    def of_policy(self, chosen: IntArray, confidence: float, *, logged: bool = False) -> IntervalEstimate:
        """Estimate the mean under these choices."""
        scores, weight = doubly_robust_scores(self.feedback, self.value, self.model, chosen, logged=logged)
        enough = effective_sample_size(weight) >= LEAST_SAMPLE_SIZE
        below, above = self._slack(chosen, self.measurable(chosen) & enough)
        if not enough:
            forecast = float(self.model[self.feedback.rows, chosen].mean())
            return IntervalEstimate(forecast, forecast - below, forecast + above)
        return self._interval(scores, weight, chosen, confidence, logged=logged).widened(below, above)

    def change(self, chosen: IntArray, confidence: float) -> IntervalEstimate:
        """Estimate the mean difference between these choices and the logged ones."""
        logged, rows = self.feedback.action, self.feedback.rows
        if (chosen == logged).all():
            return IntervalEstimate(0.0, 0.0, 0.0)
        scores, weight = doubly_robust_scores(self.feedback, self.value, self.model, chosen)
        before, own = doubly_robust_scores(self.feedback, self.value, self.model, logged, logged=True)
        told, told_logged = (effective_sample_size(each) >= LEAST_SAMPLE_SIZE for each in (weight, own))
        if told:
            found = self._interval(scores - before, weight, chosen, confidence)
        elif told_logged:
            found = self._interval(before - self.model[rows, chosen], own, logged, confidence, logged=True).negated()
        else:
            difference = float((self.model[rows, chosen] - self.model[rows, logged]).mean())
            found = IntervalEstimate(difference, difference, difference)
        same = chosen == logged
        below, above = self._slack(chosen, same | (self.measurable(chosen) & told))
        below_logged, above_logged = self._slack(logged, same | (self.measurable(logged) & told_logged))
        return found.widened(below + above_logged, above + below_logged)

    def _slack(self, chosen: IntArray, measured: BoolArray) -> tuple[float, float]:
        """How far the mean may lie below and above what is expected, because of what is not measured."""
        rows = self.feedback.rows
        expected = self.model[rows, chosen]
        below = np.where(measured, 0.0, expected).mean()
        return float(below), float(np.where(measured, 0.0, self.most[rows, chosen] - expected).mean())

    def _interval(
        self, scores: FloatArray, weight: FloatArray, chosen: IntArray, confidence: float, *, logged: bool = False
    ) -> IntervalEstimate:
        """Return the interval of the mean of scores (R,) that rest on seen answers to `chosen` with `weight` (R,)."""
        rows, known = self.feedback.rows, ~np.isnan(self.value)
        expected = float(np.average(self.model[rows, chosen], weights=weight))
        most = float(np.average(self.most[rows, chosen], weights=weight))
        greatest = float((1 / _seen_probability(self.feedback, known, logged=logged))[known].max())
        correction = weight * _error(self.feedback, self.value, self.model)
        return interval(scores, weight, correction, UnseenAnswers(greatest, -expected, most - expected), confidence)
