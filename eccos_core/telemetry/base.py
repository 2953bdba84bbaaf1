"""The protocol of telemetry, and `NO_TELEMETRY`, which does nothing and costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeAlias

from eccos_core.domain import Decision, DriftAlarm, Request

Step: TypeAlias = Literal["complete", "route", "predict", "optimise"]


class Telemetry(Protocol):
    """Observe every step of a decision. Must never raise or block, and must keep no text unless configured to."""

    def step(self, name: Step, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """Wrap one step for these requests. Never hold it across a `yield`, because the caller has its own context."""
        ...

    def record_decisions(self, decisions: Sequence[Decision]) -> None:
        """Record decisions that were made."""
        ...

    def record_drift(self, alarm: DriftAlarm) -> None:
        """Record that a model has become worse."""
        ...


class NoTelemetry:
    """The `Telemetry` that is off."""

    _nothing: AbstractContextManager[None] = nullcontext()

    def step(self, name: Step, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """See `Telemetry`."""
        return self._nothing

    def record_decisions(self, decisions: Sequence[Decision]) -> None:
        """See `Telemetry`."""

    def record_drift(self, alarm: DriftAlarm) -> None:
        """See `Telemetry`."""


NO_TELEMETRY = NoTelemetry()
