"""Labels correct a router's forecasts, survive its death, and exploring keeps to the rules."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core.domain import Model, OutcomeTable, Policy, QualityFloor, QualityPrice, Request
from eccos_core.errors import DataError, UnknownDecisionError
from eccos_core.io.daily_budget import DAY_S, DailyBudget
from eccos_core.io.daily_spending import SqliteSpending
from eccos_core.learning import LabelJournal, LearningRule, OnlineLearner
from eccos_core.learning.learner import EXPLORING
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, TablePredictor, scripted_router

MODELS = (Model("small", 1e-6, 1e-6), Model("large", 1e-5, 1e-5), Model("other", 5e-6, 5e-6))
NAMES = tuple(model.name for model in MODELS)
DIMENSIONS = 3
NO_HISTORY = (
    OutcomeTable((), (), NAMES, *(np.empty((0, 3)) for _ in range(3))),
    np.empty((0, DIMENSIONS), dtype=np.float32),
)
QUALITY = {"sum": (0.5, 0.8, 0.7), "poem": (0.6, 0.9, 0.7), "": (0.4, 0.6, 0.5)}


def learning_router(
    rule: LearningRule,
    *,
    policy: Policy = QualityPrice(0.01),  # noqa: B008  # a frozen value
    journal: LabelJournal | None = None,
    usd_per_quality: float = 1e-3,
) -> tuple[Router, OnlineLearner]:
    router = scripted_router(ScriptedBackend({}), MODELS, QUALITY, policy=policy, usd_per_quality=usd_per_quality)
    learner = OnlineLearner(router.parts.predictor, rule, NO_HISTORY, journal, seed=0)
    return Router.from_parts(replace(router.parts, learner=learner)), learner


def test_labels_change_the_choice_at_once() -> None:
    router, learner = learning_router(LearningRule(), usd_per_quality=1e-2)
    assert router.decide("sum of 2 and 3").model == "large"
    for _ in range(40):
        router.record(router.decide("sum of 2 and 3").id, 0.0)
    after = router.decide("sum of 2 and 3")
    assert after.model != "large"
    assert len(learner) == 40
    assert after.propensity == 1.0


def test_without_a_learner_forecasts_stay() -> None:
    router = scripted_router(ScriptedBackend({}), MODELS, QUALITY, usd_per_quality=1e-2)
    before = router.decide("sum")
    for _ in range(10):
        router.record(router.decide("sum").id, 0.0)
    assert router.decide("sum").quality == before.quality


def test_a_restart_gives_the_same_forecasts(tmp_path: Path) -> None:
    journal = LabelJournal(tmp_path / "learning.sqlite")
    router, before = learning_router(LearningRule(), journal=journal)
    for row in range(50):
        decision = router.decide(("sum", "poem", "else")[row % 3])
        router.record(decision.id, float(row % 2))
        if row % 5 == 0:
            router.record(decision.id, 0.5)
    _, after = learning_router(LearningRule(), journal=LabelJournal(journal.path))
    vectors = np.eye(DIMENSIONS, dtype=np.float32)
    forecast = router.parts.predictor.predict(vectors, np.full(DIMENSIONS, 10.0))
    np.testing.assert_allclose(
        after.correct(forecast, vectors).quality, before.correct(forecast, vectors).quality, atol=1e-9
    )
    assert len(after) == len(before) == 50


def test_a_killed_process_loses_no_acknowledged_label(tmp_path: Path) -> None:
    path = tmp_path / "learning.sqlite"
    script = f"""
import numpy as np
from eccos_core.learning.journal import JournalEntry, LabelJournal
journal = LabelJournal({str(path)!r})
for i in range(10**6):
    journal.put([JournalEntry(f"d{{i}}", "small", np.eye(3, dtype=np.float32)[i % 3], (i % 10) / 10)])
    print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    acknowledged = int(rest[-1]) if rest else 60
    found = LabelJournal(path).entries(10_000)
    assert [each.decision_id for each in found][: acknowledged + 1] == [f"d{i}" for i in range(acknowledged + 1)]
    assert found[7].quality == 0.7
    np.testing.assert_array_equal(found[7].vector, np.eye(3, dtype=np.float32)[1])


def test_the_layer_starts_from_what_the_predictor_missed_in_the_history(tmp_path: Path) -> None:
    count = 300
    vectors = np.eye(DIMENSIONS, dtype=np.float32)[np.arange(count) % 3]
    table = OutcomeTable(
        tuple(map(str, range(count))), tuple(map(str, range(count))), NAMES,
        np.tile([0.0, 1.0, np.nan], (count, 1)), *(np.full((count, 3), 10.0) for _ in range(2)),
    )  # fmt: skip
    predictor = TablePredictor(NAMES, np.full((3, 3), 0.5))
    journal = LabelJournal(tmp_path / "learning.sqlite")
    learner = OnlineLearner(predictor, LearningRule(), (table, vectors), journal)
    forecast = predictor.predict(vectors[:3], np.full(3, 10.0))
    made = learner.correct(forecast, vectors[:3])
    np.testing.assert_allclose(made.quality[:, :2], np.tile([0.0, 1.0], (3, 1)), atol=0.05)
    assert (made.quality_se <= forecast.quality_se).all()
    again = OnlineLearner(predictor, LearningRule(), NO_HISTORY, journal)  # the journal holds the start, too
    np.testing.assert_allclose(again.correct(forecast, vectors[:3]).quality, made.quality, atol=1e-9)


# ---------------------------------------------------------------- exploring


@pytest.mark.parametrize("explore", ["thompson", "epsilon"])
def test_propensities_are_the_shares_of_the_choices(explore: str) -> None:
    rule = LearningRule(explore=explore, share=0.5, budget_usd_per_day=1e9)  # type: ignore[arg-type]
    router, _ = learning_router(rule)
    made = [router.decide("sum") for _ in range(1500)]
    assert {decision.model for decision in made} == set(NAMES)
    inverse = {name: sum(1 / each.propensity for each in made if each.model == name) / len(made) for name in NAMES}
    assert max(inverse.values()) < 1.35  # the mean of 1 / propensity over a model's choices has the expectation 1
    assert min(inverse.values()) > 0.65
    assert all(0 < each.propensity < 1 for each in made)


def test_hard_filters_tenants_and_min_quality_hold() -> None:
    router, _ = learning_router(LearningRule("epsilon", share=1.0, budget_usd_per_day=1e9))
    for _ in range(60):
        assert router.decide(Request.of("sum", deny={"other"})).model != "other"
        assert router.decide(Request.of("sum", min_quality=0.65)).model != "small"
        only = router.decide(Request.of("sum", allow={"small"}))
        assert (only.model, only.propensity) == ("small", 1.0)


def test_under_a_floor_no_worse_model_is_explored() -> None:
    rule = LearningRule("epsilon", share=1.0, budget_usd_per_day=1e9)
    router, _ = learning_router(rule, policy=QualityFloor(0.6), usd_per_quality=1e-3)
    greedy = learning_router(LearningRule(), policy=QualityFloor(0.6), usd_per_quality=1e-3)[0].decide("sum")
    assert greedy.model == "other"
    made = [router.decide("sum") for _ in range(60)]
    assert {decision.model for decision in made} == {"other", "large"}
    assert min(decision.quality for decision in made) >= greedy.quality - 1e-9


def test_exploring_stops_at_the_budget_of_the_day_and_goes_on_the_next_day(tmp_path: Path) -> None:
    now = [20_000 * DAY_S]
    journal = LabelJournal(tmp_path / "learning.sqlite")
    rule = LearningRule("epsilon", share=1.0, budget_usd_per_day=2e-3)

    def make() -> OnlineLearner:
        predictor = TablePredictor(NAMES, np.full((3, 3), 0.5))
        budget = DailyBudget(EXPLORING, 2e-3, SqliteSpending(tmp_path / "spending.sqlite"), lambda: now[0])
        return OnlineLearner(predictor, rule, NO_HISTORY, journal, budget, seed=0)

    vector, quality, cost = np.eye(3, dtype=np.float32)[0], np.full(3, 0.5), np.array([1e-4, 6e-4, 1e-4])
    allowed = np.ones(3, dtype=np.bool_)

    def extra(learner: OnlineLearner, times: int = 100) -> float:
        chosen = [learner.explore(0, 1e-3, vector, quality, cost, allowed) for _ in range(times)]
        return sum(max(0.0, cost[model] - cost[0]) for model, _ in chosen)

    learner = make()
    assert 0 < extra(learner) <= 2e-3
    assert extra(learner) == 0.0
    assert {learner.explore(0, 1e-3, vector, quality, cost, allowed)[0] for _ in range(50)} == {0, 2}
    assert extra(make()) == 0.0  # a restart remembers what was spent
    now[0] -= DAY_S
    assert extra(learner) == 0.0  # a clock that jumps back begins no new day
    now[0] += 2 * DAY_S
    assert 0 < extra(learner) <= 2e-3


def test_a_budget_of_nothing_explores_what_costs_no_more() -> None:
    router, _ = learning_router(LearningRule("epsilon", share=1.0, budget_usd_per_day=0.0), usd_per_quality=1e-3)
    assert {router.decide("sum").model for _ in range(60)} == {"small", "other"}


def test_bad_labels_and_files_are_refused(tmp_path: Path) -> None:
    router, learner = learning_router(LearningRule())
    with pytest.raises(UnknownDecisionError):
        router.record("unheard of", 0.5)
    learner.learn("d", "a model that left", np.zeros(3, np.float32), 0.5)
    learner.learn("d", "small", np.zeros(7, np.float32), 0.5)  # of another encoder
    assert len(learner) == 0
    broken = tmp_path / "learning.sqlite"
    broken.write_bytes(b"no database at all, only some words " * 100)
    with pytest.raises(DataError, match="cannot be used as a journal of labels"):
        LabelJournal(broken)
