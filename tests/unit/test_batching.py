import asyncio
import threading
from collections import Counter

from eccos_core.routing.batch import acall_all, call_all

MODELS = ["a"] * 12 + ["b"] * 5 + ["a"] * 3
CAPS = {"a": 2, "b": 3}


class Meter:
    """Counts how many calls of each model run at once, as the called side sees it."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.lock = threading.Lock()

    def enter(self, model: str) -> None:
        with self.lock:
            self.running[model] += 1
            self.most[model] = max(self.most[model], self.running[model])

    def leave(self, model: str) -> None:
        with self.lock:
            self.running[model] -= 1


def test_no_model_gets_more_calls_at_once_than_it_may_and_results_are_in_order() -> None:
    meter = Meter()
    together = threading.Barrier(2)  # a's two workers meet here, so two calls do run at once

    def call(i: int) -> int:
        meter.enter(MODELS[i])
        if i < 2:
            together.wait(timeout=10)
        meter.leave(MODELS[i])
        return i

    assert call_all(MODELS, CAPS.__getitem__, call) == list(range(len(MODELS)))
    assert meter.most["a"] == 2
    assert meter.most["b"] <= 3


def test_a_failed_call_has_its_error_in_its_place() -> None:
    def call(i: int) -> int:
        if i == 1:
            raise ValueError("one")
        return i

    results = call_all(["a", "a", "b"], CAPS.__getitem__, call)
    assert results[0] == 0
    assert isinstance(results[1], ValueError)
    assert results[2] == 2


def test_a_result_that_is_false_is_still_a_result() -> None:
    assert call_all(["a"], CAPS.__getitem__, lambda _: 0) == [0]


async def test_the_asynchronous_twin_keeps_caps_and_order() -> None:
    meter = Meter()

    async def call(i: int) -> int:
        meter.enter(MODELS[i])
        await asyncio.sleep(0.001)
        meter.leave(MODELS[i])
        if i == 4:
            raise ValueError("four")
        return i

    results = await acall_all(MODELS, CAPS.__getitem__, call)
    assert isinstance(results[4], ValueError)
    assert [result for i, result in enumerate(results) if i != 4] == [i for i in range(len(MODELS)) if i != 4]
    assert meter.most == Counter({"a": 2, "b": 3})
