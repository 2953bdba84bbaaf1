"""Allowances: what a process has set aside for the calls of a key, so that a call need not wait for the database.

The database has one reservation for each key that the process serves, and the process divides it among the calls in
memory. It asks the database when its allowance is too small for a call. The first call sets aside what it needs, and
later ones as much again as is in use, so the allowance soon covers all. What calls have spent is written in groups, and
what a key no longer uses is given back then.

    spent + open + room = allowance        room is for the next calls

So calls of this process together never pass a budget, and those of several processes never do either: each allowance
was reserved within the budget. A killed process is charged for its allowances as they stand in the database: for open
calls, for those that ended since the last group was written, and for room, which is at most as much again.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from eccos_core.io.optional import needs_extra
from eccos_core.server.keys.database import KeyDatabase
from eccos_core.server.keys.key import VirtualKey
from eccos_core.server.keys.ledger import Exchange, Reservation, Shortfall
from eccos_core.server.keys.money import month_of

with needs_extra("server", "the database of keys"):
    from sqlalchemy.exc import SQLAlchemyError

WRITE_S = 0.2  # so long what was spent waits to be written with the rest
_log = logging.getLogger("eccos.server")


@dataclass(slots=True, eq=False)
class Allowance:
    """What one process may spend for a key in a month, in nano-dollars. `calls` counts those that are open."""

    key_id: str
    tenant: str | None
    month: str
    reservation: str | None = None
    nano: int = 0
    open: int = 0
    spent: int = 0
    calls: int = 0
    spent_lately: int = 0  # since the last group
    most_used: int = 0  # open and spent_lately, in the time of this group
    most_used_before: int = 0  # the same of the last group
    is_checked: bool = False  # whether the database agreed since the last group, for calls that cost nothing
    is_outdated: bool = False  # whether budgets have changed since the database agreed
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def room(self) -> int:
        """What the next calls may use. Negative when calls cost more than was reserved for them."""
        return self.nano - self.open - self.spent

    @property
    def is_unused(self) -> bool:
        """Whether there is nothing to remember."""
        return self.reservation is None and not (self.nano or self.spent or self.calls)

    def fits(self, nano: int) -> bool:
        """Say whether a call needs no question to the database."""
        return self.room >= nano and (self.is_checked or (nano > 0 and not self.is_outdated))

    def note_use(self) -> None:
        """Remember how much is used at once."""
        self.most_used = max(self.most_used, self.open + self.spent_lately)


@dataclass(slots=True, eq=False)
class Hold:
    """What is set aside for one call, in nano-dollars."""

    allowance: Allowance
    nano: int
    is_settled: bool = False


class Allowances:
    """The allowances of one process. Safe to use from several threads.

    `take` and `settle` only change memory. `reserve` and `write` wait for the database. Call `start` where calls are
    made, and `close` at the end.
    """

    def __init__(self, database: KeyDatabase, write_s: float = WRITE_S) -> None:
        self._database, self._write_s = database, write_s
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._lock = threading.Lock()  # never held while the database works
        self._closing, self._changed = threading.Event(), threading.Event()
        self._writer: threading.Thread | None = None
        self._is_failing = False

    def take(self, key: VirtualKey, nano: int) -> Hold | None:
        """Set money aside for a call at once, or return None when the database must be asked."""
        with self._lock:
            allowance = self._allowances.get(self._place_of(key))
            return self._hold(allowance, nano) if allowance is not None and allowance.fits(nano) else None

    def reserve(self, key: VirtualKey, nano: int, limits: Mapping[str, int | None]) -> Hold | Shortfall:
        """Set money aside for a call, or say which budget is short. `limits`: see `KeyDatabase.reserve`."""
        found = self._extend(key, nano, limits)
        if isinstance(found, Shortfall) and self._has_unwritten():  # perhaps other keys of the tenant have room here
            self.write(release=True)
            found = self._extend(key, nano, limits)
        return found

    def settle(self, hold: Hold, nano: int) -> bool:
        """Replace what was set aside by the real cost, once.

        Returns whether the calls of the key now cost more than its allowance has. Then call `write(release=True)`, so
        that no later call finds money which is gone.
        """
        with self._lock:
            if hold.is_settled:
                return False
            hold.is_settled = True
            allowance = hold.allowance
            allowance.open -= hold.nano
            allowance.calls -= 1
            allowance.spent += nano
            allowance.spent_lately += nano
            is_short = allowance.room < 0
        self._changed.set()
        return is_short

    def write(self, *, release: bool = False) -> bool:
        """Write what was spent, and give back what is no longer used. Returns whether some room is kept.

        `release` gives all room back.
        """
        with ExitStack() as held:
            with self._lock:
                known = sorted(self._allowances.values(), key=lambda each: (each.key_id, each.month))
            mine = [each for each in known if each.writing.acquire(blocking=release)]
            for each in mine:
                held.callback(each.writing.release)
            with self._lock:
                mine = [each for each in mine if self._allowances.get((each.key_id, each.month)) is each]
                begun = [found for each in mine if (found := self._begin_group(each, release)) is not None]
            is_written = False
            try:
                if begun:
                    self._database.exchange([exchange for _, _, exchange in begun])
                is_written = True
            finally:
                with self._lock:
                    for each, before, exchange in begun:
                        if is_written:
                            each.reservation = exchange.new if exchange.kept else None
                        else:
                            _undo(each, before, exchange)
                    for each in mine:
                        if each.is_unused:
                            del self._allowances[each.key_id, each.month]
        return self._has_unwritten()

    def outdate(self) -> None:
        """Ask the database before the next call of each key, because budgets have changed."""
        with self._lock:
            for each in self._allowances.values():
                each.is_checked, each.is_outdated = False, True

    def start(self) -> None:
        """Write groups from now on."""
        self._writer = threading.Thread(target=self._keep_writing, name="eccos-budgets", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Write all that was spent, and give all room back. Open calls stay reserved."""
        self._closing.set()
        self._changed.set()
        if self._writer is not None:
            self._writer.join()
        self._try_to_write(release=True)

    # ------------------------------------------------------------------------- one allowance

    def _has_unwritten(self) -> bool:
        with self._lock:
            return any(each.room > 0 or each.spent for each in self._allowances.values())

    def _place_of(self, key: VirtualKey) -> tuple[str, str]:
        return key.id, month_of(self._database.now)

    @contextmanager
    def _held(self, key: VirtualKey) -> Iterator[Allowance]:
        """Hold the allowance of a key, so that nobody else writes it."""
        while True:
            with self._lock:
                place = self._place_of(key)
                allowance = self._allowances.setdefault(place, Allowance(key.id, key.rules.tenant, place[1]))
            with allowance.writing:
                if self._allowances.get(place) is allowance:
                    yield allowance
                    return

    def _hold(self, allowance: Allowance, nano: int) -> Hold:
        allowance.open += nano
        allowance.calls += 1
        allowance.note_use()
        return Hold(allowance, nano)

    def _extend(self, key: VirtualKey, nano: int, limits: Mapping[str, int | None]) -> Hold | Shortfall:
        with self._held(key) as allowance:
            with self._lock:
                if allowance.fits(nano):
                    return self._hold(allowance, nano)
                extra = max(allowance.open + allowance.spent_lately, allowance.most_used_before)
                room = min(nano, max(0, allowance.room))
                allowance.open += room  # ours, while the rest is asked for
                before = allowance.nano
                exchange = _begin(allowance, max(allowance.open, allowance.nano - allowance.spent))
            found: Reservation | Shortfall | None = None
            try:
                found = self._database.extend(exchange, nano - room, extra, limits)
            finally:
                with self._lock:
                    allowance.open -= room
                    if isinstance(found, Reservation):
                        allowance.nano += found.nano - exchange.kept
                        allowance.reservation = found.id if found.nano else None
                        allowance.is_checked, allowance.is_outdated = True, False
                        hold = self._hold(allowance, nano)
                    else:
                        _undo(allowance, before, exchange)
            return found if isinstance(found, Shortfall) else hold

    # ------------------------------------------------------------------------- groups

    def _begin_group(self, allowance: Allowance, release: bool) -> tuple[Allowance, int, Exchange] | None:
        """Begin to write an allowance, unless the database knows all of it."""
        used = 0 if release else allowance.most_used
        allowance.most_used_before = allowance.most_used
        allowance.most_used, allowance.spent_lately = allowance.open, 0
        allowance.is_checked = False
        before = allowance.nano
        kept = max(allowance.open, min(before - allowance.spent, used))
        if not allowance.spent and kept == before:
            return None
        return allowance, before, _begin(allowance, kept)

    def _keep_writing(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            if self._closing.wait(self._write_s):
                break
            self._changed.clear()
            if self._try_to_write(release=False):
                self._changed.set()

    def _try_to_write(self, *, release: bool) -> bool:
        """Write a group, and return whether to come back. What could not be written stays for the next group."""
        try:
            is_unfinished = self.write(release=release)
        except SQLAlchemyError as error:
            # never the text of the error: it may hold an address with a password
            if not self._is_failing:
                _log.warning("the database of keys failed: %s", type(error).__name__)
            self._is_failing = True
            return True
        self._is_failing = False
        return is_unfinished


def _begin(allowance: Allowance, kept: int) -> Exchange:
    """Begin to write an allowance anew. What is given back is gone at once, before the database gives it to others."""
    exchange = Exchange(
        allowance.reservation, secrets.token_hex(16), allowance.key_id, allowance.tenant, allowance.month,
        spent=allowance.spent, kept=kept,
    )  # fmt: skip
    allowance.nano, allowance.spent = kept, 0
    return exchange


def _undo(allowance: Allowance, before: int, exchange: Exchange) -> None:
    """The database did not change, so the allowance has all again."""
    allowance.nano += before - exchange.kept
    allowance.spent += exchange.spent
