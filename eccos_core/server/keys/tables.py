"""The tables of keys and budgets, and how SQLite and PostgreSQL are opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra

with needs_extra("server", "the database of keys"):
    from sqlalchemy import (
        BigInteger,
        Boolean,
        Column,
        Double,
        Engine,
        Index,
        MetaData,
        String,
        Table,
        create_engine,
        event,
    )
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError

BUSY_S = 10.0  # how long a write waits for another process that writes
POSTGRES_CONNECTIONS = 8

metadata = MetaData()
keys = Table(
    "eccos_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", String, nullable=False),
    Column("name", String, nullable=False),
    Column("tenant", String),
    Column("usd_per_month", Double),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("expires_at", Double),
    Column("models", String),
    Column("policies", String),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)
rates = Table(
    "eccos_rates",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("paid_until", Double, nullable=False),
)
accounts = Table(
    "eccos_accounts",
    metadata,
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("month", String, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)
reservations = Table(
    "eccos_reservations",
    metadata,
    Column("id", String, primary_key=True),
    Column("process", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("tenant", String),
    Column("month", String, nullable=False),
    Column("nano", BigInteger, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("is_closed", Boolean, nullable=False),
    Index("eccos_reservations_process", "process"),
)
processes = Table(
    "eccos_processes",
    metadata,
    Column("id", String, primary_key=True),
    Column("seen_at", Double, nullable=False),
)


def read_address(database: str | Path) -> URL | Path:
    """Return the file of a SQLite database, or the address of a PostgreSQL one. Raises `InputError`.

    No message shows the address, because it may hold a password.
    """
    if isinstance(database, Path) or "://" not in database:
        return Path(database).expanduser()
    try:
        url = make_url(database)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        rule = "a file for SQLite, or postgresql://user:password@host/name for PostgreSQL"
        raise InputError(f"the database of keys must be {rule}")
    return url.set(drivername="postgresql+psycopg")


def open_engine(database: str | Path) -> Engine:
    """Open the database, and make its tables where they are missing. Raises `InputError` and `MissingDependencyError`.

    SQLite runs in WAL mode with `synchronous=NORMAL`. A killed process loses nothing that was committed. A power cut
    may lose the newest commits, and never the file. Errors never show the values of a statement.
    """
    place = read_address(database)
    engine = _open_sqlite(place) if isinstance(place, Path) else _open_postgres(place)
    try:
        try:
            metadata.create_all(engine)
        except DBAPIError:  # another process made them at the same moment
            metadata.create_all(engine)
    except DBAPIError as error:
        engine.dispose()
        shown = place if isinstance(place, Path) else f"{place.host or 'localhost'}/{place.database}"
        reason = type(error.orig).__name__
        raise InputError(f"the database of keys {shown} cannot be opened ({reason}). Is it there, and yours?") from None
    return engine


def _open_postgres(url: URL) -> Engine:
    with needs_extra("postgres", "a database of keys in PostgreSQL"):
        import psycopg  # noqa: F401 - so that a missing driver is said by its extra
    return create_engine(url, hide_parameters=True, pool_size=POSTGRES_CONNECTIONS, pool_pre_ping=True)


def _open_sqlite(path: Path) -> Engine:
    if sqlite3.sqlite_version_info < (3, 35):
        told = f"the SQLite of this Python is {sqlite3.sqlite_version}, and keys need 3.35"
        raise InputError(f"{told}. Use a newer Python, or PostgreSQL.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # for its owner only
    except OSError as error:
        raise InputError(f"the database of keys {path} cannot be opened: {error.strerror}") from None
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_S, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # a transaction that reads first and writes later could fail half way, so a writer locks at once
        options = connection.get_execution_options()
        if options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("eccos_write", False) else "BEGIN")

    return engine
