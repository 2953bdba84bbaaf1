"""What a router tells whoever observes it; `NO_TELEMETRY` hears nothing and costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeAlias

from eccos_core.domain import Decision, Request

Step: TypeAlias = Literal["complete", "route", "predict", "optimise"]


class Telemetry(Protocol):
    """Hears of every step of a decision. Must never raise, block, or keep text that it was not asked to keep."""

    def step(self, name: Step, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """Around one step for these requests. Never held across a `yield`: a generator's caller has its own context."""
        ...

    def record_decisions(self, made: Sequence[Decision]) -> None:
        """These decisions were made."""
        ...


class NoTelemetry:
    """The `Telemetry` that is off."""

    _nothing: AbstractContextManager[None] = nullcontext()

    def step(self, name: Step, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """See `Telemetry`."""
        return self._nothing

    def record_decisions(self, made: Sequence[Decision]) -> None:
        """See `Telemetry`."""


NO_TELEMETRY = NoTelemetry()
