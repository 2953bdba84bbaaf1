"""`eccos serve` with keys as users run it: processes of its own, keys from the command line, and a real kill -9."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import pytest
from eccos_process import accounts, eccos, make_key, serve, settled_accounts
from served_pool import served_pool

from eccos_core.server.keys.key import hash_key, id_of
from eccos_core.server.keys.ledger import ALIVE_S
from eccos_core.testing import ModelServer

KEYS = """\
  server: {keys: {tenants: {search: {usd_per_month: 100}}}}
"""


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, models: ModelServer) -> Path:
    """A folder with a pool, a decision log, and a server that wants keys."""
    path = served_pool(tmp_path, models.url)
    path.write_text(path.read_text().replace("  decision_log: off\n", "").replace("minilm", "static") + KEYS)
    return tmp_path


@pytest.mark.service
def test_keys_of_the_command_line_work_in_a_running_server_and_leave_no_trace(folder: Path) -> None:
    first = make_key(folder, "--tenant", "search", "--usd-per-month", "1")
    with serve(folder) as server:
        second = make_key(folder, "--admin")
        for secret in (first, second):
            assert server.ask(secret).status_code == 200
        key_id = id_of(first)
        assert key_id is not None
        assert eccos(folder, "keys", "revoke", key_id).returncode == 0
        assert server.ask(first).status_code == 401
        wrong = second[:-4] + "abcd"
        assert server.ask(wrong).status_code == 401
        listed = eccos(folder, "keys", "list", "--json")
        metrics = httpx.get(f"{server.address}/metrics", headers={"x-api-key": second}).text
    assert accounts(folder)["search"] == accounts(folder)[key_id]
    assert accounts(folder)[key_id][0] > 0
    assert accounts(folder)[key_id][1] == 0
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("keys.sqlite")]
    assert any(path.name.startswith("decisions.sqlite") for path in files)
    traces = [path.read_bytes() for path in files] + [listed.stdout.encode(), listed.stderr.encode(), metrics.encode()]
    for secret in (first, second, wrong):
        for word in (secret[-43:], hash_key(secret)):
            assert not any(word.encode() in trace for trace in traces)
    assert not any(first[-43:].encode() in path.read_bytes() for path in (folder / ".eccos").glob("keys.sqlite*"))


@pytest.mark.service
def test_a_server_that_is_killed_amid_a_call_counts_its_reservation_and_loses_nothing(folder: Path) -> None:
    secret = make_key(folder, "--usd-per-month", "1")
    key_id = str(id_of(secret))
    with serve(folder) as server:
        for _ in range(3):
            assert server.ask(secret).status_code == 200
        settled = settled_accounts(folder)[key_id]
        assert settled[0] > 0

        def ask_in_vain() -> None:
            with pytest.raises(httpx.HTTPError):
                server.ask(secret, "[[latency 30]] hello")

        asking = threading.Thread(target=ask_in_vain)
        asking.start()
        while accounts(folder)[key_id][1] == 0:
            time.sleep(0.05)
        reserved = accounts(folder)[key_id][1]
        server.process.send_signal(signal.SIGKILL)
        assert server.process.wait() == -signal.SIGKILL
        asking.join()
    assert accounts(folder)[key_id] == (settled[0], reserved)
    assert accounts(folder, ALIVE_S + 1)[key_id] == (settled[0] + reserved, 0)
    with serve(folder) as again:
        assert again.ask(secret).status_code == 200
    assert accounts(folder)[key_id][0] > settled[0] + reserved


@pytest.mark.service
def test_anthropics_client_hears_of_keys_and_budgets_in_its_own_words(folder: Path) -> None:
    secret, spent = make_key(folder), make_key(folder, "--usd-per-month", "0")
    with serve(folder) as server:

        def ask(key: str) -> anthropic.types.Message:
            client = anthropic.Anthropic(base_url=server.address, api_key=key, max_retries=0)
            return client.messages.create(
                model="eccos", max_tokens=20, messages=[{"role": "user", "content": "hello there"}]
            )

        assert ask(secret).content
        with pytest.raises(anthropic.AuthenticationError):
            ask("sk-ant-none")
        with pytest.raises(anthropic.APIStatusError) as refused:
            ask(spent)
    assert refused.value.status_code == 402
    assert refused.value.response.json()["error"]["type"] == "billing_error"
