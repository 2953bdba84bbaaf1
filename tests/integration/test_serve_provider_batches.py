"""`/v1/batches` through a provider's batch API: half the price, no row asked twice, and nothing lost on any fault."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from eccos_process import accounts, create_key, serve
from provider_pool import KEY, provider_pool
from serving_process import running_server
from waiting import wait_until

from eccos_core.router import Router
from eccos_core.server.gate import Caller
from eccos_core.server.keys import KeyDatabase, KeyGate, KeyRules
from eccos_core.server.keys.build import usd_of_models
from eccos_core.server.keys.key import id_of
from eccos_core.server.keys.ledger import ALIVE_S
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ModelServer

wait_for = partial(wait_until, timeout_s=30.0)
ENDED = ("completed", "failed", "cancelled")

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


def lines(asked: list[str], **body: Any) -> bytes:
    line = {"method": "POST", "url": "/v1/chat/completions"}
    return b"".join(
        json.dumps(
            {
                "custom_id": f"q{place}",
                **line,
                "body": {"model": "eccos", "messages": [{"role": "user", "content": text}], "max_tokens": 50, **body},
            }
        ).encode()
        + b"\n"
        for place, text in enumerate(asked)
    )


def questions(count: int) -> list[str]:
    return [f"question {number}" for number in range(count)]


def sdk(address: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def begin(client: openai.OpenAI, content: bytes, window: Any = "24h") -> str:
    uploaded = client.files.create(file=content, purpose="batch")
    asked = {"input_file_id": uploaded.id, "endpoint": "/v1/chat/completions", "completion_window": window}
    return client.batches.create(**asked).id


def look(client: openai.OpenAI, batch_id: str) -> dict[str, Any]:
    return client.batches.retrieve(batch_id).to_dict()  # type: ignore[return-value]


def wait(client: openai.OpenAI, batch_id: str) -> dict[str, Any]:
    wait_for(lambda: look(client, batch_id)["status"] in ENDED)
    return look(client, batch_id)


def results(client: openai.OpenAI, batch: dict[str, Any], kind: str = "output") -> dict[str, dict[str, Any]]:
    content = client.files.content(batch[f"{kind}_file_id"]).text
    return {line["custom_id"]: line for line in map(json.loads, content.splitlines())}


def said(result: dict[str, Any]) -> str:
    return str(result["response"]["body"]["choices"][0]["message"]["content"])


def at_provider(folder: Path) -> list[Path]:
    return sorted((folder / "batches").glob("*"))


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_rows_go_through_the_batch_api_at_half_the_price(models: ModelServer, tmp_path: Path, provider: str) -> None:
    models.reset()
    with (
        Router.from_yaml(provider_pool(tmp_path, models.url, provider=provider)) as router,
        running_server(router) as running,
    ):
        client = sdk(running.address)
        batch = wait(client, begin(client, lines(questions(30))))
        assert batch["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
        found = results(client, batch)
        assert {said(found[f"q{place}"]) == f"You said: question {place}" for place in range(30)} == {True}
        seen = models.statistics()
        assert seen.batches == {"large": 1}
        assert seen.batched["large"] >= 29
        assert sum(seen.requests.values()) == 30 - seen.batched["large"], "a row is asked in one place only"
        own = batch["eccos"]
        assert (own["at_providers"], own["certificates"][0]["requests"]) == (0, 30)
        bodies = [each["response"]["body"] for each in found.values() if each["response"]["body"]["model"] == "large"]
        for body in bodies:
            usage = body["usage"]
            half = 0.5 * (usage["prompt_tokens"] * 1e-5 + usage["completion_tokens"] * 4e-5)
            assert body["eccos"]["cost_usd"] == pytest.approx(half)
        assert own["batched_usd"] == pytest.approx(sum(body["eccos"]["cost_usd"] for body in bodies))
        assert "is_batched" not in client.files.content(batch["output_file_id"]).text
        assert at_provider(tmp_path) == [], "what was answered is forgotten"


def test_a_window_that_is_shorter_than_the_offer_is_called_at_once(models: ModelServer, tmp_path: Path) -> None:
    models.reset()
    with Router.from_yaml(provider_pool(tmp_path, models.url)) as router, running_server(router) as running:
        client = sdk(running.address)
        batch = wait(client, begin(client, lines(questions(4)), window="30m"))  # the offer answers within an hour
        assert batch["completion_window"] == "0.5h"
        assert batch["request_counts"]["completed"] == 4
        with pytest.raises(openai.BadRequestError, match="such as 24h"):
            begin(client, lines(["x"]), window="tomorrow")
    assert models.statistics().batches == {}


def test_rows_that_a_provider_leaves_open_are_called_at_once(models: ModelServer, tmp_path: Path) -> None:
    models.reset()
    asked = [*questions(6), "slow [[expire]]", "wrong [[status 400]]"]
    with Router.from_yaml(provider_pool(tmp_path, models.url)) as router, running_server(router) as running:
        client = sdk(running.address)
        batch = wait(client, begin(client, lines(asked)))
        assert batch["request_counts"] == {"total": 8, "completed": 7, "failed": 1}
        assert said(results(client, batch)["q6"]) == "You said: slow"
        (wrong,) = results(client, batch, "error").values()
    assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("q7", 400)
    assert at_provider(tmp_path) == []


def test_a_batch_is_cancelled_at_its_provider(tmp_path: Path) -> None:
    with (
        ModelServer(api_key=KEY, batch_s=600) as models,
        Router.from_yaml(provider_pool(tmp_path, models.url)) as router,
        running_server(router) as running,
    ):
        client = sdk(running.address)
        batch_id = begin(client, lines(questions(8)))
        wait_for(lambda: look(client, batch_id)["eccos"]["at_providers"] >= 7 and bool(models.statistics().batches))
        client.batches.cancel(batch_id)
        batch = wait(client, batch_id)
        assert batch["status"] == "cancelled"
        assert batch["eccos"]["at_providers"] == 0
        assert "large" not in models.statistics().requests, "nobody asked to pay the usual price"
        assert at_provider(tmp_path) == []


def test_two_batches_that_go_on_after_a_restart_keep_their_own_rows(tmp_path: Path) -> None:
    settings = ServerSettings(port=0, files_dir=tmp_path / "kept")
    with (
        ModelServer(api_key=KEY, batch_s=3.0) as models,
        Router.from_yaml(provider_pool(tmp_path, models.url)) as router,
    ):
        with running_server(router, settings=settings) as running:
            client = sdk(running.address)
            batch_ids = [begin(client, lines(["the same", "the same", "another"])) for _ in range(2)]
            wait_for(lambda: models.statistics().batches.get("large") == 2)
            wait_for(lambda: all(look(client, each)["eccos"]["at_providers"] for each in batch_ids))
        with running_server(router, settings=settings) as running:
            client = sdk(running.address)
            for batch in [wait(client, each) for each in batch_ids]:
                assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
                assert batch["eccos"]["resumed"] == 1
                assert len(results(client, batch)) == 3
        assert models.statistics().batches == {"large": 2}, "nothing was submitted again"
        assert at_provider(tmp_path) == []


def test_a_budget_that_cannot_set_the_whole_batch_aside_calls_its_rows(models: ModelServer, tmp_path: Path) -> None:
    models.reset()
    path = provider_pool(tmp_path, models.url)  # four calls at once need up to 0.02 USD, and the whole batch 0.037
    path.write_text(path.read_text().replace("max_concurrency: 64", "max_concurrency: 2"))
    with Router.from_yaml(path) as router:
        gate = KeyGate(KeyDatabase(tmp_path / "keys.sqlite"), lambda request: usd_of_models(router, request))
        key, secret = gate.database.create(KeyRules(name="small", usd_per_month=0.03))
        with running_server(router, gate) as running:
            client = sdk(running.address, secret)
            batch = wait(client, begin(client, lines(questions(20), max_tokens=90)))
            assert batch["request_counts"]["completed"] == 20
        assert models.statistics().batches == {}
        (account,) = asyncio.run(gate.balances())
        assert (account.name, account.reserved) == (key.id, 0)
        assert account.spent == pytest.approx(1e9 * batch["eccos"]["cost_usd"], abs=20)
        gate.close()


async def test_a_restart_finds_the_money_of_a_batch_again(tmp_path: Path) -> None:
    database = KeyDatabase(tmp_path / "keys.sqlite")
    key, _ = database.create(KeyRules(name="test", usd_per_month=1.0))
    first = KeyGate(database, lambda _: {})
    await first.reserve_batch(Caller(key.id), "batch_1", 0.6)
    first.close()
    again = KeyGate(KeyDatabase(tmp_path / "keys.sqlite"), lambda _: {})
    spending = await again.reserve_batch(Caller(key.id), "batch_1", 0.6)  # twice 0.6 would be too much
    await spending.settle(0.25)
    (account,) = again.database.balances()
    assert (account.spent, account.reserved) == (250_000_000, 0)
    again.close()


def test_kill_9_loses_no_row_and_asks_none_twice(tmp_path: Path) -> None:
    with ModelServer(api_key=KEY, batch_s=6.0) as models:
        path = provider_pool(tmp_path, models.url)
        path.write_text(path.read_text() + "  server: {keys: {}}\n")
        secret = create_key(tmp_path, usd_per_month=1.0)
        with serve(tmp_path, "--files", "kept") as server:
            client = sdk(server.address, secret)
            batch_id = begin(client, lines(questions(12)))
            wait_for(lambda: look(client, batch_id)["eccos"]["at_providers"] >= 11)
            wait_for(lambda: models.statistics().batches == {"large": 1})
            server.process.send_signal(signal.SIGKILL)
            assert server.process.wait() == -signal.SIGKILL
        assert len(list((tmp_path / "batches").glob("*.json"))) == 1
        with serve(tmp_path, "--files", "kept") as again:
            client = sdk(again.address, secret)
            batch = wait(client, batch_id)
            found = results(client, batch)
        assert batch["request_counts"] == {"total": 12, "completed": 12, "failed": 0}
        assert {custom_id: said(each) for custom_id, each in found.items()} == {
            f"q{place}": f"You said: question {place}" for place in range(12)
        }
        seen = models.statistics()
        assert seen.batches == {"large": 1}, "the batch is found again"
        assert seen.batched["large"] + sum(seen.requests.values()) == 12, "no row was asked twice"
        spent, reserved = accounts(tmp_path, ALIVE_S + 1)[str(id_of(secret))]
        assert reserved == 0
        assert spent == pytest.approx(1e9 * batch["eccos"]["cost_usd"], abs=12), "the money is counted once"
        assert at_provider(tmp_path) == []
