"""OpenAI's legacy completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from eccos_core.domain import Chunk, Completion, new_id
from eccos_core.server.answering import Handler, event_stream, first_chunk, json_response, while_connected
from eccos_core.server.asked import ROUTER, OwnFields, build_request
from eccos_core.server.errors import ApiError
from eccos_core.server.openai_chat import (
    describe_decision,
    describe_usage,
    own_headers,
    server_event,
    stream_headers,
)
from eccos_core.server.serving import Serving, include_usage, read_flag

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

_OURS = frozenset({"model", "prompt", "stream", "stream_options", "eccos", "user", "best_of", "echo", "suffix"})


def completions_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/completions`: the prompt is one message of a user."""

    async def completions(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        prompt = _read_prompt(body)
        parameters = {name: value for name, value in body.items() if name not in _OURS and value is not None}
        request = build_request(
            serving.router,
            caller,
            body.get("model", ROUTER),
            [{"role": "user", "content": prompt}],
            parameters,
            OwnFields.read(body.get("eccos"), http.headers),
        )
        if not read_flag(body, "stream"):
            completion = await while_connected(http, serving.complete(caller, request))
            told = {**_text_object(completion.model, completion.text, completion.finish_reason or "stop")}
            told |= {"usage": describe_usage(completion), "eccos": describe_decision(completion)}
            return json_response(told, headers=own_headers(completion))
        first, chunks = await while_connected(http, first_chunk(serving.stream(caller, request)))
        events = _text_events(chunks, include_usage=include_usage(body))
        return event_stream(serving, events, "openai", "/v1/completions", stream_headers(first))

    return completions


def _read_prompt(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        message = "prompt must be one text that is not empty. Send several, or token ids, to /v1/batches as texts"
        raise ApiError("invalid_request", message, param="prompt")
    for name, usual in (("suffix", None), ("echo", False), ("best_of", 1), ("logprobs", None)):
        if body.get(name) not in (None, usual):
            raise ApiError("invalid_request", f"{name} is not supported. Use /v1/chat/completions", param=name)
    return prompt


def _text_object(model: str, text: str, reason: str | None) -> dict[str, Any]:
    return {
        "id": f"cmpl-{new_id()}",
        "object": "text_completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None}],
    }


async def _text_events(chunks: AsyncGenerator[Chunk, None], *, include_usage: bool) -> AsyncGenerator[bytes, None]:
    told = _text_object("", "", None)
    async for chunk in chunks:
        completion: Completion | None = chunk.completion
        told["model"] = (completion.model if completion is not None else chunk.model) or told["model"]
        if chunk.text:
            yield server_event({**told, "choices": [{**told["choices"][0], "text": chunk.text}]})
        if completion is not None:
            reason = completion.finish_reason or "stop"
            last = {**told, "choices": [{**told["choices"][0], "finish_reason": reason}]}
            yield server_event({**last, "eccos": describe_decision(completion)})
            if include_usage:
                yield server_event({**told, "choices": [], "usage": describe_usage(completion)})
    yield b"data: [DONE]\n\n"
