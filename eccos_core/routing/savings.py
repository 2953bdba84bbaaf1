"""What routing saved against sending everything to one model: the measured part and the estimated part, kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.certification import mean_interval
from eccos_core.domain import FloatArray
from eccos_core.errors import InputError, did_you_mean
from eccos_core.off_policy import BanditFeedback, IntervalEstimate, evaluate_policy, student_t_quantile
from eccos_core.routing.logged_traffic import LoggedTraffic

LEAST_CALLS = 4  # of the baseline, for an interval of its cost
_CURVE_POINTS = 200


@dataclass(frozen=True, slots=True)
class MeasuredSavings:
    """What the log knows for certain.

    - `requests` were answered, `unanswered` were not. `first_at` and `last_at` are in s since 1970 (UTC).
    - `paid_usd`: what the answers cost together. `answers`: how many each model gave.
    - `judge_usd` and `shadow_usd`: what was paid on top to label these answers: calls of the judge, and shadow answers.
    - `labelled`: answers with a label, and `label_sources` how many came from whom. `mean_label`: their mean in [0, 1],
      None without labels. Its interval holds for any number of labels.
    """

    requests: int
    unanswered: int
    first_at: float
    last_at: float
    paid_usd: float
    judge_usd: float
    shadow_usd: float
    answers: Mapping[str, int]
    labelled: int
    label_sources: Mapping[str, int]
    mean_label: IntervalEstimate | None

    @property
    def labelling_usd(self) -> float:
        """What was paid on top of the answers, to label them."""
        return self.judge_usd + self.shadow_usd


@dataclass(frozen=True, slots=True)
class EstimatedSavings:
    """What sending every request to the baseline would have done.

    - `baseline_usd`: its cost. Calls that it got count as paid. The others are its forecast times `cost_correction`,
      paid over forecast cost of its `baseline_calls`. The interval is None with fewer than 4 calls of it.
    - `saved_usd` and `saved_share`: against what was paid for the answers. `net_saved_usd` and `net_saved_share`: after
      what labelling them cost, too. The shares are of the baseline's cost, and None where it costs nothing.
    - `quality`, `baseline_quality` and `quality_change` (routed minus baseline): doubly robust estimates for all
      requests. None without labels.
    - `forecast_quality` and `forecast_baseline_quality`: mean forecasts, which no label has checked.
    - `measurable`: the share of the requests for which labels tell about the baseline's quality.
    """

    baseline: str
    baseline_calls: int
    cost_correction: float
    baseline_usd: float
    baseline_usd_interval: tuple[float, float] | None
    saved_usd: float
    saved_share: float | None
    net_saved_usd: float
    net_saved_share: float | None
    quality: IntervalEstimate | None
    baseline_quality: IntervalEstimate | None
    quality_change: IntervalEstimate | None
    forecast_quality: float
    forecast_baseline_quality: float
    measurable: float


@dataclass(frozen=True, slots=True)
class SavingsReport:
    """Savings on logged traffic.

    `curve` holds (requests, USD paid for answers so far, the same with labelling, USD of the baseline so far).
    """

    log: str
    confidence: float
    baseline_is_default: bool
    measured: MeasuredSavings
    estimated: EstimatedSavings
    curve: tuple[tuple[int, float, float, float], ...]


def measure_savings(
    traffic: LoggedTraffic, pool: Sequence[str], baseline: str | None = None, *, confidence: float = 0.95
) -> SavingsReport:
    """Compare what was paid with sending all requests to `baseline`.

    By default that is the model of the pool with the best mean forecast. Raises `InputError` for a baseline that the
    log knows nothing of.
    """
    feedback = traffic.feedback(traffic.models)
    known = [name for name in pool if name in traffic.models]
    if baseline is None:
        mean = dict(zip(feedback.models, feedback.forecast_quality.mean(axis=0).tolist(), strict=True))
        chosen = max(known, key=lambda name: mean[name])
    elif baseline in traffic.models:
        chosen = baseline
    else:
        hint = did_you_mean(baseline, traffic.models) or "."
        raise InputError(
            f"baseline {baseline!r}: {traffic.path} has no forecast for it{hint} It has {', '.join(traffic.models)}."
        )
    estimated, costs = _estimate(traffic, feedback, feedback.models.index(chosen), confidence)
    return SavingsReport(
        log=traffic.path,
        confidence=confidence,
        baseline_is_default=baseline is None,
        measured=_measure(traffic, confidence),
        estimated=estimated,
        curve=_curve(traffic.paid_usd, traffic.judge_usd + traffic.shadow_usd, costs),
    )


def _measure(traffic: LoggedTraffic, confidence: float) -> MeasuredSavings:
    labels = traffic.labels[~np.isnan(traffic.labels)]
    sources = [entry.label_source or "human" for entry in traffic.entries if entry.label is not None]
    return MeasuredSavings(
        requests=len(traffic.entries),
        unanswered=traffic.unanswered,
        first_at=traffic.entries[0].at,
        last_at=traffic.entries[-1].at,
        paid_usd=float(traffic.paid_usd.sum()),
        judge_usd=float(traffic.judge_usd.sum()),
        shadow_usd=float(traffic.shadow_usd.sum()),
        answers=dict(Counter(entry.model or entry.decided_model for entry in traffic.entries).most_common()),
        labelled=len(labels),
        label_sources=dict(Counter(sources).most_common()),
        mean_label=IntervalEstimate(float(labels.mean()), *mean_interval(labels, confidence)) if len(labels) else None,
    )


def _estimate(
    traffic: LoggedTraffic, feedback: BanditFeedback, baseline: int, confidence: float
) -> tuple[EstimatedSavings, FloatArray]:
    """Return the estimates, and the baseline's cost of each request (R,) in USD."""
    own = np.array([entry.model == feedback.models[baseline] for entry in traffic.entries])
    paid, forecast = feedback.cost_usd, feedback.forecast_cost_usd[:, baseline]
    calls, expected = int(own.sum()), float(forecast[own].sum())
    correction = float(paid[own].sum()) / expected if expected > 0 else 1.0
    costs = np.where(own, paid, correction * forecast)
    total, spent = float(costs.sum()), float(paid.sum())
    ends = None
    if calls >= LEAST_CALLS and expected > 0:  # the standard error of a ratio (Cochran 1977, section 2.11)
        error = np.sqrt(calls / (calls - 1) * ((paid - correction * forecast)[own] ** 2).sum()) / expected
        half = student_t_quantile((1 + confidence) / 2, calls - 1) * float(error * forecast[~own].sum())
        ends = (max(0.0, total - half), total + half)
    net = total - spent - float((traffic.judge_usd + traffic.shadow_usd).sum())
    value = evaluate_policy(feedback, np.full(len(own), baseline), confidence=confidence)
    has_labels = bool((~np.isnan(feedback.quality)).any())
    found = EstimatedSavings(
        baseline=feedback.models[baseline],
        baseline_calls=calls,
        cost_correction=correction,
        baseline_usd=total,
        baseline_usd_interval=ends,
        saved_usd=total - spent,
        saved_share=1 - spent / total if total > 0 else None,
        net_saved_usd=net,
        net_saved_share=net / total if total > 0 else None,
        quality=value.logged_quality if has_labels else None,
        baseline_quality=value.quality if has_labels else None,
        quality_change=value.quality_change.negated() if has_labels else None,
        forecast_quality=float(feedback.forecast_quality[feedback.rows, feedback.action].mean()),
        forecast_baseline_quality=float(feedback.forecast_quality[:, baseline].mean()),
        measurable=value.measurable if has_labels else 0.0,
    )
    return found, costs


def _curve(paid: FloatArray, labelling: FloatArray, costs: FloatArray) -> tuple[tuple[int, float, float, float], ...]:
    at = np.unique(np.linspace(0, len(paid), min(len(paid), _CURVE_POINTS) + 1).astype(int))
    sums = [np.append(0.0, np.cumsum(each))[at].tolist() for each in (paid, paid + labelling, costs)]
    return tuple(zip(at.tolist(), *sums, strict=True))
