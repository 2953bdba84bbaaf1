"""From answers to labels: `eccos collect --keep-answers`, `eccos fit-reward`, and a router that labels its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eccos_core import Router
from eccos_core.cli import app
from eccos_core.cli.output import run
from eccos_core.errors import ArtifactError
from eccos_core.labelling import BackgroundLabeller
from eccos_core.pocket import pocket_names
from eccos_core.pocket.questions import PocketQuestion, generate_questions
from tests.support.pocket_pool import write_outcomes_part, write_pool_config

QUESTIONS = 40
MODELS = pocket_names()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket pool, and the answers of all its models to a few dozen questions."""
    folder = tmp_path_factory.mktemp("reward")
    write_outcomes_part(folder)
    write_pool_config(folder, "{outcomes: outcomes.jsonl}")
    (folder / "questions.jsonl").write_text(lines(generate_questions(QUESTIONS, seed=5)))
    command = ["collect", "-c", folder / "eccos.yaml", "-q", folder / "questions.jsonl", "-o", folder / "answers.jsonl"]
    assert run(app, [*map(str, command), "--keep-answers", "--max-tokens", "24", "--json"]) == 0
    return folder


def lines(questions: list[PocketQuestion]) -> str:
    return "".join(json.dumps(question.as_row()) + "\n" for question in questions)


def fit(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str, answers: str = "answers.jsonl") -> Any:
    command = ["fit-reward", "-c", folder / "eccos.yaml", "--outcomes", folder / answers, "--out", folder / "reward"]
    capsys.readouterr()
    code = run(app, [*map(str, command), *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_router_labels_with_a_reward_model_fitted_to_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = fit(folder, capsys, "--json")
    assert code == 0
    held_out = json.loads(out)["held_out"]
    assert held_out["answers"] == QUESTIONS * len(MODELS)
    assert {each["model"] for each in held_out["models"]} == set(MODELS)
    assert held_out["auc"] > 0.6

    file = folder / "eccos.yaml"
    file.write_text(file.read_text() + "  labels: {reward: reward}\n")
    with Router.from_yaml(file) as router:
        decision = router.complete("What is 17 * 23?", max_tokens=24).decision
        assert decision is not None
        labeller = router.parts.answer_observer
        assert isinstance(labeller, BackgroundLabeller)
        labeller.wait()
        log = router.decision_store.log
        assert log is not None
        log.flush()
        logged = log.get(decision.id)
        assert logged is not None
        assert logged.label_source == "reward"
        assert logged.label is not None
        assert 0 < logged.label < 1

    about = folder / "reward" / "reward.json"
    kept = about.read_text()
    about.write_text(kept.replace('"pocket-maths"', '"somebody-else"'))
    with pytest.raises(ArtifactError, match=r"another pool. It saw no answer of pocket-maths"):
        Router.from_yaml(file)
    about.write_text(kept)


def test_people_read_a_table_by_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = fit(folder, capsys)
    assert code == 0
    assert all(model in out for model in MODELS)
    assert "Brier score" in out
    assert f"Fitted a reward model to {QUESTIONS * len(MODELS)} answers" in out


def without(row: dict[str, Any], model: str) -> dict[str, Any]:
    return row | {"outputs": [output for output in row["outputs"] if output["model"] != model]}


def without_answers(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"outputs": [{key: output[key] for key in ("model", "correct")} for output in row["outputs"]]}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: [without(row, "pocket-large") for row in rows], "keeps no graded answer of pocket-large"),
        (lambda rows: [without_answers(row) for row in rows], "keeps no graded answer of this pool"),
        (lambda rows: rows[:20], "too little to learn from: 80 graded answers"),
    ],
)
def test_answers_that_do_not_do_are_refused_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Any, message: str
) -> None:
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    (folder / "spoilt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spoil(rows)))
    code, out, err = fit(folder, capsys, answers="spoilt.jsonl")
    assert (code, out) == (1, "")
    assert message in " ".join(err.split())
