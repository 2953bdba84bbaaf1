"""The allowances of processes: the same answers as an exact ledger, at most the budget together, nothing lost."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eccos_core.server.keys import KeyDatabase, KeyRules, VirtualKey
from eccos_core.server.keys.allowances import Allowances, Hold
from eccos_core.server.keys.ledger import ALIVE_S

LIMITS = {"ana": 1_000, "bob": 500}
TENANT_LIMIT = 1_200
OWNERS = st.sampled_from(("ana", "bob"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), OWNERS, st.integers(0, 600)),
        st.tuples(st.just("call"), OWNERS, st.integers(0, 20)),
        st.tuples(st.just("settle"), st.integers(0, 30), st.integers(0, 300)),
        st.tuples(st.sampled_from(("group", "release", "sleep")), st.none(), st.none()),
    ),
    max_size=60,
)


class World:
    """A database with two keys of one tenant, and the allowances of several processes."""

    def __init__(self, folder: str, processes: int) -> None:
        self.now = 1_795_780_800.0
        self.databases = [KeyDatabase(Path(folder) / "keys.sqlite", clock=lambda: self.now) for _ in range(processes)]
        self.allowances = [Allowances(each) for each in self.databases]
        self.keys = {name: self.databases[0].create(KeyRules(name, "team"))[0] for name in LIMITS}
        for each in self.databases:
            each.beat()

    def call(self, process: int, owner: str, nano: int) -> Hold | None:
        """Set money aside as the gate does: from memory where that is enough, and from the database else."""
        key, allowances = self.keys[owner], self.allowances[process]
        found = allowances.take(key, nano) or allowances.reserve(
            key, nano, {"key": LIMITS[owner], "tenant": TENANT_LIMIT}
        )
        return found if isinstance(found, Hold) else None

    def settle(self, process: int, hold: Hold, nano: int) -> None:
        if self.allowances[process].settle(hold, nano):
            self.allowances[process].write(release=True)

    def accounts(self) -> dict[str, tuple[int, int]]:
        names = {key.id: name for name, key in self.keys.items()}
        return {names.get(each.name, each.name): (each.spent, each.reserved) for each in self.databases[0].balances()}

    def reservations(self) -> int:
        with self.databases[0]._engine.begin() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM eccos_reservations").scalar_one())


@contextmanager
def world(processes: int = 1) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        made = World(folder, processes)
        yield made
        for each in made.databases:
            each.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_one_process_answers_as_an_exact_ledger(steps: list[tuple[str, object, object]]) -> None:
    spent, calls = Counter[str](), list[tuple[str, Hold]]()

    def held(*owners: str) -> int:
        return sum(spent[each] for each in owners) + sum(hold.nano for owner, hold in calls if owner in owners)

    with world(2) as made:
        for kind, first, second in steps:
            if kind == "call":
                owner, nano = str(first), int(str(second))
                fits = held(owner) + nano <= LIMITS[owner] and held("ana", "bob") + nano <= TENANT_LIMIT
                found = made.call(0, owner, nano)
                assert (found is not None) == fits
                if found is not None:
                    calls.append((owner, found))
            elif kind == "settle" and calls:
                owner, hold = calls.pop(int(str(first)) % len(calls))
                made.settle(0, hold, int(str(second)))
                assert not made.allowances[0].settle(hold, 10_000), "settling again changes nothing"
                spent[owner] += int(str(second))
            elif kind == "sleep":  # and another process takes this one for dead
                made.now += ALIVE_S + 1
                made.databases[1].beat()
                made.databases[0].beat()
            elif kind in ("group", "release"):
                made.allowances[0].write(release=kind == "release")
            for owner, (_, reserved) in (now := made.accounts()).items():
                owners = ("ana", "bob") if owner == "team" else (owner,)
                assert sum(now[owner]) >= held(*owners), "a kill at this moment would lose money"
                assert reserved >= 0
        made.allowances[0].write(release=True)
        for owner, found_now in made.accounts().items():
            owners = ("ana", "bob") if owner == "team" else (owner,)
            assert sum(found_now) == held(*owners)
        for _, hold in calls:
            made.settle(0, hold, 0)
        made.allowances[0].write(release=True)
        expected = {**spent, "team": spent.total()}
        assert made.accounts() == {owner: (expected.get(owner, 0), 0) for owner in made.accounts()}
        assert made.reservations() == 0


def test_room_of_one_key_is_there_for_another_key_of_its_tenant() -> None:
    with world() as made:
        holds = [made.call(0, "ana", 10) for _ in range(2)]
        assert made.accounts()["team"] == (0, 30), "room for one more call is set aside"
        assert all(holds)
        others = [made.call(0, "ana", 680), made.call(0, "bob", 500)]
        assert all(others)
        assert made.accounts()["team"] == (0, TENANT_LIMIT)


def test_threads_of_two_processes_pass_no_budget_and_lose_no_nano_dollar() -> None:
    """Two processes of eight threads want 16 x 40 x 10 of 1,200, and give half of each amount back."""
    with world(2) as made:
        for each in made.allowances:
            each.start()
        done, lock = Counter[str](), threading.Lock()

        def spend(number: int) -> None:
            process, owner = number % 2, ("ana", "bob")[number // 2 % 2]
            for _ in range(40):
                hold = made.call(process, owner, 10)
                if hold is None:
                    continue
                accounts = made.accounts()
                assert sum(accounts["team"]) <= TENANT_LIMIT
                assert all(sum(accounts[name]) <= LIMITS[name] for name in LIMITS if name in accounts)
                made.settle(process, hold, 5)
                with lock:
                    done[owner] += 5

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(spend, range(16)))
        for each in made.allowances:
            each.close()
        assert made.accounts() == {**{name: (done[name], 0) for name in done}, "team": (done.total(), 0)}
        assert done.total() > TENANT_LIMIT / 2
        assert made.reservations() == 0


def test_a_killed_process_is_charged_for_its_calls_and_at_most_as_much_again() -> None:
    with world(2) as made:
        calls = [made.call(0, "ana", 10) for _ in range(20)]
        for hold in calls[:10]:
            assert hold is not None
            made.settle(0, hold, 4)
        made.now += ALIVE_S + 1  # it is gone, and has written none of this
        assert made.databases[1].beat() == 1
        spent, reserved = made.accounts()["ana"]
        assert 10 * 10 + 10 * 4 <= spent <= 2 * 20 * 10
        assert reserved == 0


def test_what_one_process_no_longer_uses_is_there_for_the_next_within_two_groups() -> None:
    with world(2) as made:
        for _ in range(8):
            hold = made.call(0, "bob", 5)
            assert hold is not None
            made.settle(0, hold, 5)
        made.allowances[0].write()
        assert not made.allowances[0].write()
        assert made.accounts()["bob"] == (40, 0)
        assert made.call(1, "bob", 460) is not None
        assert made.call(1, "bob", 1) is None


def test_many_calls_need_few_transactions() -> None:
    with world() as made:
        database, asked = made.databases[0], Counter[str]()
        extend, exchange = database.extend, database.exchange

        def count(name: str, work: object) -> object:
            def counted(*given: object) -> object:
                asked[name] += 1
                return work(*given)  # type: ignore[operator]

            return counted

        database.extend = count("extend", extend)  # type: ignore[method-assign, assignment]
        database.exchange = count("exchange", exchange)  # type: ignore[method-assign, assignment]
        limits = {"key": 10**9}
        key: VirtualKey = made.keys["ana"]
        for _ in range(500):
            hold = made.allowances[0].take(key, 1_000) or made.allowances[0].reserve(key, 1_000, limits)
            assert isinstance(hold, Hold)
            made.allowances[0].settle(hold, 400)
        made.allowances[0].write(release=True)
        assert asked["extend"] <= 12
        assert asked["exchange"] == 1
        assert made.accounts()["ana"] == (200_000, 0)


def test_a_database_that_fails_loses_nothing_that_was_spent() -> None:
    with world() as made:
        hold = made.call(0, "ana", 100)
        assert hold is not None
        made.settle(0, hold, 30)
        with made.databases[0]._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE eccos_accounts RENAME TO gone")
        assert made.allowances[0]._try_to_write(release=True), "it comes back"
        with made.databases[0]._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO eccos_accounts")
        assert made.accounts()["ana"] == (0, 100)
        assert not made.allowances[0]._try_to_write(release=True)
        assert made.accounts()["ana"] == (30, 0)


def test_a_lower_budget_holds_for_the_next_call() -> None:
    with world() as made:
        allowances, key = made.allowances[0], made.keys["ana"]
        holds = [made.call(0, "ana", 10) for _ in range(5)]
        assert all(holds)
        allowances.outdate()
        assert allowances.take(key, 10) is None
        assert not isinstance(allowances.reserve(key, 10, {"key": 55}), Hold)
        assert isinstance(allowances.reserve(key, 5, {"key": 55}), Hold)
