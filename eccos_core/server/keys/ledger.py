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
from eccos_core.server.keys.tables import accounts, processes, reservations

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection, Row, delete, insert, select, update
    from sqlalchemy.dialects import postgresql, sqlite

ALIVE_S = 60.0  # a process that was not seen for so long counts as dead
KEEP_CLOSED_S = 86_400.0  # how long a process that was only asleep can still correct a settled reservation


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
) -> Reservation | Shortfall:
    """Reserve `nano` in the accounts of a key and its tenant, or say which is short. Roll back after a `Shortfall`.

    `limits`: the budgets of `key` and `tenant` in nano-dollars, None for no budget.
    """
    month = month_of(now)
    for scope, name in _accounts_of(key_id, tenant):
        limit = limits.get(scope)
        short = limit is not None and nano > limit
        if short or not _add_reserved(connection, scope, name, month, nano, limit):
            assert limit is not None
            held = _held(connection, scope, name, month)
            return Shortfall(scope, name, max(0, limit - held), limit)
    made = Reservation(secrets.token_hex(16), nano)
    row = {
        "id": made.id, "process": process, "key_id": key_id, "tenant": tenant, "month": month, "nano": nano,
        "made_at": now, "is_closed": False,
    }  # fmt: skip
    connection.execute(insert(reservations).values(row))
    return made


def settle(connection: Connection, reservation_id: str, nano: int) -> bool:
    """Replace what was reserved by the real cost. Returns False for a reservation that was settled before."""
    row = connection.execute(
        delete(reservations).where(reservations.c.id == reservation_id).returning(*reservations.c)
    ).one_or_none()
    if row is None:
        return False
    if row.is_closed:
        _move(connection, row, spent=nano - row.nano, reserved=0)
    else:
        _move(connection, row, spent=nano, reserved=-row.nano)
    return True


def beat(connection: Connection, process: str, now: float) -> None:
    """Say that a process lives."""
    upsert = _dialect(connection).insert(processes).values(id=process, seen_at=now)
    connection.execute(upsert.on_conflict_do_update(index_elements=[processes.c.id], set_={"seen_at": now}))


def abandoned(connection: Connection, now: float) -> list[str]:
    """Return the reservations of processes that are dead."""
    alive = select(processes.c.id).where(processes.c.seen_at > now - ALIVE_S)
    dead = ~reservations.c.is_closed & reservations.c.process.not_in(alive)
    return list(connection.execute(select(reservations.c.id).where(dead)).scalars())


def close(connection: Connection, reservation_id: str) -> bool:
    """Settle a reservation of a dead process at its reserved amount. Returns False if it was settled meanwhile."""
    open_one = (reservations.c.id == reservation_id) & ~reservations.c.is_closed
    row = connection.execute(
        update(reservations).where(open_one).values(is_closed=True).returning(*reservations.c)
    ).one_or_none()
    if row is not None:
        _move(connection, row, spent=row.nano, reserved=-row.nano)
    return row is not None


def forget(connection: Connection, now: float) -> None:
    """Drop closed reservations and dead processes that nobody needs any more."""
    old = reservations.c.is_closed & (reservations.c.made_at < now - KEEP_CLOSED_S)
    connection.execute(delete(reservations).where(old))
    connection.execute(delete(processes).where(processes.c.seen_at < now - KEEP_CLOSED_S))


def balances(connection: Connection, month: str) -> list[Balance]:
    """Return the accounts of a month."""
    found = connection.execute(select(accounts).where(accounts.c.month == month).order_by("scope", "name"))
    return [Balance(row.scope, row.name, row.month, row.spent, row.reserved) for row in found]


def _accounts_of(key_id: str, tenant: str | None) -> list[tuple[str, str]]:
    """Always in this order, so that two processes never wait for each other."""
    return [("key", key_id)] if tenant is None else [("key", key_id), ("tenant", tenant)]


def _add_reserved(connection: Connection, scope: str, name: str, month: str, nano: int, limit: int | None) -> bool:
    """Add to what an account has reserved, and say whether it fitted."""
    values = _dialect(connection).insert(accounts).values(scope=scope, name=name, month=month, spent=0, reserved=nano)
    upsert = values.on_conflict_do_update(
        index_elements=[accounts.c.scope, accounts.c.name, accounts.c.month],
        set_={"reserved": accounts.c.reserved + nano},
        where=None if limit is None else accounts.c.spent + accounts.c.reserved + nano <= limit,
    )
    return connection.execute(upsert.returning(accounts.c.scope)).first() is not None


def _held(connection: Connection, scope: str, name: str, month: str) -> int:
    where = (accounts.c.scope == scope) & (accounts.c.name == name) & (accounts.c.month == month)
    held = connection.execute(select(accounts.c.spent + accounts.c.reserved).where(where)).scalar_one_or_none()
    return int(held or 0)


def _move(connection: Connection, row: Row[Any], *, spent: int, reserved: int) -> None:
    for scope, name in _accounts_of(row.key_id, row.tenant):
        where = (accounts.c.scope == scope) & (accounts.c.name == name) & (accounts.c.month == row.month)
        change = {"spent": accounts.c.spent + spent, "reserved": accounts.c.reserved + reserved}
        connection.execute(update(accounts).where(where).values(change))


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
