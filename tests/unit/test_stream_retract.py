"""A choice whose slot was gone is taken back: nothing of it stays in the account or in the price."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.streaming import FloorTarget, InitialPrices, RateTarget, StreamController

QUALITY, COST, OPEN = np.array([0.4, 0.9]), np.array([0.001, 0.02]), np.array([True, True])
TARGETS = [
    FloorTarget(0.7),
    FloorTarget(0.7, promise="window", window=20),
    FloorTarget(0.7, promise="window", window=20, floor_insurance=0.5),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_stream_with_choices_taken_back_decides_as_one_without(target: FloorTarget) -> None:
    draw = np.random.default_rng(0)
    plain, shaken = (StreamController(target, InitialPrices(0.03), lambda: 0.0) for _ in range(2))
    assert plain.quality is not None
    assert shaken.quality is not None
    same = 0
    for _ in range(300):
        quality = np.clip(QUALITY + draw.normal(0, 0.1, 2), 0, 1)
        shaken.retract(shaken.decide(quality, COST, OPEN))
        same += plain.decide(quality, COST, OPEN).model == shaken.decide(quality, COST, OPEN).model
    assert same >= 295
    assert shaken.quality.count == 300
    assert plain.quality.running_mean == pytest.approx(shaken.quality.running_mean, abs=0.005)


@pytest.mark.parametrize("per", ["request", "hour"])
def test_money_of_a_choice_that_is_taken_back_is_there_again(per: str) -> None:
    stream = StreamController(RateTarget(3.0, per), InitialPrices(0.03), lambda: 0.0)  # type: ignore[arg-type]
    assert stream.spending is not None
    before = stream.spending.available_usd(0.0), stream.spending.earned_usd(0.0)
    stream.retract(stream.decide(QUALITY, COST, OPEN))
    assert (stream.spending.available_usd(0.0), stream.spending.earned_usd(0.0)) == pytest.approx(before)
