"""eccos inside a real `litellm.Router`: the plugin, the classifier and the strategy, against a scripted server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest
from litellm_pool import USD, entry, litellm_router
from served_pool import served_pool

from eccos_core import InputError, Router
from eccos_core.domain import BreakerState
from eccos_core.testing import ModelServer
from eccos_integrations.litellm import EccosClassifier, EccosRoutingPlugin, EccosRoutingStrategy

pytestmark = [pytest.mark.service, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ASKED = [{"role": "user", "content": "What is the capital of Peru?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
TENANTS = "\n  tenants:\n    gold: {allow: [large]}\n    careful: {deny: [small]}\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


@pytest.fixture
def eccos(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    monkeypatch.setenv("SERVED_KEY", "sk-served-0123456789abcdef")
    path = served_pool(tmp_path, server.url)
    path.write_text(path.read_text() + TENANTS)
    server.reset()
    with Router.from_yaml(path) as router:
        yield router


def asked_models(server: ModelServer) -> set[str]:
    return {model for model, count in server.statistics().requests.items() if count}


async def settled(router: Router, calls: int) -> None:
    """Wait until LiteLLM's callbacks have reported so many calls. They run in the background."""
    for _ in range(200):
        if sum(model.calls for model in router.status().workload.models) >= calls:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"only {[(m.model, m.calls) for m in router.status().workload.models]} were reported")


def in_flight(router: Router) -> int:
    return sum(model.in_flight for model in router.status().workload.models)


# ------------------------------------------------------------------------------------------------ the routing strategy


@pytest.fixture
def strategy(server: ModelServer, eccos: Router) -> Any:
    router = litellm_router(server)
    router.set_custom_routing_strategy(EccosRoutingStrategy(eccos, router))
    return router


async def test_the_strategy_sends_eccos_to_the_cheap_model_and_says_why(
    server: ModelServer, eccos: Router, strategy: Any
) -> None:
    answer = await strategy.acompletion(model="eccos", messages=ASKED)
    assert asked_models(server) == {"small"}
    told = answer._hidden_params["eccos"]
    assert told["model"] == "small"
    assert "small is expected" in told["reason"]
    await settled(eccos, 1)
    small = eccos.status().workload.models[0]
    assert (small.model, small.calls, small.failures, small.in_flight) == ("small", 1, 0, 0)
    assert small.tokens_last_minute == answer.usage.total_tokens
    assert 0 < small.latency_s < 5
    eccos.record(told["decision_id"], 1.0)  # the answer is known, so it can be labelled


def test_the_strategy_decides_synchronous_calls(server: ModelServer, eccos: Router, strategy: Any) -> None:
    answer = strategy.completion(model="eccos", messages=ASKED)
    assert answer.choices[0].message.content == "You said: What is the capital of Peru?"
    assert asked_models(server) == {"small"}
    asyncio.run(settled(eccos, 1))
    assert in_flight(eccos) == 0


async def test_a_stream_is_decided_and_its_outcome_comes_back(
    server: ModelServer, eccos: Router, strategy: Any
) -> None:
    chunks = [chunk async for chunk in await strategy.acompletion(model="eccos", messages=ASKED, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: What is the capital of Peru?"
    await settled(eccos, 1)
    assert asked_models(server) == {"small"}
    assert in_flight(eccos) == 0


def test_a_synchronous_stream_too(server: ModelServer, eccos: Router, strategy: Any) -> None:
    assert list(strategy.completion(model="eccos", messages=ASKED, stream=True))
    asyncio.run(settled(eccos, 1))
    assert in_flight(eccos) == 0


async def test_hard_filters_hold(server: ModelServer, strategy: Any) -> None:
    await strategy.acompletion(model="eccos", messages=ASKED, tools=[TOOL])
    assert asked_models(server) == {"caller"}  # small takes no tools


async def test_a_tenants_rules_hold(server: ModelServer, strategy: Any) -> None:
    await strategy.acompletion(model="eccos", messages=ASKED, metadata={"eccos_tenant": "gold"})
    assert asked_models(server) == {"large"}


async def test_a_proxys_team_is_the_tenant_whatever_the_client_writes(server: ModelServer, strategy: Any) -> None:
    metadata = {"user_api_key_hash": "h", "user_api_key_team_alias": "careful", "eccos_tenant": "gold"}
    await strategy.acompletion(model="eccos", messages=ASKED, metadata=metadata)
    assert asked_models(server) == {"caller"}


async def test_a_policy_by_name_and_fields_of_eccos(server: ModelServer, strategy: Any) -> None:
    await strategy.acompletion(model="eccos:best", messages=ASKED)
    assert asked_models(server) == {"large"}
    server.reset()
    await strategy.acompletion(model="eccos", messages=ASKED, metadata={"eccos": {"min_quality": 0.7}})
    assert asked_models(server) == {"caller"}


async def test_a_refusal_is_litellms_own_error(strategy: Any) -> None:
    with pytest.raises(litellm.BadRequestError, match=r"eccos: .*min_quality is 2"):
        await strategy.acompletion(model="eccos", messages=ASKED, metadata={"eccos": {"min_quality": 2.0}})
    with pytest.raises(litellm.BadRequestError, match="unknown tenant 'nobody'"):
        await strategy.acompletion(model="eccos", messages=ASKED, metadata={"eccos_tenant": "nobody"})


async def test_other_groups_are_left_alone(server: ModelServer, eccos: Router, strategy: Any) -> None:
    answer = await strategy.acompletion(model="large", messages=ASKED)
    assert asked_models(server) == {"large"}
    assert "eccos" not in answer._hidden_params
    with pytest.raises(litellm.BadRequestError):
        await strategy.acompletion(model="no-such-group", messages=ASKED)


async def test_a_failed_call_goes_on_with_the_next_best_model(server: ModelServer, eccos: Router) -> None:
    router = litellm_router(server, "mixed", dead="small", num_retries=2, retry_after=0)
    router.set_custom_routing_strategy(EccosRoutingStrategy(eccos, router))
    answer = await router.acompletion(model="mixed", messages=ASKED)
    assert answer._hidden_params["eccos"]["model"] == "caller"
    await settled(eccos, 2)
    calls = {model.model: (model.calls, model.failures) for model in eccos.status().workload.models}
    assert calls == {"small": (1, 1), "caller": (1, 0), "large": (0, 0)}
    assert in_flight(eccos) == 0


async def test_failures_open_the_circuit_and_decisions_turn_away(
    server: ModelServer, eccos: Router, strategy: Any
) -> None:
    for _ in range(12):
        with pytest.raises(litellm.InternalServerError):
            await strategy.acompletion(
                model="eccos",
                messages=[{"role": "user", "content": "[[status 500]]"}],
                metadata={"eccos": {"allow": ["small"]}},
            )
        if eccos.status().workload.models[0].breaker is BreakerState.OPEN:
            break
    assert eccos.status().workload.models[0].breaker is BreakerState.OPEN
    server.reset()
    await strategy.acompletion(model="eccos", messages=ASKED)
    assert asked_models(server) == {"caller"}


async def test_what_is_no_conversation_passes_through_with_one_line(
    server: ModelServer, eccos: Router, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = EccosRoutingStrategy(eccos, litellm_router(server, group="mixed"))
    asked: dict[str, Any] = {"model": "mixed", "input": ["a text"], "metadata": {"eccos_tenant": "careful"}}
    with caplog.at_level(logging.WARNING, "eccos.litellm"):
        picked = [
            await strategy.async_get_available_deployment("mixed", input=["a text"], request_kwargs=dict(asked))
            for _ in range(20)
        ]
    assert {each["litellm_params"]["model"] for each in picked} == {"openai/caller", "openai/large"}  # never small
    assert len([line for line in caplog.messages if "passes through unchanged: it has no messages" in line]) == 1
    assert "a text" not in caplog.text


# -------------------------------------------------------------------------------------------------------- the plugin


async def test_one_argument_lets_eccos_narrow_a_group(server: ModelServer, eccos: Router) -> None:
    router = litellm_router(server, group="mixed", plugins=[EccosRoutingPlugin(eccos)])
    for _ in range(5):
        answer = await router.acompletion(model="mixed", messages=ASKED)
    assert asked_models(server) == {"small"}
    assert answer._hidden_params["eccos"]["model"] == "small"
    await settled(eccos, 5)
    assert in_flight(eccos) == 0


async def test_the_plugin_holds_a_tenants_rules_for_what_passes_through(server: ModelServer, eccos: Router) -> None:
    router = litellm_router(server, group="mixed", plugins=[EccosRoutingPlugin(eccos)])
    odd = [{"role": "user", "content": "What?", "seen": 2**70}]  # eccos refuses the number, LiteLLM does not
    for _ in range(6):
        await router.acompletion(model="mixed", messages=odd, metadata={"eccos_tenant": "gold"})
    assert asked_models(server) == {"large"}


async def test_the_plugin_refuses_where_no_model_may_answer(eccos: Router, server: ModelServer) -> None:
    router = litellm_router(server, group="mixed", plugins=[EccosRoutingPlugin(eccos)])
    with pytest.raises(Exception, match=r"(?i)no deployments|plugin"):
        await router.acompletion(model="mixed", messages=ASKED, metadata={"eccos_tenant": "nobody"})
    assert asked_models(server) == set()


async def test_the_plugin_leaves_groups_of_one_model_alone(server: ModelServer, eccos: Router) -> None:
    router = litellm_router(server, plugins=[EccosRoutingPlugin(eccos)])
    await router.acompletion(model="large", messages=ASKED)
    assert asked_models(server) == {"large"}


async def test_names_that_eccos_cannot_know_can_be_given(server: ModelServer, eccos: Router) -> None:
    model_list = [entry(server, name, "mixed") for name in USD]
    for each in model_list:
        each["litellm_params"]["model"] = each["litellm_params"]["model"].replace("openai/", "hosted_vllm/")
    names = {f"hosted_vllm/{name}": name for name in USD}
    router = litellm.Router(model_list=model_list, plugins=[EccosRoutingPlugin(eccos, models=names)], num_retries=0)
    await router.acompletion(model="mixed", messages=ASKED)
    assert asked_models(server) == {"small"}


# ---------------------------------------------------------------------------------------------------- the classifier


async def test_the_classifier_chooses_the_tier_of_the_complexity_router(server: ModelServer, eccos: Router) -> None:
    tiers = {"SIMPLE": "small", "MEDIUM": "caller", "COMPLEX": "large", "REASONING": "large"}
    classifier = EccosClassifier(eccos, tiers)
    smart = {
        "model_name": "smart",
        "litellm_params": {
            "model": "auto_router/complexity_router",
            "complexity_router_config": {
                "classifier_type": "custom",
                "classifier_plugin": classifier,
                "tiers": tiers,
            },
            "complexity_router_default_model": "large",
        },
    }
    router = litellm.Router(model_list=[*(entry(server, name) for name in USD), smart], num_retries=0)
    await router.acompletion(
        model="smart", messages=[{"role": "user", "content": "Prove Fermat's last theorem, step by step."}]
    )
    assert asked_models(server) == {"small"}  # LiteLLM's own rule would not say SIMPLE here
    server.reset()
    await router.acompletion(model="smart", messages=ASKED, metadata={"eccos_tenant": "gold"})
    assert asked_models(server) == {"large"}


def test_a_tier_without_a_model_of_the_pool_is_refused(eccos: Router) -> None:
    with pytest.raises(InputError, match=r"tiers\['SIMPLE'\] names no model of the pool. There are: small, caller"):
        EccosClassifier(eccos, {"SIMPLE": "tiny"})
