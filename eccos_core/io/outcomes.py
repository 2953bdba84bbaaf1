"""Outcomes files: which model answered which question how well. Reading, writing, checking, splitting.

One line is one question (JSON Lines, plain or gzip, UTF-8):

    {"id": "...", "dataset": "...", "query": "...",
     "outputs": [{"model": "...", "correct": 0.0, "input_tokens": 150, "output_tokens": 42, "cost_usd": 0.0012,
                  "answer": "B", "features": {"mean_logprob": -0.2}}]}

What is tolerated, and what is not:

- `correct` is a score in [0, 1]. It is missing (NaN in the table) where it is null, or where the output says `error`
  (a call that failed is not a wrong answer). An output with neither is an error: it is a misspelt key more often.
- `input_tokens` and `output_tokens` are whole numbers >= 0, missing or null.
- `cost_usd` is what the call really cost, a number >= 0, missing or null.
- `answer` is what the model finally said: a text or a number, missing or null. `features` maps names of
  `ANSWER_FEATURES` to numbers or null.
- `attempts` is a list of several runs of one question, each with `correct`, tokens and cost. The output is their mean:
  of `correct` over the runs with a score, of tokens, cost and features over the runs that recorded them. Tokens are
  rounded. The answer is known if all runs gave the same.
- An id may come again, on the same line repeated or on one that adds models or fills in what was missing. A second
  answer that contradicts the first (query, score, tokens, cost, answer or features) is an error that names both lines.
- Other keys become labels when they are short words for a group of questions (see `_labels_of`); the rest is ignored.
  `reference` is never kept: it is the answer.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eccos_core.domain import OutcomeTable, TextArray
from eccos_core.errors import DataError, did_you_mean
from eccos_core.io.files import atomic_writer, describe, read_json_lines
from eccos_core.io.outcome_tables import cost_of, count_or_none, known_features
from eccos_core.io.told import NOTHING_TOLD, Told, merge_told, read_told

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
    answers: TextArray = np.full((len(rows), len(models)), None, dtype=object)
    features = {name: np.full((len(rows), len(models)), np.nan) for row in rows.values() for name in row.feature_names}
    for i, row in enumerate(rows.values()):
        for model, told in row.told.items():
            answers[i, models[model]] = told.answer
            for name, value in told.features.items():
                features[name][i, models[model]] = value
    return OutcomeTable(
        question_ids=tuple(rows),
        queries=tuple(row.query for row in rows.values()),
        models=tuple(models),
        quality=np.ascontiguousarray(scores[:, :, 0]),
        input_tokens=np.ascontiguousarray(scores[:, :, 1]),
        output_tokens=np.ascontiguousarray(scores[:, :, 2]),
        labels=_labels_of(list(rows.values())),
        cost_usd=None if np.isnan(scores[:, :, 3]).all() else np.ascontiguousarray(scores[:, :, 3]),
        answers=None if all(each is None for each in answers.flat) else answers,
        features=features,
    )


@dataclass(slots=True)
class _Row:
    """One question while a file is read; `line` is where it was first seen."""

    line: int
    query: str
    outputs: dict[str, Score] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)

    @property
    def feature_names(self) -> list[str]:
        return [name for told in self.told.values() for name in told.features]


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
        for model, score, told in _outputs_of(entry, question_id, file, line):
            before = known.outputs.get(model, _MISSING)
            known.outputs[model] = _merged(before, score, (question_id, model, known.line), file, line)
            if told:
                first = f"id {question_id!r}: {model}", known.line
                known.told[model] = merge_told(known.told.get(model, NOTHING_TOLD), told, first, file, line)
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


def _outputs_of(entry: Mapping[str, Any], question_id: str, file: str, line: int) -> Iterator[tuple[str, Score, Told]]:
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
        yield model, _score_of(output, place, file, line), read_told(output, place, file, line)


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
    cost, answers = cost_of(table), table.answers
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
                "input_tokens": count_or_none(table.input_tokens[i, j]),
                "output_tokens": count_or_none(table.output_tokens[i, j]),
                **({} if math.isnan(cost[i, j]) else {"cost_usd": float(cost[i, j])}),
                **({} if answers is None or answers[i, j] is None else {"answer": answers[i, j]}),
                **({"features": features} if (features := dict(known_features(table, i, int(j)))) else {}),
            }
            for j in (known if known.size else range(len(table.models)))
        ]
        yield json.dumps(entry, ensure_ascii=False).encode() + b"\n"
