"""How far the labels of a judge agree with those of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GOOD = 0.5  # a label from here on says "good"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Labels of a source beside those of people, for the same answers.

    `labels`: how many. `agreement`: the share that says the same of good and bad. `kappa`: the same beyond chance
    (Cohen 1960), None where all labels say one thing. `bias`: mean of the source less the mean of people.
    `slope` and `intercept`: the line from the source's label to people's, by least squares.
    """

    labels: int
    agreement: float
    kappa: float | None
    bias: float
    slope: float
    intercept: float

    def __str__(self) -> str:
        beyond = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return (
            f"{self.labels} answers with both labels: {self.agreement:.0%} agree on good or bad{beyond}; "
            f"on average {abs(self.bias):.2f} too {'high' if self.bias > 0 else 'low'}"
        )


def measure_agreement(pairs: Sequence[tuple[float, float]]) -> Agreement | None:
    """Compare (label of the source, label of a person) pairs. None without any."""
    if not pairs:
        return None
    theirs, people = np.array(pairs, dtype=np.float64).T
    same = float(np.mean((theirs >= GOOD) == (people >= GOOD)))
    first, second = float(np.mean(theirs >= GOOD)), float(np.mean(people >= GOOD))
    by_chance = first * second + (1 - first) * (1 - second)
    spread = float(theirs.var())
    slope = float(np.mean((theirs - theirs.mean()) * (people - people.mean())) / spread) if spread > 0 else 0.0
    return Agreement(
        labels=len(pairs),
        agreement=same,
        kappa=None if by_chance == 1 else (same - by_chance) / (1 - by_chance),
        bias=float(theirs.mean() - people.mean()),
        slope=slope,
        intercept=float(people.mean() - slope * theirs.mean()),
    )
