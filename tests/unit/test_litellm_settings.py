"""LiteLLM's sections: translated where eccos has the thing, and otherwise named. Nothing is left without a word."""

from pathlib import Path

import pytest

from eccos_core.config import Config, load_config
from eccos_core.config.litellm_settings import REST, SETTINGS, Use
from eccos_core.domain import Request
from eccos_core.errors import ConfigError
from eccos_core.routing.tenants import Tenants

MODELS = """
model_list:
- {model_name: a, litellm_params: {model: openai/gpt-4o}}
- {model_name: c, litellm_params: {model: openai/gpt-4o-mini, temperature: 1, timeout: 7}}
"""


@pytest.fixture
def load(tmp_path: Path):
    def load_text(text: str, models: str = MODELS, **environment: str) -> Config:
        file = tmp_path / "config.yaml"
        file.write_text(models + text)
        return load_config(file, environment=environment)

    return load_text


# ------------------------------------------------------------------ translated


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("router_settings: {num_retries: 2}", "retries.attempts", 3),
        ("litellm_settings: {num_retries: 0}", "retries.attempts", 1),
        ("litellm_settings: {num_retries: 5}\nrouter_settings: {num_retries: '2'}", "retries.attempts", 3),
        ("router_settings: {num_retries: os.environ/RETRIES}", "retries.attempts", 5),
        ("router_settings: {num_retries: 2}\neccos: {retries: {attempts: 7}}", "retries.attempts", 7),
        ("router_settings: {num_retries: 2}\neccos: {retries: {fallbacks: 7}}", "retries.attempts", 3),
        ("router_settings: {max_fallbacks: 0}", "retries.fallbacks", 0),
        ("router_settings: {allowed_fails: 3}", "workload.breaker_failures", 4),
        ("litellm_settings: {allowed_fails: 0}", "workload.breaker_failures", 1),
        ("router_settings: {cooldown_time: 60}", "workload.breaker_open_s", 60.0),
        ("router_settings: {cooldown_time: 0}", "workload.breaker_open_s", 30.0),
        ("router_settings: {cooldown_time: 9}\neccos: {workload: {breaker_open_s: 2}}", "workload.breaker_open_s", 2.0),
    ],
)
def test_retries_and_cooldowns_become_those_of_eccos(load, text: str, key: str, value: float) -> None:
    config = load(text, RETRIES="4")
    section, name = key.split(".")
    assert getattr(getattr(config, section), name) == value
    assert config.warnings == config.not_applied == ()


@pytest.mark.parametrize(
    ("text", "key", "of_a", "of_c"),
    [
        ("litellm_settings: {request_timeout: 60}", "timeout", 60.0, 7.0),
        ("litellm_settings: {request_timeout: 60}\nrouter_settings: {timeout: '5'}", "timeout", 5.0, 7.0),
        ("router_settings: {stream_timeout: 3}", "stream_timeout", 3.0, 3.0),
        ("litellm_settings: {drop_params: true}", "drop_params", True, True),
        ("litellm_settings: {drop_params: 'True'}", "drop_params", True, True),
        ("router_settings: {default_litellm_params: {temperature: 0}}", "temperature", 0, 1),
        ("router_settings: {default_litellm_params: {api_key: os.environ/KEY}}", "api_key", "key", "key"),
        ("environment_variables: {OPENAI_API_KEY: inline}", "api_key", "inline", "inline"),
        ("environment_variables: {OPENAI_API_KEY: os.environ/KEY}", "api_key", "key", "key"),
        ("environment_variables: {OPENAI_API_BASE: 'https://proxy'}", "api_base", "https://proxy", "https://proxy"),
        ("environment_variables: {OPENAI_API_BASE: b, OPENAI_BASE_URL: a}", "api_base", "a", "a"),
    ],
)
def test_what_holds_for_all_calls_joins_each_entry(load, text: str, key: str, of_a: object, of_c: object) -> None:
    config = load(text, KEY="key")
    assert [entry.deployments[0].parameters[key] for entry in config.pool] == [of_a, of_c]
    assert config.warnings == config.not_applied == ()


@pytest.mark.parametrize(
    ("text", "deadline_s"),
    [
        ("litellm_settings: {request_timeout: 600}", 600.0),
        ("litellm_settings: {request_timeout: 5}", 120.0),
        ("litellm_settings: {request_timeout: 600}\neccos: {retries: {deadline_s: 50}}", 50.0),
    ],
)
def test_the_deadline_leaves_room_for_the_longest_timeout(load, text: str, deadline_s: float) -> None:
    assert load(text).retries.deadline_s == deadline_s


def test_what_is_translated_is_said(load) -> None:
    config = load("router_settings: {num_retries: 0, timeout: 9}\nlitellm_settings: {drop_params: true}")
    assert config.translated == (
        "router_settings.num_retries: `eccos.retries.attempts`, plus the first call.",
        "router_settings.timeout: It holds for each entry that has none of its own.",
        "litellm_settings.drop_params: It holds for each entry that has none of its own.",
    )


def test_a_default_that_only_steers_the_router_is_named(load) -> None:
    config = load("router_settings: {default_litellm_params: {cooldown_time: 3, fallbacks: [c]}}")
    assert config.not_applied[0].startswith("router_settings.default_litellm_params.fallbacks: ")
    assert config.warnings == (
        "router_settings.default_litellm_params: not used, and not sent to the provider: cooldown_time",
    )


def test_the_default_of_parallel_requests_holds_for_each_deployment(load) -> None:
    models = MODELS + "- {model_name: a, litellm_params: {model: openai/gpt-4o, max_parallel_requests: 1}}\n"
    config = load("router_settings: {default_max_parallel_requests: 4}", models)
    assert [model.max_concurrency for model in config.models] == [5, 4]


CREDENTIALS = """
model_list:
- {model_name: a, litellm_params: {model: openai/gpt-4o, litellm_credential_name: one, api_base: 'https://mine'}}
credential_list:
- credential_name: one
  credential_values: {api_key: os.environ/KEY, api_base: 'https://other', organization: org}
  credential_info: {custom_llm_provider: openai}
"""


def test_a_credential_joins_the_entry_that_names_it(load) -> None:
    parameters = load("", CREDENTIALS, KEY="key").pool[0].deployments[0].parameters
    assert (parameters["api_key"], parameters["organization"]) == ("key", "org")
    assert parameters["api_base"] == "https://mine"
    assert "litellm_credential_name" not in parameters
    assert "key" not in repr(parameters).replace("'api_key'", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CREDENTIALS.replace("credential_name: one", "name: one"), "must have a credential_name and a mapping"),
        (MODELS + "credential_list: {a: b}", "credential_list: is a mapping, must be a list of credentials"),
        (MODELS + "router_settings: [a]", "router_settings: is a list, must be a mapping"),
        (
            MODELS + "router_settings: {num_retries: many}",
            "router_settings.num_retries: is 'many', must be a whole number",
        ),
    ],
)
def test_a_setting_that_cannot_be_read_is_a_problem(load, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load("", text, KEY="key")
    assert words in str(raised.value)


def test_a_credential_that_the_file_lacks_is_named(load) -> None:
    config = load("", CREDENTIALS.replace("name: one, api_base", "name: onne, api_base"))
    assert config.warnings == (
        "model_list[0] 'a'.litellm_params.litellm_credential_name: not used, because credential_list has no 'onne'; "
        "did you mean 'one'?",
    )


def test_a_request_may_name_a_model_by_its_alias(load) -> None:
    config = load("router_settings: {model_group_alias: {gpt-4: a, hidden: {model: c, hidden: true}}}")
    tenants = Tenants({}, config.aliases)
    request = tenants.narrow(Request.of("hi", allow=frozenset({"gpt-4", "c"}), deny=frozenset({"hidden"})))
    assert (request.allow, request.deny) == ({"a", "c"}, {"c"})


def test_an_alias_that_cannot_be_used_is_named(load) -> None:
    config = load("router_settings: {model_group_alias: {gpt-4: gone, a: c, gpt-5: a}}")
    assert config.aliases == {"gpt-5": "a"}
    assert config.warnings == (
        "router_settings.model_group_alias.gpt-4: not used, because the pool has no model 'gone'",
        "router_settings.model_group_alias.a: not used, because a model of the pool has this name",
    )


# ------------------------------------------------------------------ named


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("guardrails: [{guardrail_name: pii, litellm_params: {guardrail: presidio}}]", "guardrails"),
        ("policies: {a: {guardrails: {add: [pii]}}}", "policies"),
        ("litellm_settings: {guardrails: [{pii: {callbacks: [presidio]}}]}", "litellm_settings.guardrails"),
        ("litellm_settings: {callbacks: [langfuse, presidio]}", "litellm_settings.callbacks: presidio"),
        (
            "litellm_settings: {callbacks: detect_prompt_injection}",
            "litellm_settings.callbacks: detect_prompt_injection",
        ),
        ("router_settings: {fallbacks: [{a: [c]}]}", "router_settings.fallbacks"),
        ("router_settings: {default_fallbacks: [c]}", "router_settings.default_fallbacks"),
        ("litellm_settings: {context_window_fallbacks: [{a: [c]}]}", "litellm_settings.context_window_fallbacks"),
        ("litellm_settings: {content_policy_fallbacks: [{a: [c]}]}", "litellm_settings.content_policy_fallbacks"),
        ("litellm_settings: {max_budget: 10, budget_duration: 30d}", "litellm_settings.max_budget"),
        ("general_settings: {max_budget: 10}", "general_settings.max_budget"),
        ("router_settings: {provider_budget_config: {openai: {budget_limit: 1}}}", "router_settings.provider_budget"),
    ],
)
def test_a_rule_that_does_not_hold_here_is_named_apart_from_the_warnings(load, text: str, place: str) -> None:
    [rule] = load(text).not_applied
    assert rule.startswith(place)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "litellm_settings: {success_callback: [langfuse, s3]}",
            "litellm_settings: not used: success_callback. eccos calls",
        ),
        (
            "litellm_settings: {cache: true, cache_params: {type: redis}}",
            "litellm_settings: not used: cache, cache_params.",
        ),
        ("litellm_settings: {api_key: secret}", "litellm_settings: not used: api_key. Write them in each entry"),
        (
            "litellm_settings: {set_verbose: true, json_logs: true}",
            "litellm_settings: not used: set_verbose, json_logs.",
        ),
        (
            "router_settings: {redis_host: h, retry_after: 5}",
            "router_settings: not used: redis_host, retry_after. They",
        ),
        (
            "general_settings: {master_key: secret}",
            "general_settings: not used: master_key. They steer LiteLLM's proxy",
        ),
        (
            "general_settings: {key_management_system: aws_secret_manager}",
            "general_settings: not used: key_management_system",
        ),
        (
            "mcp_servers: {x: {url: u}}\nprompts: [{prompt_id: p}]",
            "mcp_servers, prompts: not used. These sections belong",
        ),
        ("something_new: {a: b}", "something_new: not used. These sections belong"),
        (
            "environment_variables: {LANGFUSE_KEY: secret}",
            "environment_variables: not used, because eccos sets no variables",
        ),
    ],
)
def test_what_belongs_to_the_proxy_is_named_and_its_values_are_not(load, text: str, warning: str) -> None:
    config = load(text)
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith(warning)
    assert "secret" not in config.warnings[0].replace("store of secrets", "").replace("secret_manager", "")


@pytest.mark.parametrize(
    "text",
    [
        "guardrails: []\nrouter_settings: {fallbacks: []}\nlitellm_settings: {cache: false, callbacks: null}",
        "general_settings:\nlitellm_settings:\nrouter_settings:",
        "router_settings: {routing_strategy: simple-shuffle, enable_pre_call_checks: true}",
    ],
)
def test_a_setting_that_says_nothing_or_holds_anyway_is_no_warning(load, text: str) -> None:
    config = load(text)
    assert config.warnings == config.not_applied == ()


def test_the_last_of_two_equal_keys_holds_as_in_litellm(load) -> None:
    config = load("router_settings:\n  num_retries: 1\n  num_retries: 4\n")
    assert config.retries.attempts == 5
    assert "line 7, column 3: the key 'num_retries' is given twice" in config.warnings[0]


def test_sections_of_included_files_join_as_in_litellm(load, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(
        "include: [more.yaml, deeper.yaml]\nrouter_settings: {num_retries: 1}\n"
        "credential_list: [{credential_name: two, credential_values: {api_key: k}}]\n"
    )
    (tmp_path / "deeper.yaml").write_text("model_list: [{model_name: d, litellm_params: {model: openai/gpt-4o}}]")
    included = "include: [more.yaml]\ncredential_list: [{credential_name: one, credential_values: {api_key: k}}]\n"
    config = load(included + "router_settings: {num_retries: 9}")
    assert [model.name for model in config.models] == ["a", "c", "d"]
    assert config.retries.attempts == 2


def test_every_section_of_the_table_ends_with_a_row_for_its_other_keys() -> None:
    for section in {row.section for row in SETTINGS}:
        rows = [row for row in SETTINGS if row.section == section]
        assert rows[-1].keys == (REST,)
        assert len({key for row in rows for key in row.keys}) == sum(len(row.keys) for row in rows)
    assert {row.use for row in SETTINGS} == set(Use)
