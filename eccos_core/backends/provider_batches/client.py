"""Makes the HTTP calls of a batch API, and turns their failures into errors without secrets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx

from eccos_core.backends.litellm.error_mapping import STATUSES
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.errors import BackendError, FailureKind
from eccos_core.io.safe_text import printable

TIMEOUT_S = 600.0  # of one call, uploads of 100 MB among them
LONGEST_MESSAGE = 300
_PER_MESSAGE = ("content-length", "content-type", "accept", "accept-encoding", "connection", "host", "user-agent")


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


def _message(response: httpx.Response) -> str:
    try:
        error = response.json().get("error") or {}
        return str(error.get("message") or error)[:LONGEST_MESSAGE]
    except (ValueError, AttributeError):
        return response.text[:LONGEST_MESSAGE]


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
