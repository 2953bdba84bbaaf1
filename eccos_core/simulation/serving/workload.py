"""What a serving engine is asked: when, how long each prompt is, and how long each answer really becomes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import read_byte_lines

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


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


def read_serving_workload(path: Path, limit_tokens: int | None = None) -> ServingWorkload:
    """Read a CSV file with Azure's columns `TIMESTAMP, ContextTokens, GeneratedTokens`, plain or gzip.

    `limit_tokens` is every request's limit, the longest answer of the file where it is None. Raises `DataError` with
    the line of a wrong value.
    """
    file = str(path)
    lines = ((number, raw.decode("utf-8", "replace")) for number, raw in read_byte_lines(path))
    reader = csv.reader(text for _, text in lines)
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise DataError(file, f"lacks the columns {', '.join(missing)}; a serving trace has {', '.join(_COLUMNS)}", 1)
    at = [header.index(name) for name in _COLUMNS]
    found = [_parse_row([row[i] if i < len(row) else "" for i in at], file, reader.line_num) for row in reader if row]
    if not found:
        raise DataError(file, "has no requests; a serving trace has one a row")
    values = np.array(sorted(found, key=lambda row: row[0]), dtype=np.float64)
    tokens = values[:, 1:].astype(np.int64)
    limit = int(tokens[:, 1].max()) if limit_tokens is None else limit_tokens
    return ServingWorkload(
        values[:, 0] - values[0, 0], tokens[:, 0], tokens[:, 1], np.full(len(tokens), limit, dtype=np.int64)
    )


def _parse_row(row: list[str], file: str, line: int) -> tuple[float, int, int]:
    try:
        at = datetime.fromisoformat(row[0].strip()).timestamp()
    except ValueError:
        raise DataError(file, f"TIMESTAMP is {row[0]!r:.60}, must be like 2023-11-16 18:15:46.68", line) from None
    tokens = []
    for name, text in zip(_COLUMNS[1:], row[1:], strict=True):
        if not text.strip().isdecimal() or int(text) < 1:
            raise DataError(file, f"{name} is {text!r:.60}, must be a whole number >= 1", line)
        tokens.append(int(text))
    return at, tokens[0], tokens[1]
