"""The periods that the dashboard can show, and the time steps of its charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eccos_core.errors import did_you_mean
from eccos_core.server.errors import ApiError

HOUR, DAY = 3600.0, 86400.0
PERIODS: Mapping[str, float | None] = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "all": None}
MOST_STEPS = 60
_STEPS_S = (
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` to `until` in s since 1970 (UTC), in steps of `step_s` seconds."""

    since: float
    until: float
    step_s: float

    @property
    def numbers(self) -> range:
        """The numbers of its steps, as `LogFigures` counts them."""
        return range(int(self.since // self.step_s), int((self.until - 1e-6) // self.step_s) + 1)


def read_period(asked: Mapping[str, str]) -> str:
    """Return the name of the period that is asked for. Raises `ApiError` for an unknown one."""
    name = asked.get("period", "24h")
    if name not in PERIODS:
        hint = did_you_mean(name, PERIODS) or "."
        raise ApiError("invalid_request", f"period {name!r} is unknown{hint} There are: {', '.join(PERIODS)}")
    return name


def period_until(name: str, until: float, first_at: float | None) -> Period:
    """Return a period that ends at `until`. `all` begins with the first decision."""
    length = PERIODS[name]
    since = until - length if length is not None else min(first_at if first_at is not None else until, until - 1)
    step = next((step for step in _STEPS_S if (until - since) / step <= MOST_STEPS), _STEPS_S[-1])
    return Period(since, until, step)
