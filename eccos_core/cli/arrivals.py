"""Read `--arrivals`: `poisson`, `bursty`, or `trace:FILE`, and draw the times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eccos_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from eccos_core.domain import FloatArray
    from eccos_core.simulation.trace_rows import BadRows
    from eccos_core.simulation.traces import ArrivalTrace

DRAWN = ("poisson", "bursty")
_TRACE = "trace:"


@dataclass(frozen=True, slots=True)
class TraceArrivals:
    """`trace:FILE,speed=2,bad=skip`. place: a file, or a PostgreSQL address. speed: None where it was not given."""

    place: str
    speed: float | None = None
    bad_rows: BadRows = "refuse"

    def read(self, count: int | None, rate: float | None, load_rate: Callable[[], float] | None) -> ArrivalTrace:
        """Read the trace, its first `count` requests, at the rate that was asked for, or at its own pace.

        load_rate: returns the rate of `--load`, None where that was not given. Raises `InputError` for two paces.
        """
        from eccos_core.simulation.traces import read_trace

        given = [
            name
            for name, value in (("speed=", self.speed), ("--rate", rate), ("--load", load_rate))
            if value is not None
        ]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} both say how fast the trace comes. Give one of them.")
        trace = read_trace(self.place, self.bad_rows)
        if count is not None:
            trace = trace.first(count)
        if self.speed is not None:
            return trace.at_speed(self.speed)
        wanted = load_rate() if load_rate is not None else rate
        return trace if wanted is None else trace.at_rate(wanted)


def parse_arrivals(text: str) -> str | TraceArrivals:
    """Return `poisson`, `bursty`, or the trace. Raises `InputError` for everything else."""
    if text in DRAWN:
        return text
    if not text.startswith(_TRACE):
        known = (*DRAWN, "trace:FILE")
        if "://" in text:  # (it may hold a password)
            raise InputError("--arrivals is an address. Write trace: before it.")
        raise InputError(f"--arrivals is {text!r}{did_you_mean(text, known)} It must be {', '.join(known)}.")
    rest, speed, bad_rows = text.removeprefix(_TRACE), None, "refuse"
    while True:
        head, comma, last = rest.rpartition(",")
        name, equals, value = last.partition("=")
        if not (comma and equals and name in ("speed", "bad")):
            break
        if name == "speed":
            speed = _parse_speed(value)
        elif value in ("skip", "refuse"):
            bad_rows = value
        else:
            raise InputError(f"--arrivals has bad={value}, it must be bad=refuse or bad=skip")
        rest = head
    if not rest:
        raise InputError("--arrivals is trace: without a file. Write trace:FILE.")
    return TraceArrivals(rest, speed, "skip" if bad_rows == "skip" else "refuse")


def _parse_speed(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--arrivals has speed={value}, it must be a number > 0, such as speed=2") from None


def drawn_times(kind: str, requests: int, per_second: float, seed: int) -> FloatArray:
    """Draw arrival times (N,) in s of a Poisson process, or of one with bursts."""
    from eccos_core.simulation import bursty_arrivals, poisson_arrivals

    return (poisson_arrivals if kind == "poisson" else bursty_arrivals)(requests, per_second, seed)
