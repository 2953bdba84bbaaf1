"""Verifiers and plan rules: learned from graded answers, kept in a folder, refused for another pool."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core.domain import AnswerConfidence, OutcomeTable
from eccos_core.errors import ArtifactError, InputError
from eccos_core.plans import (
    GradedAnswers,
    PlanReport,
    PlanRule,
    PlanState,
    RuleOfThumbVerifier,
    fit_plan_rule,
    load_plan_rule,
    save_plan_rule,
)
from eccos_core.plans.evidence import fit_evidence
from eccos_core.plans.fit import choose_trust
from eccos_core.plans.fit_joint import fit_joint, fit_loading
from eccos_core.plans.joint import NODE_WEIGHTS, condition
from eccos_core.plans.texts import agree, code_answers, normalise
from eccos_core.plans.verifier import LearnedVerifier

MODELS = ("a", "b", "c", "d")
COST = np.array([0.001, 0.003, 0.004, 0.02])


def graded(rows: int = 600, *, hidden: float = 1.2, seed: int = 0, blank: bool = False) -> GradedAnswers:
    """Right answers agree, wrong ones in one case of four. `hidden`: how far a difficulty nobody forecast moves all."""
    draw = np.random.default_rng(seed)
    ease = draw.normal(size=(rows, 1)) + np.array([0.3, 0.8, 1.2, 2.0])
    forecast = condition(1 / (1 + np.exp(-ease)), np.zeros(4))[..., 0]
    z = draw.choice(7, size=rows, p=NODE_WEIGHTS)
    good = draw.random((rows, 4)) < condition(forecast, np.full(4, hidden))[np.arange(rows), :, z]
    letters = np.where(good, 0, draw.integers(1, 5, (rows, 4)))
    texts = np.array([["ABCDE"[each] for each in line] for line in letters], dtype=object)
    logprob = np.where(good, -0.2, -0.5) + 0.2 * draw.normal(size=good.shape)
    table = OutcomeTable(
        question_ids=tuple(map(str, range(rows))),
        queries=tuple(map(str, range(rows))),
        models=MODELS,
        quality=good.astype(np.float64),
        input_tokens=np.full((rows, 4), 10.0),
        output_tokens=np.full((rows, 4), 20.0),
        answers=None if blank else texts,
        features={} if blank else {"mean_logprob": np.minimum(logprob, 0.0)},
    )
    return GradedAnswers.of(table, forecast, np.full((rows, 4), 20.0), np.tile(COST, (rows, 1)))


@pytest.fixture(scope="module")
def fitted() -> tuple[PlanRule, PlanReport]:
    found = fit_plan_rule(graded())
    assert found is not None
    return found


def test_a_rule_learns_that_agreement_and_log_probability_tell(fitted: tuple[PlanRule, PlanReport]) -> None:
    rule, report = fitted
    assert rule.verifier.learned
    assert rule.trust > 0
    assert report.gain > report.gain_se
    assert report.log_loss < report.forecast_log_loss - 0.1
    assert report.auc > report.forecast_auc + 0.1
    start = PlanState.start(MODELS, np.full(4, 0.6), COST)
    sure, unsure = (start.after("a", AnswerConfidence(mean_logprob=value)) for value in (-0.05, -0.9))
    assert rule.verifier.quality(sure)[0, 0] > 0.6 > rule.verifier.quality(unsure)[0, 0]
    agreed, differs = (sure.after("b", None, [same]) for same in (1.0, 0.0))
    assert rule.verifier.quality(agreed)[0, 0] > rule.verifier.quality(sure)[0, 0]
    assert rule.verifier.quality(differs)[0, 0] < rule.verifier.quality(sure)[0, 0]


def test_p_good_is_calibrated_on_other_questions(fitted: tuple[PlanRule, PlanReport]) -> None:
    verifier, fresh = fitted[0].verifier, graded(3000, seed=9)
    state = PlanState.start(MODELS, fresh.forecast, fresh.cost_usd, fresh.output_tokens)
    for model in (0, 1):
        same = agree(fresh.codes[:, :model], fresh.codes[:, [model]])
        told = {"mean_logprob": fresh.features["mean_logprob"][:, model]}
        state = state.after_each(np.full(3000, model), told, same, np.ones(3000, dtype=bool))
    judged = verifier.quality(state)
    for model in range(4):  # given answers, and those of models that were not asked
        place = np.digitize(judged[:, model], np.quantile(judged[:, model], [0.2, 0.4, 0.6, 0.8]))
        for part in range(5):
            rows = place == part
            assert judged[rows, model].mean() == pytest.approx(fresh.quality[rows, model].mean(), abs=0.08)


def test_the_hidden_difficulty_is_found() -> None:
    for hidden in (0.3, 2.0):
        answers = graded(3000, hidden=hidden)
        assert fit_loading(answers.forecast, answers.quality).mean() == pytest.approx(hidden, abs=0.35)


def test_how_often_answers_agree_is_found() -> None:
    joint = fit_joint(graded(2000))
    assert joint.both_right > 0.98
    assert joint.mixed < 0.02
    terms = joint.questions(np.full((1, 4), 0.6), np.full((1, 4), 20.0))
    assert terms.same_wrong[0, 0, 1] == pytest.approx(0.25, abs=0.08)


def test_an_answer_that_is_unknown_changes_nothing(fitted: tuple[PlanRule, PlanReport]) -> None:
    """Whether an answer is null says nothing of it."""
    verifier = fitted[0].verifier
    assert isinstance(verifier, LearnedVerifier)
    state = PlanState.start(MODELS, np.full(4, 0.6), COST).after("a", answer_known=False)
    assert verifier.belief(state).quality()[0] == pytest.approx(0.6, abs=1e-6)
    second = state.after("b", None, [None])
    assert verifier.belief(second).quality()[0] == pytest.approx(0.6, abs=1e-6)


def test_features_that_tell_nothing_weigh_nothing() -> None:
    answers = graded(800)
    noise = {"judge": np.random.default_rng(3).random(answers.quality.shape)}
    evidence = fit_evidence(noise, answers.forecast, answers.quality)
    assert np.abs(evidence.log_ratio(noise, np.tile(np.arange(4), (800, 1)))).mean() < 0.25
    assert (evidence.log_ratio({}, np.array([0, 1])) == 0).all()


def test_nothing_is_learned_from_answers_that_tell_nothing_or_are_few() -> None:
    assert fit_plan_rule(graded(blank=True)) is None
    assert fit_plan_rule(graded(40)) is None


def test_trust_is_zero_unless_plans_gain_more_than_their_error() -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(5, 400))
    noise[0] = 0
    assert choose_trust(noise - 0.2)[0] == 0
    steady = np.outer([0, 0.1, 0.2, 0.3, 0.4], np.ones(400)) + 0.01 * draw.normal(size=(5, 400))
    assert choose_trust(steady)[0] == 1.0
    level = np.outer([0, 0.4, 0.4, 0.4, 0.4], np.ones(400)) + 0.1 * draw.normal(size=(5, 400))
    assert choose_trust(level)[0] <= 0.5


def test_a_plan_says_what_it_does_and_why(fitted: tuple[PlanRule, PlanReport]) -> None:
    rule = replace(fitted[0], trust=1.0)
    start = PlanState.start(MODELS, np.array([0.5, 0.6, 0.65, 0.7]), COST)
    first = start.after("a", AnswerConfidence(mean_logprob=-0.6))
    step = rule.next_step(first, 1.0)
    assert step.accept is None
    assert step.ask in ("b", "c", "d")
    assert step.ask in step.reason
    assert step.gain_usd > 0
    assert rule.next_step(first, 1e-6).accept == "a"
    assert rule.next_step(first, 1.0, np.array([True, False, False, False])).accept == "a"
    done = first.after("b", None, [0.0]).after("c", None, [0.0, 1.0])
    last = rule.next_step(done, 100.0)
    assert last.accept in ("b", "c")
    assert "3 calls" in last.reason


def test_a_rule_with_few_followers_asks_nobody_else(fitted: tuple[PlanRule, PlanReport]) -> None:
    rule = replace(fitted[0], trust=1.0, followers=("b",))
    start = PlanState.start(MODELS, np.array([0.5, 0.6, 0.65, 0.7]), COST)
    assert rule.next_step(start.after("a"), 1.0).ask == "b"
    assert rule.next_step(start.after("b"), 1.0).ask is None
    assert rule.first_values(start, 1.0).calls[0, 1] == 1


# ------------------------------------------------------------------------------------------------------- artifacts


def test_a_saved_rule_decides_the_same(fitted: tuple[PlanRule, PlanReport], tmp_path: Path) -> None:
    rule, report = fitted
    save_plan_rule(rule, report, tmp_path / "plans")
    save_plan_rule(rule, report, tmp_path / "plans")
    again = load_plan_rule(tmp_path / "plans", MODELS)
    fresh = graded(50, seed=4)
    state = PlanState.start(MODELS, fresh.forecast, fresh.cost_usd, fresh.output_tokens)
    for field in ("quality", "cost_usd", "calls"):
        assert np.array_equal(
            getattr(rule.first_values(state, 0.1), field), getattr(again.first_values(state, 0.1), field)
        )
    assert (again.trust, again.max_calls) == (rule.trust, rule.max_calls)
    assert sorted(path.name for path in (tmp_path / "plans").iterdir()) == ["plans.json", "plans.safetensors"]
    assert json.loads((tmp_path / "plans" / "plans.json").read_text())["held_out"]["questions"] == 600


def test_a_rule_knows_its_pool(fitted: tuple[PlanRule, PlanReport], tmp_path: Path) -> None:
    save_plan_rule(*fitted, tmp_path / "plans")
    with pytest.raises(ArtifactError, match="a verifier of another pool: it does not know gpt"):
        load_plan_rule(tmp_path / "plans", ["a", "gpt"])
    with pytest.raises(ArtifactError, match="a verifier of another pool"):
        fitted[0].first_values(PlanState.start(("a", "gpt"), np.full(2, 0.5), COST[:2]), 1.0)
    fewer = load_plan_rule(tmp_path / "plans", ["d", "a"])
    state = PlanState.start(("d", "a"), np.full(2, 0.5), COST[[3, 0]])
    assert fewer.first_values(state, 1.0).quality.shape == (1, 2)


def test_what_is_no_rule_is_refused(fitted: tuple[PlanRule, PlanReport], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no plans here"):
        load_plan_rule(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ArtifactError, match="holds no plans"):
        save_plan_rule(*fitted, tmp_path / "mine")
    save_plan_rule(*fitted, tmp_path / "plans")
    manifest = json.loads((tmp_path / "plans" / "plans.json").read_text())
    (tmp_path / "plans" / "plans.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ArtifactError, match="version"):
        load_plan_rule(tmp_path / "plans")
    (tmp_path / "plans" / "plans.json").write_text(json.dumps({**manifest, "models": ["a"]}))
    with pytest.raises(ArtifactError, match="damaged"):
        load_plan_rule(tmp_path / "plans")
    with pytest.raises(InputError, match="rule of thumb"):
        save_plan_rule(PlanRule(RuleOfThumbVerifier.of(MODELS), 0.5), fitted[1], tmp_path / "thumb")


# -------------------------------------------------------------------------------------------------- a rule of thumb


def test_a_rule_of_thumb_says_that_it_learned_nothing_and_still_judges() -> None:
    verifier = RuleOfThumbVerifier.of(MODELS, ["mean_logprob"])
    assert not verifier.learned
    start = PlanState.start(MODELS, np.full(4, 0.6), COST)
    assert (verifier.quality(start) == 0.6).all()
    sure, unsure = (start.after("a", AnswerConfidence(mean_logprob=value)) for value in (-0.02, -1.2))
    assert verifier.quality(sure)[0, 0] > 0.6 > verifier.quality(unsure)[0, 0]
    assert verifier.quality(start.after("a", AnswerConfidence(refuses=1.0)))[0, 0] < 0.3
    with pytest.raises(InputError, match="unknown features: mood"):
        RuleOfThumbVerifier.of(MODELS, ["mood"])


def test_two_answers_that_agree_in_part_lie_between() -> None:
    verifier = RuleOfThumbVerifier.of(MODELS)
    first = PlanState.start(MODELS, np.full(4, 0.6), COST).after("a")
    judged = [verifier.quality(first.after("b", None, [same]))[0, 0] for same in (0.0, 0.5, 1.0)]
    assert judged[0] < judged[1] < judged[2]


# -------------------------------------------------------------------------------------------------------- bad input


def test_bad_states_are_refused() -> None:
    start = PlanState.start(MODELS, np.full(4, 0.6), COST)
    with pytest.raises(InputError, match="not in this plan's pool"):
        start.after("gpt")
    with pytest.raises(InputError, match="1 answers so far"):
        start.after("a").after("b", None, [1.0, 1.0])
    with pytest.raises(InputError, match="cost_usd has shape"):
        PlanState.start(MODELS, np.full(4, 0.6), COST[:2])
    with pytest.raises(InputError, match="unknown feature 'mood'"):
        replace(start, features={"mood": np.zeros((1, 0))})
    rule = PlanRule(RuleOfThumbVerifier.of(MODELS), 0.5)
    with pytest.raises(InputError, match="has no next step"):
        rule.next_steps(start, 1.0)
    with pytest.raises(InputError, match="without answers"):
        rule.first_plans(start.after("a"))
    with pytest.raises(InputError, match="must be in"):
        PlanRule(rule.verifier, 1.5)
    with pytest.raises(InputError, match="max_calls"):
        PlanRule(rule.verifier, 0.5, 0)


def test_texts_that_say_the_same_are_equal() -> None:
    assert [normalise(text) for text in (" B. ", "1,000.0", "$42", "New  York")] == ["b", "1000", "42", "new york"]
    codes = code_answers(np.array(["B", "b.", None, "7", "7.0"], dtype=object), {})
    assert codes.tolist() == [0, 0, -1, 1, 1]
    assert np.isnan(agree(codes[:1], codes[2:3])[0])
