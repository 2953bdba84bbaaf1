"""`eccos ingest` and `eccos fit` over a part of the bundled history."""

import json
from pathlib import Path
from typing import Any

import pytest
from pocket_pool import QUESTIONS, write_outcomes_part, write_pool_config

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.plans import load_plan_rule


def printed_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_outcomes_are_ingested_once_and_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = str(write_outcomes_part(tmp_path))
    config = str(write_pool_config(tmp_path, "{path: history}"))
    assert run(app, ["route", "Is 7 larger than 3?", "-c", config, "--json"]) == DONE
    assert printed_json(capsys)["quality_source"] == "price_rank"  # the history is empty

    everything = {"questions": QUESTIONS, "outcomes": 4 * QUESTIONS, "warnings": []}
    for new in (4 * QUESTIONS, 0):
        assert run(app, ["ingest", outcomes, "-c", config, "--json"]) == DONE
        assert printed_json(capsys) == everything | {"new": new}
    assert run(app, ["ingest", outcomes, "-c", config]) == DONE
    assert capsys.readouterr().out == f"{QUESTIONS} questions, {4 * QUESTIONS} outcomes, 0 of them new\n"

    assert run(app, ["fit", "-c", config, "--json"]) == YOUR_INPUT
    assert "nowhere to write the predictor" in printed_json(capsys)["error"]["message"]
    folder = tmp_path / "predictor"
    assert run(app, ["fit", "-c", config, "--out", str(folder), "--json"]) == DONE
    report = printed_json(capsys)
    assert (report["predictor"], report["questions"], report["folder"]) == ("retrieval", QUESTIONS, str(folder))
    assert report["models"] == ["pocket-small", "pocket-medium", "pocket-maths", "pocket-large"]
    assert any(folder.iterdir())

    # a router of that folder decides without learning
    file = Path(config)
    file.write_text(
        file.read_text().replace("predictor: retrieval", "predictor: {kind: retrieval, artifact: predictor}")
    )
    assert run(app, ["route", "Is 7 larger than 3?", "-c", config, "--json"]) == DONE
    decision = printed_json(capsys)
    assert decision["model"] in report["models"]
    assert decision["quality_source"] == "outcomes"


def test_a_recorded_cost_in_a_wrong_unit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_pool_config(tmp_path, "{path: history}"))
    outcomes = tmp_path / "dear.jsonl"
    output = {"model": "pocket-small", "correct": 1, "input_tokens": 20, "output_tokens": 5, "cost_usd": 2.0}
    outcomes.write_text(json.dumps({"id": "a", "query": "Is 7 larger than 3?", "outputs": [output]}) + "\n")
    assert run(app, ["ingest", str(outcomes), "-c", config, "--json"]) == DONE
    told = capsys.readouterr()
    (warning,) = json.loads(told.out)["warnings"]
    assert "pocket-small: the recorded cost_usd is 1e+06 times tokens x price (question 'a'" in warning
    assert "warning: pocket-small" in told.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "outcomes.jsonl:1: not JSON"),
        ('{"id": "a", "query": "q", "outputs": [{"model": "pocket-small", "correct": 7}]}', "outcomes.jsonl:1: "),
    ],
)
def test_a_line_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    outcomes = tmp_path / "outcomes.jsonl"
    outcomes.write_text(line + "\n")
    config = write_pool_config(tmp_path, "in_memory")
    assert run(app, ["ingest", str(outcomes), "-c", str(config)]) == YOUR_INPUT
    assert message in capsys.readouterr().err


def test_files_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_pool_config(tmp_path, "in_memory"))
    missing = str(tmp_path / "missing")
    for arguments in (
        ["ingest", missing, "-c", config],
        ["fit", "-c", missing],
        ["fit", "-c", config, "--data", missing, "--out", missing],
    ):
        assert run(app, arguments) == YOUR_INPUT
        assert "missing" in capsys.readouterr().err


def test_outcomes_are_not_added_to_a_history_that_ends_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = tmp_path / "outcomes.jsonl"
    outcomes.write_text('{"id": "q", "query": "why?", "outputs": [{"model": "pocket-small", "correct": 1}]}\n')
    config = write_pool_config(tmp_path, "in_memory")
    assert run(app, ["ingest", str(outcomes), "-c", str(config)]) == YOUR_INPUT
    said = " ".join(capsys.readouterr().err.split())
    assert "eccos.history is in memory" in said
    assert "{path: FOLDER}" in said


def test_a_fit_learns_to_judge_answers_where_outcomes_have_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = str(write_pool_config(tmp_path, "{path: history}")), tmp_path / "predictor"
    plain = tmp_path / "plain.jsonl"
    rows = [json.loads(line) for line in write_outcomes_part(tmp_path).read_text().splitlines()]
    for output in (output for row in rows for output in row["outputs"]):
        output.pop("answer", None)
        output.pop("features", None)
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(app, ["fit", "-c", config, "--data", str(plain), "--out", str(folder), "--json"]) == DONE
    assert printed_json(capsys)["plans"] is None
    assert not (folder / "plans").exists()

    for row in rows:
        for place, output in enumerate(row["outputs"]):
            output["answer"] = "right" if output["correct"] else f"wrong {place}"
    told = tmp_path / "told.jsonl"
    told.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(app, ["fit", "-c", config, "--data", str(told), "--out", str(folder), "--json"]) == DONE
    plans = printed_json(capsys)["plans"]
    assert plans["questions"] == QUESTIONS
    assert plans["auc"] > plans["forecast_auc"]
    names = ["pocket-large", "pocket-small", "pocket-maths", "pocket-medium"]
    assert load_plan_rule(folder / "plans", names).verifier.models == tuple(names)
    assert run(app, ["fit", "-c", config, "--data", str(told), "--out", str(folder)]) == DONE
    assert "Learned to judge answers from 120 questions" in capsys.readouterr().out
