"""The clients that people use: SDKs, LiteLLM, LangChain, LlamaIndex, curl, and coding agents' requests."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pydantic
import pytest
from agent_requests import MARK, anthropic_agent, openai_agent
from serving_process import running_server

from eccos_core.domain import Capability, Completion, Model, Request
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=8, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)
QUESTION = [{"role": "user", "content": "weather in Bern?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int


def answer(request: Request) -> str | Completion:
    """Give JSON where it is asked for, call the first tool where there is one, else say hello."""
    tools = request.parameters.get("tools")
    if request.parameters.get("response_format"):
        return '{"name": "Bern", "people": 134000}'
    if tools and request.messages[-1]["role"] != "tool":
        function = tools[0]["function"]
        names = list(function["parameters"]["properties"])
        values = {"city": "Bern", "name": "Bern", "people": 134000, "command": "pytest"}
        told = {"name": function["name"], "arguments": json.dumps({name: values.get(name, "x") for name in names})}
        call = {"index": 0, "id": "call_1", "type": "function", "function": told}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Completion("", "small", 9, 4, 13e-6, 0.0, message=message, finish_reason="tool_calls")
    return "small says hello"


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    return ScriptedBackend({"small": [answer], "large": ["large says hello"]}, POOL)


@pytest.fixture(scope="module")
def address(backend: ScriptedBackend) -> Iterator[str]:
    router = scripted_router(backend, POOL, {"": [0.8, 0.9]}, usd_per_quality=1e-6)
    with running_server(router) as running:
        yield running.address


def test_openai_tools_streamed(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    with client.chat.completions.stream(model="eccos", messages=QUESTION, tools=[TOOL]) as stream:  # type: ignore[arg-type, list-item]
        for _ in stream:
            pass
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Bern"}')
    assert final.choices[0].finish_reason == "tool_calls"


def test_openai_structured_output(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    parsed = client.chat.completions.parse(model="eccos", messages=QUESTION, response_format=City)  # type: ignore[arg-type]
    assert parsed.choices[0].message.parsed == City(name="Bern", people=134000)


async def test_openai_asynchronous(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(model="eccos:best", messages=QUESTION)  # type: ignore[arg-type]
        stream = await client.chat.completions.create(model="eccos", messages=QUESTION, stream=True)  # type: ignore[arg-type]
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert whole.choices[0].message.content == "large says hello"
    assert "".join(pieces) == "small says hello"


def test_litellm_as_a_client(address: str) -> None:
    import litellm

    common: dict[str, Any] = {"api_key": "none", "num_retries": 0}
    whole = litellm.completion("openai/eccos", messages=QUESTION, api_base=f"{address}/v1", tools=[TOOL], **common)
    assert whole.choices[0].message.tool_calls[0].function.name == "get_weather"
    stream = litellm.completion("openai/eccos", messages=QUESTION, api_base=f"{address}/v1", stream=True, **common)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "small says hello"
    messages = litellm.completion("anthropic/eccos:best", messages=QUESTION, api_base=address, max_tokens=5, **common)
    assert messages.choices[0].message.content == "large says hello"


def test_langchain_chat_openai(address: str) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")

    chat = langchain_openai.ChatOpenAI(model="eccos", base_url=f"{address}/v1", api_key="none", max_retries=0)
    assert chat.invoke("hello").content == "small says hello"
    assert "".join(chunk.content for chunk in chat.stream("hello")) == "small says hello"
    called = chat.bind_tools([TOOL]).invoke("weather in Bern?")
    assert called.tool_calls[0]["args"] == {"city": "Bern"}
    assert chat.with_structured_output(City).invoke("which city?") == City(name="Bern", people=134000)
    responses = langchain_openai.ChatOpenAI(
        model="eccos", base_url=f"{address}/v1", api_key="none", max_retries=0, use_responses_api=True
    )
    assert responses.invoke("hello").text == "small says hello"


async def test_langchain_chat_anthropic(address: str) -> None:
    langchain_anthropic = pytest.importorskip("langchain_anthropic")

    chat = langchain_anthropic.ChatAnthropic(model="eccos", base_url=address, api_key="none", max_retries=0)
    assert (await chat.ainvoke("hello")).text == "small says hello"
    assert "".join([chunk.text async for chunk in chat.astream("hello")]) == "small says hello"
    called = chat.bind_tools([TOOL]).invoke("weather in Bern?")
    assert called.tool_calls[0]["args"] == {"city": "Bern"}


def test_llama_index_openai_like(address: str) -> None:
    openai_like = pytest.importorskip("llama_index.llms.openai_like")

    model = openai_like.OpenAILike(
        model="eccos", api_base=f"{address}/v1", api_key="none", is_chat_model=True, max_retries=0
    )
    assert str(model.complete("hello")) == "small says hello"
    assert [chunk.delta for chunk in model.stream_complete("hello")][-1:] != []
    old = openai_like.OpenAILike(model="eccos", api_base=f"{address}/v1", api_key="none", max_retries=0)
    assert str(old.complete("hello")) == "small says hello"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(address: str) -> None:
    body = json.dumps({"model": "eccos", "messages": QUESTION, "stream": True})
    url = f"{address}/v1/chat/completions"
    command = ["curl", "-sN", url, "-H", "content-type: application/json", "-d", body]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert out.endswith("data: [DONE]\n\n")
    assert '"content":"small"' in out


def test_a_coding_agent_on_anthropics_api(address: str, backend: ScriptedBackend) -> None:
    headers = {"x-api-key": "none", "anthropic-version": "2023-06-01", "anthropic-beta": "prompt-caching-2024-07-31"}
    with httpx.stream("POST", f"{address}/v1/messages?beta=true", json=anthropic_agent(), headers=headers) as stream:
        assert stream.status_code == 200, stream.read()
        assert stream.headers["x-eccos-ignored"] == "context_management"
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    _, request = backend.calls[-1]
    roles = [message["role"] for message in request.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    system, first, turn = request.messages[:3]
    assert [part["cache_control"] for part in system["content"]] == [MARK, {**MARK, "ttl": "1h"}]
    assert first["content"][1]["cache_control"] == MARK
    assert [block["type"] for block in turn["thinking_blocks"]] == ["thinking", "redacted_thinking"]
    assert [call["id"] for call in turn["tool_calls"]] == ["toolu_01A", "toolu_01B"]
    assert len(request.parameters["tools"]) == 12
    assert all(len(tool["function"]["name"]) <= 64 for tool in request.parameters["tools"])


def test_a_long_tool_name_comes_back_whole(address: str) -> None:
    payload = anthropic_agent(stream=False)
    payload["tools"] = payload["tools"][-1:]
    payload["messages"] = payload["messages"][:1]
    (block,) = httpx.post(f"{address}/v1/messages", json=payload).json()["content"]
    assert block["name"] == payload["tools"][0]["name"]


def test_a_coding_agent_on_openais_responses(address: str, backend: ScriptedBackend) -> None:
    with httpx.stream("POST", f"{address}/v1/responses", json=openai_agent()) as stream:
        assert stream.status_code == 200, stream.read()
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert events[-1]["type"] == "response.completed"
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["name"]) == ("function_call", "shell")
    _, request = backend.calls[-1]
    assert [message["role"] for message in request.messages][-1] == "user"
    assert [tool["function"]["name"] for tool in request.parameters["tools"]] == ["shell", "apply_patch"]
    calls = [call for message in request.messages for call in message.get("tool_calls") or ()]
    assert [call["id"] for call in calls] == ["call_a", "call_b"]
