"""Keep the correction of a judge's grades up to date with the labels of people in the decision log."""

from __future__ import annotations

import time
from collections.abc import Callable

from eccos_core.decision_log import BaseDecisionLog, CalibrationEntry
from eccos_core.labelling.calibration import LabelCalibration, fit_calibration

REFRESH_S = 60.0  # how long a correction stays before new labels of people are looked for


class GradeCalibrator:
    """Learns again when people have labelled more of the judge's answers. The log keeps every correction that was used.

    Grades of another judge teach nothing about this one. Without a log there are no pairs, and grades stay.
    """

    def __init__(
        self, log: BaseDecisionLog | None, judge: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._judge, self._monotonic = log, judge, monotonic
        self._looked_at: float | None = None
        self._pairs: list[tuple[float, float]] = []
        self._calibration: LabelCalibration | None = None

    def current(self) -> LabelCalibration | None:
        """Return the correction to apply now, or None where there are fewer than 20 answers with both labels."""
        now = self._monotonic()
        if self._log is None or (self._looked_at is not None and now - self._looked_at < REFRESH_S):
            return self._calibration
        self._looked_at = now
        pairs = self._log.label_pairs("judge", judge=self._judge)
        if pairs != self._pairs:
            self._pairs, self._calibration = pairs, fit_calibration(pairs)
            if (found := self._calibration) is not None:
                self._log.add_calibration(
                    CalibrationEntry(found.version, self._judge, found.offset, found.slope, found.pairs)
                )
        return self._calibration
