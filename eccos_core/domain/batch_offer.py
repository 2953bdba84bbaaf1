"""What a provider's batch API offers: a discount, for patience."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eccos_core.errors import InputError

BATCH_ARM = "@batch"
"""Ends the name of a model that is called through its provider's batch API: `large@batch`."""


@dataclass(frozen=True, slots=True)
class BatchOffer:
    """A discount on the price of every token, in [0, 1), for answers within `within_s` seconds.

    Raises `InputError` for a discount outside of [0, 1) and for a time that is not above 0.
    """

    discount: float = 0.5
    within_s: float = 86_400.0

    def __post_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise InputError(f"the discount of a batch API is {self.discount}, must be at least 0 and below 1")
        if not (math.isfinite(self.within_s) and self.within_s > 0):
            raise InputError(f"within_s of a batch API is {self.within_s}, must be a number of seconds > 0")

    @property
    def price_share(self) -> float:
        """What is paid of the usual price, in (0, 1]."""
        return 1.0 - self.discount


def batch_arm(model: str) -> str:
    """Name a model that is called through its provider's batch API."""
    return f"{model}{BATCH_ARM}"
