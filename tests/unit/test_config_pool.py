"""Prices, abilities and deployments: what a model_list says, and what LiteLLM's price map adds."""

import json
from pathlib import Path

import pytest

from eccos_core.backends.litellm.responses import CallRecord
from eccos_core.config import Config, load_config
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.domain import Capability, Model, Request
from eccos_core.errors import ConfigError

PRICE_MAP = {
    "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 1.0, "output_cost_per_token": 1.0},
    "gpt-x": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 4e-6,
        "cache_read_input_token_cost": 5e-7,
        "max_input_tokens": 100_000,
        "max_output_tokens": 8_000,
        "max_tokens": 8_000,
        "supports_function_calling": True,
        "supports_vision": True,
    },
    "azure/gpt-x": {
        "litellm_provider": "azure",
        "mode": "chat",
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 3e-6,
        "max_input_tokens": 90_000,
        "supports_function_calling": True,
    },
    "claude.v1": {
        "litellm_provider": "bedrock_converse",
        "mode": "chat",
        "input_cost_per_token": 3e-6,
        "output_cost_per_token": 9e-6,
        "output_cost_per_reasoning_token": 1e-5,
    },
    "embed": {
        "litellm_provider": "openai",
        "mode": "embedding",
        "input_cost_per_token": 1e-8,
        "output_cost_per_token": 0,
    },
    "ollama/l": {"litellm_provider": "ollama", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0},
    "by-second": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_second": 1e-4},
}


@pytest.fixture
def load(tmp_path: Path):
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICE_MAP))

    def load_entries(*entries: str, eccos: str = "", **environment: str) -> Config:
        file = tmp_path / "eccos.yaml"
        listed = "".join(f"- {entry}\n" for entry in entries)
        file.write_text(f"model_list:\n{listed}eccos: {{{eccos}}}\n")
        return load_config(file, environment=environment, prices=PriceMap(prices))

    return load_entries


def model(load, params: str, info: str = "id: a") -> Model:
    return load(f"{{model_name: m, litellm_params: {{{params}}}, model_info: {{{info}}}}}").models[0]


def test_price_window_and_abilities_come_from_the_price_map(load) -> None:
    assert model(load, "model: openai/gpt-x") == Model(
        name="m",
        usd_per_input_token=1e-6,
        usd_per_output_token=4e-6,
        usd_per_cached_input_token=5e-7,
        context_window=100_000,
        max_output_tokens=8_000,
        capabilities=frozenset({Capability.STREAMING, Capability.TOOLS, Capability.VISION}),
        provider="openai",
    )


@pytest.mark.parametrize(
    ("params", "usd", "provider"),
    [
        ("model: gpt-x", 1e-6, "openai"),
        ("model: openai/gpt-x", 1e-6, "openai"),
        ("model: gpt-x, custom_llm_provider: openai", 1e-6, "openai"),
        ("model: azure/gpt-x", 2e-6, "azure"),
        ("model: gpt-x, custom_llm_provider: azure", 2e-6, "azure"),
        ("model: bedrock/claude.v1", 3e-6, "bedrock"),
        ("model: bedrock/converse/claude.v1", 3e-6, "bedrock"),
    ],
)
def test_a_model_is_found_with_and_without_its_provider(load, params: str, usd: float, provider: str) -> None:
    found = model(load, params)
    assert (found.usd_per_input_token, found.provider) == (usd, provider)


def test_a_price_per_second_is_no_price_per_token(load) -> None:
    with pytest.raises(ConfigError, match="has no price per token for 'by-second'"):
        load("{model_name: m, litellm_params: {model: by-second}}", eccos="unpriced: error")


def test_a_price_per_second_over_tokens_per_hour_is_a_price(load) -> None:
    config = load(
        "{model_name: m, litellm_params: {model: sagemaker/x, input_cost_per_second: 0.001},"
        " model_info: {tokens_per_hour: 3.6e6}}"
    )
    assert config.models[0].usd_per_input_token == config.models[0].usd_per_output_token == pytest.approx(1e-6)
    assert config.pool[0].usd_per_gpu_hour == pytest.approx(3.6)


def test_the_price_map_adds_the_side_of_a_price_that_the_file_leaves_out(load) -> None:
    found = model(load, "model: gpt-x, input_cost_per_token: 9e-6")
    assert (found.usd_per_input_token, found.usd_per_output_token) == (9e-6, 4e-6)


def test_deployments_that_differ_promise_what_all_of_them_can_do(load) -> None:
    stated = "input_cost_per_token: 1e-6, output_cost_per_token: 5e-6, max_input_tokens: 8000, supports_vision: true"
    config = load(
        f"{{model_name: m, litellm_params: {{model: openai/a}}, model_info: {{{stated}}}}}",
        "{model_name: m, litellm_params: {model: openai/b}, model_info: {free: true, max_input_tokens: 4000}}",
    )
    [found] = config.models
    assert (found.usd_per_output_token, found.context_window) == (5e-6, 4000)
    assert Capability.VISION not in found.capabilities
    assert "differ in context window: 8000 in model_list[0]; 4000 in model_list[1]" in "".join(config.warnings)
    assert "price per output token (USD): 5e-06 in model_list[0]; 0 in model_list[1]" in "".join(config.warnings)


def test_base_model_says_which_price_an_azure_deployment_has(load) -> None:
    assert model(load, "model: azure/my-deployment", "base_model: azure/gpt-x").usd_per_input_token == 2e-6
    assert model(load, "model: azure/my-deployment", "base_model: gpt-x").usd_per_input_token == 2e-6


def test_reasoning_tokens_may_have_a_price_of_their_own(load) -> None:
    assert model(load, "model: bedrock/claude.v1").usd_per_reasoning_token == 1e-5


@pytest.mark.parametrize("where", ["litellm_params", "model_info"])
def test_a_stated_price_is_the_price_of_each_answer_whatever_litellm_knows(load, where: str) -> None:
    price = "input_cost_per_token: 7e-6, output_cost_per_token: 8.0e-6"
    params, info = (f"model: gpt-x, {price}", "id: a") if where == "litellm_params" else ("model: gpt-x", price)
    [entry] = load(f"{{model_name: m, litellm_params: {{{params}}}, model_info: {{{info}}}}}").pool
    call = CallRecord(entry.model, Request.of("hi"), entry.deployments[0], 0.0)
    assert not call.priced_by_litellm()


@pytest.mark.parametrize("where", ["params", "info"])
def test_a_stated_price_wins_over_the_price_map_and_brings_no_part_of_it(load, where: str) -> None:
    price = "input_cost_per_token: 7e-6, output_cost_per_token: 8.0e-6"
    params = f"model: gpt-x, {price}" if where == "params" else "model: gpt-x"
    found = model(load, params, price if where == "info" else "id: a")
    assert (found.usd_per_input_token, found.usd_per_output_token) == (7e-6, 8e-6)
    assert found.usd_per_cached_input_token is None


def test_a_free_model_says_so(load) -> None:
    found = model(load, "model: openai/unheard-of", "free: true")
    assert (found.usd_per_input_token, found.usd_per_output_token) == (0.0, 0.0)


def test_a_gpu_hour_over_tokens_per_hour_is_a_price(load) -> None:
    config = load(
        "{model_name: m, litellm_params: {model: openai/x}, model_info: {usd_per_gpu_hour: 2, tokens_per_hour: 1e6}}"
    )
    assert config.models[0].usd_per_input_token == config.models[0].usd_per_output_token == 2e-6
    assert (config.pool[0].usd_per_gpu_hour, config.pool[0].tokens_per_hour) == (2.0, 1e6)


def test_a_price_that_nobody_asks_is_met_with_a_warning(load) -> None:
    config = load(
        "{model_name: m, litellm_params: {model: x/y, input_cost_per_token: 2.5, output_cost_per_token: 1.0e-6}}",
        "{model_name: o, litellm_params: {model: ollama/l}}",
    )
    assert "2,500,000 USD per million tokens; was 2.5e-06 meant?" in config.warnings[0]
    assert "price map says it costs nothing" in config.warnings[1]


def test_the_file_overrides_abilities_and_window(load) -> None:
    found = model(
        load, "model: gpt-x", "supports_vision: false, supports_response_schema: true, max_input_tokens: 5000"
    )
    assert found.capabilities == {Capability.STREAMING, Capability.TOOLS, Capability.JSON_SCHEMA}
    assert found.context_window == 5000


def test_parallel_calls_imply_tools(load) -> None:
    found = model(load, "model: openai/x", "free: true, supports_parallel_function_calling: true")
    assert Capability.TOOLS in found.capabilities


def test_a_model_without_native_streaming_does_not_stream(load) -> None:
    assert not model(load, "model: openai/x", "free: true, supports_native_streaming: false").capabilities


@pytest.mark.parametrize(
    ("info", "window", "longest"),
    [
        ("max_tokens: 4096", 4096, None),
        ("max_tokens: 4096, max_input_tokens: 32000", 32000, 4096),
        ("context_window: 9000, max_output_tokens: 1000", 9000, 1000),
    ],
)
def test_max_tokens_means_what_litellm_means_by_it(load, info: str, window: int, longest: int | None) -> None:
    found = model(load, "model: openai/x", f"free: true, {info}")
    assert (found.context_window, found.max_output_tokens) == (window, longest)


def test_a_local_folder_tells_its_own_context_window(load, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    config = load("{model_name: m, litellm_params: {model: eccos-local/tiny}, model_info: {free: true}}")
    assert config.models[0].context_window == 512
    assert config.models[0].provider == "eccos-local"
    assert config.pool[0].deployments[0].parameters["model"] == f"eccos-local/{tmp_path / 'tiny'}"


def test_a_local_model_is_never_priced_by_the_map(load) -> None:
    with pytest.raises(
        ConfigError, match=r"no price is given for 'eccos-local/pocket-small': add model_info\.free: true"
    ):
        load("{model_name: m, litellm_params: {model: eccos-local/pocket-small}}", eccos="unpriced: error")


# ------------------------------------------------------------------ deployments


AZURE = "{model_name: m, litellm_params: {model: azure/gpt-x, rpm: 10, max_parallel_requests: 4, tags: [eu, fast]}}"
OPENAI = "{model_name: m, litellm_params: {model: gpt-x, rpm: 5, max_parallel_requests: 3, tags: [eu]}}"


def test_entries_with_one_name_are_deployments_of_one_model(load) -> None:
    config = load(AZURE, OPENAI)
    [entry] = config.pool
    assert [way.litellm_model for way in entry.deployments] == ["azure/gpt-x", "gpt-x"]
    assert entry.model.max_concurrency == 7
    assert entry.requests_per_minute == 15
    assert entry.tokens_per_minute is None
    assert entry.model.provider == "azure, openai"


def test_a_model_promises_what_all_its_deployments_keep_at_the_dearest_price(load) -> None:
    config = load(AZURE, OPENAI)
    [found] = config.models
    assert (found.usd_per_input_token, found.usd_per_output_token) == (2e-6, 4e-6)
    assert found.context_window == 90_000
    assert found.capabilities == {Capability.STREAMING, Capability.TOOLS}
    assert found.usd_per_cached_input_token is None
    assert found.tags == {"eu"}
    assert "differ in context window: 90000 in model_list[0]; 100000 in model_list[1]" in "\n".join(config.warnings)
    assert "differ in tags; the model carries those of all: eu" in "\n".join(config.warnings)


def test_a_cap_of_some_deployments_only_is_no_cap(load) -> None:
    uncapped = "{model_name: m, litellm_params: {model: gpt-x}}"
    assert load(OPENAI, uncapped).models[0].max_concurrency is None
    assert load(uncapped, eccos="workload: {default_max_concurrency: 9}").models[0].max_concurrency == 9


def test_the_smaller_of_two_caps_holds(load) -> None:
    assert model(load, "model: gpt-x, max_parallel_requests: 8", "max_concurrency: 5").max_concurrency == 5


def test_what_cannot_be_routed_to_is_left_out_with_a_warning_and_its_key_is_not_missed(load) -> None:
    config = load(
        OPENAI,
        '{model_name: "*", litellm_params: {model: "*", api_key: os.environ/NOT_SET}}',
        '{model_name: "openai/*", litellm_params: {model: "openai/*"}}',
        "{model_name: e, litellm_params: {model: embed, api_key: os.environ/NOT_SET}}",
        "{model_name: i, litellm_params: {model: azure/dall-e}, model_info: {mode: image_generation}}",
    )
    assert [entry.model.name for entry in config.pool] == ["m"]
    assert [warning.partition(":")[0] for warning in config.warnings] == [
        "model_list[1] '*'",
        "model_list[2] 'openai/*'",
        "model_list[4] 'i'",
        "model_list[3] 'e'",
    ]
    assert "its mode is 'embedding'" in config.warnings[3]


def test_numbers_may_be_text_where_litellm_allows_it(load) -> None:
    config = load('{model_name: m, litellm_params: {model: gpt-x, rpm: "12", tpm: os.environ/TPM}}', TPM="900")
    assert (config.pool[0].requests_per_minute, config.pool[0].tokens_per_minute) == (12, 900)


def test_a_deployment_keeps_what_litellm_balances_by(load) -> None:
    balanced = "rpm: 12, tpm: 900, weight: 2.5, order: 1, region_name: eu"
    config = load(f"{{model_name: m, litellm_params: {{model: gpt-x, tags: [fast], {balanced}}}}}")
    [way] = config.pool[0].deployments
    assert config.models[0].tags == {"eu", "fast"}
    assert (way.rpm, way.tpm, way.weight, way.order, way.region_name) == (12, 900, 2.5, 1, "eu")


def test_variables_are_filled_in_at_any_depth(load) -> None:
    config = load(
        "{model_name: m, litellm_params: {model: gpt-x, api_key: os.environ/K, extra_headers: {h: [os.environ/H]}}}",
        K="key",
        H="header",
    )
    parameters = config.pool[0].deployments[0].parameters
    assert parameters["api_key"] == "key"
    assert parameters["extra_headers"] == {"h": ["header"]}


def test_the_files_own_environment_variables_count_as_in_litellm(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(
        "environment_variables: {A: 'inline', B: os.environ/OTHER, C: os.environ/C}\n"
        "model_list:\n- {model_name: m, litellm_params: {model: openai/x, api_key: os.environ/A,"
        " organization: os.environ/B, api_version: os.environ/C}, model_info: {free: true}}\n"
    )
    parameters = load_config(file, environment={"OTHER": "other", "C": "same"}).pool[0].deployments[0].parameters
    assert (parameters["api_key"], parameters["organization"], parameters["api_version"]) == ("inline", "other", "same")


def test_a_model_without_outcomes_may_be_assumed_like_another(load) -> None:
    config = load(OPENAI, "{model_name: n, litellm_params: {model: gpt-x}, model_info: {assume_like: m}}")
    assert config.pool[1].assume_like == "m"


def test_a_misspelt_extra_is_a_warning_because_litellm_keeps_model_info_free(load) -> None:
    config = load("{model_name: m, litellm_params: {model: gpt-x}, model_info: {max_concurency: 3, team: a}}")
    assert config.warnings == (
        "model_list[0] 'm'.model_info.max_concurency: is not used; did you mean 'max_concurrency'?",
    )


def test_a_name_without_a_provider_is_a_warning(load) -> None:
    config = load("{model_name: m, litellm_params: {model: my-model}, model_info: {free: true}}")
    assert "'my-model' names no provider (as in 'openai/my-model')" in config.warnings[0]
