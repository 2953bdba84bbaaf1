"""Messages, both ways: LlamaIndex's to OpenAI-style ones, and completions and chunks back.

Thinking and citation blocks record how an answer came about and are not sent to another model; tool calls travel as
`tool_calls`. (`llama-index-llms-litellm` has converters too, but its import is LiteLLM's, seconds long, it refuses
tool-call blocks, and it sends whatever stands in `additional_kwargs` to the provider: so not those.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from eccos_core.domain import Chunk, Completion
from eccos_integrations.llama_index.errors import InvalidRequestError

PROVIDER = "eccos"
ASSISTANTS = (MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL)  # three names for who answers
# what LlamaIndex keeps in `additional_kwargs` that is part of an OpenAI-style message; the rest is not for a model
BESIDE = ("name", "tool_call_id", "function_call", "refusal")

# ------------------------------------------------------------------------------------------------------------- inwards


def to_openai(messages: Sequence[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """OpenAI-style messages. Raises `InvalidRequestError` for a conversation that asks nothing.

    Files that blocks point to are read here.
    """
    if not messages:
        raise InvalidRequestError("there are no messages; give at least one, ChatMessage(role='user', content='...')")
    converted = tuple(_converted(message) for message in messages)
    if not any(each.get("content") or each.get("tool_calls") for each in converted):
        raise InvalidRequestError("every message is empty; give at least one word")
    return converted


def reads_files(messages: Sequence[ChatMessage]) -> bool:
    """Whether translating these messages may read from a disk or the network."""
    return any(not isinstance(block, TextBlock | ToolCallBlock) for message in messages for block in message.blocks)


def _converted(message: ChatMessage) -> dict[str, Any]:
    parts = _parts(message.blocks)
    content: Any = parts
    if all(part.keys() == {"type", "text"} for part in parts):
        content = "".join(part["text"] for part in parts)
    role = "assistant" if message.role in ASSISTANTS else message.role.value
    beside = message.additional_kwargs
    converted = {"role": role, "content": content, **{name: beside[name] for name in BESIDE if beside.get(name)}}
    if calls := _calls_of(message):
        converted["tool_calls"] = calls
        converted["content"] = content or None
    return converted


def _parts(blocks: Sequence[ContentBlock]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in blocks:
        match block:
            case CachePoint():
                if not parts:
                    raise InvalidRequestError("a CachePoint stands first; it marks the block before it")
                parts[-1]["cache_control"] = block.cache_control.model_dump()
            case CitableBlock():
                parts += _parts(block.content)
            case ThinkingBlock() | CitationBlock() | ToolCallBlock():
                continue
            case _:
                parts.append(_part(block))
    return parts


def _part(block: ContentBlock) -> dict[str, Any]:
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text}
        case ImageBlock():
            url = str(block.url) if block.url else _data_url(block.image_mimetype, block.resolve_image(as_base64=True))
            return {"type": "image_url", "image_url": {"url": url, "detail": block.detail or "auto"}}
        case AudioBlock():
            data = block.resolve_audio(as_base64=True).read().decode()
            return {"type": "input_audio", "input_audio": {"data": data, "format": block.format}}
        case VideoBlock():
            return {"type": "video_url", "video_url": {"url": str(block.url) if block.url else block.inline_url()}}
        case DocumentBlock():
            return {"type": "file", "file": {"filename": block.title, "file_data": block.inline_url()}}
    raise InvalidRequestError(f"a {type(block).__name__} cannot be sent to a model of the pool")


def _data_url(mimetype: str | None, encoded: Any) -> str:
    return f"data:{mimetype or 'image/png'};base64,{encoded.read().decode()}"


def _calls_of(message: ChatMessage) -> list[dict[str, Any]]:
    """The tool calls of an answer: its blocks, or what other LLMs of LlamaIndex leave beside it."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [_call(block.tool_call_id, block.tool_name, _as_text(block.tool_kwargs)) for block in blocks]
    beside = message.additional_kwargs.get("tool_calls") or ()
    return [each if isinstance(each, dict) else each.model_dump(exclude_none=True) for each in beside]


def _call(identity: str | None, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity or "", "type": "function", "function": {"name": name, "arguments": arguments}}


def _as_text(arguments: Mapping[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------------ outwards


def to_chat_response(completion: Completion) -> ChatResponse:
    """The answer, with usage, cost and decision."""
    message = completion.message
    return ChatResponse(
        message=_answer(
            message.get("content") or completion.text, message.get("reasoning_content"), message.get("tool_calls") or ()
        ),
        raw=_raw(completion),
        additional_kwargs=metadata_of(completion),
    )


def to_completion_response(response: ChatResponse) -> CompletionResponse:
    """The same answer as that of a completion."""
    return CompletionResponse(
        text=response.message.content or "",
        additional_kwargs={**response.message.additional_kwargs, **response.additional_kwargs},
        raw=response.raw,
        delta=response.delta,
    )


class StreamAccumulator:
    """Puts together what a stream brings."""

    def __init__(self) -> None:
        self._text = ""
        self._thought = ""
        self._calls: dict[int, dict[str, Any]] = {}  # by their place in the answer

    def take(self, chunk: Chunk) -> ChatResponse:
        """The answer so far, after this chunk; after the last one, with usage, cost and decision."""
        self._text += chunk.text
        thought = chunk.delta.get("reasoning_content") or ""
        self._thought += thought
        for place, call in enumerate(chunk.delta.get("tool_calls") or ()):
            self._add(call.get("index", place), call)
        told: dict[str, Any] = {"thinking_delta": thought} if thought else {}
        if chunk.completion is not None:
            whole = to_chat_response(chunk.completion)
            whole.delta = chunk.text
            whole.additional_kwargs |= told
            return whole
        calls = [self._calls[place] for place in sorted(self._calls)]
        return ChatResponse(
            message=_answer(self._text, self._thought, calls),
            delta=chunk.text,
            raw={"choices": [{"index": 0, "delta": dict(chunk.delta)}]},
            additional_kwargs=told,
        )

    def _add(self, place: int, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(place, _call(None, "", ""))
        call["id"] = call["id"] or piece.get("id") or ""
        function = piece.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def _answer(text: str, thought: str | None, calls: Sequence[Mapping[str, Any]]) -> ChatMessage:
    """Tool calls stand in blocks and, for all the code that looks for them there, in `additional_kwargs`."""
    blocks: list[ContentBlock] = [ThinkingBlock(content=thought)] if thought else []
    if text or not calls:
        blocks.append(TextBlock(text=text))
    copied = [_call(each.get("id"), _name(each), each["function"].get("arguments") or "") for each in calls]
    blocks += [
        ToolCallBlock(
            tool_call_id=each["id"] or None,
            tool_name=each["function"]["name"],
            tool_kwargs=each["function"]["arguments"],
        )
        for each in copied
    ]
    beside = {"tool_calls": copied} if copied else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=beside)


def _name(call: Mapping[str, Any]) -> str:
    return call["function"].get("name") or ""


def _raw(completion: Completion) -> dict[str, Any]:
    """The answer as OpenAI would write it; LlamaIndex's token counters read `usage`, agents hand it on."""
    return {
        "model": completion.model,
        "choices": [{"index": 0, "message": dict(completion.message), "finish_reason": completion.finish_reason}],
        "usage": usage_of(completion),
        PROVIDER: metadata_of(completion),
    }


def usage_of(completion: Completion) -> dict[str, Any]:
    """Tokens as the provider counted them; cached ones are part of the input, reasoning ones of the output."""
    return {
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": completion.reasoning_tokens},
    }


def metadata_of(completion: Completion) -> dict[str, Any]:
    """Who answered, what it cost, and why this model: predicted quality and cost beside the real ones."""
    metadata: dict[str, Any] = {
        "model": completion.model,
        "finish_reason": completion.finish_reason or "stop",
        "cost_usd": completion.cost_usd,
        "latency_s": completion.latency_s,
        "attempts": completion.attempts,
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
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
