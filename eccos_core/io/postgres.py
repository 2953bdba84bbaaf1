"""Connections to a PostgreSQL database, for parts that keep what several replicas share.

No message shows the address, because it may hold a password.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eccos_core.errors import DatabaseAwayError, DataError, InputError
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.optional import needs_extra

if TYPE_CHECKING:
    import psycopg

CONNECT_S = 5
MAX_IDLE = 4  # connections that wait for the next use
_OPTIONS: dict[str, str | int] = {
    "connect_timeout": CONNECT_S,
    "application_name": "eccos",
    # a server that vanished without a word is noticed in 10 s
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_GOING_AWAY = ("57P", "080")  # SQL states of a server that shuts down, and of a connection that has broken
_REFUSED = {  # what the server says, and what that means
    "password authentication failed": "refuses the password of user {user!r}",
    "no password supplied": "asks for a password of user {user!r}, and the address has none",
    "no pg_hba.conf entry": "lets user {user!r} not in from this machine (pg_hba.conf)",
    "authentication failed": "does not accept user {user!r}",
    "role ": "has no user {user!r}",
    "database ": "has no database {dbname!r}",
}


def name_replica() -> str:
    """Make a name for this process among all that share a database: host, process id, and four random digits."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:4]}"


class PostgresPool:
    """A few connections to one database. Safe to use from several threads.

    `address`: `postgresql://user:password@host/name`. `purpose` is the subject of messages. Raises `InputError` for an
    address that cannot be read, and `MissingDependencyError` without psycopg. Nothing is connected yet.
    """

    def __init__(self, address: str, purpose: str) -> None:
        with needs_extra("postgres", f"{purpose} in PostgreSQL"):
            import psycopg
            from psycopg.conninfo import conninfo_to_dict, make_conninfo
            from psycopg.rows import dict_row, tuple_row
        self._psycopg, self.purpose = psycopg, purpose
        self._as_mapping, self._as_tuple = dict_row, tuple_row
        try:
            parts = conninfo_to_dict(address)
            self._conninfo = make_conninfo(address, **_OPTIONS)
        except psycopg.Error:
            raise InputError(f"{purpose}: the address must be postgresql://user:password@host/name") from None
        self.parts = {"user": "", "dbname": "", **parts}
        port = f":{parts['port']}" if parts.get("port") else ""
        self.place = f"postgresql://{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or ''}"
        self._guard = ProcessGuard(f"{purpose} {self.place}")
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        self._closed = False

    @property
    def error(self) -> type[psycopg.Error]:
        """The base class of what a connection raises."""
        return self._psycopg.Error

    @property
    def errors_of_values(self) -> tuple[type[Exception], ...]:
        """What a value raises that the database cannot store."""
        found = self._psycopg
        return ValueError, OverflowError, found.DataError, found.IntegrityError, found.NotSupportedError

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Hold a connection in a transaction, which is committed at the end, or rolled back by an error.

        Raises `psycopg.Error` as it comes. A connection that an error has broken is not used again.
        """
        self._guard.check()
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._psycopg.connect(self._conninfo, autocommit=True)
        try:
            with connection.transaction():
                yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < MAX_IDLE and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def read(self, query: str, values: Sequence[object] = (), *, as_mappings: bool = False) -> list[Any]:
        """Return the rows of a query. One that met a connection which had died meanwhile is asked again.

        Raises `DatabaseAwayError` where the database does not answer, and `DataError` for a query that fails.
        """
        with self.told():
            try:
                return self._fetch(query, values, as_mappings=as_mappings)
            except self._psycopg.OperationalError:
                self.forget_idle()
                return self._fetch(query, values, as_mappings=as_mappings)

    def write(self, statement: str, values: Sequence[object]) -> list[Any]:
        """Run a statement in a transaction of its own, and return the rows that it returns.

        Raises as `read` does. It is not tried again, because it may have arrived.
        """
        with self.told():
            return self._fetch(statement, values, as_mappings=False)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what psycopg raises into a `DataError` in words: a `DatabaseAwayError` where nobody answers."""
        try:
            yield
        except self._psycopg.OperationalError as error:
            self.forget_idle()
            raise DatabaseAwayError(self.place, self.explain(error)) from None
        except self._psycopg.Error as error:
            raise DataError(self.place, self.explain(error)) from None

    def explain(self, error: BaseException) -> str:
        """Say in words what went wrong, without anything that an address holds beside user and names."""
        said = str(error).partition("\n")[0]
        if self.refusal(error) is not None:
            return f"the database {self.refusal(error)}"
        state = getattr(error, "sqlstate", None)
        if isinstance(error, self._psycopg.OperationalError) and (state is None or state[:3] in _GOING_AWAY):
            return "the database does not answer. Is it there, and can this machine reach it?"
        return f"the database says: {said[:200]} ({type(error).__name__})"

    def refusal(self, error: BaseException) -> str | None:
        """Say why the server does not let this user in. None for any other error, such as a server that is away."""
        said = str(error)
        if not isinstance(error, self._psycopg.OperationalError) or "FATAL" not in said:
            return None
        for sign, meaning in _REFUSED.items():
            if sign in said and (not sign.endswith(" ") or "does not exist" in said):
                return meaning.format(**self.parts)
        return None

    def forget_idle(self) -> None:
        """Close the connections that nobody uses now. The server may have closed them already."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close the connections. One that is in use is closed when its transaction ends."""
        self._closed = True
        if not self._guard.is_forked:
            self.forget_idle()

    def _fetch(self, query: str, values: Sequence[object], *, as_mappings: bool) -> list[Any]:
        with self.transaction() as connection:
            cursor: Any = connection.cursor(row_factory=self._as_mapping if as_mappings else self._as_tuple)
            with cursor:
                return list(cursor.execute(query.encode(), tuple(values)).fetchall())
