"""Encode the questions once for all routers that read the same vectors, and time the encoder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.errors import InputError
from eccos_core.evaluation.protocol import EncoderChoice, ReplayRouter
from eccos_core.evaluation.report import EncoderFacts
from eccos_core.protocols import Encoder

EvaluationProgress = Callable[[str, int, int], None]  # (stage, items done, items in total)
_ROWS_PER_BATCH = 512
_TIMED_REQUESTS = 25


def encode_questions(
    queries: Sequence[str],
    routers: Sequence[ReplayRouter],
    encoders: Mapping[EncoderChoice, Encoder],
    uncached_encoders: Mapping[EncoderChoice, Encoder],
    report_progress: EvaluationProgress,
) -> tuple[dict[EncoderChoice, Float32Array], dict[str, EncoderFacts]]:
    """Encode all questions with every encoder that a router reads.

    Returns vectors (N, D) per encoder choice, and facts about each encoder. The choice "none" has D = 0.
    `uncached_encoders` are timed. Raises `InputError` for an encoder that is missing.
    """
    vectors: dict[EncoderChoice, Float32Array] = {"none": np.empty((len(queries), 0), np.float32)}
    facts: dict[str, EncoderFacts] = {}
    for replay_router in routers:
        reading = replay_router.reads
        if reading in vectors:
            continue
        if reading not in encoders:
            raise InputError(
                f"router {replay_router.name!r} reads {reading!r} vectors, but there is no {reading!r} encoder. "
                f"Add one to `encoders`."
            )
        encoder = encoders[reading]
        vectors[reading] = _encode_in_batches(encoder, queries, f"Encoding questions ({reading})", report_progress)
        encode_ms = _measure_encode_ms(uncached_encoders[reading], queries)
        facts[reading] = EncoderFacts(encoder.name, encoder.dimensions, encode_ms)
    return vectors, facts


def _encode_in_batches(
    encoder: Encoder, texts: Sequence[str], stage: str, report_progress: EvaluationProgress
) -> Float32Array:
    """Encode texts batch by batch, so that progress can be shown. Returns (len(texts), D)."""
    parts = []
    for start in range(0, len(texts), _ROWS_PER_BATCH):
        report_progress(stage, start, len(texts))
        parts.append(encoder.encode(texts[start : start + _ROWS_PER_BATCH]))
    return np.concatenate(parts)


def _measure_encode_ms(encoder: Encoder, queries: Sequence[str]) -> float:
    """Measure the median milliseconds for one question, after a first one to warm up."""
    encoder.encode(queries[:1])
    taken = []
    for query in queries[:_TIMED_REQUESTS]:
        started = time.perf_counter()
        encoder.encode([query])
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)
