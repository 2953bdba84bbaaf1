"""What the decision log says about each model over a stretch of time: calls, money, speed, failures, labels."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
from dataclasses import dataclass, field
from pathlib import Path

_ROWS = "SELECT model, decided_model, paid_usd, latency_s, attempts, label FROM decisions WHERE at >= ?"


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """One model since some time.

    `decisions` ended at this model: it answered, or it was chosen and nobody answered (nothing was called, or every
    call failed). `calls` are `answers` and `failures` together; a failed call counts for the model that failed, whoever
    answered in the end. `paid_usd`: of the answers. `median_latency_s`: of the answers, None without any.
    `labelled`: how many of the decisions have a label; `mean_label` in [0, 1], None without any.
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
        """Answers and failed calls."""
        return self.answers + self.failures

    @property
    def error_rate(self) -> float | None:
        """Share of the calls that failed, in [0, 1]; None without calls."""
        return self.failures / self.calls if self.calls else None

    @property
    def labelled_share(self) -> float | None:
        """Share of the decisions that have a label, in [0, 1]; None without decisions."""
        return self.labelled / self.decisions if self.decisions else None


@dataclass(slots=True)
class _Tally:
    decisions: int = 0
    failures: int = 0
    paid_usd: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)


def model_usage(path: Path, since: float) -> tuple[ModelUsage, ...]:
    """Every model that a log names since a time (s since 1970, UTC), the busiest first; nothing where no file is."""
    if not path.exists():
        return ()
    tallies: dict[str, _Tally] = {}
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        for model, decided_model, paid_usd, latency_s, attempts, label in connection.execute(_ROWS, (since,)):
            tally = tallies.setdefault(model or decided_model, _Tally())
            tally.decisions += 1
            if model is not None:
                tally.paid_usd += paid_usd or 0.0
                tally.latencies_s.append(latency_s or 0.0)
            if label is not None:
                tally.labels.append(label)
            for attempt in json.loads(attempts):
                tallies.setdefault(attempt["model"], _Tally()).failures += 1
    made = [_usage(model, tally) for model, tally in tallies.items()]
    return tuple(sorted(made, key=lambda each: (-each.calls, -each.decisions, each.model)))


def _usage(model: str, tally: _Tally) -> ModelUsage:
    return ModelUsage(
        model=model,
        decisions=tally.decisions,
        answers=len(tally.latencies_s),
        failures=tally.failures,
        paid_usd=tally.paid_usd,
        median_latency_s=statistics.median(tally.latencies_s) if tally.latencies_s else None,
        labelled=len(tally.labels),
        mean_label=statistics.fmean(tally.labels) if tally.labels else None,
    )
