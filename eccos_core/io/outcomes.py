"""Outcomes files: which model answered which question how well. Reading, writing, checking, splitting.

One line is one question (JSON Lines, plain or gzip, UTF-8):

    {"id": "...", "dataset": "...", "query": "...",
     "outputs": [{"model": "...", "correct": 0.0, "input_tokens": 150, "output_tokens": 42, "cost_usd": 0.0012}]}

What is tolerated, and what is not:

- `correct` is a score in [0, 1]. It is missing (NaN in the table) where it is null, or where the output says `error`
  (a call that failed is not a wrong answer). An output with neither is an error: it is a misspelt key more often.
- `input_tokens` and `output_tokens` are whole numbers >= 0, missing or null.
- `cost_usd` is what the call really cost, a number >= 0, missing or null.
- `attempts` is a list of several runs of one question, each with `correct`, tokens and cost. The output is their mean:
  of `correct` over the runs with a score, of tokens and cost over the runs that recorded them. Tokens are rounded.
- An id may come again, on the same line repeated or on one that adds models or fills in what was missing. A second
  answer that contradicts the first (query, score, tokens or cost) is an error that names both lines.
- Other keys become labels when they are short words for a group of questions (see `_labels_of`); the rest is ignored.
  `reference` is never kept: it is the answer.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eccos_core.domain import FloatArray, Outcome, OutcomeTable
from eccos_core.errors import DataError, InputError, did_you_mean
from eccos_core.io.files import atomic_writer, describe, read_json_lines

TEST_SHARE = 0.3
MAX_LABEL_LENGTH = 64
MAX_LABEL_VALUES = 256
KEYS_THAT_ARE_NO_LABELS = frozenset({"id", "query", "messages", "outputs", "reference", "grader", "split"})

Score: TypeAlias = tuple[float, float, float, float]  # one number per name of `_WHAT`, NaN where missing
_MISSING: Score = (math.nan, math.nan, math.nan, math.nan)
_WHAT = ("correct", "input_tokens", "output_tokens", "cost_usd")


def is_test(question_id: str) -> bool:
    """Whether a question belongs to the test split: a property of its id, so that everybody measures on the same."""
    return int(hashlib.sha256(question_id.encode()).hexdigest()[:8], 16) / 2**32 < TEST_SHARE


def split(table: OutcomeTable) -> tuple[OutcomeTable, OutcomeTable]:
    """(train, test) by `is_test` of each row's id; either may be empty."""
    test = np.array([is_test(question_id) for question_id in table.question_ids], dtype=np.bool_)
    return table.rows(~test), table.rows(test)


# ------------------------------------------------------------------------------------------------------------ reading


def read_outcomes(path: str | Path) -> OutcomeTable:
    """The outcomes of a `.jsonl` or `.jsonl.gz` file, rows and models in the order of their first appearance.

    Raises `DataError` with file and line for anything that the module's docstring does not tolerate, for a damaged
    gzip, and for a file without any outcome.
    """
    rows = _read_rows(path)
    if not rows:
        raise DataError(str(path), "the file holds no questions; write one JSON object a line: id, query, outputs")
    models: dict[str, int] = {}
    for row in rows.values():
        for model in row.outputs:
            models.setdefault(model, len(models))
    scores = np.full((len(rows), len(models), len(_WHAT)), np.nan)
    for i, row in enumerate(rows.values()):
        for model, score in row.outputs.items():
            scores[i, models[model]] = score
    if np.isnan(scores[:, :, 0]).all():
        raise DataError(str(path), "no output has a score in `correct`; there is nothing to learn from")
    return OutcomeTable(
        question_ids=tuple(rows),
        queries=tuple(row.query for row in rows.values()),
        models=tuple(models),
        quality=np.ascontiguousarray(scores[:, :, 0]),
        input_tokens=np.ascontiguousarray(scores[:, :, 1]),
        output_tokens=np.ascontiguousarray(scores[:, :, 2]),
        labels=_labels_of(list(rows.values())),
        cost_usd=None if np.isnan(scores[:, :, 3]).all() else np.ascontiguousarray(scores[:, :, 3]),
    )


def iter_outcomes(path: str | Path) -> Iterator[Outcome]:
    """The outcomes of a file one by one, checked like `read_outcomes`; outputs without a score are left out."""
    yield from outcomes_of(read_outcomes(path))


@dataclass(slots=True)
class _Row:
    """One question while a file is read; `line` is where it was first seen."""

    line: int
    query: str
    outputs: dict[str, Score] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)


def _read_rows(path: str | Path) -> dict[str, _Row]:
    file = str(path)
    rows: dict[str, _Row] = {}
    for line, entry in read_json_lines(path):
        question_id = _question_id(entry, file, line)
        query = _text(entry, "query", file, line)
        known = rows.get(question_id)
        if known is None:
            known = rows[question_id] = _Row(line, query)
        elif known.query != query:
            raise DataError(file, f"id {question_id!r} has another query on line {known.line}; ids are unique", line)
        for model, score in _outputs_of(entry, question_id, file, line):
            before = known.outputs.get(model, _MISSING)
            known.outputs[model] = _merged(before, score, (question_id, model, known.line), file, line)
        for key, value in entry.items():
            if key not in KEYS_THAT_ARE_NO_LABELS and isinstance(value, str) and 0 < len(value) <= MAX_LABEL_LENGTH:
                known.extras.setdefault(key, value)
    return rows


def _question_id(entry: Mapping[str, Any], file: str, line: int) -> str:
    value = entry.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(entry, "id", file, line)


def _text(entry: Mapping[str, Any], key: str, file: str, line: int, place: str = "") -> str:
    if key not in entry:
        raise DataError(file, f"{place}{key!r} is missing{did_you_mean(key, entry)}", line)
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(file, f"{place}{key} is {describe(value)}, must be a text that is not empty", line)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(file, f"{place}{key} holds half of a surrogate pair, which is no character", line) from error
    return value


def _outputs_of(entry: Mapping[str, Any], question_id: str, file: str, line: int) -> Iterator[tuple[str, Score]]:
    outputs = entry.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        found = "missing" if "outputs" not in entry else describe(outputs)
        raise DataError(file, f"id {question_id!r}: outputs is {found}, must be a list with at least one output", line)
    for position, output in enumerate(outputs):
        place = f"id {question_id!r}: outputs[{position}]"
        if not isinstance(output, dict):
            raise DataError(file, f"{place} is {describe(output)}, must be an object with model and correct", line)
        model = _text(output, "model", file, line, f"{place}: ")
        place = f"{place} ({model})"
        yield model, _score_of(output, place, file, line)


def _score_of(output: Mapping[str, Any], place: str, file: str, line: int) -> Score:
    """Return what an output says, the mean of its runs where it has `attempts`."""
    if "attempts" not in output:
        return (
            _quality(output, place, file, line),
            _tokens(output, "input_tokens", place, file, line),
            _tokens(output, "output_tokens", place, file, line),
            _cost_usd(output, place, file, line),
        )
    runs = output["attempts"]
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise DataError(file, f"{place}: attempts is {describe(runs)}, must be a list with an object per run", line)
    if doubled := [what for what in _WHAT if what in output]:
        raise DataError(
            file, f"{place}: {doubled[0]} stands beside attempts. The mean of the runs is computed, so remove it", line
        )
    if any("attempts" in run for run in runs):
        raise DataError(file, f"{place}: an attempt has attempts of its own. List all runs side by side", line)
    scores = [_score_of(run, f"{place}: attempts[{number}]", file, line) for number, run in enumerate(runs)]
    quality, input_tokens, output_tokens, cost = (_mean(values) for values in zip(*scores, strict=True))
    return quality, _whole(input_tokens), _whole(output_tokens), cost


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the numbers that are not NaN, NaN where there is none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _whole(value: float) -> float:
    return value if math.isnan(value) else float(round(value))


def _quality(output: Mapping[str, Any], place: str, file: str, line: int) -> float:
    value = output.get("correct")
    if value is None:
        if "correct" in output or "error" in output:
            return math.nan
        raise DataError(
            file,
            f"{place}: 'correct' is missing{did_you_mean('correct', output)} (null where the score is unknown)",
            line,
        )
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise DataError(file, f"{place}: correct is {describe(value)}, must be a number in [0, 1]", line)
    return float(value)


def _tokens(output: Mapping[str, Any], key: str, place: str, file: str, line: int) -> float:
    value = output.get(key)
    if value is None:
        return math.nan
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < 2**53 or value != int(value):
        raise DataError(file, f"{place}: {key} is {describe(value)}, must be a whole number >= 0, or null", line)
    return float(value)


def _cost_usd(output: Mapping[str, Any], place: str, file: str, line: int) -> float:
    value = output.get("cost_usd")
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise DataError(file, f"{place}: cost_usd is {describe(value)}, must be a finite number >= 0, or null", line)
    return float(value)


def _merged(before: Score, after: Score, where: tuple[str, str, int], file: str, line: int) -> Score:
    """What two outputs of one model for one question say together."""
    for what, old, new in zip(_WHAT, before, after, strict=True):
        if old != new and not (math.isnan(old) or math.isnan(new)):
            question_id, model, first = where
            raise DataError(
                file,
                f"id {question_id!r}: {model} has {what} {new:g} here and {old:g} on line {first}; "
                "give the second question an id of its own, remove one of the two, or list both runs under attempts",
                line,
            )
    quality, input_tokens, output_tokens, cost = (b if math.isnan(a) else a for a, b in zip(after, before, strict=True))
    return quality, input_tokens, output_tokens, cost


def _labels_of(rows: Sequence[_Row]) -> dict[str, tuple[str | None, ...]]:
    """The keys that name groups of questions, one value (or None) per row.

    `dataset` and `category` always; any other key whose values are texts of at most 64 characters, with at most 256
    different values, each used twice on average: an author's name or a hash is not a label.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row.extras))
    labels: dict[str, tuple[str | None, ...]] = {}
    for name in names:
        values = tuple(row.extras.get(name) for row in rows)
        distinct = len(set(values) - {None})
        present = len(values) - values.count(None)
        if name in ("dataset", "category") or (distinct <= MAX_LABEL_VALUES and 2 * distinct <= present):
            labels[name] = values
    return labels


# ------------------------------------------------------------------------------------------- outcomes and their tables


def outcomes_of(table: OutcomeTable) -> Iterator[Outcome]:
    """Every known score of a table as an `Outcome`, row by row; cells without a quality are left out."""
    cost = _cost_of(table)
    for i, (question_id, query) in enumerate(zip(table.question_ids, table.queries, strict=True)):
        labels = {name: label for name, values in table.labels.items() if (label := values[i]) is not None}
        for j in np.flatnonzero(~np.isnan(table.quality[i])):
            yield Outcome(
                question_id=question_id,
                query=query,
                model=table.models[j],
                quality=float(table.quality[i, j]),
                input_tokens=_count(table.input_tokens[i, j]),
                output_tokens=_count(table.output_tokens[i, j]),
                labels=labels,
                cost_usd=None if math.isnan(cost[i, j]) else float(cost[i, j]),
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
    return OutcomeTable(
        question_ids=tuple(queries),
        queries=tuple(queries.values()),
        models=tuple(columns),
        quality=scores[0],
        input_tokens=scores[1],
        output_tokens=scores[2],
        labels={name: tuple(row.get(name) for row in labels.values()) for name in names},
        cost_usd=None if np.isnan(scores[3]).all() else scores[3],
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

    return OutcomeTable(
        question_ids=table.question_ids,
        queries=table.queries,
        models=tuple(models),
        quality=spread(table.quality),
        input_tokens=spread(table.input_tokens),
        output_tokens=spread(table.output_tokens),
        labels=table.labels,
        cost_usd=None if table.cost_usd is None else spread(table.cost_usd),
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
        else np.concatenate([_cost_of(first), _cost_of(second)]),
    )


def _cost_of(table: OutcomeTable) -> FloatArray:
    """Return the recorded cost (N, M), NaN where there is none."""
    return np.full(table.quality.shape, np.nan) if table.cost_usd is None else table.cost_usd


def _count(value: float) -> int | None:
    return None if math.isnan(value) else round(float(value))


# ------------------------------------------------------------------------------------------------------------ writing


def write_outcomes(path: str | Path, table: OutcomeTable) -> None:
    """Write a table in the format of `read_outcomes`; compressed where the name ends in .gz. All of it or nothing:
    it is written beside `path` and renamed. Missing scores are null; a (row, model) that is missing altogether is left
    out, unless its row would be empty."""
    with atomic_writer(Path(path)) as stream:
        packed = gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) if str(path).endswith(".gz") else None
        with packed or contextlib.nullcontext():
            for line in _lines_of(table):
                (packed or stream).write(line)


def _lines_of(table: OutcomeTable) -> Iterator[bytes]:
    cost = _cost_of(table)
    cells = np.stack([table.quality, table.input_tokens, table.output_tokens, cost], axis=2)
    for i, question_id in enumerate(table.question_ids):
        known = np.flatnonzero(~np.isnan(cells[i]).all(axis=1))
        entry: dict[str, Any] = {"id": question_id}
        entry.update({name: values[i] for name, values in table.labels.items() if values[i] is not None})
        entry["query"] = table.queries[i]
        entry["outputs"] = [
            {
                "model": table.models[j],
                "correct": None if math.isnan(table.quality[i, j]) else float(table.quality[i, j]),
                "input_tokens": _count(table.input_tokens[i, j]),
                "output_tokens": _count(table.output_tokens[i, j]),
                **({} if math.isnan(cost[i, j]) else {"cost_usd": float(cost[i, j])}),
            }
            for j in (known if known.size else range(len(table.models)))
        ]
        yield json.dumps(entry, ensure_ascii=False).encode() + b"\n"
