"""The routes of the dashboard: one page with its style and script, and the data that it shows.

The page holds no data, so everybody may read it. The data needs a key where the server has keys.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from eccos_core.io.optional import needs_extra
from eccos_core.server.answering import Handler, guarded, json_response
from eccos_core.server.errors import ApiError
from eccos_core.server.serving import Serving
from eccos_core.server.ui.data import DashboardData, DataReader
from eccos_core.server.ui.safe_json import safe_json
from eccos_core.server.ui.viewer import Viewer

with needs_extra("server", "eccos serve"):
    from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request as HttpRequest

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The page may load its own style and script, ask its own server, and nothing else. No text becomes markup."""
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_DATA_HEADERS = {**_HEADERS, "cache-control": "no-store"}
_FILES = {
    "/ui": ("dashboard.html", "text/html"),
    "/ui/dashboard.css": ("dashboard.css", "text/css"),
    "/ui/dashboard.js": ("dashboard.js", "text/javascript"),
}
UI_PATHS = (*_FILES, "/ui/data/status", "/ui/data/figures", "/ui/data/savings", "/ui/data/decisions")


def add_ui_routes(app: FastAPI, serving: Serving) -> None:
    """Add `/ui` and the data that it shows under `/ui/data`."""
    data = DashboardData(serving)
    for path, (name, media_type) in _FILES.items():
        app.add_route(path, _file_handler(name, media_type), methods=["GET"])
    for path, read in (
        ("/ui/data/status", data.status),
        ("/ui/data/figures", data.figures),
        ("/ui/data/savings", data.savings),
        ("/ui/data/decisions", data.decisions),
        ("/ui/data/decisions/{decision_id}", data.decision),
    ):
        app.add_route(path, guarded(serving, "openai", path, _data_handler(serving, read)), methods=["GET"])


def _file_handler(name: str, media_type: str) -> Handler:
    content = (files("eccos_core.server.ui") / name).read_bytes()

    async def page(_: HttpRequest) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return page


def _data_handler(serving: Serving, read: DataReader) -> Handler:
    async def answer(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        viewer = Viewer(caller, has_keys=serving.gate.has_keys)
        asked = {**http.query_params, **http.path_params}
        found = await read(viewer, {name: str(value) for name, value in asked.items()})
        if found is None:
            raise ApiError("not_found", "the decision log has no such decision", code="decision_not_found")
        return json_response(safe_json(found), headers=_DATA_HEADERS)

    return answer
