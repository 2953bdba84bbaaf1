"""Read arrivals from a trace: Azure's LLM requests, Acme's jobs, or the decision log of eccos.

- Azure (`AzurePublicDataset`): `TIMESTAMP,ContextTokens,GeneratedTokens`. The size of a request is its generated
  tokens.
- Acme (`InternLM/AcmeTrace`, `trace_seren.csv`, `trace_kalos.csv`): `submit_time`, `duration` in s, `gpu_num`. The size
  of a job is its GPU seconds, 0 for a job without a GPU.
- eccos: a SQLite decision log, or what `eccos log --json` prints, or JSON Lines with `at` (s since 1970) and
  `output_tokens`. The size is the output tokens, unknown where there was no answer.

A file is plain or gzip. Rows may stand in any order. Other columns are ignored.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eccos_core.decision_log.arrivals import SQLITE_HEADER, read_arrivals
from eccos_core.domain import FloatArray
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import describe, parse_object, read_byte_lines

TraceFormat = Literal["azure", "acme", "decision log"]
BadRows = Literal["refuse", "skip"]

_COLUMNS: dict[TraceFormat, tuple[str, ...]] = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "acme": ("submit_time", "duration", "gpu_num"),
}
_SKIP = "Correct the row, or write trace:FILE,bad=skip to leave such rows out."


@dataclass(frozen=True, slots=True, eq=False)
class ArrivalTrace:
    """The requests of a trace in the order of arrival.

    times_s (N,): s since the first. size (N,): how large each request is, in the format's unit, NaN where unknown.
    skipped: how many bad rows were left out.
    """

    format: TraceFormat
    times_s: FloatArray
    size: FloatArray
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def per_second(self) -> float:
        """The mean rate: arrivals after the first, over the time that they took.

        Raises `InputError` where all come at once.
        """
        lasts = float(self.times_s[-1])
        if lasts <= 0:
            raise InputError(
                f"the trace has {len(self):,} requests and all come at the same moment, so it has no rate. "
                "Give a trace of two moments or more."
            )
        return (len(self) - 1) / lasts

    def describe(self, name: str) -> str:
        """Say what the trace `name` is, for a report."""
        skipped = f", {self.skipped:,} bad rows left out" if self.skipped else ""
        return f"{name} ({self.format}{skipped})"

    def first(self, count: int) -> ArrivalTrace:
        """Return the first `count` requests. Raises `InputError` where the trace has fewer."""
        if count > len(self):
            raise InputError(f"--count is {count:,}, but the trace has {len(self):,} requests. Give at most that many.")
        return replace(self, times_s=self.times_s[:count], size=self.size[:count])

    def at_speed(self, speed: float) -> ArrivalTrace:
        """Return the same requests, `speed` times as fast."""
        if not (math.isfinite(speed) and speed > 0):
            raise InputError(f"the speed of a trace is {speed:g}, must be a finite number > 0")
        return replace(self, times_s=self.times_s / speed)

    def at_rate(self, per_second: float) -> ArrivalTrace:
        """Return the same requests at a mean rate, with the pattern of the trace."""
        if not (math.isfinite(per_second) and per_second > 0):
            raise InputError(f"arrivals come at {per_second:g} requests per second, must be a finite number > 0")
        return self.at_speed(per_second / self.per_second)


def read_trace(path: str | Path, bad_rows: BadRows = "refuse") -> ArrivalTrace:
    """Read a trace. Its columns say the format.

    Raises `DataError` with file and line for a row with a missing or impossible value, unless `bad_rows` is "skip",
    and for a file of no known format or without any request.
    """
    file = str(path)
    lines = read_byte_lines(path)
    first = next(lines, (1, b""))
    skipped = 0
    if first[1].startswith(SQLITE_HEADER):
        format_: TraceFormat = "decision log"
        pairs = [(at, math.nan if size is None else float(size)) for at, size in read_arrivals(path)]
    elif first[1].lstrip()[:1] in (b"{", b"["):
        format_ = "decision log"
        pairs, skipped = _parse_rows(_read_entries(chain([first], lines), file), _parse_entry, file, bad_rows)
    else:
        format_, rows, parse = _read_csv(chain([first], lines), file)
        pairs, skipped = _parse_rows(rows, parse, file, bad_rows)
    if not pairs:
        left_out = f" {skipped:,} bad rows were left out." if skipped else ""
        raise DataError(file, f"the trace holds no requests.{left_out} Give a file with one request a row.")
    values = np.array(pairs, dtype=np.float64)
    values = values[np.argsort(values[:, 0], kind="stable")]
    return ArrivalTrace(format_, values[:, 0] - values[0, 0], values[:, 1].copy(), skipped)


_Row = Mapping[str, Any]
_Parse = Callable[[_Row], tuple[float, float]]


def _parse_rows(
    rows: Iterable[tuple[int, _Row]], parse: _Parse, file: str, bad_rows: BadRows
) -> tuple[list[tuple[float, float]], int]:
    pairs, skipped = [], 0
    for line, row in rows:
        try:
            pairs.append(parse(row))
        except ValueError as error:
            if bad_rows == "refuse":
                raise DataError(file, f"{error} {_SKIP}", line) from None
            skipped += 1
    return pairs, skipped


# ------------------------------------------------------------------------------------------------------------ CSV


def _read_csv(lines: Iterator[tuple[int, bytes]], file: str) -> tuple[TraceFormat, Iterator[tuple[int, _Row]], _Parse]:
    """Return the format, the rows with their line numbers, and the function that reads a row."""
    reader = csv.reader(_decode(lines, file), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(file, f"not CSV ({error})", reader.line_num) from None
    format_ = next((name for name, needed in _COLUMNS.items() if set(needed) <= set(header)), None)
    if format_ is None:
        known = "; ".join(f"{name}: {', '.join(needed)}" for name, needed in _COLUMNS.items())
        named = ", ".join(header[:12]) or "none"
        raise DataError(file, f"the columns are of no known trace. They are: {named[:200]}. Needed are {known}.", 1)
    return format_, _csv_rows(reader, header, file), _AzureParser() if format_ == "azure" else _AcmeParser()


def _decode(lines: Iterator[tuple[int, bytes]], file: str) -> Iterator[str]:
    for line, raw in lines:
        try:
            yield raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                file, f"not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1})", line
            ) from None


def _csv_rows(reader: Any, header: list[str], file: str) -> Iterator[tuple[int, _Row]]:
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(file, f"not CSV ({error})", line) from None
        if values:
            yield line, dict(zip(header, values, strict=False))


class _TimeParser:
    """Reads the times of one file. Without a zone they are UTC. All have a zone, or none has."""

    def __init__(self) -> None:
        self._has_zone: bool | None = None

    def parse(self, row: _Row, column: str) -> float:
        """Return s since 1970. Raises `ValueError`."""
        text = _text(row, column, "a time such as 2023-11-16 18:15:46.68")
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"column {column} is {text!r:.80}. It must be a time such as 2023-11-16 18:15:46.68."
            ) from None
        has_zone = moment.tzinfo is not None
        if self._has_zone is None:
            self._has_zone = has_zone
        if has_zone != self._has_zone:
            says, others = ("has a", "have none") if has_zone else ("has no", "have one")
            raise ValueError(f"column {column} is {text!r:.80}, which {says} time zone, but earlier rows {others}.")
        return (moment if has_zone else moment.replace(tzinfo=UTC)).timestamp()


class _AzureParser(_TimeParser):
    def __call__(self, row: _Row) -> tuple[float, float]:
        _number(row, "ContextTokens", whole=True)
        return self.parse(row, "TIMESTAMP"), _number(row, "GeneratedTokens", whole=True)


class _AcmeParser(_TimeParser):
    def __call__(self, row: _Row) -> tuple[float, float]:
        seconds, gpus = _number(row, "duration", whole=False), _number(row, "gpu_num", whole=True)
        return self.parse(row, "submit_time"), seconds * gpus


def _text(row: _Row, column: str, needed: str) -> str:
    value = str(row.get(column, "")).strip()
    if not value:
        raise ValueError(f"column {column} is empty. It must be {needed}.")
    return value


def _number(row: _Row, column: str, *, whole: bool) -> float:
    needed = "a whole number >= 0" if whole else "a number >= 0"
    text = _text(row, column, needed)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0) or (whole and value != int(value)):
        raise ValueError(f"column {column} is {text!r:.80}. It must be {needed}.")
    return value


# ------------------------------------------------------------------------------------------------------------ JSON


def _read_entries(lines: Iterator[tuple[int, bytes]], file: str) -> Iterator[tuple[int, _Row]]:
    """Yield the entries of JSON Lines with their lines, or those of one JSON list with their positions."""
    first = next(lines)
    if not first[1].lstrip().startswith(b"["):
        for line, raw in chain([first], lines):
            if raw.strip():
                yield line, parse_object(raw, file, line)
        return
    try:
        entries = json.loads(b"".join([first[1], *(raw for _, raw in lines)]))
    except (ValueError, RecursionError) as error:
        raise DataError(file, f"not JSON that can be read ({error})") from None
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise DataError(file, f"entry {position} must be a JSON object, it is {describe(entry)}")
        yield position, entry


def _parse_entry(entry: _Row) -> tuple[float, float]:
    at, tokens = entry.get("at"), entry.get("output_tokens")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise ValueError(f"`at` is {describe(at)}. It must be a number, the seconds since 1970.")
    if tokens is None:
        return float(at), math.nan
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise ValueError(f"`output_tokens` is {describe(tokens)}. It must be a whole number >= 0, or null.")
    return float(at), float(tokens)
