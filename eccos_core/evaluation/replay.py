"""Replay: what would each router have bought, had it chosen among answers that are already recorded?

Only training rows are ever fitted; the test rows' outcomes are used to charge what was chosen, and nothing else.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Forecast, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.calibration import calibration, length_error
from eccos_core.evaluation.eccos_routers import EccosReplayRouter
from eccos_core.evaluation.embedding import Progress, encoded
from eccos_core.evaluation.metrics import (
    RecordedOutcomes,
    RoutingScore,
    score_choices,
    score_forecast,
    score_random_mix,
    score_single,
)
from eccos_core.evaluation.protocol import (
    AnswerFunction,
    EncoderChoice,
    EvaluationSplit,
    ReplayRouter,
    RouterAnswer,
    TrainSplit,
)
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.evaluation.report import BestSingle, EvaluationReport, Latency, RouterResult
from eccos_core.evaluation.result_cache import ResultCache, cache_key
from eccos_core.io.outcomes import split, with_models
from eccos_core.io.threads import one_thread
from eccos_core.protocols import Encoder

_TIMED_REQUESTS = 25


@dataclass(frozen=True, slots=True)
class ReplaySample:
    """Learn from `rows` training rows only, drawn by `seed`. Fewer rows are always part of more rows."""

    rows: int
    seed: int = 0


def evaluate(
    table: OutcomeTable,
    prices: Mapping[str, tuple[float, float]],
    routers: Sequence[ReplayRouter],
    encoders: Mapping[EncoderChoice, Encoder],
    *,
    dataset: str = "",
    train: OutcomeTable | None = None,
    sample: ReplaySample | None = None,
    timed: Mapping[EncoderChoice, Encoder] | None = None,
    memory: ResultCache | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Replay recorded outcomes through every router, beside oracle, random mix and each single model.

    table: all outcomes, split by the hash of the id (`outcomes.split`); or, where `train` is given, the test rows
    alone, and its models must be among the table's. prices: (USD per input token, USD per output token) of every
    model. encoders: one for every kind of vectors that a router reads. timed: the same without a cache, whose time
    for one question is measured (`encoders` unless given). memory: keeps answers; what it knows is not fitted again.
    Rows without any outcome are left out.

    Raises `InputError` when training or test rows are missing, for a missing price, and for a missing encoder.
    """
    report_progress = progress or _silent
    train, test = _split(table, train, sample)
    price_table = PriceTable.of(prices, train)
    recorded = RecordedOutcomes(test.models, test.quality, price_table.recorded_cost_usd(test), ~np.isnan(test.quality))
    vectors, facts = encoded(train, test, routers, encoders, timed or encoders, report_progress)
    results: dict[str, RouterResult] = {}
    for result in _references(recorded):
        results[result.name] = result
    for position, replay_router in enumerate(routers):
        report_progress(replay_router.name, position, len(routers))
        train_vectors, test_vectors = vectors[replay_router.reads]
        encoder_name = facts[replay_router.reads].name if replay_router.reads in facts else ""
        train_split = TrainSplit(train, train_vectors, price_table.recorded_cost_usd(train), price_table, encoder_name)
        held_out = EvaluationSplit(
            test.queries, test_vectors, filled_input_tokens(test), recorded.observed, price_table
        )
        results[replay_router.name] = _result(replay_router, train_split, held_out, recorded, test, memory)
    report_progress("done", len(routers), len(routers))
    for result in _singles(recorded, taken=set(results)):
        results[result.name] = result
    best = recorded.best_single
    return EvaluationReport(
        dataset=dataset,
        train=len(train),
        test=len(test),
        models=test.models,
        best_single=BestSingle(
            test.models[best], float(recorded.single_accuracy[best]), float(recorded.single_cost_usd[best])
        ),
        results=results,
        encoders=facts,
        notes=price_table.notes + _missing_cells_note(recorded) + _recalled_note(results),
    )


def _split(
    table: OutcomeTable, train: OutcomeTable | None, sample: ReplaySample | None
) -> tuple[OutcomeTable, OutcomeTable]:
    """(training rows, test rows), with one list of models."""
    if train is None:
        train, test = split(table)
    else:
        test = _with_columns(table, train.models)
        shared = set(train.question_ids) & set(test.question_ids)
        if shared:
            raise InputError(
                f"{len(shared)} questions are in both the training and the test data, {min(shared)!r} for one; "
                "what was learned from must not be tested on"
            )
    train, test = _answered(train), _answered(test)
    for name, rows in (("training", train), ("test", test)):
        if not len(rows):
            raise InputError(
                f"there are no {name} questions with a known outcome; the split by id left none. Give more questions, "
                "or training and test data in files of their own"
            )
    if sample is not None:
        if sample.rows < 1:
            raise InputError(f"training rows to learn from is {sample.rows}, must be >= 1")
        order = np.random.default_rng(sample.seed).permutation(len(train))
        train = train.rows(np.sort(order[: sample.rows]))
    return train, test


def _answered(table: OutcomeTable) -> OutcomeTable:
    """The rows with at least one known outcome."""
    return table.rows(np.flatnonzero((~np.isnan(table.quality)).any(axis=1)))


def _with_columns(table: OutcomeTable, models: tuple[str, ...]) -> OutcomeTable:
    """The table with these models as columns, in this order; a model that it does not have is missing throughout."""
    unknown = [model for model in table.models if model not in models]
    if unknown:
        raise InputError(f"the test data has models that the training data lacks: {', '.join(unknown)}")
    return with_models(table, models)


def _references(recorded: RecordedOutcomes) -> list[RouterResult]:
    """The two ends of the scale: knowing everything, and tossing a coin."""
    quality = np.where(recorded.observed, recorded.quality, 0.0)
    cost = np.where(recorded.observed, recorded.cost_usd, 0.0)
    return [
        RouterResult("oracle", "reference", score_forecast(quality, cost, recorded)),
        RouterResult("random_mix", "reference", score_random_mix(recorded)),
    ]


def _singles(recorded: RecordedOutcomes, taken: set[str]) -> list[RouterResult]:
    """Each single model by its name, dearest accuracy first; a name that a router has is written `model:NAME`."""
    accuracy = recorded.single_accuracy
    order = [model for model in np.argsort(-accuracy) if not np.isnan(accuracy[model])]
    results = []
    for model in order:
        name = recorded.models[model]
        shown = f"model:{name}" if name in taken else name
        results.append(RouterResult(shown, "single", score_single(recorded, int(model))))
    return results


def _result(
    replay_router: ReplayRouter,
    train_split: TrainSplit,
    held_out: EvaluationSplit,
    recorded: RecordedOutcomes,
    test: OutcomeTable,
    memory: ResultCache | None,
) -> RouterResult:
    answered, latency, recalled = _answer(replay_router, train_split, held_out, memory)
    result = RouterResult(
        name=replay_router.name,
        role="eccos" if isinstance(replay_router, EccosReplayRouter) else "baseline",
        score=_score(answered, held_out, recorded),
        reads=replay_router.reads,
        latency=latency,
        recalled=recalled,
    )
    if isinstance(answered, Forecast):
        trust = calibration(answered.quality, recorded.quality, recorded.observed)
        return replace(result, calibration=trust, length=length_error(answered, test.output_tokens))
    return result


def _answer(
    replay_router: ReplayRouter, train_split: TrainSplit, held_out: EvaluationSplit, memory: ResultCache | None
) -> tuple[RouterAnswer, Latency, bool]:
    """What the contender answers, how long it took, and whether both come from an earlier run."""
    key = cache_key(replay_router, train_split, held_out) if memory is not None else None
    if memory is not None and key is not None and (kept := memory.recall(key)) is not None:
        return *kept, True
    with one_thread() if train_split.vectors.shape[1] else contextlib.nullcontext():
        started = time.perf_counter()
        answer = replay_router.fit(train_split)
        fitted = time.perf_counter()
        answered = answer(held_out)
        finished = time.perf_counter()
        latency = Latency(fitted - started, 1000 * (finished - fitted) / len(held_out), _single_ms(answer, held_out))
    if memory is not None and key is not None:
        memory.keep(key, answered, latency)
    return answered, latency, False


def _score(answered: RouterAnswer, held_out: EvaluationSplit, recorded: RecordedOutcomes) -> RoutingScore:
    if not isinstance(answered, Forecast):
        return score_choices(answered, recorded)
    if answered.models != recorded.models:
        raise InputError(f"a forecast is for {answered.models}, the outcomes are of {recorded.models}")
    return score_forecast(answered.quality, held_out.cost_usd(answered.output_tokens), recorded)


def _single_ms(answer: AnswerFunction, held_out: EvaluationSplit) -> float:
    """Median milliseconds of answering for one question on its own, its vector given."""
    taken = []
    for row in range(min(_TIMED_REQUESTS, len(held_out))):
        one = held_out.rows(row, row + 1)
        started = time.perf_counter()
        answer(one)
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


def _missing_cells_note(recorded: RecordedOutcomes) -> tuple[str, ...]:
    missing = 1 - float(recorded.observed.mean())
    if missing == 0:
        return ()
    return (
        f"{missing:.1%} of the test outcomes are missing: a router chooses among the models that answered a question, "
        "and a single model is judged on the questions that it answered.",
    )


def _recalled_note(results: Mapping[str, RouterResult]) -> tuple[str, ...]:
    names = [name for name, result in results.items() if result.recalled]
    if not names:
        return ()
    return (
        f"Answers of {', '.join(names)} and their latency were kept from an earlier run with the same data, settings "
        "and code; --fresh fits them again.",
    )


def _silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""


__all__ = ["Progress", "ReplaySample", "RouterAnswer", "evaluate"]
