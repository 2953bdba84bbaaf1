"""Sum up the decision log in SQL: money over time, shares, latency, calibration, and what one model would have cost.

The sums read a covering index, and no Python loop sees the decisions.
"""
# ruff: noqa: S608 - every piece of a query is written in this file, and values are bound

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.decision_log.reader import LATER, LogReader, SqliteReader


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which decisions count: those from `since` to before `until`, in s since 1970 (UTC).

    `every_tenant` takes all of them. Without it those of `tenant` count, where None stands for requests without one.
    """

    since: float = 0.0
    until: float = 1e12
    tenant: str | None = None
    every_tenant: bool = True

    @property
    def condition(self) -> str:
        """The SQL condition. Its values are `values`."""
        if self.every_tenant:
            return "at >= ? AND at < ?"
        return "at >= ? AND at < ? AND tenant " + ("IS NULL" if self.tenant is None else "= ?")

    @property
    def values(self) -> tuple[object, ...]:
        """The values of the condition's placeholders."""
        alone = self.every_tenant or self.tenant is None
        return (self.since, self.until) if alone else (self.since, self.until, self.tenant)


@dataclass(frozen=True, slots=True)
class LogTotals:
    """Sums and means of decisions. Means are in [0, 1], and None where nothing counts.

    `asked` is the mean floor of the decisions that had one, `with_floor` of them. `promised` is the mean forecast of
    the labelled ones alone, to compare with `label`.
    """

    decisions: int
    answers: int
    paid_usd: float
    predicted: float | None
    asked: float | None
    with_floor: int
    labelled: int
    label: float | None
    promised: float | None


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one model did: as the one that answered, or as the one that was chosen where none answered.

    Latencies are in s, by nearest rank. They are None without answers.
    """

    model: str
    totals: LogTotals
    latency_p50_s: float | None
    latency_p90_s: float | None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The labelled decisions whose forecast lies in [`low`, `high`): how many, their mean forecast and mean label."""

    low: float
    high: float
    count: int
    forecast: float
    label: float


@dataclass(frozen=True, slots=True)
class BaselineStep:
    """The answered decisions of a time step, as one model would have cost them, in USD.

    `paid` was paid for the answers that the model itself gave, and `forecast_own` was their forecast. `forecast_others`
    is its forecast for the answers of other models. Where the log has no forecast of it, its mean one is taken.
    """

    paid: float
    forecast_own: float
    forecast_others: float


_TOTALS = """
count(*), count(model), coalesce(sum(paid_usd), 0.0), avg(quality), avg({quality_asked}), count({quality_asked}),
count(label), avg(label), avg(CASE WHEN label IS NOT NULL THEN quality END)
"""
_NEWEST = (
    "id", "at", "tenant", "decided_model", "model", "quality", "quality_asked", "cost_usd", "paid_usd", "latency_s",
    "label", "label_source", "floor_met", "reason", "attempts", "calls",
)  # fmt: skip


class LogFigures:
    """Reads sums from a decision log. Safe to use from several threads.

    `log`: the log's reader, or the SQLite file of one. A missing file has no decisions.
    """

    def __init__(self, log: LogReader | Path) -> None:
        self._reader = SqliteReader(log) if isinstance(log, Path) else log

    def first_at(self, chosen: LogFilter) -> float | None:
        """Return when the first of the chosen decisions was made, in s since 1970 (UTC). None without any."""
        rows = self._rows(f"SELECT min(at) FROM {{decisions}} WHERE {chosen.condition}", chosen.values)
        return rows[0][0] if rows else None

    def start_of_newest(self, chosen: LogFilter, last: int) -> float:
        """Return since when the newest `last` of the chosen decisions were made, in s since 1970 (UTC)."""
        query = f"SELECT at FROM {{decisions}} WHERE {chosen.condition} ORDER BY at DESC LIMIT 1 OFFSET ?"
        rows = self._rows(query, (*chosen.values, last - 1))
        return rows[0][0] if rows else chosen.since

    def steps(self, chosen: LogFilter, step_s: float) -> dict[int, LogTotals]:
        """Return the sums of each time step, by its number: the time divided by `step_s`, rounded down."""
        query = f"""
        SELECT CAST({{floor}}(at / ?) AS {{integer}}) AS step, {_TOTALS} FROM {{decisions}} WHERE {chosen.condition}
        GROUP BY 1
        """
        return {row[0]: LogTotals(*row[1:]) for row in self._rows(query, (step_s, *chosen.values))}

    def models(self, chosen: LogFilter) -> tuple[ModelFigures, ...]:
        """Return each model's figures, the busiest model first."""
        query = f"""
        SELECT coalesce(model, decided_model), {_TOTALS} FROM {{decisions}} WHERE {chosen.condition}
        GROUP BY 1 ORDER BY 2 DESC, 1
        """
        latencies = self._latencies(chosen)
        rows = self._rows(query, chosen.values)
        return tuple(ModelFigures(row[0], LogTotals(*row[1:]), *latencies.get(row[0], (None, None))) for row in rows)

    def _latencies(self, chosen: LogFilter) -> dict[str, tuple[float, float]]:
        query = f"""
        SELECT model, max(CASE WHEN place = (calls + 1) / 2 THEN latency_s END),
          max(CASE WHEN place = (calls * 9 + 9) / 10 THEN latency_s END)
        FROM (
          SELECT model, latency_s, row_number() OVER ordered AS place, count(*) OVER ordered AS calls
          FROM {{decisions}} WHERE {chosen.condition} AND model IS NOT NULL AND latency_s IS NOT NULL
          WINDOW ordered AS (
            PARTITION BY model ORDER BY latency_s ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          )
        ) AS ordered_calls GROUP BY model
        """
        return {model: (p50, p90) for model, p50, p90 in self._rows(query, chosen.values)}

    def calibration(self, chosen: LogFilter, bins: int = 10) -> tuple[CalibrationBin, ...]:
        """Group labelled decisions by their forecast into bins of equal width over [0, 1]. Empty bins are left out.

        A decision counts if the model that it chose gave the answer, or a plan did: only these say what to expect of
        the answer.
        """
        query = f"""
        WITH labelled AS (
          SELECT {{rowid}} AS rowid, quality, label, model = decided_model AS own FROM {{decisions}}
          WHERE {chosen.condition} AND label IS NOT NULL AND model IS NOT NULL
        )
        SELECT {{least}}(CAST({{floor}}(quality * ?) AS {{integer}}), ?) AS bin, count(*), avg(quality), avg(label)
        FROM (
          SELECT quality, label FROM labelled WHERE own
          UNION ALL
          SELECT quality, label FROM {{decisions}}
          WHERE {{rowid}} IN (SELECT rowid FROM labelled WHERE NOT own) AND {{calls}} != '[]'
        ) AS counted GROUP BY 1 ORDER BY 1
        """
        rows = self._rows(query, (*chosen.values, bins, bins - 1))
        return tuple(CalibrationBin(row[0] / bins, (row[0] + 1) / bins, *row[1:]) for row in rows)

    def mean_forecasts(self, chosen: LogFilter, models: Sequence[str]) -> dict[str, float]:
        """Return the mean forecast quality of each model, over the answered decisions that forecast it.

        It reads the forecast of every decision, so it takes longer than the other sums.
        """
        if not models:
            return {}
        columns, values = [], []
        for model in models:
            expression, value = self._reader.forecast_of(model, 0)
            columns.append(f"avg({expression})")
            values.append(value)
        query = f"SELECT {', '.join(columns)} FROM {{decisions}} WHERE {chosen.condition} AND model IS NOT NULL"
        rows = self._rows(query, (*values, *chosen.values))
        means = rows[0] if rows else ()
        return {model: mean for model, mean in zip(models, means, strict=False) if mean is not None}

    def baseline_steps(self, chosen: LogFilter, model: str, step_s: float) -> dict[int, BaselineStep]:
        """Return what one model was forecast to cost at each time step. It reads the forecast of every decision."""
        expression, value = self._reader.forecast_of(model, 1)
        query = f"""
        SELECT CAST({{floor}}(at / ?) AS {{integer}}), coalesce(sum(CASE WHEN own THEN paid END), 0.0),
          coalesce(sum(CASE WHEN own THEN usd END), 0.0), coalesce(sum(CASE WHEN NOT own THEN usd END), 0.0),
          count(CASE WHEN own THEN 1 END) - count(CASE WHEN own THEN usd END),
          count(CASE WHEN NOT own THEN 1 END) - count(CASE WHEN NOT own THEN usd END), count(usd)
        FROM (
          SELECT at, model = ? AS own, coalesce(paid_usd, 0.0) AS paid, {expression} AS usd
          FROM {{decisions}} WHERE {chosen.condition} AND model IS NOT NULL
        ) AS answered GROUP BY 1
        """
        rows = self._rows(query, (step_s, model, value, *chosen.values))
        known = sum(row[6] for row in rows)
        mean = sum(row[2] + row[3] for row in rows) / known if known else 0.0
        return {row[0]: BaselineStep(row[1], row[2] + mean * row[4], row[3] + mean * row[5]) for row in rows}

    def newest(
        self, chosen: LogFilter, *, model: str | None = None, before: float | None = None, last: int = 50
    ) -> list[dict[str, Any]]:
        """Return at most `last` decisions as JSON values, the newest first, made before a time (s since 1970, UTC).

        `model` takes those of one model. There is no text of a request among the values.
        """
        conditions, values = [chosen.condition], list(chosen.values)
        if model is not None:
            conditions.append("coalesce(model, decided_model) = ?")
            values.append(model)
        if before is not None:
            conditions.append("at < ?")
            values.append(before)
        where = " AND ".join(conditions)
        columns = ", ".join(f"{{{name}}}" if name in LATER else name for name in _NEWEST)
        query = f"SELECT {columns} FROM {{decisions}} WHERE {where} ORDER BY at DESC, id LIMIT ?"
        rows = [dict(zip(_NEWEST, row, strict=True)) for row in self._rows(query, (*values, last))]
        for row in rows:
            row["floor_met"] = bool(row["floor_met"])
            row["attempts"] = [{"model": each["model"], "kind": each["kind"]} for each in json.loads(row["attempts"])]
            row["calls"] = [call["model"] for call in json.loads(row["calls"])]
        return rows

    def _rows(self, query: str, values: Sequence[object]) -> list[Any]:
        return self._reader.rows(query, values)


def add_up(totals: Iterable[LogTotals]) -> LogTotals:
    """Return the sums and means of several parts together."""
    parts = list(totals)

    def mean(values: Iterable[tuple[float | None, int]]) -> float | None:
        known = [(value, count) for value, count in values if value is not None and count]
        return sum(value * count for value, count in known) / sum(count for _, count in known) if known else None

    return LogTotals(
        decisions=sum(each.decisions for each in parts),
        answers=sum(each.answers for each in parts),
        paid_usd=sum(each.paid_usd for each in parts),
        predicted=mean((each.predicted, each.decisions) for each in parts),
        asked=mean((each.asked, each.with_floor) for each in parts),
        with_floor=sum(each.with_floor for each in parts),
        labelled=sum(each.labelled for each in parts),
        label=mean((each.label, each.labelled) for each in parts),
        promised=mean((each.promised, each.labelled) for each in parts),
    )
