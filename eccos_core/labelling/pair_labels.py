"""Turn a comparison of two answers into labels."""

from __future__ import annotations

from eccos_core.grading.pairwise import Preference

LEAD = 0.1  # the least by which the better answer leads: one point of the judge's ten


def reconcile(first: float, second: float, preference: Preference) -> tuple[float, float]:
    """Return the labels of two answers, from their grades in [0, 1] and from which of them the judge prefers.

    The better answer leads by at least 0.1, and after a tie both are equal. Grades that already say so stay. The others
    move as little as they can, by least squares, so their mean stays: grades have no use where the judge, asked
    directly, says something else.
    """
    if preference == "second":
        swapped = reconcile(second, first, "first")
        return swapped[1], swapped[0]
    lead = 0.0 if preference == "tie" else LEAD
    if first - second >= lead and preference == "first":
        return first, second
    middle = min(max((first + second) / 2, lead / 2), 1 - lead / 2)
    return middle + lead / 2, middle - lead / 2
