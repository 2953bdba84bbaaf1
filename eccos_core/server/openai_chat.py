"""OpenAI's chat completions: a body becomes a request, and an answer becomes OpenAI's object or its stream."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from eccos_core.domain import Chunk, Completion, new_id
from eccos_core.server.errors import ApiError

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


def own_headers(completion: Completion) -> dict[str, str]:
    """Return the `x-eccos-` headers of an answer."""
    told = describe_decision(completion)
    named = {name: told[name] for name in ("model", "decision_id", "cost_usd", "reason") if name in told}
    return {f"x-eccos-{name.replace('_', '-')}": _header_text(value) for name, value in named.items()}


def _header_text(value: object) -> str:
    text = f"{value:.9f}" if isinstance(value, float) else str(value)
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
    answer_id, created, first = f"chatcmpl-{new_id()}", int(time.time()), True
    model = ""
    async for chunk in chunks:
        completion = chunk.completion
        model = completion.model if completion is not None else model
        if chunk.delta or chunk.text:
            delta = dict(chunk.delta) or {"content": chunk.text}
            if first:
                delta, first = {"role": "assistant", **delta}, False
            yield _event(_chunk(answer_id, created, model, delta, None))
        if completion is not None:
            reason = completion.finish_reason or "stop"
            last = _chunk(answer_id, created, model, {}, reason)
            yield _event({**last, "eccos": describe_decision(completion)})
            if include_usage:
                empty = {**_chunk(answer_id, created, model, {}, None), "choices": []}
                yield _event({**empty, "usage": describe_usage(completion)})
    yield b"data: [DONE]\n\n"


def _chunk(answer_id: str, created: int, model: str, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}],
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
