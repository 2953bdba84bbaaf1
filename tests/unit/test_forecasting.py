"""Many requests at once: on all cores, and with the numbers that each has alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from eccos_core import Model, NoEligibleModelError, Router
from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.io.threads import BlasThreads, blas_threads
from eccos_core.routing import forecast as forecasting
from eccos_core.routing.forecast import ROWS_AT_ONCE, predict_in_blocks
from eccos_core.testing import ScriptedBackend


class Numbers:
    """Encodes a text, which is a number, as it is; forecasts it as its vector and its tokens."""

    name, dimensions, models = "numbers", 2, ("a", "b")

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> Float32Array:
        self.encoded += len(texts)
        return np.array([[float(text), 1.0] for text in texts], dtype=np.float32)

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        self.threads.add(threading.current_thread().name)
        two = np.stack([vectors[:, 0].astype(float), input_tokens], axis=1)
        return Forecast(self.models, two, two + 1, two + 2, two + 3, input_tokens)


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(forecasting, "cores", lambda: request.param)
    return int(request.param)


@pytest.mark.parametrize("rows", [0, 1, 300, 2 * ROWS_AT_ONCE + 3])
def test_vectors_and_forecasts_stay_in_order(cores: int, rows: int) -> None:
    parts = Numbers()
    vectors = parts.encode([str(row) for row in range(rows)]).reshape(rows, 2)
    found = predict_in_blocks(parts, vectors, np.arange(rows) * 2.0)
    assert found.models == ("a", "b")
    assert found.quality[:, 0].tolist() == list(range(rows))
    assert found.output_tokens_high[:, 1].tolist() == [2.0 * row + 3 for row in range(rows)]
    assert found.familiarity.tolist() == [2.0 * row for row in range(rows)]
    assert any("eccos-forecasting" in name for name in parts.threads) == (cores == 2 and rows > ROWS_AT_ONCE)


class Library:
    """Stands for OpenBLAS."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, threads: int) -> None:
        self.threads = threads


def test_linear_algebra_has_one_thread_until_the_last_forecast_is_made() -> None:
    algebra, library = BlasThreads(), Library(8)
    algebra._libraries = [library]
    first, second = algebra.single_threaded(), algebra.single_threaded()
    first.__enter__()
    second.__enter__()
    assert library.threads == 1
    first.__exit__(None, None, None)
    assert library.threads == 1
    second.__exit__(None, None, None)
    assert library.threads == 8
    with pytest.raises(LookupError), algebra.single_threaded():
        raise LookupError
    assert library.threads == 8


def test_a_forecast_is_made_on_one_thread_of_linear_algebra() -> None:
    seen: list[int] = []

    class Looks(Numbers):
        def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
            seen.extend(library.get_num_threads() for library in blas_threads()._libraries)
            return super().predict(vectors, input_tokens)

    predict_in_blocks(Looks(), np.ones((3, 2), dtype=np.float32), np.ones(3))
    assert set(seen) == {1}


def test_a_request_that_no_model_may_answer_is_not_encoded() -> None:
    parts = Numbers()
    pool = [Model(name, 1e-6, 1e-6, context_window=10) for name in parts.models]
    router = Router(pool, parts, ScriptedBackend({}), encoder=parts)
    with pytest.raises(NoEligibleModelError):
        router.decide("1 " * 1000)
    assert parts.encoded == 0
