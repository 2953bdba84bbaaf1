"""How good each step of an agent's run was, from what its tools said and from how the run ended."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.errors import InputError

DISCOUNT = 0.5


def credit_steps(went_well: Sequence[bool], run_quality: float, discount: float = DISCOUNT) -> list[float]:
    """Return the label of each step of a run in [0, 1], in order.

    `went_well`: whether the tools of each step did not fail. `run_quality`: how good the run was, in [0, 1].

    A step whose tool failed gets 0. Any other gets `1 - discount`, plus `discount` times the label of the next step.
    The run's quality stands for what follows the last step. So a step that left a fault behind shares the blame of the
    failure that shows it. Failures far ahead count less: each step between takes a factor of `discount`. With 0 a label
    tells about its own step alone. With 1 it is the run's quality after the last failure.

    This is the discounted return of a run that ends at its next failure (Sutton and Barto, 2018, section 3.3).
    Raises `InputError` for a quality or a discount outside [0, 1].
    """
    for name, value in (("run_quality", run_quality), ("discount", discount)):
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name} is {value}, must be between 0 and 1")
    label, labels = float(run_quality), []
    for good in reversed(went_well):
        label = 1.0 - discount + discount * label if good else 0.0
        labels.append(label)
    return labels[::-1]
