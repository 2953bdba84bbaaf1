"""Messages both ways, tools, tool choices, schemas, errors: translation alone."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from langchain_core import exceptions
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from two_models import two_models
from typing_extensions import TypedDict

from eccos_core.domain import Chunk, Completion, Request
from eccos_core.errors import (
    Attempt,
    AttemptsExhausted,
    BackendError,
    EccosError,
    Exclusion,
    ExclusionKind,
    FailureKind,
    InfeasibleError,
    NoEligibleModelError,
    StreamInterrupted,
)
from eccos_integrations.langchain import ChatEccos
from eccos_integrations.langchain.errors import langchain_error
from eccos_integrations.langchain.messages import to_message, to_message_chunk, to_openai
from eccos_integrations.langchain.tools import openai_tool_choice, openai_tools

CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}


def completion(message: dict[str, Any], **fields: Any) -> Completion:
    given = {"input_tokens": 5, "output_tokens": 3, "cost_usd": 0.1, "latency_s": 0.2, **fields}
    return Completion(text=message.get("content") or "", model="m", message=message, **given)


# ------------------------------------------------------------------------------------------------ inwards


def test_every_kind_of_message_has_its_role() -> None:
    messages = [
        SystemMessage("s"),
        HumanMessage("h", name="ann"),
        AIMessage("a", tool_calls=[CALL]),
        ToolMessage("t", tool_call_id="c1", name="add"),
        FunctionMessage("f", name="fn"),
        ChatMessage("c", role="developer"),
    ]
    converted = to_openai(messages)
    assert [each["role"] for each in converted] == ["system", "user", "assistant", "tool", "function", "developer"]
    assert converted[1] == {"role": "user", "name": "ann", "content": "h"}
    assert json.loads(converted[2]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert converted[3]["tool_call_id"] == "c1"


def test_pictures_sound_and_documents_travel_in_openais_form() -> None:
    picture = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    anthropic = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "BBBB"}}
    sound = {"type": "audio", "base64": "CCCC", "mime_type": "audio/wav"}
    document = {"type": "file", "base64": "DDDD", "mime_type": "application/pdf", "filename": "a.pdf"}
    (message,) = to_openai([HumanMessage([{"type": "text", "text": "look"}, picture, anthropic, sound, document])])
    assert [block["type"] for block in message["content"]] == ["text", "image_url", "image_url", "input_audio", "file"]
    assert message["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert message["content"][2]["image_url"]["url"] == "data:image/png;base64,BBBB"


def test_reasoning_and_tool_call_blocks_of_an_answer_are_not_sent_to_the_next_model() -> None:
    answer = AIMessage(
        [
            {"type": "reasoning", "reasoning": "hm"},
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "so"},
            {"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "c1"},
        ],
        tool_calls=[CALL],
    )
    converted = to_openai([HumanMessage("q"), answer, ToolMessage("2", tool_call_id="c1")])
    assert converted[1]["content"] == "so"
    assert [call["id"] for call in converted[1]["tool_calls"]] == ["c1"]
    assert answer.content[0] == {"type": "reasoning", "reasoning": "hm"}  # the caller's message is as it was


def test_a_mark_for_the_providers_cache_survives() -> None:
    block = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    (message,) = to_openai([HumanMessage([block, {"type": "text", "text": "short"}])])
    assert message["content"] == [block, {"type": "text", "text": "short"}]


def test_a_providers_own_block_is_unwrapped() -> None:
    own = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    (message,) = to_openai([HumanMessage([{"type": "non_standard", "value": own}])])
    assert message["content"] == [own]


def test_a_broken_call_that_was_answered_keeps_its_place() -> None:
    broken = {"type": "invalid_tool_call", "name": "add", "args": "{", "id": "c9", "error": "no JSON"}
    answer = AIMessage("", invalid_tool_calls=[broken])
    converted = to_openai([HumanMessage("q"), answer, ToolMessage("not JSON", tool_call_id="c9")])
    assert converted[1]["tool_calls"][0] == {
        "type": "function",
        "id": "c9",
        "function": {"name": "add", "arguments": "{"},
    }
    assert "tool_calls" not in to_openai([HumanMessage("q"), answer])[1]


# ------------------------------------------------------------------------------------------------ outwards


def test_calls_and_broken_calls_are_told_apart() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "add", "arguments": '{"a": '}},
        {"id": "3", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"id": "4", "type": "function", "function": {"name": "add", "arguments": "[1]"}},
    ]
    message = to_message(completion({"role": "assistant", "content": None, "tool_calls": calls}))
    assert [(call["id"], call["args"]) for call in message.tool_calls] == [("1", {"a": 1}), ("3", {})]
    assert [call["id"] for call in message.invalid_tool_calls] == ["2", "4"]
    assert message.content == ""


def test_usage_tells_of_cached_and_reasoning_tokens_and_reasoning_is_a_block() -> None:
    spoken = {"role": "assistant", "content": "yes", "reasoning_content": "hm", "provider_specific_fields": {"x": None}}
    message = to_message(completion(spoken, cached_input_tokens=4, reasoning_tokens=2))
    assert message.usage_metadata == {
        "input_tokens": 5,
        "output_tokens": 3,
        "total_tokens": 8,
        "input_token_details": {"cache_read": 4},
        "output_token_details": {"reasoning": 2},
    }
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert message.additional_kwargs == {"reasoning_content": "hm"}


def test_pieces_of_a_call_add_up() -> None:
    def piece(**function: Any) -> Chunk:
        return Chunk(text="", delta={"tool_calls": [{"index": 0, "function": function, **extra}]})

    extra: dict[str, Any] = {"id": "c1"}
    whole = to_message_chunk(piece(name="add", arguments=""))
    extra = {}
    for part in ('{"a"', ": 1}"):
        whole = whole + to_message_chunk(piece(arguments=part))
    said = completion({"role": "assistant", "content": "", "thinking_blocks": [{"thinking": "hm"}]})
    whole = whole + to_message_chunk(Chunk(text="", completion=said))
    assert isinstance(whole, AIMessageChunk)
    assert [(call["name"], call["args"], call["id"]) for call in whole.tool_calls] == [("add", {"a": 1}, "c1")]
    assert whole.additional_kwargs["thinking_blocks"] == [{"thinking": "hm"}]


# ------------------------------------------------------------------------------------------------ tools and schemas


class Add(BaseModel):
    """Adds."""

    a: int = Field(description="one")


class AddDict(TypedDict):
    """Adds."""

    a: Annotated[int, ..., "one"]


@tool
def add(a: int) -> int:
    """Adds."""
    return a


def add_plainly(a: int) -> int:
    """Adds."""
    return a


def test_anything_that_langchain_takes_is_a_tool() -> None:
    anthropic = {"name": "Add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
    converted = openai_tools([Add, AddDict, add, add_plainly, Add.model_json_schema(), anthropic])
    names = [each["function"]["name"] for each in converted]
    assert names == ["Add", "AddDict", "add", "add_plainly", "Add", "Add"]


@pytest.mark.parametrize(
    "nameless",
    [{"type": "function", "function": {"parameters": {}}}, {"name": "", "parameters": {"type": "object"}}],
)
def test_a_tool_without_a_name_is_refused(nameless: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tools\[1\] has no name"):
        ChatEccos(router=two_models()[0]).bind_tools([add, nameless])


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, None),
        (False, None),
        (True, "required"),
        ("any", "required"),
        ("required", "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "add"}}),
        ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
        ({"type": "any"}, "required"),
        ({"type": "allowed_tools", "mode": "auto"}, {"type": "allowed_tools", "mode": "auto"}),
    ],
)
def test_a_choice_of_tools_is_openais(choice: Any, meant: Any) -> None:
    assert openai_tool_choice(choice, openai_tools([add])) == meant


def test_a_choice_that_is_not_bound_says_what_is() -> None:
    expected = r"'ad', which is not one of the tools; did you mean 'add'\? The tools are: add"
    with pytest.raises(ValueError, match=expected):
        openai_tool_choice("ad", openai_tools([add]))
    with pytest.raises(ValueError, match="tool_choice is 3"):
        openai_tool_choice(3, [])  # type: ignore[arg-type]


def test_bound_tools_and_schemas_reach_the_model_that_can_do_them() -> None:
    spoken = json.dumps({"a": 1})
    router, backend = two_models({"small": ["never"], "large": [lambda _: spoken]})
    model = ChatEccos(router=router)
    model.bind_tools([add], tool_choice="any", parallel_tool_calls=False).invoke("easy")
    parameters = backend.calls[-1][1].parameters
    assert parameters["tool_choice"] == "required"
    assert parameters["parallel_tool_calls"] is False
    assert model.with_structured_output(Add, method="json_schema").invoke("easy") == Add(a=1)
    described = backend.calls[-1][1].parameters["response_format"]["json_schema"]
    assert described["name"] == "Add"
    assert described["schema"]["properties"]["a"]["type"] == "integer"
    assert model.with_structured_output(AddDict, method="json_mode", include_raw=True).invoke("hard")["parsed"] == {
        "a": 1
    }
    assert {name for name, _ in backend.calls} == {"large"}
    assert isinstance(backend.calls[0][1], Request)


def test_what_cannot_be_parsed_is_an_error_or_stands_beside_the_raw_answer() -> None:
    model = ChatEccos(router=two_models({"small": ["no"], "large": ["no JSON"]})[0])
    with pytest.raises(exceptions.OutputParserException):
        model.with_structured_output(Add, method="json_schema").invoke("easy")
    both = model.with_structured_output(Add, method="json_schema", include_raw=True).invoke("easy")
    assert isinstance(both, dict)
    assert both["raw"].content == "no JSON"
    assert both["parsed"] is None
    assert isinstance(both["parsing_error"], exceptions.OutputParserException)
    with pytest.raises(ValueError, match="method is 'magic'"):
        model.with_structured_output(Add, method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no parameter 'wrong'"):
        model.with_structured_output(Add, wrong=1)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("error", "theirs"),
    [
        (BackendError("m", "x", retryable=True, kind="rate_limit"), exceptions.ModelRateLimitError),
        (BackendError("m", "x", retryable=False, kind="context_window"), exceptions.ContextOverflowError),
        (StreamInterrupted("m", "x", received="abc"), exceptions.ModelConnectionError),
        (AttemptsExhausted("r", [Attempt("m", "timeout", "x", 1.0)] * 2), exceptions.ModelTimeoutError),
        (
            AttemptsExhausted("r", [Attempt("m", "timeout", "x", 1.0), Attempt("n", "rate_limit", "x", 1.0)]),
            exceptions.ModelAPIError,  # several kinds, and another try may cure each
        ),
        (
            AttemptsExhausted("r", [Attempt("m", "timeout", "x", 1.0), Attempt("n", "not_found", "x", 1.0)]),
            exceptions.ModelError,
        ),
        (BackendError("m", "x", kind="unknown"), exceptions.ModelError),
        (BackendError("m", "x", kind="out_of_memory"), exceptions.ModelAPIError),
        (
            NoEligibleModelError(
                "r", {"m": Exclusion(ExclusionKind.CONTEXT_WINDOW, "context window of 5 tokens is too small")}
            ),
            exceptions.ContextOverflowError,
        ),
    ],
)
def test_errors_are_ours_and_langchains(error: EccosError, theirs: type[Exception]) -> None:
    both = langchain_error(error)
    assert isinstance(both, theirs)
    assert isinstance(both, type(error))
    assert str(both) == str(error)
    assert vars(both) == vars(error)


def test_other_errors_stay_what_they_are() -> None:
    error = InfeasibleError("floor", 1.0, 0.5, "x")
    assert langchain_error(error) is error


def test_only_an_error_that_another_try_may_cure_is_retryable() -> None:
    """LangChain's `ModelRetryMiddleware` asks."""
    for kind in FailureKind:
        both: Any = langchain_error(BackendError("m", "x", kind=kind))
        assert both.is_retryable == kind.retryable, kind
