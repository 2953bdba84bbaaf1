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
    old.reconfigure([model("c", 5), model("a", 2)])
    assert list(old.free_slots()) == [5, 1]
    with old.hold("a"):
        assert list(old.free_slots(["a", "b"])) == [0, 1]
        with pytest.raises(Overloaded), old.hold("a"):
            pass
    held.close()
    assert list(old.free_slots()) == [5, 2]
    with pytest.raises(UnknownModelError):
        old.hold("never")


def test_a_model_that_left_still_serves_the_requests_that_began_before() -> None:
    workload = WorkloadTracker([model("a", 1), model("b", 1)])
    workload.reconfigure([model("a", 1)])
    with workload.deciding(["a", "b"]) as free, workload.hold("b"):
        assert list(free) == [1, 1]
        assert list(workload.free_slots(["b"])) == [0]
    assert [each.model for each in workload.status().models] == ["a"]


def test_limits_that_name_no_model_change_nothing() -> None:
    workload = WorkloadTracker([model("a", 1)])
    with pytest.raises(UnknownModelError):
        workload.reconfigure([model("b", 1)], requests_per_minute={"c": 5})
    assert [each.model for each in workload.status().models] == ["a"]


def test_a_lower_cap_lets_what_is_in_flight_end_and_begins_nothing_new() -> None:
    old = WorkloadTracker([model("a", 3)])
    held = [hold(old, "a") for _ in range(3)]
    old.reconfigure([model("a", 1)])
    for stack in held:
        assert list(old.free_slots()) == [0]
        stack.close()
    assert list(old.free_slots()) == [1]


def test_a_model_that_comes_back_still_knows_what_is_in_flight() -> None:
    first = WorkloadTracker([model("a", 2)])
    held = hold(first, "a")
    first.reconfigure([model("b", 2)])
    first.reconfigure([model("a", 2)])
    assert list(first.free_slots()) == [1]
    held.close()
    assert list(first.free_slots()) == [2]


@pytest.mark.parametrize("changes", ["before", "after"])
def test_who_waits_is_served_whether_the_pool_changes_before_or_after(changes: str) -> None:
    workload = WorkloadTracker([model("a", 1)])
    held = hold(workload, "a")
    if changes == "before":
        workload.reconfigure([model("a", 1)])
    served: list[ExitStack] = []
    thread = threading.Thread(target=lambda: served.append(workload.acquire(lambda: hold(workload, "a"), 30)))
    thread.start()
    while not workload.status().waiting:
        time.sleep(0.001)
    if changes == "after":
        workload.reconfigure([model("a", 1), model("b", 1)])
        assert workload.status().waiting == 1
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
    old.reconfigure([model("a", 4)])
    try:
        # nobody gives a slot back before all three have theirs
        assert all(served.acquire(timeout=20) for _ in threads)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        held.close()
    assert list(old.free_slots()) == [4]
