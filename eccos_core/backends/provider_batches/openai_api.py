"""OpenAI's batch API: `/v1/files` and `/v1/batches`.

LiteLLM 1.110 downloads all answers when you only look at a batch, to price them. So these few calls are made here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eccos_core.backends.provider_batches.api import CLOCK_SLACK_S, PAGES, BatchProgress, RowAnswer, WrittenRow
from eccos_core.backends.provider_batches.client import LONGEST_MESSAGE, BatchClient
from eccos_core.backends.provider_batches.state import ProviderBatch


class OpenAIBatchApi:
    """Implements `BatchApi`."""

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
            problem="; ".join(str(each.get("message")) for each in errors[:3])[:LONGEST_MESSAGE],
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
