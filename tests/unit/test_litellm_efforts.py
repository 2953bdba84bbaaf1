"""Efforts and plans inside LiteLLM: what a call is sent with, and what is refused when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from litellm.types.utils import CallTypes

from eccos_core import InputError, Model, Router
from eccos_core.backends import EffortBackend
from eccos_core.domain import EscalationRule
from eccos_core.plans import PlanRule, RuleOfThumbVerifier
from eccos_core.routing.escalation import EscalationPlanner
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_integrations.litellm import EccosClassifier, EccosProxyHook, EccosRoutingPlugin
from eccos_integrations.litellm.bridge import Bridge
from eccos_integrations.litellm.call_effort import api_of, with_effort
from eccos_integrations.litellm.refusals import EscalationUnsupportedError, as_litellm_error
from eccos_integrations.litellm.requests import Asked

HIGH = {"reasoning_effort": "high", "max_tokens": 800}
ASKED = ({"role": "user", "content": "What?"},)


@pytest.mark.parametrize(
    ("call_type", "api"),
    [
        (CallTypes.acompletion, "chat"),
        (CallTypes.anthropic_messages, "messages"),
        ("aresponses", "responses"),
        (CallTypes.aembedding, None),
        (None, None),
    ],
)
def test_the_api_of_a_call(call_type: object, api: str | None) -> None:
    assert api_of(call_type) == api


@pytest.mark.parametrize(
    ("api", "own", "sent"),
    [
        ("chat", {}, HIGH),
        ("chat", {"max_tokens": 50}, {"reasoning_effort": "high", "max_tokens": 50}),
        ("chat", {"max_completion_tokens": 900}, {"reasoning_effort": "high", "max_completion_tokens": 800}),
        ("chat", {"reasoning_effort": "low"}, {"reasoning_effort": "low", "max_tokens": 800}),
        ("messages", {"max_tokens": 2000}, {"reasoning_effort": "high", "max_tokens": 800}),
        ("messages", {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}, "max_tokens": 800}),
        ("messages", {"output_config": {"effort": "low"}}, {"output_config": {"effort": "low"}, "max_tokens": 800}),
        ("responses", {}, {"reasoning": {"effort": "high"}, "max_output_tokens": 800}),
        ("responses", {"max_output_tokens": 9}, {"reasoning": {"effort": "high"}, "max_output_tokens": 9}),
        ("responses", {"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}, "max_output_tokens": 800}),
    ],
)  # fmt: skip
def test_an_effort_speaks_the_words_of_the_api_and_the_caller_wins(
    api: Any, own: dict[str, Any], sent: Mapping[str, Any]
) -> None:
    call = {"model": "large", **own}
    assert with_effort(call, HIGH, api) == {"model": "large", **sent}
    assert call == {"model": "large", **own}
    once = with_effort(call, HIGH, api)
    assert with_effort(once, HIGH, api) == once  # LiteLLM asks twice where it translates one API into another


def pool(*, planned: bool = False) -> Router:
    low = Model("large@low", 3e-6, 1.5e-5, effort_of="large")
    models = (Model("small", 1e-7, 4e-7), low)
    scripted = ScriptedBackend({"small": ["s"], "large@low": ["l"]}, models)
    backend = EffortBackend(
        scripted, {model.name: model for model in models}, {"large@low": {"reasoning_effort": "low"}}
    )
    router = scripted_router(backend, models, {"": [0.6, 0.9]})
    if planned:
        plan(router)
    return router


def plan(router: Router) -> None:
    names = [model.name for model in router.models]
    rule = PlanRule(RuleOfThumbVerifier.of(names, ("mean_logprob", "least_logprob")), trust=0.8)
    router.swap(replace(router.parts, planner=EscalationPlanner(EscalationRule(), rule)))


def test_a_tier_cannot_carry_an_effort_and_says_so_at_the_start() -> None:
    with pytest.raises(InputError, match=r"tiers\['HARD'\] names 'large', which has efforts \(large@low\)"):
        EccosClassifier(pool(), {"EASY": "small", "HARD": "large"})


@pytest.mark.parametrize(
    "make", [EccosRoutingPlugin, EccosProxyHook, lambda router: EccosClassifier(router, {"A": "small"})]
)
def test_plans_are_refused_at_the_start_and_the_way_out_is_named(make: Any) -> None:
    with pytest.raises(EscalationUnsupportedError, match=r"policy\.escalate is set.*Leave escalate out.*ECCOS_CONFIG"):
        make(pool(planned=True))


async def test_plans_that_a_reload_brings_are_an_error_of_the_server() -> None:
    router = pool()
    bridge = Bridge(router)
    assert bridge.begin(Asked(ASKED), ["small"]).decision.model == "small"
    plan(router)
    with pytest.raises(EscalationUnsupportedError):
        bridge.begin(Asked(ASKED), ["small"])
    with pytest.raises(EscalationUnsupportedError) as refused:
        await bridge.abegin(Asked(ASKED), ["small"])
    error: Any = as_litellm_error(refused.value, "eccos")
    assert error.status_code == 500
