"""A quality floor with a confidence: batches and streams count on the lower bound, decisions tell the forecast."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from eccos_core.config import TenantConfig
from eccos_core.domain import Float32Array, FloatArray, Forecast, Model, Policy, QualityFloor, QualityPrice, Request
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.router import Router
from eccos_core.routing.lower_bound import counted_quality
from eccos_core.routing.tenants import Tenants
from eccos_core.streaming import FloorTarget, InitialPrices, StreamController
from eccos_core.testing import ScriptedBackend
from eccos_core.testing.router import WordEncoder

POOL = (Model("small", 1e-6, 1e-6), Model("large", 1e-5, 1e-5))
QUALITY, SHARED = np.array([0.82, 0.95]), np.array([0.10, 0.05])
Z = NormalDist().inv_cdf(0.9)


class SharedErrorPredictor:
    """Forecasts 0.82 and 0.95 for every question, with a shared error of 0.10 and 0.05."""

    models = ("small", "large")

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        rows = (len(vectors), 1)
        tokens = np.full((len(vectors), 2), 20.0)
        quality, shared = np.tile(QUALITY, rows), np.tile(SHARED, rows)
        return Forecast(self.models, quality, 2 * shared, tokens, tokens, np.ones(len(vectors)), group_error=shared)


def router_with(policy: Policy, **settings: object) -> Router:
    backend = ScriptedBackend({"small": ["s"], "large": ["l"]}, POOL)
    alpha = policy.alpha if isinstance(policy, QualityFloor) else 0.5
    steering = StreamController(FloorTarget(alpha), InitialPrices(0.0))
    settings.setdefault("steering", steering)
    return Router(POOL, SharedErrorPredictor(), backend, encoder=WordEncoder(["a"]), policy=policy, **settings)  # type: ignore[arg-type]


def test_a_batch_takes_the_dearer_model_where_the_lower_bound_of_the_cheap_one_is_below_the_floor() -> None:
    plain = router_with(QualityFloor(0.8)).route(["a"] * 4)
    sure = router_with(QualityFloor(0.8, confidence=0.9)).route(["a"] * 4)
    assert {each.model for each in plain} == {"small"}
    small, large = QUALITY - Z * SHARED
    assert [each.model for each in sure].count("large") == int(np.ceil(4 * (0.8 - small) / (large - small)))
    assert {each.quality for each in sure if each.model == "large"} == {0.95}  # the forecast itself


def test_a_stream_keeps_the_lower_bound_too() -> None:
    router = router_with(QualityFloor(0.85, confidence=0.9))
    made = [router.decide("a") for _ in range(300)]
    bound = QUALITY - Z * SHARED
    counted = np.mean([bound[router.parts.names.index(each.model)] for each in made])
    assert counted == pytest.approx(0.85, abs=0.02)
    assert np.mean([each.quality for each in made]) > 0.89
    assert {each.quality for each in made} <= {0.82, 0.95}


def test_the_policy_of_a_tenant_has_a_confidence_of_its_own() -> None:
    tenants = Tenants({"careful": TenantConfig(policy=QualityFloor(0.85, confidence=0.9))})
    router = router_with(QualityFloor(0.8), tenants=tenants)
    careful, usual = router.route([Request.of("a", tenant="careful"), Request.of("a")])
    assert (careful.model, usual.model) == ("large", "small")


def test_a_floor_out_of_reach_names_the_lower_bound_that_is_reached() -> None:
    reachable = 0.95 - Z * 0.05
    with pytest.raises(InfeasibleError, match=rf"with a confidence of 0\.9: .* is {reachable:.4f}") as found:
        router_with(QualityFloor(0.92, confidence=0.9)).route(["a"])
    assert found.value.attainable == pytest.approx(reachable)
    nearest = router_with(QualityFloor(0.92, "best_effort", 0.9)).route(["a"])
    assert [(each.model, each.floor_met) for each in nearest] == [("large", False)]


def test_min_quality_holds_for_the_lower_bound_as_well() -> None:
    strict = [Request.of("a", min_quality=0.8)]
    assert router_with(QualityFloor(0.0)).route(strict)[0].model == "small"
    sure = router_with(QualityFloor(0.0, confidence=0.9))
    assert sure.route(strict)[0].model == "large"
    assert sure.decide(strict[0]).model == "large"


def test_only_a_floor_with_a_confidence_lowers_what_counts() -> None:
    forecast = SharedErrorPredictor().predict(np.zeros((2, 2), dtype=np.float32), np.zeros(2))
    for policy in (QualityFloor(0.8), QualityPrice(0.01)):
        assert counted_quality(forecast.quality, forecast.shared_error, policy) is forecast.quality
    sure = QualityFloor(0.8, confidence=0.9)
    for each, times in ((forecast, 1), (replace(forecast, group_error=None), 2)):  # all of quality_se where unknown
        counted = counted_quality(each.quality, each.shared_error, sure)
        np.testing.assert_allclose(counted[0], QUALITY - Z * times * SHARED)
    even = counted_quality(forecast.quality, forecast.shared_error, QualityFloor(0.8, confidence=0.5))
    np.testing.assert_allclose(even, forecast.quality)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, float("nan")])
def test_a_confidence_outside_0_and_1_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match="must be above 0 and below 1"):
        QualityFloor(0.8, confidence=confidence)
