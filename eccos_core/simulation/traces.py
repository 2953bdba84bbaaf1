"""Read a trace of requests: Azure's LLM requests, Acme's jobs, or the decision log of eccos.

- Azure (`AzurePublicDataset`): `TIMESTAMP,ContextTokens,GeneratedTokens`. The size of a request is its generated
  tokens.
- Acme (`InternLM/AcmeTrace`, `trace_seren.csv`, `trace_kalos.csv`): `submit_time`, `duration` in s, `gpu_num`. A row is
  a training job, and its duration is its service time. The size is its GPU seconds, 0 for a job without a GPU. It has
  no tokens.
- eccos: a SQLite decision log, the address of one in PostgreSQL, what `eccos log --json` prints, or JSON Lines with
  `at` (s since 1970), `input_tokens` and `output_tokens`. The size is the output tokens, unknown where there was no
  answer.

A file is plain or gzip. Rows may stand in any order. Other columns are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from eccos_core.decision_log.arrivals import SQLITE_HEADER, read_postgres_arrivals, read_sqlite_arrivals
from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import read_byte_lines
from eccos_core.simulation.trace_rows import (
    SKIP,
    BadRows,
    TraceFormat,
    TraceRow,
    parse_rows,
    read_csv,
    read_entries,
)

_POSTGRES = ("postgresql://", "postgres://")
_TOKEN_COLUMNS: dict[TraceFormat, tuple[str, str]] = {
    "azure": ("column ContextTokens", "column GeneratedTokens"),
    "decision log": ("`input_tokens`", "`output_tokens`"),
}


@dataclass(frozen=True, slots=True, eq=False)
class ArrivalTrace:
    """The requests of a trace in the order of arrival. All arrays are (N,). NaN is unknown.

    times_s: s since the first. size: how large each request is, in the format's unit. input_tokens, output_tokens: of
    requests, unknown for jobs. line: where each stands in the file. skipped: how many bad rows were left out.
    """

    file: str
    format: TraceFormat
    times_s: FloatArray
    size: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    line: IntArray
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

    def describe(self) -> str:
        """Say what the trace is, for a report. A database is named without its password."""
        of = "acme: training jobs, of which the times are taken" if self.format == "acme" else self.format
        skipped = f", {self.skipped:,} bad rows left out" if self.skipped else ""
        return f"trace:{self.file} ({of}{skipped})"

    def first(self, count: int) -> ArrivalTrace:
        """Return the first `count` requests. Raises `InputError` where the trace has fewer."""
        if count > len(self):
            raise InputError(f"--count is {count:,}, but the trace has {len(self):,} requests. Give at most that many.")
        return self._rows(np.arange(count))

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

    def with_tokens(self, bad_rows: BadRows = "refuse") -> ArrivalTrace:
        """Return the requests that an engine can serve: a prompt and an answer of one token or more.

        Raises `DataError` with file, line and column for another, unless `bad_rows` is "skip", and for jobs.
        """
        if self.format not in _TOKEN_COLUMNS:
            raise DataError(
                self.file,
                "the rows are training jobs without tokens, which no serving engine can be asked for. Compare routers "
                "with --data and --prices, where a job's time is an arrival, or give a trace with tokens.",
            )
        for name, tokens in zip(_TOKEN_COLUMNS[self.format], (self.input_tokens, self.output_tokens), strict=True):
            wrong = np.flatnonzero(~(tokens >= 1))
            if len(wrong) and bad_rows == "refuse":
                at = int(wrong[0])
                said = "missing" if np.isnan(tokens[at]) else f"{tokens[at]:g}"
                rule = f"{name} is {said}. An engine needs a whole number >= 1. {SKIP}"
                raise DataError(self.file, rule, int(self.line[at]))
        good = np.flatnonzero((self.input_tokens >= 1) & (self.output_tokens >= 1))
        if not len(good):
            raise DataError(self.file, "the trace holds no request with a prompt and an answer. Give one that does.")
        return replace(self._rows(good), skipped=self.skipped + len(self) - len(good))

    def _rows(self, rows: IntArray) -> ArrivalTrace:
        arrays = ("times_s", "size", "input_tokens", "output_tokens", "line")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})


def read_trace(place: str | Path, bad_rows: BadRows = "refuse") -> ArrivalTrace:
    """Read a trace from a file, or from a decision log at a PostgreSQL address. Its columns say the format.

    Raises `DataError` with file and line for a row with a missing or impossible value, unless `bad_rows` is "skip",
    and for a file of no known format or without any request.
    """
    file, skipped = str(place), 0
    format_: TraceFormat = "decision log"
    if file.startswith(_POSTGRES):
        file, logged = read_postgres_arrivals(file)
        rows = [TraceRow.of_log(number, *arrival) for number, arrival in enumerate(logged, start=1)]
    else:
        lines = read_byte_lines(place)
        first = next(lines, (1, b""))
        if first[1].startswith(SQLITE_HEADER):
            rows = [TraceRow.of_log(number, *arrival) for number, arrival in enumerate(read_sqlite_arrivals(place), 1)]
        elif first[1].lstrip()[:1] in (b"{", b"["):
            entries, parse = read_entries(chain([first], lines), file)
            rows, skipped = parse_rows(entries, parse, file, bad_rows)
        else:
            format_, found, parse = read_csv(chain([first], lines), file)
            rows, skipped = parse_rows(found, parse, file, bad_rows)
    if not rows:
        left_out = f" {skipped:,} bad rows were left out." if skipped else ""
        raise DataError(file, f"the trace holds no requests.{left_out} Give a file with one request a row.")
    rows.sort(key=lambda row: row.at)
    at, size, asked, written = (
        np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("at", "size", "input_tokens", "output_tokens")
    )
    places = np.array([row.line for row in rows], dtype=np.int64)
    return ArrivalTrace(file, format_, at - at[0], size, asked, written, places, skipped)
