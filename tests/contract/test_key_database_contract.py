"""What every database of keys promises: SQLite in a file, and PostgreSQL as Debian ships it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy
from postgres_server import postgres_server

from eccos_core.errors import InputError
from eccos_core.server.keys import KeyDatabase, KeyRules, Reservation, Shortfall, VirtualKey
from eccos_core.server.keys.allowances import Allowances, Hold
from eccos_core.server.keys.ledger import ALIVE_S
from eccos_core.server.keys.money import month_of
from eccos_core.server.keys.tables import open_engine

NOVEMBER = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.service))


class Clock:
    """A clock that only moves when it is told."""

    def __init__(self) -> None:
        self.now = NOVEMBER

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as address:
        yield address


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database is that no other test uses."""
    if request.param == "sqlite":
        return str(tmp_path / "keys" / "keys.sqlite")
    address: str = request.getfixturevalue("postgres")
    name = f"test_{uuid4().hex}"
    engine = sqlalchemy.create_engine(address.replace("://", "+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return address.rpartition("/")[0] + "/" + name


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_database(place: str, clock: Clock) -> Iterator[Callable[[], KeyDatabase]]:
    """Opens the same database as often as a test likes, each time as another process would."""
    opened = []

    def open_one() -> KeyDatabase:
        opened.append(KeyDatabase(place, clock=clock))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def database(open_database: Callable[[], KeyDatabase]) -> KeyDatabase:
    return open_database()


def make(database: KeyDatabase, **rules: object) -> VirtualKey:
    return database.create(KeyRules(name="ana", **rules))[0]  # type: ignore[arg-type]


def accounts(database: KeyDatabase) -> dict[tuple[str, str], tuple[int, int]]:
    return {(each.scope, each.name): (each.spent, each.reserved) for each in database.balances()}


def took(found: Reservation | Shortfall) -> Reservation:
    assert isinstance(found, Reservation)
    return found


def test_a_key_is_found_by_its_secret_and_has_its_rules(database: KeyDatabase) -> None:
    rules = KeyRules(
        "ana", "search", 12.5, 60, 9_000, NOVEMBER + 5, frozenset({"small", "large"}), frozenset({"cheap"}), True
    )
    key, secret = database.create(rules)
    assert database.check(secret) == database.find(key.id) == key
    assert key.rules == rules
    assert key.created_at == NOVEMBER
    other = database.create(KeyRules("bob"))[0]
    assert database.list_keys() == sorted([key, other], key=lambda each: each.id)
    assert database.count() == 2


def test_no_other_secret_finds_a_key(database: KeyDatabase) -> None:
    key, secret = database.create(KeyRules("ana"))
    last = "A" if secret[-1] != "A" else "B"
    for wrong in (secret[:-1] + last, f"sk-eccos-{key.id}-" + 43 * "x", key.id, "", secret + "\n", "' OR 1=1 --"):
        assert database.check(wrong) is None


def test_the_database_holds_no_secret(database: KeyDatabase, place: str) -> None:
    _, secret = database.create(KeyRules("ana"))
    engine = open_engine(place)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM eccos_keys").all()
    engine.dispose()
    assert len(rows) == 1
    assert secret not in str(rows)
    assert secret[-43:] not in str(rows)
    for file in Path(place).parent.glob("*") if "://" not in place else ():
        assert secret.encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0, f"{file.name} can be read by others"


def test_a_key_that_is_revoked_elsewhere_is_revoked_here_at_once(open_database: Callable[[], KeyDatabase]) -> None:
    here, elsewhere = open_database(), open_database()
    key, secret = here.create(KeyRules("ana"))
    elsewhere.revoke(key.id)
    found = here.check(secret)
    assert found is not None
    assert found.revoked_at == NOVEMBER


def test_a_revoked_key_stays_revoked_at_its_first_time(database: KeyDatabase, clock: Clock) -> None:
    key = make(database)
    database.revoke(key.id)
    clock.now += 100
    assert database.revoke(key.id).revoked_at == NOVEMBER


def test_revoking_a_key_that_is_not_there_names_the_way_out(database: KeyDatabase) -> None:
    with pytest.raises(InputError, match=r"no key has the id 'nobody'.*eccos keys list"):
        database.revoke("nobody")


def test_money_is_reserved_and_settled_to_the_nano_dollar(database: KeyDatabase) -> None:
    key = make(database, tenant="search")
    limits = {"key": 100, "tenant": 1_000}
    first, second = took(database.reserve(key, 60, limits)), took(database.reserve(key, 40, limits))
    assert accounts(database) == {("key", key.id): (0, 100), ("tenant", "search"): (0, 100)}
    assert database.reserve(key, 1, limits) == Shortfall("key", key.id, 0, 100)
    assert database.settle(first, 7)
    assert not database.settle(first, 7)
    assert accounts(database) == {("key", key.id): (7, 40), ("tenant", "search"): (7, 40)}
    assert database.settle(second, 0)
    assert accounts(database) == {("key", key.id): (7, 0), ("tenant", "search"): (7, 0)}
    assert isinstance(database.reserve(key, 93, limits), Reservation)


def test_the_keys_of_a_tenant_share_its_budget_and_a_refusal_reserves_nothing(database: KeyDatabase) -> None:
    ana, bob = make(database, tenant="search"), make(database, tenant="search")
    limits = {"key": None, "tenant": 100}
    took(database.reserve(ana, 70, limits))
    assert database.reserve(bob, 31, limits) == Shortfall("tenant", "search", 30, 100)
    assert accounts(database).get(("key", bob.id), (0, 0)) == (0, 0)
    took(database.reserve(bob, 30, limits))


def test_a_first_reservation_larger_than_the_budget_is_refused(database: KeyDatabase) -> None:
    key = make(database)
    assert database.reserve(key, 101, {"key": 100}) == Shortfall("key", key.id, 100, 100)
    assert database.reserve(key, 1, {"key": 0}) == Shortfall("key", key.id, 0, 0)
    took(database.reserve(key, 0, {"key": 0}))


def test_a_call_dearer_than_its_reservation_counts_whole(database: KeyDatabase) -> None:
    key = make(database)
    database.settle(took(database.reserve(key, 90, {"key": 100})), 130)
    assert database.reserve(key, 0, {"key": 100}) == Shortfall("key", key.id, 0, 100)


def test_a_new_month_begins_with_the_whole_budget_and_settles_in_its_own(database: KeyDatabase, clock: Clock) -> None:
    key = make(database)
    held = took(database.reserve(key, 100, {"key": 100}))
    clock.now = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    took(database.reserve(key, 100, {"key": 100}))
    database.settle(held, 55)
    spent = {
        each.month: (each.spent, each.reserved) for month in ("2026-11", "2026-12") for each in database.balances(month)
    }
    assert spent == {"2026-11": (55, 0), "2026-12": (0, 100)}


def test_many_threads_never_reserve_more_than_the_budget(open_database: Callable[[], KeyDatabase]) -> None:
    """Two processes of eight threads want 16 x 25 x 10 of a budget of 1,003, and give half of each amount back."""
    databases = [open_database(), open_database()]
    key = make(databases[0], tenant="search")
    limits = {"key": 1_003, "tenant": 2_000}

    def spend(number: int) -> Counter[str]:
        database, done = databases[number % 2], Counter[str]()
        for _ in range(25):
            found = database.reserve(key, 10, limits)
            if isinstance(found, Reservation):
                database.settle(found, 5)
                done["spent"] += 5
            else:
                done["refused"] += 1
        return done

    with ThreadPoolExecutor(16) as threads:
        done = sum(threads.map(spend, range(16)), Counter[str]())
    held = accounts(databases[0])
    assert held[("key", key.id)] == held[("tenant", "search")] == (done["spent"], 0)
    assert 993 < done["spent"] <= 1_003
    assert done["refused"] > 0


def test_a_dead_process_is_settled_at_what_it_reserved(open_database: Callable[[], KeyDatabase], clock: Clock) -> None:
    dead, living = open_database(), open_database()
    key = make(living)
    dead.beat()
    took(dead.reserve(key, 60, {}))
    open_one = took(living.reserve(key, 5, {}))
    clock.now += ALIVE_S - 1
    assert living.beat() == 0, "a process that was seen a moment ago is not dead"
    clock.now += 2
    assert living.beat() == 1
    assert living.beat() == 0
    assert accounts(living) == {("key", key.id): (60, 5)}
    assert living.settle(open_one, 1)
    assert accounts(living) == {("key", key.id): (61, 0)}


def test_a_process_that_only_slept_corrects_what_was_settled_for_it(
    open_database: Callable[[], KeyDatabase], clock: Clock
) -> None:
    asleep, living = open_database(), open_database()
    key = make(living)
    asleep.beat()
    held = took(asleep.reserve(key, 60, {}))
    clock.now += ALIVE_S + 1
    assert living.beat() == 1
    assert asleep.settle(held, 20)
    assert accounts(living) == {("key", key.id): (20, 0)}
    assert not asleep.settle(held, 20)


SPENDING = """
import sys
from eccos_core.server.keys import KeyDatabase, Reservation
database, spent = KeyDatabase(sys.argv[1]), 0
key = database.find(sys.argv[2])
sys.stdin.readline()
for _ in range(40):
    held = database.reserve(key, 10, {"key": 503})
    if isinstance(held, Reservation):
        database.settle(held, 10)
        spent += 10
print(spent)
"""


def test_processes_together_spend_the_budget_and_no_more(place: str) -> None:
    """Three processes want 1,200 of a budget of 503 at the same time, in tens."""
    database = KeyDatabase(place)
    key = make(database)
    command = [sys.executable, "-c", SPENDING, place, key.id]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for each in running:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.close()
    done = []
    for each in running:
        assert each.stdout is not None
        done.append(int(each.stdout.read()))
        each.stdout.close()
        each.wait()
    assert [each.returncode for each in running] == [0, 0, 0]
    assert sum(done) == 500
    assert accounts(database) == {("key", key.id): (500, 0)}
    database.close()


KILLED = """
import sys, time
from eccos_core.server.keys import KeyDatabase, Reservation
database = KeyDatabase(sys.argv[1])
database.start()
key = database.find(sys.argv[2])
for number in range(20):
    held = database.reserve(key, 100, {"key": 10_000})
    if number < 19:
        database.settle(held, 40)
print("one is open", flush=True)
time.sleep(60)
"""


def test_kill_9_loses_no_settled_cost_and_at_most_one_reservation(place: str) -> None:
    with_key = KeyDatabase(place)
    key = make(with_key)
    killed = subprocess.Popen([sys.executable, "-c", KILLED, place, key.id], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "one is open\n"
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    with_key.close()
    later = KeyDatabase(place, clock=lambda: time.time() + ALIVE_S + 1)
    held = {each.month: (each.spent, each.reserved) for each in later.balances(month_of(key.created_at))}
    assert held == {month_of(key.created_at): (19 * 40, 100)}
    assert later.beat() == 1
    held = {each.month: (each.spent, each.reserved) for each in later.balances(month_of(key.created_at))}
    assert held == {month_of(key.created_at): (19 * 40 + 100, 0)}
    later.close()


def test_processes_with_many_keys_write_their_allowances_at_once(open_database: Callable[[], KeyDatabase]) -> None:
    """Two processes serve six keys of two tenants, write all the time, and neither waits for the other for ever."""
    databases = [open_database(), open_database()]
    keys = [make(databases[0], tenant=("search", "ads")[number % 2]) for number in range(6)]
    limits = {"key": 300, "tenant": 600}
    allowances = [Allowances(each, write_s=0.001) for each in databases]
    for each in allowances:
        each.start()

    def spend(number: int) -> Counter[str]:
        mine, done = allowances[number % 2], Counter[str]()
        for step in range(30):
            key = keys[(number * step) % len(keys)]
            hold = mine.take(key, 10) or mine.reserve(key, 10, limits)
            if isinstance(hold, Hold):
                mine.settle(hold, 7)
                done[key.id] += 7
        return done

    with ThreadPoolExecutor(8) as threads:
        done = sum(threads.map(spend, range(8)), Counter[str]())
    for each in allowances:
        each.close()
    held = accounts(databases[0])
    assert {name: held["key", name] for name in done} == {name: (usd, 0) for name, usd in done.items()}
    assert held["tenant", "search"][0] + held["tenant", "ads"][0] == done.total() > 600
    assert all(spent <= limits[scope] and reserved == 0 for (scope, _), (spent, reserved) in held.items())


def test_a_minute_of_requests_passes_at_once_and_then_one_by_one(database: KeyDatabase, clock: Clock) -> None:
    key = make(database, requests_per_minute=3)
    assert [database.take_request(key) for _ in range(3)] == [None, None, None]
    refused = database.take_request(key)
    assert refused is not None
    assert (refused.kind, refused.per_minute) == ("requests", 3)
    assert refused.retry_after_s == pytest.approx(20.0)
    clock.now += 20
    assert database.take_request(key) is None
    assert database.take_request(key) is not None
    clock.now += 600
    assert sum(database.take_request(key) is None for _ in range(10)) == 3


def test_tokens_of_an_answer_delay_the_next_request(database: KeyDatabase, clock: Clock) -> None:
    key = make(database, tokens_per_minute=600)
    assert database.take_tokens(key, 100) is None
    database.charge_tokens(key, 1_100)
    refused = database.take_tokens(key, 100)
    assert refused is not None
    assert refused.retry_after_s == pytest.approx(70.0)
    clock.now += 70
    assert database.take_tokens(key, 100) is None


def test_threads_of_two_processes_share_a_rate_limit(open_database: Callable[[], KeyDatabase]) -> None:
    databases = [open_database(), open_database()]
    key = make(databases[0], requests_per_minute=30)
    with ThreadPoolExecutor(8) as threads:
        passed = list(threads.map(lambda number: databases[number % 2].take_request(key) is None, range(60)))
    assert sum(passed) == 30


def test_a_key_without_limits_is_never_slowed(database: KeyDatabase) -> None:
    key = make(database)
    assert {database.take_request(key) for _ in range(5)} == {None}
    assert database.take_tokens(key, 10**9) is None
