"""Messages, both ways: LangChain's to OpenAI-style ones, and completions and chunks back.

Inwards langchain-core's own `convert_to_openai_messages` does the work. Around it stands what it leaves to callers:
reasoning and tool-call blocks are no content for another model (they are dropped, tool calls travel as `tool_calls`),
`cache_control` of a block survives, and a call with broken arguments that a tool message answers keeps its place.
Outwards langchain-core's tool-call parsers do. (`langchain-litellm`'s delta converter drops the later chunks of a tool
call when its dictionary has no name, and its import is LiteLLM's, seconds long: so not that one.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.content import InvalidToolCall
from langchain_core.messages.tool import ToolCall, ToolCallChunk, tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call

from eccos_core.domain import Chunk, Completion
from eccos_integrations.langchain.errors import InvalidRequestError

PROVIDER = "eccos"  # whose message format this is: langchain-core chooses its block translator by it
NOT_FOR_A_MODEL = frozenset(  # block types that are a record of an answer, not something to ask with
    {
        "invalid_tool_call",
        "non_standard",
        "reasoning",
        "redacted_thinking",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "thinking",
        "tool_call",
        "tool_call_chunk",
    }
)
# keys of an OpenAI-style message that LangChain keeps in `additional_kwargs`: those that come in pieces which can be
# put together, and those that a stream gives whole, at its end
IN_PIECES = ("function_call", "reasoning_content", "refusal")
WHOLE = ("annotations", "audio", "provider_specific_fields", "thinking_blocks")

# ------------------------------------------------------------------------------------------------------------- inwards


def to_openai(messages: Sequence[BaseMessage]) -> tuple[dict[str, Any], ...]:
    """OpenAI-style messages. Raises `InvalidRequestError` for a conversation that asks nothing."""
    if not messages:
        raise InvalidRequestError("there are no messages; give a string or at least one message, a HumanMessage")
    if all(isinstance(message, SystemMessage) for message in messages):
        raise InvalidRequestError("there are only system messages, which ask nothing; add a HumanMessage")
    if not any(message.content or getattr(message, "tool_calls", None) for message in messages):
        raise InvalidRequestError("every message is empty; give at least one word")
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    converted: list[dict[str, Any]] = []
    for message in messages:
        converted += _converted(message, answered)
    return tuple(converted)


def _converted(message: BaseMessage, answered: set[str]) -> list[dict[str, Any]]:
    """One message; several where a content block holds a tool's result."""
    cached: dict[str, Any] | None = None
    if isinstance(message.content, list):
        blocks = _blocks(message.content, of_an_answer=isinstance(message, AIMessage))
        message = message.model_copy(update={"content": blocks})
        cached = _cache_controls(blocks)
    try:
        # one block style or the other: text alone is a string, unless a block of it must keep its cache mark
        found = convert_to_openai_messages([message], text_format="block" if cached else "string")
    except (KeyError, ValueError) as error:
        what = f"a content block lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidRequestError(f"a {message.type} message cannot be translated: {what}") from error
    converted: list[dict[str, Any]] = list(found)
    if cached:
        for block in converted[0]["content"]:
            if block.get("type") == "text" and block["text"] in cached:
                block["cache_control"] = cached[block["text"]]
    if isinstance(message, AIMessage) and message.invalid_tool_calls:
        broken = [_as_it_was(call) for call in message.invalid_tool_calls if call["id"] in answered]
        if broken:
            converted[0]["tool_calls"] = [*converted[0].get("tool_calls", ()), *broken]
    return converted


def _blocks(content: Sequence[str | dict[str, Any]], *, of_an_answer: bool) -> list[str | dict[str, Any]]:
    """The blocks to ask with. What a person gives in a provider's own format is unwrapped, and passed on."""
    if of_an_answer:
        return [block for block in content if isinstance(block, str) or block.get("type") not in NOT_FOR_A_MODEL]
    return [
        block["value"] if isinstance(block, dict) and block.get("type") == "non_standard" else block
        for block in content
    ]


def _cache_controls(blocks: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """text -> `cache_control` of the text blocks that have one."""
    return {
        block["text"]: block["cache_control"]
        for block in blocks
        if not isinstance(block, str) and block.get("type") == "text" and block.get("cache_control")
    }


def _as_it_was(call: InvalidToolCall) -> dict[str, Any]:
    return {
        "type": "function",
        "id": call["id"],
        "function": {"name": call["name"] or "", "arguments": call["args"] or ""},
    }


# ------------------------------------------------------------------------------------------------------------ outwards


def to_message(completion: Completion) -> AIMessage:
    """The answer, with usage, cost and decision."""
    calls, broken = _tool_calls(completion.message.get("tool_calls") or ())
    message = AIMessage(
        content=completion.message.get("content") or completion.text,
        additional_kwargs=_beside(completion.message, IN_PIECES + WHOLE),
        tool_calls=calls,
        invalid_tool_calls=broken,
    )
    message.usage_metadata = usage_of(completion)  # of our own making: set, not validated
    message.response_metadata = metadata_of(completion)
    return message


def to_message_chunk(chunk: Chunk) -> AIMessageChunk:
    """A piece of the answer; the last one carries usage, cost and decision."""
    message = AIMessageChunk(
        content=chunk.delta.get("content") or chunk.text,
        additional_kwargs=_beside(chunk.delta, IN_PIECES),
        tool_call_chunks=[
            _tool_call_chunk(place, call) for place, call in enumerate(chunk.delta.get("tool_calls") or ())
        ],
    )
    if chunk.completion is not None:
        message.additional_kwargs |= _beside(chunk.completion.message, WHOLE)
        message.usage_metadata = usage_of(chunk.completion)
        message.response_metadata = metadata_of(chunk.completion)
        message.chunk_position = "last"
    return message


def usage_of(completion: Completion) -> UsageMetadata:
    """Tokens as the provider counted them; cached ones are part of the input, reasoning ones of the output.

    Money has no place here: langchain-core adds usages up and takes whole numbers only. See `metadata_of`.
    """
    return UsageMetadata(
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        total_tokens=completion.input_tokens + completion.output_tokens,
        input_token_details=InputTokenDetails(cache_read=completion.cached_input_tokens),
        output_token_details=OutputTokenDetails(reasoning=completion.reasoning_tokens),
    )


def metadata_of(completion: Completion) -> dict[str, Any]:
    """Who answered, what it cost, and why this model: predicted quality and cost beside the real ones."""
    metadata: dict[str, Any] = {
        "model_name": completion.model,
        "model_provider": PROVIDER,
        "finish_reason": completion.finish_reason or "stop",
        "cost_usd": completion.cost_usd,
        "latency_s": completion.latency_s,
        "attempts": completion.attempts,
    }
    if completion.time_to_first_token_s is not None:
        metadata["time_to_first_token_s"] = completion.time_to_first_token_s
    decision = completion.decision
    if decision is not None:
        metadata |= {
            "decision_id": decision.id,
            "decided_model": decision.model,
            "predicted_quality": decision.quality,
            "predicted_cost_usd": decision.cost_usd,
            "runner_up": decision.runner_up,
            "reason": decision.reason,
            "familiarity": decision.familiarity,
            "floor_met": decision.floor_met,
        }
    return metadata


def _tool_calls(raw: Sequence[Mapping[str, Any]]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Calls, and those whose arguments are not the JSON object that they must be."""
    calls: list[ToolCall] = []
    broken: list[InvalidToolCall] = []
    for each in raw:
        one = dict(each)
        try:
            parsed: Any = parse_tool_call(one)
        except OutputParserException as error:
            broken.append(make_invalid_tool_call(one, str(error)))
            continue
        if parsed is None:
            continue
        if isinstance(parsed["args"], dict):
            calls.append(parsed)
        else:
            broken.append(make_invalid_tool_call(one, "the arguments are JSON, but not an object"))
    return calls, broken


def _tool_call_chunk(place: int, call: Mapping[str, Any]) -> ToolCallChunk:
    function = call.get("function") or {}
    return tool_call_chunk(
        name=function.get("name"),
        args=function.get("arguments"),
        id=call.get("id"),
        index=call.get("index", place),
    )


def _beside(message: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: message[name] for name in names if name in message and _says_something(message[name])}


def _says_something(value: Any) -> bool:
    """Not for `{"refusal": None}`, which LiteLLM puts beside every answer of some providers."""
    return any(each is not None for each in value.values()) if isinstance(value, Mapping) else bool(value)
