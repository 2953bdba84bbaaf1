"""What one model would have cost for the same requests, as JSON.

The money is summed in SQL over the whole period, by the rule of `router.savings()`. The quality needs the decisions
themselves, so it is estimated from the newest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eccos_core.decision_log import LogFigures, LogFilter
from eccos_core.errors import EccosError
from eccos_core.router import Router
from eccos_core.server.ui.period import Period

QUALITY_DECISIONS = 2_000
"""How many of the newest decisions the quality of the baseline is estimated from."""


def describe_savings(
    figures: LogFigures, chosen: LogFilter, period: Period, pool: Sequence[str], baseline: str | None
) -> dict[str, Any]:
    """Return the cost of `baseline` per time step and in all. By default that is the model with the best mean forecast.

    Answers that the baseline itself gave count as paid. The others are its forecast times `cost_correction`: what was
    paid for its own answers over their forecast.
    """
    default = baseline is None
    if baseline is None:
        means = figures.mean_forecasts(chosen, pool)
        baseline = max(means, key=lambda name: means[name], default=None)
    if baseline is None:
        return {"log": True, "baseline": None, "quality": None}
    steps = figures.baseline_steps(chosen, baseline, period.step_s)
    own_forecast = sum(each.forecast_own for each in steps.values())
    correction = sum(each.paid for each in steps.values()) / own_forecast if own_forecast > 0 else 1.0
    usd = {number: each.paid + correction * each.forecast_others for number, each in steps.items()}
    paid = {number: each.paid_usd for number, each in figures.steps(chosen, period.step_s).items() if number in usd}
    total, spent = sum(usd.values()), sum(paid.values())
    return {
        "log": True,
        "baseline": baseline,
        "is_default": default,
        "since": period.since,
        "until": period.until,
        "step_s": period.step_s,
        "cost_correction": correction,
        "baseline_usd": total,
        "paid_usd": spent,
        "saved_usd": total - spent,
        "saved_share": 1 - spent / total if total > 0 else None,
        "steps": [
            {"at": number * period.step_s, "paid_usd": paid.get(number, 0.0), "baseline_usd": usd.get(number, 0.0)}
            for number in period.numbers
        ],
        "quality": None,
    }


def estimate_quality(router: Router, figures: LogFigures, chosen: LogFilter, baseline: str) -> dict[str, Any]:
    """Return what labels say about the quality of sending everything to the baseline, from the newest decisions.

    `problem` says why there is no estimate.
    """
    try:
        report = router.savings(baseline, since=figures.start_of_newest(chosen, QUALITY_DECISIONS))
    except EccosError as error:
        return {"problem": str(error)}
    estimated = report.estimated
    intervals = {
        name: None if (found := getattr(estimated, name)) is None else asdict(found)
        for name in ("quality", "baseline_quality", "quality_change")
    }
    return {
        "problem": None,
        "decisions": report.measured.requests,
        "labelled": report.measured.labelled,
        "confidence": report.confidence,
        "forecast_quality": estimated.forecast_quality,
        "forecast_baseline_quality": estimated.forecast_baseline_quality,
        **intervals,
    }
