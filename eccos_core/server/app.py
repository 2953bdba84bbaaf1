"""The FastAPI application: which endpoints there are, and the layers that every request passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from eccos_core.io.optional import needs_extra
from eccos_core.router import Router
from eccos_core.server.admin import admin_endpoints
from eccos_core.server.answering import Handler, guarded, json_response
from eccos_core.server.embedding_models import EmbeddingModels
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Gate, OpenGate
from eccos_core.server.middleware import Gateway, api_of
from eccos_core.server.routes_anthropic import count_tokens_handler, messages_handler
from eccos_core.server.routes_embeddings import embeddings_handler
from eccos_core.server.routes_files import (
    batch_handler,
    cancel_batch_handler,
    create_batch_handler,
    delete_file_handler,
    file_content_handler,
    file_handler,
    list_batches_handler,
    list_files_handler,
    upload_handler,
)
from eccos_core.server.routes_openai import chat_handler, models_handler
from eccos_core.server.routes_operating import feedback_handler, health, metrics_handler, ready_handler, root
from eccos_core.server.routes_responses import responses_handler
from eccos_core.server.routes_simple import completions_handler
from eccos_core.server.serving import Serving
from eccos_core.server.settings import ServerSettings
from eccos_core.server.storage import Storage
from eccos_core.server.ui import UI_PATHS, add_ui_routes

with needs_extra("server", "eccos serve"):
    from fastapi import FastAPI
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class EccosApp(FastAPI):
    """A FastAPI application with the gateway in front of all its own layers, which cost more than the gateway."""

    gateway: Gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one event of the server's life."""
        scope["app"] = self  # Starlette turns a broken form into an HTTP error only where it finds an application
        await self.gateway(scope, receive, send)

    async def serve_inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what the gateway passes on."""
        await super().__call__(scope, receive, send)


def build_app(
    router: Router,
    gate: Gate | None = None,
    settings: ServerSettings | None = None,
    embeddings: EmbeddingModels | None = None,
) -> EccosApp:
    """Build the application around a router. The router stays yours: close it when the server has ended."""
    serving = Serving(router, gate or OpenGate(), settings or ServerSettings(), embeddings)

    storage = Storage(serving)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await storage.start()
        yield
        serving.draining = True
        await storage.stop()

    app = EccosApp(title="eccos", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.serving = serving
    served = {
        (method, path): guarded(serving, api_of(path), path, handler)
        for method, path, handler in endpoints(serving, storage)
    }
    for (method, path), handler in served.items():
        app.add_route(path, handler, methods=[method])
    add_ui_routes(app, serving)
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(405, _not_found)
    if serving.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(serving.settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-eccos-model", "x-eccos-decision-id", "x-eccos-cost-usd", "x-eccos-reason"],
        )
    direct = {} if serving.settings.cors_origins else served
    routes = [*(path.split("/{")[0] for _, path in served), *UI_PATHS]
    app.gateway = Gateway(app.serve_inside, serving, routes, direct)
    return app


def endpoints(serving: Serving, storage: Storage) -> list[tuple[str, str, Handler]]:
    """Return the method, path and handler of every endpoint."""
    models = models_handler(serving)
    return [
        ("POST", "/v1/chat/completions", chat_handler(serving)),
        ("GET", "/v1/models", models),
        ("GET", "/v1/models/{model:path}", models),
        ("POST", "/v1/completions", completions_handler(serving)),
        ("POST", "/v1/embeddings", embeddings_handler(serving)),
        ("POST", "/v1/files", upload_handler(serving, storage)),
        ("GET", "/v1/files", list_files_handler(serving, storage)),
        ("GET", "/v1/files/{file_id}", file_handler(serving, storage)),
        ("GET", "/v1/files/{file_id}/content", file_content_handler(serving, storage)),
        ("DELETE", "/v1/files/{file_id}", delete_file_handler(serving, storage)),
        ("POST", "/v1/batches", create_batch_handler(serving, storage)),
        ("GET", "/v1/batches", list_batches_handler(serving, storage)),
        ("GET", "/v1/batches/{batch_id}", batch_handler(serving, storage)),
        ("POST", "/v1/batches/{batch_id}/cancel", cancel_batch_handler(serving, storage)),
        ("POST", "/v1/responses", responses_handler(serving)),
        ("POST", "/v1/messages", messages_handler(serving)),
        ("POST", "/v1/messages/count_tokens", count_tokens_handler(serving)),
        ("POST", "/v1/eccos/feedback", feedback_handler(serving)),
        *admin_endpoints(serving),
        ("GET", "/metrics", metrics_handler(serving)),
        ("GET", "/", root),
        ("GET", "/health", health),
        ("GET", "/ready", ready_handler(serving)),
    ]


async def _not_found(http: HttpRequest, _: Exception) -> Response:
    told = ApiError("not_found", f"{http.method} {http.url.path[:100]} is not served here. See the docs for the list.")
    return json_response(told.body(api_of(http.url.path)), told.status)
