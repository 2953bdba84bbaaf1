"""`eccos route` and `eccos ask`: real pocket models, and the decision log that they leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from pocket_pool import write_outcomes_part, write_pool_config

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.io.outcomes import read_outcomes
from eccos_core.pocket import pocket_names

QUESTION = "What is the capital of France?"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def config(tmp_path: Path) -> str:
    write_outcomes_part(tmp_path)
    return str(write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}"))


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_check_prints_the_bundled_pool(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["check", config, "--json"]) == DONE
    document = told(capsys)
    assert document["ok"] is True
    assert "pocket-maths" in json.dumps(document)


def test_route_decides_and_calls_nothing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["route", QUESTION, "-c", config, "--json"]) == DONE
    decision = told(capsys)
    forecast = {row["model"]: row for row in decision["forecast"]}
    assert set(forecast) == set(pocket_names())
    assert decision["quality"] == pytest.approx(forecast[decision["model"]]["quality"])
    assert all(0 <= row["quality"] <= 1 and row["cost_usd"] > 0 and row["eligible"] for row in forecast.values())
    assert run(app, ["route", QUESTION, "-c", config]) == DONE
    assert f"> {decision['model']}" in capsys.readouterr().out
    # both decisions are in the log, and nobody answered
    assert run(app, ["log", "-c", config, "--json"]) == DONE
    assert [(entry["decided_model"], entry["model"]) for entry in told(capsys)] == [(decision["model"], None)] * 2


def test_ask_answers_and_the_log_remembers_until_the_label_is_an_outcome(
    config: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(app, ["ask", QUESTION, "-c", config, "--max-tokens", "8", "--temperature", "0", "--json"]) == DONE
    answer = told(capsys)
    assert answer["model"] in pocket_names()
    assert answer["cost_usd"] > 0
    assert 0 < answer["output_tokens"] <= 8
    decision = answer["decision"]["id"]

    assert run(app, ["log", "-c", config, "--json"]) == DONE
    [entry] = told(capsys)
    assert (entry["id"], entry["model"], entry["text"]) == (decision, answer["model"], QUESTION)
    assert entry["paid_usd"] == pytest.approx(answer["cost_usd"])
    assert run(app, ["record", decision, "1", "-c", config]) == DONE
    capsys.readouterr()
    assert run(app, ["status", "-c", config, "--json"]) == DONE
    [usage] = told(capsys)["hour"]
    assert (usage["model"], usage["calls"], usage["labelled_share"]) == (answer["model"], 1, 1.0)

    outcomes = tmp_path / "labelled.jsonl"
    assert run(app, ["log", "-c", config, "--export", str(outcomes)]) == DONE
    table = read_outcomes(outcomes)
    assert (table.queries, table.models, table.quality.tolist()) == ((QUESTION,), (answer["model"],), [[1.0]])
    capsys.readouterr()
    kept = tmp_path / "kept.yaml"  # a history that outlives the command
    kept.write_text(Path(config).read_text().replace("{outcomes: outcomes.jsonl}", "{path: history}"))
    assert run(app, ["ingest", str(outcomes), "-c", str(kept), "--json"]) == DONE
    assert told(capsys) == {"questions": 1, "outcomes": 1, "new": 1, "warnings": []}


def test_what_is_wrong_is_said_and_ends_with_one(
    config: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("model_list: []")
    for arguments, message in (
        (["route", "  ", "-c", config], "question is empty"),
        (["ask", QUESTION, "-c", str(tmp_path / "missing.yaml")], "does not exist"),
        (["route", QUESTION, "-c", str(broken)], "must list at least one model"),
        (["ask", QUESTION, "-c", config, "--temperature", "hot"], "--temperature"),
    ):
        assert run(app, arguments) == YOUR_INPUT
        assert message in capsys.readouterr().err
    assert run(app, ["route", "", "-c", config, "--json"]) == YOUR_INPUT
    assert told(capsys)["error"]["type"] == "RequestError"
