"""Raw text continued by an endpoint that speaks OpenAI's `/v1/completions`, such as vLLM or SGLang."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eccos_core.backends.litellm.error_mapping import NoAnswerError
from eccos_core.backends.litellm.load_balancer import DeploymentLike
from eccos_core.backends.litellm.responses import CallRecord
from eccos_core.domain import Completion, Request

CONTINUING_PROVIDERS: Final = frozenset({"hosted_vllm", "vllm", "openai", "custom_openai", "openai_like"})
"""LiteLLM's providers whose own servers may continue raw text. Each needs an `api_base`."""

_SAMPLING: Final = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "user", "extra_headers")
_PLACE: Final = ("api_base", "base_url", "api_key", "organization", "extra_headers")


def can_continue(litellm_model: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether a deployment is a server of one's own that may continue raw text, as far as the file says."""
    provider = parameters.get("custom_llm_provider") or litellm_model.partition("/")[0]
    return provider in CONTINUING_PROVIDERS and bool(parameters.get("api_base") or parameters.get("base_url"))


def open_client(deployment: DeploymentLike) -> Any:
    """Return OpenAI's client for a deployment. LiteLLM would open one for every raw call, and leave it open."""
    from openai import AsyncOpenAI

    given = deployment.parameters
    base = given.get("api_base") or given.get("base_url")
    return AsyncOpenAI(api_key=given.get("api_key") or "none", base_url=base, max_retries=0)


def continuation_arguments(deployment: DeploymentLike, request: Request, timeout_s: float) -> dict[str, Any]:
    """Return the keyword arguments of LiteLLM's `text_completion`, without prompt and length."""
    own = {**deployment.parameters, **request.parameters}
    given = {name: own[name] for name in (*_SAMPLING, *_PLACE) if own.get(name) is not None}
    return {
        "api_key": "none",  # a server of one's own may want none, and LiteLLM always wants one
        **given,
        "timeout": own.get("timeout", timeout_s),
        "model": f"text-completion-openai/{deployment.litellm_model.partition('/')[2]}",
        "max_retries": 0,
        "num_retries": 0,
    }


def read_continuation(call: CallRecord, response: Any) -> Completion:
    """Return the text that a raw call wrote, with its tokens and cost. Raises `NoAnswerError` without any choice."""
    choices = getattr(response, "choices", None)
    if not choices:
        raise NoAnswerError("the endpoint continued nothing: its answer has no choices")
    message = {"role": "assistant", "content": choices[0].text or ""}
    return call.answer(message, choices[0].finish_reason, call.usage(response, message), None, None)
