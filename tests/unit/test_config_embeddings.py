"""Embedding models of `model_list`: they are beside the pool, with their own prices and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from eccos_core.config import Config, load_config
from eccos_core.errors import ConfigError

CHAT = "{model_name: chat, litellm_params: {model: openai/gpt-4o-mini}}"


def load(folder: Path, *entries: str, eccos: str = "{}", **environment: str) -> Config:
    file = folder / "eccos.yaml"
    listed = "\n".join(f"  - {entry}" for entry in entries)
    file.write_text(f"model_list:\n{listed}\neccos: {eccos}\n")
    return load_config(file, environment=environment)


def test_an_embedding_model_is_kept_with_its_key_and_price(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        CHAT,
        "{model_name: e, litellm_params: {model: openai/text-embedding-3-small, api_key: os.environ/SOME_KEY}}",
        "{model_name: own, litellm_params: {model: openai/bge-m3, api_base: 'http://tei', input_cost_per_token: 1e-9}}",
        SOME_KEY="sk-secret-0123456789",
    )
    assert [model.name for model in config.models] == ["chat"]
    assert [(each.name, each.usd_per_input_token) for each in config.embeddings] == [("e", 2e-8), ("own", 1e-9)]
    [way] = config.embeddings[0].deployments
    assert (way.litellm_model, way.parameters["api_key"]) == ("openai/text-embedding-3-small", "sk-secret-0123456789")
    assert "sk-secret" not in repr(config)
    assert "at /v1/embeddings" in config.warnings[0]


def test_entries_of_one_name_are_deployments_at_the_highest_price(tmp_path: Path) -> None:
    entry = "{{model_name: e, litellm_params: {{model: {}, input_cost_per_token: {}}}}}"
    both = entry.format("openai/text-embedding-3-small", "1e-8"), entry.format("azure/mine-embed", "3e-8")
    [found] = load(tmp_path, CHAT, *both).embeddings
    assert ([way.litellm_model for way in found.deployments], found.usd_per_input_token) == (
        ["openai/text-embedding-3-small", "azure/mine-embed"],
        3e-8,
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{model_name: e, litellm_params: {model: openai/text-embedding-3-small, api_key: os.environ/GONE}}", "GONE"),
        ("{model_name: e, litellm_params: {model: openai/bge-m3, api_base: 'http://8.8.8.8'}}", "no price is known"),
        ("{model_name: chat, litellm_params: {model: openai/text-embedding-3-small}}", "a model of the pool has this"),
        ("{model_name: e, litellm_params: {model: openai/my-reranker}}", "it is for rerank"),
        ("{model_name: 'embed/*', litellm_params: {model: 'openai/*'}, model_info: {mode: embedding}}", "wildcard"),
    ],
)
def test_what_cannot_embed_is_left_out_and_the_warning_says_why(tmp_path: Path, entry: str, words: str) -> None:
    config = load(tmp_path, CHAT, entry)
    assert config.embeddings == ()
    assert [model.name for model in config.models] == ["chat"]
    assert words in "\n".join(config.warnings)


def test_an_embedding_model_without_a_price_follows_the_rule_for_the_pool(tmp_path: Path) -> None:
    own = "{model_name: own, litellm_params: {model: openai/bge-m3, api_base: 'http://tei:80'}}"
    free = load(tmp_path, CHAT, own, eccos="{unpriced: free}")
    assert [each.usd_per_input_token for each in free.embeddings] == [0.0]
    with pytest.raises(ConfigError, match="usd_per_gpu_hour"):
        load(tmp_path, CHAT, own, eccos="{unpriced: error}")
    local = "{model_name: m, litellm_params: {model: ollama/mine, api_base: 'http://localhost:11434'}}"
    assert [each.name for each in load(tmp_path, local, own).embeddings] == ["own"], "where nothing has a price"
