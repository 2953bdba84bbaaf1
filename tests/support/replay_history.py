"""A small history whose answers follow a rule that a router can learn, and an encoder that sees the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.evaluation.protocol import EncoderChoice

PRICES = {"small": (1e-6, 1e-6), "poet": (5e-6, 5e-6), "large": (20e-6, 20e-6)}


@dataclass(frozen=True)
class WordEncoder:
    """Counts a few words: enough to tell the topics of these tests apart."""

    name: str = "words"
    dimensions: int = 4

    def encode(self, texts: Sequence[str]) -> Float32Array:
        counts = np.array([[1e-3 + text.count(word) for word in ("sum", "poem", "hard", "easy")] for text in texts])
        vectors = counts.reshape(len(texts), 4).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def history(rows: int = 400, start: int = 0) -> OutcomeTable:
    """`small` adds easy sums, `poet` writes poems, `large` does everything, at twenty times the price."""
    queries, quality = [], []
    for number in range(start, start + rows):
        topic, level = ("sum", "poem")[number % 2], ("easy", "hard")[number // 2 % 2]
        queries.append(f"{level} {topic} {number}")
        quality.append([float(topic == "sum" and level == "easy"), float(topic == "poem"), 1.0])
    return OutcomeTable(
        question_ids=tuple(f"q{number}" for number in range(start, start + rows)),
        queries=tuple(queries),
        models=("small", "poet", "large"),
        quality=np.array(quality),
        input_tokens=np.full((rows, 3), 10.0),
        output_tokens=np.full((rows, 3), 20.0),
    )


ENCODERS: dict[EncoderChoice, WordEncoder] = {"text": WordEncoder()}
