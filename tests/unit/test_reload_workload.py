"""A pool that changes under load: models that stay share their slots, and the line of who waits."""

import threading
import time
from contextlib import ExitStack

import pytest

from eccos_core.domain import Model
from eccos_core.errors import Overloaded, UnknownModelError
from eccos_core.workload import WorkloadTracker


def model(name: str, cap: int | None) -> Model:
    return Model(name, 0.0, 0.0, max_concurrency=cap)


def hold(workload: WorkloadTracker, name: str) -> ExitStack:
    stack = ExitStack()
    stack.enter_context(workload.hold(name))
    return stack


def test_a_model_that_stays_has_one_cap_whichever_pool_holds_it() -> None:
    old = WorkloadTracker([model("a", 2), model("b", 1)])
    held = hold(old, "a")
    new = WorkloadTracker([model("c", 5), model("a", 2)], following=old)
    assert list(new.free_slots()) == [5, 1]
    with new.hold("a"):
        assert list(old.free_slots()) == [0, 1]
        with pytest.raises(Overloaded), old.hold("a"):
            pass
    held.close()
    assert list(new.free_slots()) == [5, 2]
    with pytest.raises(UnknownModelError):
        new.hold("b")


def test_a_lower_cap_lets_what_is_in_flight_end_and_begins_nothing_new() -> None:
    old = WorkloadTracker([model("a", 3)])
    held = [hold(old, "a") for _ in range(3)]
    new = WorkloadTracker([model("a", 1)], following=old)
    for stack in held:
        assert list(new.free_slots()) == [0]
        stack.close()
    assert list(new.free_slots()) == [1]


def test_a_model_that_comes_back_still_knows_what_is_in_flight() -> None:
    first = WorkloadTracker([model("a", 2)])
    held = hold(first, "a")
    without = WorkloadTracker([model("b", 2)], following=first)
    again = WorkloadTracker([model("a", 2)], following=without)
    assert list(again.free_slots()) == [1]
    held.close()
    assert list(again.free_slots()) == [2]


@pytest.mark.parametrize("waits_in", ["old", "new"])
def test_who_waits_is_served_by_a_slot_of_either_pool(waits_in: str) -> None:
    old = WorkloadTracker([model("a", 1)])
    held = hold(old, "a")
    new = WorkloadTracker([model("a", 1)], following=old)
    waiting = old if waits_in == "old" else new
    served: list[ExitStack] = []
    thread = threading.Thread(target=lambda: served.append(waiting.acquire(lambda: hold(waiting, "a"), 30)))
    thread.start()
    while not new.status().waiting:
        time.sleep(0.001)
    held.close()
    thread.join(30)
    assert len(served) == 1
    served[0].close()


def test_a_higher_cap_serves_all_who_wait_at_once() -> None:
    old = WorkloadTracker([model("a", 1)])
    held = hold(old, "a")
    served = threading.Semaphore(0)
    done = threading.Event()

    def wait() -> None:
        with old.acquire(lambda: hold(old, "a"), 30):
            served.release()
            done.wait(30)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while old.status().waiting < 3:
        time.sleep(0.001)
    WorkloadTracker([model("a", 4)], following=old)
    try:
        # nobody gives a slot back before all three have theirs
        assert all(served.acquire(timeout=20) for _ in threads)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        held.close()
    assert list(old.free_slots()) == [4]
