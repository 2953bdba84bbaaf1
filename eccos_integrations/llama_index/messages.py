"""Convert messages both ways: LlamaIndex's to OpenAI-style ones, and completions and chunks back.

Thinking and citation blocks record how an answer came about. Thinking goes back to the model of the pool that wrote it,
and to no other. Tool calls travel as `tool_calls`. We do not use the converters of `llama-index-llms-litellm`.
Importing them takes seconds, they refuse tool-call blocks, and they send everything in `additional_kwargs` to the
provider.
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
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from eccos_core.domain import AUTHOR, REASONING_FIELDS, Chunk, Completion
from eccos_integrations._shared.errors import InvalidRequestError
from eccos_integrations._shared.messages import PROVIDER, describe_completion, recall_reasoning

ASSISTANTS = (MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL)  # three names for who answers
# fields of an OpenAI-style message that LlamaIndex keeps in `additional_kwargs`. The rest is not for a model.
KEPT_FIELDS = ("name", "tool_call_id", "function_call", "refusal")

# ------------------------------------------------------------------------------------------------------------- inwards


def to_openai(messages: Sequence[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """Convert LlamaIndex's messages to OpenAI-style ones. Raise `InvalidRequestError` when they ask nothing.

    Reads the files that blocks point to.
    """
    if not messages:
        raise InvalidRequestError(
            "there are no messages, so give at least one: ChatMessage(role='user', content='...')"
        )
    converted = tuple(_convert(message) for message in messages)
    if not any(each.get("content") or each.get("tool_calls") for each in converted):
        raise InvalidRequestError("every message is empty. Give at least one word.")
    return converted


def reads_files(messages: Sequence[ChatMessage]) -> bool:
    """Tell whether translating these messages may read from a disk or the network."""
    return any(not isinstance(block, TextBlock | ToolCallBlock) for message in messages for block in message.blocks)


def _convert(message: ChatMessage) -> dict[str, Any]:
    parts = _convert_blocks(message.blocks)
    content: Any = parts
    if all(part.keys() == {"type", "text"} for part in parts):
        content = "".join(part["text"] for part in parts)
    role = "assistant" if message.role in ASSISTANTS else message.role.value
    beside = message.additional_kwargs
    converted = {"role": role, "content": content, **{name: beside[name] for name in KEPT_FIELDS if beside.get(name)}}
    if calls := _find_tool_calls(message):
        converted["tool_calls"] = calls
        converted["content"] = content or None
    thought = "".join(block.content or "" for block in message.blocks if isinstance(block, ThinkingBlock))
    return converted | recall_reasoning({**beside, "reasoning_content": thought}, beside.get(AUTHOR))


def _convert_blocks(blocks: Sequence[ContentBlock]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in blocks:
        match block:
            case CachePoint():
                if not parts:
                    raise InvalidRequestError(
                        "a CachePoint stands first, but it marks the block before it. Put it after a block."
                    )
                parts[-1]["cache_control"] = block.cache_control.model_dump()
            case CitableBlock():
                parts += _convert_blocks(block.content)
            case ThinkingBlock() | CitationBlock() | ToolCallBlock():
                continue
            case _:
                parts.append(_convert_block(block))
    return parts


def _convert_block(block: ContentBlock) -> dict[str, Any]:
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text}
        case ImageBlock():
            url = (
                str(block.url)
                if block.url
                else _build_data_url(block.image_mimetype, block.resolve_image(as_base64=True))
            )
            return {"type": "image_url", "image_url": {"url": url, "detail": block.detail or "auto"}}
        case AudioBlock():
            data = block.resolve_audio(as_base64=True).read().decode()
            return {"type": "input_audio", "input_audio": {"data": data, "format": block.format}}
        case VideoBlock():
            return {"type": "video_url", "video_url": {"url": str(block.url) if block.url else block.inline_url()}}
        case DocumentBlock():
            return {"type": "file", "file": {"filename": block.title, "file_data": block.inline_url()}}
    raise InvalidRequestError(
        f"a {type(block).__name__} cannot be sent to a model of the pool. Remove it from the message."
    )


def _build_data_url(mimetype: str | None, encoded: Any) -> str:
    return f"data:{mimetype or 'image/png'};base64,{encoded.read().decode()}"


def _find_tool_calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Return the tool calls of an answer, from its blocks or from where other LLMs of LlamaIndex leave them."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [
            _build_tool_call(block.tool_call_id, block.tool_name, _dump_arguments(block.tool_kwargs))
            for block in blocks
        ]
    beside = message.additional_kwargs.get("tool_calls") or ()
    return [each if isinstance(each, dict) else each.model_dump(exclude_none=True) for each in beside]


def _build_tool_call(identity: str | None, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity or "", "type": "function", "function": {"name": name, "arguments": arguments}}


def _dump_arguments(arguments: Mapping[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------------ outwards


def to_chat_response(completion: Completion) -> ChatResponse:
    """Convert an answer, with its usage, cost and decision."""
    message = completion.message
    return ChatResponse(
        message=_sign(
            completion,
            _build_answer(
                message.get("content") or completion.text,
                message.get("reasoning_content"),
                message.get("tool_calls") or (),
            ),
        ),
        raw=_build_raw(completion),
        logprobs=_build_logprobs(completion),
        additional_kwargs=build_metadata(completion),
    )


def _sign(completion: Completion, answer: ChatMessage) -> ChatMessage:
    """Note beside a thought who had it, so that it can go back there."""
    reasoning = {name: completion.message[name] for name in REASONING_FIELDS if completion.message.get(name)}
    if reasoning:
        signed = {"thinking_blocks": reasoning.get("thinking_blocks"), AUTHOR: completion.model}
        answer.additional_kwargs |= {name: value for name, value in signed.items() if value}
    return answer


def _build_logprobs(completion: Completion) -> list[list[LogProb]] | None:
    """Return the log-probabilities of each token: of its alternatives where there are any, else its own."""
    if not completion.logprobs:
        return None
    return [
        [
            LogProb(token=each["token"], logprob=each["logprob"], bytes=each.get("bytes") or [])
            for each in token.get("top_logprobs") or [token]
        ]
        for token in completion.logprobs.get("content") or ()
    ]


def to_completion_response(response: ChatResponse) -> CompletionResponse:
    """Convert the answer of a chat to the answer of a completion."""
    return CompletionResponse(
        text=response.message.content or "",
        additional_kwargs={**response.message.additional_kwargs, **response.additional_kwargs},
        raw=response.raw,
        logprobs=response.logprobs,
        delta=response.delta,
    )


class StreamAccumulator:
    """The answer so far, put together from the chunks of a stream."""

    def __init__(self) -> None:
        self._text = ""
        self._thought = ""
        self._calls: dict[int, dict[str, Any]] = {}  # by their place in the answer

    def add(self, chunk: Chunk) -> ChatResponse:
        """Add a chunk and return the answer so far. After the last chunk it carries usage, cost and decision."""
        self._text += chunk.text
        thought = chunk.delta.get("reasoning_content") or ""
        self._thought += thought
        for place, call in enumerate(chunk.delta.get("tool_calls") or ()):
            self._add_call(call.get("index", place), call)
        extra: dict[str, Any] = {"thinking_delta": thought} if thought else {}
        if chunk.completion is not None:
            whole = to_chat_response(chunk.completion)
            whole.delta = chunk.text
            whole.additional_kwargs |= extra
            return whole
        calls = [self._calls[place] for place in sorted(self._calls)]
        return ChatResponse(
            message=_build_answer(self._text, self._thought, calls),
            delta=chunk.text,
            raw={"choices": [{"index": 0, "delta": dict(chunk.delta)}]},
            additional_kwargs=extra,
        )

    def _add_call(self, place: int, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(place, _build_tool_call(None, "", ""))
        call["id"] = call["id"] or piece.get("id") or ""
        function = piece.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def _build_answer(text: str, thought: str | None, calls: Sequence[Mapping[str, Any]]) -> ChatMessage:
    """Build the message. Tool calls are in its blocks, and in `additional_kwargs` for code that looks there."""
    blocks: list[ContentBlock] = [ThinkingBlock(content=thought)] if thought else []
    if text or not calls:
        blocks.append(TextBlock(text=text))
    copied = [
        _build_tool_call(each.get("id"), _read_name(each), each["function"].get("arguments") or "") for each in calls
    ]
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


def _read_name(call: Mapping[str, Any]) -> str:
    return call["function"].get("name") or ""


def _build_raw(completion: Completion) -> dict[str, Any]:
    """Return the answer as OpenAI would write it. LlamaIndex's token counters read `usage`, and agents pass it on."""
    return {
        "model": completion.model,
        "choices": [{"index": 0, "message": dict(completion.message), "finish_reason": completion.finish_reason}],
        "usage": build_usage(completion),
        PROVIDER: build_metadata(completion),
    }


def build_usage(completion: Completion) -> dict[str, Any]:
    """Return the tokens that the provider counted. Input includes cached tokens, output includes reasoning tokens."""
    return {
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": completion.reasoning_tokens},
    }


def build_metadata(completion: Completion) -> dict[str, Any]:
    """Return who answered, what it cost, and why this model was chosen."""
    return {
        "model": completion.model,
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
        **describe_completion(completion),
    }
