"""`eccos collect` as a command: what it prints, and how it ends when something is wrong. Nothing is called here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eccos_core.cli import app
from eccos_core.cli.output import run

CONFIG = """
model_list:
  - model_name: one
    litellm_params: {model: openai/one, api_base: "http://127.0.0.1:9/v1", api_key: none}
    model_info:
      input_cost_per_token: 1.0e-6
      output_cost_per_token: 2.0e-6
      max_input_tokens: 1000
      max_output_tokens: 100
  - model_name: two
    litellm_params: {model: openai/two, api_base: "http://127.0.0.1:9/v1", api_key: none}
    model_info: {free: true, max_input_tokens: 1000}
eccos:
  retries: {attempts: 2, initial_backoff_s: 0, max_backoff_s: 0}
"""
QUESTIONS = [
    {"id": "a", "query": "What is 1 + 1?", "reference": "2", "grader": "number"},
    {"id": "b", "query": "What is 1 + 2?", "reference": "3", "grader": "number"},
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eccos.yaml").write_text(CONFIG)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return tmp_path


def collected(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(app, ["collect", "--questions", "q.jsonl", "--out", "o.jsonl", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_dry_run_shows_what_it_assumes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = collected(capsys, "--dry-run", "--max-tokens", "50", "--assume-output-tokens", "40")
    assert code == 0
    assert "2 questions, 0 outcomes recorded before. Nothing was called." in out
    assert "40 (assumed)" in out
    assert "at most" in out
    assert sorted(path.name for path in files.iterdir()) == ["eccos.yaml", "q.jsonl"]


def test_a_dry_run_in_json_is_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = collected(capsys, "--dry-run", "--json", "--models", "one")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    (row,) = found["models"]
    assert (row["model"], row["calls"], row["output_tokens_basis"]) == ("one", 2, "limit")
    assert found["usd_at_most"] > found["usd"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "none.yaml"], "does not exist"),
        (["--models", "on"], "unknown model 'on'; did you mean 'one'?"),
        (["--questions", "none.jsonl"], "none.jsonl: no such file"),
        (["--out", "o.jsonl.gz"], "o.jsonl.gz: lines are appended"),
        (["--concurrency", "0"], "--concurrency"),
        (["--budget-usd", "-1"], "--budget-usd"),
        (["--budget-usd", "nan"], "--budget-usd"),
        (["--choose"], "Add --budget-usd"),
        (["--choose", "--budget-usd", "1", "--dry-run"], "--dry-run cannot tell its cost"),
        (["--from-log"], "give the questions once"),
    ],
)
def test_what_is_wrong_is_said_and_the_exit_code_is_1(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = collected(capsys, *arguments)
    assert code == 1
    assert message in err
    assert not (files / "o.jsonl").exists()


def test_a_broken_question_is_named_with_its_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (files / "q.jsonl").open("a") as stream:
        stream.write('{"id": "c", "query": "?", "reference": "x", "grader": "exakt"}\n')
    code, _, err = collected(capsys)
    assert code == 1
    assert "q.jsonl:3: id 'c': unknown grader 'exakt'; did you mean 'exact'?" in err


def test_a_pool_that_cannot_be_reached_is_recorded_as_failed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = collected(capsys, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["complete"] == 2
    assert {model: sum(kinds.values()) for model, kinds in result["failed"].items()} == {"one": 2, "two": 2}
    assert result["mean_score"] == {"one": None, "two": None}
    rows = [json.loads(line) for line in (files / "o.jsonl").read_text().splitlines()]
    assert all(output["correct"] is None and output["error"] for row in rows for output in row["outputs"])
    code, out, _ = collected(capsys)
    assert code == 0
    assert "one failed on every question" in out
    assert "0 new calls. 4 outcomes were recorded before." in out


def test_choosing_says_what_it_asked_and_what_is_left(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (files / "eccos.yaml").read_text() + "  encoder: static\n"
    (files / "eccos.yaml").write_text(config)
    code, out, _ = collected(capsys, "--choose", "--budget-usd", "1", "--models", "two", "--json")
    assert code == 0
    result = json.loads(out)
    assert [(each["model"], each["asked"], each["scored"]) for each in result["models"]] == [("two", 2, 0)]
    assert {(each["id"], each["model"]) for each in result["asked"]} == {("a", "two"), ("b", "two")}
    assert result["left_usd"] <= 1
    code, out, _ = collected(capsys, "--choose", "--budget-usd", "1", "--models", "two")
    assert code == 0
    assert "0 new calls" in out
    assert "Left: " in out


def _logged(files: Path, *, texts: bool) -> None:
    from eccos_core.decision_log import DecisionEntry, DecisionLog
    from eccos_core.domain import Decision

    log = DecisionLog(files / "log.sqlite", log_prompts=texts)
    for number in range(3):
        decision = Decision(f"d{number}", f"r{number}", "one", 0.5, 0.1, 0.1, None, "scripted")
        log.add_decision(DecisionEntry(decision, f"Say {number % 2}", np.zeros(2, dtype=np.float32), 3, {}))
    log.close()


def _from_log(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(app, ["collect", "--from-log", "--out", "o.jsonl", "--dry-run", "--json", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_questions_of_the_log_are_asked_once_each(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (files / "eccos.yaml").open("a") as stream:
        stream.write("  decision_log: {path: log.sqlite, log_prompts: true}\n")
    code, _, err = _from_log(capsys)
    assert code == 1
    assert "holds no decision yet" in err
    _logged(files, texts=True)
    code, _, err = _from_log(capsys)
    assert code == 1
    assert "Name a judge in eccos.labels.judge" in err
    with (files / "eccos.yaml").open("a") as stream:
        stream.write("  labels: {judge: {model: two, budget_usd_per_day: 1}}\n")
    code, out, _ = _from_log(capsys)
    assert code == 0
    assert json.loads(out)["questions"] == 2


def test_a_log_without_texts_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (files / "eccos.yaml").open("a") as stream:
        stream.write("  decision_log: {path: log.sqlite}\n")
    _logged(files, texts=False)
    code, _, err = _from_log(capsys)
    assert code == 1
    assert "holds 3 decisions and none of their texts" in err
    assert "log_prompts: true" in err
