"""OpenAI's chat completions: a body becomes a request, and an answer becomes OpenAI's object or its stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from eccos_core.domain import Chunk, Completion, new_id
from eccos_core.server.errors import ApiError
from eccos_core.server.json_text import dump_json

NOT_PARAMETERS = frozenset({"model", "messages", "stream", "stream_options", "eccos", "user", "metadata", "store"})
"""Keys of a body that are no call parameters. `user`, `metadata` and `store` are for OpenAI's own records."""


def read_parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call parameters of a body. A key with null counts as left out, as OpenAI has it."""
    return {name: value for name, value in body.items() if name not in NOT_PARAMETERS and value is not None}


def read_messages(body: Mapping[str, Any]) -> list[Any]:
    """Return the messages of a body. Raises `ApiError`."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError("invalid_request", "messages must be a list with at least one message", param="messages")
    return messages


def describe_usage(completion: Completion) -> dict[str, Any]:
    """Return the usage object of an answer. With a plan it counts the given answer. The cost counts all calls."""
    return {
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": completion.reasoning_tokens},
    }


def describe_decision(completion: Completion) -> dict[str, Any]:
    """Return what eccos adds to an answer, and what its headers say."""
    decision = completion.decided_by
    if decision is None:
        return {}
    return {
        "model": completion.model,
        "decision_id": decision.id,
        "cost_usd": completion.cost_usd,
        "reason": decision.reason,
        "predicted_quality": decision.quality,
        "calls": [call.model for call in completion.calls] or [completion.model],
    }


def stream_headers(first: Chunk) -> dict[str, str]:
    """Return the `x-eccos-` headers of a streamed answer: what is known at its first chunk. The cost comes last."""
    if first.decided_by is None:
        return {}
    told = {"model": first.model, "decision_id": first.decided_by.id, "reason": first.decided_by.reason}
    return {f"x-eccos-{name.replace('_', '-')}": _header_text(value) for name, value in told.items()}


def own_headers(completion: Completion) -> dict[str, str]:
    """Return the `x-eccos-` headers of an answer."""
    told = describe_decision(completion)
    named = {name: told[name] for name in ("model", "decision_id", "cost_usd", "reason") if name in told}
    return {f"x-eccos-{name.replace('_', '-')}": _header_text(value) for name, value in named.items()}


def _header_text(value: object) -> str:
    text = f"{value:.9f}" if isinstance(value, float) else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def describe_completion(completion: Completion) -> dict[str, Any]:
    """Return OpenAI's object of an answer."""
    message = {"role": "assistant", "content": completion.text or None, **completion.message}
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": completion.finish_reason or "stop",
        "logprobs": dict(completion.logprobs) if completion.logprobs else None,
    }
    return {
        "id": f"chatcmpl-{_id_of(completion)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": completion.model,
        "choices": [choice],
        "usage": describe_usage(completion),
        "eccos": describe_decision(completion),
    }


def _id_of(completion: Completion) -> str:
    return completion.decided_by.id if completion.decided_by is not None else new_id()


async def stream_events(chunks: AsyncIterator[Chunk], *, include_usage: bool) -> AsyncIterator[bytes]:
    """Yield the server-sent events of a streamed answer, the last one `[DONE]`."""
    writer = ChunkWriter(f"chatcmpl-{new_id()}", include_usage=include_usage)
    async for chunk in chunks:
        for told in writer.write(chunk):
            yield server_event(told)
    yield b"data: [DONE]\n\n"


class ChunkWriter:
    """Writes the chunks of one answer as OpenAI's chunk objects. The last ones have the finish reason and the usage."""

    def __init__(self, answer_id: str, *, include_usage: bool) -> None:
        self._id, self._include_usage = answer_id, include_usage
        self._created, self._first, self._model = int(time.time()), True, ""

    def write(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """Yield the objects of one chunk."""
        completion = chunk.completion
        self._model = (completion.model if completion is not None else chunk.model) or self._model
        if chunk.delta or chunk.text:
            delta = dict(chunk.delta) or {"content": chunk.text}
            if self._first:
                delta, self._first = {"role": "assistant", **delta}, False
            yield self._object(delta, None)
        if completion is not None:
            last = self._object({}, completion.finish_reason or "stop")
            yield {**last, "eccos": describe_decision(completion)}
            if self._include_usage:
                yield {**self._object({}, None), "choices": [], "usage": describe_usage(completion)}

    def _object(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}],
        }


def server_event(value: Mapping[str, Any], name: str | None = None) -> bytes:
    """Return a server-sent event with a JSON object, and with a name where the API has names."""
    data = b"data: " + dump_json(value) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data
