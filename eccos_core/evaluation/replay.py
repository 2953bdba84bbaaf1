"""Replay recorded answers: score what each router would have chosen, without calling a model.

Routers are fitted on the training rows only. The outcomes of the test rows are used for scoring and for nothing else.
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
from eccos_core.evaluation.calibration import measure_calibration, measure_length_error
from eccos_core.evaluation.eccos_routers import EccosReplayRouter
from eccos_core.evaluation.embedding import EvaluationProgress, encode_questions
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
    """Train on `rows` training rows only, drawn with `seed`. A smaller sample is always part of a larger one."""

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
    uncached_encoders: Mapping[EncoderChoice, Encoder] | None = None,
    cache: ResultCache | None = None,
    progress: EvaluationProgress | None = None,
) -> EvaluationReport:
    """Compare routers on recorded outcomes, beside the oracle, a random mix and each single model.

    table: all outcomes, split by the hash of the id (`outcomes.split`). With `train` it holds the test rows only, and
    its models must be among those of `train`. prices: (USD per input token, USD per output token) per model.
    encoders: one per encoder choice that a router reads. uncached_encoders: the same ones without a cache, to time one
    question (default `encoders`). cache: routers whose answers it holds are not fitted again. Rows without any outcome
    are left out.

    Raises `InputError` when training or test rows are missing, for a missing price, and for a missing encoder.
    """
    report_progress = progress or _ignore_progress
    train, test = _split(table, train, sample)
    price_table = PriceTable.of(prices, train)
    recorded = RecordedOutcomes(test.models, test.quality, price_table.recorded_cost_usd(test), ~np.isnan(test.quality))
    vectors, facts = encode_questions(train, test, routers, encoders, uncached_encoders or encoders, report_progress)
    results: dict[str, RouterResult] = {}
    for result in _reference_results(recorded):
        results[result.name] = result
    for position, replay_router in enumerate(routers):
        report_progress(f"Fitting and testing {replay_router.name}", position, len(routers))
        train_vectors, test_vectors = vectors[replay_router.reads]
        encoder_name = facts[replay_router.reads].name if replay_router.reads in facts else ""
        train_split = TrainSplit(train, train_vectors, price_table.recorded_cost_usd(train), price_table, encoder_name)
        held_out = EvaluationSplit(
            test.queries, test_vectors, filled_input_tokens(test), recorded.observed, price_table
        )
        results[replay_router.name] = _evaluate_router(replay_router, train_split, held_out, recorded, test, cache)
    report_progress("Routers tested", len(routers), len(routers))
    for result in _single_model_results(recorded, taken=set(results)):
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
        notes=price_table.notes + _missing_cells_note(recorded) + _cache_note(results),
    )


def _split(
    table: OutcomeTable, train: OutcomeTable | None, sample: ReplaySample | None
) -> tuple[OutcomeTable, OutcomeTable]:
    """Return (training rows, test rows) with one list of models."""
    if train is None:
        train, test = split(table)
    else:
        test = _align_models(table, train.models)
        shared = set(train.question_ids) & set(test.question_ids)
        if shared:
            raise InputError(
                f"{len(shared)} questions are in both the training and the test data, {min(shared)!r} for one. "
                "A router must not be tested on its training data. Remove them from one of the files."
            )
    train, test = _drop_unanswered(train), _drop_unanswered(test)
    for name, rows in (("training", train), ("test", test)):
        if not len(rows):
            raise InputError(
                f"there are no {name} questions with a known outcome after the split by id. Give more questions, or "
                "put training and test data into files of their own."
            )
    if sample is not None:
        if sample.rows < 1:
            raise InputError(f"the number of training rows is {sample.rows}, it must be >= 1")
        order = np.random.default_rng(sample.seed).permutation(len(train))
        train = train.rows(np.sort(order[: sample.rows]))
    return train, test


def _drop_unanswered(table: OutcomeTable) -> OutcomeTable:
    """Keep the rows with at least one known outcome."""
    return table.rows(np.flatnonzero((~np.isnan(table.quality)).any(axis=1)))


def _align_models(table: OutcomeTable, models: tuple[str, ...]) -> OutcomeTable:
    """Give the table these models as columns, in this order. A model without outcomes becomes a column of NaN."""
    unknown = [model for model in table.models if model not in models]
    if unknown:
        raise InputError(
            f"the test data has models that the training data lacks: {', '.join(unknown)}. "
            "Remove them, or add their outcomes to the training data."
        )
    return with_models(table, models)


def _reference_results(recorded: RecordedOutcomes) -> list[RouterResult]:
    """Score the two ends of the scale: a router that knows every outcome, and a random choice."""
    quality = np.where(recorded.observed, recorded.quality, 0.0)
    cost = np.where(recorded.observed, recorded.cost_usd, 0.0)
    return [
        RouterResult("oracle", "reference", score_forecast(quality, cost, recorded)),
        RouterResult("random_mix", "reference", score_random_mix(recorded)),
    ]


def _single_model_results(recorded: RecordedOutcomes, taken: set[str]) -> list[RouterResult]:
    """Score each single model, the most accurate first. A model with the name of a router is shown as `model:NAME`."""
    accuracy = recorded.single_accuracy
    order = [model for model in np.argsort(-accuracy) if not np.isnan(accuracy[model])]
    results = []
    for model in order:
        name = recorded.models[model]
        shown = f"model:{name}" if name in taken else name
        results.append(RouterResult(shown, "single", score_single(recorded, int(model))))
    return results


def _evaluate_router(
    replay_router: ReplayRouter,
    train_split: TrainSplit,
    held_out: EvaluationSplit,
    recorded: RecordedOutcomes,
    test: OutcomeTable,
    cache: ResultCache | None,
) -> RouterResult:
    answered, latency, from_cache = _fit_and_answer(replay_router, train_split, held_out, cache)
    result = RouterResult(
        name=replay_router.name,
        role="eccos" if isinstance(replay_router, EccosReplayRouter) else "baseline",
        score=_score(answered, held_out, recorded),
        reads=replay_router.reads,
        latency=latency,
        from_cache=from_cache,
    )
    if isinstance(answered, Forecast):
        measured = measure_calibration(answered.quality, recorded.quality, recorded.observed)
        return replace(result, calibration=measured, length=measure_length_error(answered, test.output_tokens))
    return result


def _fit_and_answer(
    replay_router: ReplayRouter, train_split: TrainSplit, held_out: EvaluationSplit, cache: ResultCache | None
) -> tuple[RouterAnswer, Latency, bool]:
    """Return the router's answer, its latency, and whether both come from the cache of an earlier run."""
    key = cache_key(replay_router, train_split, held_out) if cache is not None else None
    if cache is not None and key is not None and (cached := cache.load(key)) is not None:
        return *cached, True
    with one_thread() if train_split.vectors.shape[1] else contextlib.nullcontext():
        started = time.perf_counter()
        answer = replay_router.fit(train_split)
        fitted = time.perf_counter()
        answered = answer(held_out)
        finished = time.perf_counter()
        batch_ms = 1000 * (finished - fitted) / len(held_out)
        latency = Latency(fitted - started, batch_ms, _measure_single_ms(answer, held_out))
    if cache is not None and key is not None:
        cache.save(key, answered, latency)
    return answered, latency, False


def _score(answered: RouterAnswer, held_out: EvaluationSplit, recorded: RecordedOutcomes) -> RoutingScore:
    if not isinstance(answered, Forecast):
        return score_choices(answered, recorded)
    if answered.models != recorded.models:
        raise InputError(f"a forecast is for {answered.models}, but the outcomes are of {recorded.models}")
    return score_forecast(answered.quality, held_out.cost_usd(answered.output_tokens), recorded)


def _measure_single_ms(answer: AnswerFunction, held_out: EvaluationSplit) -> float:
    """Measure the median milliseconds to route one question on its own, without encoding it."""
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
        f"{missing:.1%} of the test outcomes are missing. A router chooses among the models that answered a question. "
        "A single model is scored on the questions that it answered.",
    )


def _cache_note(results: Mapping[str, RouterResult]) -> tuple[str, ...]:
    names = [name for name, result in results.items() if result.from_cache]
    if not names:
        return ()
    return (
        f"The results of {', '.join(names)} and their latency come from an earlier run with the same data, settings "
        "and code. Add --fresh to fit them again.",
    )


def _ignore_progress(stage: str, done: int, total: int) -> None:
    """Show no progress."""


__all__ = ["EvaluationProgress", "ReplaySample", "RouterAnswer", "evaluate"]
