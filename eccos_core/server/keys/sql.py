"""Runs the statements that every request needs. They are plain SQL, which both databases understand.

Building a statement from SQLAlchemy's parts takes longer than SQLite needs to run it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from eccos_core.io.optional import needs_extra

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection, CursorResult

_NAMED = re.compile(r":(\w+)")


def run(connection: Connection, statement: str, **values: object) -> CursorResult[Any]:
    """Run a statement. A word such as `:name` stands for the value of that name."""
    return connection.exec_driver_sql(_written_for(connection.dialect.name, statement), values)


@cache
def _written_for(dialect: str, statement: str) -> str:
    """Write the places of values as the driver wants them: psycopg as `%(name)s`, sqlite3 as `:name`."""
    return _NAMED.sub(r"%(\1)s", statement) if dialect == "postgresql" else statement
