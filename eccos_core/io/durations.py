"""Times as people write them: `30m`, `12h`, `7d`."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read_seconds(text: str) -> float | None:
    """Read a time such as 30m, 12h or 7d, in seconds. None for anything else."""
    written = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    return float(written[1]) * _SECONDS[written[2]] if written else None
