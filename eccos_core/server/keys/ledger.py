"""Budgets: money is reserved before a call and settled after it, in whole nano-dollars.

Each key and each tenant has one account a calendar month (UTC). `spent + reserved` never passes the budget when money
is reserved. A call that costs more than was reserved is settled at its real cost.

A process says every few seconds that it lives. Reservations of a process that stopped doing so are settled at the
amount reserved, because the provider may have charged for the call. So a killed server loses no cost, and a
reservation is counted wrong by at most its amount. A process that was only asleep corrects this when it settles.

The calls of a key share one reservation in a process, its allowance (`allowances`). `extend` makes it larger, and
`exchange` moves what was spent of it.
"""

from __future__ import annotations

import secrets
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eccos_core.io.optional import needs_extra
from eccos_core.server.keys.money import month_of
from eccos_core.server.keys.sql import run

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection, Row

ALIVE_S = 60.0  # a process that was not seen for so long counts as dead
EXTRA_SHARE = 16  # what a process sets aside ahead of its calls is at most this part of what is left
KEEP_CLOSED_S = 3 * 86_400.0  # how long a settled reservation can still be corrected: a batch may take a day

_RESERVE = """
INSERT INTO eccos_accounts (scope, name, month, spent, reserved) VALUES (:scope, :name, :month, 0, :nano)
ON CONFLICT (scope, name, month) DO UPDATE SET reserved = eccos_accounts.reserved + :nano
"""
_RESERVE_WITHIN = f"{_RESERVE} WHERE eccos_accounts.spent + eccos_accounts.reserved + :nano <= :limit "
_RESERVE_WITHIN += "RETURNING eccos_accounts.spent + eccos_accounts.reserved"
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
class Exchange:
    """An allowance that is written anew: of the reservation `old`, `spent` nano-dollars are spent and `kept` stay
    reserved, as the reservation `new`. `old` is None for the first one."""

    old: str | None
    new: str
    key_id: str
    tenant: str | None
    month: str
    spent: int
    kept: int


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
        found = _add_reserved(connection, scope, name, month, nano, limits.get(scope))
        if isinstance(found, Shortfall):
            return found
    made = Reservation(reservation_id or secrets.token_hex(16), nano)
    _open(connection, process, Exchange(None, made.id, key_id, tenant, month, spent=0, kept=nano), nano, now)
    return made


def exchange(connection: Connection, process: str, exchanges: Iterable[Exchange], now: float) -> None:
    """Write allowances anew. What a dead process was charged for its allowance is corrected, if it was only asleep."""
    exchanges = sorted(exchanges, key=lambda each: each.old or "")
    _move_all(connection, exchanges)
    for each in exchanges:
        if each.kept:
            _open(connection, process, each, each.kept, now)


def extend(
    connection: Connection,
    process: str,
    allowance: Exchange,
    need: int,
    extra: int,
    limits: Mapping[str, int | None],
    now: float,
) -> Reservation | Shortfall:
    """Write an allowance anew with `need` nano-dollars more, or say which budget is short. Roll back after a
    `Shortfall`.

    `extra` is set aside too, as far as it is at most a sixteenth of what is left. `limits`: as for `reserve`.
    """
    _move_all(connection, [allowance])
    accounts, month = _accounts_of(allowance.key_id, allowance.tenant), allowance.month
    for scope, name in accounts:
        left = _add_reserved(connection, scope, name, month, need, limits.get(scope))
        if isinstance(left, Shortfall):
            return left
        extra = min(extra, left // EXTRA_SHARE)
    if extra:
        for scope, name in accounts:
            run(connection, _MOVE, scope=scope, name=name, month=month, spent=0, reserved=extra)
    made = Reservation(allowance.new, allowance.kept + need + extra)
    if made.nano:
        _open(connection, process, allowance, made.nano, now)
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


def _add_reserved(
    connection: Connection, scope: str, name: str, month: str, nano: int, limit: int | None
) -> int | Shortfall:
    """Add to what an account has reserved, and return what is left after it."""
    account = {"scope": scope, "name": name, "month": month, "nano": nano}
    if limit is None:
        run(connection, _RESERVE, **account)
        return sys.maxsize
    held = None
    if nano <= limit:
        held = run(connection, _RESERVE_WITHIN, limit=limit, **account).scalar_one_or_none()
    if held is None:
        return Shortfall(scope, name, max(0, limit - _held(connection, scope, name, month)), limit)
    return limit - int(held)


def _open(connection: Connection, process: str, made: Exchange, nano: int, now: float) -> None:
    given = {"key_id": made.key_id, "tenant": made.tenant, "month": made.month, "nano": nano, "now": now}
    run(connection, _OPEN, id=made.new, process=process, **given)


def _move_all(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    """End the old reservations, and move what was spent and what is kept. All reservations come before all accounts,
    and both in their order, so that two processes never wait for each other."""
    moved: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for each in exchanges:
        spent, reserved = each.spent, each.kept
        row = None if each.old is None else run(connection, _END, id=each.old).one_or_none()
        if row is not None and row.is_closed:
            spent -= row.nano
        elif row is not None:
            reserved -= row.nano
        for scope, name in _accounts_of(each.key_id, each.tenant):
            account = moved[scope, name, each.month]
            account[0] += spent
            account[1] += reserved
    for (scope, name, month), (spent, reserved) in sorted(moved.items()):
        if spent or reserved:
            run(connection, _MOVE, scope=scope, name=name, month=month, spent=spent, reserved=reserved)


def _held(connection: Connection, scope: str, name: str, month: str) -> int:
    return int(run(connection, _HELD, scope=scope, name=name, month=month).scalar_one_or_none() or 0)


def _move(connection: Connection, row: Row[Any], *, spent: int, reserved: int) -> None:
    for scope, name in _accounts_of(row.key_id, row.tenant):
        run(connection, _MOVE, scope=scope, name=name, month=row.month, spent=spent, reserved=reserved)
