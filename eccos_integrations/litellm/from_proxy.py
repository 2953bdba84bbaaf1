"""What a proxy's YAML names: `eccos_integrations.litellm.proxy_hook` and `eccos_integrations.litellm.routing_plugin`.

They are built when LiteLLM reads its YAML, so that a fault of the configuration stops the start and not a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccos_core.router import Router
from eccos_integrations.litellm.feedback import add_feedback_route
from eccos_integrations.litellm.plugins import EccosRoutingPlugin
from eccos_integrations.litellm.proxy import EccosProxyHook, find_config

if TYPE_CHECKING:
    proxy_hook: EccosProxyHook
    routing_plugin: EccosRoutingPlugin

_built: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name not in ("proxy_hook", "routing_plugin"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _built:
        router = Router.shared(find_config())
        add_feedback_route(router)
        _built[name] = EccosProxyHook(router) if name == "proxy_hook" else EccosRoutingPlugin(router)
    return _built[name]
