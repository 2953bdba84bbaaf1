"""What every `Backend` promises, over every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eccos_core.backends import LiteLLMBackend, LocalBackend, PerModelBackend, RetryingBackend
from eccos_core.backends.logprobs import LogprobBackend
from eccos_core.config.schema import Deployment
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, EccosError, UnknownModelError
from eccos_core.protocols import Backend
from eccos_core.testing import ModelServer, ScriptedBackend, build_tiny_model

MODELS = [Model("good", 1e-6, 2e-6), Model("failing", 1e-6, 2e-6)]


@dataclass(frozen=True)
class Case:
    """A backend whose model "good" answers and whose model "failing" fails for good."""

    backend: Backend


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(
    params=[
        "scripted",
        "http",
        "local",
        "local through litellm",
        "per model",
        "retrying http",
        "logprobs http",
        "logprobs local",
    ]
)
def case(request: pytest.FixtureRequest) -> Case:
    kind = request.param
    if kind == "scripted":
        failure = BackendError("failing", "scripted", retryable=False, kind="not_found")
        return Case(ScriptedBackend({"good": ["an answer of words"], "failing": [failure]}, MODELS))
    if kind in ("local", "per model", "logprobs local"):
        places = {"good": str(request.getfixturevalue("folder")), "failing": "/nowhere"}
        local = LocalBackend(places, MODELS, parameters={"good": {"max_tokens": 8}})
        ways = {"local": local, "logprobs local": LogprobBackend(local)}
        return Case(ways.get(kind) or PerModelBackend(dict.fromkeys(places, local)))
    if kind == "local through litellm":
        good = Deployment(f"eccos-local/{request.getfixturevalue('folder')}", {"max_tokens": 8})
        return Case(LiteLLMBackend({"good": [good], "failing": [Deployment("eccos-local//nowhere", {})]}, MODELS))
    running = request.getfixturevalue("server")
    way = {"api_base": running.url, "api_key": "none"}
    nowhere = {"api_base": f"{running.url}/nowhere", "api_key": "none"}
    backend = LiteLLMBackend(
        {"good": [Deployment("openai/x", way)], "failing": [Deployment("openai/x", nowhere)]}, MODELS
    )
    if kind == "logprobs http":
        return Case(LogprobBackend(backend))
    return Case(RetryingBackend(backend) if kind.startswith("retrying") else backend)


REQUEST = Request.of("Please tell me something.")


async def four_ways(backend: Backend) -> list[Completion]:
    streamed = list(backend.stream("good", REQUEST))[-1].completion
    astreamed = [chunk async for chunk in backend.astream("good", REQUEST)][-1].completion
    assert streamed is not None
    assert astreamed is not None
    return [backend.complete("good", REQUEST), await backend.acomplete("good", REQUEST), streamed, astreamed]


def test_it_is_a_backend(case: Case) -> None:
    assert isinstance(case.backend, Backend)


async def test_all_four_ways_give_the_same_answer_with_usage_and_cost(case: Case) -> None:
    completions = await four_ways(case.backend)
    assert len({completion.text for completion in completions}) == 1
    for completion in completions:
        assert completion.text
        assert completion.model == "good"
        assert completion.input_tokens > 0
        assert completion.output_tokens > 0
        expected = completion.input_tokens * 1e-6 + completion.output_tokens * 2e-6
        assert completion.cost_usd == pytest.approx(expected)
        assert completion.latency_s >= 0
        assert completion.message["content"] == completion.text
        assert completion.finish_reason in {"stop", "length"}
        assert completion.attempts == 1


async def test_the_chunks_make_the_text_and_only_the_last_carries_the_completion(case: Case) -> None:
    def check(chunks: list[Chunk]) -> None:
        *pieces, end = chunks
        assert pieces
        assert all(piece.completion is None for piece in pieces)
        assert end.completion is not None
        assert "".join(chunk.text for chunk in chunks) == end.completion.text

    check(list(case.backend.stream("good", REQUEST)))
    check([chunk async for chunk in case.backend.astream("good", REQUEST)])


async def test_a_failure_is_a_backend_error_of_that_model(case: Case) -> None:
    async def astream() -> None:
        async for _ in case.backend.astream("failing", REQUEST):
            pass

    for failing in (
        lambda: case.backend.complete("failing", REQUEST),
        lambda: list(case.backend.stream("failing", REQUEST)),
    ):
        with pytest.raises(BackendError) as caught:
            failing()
        assert (caught.value.model, caught.value.retryable, caught.value.kind) == ("failing", False, "not_found")
    with pytest.raises(BackendError):
        await case.backend.acomplete("failing", REQUEST)
    with pytest.raises(BackendError):
        await astream()


async def test_a_model_that_it_does_not_have_is_named(case: Case) -> None:
    with pytest.raises(UnknownModelError, match="nobody"):
        case.backend.complete("nobody", REQUEST)
    with pytest.raises(EccosError, match="nobody"):
        await case.backend.acomplete("nobody", REQUEST)


async def test_it_serves_threads_and_tasks_at_once(case: Case) -> None:
    expected = case.backend.complete("good", REQUEST).text
    threads = [asyncio.to_thread(case.backend.complete, "good", REQUEST) for _ in range(5)]
    tasks = [case.backend.acomplete("good", REQUEST) for _ in range(5)]
    completions = await asyncio.gather(*threads, *tasks)
    assert {completion.text for completion in completions} == {expected}


async def test_a_stream_may_be_left_at_any_chunk(case: Case) -> None:
    stream = case.backend.stream("good", REQUEST)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    astream = case.backend.astream("good", REQUEST)
    await anext(astream)
    await astream.aclose()  # type: ignore[attr-defined]
    assert case.backend.complete("good", REQUEST).text
