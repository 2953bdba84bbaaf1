"""What becomes of each section and setting of a LiteLLM file. The warnings and the page for users come from this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from eccos_core.backends.litellm.call_parameters import is_call_parameter
from eccos_core.config.problems import Problems
from eccos_core.config.section import Section

ENTRY: Final = "litellm_params"
"""The section name of the parameters of one entry of `model_list`."""

REST: Final = "*"
"""The key that stands for all others of a section."""


class Use(StrEnum):
    """What eccos does with a setting. Only `NOT_APPLIED` and `NOT_USED` are worth a warning."""

    USED = "used"
    TRANSLATED = "translated"
    REPLACED = "replaced"
    NOT_APPLIED = "not applied"
    NOT_USED = "not used"


@dataclass(frozen=True, slots=True)
class Setting:
    """What becomes of some keys of a section. The section of a top-level key is empty."""

    section: str
    keys: tuple[str, ...]
    use: Use
    note: str


_FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks")
_OUR_FALLBACKS = (
    "After a failure eccos tries the models with the next best forecast, as many as `eccos.retries.fallbacks` says. To "
    "keep a model from a request, use `eccos.tenants`."
)
_NO_GUARDRAIL = "No guardrail runs. Check the text in your own code, or send the calls through your LiteLLM proxy."
_NO_BUDGET = "This money is not counted. Set `eccos.policy.budget_usd` for a batch or `eccos.stream.usd_per_day`."
_EACH_ENTRY = "It holds for each entry that has none of its own."
_NO_CALLBACK = "eccos calls no callback of LiteLLM. Use `eccos.telemetry` (OpenTelemetry) or `eccos.decision_log`."

GUARD_CALLBACKS: Final = frozenset(
    {
        "aporia_prompt_injection",
        "azure_content_safety",
        "banned_keywords",
        "blocked_user_check",
        "detect_prompt_injection",
        "google_text_moderation",
        "hide_secrets",
        "lakera_prompt_injection",
        "llamaguard_moderations",
        "llmguard_moderations",
        "openai_moderations",
        "presidio",
    }
)
"""Callbacks of LiteLLM's proxy that can refuse or change a text."""

SETTINGS: Final = (
    Setting("", ("model_list",), Use.USED, "The pool. Entries with one name are deployments of one model."),
    Setting("", ("include",), Use.USED, "The sections of these files join yours."),
    Setting("", ("eccos",), Use.USED, "How eccos routes."),
    Setting(
        "",
        ("environment_variables",),
        Use.TRANSLATED,
        "Values for `os.environ/NAME`, and keys and addresses of providers, as in `OPENAI_API_KEY`.",
    ),
    Setting("", ("credential_list",), Use.TRANSLATED, "Joins each entry that names it in `litellm_credential_name`."),
    Setting("", ("guardrails", "policies", "policy_attachments"), Use.NOT_APPLIED, _NO_GUARDRAIL),
    Setting("", (REST,), Use.NOT_USED, "These sections belong to the LiteLLM proxy server, which does not run here."),
    # ------------------------------------------------------------------ one entry of model_list
    Setting(ENTRY, ("model", "api_key", "api_base", "api_version"), Use.USED, "How the model is called."),
    Setting(
        ENTRY,
        ("timeout", "stream_timeout", "drop_params"),
        Use.USED,
        "They hold for each call. `eccos.retries.deadline_s` is at least the longest timeout.",
    ),
    Setting(ENTRY, ("rpm", "tpm", "max_parallel_requests"), Use.USED, "Limits of the deployment."),
    Setting(ENTRY, ("weight", "order"), Use.USED, "How calls are shared among deployments."),
    Setting(ENTRY, ("tags",), Use.USED, "Requests, tenants and groups ask for them."),
    Setting(ENTRY, ("region_name",), Use.TRANSLATED, "A tag. A request or a tenant asks for it by `required_tags`."),
    Setting(
        ENTRY,
        (
            "input_cost_per_token",
            "output_cost_per_token",
            "cache_read_input_token_cost",
            "output_cost_per_reasoning_token",
        ),
        Use.USED,
        "The price in USD per token.",
    ),
    Setting(
        ENTRY,
        ("input_cost_per_second", "output_cost_per_second"),
        Use.TRANSLATED,
        "A price per token, with `model_info.tokens_per_hour` beside it.",
    ),
    Setting(ENTRY, ("litellm_credential_name",), Use.TRANSLATED, "The values of that credential join the entry."),
    Setting(ENTRY, ("fallbacks",), Use.NOT_APPLIED, _OUR_FALLBACKS),
    Setting(ENTRY, ("guardrails",), Use.NOT_APPLIED, _NO_GUARDRAIL),
    Setting(ENTRY, ("max_budget",), Use.NOT_APPLIED, _NO_BUDGET),
    Setting(
        ENTRY,
        ("num_retries", "max_retries", "allowed_fails", "cooldown_time"),
        Use.NOT_USED,
        "eccos has one rule for all models: `eccos.retries` and `eccos.workload`.",
    ),
    Setting(ENTRY, ("access_groups",), Use.NOT_USED, "Use `tags`, and `required_tags` of a tenant or a request."),
    Setting(ENTRY, (REST,), Use.USED, "Call parameters go to the provider. What steers LiteLLM's own router does not."),
    # ------------------------------------------------------------------ router_settings
    Setting("router_settings", _FALLBACKS, Use.NOT_APPLIED, _OUR_FALLBACKS),
    Setting("router_settings", ("provider_budget_config",), Use.NOT_APPLIED, _NO_BUDGET),
    Setting("router_settings", ("guardrail_list",), Use.NOT_APPLIED, _NO_GUARDRAIL),
    Setting("router_settings", ("model_group_alias",), Use.TRANSLATED, "Another name to `allow` or `deny` a model by."),
    Setting("router_settings", ("num_retries",), Use.TRANSLATED, "`eccos.retries.attempts`, plus the first call."),
    Setting("router_settings", ("max_fallbacks",), Use.TRANSLATED, "`eccos.retries.fallbacks`."),
    Setting("router_settings", ("allowed_fails",), Use.TRANSLATED, "`eccos.workload.breaker_failures`, plus one."),
    Setting("router_settings", ("cooldown_time",), Use.TRANSLATED, "`eccos.workload.breaker_open_s`."),
    Setting(
        "router_settings",
        ("timeout", "stream_timeout", "default_max_parallel_requests", "default_litellm_params"),
        Use.TRANSLATED,
        _EACH_ENTRY,
    ),
    Setting(
        "router_settings",
        ("routing_strategy", "routing_strategy_args", "routing_groups"),
        Use.REPLACED,
        "eccos chooses by forecast, price and load.",
    ),
    Setting(
        "router_settings",
        ("enable_pre_call_checks",),
        Use.REPLACED,
        "Context windows and abilities are always checked.",
    ),
    Setting("router_settings", ("enable_tag_filtering",), Use.REPLACED, "A request names its `required_tags`."),
    Setting("router_settings", (REST,), Use.NOT_USED, "They steer LiteLLM's own router."),
    # ------------------------------------------------------------------ litellm_settings
    Setting("litellm_settings", _FALLBACKS, Use.NOT_APPLIED, _OUR_FALLBACKS),
    Setting("litellm_settings", ("guardrails",), Use.NOT_APPLIED, _NO_GUARDRAIL),
    Setting(
        "litellm_settings",
        ("max_budget", "max_user_budget", "max_end_user_budget", "max_internal_user_budget"),
        Use.NOT_APPLIED,
        _NO_BUDGET,
    ),
    Setting("litellm_settings", ("num_retries",), Use.TRANSLATED, "`eccos.retries.attempts`, plus the first call."),
    Setting("litellm_settings", ("allowed_fails",), Use.TRANSLATED, "`eccos.workload.breaker_failures`, plus one."),
    Setting("litellm_settings", ("request_timeout", "drop_params"), Use.TRANSLATED, _EACH_ENTRY),
    Setting(
        "litellm_settings",
        ("callbacks", "success_callback", "failure_callback", "service_callback", "audit_log_callbacks"),
        Use.NOT_USED,
        _NO_CALLBACK,
    ),
    Setting("litellm_settings", ("cache", "cache_params"), Use.NOT_USED, "No answer is cached."),
    Setting(
        "litellm_settings",
        ("api_key", "api_base"),
        Use.NOT_USED,
        "Write them in each entry, or in `router_settings.default_litellm_params`.",
    ),
    Setting(
        "litellm_settings",
        ("turn_off_message_logging", "redact_messages_in_exceptions", "redact_user_api_key_info"),
        Use.REPLACED,
        "No log of eccos holds a key, and none holds a text unless you set `log_prompts`.",
    ),
    Setting("litellm_settings", (REST,), Use.NOT_USED, "They steer LiteLLM and its proxy server."),
    # ------------------------------------------------------------------ general_settings
    Setting("general_settings", ("max_budget",), Use.NOT_APPLIED, _NO_BUDGET),
    Setting(
        "general_settings",
        ("max_parallel_requests", "global_max_parallel_requests"),
        Use.NOT_USED,
        "Set `eccos.workload.default_max_concurrency`.",
    ),
    Setting(
        "general_settings",
        ("key_management_system", "key_management_settings"),
        Use.NOT_USED,
        "`os.environ/NAME` reads variables of the process, and no store of secrets.",
    ),
    Setting("general_settings", (REST,), Use.NOT_USED, "They steer LiteLLM's proxy server, which does not run here."),
)
"""Every setting, and last in each section the row for its other keys."""

_BY_KEY: Final = {(row.section, key): row for row in SETTINGS for key in row.keys}
_SECTIONS: Final = frozenset(row.section for row in SETTINGS) - {"", ENTRY}


def find_setting(section: str, key: str) -> Setting:
    """Find what becomes of a key. The section of a top-level key is empty."""
    return _BY_KEY.get((section, key)) or _BY_KEY[section, REST]


def report_settings(sections: Mapping[str, Any], problems: Problems) -> None:
    """Name every setting that is translated, not applied or not used, the keys of a row together. No value is shown."""
    keys: dict[Setting, list[str]] = {}
    for section, key, value in _list_settings(sections):
        row = find_setting(section, key)
        keys.setdefault(row, []).append(key)
        if key.endswith(("callback", "callbacks")):
            guards = [name for name in _names(value) if name in GUARD_CALLBACKS]
            if guards:
                problems.not_apply(f"{section}.{key}", f"{', '.join(guards)}. {_NO_GUARDRAIL}")
    for row, named in keys.items():
        places = ", ".join(f"{row.section}.{key}".lstrip(".") for key in named)
        if row.use is Use.NOT_APPLIED:
            problems.not_apply(places, row.note)
        elif row.use is Use.TRANSLATED:
            problems.translate(places, row.note)
        elif row.use is Use.NOT_USED:
            listed = ", ".join(named)
            problems.warn(row.section or listed, f"not used{f': {listed}' if row.section else ''}. {row.note}")


def report_parameters(params: Section, problems: Problems) -> None:
    """Name every key of `litellm_params` that is neither used here nor sent to the provider."""
    unsent = [key for key in params.values if params.has(key) and not is_call_parameter(key)]
    unused = []
    for key in unsent:
        row = find_setting(ENTRY, key)
        if row.use is Use.NOT_APPLIED:
            problems.not_apply(params.at(key), row.note)
        elif row.use is Use.NOT_USED or row.keys == (REST,):
            unused.append(key)
    if unused:
        problems.warn(params.place, f"not used, and not sent to the provider: {', '.join(unused)}")


def _list_settings(sections: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """List each setting that says something: its section, key and value."""
    for section, values in sections.items():
        if section not in _SECTIONS:
            settings = [("", section, values)]
        else:
            settings = [(section, str(key), value) for key, value in values.items()] if isinstance(values, dict) else []
        yield from (each for each in settings if each[2] is not False and each[2] not in (None, [], {}, ""))


def _names(value: object) -> list[str]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
