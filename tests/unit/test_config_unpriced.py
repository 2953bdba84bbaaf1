"""Models without a price: left out, free or an error, and what the warning advises."""

from pathlib import Path

import pytest

from eccos_core.config import Config, load_config
from eccos_core.errors import ConfigError

PRICED = "{model_name: priced, litellm_params: {model: gpt-4o}}"


@pytest.fixture
def load(tmp_path: Path):
    def load_entries(*entries: str, eccos: str = "") -> Config:
        file = tmp_path / "eccos.yaml"
        listed = "".join(f"- {entry}\n" for entry in entries)
        file.write_text(f"model_list:\n{listed}eccos: {{{eccos}}}\n")
        return load_config(file, environment={})

    return load_entries


@pytest.mark.parametrize(
    "params", ["model: anthropic/gpt-x", "model: azure/my-gpt-x", "model: openai/gpt-x-mini", "model: gpt"]
)
def test_no_price_is_guessed_from_a_part_of_a_name_or_another_provider(load, params: str) -> None:
    config = load(PRICED, f"{{model_name: n, litellm_params: {{{params}}}}}")
    assert [each.name for each in config.models] == ["priced"]
    assert "left out of the pool: no price is known" in config.warnings[-1]


def test_a_model_without_a_price_is_left_out_free_or_an_error_as_the_file_says(load) -> None:
    unpriced = "{model_name: n, litellm_params: {model: openai/mine}}"
    assert [each.name for each in load(PRICED, unpriced).models] == ["priced"]
    free = load(PRICED, unpriced, eccos="unpriced: free")
    assert (free.models[1].usd_per_input_token, free.models[1].usd_per_output_token) == (0.0, 0.0)
    with pytest.raises(ConfigError, match=r"model_list\[1\] 'n': no price is known"):
        load(PRICED, unpriced, eccos="unpriced: error")


def test_naming_a_model_that_is_left_out_says_why_it_is(load) -> None:
    unpriced = "{model_name: n, litellm_params: {model: openai/mine}}"
    with pytest.raises(
        ConfigError, match=r"eccos\.tenants\.t\.allow: names 'n', which is left out of the pool: no price is"
    ):
        load(PRICED, unpriced, eccos="tenants: {t: {allow: [n, priced]}}")


def test_models_count_as_free_where_none_has_a_price(load) -> None:
    config = load("{model_name: n, litellm_params: {model: openai/mine}}")
    assert config.models[0].usd_per_output_token == 0.0
    assert "no model has a price" in config.not_applied[0]
    assert "counts as free: no price is known for 'openai/mine'" in config.warnings[0]


def test_the_variables_of_a_model_that_is_left_out_are_not_missed(load) -> None:
    unpriced = "{model_name: n, litellm_params: {model: openai/mine, api_key: os.environ/NOT_SET}}"
    assert [each.name for each in load(PRICED, unpriced).models] == ["priced"]


@pytest.mark.parametrize(
    "params",
    [
        "model: openai/x, api_base: 'http://localhost:8000/v1'",
        "model: openai/x, api_base: 'http://127.0.0.1:8000'",
        "model: openai/x, api_base: 'http://192.168.1.7:8000'",
        "model: openai/x, api_base: 'http://[::1]:8000'",
        "model: openai/x, api_base: 'http://vllm:8000/v1'",
        "model: openai/x, api_base: 'http://host.docker.internal:11434'",
        "model: openai/x, api_base: 'vllm.models.svc.cluster.local:80'",
        "model: hosted_vllm/x",
        "model: ollama/llama99",
    ],
)
def test_a_model_on_your_own_machines_is_priced_by_the_gpu_hour_or_free(load, params: str) -> None:
    warning = load(PRICED, f"{{model_name: n, litellm_params: {{{params}}}}}").warnings[0]
    assert "runs on your own machines: add model_info.usd_per_gpu_hour with tokens_per_hour" in warning
    assert "model_info.free: true" in warning


@pytest.mark.parametrize("address", ["https://api.example.com/v1", "http://8.8.8.8/v1", "http://[not-an-address"])
def test_a_model_on_the_internet_is_not_taken_for_your_own(load, address: str) -> None:
    [warning] = load(PRICED, f"{{model_name: n, litellm_params: {{model: openai/x, api_base: '{address}'}}}}").warnings
    assert "your own machines" not in warning
