"""Sums of the decision log as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eccos_core.decision_log import LogFigures, LogFilter, add_up
from eccos_core.server.ui.period import Period


def describe_figures(figures: LogFigures, chosen: LogFilter, period: Period) -> dict[str, Any]:
    """Return the sums of a period in all, of each time step, of each model, and the calibration of the forecasts."""
    steps = figures.steps(chosen, period.step_s)
    total = add_up(steps.values())
    empty = add_up(())
    calibration = figures.calibration(chosen)
    counted = sum(each.count for each in calibration)
    error = sum(each.count * abs(each.forecast - each.label) for each in calibration)
    return {
        "log": True,
        "since": period.since,
        "until": period.until,
        "step_s": period.step_s,
        "total": asdict(total),
        "steps": [{"at": number * period.step_s, **asdict(steps.get(number, empty))} for number in period.numbers],
        "models": [
            {
                "model": each.model,
                "share": each.totals.decisions / total.decisions,
                "latency_p50_s": each.latency_p50_s,
                "latency_p90_s": each.latency_p90_s,
                **asdict(each.totals),
            }
            for each in figures.models(chosen)
        ],
        "calibration": {
            "labelled": counted,
            "error": error / counted if counted else None,
            "bins": [asdict(each) for each in calibration],
        },
    }
