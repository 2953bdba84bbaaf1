"""`eccos demo`: the whole way once, for real, on the bundled pocket pool, its recorded history and live calls.

Learns from the history's training questions, routes held-out ones jointly under a quality floor, calls the pocket
models through LiteLLM, grades their answers, and sets that beside what each single model, a random mix and an oracle
would have reached and cost on the same questions, by the recorded outcomes.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from eccos_core.assembly.build import Assembler
from eccos_core.assembly.encoder import build_encoder
from eccos_core.assembly.plan_fit import fit_plans
from eccos_core.assembly.predictor import TrainingData, cached_encoder, fit_from_config
from eccos_core.config import Config, load_config
from eccos_core.domain import (
    Budget,
    Completion,
    EscalationRule,
    FloatArray,
    IntArray,
    Model,
    OutcomeTable,
    QualityFloor,
    Request,
)
from eccos_core.evaluation.metrics import RecordedOutcomes, RoutingScore, score_forecast, score_random_mix
from eccos_core.grading import grader_for
from eccos_core.grading.factory import GraderSpec
from eccos_core.grading.protocol import Reference
from eccos_core.io.files import read_json_lines
from eccos_core.io.outcome_tables import with_models
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.pocket import pool_config_path, pool_history_path
from eccos_core.predictors import EnsemblePredictor
from eccos_core.router import Router
from eccos_core.routing.escalation import EscalationPlanner
from eccos_core.routing.pricing import cost_usd

QUESTIONS = 200
MAX_TOKENS = 24
TIMED_DECISIONS = 50

Progress = Callable[[str], None]
AnswerKey: TypeAlias = Mapping[str, tuple[GraderSpec, Reference]]


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One line of the demo's table. accuracy in [0, 1]; usd: for all questions; shares: calls per model, sum 1."""

    name: str
    accuracy: float
    usd: float
    tokens: float
    shares: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class DemoReport:
    """What the demo found. Times in s; `recorded_agreement`: share of live answers graded as in the history."""

    floor: float
    questions: int
    learnt_from: int
    rows: tuple[DemoRow, ...]
    routing_ms: float
    answer_ms: float
    recorded_agreement: float
    recorded: RecordedOutcomes
    frontier: RoutingScore
    random_mix: RoutingScore
    seconds: float

    @property
    def eccos(self) -> DemoRow:
        """The first line."""
        return self.rows[0]


def run_demo(floor: float | None = None, *, questions: int = QUESTIONS, progress: Progress | None = None) -> DemoReport:
    """Routes `questions` held-out questions under a quality floor (None: that of the pool's configuration).

    Raises `InfeasibleError` when the floor is out of reach.
    """
    say = progress or _silent
    started = time.perf_counter()
    say("reading the bundled history")
    config = load_config(pool_config_path())
    names = tuple(model.name for model in config.models)
    train, test = split(with_models(read_outcomes(pool_history_path()), names))
    test = test.rows(np.arange(min(questions, len(test))))
    say(f"embedding {len(train)} questions")
    encoder = build_encoder(config.encoder, config.conversation)
    known = TrainingData(train, cached_encoder(encoder).encode(train.queries))
    say(f"learning from {len(train)} questions")
    router = Router.from_parts(Assembler().assemble_fitted(config, encoder, fit_from_config(config, known), known))
    policy = _policy(config, floor)
    say("loading the models")
    _warm_up(router)

    say(f"routing {len(test)} questions jointly and calling the models")
    asked = [
        Request.of(query, id=question_id, parameters={"max_tokens": MAX_TOKENS, "temperature": 0.0})
        for question_id, query in zip(test.question_ids, test.queries, strict=True)
    ]
    completions = router.complete_batch(asked, policy=policy)
    say("grading")
    grades = _graded(test, completions)
    say("learning what an answer tells, and asking again where that pays")
    planned_usd = sum(each.decision.cost_usd for each in completions)
    looked = _look_at_answers(router, config, train, asked, planned_usd)

    recorded = RecordedOutcomes(test.models, test.quality, _recorded_cost(config.models, test), ~np.isnan(test.quality))
    prepared = router.decider.prepare(asked)
    column = {name: position for position, name in enumerate(test.models)}
    as_recorded = [float(test.quality[row, column[completion.model]]) for row, completion in enumerate(completions)]
    return DemoReport(
        floor=policy.alpha,
        questions=len(test),
        learnt_from=len(train),
        rows=_rows(test, recorded, completions, grades, _row_of_plans(test, looked, _graded(test, looked))),
        routing_ms=_routing_ms(router, asked),
        answer_ms=1000 * statistics.median(completion.latency_s for completion in completions),
        recorded_agreement=float(np.mean(np.isclose(grades, as_recorded))),
        recorded=recorded,
        frontier=score_forecast(prepared.forecast.quality, prepared.cost_usd, recorded),
        random_mix=score_random_mix(recorded),
        seconds=time.perf_counter() - started,
    )


def _policy(config: Config, floor: float | None) -> QualityFloor:
    """The floor that was asked for, else the pool's own."""
    if floor is not None:
        return QualityFloor(floor)
    assert isinstance(config.policy, QualityFloor)
    return config.policy


def _warm_up(router: Router) -> None:
    """Loads every model, so that what is measured afterwards is answering."""
    for model in router.models:
        router.complete(Request.of("What is 1 + 1?", allow=frozenset({model.name}), parameters={"max_tokens": 1}))


def read_answer_key() -> AnswerKey:
    """Read the grader and the reference of each question of the bundled history."""
    return {entry["id"]: (entry["grader"], entry["reference"]) for _, entry in read_json_lines(pool_history_path())}


def grade_answer(answer_key: AnswerKey, question_id: str, query: str, answer: str) -> float:
    """Return the score of an answer, in [0, 1]."""
    grader, reference = answer_key[question_id]
    return grader_for(grader).grade(answer, reference, query)


def _graded(test: OutcomeTable, completions: Sequence[Completion]) -> list[float]:
    answer_key = read_answer_key()
    asked = zip(test.question_ids, test.queries, completions, strict=True)
    return [grade_answer(answer_key, question_id, query, each.text) for question_id, query, each in asked]


def _recorded_cost(models: Sequence[Model], test: OutcomeTable) -> FloatArray:
    """(N, M) USD, from the tokens that were recorded."""
    return cost_usd(models, test.input_tokens, test.output_tokens)


def _rows(
    test: OutcomeTable,
    recorded: RecordedOutcomes,
    completions: Sequence[Completion],
    grades: Sequence[float],
    looking: DemoRow,
) -> tuple[DemoRow, ...]:
    """eccos as it answered just now, once and by looking at answers; the others as recorded on the same questions."""
    tokens = test.input_tokens + test.output_tokens
    calls = Counter(completion.model for completion in completions)
    eccos = DemoRow(
        "eccos",
        statistics.fmean(grades),
        sum(completion.cost_usd for completion in completions),
        float(sum(completion.input_tokens + completion.output_tokens for completion in completions)),
        {model: calls[model] / len(completions) for model in test.models},
    )
    singles = [
        _chosen(name, recorded, tokens, np.full(len(test), position)) for position, name in enumerate(test.models)
    ]
    # an oracle takes, of the models with the best answer, the cheapest
    best = test.quality.max(axis=1, keepdims=True)
    oracle = np.where(test.quality >= best, recorded.cost_usd, np.inf).argmin(axis=1)
    return (
        eccos,
        looking,
        *singles,
        _random_mix(recorded, tokens, eccos.usd),
        _chosen("oracle", recorded, tokens, oracle),
    )


def _look_at_answers(
    router: Router, config: Config, train: OutcomeTable, asked: Sequence[Request], usd: float
) -> list[Completion]:
    """Answer once more with plans of up to three calls, for the same expected cost (USD).

    The rule learns from the same outcomes.
    """
    predictor = router.parts.predictor
    assert isinstance(predictor, EnsemblePredictor)
    fitted = fit_plans(config, predictor, train)
    assert fitted is not None  # the bundled history says what was answered
    planner = EscalationPlanner(EscalationRule(max_calls=fitted[0].max_calls), fitted[0])
    planning = Router.from_parts(replace(router.parts, planner=planner))
    return planning.complete_batch(asked, policy=Budget(usd, on_infeasible="best_effort"))


def _row_of_plans(test: OutcomeTable, completions: Sequence[Completion], grades: Sequence[float]) -> DemoRow:
    calls = [call for completion in completions for call in completion.calls]
    count = Counter(call.model for call in calls)
    return DemoRow(
        "eccos, looking at answers",
        statistics.fmean(grades),
        sum(completion.cost_usd for completion in completions),
        float(sum(call.input_tokens + call.output_tokens for call in calls)),
        {model: count[model] / len(calls) for model in test.models},
    )


def _random_mix(recorded: RecordedOutcomes, tokens: FloatArray, usd: float) -> DemoRow:
    """The best toss of a coin between two single models that costs `usd`; the best single model where it costs less."""
    frontier = score_random_mix(recorded).frontier
    per_question = np.clip(usd / len(tokens), frontier.cost_usd[0], frontier.cost_usd[-1])
    models = [int(np.abs(recorded.single_cost_usd - cost).argmin()) for cost in frontier.cost_usd]
    weights = [float(np.interp(per_question, frontier.cost_usd, corner)) for corner in np.eye(len(models))]
    shares = np.zeros(len(recorded.models))
    np.add.at(shares, models, weights)
    return DemoRow(
        "random mix, same cost",
        float(recorded.quality.mean(axis=0) @ shares),
        float(recorded.cost_usd.sum(axis=0) @ shares),
        float(tokens.sum(axis=0) @ shares),
        dict(zip(recorded.models, shares.tolist(), strict=True)),
    )


def _chosen(name: str, recorded: RecordedOutcomes, tokens: FloatArray, choice: IntArray) -> DemoRow:
    every = np.arange(len(choice))
    shares = np.bincount(choice, minlength=len(recorded.models)) / len(choice)
    return DemoRow(
        name,
        float(recorded.quality[every, choice].mean()),
        float(recorded.cost_usd[every, choice].sum()),
        float(tokens[every, choice].sum()),
        dict(zip(recorded.models, shares.tolist(), strict=True)),
    )


def _routing_ms(router: Router, asked: Sequence[Request]) -> float:
    """Median ms that one decision takes, text in, decision out, one request at a time, in this warm process."""
    taken = []
    for request in asked[:TIMED_DECISIONS]:
        started = time.perf_counter()
        router.decide(request)
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


def _silent(stage: str) -> None:
    """No progress is shown."""


def draw(report: DemoReport, path: Path) -> None:
    """Accuracy over cost: the single models, the random mix, the oracle, eccos' frontier and where it stood."""
    from eccos_core.evaluation.plot_labels import PlotPoint
    from eccos_core.evaluation.plots import Line, draw_frontier

    def spot(row: DemoRow) -> PlotPoint:
        return PlotPoint(row.name, 1000 * row.usd / report.questions, row.accuracy)

    def line(score: RoutingScore) -> Line:
        return [
            (1000 * float(cost), float(accuracy))
            for cost, accuracy in zip(score.frontier.cost_usd, score.frontier.accuracy, strict=True)
        ]

    models = set(report.recorded.models)
    draw_frontier(
        path,
        title=f"{report.questions} held-out questions over the pocket pool",
        singles=[spot(row) for row in report.rows if row.name in models],
        frontiers={"eccos, every price of quality": line(report.frontier)},
        random_mix=line(report.random_mix),
        oracle=spot(report.rows[-1]),
        chosen=spot(report.eccos),
    )
