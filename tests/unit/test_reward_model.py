"""The reward model: what it learns, what it promises, and which answers it refuses to learn from or to score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eccos_core.encoders.surface import SurfaceEncoder
from eccos_core.errors import ArtifactError, DataError, InputError, UnknownModelError
from eccos_core.grading.reward import RewardModel, RewardReport, fit_reward, load_reward, save_reward
from eccos_core.grading.reward.features import SURFACE, answer_features
from eccos_core.grading.reward.logistic import fit_logistic, sigmoid
from eccos_core.grading.reward.report import area_under_curve
from eccos_core.io.answers import Answer, GradedAnswer, read_answers

ENCODER = SurfaceEncoder()
POOL = ("small", "large")


def draw_answers(questions: int = 150, seed: int = 0, honest: float = 1.0) -> list[GradedAnswer]:
    """Answers of two models. A share `honest` of the bad ones refuse, the others look like the good ones."""
    draw = np.random.default_rng(seed)
    graded = []
    for number in range(questions):
        question = f"What is {number} + {draw.integers(1, 99)}?"
        for model, share in zip(POOL, (0.4, 0.8), strict=True):
            good = draw.random() < share
            tells = not good and draw.random() < honest
            text = "I'm sorry, I cannot help with that." if tells else f"{question[8:-1]} makes {draw.integers(99)}."
            graded.append(GradedAnswer(Answer(question, model, text, len(text) // 4), float(good)))
    return graded


@pytest.fixture(scope="module")
def fitted() -> tuple[RewardModel, RewardReport]:
    return fit_reward(draw_answers(honest=0.7), ENCODER)


def test_it_tells_refusals_from_answers_on_questions_it_has_not_seen(fitted: tuple[RewardModel, RewardReport]) -> None:
    reward, report = fitted
    fresh = draw_answers(seed=1, honest=0.7)
    scores = reward.score([each.answer for each in fresh])
    quality = np.array([each.quality for each in fresh])
    auc = area_under_curve(scores, quality > 0.5)
    assert auc is not None
    assert auc > 0.85
    assert report.better_than_chance
    assert report.auc == pytest.approx(auc, abs=0.05), "the held-out report tells what fresh answers show"
    assert report.brier == pytest.approx(float(np.mean((scores - quality) ** 2)), abs=0.03)
    assert report.brier < report.brier_of_means - 0.05


def test_the_mean_reward_of_each_model_is_that_of_its_grades(fitted: tuple[RewardModel, RewardReport]) -> None:
    _, report = fitted
    assert [each.model for each in report.models] == list(POOL)
    for each in report.models:
        assert each.answers == 150
        assert each.reward == pytest.approx(each.quality, abs=0.04)
    assert report.calibration_error < 0.08


def test_where_answers_tell_nothing_every_reward_is_near_the_models_mean() -> None:
    reward, report = fit_reward(draw_answers(honest=0.0), ENCODER)
    assert not report.better_than_chance
    fresh = draw_answers(seed=1, honest=0.0)
    for model, share in zip(POOL, (0.4, 0.8), strict=True):
        scores = reward.score([each.answer for each in fresh if each.answer.model == model])
        assert scores.mean() == pytest.approx(share, abs=0.1)
        assert scores.std() < 0.1


def test_grades_may_be_fractions() -> None:
    graded = [replace(each, quality=0.2 + 0.7 * each.quality) for each in draw_answers()]
    reward, report = fit_reward(graded, ENCODER)
    assert report.auc > 0.95
    refusal, answer = reward.score(
        [Answer("What is 2 + 2?", "large", text) for text in ("I'm sorry, I cannot help with that.", "2 + 2 makes 4.")]
    )
    assert refusal < 0.4 < 0.75 < answer


@pytest.mark.parametrize(
    ("graded", "found"),
    [
        (draw_answers(49), "98 graded answers to 49 questions"),
        ([replace(each, quality=1.0) for each in draw_answers()], "300 of them good"),
        ([replace(each, quality=0.0) for each in draw_answers()], "0 of them good"),
        ([replace(each, answer=replace(each.answer, question="q")) for each in draw_answers()], "to 1 questions"),
        ([], "0 graded answers"),
    ],
)
def test_too_little_to_learn_from_is_refused(graded: list[GradedAnswer], found: str) -> None:
    with pytest.raises(InputError, match=rf"too little to learn from: .*{found}.*needs 100 answers"):
        fit_reward(graded, ENCODER)


def test_the_same_answers_give_the_same_model() -> None:
    first, second = (fit_reward(draw_answers(60), ENCODER)[0] for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)


def test_features_know_refusals_cuts_overlap_and_never_the_model() -> None:
    asked = "Which river runs through Paris?"
    one = Answer(asked, "small", "The river Seine runs there.", 6)
    rows = answer_features(
        [
            one,
            replace(one, model="large"),
            replace(one, text="I don\u2019t know."),
            replace(one, finish_reason="length"),
            replace(one, output_tokens=None),
        ],
        ENCODER,
    )
    surface = [dict(zip(SURFACE, row[3 * ENCODER.dimensions :].tolist(), strict=True)) for row in rows]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert [row["refuses"] for row in surface] == [0, 0, 1, 0, 0]
    assert [row["cut off"] for row in surface] == [0, 0, 0, 1, 0]
    assert [row["output tokens unknown"] for row in surface] == [0, 0, 0, 0, 1]
    assert surface[0]["share of the question's words"] == pytest.approx(2 / 5)
    assert surface[0]["share of words from the question"] == pytest.approx(2 / 5)
    vectors = ENCODER.encode([asked, one.text])
    assert surface[0]["similarity to the question"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


def test_a_saved_model_scores_as_before(tmp_path: Path, fitted: tuple[RewardModel, RewardReport]) -> None:
    reward, report = fitted
    save_reward(reward, report, tmp_path / "reward")
    save_reward(reward, report, tmp_path / "reward")
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["reward", "reward.json", "weights.safetensors"]
    answers = [each.answer for each in draw_answers(20, seed=2)]
    loaded = load_reward(tmp_path / "reward", ENCODER, POOL)
    np.testing.assert_array_equal(loaded.score(answers), reward.score(answers))
    assert load_reward(tmp_path / "reward", ENCODER, ["large"]).models == POOL, "a model may be left out"
    about = json.loads((tmp_path / "reward" / "reward.json").read_text())
    assert about["held_out"]["auc"] == report.auc
    with pytest.raises(UnknownModelError):
        loaded.score([replace(answers[0], model="medium")])


class Renamed(SurfaceEncoder):
    """The same vectors by another name."""

    @property
    def name(self) -> str:
        return "another"


def test_another_encoder_or_pool_is_refused(tmp_path: Path, fitted: tuple[RewardModel, RewardReport]) -> None:
    save_reward(*fitted, tmp_path / "reward")
    with pytest.raises(ArtifactError, match=r"fitted with encoder 'surface:v1', this router reads with 'another'"):
        load_reward(tmp_path / "reward", Renamed(), POOL)
    with pytest.raises(ArtifactError, match=r"another pool. It saw no answer of medium, only of small, large"):
        load_reward(tmp_path / "reward", ENCODER, ["small", "medium"])
    with pytest.raises(ArtifactError, match="no reward model here"):
        load_reward(tmp_path / "elsewhere", ENCODER, POOL)


def spoil_json(folder: Path) -> None:
    (folder / "reward.json").write_text("{")


def spoil_version(folder: Path) -> None:
    path = folder / "reward.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))


def spoil_weights(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"nothing")


def spoil_models(folder: Path) -> None:
    path = folder / "reward.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"models": [*POOL, "more"]}))


@pytest.mark.parametrize("spoil", [spoil_json, spoil_version, spoil_weights, spoil_models])
def test_a_damaged_model_is_refused(tmp_path: Path, fitted: tuple[RewardModel, RewardReport], spoil: Any) -> None:
    save_reward(*fitted, tmp_path / "reward")
    spoil(tmp_path / "reward")
    with pytest.raises(ArtifactError, match=r"Run `eccos fit-reward` again"):
        load_reward(tmp_path / "reward", ENCODER, POOL)


def test_a_folder_of_something_else_stays(tmp_path: Path, fitted: tuple[RewardModel, RewardReport]) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ArtifactError, match="is no reward model of eccos"):
        save_reward(*fitted, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("key", ["text", "answer"])  # older files name the text `answer`
def test_answers_are_read_with_their_grades(tmp_path: Path, key: str) -> None:
    row = {
        "id": "a",
        "query": "What?",
        "outputs": [
            {"model": "m", "correct": 1, key: "four", "output_tokens": 3, "finish_reason": "length"},
            {"model": "n", "correct": 0, key: None},
            {"model": "o", "correct": None, key: "lost", "error": "grading"},
            {"model": "p", "attempts": [{"correct": 1, key: "4"}, {"correct": 0, key: "5"}]},
        ],
    }
    found = read_answers(write(tmp_path / "o.jsonl", row, row))
    assert found == [
        GradedAnswer(Answer("What?", "m", "four", 3, "length"), 1.0),
        GradedAnswer(Answer("What?", "p", "4"), 1.0),
        GradedAnswer(Answer("What?", "p", "5"), 0.0),
    ]


def test_a_final_answer_is_no_text_of_an_answer(tmp_path: Path) -> None:
    outputs = [
        {"model": "m", "correct": 1, "answer": "4", "text": "It is 4.", "features": {"refuses": 0}},
        {"model": "n", "correct": 1, "answer": "4"},
        {"model": "o", "correct": 1, "answer": "4", "features": {"refuses": 0}},
    ]
    found = read_answers(write(tmp_path / "o.jsonl", {"id": 7, "query": "What?", "outputs": outputs}))
    assert [each.answer.text for each in found] == ["It is 4."]
    assert read_answers(write(tmp_path / "o.jsonl", {"id": 7, "query": "What?", "outputs": outputs[2:]})) == []


def test_a_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    row = {"id": 7, "query": "What?", "outputs": [{"model": "m", "correct": 1, "text": 4}]}
    with pytest.raises(DataError, match=r"o.jsonl.*1.*id 7 \(m\): text is the number 4, must be a text or null"):
        read_answers(write(tmp_path / "o.jsonl", row))


def test_a_fit_is_the_maximum_of_the_posterior() -> None:
    draw = np.random.default_rng(3)
    features = draw.normal(size=(200, 5)).astype(np.float32)
    observed = sigmoid(features @ np.array([1.0, -2.0, 0.0, 0.5, 0.0])) > draw.random(200)
    used = np.stack([np.ones(200, dtype=np.bool_), np.arange(200) < 120], axis=1)
    precision, prior = np.array([1.0, 1.0, 5.0, 1.0, 0.1]), np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    weights = fit_logistic(features, observed.astype(np.float64), used, precision, prior)
    for column in range(2):
        rows = features[used[:, column]]
        residual = observed[used[:, column]] - sigmoid(rows @ weights[:, column])
        gradient = rows.T @ residual - precision * (weights[:, column] - prior)
        assert np.abs(gradient).max() < 0.15, "of some hundred rows, each with a gradient of about one"


def test_the_area_under_the_curve_counts_pairs() -> None:
    draw = np.random.default_rng(4)
    score, good = draw.integers(0, 5, 60) / 5, draw.random(60) < 0.4
    pairs = score[good][:, None] - score[~good][None, :]
    assert area_under_curve(score, good) == pytest.approx(float(np.mean((pairs > 0) + 0.5 * (pairs == 0))))
    assert area_under_curve(score, np.zeros(60, dtype=np.bool_)) is None
