"""Scores of people and evaluators, on a scale of their own, become qualities in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

from eccos_core.errors import InputError


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """The lowest and the highest score. Raises `InputError` when the highest is not above the lowest.

    `set_by` is the code that sets another scale, for messages.
    """

    lowest: float
    highest: float
    set_by: str

    def __post_init__(self) -> None:
        if not self.highest > self.lowest:
            raise InputError(
                f"a scale from {self.lowest} to {self.highest} has no length. The highest score must be above the "
                f"lowest. Set it with {self.set_by}."
            )

    def to_quality(self, score: float) -> float:
        """Return the quality in [0, 1] of a score. Raise `InputError` for a score outside the scale."""
        if not self.lowest <= score <= self.highest:
            raise InputError(
                f"score {score} is outside the scale from {self.lowest} to {self.highest}. "
                f"Set another scale with {self.set_by}."
            )
        return (score - self.lowest) / (self.highest - self.lowest)
