"""Tune a baseline on folds of the training rows, by what a user wants of it: the area of its routing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from eccos_core.domain import Forecast, IntArray
from eccos_core.evaluation.metrics import RecordedOutcomes, score_choices, sweep_forecast
from eccos_core.evaluation.protocol import AnswerFunction, EvaluationSplit, RouterAnswer, TrainSplit
from eccos_core.evaluation.recorded_cost import filled_input_tokens

FOLDS = 3
MIN_ROWS = 60  # with fewer training rows the authors' own setting is used

Setting = TypeVar("Setting")


class Tunable(Protocol[Setting]):
    """A baseline with settings to choose from."""

    def settings(self, train_split: TrainSplit) -> Sequence[Setting]:
        """Return the settings to try, the authors' own first."""
        ...

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[Setting]) -> Sequence[AnswerFunction]:
        """Fit once per setting, and share the work that they have in common."""
        ...


def fit_tuned(baseline: Tunable[Setting], train_split: TrainSplit) -> AnswerFunction:
    """Fit with the setting that has the largest mean area over the folds. The first of equals wins."""
    settings = baseline.settings(train_split)
    best = 0
    if len(settings) > 1 and len(train_split.table) >= MIN_ROWS:
        fold_of = np.random.default_rng(0).permutation(len(train_split.table)) % FOLDS
        areas = [
            [
                routing_area(answer(held_out), held_out, recorded)
                for answer in baseline.fit_settings(_rows(train_split, np.flatnonzero(fold_of != fold)), settings)
            ]
            for fold in range(FOLDS)
            for held_out, recorded in [_held_out(train_split, np.flatnonzero(fold_of == fold))]
        ]
        best = int(np.argmax(np.mean(areas, axis=0)))
    (fitted,) = baseline.fit_settings(train_split, [settings[best]])
    return fitted


def routing_area(answer: RouterAnswer, held_out: EvaluationSplit, recorded: RecordedOutcomes) -> float:
    """Compute the area of an answer to held-out questions with these recorded outcomes."""
    if isinstance(answer, Forecast):
        answer = sweep_forecast(answer.quality, held_out.cost_usd(answer.output_tokens), recorded)
    return score_choices(answer, recorded).area or 0.0


def _rows(train_split: TrainSplit, rows: IntArray) -> TrainSplit:
    return TrainSplit(
        train_split.table.rows(rows),
        train_split.vectors[rows],
        train_split.cost_usd[rows],
        train_split.price_table,
        train_split.encoder,
    )


def _held_out(train_split: TrainSplit, rows: IntArray) -> tuple[EvaluationSplit, RecordedOutcomes]:
    """Return training rows as questions without outcomes, and their outcomes."""
    table = train_split.table.rows(rows)
    observed = train_split.known[rows]
    questions = EvaluationSplit(
        table.queries, train_split.vectors[rows], filled_input_tokens(table), observed, train_split.price_table
    )
    return questions, RecordedOutcomes(table.models, table.quality, train_split.cost_usd[rows], observed)
