"""Opens the decision log that a configuration names."""

from __future__ import annotations

from pathlib import Path

from eccos_core.decision_log.base import BaseDecisionLog
from eccos_core.decision_log.postgres import PostgresDecisionLog
from eccos_core.decision_log.sqlite import DecisionLog


def open_decision_log(
    path: Path | None, database: str | None, *, log_prompts: bool, keep_days: int | None = None
) -> BaseDecisionLog | None:
    """Open the log in a PostgreSQL `database`, or else in the SQLite file `path`. None without either.

    With `keep_days` it deletes older decisions while it writes.
    Raises `InputError` for a database that lets this user not in, and `MissingDependencyError` without psycopg.
    """
    if database is not None:
        return PostgresDecisionLog(database, log_prompts=log_prompts, keep_days=keep_days)
    return None if path is None else DecisionLog(path, log_prompts=log_prompts, keep_days=keep_days)
