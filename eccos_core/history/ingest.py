"""Add outcomes to a history. Ingesting the same outcomes again changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.io.outcome_tables import outcomes_of
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.tokens import text_key
from eccos_core.protocols import Encoder, HistoryStore

QUESTIONS_PER_STEP = 500  # encoded and added together, so a kill loses the work of one step at most


@dataclass(frozen=True, slots=True)
class IngestReport:
    """How many questions and outcomes were read, and how many outcomes were new to the history."""

    questions: int
    outcomes: int
    new: int


def ingest(
    source: str | Path | OutcomeTable,
    store: HistoryStore,
    encoder: Encoder,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Add every outcome of a file (see `outcomes.read_outcomes`) or a table to a history.

    Texts that the history knows are not encoded again. Questions with the same text are one row of a history, and the
    last outcome of a model counts. `progress(done, total)` is called after each step, when its outcomes are stored.
    Raises `DataError` for a file that cannot be used, `HistoryError` for a store of another encoder.
    """
    table = source if isinstance(source, OutcomeTable) else read_outcomes(source)
    known = _known_vectors(store)
    outcomes = new = 0
    for start in range(0, len(table), QUESTIONS_PER_STEP):
        step = table.rows(np.arange(start, min(start + QUESTIONS_PER_STEP, len(table))))
        keys = [text_key(query) for query in step.queries]
        missing = {key: query for key, query in zip(keys, step.queries, strict=True) if key not in known}
        known.update(zip(missing, encoder.encode(list(missing.values())), strict=True))
        batch = list(outcomes_of(step))
        place = dict(zip(step.question_ids, keys, strict=True))
        if batch:
            new += store.add(batch, np.stack([known[place[outcome.question_id]] for outcome in batch]))
        outcomes += len(batch)
        if progress:
            progress(start + len(step), len(table))
    return IngestReport(len(table), outcomes, new)


def _known_vectors(store: HistoryStore) -> dict[str, Float32Array]:
    """Return the vectors of a history by the key of their text."""
    table, vectors = store.table()
    return {text_key(query): vector for query, vector in zip(table.queries, vectors, strict=True)}
