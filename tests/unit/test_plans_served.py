"""Plans while serving: further calls, slots, streams, tools, deadlines, costs, and what is remembered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core.decision_log import DecisionLog
from eccos_core.domain import (
    AnswerConfidence,
    BoolArray,
    Budget,
    Capability,
    Completion,
    EscalationRule,
    FloatArray,
    Forecast,
    Model,
    Plan,
    Policy,
    QualityFloor,
    Request,
)
from eccos_core.errors import AttemptsExhausted, BackendError, DataError, FailureKind, InfeasibleError
from eccos_core.history import MemoryHistory
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.logged_traffic import read_traffic
from eccos_core.routing.planner import NextStep, PlannedAnswer
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_core.testing.backend import Answer
from eccos_core.workload.latency import LatencyTracker

POOL = (
    Model("small", 1e-6, 1e-6, max_concurrency=2, capabilities=frozenset(Capability)),
    Model("middle", 4e-6, 4e-6, max_concurrency=2, capabilities=frozenset(Capability)),
    Model("large", 2e-5, 2e-5, max_concurrency=2, capabilities=frozenset(Capability)),
)
NAMES = tuple(model.name for model in POOL)
GOOD, DOUBTFUL = 0.9, 0.2


@dataclass(frozen=True)
class WordPlans:
    planner: WordPlanner
    forecast: Forecast
    cost_usd: FloatArray

    def value(self, usd_per_quality: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        gain, extra = self.planner.gain, self.planner.extra
        worth = usd_per_quality * gain > extra * self.cost_usd
        return self.forecast.quality + gain * worth, self.cost_usd * (1 + extra * worth), 1.0 + worth


@dataclass(frozen=True)
class WordPlanner:
    """Accept an answer with the word "sure". Otherwise ask the next model of the pool.

    A plan is worth `gain` more quality than its first call, and costs `extra` as much again.
    """

    rule: EscalationRule = field(default_factory=EscalationRule)
    gain: float = 0.1
    extra: float = 1.0

    wants_logprobs: bool = False

    def first_plans(self, forecast: Forecast, cost_usd: FloatArray, eligible: BoolArray) -> WordPlans:
        return WordPlans(self, forecast, cost_usd)

    def look_at(self, request: Request, completion: Completion, plan: Plan) -> AnswerConfidence:
        return AnswerConfidence(reward=GOOD if "sure" in completion.text else DOUBTFUL)

    def next_step(
        self, request: Request, plan: Plan, seen: Sequence[PlannedAnswer], open_models: Collection[str]
    ) -> NextStep:
        quality = tuple(each.confidence.reward or 0.0 for each in seen)
        best = int(np.argmax(quality))
        if quality[best] == GOOD or not open_models:
            return NextStep(None, best, quality, "accepted")
        return NextStep(next(iter(open_models)), best, quality, "doubtful")


def router(
    answers: dict[str, Sequence[Answer]],
    planner: WordPlanner | None = None,
    *,
    policy: Policy | None = None,
    latency: LatencyTracker | None = None,
    store: DecisionStore | None = None,
    latency_s: float = 0.0,
    usd_per_quality: float = 1e-3,
) -> tuple[Router, ScriptedBackend]:
    backend = ScriptedBackend(answers, POOL, latency_s=latency_s)
    made = scripted_router(backend, POOL, {"": [0.7, 0.72, 0.74]}, policy=policy, usd_per_quality=usd_per_quality)
    parts = replace(made.parts, planner=planner or WordPlanner())
    parts = replace(parts, latency=latency) if latency is not None else parts
    parts = replace(parts, decision_store=store) if store is not None else parts
    return Router.from_parts(parts), backend


def called(backend: ScriptedBackend) -> list[str]:
    return [model for model, _ in backend.calls]


def run(made: Router, way: str, question: str = "one two", **parameters: object) -> Completion:
    """Answer one question in one of four ways."""
    if way == "complete":
        return made.complete(question, **parameters)
    if way == "acomplete":
        return asyncio.run(made.acomplete(question, **parameters))
    if way == "stream":
        chunks = list(made.stream(question, **parameters))
    else:

        async def collect() -> list:
            return [chunk async for chunk in made.astream(question, **parameters)]

        chunks = asyncio.run(collect())
    assert [chunk.completion is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    given = chunks[-1].completion
    assert given is not None
    assert "".join(chunk.text for chunk in chunks) == given.text
    return given


WAYS = ("complete", "acomplete", "stream", "astream")


@pytest.mark.parametrize("way", WAYS)
def test_a_doubtful_answer_is_followed_by_another_call_and_the_better_one_is_given(way: str) -> None:
    made, backend = router({"small": ["well maybe"], "middle": ["sure so"], "large": ["never asked"]})
    given = run(made, way)
    assert given.text == "sure so"
    assert given.model == "middle"
    assert called(backend) == ["small", "middle"]
    assert [(call.model, call.accepted, call.why) for call in given.calls] == [
        ("small", False, "doubtful"),
        ("middle", True, "accepted"),
    ]
    assert given.cost_usd == pytest.approx(4 * 1e-6 + 4 * 4e-6)
    assert [call.cost_usd for call in given.calls] == pytest.approx([4e-6, 1.6e-5])
    assert given.attempts == 2
    assert given.confidence is not None
    assert given.confidence.quality == GOOD
    assert [call.confidence.quality for call in given.calls if call.confidence] == [DOUBTFUL, GOOD]
    assert made.workload.status().in_flight == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_sure_answer_is_given_at_once(way: str) -> None:
    made, backend = router({"small": ["sure"], "middle": ["no"], "large": ["no"]})
    given = run(made, way)
    assert (given.text, called(backend), len(given.calls)) == ("sure", ["small"], 1)


@pytest.mark.parametrize("way", WAYS)
def test_no_more_models_are_asked_than_the_rule_allows_and_the_best_answer_is_given(way: str) -> None:
    planner = WordPlanner(EscalationRule(max_calls=2))
    made, backend = router({"small": ["maybe"], "middle": ["perhaps"], "large": ["sure"]}, planner)
    given = run(made, way)
    assert called(backend) == ["small", "middle"]
    assert given.text == "maybe"


@pytest.mark.parametrize("way", WAYS)
def test_a_further_call_that_fails_leaves_the_answers_so_far(way: str) -> None:
    broken = BackendError("middle", "down", retryable=True, kind=FailureKind.UNAVAILABLE)
    made, backend = router({"small": ["maybe"], "middle": [broken], "large": ["sure"]})
    given = run(made, way)
    assert called(backend) == ["small", "middle", "large"]
    assert given.text == "sure"
    assert [call.model for call in given.calls] == ["small", "large"]
    status = {each.model: each for each in made.status().workload.models}
    assert status["middle"].failures == 1
    alone, _ = router({"small": ["maybe"], "middle": [broken], "large": [broken]})
    assert run(alone, way).text == "maybe"
    assert made.workload.status().in_flight == 0


@pytest.mark.parametrize("way", WAYS)
def test_the_first_call_falls_back_as_ever(way: str) -> None:
    broken = BackendError("small", "down", retryable=True, kind=FailureKind.UNAVAILABLE)
    made, backend = router({"small": [broken], "middle": ["sure"], "large": ["no"]})
    given = run(made, way)
    assert called(backend) == ["small", "middle"]
    assert given.attempts == 2
    assert [call.model for call in given.calls] == ["middle"]
    dead, _ = router({name: [replace_model(broken, name)] for name in NAMES})
    with pytest.raises(AttemptsExhausted):
        run(dead, way)
    assert dead.workload.status().in_flight == 0


def replace_model(error: BackendError, model: str) -> BackendError:
    return BackendError(model, "down", retryable=True, kind=error.kind)


def test_a_call_of_a_tool_is_accepted_unless_the_rule_says_otherwise() -> None:
    tool_call = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
    message = {"role": "assistant", "content": "", "tool_calls": [tool_call]}
    wants_tool = Completion("", "small", 2, 1, 1e-6, 0.0, message=message, finish_reason="tool_calls")
    script: dict[str, Sequence[Answer]] = {"small": [wants_tool], "middle": ["sure"], "large": ["sure"]}
    made, backend = router(script)
    assert made.complete("one two").model == "small"
    assert called(backend) == ["small"]
    made, backend = router(script, WordPlanner(EscalationRule(with_tools=True)))
    assert made.complete("one two").model == "middle"


def test_a_request_with_a_tool_that_the_provider_runs_is_asked_once() -> None:
    made, _ = router({name: ["sure"] for name in NAMES})
    asked = Request.of("one two", parameters={"tools": [{"type": "web_search"}]})
    assert made.decide(asked).plan is None
    assert made.decide("one two").plan is not None
    assert made.decide(Request.of("one two", parameters={"n": 2})).plan is None


def test_a_request_that_one_model_may_answer_has_no_plan() -> None:
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["sure"]})
    given = made.complete(Request.of("one two", allow=frozenset({"small"})))
    assert given.decision.plan is None
    assert given.calls == ()
    assert called(backend) == ["small"]


def test_a_plan_keeps_to_the_models_that_may_answer() -> None:
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["sure"]})
    given = made.complete(Request.of("one two", deny=frozenset({"middle"})))
    assert called(backend) == ["small", "large"]
    assert given.model == "large"


def test_an_optimistic_stream_lets_a_good_first_answer_flow() -> None:
    optimistic = WordPlanner(EscalationRule(stream="optimistic", optimistic_quality=0.7))
    made, backend = router({"small": ["maybe so"], "middle": ["sure"], "large": ["sure"]}, optimistic)
    assert run(made, "stream").text == "maybe so"
    assert called(backend) == ["small"]
    cautious = WordPlanner(EscalationRule(stream="optimistic", optimistic_quality=0.71))
    made, backend = router({"small": ["maybe so"], "middle": ["sure"], "large": ["sure"]}, cautious)
    assert run(made, "stream").text == "sure"


def test_no_model_is_asked_that_would_be_too_late() -> None:
    latency = LatencyTracker()
    for _ in range(20):
        latency.observe("middle", 50.0)
    planner = WordPlanner(EscalationRule(max_latency_s=10.0))
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["sure"]}, planner, latency=latency)
    assert made.complete("one two").model == "large"
    assert called(backend) == ["small", "large"]


def test_a_plan_ends_with_its_time() -> None:
    planner = WordPlanner(EscalationRule(max_latency_s=0.02))
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["sure"]}, planner, latency_s=0.05)
    assert made.complete("one two").model == "small"
    assert called(backend) == ["small"]


def test_a_further_call_waits_for_a_slot_no_longer_than_the_plan_has() -> None:
    planner = WordPlanner(EscalationRule(max_latency_s=0.2, max_calls=2))
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["sure"]}, planner)
    with made.workload.hold("middle"), made.workload.hold("middle"):
        started = time.monotonic()
        given = made.complete("one two")
        waited = time.monotonic() - started
    assert given.model == "large"  # the busy model is left out, the next one answers
    assert waited < 2
    assert called(backend) == ["small", "large"]


def test_one_slot_is_held_at_a_time() -> None:
    seen: list[int] = []

    def busy(text: str) -> Callable[[Request], str]:
        return lambda request: (seen.append(made.workload.status().in_flight), text)[1]

    made, _ = router({"small": [busy("maybe")], "middle": [busy("sure")], "large": ["no"]})
    made.complete("one two")
    assert seen == [1, 1]


def test_what_is_remembered_is_the_given_answer_and_the_cost_of_all_calls(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite", log_prompts=True)
    history = MemoryHistory("words:", 1)
    store = DecisionStore(history, log)
    made, _ = router({"small": ["maybe"], "middle": ["sure"], "large": ["no"]}, store=store)
    given = made.complete("one two")
    made.record(given.decision.id, 1.0)
    entry = log.entries()[0]
    assert entry.decided_model == "small"
    assert entry.model == "middle"
    assert entry.paid_usd == pytest.approx(given.cost_usd)
    assert [call.model for call in entry.calls] == ["small", "middle"]
    assert entry.calls == given.calls
    assert entry.answer_usd == pytest.approx(given.calls[1].cost_usd)
    table, _ = history.table()
    assert table.models == ("middle",)
    assert table.cost_usd is not None
    assert table.cost_usd[0, 0] == pytest.approx(given.calls[1].cost_usd)
    log.close()


def test_a_label_after_a_restart_teaches_the_cost_of_the_given_call(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite", log_prompts=True)
    made, _ = router({"small": ["maybe"], "middle": ["sure"], "large": ["no"]}, store=DecisionStore(None, log))
    given = made.complete("one two")
    history = MemoryHistory("words:", 1)
    DecisionStore(history, log).label(given.decision.id, 1.0)
    table, _ = history.table()
    assert table.cost_usd is not None
    assert table.cost_usd[0, 0] == pytest.approx(given.calls[1].cost_usd)
    log.close()


def test_a_decision_counts_what_the_plan_is_expected_to_cost_and_reach() -> None:
    made, _ = router({name: ["sure"] for name in NAMES}, usd_per_quality=1.0)
    decision = made.decide("one two")
    assert decision.plan is not None
    first = decision.plan.first_cost_usd
    assert decision.cost_usd == pytest.approx(2 * first)
    assert decision.quality == pytest.approx(decision.plan.quality)
    assert decision.plan.quality == pytest.approx(
        dict(zip(NAMES, [0.7, 0.72, 0.74], strict=True))[decision.model] + 0.1
    )
    assert [each.model for each in decision.plan.models] == list(NAMES)
    assert decision.plan.calls == 2
    assert "up to 2 more models may be asked: 2.00 calls are expected" in decision.reason


def test_a_batch_meets_its_floor_with_plans_where_single_calls_cannot() -> None:
    floor = QualityFloor(0.8)
    made, _ = router({name: ["sure"] for name in NAMES}, policy=floor)
    decisions = made.route(["one", "two", "three", "four"])
    assert np.mean([each.quality for each in decisions]) >= 0.8 - 1e-9
    assert all(each.plan is not None for each in decisions)
    single = Router.from_parts(replace(made.parts, planner=None))
    with pytest.raises(InfeasibleError):
        single.route(["one", "two", "three", "four"])


def test_a_batch_keeps_its_budget_with_plans() -> None:
    made, _ = router({name: ["sure"] for name in NAMES})
    loose = made.route(["one", "two"], policy=Budget(1.0))
    assert np.mean([each.quality for each in loose]) == pytest.approx(0.84)
    tight = made.route(["one", "two"], policy=Budget(6e-5))
    assert sum(each.cost_usd for each in tight) <= 6e-5 + 1e-12


def test_a_batch_is_answered_by_its_plans() -> None:
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["sure"]}, policy=QualityFloor(0.5))
    given = made.complete_batch(["one", "two"])
    assert [each.text for each in given] == ["sure", "sure"]
    assert [len(each.calls) for each in given] == [2, 2]
    assert called(backend).count("small") == 2


def test_a_cancelled_plan_releases_its_slot() -> None:
    made, backend = router({"small": ["maybe"], "middle": ["sure"], "large": ["no"]}, latency_s=0.2)

    async def cancel() -> None:
        task = asyncio.create_task(made.acomplete("one two"))
        await asyncio.sleep(0.3)  # the first call takes 0.2 s
        assert called(backend) == ["small", "middle"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert made.workload.status().in_flight == 0


def test_a_replay_leaves_plans_of_several_calls_out(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite", log_prompts=True)
    doubtful: list[Answer] = ["maybe", "sure", "sure"]
    made, _ = router({"small": doubtful, "middle": ["sure"], "large": ["no"]}, store=DecisionStore(None, log))
    for question in ("one", "two", "three"):
        made.complete(question)
    log.flush()
    traffic = read_traffic(log, NAMES)
    assert len(traffic.entries) == 3
    assert len(traffic.of_single_calls().entries) == 2
    only = replace(traffic, entries=traffic.entries[:1])
    with pytest.raises(DataError, match="plan of several calls"):
        only.of_single_calls()
    log.close()
