"""A stream with drawn forecasts, which are right, and answers drawn from them."""

from __future__ import annotations

import numpy as np

from eccos_core.simulation import Scenario
from eccos_core.simulation.scenario import Forecasts


def scenario(
    requests: int, *, slots: tuple[int, ...] = (8, 8, 8), seconds: tuple[float, ...] = (1.0, 2.0, 4.0), seed: int = 0
) -> Scenario:
    generator = np.random.default_rng(seed)
    models = len(slots)
    skill, usd = np.linspace(0.4, 0.9, models), 0.001 * 8.0 ** np.arange(models)

    def forecasts(rows: int) -> Forecasts:
        quality = np.clip(skill + generator.normal(0, 0.1, (rows, models)), 0, 1)
        return Forecasts(quality, usd * np.exp(generator.normal(0, 0.3, (rows, 1))))

    arriving = forecasts(requests)
    return Scenario(
        models=tuple("abcdef"[:models]),
        quality=(generator.random((requests, models)) < arriving.quality).astype(float),
        cost_usd=arriving.cost_usd,
        seconds=np.tile(np.asarray(seconds), (requests, 1)),
        eligible=np.ones((requests, models), dtype=bool),
        slots=np.asarray(slots, dtype=np.int64),
        forecast=arriving,
        training=forecasts(2000),
    )
