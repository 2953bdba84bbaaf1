"""What both histories agree on: one row a question, checked outcomes, and the table that rows make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eccos_core.domain import Float32Array, Outcome, OutcomeTable
from eccos_core.errors import HistoryError, InputError
from eccos_core.io.outcomes import table_of
from eccos_core.io.tokens import text_key


@dataclass(slots=True)
class HistoryRow:
    """One question of a history. `scores`: quality, input tokens and output tokens per model."""

    question_id: str
    query: str
    scores: dict[str, tuple[float, int | None, int | None]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def rows_of(outcomes: Sequence[Outcome]) -> dict[str, tuple[HistoryRow, int]]:
    """By the key of its query, each question's row and the place of its first outcome. Later outcomes replace earlier.

    Raises `InputError` for a quality outside [0, 1], negative tokens, an empty model name or query.
    """
    rows: dict[str, tuple[HistoryRow, int]] = {}
    for place, outcome in enumerate(outcomes):
        _check(outcome)
        query = outcome.query.encode("utf-8", "replace").decode()
        row, _ = rows.setdefault(text_key(query), (HistoryRow(outcome.question_id, query), place))
        row.scores[outcome.model] = (float(outcome.quality), outcome.input_tokens, outcome.output_tokens)
        row.labels.update(outcome.labels)
    return rows


def _check(outcome: Outcome) -> None:
    where = f"outcome of {outcome.model!r} for question {outcome.question_id!r}"
    if not outcome.model or not outcome.query:
        raise InputError(f"{where}: model and query must not be empty")
    if not (math.isfinite(outcome.quality) and 0 <= outcome.quality <= 1):
        raise InputError(f"{where}: quality is {outcome.quality}, must be in [0, 1]")
    for tokens in (outcome.input_tokens, outcome.output_tokens):
        if tokens is not None and tokens < 0:
            raise InputError(f"{where}: a token count is {tokens}, must be >= 0")


def check_vectors(vectors: Float32Array, rows: int | None, dimensions: int) -> Float32Array:
    """The vectors as float32. Raises `HistoryError` for another D, `InputError` for another shape or length."""
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or (rows is not None and len(array) != rows):
        wanted = "R" if rows is None else str(rows)
        raise InputError(f"vectors have shape {array.shape}, must be ({wanted}, {dimensions})")
    if array.shape[1] != dimensions:
        raise HistoryError(
            f"this history has {dimensions} dimensions, the vectors have {array.shape[1]}; "
            "use the encoder that the history was made with"
        )
    lengths = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):
        worst = float(lengths[np.argmax(~(np.abs(lengths - 1) < 1e-3))])
        raise InputError(f"a vector has length {worst}, must be of unit length, as an encoder makes it")
    return array


def table_from(rows: Sequence[HistoryRow]) -> OutcomeTable:
    """Rows side by side, in their order. A question id that another query has already is replaced by its text's key."""
    taken: set[str] = set()
    outcomes = []
    for row in rows:
        question_id = row.question_id if row.question_id not in taken else text_key(row.query)
        taken.add(question_id)
        outcomes += [Outcome(question_id, row.query, model, *score, row.labels) for model, score in row.scores.items()]
    return table_of(outcomes)
