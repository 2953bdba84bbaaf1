"""The JSON schema of a whole configuration file, for editors.

The `eccos:` section comes from its models. LiteLLM's sections are described loosely, because LiteLLM owns them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eccos_core.config.schema import EccosSection

SCHEMA_FILE: Final = Path(__file__).with_name("eccos.schema.json")
"""The schema as it is shipped in the package."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _number(description: str, *, whole: bool = False, **bounds: float) -> dict[str, Any]:
    """Describe a number of `model_info`. LiteLLM also takes a number that is written as text."""
    return {"type": ["integer" if whole else "number", "string"], "description": description, **bounds}


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


MODEL_INFO: Final[Mapping[str, Mapping[str, Any]]] = {
    "max_concurrency": _number(
        "Most calls in flight at once. `litellm_params.max_parallel_requests` counts too, and the smaller one holds.",
        whole=True,
        minimum=1,
    ),
    "tags": {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "description": "Words that a request, a tenant or a group may ask for. `litellm_params.tags` count too.",
    },
    "assume_like": {
        "type": "string",
        "minLength": 1,
        "description": "Expect what this other model does, until the model has outcomes of its own.",
    },
    "assumed_quality": _number(
        "Expect this share of good answers, until the model has outcomes of its own.", minimum=0, maximum=1
    ),
    "efforts": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"},
        "additionalProperties": {"type": ["object", "null"]},
        "description": "Efforts of this model, from least to most: a name, and the call parameters that ask for it, "
        "such as `low: {reasoning_effort: low}`. Each is a model of the pool (`large@low`), and all share the slots.",
    },
    "batch": {
        "type": ["object", "boolean"],
        "properties": {
            "discount": _number("What is taken off the usual price.", minimum=0, exclusiveMaximum=1),
            "within_s": _number("Seconds within which the provider promises the answers.", exclusiveMinimum=0),
        },
        "additionalProperties": False,
        "description": "The provider's batch API may be used for batches with patience: `batch: {discount: 0.5, "
        "within_s: 86400}`, or `true` for these numbers. OpenAI and Anthropic have one.",
    },
    "free": _flag("The model costs nothing. Give no price beside it."),
    "usd_per_gpu_hour": _number(
        "Price of one GPU of your own in USD per hour. It needs `tokens_per_hour`, or `gpu` and `architecture`.",
        minimum=0,
    ),
    "tokens_per_hour": _number("Tokens per hour that you measured, input and output together.", exclusiveMinimum=0),
    "architecture": {
        "type": "string",
        "minLength": 1,
        "description": "A Hugging Face folder with a `config.json`, or a known name such as `llama-3-8b`. With "
        "`gpu` it prices the tokens by their context. A model of `eccos-local/` has its own.",
    },
    "gpu": {
        "type": "string",
        "minLength": 1,
        "description": "The kind of GPU that the model runs on, such as `h100`, or `this` for the machine that "
        "`eccos price --calibrate` measured.",
    },
    "gpus": _number("How many of these GPUs share the model.", whole=True, minimum=1, default=1),
    "input_cost_per_token": _number("Price of an input token in USD.", minimum=0),
    "output_cost_per_token": _number("Price of an output token in USD.", minimum=0),
    "cache_read_input_token_cost": _number("Price of an input token that the provider had cached, in USD.", minimum=0),
    "cache_lifetime_s": _number(
        "Seconds for which the provider keeps the cache of a prompt after its last use. `sessions.cache_s` by default.",
        exclusiveMinimum=0,
    ),
    "output_cost_per_reasoning_token": _number("Price of a reasoning token in USD.", minimum=0),
    "base_model": {"type": "string", "description": "The name that LiteLLM's price map knows the model by."},
    "context_window": _number("Longest input in tokens, the same as `max_input_tokens`.", whole=True, minimum=1),
    "max_input_tokens": _number("Longest input in tokens.", whole=True, minimum=1),
    "max_output_tokens": _number("Longest answer in tokens.", whole=True, minimum=1),
    "supports_function_calling": _flag("The model can call tools."),
    "supports_parallel_function_calling": _flag("The model can call several tools at once."),
    "supports_vision": _flag("The model reads images."),
    "supports_response_schema": _flag("The model answers in a JSON schema."),
    "supports_native_streaming": _flag("The model streams its answer. Left out, it does."),
    "mode": {"type": "string", "description": "What the model is for. Only chat models join the pool."},
}
"""The keys of `model_info` that eccos reads. LiteLLM leaves `model_info` open, so others are allowed."""


def build_schema() -> dict[str, Any]:
    """Build the JSON schema (draft 2020-12) of a configuration file."""
    section = EccosSection.model_json_schema(mode="validation")
    definitions = section.pop("$defs")
    definitions["EccosSection"] = section
    definitions["ModelEntry"] = _model_entry()
    schema = {
        "$schema": _DIALECT,
        "title": "eccos configuration",
        "description": "A LiteLLM configuration with a section `eccos:`. Other sections are LiteLLM's.",
        "type": "object",
        "anyOf": [{"required": ["model_list"]}, {"required": ["include"]}],
        "properties": {
            "model_list": {
                "type": "array",
                "items": {"$ref": "#/$defs/ModelEntry"},
                "description": "The models of the pool, as LiteLLM lists them.",
            },
            "eccos": {
                "anyOf": [{"$ref": "#/$defs/EccosSection"}, {"type": "null"}],
                "description": "How eccos routes. You may leave it out.",
            },
            "include": {
                "type": "array",
                "items": {"type": "string"},
                "description": "YAML files whose `model_list` joins this one.",
            },
            "environment_variables": {
                "type": "object",
                "description": "Variables for `os.environ/NAME`. They win over those of the process.",
            },
        },
        "additionalProperties": True,
        "$defs": dict(sorted(definitions.items())),
    }
    return {key: _without_titles(value) if key != "title" else value for key, value in schema.items()}


def render_schema() -> str:
    """Write the schema as JSON text."""
    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


def _model_entry() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "One way to reach a model. Entries with one name are deployments of one model.",
        "required": ["model_name", "litellm_params"],
        "properties": {
            "model_name": {"type": "string", "minLength": 1, "description": "The model's name everywhere in eccos."},
            "litellm_params": {
                "type": "object",
                "description": "What LiteLLM calls the model with. Write `os.environ/NAME` for a secret.",
                "required": ["model"],
                "properties": {
                    "model": {
                        "type": "string",
                        "minLength": 1,
                        "description": "LiteLLM's name of the model, or `eccos-local/` and a pocket model or a folder.",
                    }
                },
                "additionalProperties": True,
            },
            "model_info": {
                "type": ["object", "null"],
                "description": "Prices and abilities. LiteLLM leaves it open, and eccos reads these keys.",
                "properties": {key: dict(rule) for key, rule in MODEL_INFO.items()},
                "additionalProperties": True,
            },
        },
        "additionalProperties": True,
    }


def _without_titles(value: Any) -> Any:
    """Leave out pydantic's titles: they repeat the names of the keys."""
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(item) for item in value] if isinstance(value, list) else value
