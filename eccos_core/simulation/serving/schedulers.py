"""Schedulers of a serving engine: who is admitted next, and how much of the cache is kept for it.

The names follow INFERMAX (arXiv 2411.07447). The future peak is that of the Past-Future scheduler (arXiv 2507.10150).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from eccos_core.errors import InputError, did_you_mean
from eccos_core.roofline import AttentionWindow


class CacheReservation(StrEnum):
    """What a request must find free before it is admitted."""

    NONE = "none"  # its prompt
    LIMIT = "limit"  # its prompt and the most that it may generate
    FORECAST = "forecast"  # the peak that all running requests are believed to reach together


@dataclass(frozen=True, slots=True)
class EngineScheduler:
    """`reservation` decides on admission. `shortest_first` takes the shortest believed answer, else the first arrival.

    `knows_lengths` gives it the real lengths, which no engine has. If the cache is full, every scheduler preempts the
    newest request, whose tokens are computed again later.
    """

    name: str
    reservation: CacheReservation
    shortest_first: bool = False
    knows_lengths: bool = False


SCHEDULERS: dict[str, EngineScheduler] = {
    scheduler.name: scheduler
    for scheduler in (
        EngineScheduler("fcfs", CacheReservation.LIMIT),
        EngineScheduler("preempt-newest", CacheReservation.NONE),
        EngineScheduler("shortest-first", CacheReservation.FORECAST, shortest_first=True),
        EngineScheduler("reserve", CacheReservation.FORECAST),
        EngineScheduler("oracle", CacheReservation.FORECAST, knows_lengths=True),
    )
}


def scheduler_named(name: str) -> EngineScheduler:
    """Return the scheduler `name`. Raises `InputError` that names the known ones."""
    try:
        return SCHEDULERS[name]
    except KeyError:
        known = ", ".join(SCHEDULERS)
        raise InputError(f"scheduler is {name!r}, must be one of {known}{did_you_mean(name, SCHEDULERS)}") from None


_NO_WINDOW = AttentionWindow()


def future_peak(sequences: Iterable[tuple[float, float]], window: AttentionWindow = _NO_WINDOW) -> float:
    """Return the most layer-tokens that sequences hold together, each given as (tokens now, tokens still to come).

    Every pass adds a token to each. A sequence that ends gives its tokens back. The peak is at one of the ends. With a
    `window`, a sequence stops growing in the layers that have it. Without one a layer-token is a token.
    """
    if window:
        now, coming = np.array(sorted(sequences, key=lambda one: -one[1])).T
        tokens = np.tril(now + coming[:, None])  # (at the end of one, of another that still runs)
        whole = window.layers - window.windowed_layers
        layer_tokens = whole * tokens + window.windowed_layers * np.minimum(tokens, window.tokens)
        return float(layer_tokens.sum(axis=1).max())
    peak = held = 0.0
    for count, (now, coming) in enumerate(sorted(sequences, key=lambda one: -one[1]), start=1):
        held += now
        peak = max(peak, held + count * coming)
    return peak
