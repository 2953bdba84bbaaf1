"""What every `Workload` promises: that of one process, and that of one replica of several."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from redis_server import RedisServer, redis_server

from eccos_core.domain import Completion, Model
from eccos_core.errors import BackendError, Overloaded
from eccos_core.protocols import Workload
from eccos_core.workload import WorkloadTracker

MODELS = [Model("capped", 0.0, 0.0, max_concurrency=2), Model("free", 0.0, 0.0)]
LIMITS = {"requests_per_minute": {"free": 10_000}, "tokens_per_minute": {"capped": 1_000_000}}
KINDS = [
    "plain",
    "with limits",
    *(
        pytest.param(f"{program}{limits}", marks=pytest.mark.service)
        for program in ("redis-server", "valkey-server")
        for limits in ("", " with limits")
    ),
]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server("redis-server") as server:
        yield server


@pytest.fixture(scope="module")
def valkey() -> Iterator[RedisServer]:
    with redis_server("valkey-server") as server:
        yield server


@pytest.fixture(params=KINDS)
def workload(request: pytest.FixtureRequest) -> Iterator[Workload]:
    limits = LIMITS if "limits" in request.param else {}
    program = request.param.partition("-server")[0]
    if program not in ("redis", "valkey"):
        yield WorkloadTracker(MODELS, **limits)
        return
    from eccos_core.workload.shared import SharedSettings, SharedWorkload

    server: RedisServer = request.getfixturevalue(program)
    made = SharedWorkload(MODELS, SharedSettings(server.url, name=uuid4().hex, lease_s=0.5), **limits)
    while made.free_slots()[0] == 0:  # a new state waits until replicas had the time to say what they hold
        time.sleep(0.01)
    yield made
    made.close()


def test_it_is_a_workload(workload: Workload) -> None:
    assert isinstance(workload, Workload)


def test_free_slots_are_in_the_pools_order_and_large_when_uncapped(workload: Workload) -> None:
    free = workload.free_slots()
    assert free.shape == (2,)
    assert free[0] == 2
    assert free[1] >= 10_000


def test_a_held_slot_is_missing_until_the_block_ends(workload: Workload) -> None:
    with workload.hold("capped"):
        assert workload.free_slots()[0] == 1
    assert workload.free_slots()[0] == 2


def test_a_model_without_a_free_slot_refuses(workload: Workload) -> None:
    with workload.hold("capped"), workload.hold("capped"), pytest.raises(Overloaded), workload.hold("capped"):
        pass
    assert workload.free_slots()[0] == 2


def test_whatever_happens_a_slot_is_given_back_once(workload: Workload) -> None:
    def dropped() -> Iterator[None]:
        with workload.hold("capped"):
            yield

    with pytest.raises(KeyError), workload.hold("capped"):
        raise KeyError
    generator = dropped()
    next(generator)
    del generator
    gc.collect()
    stack = ExitStack()
    stack.enter_context(workload.hold("capped"))
    stack.close()
    stack.close()
    assert workload.free_slots()[0] == 2


def test_holding_inside_the_decision_sees_its_own_slots(workload: Workload) -> None:
    stack = ExitStack()
    with workload.deciding() as free:
        assert free[0] == 2
        stack.enter_context(workload.hold("capped"))
    with workload.deciding() as free:
        assert free[0] == 1
    stack.close()


def test_waiting_gives_what_is_taken_or_the_refusal_at_the_deadline(workload: Workload) -> None:
    def take() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(workload.hold("capped"))
        return stack

    with workload.acquire(take, 1), workload.acquire(take, 1), pytest.raises(Overloaded):
        workload.acquire(take, 0.01)
    assert workload.free_slots()[0] == 2


async def test_waiting_in_a_task_does_the_same(workload: Workload) -> None:
    def take() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(workload.hold("capped"))
        return stack

    with await workload.aacquire(take, 1), await workload.aacquire(take, 1), pytest.raises(Overloaded):
        await workload.aacquire(take, 0.01)
    assert workload.free_slots()[0] == 2


def test_it_learns_from_good_and_bad_calls(workload: Workload) -> None:
    workload.observe("capped", Completion("yes", "capped", 1, 1, 0.0, 0.5))
    workload.observe("capped", None, BackendError("capped", "no", retryable=True))
    assert workload.free_slots()[0] == 2


def test_a_snapshot_shows_every_model_in_the_pools_order(workload: Workload) -> None:
    with workload.hold("capped"):
        capped, free = workload.status().models
        assert (capped.model, capped.in_flight, capped.free_slots, capped.max_concurrency) == ("capped", 1, 1, 2)
        assert (free.model, free.in_flight, free.max_concurrency) == ("free", 0, None)
    workload.observe("capped", None, BackendError("capped", "no", retryable=True, kind="unavailable"))
    status = workload.status()
    assert (status.in_flight, status.waiting, status.models[0].calls, status.models[0].failures) == (0, 0, 1, 1)
