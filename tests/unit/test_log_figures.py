"""Sums of the decision log in SQL, against the same sums in Python, and against `router.savings()`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_pool import write_config, write_log

from eccos_core.decision_log import (
    CalibrationBin,
    CompletionEntry,
    DecisionEntry,
    DecisionLog,
    LabelEntry,
    LogFigures,
    LogFilter,
    add_up,
)
from eccos_core.decision_log.reader import SqliteReader
from eccos_core.domain import Completion, Decision, PlanCall, Policy, QualityFloor, QualityPrice, Request
from eccos_core.router import Router
from eccos_core.routing.prepared import quality_asked

ROWS = [
    ("small", 1.0, 0.001, 1.0), ("small", 1.0, 0.003, None), ("large", 1.0, 0.012, 0.0), ("small", 1.0, 0.001, 0.0),
    ("large", 1.0, 0.008, 1.0), ("large", 1.0, 0.011, None), ("large", 1.0, 0.009, 1.0), ("small", 1.0, 0.002, 1.0),
]  # fmt: skip
HOSTILE = ('a"b', "back\\slash", "<img src=x onerror=alert(1)>", "naïve 模型", "'; DROP TABLE decisions; --", "a.b[0]$")


@pytest.fixture
def figures(tmp_path: Path) -> LogFigures:
    write_log(tmp_path / "log.sqlite", ROWS, vectors=False)
    return LogFigures(tmp_path / "log.sqlite")


def test_totals_add_up_over_any_steps(figures: LogFigures) -> None:
    for step_s in (1.0, 3.0, 1e6):
        total = add_up(figures.steps(LogFilter(), step_s).values())
        assert (total.decisions, total.answers, total.labelled, total.with_floor) == (8, 8, 6, 0)
        assert total.paid_usd == pytest.approx(sum(paid for _, _, paid, _ in ROWS))
        assert total.predicted == pytest.approx((4 * 0.6 + 4 * 0.9) / 8)
        assert total.label == pytest.approx(4 / 6)
        assert total.promised == pytest.approx((3 * 0.6 + 3 * 0.9) / 6)
        assert total.asked is None


def test_each_model_has_its_own_sums(figures: LogFigures) -> None:
    found = {each.model: each for each in figures.models(LogFilter())}
    assert list(found) == ["large", "small"]  # as many decisions each, so by name
    assert found["large"].totals.paid_usd == pytest.approx(0.040)
    assert found["large"].totals.label == pytest.approx(2 / 3)
    assert found["small"].latency_p50_s == pytest.approx(0.1)


@pytest.mark.parametrize("answers", [1, 2, 3, 10, 11, 99])
def test_latencies_are_nearest_ranks(tmp_path: Path, answers: int) -> None:
    seconds = np.random.default_rng(answers).permutation(np.arange(1.0, answers + 1))
    with_log(tmp_path, [("one", {"one": (0.5, 1.0)}, None, float(latency)) for latency in seconds])
    (found,) = LogFigures(tmp_path / "log.sqlite").models(LogFilter())
    assert found.latency_p50_s == np.ceil(0.5 * answers)
    assert found.latency_p90_s == np.ceil(0.9 * answers)


def test_the_calibration_bins_hold_every_label_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [("one", {"one": (float(each), 1.0)}, float(rng.random() < each), 1.0) for each in [*rng.random(200), 0, 1]]
    with_log(tmp_path, rows)
    bins = LogFigures(tmp_path / "log.sqlite").calibration(LogFilter(), 10)
    assert sum(each.count for each in bins) == len(rows)
    for each in bins:
        inside = [
            (q, label) for _, f, label, _ in rows for q, _ in f.values() if min(int(q * 10), 9) == round(each.low * 10)
        ]
        assert each.count == len(inside)
        assert each.forecast == pytest.approx(np.mean([q for q, _ in inside]))
        assert each.label == pytest.approx(np.mean([label for _, label in inside]))


def test_an_answer_of_a_fallback_says_nothing_of_the_forecast(tmp_path: Path) -> None:
    with_log(tmp_path, [("one", {"one": (0.5, 1.0), "two": (0.9, 1.0)}, 1.0, 1.0)], answered_by="two")
    assert LogFigures(tmp_path / "log.sqlite").calibration(LogFilter()) == ()


def test_an_answer_of_a_plan_is_compared_with_the_forecast_of_the_plan(tmp_path: Path) -> None:
    calls = (PlanCall("one", 1.0, 1.0, 3, 1), PlanCall("two", 1.0, 1.0, 3, 1, accepted=True))
    rows = [("one", {"one": (0.5, 1.0), "two": (0.9, 1.0)}, 1.0, 1.0)]
    with_log(tmp_path, rows, answered_by="two", calls=calls)
    figures = LogFigures(tmp_path / "log.sqlite")
    assert figures.calibration(LogFilter()) == (CalibrationBin(0.5, 0.6, 1, 0.5, 1.0),)
    assert figures.newest(LogFilter())[0]["calls"] == ["one", "two"]


def test_the_start_of_the_newest_takes_that_many(tmp_path: Path) -> None:
    with_log(tmp_path, [("one", {"one": (0.5, 1.0)}, None, 1.0)] * 6)
    figures = LogFigures(tmp_path / "log.sqlite")
    assert [figures.start_of_newest(LogFilter(0.5), last) for last in (1, 2, 5, 6)] == [5.0, 4.0, 1.0, 0.5]


@pytest.mark.parametrize("baseline", ["small", "large"])
def test_the_baseline_costs_what_router_savings_says(tmp_path: Path, figures: LogFigures, baseline: str) -> None:
    steps = figures.baseline_steps(LogFilter(), baseline, 3.0)
    correction = sum(each.paid for each in steps.values()) / sum(each.forecast_own for each in steps.values())
    usd = sum(each.paid + correction * each.forecast_others for each in steps.values())
    with Router.from_yaml(write_config(tmp_path)) as router:
        report = router.savings(baseline)
    assert correction == pytest.approx(report.estimated.cost_correction)
    assert usd == pytest.approx(report.estimated.baseline_usd)


def test_a_missing_forecast_counts_as_the_models_mean_one(tmp_path: Path) -> None:
    rows = [("a", {"a": (0.5, 1.0), "b": (0.5, cost)}, None, 1.0) for cost in (2.0, 4.0)]
    with_log(tmp_path, [*rows, ("a", {"a": (0.5, 1.0)}, None, 1.0)])
    steps = LogFigures(tmp_path / "log.sqlite").baseline_steps(LogFilter(), "b", 1e6)
    assert sum(each.forecast_others for each in steps.values()) == pytest.approx(2 + 4 + 3)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_of_any_name_is_summed(tmp_path: Path, name: str) -> None:
    with_log(tmp_path, [("plain", {"plain": (0.5, 1.0), name: (0.7, 5.0)}, None, 1.0)])
    figures = LogFigures(tmp_path / "log.sqlite")
    assert figures.mean_forecasts(LogFilter(), ["plain", name]) == {"plain": 0.5, name: 0.7}
    (step,) = figures.baseline_steps(LogFilter(), name, 1e6).values()
    assert step.forecast_others == 5.0
    assert figures.newest(LogFilter(), model=name) == []


def test_a_filter_takes_one_tenant_and_a_time(tmp_path: Path) -> None:
    with_log(tmp_path, [("one", {"one": (0.5, 1.0)}, None, 1.0)] * 6, tenants=["a", "b", None] * 2)
    figures = LogFigures(tmp_path / "log.sqlite")
    for tenant in ("a", "b", None):
        mine = LogFilter(tenant=tenant, every_tenant=False)
        assert add_up(figures.steps(mine, 1.0).values()).decisions == 2
        assert {row["tenant"] for row in figures.newest(mine)} == {tenant}
    assert add_up(figures.steps(LogFilter(2.0, 5.0), 1.0).values()).decisions == 3
    assert figures.newest(LogFilter(), last=2)[0]["at"] == 5.0
    assert figures.newest(LogFilter(), before=3.0)[0]["at"] == 2.0


def test_a_missing_file_has_no_decisions(tmp_path: Path) -> None:
    figures = LogFigures(tmp_path / "none.sqlite")
    assert figures.steps(LogFilter(), 1.0) == {}
    assert figures.models(LogFilter()) == ()
    assert figures.calibration(LogFilter()) == ()
    assert figures.newest(LogFilter()) == []
    assert figures.first_at(LogFilter()) is None
    assert figures.mean_forecasts(LogFilter(), ["a"]) == {}
    assert figures.baseline_steps(LogFilter(), "a", 1.0) == {}
    assert add_up(()).predicted is None
    assert not (tmp_path / "none.sqlite").exists()


def test_an_older_log_is_read_as_it_is_and_gets_its_index_with_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with_log(tmp_path, [("one", {"one": (0.5, 1.0)}, None, 1.0)])
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX decisions_figures")
        for column in ("quality_asked", "left_out", "calls"):
            connection.execute(f"ALTER TABLE decisions DROP COLUMN {column}")
    assert add_up(LogFigures(path).steps(LogFilter(), 1.0).values()).decisions == 1
    assert LogFigures(path).newest(LogFilter())[0]["calls"] == []
    with_log(tmp_path, [("one", {"one": (0.5, 1.0)}, None, 1.0)], start=7.0)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'decisions_figures'").fetchone()
    assert add_up(LogFigures(path).steps(LogFilter(), 1.0).values()).decisions == 2


class PlanReader(SqliteReader):
    """Asks how the queries would be answered, and keeps that."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.plans: list[list[Any]] = []

    def rows(self, query: str, values: Sequence[object] = (), *, table: str = "decisions") -> list[Any]:
        self.plans.append(super().rows(f"EXPLAIN QUERY PLAN {query}", values, table=table))
        return []


@pytest.mark.usefixtures("figures")
def test_the_sums_read_the_index_alone(tmp_path: Path) -> None:
    reader = PlanReader(tmp_path / "log.sqlite")
    LogFigures(reader).steps(LogFilter(), 1.0)
    LogFigures(reader).models(LogFilter())
    assert len(reader.plans) == 3
    for plan in reader.plans:
        assert any("COVERING INDEX decisions_figures" in row[3] for row in plan), plan


@pytest.mark.parametrize(
    ("policy", "own", "asked"),
    [
        (QualityFloor(0.8), None, 0.8),
        (QualityFloor(0.8), 0.9, 0.9),
        (QualityFloor(0.8), 0.5, 0.8),
        (QualityPrice(0.1), 0.5, 0.5),
        (QualityPrice(0.1), None, None),
    ],
)
def test_what_was_asked_is_the_higher_floor(policy: Policy, own: float | None, asked: float | None) -> None:
    assert quality_asked(Request.of("hello", min_quality=own), policy) == asked


def test_the_log_keeps_what_was_asked_and_who_might_not_answer(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with Router.from_yaml(config) as router:
        plain = router.decide("hello")
        asked = router.decide(Request.of("hello", min_quality=0.7, deny=frozenset({"small"})))
        log = router.decision_store.log
        assert log is not None
        log.flush()
        first, second = log.get(plain.id), log.get(asked.id)
    assert first is not None
    assert second is not None
    assert (first.quality_asked, first.left_out) == (None, ())
    assert (second.quality_asked, second.left_out) == (0.7, ("small",))


def with_log(
    folder: Path,
    rows: list[tuple[str, dict[str, tuple[float, float]], float | None, float]],
    *,
    answered_by: str | None = None,
    calls: tuple[PlanCall, ...] = (),
    tenants: list[str | None] | None = None,
    start: float = 0.0,
) -> None:
    """Write a log of (chosen, forecast, label, latency in s), one second apart."""
    log = DecisionLog(folder / "log.sqlite")
    for row, (chosen, forecast, label, latency_s) in enumerate(rows):
        quality, cost = forecast[chosen]
        decision = Decision(f"d{start + row:g}", "r", chosen, quality, 0.1, cost, None, "because")
        tenant = tenants[row] if tenants else None
        entry = DecisionEntry(decision, "?", np.ones(2, np.float32), 3, forecast, tenant=tenant, at=start + row)
        log.add_decision(entry)
        completion = Completion("yes", answered_by or chosen, 3, 1, cost, latency_s, calls=calls)
        log.add_completion(CompletionEntry(decision.id, completion))
        if label is not None:
            log._enqueue(LabelEntry(decision.id, label))  # `label` waits for the disk each time
    log.close()
