"""Rate limits of a key: the generic cell rate algorithm (ITU-T I.371), with one number a limit.

A limit of n a minute lets n pass at once, and then one every 60 / n seconds. At most n (1 + t / 60) pass in t seconds.
`paid_until` is when all that has passed would have passed at an even pace. It may be ahead of now by 60 seconds.
"""

from __future__ import annotations

from typing import Any

from eccos_core.io.optional import needs_extra
from eccos_core.server.keys.tables import rates

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection, case, literal, select
    from sqlalchemy.dialects import postgresql, sqlite

WINDOW_S = 60.0
_SLACK_S = 1e-6  # rounding of times


def take(connection: Connection, key_id: str, kind: str, amount: int, per_minute: int, now: float) -> float:
    """Let `amount` pass if the limit allows. Returns 0.0, or after how many seconds it would pass.

    An amount above `per_minute` never passes: refuse it before.
    """
    step_s = amount * WINDOW_S / per_minute
    upsert = _upsert(connection, key_id, kind, step_s, now, limited=True)
    if connection.execute(upsert.returning(rates.c.key_id)).first() is not None:
        return 0.0
    where = (rates.c.key_id == key_id) & (rates.c.kind == kind)
    paid_until = connection.execute(select(rates.c.paid_until).where(where)).scalar_one()
    return float(max(paid_until + step_s - now - WINDOW_S, 1e-3))


def charge(connection: Connection, key_id: str, kind: str, amount: int, per_minute: int, now: float) -> None:
    """Count what has passed already, such as the tokens of an answer. What is too much delays the next request."""
    connection.execute(_upsert(connection, key_id, kind, amount * WINDOW_S / per_minute, now, limited=False))


def _upsert(connection: Connection, key_id: str, kind: str, step_s: float, now: float, *, limited: bool) -> Any:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    start = case((rates.c.paid_until > now, rates.c.paid_until), else_=literal(now))
    return (
        insert(rates)
        .values(key_id=key_id, kind=kind, paid_until=now + step_s)
        .on_conflict_do_update(
            index_elements=[rates.c.key_id, rates.c.kind],
            set_={"paid_until": start + step_s},
            where=(start + step_s <= now + WINDOW_S + _SLACK_S) if limited else None,
        )
    )
