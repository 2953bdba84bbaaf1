"""Arms: a model and a pack size, written `small*4`. Outcomes, decisions and answers name them like models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WRITTEN = re.compile(r"(.+)\*([1-9][0-9]{0,3})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PackArm:
    """A model that is asked several requests in one call: `size` at most, and more than the next smaller size has.

    With the sizes 2, 4 and 8, `small*4` has the answers of calls with three or four requests.
    """

    model: str
    size: int

    @property
    def name(self) -> str:
        """Return the arm as outcomes write it: `small*4`."""
        return f"{self.model}*{self.size}"


def parse_arm(name: str) -> PackArm | None:
    """Read `small*4`. None for a name that is no arm."""
    found = _WRITTEN.fullmatch(name)
    return None if found is None or int(found[2]) < 2 else PackArm(found[1], int(found[2]))


def model_of(name: str) -> str:
    """Return the model of an arm. Any other name is that of a model."""
    arm = parse_arm(name)
    return name if arm is None else arm.model


def size_class(size: int, sizes: Sequence[int]) -> int:
    """Return the smallest of the ascending `sizes` that is at least `size`."""
    return next(each for each in sizes if each >= size)
