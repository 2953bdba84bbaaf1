"""What a certificate claims about the mean quality of a routing rule, and how labels bear on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, must be between 0 and 1, both excluded; 0.95 is usual")


@dataclass(frozen=True, slots=True)
class CertifiedFloor:
    """The mean quality is at least `floor`, with probability `confidence` over the draw of the labels."""

    floor: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise InputError(f"certified floor is {self.floor}, must be between 0 and 1, both excluded")
        _check_confidence(self.confidence)

    @property
    def limit(self) -> float:
        """What the mean of `scores` must exceed."""
        return self.floor

    def scores(self, chosen: FloatArray, compared: FloatArray | None = None) -> FloatArray:
        """(N,) in [0, 1], from the quality of the chosen answers."""
        return chosen

    def in_words(self) -> str:
        """Say the claim to people."""
        return f"mean quality at least {self.floor:g}"


@dataclass(frozen=True, slots=True)
class CertifiedGap:
    """The mean quality is at most `points` points (hundredths) below that of always asking `model`."""

    model: str
    points: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.points < 100:
            raise InputError(f"points is {self.points}, must be between 0 and 100, both excluded; 1 point is 0.01")
        _check_confidence(self.confidence)

    @property
    def limit(self) -> float:
        """What the mean of `scores` must exceed."""
        return (1 - self.points / 100) / 2

    def scores(self, chosen: FloatArray, compared: FloatArray | None = None) -> FloatArray:
        """(N,) in [0, 1]: half of one plus the difference of the chosen answer to that of `model`, pair by pair."""
        assert compared is not None
        return np.asarray((1 + chosen - compared) / 2)

    def in_words(self) -> str:
        """Say the claim to people."""
        return f"mean quality at most {self.points:g} points below always asking {self.model}"


Claim: TypeAlias = CertifiedFloor | CertifiedGap
