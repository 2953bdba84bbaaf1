"""A small world where the truth is known: topics, models that are good at some of them, and lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray, OutcomeTable

TOPICS, MODELS, DIMENSIONS = 4, 3, 24
NAMES = ("small", "medium", "large")


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A table of outcomes with its vectors (N, D), the true chances (N, M) and each question's topic (N,)."""

    table: OutcomeTable
    vectors: Float32Array
    chance: FloatArray
    topic: IntArray

    def rows(self, index: IntArray) -> World:
        return World(self.table.rows(index), self.vectors[index], self.chance[index], self.topic[index])

    @property
    def input_tokens(self) -> FloatArray:
        return self.table.input_tokens[:, 0]


CHANCE = np.array([[0.9, 0.92, 0.95], [0.15, 0.8, 0.9], [0.5, 0.3, 0.9], [0.1, 0.15, 0.55]])  # topic x model
TYPICAL_TOKENS = np.array([[20.0, 60.0, 150.0], [80.0, 120.0, 300.0], [40.0, 90.0, 200.0], [300.0, 200.0, 800.0]])


def make_world(rows: int, *, seed: int = 0, missing: float = 0.0, spread: float = 0.35) -> World:
    """`missing`: share of the outcomes that nobody saw. `spread`: how far questions of a topic lie apart."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(TOPICS, DIMENSIONS))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    topic = draw.integers(TOPICS, size=rows)
    vectors = centres[topic] + spread / DIMENSIONS**0.5 * draw.normal(size=(rows, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chance = CHANCE[topic]
    quality = (draw.random((rows, MODELS)) < chance).astype(np.float64)
    output = np.round(TYPICAL_TOKENS[topic] * np.exp(0.4 * draw.normal(size=(rows, MODELS))))
    length = np.round(np.exp(4 + 0.3 * draw.normal(size=rows)))
    if missing:
        gone = draw.random((rows, MODELS)) < missing
        gone[gone.all(axis=1), 0] = False
        quality[gone], output[gone] = np.nan, np.nan
    table = OutcomeTable(
        question_ids=tuple(f"q{number}" for number in range(rows)),
        queries=tuple(f"question {number} of topic {t}" for number, t in enumerate(topic)),
        models=NAMES,
        quality=quality,
        input_tokens=np.repeat(length[:, None], MODELS, axis=1),
        output_tokens=output,
        labels={"category": tuple(f"topic {t}" for t in topic)},
    )
    return World(table, vectors.astype(np.float32), chance, topic)
