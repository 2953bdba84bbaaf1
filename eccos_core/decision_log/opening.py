"""Opens the decision log that a configuration names."""

from __future__ import annotations

from pathlib import Path

from eccos_core.decision_log.base import BaseDecisionLog
from eccos_core.decision_log.postgres import PostgresDecisionLog
from eccos_core.decision_log.sqlite import DecisionLog


def open_decision_log(path: Path | None, database: str | None, *, log_prompts: bool) -> BaseDecisionLog | None:
    """Open the log in a PostgreSQL `database`, or else in the SQLite file `path`. None without either.

    Raises `InputError` for a database that lets this user not in, and `MissingDependencyError` without psycopg.
    """
    if database is not None:
        return PostgresDecisionLog(database, log_prompts=log_prompts)
    return None if path is None else DecisionLog(path, log_prompts=log_prompts)
