"""Nothing goes to a provider that is no parameter of a call, by the models and signatures of the installed LiteLLM."""

import inspect
from pathlib import Path

from eccos_core.backends.litellm.call_parameters import STEERING, is_call_parameter
from eccos_core.config import load_config


def test_what_steers_the_router_stays_here_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("""
model_list:
- model_name: a
  litellm_params: {model: openai/gpt-4o, fallbacks: [b], guardrails: [pii], max_budget: 1, access_groups: [x],
    allowed_fails: 2, num_retries: 3, rpm: 4, tags: [eu], supports_vision: true, top_k: 5, seed: 1}
""")
    config = load_config(file)
    assert dict(config.pool[0].deployments[0].parameters) == {"model": "openai/gpt-4o", "top_k": 5, "seed": 1}
    assert [rule.partition(": ")[0].rpartition(".")[2] for rule in config.not_applied] == [
        "fallbacks",
        "guardrails",
        "max_budget",
    ]
    assert config.warnings == (
        "model_list[0] 'a'.litellm_params: not used, and not sent to the provider: access_groups, allowed_fails, "
        "num_retries, supports_vision",
    )


def _provider_credential(name: str) -> bool:
    return name.startswith(("aws_", "vertex_", "azure_", "watsonx_", "milvus_", "valkey_"))


def test_nothing_that_litellm_configures_reaches_a_provider_as_a_parameter() -> None:
    import litellm
    from litellm.types.router import LiteLLM_Params, LiteLLMParamsTypedDict, ModelInfo, UpdateRouterConfig
    from litellm.types.utils import all_litellm_params

    configured = {
        *inspect.signature(litellm.Router.__init__).parameters,
        *LiteLLM_Params.model_fields,
        *LiteLLMParamsTypedDict.__annotations__,
        *ModelInfo.model_fields,
        *UpdateRouterConfig.model_fields,
    } - {"self"}
    of_a_call = {*inspect.signature(litellm.completion).parameters, *litellm.OPENAI_CHAT_COMPLETION_PARAMS}
    sent = {name for name in configured - of_a_call - set(all_litellm_params) if is_call_parameter(name)}
    # OpenRouter's plugins, and stores of vectors and files that only their own endpoints read
    elsewhere = {"plugins", "embedding_model", "index_name", "vector_bucket_name", "bucket_name", "drop_params"}
    assert {name for name in sent if not _provider_credential(name)} <= elsewhere | {"allow_legacy_cloud_file_ids"}


def test_no_parameter_of_a_call_is_kept_back() -> None:
    import litellm

    of_a_call = {*inspect.signature(litellm.completion).parameters, *litellm.OPENAI_CHAT_COMPLETION_PARAMS}
    assert of_a_call & STEERING == {"model_list", "max_retries"}
    assert {name for name in of_a_call if not is_call_parameter(name)} == {"model_list", "max_retries"}
