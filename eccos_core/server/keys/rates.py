"""Rate limits of a key: the generic cell rate algorithm (ITU-T I.371), with one number a limit.

A limit of n a minute lets n pass at once, and then one every 60 / n seconds. At most n (1 + t / 60) pass in t seconds.
`paid_until` is when all that has passed would have passed at an even pace. It may be ahead of now by 60 seconds.
"""

from __future__ import annotations

from eccos_core.io.optional import needs_extra
from eccos_core.server.keys.sql import run

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection

WINDOW_S = 60.0
_SLACK_S = 1e-6  # rounding of times
_LATER = "CASE WHEN eccos_rates.paid_until > :now THEN eccos_rates.paid_until ELSE :now END + :step_s"
_CHARGE = f"""
INSERT INTO eccos_rates (key_id, kind, paid_until) VALUES (:key_id, :kind, :now + :step_s)
ON CONFLICT (key_id, kind) DO UPDATE SET paid_until = {_LATER}
"""  # noqa: S608 - put together from constants
_TAKE = f"{_CHARGE} WHERE {_LATER} <= :latest RETURNING paid_until"
_PAID_UNTIL = "SELECT paid_until FROM eccos_rates WHERE key_id = :key_id AND kind = :kind"


def take(
    connection: Connection,
    key_id: str,
    kind: str,
    amount: int,
    per_minute: int,
    now: float,
    window_s: float = WINDOW_S,
) -> float:
    """Let `amount` pass if the limit allows. Returns 0.0, or after how many seconds it would pass.

    An amount above `per_minute` never passes: refuse it before. With a shorter `window_s` less may pass at once, and
    the rest of the minute stays for others.
    """
    step_s = amount * WINDOW_S / per_minute
    window_s = max(window_s, step_s)
    latest = now + window_s + _SLACK_S
    taken = run(connection, _TAKE, key_id=key_id, kind=kind, now=now, step_s=step_s, latest=latest)
    if taken.first() is not None:
        return 0.0
    paid_until = run(connection, _PAID_UNTIL, key_id=key_id, kind=kind).scalar_one()
    return float(max(paid_until + step_s - now - window_s, 1e-3))


def charge(connection: Connection, key_id: str, kind: str, amount: int, per_minute: int, now: float) -> None:
    """Count what has passed already, such as the tokens of an answer. What is too much delays the next request."""
    run(connection, _CHARGE, key_id=key_id, kind=kind, now=now, step_s=amount * WINDOW_S / per_minute)
