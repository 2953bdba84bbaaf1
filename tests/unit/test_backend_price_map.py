"""LiteLLM is told the prices that it does not know, and its sum is never taken for them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from eccos_core.backends.litellm.backend import LiteLLMBackend
from eccos_core.backends.litellm.register_prices import register_prices
from eccos_core.backends.litellm.responses import CallRecord
from eccos_core.backends.litellm.usage import Usage
from eccos_core.config.schema import Deployment
from eccos_core.domain import Model, Request
from eccos_core.testing import build_tiny_model

litellm = pytest.importorskip("litellm")


@pytest.fixture
def name() -> str:
    """A model that LiteLLM has never heard of."""
    return f"openai/own-{uuid.uuid4().hex}"


def call_record(model: Model, litellm_model: str, **fields: Any) -> CallRecord:
    return CallRecord(model, Request.of("hi"), Deployment(litellm_model, {}), 0.0, **fields)


def test_an_unknown_model_gets_the_price_of_the_pool(name: str) -> None:
    with pytest.raises(Exception, match="mapped"):
        litellm.get_model_info(name)
    assert register_prices(litellm, [(name, Model("own", 1e-6, 4e-6))]) == {name}
    known = litellm.get_model_info(name)
    assert (known["input_cost_per_token"], known["output_cost_per_token"]) == (1e-6, 4e-6)


def test_a_known_model_keeps_its_price() -> None:
    before = dict(litellm.get_model_info("openai/gpt-4o-mini"))
    assert register_prices(litellm, [("openai/gpt-4o-mini", Model("mini", 1.0, 4.0))]) == frozenset()
    assert dict(litellm.get_model_info("openai/gpt-4o-mini")) == before


def test_each_pool_goes_by_its_own_price_whoever_told_litellm_last(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(**call: Any) -> Any:
        return litellm.mock_completion(call["model"], call["messages"], mock_response="yes")

    monkeypatch.setattr(litellm, "acompletion", answer)
    costs = []
    for price in (1e-6, 5e-6):
        backend = LiteLLMBackend({"own": [Deployment(name, {"api_key": "none"})]}, [Model("own", price, price)])
        completion = backend.complete("own", Request.of("is it so?"))
        costs.append(completion.cost_usd / (completion.input_tokens + completion.output_tokens))
    assert costs == pytest.approx([1e-6, 5e-6])


def test_litellms_sum_counts_only_where_the_price_is_its_own(name: str) -> None:
    def cost_usd(known: bool) -> float:
        call = call_record(Model("m", 1e-6, 1e-6), name, litellm_knows_price=known)
        return call.cost_usd(Usage(1, 1), litellm_cost_usd=0.5)

    assert cost_usd(True) == 0.5
    assert cost_usd(False) == pytest.approx(2e-6)


def test_a_local_models_tokens_cost_what_its_gpu_time_costs(tmp_path: Path) -> None:
    from eccos_core.backends.local.registry import local_models

    folder = build_tiny_model(tmp_path / "tiny")
    backend = LiteLLMBackend(
        {"mine": [Deployment(f"eccos-local/{folder}", {})]},
        [Model("mine", 5e-6, 5e-6)],
        usd_per_gpu_hour={"mine": 36.0},
    )
    request = Request.of("What is 12 + 7?", parameters={"max_tokens": 20})
    assert backend.usd_per_token("mine") is None
    first = backend.complete("mine", request)
    assert first.cost_usd > 0
    done = local_models().engine(str(folder)).statistics()
    usd_per_second = 36.0 / 3600
    measured = usd_per_second * done.busy_s / (done.input_tokens + done.output_tokens)
    assert backend.usd_per_token("mine") == pytest.approx(measured, rel=0.5)  # the last step may not be counted yet
    second = backend.complete("mine", request)
    spent = local_models().engine(str(folder)).statistics().busy_s * usd_per_second
    assert 0 < second.cost_usd < spent


def test_measured_time_is_the_price_once_it_is_measured() -> None:
    def cost_usd(measured: float | None) -> float:
        call = call_record(Model("m", 5e-6, 5e-6), "eccos-local/x", measured_usd_per_token=lambda: measured)
        return call.cost_usd(Usage(input_tokens=10, output_tokens=5), None)

    assert cost_usd(None) == pytest.approx(15 * 5e-6)
    assert cost_usd(1e-3) == pytest.approx(15 * 1e-3)
