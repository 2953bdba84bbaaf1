"""Convert messages both ways: LangChain's to OpenAI-style ones, and completions and chunks back.

On the way in, langchain-core's own `convert_to_openai_messages` does the work. Four things it leaves to callers, so
they are here. Of an answer only the blocks that every model understands are sent, because tool calls travel as
`tool_calls`. Its reasoning is kept for the model that wrote it. The `cache_control` of a block survives. A call with
broken arguments keeps its place when a tool message answers it.

On the way out, langchain-core's parsers of tool calls do the work, and it learns from us where a refusal is. We do not
use the delta converter of `langchain-litellm`. It drops the later chunks of a tool call that have no name, and
importing it takes seconds.
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
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import ContentBlock, InvalidToolCall
from langchain_core.messages.tool import ToolCall, ToolCallChunk, tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call

from eccos_core.domain import TOOL_FAILED, Chunk, Completion
from eccos_integrations._shared.errors import InvalidRequestError
from eccos_integrations._shared.messages import PROVIDER, describe_completion, recall_reasoning

# Blocks of an answer that every model understands. All others record how the answer came about, in the form of the
# provider that wrote it.
ANSWER_BLOCKS = frozenset({"audio", "file", "image", "image_url", "input_audio", "refusal", "text"})
# Keys of an OpenAI-style message that LangChain keeps in `additional_kwargs`. The first ones come in pieces that can be
# put together. A stream gives the others whole, at its end.
STREAMED_FIELDS = ("function_call", "reasoning_content", "refusal")
WHOLE_FIELDS = ("annotations", "audio", "provider_specific_fields", "thinking_blocks")
_CACHED_METADATA = ("model_name", "model_provider", "finish_reason", "logprobs", "cached_decision_id")

# ------------------------------------------------------------------------------------------------------------- inwards


def to_openai(messages: Sequence[BaseMessage]) -> tuple[dict[str, Any], ...]:
    """Convert LangChain's messages to OpenAI-style ones. Raise `InvalidRequestError` when they ask nothing."""
    if not messages:
        raise InvalidRequestError(
            "there are no messages. Give a string or at least one message, such as HumanMessage('...')."
        )
    if all(isinstance(message, SystemMessage) for message in messages):
        raise InvalidRequestError("there are only system messages, which ask nothing. Add a HumanMessage.")
    if not any(message.content or getattr(message, "tool_calls", None) for message in messages):
        raise InvalidRequestError("every message is empty. Give at least one word.")
    return convert_messages(messages)


def convert_messages(messages: Sequence[BaseMessage]) -> tuple[dict[str, Any], ...]:
    """Convert messages, whether or not they ask anything. Raise `InvalidRequestError` for content without a form."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    converted: list[dict[str, Any]] = []
    for message in messages:
        converted += _convert(message, answered)
    return tuple(converted)


def _convert(message: BaseMessage, answered: set[str]) -> list[dict[str, Any]]:
    """Convert one message. The result is several messages where a content block holds a tool's result."""
    cached: dict[str, Any] | None = None
    is_answer = isinstance(message, AIMessage)
    try:
        if isinstance(message.content, list):
            blocks = _pick_blocks(message.content, answered) if is_answer else _unwrap_blocks(message.content)
            message = message.model_copy(update={"content": blocks})
            cached = _find_cache_marks(blocks)
        # text alone becomes a string, unless one of its blocks must keep its cache mark
        found = convert_to_openai_messages(
            [message], text_format="block" if cached else "string", pass_through_unknown_blocks=not is_answer
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"a content block lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidRequestError(f"a {message.type} message cannot be translated: {what}") from error
    converted: list[dict[str, Any]] = list(found)
    if cached:
        for block in converted[0]["content"]:
            if block.get("type") == "text" and block["text"] in cached:
                block["cache_control"] = cached[block["text"]]
    if isinstance(message, ToolMessage) and message.status == "error":
        converted[0][TOOL_FAILED] = True
    if isinstance(message, AIMessage):
        broken = [_restore_call(call) for call in message.invalid_tool_calls if call["id"] in answered]
        if broken:
            converted[0]["tool_calls"] = [*converted[0].get("tool_calls", ()), *broken]
        converted[0] |= recall_reasoning(message.additional_kwargs, find_author(message))
    return converted


def find_author(message: AIMessage) -> str | None:
    """Return the model of the pool that wrote an answer. None for an answer of somebody else."""
    metadata = message.response_metadata
    return metadata.get("model_name") if metadata.get("model_provider") == PROVIDER else None


def _pick_blocks(content: Sequence[str | dict[str, Any]], answered: set[str]) -> list[str | dict[str, Any]]:
    """Return the blocks of an answer to send: those that every model understands, and calls that were answered."""
    return [
        block
        for block in content
        if isinstance(block, str)
        or block.get("type") in ANSWER_BLOCKS
        or (block.get("type") == "tool_use" and block.get("id") in answered)
        or (block.get("type") == "function_call" and block.get("call_id") in answered)
    ]


def _unwrap_blocks(content: Sequence[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
    """Return what a person gives. A provider's own format is unwrapped and passed on."""
    return [_unwrap_block(block) if isinstance(block, dict) else block for block in content]


def _unwrap_block(block: dict[str, Any]) -> dict[str, Any]:
    match block:
        case {"type": "non_standard", "value": dict() as own}:
            return own
        case {"type": "media", "data": str() as encoded, "mime_type": str() as mime_type}:  # Google's, in base64
            kind = mime_type.partition("/")[0]
            return {
                "type": kind if kind in ("image", "audio") else "file",
                "base64": encoded,
                "mime_type": mime_type,
            }
    return block


def _find_cache_marks(blocks: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `cache_control` of each text block that has one, by its text."""
    return {
        block["text"]: block["cache_control"]
        for block in blocks
        if not isinstance(block, str) and block.get("type") == "text" and block.get("cache_control")
    }


def _restore_call(call: InvalidToolCall) -> dict[str, Any]:
    return {
        "type": "function",
        "id": call["id"],
        "function": {"name": call["name"] or "", "arguments": call["args"] or ""},
    }


# ------------------------------------------------------------------------------------------------------------ outwards


def to_message(completion: Completion) -> AIMessage:
    """Convert an answer, with its usage, cost and decision."""
    calls, broken = _parse_tool_calls(completion.message.get("tool_calls") or ())
    message = AIMessage(
        content=completion.message.get("content") or completion.text,
        additional_kwargs=_pick_fields(completion.message, STREAMED_FIELDS + WHOLE_FIELDS),
        tool_calls=calls,
        invalid_tool_calls=broken,
    )
    message.usage_metadata = build_usage(completion)  # of our own making: set, not validated
    message.response_metadata = build_metadata(completion)
    return message


def to_message_chunk(chunk: Chunk) -> AIMessageChunk:
    """Convert a piece of an answer. The last piece carries usage, cost and decision."""
    message = AIMessageChunk(
        content=chunk.delta.get("content") or chunk.text,
        additional_kwargs=_pick_fields(chunk.delta, STREAMED_FIELDS),
        tool_call_chunks=[
            _build_tool_call_chunk(place, call) for place, call in enumerate(chunk.delta.get("tool_calls") or ())
        ],
    )
    if chunk.completion is not None:
        message.additional_kwargs |= _pick_fields(chunk.completion.message, WHOLE_FIELDS)
        message.usage_metadata = build_usage(chunk.completion)
        message.response_metadata = build_metadata(chunk.completion)
        message.chunk_position = "last"
    return message


def find_refusal(message: AIMessage) -> str | None:
    """Return what a model said when it refused to answer, or "" when a filter cut its answer. None for any other."""
    if refusal := message.additional_kwargs.get("refusal"):
        return str(refusal)
    return "" if message.response_metadata.get("finish_reason") == "content_filter" else None


def translate_blocks(message: AIMessage) -> list[ContentBlock]:
    """Return the standard content blocks of an answer: what LangChain finds itself, and a refusal."""
    blocks = message.model_copy(update={"response_metadata": {}}).content_blocks
    refusal = find_refusal(message)
    if refusal is not None and all(block["type"] != "refusal" for block in blocks):
        blocks.append({"type": "refusal", "refusal": refusal})
    return blocks


register_translator(PROVIDER, translate_blocks, translate_blocks)


def build_usage(completion: Completion) -> UsageMetadata:
    """Return the tokens that the provider counted. Input includes cached tokens, output includes reasoning tokens.

    The cost is not here, because langchain-core adds usages up as whole numbers. See `build_metadata`.
    """
    return UsageMetadata(
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        total_tokens=completion.input_tokens + completion.output_tokens,
        input_token_details=InputTokenDetails(cache_read=completion.cached_input_tokens),
        output_token_details=OutputTokenDetails(reasoning=completion.reasoning_tokens),
    )


def build_metadata(completion: Completion) -> dict[str, Any]:
    """Return who answered, what it cost, and why this model was chosen."""
    return {
        "model_name": completion.model,
        "model_provider": PROVIDER,  # langchain-core chooses the translator of content blocks by it
        **describe_completion(completion),
    }


def mark_cached(message: AIMessage) -> AIMessage:
    """Return an answer as it comes from a cache. It cost nothing and no model was chosen for it.

    `cached_decision_id` is the decision that first led to it.
    """
    first = message.response_metadata
    kept = {name: first[name] for name in _CACHED_METADATA if name in first}
    if "decision_id" in first:
        kept["cached_decision_id"] = first["decision_id"]
    return message.model_copy(update={"response_metadata": {**kept, "cached": True, "cost_usd": 0.0}})


def _parse_tool_calls(raw: Sequence[Mapping[str, Any]]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Return the calls, and the broken ones: those whose arguments are not a JSON object."""
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


def _build_tool_call_chunk(place: int, call: Mapping[str, Any]) -> ToolCallChunk:
    function = call.get("function") or {}
    return tool_call_chunk(
        name=function.get("name"),
        args=function.get("arguments"),
        id=call.get("id"),
        index=call.get("index", place),
    )


def _pick_fields(message: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: message[name] for name in names if name in message and _has_content(message[name])}


def _has_content(value: Any) -> bool:
    """Tell whether a value says something. LiteLLM adds `{"refusal": None}` to every answer of some providers."""
    return any(each is not None for each in value.values()) if isinstance(value, Mapping) else bool(value)
