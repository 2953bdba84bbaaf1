"""The FastAPI application: routes, and how each answer and each error leaves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

from eccos_core.domain import Chunk
from eccos_core.io.optional import needs_extra
from eccos_core.router import Router
from eccos_core.server.admin import add_admin_routes
from eccos_core.server.asked import ROUTER, OwnFields, build_request, known_models
from eccos_core.server.errors import ApiError, ApiName
from eccos_core.server.gate import Gate, OpenGate
from eccos_core.server.keys import KeyGate
from eccos_core.server.openai_chat import (
    describe_completion,
    own_headers,
    read_messages,
    read_parameters,
    stream_events,
)
from eccos_core.server.serving import Serving, include_usage, read_flag, tell
from eccos_core.server.settings import ServerSettings

with needs_extra("server", "eccos serve"):
    from fastapi import FastAPI
    from starlette.requests import Request as HttpRequest
    from starlette.responses import JSONResponse, Response, StreamingResponse

Handler: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]


def build_app(router: Router, gate: Gate | None = None, settings: ServerSettings | None = None) -> FastAPI:
    """Build the application around a router. The router stays yours: close it when the server has ended."""
    serving = Serving(router, gate or OpenGate(), settings or ServerSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        serving.draining = True

    app = FastAPI(title="eccos", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.serving = serving
    add_openai_routes(app, serving)
    add_operating_routes(app, serving)
    if isinstance(gate, KeyGate):
        add_admin_routes(app, serving, gate)
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(405, _not_found)
    return app


def guarded(api: ApiName, place: str, handle: Handler) -> Handler:
    """Wrap a handler, so that every error leaves it as the error object of its API."""

    async def answer(http: HttpRequest) -> Response:
        try:
            return await handle(http)
        except Exception as error:  # noqa: BLE001 - every error leaves as the error object of the API
            told = tell(error, place)
            return JSONResponse(told.body(api), told.status, headers=dict(told.headers))

    return answer


def add_openai_routes(app: FastAPI, serving: Serving) -> None:
    """Add `/v1/chat/completions` and `/v1/models`."""

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
            completion = await serving.complete(caller, request)
            return JSONResponse(describe_completion(completion), headers=own_headers(completion))
        chunks = await first_chunk(serving.stream(caller, request))
        events = stream_events(chunks, include_usage=include_usage(body))
        return event_stream(events, "openai", "/v1/chat/completions")

    async def models(http: HttpRequest) -> Response:
        await serving.admit(http)
        policies = [f"{ROUTER}:{name}" for name in serving.router.parts.policies]
        names = [ROUTER, *policies, *known_models(serving.router)]
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "eccos"} for name in names]
        return JSONResponse({"object": "list", "data": listed})

    for path, handle, method in (("/v1/chat/completions", chat, "POST"), ("/v1/models", models, "GET")):
        app.add_route(path, guarded("openai", path, handle), methods=[method])


def add_operating_routes(app: FastAPI, serving: Serving) -> None:
    """Add `/health`, `/ready` and `/v1/eccos/feedback`."""

    async def health(_: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: HttpRequest) -> Response:
        if serving.draining:
            return JSONResponse({"status": "shutting down"}, 503)
        problem = serving.router.problem
        return JSONResponse({"status": "ready", "configuration_problem": problem is not None})

    async def feedback(http: HttpRequest) -> Response:
        await serving.admit(http)
        body = await serving.read_json(http)
        decision_id, quality, signal = body.get("decision_id"), body.get("quality"), body.get("signal")
        if not isinstance(decision_id, str):
            raise ApiError("invalid_request", "decision_id must be the id of a decision", param="decision_id")
        if (quality is None) == (signal is None):
            raise ApiError("invalid_request", "give quality, or the name of a signal, and not both", param="quality")
        if signal is not None:
            serving.router.signal(decision_id, str(signal))
        elif isinstance(quality, (int, float)) and not isinstance(quality, bool):
            serving.router.record(decision_id, float(quality))
        else:
            raise ApiError("invalid_request", "quality must be a number from 0 to 1", param="quality")
        return JSONResponse({"decision_id": decision_id, "recorded": True})

    app.add_route("/health", health)
    app.add_route("/ready", ready)
    app.add_route("/v1/eccos/feedback", guarded("openai", "/v1/eccos/feedback", feedback), methods=["POST"])


async def first_chunk(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """Wait for the first chunk, so that an error before it gets its own status. Returns all chunks."""
    iterator = chunks.__aiter__()
    try:
        first = await iterator.__anext__()
    except StopAsyncIteration:
        raise ApiError("upstream", "the model ended its answer before it began") from None

    async def all_chunks() -> AsyncIterator[Chunk]:
        async with aclosing(iterator):  # type: ignore[type-var]
            yield first
            async for chunk in iterator:
                yield chunk

    return all_chunks()


def event_stream(events: AsyncIterator[bytes], api: ApiName, place: str) -> Response:
    """Send server-sent events. An error half way becomes the last event, because the status is already sent."""

    async def safely() -> AsyncIterator[bytes]:
        import json

        try:
            async with aclosing(events) as all_events:  # type: ignore[type-var]
                async for event in all_events:
                    yield event
        except Exception as error:  # noqa: BLE001 - the status is sent, so the error is the last event
            body: dict[str, Any] = tell(error, place).body(api)
            name = b"event: error\n" if api == "anthropic" else b""
            yield name + b"data: " + json.dumps(body).encode() + b"\n\n"

    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(safely(), media_type="text/event-stream", headers=headers)


async def _not_found(http: HttpRequest, _: Exception) -> Response:
    api: ApiName = "anthropic" if http.url.path.startswith("/v1/messages") else "openai"
    told = ApiError("not_found", f"{http.method} {http.url.path[:100]} is not served here. See the docs for the list.")
    return JSONResponse(told.body(api), told.status)
