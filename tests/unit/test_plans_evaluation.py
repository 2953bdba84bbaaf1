"""Replaying routers that look at answers: they see what they asked for, and pay for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from replay_history import ENCODERS

from eccos_core.domain import OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.asking import AnswerLedger, RecordedAnswers
from eccos_core.evaluation.baselines import PLAN_BASELINES, routers_by_name, usual_routers
from eccos_core.evaluation.eccos_routers import HYBRID
from eccos_core.evaluation.metrics import PlanChoices
from eccos_core.evaluation.plan_routers import ESCALATE
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.evaluation.report_tables import render_markdown
from eccos_core.evaluation.result_cache import ResultCache

MODELS = ("small", "other", "large")
PRICES = {"small": (1e-6, 1e-6), "other": (2e-6, 2e-6), "large": (40e-6, 40e-6)}
RIGHT = np.array([0.65, 0.7, 0.95])


def outcomes(rows: int = 500, *, told: bool = True, seed: int = 0) -> OutcomeTable:
    """Questions that all look alike, so that only answers tell who is right: right ones agree, wrong ones seldom do."""
    draw = np.random.default_rng(seed)
    good = draw.random((rows, 3)) < RIGHT
    letters = np.where(good, 0, draw.integers(1, 9, (rows, 3)))
    return OutcomeTable(
        question_ids=tuple(f"q{seed}-{row}" for row in range(rows)),
        queries=tuple(f"sum {row}" for row in range(rows)),
        models=MODELS,
        quality=good.astype(np.float64),
        input_tokens=np.full((rows, 3), 10.0),
        output_tokens=np.full((rows, 3), 20.0),
        answers=np.array([["abcdefghi"[letter] for letter in line] for line in letters], dtype=object)
        if told
        else None,
    )


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return evaluate(outcomes(), PRICES, [HYBRID, ESCALATE, *PLAN_BASELINES], ENCODERS)


def test_looking_at_answers_saves_where_questions_tell_nothing(report: EvaluationReport) -> None:
    single, plans = report.results["hybrid"].score, report.results["escalate"].score
    assert plans.area > single.area + 0.02
    assert plans.cost_share[0.95] < single.cost_share[0.95] - 0.2
    assert report.results["escalate"].role == "eccos"
    calls = report.results["escalate"].calls
    assert calls is not None
    assert calls[0.95] > 1.2


def test_the_report_tells_the_number_of_calls(report: EvaluationReport) -> None:
    entry = report.as_json()["routers"]["escalate"]
    assert set(entry["calls"]) == {"0.90", "0.95", "0.98", "1.00"}
    assert "Calls per question" in render_markdown(report)
    assert "calls" not in report.as_json()["routers"]["hybrid"]


def test_the_best_single_model_is_one_point(report: EvaluationReport) -> None:
    result = report.results["best_single"].score
    assert result.best_accuracy == pytest.approx(report.results["large"].score.best_accuracy)
    assert result.cost_share[1.0] == pytest.approx(1.0)


def test_agreement_of_two_pays_for_three_calls_where_two_disagree(report: EvaluationReport) -> None:
    calls = report.results["agreement_of_two"].calls
    assert calls is not None
    known = [each for each in calls.values() if each is not None]
    assert known
    assert all(2 <= each <= 3 for each in known)


def test_without_answers_escalate_is_exactly_hybrid() -> None:
    table = outcomes(120, told=False)
    report = evaluate(table, PRICES, [HYBRID, ESCALATE], ENCODERS)
    single, plans = report.results["hybrid"].score, report.results["escalate"].score
    assert (single.area, single.cost_share) == (plans.area, plans.cost_share)
    assert np.array_equal(single.frontier.accuracy, plans.frontier.accuracy)
    assert report.results["escalate"].calls is None


def test_answers_that_agree_by_chance_never_make_it_worse() -> None:
    table = outcomes(200)
    draw = np.random.default_rng(1)
    noise = np.array([["ab"[each] for each in line] for line in draw.integers(0, 2, (200, 3))], dtype=object)
    report = evaluate(replace(table, answers=noise), PRICES, [HYBRID, ESCALATE], ENCODERS)
    assert report.results["escalate"].score.area >= report.results["hybrid"].score.area - 1e-9


def test_the_usual_routers_look_at_answers_where_there_are_any() -> None:
    assert "escalate" in usual_routers(outcomes(20))
    assert "escalate" not in usual_routers(outcomes(20, told=False))
    assert "cascade_frugalgpt" in usual_routers(outcomes(20), baselines=True)
    assert usual_routers(outcomes(20), ["hybrid"]) == ["hybrid"]
    assert [each.name for each in routers_by_name(["escalate", "cascade_automix"])] == ["escalate", "cascade_automix"]


def test_results_of_plans_come_from_the_cache(tmp_path) -> None:  # type: ignore[no-untyped-def]
    cache, table = ResultCache(tmp_path), outcomes(120)
    routers = routers_by_name(["agreement_of_two"])
    first = evaluate(table, PRICES, routers, ENCODERS, cache=cache).results["agreement_of_two"]
    again = evaluate(table, PRICES, routers, ENCODERS, cache=cache).results["agreement_of_two"]
    assert again.from_cache
    assert (again.score.area, again.calls) == (first.score.area, first.calls)
    changed = table.answers.copy()
    changed[:, 1] = "z"
    other = evaluate(replace(table, answers=changed), PRICES, routers, ENCODERS, cache=cache)
    assert not other.results["agreement_of_two"].from_cache


# ------------------------------------------------------------------------------------------------------- the ledger


def ledger_of(table: OutcomeTable, settings: int = 2) -> AnswerLedger:
    return RecordedAnswers.of(table, np.tile([1.0, 2.0, 40.0], (len(table), 1))).ledger(settings)


def test_an_answer_is_revealed_and_charged_once_per_setting() -> None:
    table = outcomes(5)
    ledger = ledger_of(table)
    at, row, model = np.array([0, 0, 1]), np.array([3, 3, 3]), np.array([0, 2, 0])
    told = ledger.ask(at, row, model)
    ledger.ask(at[:1], row[:1], model[:1])
    assert list(told.texts) == [table.answers[3, 0], table.answers[3, 2], table.answers[3, 0]]
    assert not hasattr(told, "quality")
    for setting in (0, 1):
        ledger.ask(np.full(5, setting), np.arange(5), np.zeros(5, dtype=int))
    choices = ledger.accept(np.array([[0, 0, 0, 2, 0], [0, 0, 0, 0, 0]]))
    assert choices.cost_usd.tolist() == [[1, 1, 1, 41, 1], [1, 1, 1, 1, 1]]
    assert choices.calls.tolist() == [[1, 1, 1, 2, 1], [1, 1, 1, 1, 1]]


def test_an_answer_that_was_not_asked_for_cannot_be_accepted() -> None:
    ledger = ledger_of(outcomes(2), settings=1)
    ledger.ask(np.zeros(2, dtype=int), np.arange(2), np.zeros(2, dtype=int))
    with pytest.raises(InputError, match="did not ask for"):
        ledger.accept(np.array([[0, 1]]))


def test_an_answer_that_was_not_recorded_cannot_be_asked_for() -> None:
    table = outcomes(2)
    gaps = table.quality.copy()
    gaps[1, 2] = np.nan
    ledger = ledger_of(replace(table, quality=gaps), settings=1)
    with pytest.raises(InputError, match="not recorded"):
        ledger.ask(np.zeros(1, dtype=int), np.array([1]), np.array([2]))


@dataclass
class Watcher:
    """Asks the first model only, and keeps what it was told."""

    name: str = "watcher"
    reads: EncoderChoice = "none"
    told: list[str] = field(default_factory=list)

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        def answer(held_out: EvaluationSplit) -> PlanChoices:
            assert held_out.answers is not None
            ledger, rows = held_out.answers.ledger(1), np.arange(len(held_out))
            self.told = list(ledger.ask(rows * 0, rows, rows * 0).texts)
            return ledger.accept(np.zeros((1, len(rows)), dtype=int))

        return answer


def test_a_plan_router_is_scored_by_the_outcomes_that_it_never_saw() -> None:
    watcher = Watcher()
    report = evaluate(outcomes(100), PRICES, [watcher], ENCODERS)
    assert report.results["watcher"].score.best_accuracy == report.results["small"].score.best_accuracy
