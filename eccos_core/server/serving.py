"""One request from admission to settlement, whatever API it came by: check, reserve, call, settle."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from eccos_core.domain import Chunk, Completion, Decision, Request
from eccos_core.io.tokens import count_tokens
from eccos_core.router import Router
from eccos_core.routing.pricing import worst_usd
from eccos_core.server.embedding_models import EmbeddingModels
from eccos_core.server.errors import ApiError, as_api_error
from eccos_core.server.gate import Caller, Gate, settled
from eccos_core.server.json_text import load_json
from eccos_core.server.metrics import ServerMetrics
from eccos_core.server.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest

_log = logging.getLogger("eccos.server")


class Serving:
    """Serves requests with one router, for the callers of one gate. Safe to use from several tasks."""

    def __init__(
        self, router: Router, gate: Gate, settings: ServerSettings, embeddings: EmbeddingModels | None = None
    ) -> None:
        self.router, self.gate, self.settings = router, gate, settings
        self.embeddings = embeddings or EmbeddingModels()
        self.metrics = ServerMetrics(settings.worker)
        self.draining = False

    async def admit(self, http: HttpRequest) -> Caller:
        """Return who is calling. Raises `ApiError`, also while the server shuts down."""
        if self.draining:
            raise ApiError("overloaded", "the server is shutting down. Try again.", headers={"retry-after": "1"})
        return await self.identify(http)

    async def identify(self, http: HttpRequest) -> Caller:
        """Return who is calling, also while the server shuts down. Raises `ApiError`."""
        try:
            return await self.gate.admit(http.headers)
        except ApiError as error:
            if error.kind == "authentication" and http.client is not None:
                self.gate.count_wrong_key(http.headers, http.client.host)
            raise

    async def read_json(self, http: HttpRequest) -> dict[str, Any]:
        """Read the body of a request. Raises `ApiError` for one that is too large, or is no JSON object."""
        try:
            value = load_json(await http.body())
        except (ValueError, RecursionError) as error:
            raise ApiError("invalid_request", f"the body is no JSON: {_short(error)}") from None
        if not isinstance(value, dict):
            raise ApiError("invalid_request", f"the body is a JSON {type(value).__name__}, must be an object")
        return value

    async def complete(self, caller: Caller, request: Request, decision: Decision | None = None) -> Completion:
        """Answer a request within the caller's budget. A request that the budget changes is decided again."""
        allowed, spending = await self.gate.reserve(caller, request, self._to_reserve(request))
        if allowed is not request:
            request, decision = allowed, None
        async with settled(spending) as bill:
            completion = await self.router.acomplete(request, decision=decision)
            bill.cost_usd, bill.tokens = completion.cost_usd, completion.output_tokens
            self.metrics.count_answer(completion)
        return completion

    async def stream(self, caller: Caller, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer a request piece by piece. A stream that breaks or is left is settled at what was reserved for it."""
        request, spending = await self.gate.reserve(caller, request, self._to_reserve(request))
        async with settled(spending) as bill, aclosing(self.router.astream(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                bill.has_begun = True
                if chunk.completion is not None:
                    bill.cost_usd, bill.tokens = chunk.completion.cost_usd, chunk.completion.output_tokens
                    self.metrics.count_answer(chunk.completion)
                yield chunk

    def _to_reserve(self, request: Request) -> float:
        """Return what a request may cost. Without keys nobody has a budget, so nothing is reckoned."""
        return self.most_usd(request) if self.gate.has_keys else 0.0

    def most_usd(self, request: Request) -> float:
        """Return the most that a request is likely to cost, in USD: its dearest allowed model at full length."""
        tokens = count_tokens(request.messages)
        names = request.allow or {model.name for model in self.router.models}
        each = [worst_usd(model, request, tokens) for model in self.router.models if model.name in names]
        planner = self.router.parts.planner
        calls = 1 if planner is None else planner.rule.max_calls
        return max(each, default=0.0) * calls


def tell(error: BaseException, place: str) -> ApiError:
    """Translate an error for a caller, and log what eccos did not raise on purpose."""
    told = as_api_error(error)
    if told.kind == "internal":
        _log.error("%s failed: %s", place, type(error).__name__, exc_info=error)
    return told


def include_usage(body: Mapping[str, Any]) -> bool:
    """Whether a streamed chat completion ends with its usage."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def read_flag(body: Mapping[str, Any], name: str, check: Callable[[object], bool] = lambda _: True) -> bool:
    """Read an optional true or false. Raises `ApiError` for anything else."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool) or not check(value):
        raise ApiError("invalid_request", f"{name} must be true or false", param=name)
    return value


def _short(error: BaseException) -> str:
    return str(error)[:120] if isinstance(error, json.JSONDecodeError) else "it is nested too deep"
