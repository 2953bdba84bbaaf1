"""Sum up each model's calls, cost, latency, failures and labels from the decision log."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from eccos_core.decision_log.reader import LogReader, SqliteReader

_ROWS = "SELECT model, decided_model, paid_usd, latency_s, attempts, label FROM {decisions} WHERE at >= ?"


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """The use of one model since some time.

    `decisions`: requests that this model answered, or that chose it and got no answer. `answers` and `failures`: calls
    of this model, whichever model answered in the end. `paid_usd` and `median_latency_s` (None without answers) are of
    the answers. `labelled`: decisions with a label. `mean_label`: in [0, 1], None without labels.
    """

    model: str
    decisions: int
    answers: int
    failures: int
    paid_usd: float
    median_latency_s: float | None
    labelled: int
    mean_label: float | None

    @property
    def calls(self) -> int:
        """The number of answers and failed calls."""
        return self.answers + self.failures

    @property
    def error_rate(self) -> float | None:
        """The share of the calls that failed, in [0, 1]. None without calls."""
        return self.failures / self.calls if self.calls else None

    @property
    def labelled_share(self) -> float | None:
        """The share of the decisions that have a label, in [0, 1]. None without decisions."""
        return self.labelled / self.decisions if self.decisions else None


@dataclass(slots=True)
class _UsageTotals:
    decisions: int = 0
    failures: int = 0
    paid_usd: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)


def model_usage(log: LogReader | Path, since: float) -> tuple[ModelUsage, ...]:
    """Sum up each model since a time (s since 1970, UTC), the busiest model first.

    `log`: the log's reader, or the SQLite file of one. A missing file has no models.
    """
    reader = SqliteReader(log) if isinstance(log, Path) else log
    totals_by_model: dict[str, _UsageTotals] = {}
    for model, decided_model, paid_usd, latency_s, attempts, label in reader.rows(_ROWS, (since,)):
        totals = totals_by_model.setdefault(model or decided_model, _UsageTotals())
        totals.decisions += 1
        if model is not None:
            totals.paid_usd += paid_usd or 0.0
            totals.latencies_s.append(latency_s or 0.0)
        if label is not None:
            totals.labels.append(label)
        for attempt in json.loads(attempts):
            totals_by_model.setdefault(attempt["model"], _UsageTotals()).failures += 1
    usage = [_usage(model, totals) for model, totals in totals_by_model.items()]
    return tuple(sorted(usage, key=lambda each: (-each.calls, -each.decisions, each.model)))


def _usage(model: str, totals: _UsageTotals) -> ModelUsage:
    return ModelUsage(
        model=model,
        decisions=totals.decisions,
        answers=len(totals.latencies_s),
        failures=totals.failures,
        paid_usd=totals.paid_usd,
        median_latency_s=statistics.median(totals.latencies_s) if totals.latencies_s else None,
        labelled=len(totals.labels),
        mean_label=statistics.fmean(totals.labels) if totals.labels else None,
    )
