"""What mypy must say of the public API. Nothing here runs.

`test_public_types.py` gives this file to `mypy --strict`.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import assert_type

from langchain_core.messages import AIMessage, AIMessageChunk
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from eccos_core import (
    Assignment,
    Budget,
    Chunk,
    Completion,
    Decision,
    EccosError,
    Forecast,
    Model,
    Outcome,
    Parts,
    QualityFloor,
    QualityPrice,
    Request,
    Router,
    RouterStatus,
    RoutingProblem,
)
from eccos_core.collecting import CollectEvent, CollectReport, Question, collect
from eccos_core.config import Config
from eccos_core.protocols import Backend, Encoder, Optimizer, Predictor, Steering, Workload
from eccos_core.testing import ScriptedBackend
from eccos_integrations.langchain import ChatEccos, EccosRouter
from eccos_integrations.llama_index import EccosLLM

MODELS = [Model("small", 1e-7, 4e-7), Model("large", 3e-6, 1.5e-5)]


def build(predictor: Predictor, backend: Backend, steering: Steering, workload: Workload, encoder: Encoder) -> None:
    assert_type(Router(models=MODELS, predictor=predictor, backend=backend), Router)
    assert_type(Router(MODELS, predictor, backend, policy=QualityFloor(0.75, on_infeasible="best_effort")), Router)
    assert_type(Router(MODELS, predictor, backend, encoder=encoder, steering=steering, workload=workload), Router)
    assert_type(Router.from_yaml("eccos.yaml"), Router)
    assert_type(Router.from_yaml(Path("eccos.yaml"), reload=True, progress=print), Router)
    assert_type(Router.shared("eccos.yaml"), Router)
    with Router.from_yaml("eccos.yaml") as router:
        assert_type(router, Router)


async def build_later() -> None:
    async with Router.from_yaml("eccos.yaml") as router:
        assert_type(router, Router)
    assert_type(await router.aclose(), None)


def change(router: Router) -> None:
    assert_type(router.parts, Parts)
    assert_type(router.parts.models, tuple[Model, ...])
    assert_type(router.parts.optimizer, Optimizer)
    assert_type(router.swap(router.parts), None)
    assert_type(router.reload(), bool)
    assert_type(router.problem, str | None)
    assert_type(router.close(), None)


def decide(router: Router, policy: Budget | QualityFloor | QualityPrice) -> None:
    request = Request.of("What is the capital of Japan?", max_output_tokens=8)
    assert_type(request, Request)
    assert_type(router.decide(request), Decision)
    assert_type(router.route(["one", request, [{"role": "user", "content": "three"}]], policy=policy), list[Decision])
    assert_type(router.route_each(["one"], policy=Budget(2.0)), list[Decision | EccosError])
    assert_type(router.decide("one").model, str)
    assert_type(router.decide("one").reason, str)


def complete(router: Router) -> None:
    answer = router.complete("What is the capital of Japan?", max_tokens=16)
    assert_type(answer, Completion)
    assert_type(answer.text, str)
    assert_type(answer.cost_usd, float)
    assert_type(answer.decision, Decision)
    assert_type(answer.decision.id, str)
    assert_type(router.complete("again", decision=answer.decision), Completion)
    assert_type(router.stream("one"), Iterator[Chunk])
    for chunk in router.stream("one", max_tokens=8):
        assert_type(chunk.text, str)
        assert_type(chunk.completion, Completion | None)


async def complete_later(router: Router) -> None:
    assert_type(await router.acomplete("one", max_tokens=16), Completion)
    assert_type(router.astream("one"), AsyncIterator[Chunk])
    async for chunk in router.astream("one"):
        assert_type(chunk, Chunk)


def complete_a_batch(router: Router, questions: Sequence[str], keep_errors: bool) -> None:
    assert_type(router.complete_batch(questions), list[Completion])
    assert_type(router.complete_batch(questions, return_exceptions=False), list[Completion])
    assert_type(router.complete_batch(questions, return_exceptions=True), list[Completion | EccosError])
    assert_type(
        router.complete_batch(questions, return_exceptions=keep_errors),
        list[Completion] | list[Completion | EccosError],
    )
    assert_type(router.complete_batch(questions)[0].decision, Decision)


async def complete_a_batch_later(router: Router, questions: Sequence[str]) -> None:
    assert_type(await router.acomplete_batch(questions), list[Completion])
    assert_type(await router.acomplete_batch(questions, return_exceptions=True), list[Completion | EccosError])


def record(router: Router, decision: Decision) -> None:
    assert_type(router.record(decision.id, quality=1.0), None)
    assert_type(router.status(), RouterStatus)
    assert_type(router.status().workload.in_flight, int)


def policies() -> None:
    assert_type(QualityFloor(0.8), QualityFloor)
    assert_type(QualityFloor(0.8).alpha, float)
    assert_type(Budget(2.0), Budget)
    assert_type(QualityPrice(1e-3), QualityPrice)


def swap_a_part(optimizer: Optimizer, problem: RoutingProblem, forecast: Forecast) -> None:
    assert_type(optimizer.solve(problem), Assignment)
    assert_type(forecast.models, tuple[str, ...])
    backend: Backend = ScriptedBackend({"small": ["fine"]})
    assert_type(backend.complete("small", Request.of("one")), Completion)
    assert_type(Outcome("q1", "What is 1 + 1?", "small", 1.0), Outcome)


def hear_of_progress(config: Config) -> None:
    from eccos_core.workflows.fit import fit_to_folder

    def say(text: str) -> None:
        assert_type(text, str)

    fit_to_folder(config, progress=say)


async def hear_of_collecting(questions: Sequence[Question], backend: Backend) -> None:
    def observe(event: CollectEvent) -> None:
        assert_type(event.spent_usd, float)

    assert_type(await collect(questions, MODELS, backend, Path("outcomes.jsonl"), observe=observe), CollectReport)


def langchain(model: ChatEccos) -> None:
    assert_type(ChatEccos(config="eccos.yaml"), ChatEccos)
    assert_type(model.invoke("one"), AIMessage)
    assert_type(model.batch(["one", "two"]), list[AIMessage])
    assert_type(model.router, Router)
    for chunk in model.stream("one"):
        assert_type(chunk, AIMessageChunk)
    assert_type(EccosRouter(config="eccos.yaml").invoke("one"), Decision)


async def langchain_later(model: ChatEccos) -> None:
    assert_type(await model.ainvoke("one"), AIMessage)


def llama_index(llm: EccosLLM) -> None:
    assert_type(EccosLLM(config="eccos.yaml"), EccosLLM)
    assert_type(llm.complete("one"), CompletionResponse)
    assert_type(llm.chat([]), ChatResponse)


async def llama_index_later(llm: EccosLLM) -> None:
    assert_type(await llm.acomplete("one"), CompletionResponse)
