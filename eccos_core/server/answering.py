"""How a handler's result leaves the server: an answer, an error of the right API, a stream, or nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

from eccos_core.domain import Chunk
from eccos_core.io.optional import needs_extra
from eccos_core.server.errors import ApiError, ApiName
from eccos_core.server.json_text import dump_json
from eccos_core.server.serving import Serving, tell

with needs_extra("server", "eccos serve"):
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response, StreamingResponse

Handler: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]
Result = TypeVar("Result")
WATCH_AFTER_S = 0.1  # most answers are there before, and a task for each that waits for its client to leave costs time


class ClientGoneError(Exception):
    """The client has left before its answer was there. Nobody reads what is said now."""


def guarded(serving: Serving, api: ApiName, place: str, handle: Handler) -> Handler:
    """Wrap a handler, so that every error leaves it as the error object of its API."""

    async def answer(http: HttpRequest) -> Response:
        try:
            return await handle(http)
        except ClientGoneError:
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - every error leaves as the error object of the API
            told = tell(error, place)
            serving.metrics.count_error(told.kind)
            return json_response(told.body(api), told.status, told.headers)

    return answer


def json_response(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer. Half characters become `?`, as no client could read them."""
    return Response(dump_json(body), status, headers=dict(headers or {}), media_type="application/json")


async def while_connected(http: HttpRequest, work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work, and cancel it when the client leaves. Raises `ClientGoneError` then."""
    me = asyncio.current_task()
    assert me is not None
    gone, watcher = False, None

    async def watch() -> None:
        nonlocal gone
        while (await http.receive())["type"] != "http.disconnect":
            pass
        gone = True
        me.cancel()

    def begin_to_watch() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, begin_to_watch)
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            me.uncancel()
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def first_chunk(chunks: AsyncGenerator[Chunk, None]) -> tuple[Chunk, AsyncGenerator[Chunk, None]]:
    """Wait for the first chunk, so that an error before it gets its own status. Returns it, and all chunks."""
    try:
        first = await anext(chunks)
    except StopAsyncIteration:
        raise ApiError("upstream", "the model ended its answer before it began") from None
    except BaseException:
        await chunks.aclose()
        raise

    async def all_chunks() -> AsyncGenerator[Chunk, None]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return first, all_chunks()


def event_stream(
    serving: Serving, events: AsyncIterator[bytes], api: ApiName, place: str, headers: Mapping[str, str]
) -> Response:
    """Send server-sent events. An error half way becomes the last event, because the status is already sent."""

    async def safely() -> AsyncIterator[bytes]:
        try:
            async with aclosing(events) as all_events:  # type: ignore[type-var]
                async for event in all_events:
                    yield event
        except Exception as error:  # noqa: BLE001 - the status is sent, so the error is the last event
            told = tell(error, place)
            serving.metrics.count_error(told.kind)
            body: dict[str, Any] = told.body(api)
            name = b"event: error\n" if api == "anthropic" else b""
            yield name + b"data: " + dump_json(body) + b"\n\n"

    all_headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **headers}
    return StreamingResponse(safely(), media_type="text/event-stream", headers=all_headers)


async def discard(http: HttpRequest, most_s: float = 2.0) -> None:
    """Read the rest of a refused body for a moment, so that the client reads the error instead of a broken pipe."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(most_s):
            while (message := await http.receive())["type"] == "http.request" and message.get("more_body"):
                pass
