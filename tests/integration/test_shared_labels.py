"""Replicas with one decision log in PostgreSQL: a label given to any of them reaches the online layer of all."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from decision_logs import new_database
from eccos_process import serve
from labelling_replica import LabellingReplica
from postgres_server import PostgresServer, running_postgres
from served_pool import KEY, served_pool
from waiting import wait_until

from eccos_core.cli import app
from eccos_core.cli.output import DONE, run
from eccos_core.testing import ModelServer

wait_for = partial(wait_until, timeout_s=10.0)

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as models:
        yield models


@pytest.fixture
def config(tmp_path: Path, server: PostgresServer, models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVED_KEY", KEY)
    monkeypatch.setenv("LOG_DATABASE", new_database(server.address()))
    path = served_pool(tmp_path, models.url)
    shared = "decision_log: os.environ/LOG_DATABASE\n  learning: {}"
    path.write_text(path.read_text().replace("decision_log: off", shared).replace("minilm", "static"))
    return path


def said_by_status(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert run(app, ["status", "--config", str(config), *options]) == DONE
    return capsys.readouterr().out


def test_a_label_reaches_the_online_layer_of_every_replica_once(config: Path, server: PostgresServer) -> None:
    one, other = LabellingReplica(config), LabellingReplica(config)
    question = "question number 3"
    before = one.ask("learned")
    assert other.ask("learned") == before
    unlearned = other.ask("forecast", question)
    decided = [one.ask("decide", question) for _ in range(4)]
    for each in decided:
        other.ask("record", each, 0.0)  # made by `one`, labelled at `other`
    assert other.ask("learned") == before + 4
    wait_for(lambda: one.ask("learned") == before + 4)
    assert one.ask("labelled") == other.ask("labelled") == 4
    assert one.ask("forecast", question) == pytest.approx(other.ask("forecast", question))
    assert min(one.ask("forecast", question)) < min(unlearned) - 0.01

    server.stop()
    server.start()
    mine = other.ask("decide", question)
    wait_for(lambda: one.ask("record", mine, 1.0) is None)
    wait_for(lambda: other.ask("learned") == before + 5)
    time.sleep(1.5)  # nobody counts a label again
    assert (one.ask("labelled"), other.ask("labelled")) == (5, 5)

    late = LabellingReplica(config)  # it learns from what the others have kept
    assert late.ask("learned") == before + 5
    assert late.ask("forecast", question) == pytest.approx(one.ask("forecast", question), abs=1e-6)
    for each in (one, other, late):
        each.close()


def test_feedback_of_one_server_about_a_decision_of_another_and_the_status_of_both(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent
    with serve(folder) as one, serve(folder) as other:
        body = {"model": "eccos", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(3):
            answer = httpx.post(f"{one.address}/v1/chat/completions", json=body, timeout=60)
            given = {"decision_id": answer.headers["x-eccos-decision-id"], "quality": 0.25}
            told = httpx.post(f"{other.address}/v1/eccos/feedback", json=given, timeout=60)
            assert told.status_code == 200, told.text
        assert httpx.post(f"{other.address}/v1/chat/completions", json=body, timeout=60).status_code == 200
        unknown = {"decision_id": "0" * 32, "quality": 0.25}
        assert httpx.post(f"{other.address}/v1/eccos/feedback", json=unknown, timeout=60).status_code == 404
        time.sleep(0.5)
        said = json.loads(said_by_status(config, capsys, "--json"))
        assert sum(each["decisions"] for each in said["hour"]) == 4
        assert sum(each["labelled"] for each in said["hour"]) == 3
        assert sorted((each["state"], each["decisions"], each["share"]) for each in said["replicas"]) == [
            ("running", 1, 0.25),
            ("running", 3, 0.75),
        ]
        other.process.send_signal(signal.SIGTERM)
        assert other.process.wait(30) == 0
        printed = said_by_status(config, capsys)
        assert "replicas: the last hour" in printed
        assert {"running", "stopped"} <= set(printed.split())
        assert "not-a-secret" not in printed + one.said.read_text()
