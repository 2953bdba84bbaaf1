"""The process behind `ModelServer`: reads its settings from stdin, writes its port to stdout, ends with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from aiohttp import web

from eccos_core.testing.batch_script import BatchScript
from eccos_core.testing.embedding_script import embed, first_text, plan_embeddings
from eccos_core.testing.server import BatchFaults, Faults, ServerStatistics
from eccos_core.testing.server_script import ScriptedReply, body_problem, plan_reply, text_of

DRIP_S = 0.05  # between two keep-alives
CREATED = 1_700_000_000  # a fixed time: the same request gives the same answer


class _Server:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._latency_s, self._chunk_s = settings["latency_s"], settings["chunk_s"]
        self._faults, self._api_key = Faults(**settings["faults"]), settings["api_key"]
        self._script = settings["script"]
        self._counted: dict[str, Counter[str]] = {name: Counter() for name in ServerStatistics.__dataclass_fields__}
        self._seen: Counter[str] = Counter()
        self._number = 0
        self._last: dict[str, Any] = {}
        self._batches = BatchScript(
            lambda body: self._still_failing(body, plan_reply(body, self._script)),
            _whole,
            self._counted,
            api_key=self._api_key,
            batch_s=settings["batch_s"],
            folder=settings["folder"],
            faults=BatchFaults(**settings["batch_faults"]),
        )

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/embeddings", self.embeddings),
            web.get("/v1/models", self.models),
            web.get("/health", self.health),
            web.get("/statistics", self.statistics),
            web.get("/reset", self.reset),
            web.get("/last-request", self.last_request),
            *self._batches.routes(),
        ]

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def statistics(self, _: web.Request) -> web.Response:
        return web.json_response({name: dict(counter) for name, counter in self._counted.items()})

    async def reset(self, _: web.Request) -> web.Response:
        running = self._counted["in_flight"]
        for counter in self._counted.values():
            if counter is not running:
                counter.clear()
        return web.json_response({})

    async def last_request(self, _: web.Request) -> web.Response:
        return web.json_response(self._last)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if (problem := body_problem(body)) is not None:
            return _error(400, {"message": problem, "type": "invalid_request_error", "code": "invalid"})
        self._last = body
        model = str(body.get("model"))
        if (refused := self._refuse_key(request)) is not None:
            return refused
        self._counted["requests"][model] += 1
        with self._in_flight(model) as end:
            try:
                return await self._answer(request, body, end)
            except asyncio.CancelledError:
                self._counted["left"][model] += 1
                raise

    def _refuse_key(self, request: web.Request) -> web.Response | None:
        """Return the error for a wrong key. It shows the key, as some providers do."""
        if self._api_key is None or request.headers.get("Authorization") == f"Bearer {self._api_key}":
            return None
        shown = request.headers.get("Authorization", "")
        return _error(401, {"message": f"Incorrect API key provided: {shown}", "code": "invalid_api_key"})

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._last = body
        model = str(body.get("model"))
        if (refused := self._refuse_key(request)) is not None:
            return refused
        self._counted["requests"][model] += 1
        planned = self._still_failing({**body, "messages": [{"content": first_text(body)}]}, plan_embeddings(body))
        with self._in_flight(model) as end:
            await asyncio.sleep(self._latency_s + planned.latency_s)
            if planned.fault == "status":
                end("failed")
                return _error(planned.status, planned.error, planned.headers)
            end("answered")
            return web.json_response(embed(body, planned))

    @contextlib.contextmanager
    def _in_flight(self, model: str) -> Iterator[Any]:
        """Counts a request until `end` is called, which is before its last byte is sent: whoever has got the whole
        answer is no longer counted."""
        running, most = self._counted["in_flight"], self._counted["most_at_once"]
        running[model] += 1
        most[model] = max(most[model], running[model])
        ended = False

        def end(outcome: str) -> None:
            nonlocal ended
            if not ended:
                ended = True
                running[model] -= 1
                self._counted[outcome][model] += 1

        try:
            yield end
        finally:
            if not ended:
                ended = True
                running[model] -= 1

    async def _answer(self, request: web.Request, body: Mapping[str, Any], end: Any) -> web.StreamResponse:
        planned = self._by_chance(self._still_failing(body, plan_reply(body, self._script)))
        await asyncio.sleep(self._latency_s + planned.latency_s)
        match planned.fault:
            case "status":
                end("failed")
                return _error(planned.status, planned.error, planned.headers)
            case "reset":
                end("failed")
                return self._broken(request)
            case "malformed":
                end("failed")
                return web.Response(text='{"choices": [{"message": {"content": "half', content_type="application/json")
            case "no-choices":
                end("failed")
                return web.json_response(
                    {**_envelope(body, "chat.completion"), "choices": [], "usage": _usage(planned)}
                )
            case "html":
                end("failed")
                return web.Response(text="<!DOCTYPE html><h1>Sign in</h1>", content_type="text/html")
            case "json":
                end("answered")
                return web.json_response(_whole(body, planned))
            case "drip":
                return await self._drip(request, streamed=bool(body.get("stream")))
        if body.get("stream"):
            return await self._stream(request, body, planned, end)
        if planned.fault in ("cut", "end"):
            end("failed")
            return await self._half(request)
        end("answered")
        return web.json_response(_whole(body, planned))

    async def _stream(
        self, request: web.Request, body: Mapping[str, Any], planned: ScriptedReply, end: Any
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for place, chunk in enumerate(_chunks(body, planned)):
            if planned.fault in ("cut", "end") and place >= planned.pieces:
                await asyncio.sleep(0.02)  # let what was written arrive
                end("failed")
                if planned.fault == "cut":
                    return self._broken(request)
                await response.write_eof()
                return response
            if place and self._chunk_s:
                await asyncio.sleep(self._chunk_s)
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        end("answered")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _drip(self, request: web.Request, *, streamed: bool) -> web.StreamResponse:
        kind, piece = ("text/event-stream", b": keep-alive\n\n") if streamed else ("application/json", b"\n")
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        while True:
            await response.write(piece)
            await asyncio.sleep(DRIP_S)

    async def _half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices": [')
        return self._broken(request)

    @staticmethod
    def _broken(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _still_failing(self, body: Mapping[str, Any], planned: ScriptedReply) -> ScriptedReply:
        """The plan without its fault when that was to happen a few times only, and has."""
        if planned.times is None or planned.fault is None:
            return planned
        key = str(body.get("model")) + text_of(body["messages"][-1])
        self._seen[key] += 1
        return planned if self._seen[key] <= planned.times else replace(planned, fault=None)

    def _by_chance(self, planned: ScriptedReply) -> ScriptedReply:
        faults = self._faults
        if planned.fault is not None:
            return planned
        self._number += 1
        draw = random.Random(f"{faults.seed} {self._number}").random()  # noqa: S311 - chance, not secrets
        later = {"Retry-After": str(faults.retry_after_s)}
        chances: tuple[tuple[float, dict[str, Any]], ...] = (
            (faults.too_many, {"fault": "status", "status": 429, "headers": later}),
            (faults.broken, {"fault": "status", "status": 500}),
            (faults.reset, {"fault": "reset"}),
            (faults.cut, {"fault": "cut", "pieces": 2}),
        )
        for share, fault in chances:
            if draw < share:
                return replace(planned, error={"message": "drawn by chance", "code": "chance"}, **fault)
            draw -= share
        return planned


def _error(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": dict(error)}, status=status, headers=headers)


def _envelope(body: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-test", "object": kind, "created": CREATED, "model": body.get("model")}


def _usage(planned: ScriptedReply) -> dict[str, Any]:
    return {
        "prompt_tokens": planned.input_tokens,
        "completion_tokens": planned.output_tokens,
        "total_tokens": planned.input_tokens + planned.output_tokens,
        "prompt_tokens_details": {"cached_tokens": planned.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": planned.reasoning_tokens},
    }


def _tool_calls(planned: ScriptedReply) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(planned.tool_calls)
    ]


def _whole(body: Mapping[str, Any], planned: ScriptedReply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": planned.text}
    if planned.tool_calls:
        message |= {"content": None, "tool_calls": _tool_calls(planned)}
    choice = {"index": 0, "message": message, "finish_reason": planned.finish_reason}
    usage = {"usage": _usage(planned)} if planned.usage else {}
    return {**_envelope(body, "chat.completion"), "choices": [choice], **usage}


def _chunks(body: Mapping[str, Any], planned: ScriptedReply) -> Iterator[dict[str, Any]]:
    envelope = _envelope(body, "chat.completion.chunk")

    def chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {**envelope, "choices": [{"index": 0, "delta": dict(delta), "finish_reason": finish_reason}]}

    yield chunk({"role": "assistant", "content": ""})
    for place, word in enumerate(planned.text.split(" ") if planned.text else []):
        yield chunk({"content": word if place == 0 else f" {word}"})
    for place, call in enumerate(_tool_calls(planned)):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        yield chunk({"tool_calls": [{**call, "index": place, "function": {**call["function"], "arguments": ""}}]})
        for piece in (arguments[:half], arguments[half:]):
            yield chunk({"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
    yield chunk({}, planned.finish_reason)
    if planned.usage and (body.get("stream_options") or {}).get("include_usage"):
        yield {**envelope, "choices": [], "usage": _usage(planned)}


async def _serve(settings: Mapping[str, Any]) -> None:
    application = web.Application(client_max_size=64 * 2**20)
    application.add_routes(_Server(settings).routes())
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", settings["port"], backlog=4096)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    parent_gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        sys.stdin.read()  # ends when the parent ends, whatever ended it
        loop.call_soon_threadsafe(parent_gone.set)

    threading.Thread(target=watch, daemon=True).start()
    await parent_gone.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until stdin is closed."""
    settings = {"latency_s": 0.0, "chunk_s": 0.0, "api_key": None, "script": {}, "faults": asdict(Faults())}
    settings |= {"batch_s": 0.05, "batch_faults": asdict(BatchFaults()), "port": 0, "folder": None}
    settings |= json.loads(sys.stdin.readline() or "{}")
    asyncio.run(_serve(settings))


if __name__ == "__main__":
    main()
