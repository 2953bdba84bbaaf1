"""The workload tracker: slots, waiting, breaker, rates."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from eccos_core.domain import Completion, Model
from eccos_core.errors import BackendError, CircuitOpen, Overloaded, UnknownModelError
from eccos_core.workload import UNCAPPED, BreakerSettings, BreakerState, WorkloadTracker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_model(name: str, cap: int | None = None) -> Model:
    return Model(name, 0.0, 0.0, max_concurrency=cap)


def an_answer(model: str = "a", tokens: int = 10, latency_s: float = 2.0) -> Completion:
    return Completion("yes", model, tokens, tokens, 0.0, latency_s, time_to_first_token_s=1.0)


def a_failure(kind: str = "unavailable", retry_after_s: float | None = None) -> BackendError:
    return BackendError("a", "broken", retryable=True, kind=kind, retry_after_s=retry_after_s)


def test_a_slot_is_held_for_the_length_of_a_block() -> None:
    tracker = WorkloadTracker([a_model("a", 2), a_model("b")])
    assert tracker.free_slots().tolist() == [2, UNCAPPED]
    with tracker.hold("a"):
        assert tracker.free_slots().tolist() == [1, UNCAPPED]
        with tracker.hold("a"), pytest.raises(Overloaded, match="2 of 2 requests are in flight"), tracker.hold("a"):
            pass
    assert tracker.free_slots().tolist() == [2, UNCAPPED]


def test_an_exception_gives_the_slot_back() -> None:
    tracker = WorkloadTracker([a_model("a", 1)])
    with pytest.raises(ZeroDivisionError), tracker.hold("a"):
        raise ZeroDivisionError
    assert tracker.status().in_flight == 0


def test_a_slot_is_given_back_once_only() -> None:
    tracker = WorkloadTracker([a_model("a", 3)])
    hold = tracker.hold("a")
    with tracker.hold("a"):
        hold.__enter__()
        for _ in range(3):
            hold.__exit__(None, None, None)
        del hold
        gc.collect()
        assert tracker.status().in_flight == 1


def test_a_dropped_generator_gives_its_slot_back() -> None:
    tracker = WorkloadTracker([a_model("a", 1)])

    def stream() -> Iterator[int]:
        with tracker.hold("a"):
            yield from range(3)

    chunks = stream()
    assert next(chunks) == 0
    assert tracker.status().in_flight == 1
    del chunks
    gc.collect()
    assert tracker.status().in_flight == 0


def test_a_dropped_exit_stack_gives_its_slot_back() -> None:
    tracker = WorkloadTracker([a_model("a", 1)])
    stack = ExitStack()
    stack.enter_context(tracker.hold("a"))
    assert tracker.status().in_flight == 1
    del stack
    gc.collect()
    assert tracker.status().in_flight == 0


async def test_an_async_stream_left_half_way_gives_its_slot_back() -> None:
    tracker = WorkloadTracker([a_model("a", 1)])

    async def stream() -> AsyncIterator[int]:
        with tracker.hold("a"):
            for i in range(3):
                yield i

    async for _ in stream():
        break
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert tracker.status().in_flight == 0


async def test_a_cancelled_or_timed_out_task_gives_its_slot_back() -> None:
    tracker = WorkloadTracker([a_model("a", 2)])

    async def call() -> None:
        with tracker.hold("a"):
            await asyncio.sleep(3600)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert tracker.status().in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(), 0.01)
    assert tracker.status().in_flight == 0


def test_two_threads_never_take_the_same_last_slot() -> None:
    tracker = WorkloadTracker([a_model("a", 3), a_model("b", 2)])
    most = {"a": 0, "b": 0}
    running = {"a": 0, "b": 0}
    counting = threading.Lock()

    def take() -> tuple[str, ExitStack]:
        slot = ExitStack()
        with tracker.deciding() as free:
            if not free.any():
                raise Overloaded("all are busy")
            name = ("a", "b")[int(np.argmax(free))]
            slot.enter_context(tracker.hold(name))
        return name, slot

    def call(_: int) -> None:
        name, slot = tracker.acquire(take, 60)
        with slot:
            with counting:
                running[name] += 1
                most[name] = max(most[name], running[name])
            threading.Event().wait(0.0005)
            with counting:
                running[name] -= 1

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(call, range(600)))
    assert most == {"a": 3, "b": 2}
    assert tracker.status().in_flight == 0
    assert tracker.status().waiting == 0


async def test_tasks_and_threads_wait_in_one_line() -> None:
    tracker = WorkloadTracker([a_model("a", 2)])

    def take() -> ExitStack:
        slot = ExitStack()
        slot.enter_context(tracker.hold("a"))
        return slot

    def in_thread() -> None:
        with tracker.acquire(take, 60):
            threading.Event().wait(0.001)

    async def in_task() -> None:
        with await tracker.aacquire(take, 60):
            await asyncio.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(pool, in_thread) for _ in range(100)]
        await asyncio.gather(*threads, *(in_task() for _ in range(100)))
    assert tracker.status().in_flight == 0
    assert tracker.status().waiting == 0


async def test_who_came_first_is_served_first() -> None:
    tracker = WorkloadTracker([a_model("a", 1)])
    served: list[int] = []

    def take() -> ExitStack:
        slot = ExitStack()
        slot.enter_context(tracker.hold("a"))
        return slot

    async def call(i: int) -> None:
        with await tracker.aacquire(take, 60):
            served.append(i)
            await asyncio.sleep(0)

    await asyncio.gather(*(call(i) for i in range(50)))
    assert served == list(range(50))


async def test_a_freed_slot_is_offered_along_the_line_to_who_can_use_it() -> None:
    tracker = WorkloadTracker([a_model("a", 1), a_model("b", 1)])
    served: list[str] = []

    async def call(name: str) -> None:
        def take() -> ExitStack:
            slot = ExitStack()
            slot.enter_context(tracker.hold(name))
            return slot

        with await tracker.aacquire(take, 60):
            served.append(name)

    with ExitStack() as a, ExitStack() as b:
        a.enter_context(tracker.hold("a"))
        b.enter_context(tracker.hold("b"))
        waiting = [asyncio.create_task(call(name)) for name in ("a", "a", "b")]
        await asyncio.sleep(0.01)
        b.close()
        await asyncio.wait_for(waiting[2], 10)
        assert served == ["b"]
    await asyncio.gather(*waiting)
    assert served == ["b", "a", "a"]


async def test_a_slot_freed_while_the_line_tries_is_offered_to_those_who_have_tried() -> None:
    tracker = WorkloadTracker([a_model(name, 1) for name in "abc"])
    slots = {name: ExitStack() for name in "abc"}
    armed: list[bool] = []
    for name, slot in slots.items():
        slot.enter_context(tracker.hold(name))

    def take(name: str) -> ExitStack:
        if name == "b" and armed:
            slots["a"].close()  # while the second in the line tries, what the first wants becomes free
        stack = ExitStack()
        stack.enter_context(tracker.hold(name))
        return stack

    first = asyncio.create_task(tracker.aacquire(lambda: take("a"), 60))
    await asyncio.sleep(0)
    second = asyncio.create_task(tracker.aacquire(lambda: take("b"), 60))
    await asyncio.sleep(0)
    armed.append(True)
    slots["c"].close()
    with await asyncio.wait_for(first, 10):
        pass
    slots["b"].close()
    with await asyncio.wait_for(second, 10):
        pass


async def test_nobody_is_forgotten_whatever_the_order_of_cancellations() -> None:
    tracker = WorkloadTracker([a_model("a", 2), a_model("b", 3)])
    random_numbers = random.Random(7)
    done = 0

    async def call(name: str, work_s: float) -> None:
        nonlocal done

        def take() -> ExitStack:
            slot = ExitStack()
            slot.enter_context(tracker.hold(name))
            return slot

        with await tracker.aacquire(take, 60):
            await asyncio.sleep(work_s)
        done += 1

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(call(random_numbers.choice("ab"), random_numbers.random() * 0.002)))
        if random_numbers.random() < 0.3:
            await asyncio.sleep(0)
        if random_numbers.random() < 0.2:
            random_numbers.choice(tasks).cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    cancelled = sum(isinstance(result, asyncio.CancelledError) for result in results)
    assert done + cancelled == 400
    assert cancelled
    assert tracker.status().in_flight == 0
    assert tracker.status().waiting == 0


async def test_waiting_ends_at_the_deadline_with_the_reason() -> None:
    tracker = WorkloadTracker([a_model("a", 1)])

    def take() -> ExitStack:
        slot = ExitStack()
        slot.enter_context(tracker.hold("a"))
        return slot

    with tracker.hold("a"):
        with pytest.raises(Overloaded, match="no free slot"):
            tracker.acquire(take, 0.01)
        with pytest.raises(Overloaded, match="no free slot"):
            await tracker.aacquire(take, 0.01)
        with pytest.raises(Overloaded):
            tracker.acquire(take, 0)
    assert tracker.status().waiting == 0


async def test_slots_that_come_with_time_are_noticed() -> None:
    clock = Clock()
    tracker = WorkloadTracker([a_model("a")], clock, requests_per_minute={"a": 1})
    with tracker.hold("a"):
        pass

    def take() -> ExitStack:
        slot = ExitStack()
        slot.enter_context(tracker.hold("a"))
        return slot

    async def call() -> None:
        with await tracker.aacquire(take, 30):
            pass

    waiting = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    assert tracker.status().waiting == 1
    clock.now += 61
    await asyncio.wait_for(waiting, 10)


def test_requests_per_minute_are_kept() -> None:
    clock = Clock()
    tracker = WorkloadTracker([a_model("a")], clock, requests_per_minute={"a": 2})
    for _ in range(2):
        with tracker.hold("a"):
            clock.now += 10
    with pytest.raises(Overloaded, match="2 requests per minute"), tracker.hold("a"):
        pass
    clock.now += 40  # 60 s after the first
    assert tracker.free_slots().tolist() == [1]


def test_tokens_per_minute_are_kept() -> None:
    clock = Clock()
    tracker = WorkloadTracker([a_model("a")], clock, tokens_per_minute={"a": 100})
    tracker.observe("a", an_answer(tokens=20))  # 40 tokens
    assert tracker.free_slots().tolist() == [1]
    tracker.observe("a", an_answer(tokens=20))
    assert tracker.free_slots().tolist() == [0]
    clock.now += 60
    assert tracker.free_slots().tolist() == [2]


def test_a_model_that_keeps_failing_is_left_alone_then_probed_then_warmed_up() -> None:
    clock = Clock()
    settings = BreakerSettings(failures=3, open_s=10, warm_up_s=20)
    tracker = WorkloadTracker([a_model("a", 10)], clock, breaker=settings)
    for _ in range(3):
        assert tracker.free_slots().tolist() == [10]
        tracker.observe("a", None, a_failure())
    assert tracker.status().models[0].breaker is BreakerState.OPEN
    with pytest.raises(Overloaded, match="circuit is open"), tracker.hold("a"):
        pass
    clock.now += 10
    with tracker.hold("a"):
        assert tracker.status().models[0].breaker is BreakerState.HALF_OPEN
        assert tracker.free_slots().tolist() == [0]
    assert tracker.free_slots().tolist() == [1], "a probe that ended without a verdict may be repeated"
    tracker.observe("a", None, a_failure())
    assert tracker.free_slots().tolist() == [0]
    clock.now += 19
    assert tracker.free_slots().tolist() == [0], "twice as long after a failed probe"
    clock.now += 1
    with tracker.hold("a"):
        tracker.observe("a", an_answer())
    assert tracker.free_slots().tolist() == [1]
    clock.now += 10
    assert tracker.free_slots().tolist() == [5]
    clock.now += 10
    assert tracker.free_slots().tolist() == [10]


def test_an_open_breaker_waits_as_long_as_the_provider_asked() -> None:
    clock = Clock()
    tracker = WorkloadTracker([a_model("a")], clock, breaker=BreakerSettings(failures=1, open_s=5))
    tracker.observe("a", None, a_failure("rate_limit", retry_after_s=30))
    clock.now += 29
    assert tracker.free_slots().tolist() == [0]
    clock.now += 1
    assert tracker.free_slots().tolist() == [1]


async def test_nobody_waits_for_one_certain_model_that_is_left_alone() -> None:
    clock = Clock()
    tracker = WorkloadTracker([a_model("a", 1)], clock, breaker=BreakerSettings(failures=1, open_s=7))

    def take() -> ExitStack:
        slot = ExitStack()
        slot.enter_context(tracker.hold("a"))
        return slot

    with tracker.hold("a"):
        waiting = asyncio.create_task(tracker.aacquire(take, 60))
        await asyncio.sleep(0.01)
        tracker.observe("a", None, a_failure())
    with pytest.raises(CircuitOpen) as caught:
        await asyncio.wait_for(waiting, 10)
    assert caught.value.retry_after_s == 7
    with pytest.raises(CircuitOpen):
        tracker.acquire(take, 60)
    assert tracker.status().waiting == 0


def test_a_bad_request_does_not_speak_against_the_model() -> None:
    tracker = WorkloadTracker([a_model("a", 4)], breaker=BreakerSettings(failures=1))
    for kind in ("bad_request", "context_window", "content_policy"):
        tracker.observe("a", None, a_failure(kind))
    status = tracker.status().models[0]
    assert (status.breaker, status.error_rate, status.failures) == (BreakerState.CLOSED, 0.0, 3)


def test_latency_and_speed_are_learned() -> None:
    tracker = WorkloadTracker([a_model("a")])
    tracker.observe("a", an_answer(tokens=10, latency_s=2.0))
    tracker.observe("a", an_answer(tokens=10, latency_s=3.0))
    status = tracker.status().models[0]
    assert status.latency_s == pytest.approx(2.1)
    assert status.output_tokens_per_second == pytest.approx(10 + 0.1 * (5 - 10))
    assert status.tokens_last_minute == 40


def test_a_model_outside_the_pool_is_named() -> None:
    tracker = WorkloadTracker([a_model("small")])
    with pytest.raises(UnknownModelError, match="smal"):
        tracker.hold("smal")
    with pytest.raises(UnknownModelError):
        WorkloadTracker([a_model("small")], requests_per_minute={"large": 5})
