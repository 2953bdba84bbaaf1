"""Two servers with one folder of files: each batch is run by one of them, and the other one sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
from served_pool import KEY, served_pool
from serving_process import Running, running_server
from waiting import wait_until

from eccos_core.router import Router
from eccos_core.server.batch_record import BatchFolder
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ModelServer

wait_for = partial(wait_until, timeout_s=30.0)

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with ModelServer(latency_s=0.3) as server:
        yield server


@pytest.fixture
def router(tmp_path: Path, models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    monkeypatch.setenv("SERVED_KEY", KEY)
    path = served_pool(tmp_path, models.url)
    path.write_text(path.read_text().replace("minilm", "static").replace("max_concurrency: 64", "max_concurrency: 2"))
    with Router.from_yaml(path) as router:
        yield router


def begin(server: Running, rows: int) -> str:
    lines = [
        {
            "custom_id": f"q{place}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": f"row {place}"}]},
        }
        for place in range(rows)
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    uploaded = httpx.post(f"{server.address}/v1/files", data={"purpose": "batch"}, files={"file": content}).json()
    asked = {"input_file_id": uploaded["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str(httpx.post(f"{server.address}/v1/batches", json=asked).json()["id"])


def look(server: Running, batch_id: str) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{server.address}/v1/batches/{batch_id}").json()
    return found


def test_each_batch_is_run_by_one_server_and_seen_by_both(tmp_path: Path, router: Router, models: ModelServer) -> None:
    settings = ServerSettings(port=0, files_dir=tmp_path / "kept")
    with running_server(router, settings=settings) as one, running_server(router, settings=settings) as other:
        batch_id = begin(one, 24)
        wait_for(lambda: look(other, batch_id)["request_counts"]["completed"] > 0)  # type: ignore[index]
        with running_server(router, settings=settings):  # a third one starts in the middle of it
            wait_for(lambda: look(other, batch_id)["status"] == "completed")
        found = look(other, batch_id)
        assert found["request_counts"] == {"total": 24, "completed": 24, "failed": 0}
        assert found["eccos"]["resumed"] == 0  # type: ignore[index]
        assert models.statistics().requests["small"] == 24
        output = httpx.get(f"{other.address}/v1/files/{found['output_file_id']}/content").text.splitlines()
        assert {json.loads(line)["custom_id"] for line in output} == {f"q{place}" for place in range(24)}
    left = {path.suffix for path in (tmp_path / "kept" / "batches").iterdir()}
    assert left == {".json"}


def test_another_server_takes_up_what_one_has_left(tmp_path: Path, router: Router, models: ModelServer) -> None:
    settings = ServerSettings(port=0, files_dir=tmp_path / "kept", drain_s=0.1)
    with ExitStack() as first, running_server(router, settings=settings) as other:
        one = first.enter_context(running_server(router, settings=settings))
        batch_id = begin(one, 24)
        wait_for(lambda: look(other, batch_id)["request_counts"]["completed"] > 4)  # type: ignore[index]
        first.close()
        wait_for(lambda: look(other, batch_id)["status"] == "completed")
        found = look(other, batch_id)
        assert found["request_counts"] == {"total": 24, "completed": 24, "failed": 0}
        assert found["eccos"]["resumed"] == 1  # type: ignore[index]
        assert models.statistics().requests["small"] <= 24 + 2  # the calls that the end cut off are made again


def test_a_batch_is_cancelled_at_any_server(tmp_path: Path, router: Router, models: ModelServer) -> None:
    settings = ServerSettings(port=0, files_dir=tmp_path / "kept")
    with running_server(router, settings=settings) as one, running_server(router, settings=settings) as other:
        batch_id = begin(one, 200)
        wait_for(lambda: look(one, batch_id)["status"] == "in_progress")
        told = httpx.post(f"{other.address}/v1/batches/{batch_id}/cancel").json()
        assert told["status"] == "cancelling"
        wait_for(lambda: look(other, batch_id)["status"] == "cancelled")
        assert look(one, batch_id)["status"] == "cancelled"
    assert models.statistics().requests["small"] < 200


def test_a_lock_holds_until_it_is_let_go(tmp_path: Path) -> None:
    one, other = BatchFolder(tmp_path), BatchFolder(tmp_path)
    assert one.take("batch_1")
    assert not other.take("batch_1")
    assert other.take("batch_2")
    one.let_go("batch_1", ended=True)
    assert other.take("batch_1")
    assert not one.take("batch_1")
    other.let_go("batch_1", ended=False)
    other.let_go("batch_2", ended=True)
    assert one.take("batch_1")
    one.let_go("batch_1", ended=True)
    assert list(tmp_path.iterdir()) == []
