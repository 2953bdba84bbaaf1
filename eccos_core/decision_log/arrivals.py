"""Read when the decisions of a log were made, and how many tokens each took. The log is only read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from eccos_core.errors import DataError

SQLITE_HEADER = b"SQLite format 3\x00"

Arrival = tuple[float, int | None]  # (s since 1970, output tokens or None where no answer was logged)


def read_arrivals(path: str | Path) -> list[Arrival]:
    """Return the arrival and the output tokens of every decision of a SQLite decision log, the oldest first.

    Raises `DataError` for a file that is no decision log.
    """
    try:
        connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT at, output_tokens FROM decisions ORDER BY at").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(str(path), f"cannot be read as a decision log ({error})") from error
