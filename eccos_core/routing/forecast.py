"""Forecast many questions on all cores."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.io.threads import blas_threads, cores
from eccos_core.protocols import Predictor

ROWS_AT_ONCE = 1024


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
