"""kill -9 in the middle of a batch of a real `eccos serve`: it goes on, asks nothing twice that was answered, and
loses at most the calls that were under way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import openai
import pytest
from eccos_process import accounts, create_key, serve
from served_pool import served_pool

from eccos_core.server.batch_results import ResultLog, read_results
from eccos_core.server.keys.key import id_of
from eccos_core.server.keys.ledger import ALIVE_S
from eccos_core.testing import ModelServer

ROWS, AT_ONCE = 40, 4
FULL_DISK = Path("/dev/full")


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(latency_s=0.25) as server:
        yield server


def rows() -> bytes:
    lines = [
        {
            "custom_id": f"q{place}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": f"row {place}"}]},
        }
        for place in range(ROWS)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def kept_results(folder: Path) -> list[dict[str, object]]:
    found = list((folder / "kept" / "batches").glob("*.results"))
    return [json.loads(line) for line in found[0].read_bytes().splitlines()] if found else []


@pytest.mark.service
@pytest.mark.timeout(240)
def test_a_batch_goes_on_after_kill_9_and_asks_no_answered_row_again(tmp_path: Path, models: ModelServer) -> None:
    path = served_pool(tmp_path, models.url)
    text = path.read_text().replace("minilm", "static").replace("max_concurrency: 64", f"max_concurrency: {AT_ONCE}")
    path.write_text(text + "  server: {keys: {}}\n")
    secret = create_key(tmp_path, usd_per_month=1.0, requests_per_minute=6000)
    key_id = str(id_of(secret))
    with serve(tmp_path, "--files", "kept") as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=secret, max_retries=0)
        uploaded = client.files.create(file=rows(), purpose="batch")
        batch_id = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        while len(kept_results(tmp_path)) < ROWS // 3:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGKILL)
        assert server.process.wait() == -signal.SIGKILL
    answered = kept_results(tmp_path)
    assert ROWS // 3 <= len(answered) < ROWS
    killed_spent, killed_reserved = accounts(tmp_path)[key_id]
    time.sleep(0.5)  # the provider ends what it was doing
    models.reset()

    with serve(tmp_path, "--files", "kept") as again:
        client = openai.OpenAI(base_url=f"{again.address}/v1", api_key=secret, max_retries=0)
        deadline = time.monotonic() + 120
        while (batch := client.batches.retrieve(batch_id)).status != "completed":
            assert time.monotonic() < deadline, batch
            time.sleep(0.1)
        results = [json.loads(line) for line in client.files.content(batch.output_file_id or "").text.splitlines()]
    assert models.statistics().requests["small"] == ROWS - len(answered), "an answered row was asked again"
    assert sorted(each["custom_id"] for each in results) == sorted(f"q{place}" for place in range(ROWS))
    assert {each["response"]["body"]["choices"][0]["message"]["content"] for each in results} == {
        f"You said: row {place}" for place in range(ROWS)
    }
    assert batch.error_file_id is None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (ROWS, 0)  # type: ignore[union-attr]
    own = (batch.model_extra or {})["eccos"]
    assert own["resumed"] == 1
    assert [each["requests"] for each in own["certificates"]] == [ROWS, ROWS - len(answered)]

    # what was reserved for the calls that the kill cut off is counted as spent, and nothing else is wrong
    spent, reserved = accounts(tmp_path, ALIVE_S + 1)[key_id]
    usd = sum(each["response"]["body"]["eccos"]["cost_usd"] for each in results)
    cost_of_one = max(each["response"]["body"]["eccos"]["cost_usd"] for each in results) * 1e9
    assert reserved == 0
    unrecorded = spent - killed_reserved - round(usd * 1e9)  # settled, but killed before the result was written
    unwritten = 2 * AT_ONCE * cost_of_one  # ended in the last .2 s: what was reserved for them counts instead
    assert -unwritten - ROWS <= unrecorded <= AT_ONCE * cost_of_one + ROWS
    assert spent >= round(usd * 1e9) - ROWS, "nothing that was answered is lost"
    assert killed_spent <= spent
    assert not list((tmp_path / "kept" / "batches").glob("*.results"))


async def test_a_result_line_that_was_cut_off_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "batch.results"
    assert read_results(path) == []
    for custom_id in ("q0", "q2"):
        log = ResultLog(path)
        log.add({"custom_id": custom_id, "error": None})
        assert read_results(path)[-1]["custom_id"] == custom_id, "the system has it at once, so a kill loses nothing"
        await log.close()
        with path.open("ab") as stream:
            stream.write(b'{"custom_id": "q1", "err')
    assert [each["custom_id"] for each in read_results(path)] == ["q0", "q2"]


async def test_results_are_put_on_the_disk_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(len(read_results(path))))
    path = tmp_path / "batch.results"
    log = ResultLog(path)
    for place in range(100):
        log.add({"custom_id": f"q{place}", "error": None})
        await asyncio.sleep(0)
    await log.close()
    assert synced == [100], "one group, and it has all of them"


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
async def test_a_full_disk_is_an_error() -> None:
    log = ResultLog(FULL_DISK)
    with pytest.raises(OSError, match="No space left"):
        log.add({"custom_id": "q0"})
    with suppress(OSError):  # a device cannot be synced
        await log.close()
