"""Entries of `model_list` in every form that LiteLLM's documentation of the proxy shows, on its real price map."""

import json
from pathlib import Path

import pytest

from eccos_core.config import Config, load_config
from eccos_core.config.left_out import find_other_use
from eccos_core.config.litellm_prices import PriceMap, litellm_price_file
from eccos_core.errors import ConfigError

PRICES = PriceMap()
PRICED = "- {model_name: priced, litellm_params: {model: openai/gpt-4o-mini}}\n"
VARIABLES = {"KEY": "key", "BASE": "https://example.com", "MODEL": "azure/my-deployment", "TEAM": "a"}


@pytest.fixture
def load(tmp_path: Path):
    def load_entries(entries: str, sections: str = "") -> Config:
        file = tmp_path / "config.yaml"
        file.write_text(f"model_list:\n{PRICED}{entries}\n{sections}")
        return load_config(file, environment=VARIABLES, prices=PRICES)

    return load_entries


def entry(params: str, info: str = "") -> str:
    return f"- {{model_name: m, litellm_params: {{{params}}}, model_info: {{{info}}}}}"


# (what it shows, litellm_params, model_info, the provider that eccos names)
ROUTABLE = [
    ("a bare OpenAI name", "model: gpt-4o", "", "openai"),
    ("a name with its provider", "model: anthropic/claude-sonnet-4-5", "", "anthropic"),
    ("a key in a variable", "model: gpt-4o, api_key: os.environ/KEY", "", "openai"),
    ("a provider apart", "model: gpt-4o, custom_llm_provider: openai", "", "openai"),
    ("Azure by its base model", "model: azure/mine, api_version: '2024-10-21'", "base_model: azure/gpt-4o", "azure"),
    ("Azure by litellm_params.base_model", "model: azure/mine, base_model: azure/gpt-4o", "", "azure"),
    ("Azure with a model in a variable", "model: os.environ/MODEL", "base_model: azure/gpt-4o", "azure"),
    ("Azure with Entra ID", "model: azure/gpt-4o, tenant_id: t, client_id: c, client_secret: s", "", "azure"),
    ("Azure through the responses API", "model: azure/responses/gpt-4o", "", "azure"),
    ("OpenAI through the responses API", "model: openai/responses/gpt-4o", "", "openai"),
    ("Bedrock", "model: bedrock/anthropic.claude-haiku-4-5-20251001-v1:0", "", "bedrock"),
    ("Bedrock by region prefix", "model: bedrock/us.amazon.nova-lite-v1:0, aws_region_name: us-east-1", "", "bedrock"),
    ("Bedrock by an unlisted region prefix", "model: bedrock/au.amazon.nova-lite-v1:0", "", "bedrock"),
    ("Bedrock converse", "model: bedrock/converse/us.amazon.nova-lite-v1:0", "", "bedrock"),
    ("Bedrock in a region", "model: bedrock/eu-central-1/amazon.nova-lite-v1:0", "", "bedrock"),
    (
        "Bedrock by ARN",
        "model: 'bedrock/arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0'",
        "",
        "bedrock",
    ),
    ("Vertex AI", "model: vertex_ai/gemini-2.5-pro, vertex_project: p, vertex_location: global", "", "vertex_ai"),
    ("Gemini", "model: gemini/gemini-2.5-flash, api_key: os.environ/KEY", "", "gemini"),
    ("GitHub Models", "model: github/gpt-4o, api_key: os.environ/KEY", "", "github"),
    ("Groq", "model: groq/openai/gpt-oss-20b", "", "groq"),
    ("text completion", "model: text-completion-openai/gpt-3.5-turbo-instruct", "", "text-completion-openai"),
    (
        "a price of one's own",
        "model: openai/mine, input_cost_per_token: 1e-6, output_cost_per_token: 2e-6",
        "",
        "openai",
    ),
    (
        "a price in model_info",
        "model: openai/mine",
        "input_cost_per_token: 1e-6, output_cost_per_token: 2e-6",
        "openai",
    ),
    ("a price as text", "model: openai/mine, input_cost_per_token: '1e-6', output_cost_per_token: '0'", "", "openai"),
    ("a price per second", "model: sagemaker/mine, input_cost_per_second: 4e-4", "tokens_per_hour: 9e5", "sagemaker"),
    ("one's own server", "model: hosted_vllm/llama, api_base: 'http://vllm:8000/v1'", "free: true", "hosted_vllm"),
    ("thinking", "model: anthropic/claude-sonnet-4-5, thinking: {type: enabled, budget_tokens: 1024}", "", "anthropic"),
    ("a budget for reasoning", "model: openai/gpt-5-mini, reasoning_effort: low", "", "openai"),
    ("headers", "model: openai/gpt-4o, extra_headers: {X-Team: os.environ/TEAM}, organization: org-1", "", "openai"),
    ("a body of one's own", "model: openai/gpt-4o, extra_body: {provider: {order: [a]}}, top_k: 5", "", "openai"),
    ("limits", "model: gpt-4o, rpm: '60', tpm: 9000, max_parallel_requests: 4, weight: 2, order: 1", "", "openai"),
    ("timeouts as text", "model: gpt-4o, timeout: '30', stream_timeout: 5", "", "openai"),
    ("a mock", "model: openai/gpt-4o, mock_response: hello", "", "openai"),
    ("free words in model_info", "model: gpt-4o", "id: a, description: fast, version: 2, access_groups: [b]", "openai"),
    ("abilities as text", "model: gpt-4o", "supports_vision: 'true', mode: chat", "openai"),
]


@pytest.mark.parametrize(("params", "info", "provider"), [case[1:] for case in ROUTABLE], ids=[c[0] for c in ROUTABLE])
def test_a_chat_model_joins_the_pool(load, params: str, info: str, provider: str) -> None:
    config = load(entry(params, info))
    assert [model.name for model in config.models] == ["priced", "m"]
    assert config.models[1].provider == provider
    assert config.warnings == ()


# (what it shows, litellm_params, model_info, words of the warning)
LEFT_OUT = [
    ("a wildcard", "model: 'openai/*'", "", "a wildcard names no model"),
    ("an auto router", "model: auto_router/r, auto_router_config_path: r.json", "", "it is a router of LiteLLM"),
    ("the complexity router", "model: auto_router/complexity_router", "", "it is a router of LiteLLM"),
    ("an embedding", "model: openai/text-embedding-3-small", "", "its mode is 'embedding'"),
    ("an embedding by its mode", "model: azure/mine", "mode: embedding", "its mode is 'embedding'"),
    ("a mode in litellm_params", "model: azure/mine, mode: rerank", "", "its mode is 'rerank'"),
    ("an embedding server", "model: openai/bge-m3, api_base: 'http://tei:80'", "", "it is for embedding"),
    ("an embedding by its size", "model: openai/nomic-embed-text-v1.5@q4_k_m", "", "it is for embedding"),
    ("a reranker", "model: openai/my-reranker, api_base: 'http://tei:80'", "", "it is for rerank"),
    ("speech", "model: openai/faster-whisper-large", "", "it is for audio"),
    ("images", "model: openai/stable-diffusion-xl", "", "it is for images"),
    ("images by a known name", "model: dall-e-3", "", "it is for images"),
    ("a name that is used otherwise", "model: litellm_proxy/gpt-image-1", "", "image_generation"),
    ("a provider of embeddings", "model: voyage/voyage-99", "", "it is for embedding"),
    ("a provider of speech", "model: elevenlabs/eleven_v99", "", "it is for audio"),
    ("no price", "model: openai/mine", "", "no price is known for 'openai/mine'"),
    ("a misspelt name", "model: openai/gpt-4o-mni", "", "did you mean 'gpt-4o-mini'?"),
    (
        "a price per second alone",
        "model: sagemaker/mine, input_cost_per_second: 4e-4",
        "",
        "add model_info.tokens_per_hour",
    ),
    ("half a price", "model: openai/mine, input_cost_per_token: 1e-6", "", "output_cost_per_token is missing"),
    ("a local server", "model: ollama/mine, api_base: 'http://localhost:11434'", "", "runs on your own machines"),
    ("one's own server elsewhere", "model: ollama/mine, api_base: 'http://8.8.8.8'", "", "runs on your own machines"),
    ("a chat model of a provider with listed rerankers", "model: nvidia_nim/meta/llama-99", "", "no price is known"),
]


@pytest.mark.parametrize(("params", "info", "words"), [case[1:] for case in LEFT_OUT], ids=[c[0] for c in LEFT_OUT])
def test_what_cannot_be_routed_to_is_left_out_with_a_warning(load, params: str, info: str, words: str) -> None:
    config = load(entry(params, info))
    assert [model.name for model in config.models] == ["priced"]
    [warning] = config.warnings
    assert warning.startswith("model_list[1] 'm': left out of the pool: ")
    assert words in warning


def test_a_mode_in_the_file_decides_before_a_name(load) -> None:
    assert len(load(entry("model: openai/embedding-explainer", "free: true, mode: chat")).pool) == 2


CALLED_CHAT_BY_MISTAKE = {  # LiteLLM's price map says mode: chat
    "codestral-embed",
    "embed-v4.0",
    "flux-1-dev",
    "flux-1-dev-controlnet-union",
    "flux-1-schnell",
    "gemini-2.5-pro-preview-tts",
    "mistral-embed",
    "titan-embed-text-v2",
}


def test_no_chat_model_of_the_price_map_is_taken_for_something_else() -> None:
    named = json.loads(litellm_price_file().read_text())
    modes = {name: entry.get("mode") for name, entry in named.items() if name != "sample_spec"}
    taken = {name.rpartition("/")[2] for name, mode in modes.items() if mode == "chat" and find_other_use(name)}
    assert taken == CALLED_CHAT_BY_MISTAKE
    others = [name for name, mode in modes.items() if mode in ("embedding", "rerank")]
    assert sum(find_other_use(name) is not None for name in others) > 0.8 * len(others)


def test_a_region_prefix_has_the_price_that_litellm_gives_it() -> None:
    import litellm

    for name in ("us.amazon.nova-lite-v1:0", "converse/eu.amazon.nova-lite-v1:0", "us-west-2/amazon.nova-lite-v1:0"):
        known = PRICES.find(f"bedrock/{name}")
        told = litellm.get_model_info(f"bedrock/{name}")
        assert known is not None
        assert known["input_cost_per_token"] == told["input_cost_per_token"]


def test_a_list_whose_entries_are_all_comments_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model_list:\n# - model_name: a\n")
    with pytest.raises(ConfigError, match=r"model_list: is empty.*are all its entries commented out\?"):
        load_config(file)


def test_models_in_the_database_of_litellm_are_said_not_to_be_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model_list: []\ngeneral_settings: {store_model_in_db: true}\n")
    with pytest.raises(ConfigError, match="models that LiteLLM keeps in its database are not read"):
        load_config(file)


def test_wildcards_alone_leave_nothing_to_route_to(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('model_list: [{model_name: "*", litellm_params: {model: "openai/*"}}]')
    with pytest.raises(ConfigError, match=r"no model that can be routed to \('\*': a wildcard names no model"):
        load_config(file)


def _examples() -> list[Path]:
    folder = litellm_price_file().parent / "proxy"
    return sorted([*folder.glob("*.yaml"), *folder.glob("example_config_yaml/*.yaml")])


NO_CHAT_MODEL = {"_health_check_test_config.yaml", "langfuse_config.yaml", "wildcard_config.yaml"}


@pytest.mark.parametrize("example", _examples(), ids=lambda path: path.name)
def test_every_example_that_litellm_ships_loads_if_it_has_a_chat_model(example: Path) -> None:
    class Anything(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:  # type: ignore[override]
            return "https://example.com"

    if example.name in NO_CHAT_MODEL:
        with pytest.raises(ConfigError):
            load_config(example, environment=Anything(), prices=PRICES)
    else:
        assert load_config(example, environment=Anything(), prices=PRICES).pool
