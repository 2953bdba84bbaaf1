"""Money as whole nano-dollars (1e-9 USD), so that sums are exact, and the months that budgets hold for."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_SCALE = Decimal(10) ** 9


def to_nano(usd: float) -> int:
    """Return USD as nano-dollars, rounded up, so that no cost is lost. Raises `ValueError` unless finite and >= 0."""
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(f"{usd} USD is no cost")
    return int((Decimal(repr(float(usd))) * _SCALE).to_integral_value(ROUND_CEILING))


def limit_nano(usd: float | None) -> int | None:
    """Return a budget as nano-dollars, rounded down. None stays None: no budget."""
    return None if usd is None else int((Decimal(repr(float(usd))) * _SCALE).to_integral_value(ROUND_FLOOR))


def to_usd(nano: int) -> float:
    """Return nano-dollars as USD."""
    return nano / 1e9


def month_of(at: float) -> str:
    """Return the calendar month (UTC) of a time in seconds since 1970, such as `2026-11`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def next_month(at: float) -> datetime:
    """Return when the month after the one of `at` begins (UTC)."""
    now = datetime.fromtimestamp(at, UTC)
    year, month = divmod(now.year * 12 + now.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
