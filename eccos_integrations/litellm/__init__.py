"""eccos inside LiteLLM (1.110 or newer): let it decide among the deployments of a `litellm.Router` or a proxy.

    litellm.Router(model_list=..., plugins=[EccosRoutingPlugin(router)])  # one argument
    router.register_plugin(EccosRoutingStrategy(eccos_router, router))  # synchronous calls too

and in the YAML of a proxy, which may hold the section `eccos` too:

    litellm_settings: {callbacks: eccos_integrations.litellm.proxy_hook}

`EccosRoutingPlugin` narrows a group to the deployments of the chosen model. `EccosRoutingStrategy` picks a deployment.
`EccosClassifier` chooses the tier of LiteLLM's complexity router. `EccosProxyHook` chooses the group of a request for
the model `eccos`. LiteLLM makes the calls, and tells eccos how they ended. Importing this package does not import
LiteLLM. `proxy_hook` and `routing_plugin` are for the YAML of a proxy alone: they are built when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccos_integrations._shared.lazy_import import import_public_name

if TYPE_CHECKING:
    from eccos_integrations.litellm.from_proxy import proxy_hook as proxy_hook
    from eccos_integrations.litellm.from_proxy import routing_plugin as routing_plugin
    from eccos_integrations.litellm.plugins import EccosClassifier, EccosRoutingPlugin
    from eccos_integrations.litellm.proxy import EccosProxyHook
    from eccos_integrations.litellm.strategy import EccosRoutingStrategy

__all__ = ["EccosClassifier", "EccosProxyHook", "EccosRoutingPlugin", "EccosRoutingStrategy"]

_HOMES = {
    "EccosClassifier": "plugins",
    "EccosProxyHook": "proxy",
    "EccosRoutingPlugin": "plugins",
    "EccosRoutingStrategy": "strategy",
    "proxy_hook": "from_proxy",
    "routing_plugin": "from_proxy",
}

if not TYPE_CHECKING:  # a type checker finds the names above, and reports a misspelled one

    def __getattr__(name: str) -> Any:
        return import_public_name(__name__, name, _HOMES, framework="fastapi", distribution="fastapi", extra="server")
