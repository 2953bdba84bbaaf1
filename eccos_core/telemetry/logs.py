"""Structured logs. All loggers are children of `eccos`. The fields of an event are in `record.eccos`, ready for JSON.

No field ever holds a secret, or the text of a request or an answer.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Format one JSON object per line: time (UTC), level, logger, message, and the fields of the event.

    Use it with any handler: `handler.setFormatter(JsonFormatter()); logging.getLogger("eccos").addHandler(handler)`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "eccos", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
