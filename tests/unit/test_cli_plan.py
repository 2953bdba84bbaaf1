"""`eccos plan`: a batch over the pocket pool, before anything is called."""

import json
from pathlib import Path
from typing import Any

import pytest
from pocket_pool import QUESTIONS, write_outcomes_part, write_pool_config

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run


def printed_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_batch_is_planned_priced_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = str(write_outcomes_part(tmp_path))  # an outcomes file has questions, too
    config = str(write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}"))
    picture = tmp_path / "plan.png"
    assert run(app, ["plan", "-r", requests, "-c", config, "--picture", str(picture), "--json"]) == DONE
    plan = printed_json(capsys)
    assert plan["requests"] == sum(plan["calls"].values()) == len(plan["assignment"]) == QUESTIONS
    assert max(plan["calls"].values()) <= 128
    assert plan["quality"] >= 0.6
    assert 0 < plan["lower_bound_usd"] <= plan["cost_usd"]
    floors = [row["floor"] for row in plan["floors"]]
    costs = [row["cost_usd"] for row in plan["floors"]]
    assert floors == sorted(floors)
    assert costs == sorted(costs)
    assert plan["sentences"]
    assert picture.read_bytes().startswith(b"\x89PNG")

    assert run(app, ["plan", "-r", requests, "-c", config]) == DONE
    out = capsys.readouterr().out
    assert "What if" in out
    assert plan["sentences"][0] in out


def test_requests_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_outcomes_part(tmp_path)
    config = str(write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}"))
    requests = tmp_path / "requests.jsonl"
    for content, message in (
        ("", "holds no requests"),
        ('{"query": "fine"}\n{"query": 7}\n', "requests.jsonl:2: query is the number 7"),
        ('{"query": "q", "allow": "pocket-small"}\n', "must be a list of names"),
    ):
        requests.write_text(content)
        assert run(app, ["plan", "-r", str(requests), "-c", config]) == YOUR_INPUT
        assert message in capsys.readouterr().err
    requests.write_text('{"query": "q", "allow": ["pocket-tiny"]}\n')
    assert run(app, ["plan", "-r", str(requests), "-c", config, "--json"]) == YOUR_INPUT
    error = printed_json(capsys)["error"]
    assert (error["type"], "pocket-small" in error["message"]) == ("UnknownModelError", True)
