"""Anthropic's messages over HTTP: a real server on loopback, and Anthropic's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import httpx
import pytest
from served_two_models import serve_two_models, two_scripted_models

from eccos_core.domain import Completion, Request
from eccos_core.testing import ScriptedBackend

TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}
THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "signed"}


def answer_small(request: Request) -> str | Completion:
    """Call the tool where there is one, think where one says so, else say hello."""
    tools = request.parameters.get("tools")
    message: dict[str, object] = {"role": "assistant", "content": "small says hello"}
    reason = "stop"
    if tools and request.messages[-1]["role"] != "tool":
        message, reason = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **CALL}]}, "tool_calls"
    elif "think" in str(request.messages[-1]["content"]):
        message |= {"reasoning_content": "Let me see.", "thinking_blocks": [THOUGHT]}
    elif "long" in str(request.messages[-1]["content"]):
        reason = "length"
    else:
        return "small says hello"
    text = str(message["content"] or "")
    return Completion(text, "small", 9, 4, 13e-6, 0.0, message=message, finish_reason=reason, cached_input_tokens=5)


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    return two_scripted_models(answer_small)


@pytest.fixture(scope="module")
def address(backend: ScriptedBackend) -> Iterator[str]:
    with serve_two_models(backend) as running:
        yield running


@pytest.fixture
def client(address: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key="none", max_retries=0)


def test_a_message_is_answered(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="eccos", max_tokens=50, system="be kind", messages=[{"role": "user", "content": "hello there"}]
    )
    answer = raw.parse()
    assert [block.text for block in answer.content if block.type == "text"] == ["small says hello"]
    assert (answer.role, answer.stop_reason, answer.model) == ("assistant", "end_turn", "small")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 3)
    assert raw.headers["x-eccos-model"] == "small"
    assert answer.id == f"msg_{raw.headers['x-eccos-decision-id']}"


def test_a_tool_is_called_and_its_result_is_read(client: anthropic.Anthropic, backend: ScriptedBackend) -> None:
    question = {"role": "user", "content": "weather in Bern?"}
    answer = client.messages.create(model="eccos", max_tokens=50, messages=[question], tools=[TOOL])  # type: ignore[list-item]
    assert answer.stop_reason == "tool_use"
    (block,) = answer.content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("get_weather", {"city": "Bern"})
    assert (answer.usage.cache_read_input_tokens, answer.usage.input_tokens) == (5, 4)
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}]}
    messages = [question, {"role": "assistant", "content": answer.content}, result]
    second = client.messages.create(model="eccos", max_tokens=50, messages=messages, tools=[TOOL])  # type: ignore[arg-type]
    assert second.stop_reason == "end_turn"
    _, request = backend.calls[-1]
    assert request.messages[1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert request.messages[2] == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


def test_a_stream_has_all_events_in_order(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="eccos", max_tokens=50, messages=[{"role": "user", "content": "hello there"}]
    ) as stream:
        events = list(stream)
        final = stream.get_final_message()
    kinds = [event.type for event in events if event.type != "text"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert final.content[0].type == "text"
    assert final.content[0].text == "small says hello"
    assert (final.stop_reason, final.model, final.usage.output_tokens) == ("end_turn", "small", 3)


def test_a_streamed_tool_call_and_a_streamed_thought(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="eccos",
        max_tokens=50,
        messages=[{"role": "user", "content": "weather?"}],
        tools=[TOOL],  # type: ignore[list-item]
    ) as stream:
        final = stream.get_final_message()
    assert (final.content[0].type, final.content[0].input) == ("tool_use", {"city": "Bern"})  # type: ignore[union-attr]
    with client.messages.stream(
        model="eccos", max_tokens=50, messages=[{"role": "user", "content": "think first"}]
    ) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert (final.content[0].thinking, final.content[0].signature) == ("Let me see.", "signed")  # type: ignore[union-attr]


async def test_the_asynchronous_client(address: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client:
        answer = await client.messages.create(
            model="eccos", max_tokens=5, messages=[{"role": "user", "content": "a long story"}]
        )
        async with client.messages.stream(
            model="eccos:cheap", max_tokens=5, messages=[{"role": "user", "content": "hello"}]
        ) as stream:
            text = "".join([piece async for piece in stream.text_stream])
    assert answer.stop_reason == "max_tokens"
    assert text == "small says hello"


def test_blocks_reach_the_model_with_their_cache_marks(client: anthropic.Anthropic, backend: ScriptedBackend) -> None:
    mark = {"type": "ephemeral"}
    client.messages.create(
        model="eccos",
        max_tokens=50,
        system=[{"type": "text", "text": "You are an agent.", "cache_control": mark}],  # type: ignore[typeddict-item]
        stop_sequences=["END"],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see this", "cache_control": mark},  # type: ignore[typeddict-item]
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                    },
                ],
            },
            {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "I see."}]},  # type: ignore[list-item]
            {"role": "user", "content": "go on"},
        ],
    )
    _, request = backend.calls[-1]
    system, user, assistant, _ = request.messages
    assert system["content"] == [{"type": "text", "text": "You are an agent.", "cache_control": mark}]
    assert user["content"][0]["cache_control"] == mark
    assert user["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert assistant["thinking_blocks"] == [THOUGHT]
    assert request.parameters["stop"] == ["END"]
    assert request.parameters["max_tokens"] == 50


def test_tokens_are_counted_without_a_call(client: anthropic.Anthropic, backend: ScriptedBackend) -> None:
    calls = len(backend.calls)
    bare = client.messages.count_tokens(model="eccos", messages=[{"role": "user", "content": "hello there"}])
    with_tool = client.messages.count_tokens(
        model="eccos",
        messages=[{"role": "user", "content": "hello there"}],
        tools=[TOOL],  # type: ignore[list-item]
    )
    assert bare.input_tokens == 8  # 2 words, 3 for the message, 3 to start the answer
    assert with_tool.input_tokens > bare.input_tokens + 20
    assert len(backend.calls) == calls


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"max_tokens": None}, 400, "max_tokens"),
        ({"max_tokens": "many"}, 400, "max_tokens"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [3]}]}, 400, "messages.0.content.0"),
        ({"messages": [{"role": "user"}]}, 400, "messages.0.content"),
        ({"system": 3}, 400, "system"),
        ({"colour": "red"}, 400, "colour"),
        ({"mcp_servers": [{"url": "x"}]}, 400, "mcp_servers"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400, "tools.0"),
        ({"model": "claude-nobody"}, 404, "claude-nobody"),
        ({"thinking": "hard"}, 400, "thinking"),
    ],
)
def test_a_faulty_body_gets_anthropics_error_object(
    address: str, changes: dict[str, object], status: int, said: str
) -> None:
    body = {"model": "eccos", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], **changes}
    answer = httpx.post(f"{address}/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
    assert answer.status_code == status
    assert answer.json()["type"] == "error"
    assert said in answer.json()["error"]["message"]


def test_what_no_model_needs_is_left_out_and_said(address: str) -> None:
    body = {
        "model": "eccos",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
        "context_management": {"edits": []},
    }
    answer = httpx.post(f"{address}/v1/messages", json=body)
    assert answer.headers["x-eccos-ignored"] == "context_management"


def test_a_stream_that_breaks_ends_with_an_error_event(address: str) -> None:
    body = {"model": "large", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    text = httpx.post(f"{address}/v1/messages", json=body).text
    last = text.strip().split("\n\n")[-1]
    assert last.startswith("event: error\n")
    assert json.loads(last.split("data: ")[1])["error"]["type"] == "api_error"
