"""`eccos serve --workers`: several processes on one port, in processes of their own, with a real kill -9."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from eccos_process import Process, accounts, create_key, serve
from redis_server import redis_server
from served_pool import KEY, served_pool
from waiting import wait_until

from eccos_core.config import load_config
from eccos_core.errors import InputError
from eccos_core.server.keys.key import id_of
from eccos_core.server.workers import check_workers
from eccos_core.testing import ModelServer

wait_for = partial(wait_until, timeout_s=60.0)

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, models: ModelServer) -> Path:
    path = served_pool(tmp_path, models.url)
    text = path.read_text().replace("minilm", "static")
    path.write_text(re.sub(r",? *max_concurrency: 64", "", text))
    return tmp_path


def children(parent: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return {int(each) for each in listed.split()}


def workers_seen(server: Process, secret: str) -> set[str]:
    """Ask the metrics on fresh connections, as any worker may answer."""
    found: set[str] = set()
    for _ in range(30):
        text = httpx.get(f"{server.address}/metrics", headers={"x-api-key": secret}).text
        found |= set(re.findall(r'eccos_ready\{worker="(\d+)"\} 1', text))
    return found


def ask_at_once(server: Process, secret: str, text: str, calls: int) -> tuple[list[threading.Thread], list[int]]:
    """Start calls, each in a thread of its own. Returns the threads, and a list that the statuses join."""
    statuses: list[int] = []
    asking = [
        threading.Thread(target=lambda: statuses.append(server.ask(secret, text).status_code)) for _ in range(calls)
    ]
    for thread in asking:
        thread.start()
    return asking, statuses


def test_workers_share_keys_files_and_limits_are_restarted_and_end_together(
    folder: Path, models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "eccos.yaml"
    text = path.read_text().replace("{input_cost_per_token", "{max_concurrency: 4, input_cost_per_token", 1)
    path.write_text(text + "  workload: {shared: os.environ/FLEET_REDIS}\n")
    secret, admin = create_key(folder, usd_per_month=1.0), create_key(folder, is_admin=True)
    key_id = str(id_of(secret))
    with redis_server() as redis:
        monkeypatch.setenv("FLEET_REDIS", redis.url)
        with serve(folder, "--workers", "2") as server:
            assert workers_seen(server, admin) == {"1", "2"}
            _check_that_files_are_shared(server, secret)

            asking, statuses = ask_at_once(server, secret, "[[latency 1]] hello", 1)
            wait_for(lambda: reserved(folder, key_id) > 0)
            of_one_call = reserved(folder, key_id)
            asking[0].join()
            assert statuses == [200]  # and now the limits are known to all

            models.reset()
            asking, statuses = ask_at_once(server, secret, "[[latency 0.5]] hello", 24)
            for thread in asking:
                thread.join()
            assert statuses == [200] * 24
            assert models.statistics().most_at_once["small"] == 4  # together, and none is left unused

            wait_for(lambda: reserved(folder, key_id) == 0)
            before = children(server.process.pid)
            assert len(before) == 2
            os.kill(min(before), signal.SIGKILL)
            wait_for(lambda: len(children(server.process.pid) - before) == 1)
            assert server.ask(secret).status_code == 200  # the other one answers
            wait_for(lambda: workers_seen(server, admin) == {"1", "2"})
            assert "It is started again" in server.said.read_text()

            wait_for(lambda: reserved(folder, key_id) == 0)  # all that was spent is written
            spent = accounts(folder)[key_id][0]
            asking, statuses = ask_at_once(server, secret, "[[latency 2]] hello", 8)
            wait_for(lambda: reserved(folder, key_id) >= 8 * of_one_call)  # four are under way, four wait for slots
            server.process.send_signal(signal.SIGTERM)
            for thread in asking:
                thread.join()
            assert statuses == [200] * 8
            assert server.process.wait(60) == 0
    assert accounts(folder)[key_id] == (pytest.approx(spent * 34 / 26, rel=0.2), 0)


def reserved(folder: Path, key_id: str) -> int:
    """What calls under way hold of a key's budget."""
    return accounts(folder).get(key_id, (0, 0))[1]


def _check_that_files_are_shared(server: Process, secret: str) -> None:
    headers = {"x-api-key": secret}
    file = {"file": b"{}\n"}
    uploaded = httpx.post(f"{server.address}/v1/files", data={"purpose": "batch"}, files=file, headers=headers).json()
    for _ in range(10):  # any worker has the file
        assert httpx.get(f"{server.address}/v1/files/{uploaded['id']}", headers=headers).status_code == 200


def test_workers_end_when_their_parent_is_killed(folder: Path) -> None:
    with serve(folder, "--workers", "2") as server:
        left = children(server.process.pid)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{each}").exists() for each in left))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{input_cost_per_token", "{max_concurrency: 8, input_cost_per_token"), "2 workers would each send small"),
        (("{model: openai/small,", "{model: openai/small, rpm: 60,"), "2 workers would each send small as much"),
        (("{outcomes: outcomes.jsonl}", "{path: history}"), "belongs to one process"),
        (("  decision_log: off", "  decision_log: off\n  stream: {usd_per_hour: 1.0}"), "2 workers would each spend"),
    ],
)
def test_what_workers_cannot_keep_together_is_refused(
    folder: Path, change: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    path = folder / "eccos.yaml"
    check_workers(load_config(path), 2)
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(InputError, match=said):
        check_workers(load_config(path), 2)
