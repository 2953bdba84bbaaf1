"""What the people who run the server ask: is it alive, does it take requests, how is it doing, was an answer good."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eccos_core.errors import UnknownDecisionError
from eccos_core.io.optional import needs_extra
from eccos_core.server.answering import Handler, json_response
from eccos_core.server.errors import ApiError
from eccos_core.server.metrics import CONTENT_TYPE, BudgetReport
from eccos_core.server.serving import Serving

with needs_extra("server", "eccos serve"):
    from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest


async def root(_: HttpRequest) -> Response:
    """Answer `GET /` and `HEAD /`. Coding agents open their connection with it."""
    return json_response({"name": "eccos", "api": "/v1", "dashboard": "/ui"})


async def health(_: HttpRequest) -> Response:
    """Answer `GET /health`: the process is alive."""
    return json_response({"status": "ok"})


def ready_handler(serving: Serving) -> Handler:
    """Return the handler of `GET /ready`: 200 while new requests are taken, 503 while the server shuts down."""

    async def ready(_: HttpRequest) -> Response:
        if serving.draining:
            return json_response({"status": "shutting down"}, 503)
        problem = serving.router.problem
        return json_response({"status": "ready", "configuration_problem": problem is not None})

    return ready


def metrics_handler(serving: Serving) -> Handler:
    """Return the handler of `GET /metrics`. With keys it needs an admin key, as it tells what everybody spends."""

    async def metrics(http: HttpRequest) -> Response:
        caller = await serving.identify(http)
        if not caller.is_admin:
            raise ApiError("permission", "/metrics needs an admin key")
        budgets = serving.gate.budgets_left() if isinstance(serving.gate, BudgetReport) else {}
        text = serving.metrics.render(serving.router.status(), budgets, ready=not serving.draining)
        return Response(text, media_type=CONTENT_TYPE)

    return metrics


def feedback_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/eccos/feedback`: label an answer by its decision."""

    async def feedback(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        decision_id, quality, signal = body.get("decision_id"), body.get("quality"), body.get("signal")
        if not isinstance(decision_id, str):
            raise ApiError("invalid_request", "decision_id must be the id of a decision", param="decision_id")
        if (
            not caller.is_admin
            and await asyncio.to_thread(serving.router.decision_store.tenant_of, decision_id) != caller.tenant
        ):
            raise UnknownDecisionError(decision_id)  # as if it did not exist: ids of others are none of its business
        if (quality is None) == (signal is None):
            raise ApiError("invalid_request", "give quality, or the name of a signal, and not both", param="quality")
        if signal is not None:
            await asyncio.to_thread(serving.router.signal, decision_id, str(signal))
        elif isinstance(quality, (int, float)) and not isinstance(quality, bool):
            await asyncio.to_thread(serving.router.record, decision_id, float(quality))
        else:
            raise ApiError("invalid_request", "quality must be a number from 0 to 1", param="quality")
        return json_response({"decision_id": decision_id, "recorded": True})

    return feedback
