"""The router over a scripted backend: deciding, holding, falling back, streaming, batches, labels."""

import asyncio
import contextlib
import gc
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from eccos_core.domain import Capability, Model, Outcome, QualityFloor, Request
from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    InfeasibleError,
    InputError,
    NoEligibleModelError,
    Overloaded,
    RequestError,
    StreamInterrupted,
    UnknownDecisionError,
)
from eccos_core.protocols import HistoryNeighbors
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router

SMALL = Model("small", 1e-6, 1e-6, max_concurrency=4)
LARGE = Model("large", 1e-5, 1e-5, max_concurrency=4)
POOL = (SMALL, LARGE)
QUALITY = {"easy": [0.9, 0.95], "hard": [0.1, 0.9], "": [0.6, 0.8]}
PRICE = 1e-3  # USD per unit of quality: large is worth it for hard questions, not for easy ones


def busy(model: str, kind: str = "rate_limit") -> BackendError:
    return BackendError(model, "busy", retryable=True, kind=kind)


def router_with(answers: dict[str, list[Any]] | None = None, **settings: Any) -> tuple[Router, ScriptedBackend]:
    latency_s = settings.pop("latency_s", 0.0)
    models = settings.pop("models", POOL)
    backend = ScriptedBackend(
        answers or {"small": ["from small"], "large": ["from large"]}, models, latency_s=latency_s
    )
    settings.setdefault("usd_per_quality", PRICE)
    return scripted_router(backend, models, QUALITY, **settings), backend


def nothing_held(router: Router) -> bool:
    return list(router.workload.free_slots()) == [model.max_concurrency for model in router.models]


# ------------------------------------------------------------------------------------------------ deciding


def test_an_easy_question_goes_to_the_cheap_model_and_a_hard_one_to_the_good_one() -> None:
    router, backend = router_with()
    assert router.decide("an easy one").model == "small"
    assert router.decide("a hard one").model == "large"
    assert backend.calls == []
    assert nothing_held(router)


def test_a_batch_meets_its_floor_at_least_cost() -> None:
    router, _ = router_with(policy=QualityFloor(0.7))
    made = router.route(["easy 1", "easy 2", "hard 1", "hard 2"])
    # both easy ones on small and one hard one on large: (0.9 + 0.9 + 0.1 + 0.9) / 4 = 0.7
    assert Counter(decision.model for decision in made) == {"small": 3, "large": 1}
    assert np.mean([decision.quality for decision in made]) >= 0.7


def test_a_batch_keeps_to_the_caps() -> None:
    router, _ = router_with(policy=QualityFloor(0.5))
    made = router.route([f"easy {i}" for i in range(6)])
    assert Counter(decision.model for decision in made)["small"] == 4


def test_a_batch_larger_than_all_slots_runs_in_waves() -> None:
    router, backend = router_with(policy=QualityFloor(0.5))
    completions = router.complete_batch([f"easy {i}" for i in range(20)])
    assert len(completions) == 20
    # 8 slots, so 3 waves: at most 3 x 4 on each model
    assert Counter(model for model, _ in backend.calls) == {"small": 12, "large": 8}
    assert nothing_held(router)


def test_a_batch_on_a_busy_pool_is_planned_on_the_full_caps_and_waits() -> None:
    router, backend = router_with(policy=QualityFloor(0.5), deadline_s=30)
    with contextlib.ExitStack() as others:
        for name in ("small", "large"):
            for _ in range(4):
                others.enter_context(router.workload.hold(name))
        assert Counter(decision.model for decision in router.route(["easy 1", "easy 2"])) == {"small": 2}
        threading.Timer(0.05, others.pop_all().close).start()
        assert len(router.complete_batch(["easy 1", "easy 2"])) == 2
    assert [model for model, _ in backend.calls] == ["small", "small"]
    assert nothing_held(router)


def test_a_floor_out_of_reach_says_what_is_attainable_and_best_effort_says_that_it_was_not_met() -> None:
    router, _ = router_with()
    with pytest.raises(InfeasibleError) as caught:
        router.route(["a hard one"], policy=QualityFloor(0.99))
    assert caught.value.attainable == pytest.approx(0.9)
    decision = router.route(["a hard one"], policy=QualityFloor(0.99, on_infeasible="best_effort"))[0]
    assert decision.model == "large"
    assert not decision.floor_met


def test_a_request_that_nobody_may_answer_says_why() -> None:
    router, _ = router_with()
    with pytest.raises(NoEligibleModelError, match="cannot do vision"):
        router.route([Request.of("look", needs=frozenset({Capability.VISION}))])


@pytest.mark.parametrize("nothing", ["", "   ", [], (), 7, [{"content": "no role"}]])
def test_a_request_that_is_none_is_refused(nothing: Any) -> None:
    router, _ = router_with()
    with pytest.raises(RequestError):
        router.route([nothing])


def test_an_empty_batch_is_answered_with_nothing() -> None:
    router, _ = router_with()
    assert router.route([]) == []
    assert router.complete_batch([]) == []


def test_min_quality_of_one_request_is_respected() -> None:
    router, _ = router_with()
    assert router.decide(Request.of("easy", min_quality=0.92)).model == "large"


# ------------------------------------------------------------------------------------------------ calling


def test_a_completion_carries_its_decision_and_parameters_are_passed_on() -> None:
    router, backend = router_with()
    completion = router.complete("an easy one", temperature=0.5, max_tokens=9)
    assert completion.text == "from small"
    assert completion.decision is not None
    assert completion.decision.model == "small"
    assert backend.calls[0][1].parameters == {"temperature": 0.5, "max_tokens": 9}
    assert nothing_held(router)


def test_a_model_that_fails_is_followed_by_the_next_best() -> None:
    router, backend = router_with({"small": [busy("small")], "large": ["from large"]})
    completion = router.complete("an easy one")
    assert (completion.model, completion.text, completion.attempts) == ("large", "from large", 2)
    assert completion.decision is not None
    assert completion.decision.model == "small"
    assert [model for model, _ in backend.calls] == ["small", "large"]
    assert nothing_held(router)


def test_a_fallback_never_goes_where_the_request_may_not_go() -> None:
    router, backend = router_with({"small": [busy("small")], "large": ["from large"]})
    with pytest.raises(AttemptsExhausted) as caught:
        router.complete(Request.of("an easy one", allow=frozenset({"small"})))
    assert [attempt.model for attempt in caught.value.attempts] == ["small"]
    assert [model for model, _ in backend.calls] == ["small"]
    assert nothing_held(router)


def test_when_all_fail_every_attempt_is_listed() -> None:
    router, _ = router_with({"small": [busy("small")], "large": [busy("large", "timeout")]})
    with pytest.raises(AttemptsExhausted, match=r"small .*large"):
        router.complete("an easy one")
    assert nothing_held(router)


def test_a_bad_request_is_not_tried_elsewhere() -> None:
    error = BackendError("small", "no such parameter", retryable=False, kind="bad_request")
    router, backend = router_with({"small": [error], "large": ["from large"]})
    with pytest.raises(BackendError, match="no such parameter"):
        router.complete("an easy one")
    assert len(backend.calls) == 1
    assert nothing_held(router)


def test_a_busy_model_is_passed_over() -> None:
    router, _ = router_with()
    with router.workload.hold("small"), router.workload.hold("small"):
        with router.workload.hold("small"), router.workload.hold("small"):
            assert router.complete("an easy one").model == "large"
        assert router.complete("an easy one").model == "small"


def test_when_every_model_stays_busy_the_deadline_ends_the_wait() -> None:
    models = (Model("small", 1e-6, 1e-6, max_concurrency=1),)
    backend = ScriptedBackend({"small": ["hi"]}, models)
    router = scripted_router(backend, models, {"": [0.5]}, deadline_s=0.05)
    with router.workload.hold("small"), pytest.raises(Overloaded):
        router.complete("anything")
    assert router.complete("anything").text == "hi"


def test_who_waits_is_served_when_a_slot_is_free() -> None:
    models = (Model("small", 1e-6, 1e-6, max_concurrency=1),)
    backend = ScriptedBackend({"small": ["hi"]}, models)
    router = scripted_router(backend, models, {"": [0.5]}, deadline_s=30)
    answered: list[str] = []
    with router.workload.hold("small"):
        waiting = threading.Thread(target=lambda: answered.append(router.complete("anything").text))
        waiting.start()
        time.sleep(0.05)
        assert answered == []
    waiting.join(timeout=30)
    assert answered == ["hi"]


async def test_the_asynchronous_twins_do_the_same() -> None:
    router, _ = router_with({"small": [busy("small"), "from small"], "large": ["from large"]})
    assert (await router.acomplete("an easy one")).model == "large"
    completions = await router.acomplete_batch(["easy", "easy"], policy=QualityFloor(0.0))
    assert [completion.model for completion in completions] == ["small", "small"]  # type: ignore[union-attr]
    assert nothing_held(router)


async def test_a_cancelled_call_gives_its_slot_back() -> None:
    router, backend = router_with(latency_s=30.0)
    task = asyncio.create_task(router.acomplete("an easy one"))
    while not backend.calls:  # noqa: ASYNC110  # the backend under test has no event to wait for
        await asyncio.sleep(0.001)
    assert not nothing_held(router)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nothing_held(router)


def test_a_batch_gives_errors_in_their_place_or_raises_the_first() -> None:
    error = BackendError("small", "no such parameter", retryable=False, kind="bad_request")
    for keep in (True, False):
        router, _ = router_with({"small": [error], "large": ["from large"]}, policy=QualityFloor(0.9))
        requests = ["easy", "hard"]
        if keep:
            first, second = router.complete_batch(requests, return_exceptions=True)
            assert isinstance(first, BackendError)
            assert getattr(second, "text", None) == "from large"
        else:
            with pytest.raises(BackendError):
                router.complete_batch(requests)
        assert nothing_held(router)


def test_many_threads_never_pass_a_cap() -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def meter(name: str) -> Any:
        def answer(_: Request) -> str:
            with lock:
                running[name] += 1
                most[name] = max(most[name], running[name])
            time.sleep(0.002)
            with lock:
                running[name] -= 1
            return name

        return answer

    router, _ = router_with({"small": [meter("small")], "large": [meter("large")]}, deadline_s=60.0)
    threads = [threading.Thread(target=lambda: [router.complete("easy") for _ in range(5)]) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most["small"] <= 4
    assert most["large"] <= 4
    assert nothing_held(router)


# ------------------------------------------------------------------------------------------------ streams


def test_a_stream_ends_with_its_completion() -> None:
    router, _ = router_with()
    chunks = list(router.stream("an easy one"))
    assert "".join(chunk.text for chunk in chunks) == "from small"
    completion = chunks[-1].completion
    assert completion is not None
    assert completion.decision is not None
    assert completion.decision.model == "small"
    assert nothing_held(router)


def test_a_stream_that_fails_before_its_first_token_goes_elsewhere() -> None:
    router, _ = router_with({"small": [busy("small")], "large": ["from large"]})
    assert "".join(chunk.text for chunk in router.stream("an easy one")) == "from large"
    assert nothing_held(router)


def test_a_stream_that_breaks_half_way_is_not_restarted() -> None:
    broken = StreamInterrupted("small", "reset by peer", received="half an")
    router, backend = router_with({"small": [broken], "large": ["from large"]})
    got: list[str] = []
    with pytest.raises(StreamInterrupted, match="7 characters"):
        got.extend(chunk.text for chunk in router.stream("an easy one"))
    assert "".join(got).strip() == "half an"
    assert len(backend.calls) == 1
    assert nothing_held(router)


def test_a_stream_dropped_half_way_gives_its_slot_back() -> None:
    router, _ = router_with()
    stream = router.stream("an easy one")
    next(stream)
    assert not nothing_held(router)
    del stream
    gc.collect()
    assert nothing_held(router)


async def test_an_asynchronous_stream_closed_early_gives_its_slot_back() -> None:
    router, _ = router_with()
    stream = router.astream("an easy one")
    assert (await anext(stream)).text
    assert not nothing_held(router)
    await stream.aclose()  # type: ignore[attr-defined]
    assert nothing_held(router)


# ------------------------------------------------------------------------------------------------ labels


class NotingHistory:
    """A history that notes what it is given."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def add(self, outcomes: Any, vectors: Any) -> int:
        assert len(outcomes) == len(vectors)
        self.outcomes.extend(outcomes)
        return len(outcomes)

    def nearest(self, vectors: Any, k: int) -> HistoryNeighbors:
        raise AssertionError("not asked here")

    def table(self) -> Any:
        raise AssertionError("not asked here")


def test_a_label_makes_an_outcome_of_the_model_that_answered() -> None:
    history = NotingHistory()
    router, _ = router_with({"small": [busy("small")], "large": ["from large"]}, history=history)
    completion = router.complete("an easy one")
    assert completion.decision is not None
    router.record(completion.decision.id, 0.5)
    outcome = history.outcomes[0]
    assert (outcome.query, outcome.model, outcome.quality) == ("an easy one", "large", 0.5)
    assert outcome.output_tokens == completion.output_tokens


def test_a_label_needs_a_known_decision_and_a_quality_between_0_and_1() -> None:
    router, _ = router_with()
    decision = router.decide("an easy one")
    for quality in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="must be in"):
            router.record(decision.id, quality)
    with pytest.raises(UnknownDecisionError, match="'nobody'"):
        router.record("nobody", 1.0)
    router.record(decision.id, 1)  # without a history there is nothing to add, and nothing to complain about


def test_a_conversation_stays_while_leaving_costs_more_than_it_saves() -> None:
    cheap = Model("small", 1e-6, 1e-6)
    caching = Model("large", 1.05e-6, 1e-6, usd_per_cached_input_token=1e-7)
    backend = ScriptedBackend({"small": ["a"], "large": ["b"]}, (cheap, caching))
    router = scripted_router(backend, (cheap, caching), {"": [0.8, 0.8], "hard": [0.1, 0.9]}, usd_per_quality=1e-3)
    long = "word " * 400
    assert router.complete(Request.of(long)).model == "small"
    assert router.complete(Request.of(f"hard {long}", session_id="s")).model == "large"
    assert router.complete(Request.of(long, session_id="s")).model == "large"
    assert router.complete(Request.of(long, session_id="t")).model == "small"


def test_a_batch_that_only_one_model_may_answer_runs_in_as_many_waves_as_that_model_needs() -> None:
    router, _ = router_with(policy=QualityFloor(0.0))
    alone = [Request.of(f"hard {i}", allow=frozenset({"large"})) for i in range(14)]
    others = [Request.of(f"hard {i}") for i in range(6)]
    # 20 requests on 8 slots would be 3 waves; 14 of them on the 4 slots of large are 4
    made = router.route(alone + others)
    assert Counter(decision.model for decision in made) == {"large": 14, "small": 6}


# ------------------------------------------------------------------------------------------------ decided before


def test_a_decision_made_before_is_called_as_it_is() -> None:
    router, backend = router_with()
    made = router.route(["a hard one"], policy=QualityFloor(0.85))[0]
    assert made.model == "large"
    request = Request.of("an easy one")  # would go to small if it were decided now
    assert router.complete(request, decision=made).decision == made
    assert asyncio.run(router.acomplete(request, decision=made)).model == "large"
    assert list(router.stream(request, decision=made))[-1].completion is not None
    assert [model for model, _ in backend.calls] == ["large"] * 3
    assert nothing_held(router)


def test_a_request_that_no_model_may_answer_is_refused_in_its_place() -> None:
    router, _ = router_with(policy=QualityFloor(0.7))
    requests = [
        Request.of("easy 1"),
        Request.of("hard 1", allow=frozenset({"small"}), min_quality=0.5),
        Request.of("hard 2", needs=frozenset({Capability.VISION})),
        Request.of("hard 3"),
    ]
    easy, too_good, blind, hard = router.route_each(requests)
    assert isinstance(too_good, InfeasibleError)
    assert isinstance(blind, NoEligibleModelError)
    # the two that are left meet the floor between them: (0.9 + 0.9) / 2, or (0.9 + 0.1) / 2 which is too little
    assert (easy.model, hard.model) == ("small", "large")  # type: ignore[union-attr]


def test_a_floor_out_of_reach_for_all_is_raised_also_by_route_each() -> None:
    router, _ = router_with()
    with pytest.raises(InfeasibleError, match="out of reach"):
        router.route_each(["easy 1", "hard 1"], policy=QualityFloor(0.99))


# ------------------------------------------------------------------------------------------------ steered streams


def steered(target: Any, usd_per_quality: float = 0.0, **settings: Any) -> Router:
    from eccos_core.streaming import FixedPrice, InitialPrices, StreamController
    from eccos_core.testing import TablePredictor, WordEncoder

    backend = ScriptedBackend({"small": ["s"], "large": ["l"]}, POOL)
    return Router(
        POOL,
        TablePredictor(["small", "large"], np.array([QUALITY["easy"], QUALITY["hard"], QUALITY[""]])),
        backend,
        encoder=WordEncoder(["easy", "hard"]),
        steering=StreamController(target, InitialPrices(usd_per_quality)),
        tenant_steering={name: FixedPrice(price) for name, price in settings.items()},
        policy=QualityFloor(0.5),
    )


def test_a_stream_keeps_its_floor_in_the_worst_order() -> None:
    from eccos_core.streaming import FloorTarget

    router = steered(FloorTarget(0.8))
    made = [router.decide("easy" if i < 600 else "hard") for i in range(1200)]
    running = np.cumsum([decision.quality for decision in made]) / np.arange(1, 1201)
    assert (running[500:] >= 0.79).all()


def test_a_budget_rate_is_kept_in_real_usd() -> None:
    from eccos_core.streaming import RateTarget

    rate = 6e-5  # USD per request: between what small and large cost
    router = steered(RateTarget(rate), usd_per_quality=1.0)
    paid = [router.complete("a hard one").cost_usd for _ in range(400)]
    assert sum(paid) <= 1.01 * rate * 400


def test_a_tenant_may_have_a_price_of_its_own() -> None:
    from eccos_core.streaming import FloorTarget

    router = steered(FloorTarget(0.1), patron=1e3)
    assert router.decide(Request.of("hard", tenant="patron")).model == "large"
    assert router.decide(Request.of("hard", tenant="anybody else")).model == "small"


# ------------------------------------------------------------------------------------------------ one window


def windowed(pool: tuple[Model, ...], answers: dict[str, list[Any]], **settings: Any) -> tuple[Router, ScriptedBackend]:
    backend = ScriptedBackend(answers, pool, latency_s=0.01)
    alone = scripted_router(backend, pool, QUALITY, usd_per_quality=PRICE)
    return Router.from_parts(replace(alone.parts, window_s=0.05, **settings)), backend


async def test_what_arrives_in_one_window_is_decided_together_and_keeps_to_the_caps() -> None:
    pool = (Model("small", 1e-6, 1e-6, max_concurrency=2), Model("large", 1e-5, 1e-5, max_concurrency=2))
    router, backend = windowed(pool, {"small": ["s"], "large": ["l"]})
    completions = await asyncio.gather(*(router.acomplete(f"easy {i}") for i in range(8)))
    assert {completion.text for completion in completions} <= {"s", "l"}
    assert len(backend.calls) == 8
    assert nothing_held(router)


async def test_one_bad_request_in_a_window_fails_alone() -> None:
    router, _ = windowed(POOL, {"small": ["s"], "large": ["l"]})
    wants_eyes = Request.of("easy", needs=frozenset({Capability.VISION}))
    wants_much = Request.of("easy", min_quality=0.999)
    results = await asyncio.gather(
        *(router.acomplete(each) for each in ("easy", wants_eyes, wants_much)), return_exceptions=True
    )
    assert getattr(results[0], "text", None) == "s"
    assert isinstance(results[1], NoEligibleModelError)
    assert isinstance(results[2], InfeasibleError)
    assert nothing_held(router)


def test_a_window_serves_threads_and_streams_too() -> None:
    router, _ = windowed(POOL, {"small": ["from small"], "large": ["from large"]})
    assert router.complete("easy").text == "from small"
    assert "".join(chunk.text for chunk in router.stream("hard")) == "from large"
    assert nothing_held(router)


def test_when_the_line_is_full_a_request_is_refused_at_once() -> None:
    from eccos_core.workload import WorkloadTracker

    models = (Model("small", 1e-6, 1e-6, max_concurrency=1),)
    backend = ScriptedBackend({"small": ["hi"]}, models)
    router = scripted_router(backend, models, {"": [0.5]}, deadline_s=30)
    router.swap(replace(router.parts, workload=WorkloadTracker(models, queue_length=1)))
    with router.workload.hold("small"):
        waiting = threading.Thread(target=lambda: router.complete("first in line"))
        waiting.start()
        while router.workload.status().waiting < 1:
            time.sleep(0.001)
        with pytest.raises(Overloaded, match="queue_length"):
            router.complete("one too many")
    waiting.join(timeout=30)
    assert [request.messages[0]["content"] for _, request in backend.calls] == ["first in line"]
