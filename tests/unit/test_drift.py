"""A model that becomes worse is noticed soon, and a sound one is left alone."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.domain import Forecast
from eccos_core.learning import DriftMonitor


def feed(monitor: DriftMonitor, quality: float, share: float, labels: int, seed: int = 0) -> int | None:
    """Label answers of a model of this quality, of which it keeps a share. Return after how many an alarm came."""
    draw = np.random.default_rng(seed)
    start = len(monitor._seen)
    for number in range(labels):
        label = float(draw.random() < quality * share)
        if monitor.observe(f"d{start + number}", "m", quality, label) is not None:
            return number + 1
    return None


@pytest.mark.parametrize("quality", [0.3, 0.5, 0.7, 0.9])
def test_half_the_quality_is_noticed_within_300_labels(quality: float) -> None:
    for seed in range(20):
        monitor = DriftMonitor()
        assert feed(monitor, quality, 1.0, 1000, seed) is None
        delay = feed(monitor, quality, 0.5, 300, seed + 100)
        assert delay is not None, f"seed {seed}"


def test_few_false_alarms_in_thirteen_thousand_labels() -> None:
    alarms = 0
    for seed in range(5):
        monitor = DriftMonitor()
        draw = np.random.default_rng(seed)
        for number in range(13_106):
            quality = float(draw.uniform(0.1, 0.95))
            alarms += monitor.observe(f"d{number}", "m", quality, float(draw.random() < quality)) is not None
    assert alarms <= 1


def test_a_forecast_that_is_a_little_too_high_is_no_drift() -> None:
    assert feed(DriftMonitor(), 0.7, 0.93, 10_000) is None


def test_an_alarm_is_logged_kept_and_told(caplog: pytest.LogCaptureFixture) -> None:
    monitor = DriftMonitor()
    with caplog.at_level(logging.WARNING, "eccos.drift"):
        feed(monitor, 0.8, 0.25, 300)
    (alarm,) = monitor.alarms
    assert alarm.model == "m"
    assert alarm.observed < 0.5 < alarm.forecast
    assert "m has become worse" in caplog.text


def test_a_second_label_of_one_decision_counts_once() -> None:
    monitor = DriftMonitor()
    assert all(monitor.observe("same", "m", 0.9, 0.0) is None for _ in range(1000))


def test_only_an_alarmed_model_gets_wider_standard_errors() -> None:
    monitor = DriftMonitor()
    forecast = Forecast(
        models=("m", "other"),
        quality=np.full((3, 2), 0.8),
        quality_se=np.full((3, 2), 0.05),
        output_tokens=np.ones((3, 2)),
        output_tokens_high=np.ones((3, 2)),
        familiarity=np.ones(3),
    )
    assert monitor.widen(forecast) is forecast
    feed(monitor, 0.8, 0.25, 300)
    wide = monitor.widen(forecast)
    assert (wide.quality_se[:, 0] > 0.3).all()
    assert (wide.quality_se[:, 1] == 0.05).all()
    assert (wide.quality == forecast.quality).all()


def test_standard_errors_shrink_again_when_the_model_recovers() -> None:
    monitor = DriftMonitor()
    feed(monitor, 0.8, 0.25, 300)
    before = monitor._shortfalls(["m"])[0]
    draw = np.random.default_rng(1)
    for number in range(1500):
        monitor.observe(f"later{number}", "m", 0.8, float(draw.random() < 0.8))
    assert monitor._shortfalls(["m"])[0] < 0.2 * before


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60))
def test_perfect_answers_never_raise_an_alarm(labels: list[tuple[float, float]]) -> None:
    monitor = DriftMonitor()
    for number, (forecast, label) in enumerate(labels):
        assert monitor.observe(str(number), "m", forecast, max(label, forecast)) is None or label < forecast


def test_a_fall_is_noticed_again_after_the_first_alarm() -> None:
    monitor = DriftMonitor()
    assert feed(monitor, 0.9, 0.6, 300) is not None
    assert feed(monitor, 0.9, 0.6, 1500) is None, "the same level is no news"
    assert feed(monitor, 0.9, 0.1, 300) is not None
