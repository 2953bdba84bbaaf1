"""The section `eccos.stream`: what a stream promises, and what it may spend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator

from eccos_core.config.problems import show_value
from eccos_core.config.renamed import RENAMED_VALUES
from eccos_core.config.section_model import Count, Found, Positive, SectionModel, Share, WindowMs, problem

RATES = ("usd_per_request", "usd_per_hour", "usd_per_day")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
DURATION = r"^([0-9]{1,6}(?:\.[0-9]+)?) ?(s|min|h|d)$"


def parse_horizon(value: Any) -> int | timedelta:
    """Read a number of requests, at least 2, or a duration such as `1d`, `12h`, `30min` or `90s`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2:
        return value
    written = re.match(DURATION, value) if isinstance(value, str) else None
    if written and float(written[1]) > 0:
        return timedelta(**{UNITS[written[2]]: float(written[1])})
    raise problem(f"is {show_value(value)}, must be a whole number of requests >= 2, or a duration such as 1d or 12h")


def _parse_floor_insurance(value: Any) -> float | Literal["history", "none"]:
    match value:
        case "history" | "none":
            return value  # type: ignore[no-any-return]
        case int() | float() if not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
        case str() if value in RENAMED_VALUES["floor_insurance"]:
            raise problem(f"{value!r} is called {RENAMED_VALUES['floor_insurance'][value]!r} now")
        case _:
            raise problem(f"is {show_value(value)}, must be history, none or a quality between 0 and 1")


class StreamConfig(SectionModel):
    """Requests that come one by one."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [{"not": {"required": list(pair)}} for pair in combinations(RATES, 2)],
            "dependentRequired": {"window_requests": ["promise"]},
        }
    )

    window_ms: WindowMs = Field(
        default=0.0, description="Requests that arrive within this many milliseconds are solved jointly."
    )
    usd_per_request: Positive | None = Field(default=None, description="What a stream may spend per request, in USD.")
    usd_per_hour: Positive | None = Field(default=None, description="What a stream may spend per hour, in USD.")
    usd_per_day: Positive | None = Field(default=None, description="What a stream may spend per day, in USD.")
    promise: Literal["mean", "window"] = Field(
        default="mean",
        description="Which means keep a quality floor. `mean`: the mean over each horizon. `window`: the mean of every "
        "`window_requests` requests in a row, which costs more.",
    )
    horizon: Annotated[
        int | timedelta,
        PlainValidator(
            parse_horizon,
            json_schema_input_type=Annotated[int, Field(ge=2)] | Annotated[str, Field(pattern=DURATION)],
        ),
    ] = Field(
        default=10_000,
        description="Over what a floor's mean is taken. A number of requests, or a duration such as `1d`, `12h`, "
        "`30min` or `90s`.",
    )
    window_requests: Annotated[Count, Field(ge=2)] = Field(
        default=500, description="How many requests a window has. Needs `promise: window`."
    )
    floor_insurance: Annotated[
        float | Literal["history", "none"],
        PlainValidator(_parse_floor_insurance, json_schema_input_type=Literal["history", "none"] | Share),
    ] = Field(
        default="none",
        description="What the windows of a quality floor are insured against. `none`: nothing sudden. `history`: a "
        "stretch as hard as the hardest eighth of the history. A quality from 0 to 1: requests whose best models reach "
        "no more. Insurance costs several times as much where the floor is low. Needs `promise: window`.",
    )

    @classmethod
    def check_keys(cls, given: frozenset[str]) -> str | None:
        """At most one budget rate, and no length of windows without a promise for them."""
        rates = [rate for rate in RATES if rate in given]
        if len(rates) > 1:
            return f"has {' and '.join(rates)}; give at most one budget rate"
        if "window_requests" in given and "promise" not in given:
            return "has window_requests, but keeps the mean over a horizon; add promise: window"
        return None

    def check_values(self) -> Iterator[Found]:
        """Compare the values."""
        if self.promise == "mean" and self.floor_insurance != "none":
            shown = show_value(self.floor_insurance)
            yield ("floor_insurance",), f"is {shown}, but it insures windows only; add promise: window"
