"""`POST /eccos/feedback` on LiteLLM's proxy: a label for an answer, by its decision."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException

from eccos_core.errors import EccosError, UnknownDecisionError
from eccos_core.router import Router
from eccos_integrations.litellm.bridge import record_label

PATH = "/eccos/feedback"


def add_feedback_route(router: Router) -> None:
    """Add the route to the proxy of this process, behind LiteLLM's own keys. A second call changes nothing."""
    from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
    from litellm.proxy.proxy_server import app

    if any(getattr(route, "path", None) == PATH for route in app.router.routes):
        return
    routes = APIRouter()

    @routes.post(PATH, dependencies=[Depends(user_api_key_auth)], tags=["eccos"])
    async def label(body: dict[str, Any]) -> dict[str, str]:
        """Label an answer: `{"decision_id": "...", "quality": 0.9}`, a quality in [0, 1]."""
        try:
            await record_label(router, body.get("decision_id"), body.get("quality"))
        except UnknownDecisionError as error:
            raise HTTPException(404, detail={"error": f"eccos: {error}"}) from error
        except EccosError as error:
            raise HTTPException(400, detail={"error": f"eccos: {error}"}) from error
        return {"status": "recorded"}

    app.include_router(routes)
