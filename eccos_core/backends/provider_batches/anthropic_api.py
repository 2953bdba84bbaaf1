"""Anthropic's batch API: `/v1/messages/batches`. LiteLLM 1.110 creates no batches there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from eccos_core.backends.provider_batches.api import CLOCK_SLACK_S, PAGES, BatchProgress, RowAnswer, WrittenRow
from eccos_core.backends.provider_batches.client import BatchClient
from eccos_core.backends.provider_batches.state import ProviderBatch

_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


class AnthropicBatchApi:
    """Implements `BatchApi`."""

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
        return {str(line.get("custom_id")): _read_result(line.get("result") or {}) for line in lines}

    async def cancel(self, batch_id: str) -> None:
        """See `BatchApi`."""
        await self._client.call("POST", f"/messages/batches/{batch_id}/cancel")


def _read_result(result: Mapping[str, Any]) -> RowAnswer:
    kind = str(result.get("type"))
    if kind == "succeeded":
        return RowAnswer(200, result.get("message") or {})
    if kind == "errored":
        body = result.get("error") or {}
        error = body.get("error") or body
        return RowAnswer(_STATUS.get(str(error.get("type")), 500), {"type": "error", "error": error})
    return RowAnswer(problem=f"it {kind} in its batch", is_cancelled=kind == "canceled")


def _seconds(moment: object) -> float:
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return 0.0
