"""Reads rows of a decision log. The queries are the same for every database, and `LogReader` fills in what differs."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# what an older log, which nobody has written to since, may lack
LATER = {"label_source": "NULL", "calls": "'[]'", "quality_asked": "NULL", "left_out": "'[]'", "propensity": "1.0"}
TABLES = ("decisions", "labels", "shadow_labels", "calibrations", "spending")
_PLAIN_NAME = re.compile(r"[ !#-\[\]-~]+")  # ASCII without quotation mark and backslash


class LogReader(ABC):
    """Runs queries against a decision log. Safe to use from several threads.

    In a query `?` stands for a value. A mark such as `{decisions}` stands for a table, for a column that an older log
    may lack, or for what the databases write differently: `{floor}`, `{integer}`, `{least}` and `{rowid}`.
    """

    @abstractmethod
    def rows(self, query: str, values: Sequence[object] = (), *, table: str = "decisions") -> list[Any]:
        """Return the rows of a query. A log that lacks `table` has none."""

    @abstractmethod
    def mappings(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query about decisions, each as a mapping of column names."""

    @abstractmethod
    def has_column(self, table: str, column: str) -> bool:
        """Whether the log has a column. An older log may lack it."""

    @abstractmethod
    def forecast_of(self, model: str, part: int) -> tuple[str, str]:
        """Return an SQL expression for a model's forecast quality (0) or cost in USD (1), and its one value."""


class SqliteReader(LogReader):
    """Reads a SQLite file. A missing file has no rows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, query: str, values: Sequence[object] = (), *, table: str = "decisions") -> list[Any]:
        """See `LogReader`."""
        with self._open() as connection:
            if connection is None or not _columns(connection, table):
                return []
            return connection.execute(query.format(**_marks(connection)), tuple(values)).fetchall()

    def mappings(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """See `LogReader`."""
        with self._open() as connection:
            if connection is None:
                return []
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query.format(**_marks(connection)), tuple(values))]

    def has_column(self, table: str, column: str) -> bool:
        """See `LogReader`."""
        with self._open() as connection:
            return connection is not None and column in _columns(connection, table)

    def forecast_of(self, model: str, part: int) -> tuple[str, str]:
        """See `LogReader`."""
        if _PLAIN_NAME.fullmatch(model):
            return "json_extract(forecast, ?)", f'$."{model}"[{part}]'
        # a JSON path has no way to say some characters
        each = f"SELECT json_extract(each.value, '$[{part}]') FROM json_each(decisions.forecast) AS each"  # noqa: S608 - no value
        return f"({each} WHERE each.key = ?)", model

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        if not self.path.exists():
            yield None
            return
        with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as connection:
            yield connection


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _marks(connection: sqlite3.Connection) -> Mapping[str, str]:
    present = _columns(connection, "decisions")
    later = {name: name if name in present else instead for name, instead in LATER.items()}
    tables = {name: name for name in TABLES}
    return {**later, **tables, "floor": "", "integer": "INTEGER", "least": "min", "rowid": "rowid"}
