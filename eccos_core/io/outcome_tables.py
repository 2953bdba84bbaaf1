"""Outcomes one by one, and side by side in a table: from one to the other, and tables put together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from eccos_core.domain import FloatArray, Outcome, OutcomeTable, TextArray
from eccos_core.errors import InputError


def outcomes_of(table: OutcomeTable) -> Iterator[Outcome]:
    """Every known score of a table as an `Outcome`, row by row; cells without a quality are left out."""
    cost = cost_of(table)
    for i, (question_id, query) in enumerate(zip(table.question_ids, table.queries, strict=True)):
        labels = {name: label for name, values in table.labels.items() if (label := values[i]) is not None}
        for j in np.flatnonzero(~np.isnan(table.quality[i])):
            yield Outcome(
                question_id=question_id,
                query=query,
                model=table.models[j],
                quality=float(table.quality[i, j]),
                input_tokens=count_or_none(table.input_tokens[i, j]),
                output_tokens=count_or_none(table.output_tokens[i, j]),
                labels=labels,
                cost_usd=None if math.isnan(cost[i, j]) else float(cost[i, j]),
                answer=None if table.answers is None else table.answers[i, j],
                features=known_features(table, i, int(j)),
            )


def table_of(outcomes: Iterable[Outcome], models: Sequence[str] | None = None) -> OutcomeTable:
    """Outcomes side by side. Rows (by question id) and models come in the order of their first appearance; `models`
    fixes the columns instead, and outcomes of other models are left out.

    A later outcome of the same question and model replaces the earlier one. Raises `InputError` when one id has two
    queries.
    """
    queries: dict[str, str] = {}
    labels: dict[str, dict[str, str]] = {}
    columns = {name: j for j, name in enumerate(models or ())}
    cells: dict[tuple[str, str], Outcome] = {}
    for outcome in outcomes:
        if queries.setdefault(outcome.question_id, outcome.query) != outcome.query:
            raise InputError(f"question id {outcome.question_id!r} has two different queries; ids are unique")
        labels.setdefault(outcome.question_id, {}).update(outcome.labels)
        if models is None:
            columns.setdefault(outcome.model, len(columns))
        elif outcome.model not in columns:
            continue
        cells[outcome.question_id, outcome.model] = outcome
    index = {question_id: i for i, question_id in enumerate(queries)}
    scores: FloatArray = np.full((4, len(index), len(columns)), np.nan)
    for (question_id, model), outcome in cells.items():
        values = (outcome.quality, outcome.input_tokens, outcome.output_tokens, outcome.cost_usd)
        scores[:, index[question_id], columns[model]] = [np.nan if value is None else value for value in values]
    names = dict.fromkeys(name for row in labels.values() for name in row)
    places = [(index[question_id], columns[model], outcome) for (question_id, model), outcome in cells.items()]
    answers: TextArray = np.full(scores.shape[1:], None, dtype=object)
    features = {name: np.full(scores.shape[1:], np.nan) for _, _, outcome in places for name in outcome.features}
    for i, j, outcome in places:
        answers[i, j] = outcome.answer
        for name, value in outcome.features.items():
            features[name][i, j] = value
    return OutcomeTable(
        question_ids=tuple(queries),
        queries=tuple(queries.values()),
        models=tuple(columns),
        quality=scores[0],
        input_tokens=scores[1],
        output_tokens=scores[2],
        labels={name: tuple(row.get(name) for row in labels.values()) for name in names},
        cost_usd=None if np.isnan(scores[3]).all() else scores[3],
        answers=None if all(each is None for each in answers.flat) else answers,
        features=features,
    )


def with_models(table: OutcomeTable, models: Sequence[str]) -> OutcomeTable:
    """The table with exactly these models as columns, in this order: others are dropped, unknown ones are missing."""
    known = {model: column for column, model in enumerate(table.models)}

    def spread(values: FloatArray) -> FloatArray:
        wide = np.full((len(table), len(models)), np.nan)
        for place, model in enumerate(models):
            if model in known:
                wide[:, place] = values[:, known[model]]
        return wide

    answers: TextArray | None = None
    if table.answers is not None:
        answers = np.full((len(table), len(models)), None, dtype=object)
        for place, model in enumerate(models):
            if model in known:
                answers[:, place] = table.answers[:, known[model]]

    return OutcomeTable(
        question_ids=table.question_ids,
        queries=table.queries,
        models=tuple(models),
        quality=spread(table.quality),
        input_tokens=spread(table.input_tokens),
        output_tokens=spread(table.output_tokens),
        labels=table.labels,
        cost_usd=None if table.cost_usd is None else spread(table.cost_usd),
        answers=answers,
        features={name: spread(values) for name, values in table.features.items()},
    )


def joined(first: OutcomeTable, second: OutcomeTable) -> OutcomeTable:
    """Put the rows of two tables of the same models below each other. Raises `InputError` for other models."""
    if first.models != second.models:
        raise InputError(f"two tables of different models: {first.models} and {second.models}")
    names = dict.fromkeys((*first.labels, *second.labels))
    return OutcomeTable(
        question_ids=first.question_ids + second.question_ids,
        queries=first.queries + second.queries,
        models=first.models,
        quality=np.concatenate([first.quality, second.quality]),
        input_tokens=np.concatenate([first.input_tokens, second.input_tokens]),
        output_tokens=np.concatenate([first.output_tokens, second.output_tokens]),
        labels={
            name: tuple(value for part in (first, second) for value in part.labels.get(name, (None,) * len(part)))
            for name in names
        },
        cost_usd=None
        if first.cost_usd is None and second.cost_usd is None
        else np.concatenate([cost_of(first), cost_of(second)]),
        answers=None
        if first.answers is None and second.answers is None
        else np.concatenate([_answers_of(first), _answers_of(second)]),
        features={
            name: np.concatenate([_feature_of(part, name) for part in (first, second)])
            for name in dict.fromkeys((*first.features, *second.features))
        },
    )


def known_features(table: OutcomeTable, row: int, column: int) -> Mapping[str, float]:
    """Return the known features of one answer by name."""
    found = {name: float(values[row, column]) for name, values in table.features.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _answers_of(table: OutcomeTable) -> TextArray:
    return np.full(table.quality.shape, None, dtype=object) if table.answers is None else table.answers


def _feature_of(table: OutcomeTable, name: str) -> FloatArray:
    return table.features.get(name, np.full(table.quality.shape, np.nan))


def cost_of(table: OutcomeTable) -> FloatArray:
    """Return the recorded cost (N, M), NaN where there is none."""
    return np.full(table.quality.shape, np.nan) if table.cost_usd is None else table.cost_usd


def count_or_none(value: float) -> int | None:
    """Return a count, None for NaN."""
    return None if math.isnan(value) else round(float(value))
