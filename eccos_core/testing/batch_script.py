"""The batch APIs of the test server: OpenAI's files and batches, and Anthropic's message batches.

Every row is answered as the same request alone would be (`server_script`). Two directives are for rows alone:

    [[expire]]   the row is not answered in time      [[reject]]   OpenAI: the whole file is refused

A batch is over `batch_s` seconds after it was submitted. With a folder, batches outlive the server.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from eccos_core.testing.server import BatchFaults
from eccos_core.testing.server_script import DIRECTIVE, ScriptedReply

Plan = Callable[[Mapping[str, Any]], ScriptedReply]  # of a chat completion's body
Whole = Callable[[Mapping[str, Any], ScriptedReply], dict[str, Any]]  # the body of its answer
DAY_S = 86_400
_ANTHROPIC_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


class BatchScript:
    """Keeps files and batches, and answers rows. `counted` is the server's own, by name and model."""

    def __init__(
        self,
        plan: Plan,
        whole: Whole,
        counted: Mapping[str, Counter[str]],
        *,
        api_key: str | None,
        batch_s: float,
        folder: str | None,
        faults: BatchFaults,
    ) -> None:
        self._plan, self._whole, self._counted = plan, whole, counted
        self._api_key, self._batch_s, self._faults = api_key, batch_s, faults
        self._place = None if folder is None else Path(folder) / "batches.json"
        self._lost, self._looked = 0, 0
        self._kept: dict[str, dict[str, Any]] = {"files": {}, "batches": {}, "messages": {}}
        if self._place is not None and self._place.exists():
            self._kept = json.loads(self._place.read_text())

    def routes(self) -> list[web.RouteDef]:
        """The routes of both APIs."""
        return [
            web.post("/v1/files", self._guarded(self._upload)),
            web.get("/v1/files/{id}/content", self._guarded(self._content)),
            web.post("/v1/batches", self._guarded(self._create)),
            web.get("/v1/batches", self._guarded(self._list)),
            web.get("/v1/batches/{id}", self._guarded(self._look)),
            web.post("/v1/batches/{id}/cancel", self._guarded(self._cancel)),
            web.post("/v1/messages", self._guarded(self._message)),
            web.post("/v1/messages/batches", self._guarded(self._create_messages)),
            web.get("/v1/messages/batches", self._guarded(self._list_messages)),
            web.get("/v1/messages/batches/{id}", self._guarded(self._look_messages)),
            web.get("/v1/messages/batches/{id}/results", self._guarded(self._results)),
            web.post("/v1/messages/batches/{id}/cancel", self._guarded(self._cancel_messages)),
        ]

    def _guarded(self, handler: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
            if self._api_key is not None and given != self._api_key:
                return _refuse(401, f"Incorrect API key provided: {given}")
            kept = "messages" if "/messages/" in request.path else "batches"
            if "id" in request.match_info and request.match_info["id"] not in self._kept[kept] | self._kept["files"]:
                return _refuse(404, f"No such object: {request.match_info['id']}")
            answer: web.StreamResponse = await handler(request)
            if self._place is not None and request.method == "POST":
                self._place.write_text(json.dumps(self._kept))
            return answer

        return guarded

    def _lose(self, request: web.Request) -> bool:
        """Break the connection after a batch was taken, as often as told."""
        self._lost += 1
        if self._lost > self._faults.lost_answers or request.transport is None:
            return False
        request.transport.abort()
        return True

    # ---------------------------------------------------------------- OpenAI

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        if not isinstance(file, web.FileField) or form.get("purpose") != "batch":
            return _refuse(400, "a file and the purpose 'batch' are needed")
        name = f"file-{uuid.uuid4().hex}"
        self._kept["files"][name] = file.file.read().decode()
        return web.json_response({"id": name, "object": "file", "purpose": "batch"})

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(text=self._kept["files"][request.match_info["id"]])

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        content = self._kept["files"].get(asked.get("input_file_id"))
        if content is None or asked.get("completion_window") != "24h":
            return _refuse(400, "an uploaded input_file_id and the completion_window 24h are needed")
        lines = [json.loads(line) for line in content.splitlines()]
        name = f"batch_{uuid.uuid4().hex}"
        rejected = any("reject" in _directives(line["body"]) for line in lines)
        answers = [self._openai_line(line) for line in lines]
        self._kept["batches"][name] = {
            "id": name,
            "endpoint": asked["endpoint"],
            "metadata": asked.get("metadata") or {},
            "created_at": time.time(),
            "lines": answers,
            "rejected": rejected,
        }
        self._count([line["body"] for line in lines])
        if self._place is not None:
            self._place.write_text(json.dumps(self._kept))
        return web.Response() if self._lose(request) else web.json_response(self._shown(name))

    def _openai_line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        body, shown = line["body"], {"id": f"row-{uuid.uuid4().hex}", "custom_id": line["custom_id"]}
        if "expire" in _directives(body):
            error = {"code": "batch_expired", "message": "This request could not be executed before the window ended."}
            return {**shown, "response": None, "error": error}
        planned = self._plan(body)
        if planned.fault == "status":
            response: dict[str, Any] = {"status_code": planned.status, "body": {"error": dict(planned.error)}}
        else:
            response = {"status_code": 200, "body": self._whole(body, planned)}
        return {**shown, "response": response, "error": None}

    async def _list(self, request: web.Request) -> web.Response:
        names = sorted(self._kept["batches"], key=lambda name: -self._kept["batches"][name]["created_at"])
        return web.json_response({"data": [self._shown(name) for name in names], "has_more": False})

    async def _look(self, request: web.Request) -> web.Response:
        self._looked += 1
        if self._looked <= self._faults.refused_looks:
            return _refuse(503, "the server is overloaded")
        return web.json_response(self._shown(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.Response:
        self._kept["batches"][request.match_info["id"]].setdefault("cancelled_at", time.time())
        return web.json_response(self._shown(request.match_info["id"]))

    def _shown(self, name: str) -> dict[str, Any]:
        batch = self._kept["batches"][name]
        lines = batch["lines"]
        status = "completed" if self._is_over(batch) else "in_progress"
        expired = [line for line in lines if line["error"]]
        good = [line for line in lines if line["response"] and line["response"]["status_code"] == 200]
        if batch["rejected"]:
            return self._summary(batch, "failed") | {
                "errors": {"data": [{"code": "invalid_json_line", "message": "This line is not parseable.", "line": 1}]}
            }
        if status == "in_progress" and "cancelled_at" in batch:
            error = {"code": "batch_cancelled", "message": "This request was not executed."}
            lines = [{**line, "response": None, "error": error} for line in lines]
            status, good = "cancelled", []
        elif status == "completed" and expired:
            status = "expired"
        if status == "in_progress":
            return self._summary(batch, status)
        files = {}
        bad = [line for line in lines if line not in good]
        for key, part in (("output_file_id", good), ("error_file_id", bad)):
            if part:
                files[key] = f"file-{key}-{name}"
                self._kept["files"][files[key]] = "\n".join(json.dumps(line) for line in part)
        return self._summary(batch, status) | files

    def _summary(self, batch: Mapping[str, Any], status: str) -> dict[str, Any]:
        total = len(batch["lines"])
        failed = sum(not line["response"] or line["response"]["status_code"] != 200 for line in batch["lines"])
        over = status in ("completed", "expired")
        counts = {"total": total, "completed": (total - failed) * over, "failed": failed * over}
        kept = {key: batch[key] for key in ("id", "endpoint", "metadata")}
        return {**kept, "object": "batch", "created_at": int(batch["created_at"]), "status": status} | {
            "request_counts": counts
        }

    # ---------------------------------------------------------------- Anthropic

    async def _message(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._counted["requests"][str(body.get("model"))] += 1
        planned = self._plan(_as_chat(body))
        if planned.fault == "status":
            return web.json_response(_anthropic_error(planned), status=planned.status)
        return web.json_response(_anthropic_message(body, planned))

    async def _create_messages(self, request: web.Request) -> web.Response:
        asked = (await request.json())["requests"]
        name = f"msgbatch_{uuid.uuid4().hex}"
        results = []
        for row in asked:
            body = row["params"]
            planned = self._plan(_as_chat(body))
            result: dict[str, Any] = {"type": "succeeded", "message": _anthropic_message(body, planned)}
            if "expire" in _directives(_as_chat(body)):
                result = {"type": "expired"}
            elif planned.fault == "status":
                result = {"type": "errored", "error": _anthropic_error(planned)}
            results.append({"custom_id": row["custom_id"], "result": result})
        self._kept["messages"][name] = {"id": name, "created_at": time.time(), "lines": results}
        self._count([row["params"] for row in asked])
        if self._place is not None:
            self._place.write_text(json.dumps(self._kept))
        return web.Response() if self._lose(request) else web.json_response(self._shown_messages(name))

    async def _list_messages(self, request: web.Request) -> web.Response:
        names = sorted(self._kept["messages"], key=lambda name: -self._kept["messages"][name]["created_at"])
        return web.json_response({"data": [self._shown_messages(name) for name in names], "has_more": False})

    async def _look_messages(self, request: web.Request) -> web.Response:
        return web.json_response(self._shown_messages(request.match_info["id"]))

    async def _cancel_messages(self, request: web.Request) -> web.Response:
        self._kept["messages"][request.match_info["id"]].setdefault("cancelled_at", time.time())
        return web.json_response(self._shown_messages(request.match_info["id"]))

    async def _results(self, request: web.Request) -> web.Response:
        batch = self._kept["messages"][request.match_info["id"]]
        return web.Response(text="\n".join(json.dumps(line) for line in self._lines(batch)))

    def _lines(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        cancelled = "cancelled_at" in batch and batch["cancelled_at"] < batch["created_at"] + self._batch_s
        if not cancelled:
            return list(batch["lines"])
        return [{"custom_id": line["custom_id"], "result": {"type": "canceled"}} for line in batch["lines"]]

    def _shown_messages(self, name: str) -> dict[str, Any]:
        batch = self._kept["messages"][name]
        over = self._is_over(batch) or "cancelled_at" in batch
        kinds = Counter(line["result"]["type"] for line in self._lines(batch)) if over else Counter()
        counts = {kind: kinds[kind] for kind in ("succeeded", "errored", "canceled", "expired")}
        counts["processing"] = 0 if over else len(batch["lines"])
        cancelled = _moment(batch["cancelled_at"]) if "cancelled_at" in batch else None
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if over else "in_progress",
            "request_counts": counts,
            "created_at": _moment(batch["created_at"]),
            "cancel_initiated_at": cancelled,
        }

    def _is_over(self, batch: Mapping[str, Any]) -> bool:
        ended = batch["created_at"] + self._batch_s
        return bool(time.time() >= ended and batch.get("cancelled_at", ended) >= ended)

    def _count(self, bodies: list[Mapping[str, Any]]) -> None:
        for model in {str(body.get("model")) for body in bodies}:
            self._counted["batches"][model] += 1
        self._counted["batched"].update(str(body.get("model")) for body in bodies)


def _directives(body: Mapping[str, Any]) -> set[str]:
    return {name for name, _ in DIRECTIVE.findall(json.dumps(body.get("messages"), ensure_ascii=False))}


def _as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same request as a chat completion's body."""
    return {**body, "messages": [dict(message) for message in body["messages"]]}


def _anthropic_message(body: Mapping[str, Any], planned: ScriptedReply) -> dict[str, Any]:
    stop = {"stop": "end_turn", "length": "max_tokens"}.get(planned.finish_reason, "end_turn")
    return {
        "id": "msg_test",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [{"type": "text", "text": planned.text}],
        "stop_reason": stop,
        "usage": {"input_tokens": planned.input_tokens, "output_tokens": planned.output_tokens},
    }


def _anthropic_error(planned: ScriptedReply) -> dict[str, Any]:
    kind = _ANTHROPIC_ERRORS.get(planned.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(planned.error.get("message"))}}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "scripted", "code": str(status)}}, status=status)
