"""Call parameters: what OpenAI names, what type each has, and what a caller may not steer.

LiteLLM obeys many keyword arguments itself: they name another address, another key, other models or a made-up answer.
Whoever sends a request could so leave the pool. `refused_parameters` finds them by LiteLLM's own lists.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.local.registry import ENGINE_OPTIONS

DECIDED_BY_ROUTER = frozenset({"model", "messages", "stream"})
_TYPES: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("a number", (int, float), "temperature top_p presence_penalty frequency_penalty timeout"),
    ("a whole number", (int,), "n max_tokens max_completion_tokens seed top_logprobs"),
    ("true or false", (bool,), "logprobs parallel_tool_calls store include_server_side_tool_invocations"),
    ("a text", (str,), "user service_tier safety_identifier prompt_cache_key prompt_cache_retention verbosity"),
    ("a text or a mapping", (str, Mapping), "tool_choice function_call reasoning_effort"),
    ("a text or a list", (str, list, tuple), "stop"),
    ("a list", (list, tuple), "tools functions modalities"),
    ("a mapping", (Mapping,), "logit_bias metadata stream_options audio prediction web_search_options thinking"),
    ("a mapping", (Mapping,), "extra_headers extra_body"),
    ("a mapping or a pydantic class", (Mapping,), "response_format"),
    ("a mapping or a list", (Mapping, list, tuple), "context_management"),
)
_TYPE_OF: Mapping[str, tuple[str, tuple[type, ...]]] = {
    name: (words, types) for words, types, names in _TYPES for name in names.split()
}
OPENAI_PARAMETERS = frozenset(_TYPE_OF)
_OURS = DECIDED_BY_ROUTER | ENGINE_OPTIONS
# what LiteLLM's providers read and its lists lack: addresses, credentials, switches of its own
_STEERING_NAME = re.compile(
    r"^_|^(aws|azure|vertex|oci|litellm|mock|s3|gcs|sagemaker|watsonx|wx|gigachat|databricks|sap|nvcf|mcp)_"
    r"|(^|_)(api_?key|key_file|token|secret|password|credentials?|url|uri|endpoint|api_base|tenancy)$"
    r"|callbacks?$|fallback|retr(y|ies)|^(engine|config|original_function|fake_stream|use_ssl|account_id|project_id|workspace_id)$",
    re.IGNORECASE,
)
_SECRET_HEADER = re.compile(
    r"authorization|api-?key|token|secret|cookie|^host$|^content-|^transfer-|^connection$", re.IGNORECASE
)


def type_problem(name: str, value: Any) -> str | None:
    """Return what type a parameter must have when `value` has another one, in words. None when it fits.

    Only parameters that OpenAI names have a type. None stands for a parameter that is not given.
    """
    if value is None or name not in _TYPE_OF:
        return None
    words, types = _TYPE_OF[name]
    if isinstance(value, bool) and bool not in types:
        return words
    if name == "response_format" and isinstance(value, type) and hasattr(value, "model_json_schema"):
        return None
    return None if isinstance(value, types) else words


def refused_parameters(parameters: Mapping[str, Any], allowed: frozenset[str]) -> list[str]:
    """Return the names of parameters that LiteLLM or the router would obey, without those that `allowed` names.

    A name inside `extra_headers` or `extra_body` is written as `extra_headers.Authorization`.
    """
    unknown = parameters.keys() - OPENAI_PARAMETERS - (allowed - DECIDED_BY_ROUTER)
    refused = {name for name in unknown if name in _OURS or _STEERING_NAME.search(name)}
    if unknown - refused:
        refused |= unknown & litellm_parameters()
    if "extra_headers" not in allowed:
        refused |= _inside(parameters, "extra_headers", lambda name: _SECRET_HEADER.search(name) is not None)
    refused |= _inside(parameters, "extra_body", DECIDED_BY_ROUTER.__contains__)
    return sorted(refused)


def _inside(parameters: Mapping[str, Any], name: str, is_refused: Callable[[str], bool]) -> set[str]:
    return {f"{name}.{key}" for key in parameters.get(name) or () if is_refused(key)}


@functools.cache
def litellm_parameters() -> frozenset[str]:
    """Return the names that the installed LiteLLM obeys itself, from its signature and its lists. Imports LiteLLM."""
    litellm = litellm_module()
    from litellm.types.router import LiteLLM_Params
    from litellm.types.utils import all_litellm_params

    signature = inspect.signature(litellm.completion).parameters
    standard = litellm.constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES
    return frozenset({*signature, *all_litellm_params, *LiteLLM_Params.model_fields, *standard}) - OPENAI_PARAMETERS
