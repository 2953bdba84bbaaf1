"""`eccos replay`: another configuration decides logged traffic again, and the log says how far it can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_pool import write_config, write_log

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.domain import Outcome
from eccos_core.io.outcome_tables import table_of
from eccos_core.io.outcomes import write_outcomes

pytestmark = pytest.mark.timeout(300)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def explored_rows(share: float, requests: int = 600) -> list[tuple[str, float, float, float | None]]:
    """A log of `small` (right in 60 %) with a share of random choices; `large` is right in 90 %."""
    draw = np.random.default_rng(0)
    rows: list[tuple[str, float, float, float | None]] = []
    for _ in range(requests):
        model = "large" if draw.random() < share / 2 else "small"
        propensity = share / 2 if model == "large" else 1 - share / 2
        good = draw.random() < (0.9 if model == "large" else 0.6)
        rows.append((model, propensity, 0.01 if model == "large" else 0.001, float(good)))
    return rows


def test_an_explored_log_tells_which_policy_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, policy = write_config(tmp_path), write_config(tmp_path, "new.yaml", price=1.0)
    write_log(tmp_path / "log.sqlite", explored_rows(0.4))
    picture = tmp_path / "replay.png"
    options = ["replay", "-c", str(config), "--policy", str(policy)]
    assert run(app, [*options, "--json", "--picture", str(picture)]) == DONE
    found = told(capsys)
    value = found["value"]
    assert (found["requests"], found["labelled"], found["learned_from"]) == (600, 600, 0)
    assert found["chosen"] == {"large": 600}
    assert found["explored"] == 600
    assert value["quality"]["low"] <= 0.9 <= value["quality"]["high"]
    assert value["cost_usd"]["low"] <= 0.01 <= value["cost_usd"]["high"]
    assert (found["quality_verdict"], found["cost_verdict"]) == ("higher", "higher")
    assert 80 < value["effective_sample_size"] < 160  # the random choices of large
    assert value["measurable"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(app, options) == DONE
    out = capsys.readouterr().out
    assert "Quality: higher" in out
    assert "cannot tell" not in out


def test_a_log_without_exploration_says_that_it_cannot_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, policy = write_config(tmp_path), write_config(tmp_path, "new.yaml", price=1.0)
    write_log(tmp_path / "log.sqlite", [("small", 1.0, 0.001, float(row % 5 > 0)) for row in range(100)])
    assert run(app, ["replay", "-c", str(config), "-p", str(policy)]) == DONE
    out = capsys.readouterr().out
    assert "Quality: cannot tell" in out
    assert "The log was made without exploration. It measures only the 0.0% of the requests" in out
    assert "You cannot tell which has the better quality: the interval is 1." in out


def test_the_policy_that_made_the_log_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    write_log(tmp_path / "log.sqlite", [("small", 1.0, 0.001, None)] * 20)
    assert run(app, ["replay", "-c", str(config), "-p", str(config)]) == DONE
    out = capsys.readouterr().out
    assert "Quality: the same" in out
    assert "The two agree on 100.0% of the requests" in out
    assert "No answer has a label, so quality is only forecast" in out


def test_a_new_model_of_the_policy_is_forecast_and_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, policy = write_config(tmp_path), write_config(tmp_path, "new.yaml", price=1.0)
    policy.write_text(policy.read_text().replace("model_name: large", "model_name: larger"))
    write_log(tmp_path / "log.sqlite", explored_rows(0.4, 100))
    assert run(app, ["replay", "-c", str(config), "-p", str(policy), "--json"]) == DONE
    found = told(capsys)
    assert found["chosen"] == {"larger": 100}
    assert (found["value"]["measurable"], found["quality_verdict"]) == (0, "cannot tell")
    assert found["value"]["quality"]["value"] == pytest.approx(0.9)  # its assumed quality


def test_another_encoder_reads_the_texts_or_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    policy = write_config(tmp_path, "new.yaml", encoder="{kind: static, dimensions: 64}")
    write_log(tmp_path / "log.sqlite", explored_rows(0.4, 50))
    assert run(app, ["replay", "-c", str(config), "-p", str(policy)]) == YOUR_INPUT
    error = capsys.readouterr().err
    assert "the policy reads with another encoder (82 dimensions)" in error
    assert "set eccos.decision_log.log_prompts" in error
    (tmp_path / "log.sqlite").unlink()
    write_log(tmp_path / "log.sqlite", explored_rows(0.4, 50), log_prompts=True)
    assert run(app, ["replay", "-c", str(config), "-p", str(policy), "--json"]) == DONE
    assert told(capsys)["chosen"] == {"small": 50}


def test_bad_input_has_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, policy = write_config(tmp_path), write_config(tmp_path, "new.yaml", price=1.0)

    def refused(*options: str) -> str:
        assert run(app, ["replay", "-c", str(config), "-p", str(policy), *options]) == YOUR_INPUT
        return capsys.readouterr().err

    assert "it holds no decision" in refused()
    write_log(tmp_path / "log.sqlite", explored_rows(0.4, 20))
    assert "--since is 'soon'" in refused("--since", "soon")
    text = policy.read_text()
    policy.write_text(text.replace("model_name: small", "model_name: a").replace("model_name: large", "model_name: b"))
    assert "this is the log of another pool" in refused()
    policy.unlink()
    assert "new.yaml" in refused()


def test_questions_that_the_new_predictor_learned_from_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, policy = write_config(tmp_path), write_config(tmp_path, "new.yaml", price=1.0)
    outcomes = [Outcome("q", "Question 3?", model, 1.0) for model in ("small", "large")]
    write_outcomes(tmp_path / "outcomes.jsonl", table_of(outcomes))
    policy.write_text(policy.read_text().replace("history: in_memory", "history: {outcomes: outcomes.jsonl}"))
    write_log(tmp_path / "log.sqlite", explored_rows(0.4, 20))
    assert run(app, ["replay", "-c", str(config), "-p", str(policy)]) == DONE
    assert "1 of the questions are in the history" in capsys.readouterr().out


def test_the_rules_of_a_tenant_hold_in_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sqlite3

    config, policy = write_config(tmp_path), write_config(tmp_path, "new.yaml", price=1.0)
    policy.write_text(policy.read_text() + "  tenants: {shop: {allow: [small]}}\n")
    write_log(tmp_path / "log.sqlite", explored_rows(0.4, 20))
    with sqlite3.connect(tmp_path / "log.sqlite") as connection:
        connection.execute("UPDATE decisions SET tenant = 'shop' WHERE id IN ('d0', 'd1', 'd2')")
    assert run(app, ["replay", "-c", str(config), "-p", str(policy), "--json"]) == DONE
    assert told(capsys)["chosen"] == {"large": 17, "small": 3}
