"""Opens the journal of the online layer, which lies where the decision log does."""

from __future__ import annotations

from pathlib import Path

from eccos_core.decision_log import BaseDecisionLog, PostgresDecisionLog
from eccos_core.errors import DatabaseAwayError
from eccos_core.learning.journal import FILE_NAME, BaseLabelJournal, LabelJournal
from eccos_core.learning.postgres_journal import PostgresLabelJournal


def open_journal(path: Path | None, log: BaseDecisionLog | None) -> BaseLabelJournal | None:
    """Open the journal in the database of a log that replicas share, or else in a file beside the log's `path`.

    None without a log. Raises `DataError` for a file that is no journal, and `DatabaseAwayError`.
    """
    if isinstance(log, PostgresDecisionLog):
        try:
            return PostgresLabelJournal(log.pool)
        except DatabaseAwayError:
            raise DatabaseAwayError(
                log.place,
                "the database does not answer, and eccos.learning starts from the labels in it. Without them this "
                "replica would decide otherwise than the others. Start it again when the database is back.",
            ) from None
    return None if path is None else LabelJournal(path.with_name(FILE_NAME))
