"""What every `Workload` promises."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from eccos_core.domain import Completion, Model
from eccos_core.errors import BackendError, Overloaded
from eccos_core.protocols import Workload
from eccos_core.workload import WorkloadTracker

MODELS = [Model("capped", 0.0, 0.0, max_concurrency=2), Model("free", 0.0, 0.0)]
Make = Callable[[], Workload]


def plain() -> Workload:
    return WorkloadTracker(MODELS)


def with_limits() -> Workload:
    return WorkloadTracker(MODELS, requests_per_minute={"free": 10_000}, tokens_per_minute={"capped": 1_000_000})


@pytest.fixture(params=[plain, with_limits])
def workload(request: pytest.FixtureRequest) -> Workload:
    made: Workload = request.param()
    return made


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
