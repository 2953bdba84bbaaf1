"""`eccos init` against a server on this machine: from nothing to a first answer."""

import json
from pathlib import Path

import pytest

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


def test_three_answers_a_probe_and_a_first_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with ModelServer() as server:
        arguments = ["init", "--models", "small,large", "--at", server.url, "--priority", "answers", "--yes", "--json"]
        assert run(app, arguments) == DONE
        checked = json.loads(capsys.readouterr().out)
        assert [probe["ok"] for probe in checked["probes"]] == [True, True]
        assert sum(server.statistics().answered.values()) == 2
        assert run(app, ["ask", "What is the capital of France?", "--max-tokens", "8", "--json"]) == DONE
        answer = json.loads(capsys.readouterr().out)
        assert answer["model"] in {"small", "large"}
        assert answer["decision"]["quality_source"] == "price_rank"
        assert "comes from the rank of its price" in answer["decision"]["reason"]


def test_a_server_that_does_not_answer_is_told_and_the_file_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ModelServer() as server:
        gone = server.url
    file = tmp_path / "eccos.yaml"
    assert run(app, ["init", "--models", "m", "--at", gone, "--yes", "--out", str(file)]) == YOUR_INPUT
    assert "1 of 1 deployments did not answer" in capsys.readouterr().out
    assert file.exists()
