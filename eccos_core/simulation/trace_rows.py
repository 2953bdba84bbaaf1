"""Parse the rows of a trace. Every rule about a row, and every message, stands here."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Literal

from eccos_core.errors import DataError
from eccos_core.io.files import describe, parse_object

TraceFormat = Literal["azure", "acme", "decision log"]
BadRows = Literal["refuse", "skip"]
_RAW = "line"
SKIP = "Correct the row, or write trace:FILE,bad=skip to leave such rows out."

_COLUMNS: dict[TraceFormat, tuple[str, ...]] = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "acme": ("submit_time", "duration", "gpu_num"),
}


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request or job. at: s since 1970. The size is in the format's unit. NaN is unknown."""

    line: int
    at: float
    size: float
    input_tokens: float = math.nan
    output_tokens: float = math.nan

    @classmethod
    def of_log(cls, line: int, at: float, input_tokens: float | None, output_tokens: float | None) -> TraceRow:
        """Return the row of a decision. The tokens are None where they were not logged."""
        asked, written = (math.nan if tokens is None else float(tokens) for tokens in (input_tokens, output_tokens))
        return cls(line, float(at), written, asked, written)


Row = Mapping[str, Any]
Parse = Callable[[int, Row], TraceRow]


def parse_rows(
    rows: Iterable[tuple[int, Row]], parse: Parse, file: str, bad_rows: BadRows
) -> tuple[list[TraceRow], int]:
    """Parse rows, and count those that were left out. Raises `DataError` for a bad row, unless it may be skipped."""
    found, skipped = [], 0
    for line, row in rows:
        try:
            found.append(parse(line, row))
        except DataError:
            if bad_rows == "refuse":
                raise
            skipped += 1
        except ValueError as error:
            if bad_rows == "refuse":
                raise DataError(file, f"{error} {SKIP}", line) from None
            skipped += 1
    return found, skipped


# ------------------------------------------------------------------------------------------------------------ CSV


def read_csv(lines: Iterator[tuple[int, bytes]], file: str) -> tuple[TraceFormat, Iterator[tuple[int, Row]], Parse]:
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


def _csv_rows(reader: Any, header: list[str], file: str) -> Iterator[tuple[int, Row]]:
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

    def parse(self, row: Row, column: str) -> float:
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
    def __call__(self, line: int, row: Row) -> TraceRow:
        asked, written = (_number(row, name, whole=True) for name in ("ContextTokens", "GeneratedTokens"))
        return TraceRow(line, self.parse(row, "TIMESTAMP"), written, asked, written)


class _AcmeParser(_TimeParser):
    def __call__(self, line: int, row: Row) -> TraceRow:
        seconds, gpus = _number(row, "duration", whole=False), _number(row, "gpu_num", whole=True)
        return TraceRow(line, self.parse(row, "submit_time"), seconds * gpus)


def _text(row: Row, column: str, needed: str) -> str:
    value = str(row.get(column, "")).strip()
    if not value:
        raise ValueError(f"column {column} is empty. It must be {needed}.")
    return value


def _number(row: Row, column: str, *, whole: bool) -> float:
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


def read_entries(lines: Iterator[tuple[int, bytes]], file: str) -> tuple[Iterable[tuple[int, Row]], Parse]:
    """Return the entries of JSON Lines with their lines, or those of one JSON list with their positions.

    A line is parsed with its row, so that one that is no JSON is a bad row like any other.
    """
    first = next(lines)
    if not first[1].lstrip().startswith(b"["):
        rows = ((line, {_RAW: raw}) for line, raw in chain([first], lines) if raw.strip())
        return rows, lambda line, row: parse_entry(line, parse_object(row[_RAW], file, line))
    try:
        entries = json.loads(b"".join([first[1], *(raw for _, raw in lines)]))
    except (ValueError, RecursionError) as error:
        raise DataError(file, f"not JSON that can be read ({error})") from None
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise DataError(file, f"entry {position} must be a JSON object, it is {describe(entry)}")
    return list(enumerate(entries, start=1)), parse_entry


def parse_entry(line: int, entry: Row) -> TraceRow:
    """Parse one decision. Raises `ValueError`."""
    at = entry.get("at")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise ValueError(f"`at` is {describe(at)}. It must be a number, the seconds since 1970.")
    tokens = []
    for name in ("input_tokens", "output_tokens"):
        value = entry.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"`{name}` is {describe(value)}. It must be a whole number >= 0, or null.")
        tokens.append(value)
    return TraceRow.of_log(line, at, *tokens)
