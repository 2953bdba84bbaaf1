"""Questions become vectors once, for all contenders that read the same ones; and how long one question takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.protocol import EncoderChoice, ReplayRouter
from eccos_core.evaluation.report import EncoderFacts
from eccos_core.protocols import Encoder

Progress = Callable[[str, int, int], None]  # what is going on, how much is done, of how much
_ENCODE_ROWS = 512
_TIMED_REQUESTS = 25


def encoded(
    train: OutcomeTable,
    test: OutcomeTable,
    routers: Sequence[ReplayRouter],
    encoders: Mapping[EncoderChoice, Encoder],
    timed: Mapping[EncoderChoice, Encoder],
    progress: Progress,
) -> tuple[dict[EncoderChoice, tuple[Float32Array, Float32Array]], dict[str, EncoderFacts]]:
    """(training vectors, test vectors) for every kind of vectors that is read; none are (rows, 0)."""
    vectors: dict[EncoderChoice, tuple[Float32Array, Float32Array]] = {
        "none": (np.empty((len(train), 0), np.float32), np.empty((len(test), 0), np.float32))
    }
    facts: dict[str, EncoderFacts] = {}
    for replay_router in routers:
        reading = replay_router.reads
        if reading in vectors:
            continue
        if reading not in encoders:
            raise InputError(f"router {replay_router.name!r} reads {reading!r} vectors, and no such encoder was given")
        encoder = encoders[reading]
        all_vectors = _vectors(encoder, (*train.queries, *test.queries), f"encoding ({reading})", progress)
        vectors[reading] = (all_vectors[: len(train)], all_vectors[len(train) :])
        facts[reading] = EncoderFacts(encoder.name, encoder.dimensions, _encode_ms(timed[reading], test.queries))
    return vectors, facts


def _vectors(encoder: Encoder, texts: Sequence[str], stage: str, progress: Progress) -> Float32Array:
    """(len(texts), D), in parts so that progress is seen."""
    parts = []
    for start in range(0, len(texts), _ENCODE_ROWS):
        progress(stage, start, len(texts))
        parts.append(encoder.encode(texts[start : start + _ENCODE_ROWS]))
    return np.concatenate(parts)


def _encode_ms(encoder: Encoder, queries: Sequence[str]) -> float:
    """Median milliseconds for one question, after one to warm up."""
    encoder.encode(queries[:1])
    taken = []
    for query in queries[:_TIMED_REQUESTS]:
        started = time.perf_counter()
        encoder.encode([query])
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)
