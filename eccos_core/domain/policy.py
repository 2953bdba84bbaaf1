"""What a router is asked to reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from eccos_core.errors import InputError

OnInfeasible: TypeAlias = Literal["error", "best_effort"]


@dataclass(frozen=True, slots=True)
class QualityFloor:
    """Spend as little as possible while the batch's mean predicted quality is at least `alpha` (ECCOS, eq. 1).

    `confidence` in (0, 1): the floor holds for the lower bound of the mean at this confidence. The requests may then be
    of a task that the history lacks. None: for the mean itself. A router applies it, an `Optimizer` does not.
    """

    alpha: float
    on_infeasible: OnInfeasible = "error"
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"quality floor is {self.alpha}, must be in [0, 1]")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise InputError(f"the confidence of a quality floor is {self.confidence}, must be above 0 and below 1")


@dataclass(frozen=True, slots=True)
class Budget:
    """Reach the best mean predicted quality for at most `usd` in total for the batch."""

    usd: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd) and self.usd >= 0):
            raise InputError(f"budget is {self.usd} USD, must be a finite number >= 0")


@dataclass(frozen=True, slots=True)
class QualityPrice:
    """Buy quality for as long as a point of it costs no more than `usd_per_quality_point`.

    One point is 0.01 of quality, so lambda = 100 * usd_per_quality_point.
    """

    usd_per_quality_point: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd_per_quality) and self.usd_per_quality >= 0):
            raise InputError(f"usd_per_quality_point is {self.usd_per_quality_point}, must be a number from 0 to 1e306")

    @property
    def usd_per_quality(self) -> float:
        """Lambda: USD per unit of quality (from 0 to 1)."""
        return 100 * self.usd_per_quality_point


Policy: TypeAlias = QualityFloor | Budget | QualityPrice


@dataclass(frozen=True, slots=True)
class LatencyRule:
    """What waiting is worth, beside the policy.

    A decision counts `usd_per_second` for each second that a model's recent answers took on average. The bill does not.
    A model is left out while nine in ten of its recent answers took longer than `max_latency_s`.
    """

    usd_per_second: float = 0.0
    max_latency_s: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd_per_second) and self.usd_per_second >= 0):
            raise InputError(f"usd_per_second is {self.usd_per_second}, must be a finite number >= 0")
        if self.max_latency_s is not None and not self.max_latency_s > 0:
            raise InputError(f"max_latency_s is {self.max_latency_s}, must be more than 0")

    @property
    def is_off(self) -> bool:
        """Whether waiting counts for nothing."""
        return self.usd_per_second == 0 and self.max_latency_s is None
