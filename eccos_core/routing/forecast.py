"""From texts to a forecast: alone in one breath, many on all cores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.io.threads import blas_threads, cores
from eccos_core.protocols import Encoder, Predictor

Done = TypeVar("Done")

MANY = 256  # texts: with fewer a second thread takes longer to start than it saves
ROWS_AT_ONCE = 1024


def encode_alongside(encoder: Encoder, texts: Sequence[str], work: Callable[[], Done]) -> tuple[Float32Array, Done]:
    """((R, D) vectors of the texts, what `work` gave), many texts on one core while `work` runs on another.

    An error of `work` is raised before few texts are encoded, and before the next block of many.
    """
    if len(texts) < MANY or cores() == 1:
        done = work()
        return encoder.encode(texts), done
    with ThreadPoolExecutor(1, thread_name_prefix="eccos-beside") as other:
        working = other.submit(work)
        vectors = np.empty((len(texts), encoder.dimensions), dtype=np.float32)
        for start in range(0, len(texts), ROWS_AT_ONCE):
            if working.done():
                working.result()
            vectors[start : start + ROWS_AT_ONCE] = encoder.encode(texts[start : start + ROWS_AT_ONCE])
        return vectors, working.result()


def predict_in_blocks(predictor: Predictor, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
    """`predictor.predict`, in blocks on all cores where there are many rows.

    Linear algebra has one thread meanwhile: on busy cores a second one spins and waits (8 ms a decision instead of 1).
    """
    with blas_threads().single_threaded():
        return _forecast(predictor, vectors, input_tokens)


def _forecast(predictor: Predictor, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
    blocks = -(-len(vectors) // ROWS_AT_ONCE)
    workers = min(cores(), blocks)
    if workers < 2:
        return predictor.predict(vectors, input_tokens)
    edges = np.linspace(0, len(vectors), blocks + 1).astype(int)
    rows = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    with ThreadPoolExecutor(workers, thread_name_prefix="eccos-forecasting") as pool:
        return Forecast.joined(list(pool.map(lambda each: predictor.predict(vectors[each], input_tokens[each]), rows)))
