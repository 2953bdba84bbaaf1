"""What a router does when models fail: who is asked next, for how long, and that no slot is lost over it."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from eccos_core.backends import RetryingBackend, RetryPolicy
from eccos_core.config import TenantConfig
from eccos_core.domain import BreakerState, Completion, Model, QualityPrice, Request
from eccos_core.errors import AttemptsExhausted, BackendError
from eccos_core.protocols import Backend
from eccos_core.router import Router
from eccos_core.routing.sessions import Sessions
from eccos_core.routing.tenants import Tenants
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_core.workload import BreakerSettings, WorkloadTracker

POOL = (
    Model("small", 1e-6, 1e-6, max_concurrency=2, tags=frozenset({"eu"})),
    Model("medium", 2e-6, 2e-6, max_concurrency=2),
    Model("large", 3e-6, 3e-6, max_concurrency=2, tags=frozenset({"eu"})),
)
NAMES = [model.name for model in POOL]
Script = dict[str, list[Any]]


def failing(model: str, kind: str = "unavailable", retryable: bool = True, **more: Any) -> BackendError:
    return BackendError(model, "broken", retryable=retryable, kind=kind, **more)


def router_over(
    backend: Backend,
    *,
    workload: WorkloadTracker | None = None,
    window_s: float = 0.0,
    answer_deadline_s: float = 120.0,
    **rules: TenantConfig,
) -> Router:
    """The cheapest model first, then the next: quality is worth nothing here."""
    parts = scripted_router(backend, POOL, {"": [0.5, 0.6, 0.7]})
    return Router.from_parts(
        replace(
            parts.parts,
            workload=workload or WorkloadTracker(POOL),
            policy=QualityPrice(0.0),
            tenants=Tenants(rules),
            deadline_s=5.0,
            answer_deadline_s=answer_deadline_s,
            window_s=window_s,
        )
    )


def nothing_held(router: Router) -> bool:
    return router.status().workload.in_flight == 0


def called(backend: ScriptedBackend) -> list[str]:
    return [model for model, _ in backend.calls]


# ------------------------------------------------------------------------------------------------ who is asked next


@pytest.mark.parametrize("kind", ["content_policy", "context_window", "authentication", "not_found"])
def test_what_the_same_model_would_say_again_is_asked_of_the_next_one_at_once(kind: str) -> None:
    backend = ScriptedBackend({"small": [failing("small", kind, retryable=False)], "medium": ["fine"], "large": ["no"]})
    completion = router_over(RetryingBackend(backend)).complete("hello")
    assert (completion.text, completion.attempts, called(backend)) == ("fine", 2, ["small", "medium"])


@pytest.mark.parametrize(
    "request_",
    [
        Request.of("hello", allow=frozenset({"small", "large"})),
        Request.of("hello", deny=frozenset({"medium"})),
        Request.of("hello", required_tags=frozenset({"eu"})),
        Request.of("hello", tenant="strict"),
        Request.of("hello", tenant="choosy"),
    ],
    ids=["allow", "deny", "tags", "tenant's tags", "tenant's deny"],
)
@pytest.mark.parametrize("way", ["complete", "stream", "batch", "window"])
def test_a_fallback_is_never_a_model_that_the_request_may_not_use(request_: Request, way: str) -> None:
    backend = ScriptedBackend({name: [failing(name)] for name in NAMES})
    rules = {
        "strict": TenantConfig(required_tags=frozenset({"eu"})),
        "choosy": TenantConfig(deny=frozenset({"medium"})),
    }
    router = router_over(backend, window_s=0.01 if way == "window" else 0.0, **rules)
    ways: dict[str, Callable[[], object]] = {
        "complete": lambda: router.complete(request_),
        "window": lambda: router.complete(request_),
        "stream": lambda: list(router.stream(request_)),
        "batch": lambda: router.complete_batch([request_]),
    }
    with pytest.raises(AttemptsExhausted) as caught:
        ways[way]()
    assert [attempt.model for attempt in caught.value.attempts] == called(backend) == ["small", "large"]
    assert nothing_held(router)


def test_the_last_error_lists_every_call_retries_included() -> None:
    broken = [failing("small"), failing("small", "timeout"), failing("small")]
    backend = ScriptedBackend({"small": broken, "medium": [failing("medium", "rate_limit")], "large": ["no"]})
    policy = RetryPolicy(attempts=2, initial_backoff_s=0.0)
    router = router_over(RetryingBackend(backend, policy))
    with pytest.raises(AttemptsExhausted, match="all 4 attempts failed") as caught:
        router.complete(Request.of("hello", allow=frozenset({"small", "medium"})))
    kinds = [(attempt.model, attempt.kind) for attempt in caught.value.attempts]
    assert kinds == [("small", "unavailable"), ("small", "timeout"), ("medium", "rate_limit"), ("medium", "rate_limit")]
    assert len(backend.calls) == 4


def test_a_call_that_another_deployment_can_take_is_made_at_once() -> None:
    waits: list[float] = []
    busy = failing("small", "rate_limit", retry_after_s=30.0)
    busy.elsewhere = True
    backend = ScriptedBackend({"small": [busy, "fine"], "medium": ["no"], "large": ["no"]})
    assert router_over(RetryingBackend(backend, sleep=waits.append)).complete("hello").text == "fine"
    assert waits == [0.0]


@pytest.mark.parametrize("kind", ["bad_request", "context_window", "content_policy", "unsupported"])
def test_what_is_no_models_fault_opens_no_breaker(kind: str) -> None:
    backend = ScriptedBackend({name: [failing(name, kind, retryable=False)] for name in NAMES})
    workload = WorkloadTracker(POOL, breaker=BreakerSettings(failures=1))
    router = router_over(RetryingBackend(backend), workload=workload)
    for _ in range(3):
        with pytest.raises((AttemptsExhausted, BackendError)):
            router.complete("hello")
    assert {model.breaker for model in workload.status().models} == {BreakerState.CLOSED}
    assert len(backend.calls) == (3 if kind == "bad_request" else 9)


@pytest.mark.parametrize(("timeout_s", "state"), [(0.01, BreakerState.CLOSED), (30.0, BreakerState.OPEN)])
def test_an_impatient_caller_shuts_no_model_for_others(timeout_s: float, state: BreakerState) -> None:
    backend = ScriptedBackend({name: [failing(name, "timeout")] for name in NAMES})
    workload = WorkloadTracker(POOL, breaker=BreakerSettings(failures=1))
    with pytest.raises(AttemptsExhausted):
        router_over(backend, workload=workload).complete("hello", timeout=timeout_s)
    assert {model.breaker for model in workload.status().models} == {state}


# ------------------------------------------------------------------------------------------------ for how long


def test_one_deadline_is_over_all_calls_whichever_model_they_go_to() -> None:
    backend = ScriptedBackend({"small": [failing("small")], "medium": [failing("medium")], "large": ["fine"]})
    retrying = RetryingBackend(backend, RetryPolicy(attempts=1, deadline_s=50))
    assert router_over(retrying, answer_deadline_s=50).complete("hello").text == "fine"
    assert [request.parameters["timeout"] for _, request in backend.calls] == [50, 25, 25]


@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_after_the_deadline_no_other_model_is_asked(way: str) -> None:
    def slowly(_: Request) -> str:
        time.sleep(0.02)
        raise failing("small")

    backend = ScriptedBackend({"small": [slowly], "medium": ["too late"], "large": ["too late"]})
    router = router_over(RetryingBackend(backend, RetryPolicy(attempts=1)), answer_deadline_s=0.01)
    ways = {"complete": router.complete, "acomplete": lambda text: asyncio.run(router.acomplete(text))}
    with pytest.raises(AttemptsExhausted) as caught:
        ways[way]("hello")
    assert [attempt.model for attempt in caught.value.attempts] == called(backend) == ["small"]
    assert nothing_held(router)


def test_a_model_that_asks_for_more_time_than_there_is_is_left_for_the_next_one() -> None:
    def sleep(_: float) -> None:
        pytest.fail("nobody waits that long")

    backend = ScriptedBackend({"small": [failing("small", retry_after_s=1e300)], "medium": ["fine"], "large": ["no"]})
    router = router_over(RetryingBackend(backend, sleep=sleep))
    assert router.complete("hello").text == "fine"
    small = router.status().workload.models[0]
    assert small.breaker is BreakerState.CLOSED


# ------------------------------------------------------------------------------------------------ slots


class Counting(WorkloadTracker):
    """Counts how often somebody stands in line."""

    lines = 0

    def acquire(self, take: Callable[[], Any], deadline_s: float) -> Any:
        self.lines += 1
        return super().acquire(take, deadline_s)


def test_who_holds_a_slot_does_not_stand_in_line_for_it_again() -> None:
    workload = Counting(POOL)
    backend = ScriptedBackend({"small": ["hi", failing("small")], "medium": ["hi"], "large": ["hi"]})
    router = router_over(backend, workload=workload)
    router.complete("hello")
    assert workload.lines == 1
    router.complete("hello")  # a fallback is another slot
    assert workload.lines == 3


class Parked:
    """A backend whose calls never end by themselves."""

    def __init__(self) -> None:
        self.calls = 0

    async def acomplete(self, model: str, request: Request) -> Completion:
        self.calls += 1
        await asyncio.Event().wait()
        raise AssertionError("never")


@pytest.mark.parametrize("window_s", [0.0, 0.005])
async def test_wherever_a_cancellation_or_timeout_hits_the_slot_is_free_again(
    window_s: float, request: pytest.FixtureRequest
) -> None:
    backend = Parked()
    router = router_over(backend, window_s=window_s)  # type: ignore[arg-type]
    draw = random.Random(5)
    gc.disable()  # at once, not when the garbage collector comes by
    request.addfinalizer(gc.enable)

    async def one(number: int) -> None:
        if number % 3:
            await router.acomplete(f"task {number}")
        else:
            async with asyncio.timeout(0.01 * draw.random()):
                await router.acomplete(f"task {number}")

    for _ in range(8):
        tasks = [asyncio.create_task(one(number)) for number in range(15)]
        while tasks:
            for _ in range(draw.randrange(4)):
                await asyncio.sleep(0.003 * draw.random())
            tasks.pop(draw.randrange(len(tasks))).cancel()
    for _ in range(200):
        if nothing_held(router) and not router.status().workload.waiting:
            break
        await asyncio.sleep(0.01)
    assert backend.calls > 20
    assert (router.status().workload.in_flight, router.status().workload.waiting) == (0, 0)


async def test_an_asynchronous_stream_that_is_garbage_collected_gives_its_slot_back() -> None:
    router = router_over(ScriptedBackend({name: ["one two three"] for name in NAMES}))
    stream = router.astream("hello")
    await anext(stream)
    assert not nothing_held(router)
    del stream
    gc.collect()
    for _ in range(100):
        if nothing_held(router):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the slot is held for ever")


# ------------------------------------------------------------------------------------------------ clocks


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_wall_clock_that_jumps_changes_nothing(jump_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    workload = WorkloadTracker(
        POOL, requests_per_minute={"medium": 1}, breaker=BreakerSettings(failures=1, open_s=60.0, warm_up_s=0.0)
    )
    backend = ScriptedBackend({"small": [failing("small"), "back"], "medium": ["fine"], "large": ["fine"]})
    router = router_over(RetryingBackend(backend, RetryPolicy(attempts=1)), workload=workload)
    sessions = router.decider.sessions
    assert isinstance(sessions, Sessions)
    assert router.complete(Request.of("hello", session_id="s")).model == "medium"
    monkeypatch.setattr(time, "time", lambda: now + jump_s)
    assert router.status().workload.models[0].breaker is BreakerState.OPEN
    assert list(workload.free_slots()) == [0, 0, 2], "small is left alone, medium's minute is used up"
    assert sessions.model_of("s") == "medium"
    completion = router.complete(Request.of("hello", session_id="s"))
    assert completion.model == "large"
    assert 0 <= completion.latency_s < 60


# ------------------------------------------------------------------------------------------------ half open


async def test_of_many_at_once_exactly_one_probes_a_model_that_comes_back() -> None:
    clock = [0.0]
    models = (replace(POOL[0], max_concurrency=8),)
    workload = WorkloadTracker(models, lambda: clock[0], breaker=BreakerSettings(failures=1, open_s=5.0))
    backend = ScriptedBackend({"small": [failing("small"), "back"]}, latency_s=0.02)
    parts = scripted_router(backend, models, {"": [0.5]})
    router = Router.from_parts(replace(parts.parts, workload=workload, policy=QualityPrice(0.0), deadline_s=0.0))
    with pytest.raises(AttemptsExhausted):
        await router.acomplete("hello")
    clock[0] = 6.0
    results: Sequence[Any] = await asyncio.gather(
        *(router.acomplete(f"hello {i}") for i in range(10)), return_exceptions=True
    )
    assert sum(isinstance(result, Completion) for result in results) == 1
    assert len(backend.calls) == 2
    assert workload.status().models[0].breaker is BreakerState.CLOSED
