"""What every decision log promises: SQLite in a file, and PostgreSQL as Debian ships it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decision_logs import ROWS, answered, decided, fill, new_database
from postgres_server import postgres_server

from eccos_core.decision_log import (
    BaseDecisionLog,
    CalibrationEntry,
    CompletionEntry,
    DecisionLog,
    LabelEntry,
    LogFigures,
    LogFilter,
    PostgresDecisionLog,
    ShadowLabelEntry,
    SpendingEntry,
    add_up,
    base,
    model_usage,
)
from eccos_core.domain import Completion, Judgement
from eccos_core.errors import Attempt, UnknownDecisionError

KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.service))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as address:
        yield address


@pytest.fixture(params=KINDS)
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., BaseDecisionLog]]:
    """Opens the same empty log as often as a test likes, each time as another process would."""
    opened: list[BaseDecisionLog] = []
    address = new_database(request.getfixturevalue("server")) if request.param == "postgres" else None

    def open_one(**options: Any) -> BaseDecisionLog:
        if address is None:
            opened.append(DecisionLog(tmp_path / "log.sqlite", **options))
        else:
            opened.append(PostgresDecisionLog(address, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def log(open_log: Callable[..., BaseDecisionLog]) -> BaseDecisionLog:
    return open_log()


def test_what_is_kept_is_enough_to_replay_a_decision(log: BaseDecisionLog) -> None:
    log.add_decision(decided("d1"))
    log.add_completion(answered("d1", model="large"))
    assert log.flush()
    found = log.get("d1")
    assert found is not None
    assert (found.decided_model, found.model, found.quality, found.paid_usd) == ("small", "large", 0.8, 0.002)
    assert found.forecast == {"small": (0.8, 0.001), "large": (0.9, 0.01)}
    assert list(found.forecast) == ["small", "large"]
    assert found.attempts == (Attempt("other", "timeout", "too slow", 1.0),)
    assert (found.input_tokens, found.output_tokens, found.label, found.floor_met) == (9, 3, None, True)
    assert (found.session_id, found.tenant, found.text, found.at) == ("s", None, None, 100.0)
    np.testing.assert_array_equal(found.vector, np.array([0.6, 0.8], dtype=np.float32))
    assert log.get("d2") is None
    assert (log.problem, log.dropped) == (None, 0)


def test_a_failed_request_keeps_its_attempts(log: BaseDecisionLog) -> None:
    log.add_decision(decided("d1"))
    log.add_completion(CompletionEntry("d1", None, (Attempt("small", "rate_limit", "busy", 0.1),)))
    found = log.find("d1")
    assert (found.model, found.input_tokens) == (None, 7)
    assert [attempt.kind for attempt in found.attempts] == ["rate_limit"]


def test_text_is_kept_only_when_asked_for(open_log: Callable[..., BaseDecisionLog]) -> None:
    for name, log_prompts, expected in (("d1", False, None), ("d2", True, "what is the secret?")):
        log = open_log(log_prompts=log_prompts)
        log.add_decision(decided(name))
        assert log.find(name).text == expected


def test_a_label_never_replaces_one_of_a_more_trusted_source(log: BaseDecisionLog) -> None:
    log.add_decision(decided("d1"))
    assert log.label("d1", 0.5, "judge").label is None
    assert log.label("d1", 0.25, "signal").label == 0.5
    assert log.find("d1").label == 0.5
    assert log.label("d1", 1.0, "human").label == 0.5
    log.label("d1", 0.75, "human")
    log.label("d1", 0.0, "judge")
    found = log.find("d1")
    assert (found.label, found.label_source) == (0.75, "human")
    assert log.label_pairs("judge") == [(0.0, 0.75)]
    with pytest.raises(UnknownDecisionError, match="'d2'"):
        log.label("d2", 1.0)


def test_what_a_judge_said_is_kept_as_it_was(log: BaseDecisionLog) -> None:
    log.add_decision(decided("d1"))
    log.add_label(LabelEntry("d1", 0.9, "judge", Judgement("j1", 0.7, 0.6, 1.0, "v1")))
    log.label("d1", 1.0)
    assert log.judges() == ["j1"]
    assert log.label_pairs("judge", judge="j1") == [(0.6, 1.0)]
    assert log.label_pairs("judge", judge="j2") == []


def test_spending_is_kept_once(log: BaseDecisionLog) -> None:
    for at in (1.0, 2.0):
        log.add_spending(SpendingEntry("d1", "judge", 0.25, at))
    log.add_spending(SpendingEntry("d1", "shadow", 0.5, 3.0))
    log.add_shadow_label(ShadowLabelEntry("d1", "large", 0.5))
    log.add_shadow_label(ShadowLabelEntry("d1", "large", 0.75))
    log.add_calibration(CalibrationEntry("v1", "j1", 0.1, 1.2, 30))
    assert log.flush()
    assert log.spending() == [("d1", "judge", 0.25), ("d1", "judge", 0.25), ("d1", "shadow", 0.5)]
    assert log.spending(since=2.5) == [("d1", "shadow", 0.5)]
    rows = log.reader.rows("SELECT quality FROM {shadow_labels}", table="shadow_labels")
    assert [tuple(row) for row in rows] == [(0.75,)]
    rows = log.reader.rows("SELECT judge, slope, pairs FROM {calibrations}", table="calibrations")
    assert [tuple(row) for row in rows] == [("j1", 1.2, 30)]
    assert log.problem is None


def test_entries_are_filtered_newest_first(log: BaseDecisionLog) -> None:
    for i in range(5):
        log.add_decision(decided(f"d{i}", model="small" if i % 2 else "large", at=float(i)))
    log.label("d3", 1.0)
    assert [entry.id for entry in log.entries()] == ["d4", "d3", "d2", "d1", "d0"]
    assert [entry.id for entry in log.entries(model="small")] == ["d3", "d1"]
    assert [entry.id for entry in log.entries(labelled=True)] == ["d3"]
    assert [entry.id for entry in log.entries(labelled=False, since=2.0, last=1)] == ["d4"]


def test_a_router_that_leaves_no_processor_time_does_not_outrun_its_log(log: BaseDecisionLog) -> None:
    """Each statement waits for Python's lock while another thread computes. 5,000 statements would take 25 s here."""
    computing = threading.Event()
    computing.set()

    def compute() -> None:
        while computing.is_set():
            sum(range(100))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for i in range(2_500):
            log.add_decision(decided(f"d{i}"))
            log.add_completion(answered(f"d{i}", model="large"))
        assert log.flush(timeout_s=10)
    finally:
        computing.clear()
        thread.join()
    assert (log.dropped, log.problem) == (0, None)
    kept = log.entries(last=10_000)
    assert len(kept) == 2_500
    assert {entry.model for entry in kept} == {"large"}


def test_an_entry_that_cannot_be_kept_costs_no_other(log: BaseDecisionLog) -> None:
    log.add_decision(decided("d1"))
    log.add_decision(decided("\ud800"))
    log.add_completion(CompletionEntry("d1", Completion("yes", "small", 2**70, 3, 0.002, 0.5)))
    log.add_decision(decided("d3"))
    log.flush()
    assert {entry.id for entry in log.entries()} == {"d1", "d3"}
    assert log.dropped == 2
    assert log.problem is not None


def test_hostile_text_is_kept(open_log: Callable[..., BaseDecisionLog]) -> None:
    log = open_log(log_prompts=True)
    for text in ("'; DROP TABLE decisions; --", "%s {decisions} ?", "naïve 模型 \u202e"):
        log.add_decision(replace(decided("d-" + text), text=text, tenant=text, session_id=text))
        found = log.find("d-" + text)
        assert (found.text, found.tenant, found.session_id) == (text, text, text)
    log.add_decision(replace(decided("nul"), text="a\0b"))
    assert log.find("nul").text in {"a\0b", "a\ufffdb"}
    assert log.dropped == 0


def test_many_threads_lose_nothing(log: BaseDecisionLog) -> None:
    def write(thread: int) -> None:
        for i in range(100):
            log.add_decision(decided(f"{thread}-{i}"))

    threads = [threading.Thread(target=write, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    assert len(log.entries(last=10_000)) == 800


def test_what_is_queued_is_written_at_close(open_log: Callable[..., BaseDecisionLog]) -> None:
    log = open_log()
    for i in range(1_200):
        log.add_decision(decided(f"d{i}"))
    log.close()
    assert len(open_log().entries(last=10_000)) == 1_200
    log.add_decision(decided("too late"))
    assert log.dropped == 1


def test_two_writers_share_a_log(open_log: Callable[..., BaseDecisionLog]) -> None:
    one, other = open_log(), open_log()
    one.add_decision(decided("d1"))
    other.add_decision(decided("d2"))
    one.flush()
    assert other.label("d1", 0.5).label is None
    other.flush()
    assert one.label("d2", 1.0, "judge").label is None
    assert {each.id: each.label for each in one.entries()} == {"d1": 0.5, "d2": 1.0}


# ------------------------------------------------------------------------- sums


def test_sums_are_the_same_in_every_database(log: BaseDecisionLog) -> None:
    fill(log, ROWS)
    figures, every = LogFigures(log.reader), LogFilter()
    for step_s in (1.0, 3.0, 1e6):
        total = add_up(figures.steps(every, step_s).values())
        assert (total.decisions, total.answers, total.labelled, total.with_floor) == (8, 8, 6, 0)
        assert total.paid_usd == pytest.approx(sum(paid for _, paid, _ in ROWS))
        assert (total.predicted, total.label) == (pytest.approx(0.75), pytest.approx(4 / 6))
    assert sorted(figures.steps(every, 3.0)) == [33, 34, 35]
    found = {each.model: each for each in figures.models(every)}
    assert list(found) == ["large", "small"]
    assert found["large"].totals.paid_usd == pytest.approx(0.040)
    assert (found["small"].latency_p50_s, found["small"].latency_p90_s) == (pytest.approx(0.1), pytest.approx(0.1))
    assert [(each.low, each.count, each.label) for each in figures.calibration(every)] == [
        (0.6, 3, pytest.approx(2 / 3)),
        (0.9, 3, pytest.approx(2 / 3)),
    ]
    assert figures.mean_forecasts(every, ["small", "large", 'a"b']) == {
        "small": pytest.approx(0.6),
        "large": pytest.approx(0.9),
    }
    (step,) = figures.baseline_steps(every, "large", 1e6).values()
    assert (step.paid, step.forecast_own, step.forecast_others) == pytest.approx((0.04, 0.04, 0.04))
    assert figures.first_at(every) == 100.0
    assert figures.start_of_newest(every, 3) == 105.0
    assert [each["id"] for each in figures.newest(every, model="small", last=2)] == ["d7", "d3"]
    assert figures.newest(every, last=1)[0]["floor_met"] is True
    assert figures.newest(every, before=101.0)[0]["id"] == "d0"
    usage = {each.model: each for each in model_usage(log.reader, 102.0)}
    assert (usage["small"].decisions, usage["large"].answers, usage["large"].labelled) == (2, 4, 3)


def test_tenants_are_apart_in_every_database(log: BaseDecisionLog) -> None:
    for name, tenant in (("d1", None), ("d2", "a"), ("d3", "b"), ("d4", "a")):
        log.add_decision(replace(decided(name), tenant=tenant))
    log.flush()
    figures = LogFigures(log.reader)
    for tenant, count in ((None, 1), ("a", 2), ("b", 1), ("c", 0)):
        chosen = LogFilter(tenant=tenant, every_tenant=False)
        assert len(figures.newest(chosen)) == add_up(figures.steps(chosen, 10.0).values()).decisions == count


def test_old_decisions_go_with_all_that_belongs_to_them(log: BaseDecisionLog) -> None:
    for name, at in (("old", 100.0), ("edge", 200.0), ("new", 300.0)):
        log.add_decision(decided(name, at=at))
        log.add_shadow_label(ShadowLabelEntry(name, "large", 1.0, Judgement("j1", 1.0, 1.0), at=at))
        log.add_spending(SpendingEntry(name, "judge", 0.5, at=at))
        log.label(name, 1.0, "judge")
        log.label(name, 1.0)
    assert log.prune(200.0) == 1
    assert {each.id for each in log.entries()} == {"edge", "new"}
    assert [each[0] for each in log.spending()] == ["edge", "new"]
    assert len(log.label_pairs("judge")) == 2
    for table in ("labels", "shadow_labels"):
        assert log.reader.rows(f"SELECT decision_id FROM {{{table}}} WHERE decision_id = 'old'", table=table) == []
    assert log.prune(200.0) == 0
    with pytest.raises(UnknownDecisionError):
        log.label("old", 1.0)


def test_a_log_that_keeps_some_days_deletes_older_decisions_while_it_writes(
    open_log: Callable[..., BaseDecisionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    log = open_log(keep_days=2)
    for number in range(5):
        log.add_decision(decided(f"old{number}", at=now - 3 * 86_400))
    log.add_decision(decided("kept", at=now - 86_400))
    assert log.flush()
    log.add_decision(decided("late", at=now - 3 * 86_400))  # the next hour deletes it
    assert log.flush()
    assert {each.id for each in log.entries()} == {"kept", "late"}
    monkeypatch.setattr(base, "PRUNE_EVERY_S", 0.0)
    other = open_log(keep_days=2)
    other.add_decision(decided("new", at=now))
    assert other.flush()  # by then it has deleted too
    assert {each.id for each in log.entries()} == {"kept", "new"}
    assert (other.problem, other.dropped) == (None, 0)


def test_many_old_decisions_are_deleted_in_parts(
    open_log: Callable[..., BaseDecisionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log()
    for number in range(2_500):
        log.add_decision(decided(f"d{number}", at=float(number)))
    parts = []
    prune_some = log._prune_some
    monkeypatch.setattr(log, "_prune_some", lambda before: parts.append(prune_some(before)) or parts[-1])
    assert log.prune(2_400.0) == 2_400
    assert parts == [1000, 1000, 400, 0]
    assert {each.at for each in log.entries()} == set(map(float, range(2_400, 2_500)))
