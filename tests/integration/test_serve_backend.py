"""The LiteLLM backend against a real OpenAI-compatible server on loopback: parameters, usage, cost, faults."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from eccos_core.backends import LiteLLMBackend, RetryingBackend, RetryPolicy
from eccos_core.config.schema import Deployment
from eccos_core.domain import Chunk, Completion, Deadline, Model, Request
from eccos_core.errors import BackendError, InputError, StreamInterrupted, UnknownModelError
from eccos_core.io.tokens import count_text_tokens, count_tokens
from eccos_core.testing import ModelServer

KEY = "sk-integration-0123456789abcdef"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def backend(server: ModelServer) -> LiteLLMBackend:
    def deployment(model: str = "openai/served", **parameters: Any) -> Deployment:
        return Deployment(model, {"api_base": server.url, "api_key": KEY, **parameters})

    ways = {
        "m": [deployment()],
        "limited": [deployment(max_tokens=2)],
        "known": [deployment("openai/gpt-4o")],
        "wrong-key": [deployment(api_key="sk-wrong-0123456789abcdef")],
        "wrong-base": [deployment(api_base="http://127.0.0.1:9/v1")],
        "unknown-provider": [Deployment("nobody-knows/this", {})],
    }
    priced = {"usd_per_input_token": 1e-6, "usd_per_output_token": 2e-6}
    special = {"usd_per_cached_input_token": 5e-7, "usd_per_reasoning_token": 3e-6}
    return LiteLLMBackend(ways, [Model(name, **priced, **special) for name in ways])


def ask(text: str, **parameters: Any) -> Request:
    return Request.of(text, parameters=parameters)


def last(chunks: list[Chunk]) -> Completion:
    assert chunks[-1].completion is not None
    return chunks[-1].completion


async def call(backend: Any, way: str, request: Request, model: str = "m") -> Completion:
    """The completion by one of the four ways of calling."""
    match way:
        case "complete":
            completion = await asyncio.to_thread(backend.complete, model, request)
        case "acomplete":
            completion = await backend.acomplete(model, request)
        case "stream":
            completion = last(await asyncio.to_thread(lambda: list(backend.stream(model, request))))
        case _:
            completion = last([chunk async for chunk in backend.astream(model, request)])
    assert isinstance(completion, Completion)
    return completion


WAYS = pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "astream"])


@WAYS
async def test_an_answer_with_usage_cost_and_latency(backend: LiteLLMBackend, way: str) -> None:
    completion = await call(backend, way, ask("good morning"))
    assert completion.text == "You said: good morning"
    assert (completion.input_tokens, completion.output_tokens) == (2, 4)
    assert completion.cost_usd == pytest.approx(2 * 1e-6 + 4 * 2e-6)
    assert completion.latency_s > 0
    assert completion.finish_reason == "stop"
    assert completion.message["role"] == "assistant"
    if "stream" in way:
        assert completion.time_to_first_token_s is not None
        assert 0 < completion.time_to_first_token_s <= completion.latency_s


@WAYS
async def test_cached_and_reasoning_tokens_have_their_own_prices(backend: LiteLLMBackend, way: str) -> None:
    completion = await call(backend, way, ask("[[tokens 100 20]] [[cached 60]] [[reasoning 5]] hi"))
    assert (completion.cached_input_tokens, completion.reasoning_tokens) == (60, 5)
    assert completion.cost_usd == pytest.approx(40 * 1e-6 + 60 * 5e-7 + 15 * 2e-6 + 5 * 3e-6)


@WAYS
async def test_a_model_that_litellm_has_a_price_for_costs_what_litellm_says(backend: LiteLLMBackend, way: str) -> None:
    import litellm

    completion = await call(backend, way, ask("[[tokens 1000 100]] hi"), model="known")
    prices = litellm.model_cost["gpt-4o"]
    expected = 1000 * prices["input_cost_per_token"] + 100 * prices["output_cost_per_token"]
    assert completion.cost_usd == pytest.approx(expected)


@WAYS
async def test_tool_calls_are_in_the_message(backend: LiteLLMBackend, way: str) -> None:
    request = ask('[[tool weather {"city": "Rome"}]] [[tool weather {"city": "Oslo"}]]', tools=[WEATHER])
    message = (await call(backend, way, request)).message
    arguments = [json.loads(call["function"]["arguments"])["city"] for call in message["tool_calls"]]
    assert arguments == ["Rome", "Oslo"]
    assert len({call["id"] for call in message["tool_calls"]}) == 2


@WAYS
async def test_broken_tool_arguments_are_handed_on_as_the_model_wrote_them(backend: LiteLLMBackend, way: str) -> None:
    completion = await call(backend, way, ask("[[broken-tool weather]]", tools=[WEATHER]))
    assert completion.finish_reason == "tool_calls"
    assert completion.message["tool_calls"][0]["function"]["arguments"] == '{"broken": '


@WAYS
async def test_an_empty_answer_is_an_answer(backend: LiteLLMBackend, way: str) -> None:
    completion = await call(backend, way, ask("[[empty]]"))
    assert (completion.text, completion.message["content"]) == ("", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.3),
        ("top_p", 0.5),
        ("max_tokens", 7),
        ("stop", ["END"]),
        ("seed", 42),
        ("tools", [WEATHER]),
        ("parallel_tool_calls", False),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.1),
        ("user", "me"),
        ("metadata", {"ticket": "17"}),
        ("n", 2),
        ("logprobs", True),
        ("reasoning_effort", "high"),
    ],
)
def test_every_openai_parameter_reaches_the_provider(
    backend: LiteLLMBackend, server: ModelServer, name: str, value: Any
) -> None:
    backend.complete("m", ask("hello", **{name: value}))
    assert server.last_request()[name] == value


def test_reasoning_effort_images_and_tool_choice_reach_the_provider(
    backend: LiteLLMBackend, server: ModelServer
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    message = {"role": "user", "content": [{"type": "text", "text": "what is this?"}, picture]}
    choice = {"type": "function", "function": {"name": "weather"}}
    parameters = {"tools": [WEATHER], "tool_choice": choice, "reasoning_effort": "low"}
    completion = backend.complete("m", Request.of([message], parameters=parameters))
    sent = server.last_request()
    assert sent["messages"] == [message]
    assert (sent["tool_choice"], sent["reasoning_effort"]) == (choice, "low")
    assert completion.message["tool_calls"][0]["function"]["name"] == "weather"


def test_a_json_schema_reaches_the_provider(backend: LiteLLMBackend) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "warm": {"type": "boolean"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "w", "schema": schema}}
    assert json.loads(backend.complete("m", ask("how?", response_format=wanted)).text) == {"city": "text", "warm": True}


def test_the_request_wins_over_the_deployment(backend: LiteLLMBackend, server: ModelServer) -> None:
    assert backend.complete("limited", ask("a b c d")).finish_reason == "length"
    assert server.last_request()["max_tokens"] == 2
    backend.complete("limited", ask("a b c d", max_tokens=50))
    assert server.last_request()["max_tokens"] == 50


FAILURES = [
    ("[[status 429 retry-after=1.5]]", "rate_limit", True, 1.5),
    ("[[status 429 retry-after=-7]]", "rate_limit", True, 0.0),
    ("[[status 500]]", "unavailable", True, None),
    ("[[status 503 retry-after=2]]", "unavailable", True, 2.0),
    ("[[status 401]]", "authentication", False, None),
    ("[[status 403]]", "authentication", False, None),
    ("[[status 404]]", "not_found", False, None),
    ("[[status 413]]", "context_window", False, None),
    ("[[status 418]]", "bad_request", False, None),
    ("[[html]]", "malformed_response", True, None),
    ("[[status 400]]", "bad_request", False, None),
    ("[[status 408]]", "timeout", True, None),
    ("[[context]]", "context_window", False, None),
    ("[[policy]]", "content_policy", False, None),
    ("[[filtered]]", "content_policy", False, None),
    ("[[reset]]", "connection", True, None),
    ("[[cut 0]]", "connection", True, None),
]


@WAYS
@pytest.mark.parametrize(("text", "kind", "retryable", "after_s"), FAILURES)
async def test_each_fault_has_its_kind(
    backend: LiteLLMBackend, way: str, text: str, kind: str, retryable: bool, after_s: float | None
) -> None:
    with pytest.raises(BackendError) as caught:
        await call(backend, way, ask(text))
    error = caught.value
    assert (error.model, error.kind, error.retryable, error.retry_after_s) == ("m", kind, retryable, after_s)
    assert not isinstance(error, StreamInterrupted)


@WAYS
async def test_an_answer_that_takes_too_long_is_a_timeout(backend: LiteLLMBackend, way: str) -> None:
    with pytest.raises(BackendError) as caught:
        await call(backend, way, ask("[[latency 20]]", timeout=0.2))
    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)


@WAYS
async def test_a_server_that_only_keeps_the_connection_alive_is_left_at_the_deadline(
    backend: LiteLLMBackend, server: ModelServer, way: str
) -> None:
    server.reset()
    retrying = RetryingBackend(backend, RetryPolicy(attempts=3, deadline_s=0.5))
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"deadline of 0\.5 s") as caught:
        await call(retrying, way, ask("[[drip]]"))
    assert caught.value.kind == "timeout"
    assert [attempt.kind for attempt in caught.value.attempts] == ["timeout"]
    assert time.monotonic() - started < 5
    for _ in range(200):
        if server.statistics().in_flight["served"] == 0:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the connection is still open")


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_the_deadline_ends_a_healthy_stream_and_says_what_had_arrived(way: str) -> None:
    with ModelServer(chunk_s=0.1) as slow:
        ways = {"m": [Deployment("openai/m", {"api_base": slow.url, "api_key": KEY})]}
        retrying = RetryingBackend(LiteLLMBackend(ways, [Model("m", 0.0, 0.0)]), RetryPolicy(deadline_s=1.0))
        with pytest.raises(StreamInterrupted, match="deadline") as caught:
            await call(retrying, way, ask(" ".join(["word"] * 100)))
    assert caught.value.kind == "timeout"
    assert caught.value.received.startswith("You said: word")


@WAYS
async def test_without_usage_tokens_and_cost_are_estimated_and_marked(backend: LiteLLMBackend, way: str) -> None:
    request = ask("[[no-usage]] good morning")
    completion = await call(backend, way, request)
    counted = count_tokens(request.messages), count_text_tokens("You said: good morning")
    assert completion.estimated
    assert (completion.input_tokens, completion.output_tokens) == counted
    assert completion.cost_usd == pytest.approx(counted[0] * 1e-6 + counted[1] * 2e-6)
    assert not (await call(backend, way, ask("good morning"))).estimated


@WAYS
async def test_nonsense_usage_is_replaced_by_an_estimate(backend: LiteLLMBackend, way: str) -> None:
    request = ask(f"[[tokens -5 {10**12}]] good morning")
    completion = await call(backend, way, request)
    assert completion.estimated
    counted = count_tokens(request.messages), count_text_tokens("You said: good morning")
    assert (completion.input_tokens, completion.output_tokens) == counted


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_document_in_place_of_a_stream_is_malformed(backend: LiteLLMBackend, way: str) -> None:
    with pytest.raises(BackendError, match="no stream of an answer") as caught:
        await call(backend, way, ask("[[json]] hello"))
    assert (caught.value.kind, caught.value.retryable) == ("malformed_response", True)


@pytest.mark.parametrize("text", ["[[malformed]]", "[[no-choices]]"])
@pytest.mark.parametrize("way", ["complete", "acomplete"])
async def test_a_malformed_answer_is_named_and_may_be_asked_again(backend: LiteLLMBackend, way: str, text: str) -> None:
    with pytest.raises(BackendError) as caught:
        await call(backend, way, ask(text))
    assert (caught.value.kind, caught.value.retryable) == ("malformed_response", True)


@pytest.mark.parametrize("fault", ["cut", "end"])
@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_stream_that_breaks_says_how_much_had_arrived(backend: LiteLLMBackend, way: str, fault: str) -> None:
    chunks: list[Chunk] = []

    async def collect() -> None:
        request = ask(f"[[{fault} 4]] one two three four five")
        if way == "stream":
            chunks.extend(backend.stream("m", request))
        else:
            async for chunk in backend.astream("m", request):
                chunks.append(chunk)  # noqa: PERF401 - what arrived before the failure is kept

    with pytest.raises(StreamInterrupted) as caught:
        await collect()
    assert caught.value.received == "You said: one"
    assert not caught.value.retryable
    assert str(caught.value).count("the stream broke after 13 characters") == 1


def test_a_wrong_address_names_the_address(backend: LiteLLMBackend) -> None:
    with pytest.raises(BackendError, match=r"api_base http://127\.0\.0\.1:9/v1") as caught:
        backend.complete("wrong-base", ask("hi"))
    assert caught.value.kind == "connection"


def test_a_wrong_key_is_named_without_being_shown(backend: LiteLLMBackend) -> None:
    with pytest.raises(BackendError, match="Incorrect API key") as caught:
        backend.complete("wrong-key", ask("hi"))
    assert caught.value.kind == "authentication"


@WAYS
@pytest.mark.parametrize("text", ["hi", "[[drip]]", "[[cut 4]] one two three four"])
async def test_nothing_that_hangs_on_an_error_holds_the_key(
    server: ModelServer, backend: LiteLLMBackend, way: str, text: str
) -> None:
    name = "wrong-key" if text == "hi" else "m"
    request = Request.of(text, parameters={"timeout": 0.3}, deadline=Deadline.after(0.3))
    with pytest.raises(BackendError) as caught:
        await call(backend, way, request, model=name)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    shown = repr(vars(caught.value)) + "".join(traceback.format_exception(caught.value))
    assert "sk-wrong" not in shown
    assert KEY not in shown


def test_an_unknown_provider_and_an_unknown_model_are_named(backend: LiteLLMBackend) -> None:
    with pytest.raises(BackendError) as caught:
        backend.complete("unknown-provider", ask("hi"))
    assert caught.value.kind == "not_found"
    with pytest.raises(UnknownModelError, match="nobody"):
        backend.complete("nobody", ask("hi"))


def test_a_deployment_without_a_model_has_no_price_and_is_refused() -> None:
    with pytest.raises(InputError, match="no price"):
        LiteLLMBackend({"m": [Deployment("openai/x", {})]}, [])
    with pytest.raises(InputError, match="no deployment"):
        LiteLLMBackend({"m": []}, [Model("m", 0, 0)])


@WAYS
async def test_a_fault_that_passes_is_survived_by_retries(backend: LiteLLMBackend, way: str) -> None:
    retrying = RetryingBackend(backend, RetryPolicy(initial_backoff_s=0.01))
    completion = await call(retrying, way, ask(f"[[status 500]] [[times 2]] by {way}"))
    assert completion.text == f"You said: by {way}"
    assert completion.attempts == 3


async def test_a_stream_closed_early_lets_the_server_go(backend: LiteLLMBackend, server: ModelServer) -> None:
    server.reset()
    endless = ask(" ".join(["word"] * 5000), timeout=30)
    for chunk in backend.stream("m", endless):
        assert chunk.text
        break
    gc.collect()
    stream = backend.astream("m", endless)
    assert isinstance(stream, AsyncIterator)
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    for _ in range(200):
        if server.statistics().in_flight.get("served", 0) == 0:
            break
        await asyncio.sleep(0.02)
    statistics = server.statistics()
    assert statistics.in_flight["served"] == 0
    assert statistics.requests["served"] == 2


async def test_a_cancelled_call_lets_the_server_go(backend: LiteLLMBackend, server: ModelServer) -> None:
    server.reset()
    task = asyncio.create_task(backend.acomplete("m", ask("[[latency 60]]")))
    for _ in range(500):
        await asyncio.sleep(0.01)
        if server.statistics().requests.get("served"):
            break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(200):
        if server.statistics().left.get("served"):
            break
        await asyncio.sleep(0.02)
    assert server.statistics().left["served"] == 1


def test_deployments_of_one_model_share_its_calls(server: ModelServer) -> None:
    ways = [
        Deployment(f"openai/{name}", {"api_base": server.url, "api_key": KEY}, weight=w)
        for name, w in (("x", 2), ("y", 1))
    ]
    shared = LiteLLMBackend({"m": ways}, [Model("m", 0.0, 0.0)])
    server.reset()
    for _ in range(9):
        shared.complete("m", ask("hi"))
    assert server.statistics().requests == {"x": 6, "y": 3}


def test_a_broken_deployment_is_passed_over_after_its_failure(server: ModelServer) -> None:
    good = Deployment("openai/x", {"api_base": server.url, "api_key": KEY})
    bad = Deployment("openai/y", {"api_base": "http://127.0.0.1:9/v1", "api_key": KEY})
    shared = RetryingBackend(
        LiteLLMBackend({"m": [bad, good]}, [Model("m", 0.0, 0.0)]), RetryPolicy(initial_backoff_s=0.01)
    )
    attempts = [shared.complete("m", ask("hi")).attempts for _ in range(4)]
    assert attempts == [2, 1, 1, 1]


@WAYS
async def test_retry_after_of_one_deployment_delays_no_call_that_another_can_take(
    server: ModelServer, way: str
) -> None:
    with ModelServer() as busy:
        ways = [
            Deployment("openai/busy", {"api_base": busy.url, "api_key": KEY}, order=1),
            Deployment("openai/idle", {"api_base": server.url, "api_key": KEY}, order=2),
        ]
        shared = RetryingBackend(LiteLLMBackend({"m": ways}, [Model("m", 0.0, 0.0)]))
        text = "[[status 429 retry-after=20]] [[times 1]] hello"
        server.reset()
        await call(shared, way, ask("[[say warm]]"))
        started = time.monotonic()
        with pytest.raises(BackendError):
            await call(shared.backend, way, ask(text))
        for _ in range(3):
            assert (await call(shared, way, ask("[[say hello]]"))).text == "hello"
        assert time.monotonic() - started < 10
        assert busy.statistics().requests == {"busy": 2}
        assert server.statistics().requests == {"idle": 3}


def test_a_model_may_be_named_by_litellms_name_alone(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    backend = LiteLLMBackend({"m": "openai/m"}, [Model("m", 1e-6, 1e-6)])
    assert backend.complete("m", Request.of("hello there")).text
