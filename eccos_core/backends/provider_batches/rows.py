"""Requests as rows of a batch, and answers of rows as completions: LiteLLM's own calls, without the network.

A row is a usual call of LiteLLM whose HTTP client writes the request down in place of sending it. Later the same call
is made once more, and its client answers with what the provider's file holds. So a batch asks what a call would ask,
and its answers, tokens, costs and errors are read as those of a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import httpx

from eccos_core.backends.efforts import at_effort
from eccos_core.backends.litellm.backend import LiteLLMBackend
from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.load_balancer import DeploymentLike
from eccos_core.backends.litellm.provider import provider_of
from eccos_core.backends.provider_batches.api import RowAnswer, WrittenRow
from eccos_core.domain import BatchOffer, Completion, Model, Request
from eccos_core.errors import BackendError, FailureKind

BATCH_PATHS: Final = {"openai": "/chat/completions", "anthropic": "/messages"}
"""The providers whose batch APIs eccos speaks, and the path of their calls."""


_UNREAD: Final = {
    "openai": RowAnswer(
        200,
        {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        },
    ),
    "anthropic": RowAnswer(
        200,
        {
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 0, "output_tokens": 0},
        },
    ),
}
"""What LiteLLM gets for a request that was only written down. Nobody reads it."""


class _FileTransport(httpx.AsyncBaseTransport):
    """Answers each request with `answer`, and keeps the request."""

    def __init__(self) -> None:
        self.answer = RowAnswer()
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests = [request]
        return httpx.Response(self.answer.status, json=dict(self.answer.body), request=request)


class BatchRows:
    """Writes and reads the rows of one model's batches. Not for use by two tasks at once.

    `effort` are the call parameters of a model that is an effort.
    """

    def __init__(
        self, model: Model, deployment: DeploymentLike, offer: BatchOffer, effort: Mapping[str, Any] | None = None
    ) -> None:
        self._model, self._deployment, self._offer = model, deployment, offer
        self._effort = dict(effort or {})
        self._backend = LiteLLMBackend({model.name: [deployment]}, [model])
        self._transport = _FileTransport()
        self._client: Any = None

    async def address(self) -> tuple[str, httpx.Headers]:
        """Return the address of usual calls, without the path, and their headers, keys among them."""
        asked = await self._write(Request.of("Hello"))
        url = str(asked.url.copy_with(query=None))
        return url.removesuffix(BATCH_PATHS[provider_of(self._deployment)]), asked.headers

    async def write(self, name: str, request: Request) -> WrittenRow:
        """Write a request as a row. Raises `BackendError` for one that cannot be a row."""
        asked = await self._write(request)
        path = BATCH_PATHS[provider_of(self._deployment)]
        if not asked.url.path.endswith(path):
            said = f"a batch holds calls of {path}, and this one goes to {asked.url.path}"
            raise BackendError(self._model.name, said, kind=FailureKind.UNSUPPORTED)
        return WrittenRow(name, path, json.loads(asked.content), len(asked.content))

    async def read(self, request: Request, answer: RowAnswer) -> Completion:
        """Read the answer of a row, at the price of the batch API. Raises `BackendError` as a call would."""
        if not answer.status:
            raise BackendError(self._model.name, answer.problem, kind=FailureKind.TIMEOUT)
        self._transport.answer = answer
        completion = await self._backend.acomplete_over(self._model.name, self._asked(request), self._http_client())
        return replace(completion, cost_usd=completion.cost_usd * self._offer.price_share)

    async def _write(self, request: Request) -> httpx.Request:
        self._transport.requests.clear()
        self._transport.answer = _UNREAD[provider_of(self._deployment)]
        try:
            await self._backend.acomplete_over(
                self._model.name, self._asked(request), self._http_client(), is_logged=False
            )
        except BackendError:
            if not self._transport.requests:
                raise
        return self._transport.requests[0]

    def _asked(self, request: Request) -> Request:
        request = replace(request.addressed_to(self._model.name), deadline=None)
        return at_effort(request, self._effort) if self._effort else request

    def _http_client(self) -> Any:
        """Make LiteLLM's kind of client for the provider, which never opens a connection."""
        if self._client is None:
            litellm_module()
            own = httpx.AsyncClient(transport=self._transport, trust_env=False)
            if provider_of(self._deployment) == "anthropic":
                from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

                self._client = AsyncHTTPHandler()
                self._client.client = own
            else:
                self._client = _open_openai_client(self._deployment, own)
        return self._client


def _open_openai_client(deployment: DeploymentLike, http_client: httpx.AsyncClient) -> Any:
    from openai import AsyncOpenAI

    given = deployment.parameters
    return AsyncOpenAI(
        api_key=given.get("api_key"),  # OpenAI's own variable where there is none
        base_url=given.get("api_base") or given.get("base_url"),
        organization=given.get("organization"),
        max_retries=0,
        http_client=http_client,
    )
