"""`eccos log`, `eccos record` and `eccos status` over a real decision log."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.decision_log import CompletionEntry, DecisionEntry, DecisionLog, model_usage
from eccos_core.domain import Completion, Decision
from eccos_core.errors import Attempt
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.tokens import text_key
from eccos_core.learning import LabelJournal

CONFIG = """
model_list:
- {{model_name: small, litellm_params: {{model: openai/gpt-4o-mini, api_key: none}}}}
- {{model_name: large, litellm_params: {{model: gpt-4o, api_key: none}}}}
eccos: {{history: in_memory, decision_log: {log}}}
"""
HOUR = 3600.0


def decided(name: str, model: str, at: float, text: str) -> DecisionEntry:
    decision = Decision(name, f"r-{name}", model, 0.8, 0.05, 0.001, runner_up=None, reason="because")
    vector = np.array([0.6, 0.8], dtype=np.float32)
    return DecisionEntry(decision, text, vector, 7, {"small": (0.8, 0.001), "large": (0.9, 0.01)}, at=at)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose log has five decisions: see the rows below."""
    file = tmp_path / "eccos.yaml"
    file.write_text(CONFIG.format(log="{path: log.sqlite, log_prompts: true}"))
    log = DecisionLog(tmp_path / "log.sqlite", log_prompts=True)
    now = time.time()
    failed = Attempt("small", "rate_limit", "busy", 0.1)
    rows: list[tuple[str, str, float, str | None, float, tuple[Attempt, ...]]] = [
        ("d1", "small", now - 30 * HOUR, "small", 0.9, ()),
        ("d2", "small", now - 2 * HOUR, "small", 0.4, ()),
        ("d3", "small", now - 60, "large", 0.2, (failed,)),
        ("d4", "large", now - 50, "large", 0.6, ()),
        ("d5", "small", now - 40, None, 0.0, (failed,)),
    ]
    for name, chosen, at, answered_by, latency_s, attempts in rows:
        log.add_decision(decided(name, chosen, at, f"question of {name if name != 'd4' else 'd3'}"))
        answer = Completion("yes", answered_by, 9, 3, 0.002, latency_s) if answered_by else None
        log.add_completion(CompletionEntry(name, answer, attempts))
    log.close()
    return file


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_log_shows_the_newest_first_and_filters(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    asked = {
        (): ["d5", "d4", "d3", "d2", "d1"],
        ("--last", "2"): ["d5", "d4"],
        ("--model", "small"): ["d5", "d2", "d1"],
        ("--since", "90m"): ["d5", "d4", "d3"],
        ("--since", "2020-01-01", "--model", "large"): ["d4", "d3"],
        ("--labelled",): [],
    }
    for options, expected in asked.items():
        assert run(app, ["log", "-c", str(config), "--json", *options]) == DONE
        assert [entry["id"] for entry in told(capsys)] == expected
    assert run(app, ["log", "-c", str(config), "--last", "1", "--json"]) == DONE
    [newest] = told(capsys)
    assert (newest["model"], newest["decided_model"], newest["text"]) == (None, "small", "question of d5")
    assert newest["forecast"]["large"] == {"quality": 0.9, "cost_usd": 0.01}
    assert newest["attempts"][0]["kind"] == "rate_limit"
    assert "vector" not in newest
    assert run(app, ["log", "-c", str(config)]) == DONE
    table = capsys.readouterr().out
    assert "small: rate_limit" in table
    assert "small (no answer)" in table


def test_a_label_is_given_once_or_again_and_exported_as_an_outcome(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for decision, quality in (("d2", "1"), ("d3", "1"), ("d3", "0.25"), ("d4", "0.5")):
        assert run(app, ["record", decision, quality, "-c", str(config), "--json"]) == DONE
        assert told(capsys) == {"decision_id": decision, "quality": float(quality)}
    assert run(app, ["log", "-c", str(config), "--labelled", "--json"]) == DONE
    assert [(entry["id"], entry["label"]) for entry in told(capsys)] == [("d4", 0.5), ("d3", 0.25), ("d2", 1.0)]
    target = tmp_path / "outcomes.jsonl"
    assert run(app, ["log", "-c", str(config), "--export", str(target), "--json"]) == DONE
    assert told(capsys) == {"file": str(target), "questions": 2, "outcomes": 3, "without_text": 0}
    table = read_outcomes(target)
    assert table.question_ids == (text_key("question of d2"), text_key("question of d3"))
    assert table.models == ("small", "large")
    # d3 and d4 are the same question, answered by large both times: the newest label counts
    np.testing.assert_array_equal(table.quality, [[1.0, np.nan], [np.nan, 0.5]])
    np.testing.assert_array_equal(table.output_tokens, [[3, np.nan], [np.nan, 3]])
    assert table.cost_usd is not None
    assert (table.cost_usd[~np.isnan(table.quality)] > 0).all(), "what was paid"


def test_old_decisions_are_deleted_and_all_others_stay(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["log", "-c", str(config), "--delete-before", "90m", "--json"]) == DONE
    assert told(capsys)["deleted"] == 2
    assert run(app, ["log", "-c", str(config), "--json"]) == DONE
    assert [entry["id"] for entry in told(capsys)] == ["d5", "d4", "d3"]
    assert run(app, ["log", "-c", str(config), "--delete-before", "2020-01-01"]) == DONE
    assert "deleted 0 decisions of before 2020-01-01 00:00:00 UTC" in capsys.readouterr().out


def test_what_cannot_be_exported_or_recorded_is_said(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "outcomes.jsonl"
    wrong = {
        ("log", "--export", str(target)): "no decision has a label",
        ("log", "--export", str(target), "--unlabelled"): "cannot go with --unlabelled",
        ("log", "--since", "yesterday"): "'yesterday', it must be a duration",
        ("log", "--delete-before", "yesterday"): "--delete-before is 'yesterday', it must be a duration",
        ("log", "--delete-before", "1d", "--model", "small"): "Use no other option with it",
        ("record", "d9", "1"): "unknown decision 'd9'",
        ("record", "d1", "1.5"): "must be in [0, 1]",
    }
    for arguments, message in wrong.items():
        assert run(app, [*arguments, "-c", str(config)]) == YOUR_INPUT
        assert message in capsys.readouterr().err
    assert not target.exists()


def test_an_export_without_texts_says_what_to_set(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(CONFIG.format(log="{path: plain.sqlite}"))
    log = DecisionLog(tmp_path / "plain.sqlite")
    log.add_decision(decided("d1", "small", time.time(), "secret"))
    log.label("d1", 1.0)
    log.close()
    assert run(app, ["log", "-c", str(file), "--export", str(tmp_path / "outcomes.jsonl")]) == YOUR_INPUT
    assert "set eccos.decision_log.log_prompts" in capsys.readouterr().err


def test_status_counts_each_model_by_hour_and_day(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["record", "d4", "0.5", "-c", str(config)]) == DONE
    capsys.readouterr()
    assert run(app, ["status", "-c", str(config), "--json"]) == DONE
    status = told(capsys)
    large, small = status["hour"]
    assert (large["model"], large["calls"], large["answers"], large["error_rate"]) == ("large", 2, 2, 0.0)
    assert large["paid_usd"] == pytest.approx(0.004)
    assert large["median_latency_s"] == pytest.approx(0.4)
    assert (large["labelled_share"], large["mean_label"]) == (0.5, 0.5)
    # two failed calls, one of a request that large answered; one decision, which nobody answered
    assert (small["model"], small["calls"], small["error_rate"], small["decisions"]) == ("small", 2, 1.0, 1)
    assert small["median_latency_s"] is None
    day = {each["model"]: each for each in status["day"]}
    assert (day["small"]["calls"], day["small"]["answers"], day["large"]["calls"]) == (3, 1, 2)
    assert day["small"]["error_rate"] == pytest.approx(2 / 3)
    assert run(app, ["status", "-c", str(config)]) == DONE
    assert "66.7%" in capsys.readouterr().out


def test_no_log_yet_is_no_error_but_a_log_that_is_off_or_damaged_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(CONFIG.format(log="{path: later.sqlite}"))
    assert run(app, ["log", "-c", str(file)]) == DONE
    assert "No such decisions" in capsys.readouterr().err
    assert run(app, ["status", "-c", str(file)]) == DONE
    assert "no decisions in the last hour" in capsys.readouterr().out
    assert model_usage(tmp_path / "later.sqlite", 0.0) == ()
    (tmp_path / "later.sqlite").write_bytes(b"this is no database" * 100)
    for command in ("log", "status"):
        assert run(app, [command, "-c", str(file)]) == YOUR_INPUT
        assert "cannot be read as a decision log" in capsys.readouterr().err
    file.write_text(CONFIG.format(log="off"))
    for arguments in (["log"], ["status"], ["record", "d1", "1"]):
        assert run(app, [*arguments, "-c", str(file)]) == YOUR_INPUT
        assert "eccos.decision_log is off" in capsys.readouterr().err


def test_a_label_of_the_command_waits_in_the_journal_of_a_learning_router(config: Path) -> None:
    assert run(app, ["record", "d1", "0.5", "--config", str(config)]) == DONE
    assert not (config.parent / "learning.sqlite").exists()  # nothing learns here
    config.write_text(config.read_text().replace("eccos: {", "eccos: {learning: {explore: off}, "))
    assert run(app, ["record", "d3", "0.25", "--config", str(config)]) == DONE
    (kept,) = LabelJournal(config.parent / "learning.sqlite").entries(10)
    assert (kept.decision_id, kept.model, kept.quality) == ("d3", "large", 0.25)
    np.testing.assert_array_equal(kept.vector, np.array([0.6, 0.8], dtype=np.float32))
