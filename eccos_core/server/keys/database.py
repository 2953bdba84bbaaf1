"""Keys, rate limits and budgets in one database: SQLite for one process, PostgreSQL for several."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.errors import InputError, did_you_mean
from eccos_core.io.optional import needs_extra
from eccos_core.server.keys import ledger, rates, tables
from eccos_core.server.keys.key import KeyRules, VirtualKey, hash_key, id_of, make_key, matches
from eccos_core.server.keys.ledger import Balance, Exchange, Reservation, Shortfall
from eccos_core.server.keys.money import month_of
from eccos_core.server.keys.sql import run

with needs_extra("server", "the database of keys"):
    from sqlalchemy import Connection, Row, func, insert, select, update
    from sqlalchemy.exc import SQLAlchemyError

BEAT_S = 10.0
_FIND = "SELECT * FROM eccos_keys WHERE id = :id"


@dataclass(frozen=True, slots=True)
class RateExceeded:
    """A key over its rate limit: which one (`requests` or `tokens`), and when to try again, in seconds."""

    kind: str
    per_minute: int
    retry_after_s: float


class KeyDatabase:
    """Keeps keys and what they spend. Safe to use from several threads, and from several processes.

    `database`: the file of a SQLite database, or `postgresql://...`. `clock` gives the seconds since 1970. Raises
    `InputError` for a database that cannot be opened. Call `start` where calls are made, and `close` at the end.
    """

    def __init__(self, database: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._engine = tables.open_engine(database)
        self._writer = self._engine.execution_options(eccos_write=True)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._finder: Connection | None = None
        self._finding = threading.Lock()
        self.process = secrets.token_hex(8)
        self._closing = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def is_local_file(self) -> bool:
        """Whether this is a SQLite file, where one thread is enough."""
        return bool(self._engine.dialect.name == "sqlite")

    @property
    def now(self) -> float:
        """The time by this database's clock, in seconds since 1970."""
        return self._clock()

    # ------------------------------------------------------------------------- keys

    def create(self, rules: KeyRules) -> tuple[VirtualKey, str]:
        """Make a key. Returns it with its secret, which nobody can read again."""
        key_id, secret = make_key()
        now = self._clock()
        row = {
            "id": key_id, "hash": hash_key(secret), "name": rules.name, "tenant": rules.tenant,
            "usd_per_month": rules.usd_per_month, "requests_per_minute": rules.requests_per_minute,
            "tokens_per_minute": rules.tokens_per_minute, "expires_at": rules.expires_at,
            "models": _to_json(rules.models), "policies": _to_json(rules.policies), "is_admin": rules.is_admin,
            "created_at": now,
        }  # fmt: skip
        with self._writer.begin() as connection:
            connection.execute(insert(tables.keys).values(row))
        return VirtualKey(key_id, rules, now), secret

    def list_keys(self) -> list[VirtualKey]:
        """Return all keys, the oldest first, revoked ones too."""
        with self._engine.begin() as connection:
            found = connection.execute(select(tables.keys).order_by("created_at", "id")).all()
        return [_read_key(row) for row in found]

    def count(self) -> int:
        """Return how many keys there are, revoked ones too."""
        with self._engine.begin() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.keys)).scalar_one())

    def find(self, key_id: str) -> VirtualKey | None:
        """Return a key by its id."""
        row = self._find(key_id)
        return None if row is None else _read_key(row)

    def check(self, secret: str) -> VirtualKey | None:
        """Return the key of a secret, None where there is none. It may be revoked or expired."""
        row = self._find(id_of(secret) or "")
        return _read_key(row) if matches(secret, None if row is None else row.hash) and row is not None else None

    def _find(self, key_id: str) -> Row[Any] | None:
        """Read one row outside of any transaction. A file has one connection for it: every request needs this row."""
        if not self.is_local_file:
            with self._reader.connect() as connection:
                return run(connection, _FIND, id=key_id).one_or_none()
        with self._finding:
            if self._finder is None:
                self._finder = self._reader.connect()
            return run(self._finder, _FIND, id=key_id).one_or_none()

    def revoke(self, key_id: str) -> VirtualKey:
        """Revoke a key at once, for all processes, and for good. Raises `InputError` where no key has the id."""
        open_one = (tables.keys.c.id == key_id) & tables.keys.c.revoked_at.is_(None)
        with self._writer.begin() as connection:
            connection.execute(update(tables.keys).where(open_one).values(revoked_at=self._clock()))
        found = self.find(key_id)
        if found is None:
            known = [key.id for key in self.list_keys()]
            hint = did_you_mean(key_id, known) or "."
            raise InputError(f"no key has the id {key_id!r}{hint} `eccos keys list` shows all ids.")
        return found

    # ------------------------------------------------------------------------- rate limits

    def take_request(self, key: VirtualKey, window_s: float = rates.WINDOW_S) -> RateExceeded | None:
        """Count one request of a key against its limit. Returns None if it may pass. `window_s`: see `rates.take`."""
        return self._take(key.id, "requests", 1, key.rules.requests_per_minute, window_s)

    def take_tokens(self, key: VirtualKey, tokens: int, window_s: float = rates.WINDOW_S) -> RateExceeded | None:
        """Count the tokens that a request sends against the limit. Returns None if they may pass."""
        return self._take(key.id, "tokens", tokens, key.rules.tokens_per_minute, window_s)

    def charge_tokens(self, key: VirtualKey, tokens: int) -> None:
        """Count the tokens of an answer."""
        if key.rules.tokens_per_minute is not None and tokens > 0:
            with self._writer.begin() as connection:
                rates.charge(connection, key.id, "tokens", tokens, key.rules.tokens_per_minute, self._clock())

    def _take(
        self, key_id: str, kind: str, amount: int, per_minute: int | None, window_s: float
    ) -> RateExceeded | None:
        if per_minute is None:
            return None
        with self._writer.begin() as connection:
            wait_s = rates.take(connection, key_id, kind, amount, per_minute, self._clock(), window_s)
        return RateExceeded(kind, per_minute, wait_s) if wait_s else None

    # ------------------------------------------------------------------------- budgets

    def reserve(
        self, key: VirtualKey, nano: int, limits: Mapping[str, int | None], reservation_id: str | None = None
    ) -> Reservation | Shortfall:
        """Reserve nano-dollars for one call of a key. `limits`: the budgets of `key` and `tenant`, None for none.

        A `reservation_id` finds what was reserved under it before, by any process.
        """
        with self._writer.connect() as connection, connection.begin() as transaction:
            tenant, now = key.rules.tenant, self._clock()
            found = ledger.reserve(connection, self.process, key.id, tenant, nano, limits, now, reservation_id)
            if isinstance(found, Shortfall):
                transaction.rollback()
        return found

    def settle(self, reservation: Reservation, nano: int) -> bool:
        """Settle a reservation at the real cost. Returns False if it was settled before."""
        with self._writer.begin() as connection:
            return ledger.settle(connection, reservation.id, nano)

    def extend(
        self, allowance: Exchange, need: int, extra: int, limits: Mapping[str, int | None]
    ) -> Reservation | Shortfall:
        """Write the allowance of a key anew with nano-dollars more. See `ledger.extend`."""
        with self._writer.connect() as connection, connection.begin() as transaction:
            found = ledger.extend(connection, self.process, allowance, need, extra, limits, self._clock())
            if isinstance(found, Shortfall):
                transaction.rollback()
        return found

    def exchange(self, allowances: Sequence[Exchange]) -> None:
        """Write allowances anew, all in one transaction. See `ledger.exchange`."""
        with self._writer.begin() as connection:
            ledger.exchange(connection, self.process, allowances, self._clock())

    def balances(self, month: str | None = None) -> list[Balance]:
        """Return the accounts of a month such as `2026-11`, by default of this one."""
        with self._engine.begin() as connection:
            return ledger.balances(connection, month or month_of(self._clock()))

    # ------------------------------------------------------------------------- processes

    def start(self) -> None:
        """Say from now on that this process lives, and settle what dead processes left open."""
        self.beat()
        self._beating = threading.Thread(target=self._keep_beating, name="eccos-keys", daemon=True)
        self._beating.start()

    def beat(self) -> int:
        """Say that this process lives. Returns how many reservations of dead processes were settled."""
        now = self._clock()
        with self._writer.begin() as connection:
            ledger.beat(connection, self.process, now)
            ledger.forget(connection, now)
            left_open = ledger.abandoned(connection, now)
        closed = 0
        for each in left_open:  # one transaction each, so that no two processes wait for each other
            with self._writer.begin() as connection:
                closed += ledger.close(connection, each)
        return closed

    def close(self) -> None:
        """End the connections. Reservations that are still open stay, and are settled as those of a dead process."""
        self._closing.set()
        if self._beating is not None:
            self._beating.join()
        with self._finding:
            if self._finder is not None:
                self._finder.close()
                self._finder = None
        self._engine.dispose()

    def _keep_beating(self) -> None:

        while not self._closing.wait(BEAT_S):
            try:
                self.beat()
            except SQLAlchemyError as error:
                # never the text of the error: it may hold an address with a password
                logging.getLogger("eccos.server").warning("the database of keys failed: %s", type(error).__name__)


def _to_json(names: frozenset[str] | None) -> str | None:
    return None if names is None else json.dumps(sorted(names))


def _read_names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(json.loads(text))


def _read_key(row: Row[Any]) -> VirtualKey:
    rules = KeyRules(
        row.name,
        row.tenant,
        row.usd_per_month,
        row.requests_per_minute,
        row.tokens_per_minute,
        row.expires_at,
        _read_names(row.models),
        _read_names(row.policies),
        bool(row.is_admin),
    )
    return VirtualKey(row.id, rules, row.created_at, row.revoked_at)
