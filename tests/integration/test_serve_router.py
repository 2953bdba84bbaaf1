"""The router under load and faults, against a real server: caps hold as the server sees them, nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eccos_core.backends import LiteLLMBackend, RetryingBackend, RetryPolicy
from eccos_core.config.schema import Deployment
from eccos_core.domain import Float32Array, FloatArray, Forecast, Model, QualityPrice
from eccos_core.encoders import SurfaceEncoder
from eccos_core.errors import AttemptsExhausted, EccosError, StreamInterrupted
from eccos_core.router import Router
from eccos_core.streaming import FixedPrice
from eccos_core.testing import Faults, ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

CAPS = {"small": 8, "medium": 5, "large": 3, "huge": 2}


class ByLength:
    """Forecasts that make every model the best for some vectors."""

    models = tuple(CAPS)

    def __init__(self, dimensions: int) -> None:
        self._weights = np.random.default_rng(3).normal(size=(dimensions, len(CAPS)))

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        quality = 1 / (1 + np.exp(-6 * (vectors @ self._weights)))
        same = np.full(quality.shape, 10.0)
        return Forecast(self.models, quality, same / 200, same, 2 * same, np.ones(len(vectors)))


def make_router(server: ModelServer, **backend_of: str) -> Router:
    models = [
        Model(name, 1e-6 * 2**place, 2e-6 * 2**place, max_concurrency=CAPS[name]) for place, name in enumerate(CAPS)
    ]
    ways = {
        m.name: [Deployment(f"openai/{m.name}", {"api_base": backend_of.get(m.name, server.url), "api_key": "none"})]
        for m in models
    }
    encoder = SurfaceEncoder()
    backend = RetryingBackend(LiteLLMBackend(ways, models), RetryPolicy(initial_backoff_s=0.02, deadline_s=60))
    return Router(
        models,
        ByLength(encoder.dimensions),
        backend,
        encoder=encoder,
        steering=FixedPrice(1e-3),
        policy=QualityPrice(1e-5),
        deadline_s=120,
        answer_deadline_s=60,
    )


WORDS = ("Why?", "How much is 3 * 7", "name A CITY", "x", "explain, please:")


def question(number: int) -> str:
    draw = random.Random(number)
    return " ".join(draw.choice(WORDS) for _ in range(6))


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(latency_s=0.03) as running:
        yield running


def assert_caps_held(server: ModelServer, router: Router) -> None:
    most = server.statistics().most_at_once
    assert all(most.get(name, 0) <= cap for name, cap in CAPS.items()), most
    status = router.workload.status()  # type: ignore[attr-defined]
    assert (status.in_flight, status.waiting) == (0, 0)


async def test_many_at_once_pass_no_cap_and_are_all_answered(server: ModelServer) -> None:
    server.reset()
    router = make_router(server)
    completions = await asyncio.gather(*(router.acomplete(question(i)) for i in range(150)))
    assert all(completion.text.startswith("You said") for completion in completions)
    assert all(completion.decision is not None for completion in completions)
    assert len({completion.model for completion in completions}) > 2
    assert sum(server.statistics().answered.values()) == 150
    assert_caps_held(server, router)


def test_threads_pass_no_cap_either(server: ModelServer) -> None:
    server.reset()
    router = make_router(server)
    with ThreadPoolExecutor(40) as pool:
        completions = list(pool.map(lambda i: router.complete(question(i)), range(60)))
    assert len(completions) == 60
    assert_caps_held(server, router)


async def test_under_faults_and_cancellations_every_request_ends_in_an_answer_or_a_clear_error() -> None:
    faults = Faults(too_many=0.05, broken=0.05, reset=0.02, cut=0.02, seed=5)
    with ModelServer(latency_s=0.03, faults=faults) as faulty:
        router = make_router(faulty)
        outcomes: Counter[str] = Counter()

        async def one(number: int) -> None:
            try:
                if number % 3:
                    await router.acomplete(question(number))
                else:
                    async for _ in router.astream(question(number)):
                        pass
                outcomes["answered"] += 1
            except EccosError as error:
                outcomes[type(error).__name__] += 1

        tasks = [asyncio.create_task(one(number)) for number in range(160)]
        for task in tasks[::20]:
            await asyncio.sleep(0.02)
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        gc.collect()
        await asyncio.sleep(0.1)
        cancelled = sum(isinstance(result, asyncio.CancelledError) for result in ended)
        assert cancelled + sum(outcomes.values()) == 160
        assert set(outcomes) <= {"answered", "StreamInterrupted", "AttemptsExhausted"}
        assert outcomes["answered"] > 120
        assert_caps_held(faulty, router)


async def test_a_model_that_is_down_is_followed_by_the_next_best(server: ModelServer) -> None:
    down = "http://127.0.0.1:9/v1"
    router = make_router(server, small=down, medium=down)
    completions = await asyncio.gather(*(router.acomplete(question(i)) for i in range(40)))
    assert {completion.model for completion in completions} <= {"large", "huge"}
    assert max(completion.attempts for completion in completions) >= 2
    status = router.workload.status()  # type: ignore[attr-defined]
    assert {each.model: each.failures > 0 for each in status.models}["small"]
    assert status.in_flight == 0


@pytest.mark.parametrize("fault", ["policy", "context", "filtered"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_model_refuses_is_asked_of_the_next_one_and_not_of_it_again(
    server: ModelServer, fault: str, streamed: bool
) -> None:
    server.reset()
    router = make_router(server)
    text = f"[[{fault}]] [[times 1]] by {fault} {streamed}"  # each model would answer when asked again

    async def ask() -> None:
        if streamed:
            async for _ in router.astream(text):
                pass
        else:
            await router.acomplete(text)

    with pytest.raises(AttemptsExhausted) as caught:
        await ask()
    asked = [attempt.model for attempt in caught.value.attempts]
    assert len(set(asked)) == 3
    assert server.statistics().requests == dict.fromkeys(asked, 1)
    assert router.workload.status().in_flight == 0  # type: ignore[attr-defined]


async def test_when_all_are_down_the_error_lists_every_attempt(server: ModelServer) -> None:
    router = make_router(server, **dict.fromkeys(CAPS, "http://127.0.0.1:9/v1"))
    with pytest.raises(AttemptsExhausted) as caught:
        await router.acomplete("Why?")
    assert len({attempt.model for attempt in caught.value.attempts}) == 3
    assert all(attempt.kind == "connection" for attempt in caught.value.attempts)
    assert router.workload.status().in_flight == 0  # type: ignore[attr-defined]


async def test_a_broken_stream_is_not_restarted_and_its_slot_is_free(server: ModelServer) -> None:
    server.reset()
    router = make_router(server)
    received: list[str] = []

    async def read() -> None:
        async for chunk in router.astream("[[cut 4]] one two three four five"):
            received.append(chunk.text)  # noqa: PERF401 - what arrived before the failure is kept

    with pytest.raises(StreamInterrupted) as caught:
        await read()
    assert caught.value.received == "".join(received) == "You said: one"
    assert sum(server.statistics().requests.values()) == 1
    assert router.workload.status().in_flight == 0  # type: ignore[attr-defined]


async def test_streams_left_half_way_free_their_slots(server: ModelServer) -> None:
    router = make_router(server)
    words = " ".join(["word"] * 300)
    for chunk in router.stream(words):
        assert chunk.text
        break
    stream = router.astream(words)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    async for _ in router.astream(words):
        break
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if router.workload.status().in_flight == 0:  # type: ignore[attr-defined]
            break
    assert router.workload.status().in_flight == 0  # type: ignore[attr-defined]
