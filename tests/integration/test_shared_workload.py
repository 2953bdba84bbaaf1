"""What replicas share through Redis: failures reported of LiteLLM, wrong settings, and a Redis that is away."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import redis as redis_client
from redis_server import PASSWORD, RedisServer, redis_server, tls_redis_server
from replica_world import BrokenNetwork
from waiting import wait_until

from eccos_core import Router
from eccos_core.cli import app
from eccos_core.cli.output import DONE, run
from eccos_core.domain import BreakerState, Completion, Model
from eccos_core.errors import BackendError, CircuitOpen, InputError, Overloaded, SharedStateError
from eccos_core.streaming import InitialPrices, RateTarget, StreamController
from eccos_core.workload import BreakerSettings
from eccos_core.workload.shared import SharedSettings, SharedWorkload, look_at_fleet

wait_for = partial(wait_until, timeout_s=20.0)

pytestmark = pytest.mark.service
MODELS = [Model("capped", 0.0, 0.0, max_concurrency=4), Model("free", 0.0, 0.0)]
STATUS_POOL = """
model_list:
- {model_name: capped, litellm_params: {model: eccos-local/pocket-small}}
eccos:
  decision_log: {path: log.sqlite}
  workload: {shared: {url: os.environ/FLEET_REDIS, name: "%s"}}
"""
Fleet = Callable[..., list[SharedWorkload]]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def fleet(redis: RedisServer) -> Iterator[Fleet]:
    """Make replicas of a pool that no other test uses, ready to serve."""
    name, everybody = uuid4().hex, []

    def make(count: int, models: list[Model] = MODELS, **options: object) -> list[SharedWorkload]:
        url, rules = str(options.pop("url", redis.url)), options.pop("rules", {})
        settings = SharedSettings(url, name=name, **{"lease_s": 1.0, **rules})  # type: ignore[dict-item]
        made = [SharedWorkload(models, settings, **options) for _ in range(count)]  # type: ignore[arg-type]
        everybody.extend(made)
        wait_for(lambda: all(each.free_slots()[0] > 0 for each in made))
        return made

    yield make
    for each in everybody:
        each.close()


def hold(workload: SharedWorkload, model: str = "capped") -> ExitStack:
    stack = ExitStack()
    stack.enter_context(workload.hold(model))
    return stack


def hold_all(workload: SharedWorkload, model: str = "capped") -> int:
    """Take slots until none is left, and return how many. They are given back."""
    with ExitStack() as stack:
        taken = 0
        while taken < 1000:
            try:
                workload.acquire(lambda: stack.enter_context(workload.hold(model)), 0)
            except Overloaded:
                return taken
            taken += 1
        return taken


# ---------------------------------------------------------------- failures reported of LiteLLM on Redis


def test_litellm_16011_concurrent_requests_never_pass_the_cap(fleet: Fleet) -> None:
    """Max Parallel Requests do not limit parallel connection consistently (BerriAI/litellm 16011)."""
    replicas = fleet(3)
    lock, now, most, start = threading.Lock(), [0], [0], threading.Barrier(24)

    def call(workload: SharedWorkload) -> None:
        start.wait()
        for _ in range(5):
            with workload.acquire(lambda: hold(workload), 60):
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                time.sleep(0.002)
                with lock:
                    now[0] -= 1

    threads = [threading.Thread(target=call, args=(replicas[i % 3],)) for i in range(24)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert most[0] == 4


def test_litellm_20256_calls_that_time_out_or_are_cancelled_leave_no_slot_behind(fleet: Fleet) -> None:
    """max_parallel_requests deadlocks after timeouts, as its counter is never released (BerriAI/litellm 20256)."""
    one, other = fleet(2)
    for error in (TimeoutError, asyncio.CancelledError, KeyboardInterrupt) * 5:  # more often than there are slots
        with pytest.raises(error), one.hold("capped"):
            raise error
    wait_for(lambda: hold_all(other) == 4)


def test_litellm_27736_tokens_per_minute_hold_over_all_replicas(fleet: Fleet) -> None:
    """Deployment-level TPM enforcement is per-pod, the limit becomes tpm x replicas (BerriAI/litellm 27736)."""
    first, second = fleet(2, tokens_per_minute={"free": 1000})
    for _ in range(3):
        with first.hold("free"):
            pass
        first.observe("free", Completion("yes", "free", 200, 100, 0.0, 0.1))
    wait_for(lambda: second.status().models[1].tokens_last_minute == 900)
    assert second.free_slots()[1] == 0
    with pytest.raises(Overloaded, match="tokens per minute"), second.hold("free"):
        pass


def test_litellm_40291_the_check_before_a_call_reads_what_other_replicas_used(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TPM rate limit pre-call check reads local memory only (BerriAI/litellm 40291)."""
    first, second = fleet(2, tokens_per_minute={"free": 1000}, rules={"lease_s": 100.0})
    monkeypatch.setattr(second, "_exchange_state", lambda: None)  # its next heartbeat has not come yet
    with first.hold("free"):
        pass
    first.observe("free", Completion("yes", "free", 900, 100, 0.0, 0.1))
    wait_for(lambda: not first._events)  # Redis has heard of it, and the second replica has not
    assert second.free_slots()[1] > 0
    with pytest.raises(Overloaded), second.hold("free"):
        pass


def test_requests_per_minute_hold_over_all_replicas_to_the_last_one(fleet: Fleet) -> None:
    replicas = fleet(3, requests_per_minute={"free": 10})
    passed = 0
    for turn in range(30):
        try:
            with replicas[turn % 3].hold("free"):
                passed += 1
        except Overloaded:
            pass
    assert passed == 10


def test_a_message_that_arrives_late_or_twice_gives_no_slot_twice(fleet: Fleet) -> None:
    (workload,) = fleet(1)
    with workload._lock:
        old = workload._compose(workload._loads["capped"])
    held = hold(workload)
    answer = workload.server.run("exchange.lua", "meta", old)
    assert not answer["granted"]
    assert not answer["is_newest"]
    held.close()
    assert hold_all(workload) == 4


def test_a_replica_that_leaves_gives_everything_back_at_once(fleet: Fleet) -> None:
    first, second = fleet(2)
    stacks = [hold(first) for _ in range(4)]
    with pytest.raises(Overloaded), second.acquire(lambda: hold(second), 0):
        pass
    first.close()
    with second.acquire(lambda: hold(second), 5):
        pass
    del stacks


# ---------------------------------------------------------------- order among replicas


def test_a_replica_with_few_waiters_gets_its_share_beside_one_with_many(fleet: Fleet) -> None:
    busy, calm = fleet(2, [Model("capped", 0.0, 0.0, max_concurrency=2)])
    ends, served, lock = time.monotonic() + 2.5, {busy: 0, calm: 0}, threading.Lock()

    def work(workload: SharedWorkload) -> None:
        while time.monotonic() < ends:
            with workload.acquire(lambda: hold(workload), 30):
                time.sleep(0.05)
            with lock:
                served[workload] += 1

    threads = [threading.Thread(target=work, args=(each,)) for each in (*[busy] * 12, *[calm] * 6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert served[calm] >= 0.2 * served[busy]  # in one process it would be half
    assert sum(served.values()) >= 0.6 * 2 * 2.5 / 0.05  # few slots stay empty for it


def test_a_slot_that_others_cannot_use_is_not_left_for_long(fleet: Fleet) -> None:
    """The other replica waits for a model that is full, and leaves this one's slots alone."""
    models = [Model("capped", 0.0, 0.0, max_concurrency=1), Model("other", 0.0, 0.0, max_concurrency=1)]
    first, second = fleet(2, models)
    with hold(first, "other"):
        waiter = threading.Thread(target=lambda: second.acquire(lambda: hold(second, "other"), 10).close())
        waiter.start()
        wait_for(lambda: second._queue.longest_wait_s() > 0.5)
        waits = []
        for _ in range(5):
            began = time.monotonic()
            first.acquire(lambda: hold(first), 10).close()
            waits.append(time.monotonic() - began)
    waiter.join(20)
    assert max(waits) < 5.0
    assert sorted(waits)[2] < 0.1  # only the first one left the slot for a while


# ---------------------------------------------------------------- circuit breakers


def test_failures_of_all_replicas_open_one_circuit_and_one_probe_closes_it(fleet: Fleet) -> None:
    replicas = fleet(3, breaker=BreakerSettings(failures=3, open_s=0.3, warm_up_s=0.0))
    for each in replicas:
        with each.hold("free"):
            pass
        each.observe("free", None, BackendError("free", "down", retryable=True, kind="unavailable"))
    wait_for(lambda: all(each.status().models[1].breaker is not BreakerState.CLOSED for each in replicas))
    with pytest.raises(CircuitOpen), replicas[2].hold("free"):
        pass
    wait_for(lambda: all(each.status().models[1].breaker is BreakerState.HALF_OPEN for each in replicas))
    probe = hold(replicas[0], "free")
    for each in replicas[1:]:
        with pytest.raises(Overloaded), each.hold("free"):
            pass
    replicas[0].observe("free", Completion("yes", "free", 1, 1, 0.0, 0.1))
    probe.close()
    wait_for(lambda: all(each.status().models[1].breaker is BreakerState.CLOSED for each in replicas))


def test_a_probe_of_a_killed_replica_is_no_probe(fleet: Fleet) -> None:
    first, second = fleet(2, breaker=BreakerSettings(failures=1, open_s=0.1))
    first.observe("free", None, BackendError("free", "down", retryable=True, kind="unavailable"))
    wait_for(lambda: second.status().models[1].breaker is BreakerState.HALF_OPEN)
    probe = hold(first, "free")
    with pytest.raises(Overloaded), second.hold("free"):
        pass
    first.close()
    wait_for(lambda: second.free_slots()[1] == 1)
    del probe


# ---------------------------------------------------------------- budgets


def test_heartbeats_share_the_money_of_a_stream(fleet: Fleet) -> None:
    target = RateTarget(3600.0, "hour")
    streams = [StreamController(target, InitialPrices(1.0)) for _ in range(3)]
    replicas = fleet(3)
    for workload, stream in zip(replicas, streams, strict=True):
        workload.share_streams({"s": stream.share(workload.wake)})
    assert streams[0].spending is not None
    one, spent = np.ones(1), 0.0
    wait_for(lambda: all(each.spending.available_usd(time.monotonic()) > 0.1 for each in streams))  # type: ignore[union-attr]
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:  # only one replica is busy, and it spends what all of them have
        with suppress(Overloaded):
            spent += streams[0].decide(one, one, one > 0).cost_usd
        time.sleep(0.002)
    assert 30.0 <= spent <= 36.0 + 20.0  # what there was at the start, and the pace of the test's few seconds


def test_without_redis_a_stream_spends_what_is_left_of_its_room_or_earns_its_part(
    redis: RedisServer, fleet: Fleet
) -> None:
    network = BrokenNetwork(redis.port)
    url = redis.url.replace(str(redis.port), str(network.port))
    for when_away, earns in (("fail_closed", False), ("local_share", True)):
        (workload,) = fleet(1, url=url, rules={"when_away": when_away})
        stream = StreamController(RateTarget(36_000.0, "hour"), InitialPrices(1.0))
        workload.share_streams({when_away: stream.share(workload.wake)})
        account = stream.spending
        assert account is not None
        wait_for(lambda account=account: account.available_usd(time.monotonic()) > 0)
        network.cut()
        wait_for(lambda workload=workload: workload.status().shared.problem)
        room = account.available_usd(time.monotonic())
        account.add(room, time.monotonic())
        if earns:
            wait_for(lambda account=account: account.available_usd(time.monotonic()) > 0.1)
        else:
            assert account.available_usd(time.monotonic() + 5.0) == pytest.approx(0.0)
        network.heal()
        wait_for(lambda workload=workload: workload.status().shared.problem is None)
        workload.close()
    network.close()


# ---------------------------------------------------------------- wrong settings


def load(folder: Path, shared: str) -> Router:
    file = folder / "eccos.yaml"
    file.write_text(
        "model_list:\n- {model_name: m, litellm_params: {model: openai/x}, model_info: {free: true}}\n"
        f"eccos: {{encoder: static, history: in_memory, decision_log: off, workload: {{shared: {shared}}}}}\n"
    )
    return Router.from_yaml(file)


def test_a_router_of_a_file_shares_and_says_so(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis.url)
    router = load(tmp_path, "{url: os.environ/REDIS_URL, name: of-a-file}")
    shared = router.status().workload.shared
    assert shared is not None
    assert shared.replicas == 1
    assert shared.problem is None
    assert shared.server == f"redis://127.0.0.1:{redis.port}/0"
    assert PASSWORD not in repr(router.status())


def test_a_wrong_password_is_named_and_never_shown(redis: RedisServer) -> None:
    url = f"redis://:wrong-secret@127.0.0.1:{redis.port}/0"
    with pytest.raises(SharedStateError, match="refuses the password") as raised:
        SharedWorkload(MODELS, SharedSettings(url))
    assert "wrong-secret" not in str(raised.value) + repr(raised.value) + repr(SharedSettings(url))
    with pytest.raises(SharedStateError, match="wants a password"):
        SharedWorkload(MODELS, SharedSettings(f"redis://127.0.0.1:{redis.port}/0"))


@pytest.mark.parametrize(
    ("shared", "says"),
    [
        ("'redis://:hunter2@host:6379'", "holds a password"),
        ("'http://host'", "is not the address of a Redis"),
        ("'redis://host:99999'", "is not the address of a Redis"),
        ("os.environ/NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE is not set"),
        ("{url: 'redis://host', when_away: never}", "fail_closed"),
        ("{url: 'redis://host', name: 'a b'}", "letters, digits"),
        ("{when_away: fail_closed}", "url"),
    ],
)
def test_a_wrong_section_is_refused_with_its_place(tmp_path: Path, shared: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        load(tmp_path, shared)
    assert "hunter2" not in str(raised.value)
    assert "workload" in str(raised.value)


@pytest.mark.parametrize("kind", ["text", "hash"])
def test_keys_of_another_application_are_left_alone(redis: RedisServer, kind: str) -> None:
    name, client = uuid4().hex, redis_client.Redis.from_url(redis.url, decode_responses=True)
    key = f"eccos:{{{name}}}:meta"
    if kind == "text":
        client.set(key, "mine")
    else:
        client.hset(key, "theirs", "1")
    with pytest.raises(SharedStateError, match="keys of another application"):
        SharedWorkload(MODELS, SharedSettings(redis.url, name=name))
    assert (client.get(key) if kind == "text" else client.hget(key, "theirs")) in ("mine", "1")


def test_replicas_of_another_version_are_named_and_never_mixed(redis: RedisServer, fleet: Fleet) -> None:
    (old,) = fleet(1)
    client = redis_client.Redis.from_url(redis.url)
    key = f"{old.settings.prefix}:meta"
    client.hset(key, "schema", "0")  # as if the running replica were an older one
    with pytest.raises(SharedStateError, match="serves 1 replicas of another eccos, with schema '0'"):
        SharedWorkload(MODELS, old.settings)
    old.close()
    client.delete(f"{old.settings.prefix}:replicas")
    new = SharedWorkload(MODELS, old.settings)  # the last replica of the other version is gone
    wait_for(lambda: new.free_slots()[0] == 4)


def test_clocks_of_replicas_do_not_matter(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = fleet(2)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # 1970, for everybody who asks this process
    held = hold(wrong)
    time.sleep(1.5)  # longer than the lease
    wait_for(lambda: right.free_slots()[0] == 3)
    assert hold_all(right) == 3
    held.close()


# ---------------------------------------------------------------- Redis away


def test_without_redis_fail_closed_refuses_and_says_so_once(
    redis: RedisServer, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    network = BrokenNetwork(redis.port)
    url = redis.url.replace(str(redis.port), str(network.port))
    caplog.set_level(logging.INFO, "eccos.shared")
    (workload,) = fleet(1, url=url)
    network.cut()
    wait_for(lambda: workload.status().shared.problem)  # type: ignore[union-attr]
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(Overloaded, match="when_away is fail_closed"), workload.hold("capped"):
            pass
        with workload.hold("free"):  # it has no limit to share
            pass
    assert time.monotonic() - started < 1.0  # nobody waits for a Redis that is known to be away
    time.sleep(0.5)
    network.heal()
    wait_for(lambda: workload.status().shared.problem is None)  # type: ignore[union-attr]
    assert hold_all(workload) == 4
    said = [record.message for record in caplog.records]
    assert sum("the shared state is away" in line for line in said) == 1
    assert sum("the shared state is back" in line for line in said) == 1
    assert PASSWORD not in "".join(said)
    network.close()


def test_without_redis_local_share_goes_on_with_its_part_of_each_limit(redis: RedisServer, fleet: Fleet) -> None:
    network = BrokenNetwork(redis.port)
    url = redis.url.replace(str(redis.port), str(network.port))
    models = [Model("capped", 0.0, 0.0, max_concurrency=5)]
    replicas = fleet(2, models, url=url, rules={"when_away": "local_share"})
    wait_for(lambda: all(each.status().shared.replicas == 2 for each in replicas))  # type: ignore[union-attr]
    network.cut()
    wait_for(lambda: all(each.status().shared.problem for each in replicas))  # type: ignore[union-attr]
    assert sorted(hold_all(each) for each in replicas) == [2, 3]
    network.heal()
    wait_for(lambda: all(each.status().shared.problem is None for each in replicas))  # type: ignore[union-attr]
    wait_for(lambda: hold_all(replicas[0]) == 5)
    network.close()


def test_a_replica_starts_without_redis_and_serves_once_it_is_there() -> None:
    with redis_server() as server:
        server.kill()
        workload = SharedWorkload(MODELS, SharedSettings(server.url, lease_s=1.0, when_away="local_share"))
        with pytest.raises(Overloaded, match="Redis is away"), workload.hold("capped"):
            pass
        waiting: list[ExitStack] = []
        thread = threading.Thread(target=lambda: waiting.append(workload.acquire(lambda: hold(workload), 30)))
        thread.start()
        server.start()
        thread.join(30)
        assert len(waiting) == 1
        waiting[0].close()


async def test_a_task_waits_for_a_slot_that_another_replica_holds(fleet: Fleet) -> None:
    first, second = fleet(2)
    stacks = [hold(first) for _ in range(4)]
    threading.Timer(0.2, stacks[0].close).start()
    with await second.aacquire(lambda: hold(second), 10):
        pass
    for each in stacks:
        each.close()


def test_a_decision_costs_one_round_trip_and_none_without_a_limit(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workload,) = fleet(1)
    monkeypatch.setattr(workload, "_exchange_state", lambda: None)  # heartbeats are no part of a decision
    before = workload.server.round_trips
    for _ in range(50):  # the slots given back travel with the next take
        with workload.deciding() as free, workload.hold("capped"):
            assert free[0] == 4
    assert workload.server.round_trips - before == 50
    with workload.hold("free"):  # nothing to agree on
        pass
    assert workload.server.round_trips - before == 50


def test_without_the_package_the_error_names_the_extra(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['redis'] = None; import eccos_core.workload.shared"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, env=dict(os.environ))
    assert "eccos[redis]" in done.stderr


# ---------------------------------------------------------------- seen from outside


def test_the_status_shows_what_all_replicas_hold(fleet: Fleet) -> None:
    one, other = fleet(2, breaker=BreakerSettings(failures=1, open_s=60))
    one.observe("free", None, BackendError("free", "down", retryable=True, kind="unavailable"))
    settings = one.settings
    with hold(one), hold(other):
        wait_for(lambda: look_at_fleet(settings).open_circuits == ("free",))
        found = look_at_fleet(settings)
        assert (found.replicas, found.in_flight, found.waiting_replicas, found.problem) == (2, {"capped": 2}, 0, None)
        assert PASSWORD not in repr(found)
    one.close()
    other.close()
    assert look_at_fleet(settings).replicas == 0


def test_the_command_shows_it_too_and_says_when_redis_is_away(
    redis: RedisServer,
    fleet: Fleet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, _ = fleet(2)
    monkeypatch.setenv("FLEET_REDIS", redis.url)
    monkeypatch.setenv("COLUMNS", "300")
    config = tmp_path / "eccos.yaml"
    config.write_text(STATUS_POOL % one.settings.name)
    with hold(one):
        wait_for(lambda: (look_at_fleet(one.settings).in_flight or {}) == {"capped": 1})
        assert run(app, ["status", "-c", str(config)]) == DONE
        said = capsys.readouterr().out
        place = f"redis://127.0.0.1:{redis.port}/0"
        assert f"limits in {place}, pool '{one.settings.name}': 2 replicas, 1 calls in flight (capped 1)" in said
        assert run(app, ["status", "-c", str(config), "--json"]) == DONE
        assert json.loads(capsys.readouterr().out)["shared"]["in_flight"] == {"capped": 1}
    monkeypatch.setenv("FLEET_REDIS", "redis://:secret-word@127.0.0.1:1/0")
    assert run(app, ["status", "-c", str(config)]) == DONE
    said = capsys.readouterr().out
    assert "redis://127.0.0.1:1/0 does not answer" in said
    assert "secret-word" not in said


# ---------------------------------------------------------------- TLS


def test_replicas_share_through_tls_and_a_certificate_that_is_not_trusted_is_said(fleet: Fleet) -> None:
    with tls_redis_server() as (url, trusted, other):
        for authority in ("", f"?ssl_ca_certs={other}"):
            with pytest.raises(SharedStateError, match="a certificate that this machine does not trust") as told:
                SharedWorkload(MODELS, SharedSettings(url + authority))
            assert "ssl_ca_certs=/path/to/ca.pem" in str(told.value)
            assert PASSWORD not in str(told.value)
        one, other_replica = fleet(2, url=f"{url}?ssl_ca_certs={trusted}")
        with hold(one), hold(one), hold(one):
            assert hold_all(other_replica) == 1
        found = look_at_fleet(one.settings)
        assert (found.replicas, found.server) == (2, url.replace(f":{PASSWORD}@", ""))
        for each in (one, other_replica):
            each.close()
