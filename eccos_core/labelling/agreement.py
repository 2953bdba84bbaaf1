"""How far the labels of a judge agree with those of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.labelling.calibration import calibrate_out_of_fold

GOOD = 0.5  # a label from here on says "good"
CONFIDENCE = 0.95
_RESAMPLES = 1000
_LEAST = 10  # answers, with fewer of them there is no interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """Labels of a source beside those of people, for the same answers.

    - `labels`: how many. `agreement`: the share that says the same of good and bad.
    - `kappa`: the same beyond chance (Cohen 1960), None where all labels say one thing.
    - `correlation`: Pearson's, None where one side gives every answer the same label.
    - `kappa_interval` and `correlation_interval`: at 95 %, from 1,000 bootstrap resamples of the answers. None with
      fewer than 10 answers.
    - `error`: the root of the mean squared difference. `bias`: mean of the source less the mean of people.
    - `slope` and `intercept`: the line from the source's label to people's, by least squares.
    - `calibrated`: the same once the source's labels were corrected, each by the other four fifths of these
      answers. None with fewer than 25 answers.
    """

    labels: int
    agreement: float
    kappa: float | None
    kappa_interval: tuple[float, float] | None
    correlation: float | None
    correlation_interval: tuple[float, float] | None
    error: float
    bias: float
    slope: float
    intercept: float
    calibrated: Agreement | None = None

    def __str__(self) -> str:
        said = (
            f"{self.labels} answers with both labels: {self.agreement:.0%} agree on good or bad{self._measures()}; "
            f"on average {abs(self.bias):.2f} too {'high' if self.bias > 0 else 'low'}"
        )
        after = self.calibrated
        if after is None:
            return said
        errors = f"error {self.error:.2f} before, {after.error:.2f} after"
        return f"{said}. Calibrated: {after.agreement:.0%} agree{after._measures()}; {errors}"

    def _measures(self) -> str:
        return _describe("kappa", self.kappa, self.kappa_interval) + _describe(
            "correlation", self.correlation, self.correlation_interval
        )


def measure_agreement(pairs: Sequence[tuple[float, float]], *, calibrate: bool = False) -> Agreement | None:
    """Compare (label of the source, label of a person) pairs. None without any.

    `calibrate` also says how far they agree after calibration, each answer corrected by what the others taught.
    """
    corrected = calibrate_out_of_fold(pairs) if calibrate else None
    return _measure(pairs, _measure(corrected, None) if corrected is not None else None) if pairs else None


def _measure(pairs: Sequence[tuple[float, float]], calibrated: Agreement | None) -> Agreement:
    theirs, people = np.array(pairs, dtype=np.float64).T
    rows = np.random.default_rng(0).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    drawn = (theirs[rows], people[rows]) if len(pairs) >= _LEAST else None
    spread = float(theirs.var())
    slope = float(np.mean((theirs - theirs.mean()) * (people - people.mean())) / spread) if spread > 0 else 0.0
    return Agreement(
        labels=len(pairs),
        agreement=float(np.mean((theirs >= GOOD) == (people >= GOOD))),
        kappa=_known(_kappa(theirs[None], people[None])[0]),
        kappa_interval=None if drawn is None else _interval(_kappa(*drawn)),
        correlation=_known(_correlation(theirs[None], people[None])[0]),
        correlation_interval=None if drawn is None else _interval(_correlation(*drawn)),
        error=float(np.sqrt(np.mean((theirs - people) ** 2))),
        bias=float(theirs.mean() - people.mean()),
        slope=slope,
        intercept=float(people.mean() - slope * theirs.mean()),
        calibrated=calibrated,
    )


def _kappa(theirs: FloatArray, people: FloatArray) -> FloatArray:
    """Return Cohen's kappa (B,) of B samples (B, N), NaN where chance alone agrees always."""
    first, second = (theirs >= GOOD), (people >= GOOD)
    same, one, other = (first == second).mean(axis=1), first.mean(axis=1), second.mean(axis=1)
    by_chance = one * other + (1 - one) * (1 - other)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by_chance < 1, (same - by_chance) / (1 - by_chance), np.nan)


def _correlation(theirs: FloatArray, people: FloatArray) -> FloatArray:
    """Return Pearson's correlation (B,) of B samples (B, N), NaN where one side is constant."""
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (theirs, people))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 1e-12, (first * second).sum(axis=1) / scale, np.nan)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(values: FloatArray) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _describe(name: str, value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f", {name} {value:.2f}" + (f" ({CONFIDENCE:.0%} interval {ends[0]:.2f} to {ends[1]:.2f})" if ends else "")
