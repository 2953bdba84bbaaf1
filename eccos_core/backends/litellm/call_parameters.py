"""Which `litellm_params` go to the provider with each call, and which only steer LiteLLM's own router and proxy."""

from __future__ import annotations

import re
from typing import Final

STEERING: Final = frozenset(
    """
    access_groups access_windows adaptive_router_config adaptive_router_default_model alerting_config allow_fail_open
    allowed_fails allowed_fails_policy assistants_config auto_router_capability_limit auto_router_config
    auto_router_config_path auto_router_default_model auto_router_embedding_model auto_router_max_input_chars
    auto_router_model_compression auto_router_routing_compression background_health_check_model_groups blocked
    budget_duration cache cache_kwargs cache_responses caching_groups client_ttl complexity_router_config
    complexity_router_default_model configurable_clientside_auth_params content_policy_fallbacks
    context_window_fallback_dict context_window_fallbacks cooldown_time created_at created_by daily_reset_time db_model
    debug_level default_api_key_rpm_limit default_api_key_tpm_limit default_fallbacks default_litellm_params
    default_max_parallel_requests default_priority deployment_affinity_ttl_seconds disable_cooldowns discoverable
    enable_health_check_routing enable_mid_stream_fallback_continuation enable_pre_call_checks enable_tag_filtering
    enable_weighted_failover enforce_supported_endpoints fallback_access_check fallback_budget_check
    fallback_on_unsupported_params fallbacks guardrail_list guardrails health_check_ignore_transient_errors
    health_check_staleness_threshold id ignore_invalid_deployments internal_router_model itpm litellm_credential_name
    max_budget max_embedding_batch_size max_fallbacks max_parallel_requests max_retries member_auto_router
    model_group_affinity_config model_group_alias model_group_retry_policy model_info model_list num_retries
    optional_pre_call_checks order otpm polling_interval pricing_provider provider_affinity_header
    provider_budget_config ptu_count ptu_effective_from ptu_effective_to ptu_shares quality_router_config
    quality_router_default_model redis_db redis_host redis_password redis_port redis_url region_name retry_after
    retry_policy router_general_settings routing_groups routing_strategy routing_strategy_args rpd rpm search_tools
    session_affinity_repin_on_failover set_verbose silent_model switchyard_router_config tag_filtering_match_any
    tag_regex tag_routing_prefix tags team_id team_public_model_name tier tiered_pricing tpd tpm updated_at updated_by
    use_in_pass_through vector_store_id vector_store_ids weight weights
    """.split()  # noqa: SIM905 - so many names read best as text
)
"""Names of LiteLLM's router, deployments and `model_info`. A test compares them with the installed LiteLLM."""

_DESCRIPTION: Final = re.compile(
    r"^(supports_|supported_)|cost|^(mode|litellm_provider|max_input_tokens|max_output_tokens)$"
)
"""Keys that describe a model. They belong under `model_info`."""


def is_call_parameter(key: str) -> bool:
    """Tell whether LiteLLM may see a key of `litellm_params` in a call. Unknown keys are the provider's own."""
    return key not in STEERING and not _DESCRIPTION.search(key)
