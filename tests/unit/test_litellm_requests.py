"""How requests of LiteLLM are read: whose rules hold, what a client may say, and what an outside call tells."""

from __future__ import annotations

from typing import Any

import pytest

from eccos_core import Model, Router
from eccos_core.domain import Completion
from eccos_core.errors import BackendError, FailureKind, RequestError
from eccos_core.routing.tenants import Tenants
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_integrations.litellm.bridge import OpenCalls
from eccos_integrations.litellm.pool_names import PoolNames
from eccos_integrations.litellm.requests import Asked, PassThrough, find_tenant, policy_in, read_asked

POOL = (Model("small", 1e-7, 4e-7, max_concurrency=1), Model("large", 3e-6, 1.5e-5))
ASKED = ({"role": "user", "content": "What?"},)


@pytest.fixture
def router() -> Router:
    backend = ScriptedBackend({"small": ["s"], "large": ["l"]}, POOL)
    return scripted_router(backend, POOL, {"": [0.6, 0.9]}, deadline_s=0.05)


@pytest.fixture
def tenants() -> Tenants:
    from eccos_core.config import TenantConfig

    return Tenants({"gold": TenantConfig(allow=frozenset({"large"})), "iron": TenantConfig(allow=frozenset({"small"}))})


@pytest.mark.parametrize(
    ("name", "policy"),
    [("eccos", ""), ("eccos:best", "best"), ("eccos:", None), ("gpt-4o", None), ("eccos-2", None), (None, None)],
)
def test_a_model_name_asks_for_eccos_and_a_policy(name: object, policy: str | None) -> None:
    assert policy_in(name) == policy


@pytest.mark.parametrize(
    ("metadata", "tenant"),
    [
        ({}, None),
        ({"eccos_tenant": "gold"}, "gold"),  # your own process
        ({"eccos_tenant": "gold", "user_api_key": "h"}, None),  # a client of a proxy
        ({"user_api_key_hash": "h", "user_api_key_team_alias": "iron", "user_api_key_alias": "gold"}, "iron"),
        ({"user_api_key_hash": "h", "user_api_key_team_alias": "free", "user_api_key_alias": "gold"}, "gold"),
        (
            {
                "user_api_key": "h",
                "user_api_key_team_metadata": {"eccos_tenant": "iron"},
                "user_api_key_metadata": {"eccos_tenant": "gold"},
            },
            "iron",
        ),
    ],
)
def test_whose_rules_hold(metadata: dict[str, Any], tenant: str | None, tenants: Tenants) -> None:
    assert find_tenant(tenants, metadata) == tenant


def test_wrong_fields_of_eccos_are_refused_and_wrong_messages_pass(tenants: Tenants) -> None:
    with pytest.raises(RequestError, match=r"eccos\.min_qualty is unknown"):
        read_asked(ASKED, {}, {"eccos": {"min_qualty": 1}}, tenants)
    with pytest.raises(RequestError, match="min_quality is 2"):
        Asked(ASKED, own={"min_quality": 2.0}).request(["small"])
    with pytest.raises(RequestError, match="none of which can be chosen here"):
        Asked(ASKED, own={"allow": frozenset({"other"})}).request(["small"])
    for messages in (None, "text", [], 7):
        with pytest.raises(PassThrough):
            read_asked(messages, {}, {}, tenants)
    with pytest.raises(PassThrough, match="no request that eccos can read"):
        Asked(({"content": "no role"},)).request(["small"])


def test_call_parameters_that_decide_are_read_and_no_others(tenants: Tenants) -> None:
    asked = read_asked(ASKED, {"tools": [], "max_tokens": 5, "api_key": "sk", "stream": True}, {}, tenants)
    assert (asked.parameters, asked.is_streamed) == ({"tools": [], "max_tokens": 5}, True)


def test_names_match_by_group_by_mark_or_as_told(router: Router) -> None:
    names = PoolNames(router, {"azure/d1": "large"})
    assert names.of_deployment("small", "openai/x", None) == ("small",)
    assert names.of_deployment("chat", "openai/x", {"eccos_model": "large"}) == ("large",)
    assert names.of_deployment("chat", "azure/d1", {}) == ("large",)
    assert names.of_deployment("chat", "openai/x", {}) == ()
    assert names.reached_by(["small", "azure/d1", "openai/x"]) == {"small": ("small",), "large": ("azure/d1",)}


# ------------------------------------------------------------------------------------------------------ outside calls


def answer(model: str) -> Completion:
    return Completion("text", model, 10, 5, 1e-5, 0.1)


def test_an_outside_call_holds_a_slot_until_it_ends(router: Router) -> None:
    call = router.begin_call("What?")
    assert (call.decision.model, call.next_model, call.has_ended) == ("small", "small", False)
    assert router.status().workload.models[0].in_flight == 1
    given = call.succeed(answer("small"))
    assert given.decision.id == call.decision.id
    call.succeed(answer("small"))  # told twice, counted once
    small = router.status().workload.models[0]
    assert (small.calls, small.failures, small.in_flight) == (1, 0, 0)
    router.record(call.decision.id, 1.0)


async def test_a_failed_call_moves_on_and_counts(router: Router) -> None:
    call = await router.abegin_call("What?")
    call.fail(BackendError("small", "broken", retryable=True, kind=FailureKind.UNAVAILABLE))
    assert (call.failed, call.next_model) == (("small",), "large")
    given = call.succeed(answer("large"))
    assert given.attempts == 2
    assert [(each.calls, each.failures, each.in_flight) for each in router.status().workload.models] == [
        (1, 1, 0),
        (1, 0, 0),
    ]


def test_a_block_releases_the_slot_whatever_happens(router: Router) -> None:
    with pytest.raises(ZeroDivisionError), router.begin_call("What?"):
        _ = 1 / 0
    assert router.status().workload.models[0].in_flight == 0


def test_calls_that_nobody_reports_are_given_up(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    from eccos_integrations.litellm import bridge

    calls = OpenCalls()
    owner = bridge.Bridge(router)
    first = calls.add(owner, router.begin_call("What?"))
    assert calls.find({"eccos_decision_id": first.decision.id}) is not None
    now_s = bridge.time.monotonic()
    monkeypatch.setattr(bridge.time, "monotonic", lambda: now_s + 10_000)
    calls.add(owner, router.begin_call("What?"))
    assert first.has_ended
    assert calls.find({"routing_plugin_signals": {"eccos": {"decision_id": first.decision.id}}}) is None
