"""OpenAI's endpoints that answer at once: chat completions, legacy completions, models."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from eccos_core.server.answering import (
    Handler,
    event_stream,
    first_chunk,
    json_response,
    while_connected,
)
from eccos_core.server.asked import ROUTER, OwnFields, build_request, known_models
from eccos_core.server.errors import ApiError
from eccos_core.server.openai_chat import (
    describe_completion,
    own_headers,
    read_messages,
    read_parameters,
    stream_events,
    stream_headers,
)
from eccos_core.server.serving import Serving, include_usage, read_flag

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response


def chat_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/chat/completions`."""

    async def chat(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        request = build_request(
            serving.router,
            caller,
            body.get("model", ROUTER),
            read_messages(body),
            read_parameters(body),
            OwnFields.read(body.get("eccos"), http.headers),
        )
        if not read_flag(body, "stream"):
            completion = await while_connected(http, serving.complete(caller, request))
            return json_response(describe_completion(completion), headers=own_headers(completion))
        first, chunks = await while_connected(http, first_chunk(serving.stream(caller, request)))
        events = stream_events(chunks, include_usage=include_usage(body))
        return event_stream(serving, events, "openai", "/v1/chat/completions", stream_headers(first))

    return chat


def models_handler(serving: Serving) -> Handler:
    """Return the handler of `GET /v1/models` and `GET /v1/models/{id}`."""

    async def models(http: HttpRequest) -> Response:
        await serving.admit(http)
        policies = [f"{ROUTER}:{name}" for name in serving.router.parts.policies]
        listed = {
            name: {"id": name, "object": "model", "created": 0, "owned_by": "eccos"}
            for name in (ROUTER, *policies, *known_models(serving.router), *serving.embeddings.names)
        }
        asked = http.path_params.get("model")
        if asked is None:
            return json_response({"object": "list", "data": list(listed.values())})
        with suppress(KeyError):
            return json_response(listed[asked])
        told = f"unknown model {asked[:100]!r}. GET /v1/models lists what there is."
        raise ApiError("not_found", told, code="model_not_found", param="model")

    return models
