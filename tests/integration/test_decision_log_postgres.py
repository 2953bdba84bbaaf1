"""The decision log in PostgreSQL when something is wrong: the server is away, refuses, or has other tables."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from decision_logs import answered, decided, new_database
from postgres_server import PostgresServer, running_postgres
from replica_world import BrokenNetwork
from waiting import wait_until

from eccos_core import Router
from eccos_core.assembly.journal import open_journal
from eccos_core.config import load_config
from eccos_core.decision_log import LabelEntry, PostgresDecisionLog, SpendingEntry
from eccos_core.errors import ConfigError, DatabaseAwayError, DataError, InputError
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.daily_spending import PostgresSpending
from eccos_core.learning.learner import EXPLORING
from eccos_core.simulation.traces import read_trace

pytestmark = pytest.mark.service
POOL = """
model_list:
- model_name: small
  litellm_params: {model: eccos-local/pocket-small}
eccos:
  decision_log: %s
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres("scram-sha-256") as server:
        yield server


@pytest.fixture
def address(server: PostgresServer) -> str:
    return new_database(server.address("right-secret"))


def test_entries_wait_for_a_server_that_restarts(
    server: PostgresServer, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = PostgresDecisionLog(address)
    log.add_decision(decided("before"))
    assert log.flush()
    server.stop()
    with caplog.at_level(logging.ERROR, "eccos.decision_log"):
        for number in range(1_500):
            log.add_decision(decided(f"d{number}"))
        log.add_completion(answered("before"))
        assert not log.flush(1.0)
    assert log.problem is not None
    assert "does not answer" in log.problem
    assert len(caplog.records) == 1
    with pytest.raises(DataError, match="does not answer"):
        log.get("before")
    server.start()
    assert log.flush(10.0)
    assert log.problem is None
    assert log.dropped == 0
    assert len(log.entries(last=10_000)) == 1_501
    assert log.find("before").model == "small"
    log.close()


def test_a_log_is_opened_while_its_server_is_away(server: PostgresServer, address: str) -> None:
    server.stop()
    log = PostgresDecisionLog(address)
    assert log.problem is not None
    log.add_decision(decided("d1"))
    server.start()
    log.label("d1", 0.5)
    log.close()
    again = PostgresDecisionLog(address)
    assert again.find("d1").label == 0.5
    again.close()


def test_learning_does_not_start_without_what_the_others_have_learned(server: PostgresServer, address: str) -> None:
    server.stop()
    log = PostgresDecisionLog(address)
    with pytest.raises(
        DatabaseAwayError, match=r"eccos\.learning starts from the labels in it.*Start it again"
    ) as told:
        open_journal(None, log)
    assert "right-secret" not in str(told.value)
    server.start()
    journal = open_journal(None, log)
    assert journal is not None
    assert journal.entries(10) == []
    log.close()


def test_replicas_share_what_judging_may_cost_in_a_day(server: PostgresServer, address: str) -> None:
    logs = [PostgresDecisionLog(address) for _ in range(2)]
    now = [0.0]
    one, other = (DailyBudget("judge", 1.0, PostgresSpending(log.pool), monotonic=lambda: now[0]) for log in logs)
    assert (one.left_usd, other.left_usd) == (1.0, 1.0)
    assert one.reserve(0.7)
    one.settle(0.7, 0.6)
    now[0] += 1.0
    assert not other.reserve(0.5), "what the other one paid is known after a second"
    assert other.reserve(0.3)
    other.settle(0.3, 0.3)
    assert other.spent_usd == pytest.approx(0.9)

    server.stop()
    now[0] += 1.0
    assert not one.reserve(0.01), "nobody knows what is left"
    one.settle(0.0, 0.05)  # of a call that was under way
    server.start()
    now[0] += 1.0
    assert one.reserve(0.04)
    assert other.spent_usd == pytest.approx(0.95)
    for log in logs:
        log.close()


def test_what_replicas_explore_for_in_a_day_is_one_budget(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_LOG", address)
    log = "{database: os.environ/FLEET_LOG}\n  learning: {explore: thompson, share: 0.1, budget_usd_per_day: 1.0}"
    (tmp_path / "eccos.yaml").write_text(POOL % log)
    with Router.from_yaml(tmp_path / "eccos.yaml") as one, Router.from_yaml(tmp_path / "eccos.yaml") as other:
        assert one.parts.learner is not None
        assert other.parts.learner is not None
        budgets = one.parts.learner.budget, other.parts.learner.budget
        wait_until(lambda: [each.left_usd for each in budgets] == [1.0, 1.0], timeout_s=20)
        budgets[0].settle(0.0, 0.75)
        assert budgets[0].left_usd == 0.25
        wait_until(lambda: budgets[1].left_usd == 0.25, timeout_s=20)
        budgets[1].settle(0.0, 0.125)
    kept = PostgresDecisionLog(address)  # both have ended, and what they spent stays
    assert DailyBudget(EXPLORING, 1.0, PostgresSpending(kept.pool)).left_usd == 0.125
    kept.close()


def test_a_server_that_stops_for_three_seconds_loses_no_entry_and_delays_nobody(
    server: PostgresServer, address: str
) -> None:
    log = PostgresDecisionLog(address)
    log.add_decision(decided("before"))
    assert log.flush()
    slowest_s, ends_at = 0.0, time.monotonic() + 3.0
    with server.paused():
        for number in range(600):
            began = time.monotonic()
            log.add_decision(decided(f"d{number}"))
            slowest_s = max(slowest_s, time.monotonic() - began)
        assert not log.flush(max(0.0, ends_at - time.monotonic()))
    assert log.flush()
    assert slowest_s < 0.5  # it queues an entry in microseconds. A loaded machine may pause this thread
    assert (log.dropped, log.problem) == (0, None)
    assert log.reader.rows("SELECT count(*), count(DISTINCT id) FROM {decisions}") == [(601, 601)]
    log.close()


def test_a_network_that_drops_connections_loses_no_entry_and_writes_none_twice(
    server: PostgresServer, address: str
) -> None:
    network = BrokenNetwork(server.port)
    network.delay_s = 0.01
    log = PostgresDecisionLog(address.replace(f":{server.port}/", f":{network.port}/"))
    for number in range(300):
        log.add_decision(decided(f"d{number}"))
        log.add_spending(SpendingEntry(f"d{number}", "judge", 0.25))
        if number % 25 == 24:
            network.drop()  # also amid a commit, whose answer is then lost
            time.sleep(0.03)
    network.cut()
    log.add_decision(decided("last"))
    assert not log.flush(0.3)
    network.heal()
    assert log.flush()
    assert (log.dropped, log.problem) == (0, None)
    assert len(log.entries(last=10_000)) == 301
    assert sum(usd for _, _, usd in log.spending()) == 75.0
    log.close()
    network.close()


def test_too_many_entries_are_dropped_counted_and_logged(
    server: PostgresServer, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = PostgresDecisionLog(address, max_queued=600)
    server.stop()
    with caplog.at_level(logging.ERROR, "eccos.decision_log"):
        for number in range(500):
            log.add_decision(decided(f"d{number}"))
        time.sleep(0.5)  # the writer holds the first 500
        for number in range(500, 1_500):
            log.add_decision(decided(f"d{number}"))
    server.start()
    assert log.flush(10.0)
    kept = {each.id for each in log.entries(last=10_000)}
    assert kept == {f"d{number}" for number in range(1_100)}
    assert log.dropped == 400
    assert sum("being dropped" in record.message for record in caplog.records) == 1
    log.close()


def test_a_log_that_is_closed_without_its_server_says_what_is_lost(
    server: PostgresServer, address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eccos_core.decision_log.postgres.CLOSE_S", 0.3)
    log = PostgresDecisionLog(address)
    server.stop()
    for number in range(3):
        log.add_decision(decided(f"d{number}"))
    with caplog.at_level(logging.ERROR, "eccos.decision_log"):
        log.close()
    assert log.dropped == 3
    assert any("are lost" in record.message for record in caplog.records)
    server.start()


def test_a_wrong_password_is_said_and_never_shown(server: PostgresServer) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:\d+/postgres.* refuses the password of user 'eccos'") as told:
        PostgresDecisionLog(server.address("wrong-secret"))
    assert "wrong-secret" not in str(told.value)
    assert told.value.__cause__ is None
    with pytest.raises(InputError, match="refuses the password of user 'nobody'"):
        PostgresDecisionLog(server.address("wrong-secret", user="nobody"))
    missing = server.address("right-secret").replace("/postgres", "/missing")
    with pytest.raises(InputError, match="has no database 'missing'"):
        PostgresDecisionLog(missing)
    with pytest.raises(InputError, match="address must be postgresql://") as odd:
        PostgresDecisionLog("postgresql://eccos:wrong-secret@[")
    assert "wrong-secret" not in str(odd.value)


def test_a_user_that_may_make_no_tables_is_told(server: PostgresServer, address: str) -> None:
    with psycopg.connect(server.address("right-secret"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-secret'")
    with pytest.raises(InputError, match="permission denied") as told:
        PostgresDecisionLog(address.replace("eccos:right-secret", "guest:guest-secret"))
    assert "guest-secret" not in str(told.value)


def test_tables_of_another_version_are_refused(address: str) -> None:
    PostgresDecisionLog(address).close()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("UPDATE eccos_log_version SET version = 99")
    with pytest.raises(InputError, match="has version 99, and this eccos writes version 1"):
        PostgresDecisionLog(address)


def test_many_replicas_may_open_a_new_log_at_once(address: str) -> None:
    opened: list[PostgresDecisionLog] = []
    threads = [threading.Thread(target=lambda: opened.append(PostgresDecisionLog(address))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    assert len({each.replica for each in opened}) == 6
    for each in opened:
        each.close()


def test_a_log_is_a_trace_whose_password_is_never_shown(server: PostgresServer, address: str) -> None:
    log = PostgresDecisionLog(address)
    log.add_decision(decided("b", at=107.5))
    log.add_decision(decided("a", at=100.0))
    log.add_completion(answered("a"))
    log.close()
    trace = read_trace(address)
    assert trace.times_s.tolist() == [0.0, 7.5]
    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()[0]) == ([9, 7], 3)
    assert "right-secret" not in trace.describe()
    empty = new_database(server.address("right-secret"))
    with pytest.raises(DataError, match="eccos_decisions") as caught:
        read_trace(empty)
    assert "right-secret" not in str(caught.value)


def test_labels_of_other_replicas_come_once_and_in_force(address: str) -> None:
    one, other = PostgresDecisionLog(address), PostgresDecisionLog(address)
    one.add_decision(decided("d1"))
    one.add_decision(decided("d2"))
    one.flush()
    other.label("d1", 0.25)
    other.label("d2", 1.0)
    other.label("d2", 0.0, "judge")  # outranked
    one.label("d2", 0.75, "human")
    assert [(each.id, each.label, source) for each, source in one.new_labels()] == [("d1", 0.25, "human")]
    assert one.new_labels() == []
    assert [(each.id, each.label) for each, _ in other.new_labels()] == [("d2", 0.75)]
    other.label("d1", 0.5)
    assert [(each.id, each.label) for each, _ in one.new_labels()] == [("d1", 0.5)]
    late = PostgresDecisionLog(address)
    assert late.new_labels() == []
    for each in (one, other, late):
        each.close()


def test_a_group_that_was_written_twice_counts_once(address: str) -> None:
    """As when the answer of a commit is lost, and the group is written again."""
    one, other = PostgresDecisionLog(address), PostgresDecisionLog(address)
    group = [decided("d1"), answered("d1"), LabelEntry("d1", 0.5, at=7.0)]
    for _ in range(2):
        assert one._write_group(group, "key") == []
        assert len(other.new_labels()) == (1 if _ == 0 else 0)
    one.close()
    other.close()


def test_labels_are_read_in_the_order_of_their_commits(address: str) -> None:
    """Writers in threads of their own label at once, while a reader reads on from the last number it saw."""
    logs = [PostgresDecisionLog(address) for _ in range(4)]
    reader = PostgresDecisionLog(address)
    for number in range(120):
        logs[0].add_decision(decided(f"d{number}"))
    logs[0].flush()

    def label(each: PostgresDecisionLog, start: int) -> None:
        for number in range(start, 120, 4):
            each._write_group([LabelEntry(f"d{number}", 0.5)], f"k{number}")

    threads = [threading.Thread(target=label, args=(each, start)) for start, each in enumerate(logs)]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    while any(thread.is_alive() for thread in threads):
        seen += [each.id for each, _ in reader.new_labels()]
    seen += [each.id for each, _ in reader.new_labels()]
    assert sorted(seen) == sorted(f"d{number}" for number in range(120))
    for each in (*logs, reader):
        each.close()


def test_the_setting_takes_an_address_without_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(POOL % "postgresql://eccos@db.example/eccos")
    assert load_config(file).decision_log.address == "postgresql://eccos@db.example/eccos"
    monkeypatch.setenv("LOG_DATABASE", "postgres://eccos:right-secret@db.example/eccos")
    for written in ("os.environ/LOG_DATABASE", "{database: os.environ/LOG_DATABASE, log_prompts: true}"):
        file.write_text(POOL % written)
        config = load_config(file)
        assert config.decision_log.address == "postgresql://eccos:right-secret@db.example/eccos"
        assert "right-secret" not in repr(config)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("postgresql://eccos:right-secret@db.example/eccos", "holds a password"),
        ("mysql://eccos@db.example/eccos", "must be postgresql://user@host/name"),
        ("{database: decisions.sqlite}", "must be postgresql://user@host/name"),
        ("os.environ/NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
        ("elsewhere", "must be a mapping, postgresql://user@host/name, or off"),
    ],
)
def test_a_wrong_setting_names_the_rule(tmp_path: Path, written: str, said: str) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(POOL % written)
    with pytest.raises(ConfigError, match="decision_log") as told:
        load_config(file)
    assert said in str(told.value)
    assert "right-secret" not in str(told.value)
