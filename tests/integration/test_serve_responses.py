"""OpenAI's responses over HTTP: a real server on loopback, and OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pydantic
import pytest
from served_two_models import serve_two_models, two_scripted_models

from eccos_core.domain import Completion, Request
from eccos_core.testing import ScriptedBackend

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


class City(pydantic.BaseModel):
    name: str
    people: int


def answer_small(request: Request) -> str | Completion:
    """Call the tool where there is one, give JSON where it is asked for, else say hello."""
    if request.parameters.get("response_format"):
        return '{"name": "Bern", "people": 134000}'
    if request.parameters.get("tools") and request.messages[-1]["role"] != "tool":
        function = request.parameters["tools"][0]["function"]
        (field,) = function["parameters"]["properties"]
        arguments = json.dumps({field: "Bern" if field == "city" else "*** Begin Patch"})
        told = {"name": function["name"], "arguments": arguments}
        call = {"index": 0, "id": "call_1", "type": "function", "function": told}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Completion("", "small", 9, 4, 13e-6, 0.0, message=message, finish_reason="tool_calls")
    return "small says hello"


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    return two_scripted_models(answer_small)


@pytest.fixture(scope="module")
def address(backend: ScriptedBackend) -> Iterator[str]:
    with serve_two_models(backend) as running:
        yield running


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_a_response(client: openai.OpenAI, backend: ScriptedBackend) -> None:
    raw = client.responses.with_raw_response.create(
        model="eccos", input="hello there", instructions="be kind", max_output_tokens=50
    )
    answer = raw.parse()
    assert answer.output_text == "small says hello"
    assert (answer.status, answer.model) == ("completed", "small")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (4, 3, 7)
    assert answer.id == f"resp_{raw.headers['x-eccos-decision-id']}"
    _, request = backend.calls[-1]
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.parameters == {"max_tokens": 50}


def test_a_tool_is_called_and_its_result_is_read(client: openai.OpenAI, backend: ScriptedBackend) -> None:
    history: list[object] = [{"role": "user", "content": "weather in Bern?"}]
    answer = client.responses.create(model="eccos", input=history, tools=[TOOL])  # type: ignore[arg-type, list-item]
    (call,) = answer.output
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.call_id) == ("get_weather", '{"city": "Bern"}', "call_1")
    history += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(model="eccos", input=history, tools=[TOOL])  # type: ignore[arg-type, list-item]
    assert second.output_text == "small says hello"
    _, request = backend.calls[-1]
    assert request.messages[-1]["role"] == "tool"
    assert request.messages[-1]["content"] == "sunny"


def test_a_stream_has_all_events_in_order(client: openai.OpenAI) -> None:
    with client.responses.stream(model="eccos", input="hello there") as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert {"response.output_item.added", "response.content_part.added", "response.output_text.done"} <= set(kinds)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "small says hello"
    assert final.output_text == "small says hello"
    assert final.usage is not None
    assert (final.model, final.usage.output_tokens) == ("small", 3)
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1


def test_a_streamed_tool_call(client: openai.OpenAI) -> None:
    with client.responses.stream(model="eccos", input="weather?", tools=[TOOL]) as stream:  # type: ignore[list-item]
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert [item.type for item in final.output] == ["function_call"]
    assert final.output[0].arguments == '{"city": "Bern"}'  # type: ignore[union-attr]


def test_a_free_form_tool_keeps_its_text(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="eccos", input="fix it", tools=[{"type": "custom", "name": "apply_patch", "description": "Edit files"}]
    )
    (call,) = answer.output
    assert (call.type, call.input) == ("custom_tool_call", "*** Begin Patch")  # type: ignore[union-attr]


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model="eccos", input="which city?", text_format=City)
    assert answer.output_parsed == City(name="Bern", people=134000)


async def test_the_asynchronous_client(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        answer = await client.responses.create(model="eccos:cheap", input="hello")
        stream = await client.responses.create(model="eccos", input="hello", stream=True)
        last = [event async for event in stream][-1]
    assert answer.output_text == "small says hello"
    assert last.type == "response.completed"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "computer_call"}]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"colour": "red"}, "colour"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": "json"}, "text"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(address: str, changes: dict[str, object], param: str) -> None:
    answer = httpx.post(f"{address}/v1/responses", json={"model": "eccos", "input": "x", **changes})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["message"]


def test_a_stream_that_breaks_ends_with_an_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="large"):
        list(client.responses.create(model="large", input="x", stream=True))
