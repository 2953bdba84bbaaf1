"""The served pool inside LiteLLM: a `litellm.Router` of its models, and a router of eccos that decides."""

from __future__ import annotations

from typing import Any

import litellm

from eccos_core.testing import ModelServer

USD = {"small": (1e-7, 4e-7), "caller": (4e-7, 1.6e-6), "large": (2e-6, 8e-6)}


def entry(server: ModelServer, name: str, group: str | None = None, **info: Any) -> dict[str, Any]:
    """One entry of LiteLLM's `model_list`."""
    asked, answered = USD[name]
    return {
        "model_name": group or name,
        "litellm_params": {
            "model": f"openai/{name}",
            "api_base": server.url,
            "api_key": "sk-served-0123456789abcdef",
            "input_cost_per_token": asked,
            "output_cost_per_token": answered,
        },
        "model_info": info,
    }


NOBODY = "http://127.0.0.1:9/v1"  # no server listens there


def litellm_router(server: ModelServer, group: str | None = None, dead: str = "", **arguments: Any) -> Any:
    """A `litellm.Router` of the three models, each in a group of its own, or all in `group`. Nobody serves `dead`."""
    model_list = [entry(server, name, group) for name in USD]
    for each in model_list:
        if each["litellm_params"]["model"] == f"openai/{dead}":
            each["litellm_params"]["api_base"] = NOBODY
    return litellm.Router(model_list=model_list, num_retries=arguments.pop("num_retries", 0), **arguments)
