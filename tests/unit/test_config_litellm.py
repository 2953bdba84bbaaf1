"""A LiteLLM proxy configuration that somebody already has loads unchanged, and LiteLLM keeps its sections."""

import subprocess
import sys
from pathlib import Path

import pytest

from eccos_core import Router
from eccos_core.config import load_config
from eccos_core.domain import Capability
from eccos_core.errors import ConfigError

# written after the shapes that docs.litellm.ai/docs/proxy/configs shows
PROXY_CONFIG = """
model_list:
  - model_name: gpt-4o ### RECEIVED MODEL NAME ###
    litellm_params:
      model: azure/gpt-4o-eu ### MODEL NAME sent to `litellm.completion()` ###
      api_base: https://my-endpoint-europe.openai.azure.com/
      api_key: "os.environ/AZURE_API_KEY_EU"
      api_version: "2024-10-21"
      rpm: 6
    model_info:
      base_model: azure/gpt-4o
      id: "1"
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-ca
      api_base: https://my-endpoint-canada.openai.azure.com/
      api_key: os.environ/AZURE_API_KEY_CA
      timeout: 300
      stream_timeout: 60
      rpm: 6
    model_info:
      base_model: azure/gpt-4o
  - model_name: bedrock-claude
    litellm_params:
      model: bedrock/anthropic.claude-instant-v1
      aws_region_name: us-east-1
      aws_access_key_id: os.environ/CUSTOM_AWS_ACCESS_KEY_ID
  - model_name: openai-gpt-4o
    litellm_params:
      model: openai/gpt-4o
      extra_headers: {"AI-Resource Group": "my-resource"}
      api_key: sk-written-in-the-file
      organization: org-42
      temperature: 0.2
  - model_name: vllm-models
    litellm_params:
      model: openai/facebook/opt-125m
      api_base: http://0.0.0.0:4000/v1
      api_key: none
      rpm: 1440
      input_cost_per_token: 1e-8
      output_cost_per_token: 2e-8
    model_info:
      version: 2
      access_groups: ["beta-models"]
  - model_name: text-embedding-ada-002
    litellm_params:
      model: azure/azure-embedding-model
      api_key: os.environ/NO_SUCH_KEY_FOR_EMBEDDINGS
    model_info: {mode: embedding, base_model: text-embedding-ada-002}
  - model_name: openai-dall-e-3
    litellm_params: {model: dall-e-3}
  - model_name: whisper
    litellm_params: {model: whisper-1, api_key: os.environ/NO_SUCH_KEY_FOR_AUDIO}
    model_info: {mode: audio_transcription}
  - model_name: "anthropic/*"
    litellm_params: {model: "anthropic/*", api_key: os.environ/NO_SUCH_KEY_FOR_THE_WILDCARD}
  - model_name: "*"
    litellm_params: {model: "*"}
  - model_name: gpt-instruct
    litellm_params: {model: text-completion-openai/gpt-3.5-turbo-instruct}

litellm_settings:
  drop_params: True
  num_retries: 5
  request_timeout: 600
  success_callback: ["langfuse"]
  context_window_fallbacks: [{"gpt-4o": ["openai-gpt-4o"]}]
  cache: True
  cache_params: {type: redis, password: os.environ/REDIS_PASSWORD}

router_settings:
  routing_strategy: usage-based-routing-v2
  redis_host: os.environ/REDIS_HOST
  redis_password: os.environ/REDIS_PASSWORD
  enable_pre_call_checks: true
  model_group_alias: {"gpt-4": "gpt-4o"}

general_settings:
  master_key: sk-1234
  alerting: ["slack"]
  database_url: "postgresql://user:password@host:5432/db"
  pass_through_endpoints:
    - {path: "/v1/rerank", target: "https://api.cohere.com/v1/rerank", headers: {content-type: application/json}}

environment_variables:
  LANGFUSE_SECRET_KEY: sk-lf-123
guardrails:
  - guardrail_name: pii
    litellm_params: {guardrail: presidio, mode: pre_call}
credential_list:
  - credential_name: default
    credential_values: {api_key: os.environ/AZURE_API_KEY}
"""
KEYS = {"AZURE_API_KEY_EU": "eu-key", "AZURE_API_KEY_CA": "ca-key", "CUSTOM_AWS_ACCESS_KEY_ID": "aws-key"}


def test_an_existing_proxy_configuration_loads_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(PROXY_CONFIG)
    config = load_config(file, environment=KEYS)

    assert [model.name for model in config.models] == [
        "gpt-4o",
        "bedrock-claude",
        "openai-gpt-4o",
        "vllm-models",
        "gpt-instruct",
    ]
    azure = config.pool[0]
    assert [way.litellm_model for way in azure.deployments] == ["azure/gpt-4o-eu", "azure/gpt-4o-ca"]
    assert azure.deployments[0].parameters["api_key"] == "eu-key"
    assert azure.requests_per_minute == 12
    assert azure.model.usd_per_input_token > 0
    assert {Capability.TOOLS, Capability.VISION, Capability.JSON_SCHEMA} <= azure.model.capabilities
    assert config.models[3].usd_per_output_token == 2e-8
    assert [warning.partition(":")[0] for warning in config.warnings if "left out of the pool" in warning] == [
        "model_list[6] 'openai-dall-e-3'",
        "model_list[7] 'whisper'",
        "model_list[8] 'anthropic/*'",
        "model_list[9] '*'",
        "model_list[5] 'text-embedding-ada-002'",
    ]


def test_what_an_existing_configuration_loses_is_said(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(PROXY_CONFIG)
    config = load_config(file, environment=KEYS)

    assert [rule.partition(":")[0] for rule in config.not_applied] == [
        "litellm_settings.context_window_fallbacks",
        "guardrails",
    ]
    named = "\n".join(config.warnings)
    for key in ("success_callback", "cache_params", "redis_password", "master_key", "LANGFUSE_SECRET_KEY"):
        assert key in named
    assert "sk-1234" not in named
    assert config.retries.attempts == 6
    assert config.aliases == {"gpt-4": "gpt-4o"}
    assert config.pool[0].deployments[0].parameters["drop_params"] is True
    assert [way.parameters["timeout"] for way in config.pool[0].deployments] == [600.0, 300.0]


def test_what_is_lost_is_logged_when_a_router_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model_list: [{model_name: a, litellm_params: {model: gpt-4o}, model_info: {assumed_quality: 0.5}}]\n"
        "guardrails: [{guardrail_name: pii}]\ngeneral_settings: {master_key: sk-1234}\n"
        "eccos: {history: in_memory, predictor: prior, encoder: static, decision_log: off}\n"
    )
    Router.from_yaml(file).close()
    logged = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "eccos.config"]
    assert [level for level, _ in logged] == ["ERROR", "WARNING"]
    assert f"{file}: NOT APPLIED: guardrails: No guardrail runs" in logged[0][1]
    assert "master_key" in logged[1][1]
    assert "sk-1234" not in caplog.text


def test_a_key_that_the_pool_needs_is_missed_and_one_that_it_does_not_need_is_not(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(PROXY_CONFIG)
    with pytest.raises(ConfigError) as raised:
        load_config(file, environment={})
    missed = [problem.message.split()[3] for problem in raised.value.problems]
    assert missed == ["AZURE_API_KEY_EU", "AZURE_API_KEY_CA", "CUSTOM_AWS_ACCESS_KEY_ID"]


def test_models_of_included_files_join_the_pool(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "more.yaml").write_text("model_list: [{model_name: b, litellm_params: {model: gpt-4o}}]")
    file = tmp_path / "config.yaml"
    file.write_text("include: [models/more.yaml]\nmodel_list: [{model_name: a, litellm_params: {model: gpt-4o}}]")
    assert [model.name for model in load_config(file).models] == ["a", "b"]


def test_reading_a_configuration_imports_nothing_heavy(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model_list: [{model_name: a, litellm_params: {model: gpt-4o}}]")
    program = (
        "import sys; from eccos_core.config import load_config; load_config(sys.argv[1]);"
        "heavy = {'litellm', 'torch', 'transformers', 'chromadb', 'ortools', 'watchfiles'} & set(sys.modules);"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
