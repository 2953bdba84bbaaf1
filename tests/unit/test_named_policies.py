"""Policies that a request chooses by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eccos_core.config import load_config
from eccos_core.domain import Model, QualityPrice, Request
from eccos_core.errors import ConfigError, RequestError
from eccos_core.router import Router
from eccos_core.routing.named_policies import NamedPolicy
from eccos_core.streaming import FixedPrice
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = (Model("small", 1e-6, 1e-6), Model("middle", 4e-6, 4e-6), Model("large", 2e-5, 2e-5))


def router() -> Router:
    backend = ScriptedBackend({model.name: ["an answer"] for model in POOL}, POOL)
    made = scripted_router(backend, POOL, {"": [0.5, 0.7, 0.9]}, usd_per_quality=5e-4)
    price = QualityPrice(1.0)
    own = {**made.parts.policies, "careful": NamedPolicy(price, FixedPrice(price.usd_per_quality))}
    return Router.from_parts(replace(made.parts, policies=own))


def test_a_request_chooses_its_policy_by_name() -> None:
    made = router()
    chosen = {name: made.decide(Request.of("one", policy=name)).model for name in (None, "cheap", "best", "careful")}
    assert chosen == {None: "middle", "cheap": "small", "best": "large", "careful": "large"}


def test_a_batch_keeps_to_the_policies_of_its_requests() -> None:
    asked = [Request.of("one", policy=name) for name in ("cheap", "best", "cheap")]
    assert [each.model for each in router().route(asked)] == ["small", "large", "small"]


def test_an_unknown_policy_is_named_with_those_that_exist() -> None:
    with pytest.raises(RequestError, match=r"unknown policy 'carefull'.*careful.*There are: cheap, best, careful"):
        router().decide(Request.of("one", policy="carefull"))


CONFIG = """
model_list:
  - model_name: small
    litellm_params: {model: openai/small}
    model_info: {input_cost_per_token: 1e-6, output_cost_per_token: 1e-6, assumed_quality: 0.5}
  - model_name: large
    litellm_params: {model: openai/large}
    model_info: {input_cost_per_token: 1e-5, output_cost_per_token: 1e-5, assumed_quality: 0.9}
eccos:
  encoder: static
  decision_log: off
  policies: {careful: {usd_per_quality_point: 0.85}}
  tenants:
    own: {policy: {quality_floor: 0.1}}
    free: {}
"""


def test_a_file_names_policies(tmp_path: Path) -> None:
    path = tmp_path / "eccos.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    with Router.from_yaml(path) as made:
        assert made.parts.policies["careful"].policy == QualityPrice(0.85)
        assert set(made.parts.policies) == {"cheap", "best", "careful"}
        assert made.decide(Request.of("one", policy="careful", tenant="free")).model == "large"
        assert made.decide(Request.of("one", policy="cheap", tenant="free")).model == "small"
        with pytest.raises(RequestError, match="a policy of its own"):
            made.decide(Request.of("one", policy="best", tenant="own"))


def test_a_faulty_policy_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "eccos.yaml"
    path.write_text(CONFIG.replace("usd_per_quality_point: 0.85", "quality_floor: 1.85"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"eccos\.policies\.careful"):
        load_config(path)
