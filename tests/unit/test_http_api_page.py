"""The page on the HTTP API names every endpoint that is served."""

from __future__ import annotations

import re
from pathlib import Path

from eccos_core.domain import Model
from eccos_core.server.app import build_app
from eccos_core.testing import ScriptedBackend, scripted_router

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "http-api.md"


def test_the_page_names_every_endpoint() -> None:
    pool = [Model("small", 1e-6, 1e-6)]
    app = build_app(scripted_router(ScriptedBackend({"small": ["hello"]}, pool), pool, {"": [0.8]}))
    served = {re.sub(r"\{[^}]*\}", "{id}", getattr(route, "path", "")) for route in app.routes}
    page = PAGE.read_text().split("## Fields")[0]
    named = {*re.findall(r"(/[a-z0-9_/{}]+)", page), *re.findall(r"`GET (/)`", page)}
    assert "/v1/batches/{id}/cancel" in served
    missing = [path for path in served if path and path not in named and not path.startswith("/ui/")]
    assert sorted(missing) == []
