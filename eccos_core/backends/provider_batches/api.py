"""Two batch APIs over HTTP, OpenAI's and Anthropic's: submit, look, download, cancel.

LiteLLM creates no batches at Anthropic (1.110), and reading one of OpenAI's downloads all answers behind your back, to
price them. So these few calls are made here. What a request and an answer look like is LiteLLM's own work (`rows.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import httpx

from eccos_core.backends.litellm.error_mapping import STATUSES
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.backends.provider_batches.state import ProviderBatch
from eccos_core.errors import BackendError, FailureKind
from eccos_core.io.safe_text import printable

TIMEOUT_S = 600.0  # of one call, uploads of 100 MB among them
CLOCK_SLACK_S = 600.0  # by which the provider's clock may differ from ours
PAGES = 20  # of the provider's list that a lost batch is searched on
_LONGEST_MESSAGE = 300
_PER_MESSAGE = ("content-length", "content-type", "accept", "accept-encoding", "connection", "host", "user-agent")


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A request as it would go over the wire: its name in the batch, the path, the body and its size in bytes."""

    name: str
    path: str
    body: Mapping[str, Any]
    size: int


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What became of one row: the answer's HTTP status and body. Without them, `problem` says what happened."""

    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is. `files` are what to download, `problem` why it failed as a whole."""

    status: str
    done: int
    total: int
    is_over: bool
    is_cancelled: bool = False
    files: tuple[str, ...] = ()
    problem: str = ""


class BatchApi(Protocol):
    """One provider's batch API for one deployment. Every method raises `BackendError`."""

    most_rows: int
    most_bytes: int

    async def submit(self, record: ProviderBatch, rows: Sequence[WrittenRow]) -> str:
        """Submit a batch, and return the provider's id of it."""
        ...

    async def find(self, record: ProviderBatch, taken: frozenset[str]) -> str | None:
        """Return the id of a batch that was submitted, but whose answer was lost. `taken` are known to be others'."""
        ...

    async def look(self, batch_id: str) -> BatchProgress:
        """Say how far a batch is."""
        ...

    async def download(self, batch_id: str, progress: BatchProgress) -> dict[str, RowAnswer]:
        """Return what became of the rows of a batch that is over, by name. Rows may be missing."""
        ...

    async def cancel(self, batch_id: str) -> None:
        """Ask the provider to stop. Rows that it has begun may still be answered."""
        ...


class BatchClient:
    """Makes the calls. `url` is that of the usual calls, up to `/chat/completions` or `/messages`."""

    def __init__(self, model: str, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._model = model
        self._headers = {name: value for name, value in headers.items() if _is_kept(name)}
        secrets = {"api_key": [value for name, value in self._headers.items() if _is_credential(name)]}
        self._redactor = SecretRedactor.for_parameters([secrets, {"api_base": url}])
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, headers=self._headers)

    async def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Make one call. Raises `BackendError` with the provider's own words."""
        try:
            response = await self._client.request(method, self.url + path, **arguments)
        except httpx.TimeoutException as error:
            raise self.problem(FailureKind.TIMEOUT, f"no answer of its batch API ({error})") from None
        except httpx.HTTPError as error:
            raise self.problem(FailureKind.CONNECTION, f"its batch API cannot be reached ({error})") from None
        if response.status_code >= 400:
            kind = STATUSES.get(response.status_code)
            if kind is None:
                kind = FailureKind.BAD_REQUEST if response.status_code < 500 else FailureKind.UNAVAILABLE
            said = _message(response)
            raise self.problem(kind, f"its batch API answered {response.status_code}: {said}")
        return response

    async def json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Make one call, and read its answer as a JSON object."""
        response = await self.call(method, path, **arguments)
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self.problem(FailureKind.MALFORMED_RESPONSE, "the answer of its batch API is no JSON object")
        return content

    async def lines(self, path: str) -> list[dict[str, Any]]:
        """Download a file of JSON Lines. Lines that are none are left out, so that their rows count as missing."""
        content = (await self.call("GET", path, follow_redirects=True)).content
        return await asyncio.to_thread(_read_lines, content)

    def problem(self, kind: FailureKind, message: str) -> BackendError:
        """Make an error without secrets."""
        return BackendError(self._model, printable(self._redactor.redact(message)), kind=kind)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class OpenAIBatchApi:
    """`/v1/files` and `/v1/batches`."""

    most_rows = 50_000
    most_bytes = 190 * 2**20

    def __init__(self, client: BatchClient) -> None:
        self._client = client

    async def submit(self, record: ProviderBatch, rows: Sequence[WrittenRow]) -> str:
        """See `BatchApi`."""
        lines = [
            json.dumps(
                {"custom_id": row.name, "method": "POST", "url": f"/v1{row.path}", "body": dict(row.body)},
                ensure_ascii=False,
            )
            for row in rows
        ]
        file = ("eccos.jsonl", "\n".join(lines).encode(), "application/jsonl")
        uploaded = await self._client.json("POST", "/files", data={"purpose": "batch"}, files={"file": file})
        asked = {
            "input_file_id": uploaded.get("id"),
            "endpoint": f"/v1{rows[0].path}",
            "completion_window": "24h",
            "metadata": {"eccos": record.id},
        }
        return str((await self._client.json("POST", "/batches", json=asked)).get("id"))

    async def find(self, record: ProviderBatch, taken: frozenset[str]) -> str | None:
        """See `BatchApi`. The batch bears the name of the record."""
        after: dict[str, Any] = {}
        for _ in range(PAGES):
            listed = await self._client.json("GET", "/batches", params={"limit": 100, **after})
            found = listed.get("data") or []
            for batch in found:
                if (batch.get("metadata") or {}).get("eccos") == record.id:
                    return str(batch["id"])
            if not listed.get("has_more") or found[-1].get("created_at", 0) < record.created_at - CLOCK_SLACK_S:
                return None
            after = {"after": found[-1]["id"]}
        return None

    async def look(self, batch_id: str) -> BatchProgress:
        """See `BatchApi`."""
        batch = await self._client.json("GET", f"/batches/{batch_id}")
        counts, status = batch.get("request_counts") or {}, str(batch.get("status"))
        errors = (batch.get("errors") or {}).get("data") or []
        return BatchProgress(
            status=status,
            done=int(counts.get("completed") or 0) + int(counts.get("failed") or 0),
            total=int(counts.get("total") or 0),
            is_over=status in ("completed", "failed", "expired", "cancelled"),
            is_cancelled=status == "cancelled",
            files=tuple(batch[key] for key in ("output_file_id", "error_file_id") if batch.get(key)),
            problem="; ".join(str(each.get("message")) for each in errors[:3])[:_LONGEST_MESSAGE],
        )

    async def download(self, batch_id: str, progress: BatchProgress) -> dict[str, RowAnswer]:
        """See `BatchApi`. Answers and errors are in files of their own."""
        answers: dict[str, RowAnswer] = {}
        for file in progress.files:
            for line in await self._client.lines(f"/files/{file}/content"):
                response, error = line.get("response"), line.get("error") or {}
                if isinstance(response, dict) and isinstance(response.get("body"), dict):
                    answer = RowAnswer(int(response.get("status_code") or 0), response["body"])
                else:
                    code = str(error.get("code"))
                    said = f"{code}: {error.get('message')}"
                    answer = RowAnswer(problem=said, is_cancelled=code == "batch_cancelled")
                answers[str(line.get("custom_id"))] = answer
        return answers

    async def cancel(self, batch_id: str) -> None:
        """See `BatchApi`."""
        await self._client.call("POST", f"/batches/{batch_id}/cancel")


class AnthropicBatchApi:
    """`/v1/messages/batches`."""

    most_rows = 100_000
    most_bytes = 250 * 2**20

    def __init__(self, client: BatchClient) -> None:
        self._client = client

    async def submit(self, record: ProviderBatch, rows: Sequence[WrittenRow]) -> str:
        """See `BatchApi`."""
        asked = {"requests": [{"custom_id": row.name, "params": dict(row.body)} for row in rows]}
        return str((await self._client.json("POST", "/messages/batches", json=asked)).get("id"))

    async def find(self, record: ProviderBatch, taken: frozenset[str]) -> str | None:
        """See `BatchApi`. Anthropic keeps no name of ours, so time and number of requests must tell."""
        after: dict[str, Any] = {}
        for _ in range(PAGES):
            listed = await self._client.json("GET", "/messages/batches", params={"limit": 100, **after})
            for batch in listed.get("data") or []:
                created = _seconds(batch.get("created_at"))
                counts = batch.get("request_counts") or {}
                if created < record.created_at - CLOCK_SLACK_S:
                    return None
                if batch["id"] not in taken and sum(counts.values()) == len(record.rows):
                    return str(batch["id"])
            if not listed.get("has_more"):
                return None
            after = {"after_id": listed.get("last_id")}
        return None

    async def look(self, batch_id: str) -> BatchProgress:
        """See `BatchApi`."""
        batch = await self._client.json("GET", f"/messages/batches/{batch_id}")
        counts, status = batch.get("request_counts") or {}, str(batch.get("processing_status"))
        total = sum(int(count) for count in counts.values())
        return BatchProgress(
            status=status,
            done=total - int(counts.get("processing") or 0),
            total=total,
            is_over=status == "ended",
            is_cancelled=bool(batch.get("cancel_initiated_at")),
        )

    async def download(self, batch_id: str, progress: BatchProgress) -> dict[str, RowAnswer]:
        """See `BatchApi`."""
        lines = await self._client.lines(f"/messages/batches/{batch_id}/results")
        return {str(line.get("custom_id")): _anthropic_answer(line.get("result") or {}) for line in lines}

    async def cancel(self, batch_id: str) -> None:
        """See `BatchApi`."""
        await self._client.call("POST", f"/messages/batches/{batch_id}/cancel")


_ANTHROPIC_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


def _anthropic_answer(result: Mapping[str, Any]) -> RowAnswer:
    kind = str(result.get("type"))
    if kind == "succeeded":
        return RowAnswer(200, result.get("message") or {})
    if kind == "errored":
        body = result.get("error") or {}
        error = body.get("error") or body
        return RowAnswer(_ANTHROPIC_STATUS.get(str(error.get("type")), 500), {"type": "error", "error": error})
    return RowAnswer(problem=f"it {kind} in its batch", is_cancelled=kind == "canceled")


def _seconds(moment: object) -> float:
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return 0.0


def _message(response: httpx.Response) -> str:
    try:
        error = response.json().get("error") or {}
        return str(error.get("message") or error)[:_LONGEST_MESSAGE]
    except (ValueError, AttributeError):
        return response.text[:_LONGEST_MESSAGE]


def _read_lines(content: bytes) -> list[dict[str, Any]]:
    lines = []
    for line in content.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            lines.append(found)
    return lines


def _is_kept(header: str) -> bool:
    name = header.lower()
    return name not in _PER_MESSAGE and not name.startswith("x-stainless")


def _is_credential(header: str) -> bool:
    return any(word in header.lower() for word in ("authorization", "key", "token", "secret"))
