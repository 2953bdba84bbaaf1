"""A running `eccos serve` follows its file: budgets of tenants, what happens near a limit, and wrong keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from eccos_process import Process, accounts, make_key, serve, settled_accounts
from served_pool import served_pool

from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def ask(server: Process, secret: str, model: str = "eccos:best") -> httpx.Response:
    body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "[[tokens 20 10]] hello"}]}
    headers = {"x-api-key": secret}
    return httpx.post(f"{server.address}/v1/chat/completions", json=body, headers=headers, timeout=60)


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_changed_budgets_hold_without_a_restart_and_what_was_spent_stays(tmp_path: Path, models: ModelServer) -> None:
    path = served_pool(tmp_path, models.url)
    plain = path.read_text().replace("minilm", "static")

    def write(keys: str, rest: str = "") -> None:
        path.write_text(f"{plain}  server: {{keys: {{{keys}}}{rest}}}\n")

    write("near_limit: refuse, tenants: {search: {usd_per_month: 1}}")
    secret = make_key(tmp_path, "--tenant", "search")
    with serve(tmp_path) as server:
        first = ask(server, secret)
        assert (first.status_code, first.headers["x-eccos-model"]) == (200, "large")
        spent = settled_accounts(tmp_path)["search"][0]
        assert spent > 0

        # room for the small model, but not for the large one (about 1e-3 USD)
        write(f"near_limit: refuse, tenants: {{search: {{usd_per_month: {spent / 1e9 + 2e-4:.9f}}}}}")
        until(lambda: ask(server, secret).status_code == 402)
        refused = ask(server, secret)
        assert f"of {spent / 1e9 + 2e-4:.6f} USD" in refused.json()["error"]["message"]
        assert accounts(tmp_path)["search"][0] >= spent

        write(f"near_limit: step_down, tenants: {{search: {{usd_per_month: {spent / 1e9 + 2e-4:.9f}}}}}")
        until(lambda: ask(server, secret).status_code == 200)
        assert ask(server, secret).headers["x-eccos-model"] == "small"

        write("tenants: {search: {usd_per_month: 1}}, wrong_keys_per_minute: 1", ", port: 9")
        until(lambda: ask(server, secret).headers.get("x-eccos-model") == "large")
        wrong = [ask(server, "sk-eccos-000000000000-wrong").status_code for _ in range(3)]
        assert wrong == [401, 429, 429]
        assert settled_accounts(tmp_path)["search"][0] > spent
        until(lambda: "eccos.server.port has changed" in server.said.read_text())

        path.write_text("model_list: nonsense\n")  # a faulty file changes nothing
        time.sleep(1.5)
        assert ask(server, secret).status_code == 200
