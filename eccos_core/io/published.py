"""Read the outcomes that others publish: RouterBench, RouteLLM, LLMRouterBench, SPROUT, and CSV files of your own.

Every reader returns an `OutcomeTable`. `write_outcomes` turns it into an outcomes file. A cell that cannot be true
raises `DataError` with file, line and value.
"""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eccos_core.domain import OutcomeTable
from eccos_core.errors import DataError, InputError, did_you_mean
from eccos_core.io.files import describe, parse_object, read_json_lines

Cell: TypeAlias = tuple[float, float, float, float]  # quality, input tokens, output tokens, USD; NaN where missing
NAN = math.nan


@dataclass(slots=True)
class _Question:
    """One question while files are read."""

    query: str
    dataset: str | None
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands, for errors."""

    file: str
    line: int | None

    def error(self, message: str) -> DataError:
        return DataError(self.file, message, self.line)

    def number(self, name: str, value: Any, high: float = math.inf) -> float:
        """Read a number from 0 to `high`. A truth value is 0 or 1. Empty or null is NaN."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return NAN
        if isinstance(value, str):
            text = value.strip().lower()
            value = {"true": 1.0, "false": 0.0}.get(text, value)
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = NAN
        if not 0 <= found <= high or math.isinf(found):
            rule = "a finite number >= 0" if math.isinf(high) else f"a number from 0 to {high:g}"
            raise self.error(f"{name} is {describe(value)}, must be {rule}")
        return found

    def tokens(self, name: str, value: Any) -> float:
        """Read a count of tokens, a whole number."""
        found = self.number(name, value)
        if not math.isnan(found) and not found.is_integer():
            raise self.error(f"{name} is {describe(value)}, must be a whole number >= 0")
        return found


def read_routerbench(path: Path) -> OutcomeTable:
    """Read RouterBench's wide CSV (arXiv 2403.12031): a row per question, and for each model its score and total cost.

    The columns are `sample_id`, `prompt`, `eval_name`, and MODEL, `MODEL|total_cost` for each model. A prompt that is a
    list of messages is joined by line breaks.
    """
    questions: dict[str, _Question] = {}
    for place, row in _csv_rows(path, ("sample_id", "prompt", "eval_name")):
        models = [name.removesuffix("|total_cost") for name in row if name.endswith("|total_cost")]
        if not models:
            raise place.error("no column ends in '|total_cost'. Is this RouterBench's wide CSV?")
        cells = {
            model: (
                place.number(model, row.get(model), 1.0),
                NAN,
                NAN,
                place.number(f"{model}|total_cost", row[f"{model}|total_cost"]),
            )
            for model in models
        }
        _add(questions, place, row["sample_id"], _prompt_text(row["prompt"]), row["eval_name"], cells)
    return _table(questions, path)


def read_routellm(path: Path) -> OutcomeTable:
    """Read RouteLLM's responses (arXiv 2406.18665): a CSV, or a folder of them, with `prompt` and a column per model.

    A cell says whether the answer was right. The name of a file becomes the label `dataset`.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise DataError(str(path), "the folder holds no .csv file")
    questions: dict[str, _Question] = {}
    for file in files:
        dataset = file.name.removesuffix(".gz").removesuffix(".csv").removeprefix("mmlu_")
        for number, (place, row) in enumerate(_csv_rows(file, ("prompt",))):
            cells = {
                model: (place.number(model, value, 1.0), NAN, NAN, NAN)
                for model, value in row.items()
                if model not in ("", "Unnamed: 0", "prompt") and not model.endswith("_response")
            }
            _add(questions, place, f"{dataset}.{number}", row["prompt"], dataset, cells)
    return _table(questions, path)


def read_llmrouterbench(path: Path) -> OutcomeTable:
    """Read LLMRouterBench's results folder (arXiv 2601.07206): a JSON file per dataset, split and model.

    The newest file of each counts, by the time in its name. Demonstration runs are left out.
    """
    files = sorted(path.rglob("*.json"), key=lambda file: file.name[-20:]) if path.is_dir() else [path]
    newest: dict[tuple[str, str, str], tuple[Path, dict[str, Any]]] = {}
    for file in files:
        content = parse_object(file.read_bytes(), str(file), None)
        if content.get("demo"):
            continue
        names = [content.get(key) for key in ("dataset_name", "split", "model_name")]
        if not all(isinstance(name, str) for name in names) or not isinstance(content.get("records"), list):
            raise DataError(str(file), "must be an object with dataset_name, split, model_name and records")
        newest[(str(names[0]), str(names[1]), str(names[2]))] = (file, content)
    questions: dict[str, _Question] = {}
    for (dataset, split, model), (file, content) in newest.items():
        place = _Place(str(file), None)
        for record in content["records"]:
            if not isinstance(record, dict):
                raise place.error(f"a record is {describe(record)}, must be an object")
            query = record.get("origin_query") or record.get("prompt")
            if not isinstance(query, str):
                raise place.error(f"record {record.get('index')}: origin_query is {describe(query)}, must be a text")
            cell = (
                place.number("score", record.get("score"), 1.0),
                place.tokens("prompt_tokens", record.get("prompt_tokens")),
                place.tokens("completion_tokens", record.get("completion_tokens")),
                place.number("cost", record.get("cost")),
            )
            _add(questions, place, f"{dataset}/{split}/{record.get('index')}", query, dataset, {model: cell})
    return _table(questions, path)


def read_sprout(path: Path) -> OutcomeTable:
    """Read SPROUT (CARROT, arXiv 2502.03261) as JSON Lines: `key`, `prompt`, `dataset`, and an object for each model.

    The object holds `score`, `num_input_tokens` and `num_output_tokens`. Export the published Parquet files by
    `pandas.read_parquet(FILE).to_json("sprout.jsonl", orient="records", lines=True)`.
    """
    questions: dict[str, _Question] = {}
    for line, row in read_json_lines(path):
        place = _Place(str(path), line)
        models = {name: value for name, value in row.items() if isinstance(value, Mapping) and "score" in value}
        if not models or not isinstance(row.get("prompt"), str):
            raise place.error("needs 'prompt' and at least one model with a 'score'. Is this SPROUT as JSON Lines?")
        cells = {
            name: (
                place.number(f"{name}.score", value["score"], 1.0),
                place.tokens(f"{name}.num_input_tokens", value.get("num_input_tokens")),
                place.tokens(f"{name}.num_output_tokens", value.get("num_output_tokens")),
                NAN,
            )
            for name, value in models.items()
        }
        _add(questions, place, str(row.get("key", line)), row["prompt"], row.get("dataset"), cells)
    return _table(questions, path)


_OPTIONAL_COLUMNS = ("id", "dataset", "input_tokens", "output_tokens", "cost_usd")


def read_csv_outcomes(path: Path) -> OutcomeTable:
    """Read a CSV of your own with a row per answer: `query`, `model`, `correct`, and what else you have.

    `id`, `dataset`, `input_tokens`, `output_tokens` and `cost_usd` may be missing. Without `id`, equal queries are one
    question.
    """
    questions: dict[str, _Question] = {}
    for place, row in _csv_rows(path, ("query", "model", "correct"), _OPTIONAL_COLUMNS):
        cell = (
            place.number("correct", row["correct"], 1.0),
            place.tokens("input_tokens", row.get("input_tokens")),
            place.tokens("output_tokens", row.get("output_tokens")),
            place.number("cost_usd", row.get("cost_usd")),
        )
        question_id = row.get("id") or _digest(row["query"])
        _add(questions, place, question_id, row["query"], row.get("dataset"), {row["model"]: cell})
    return _table(questions, path)


READERS: dict[str, Callable[[Path], OutcomeTable]] = {
    "csv": read_csv_outcomes,
    "llmrouterbench": read_llmrouterbench,
    "routellm": read_routellm,
    "routerbench": read_routerbench,
    "sprout": read_sprout,
}


def read_published(path: str | Path, layout: str) -> OutcomeTable:
    """Read outcomes in one of the layouts of `READERS`. Raises `InputError` for an unknown layout, and `DataError`."""
    if layout not in READERS:
        raise InputError(
            f"unknown layout {layout!r}{did_you_mean(layout, READERS) or '.'} Known: {', '.join(READERS)}."
        )
    return READERS[layout](Path(path))


def _csv_rows(
    path: Path, needed: Iterable[str], optional: Sequence[str] = ()
) -> Iterator[tuple[_Place, dict[str, str]]]:
    """Yield the rows of a CSV file, plain or gzip, with their places.

    Raises `DataError` where a column is missing, or looks like an optional one and has another name.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # prompts can be long
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(str(path), f"cannot be read as CSV in UTF-8 ({error})") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    for name in needed:
        if name not in columns:
            raise DataError(str(path), f"the column {name!r} is missing{did_you_mean(name, columns)}", 1)
    absent = [name for name in optional if name not in columns]
    for column in columns:
        if column not in (*needed, *optional) and (hint := did_you_mean(column, absent)):
            raise DataError(str(path), f"the column {column!r} is unknown{hint} Rename it, or leave it out.", 1)
    try:
        for row in rows:
            place = _Place(str(path), rows.line_num)
            if None in row or None in row.values():
                raise place.error(f"has another number of cells than the header, which has {len(columns)}")
            yield place, row
    except csv.Error as error:
        raise DataError(str(path), f"not CSV ({error})", rows.line_num) from error


def _add(
    questions: dict[str, _Question],
    place: _Place,
    question_id: str,
    query: str,
    dataset: str | None,
    cells: Mapping[str, Cell],
) -> None:
    """Add the cells of a question. A model may answer a question once."""
    if not query.strip():
        raise place.error(f"question {question_id!r} is empty")
    question = questions.setdefault(question_id, _Question(query, dataset or None))
    if question.query != query:
        raise place.error(f"id {question_id!r} has another query before. Ids are unique.")
    for model, cell in cells.items():
        if not model.strip():
            raise place.error(f"question {question_id!r} has an answer of a model without a name")
        before = question.cells.setdefault(model, cell)
        for what, old, new in zip(("score", "input tokens", "output tokens", "cost"), before, cell, strict=True):
            if old != new and not (math.isnan(old) and math.isnan(new)):
                raise place.error(
                    f"{model} answers question {question_id!r} a second time, with {what} {new:g} here and {old:g} "
                    "before. Keep one of the two, or give each question an id."
                )


def _table(questions: Mapping[str, _Question], path: Path) -> OutcomeTable:
    models = list(dict.fromkeys(model for question in questions.values() for model in question.cells))
    cells = np.array(
        [[question.cells.get(model, (NAN,) * 4) for model in models] for question in questions.values()],
        dtype=np.float64,
    ).reshape(len(questions), len(models), 4)
    if np.isnan(cells[:, :, 0]).all():
        raise DataError(str(path), "there is no score of any model, so there is nothing to evaluate")
    datasets = tuple(question.dataset for question in questions.values())
    return OutcomeTable(
        question_ids=tuple(questions),
        queries=tuple(question.query for question in questions.values()),
        models=tuple(models),
        quality=np.ascontiguousarray(cells[:, :, 0]),
        input_tokens=np.ascontiguousarray(cells[:, :, 1]),
        output_tokens=np.ascontiguousarray(cells[:, :, 2]),
        labels={"dataset": datasets} if any(datasets) else {},
        cost_usd=None if np.isnan(cells[:, :, 3]).all() else np.ascontiguousarray(cells[:, :, 3]),
    )


def _prompt_text(prompt: str) -> str:
    """Join a prompt that is written as a Python list of texts."""
    try:
        parts = ast.literal_eval(prompt) if prompt.startswith("[") else None
    except (SyntaxError, ValueError):
        parts = None
    return "\n".join(parts) if isinstance(parts, list) and all(isinstance(part, str) for part in parts) else prompt


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
