"""What all histories share: one row per question, checks of outcomes and vectors, and the table of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from eccos_core.domain import Float32Array, Outcome, OutcomeTable
from eccos_core.errors import HistoryError, InputError
from eccos_core.io.outcome_tables import table_of
from eccos_core.io.tokens import text_key

RecordedScore: TypeAlias = tuple[float, int | None, int | None, float | None]
"""Quality, input tokens, output tokens and cost in USD of one model's answer."""


@dataclass(slots=True)
class HistoryRow:
    """One question of a history, with the scores of each model."""

    question_id: str
    query: str
    scores: dict[str, RecordedScore] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def group_by_query(outcomes: Sequence[Outcome]) -> dict[str, tuple[HistoryRow, int]]:
    """Group outcomes by the key of their query. Returns each question's row and the position of its first outcome.

    A later outcome of a model replaces an earlier one. Raises `InputError` for a quality outside [0, 1], negative
    tokens, a cost that is negative or not finite, or an empty model name or query.
    """
    rows: dict[str, tuple[HistoryRow, int]] = {}
    for place, outcome in enumerate(outcomes):
        _check(outcome)
        query = outcome.query.encode("utf-8", "replace").decode()
        row, _ = rows.setdefault(text_key(query), (HistoryRow(outcome.question_id, query), place))
        cost = None if outcome.cost_usd is None else float(outcome.cost_usd)
        row.scores[outcome.model] = (float(outcome.quality), outcome.input_tokens, outcome.output_tokens, cost)
        row.labels.update(outcome.labels)
    return rows


def _check(outcome: Outcome) -> None:
    where = f"outcome of {outcome.model!r} for question {outcome.question_id!r}"
    if not outcome.model or not outcome.query:
        raise InputError(f"{where}: model and query must not be empty")
    if not (math.isfinite(outcome.quality) and 0 <= outcome.quality <= 1):
        raise InputError(f"{where}: quality is {outcome.quality}, it must be in [0, 1]")
    for tokens in (outcome.input_tokens, outcome.output_tokens):
        if tokens is not None and tokens < 0:
            raise InputError(f"{where}: a token count is {tokens}, it must be >= 0")
    if outcome.cost_usd is not None and not 0 <= outcome.cost_usd < math.inf:
        raise InputError(f"{where}: cost_usd is {outcome.cost_usd}, it must be a finite number >= 0, or None")


def check_vectors(vectors: Float32Array, rows: int | None, dimensions: int) -> Float32Array:
    """Return the vectors (R, D) as float32.

    Raises `HistoryError` for another D, `InputError` for another shape or vectors that are not of unit length.
    """
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or (rows is not None and len(array) != rows):
        wanted = "R" if rows is None else str(rows)
        raise InputError(f"vectors have shape {array.shape}, they must be ({wanted}, {dimensions})")
    if array.shape[1] != dimensions:
        raise HistoryError(
            f"this history has {dimensions} dimensions, the vectors have {array.shape[1]}. "
            "Use the encoder that the history was made with."
        )
    lengths = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):
        worst = float(lengths[np.argmax(~(np.abs(lengths - 1) < 1e-3))])
        raise InputError(f"a vector has length {worst}, it must be of unit length. Use the vectors of an encoder.")
    return array


def build_table(rows: Sequence[HistoryRow]) -> OutcomeTable:
    """Build a table of the rows, in their order. A question id that two queries share is replaced by the text's key."""
    taken: set[str] = set()
    outcomes = []
    for row in rows:
        question_id = row.question_id if row.question_id not in taken else text_key(row.query)
        taken.add(question_id)
        outcomes += [
            Outcome(question_id, row.query, model, quality, input_tokens, output_tokens, row.labels, cost_usd)
            for model, (quality, input_tokens, output_tokens, cost_usd) in row.scores.items()
        ]
    return table_of(outcomes)
