"""Notice that a model has become worse than its forecasts, from the labels of its answers.

Each model has a CUSUM (Page 1954) of the log-likelihood ratio "quality has fallen to half" over "quality is as
forecast". It waits the shortest for a given rate of false alarms (Moustakides 1986). ADWIN and the Page-Hinkley test
wait two to four times as long on recorded outcomes (`make bench ONLY=drift`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import DriftAlarm, FloatArray, Forecast

REMAINING_SHARE = 0.5  # of its quality: the fall that the test looks for
THRESHOLD = 11.0  # of the log-likelihood ratio. A label of a sound model raises a false alarm once in over exp(11)
MARGIN = 0.02  # forecasts are clipped this far from 0 and 1
MAX_EVIDENCE = 200.0  # labels after which older ones fade from the estimated shortfall
MAX_REMEMBERED = 10_000  # decisions whose second label counts no more
_log = logging.getLogger("eccos.drift")


@dataclass(frozen=True, slots=True)
class _Track:
    """The state of one model. `ratio`: the CUSUM. The sums are over the labels since it last was 0."""

    ratio: float = 0.0
    labels: float = 0.0
    forecast: float = 0.0
    observed: float = 0.0
    alarmed: bool = False

    @property
    def shortfall(self) -> float:
        """How far the mean label is below the mean forecast, at least 0."""
        return max((self.forecast - self.observed) / self.labels, 0.0) if self.labels else 0.0


class DriftMonitor:
    """Watches the labels of every model. Safe to use from several threads.

    `eccos.drift` logs an alarm as a warning. After an alarm the model's standard errors grow by its shortfall, which
    follows its newer labels. Its forecasts stay.
    """

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._alarms: dict[str, DriftAlarm] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def alarms(self) -> tuple[DriftAlarm, ...]:
        """The newest alarm of each model, the oldest first."""
        return tuple(sorted(self._alarms.values(), key=lambda alarm: alarm.at))

    def observe(self, decision_id: str, model: str, forecast: float, label: float) -> DriftAlarm | None:
        """Take in a label in [0, 1] of an answer that was forecast with a quality in [0, 1].

        Returns the alarm that it raises, or None. A second label of one decision changes nothing.
        """
        with self._lock:
            if decision_id in self._seen:
                return None
            self._seen[decision_id] = None
            if len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)
            track = _add_label(self._tracks.get(model, _Track()), forecast, label)
            alarm = None
            if track.ratio > THRESHOLD:
                labels = track.labels
                alarm = DriftAlarm(model, time.time(), round(labels), track.forecast / labels, track.observed / labels)
                self._alarms[model] = alarm
                track = replace(track, ratio=0.0, alarmed=True)
            self._tracks[model] = track
        if alarm is not None:
            _log.warning("%s", alarm, extra={"eccos": {"event": "drift", "model": model, "labels": alarm.labels}})
        return alarm

    def widen(self, forecast: Forecast) -> Forecast:
        """Return a forecast whose standard errors and group errors (R, M) include what alarmed models fall short of."""
        if not self._alarms:
            return forecast
        shortfall = self._shortfalls(forecast.models)
        shared = forecast.group_error
        return replace(
            forecast,
            quality_se=np.hypot(forecast.quality_se, shortfall),
            group_error=None if shared is None else np.hypot(shared, shortfall),
        )

    def _shortfalls(self, models: Sequence[str]) -> FloatArray:
        tracks = [self._tracks.get(model, _Track()) for model in models]
        return np.array([track.shortfall if track.alarmed else 0.0 for track in tracks])


def _add_label(track: _Track, forecast: float, label: float) -> _Track:
    """Return the state after one more label. After an alarm the test goes on from the lower quality."""
    if track.alarmed:
        keep = min(1.0, MAX_EVIDENCE / (track.labels + 1))
        ratio = max(0.0, track.ratio + _log_likelihood_ratio(forecast - track.shortfall, label))
    else:
        keep = 1.0 if track.ratio > 0 else 0.0
        ratio = max(0.0, track.ratio + _log_likelihood_ratio(forecast, label))
    return _Track(
        ratio,
        keep * track.labels + 1,
        keep * track.forecast + forecast,
        keep * track.observed + label,
        track.alarmed,
    )


def _log_likelihood_ratio(forecast: float, label: float) -> float:
    """Return log P(label | half the quality) - log P(label | forecast). A label between 0 and 1 counts as both."""
    quality = min(max(forecast, MARGIN), 1 - MARGIN)
    fallen = REMAINING_SHARE * quality
    return label * math.log(REMAINING_SHARE) + (1 - label) * math.log((1 - fallen) / (1 - quality))
