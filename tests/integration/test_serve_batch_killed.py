"""kill -9 in the middle of a batch of a real `eccos serve`: it goes on, asks nothing twice that was answered, and
loses at most the calls that were under way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from eccos_process import accounts, make_key, serve
from served_pool import served_pool

from eccos_core.server.batch_record import BatchFolder, BatchRecord
from eccos_core.server.keys.key import id_of
from eccos_core.server.keys.ledger import ALIVE_S
from eccos_core.testing import ModelServer

ROWS, AT_ONCE = 40, 4


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
    secret = make_key(tmp_path, "--usd-per-month", "1", "--requests-per-minute", "6000")
    key_id = str(id_of(secret))
    with serve(tmp_path, "--files", "kept") as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=secret, max_retries=0)
        uploaded = client.files.create(file=rows(), purpose="batch")
        batch_id = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        while len(kept_results(tmp_path)) < ROWS // 3:
            time.sleep(0.02)
        server.popen.send_signal(signal.SIGKILL)
        assert server.popen.wait() == -signal.SIGKILL
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
    assert -ROWS <= unrecorded <= AT_ONCE * cost_of_one + ROWS
    assert killed_spent <= spent
    assert not list((tmp_path / "kept" / "batches").glob("*.results"))


def test_a_result_line_that_was_cut_off_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    folder, record = BatchFolder(tmp_path), BatchRecord("file-1", "a", None, False, None, {})
    folder.end_last_line(record)  # nothing is there yet
    folder.add_result(record, {"custom_id": "q0", "error": None})
    folder.end_last_line(record)
    with (tmp_path / f"{record.id}.results").open("ab") as stream:
        stream.write(b'{"custom_id": "q1", "err')
    folder.end_last_line(record)
    folder.add_result(record, {"custom_id": "q2", "error": None})
    assert [each["custom_id"] for each in folder.results(record)] == ["q0", "q2"]
