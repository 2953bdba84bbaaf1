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

from eccos_core.domain import Float32Array, Forecast, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.asking import RecordedAnswers
from eccos_core.evaluation.bootstrap import compare_routers
from eccos_core.evaluation.embedding import EvaluationProgress, encode_questions
from eccos_core.evaluation.folds import Fold, ReplaySample, make_folds
from eccos_core.evaluation.metrics import Choices, PlanChoices, RecordedOutcomes, sweep_forecast
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
from eccos_core.evaluation.scoring import HeldOutOutcomes, reference_results, score_router, single_model_results
from eccos_core.io.threads import one_thread
from eccos_core.protocols import Encoder

_TIMED_REQUESTS = 25


def evaluate(
    table: OutcomeTable,
    prices: Mapping[str, tuple[float, float]],
    routers: Sequence[ReplayRouter],
    encoders: Mapping[EncoderChoice, Encoder],
    *,
    dataset: str = "",
    train: OutcomeTable | None = None,
    sample: ReplaySample | None = None,
    split_by: str | None = None,
    uncached_encoders: Mapping[EncoderChoice, Encoder] | None = None,
    cache: ResultCache | None = None,
    progress: EvaluationProgress | None = None,
) -> EvaluationReport:
    """Compare routers on recorded outcomes, beside the oracle, a random mix and each single model.

    table: all outcomes, split by the hash of the id. With `train` it holds the test rows only, and its models must be
    among those of `train`. split_by: a label such as "dataset". Then each of its groups is tested by routers that were
    fitted on the other groups. prices: (USD per input token, USD per output token) per model, for every model without
    a recorded cost. encoders: one per encoder choice that a router reads. uncached_encoders: the same ones without a
    cache, to time one question (default `encoders`). cache: routers whose answers it holds are not fitted again. Rows
    without any outcome are left out.

    Raises `InputError` when training or test rows are missing, for a missing price, an unknown label, and a missing
    encoder.
    """
    report_progress = progress or _ignore_progress
    table, folds = make_folds(table, train, sample, split_by)
    parts = [_FoldRows(fold, table.rows(fold.train), table.rows(fold.test), prices) for fold in folds]
    tested = table.rows(np.concatenate([fold.test for fold in folds]))
    cost = np.concatenate([part.price_table.recorded_cost_usd(part.test) for part in parts])
    recorded = RecordedOutcomes(tested.models, tested.quality, cost, ~np.isnan(tested.quality))
    held_out = HeldOutOutcomes(recorded, tested.output_tokens, tested.labels.get(split_by or "dataset", ()))
    vectors, facts = encode_questions(table.queries, routers, encoders, uncached_encoders or encoders, report_progress)

    results = {result.name: result for result in reference_results(held_out)}
    choices: dict[str, Choices | PlanChoices] = {}
    answers: dict[str, RouterAnswer] = {}
    for position, replay_router in enumerate(routers):
        name = replay_router.name
        report_progress(f"Fitting and testing {name}", position, len(routers))
        reads = replay_router.reads
        encoder_name = facts[reads].name if reads in facts else ""
        answered = [_fit_and_answer(replay_router, *part.splits(vectors[reads], encoder_name), cache) for part in parts]
        answers[name] = _join([each.answer for each in answered])
        choices[name] = _choose(answers[name], answered, recorded)
        results[name] = replace(
            score_router(replay_router, answers[name], choices[name], held_out),
            latency=answered[0].latency,
            from_cache=all(each.from_cache for each in answered),
        )
    report_progress("Comparing the routers", len(routers), len(routers))
    for result in single_model_results(held_out, taken=set(results)):
        results[result.name] = result
    best = recorded.best_single
    return EvaluationReport(
        dataset=dataset,
        train=min(len(fold.train) for fold in folds),
        test=len(tested),
        models=tested.models,
        best_single=BestSingle(
            tested.models[best], float(recorded.single_accuracy[best]), float(recorded.single_cost_usd[best])
        ),
        results=results,
        differences=compare_routers(choices, answers, recorded),
        encoders=facts,
        notes=(
            *parts[0].price_table.notes,
            *_missing_cells_note(recorded),
            *_split_note(split_by, len(folds)),
            *_cache_note(results),
        ),
    )


class _FoldRows:
    """The rows of one fold, and what they cost."""

    def __init__(
        self, fold: Fold, train: OutcomeTable, test: OutcomeTable, prices: Mapping[str, tuple[float, float]]
    ) -> None:
        self.fold, self.train, self.test = fold, train, test
        self.price_table = PriceTable.of(prices, train)

    def splits(self, vectors: Float32Array, encoder_name: str) -> tuple[TrainSplit, EvaluationSplit]:
        """Return what a router fits on and what it answers, with the vectors of all rows of the table."""
        cost = self.price_table.recorded_cost_usd(self.train)
        train_split = TrainSplit(self.train, vectors[self.fold.train], cost, self.price_table, encoder_name)
        observed = ~np.isnan(self.test.quality)
        read = filled_input_tokens(self.test)
        return train_split, EvaluationSplit(
            self.test.queries,
            vectors[self.fold.test],
            read,
            observed,
            self.price_table,
            RecordedAnswers.of(self.test, self.price_table.recorded_cost_usd(self.test)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    """A router's answer to the test rows of one fold, how long it took, and whether both come from the cache."""

    answer: RouterAnswer
    latency: Latency
    from_cache: bool
    held_out: EvaluationSplit

    @property
    def predicted_cost_usd(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """(R, M) of a forecast."""
        if not isinstance(self.answer, Forecast):
            raise InputError("a rule forecasts no cost")
        return self.answer.with_recorded_cost(self.held_out.cost_usd(self.answer.output_tokens))


def _fit_and_answer(
    replay_router: ReplayRouter, train_split: TrainSplit, held_out: EvaluationSplit, cache: ResultCache | None
) -> _Answered:
    key = cache_key(replay_router, train_split, held_out) if cache is not None else None
    if cache is not None and key is not None and (cached := cache.load(key)) is not None:
        return _Answered(*cached, True, held_out)
    with one_thread() if train_split.vectors.shape[1] else contextlib.nullcontext():
        started = time.perf_counter()
        answer = replay_router.fit(train_split)
        fitted = time.perf_counter()
        answered = answer(held_out)
        finished = time.perf_counter()
        batch_ms = 1000 * (finished - fitted) / len(held_out)
        latency = Latency(fitted - started, batch_ms, _measure_single_ms(answer, held_out))
    models = train_split.table.models
    if isinstance(answered, Forecast) and answered.models != models:
        raise InputError(f"a forecast is for {answered.models}, but the outcomes are of {models}")
    if cache is not None and key is not None:
        cache.save(key, answered, latency)
    return _Answered(answered, latency, False, held_out)


def _join(answers: Sequence[RouterAnswer]) -> RouterAnswer:
    """Join the answers of all folds, in the order of their test rows."""
    forecasts = [answer for answer in answers if isinstance(answer, Forecast)]
    if forecasts:
        return Forecast.joined(forecasts)
    plans = [answer for answer in answers if isinstance(answer, PlanChoices)]
    if plans:
        return PlanChoices.joined(plans)
    return np.concatenate([answer for answer in answers if isinstance(answer, np.ndarray)], axis=1)


def _choose(answer: RouterAnswer, answered: Sequence[_Answered], recorded: RecordedOutcomes) -> Choices | PlanChoices:
    """Return what a router chooses at each of its settings: a rule says so itself, a forecast is swept over prices."""
    if not isinstance(answer, Forecast):
        return answer
    return sweep_forecast(answer.quality, np.concatenate([each.predicted_cost_usd for each in answered]), recorded)


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


def _split_note(split_by: str | None, groups: int) -> tuple[str, ...]:
    if split_by is None:
        return ()
    return (f"Each of {groups} groups by {split_by} was tested by routers that were fitted on the other groups.",)


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
