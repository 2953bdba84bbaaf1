"""Waiting counts in a decision, by a price for each second and by a limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core.config import load_config
from eccos_core.domain import LatencyRule, Model, QualityFloor
from eccos_core.errors import ConfigError, ExclusionKind, InputError, NoEligibleModelError
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_core.workload.latency import LatencyTracker

POOL = (Model("cheap", 1e-6, 1e-6, max_concurrency=4), Model("quick", 2e-6, 2e-6, max_concurrency=4))


def router(rule: LatencyRule, **seconds: float) -> Router:
    """A router that has seen answers of some models, which took so many seconds."""
    backend = ScriptedBackend({"cheap": ["a"], "quick": ["b"]}, POOL)
    made = scripted_router(backend, POOL, {"": [0.8, 0.8]})
    tracker = LatencyTracker()
    for model, each in seconds.items():
        for _ in range(10):
            tracker.observe(model, each)
    return Router.from_parts(replace(made.parts, latency_rule=rule, latency=tracker))


def test_without_a_rule_the_cheap_model_answers_however_slow_it_is() -> None:
    assert router(LatencyRule(), cheap=30.0, quick=0.1).decide("a question").model == "cheap"


def test_a_price_of_seconds_chooses_the_quick_model_and_stays_off_the_bill() -> None:
    slow = router(LatencyRule(usd_per_second=0.001), cheap=3.0, quick=0.5)
    decision = slow.decide("a question")
    assert decision.model == "quick"
    assert decision.cost_usd < 1e-4
    assert decision.fallbacks == ("cheap",)
    assert "waiting for it counts 0.0005" in decision.reason
    assert [each.model for each in slow.route(["one", "two"], policy=QualityFloor(0.5))] == ["quick", "quick"]


def test_a_price_that_is_too_small_changes_nothing() -> None:
    assert router(LatencyRule(usd_per_second=1e-9), cheap=3.0, quick=0.5).decide("a question").model == "cheap"


def test_a_model_without_answers_counts_as_the_others_do() -> None:
    assert router(LatencyRule(usd_per_second=0.001), quick=5.0).decide("a question").model == "cheap"


def test_a_model_over_the_limit_is_left_out_even_as_a_fallback() -> None:
    decision = router(LatencyRule(max_latency_s=2.0), cheap=3.0, quick=0.5).decide("a question")
    assert decision.model == "quick"
    assert decision.fallbacks == ()


def test_when_all_are_too_slow_the_error_says_how_slow() -> None:
    with pytest.raises(NoEligibleModelError, match=r"over 3\.0 s, and max_latency_s is 2") as raised:
        router(LatencyRule(max_latency_s=2.0), cheap=3.0, quick=4.0).decide("a question")
    assert raised.value.exclusions["cheap"].kind is ExclusionKind.LATENCY


def test_answers_are_remembered_for_ten_minutes() -> None:
    now = [0.0]
    tracker = LatencyTracker(lambda: now[0])
    for second in range(200):
        now[0] = float(second)
        tracker.observe("m", second / 10)
    assert tracker.mean_s(["m"])[0] == pytest.approx(np.mean(np.arange(100, 200) / 10))
    assert tracker.high_s(["m"])[0] == pytest.approx(np.quantile(np.arange(100, 200) / 10, 0.9))
    now[0] = 900.0
    assert np.isnan(tracker.mean_s(["m", "never"])).all()
    tracker.observe("m", float("nan"))
    assert np.isnan(tracker.high_s(["m"])[0])


def test_a_router_learns_latencies_from_its_own_calls() -> None:
    backend = ScriptedBackend({"cheap": ["a"], "quick": ["b"]}, POOL, latency_s=0.01)
    made = scripted_router(backend, POOL, {"": [0.8, 0.8]})
    made.complete("a question")
    made.complete_batch(["one", "two"])
    assert made.parts.latency.mean_s(["cheap"])[0] >= 0.01


@pytest.mark.parametrize(("seconds", "limit"), [(-1.0, None), (float("nan"), None), (float("inf"), None), (0.0, 0.0)])
def test_a_rule_that_makes_no_sense_is_refused(seconds: float, limit: float | None) -> None:
    with pytest.raises(InputError, match=r"usd_per_second is|max_latency_s is"):
        LatencyRule(seconds, limit)


def config(folder: Path, eccos: str) -> Path:
    model = "{model_name: m, litellm_params: {model: openai/m}, model_info: {input_cost_per_token: 1.0e-6, "
    path = folder / "eccos.yaml"
    path.write_text(f"model_list: [{model}output_cost_per_token: 1.0e-6}}}}]\neccos: {eccos}\n", encoding="utf-8")
    return path


def test_the_policy_of_a_file_says_what_waiting_is_worth(tmp_path: Path) -> None:
    told = load_config(
        config(tmp_path, "{policy: {quality_floor: 0.8, usd_per_second: 0.001, max_latency_s: 5}}"), environment={}
    )
    assert told.policy == QualityFloor(0.8)
    assert told.latency == LatencyRule(0.001, 5.0)
    assert load_config(config(tmp_path, "{policy: {quality_floor: 0.8}}"), environment={}).latency.is_off


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("policy: {budget_usd: 2, usd_per_second: 0.001}", "has usd_per_second and budget_usd"),
        ("policy: {certified_floor: 0.7, usd_per_second: 0.001}", "has usd_per_second and certified_floor"),
        ("policy: {usd_per_second: 0.001}", "names no policy"),
        ("policy: {quality_floor: 0.7, max_latency_s: 0}", "must be a number > 0"),
        ("tenants: {a: {policy: {quality_floor: 0.7, max_latency_s: 1}}}", "says what waiting is worth"),
    ],
)
def test_latency_keys_in_the_wrong_place_are_refused_by_name(tmp_path: Path, policy: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(config(tmp_path, f"{{{policy}}}"), environment={})
    assert said in str(raised.value)
