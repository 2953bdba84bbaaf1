"""What arrives within a short window is decided together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eccos_core.domain import StreamChoice
from eccos_core.errors import InputError, Overloaded
from eccos_core.optimizer import DualOptimizer
from eccos_core.routing.microbatch import MicroBatch
from eccos_core.streaming import FloorTarget, InitialPrices, RateTarget, StreamController


class Recorder:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int | BaseException]:
        self.batches.append(list(items))
        return [ValueError(f"odd: {item}") if item % 2 else 10 * item for item in items]


def test_items_of_one_window_are_decided_together_and_everybody_gets_their_own_result() -> None:
    recorder = Recorder()
    batch: MicroBatch[int, int] = MicroBatch(recorder, 0.05, most=4)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(batch.submit, item) for item in (0, 1, 2, 4)]
        assert results[0].result(5) == 0
        assert results[2].result(5) == 20
        with pytest.raises(ValueError, match="odd: 1"):
            results[1].result(5)
    assert sum(len(one) for one in recorder.batches) == 4


async def test_tasks_share_a_window_and_a_full_one_closes_at_once() -> None:
    recorder = Recorder()
    batch: MicroBatch[int, int] = MicroBatch(recorder, 0.05, most=3)
    assert await asyncio.gather(batch.asubmit(2), batch.asubmit(4), batch.asubmit(6)) == [20, 40, 60]
    assert len(recorder.batches) == 1
    assert sorted(recorder.batches[0]) == [2, 4, 6]


async def test_a_cancelled_task_leaves_the_window() -> None:
    recorder = Recorder()
    batch: MicroBatch[int, int] = MicroBatch(recorder, 0.05)
    kept, gone = asyncio.create_task(batch.asubmit(2)), asyncio.create_task(batch.asubmit(4))
    await asyncio.sleep(0)  # (both have entered)
    gone.cancel()
    assert await kept == 20
    assert recorder.batches == [[2]]


def test_a_window_of_zero_passes_items_on_alone_in_the_callers_thread() -> None:
    threads: list[str] = []

    def together(items: Sequence[int]) -> list[int | BaseException]:
        threads.append(threading.current_thread().name)
        return list(items)

    batch: MicroBatch[int, int] = MicroBatch(together, 0.0)
    assert [batch.submit(1), batch.submit(2)] == [1, 2]
    assert set(threads) == {threading.current_thread().name}


def test_a_failure_of_the_deciding_reaches_everybody() -> None:
    def together(_: Sequence[int]) -> list[int | BaseException]:
        raise RuntimeError("no forecast")

    batch: MicroBatch[int, int] = MicroBatch(together, 0.01)
    with ThreadPoolExecutor(2) as pool:
        for result in [pool.submit(batch.submit, item) for item in (1, 2)]:
            with pytest.raises(RuntimeError, match="no forecast"):
                result.result(5)


@pytest.mark.parametrize("window_s", [-0.001, 0.051])
def test_a_window_is_at_most_fifty_milliseconds(window_s: float) -> None:
    with pytest.raises(InputError, match="must be between 0 and"):
        MicroBatch(Recorder(), window_s)


def test_together_the_slot_goes_to_whom_it_serves_most() -> None:
    """One slot of the good model: the first in line would take it, the second needs it more."""
    controller = StreamController(FloorTarget(0.1), InitialPrices(1.0))
    quality, cost = np.array([[0.7, 0.8], [0.1, 0.8]]), np.full((2, 2), 0.001)
    choices = controller.decide_jointly(
        quality, cost, np.ones((2, 2), dtype=bool), np.array([2, 1]), DualOptimizer(), ("a", "b")
    )
    assert [choice.model for choice in choices if isinstance(choice, StreamChoice)] == [0, 1]


def test_more_requests_than_slots_serves_the_first_come() -> None:
    controller = StreamController(FloorTarget(0.1), InitialPrices(1.0))
    choices = controller.decide_jointly(
        np.full((3, 2), 0.5),
        np.ones((3, 2)),
        np.ones((3, 2), dtype=bool),
        np.array([1, 1]),
        DualOptimizer(),
        ("a", "b"),
    )
    assert [isinstance(choice, Overloaded) for choice in choices] == [False, False, True]


def test_guards_hold_for_what_is_decided_together() -> None:
    controller = StreamController(RateTarget(0.01), InitialPrices(1.0))
    choices = controller.decide_jointly(
        np.tile([0.1, 0.9], (4, 1)),
        np.tile([0.001, 0.02], (4, 1)),
        np.ones((4, 2), dtype=bool),
        np.array([4, 4]),
        DualOptimizer(),
        ("a", "b"),
    )
    spent = np.cumsum([choice.cost_usd for choice in choices if isinstance(choice, StreamChoice)])
    assert (spent <= 0.01 * np.arange(1, 5) + 1e-12).all()
    assert len(spent) == 4


async def test_what_was_decided_for_one_who_was_cancelled_is_handed_back() -> None:
    unclaimed: list[int] = []
    deciding, go_on = threading.Event(), threading.Event()

    def together(items: Sequence[int]) -> list[int]:
        deciding.set()
        go_on.wait(10)
        return [10 * item for item in items]

    batch: MicroBatch[int, int] = MicroBatch(together, 0.05, most=2, unclaimed=unclaimed.append)
    tasks = [asyncio.create_task(batch.asubmit(item)) for item in (1, 2)]  # the second one fills the window
    await asyncio.to_thread(deciding.wait, 10)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    go_on.set()
    for _ in range(2000):
        await asyncio.sleep(0.001 if len(unclaimed) < 2 else 0)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended)
    assert sorted(unclaimed) == [10, 20]
