"""Outcomes to fill a history with, and how to compare two histories."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.history import ChromaHistory


def questions(count: int, models: Sequence[str] = ("a", "b")) -> OutcomeTable:
    rng = np.random.default_rng(count)
    shape = (count, len(models))
    return OutcomeTable(
        question_ids=tuple(f"q{i}" for i in range(count)),
        queries=tuple(f"What is {i} times {i * i}? {'x' * (i % 17)}" for i in range(count)),
        models=tuple(models),
        quality=rng.integers(0, 2, shape).astype(float),
        input_tokens=rng.integers(1, 99, shape).astype(float),
        output_tokens=rng.integers(1, 999, shape).astype(float),
        labels={"dataset": ("times",) * count},
    )


def same(first: tuple[OutcomeTable, Float32Array], second: tuple[OutcomeTable, Float32Array]) -> None:
    def by_query(table: OutcomeTable, vectors: Float32Array) -> tuple[OutcomeTable, Float32Array]:
        order = np.argsort(np.array(table.queries))
        return table.rows(order), vectors[order]

    (one, vectors_one), (two, vectors_two) = by_query(*first), by_query(*second)
    assert (one.queries, one.question_ids, dict(one.labels)) == (two.queries, two.question_ids, dict(two.labels))
    columns = [two.models.index(model) for model in one.models]
    for name in ("quality", "input_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name)[:, columns])
    np.testing.assert_allclose(vectors_one, vectors_two, atol=1e-6)


def persistent(folder: Path, encoder: str = "surface:v1", dimensions: int = 18) -> ChromaHistory:
    return ChromaHistory.persistent(folder / "history", encoder, dimensions)
