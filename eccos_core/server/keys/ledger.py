"""Budgets: money is reserved before a call and settled after it, in whole nano-dollars.

Each key and each tenant has one account a calendar month (UTC). `spent + reserved` never passes the budget when money
is reserved. A call that costs more than was reserved is settled at its real cost.

A process says every few seconds that it lives. Reservations of a process that stopped doing so are settled at the
amount reserved, because the provider may have charged for the call. So a killed server loses no cost, and one open
call is counted wrong by at most what was reserved for it. A process that was only asleep corrects this when it settles.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eccos_core.io.optional import needs_extra
from eccos_core.server.keys.money import month_of
from eccos_core.server.keys.sql import run

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection, Row

ALIVE_S = 60.0  # a process that was not seen for so long counts as dead
KEEP_CLOSED_S = 3 * 86_400.0  # how long a settled reservation can still be corrected: a batch may take a day

_RESERVE = """
INSERT INTO eccos_accounts (scope, name, month, spent, reserved) VALUES (:scope, :name, :month, 0, :nano)
ON CONFLICT (scope, name, month) DO UPDATE SET reserved = eccos_accounts.reserved + :nano
"""
_RESERVE_WITHIN = f"{_RESERVE} WHERE eccos_accounts.spent + eccos_accounts.reserved + :nano <= :limit RETURNING scope"
_HELD = "SELECT spent + reserved FROM eccos_accounts WHERE scope = :scope AND name = :name AND month = :month"
_OPEN = """
INSERT INTO eccos_reservations (id, process, key_id, tenant, month, nano, made_at, is_closed)
VALUES (:id, :process, :key_id, :tenant, :month, :nano, :now, FALSE)
"""
_TAKE_OVER = "UPDATE eccos_reservations SET process = :process WHERE id = :id AND NOT is_closed"
_RESERVED = "SELECT nano FROM eccos_reservations WHERE id = :id"
_END = "DELETE FROM eccos_reservations WHERE id = :id RETURNING key_id, tenant, month, nano, is_closed"
_CLOSE = """
UPDATE eccos_reservations SET is_closed = TRUE WHERE id = :id AND NOT is_closed RETURNING key_id, tenant, month, nano
"""
_MOVE = """
UPDATE eccos_accounts SET spent = spent + :spent, reserved = reserved + :reserved
WHERE scope = :scope AND name = :name AND month = :month
"""
_BEAT = """
INSERT INTO eccos_processes (id, seen_at) VALUES (:id, :now) ON CONFLICT (id) DO UPDATE SET seen_at = :now
"""
_ABANDONED = """
SELECT id FROM eccos_reservations
WHERE NOT is_closed AND process NOT IN (SELECT id FROM eccos_processes WHERE seen_at > :since)
"""
_BALANCES = """
SELECT scope, name, month, spent, reserved FROM eccos_accounts WHERE month = :month ORDER BY scope, name
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for one call, in nano-dollars."""

    id: str
    nano: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why money could not be reserved: whose budget is short (`key` or `tenant`), and what is left, in nano-dollars."""

    scope: str
    name: str
    left: int
    limit: int


@dataclass(frozen=True, slots=True)
class Balance:
    """One account of a month, in nano-dollars. `scope` is `key` or `tenant`. `name` is a key's id or a tenant."""

    scope: str
    name: str
    month: str
    spent: int
    reserved: int


def reserve(
    connection: Connection,
    process: str,
    key_id: str,
    tenant: str | None,
    nano: int,
    limits: Mapping[str, int | None],
    now: float,
    reservation_id: str | None = None,
) -> Reservation | Shortfall:
    """Reserve `nano` in the accounts of a key and its tenant, or say which is short. Roll back after a `Shortfall`.

    `limits`: the budgets of `key` and `tenant` in nano-dollars, None for no budget. A `reservation_id` of your own
    outlives the process: reserving under it again returns what is reserved already.
    """
    if reservation_id is not None:
        kept = run(connection, _RESERVED, id=reservation_id).scalar_one_or_none()
        if kept is not None:
            run(connection, _TAKE_OVER, id=reservation_id, process=process)
            return Reservation(reservation_id, int(kept))
    month = month_of(now)
    for scope, name in _accounts_of(key_id, tenant):
        limit = limits.get(scope)
        short = limit is not None and nano > limit
        if short or not _add_reserved(connection, scope, name, month, nano, limit):
            assert limit is not None
            held = _held(connection, scope, name, month)
            return Shortfall(scope, name, max(0, limit - held), limit)
    made = Reservation(reservation_id or secrets.token_hex(16), nano)
    given = {"process": process, "key_id": key_id, "tenant": tenant, "month": month, "nano": nano, "now": now}
    run(connection, _OPEN, id=made.id, **given)
    return made


def settle(connection: Connection, reservation_id: str, nano: int) -> bool:
    """Replace what was reserved by the real cost. Returns False for a reservation that was settled before."""
    row = run(connection, _END, id=reservation_id).one_or_none()
    if row is None:
        return False
    if row.is_closed:
        _move(connection, row, spent=nano - row.nano, reserved=0)
    else:
        _move(connection, row, spent=nano, reserved=-row.nano)
    return True


def beat(connection: Connection, process: str, now: float) -> None:
    """Say that a process lives."""
    run(connection, _BEAT, id=process, now=now)


def abandoned(connection: Connection, now: float) -> list[str]:
    """Return the reservations of processes that are dead."""
    return list(run(connection, _ABANDONED, since=now - ALIVE_S).scalars())


def close(connection: Connection, reservation_id: str) -> bool:
    """Settle a reservation of a dead process at its reserved amount. Returns False if it was settled meanwhile."""
    row = run(connection, _CLOSE, id=reservation_id).one_or_none()
    if row is not None:
        _move(connection, row, spent=row.nano, reserved=-row.nano)
    return row is not None


def forget(connection: Connection, now: float) -> None:
    """Drop closed reservations and dead processes that nobody needs any more."""
    since = now - KEEP_CLOSED_S
    run(connection, "DELETE FROM eccos_reservations WHERE is_closed AND made_at < :since", since=since)
    run(connection, "DELETE FROM eccos_processes WHERE seen_at < :since", since=since)


def balances(connection: Connection, month: str) -> list[Balance]:
    """Return the accounts of a month."""
    found = run(connection, _BALANCES, month=month)
    return [Balance(row.scope, row.name, row.month, row.spent, row.reserved) for row in found]


def _accounts_of(key_id: str, tenant: str | None) -> list[tuple[str, str]]:
    """Always in this order, so that two processes never wait for each other."""
    return [("key", key_id)] if tenant is None else [("key", key_id), ("tenant", tenant)]


def _add_reserved(connection: Connection, scope: str, name: str, month: str, nano: int, limit: int | None) -> bool:
    """Add to what an account has reserved, and say whether it fitted."""
    account = {"scope": scope, "name": name, "month": month, "nano": nano}
    if limit is None:
        run(connection, _RESERVE, **account)
        return True
    return run(connection, _RESERVE_WITHIN, limit=limit, **account).first() is not None


def _held(connection: Connection, scope: str, name: str, month: str) -> int:
    return int(run(connection, _HELD, scope=scope, name=name, month=month).scalar_one_or_none() or 0)


def _move(connection: Connection, row: Row[Any], *, spent: int, reserved: int) -> None:
    for scope, name in _accounts_of(row.key_id, row.tenant):
        run(connection, _MOVE, scope=scope, name=name, month=row.month, spent=spent, reserved=reserved)
