"""The provider behind a deployment: whether it speaks OpenAI's protocol, and which parameters it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.load_balancer import DeploymentLike

OPENAI_PROVIDERS = ("openai", "azure")  # known without LiteLLM, whose import takes seconds
# LiteLLM never refuses these, whatever the provider
ALWAYS_TAKEN = frozenset({"user", "stream", "stream_options", "max_retries", "metadata", "extra_headers", "timeout"})


def provider_of(deployment: DeploymentLike) -> str:
    """LiteLLM's name of the provider: what `custom_llm_provider` or the model's prefix says."""
    return str(deployment.parameters.get("custom_llm_provider") or deployment.litellm_model.partition("/")[0])


def speaks_openai(deployment: DeploymentLike) -> bool:
    """Whether the provider is called as OpenAI is, so that every parameter can be passed on to it."""
    provider = provider_of(deployment)
    return provider in OPENAI_PROVIDERS or provider in litellm_module().openai_compatible_providers


def unsupported(deployment: DeploymentLike, parameters: Mapping[str, Any]) -> frozenset[str]:
    """The OpenAI parameters that a deployment does not take. None of them where `drop_params` leaves them out."""
    asked = {name for name, value in parameters.items() if value is not None and (name, value) != ("n", 1)}
    asked -= ALWAYS_TAKEN | set(deployment.parameters.get("allowed_openai_params") or ())
    if not asked or deployment.parameters.get("drop_params") or speaks_openai(deployment):
        return frozenset()
    litellm = litellm_module()
    asked &= litellm.constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES.keys()
    taken = taken_parameters(deployment)
    return frozenset() if taken is None else frozenset(asked.difference(taken))


def taken_parameters(deployment: DeploymentLike) -> frozenset[str] | None:
    """The OpenAI parameters that LiteLLM says a deployment takes. None where it does not say, or knows no provider."""
    litellm = litellm_module()
    try:
        model, provider, _, _ = litellm.get_llm_provider(
            deployment.litellm_model, deployment.parameters.get("custom_llm_provider")
        )
    except litellm.BadRequestError:
        return None  # no provider of LiteLLM: the call says so
    taken = litellm.get_supported_openai_params(model, provider)
    return None if taken is None else frozenset(taken)
