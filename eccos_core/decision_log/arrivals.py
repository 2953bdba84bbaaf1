"""Read when the decisions of a log were made, and how many tokens each took. The log is only read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from eccos_core.errors import DataError
from eccos_core.io.postgres import PostgresPool

SQLITE_HEADER = b"SQLite format 3\x00"
_COLUMNS = "SELECT at, input_tokens, output_tokens FROM"

Arrival = tuple[float, int | None, int | None]  # (s since 1970, input and output tokens or None where none was logged)


def read_sqlite_arrivals(path: str | Path) -> list[Arrival]:
    """Return the arrival and the tokens of every decision of a SQLite decision log, the oldest first.

    Raises `DataError` for a file that is no decision log.
    """
    try:
        connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(f"{_COLUMNS} decisions ORDER BY at").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(str(path), f"cannot be read as a decision log ({error})") from error


def read_postgres_arrivals(address: str) -> tuple[str, list[Arrival]]:
    """Return the place of a decision log in PostgreSQL, without its password, and its arrivals, the oldest first.

    Raises `InputError` for an address that cannot be read, `DataError` where the database does not answer or holds no
    decision log, and `MissingDependencyError` without psycopg.
    """
    pool = PostgresPool(address, "the decision log")
    try:
        return pool.place, pool.read(f"{_COLUMNS} eccos_decisions ORDER BY at")
    finally:
        pool.close()
