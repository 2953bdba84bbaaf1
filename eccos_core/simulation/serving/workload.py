"""What a serving engine is asked: when, how long each prompt is, and how long each answer really becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.simulation.trace_rows import BadRows
from eccos_core.simulation.traces import ArrivalTrace, read_trace


@dataclass(frozen=True, slots=True, eq=False)
class ServingWorkload:
    """N requests in the order of their arrival. All arrays are (N,).

    `arrived_s` counts seconds from any start. `prompt_tokens` and `output_tokens` are at least 1. `limit_tokens` is the
    most that each may generate (its `max_tokens`).
    """

    arrived_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    limit_tokens: IntArray

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.arrived_s, self.prompt_tokens, self.output_tokens, self.limit_tokens)}
        if len(shapes) != 1 or self.arrived_s.ndim != 1 or not len(self.arrived_s):
            raise InputError(f"the arrays of a workload have the shapes {sorted(shapes)}, must all be (N,) with N >= 1")
        if not np.isfinite(self.arrived_s).all() or (np.diff(self.arrived_s) < 0).any():
            raise InputError("arrived_s must be finite and in ascending order; sort the requests by their arrival")
        for name in ("prompt_tokens", "output_tokens"):
            wrong = np.flatnonzero(getattr(self, name) < 1)
            if len(wrong):
                raise InputError(f"{name}[{wrong[0]}] is {getattr(self, name)[wrong[0]]}, must be >= 1")
        over = np.flatnonzero(self.output_tokens > self.limit_tokens)
        if len(over):
            at = over[0]
            raise InputError(
                f"request {at} generates {self.output_tokens[at]} tokens, more than its limit {self.limit_tokens[at]}"
            )

    def __len__(self) -> int:
        return len(self.arrived_s)

    def rows(self, rows: slice) -> ServingWorkload:
        """Return the requests of a slice. Their arrivals are not moved."""
        return ServingWorkload(
            self.arrived_s[rows], self.prompt_tokens[rows], self.output_tokens[rows], self.limit_tokens[rows]
        )

    def at_speed(self, speed: float) -> ServingWorkload:
        """Return the same requests, `speed` times as fast. `inf` lets all arrive at once."""
        if not speed > 0:
            raise InputError(f"speed is {speed}, must be > 0; write inf to let all requests arrive at once")
        arrived = (self.arrived_s - self.arrived_s[0]) / speed
        return ServingWorkload(arrived, self.prompt_tokens, self.output_tokens, self.limit_tokens)


def serving_workload(trace: ArrivalTrace, limit_tokens: int | None = None) -> ServingWorkload:
    """Return what an engine is asked by a trace, whose rows must have tokens (see `ArrivalTrace.with_tokens`).

    `limit_tokens` is every request's limit, the longest answer of the trace where it is None.
    """
    prompts, outputs = trace.input_tokens.astype(np.int64), trace.output_tokens.astype(np.int64)
    limit = int(outputs.max()) if limit_tokens is None else limit_tokens
    times_s = trace.times_s - trace.times_s[0]
    return ServingWorkload(times_s, prompts, outputs, np.full(len(trace), limit, dtype=np.int64))


def read_serving_workload(
    place: str | Path, limit_tokens: int | None = None, bad_rows: BadRows = "refuse"
) -> ServingWorkload:
    """Read a trace of requests with tokens: Azure's columns, or the decision log of eccos. See `read_trace`.

    `limit_tokens` is every request's limit, the longest answer of the trace where it is None. Raises `DataError` with
    the line of a wrong value, and for a trace of jobs without tokens.
    """
    return serving_workload(read_trace(place, bad_rows).with_tokens(bad_rows), limit_tokens)
