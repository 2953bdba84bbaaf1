"""OpenAI's older and smaller endpoints: legacy completions, and embeddings."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eccos_core.domain import Chunk, Completion, new_id
from eccos_core.io.tokens import count_tokens
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

ENCODER = "eccos-encoder"  # the model name of the router's own encoder
MOST_TEXTS = 2_048
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


def embeddings_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/embeddings`: the router's own encoder."""

    async def embeddings(http: HttpRequest) -> Response:
        await serving.admit(http)
        body = await serving.read_json(http)
        texts = _read_texts(body)
        form = body.get("encoding_format", "float")
        if form not in ("float", "base64"):
            raise ApiError("invalid_request", "encoding_format must be float or base64", param="encoding_format")
        if body.get("model") != ENCODER:
            message = f"unknown embedding model. There is {ENCODER!r}, what the router itself reads questions with"
            raise ApiError("not_found", message, code="model_not_found", param="model")
        encoder = serving.router.parts.encoder
        if body.get("dimensions") not in (None, encoder.dimensions):
            message = f"dimensions must be {encoder.dimensions}, or be left out"
            raise ApiError("invalid_request", message, param="dimensions")
        vectors = await asyncio.to_thread(encoder.encode, texts)
        tokens = sum(count_tokens([{"role": "user", "content": text}]) for text in texts)
        data = [
            {"object": "embedding", "index": place, "embedding": _written(vector, form)}
            for place, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_response({"object": "list", "model": ENCODER, "data": data, "usage": usage})

    return embeddings


def _read_texts(body: Mapping[str, Any]) -> list[str]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ApiError("invalid_request", "input must be a text, or a list of texts, none of them empty", param="input")
    if len(texts) > MOST_TEXTS:
        raise ApiError("invalid_request", f"input has more than {MOST_TEXTS} texts", param="input")
    return [text.encode("utf-8", "replace").decode() for text in texts]


def _written(vector: Any, form: str) -> Any:
    if form == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return [float(number) for number in vector]
