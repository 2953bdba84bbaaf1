"""A LiteLLM file with everything in it, against a real server: what is called, with which key, and what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eccos_core import Router
from eccos_core.domain import Request
from eccos_core.testing import ModelServer

KEY = "sk-served-0123456789abcdef"
FILE = """
model_list:
- model_name: small
  litellm_params:
    {{model: openai/served, litellm_credential_name: own, temperature: 0.5, top_k: 5, rpm: 100, order: 1, weight: 2,
     region_name: eu, tags: [fast], access_groups: [a], allowed_fails: 2, cooldown_time: 3, num_retries: 4,
     max_retries: 4, fallbacks: [large], guardrails: [pii], max_budget: 1, budget_duration: 1d, tag_regex: [x],
     use_in_pass_through: true, cache: {{ttl: 5}}, vector_store_ids: [v], supports_vision: true, model_info: {{id: x}},
     input_cost_per_token: 1.0e-6, output_cost_per_token: 2.0e-6}}
  model_info: {{assumed_quality: 0.9}}
- {{model_name: unpriced, litellm_params: {{model: openai/mine, api_key: os.environ/NOT_SET}}}}
credential_list:
- {{credential_name: own, credential_values: {{api_base: '{url}', api_key: {key}}}}}
router_settings: {{num_retries: 0, model_group_alias: {{gpt-4: small}}, default_litellm_params: {{seed: 7}}}}
litellm_settings: {{request_timeout: 20, drop_params: true}}
eccos: {{history: in_memory, predictor: prior, encoder: static, decision_log: off}}
"""

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


def test_a_litellm_file_works_and_sends_only_parameters_of_the_call(server: ModelServer, tmp_path: Path) -> None:
    file = tmp_path / "litellm_config.yaml"
    file.write_text(FILE.format(url=server.url, key=KEY))
    with Router.from_yaml(file) as router:
        answer = router.complete(Request.of("hi", allow=frozenset({"gpt-4"}), required_tags=frozenset({"eu"})))
    assert answer.model == "small"
    assert answer.cost_usd == pytest.approx(1e-6 * answer.input_tokens + 2e-6 * answer.output_tokens)
    sent = server.last_request()
    assert {key for key in sent if sent[key] is not None} == {"model", "messages", "temperature", "top_k", "seed"}
